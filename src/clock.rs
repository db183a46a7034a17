//! Coarse monotonic time as a number, for what lives in atomics and is shared between threads.

use std::sync::OnceLock;
use std::time::Duration;

use tokio::time::Instant;

/// Milliseconds since this process first asked for the time. Never zero, so that zero can mean
/// "never" in an atomic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Millis(pub u64);

/// Nanoseconds since then: where milliseconds are too coarse. Never zero, as [`Millis`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Nanos(pub u64);

/// From when on this process counts.
fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now)
}

impl Nanos {
    /// The present, as [`Millis::now`].
    pub fn now() -> Nanos {
        Nanos::of(Instant::now())
    }

    /// That moment; the start, if it was before.
    pub fn of(moment: Instant) -> Nanos {
        // Enough for 584 years.
        Nanos(moment.saturating_duration_since(start()).as_nanos() as u64 + 1)
    }
}

impl Millis {
    /// The present. Follows tokio's clock on a runtime whose clock is paused.
    pub fn now() -> Millis {
        // Before the present is taken, so that it is not later.
        let start = start();
        Millis(Instant::now().saturating_duration_since(start).as_millis() as u64 + 1)
    }

    /// This moment plus `wait`.
    pub fn after(self, wait: Duration) -> Millis {
        Millis(self.0.saturating_add(wait.as_millis() as u64))
    }

    /// How long from `earlier` to this moment; zero if `earlier` is later.
    pub fn since(self, earlier: Millis) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}
