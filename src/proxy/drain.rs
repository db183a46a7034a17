//! How far a drain has come. Written by the control thread, looked at by every worker.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// Steps of a drain, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// No drain.
    Serving = 0,
    /// Not ready any more, still accepting.
    Announced = 1,
    /// Nothing new is accepted; each connection's next response says `Connection: close`.
    Closing = 2,
    /// Idle connections are closed as well.
    ClosingIdle = 3,
    /// The time for requests is over; tunnels and streams go on.
    CutRequests = 4,
    /// The time for everything is over.
    CutAll = 5,
}

/// The present phase.
#[derive(Debug, Default)]
pub struct Drain {
    /// Only ever grows. Relaxed: workers look again at every tick.
    phase: AtomicU8,
}

impl Drain {
    /// Not draining.
    pub fn new() -> Arc<Drain> {
        Arc::default()
    }

    /// Where we are.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Serving,
            1 => Phase::Announced,
            2 => Phase::Closing,
            3 => Phase::ClosingIdle,
            4 => Phase::CutRequests,
            _ => Phase::CutAll,
        }
    }

    /// Goes on to `phase`; never back.
    pub fn advance(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::Relaxed);
    }
}
