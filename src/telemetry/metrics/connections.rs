//! Connections, copies of requests, and whatever else one worker has open. Only the worker writes; a
//! scrape sums.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::histogram::{Counter, Mark};
use super::shard::{BackendCounters, ServiceCounters};

/// Counts a connection as open until it is dropped.
#[derive(Debug)]
pub struct OpenConnection(Of);

/// Counts a copy of a request as under way until it is dropped.
#[derive(Debug)]
pub struct OpenCopy(Arc<ServiceCounters>);

/// Whose connections those are among which one is counted.
#[derive(Debug)]
enum Of {
    Listener(Arc<Connections>),
    Backend {
        service: Arc<ServiceCounters>,
        backend: Arc<BackendCounters>,
        rests: Cell<bool>,
    },
}

/// How many began, and how many of those are over.
#[derive(Debug, Default)]
pub(super) struct Connections {
    opened: Counter,
    closed: Counter,
}

/// How many a worker has of something, and the most that it ever had. One writer at a time, as of a
/// `Counter`.
#[derive(Debug, Default)]
pub struct Level {
    now: AtomicU64,
    most: Mark,
}

/// [`Level`]s of all workers: how many there are, and the sum of the most that each ever had, which is
/// never less than there were at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Levels {
    /// Now.
    pub now: u64,
    /// Ever.
    pub most: u64,
}

/// Those to one backend.
#[derive(Debug, Default)]
pub(super) struct ToBackend {
    all: Connections,
    idle: Connections,
}

/// Connections to a backend at one moment, by state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct ByState {
    pub(super) active: u64,
    pub(super) idle: u64,
}

impl OpenConnection {
    pub(super) fn of_client(listener: Arc<Connections>) -> OpenConnection {
        listener.begin();
        OpenConnection(Of::Listener(listener))
    }

    pub(super) fn of_backend(
        service: Arc<ServiceCounters>,
        backend: Arc<BackendCounters>,
    ) -> OpenConnection {
        service.connections.begin();
        backend.connections.all.begin();
        OpenConnection(Of::Backend {
            service,
            backend,
            rests: Cell::new(false),
        })
    }

    /// Whether nothing is under way on a connection to a backend, from now on. A new one is active.
    pub fn rests(&self, does: bool) {
        let Of::Backend { backend, rests, .. } = &self.0 else {
            return;
        };
        match (rests.replace(does), does) {
            (false, true) => backend.connections.idle.begin(),
            (true, false) => backend.connections.idle.end(),
            _ => {}
        }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.rests(false);
        match &self.0 {
            Of::Listener(connections) => connections.end(),
            Of::Backend {
                service, backend, ..
            } => {
                service.connections.end();
                backend.connections.all.end();
            }
        }
    }
}

impl OpenCopy {
    pub(super) fn of(service: Arc<ServiceCounters>) -> OpenCopy {
        service.copies.begin();
        OpenCopy(service)
    }
}

impl Drop for OpenCopy {
    fn drop(&mut self) {
        self.0.copies.end();
    }
}

impl Connections {
    fn begin(&self) {
        self.opened.add(1);
    }

    fn end(&self) {
        self.closed.add(1);
    }

    /// Opened ever, and open now.
    pub(super) fn totals(&self) -> (u64, u64) {
        // Closed first: what closes in between would otherwise make it less than nothing.
        let closed = self.closed.value();
        let opened = self.opened.value();
        (opened, opened.saturating_sub(closed))
    }
}

impl Level {
    /// There are so many now.
    pub fn set(&self, now: usize) {
        self.now.store(now as u64, Ordering::Relaxed);
        self.most.raise(now as u64);
    }

    /// How many there are.
    pub fn now(&self) -> usize {
        self.now.load(Ordering::Relaxed) as usize
    }

    /// One more.
    pub fn begin(&self) {
        self.set(self.now() + 1);
    }

    /// One less.
    pub fn end(&self) {
        self.set(self.now() - 1);
    }
}

impl Levels {
    /// Adds one worker's.
    pub(super) fn add(&mut self, level: &Level) {
        self.now += level.now.load(Ordering::Relaxed);
        self.most += level.most.value();
    }
}

impl ByState {
    pub(super) fn add(&mut self, other: ByState) {
        self.active += other.active;
        self.idle += other.idle;
    }
}

impl ToBackend {
    pub(super) fn by_state(&self) -> ByState {
        let (_, idle) = self.idle.totals();
        let (_, all) = self.all.totals();
        ByState {
            active: all.saturating_sub(idle),
            idle,
        }
    }
}
