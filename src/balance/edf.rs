//! Earliest deadline first. Each member's next turn has a deadline in virtual time; a pick takes
//! the earliest one and moves it on by the member's stride (the inverse of its share), so each
//! member's turns are exactly one stride apart. A heap holds the deadlines: a pick is O(log n) and
//! allocates nothing, a rebuild is O(n). Members that are out wait in a second heap and
//! are looked at only when the first of them may be back: O(1) for all picks in between. A member
//! that is rising (`slow_start`) gives a part of its turns up, at random.
//!
//! One tier of one worker's schedule; it knows neither other tiers nor DNS. Called by `picker.rs`.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;

use super::snapshot::Member;
use super::wish::{Missed, Wish};
use crate::clock::Millis;
use crate::upstream::backend::{Backend, Claim, Unavailable};

/// The schedule of one tier.
#[derive(Debug, Clone)]
pub(super) struct Edf {
    /// Sorted by endpoint, as the tier was.
    slots: Vec<Slot>,
    /// Next turns of those that can be picked, as far as we know.
    ready: Turns,
    /// Next turns of those that were found to be out.
    parked: Turns,
    /// When `parked` is looked at again. Meaningless while that is empty.
    look_again: Millis,
    /// Deadline of the latest turn that was taken; never goes back.
    virtual_now: u128,
    /// Turns of excluded and of full members during one pick; kept for its memory.
    skipped: Vec<Reverse<Turn>>,
    rng: Rng,
    /// How long a member rises.
    slow_start: Duration,
}

#[derive(Debug, Clone)]
struct Slot {
    backend: Arc<Backend>,
    stride: u128,
}

/// Ordered by deadline, then by slot: ties are broken the same way every time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    deadline: u128,
    slot: u32,
}

type Turns = BinaryHeap<Reverse<Turn>>;

impl Edf {
    /// A schedule of nobody. `slow_start`: how long a member rises; zero: none does.
    pub(super) fn new(seed: u64, slow_start: Duration) -> Edf {
        Edf {
            slots: Vec::new(),
            ready: Turns::new(),
            parked: Turns::new(),
            look_again: Millis::default(),
            virtual_now: 0,
            skipped: Vec::new(),
            rng: Rng::with_seed(seed),
            slow_start,
        }
    }

    /// Takes over a tier's members (sorted by endpoint) with their strides.
    ///
    /// Virtual time is carried over: a member that stays keeps the part of its stride that it
    /// still has to wait, whatever became of its weight. One that is new comes in at a random
    /// point of its stride, so that neither it nor anybody else has a burst. When all are new,
    /// see [`Edf::scatter`].
    pub(super) fn rebuild(&mut self, members: &[Member], strides: &[u128]) {
        debug_assert_eq!(members.len(), strides.len());
        let parked_before = self.parked.len();
        // By old slot: the deadline, and whether it is parked.
        let mut known = vec![(0, false); self.slots.len()];
        for Reverse(turn) in self.ready.drain() {
            known[turn.slot as usize] = (turn.deadline, false);
        }
        for Reverse(turn) in self.parked.drain() {
            known[turn.slot as usize] = (turn.deadline, true);
        }
        let old = std::mem::take(&mut self.slots);
        self.slots.reserve_exact(members.len());
        let mut ready = Vec::with_capacity(members.len());
        let mut parked = Vec::with_capacity(parked_before);
        let mut kept = 0;
        let mut left = old.iter().zip(&known).peekable();
        for (slot, (member, &stride)) in members.iter().zip(strides).enumerate() {
            let backend = Arc::clone(&member.backend);
            while left
                .next_if(|(old, _)| {
                    old.backend.id != backend.id && old.backend.endpoint < backend.endpoint
                })
                .is_some()
            {}
            let (deadline, is_parked) = match left.next_if(|(old, _)| old.backend.id == backend.id)
            {
                Some((old, &(deadline, is_parked))) => {
                    kept += 1;
                    let wait = deadline.saturating_sub(self.virtual_now);
                    (rescale(wait, old.stride, stride), is_parked)
                }
                None => (part_of(stride, self.rng.u64(..)), false),
            };
            let turn = Turn {
                deadline: self.virtual_now + deadline,
                slot: slot as u32,
            };
            if is_parked { &mut parked } else { &mut ready }.push(Reverse(turn));
            self.slots.push(Slot { backend, stride });
        }
        if kept == 0 {
            ready = self.scatter();
        }
        self.ready = ready.into();
        self.parked = parked.into();
    }

    /// First turns of a fresh schedule, such that every pick from the first one on falls on each
    /// member with a probability of exactly its share: a thousand balancers that start together
    /// don't all begin with the same backend.
    ///
    /// The first turn is drawn by share. Members of equal stride follow each other at equal
    /// distances in a random order; each such class but that of the first turn is shifted by a
    /// random part of that distance. A class so spaced looks the same at every moment, classes
    /// know nothing of each other, and seen from one of their turns the rest of such a process is
    /// as it was (Palm): hence the exact probability. Equal spacing is what keeps the picks
    /// smooth where thousands of light members surround a heavy one: of N picks a member of share
    /// f has got f·N, give or take 1 + f·(number of different strides).
    fn scatter(&mut self) -> Vec<Reverse<Turn>> {
        let first = self.draw();
        let mut order: Vec<u32> = (0..self.slots.len() as u32).collect();
        self.rng.shuffle(&mut order);
        let slots = &self.slots;
        order.sort_by_key(|&slot| (slots[slot as usize].stride, Some(slot) != first));
        let mut turns = Vec::with_capacity(order.len());
        for class in order.chunk_by(|&a, &b| slots[a as usize].stride == slots[b as usize].stride) {
            let stride = slots[class[0] as usize].stride;
            let size = class.len() as u128;
            let shift = match Some(class[0]) == first {
                true => 0,
                false => part_of(stride, self.rng.u64(..)) / size,
            };
            turns.extend(class.iter().zip(0..).map(|(&slot, place)| {
                let distance = stride / size * place + stride % size * place / size;
                let deadline = self.virtual_now + distance + shift;
                Reverse(Turn { deadline, slot })
            }));
        }
        turns
    }

    /// A slot, each with a probability of its share; `None` without slots.
    fn draw(&mut self) -> Option<u32> {
        // Strides are at least one pick, 2⁶⁴, and shares sum to 1 (a little more when zero
        // weights take part): the sum stays below 2⁶².
        let share = |slot: &Slot| ((1 << 124) / slot.stride) as u64;
        let total: u64 = self.slots.iter().map(share).sum();
        let mut ticket = self.rng.u64(..total.max(1));
        self.slots.iter().zip(0..).find_map(|(slot, index)| {
            let share = share(slot);
            let hit = ticket < share;
            ticket = ticket.wrapping_sub(share);
            hit.then_some(index)
        })
    }

    /// Calls `see` with each member's backend.
    pub(super) fn backends(&mut self, see: &mut dyn FnMut(&mut Arc<Backend>)) {
        self.slots
            .iter_mut()
            .for_each(|slot| see(&mut slot.backend));
    }

    /// The member whose turn it is, without those that are out, excluded or full. A member that is
    /// left out because it is excluded or full keeps its turn (but at most one of them).
    pub(super) fn pick(&mut self, wish: Wish<'_>) -> Result<Claim, Missed> {
        let now = wish.now;
        self.unpark(now);
        let mut picked = Err(Missed::Nobody);
        let mut given_up = 0;
        while let Some(mut top) = self.ready.peek_mut() {
            let slot = &self.slots[top.0.slot as usize];
            if wish.excluded.contains(&slot.backend.id) {
                self.skipped.push(PeekMut::pop(top));
                continue;
            }
            if let Some(part) = slot.backend.part(now, self.slow_start)
                && given_up < GIVEN_UP_AT_MOST
                && self.rng.f64() >= part
            {
                given_up += 1;
                take(&mut top.0, slot, &mut self.virtual_now);
                continue;
            }
            match slot.backend.claim(now, wish.trial) {
                Ok(claim) => {
                    take(&mut top.0, slot, &mut self.virtual_now);
                    picked = Ok(claim);
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
                    self.parked.push(PeekMut::pop(top));
                }
            }
        }
        self.ready.extend(self.skipped.drain(..));
        picked
    }

    /// The member among those that are out whose turn it is, as if they were not. For when nobody
    /// else can be picked: [`Edf::pick`] has parked them.
    pub(super) fn pick_out(&mut self, wish: Wish<'_>) -> Result<Claim, Missed> {
        let mut picked = Err(Missed::Nobody);
        while let Some(mut top) = self.parked.peek_mut() {
            let slot = &self.slots[top.0.slot as usize];
            if wish.excluded.contains(&slot.backend.id) {
                self.skipped.push(PeekMut::pop(top));
                continue;
            }
            match slot.backend.claim_anyway(wish.now) {
                Ok(claim) => {
                    take(&mut top.0, slot, &mut self.virtual_now);
                    picked = Ok(claim);
                    break;
                }
                Err(_) => {
                    picked = Err(Missed::Full);
                    self.skipped.push(PeekMut::pop(top));
                }
            }
        }
        self.parked.extend(self.skipped.drain(..));
        picked
    }

    /// Brings back who is no longer out, each at a random point of its stride: what was
    /// missed is not made up for, and many that come back together don't come in a row.
    fn unpark(&mut self, now: Millis) {
        if self.parked.is_empty() || now < self.look_again {
            return;
        }
        self.look_again = now.after(LOOK_AGAIN);
        let mut turns = std::mem::take(&mut self.parked).into_vec();
        turns.retain(|&Reverse(Turn { slot, .. })| {
            let Slot { backend, stride } = &self.slots[slot as usize];
            if let Some(until) = backend.out_until(now) {
                self.look_again = self.look_again.min(until);
                return true;
            }
            let deadline = self.virtual_now + part_of(*stride, self.rng.u64(..));
            self.ready.push(Reverse(Turn { deadline, slot }));
            false
        });
        self.parked = turns.into();
    }
}

/// Takes `turn`: moves virtual time to it and the turn on by a stride. A turn that is overdue
/// because its member was excluded is made up for once, not once for every stride it missed.
fn take(turn: &mut Turn, slot: &Slot, virtual_now: &mut u128) {
    *virtual_now = turn.deadline.max(*virtual_now);
    turn.deadline = (turn.deadline + slot.stride).max(*virtual_now);
}

/// `whole` · `part` / 2⁶⁴, rounded down.
fn part_of(whole: u128, part: u64) -> u128 {
    let part = u128::from(part);
    (whole >> 64) * part + (((whole & u128::from(u64::MAX)) * part) >> 64)
}

/// `wait`, which is at most `old`, as the same part of `new`. Exact when the stride has not
/// changed, else a few parts in 2⁶³ short.
fn rescale(wait: u128, old: u128, new: u128) -> u128 {
    if old == new {
        return wait;
    }
    let shift = (u128::BITS - old.leading_zeros()).saturating_sub(63);
    let part = ((wait >> shift) << 64) / (old >> shift).max(1);
    part_of(new, part.min(u128::from(u64::MAX)) as u64)
}

/// `parked` is looked at this often at least: a connect that another worker dared, or a check, may
/// have ended the time of being out early.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// So many turns are given up in one pick at most, then whoever is next has it: where all members
/// rise somebody has to be picked.
const GIVEN_UP_AT_MOST: u32 = 32;

#[cfg(test)]
#[path = "edf_tests.rs"]
mod tests;
