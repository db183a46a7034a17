//! The better of two that are drawn by weight (Mitzenmacher 2001, "The power of two choices in
//! randomized load balancing"): whose latency, times what it would have under way, divided by its
//! share, is less. Latency is a moving average that peaks count in at once (`upstream::load`).
//!
//! Each pick looks at two members only, so that many balancers with like views don't all run to
//! the same one. Where one of the two has no sample yet, latency says nothing and the load alone
//! decides; among equals the one that was drawn first. An ejected member whose trial is due goes
//! before the other. O(log n).
//!
//! With little under way the quicker and heavier of the two gets it, every time: two backends with
//! one request after the other are one backend, until the other's latency has faded enough.

use std::sync::Arc;
use std::time::Duration;

use super::candidates::Candidates;
use super::snapshot::Member;
use super::wish::{Missed, Wish};
use crate::clock::Millis;
use crate::upstream::backend::{Backend, Claim};
use crate::upstream::standing::Ejection;

/// The members of one tier.
#[derive(Debug, Clone)]
pub(super) struct TwoChoices(Candidates);

/// What speaks against a member.
#[derive(Debug, Clone, Copy)]
struct Cost {
    /// It was ejected, and a trial is due.
    trial_is_due: bool,
    /// In milliseconds.
    latency: Option<f64>,
    /// What it has under way, and failed lately.
    load: f64,
    /// One divided by its share.
    stride: f64,
}

impl TwoChoices {
    /// Nobody. `slow_start`: how long a member rises; zero: none does.
    pub(super) fn new(seed: u64, slow_start: Duration) -> TwoChoices {
        TwoChoices(Candidates::new(seed, slow_start))
    }

    /// Takes over a tier's members with their strides.
    pub(super) fn rebuild(&mut self, members: &[Member], strides: &[u128]) {
        self.0.rebuild(members, strides);
    }

    /// The better of two, without those that are out, excluded or full.
    pub(super) fn pick(&mut self, wish: Wish<'_>) -> Result<Claim, Missed> {
        let first = self.0.draw(wish, None)?;
        let second = match self.0.len() {
            1 => first,
            // If there is nobody else, the first one it is.
            _ => self.0.draw(wish, Some(first)).unwrap_or(first),
        };
        let better = match self
            .cost(second, wish.now)
            .beats(self.cost(first, wish.now))
        {
            true => second,
            false => first,
        };
        match self.0.claim(better, wish) {
            Some(claim) => Ok(claim),
            None => self.0.claim_any(wish),
        }
    }

    /// The probability with which [`TwoChoices::pick`] gives each member, as things stand; empty where
    /// there are too many to say. O(members²).
    pub(super) fn chances(&self, wish: Wish<'_>) -> Vec<f64> {
        if self.0.len() > SAID_OF {
            return Vec::new();
        }
        let drawn = self.0.chances(wish);
        let mut chances = vec![0.0; drawn.len()];
        let had = |chance: &f64| *chance > 0.0;
        if drawn.iter().filter(|chance| had(chance)).count() < 2 {
            return drawn;
        }
        let costs = (0..drawn.len()).map(|index| self.cost(index, wish.now));
        let costs: Vec<Cost> = costs.collect();
        for first in 0..drawn.len() {
            for second in (0..drawn.len()).filter(|second| *second != first) {
                let pair = drawn[first] * drawn[second] / (1.0 - drawn[first]);
                if !had(&pair) {
                    continue;
                }
                let better = match costs[second].beats(costs[first]) {
                    true => second,
                    false => first,
                };
                chances[better] += pair;
            }
        }
        chances
    }

    /// The same for [`TwoChoices::pick_out`].
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

    fn cost(&self, index: usize, now: Millis) -> Cost {
        let candidate = self.0.get(index);
        let backend = &candidate.backend;
        Cost {
            trial_is_due: backend.ejection() != Ejection::None,
            latency: backend.load.latency(now).map(f64::from),
            load: f64::from(backend.in_flight()) + f64::from(backend.load.burden(now)),
            stride: candidate.stride / self.0.part(index, now),
        }
    }
}

impl Cost {
    fn beats(self, other: Cost) -> bool {
        if self.trial_is_due || other.trial_is_due {
            return !other.trial_is_due;
        }
        match (self.latency, other.latency) {
            (Some(own), Some(others)) => {
                own * (self.load + 1.0) * self.stride < others * (other.load + 1.0) * other.stride
            }
            _ => self.load * self.stride < other.load * other.stride,
        }
    }
}

/// Chances are told of tiers with so many members at most: a few milliseconds.
const SAID_OF: usize = 1024;

#[cfg(test)]
#[path = "two_choices_tests.rs"]
mod tests;
