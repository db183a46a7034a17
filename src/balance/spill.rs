//! How requests are shared out among tiers where the first one does not take all of them.
//!
//! Strict priority, by default: the first tier that can serve takes everything. Two things soften
//! it, and both say which part of the requests a tier can take:
//!
//! - `spill`: the part of its shares that can be picked, times a factor (Envoy's *priority load*
//!   with its *overprovisioning factor*). With a factor of 1.4 a tier passes nothing on until less
//!   than 71 % of it is left.
//! - `slow_start`: a tier of which everybody that can be picked is rising takes the part that they
//!   have risen to. So a standby hands back step by step to a tier that was down as a whole.
//!
//! Each tier takes its part of what those before it left. If all together cannot take everything,
//! all take more, in proportion: nobody is refused for that. The parts are computed at most every
//! [`FRESH`]; between, requests are dealt out by credit (as in `edf.rs`, without a heap: there are
//! few tiers), so that after N requests a tier has had its part of them, give or take one.

use std::time::Duration;

use super::shares;
use super::snapshot::Tier;
use crate::clock::Millis;
use crate::config::{Balancing, Strategy};

/// Which tier is next.
#[derive(Debug, Clone, Default)]
pub(super) struct Spill {
    /// By tier.
    lots: Vec<Lot>,
    /// When the parts are looked at again.
    look_again: Millis,
}

/// One tier's claim on requests.
#[derive(Debug, Clone, Default)]
struct Lot {
    /// Of its members.
    shares: Vec<f64>,
    /// Between 0 and 1; all sum to 1, or all are 0 where nobody can serve.
    part: f64,
    /// Requests that it is behind by.
    credit: f64,
}

impl Spill {
    /// Does it matter? Else the first tier is always next.
    pub(super) fn matters(balancing: &Balancing) -> bool {
        balancing.spill.is_some() || !balancing.slow_start.is_zero()
    }

    /// The part of each tier, as of the last [`Spill::next`].
    pub(super) fn parts(&self) -> Vec<f64> {
        self.lots.iter().map(|lot| lot.part).collect()
    }

    /// The tiers have changed.
    pub(super) fn rebuild(&mut self, tiers: &[Tier], strategy: Strategy) {
        self.lots.resize(tiers.len(), Lot::default());
        for (lot, tier) in self.lots.iter_mut().zip(tiers) {
            lot.shares = match strategy {
                Strategy::RoundRobin => vec![1.0 / tier.members.len() as f64; tier.members.len()],
                _ => shares::shares(&tier.weights()),
            };
        }
        self.look_again = Millis::default();
    }

    /// The tier that is next. O(tiers), and O(members) every [`FRESH`].
    pub(super) fn next(&mut self, tiers: &[Tier], balancing: &Balancing, now: Millis) -> usize {
        if now >= self.look_again {
            self.look_again = now.after(FRESH);
            self.look(tiers, balancing, now);
        }
        let mut next = 0;
        for index in 0..self.lots.len() {
            self.lots[index].credit += self.lots[index].part;
            if self.lots[index].credit > self.lots[next].credit {
                next = index;
            }
        }
        if let Some(lot) = self.lots.get_mut(next) {
            lot.credit -= 1.0;
        }
        next
    }

    /// Finds out the part of each tier.
    fn look(&mut self, tiers: &[Tier], balancing: &Balancing, now: Millis) {
        for (lot, tier) in self.lots.iter_mut().zip(tiers) {
            lot.part = can_take(tier, &lot.shares, balancing, now);
        }
        share_out(&mut self.lots);
    }

    /// The part of each tier as things stand, whoever asks; all are 0 where nobody can serve.
    pub(super) fn parts_at(tiers: &[Tier], balancing: &Balancing, now: Millis) -> Vec<f64> {
        let mut spill = Spill::default();
        spill.rebuild(tiers, balancing.strategy);
        spill.look(tiers, balancing, now);
        spill.parts()
    }
}

/// The part of all requests that a tier can take, between 0 and 1.
fn can_take(tier: &Tier, shares: &[f64], balancing: &Balancing, now: Millis) -> f64 {
    // Shares of those that can be picked, and the parts of them that they have risen to.
    let (mut there, mut risen, mut all_rise) = (0.0, 0.0, true);
    for (member, share) in tier.members.iter().zip(shares) {
        if member.backend.out_until(now).is_some() {
            continue;
        }
        let part = member.backend.part(now, balancing.slow_start);
        all_rise &= part.is_some();
        there += share;
        risen += part.unwrap_or(1.0) * share;
    }
    match balancing.spill {
        _ if there == 0.0 => 0.0,
        Some(factor) => (risen * factor).min(1.0),
        None if all_rise => risen / there,
        None => 1.0,
    }
}

/// Turns what each can take into what each gets.
fn share_out(lots: &mut [Lot]) {
    let mut left = 1.0;
    for lot in &mut *lots {
        lot.part = f64::min(lot.part, left);
        left -= lot.part;
    }
    let taken = 1.0 - left;
    for lot in lots {
        if taken > 0.0 {
            lot.part /= taken;
        }
        // Whoever has no part any more is owed nothing, and owes nothing.
        if lot.part == 0.0 {
            lot.credit = 0.0;
        }
    }
}

/// The parts hold for so long. Within it a tier that is gone is noticed by the pick itself.
const FRESH: Duration = Duration::from_millis(100);

#[cfg(test)]
#[path = "spill_tests.rs"]
mod tests;
