//! One worker's schedule of one service: tiers with a strategy inside each, or all in one cycle.
//!
//! It owns no backend's state: who is out is read from the backends. It takes up a new
//! snapshot at the pick after it was published. Called once per attempt by `proxy`, and by
//! `evenkeel schedule`.

use std::sync::Arc;

use super::cycle::Cycle;
use super::snapshot::{Snapshot, Tier};
use super::tiers::Tiers;
use super::wish::{Missed, WhyTier, Wish};
use crate::clock::Millis;
use crate::config::{Balancing, Strategy};
use crate::published::Reader;
use crate::upstream::backend::{Backend, BackendId, Claim, InFlight, Trial};

/// The schedule. Owned by one worker; a pick takes no lock, and allocates nothing unless the
/// snapshot has changed.
#[derive(Debug)]
pub struct Picker {
    pub(super) snapshot: Reader<Snapshot>,
    pub(super) schedule: Schedule,
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
    /// Why that tier.
    pub why: WhyTier,
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
    /// All of those who are there are drained by hand.
    #[error("every backend is drained by hand")]
    Drained,
    /// Every backend was excluded by the caller.
    #[error("every backend was tried")]
    Exhausted,
    /// Those that could serve have as many requests under way as they may.
    #[error("every backend has as many requests as it may")]
    Full,
}

/// Whose turn it is.
#[derive(Debug, Clone)]
pub(super) enum Schedule {
    Tiers(Tiers),
    Cycle(Cycle),
}

impl Picker {
    /// A schedule over `snapshot`; `seed` gives the random phase.
    pub fn new(snapshot: Reader<Snapshot>, balancing: &Balancing, seed: u64) -> Picker {
        let mut picker = Picker {
            snapshot,
            schedule: match balancing.strategy {
                Strategy::Cycle => Schedule::Cycle(Cycle::default()),
                _ => Schedule::Tiers(Tiers::new(*balancing, seed)),
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
        self.schedule.pick(self.snapshot.current(), wish)
    }

    /// Is there anybody besides those in `excluded` who may be picked? O(n); takes nobody.
    pub fn has_other(&mut self, now: Millis, excluded: &[BackendId]) -> bool {
        if self.snapshot.refresh() {
            self.rebuild();
        }
        let mut backends = self.snapshot.current().backends();
        backends.any(|b| !excluded.contains(&b.id) && b.look(now, Trial::Welcome).is_ok())
    }

    fn rebuild(&mut self) {
        self.schedule.rebuild(&self.snapshot.current().tiers);
    }
}

impl Schedule {
    /// The backend for the next request. `snapshot` is that of the last [`Schedule::rebuild`].
    pub(super) fn pick(&mut self, snapshot: &Snapshot, wish: Wish<'_>) -> Result<Pick, NoBackend> {
        if !snapshot.answered {
            return Err(NoBackend::Unresolved);
        }
        if let Some(pick) = led_back(snapshot, wish) {
            return Ok(pick);
        }
        if snapshot.tiers.is_empty() {
            return Err(match snapshot.drained.is_empty() {
                true => NoBackend::Empty,
                false => NoBackend::Drained,
            });
        }
        let picked = match self {
            Schedule::Tiers(tiers) => tiers.pick(&snapshot.tiers, wish),
            Schedule::Cycle(cycle) => cycle.pick(wish),
        };
        match picked {
            Ok((priority, why, Claim { guard, trial, .. })) => Ok(Pick {
                guard,
                trial,
                priority,
                why,
            }),
            Err(Missed::Nobody) => Err(NoBackend::Exhausted),
            Err(Missed::Full) => Err(NoBackend::Full),
        }
    }

    /// Takes over new records.
    pub(super) fn rebuild(&mut self, tiers: &[Tier]) {
        match self {
            Schedule::Tiers(schedule) => schedule.rebuild(tiers),
            Schedule::Cycle(cycle) => cycle.rebuild(tiers),
        }
    }

    /// Calls `see` with each backend, perhaps more than once.
    pub(super) fn backends(&mut self, see: &mut dyn FnMut(&mut Arc<Backend>)) {
        match self {
            Schedule::Tiers(tiers) => tiers.backends(see),
            Schedule::Cycle(cycle) => cycle.backends(see),
        }
    }
}

/// The backend that a request's cookie stands for, if it can be had. Its tier does not matter: a
/// session that was begun at a standby stays there.
fn led_back(snapshot: &Snapshot, wish: Wish<'_>) -> Option<Pick> {
    let (backend, priority) = snapshot.tokens.get(&wish.token?)?;
    if wish.excluded.contains(&backend.id) {
        return None;
    }
    let Claim { guard, trial, .. } = backend.claim(wish.now, wish.trial).ok()?;
    Some(Pick {
        guard,
        trial,
        priority: *priority,
        why: WhyTier::Cookie,
    })
}

#[cfg(test)]
#[path = "picker_tests.rs"]
mod tests;
