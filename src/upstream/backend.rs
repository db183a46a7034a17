//! A backend: an endpoint plus the state that every worker shares.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::clock::Millis;
use crate::discovery::Endpoint;

/// Identity of a backend within this process; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendId(pub u64);

/// An endpoint of a service and what this process knows about it.
#[derive(Debug)]
pub struct Backend {
    /// Never used twice.
    pub id: BackendId,
    /// Name of the service it belongs to.
    pub service: Arc<str>,
    /// Who it is.
    pub endpoint: Endpoint,
    /// Exchanges under way. Relaxed: a number for people and strategies, it orders nothing.
    in_flight: AtomicU32,
    /// Failed connects in a row. Relaxed: written by whichever worker fails or succeeds.
    failed_connects: AtomicU32,
    /// A [`Millis`]; 0: it may be picked. Relaxed: a worker that sees it late tries once more.
    passed_over_until: AtomicU64,
}

/// Counts one exchange in flight until it is dropped.
#[derive(Debug)]
pub struct InFlight(Arc<Backend>);

impl Backend {
    /// A backend that has failed nothing yet.
    pub fn new(id: BackendId, service: Arc<str>, endpoint: Endpoint) -> Arc<Backend> {
        Arc::new(Backend {
            id,
            service,
            endpoint,
            in_flight: AtomicU32::new(0),
            failed_connects: AtomicU32::new(0),
            passed_over_until: AtomicU64::new(0),
        })
    }

    /// Until when it is passed over because connects to it failed; `None`: it may be picked.
    pub fn passed_over_until(&self, now: Millis) -> Option<Millis> {
        let until = Millis(self.passed_over_until.load(Ordering::Relaxed));
        (until > now).then_some(until)
    }

    /// A connect failed: passed over for 1 s, doubling to 10 s.
    pub fn connect_failed(&self, now: Millis) {
        let _ = now;
        todo!()
    }

    /// A connect succeeded: forgets the failures.
    pub fn connected(&self) {
        todo!()
    }

    /// Counts an exchange in flight until the guard is dropped.
    pub fn begin(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }

    /// Exchanges under way.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }
}

impl InFlight {
    /// The backend that is counted.
    pub fn backend(&self) -> &Arc<Backend> {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
