//! One worker's schedule of one service: strict tiers, and a strategy inside each.
//!
//! It owns no backend's state: who is passed over is read from the backends. It takes up a new
//! snapshot at the pick after it was published. Called once per attempt by `proxy`, and by
//! `evenkeel schedule`.

use std::sync::Arc;

use fastrand::Rng;

use super::cycle::Cycle;
use super::edf::Edf;
use super::shares;
use super::snapshot::{Snapshot, Tier};
use crate::clock::Millis;
use crate::config::Strategy;
use crate::published::Reader;
use crate::upstream::backend::{Backend, BackendId};

/// The schedule. Owned by one worker; a pick takes no lock, and allocates nothing unless the
/// snapshot has changed.
#[derive(Debug)]
pub struct Picker {
    snapshot: Reader<Snapshot>,
    schedule: Schedule,
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

#[derive(Debug)]
enum Schedule {
    Tiers(Tiers),
    Cycle(Cycle),
}

/// Tiers by rising priority, each with a schedule of its own (RFC 2782: the lowest-numbered
/// priority that can be reached).
#[derive(Debug)]
struct Tiers {
    weighing: Weighing,
    tiers: Vec<(u16, Edf)>,
    rng: Rng,
}

#[derive(Debug, Clone, Copy)]
enum Weighing {
    BySrvWeight,
    Equal,
}

impl Picker {
    /// A schedule over `snapshot`; `seed` gives the random phase.
    pub fn new(snapshot: Reader<Snapshot>, strategy: Strategy, seed: u64) -> Picker {
        let tiers = |weighing| {
            Schedule::Tiers(Tiers {
                weighing,
                tiers: Vec::new(),
                rng: Rng::with_seed(seed),
            })
        };
        let mut picker = Picker {
            snapshot,
            schedule: match strategy {
                Strategy::Weighted => tiers(Weighing::BySrvWeight),
                Strategy::RoundRobin => tiers(Weighing::Equal),
                Strategy::Cycle => Schedule::Cycle(Cycle::default()),
            },
        };
        picker.rebuild();
        picker
    }

    /// The backend for the next request. Those in `excluded` (tried already) are left out; those
    /// passed over at `now` are left out while any other of any tier can be picked.
    pub fn pick(&mut self, now: Millis, excluded: &[BackendId]) -> Result<Pick, NoBackend> {
        if self.snapshot.refresh() {
            self.rebuild();
        }
        let snapshot = self.snapshot.current();
        if !snapshot.answered {
            return Err(NoBackend::Unresolved);
        }
        if snapshot.tiers.is_empty() {
            return Err(NoBackend::Empty);
        }
        let picked = match &mut self.schedule {
            Schedule::Tiers(tiers) => tiers.pick(now, excluded),
            Schedule::Cycle(cycle) => cycle.pick(now, excluded),
        };
        let (priority, backend) = picked.ok_or(NoBackend::Exhausted)?;
        Ok(Pick { backend, priority })
    }

    fn rebuild(&mut self) {
        let tiers = &self.snapshot.current().tiers;
        match &mut self.schedule {
            Schedule::Tiers(schedule) => schedule.rebuild(tiers),
            Schedule::Cycle(cycle) => cycle.rebuild(tiers),
        }
    }
}

impl Tiers {
    fn pick(&mut self, now: Millis, excluded: &[BackendId]) -> Option<(u16, Arc<Backend>)> {
        for (priority, tier) in &mut self.tiers {
            if let Some(backend) = tier.pick(now, excluded) {
                return Some((*priority, Arc::clone(backend)));
            }
        }
        // Nobody can serve as far as we know: better to try than to refuse.
        for (priority, tier) in &mut self.tiers {
            if let Some(backend) = tier.pick_passed_over(excluded) {
                return Some((*priority, Arc::clone(backend)));
            }
        }
        None
    }

    /// A tier is the same tier while its priority is the same.
    fn rebuild(&mut self, tiers: &[Tier]) {
        let mut old = std::mem::take(&mut self.tiers).into_iter().peekable();
        for tier in tiers {
            while old
                .next_if(|(priority, _)| *priority < tier.priority)
                .is_some()
            {}
            let (_, mut edf) = old
                .next_if(|(priority, _)| *priority == tier.priority)
                .unwrap_or_else(|| (tier.priority, Edf::new(self.rng.u64(..))));
            let strides = match self.weighing {
                Weighing::BySrvWeight => shares::strides(&tier.weights()),
                Weighing::Equal => shares::equal_strides(tier.members.len()),
            };
            edf.rebuild(&tier.members, &strides);
            self.tiers.push((tier.priority, edf));
        }
    }
}

#[cfg(test)]
#[path = "picker_tests.rs"]
mod tests;
