//! One worker's schedule of one service: strict tiers, and a strategy inside each.
//!
//! It owns no backend's state: who is out is read from the backends. It takes up a new
//! snapshot at the pick after it was published. Called once per attempt by `proxy`, and by
//! `evenkeel schedule`.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;

use super::cycle::Cycle;
use super::edf::Edf;
use super::shares;
use super::snapshot::{Snapshot, Tier};
use super::wish::{Missed, WhenFull, Wish};
use crate::clock::Millis;
use crate::config::{Balancing, Strategy};
use crate::published::Reader;
use crate::upstream::backend::{Backend, BackendId, Claim, InFlight};

/// The schedule. Owned by one worker; a pick takes no lock, and allocates nothing unless the
/// snapshot has changed.
#[derive(Debug)]
pub struct Picker {
    snapshot: Reader<Snapshot>,
    schedule: Schedule,
}

/// What was picked.
#[derive(Debug)]
pub struct Pick {
    /// Who serves the request, which counts as in flight there from now on.
    pub guard: InFlight,
    /// It was ejected: what becomes of the request decides whether it is taken back.
    pub trial: bool,
    /// Priority of its tier.
    pub priority: u16,
}

impl Pick {
    /// Who serves the request.
    pub fn backend(&self) -> &Arc<Backend> {
        self.guard.backend()
    }
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
    /// Those that could serve have as many requests under way as they may.
    #[error("every backend has as many requests as it may")]
    Full,
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
    slow_start: Duration,
    rng: Rng,
}

#[derive(Debug, Clone, Copy)]
enum Weighing {
    BySrvWeight,
    Equal,
}

impl Picker {
    /// A schedule over `snapshot`; `seed` gives the random phase.
    pub fn new(snapshot: Reader<Snapshot>, balancing: &Balancing, seed: u64) -> Picker {
        let tiers = |weighing| {
            Schedule::Tiers(Tiers {
                weighing,
                tiers: Vec::new(),
                slow_start: balancing.slow_start,
                rng: Rng::with_seed(seed),
            })
        };
        let mut picker = Picker {
            snapshot,
            schedule: match balancing.strategy {
                Strategy::Weighted => tiers(Weighing::BySrvWeight),
                Strategy::RoundRobin => tiers(Weighing::Equal),
                Strategy::Cycle => Schedule::Cycle(Cycle::default()),
            },
        };
        picker.rebuild();
        picker
    }

    /// The backend for the next request. Those that it has tried are left out; those that are out
    /// are left out while any other of any tier can be picked.
    pub fn pick(&mut self, wish: Wish<'_>) -> Result<Pick, NoBackend> {
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
            Schedule::Tiers(tiers) => tiers.pick(wish),
            Schedule::Cycle(cycle) => cycle.pick(wish),
        };
        match picked {
            Ok((priority, Claim { guard, trial })) => Ok(Pick {
                guard,
                trial,
                priority,
            }),
            Err(Missed::Nobody) => Err(NoBackend::Exhausted),
            Err(Missed::Full) => Err(NoBackend::Full),
        }
    }

    /// Is there anybody besides those in `excluded` who may be picked? O(n); takes nobody.
    pub fn has_other(&mut self, now: Millis, excluded: &[BackendId]) -> bool {
        if self.snapshot.refresh() {
            self.rebuild();
        }
        let mut backends = self.snapshot.current().backends();
        backends.any(|b| !excluded.contains(&b.id) && b.out_until(now).is_none())
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
    fn pick(&mut self, wish: Wish<'_>) -> Result<(u16, Claim), Missed> {
        let mut missed = Missed::Nobody;
        for (priority, tier) in &mut self.tiers {
            match tier.pick(wish) {
                Ok(claim) => return Ok((*priority, claim)),
                Err(Missed::Full) if wish.when_full == WhenFull::Waits => return Err(Missed::Full),
                Err(Missed::Full) => missed = Missed::Full,
                Err(Missed::Nobody) => {}
            }
        }
        if missed == Missed::Full {
            // They can serve, only not now.
            return Err(missed);
        }
        // Nobody can serve as far as we know: better to try than to refuse.
        for (priority, tier) in &mut self.tiers {
            match tier.pick_out(wish) {
                Ok(claim) => return Ok((*priority, claim)),
                Err(Missed::Full) => missed = Missed::Full,
                Err(Missed::Nobody) => {}
            }
        }
        Err(missed)
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
                .unwrap_or_else(|| (tier.priority, Edf::new(self.rng.u64(..), self.slow_start)));
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
