//! Connections, and copies of requests, that one worker has open: two counts each, of which only the
//! worker writes. A gauge is their difference, so that none is ever written by two.

use std::cell::Cell;
use std::sync::Arc;

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

/// What a worker has under way of something, and the most that it ever had.
#[derive(Debug, Default)]
pub(super) struct Marked {
    connections: Connections,
    most: Mark,
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
        self.0.copies.connections.end();
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

impl Marked {
    fn begin(&self) {
        self.connections.begin();
        self.most.raise(self.connections.totals().1);
    }

    /// Under way now, and at most ever.
    pub(super) fn levels(&self) -> (u64, u64) {
        (self.connections.totals().1, self.most.value())
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
