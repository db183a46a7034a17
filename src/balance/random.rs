//! By chance, each member with a probability of its share. O(log n) while most can be had.
//!
//! It knows nothing of the past, which is all that speaks for it: any number of balancers that
//! each see few requests add up to the shares, and nobody can foresee who is next.

use std::sync::Arc;
use std::time::Duration;

use super::candidates::Candidates;
use super::snapshot::Member;
use super::wish::{Missed, Wish};
use crate::upstream::backend::{Backend, Claim};

/// The members of one tier.
#[derive(Debug, Clone)]
pub(super) struct Random(Candidates);

impl Random {
    /// Nobody. `slow_start`: how long a member rises; zero: none does.
    pub(super) fn new(seed: u64, slow_start: Duration) -> Random {
        Random(Candidates::new(seed, slow_start))
    }

    /// Takes over a tier's members with their strides.
    pub(super) fn rebuild(&mut self, members: &[Member], strides: &[u128]) {
        self.0.rebuild(members, strides);
    }

    /// Anybody but those that are out, excluded or full.
    pub(super) fn pick(&mut self, wish: Wish<'_>) -> Result<Claim, Missed> {
        let index = self.0.draw(wish, None)?;
        match self.0.claim(index, wish) {
            Some(claim) => Ok(claim),
            None => self.0.claim_any(wish),
        }
    }

    /// The probability with which [`Random::pick`] gives each member.
    pub(super) fn chances(&self, wish: Wish<'_>) -> Vec<f64> {
        self.0.chances(wish)
    }

    /// The same for [`Random::pick_out`].
    pub(super) fn chances_out(&self, wish: Wish<'_>) -> Vec<f64> {
        self.0.chances_out(wish)
    }

    /// Calls `see` with each member's backend.
    pub(super) fn backends(&mut self, see: &mut dyn FnMut(&mut Arc<Backend>)) {
        self.0.backends(see);
    }

    /// Anybody, as if nobody were out.
    pub(super) fn pick_out(&mut self, wish: Wish<'_>) -> Result<Claim, Missed> {
        self.0.pick_out(wish)
    }
}

#[cfg(test)]
#[path = "random_tests.rs"]
mod tests;
