//! What a schedule would do, without doing it.
//!
//! A [`Forecast`] is a copy of one worker's schedule over copies of its backends, and what chooses in
//! it is the schedule's own code: what it says is what the next pick gives, as long as nothing happens
//! in between. O(backends) to make. [`parts`] says of a snapshot alone what each tier takes. For
//! people who ask, never on the way of a request.

use std::collections::HashMap;
use std::sync::Arc;

use super::picker::{NoBackend, Pick, Picker, Schedule};
use super::snapshot::{Snapshot, Tier};
use super::spill::Spill;
use super::wish::{WhyTier, Wish};
use crate::clock::Millis;
use crate::config::{Balancing, Strategy};
use crate::upstream::backend::{Backend, BackendId};

/// One worker's schedule of a service as it was at one moment. Nothing that is asked of it is seen by
/// anybody else.
#[derive(Debug)]
pub struct Forecast {
    snapshot: Snapshot,
    schedule: Schedule,
}

/// What each tier takes of new requests.
#[derive(Debug, Clone, PartialEq)]
pub struct Parts {
    /// The part of all, in the order of [`Snapshot::tiers`]; they sum to 1 where there is a tier.
    pub tiers: Vec<f64>,
    /// Nobody can be picked as far as we know: requests try somebody all the same.
    pub last_resort: bool,
}

/// The parts that the schedules go by, as things stand: without cookies, and as if nobody were full.
/// O(backends).
pub fn parts(snapshot: &Snapshot, balancing: &Balancing, now: Millis) -> Parts {
    let tiers = &snapshot.tiers;
    let last_resort = !snapshot.backends().any(|backend| is_there(backend, now));
    if balancing.strategy == Strategy::Cycle {
        let tiers = turns(snapshot, last_resort, now);
        return Parts { tiers, last_resort };
    }
    let mut parts = match tiers.len() > 1 && Spill::matters(balancing) {
        true => Spill::parts_at(tiers, balancing, now),
        false => vec![0.0; tiers.len()],
    };
    if parts.iter().all(|part| *part == 0.0) {
        // The first that can serve takes all; where none can, the first of all is tried.
        let serves = |tier: &Tier| tier.members.iter().any(|m| is_there(&m.backend, now));
        let first = tiers.iter().position(|tier| last_resort || serves(tier));
        first.into_iter().for_each(|first| parts[first] = 1.0);
    }
    Parts {
        tiers: parts,
        last_resort,
    }
}

/// With `cycle`: of the turns of those who can be picked, or of all where nobody can.
fn turns(snapshot: &Snapshot, last_resort: bool, now: Millis) -> Vec<f64> {
    let mut shares = snapshot.shares(Strategy::Cycle).into_iter();
    let of_tier = |tier: &Tier| {
        let members = tier.members.iter().zip(&mut shares);
        let taken = members.filter(|(m, _)| last_resort || is_there(&m.backend, now));
        taken.map(|(_, share)| share).sum()
    };
    let mut tiers: Vec<f64> = snapshot.tiers.iter().map(of_tier).collect();
    let all: f64 = tiers.iter().sum();
    tiers.iter_mut().for_each(|part| *part /= all);
    tiers
}

fn is_there(backend: &Backend, now: Millis) -> bool {
    backend.out_until(now).is_none()
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
