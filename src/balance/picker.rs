//! One worker's schedule of one service.

use std::sync::Arc;

use super::snapshot::Snapshot;
use crate::clock::Millis;
use crate::config::Strategy;
use crate::published::Reader;
use crate::upstream::backend::{Backend, BackendId};

/// The schedule. Owned by one worker; a pick takes no lock.
#[derive(Debug)]
pub struct Picker {
    snapshot: Reader<Snapshot>,
}

/// What was picked.
#[derive(Debug, Clone)]
pub struct Pick {
    /// Who serves the request.
    pub backend: Arc<Backend>,
    /// Priority of its tier.
    pub priority: u16,
}

/// Why nobody was picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoBackend {
    /// Discovery has not answered yet.
    #[error("no answer from discovery yet")]
    Unresolved,
    /// Discovery says that nobody is there.
    #[error("no backend is registered")]
    Empty,
    /// Every backend was excluded by the caller.
    #[error("every backend was tried")]
    Exhausted,
}

impl Picker {
    /// A schedule over `snapshot`; `seed` gives the random phase.
    pub fn new(snapshot: Reader<Snapshot>, strategy: Strategy, seed: u64) -> Picker {
        let _ = (strategy, seed);
        Picker { snapshot }
    }

    /// The backend for the next request. Those in `excluded` (tried already) are left out; those
    /// passed over at `now` are left out while any other of any tier can be picked.
    pub fn pick(&mut self, now: Millis, excluded: &[BackendId]) -> Result<Pick, NoBackend> {
        let _ = (now, excluded, &self.snapshot);
        todo!()
    }
}
