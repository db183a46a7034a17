//! The client connections of a worker: how many there are, when a burst of them is over, and which are
//! closed where memory runs short.

use std::cell::Cell;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use super::Worker;
use crate::events::Event;
use crate::proxy::limits::{Admitted, Refused};
use crate::proxy::seating::Seat;
use crate::telemetry::metrics;

/// The client connections of a worker.
#[derive(Debug, Default)]
pub struct Crowd {
    /// Open ones.
    pub connections: Tide,
    /// Those who code responses for them.
    pub coders: Tide,
    /// The control thread has to be told that a burst is over.
    burst_over: Cell<bool>,
    /// So many idle ones are to be closed for want of memory.
    to_shed: Cell<usize>,
    /// In this round.
    shed_in: Cell<u32>,
}

/// How many there are of something, and the most there were since they last became noticeably fewer.
#[derive(Debug, Default)]
pub struct Tide {
    now: Cell<usize>,
    most: Cell<usize>,
}

impl Tide {
    /// How many there are.
    pub fn get(&self) -> usize {
        self.now.get()
    }

    /// One more.
    pub fn rise(&self) {
        let now = self.now.get() + 1;
        self.now.set(now);
        self.most.set(self.most.get().max(now));
    }

    /// One less.
    pub fn fall(&self) {
        self.now.set(self.now.get() - 1);
    }

    /// Are there noticeably fewer than there were, and no less than `least`? Says so once.
    fn has_ebbed(&self, least: usize) -> bool {
        let (now, most) = (self.now.get(), self.most.get());
        let ebbed = most - now >= least.max(most / 4);
        if ebbed {
            self.most.set(now);
        }
        ebbed
    }
}

impl Worker {
    /// Where memory runs short, a share of the connections is to be closed now, as far as they are
    /// idle. To be called at every tick of the deadlines. O(connections) once in a round, else O(1).
    pub fn shed(&self) {
        let pressure = &self.shared.limits.pressure;
        let round = pressure.round();
        let share = match self.crowd.shed_in.replace(round) == round {
            // Who was not idle then is not this round's any more.
            true => 0,
            false => pressure.share(self.crowd.connections.get()),
        };
        self.crowd.to_shed.set(share);
        if share > 0 {
            self.deadlines.wake_all();
        }
    }

    /// Is a connection that has been idle for so long to be closed for want of memory? If so, it is
    /// counted. Whoever became idle just now may be about to ask, and is let be.
    pub fn sheds(&self, idle: impl FnOnce() -> Duration) -> bool {
        let left = self.crowd.to_shed.get();
        if left == 0 || idle() < LEAST_IDLE {
            return false;
        }
        self.crowd.to_shed.set(left - 1);
        self.metrics.shed();
        true
    }

    /// Tells the control thread when a burst is over: so many runners and large buffers were dropped
    /// at this tick, or there are noticeably fewer connections or coders than there were.
    pub(super) fn note_burst(&self, runners: usize, buffers: usize) {
        let crowd = &self.crowd;
        let ebbed = [
            crowd.connections.has_ebbed(BURST),
            crowd.coders.has_ebbed(BURST_CODERS),
        ];
        if ebbed.contains(&true) || runners >= BURST || buffers >= BURST_BUFFERS {
            crowd.burst_over.set(true);
        }
        // A full queue is tried again at the next tick.
        if crowd.burst_over.get() && self.shared.events.try_send(Event::BurstOver).is_ok() {
            crowd.burst_over.set(false);
        }
    }
}

/// Counts an open client connection until it is dropped. It belongs to no generation.
#[derive(Debug)]
pub struct OpenConnection {
    crowd: Rc<Crowd>,
    admitted: Admitted,
    _counted: metrics::OpenConnection,
    _seat: Seat,
}

impl OpenConnection {
    /// Counts one more of the client at `address`, unless a limit forbids it. `seat`: at this
    /// worker; `listener`: where it came.
    pub fn open(
        worker: &Worker,
        seat: Seat,
        listener: usize,
        address: IpAddr,
    ) -> Result<OpenConnection, Refused> {
        let admitted = match worker.shared.limits.admit(address) {
            Ok(admitted) => admitted,
            Err(refused) => {
                worker.metrics.refused(refused.reason());
                return Err(refused);
            }
        };
        let crowd = Rc::clone(&worker.crowd);
        crowd.connections.rise();
        Ok(OpenConnection {
            crowd,
            admitted,
            _counted: worker.metrics.client_connection(listener),
            _seat: seat,
        })
    }

    /// A trusted proxy has said whose connection this is: counts it as that client's, unless a limit
    /// forbids it.
    pub fn identify(&mut self, worker: &Worker, client: IpAddr) -> Result<(), Refused> {
        let identified = (worker.shared.limits).identify(&mut self.admitted, client);
        identified.inspect_err(|refused| worker.metrics.refused(refused.reason()))
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.crowd.connections.fall();
    }
}

/// Runners, or connections, of which it is worth the while to ask the allocator for the memory of
/// those that went: 1 to 2 MiB, of 4 to 8 KiB for each that was measured.
pub(super) const BURST: usize = 256;

/// The same of large buffers, which have 63 to 79 KiB: 2 MiB.
pub(super) const BURST_BUFFERS: usize = 32;

/// The same of coders, which have 0.3 to 1.9 MiB: 4 MiB and more.
pub(super) const BURST_CODERS: usize = 16;

/// An idle connection is not closed earlier for want of memory: a client that was connected or
/// answered has sent its next request by then, if it had one.
pub(super) const LEAST_IDLE: Duration = Duration::from_secs(1);
