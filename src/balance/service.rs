//! The writer of a service's snapshot: endpoints come in, the same identity keeps the same
//! backend. Lives on the control thread.

use std::sync::Arc;

use super::snapshot::Snapshot;
use crate::discovery::Offer;
use crate::published::Published;

/// One service's backends.
#[derive(Debug)]
pub struct Service {
    name: Arc<str>,
    snapshot: Arc<Published<Snapshot>>,
}

impl Service {
    /// A service that has heard nothing from discovery.
    pub fn new(name: Arc<str>) -> Service {
        Service {
            name,
            snapshot: Published::new(Snapshot::default()),
        }
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// What the workers read.
    pub fn snapshot(&self) -> &Arc<Published<Snapshot>> {
        &self.snapshot
    }

    /// Takes over what discovery offers. Same identity: same `Arc<Backend>`, its weight and
    /// priority changed in place. Publishes only if something differs.
    pub fn apply(&mut self, offer: &Offer) {
        let _ = offer;
        todo!()
    }
}
