//! What a schedule would do, without doing it.
//!
//! A [`Forecast`] is a copy of one worker's schedule over copies of its backends, and what chooses in
//! it is the schedule's own code: what it says is what the next pick gives, as long as nothing happens
//! in between. O(backends) to make. For people who ask, never on the way of a request.

use std::collections::HashMap;
use std::sync::Arc;

use super::picker::{NoBackend, Pick, Picker, Schedule};
use super::snapshot::Snapshot;
use super::wish::{WhyTier, Wish};
use crate::upstream::backend::{Backend, BackendId};

/// One worker's schedule of a service as it was at one moment. Nothing that is asked of it is seen by
/// anybody else.
#[derive(Debug)]
pub struct Forecast {
    snapshot: Snapshot,
    schedule: Schedule,
}

impl Picker {
    /// What comes next. Neither this schedule nor any backend changes by it.
    pub fn forecast(&self) -> Forecast {
        let (mut reader, mut schedule) = (self.snapshot.clone(), self.schedule.clone());
        if reader.refresh() {
            schedule.rebuild(&reader.current().tiers);
        }
        let mut snapshot = Snapshot::clone(reader.current());
        let copies = Backend::copies(snapshot.listed().map(|(_, member)| &member.backend));
        let copies: HashMap<BackendId, Arc<Backend>> =
            copies.into_iter().map(|copy| (copy.id, copy)).collect();
        // A schedule knows nobody but those of its snapshot.
        let mut replace = |backend: &mut Arc<Backend>| {
            if let Some(copy) = copies.get(&backend.id) {
                *backend = Arc::clone(copy);
            }
        };
        schedule.backends(&mut replace);
        snapshot.backends_mut(&mut replace);
        Forecast { snapshot, schedule }
    }
}

impl Forecast {
    /// What the schedule would give to the next request, and to the next one after that when it is
    /// called again. What a [`Pick`] counts, it counts in the copy alone.
    pub fn next(&mut self, wish: Wish<'_>) -> Result<Pick, NoBackend> {
        self.schedule.pick(&self.snapshot, wish)
    }

    /// The backends as they were at that moment, and since.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// With which probability each member of that tier is next, if chance chooses among them; empty
    /// where there are too many to say. `why`: what [`Forecast::next`] said.
    pub fn chances(&self, priority: u16, why: WhyTier, wish: Wish<'_>) -> Option<Vec<f64>> {
        match &self.schedule {
            _ if why == WhyTier::Cookie => None,
            Schedule::Tiers(tiers) => tiers.chances(priority, wish, why == WhyTier::Panic),
            Schedule::Cycle(_) => None,
        }
    }

    /// The members of that tier in the order in which they have a key, were nobody out or full;
    /// `None`: the strategy knows no keys.
    pub fn owners(&self, priority: u16, key: u64) -> Option<Vec<usize>> {
        match &self.schedule {
            Schedule::Tiers(tiers) => tiers.owners(priority, key),
            Schedule::Cycle(_) => None,
        }
    }

    /// The part of all requests that each tier takes, as of the last [`Forecast::next`]; empty where
    /// the first that can serve takes all.
    pub fn parts(&self) -> Vec<f64> {
        match &self.schedule {
            Schedule::Tiers(tiers) => tiers.parts(),
            Schedule::Cycle(_) => Vec::new(),
        }
    }
}

#[cfg(test)]
#[path = "explain_tests.rs"]
mod tests;
