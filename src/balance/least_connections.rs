//! Whoever has the fewest exchanges under way for its share.
//!
//! The load of a member is what it has in flight in this process plus its burden (attempts that
//! failed lately, `upstream::load`), divided by its share. Among equals the earliest deadline goes
//! first, as in `edf.rs`: backends that are idle are served by weight, in turn. An ejected member
//! whose trial is due goes before all: what it has failed shall not keep it from being tried.
//!
//! A pick is one pass over the tier up to [`ALL`] members. In a larger one it is the least of
//! [`DRAWN`] draws by weight, which is nearly as good: the fullest of n then has O(log log n) more
//! than the mean (Azar, Broder, Karlin, Upfal 1994, "Balanced allocations").

use std::sync::Arc;
use std::time::Duration;

use super::candidates::{Candidate, Candidates};
use super::snapshot::Member;
use super::wish::{Missed, Wish};
use crate::clock::Millis;
use crate::upstream::backend::{Backend, Claim};
use crate::upstream::standing::Ejection;

/// The members of one tier, and whose turn it is among equals.
#[derive(Debug, Clone)]
pub(super) struct LeastConnections {
    candidates: Candidates,
    /// Next turns in virtual time, by candidate.
    deadlines: Vec<f64>,
    /// Deadline of the latest turn that was taken; never goes back.
    virtual_now: f64,
}

impl LeastConnections {
    /// Nobody. `slow_start`: how long a member rises; zero: none does.
    pub(super) fn new(seed: u64, slow_start: Duration) -> LeastConnections {
        LeastConnections {
            candidates: Candidates::new(seed, slow_start),
            deadlines: Vec::new(),
            virtual_now: 0.0,
        }
    }

    /// Takes over a tier's members with their strides. Each one's next turn is at a random point
    /// of its stride.
    pub(super) fn rebuild(&mut self, members: &[Member], strides: &[u128]) {
        self.candidates.rebuild(members, strides);
        self.virtual_now = 0.0;
        self.deadlines.clear();
        for index in 0..self.candidates.len() {
            let stride = self.candidates.get(index).stride;
            let phase = self.candidates.rng.f64();
            self.deadlines.push(stride * phase);
        }
    }

    /// The least loaded, without those that are out, excluded or full.
    pub(super) fn pick(&mut self, wish: Wish<'_>) -> Result<Claim, Missed> {
        let index = match self.candidates.len() {
            ..=ALL => self.least_of_all(wish)?,
            _ => self.least_of_some(wish)?,
        };
        let Some(claim) = self.candidates.claim(index, wish) else {
            return self.candidates.claim_any(wish);
        };
        self.take_turn(index, wish.now);
        Ok(claim)
    }

    /// The probability with which [`LeastConnections::pick`] gives each member, as things stand;
    /// `None`: chance has no part in it.
    pub(super) fn chances(&self, wish: Wish<'_>) -> Option<Vec<f64>> {
        if self.candidates.len() <= ALL {
            return None;
        }
        let drawn = self.candidates.chances(wish);
        let mut order: Vec<(f64, usize)> = (0..drawn.len())
            .filter(|&index| drawn[index] > 0.0)
            .map(|index| {
                let part = self.candidates.part(index, wish.now);
                (load(self.candidates.get(index), part, wish.now), index)
            })
            .collect();
        order.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        let mut chances = vec![0.0; drawn.len()];
        let mut left: f64 = 1.0;
        for alike in order.chunk_by(|a, b| a.0 == b.0) {
            let here: f64 = alike.iter().map(|(_, index)| drawn[*index]).sum();
            let after = (left - here).max(0.0);
            // None of the draws led to a lower load, and not all of them to a higher one.
            let one_of_them = left.powi(DRAWN as i32) - after.powi(DRAWN as i32);
            for &(_, index) in alike {
                chances[index] = one_of_them * drawn[index] / here;
            }
            left = after;
        }
        Some(chances)
    }

    /// The same for [`LeastConnections::pick_out`].
    pub(super) fn chances_out(&self, wish: Wish<'_>) -> Vec<f64> {
        self.candidates.chances_out(wish)
    }

    /// Calls `see` with each member's backend.
    pub(super) fn backends(&mut self, see: &mut dyn FnMut(&mut Arc<Backend>)) {
        self.candidates.backends(see);
    }

    /// Anybody, as if nobody were out.
    pub(super) fn pick_out(&mut self, wish: Wish<'_>) -> Result<Claim, Missed> {
        self.candidates.pick_out(wish)
    }

    fn least_of_all(&mut self, wish: Wish<'_>) -> Result<usize, Missed> {
        let mut best = None;
        let deadlines = &self.deadlines;
        self.candidates.each(wish, |index, candidate, part| {
            let rank = (load(candidate, part, wish.now), deadlines[index]);
            if best.is_none_or(|(least, _)| rank < least) {
                best = Some((rank, index));
            }
        })?;
        best.map(|(_, index)| index).ok_or(Missed::Nobody)
    }

    fn least_of_some(&mut self, wish: Wish<'_>) -> Result<usize, Missed> {
        let mut best: Option<(f64, usize)> = None;
        for _ in 0..DRAWN {
            let Some(index) = self.candidates.try_draw(wish, None) else {
                // Most are out: one pass over all is less than many draws.
                return self.least_of_all(wish);
            };
            let part = self.candidates.part(index, wish.now);
            let load = load(self.candidates.get(index), part, wish.now);
            if best.is_none_or(|(least, _)| load < least) {
                best = Some((load, index));
            }
        }
        best.map(|(_, index)| index).ok_or(Missed::Nobody)
    }

    /// Moves the turn of `index` on by its stride, which is the longer the less of its share it
    /// has. A turn that is overdue is made up for once, not once for every stride it missed.
    fn take_turn(&mut self, index: usize, now: Millis) {
        let stride = self.candidates.get(index).stride / self.candidates.part(index, now);
        let deadline = &mut self.deadlines[index];
        self.virtual_now = self.virtual_now.max(*deadline);
        *deadline = (*deadline + stride).max(self.virtual_now);
    }
}

/// What it has under way and what it failed lately, for its share; below 0: its trial is due.
fn load(candidate: &Candidate, part: f64, now: Millis) -> f64 {
    let backend = &candidate.backend;
    if backend.ejection() != Ejection::None {
        return -1.0;
    }
    let load = f64::from(backend.in_flight()) + f64::from(backend.load.burden(now));
    load * candidate.stride / part
}

/// In tiers of so many members all are looked at: about a microsecond.
const ALL: usize = 64;

/// In larger ones so many are drawn. Two are enough in theory; with eight, one that is idle is
/// found even where seven of ten are busy (all but 6 % of the time).
const DRAWN: usize = 8;

#[cfg(test)]
#[path = "least_connections_tests.rs"]
mod tests;
