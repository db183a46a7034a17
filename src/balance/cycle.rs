//! The older Go project's schedule: all tiers in one cycle. In a cycle each backend is served
//! weight/gcd times; tiers in order of priority; inside a tier whoever has most turns left, then
//! whoever was served least recently. It is not RFC 2782 (a standby takes part in every cycle) and
//! it is not smooth between tiers; for people who come from there.
//!
//! Turns are counted, never laid out: a pick is O(log n) whatever the weights, a new cycle O(n).
//! What the older project left open:
//! - Weight zero: one turn a cycle.
//! - A target with several addresses: weights are brought to the common denominator first.
//! - Out: it loses its turns while it is away. Once back it has at most as many left as
//!   the one of its tier that has most, so that it is not served in a row.
//! - Excluded (tried for this request), or full: it keeps its turn. When only excluded ones have turns
//!   left the next cycle begins early and they keep theirs besides, at most a cycle's worth.
//! - Changed records: who stays keeps the part of its turns that was left; a new one comes in with
//!   the part that its tier has left.
//! - There is no random phase: a fresh schedule always begins at the beginning.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::sync::Arc;

use super::edf::LOOK_AGAIN;
use super::shares;
use super::snapshot::Tier;
use super::wish::{Missed, WhyTier, Wish};
use crate::clock::Millis;
use crate::upstream::backend::{Backend, BackendId, Claim, Unavailable};

/// The schedule of all tiers.
#[derive(Debug, Clone, Default)]
pub(super) struct Cycle {
    /// By tier, then by endpoint.
    slots: Vec<Slot>,
    /// Those with turns left that can be picked, as far as we know.
    ready: BinaryHeap<Reverse<Turn>>,
    /// Those that were found to be out.
    parked: Vec<u32>,
    /// When `parked` is looked at again. Meaningless while that is empty.
    look_again: Millis,
    /// Turns taken since the beginning.
    taken: u64,
    /// Turns of excluded and of full backends during one pick; kept for its memory.
    skipped: Vec<Reverse<Turn>>,
}

#[derive(Debug, Clone)]
struct Slot {
    backend: Arc<Backend>,
    priority: u16,
    /// Turns in a whole cycle; at least 1.
    turns: u64,
    /// Turns left in this cycle.
    left: u64,
    /// Value of `taken` when it was served last; 0: never.
    served: u64,
    parked: bool,
}

/// Whose turn is first: compared field by field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    priority: u16,
    left: Reverse<u64>,
    served: u64,
    slot: u32,
}

impl Slot {
    fn turn(&self, slot: usize) -> Turn {
        Turn {
            priority: self.priority,
            left: Reverse(self.left),
            served: self.served,
            slot: slot as u32,
        }
    }
}

impl Cycle {
    /// The backend whose turn it is, the priority of its tier, and why that tier.
    pub(super) fn pick(&mut self, wish: Wish<'_>) -> Result<(u16, WhyTier, Claim), Missed> {
        self.unpark(wish.now);
        let mut picked = self.take(wish);
        if matches!(picked, Err(Missed::Nobody)) && self.somebody_has_finished() {
            self.begin_cycle();
            picked = self.take(wish);
        }
        if matches!(picked, Err(Missed::Nobody)) && wish.last_resort {
            picked = self.take_parked(wish);
        }
        let (index, claim) = picked?;
        let why = match claim.out {
            true => WhyTier::Panic,
            false => WhyTier::Cycle,
        };
        Ok((self.slots[index].priority, why, claim))
    }

    /// Calls `see` with each backend.
    pub(super) fn backends(&mut self, see: &mut dyn FnMut(&mut Arc<Backend>)) {
        self.slots
            .iter_mut()
            .for_each(|slot| see(&mut slot.backend));
    }

    /// Takes over new records.
    pub(super) fn rebuild(&mut self, tiers: &[Tier]) {
        let old = std::mem::take(&mut self.slots);
        let known: std::collections::HashMap<_, _> =
            old.iter().map(|slot| (slot.backend.id, slot)).collect();
        let weights: Vec<_> = tiers.iter().flat_map(Tier::weights).collect();
        let mut all_turns = shares::turns(&weights).into_iter();
        for tier in tiers {
            let begin = self.slots.len();
            // Turns left and turns in all of those who stay, for those who come.
            let (mut tier_left, mut tier_turns) = (0, 0);
            let mut new = Vec::new();
            for (member, turns) in tier.members.iter().zip(&mut all_turns) {
                let mut slot = Slot {
                    backend: Arc::clone(&member.backend),
                    priority: tier.priority,
                    turns,
                    left: turns,
                    served: 0,
                    parked: false,
                };
                if let Some(known) = known.get(&slot.backend.id) {
                    slot.left = part(turns, known.left, known.turns);
                    slot.served = known.served;
                    slot.parked = known.parked;
                    tier_left += u128::from(slot.left);
                    tier_turns += u128::from(turns);
                } else {
                    new.push(self.slots.len() - begin);
                }
                self.slots.push(slot);
            }
            if tier_turns > 0 {
                for slot in new {
                    let slot = &mut self.slots[begin + slot];
                    let left = (u128::from(slot.turns) * tier_left).div_ceil(tier_turns);
                    slot.left = left as u64;
                }
            }
        }
        self.restack();
    }

    /// Takes the first turn of those that are neither excluded, nor out, nor full.
    fn take(&mut self, wish: Wish<'_>) -> Result<(usize, Claim), Missed> {
        let now = wish.now;
        let mut picked = Err(Missed::Nobody);
        while let Some(mut top) = self.ready.peek_mut() {
            let index = top.0.slot as usize;
            let slot = &mut self.slots[index];
            if wish.excluded.contains(&slot.backend.id) {
                self.skipped.push(PeekMut::pop(top));
                continue;
            }
            match slot.backend.claim(now, wish.trial) {
                Ok(claim) => {
                    self.taken += 1;
                    slot.left -= 1;
                    slot.served = self.taken;
                    match slot.left {
                        0 => drop(PeekMut::pop(top)),
                        _ => top.0 = slot.turn(index),
                    }
                    picked = Ok((index, claim));
                    break;
                }
                Err(Unavailable::Full) => {
                    picked = Err(Missed::Full);
                    self.skipped.push(PeekMut::pop(top));
                }
                Err(Unavailable::Until(until)) => {
                    let look_again = until.min(now.after(LOOK_AGAIN));
                    if self.parked.is_empty() || look_again < self.look_again {
                        self.look_again = look_again;
                    }
                    slot.parked = true;
                    self.parked.push(PeekMut::pop(top).0.slot);
                }
            }
        }
        self.ready.extend(self.skipped.drain(..));
        picked
    }

    /// Takes the first turn of those that are out, as if they were not. Looks at all of them: it
    /// is for when nobody else can be picked.
    fn take_parked(&mut self, wish: Wish<'_>) -> Result<(usize, Claim), Missed> {
        let first = self.first_parked(wish.excluded).or_else(|| {
            for &slot in &self.parked {
                let slot = &mut self.slots[slot as usize];
                slot.left = slot.left.max(slot.turns);
            }
            self.first_parked(wish.excluded)
        });
        let index = first.ok_or(Missed::Nobody)?;
        let slot = &mut self.slots[index];
        let claim = slot
            .backend
            .claim_anyway(wish.now)
            .map_err(|_| Missed::Full)?;
        self.taken += 1;
        slot.left -= 1;
        slot.served = self.taken;
        Ok((index, claim))
    }

    fn first_parked(&self, excluded: &[BackendId]) -> Option<usize> {
        let parked = self.parked.iter().map(|&slot| slot as usize);
        parked
            .filter(|&slot| self.slots[slot].left > 0)
            .filter(|&slot| !excluded.contains(&self.slots[slot].backend.id))
            .min_by_key(|&slot| self.slots[slot].turn(slot))
    }

    /// Is there anybody for whom a new cycle would bring a turn?
    fn somebody_has_finished(&self) -> bool {
        self.ready.len() + self.parked.len() < self.slots.len()
    }

    fn begin_cycle(&mut self) {
        for slot in &mut self.slots {
            slot.left = match slot.parked {
                true => slot.turns,
                false => slot.turns + slot.left.min(slot.turns),
            };
        }
        self.restack();
    }

    fn unpark(&mut self, now: Millis) {
        if self.parked.is_empty() || now < self.look_again {
            return;
        }
        self.look_again = now.after(LOOK_AGAIN);
        let mut back = Vec::new();
        self.parked.retain(|&slot| {
            let until = self.slots[slot as usize].backend.out_until(now);
            match until {
                Some(until) => self.look_again = self.look_again.min(until),
                None => back.push(slot as usize),
            }
            until.is_some()
        });
        for &slot in &back {
            let others = self.slots.iter().filter(|other| !other.parked);
            let most = others
                .filter(|other| other.priority == self.slots[slot].priority)
                .map(|other| other.left)
                .max();
            self.slots[slot].left = self.slots[slot].left.min(most.unwrap_or(0));
        }
        for &slot in &back {
            self.slots[slot].parked = false;
            if self.slots[slot].left > 0 {
                self.ready.push(Reverse(self.slots[slot].turn(slot)));
            }
        }
    }

    /// Builds heap and list anew from the slots.
    fn restack(&mut self) {
        self.ready.clear();
        self.parked.clear();
        for (index, slot) in self.slots.iter().enumerate() {
            if slot.parked {
                self.parked.push(index as u32);
            } else if slot.left > 0 {
                self.ready.push(Reverse(slot.turn(index)));
            }
        }
    }
}

/// `whole` · `left` / `of`, rounded down.
fn part(whole: u64, left: u64, of: u64) -> u64 {
    (u128::from(whole) * u128::from(left) / u128::from(of)) as u64
}

#[cfg(test)]
#[path = "cycle_tests.rs"]
mod tests;
