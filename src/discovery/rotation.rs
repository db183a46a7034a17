//! Answers that show a part of a larger set, another one each time, and who is believed to be in
//! the whole of it.
//!
//! Pure; driven by `policy.rs`. It never removes anybody from an offer: it says who was not
//! listed and is there all the same, and the policy goes by that.
//!
//! AWS Cloud Map gives eight, or one; Consul gives three of all without EDNS. What it cuts
//! by size with EDNS is got over TCP (`cut.rs`), and no part here.
//!
//! **When answers rotate.** Somebody who was gone came back and then was gone again, while others
//! took the place, in an answer of at most [`MAX_WINDOW`] and no smaller than the 32 before it; and
//! that happened twice. A set that grows and shrinks has answers of which one holds the other; a
//! member that restarts comes back to a larger answer; a rolling restart takes each member away
//! once; an answer that is given a few times in a row is the whole set: none of these counts.
//! Two rolling restarts of up to nine, with none of all in 32 answers between them, are never
//! taken for it in simulation; restarts without end and without a pause are.
//!
//! **When a member leaves.** Of `n` that are there, each answer shows `k` at random. One that is
//! there is not shown `m` times in a row with the probability (1 - k/n)^m, so `m` is the lowest
//! number for which that is at most 10^-6 (`members.rs`). `n` is what is known by now, those included who
//! left and have not been missed for long enough; `k` is the smallest recent answer: both err on
//! the side of patience.
//!
//! **When it is over.** With an answer that is too large to be a part ([`MAX_WINDOW`]), that
//! lists all who are known and more than any answer before, or that was given [`CALM`] times
//! more. What a wrong guess costs: until then, whoever is withdrawn stays for its `m` answers (9
//! with 4 of 5) unless a connect to it fails, so it gets requests when it stops, and is not drained.
//!
//! O(n log n) an answer, for the n of the union, which is bounded.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use tokio::time::Instant;

use super::Endpoint;
use super::members::{Member, Members, Shown, misses};
use super::streak::Facts;

/// More records than this are no part of a larger set. Servers that cut by number stop at 8 (AWS
/// Cloud Map). With more, a rolling restart that is slow enough looks like rotation.
pub const MAX_WINDOW: usize = 8;

/// The same answer so many times more is the whole set: the likeliest part to come again, two of
/// three (or one of two), does so with a probability of less than 2^-20 = 10^-6.
pub const CALM: u32 = 20;

/// Answers that lack somebody who had come back, which make answers rotate.
const RELAPSES: u8 = 2;

/// The same answer so many times more makes what was seen before it no sign of rotation: two of
/// three do that with a probability of 1/27, and restarts last longer.
const SETTLED: u32 = 3;

/// Answers of which the sizes are compared. In a rolling restart that is longer it is not seen that
/// the answers lack somebody throughout; then it takes a second one to mistake them.
const RECENT: usize = 32;

/// Answers for which one that is gone is remembered, lest its comeback be missed, and for which
/// answers may differ before it is believed that those who are gone are gone. With three of a
/// thousand there are 18 comebacks within these on average.
const MEMORY: u32 = 64;

/// How answers rotate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotating {
    /// Members that one answer shows.
    pub shown: usize,
    /// Members that are known by now.
    pub known: usize,
    /// A member leaves after it was missing from so many answers in a row.
    pub misses: u32,
}

/// A change of how answers are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// They rotate.
    Rotates(Rotating),
    /// They no longer do.
    Ended(Ended),
}

/// Why answers no longer rotate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// An answer is too large to be a part.
    Large,
    /// An answer lists all, and more than any before.
    Whole,
    /// The same answer came again and again.
    Calm,
}

/// The state of one name.
#[derive(Debug)]
pub(super) struct Rotation {
    limit: usize,
    rotating: bool,
    /// Who was listed lately. While answers rotate, the union.
    members: Members,
    /// Who was taken for gone at the last answer, and after how many.
    missed: BTreeMap<Member, u32>,
    /// Sizes of the latest answers, [`RECENT`] at most.
    sizes: VecDeque<usize>,
    /// From when on an answer counts as another one.
    next_from: Option<Instant>,
    /// How often the last answer was given again.
    same: u32,
    /// Somebody came back, so the answers may be parts.
    comeback: bool,
    /// Answers that lack somebody who had come back before.
    relapses: u8,
    /// Answers in a row that may be parts.
    doubts: u32,
    /// This is the first one.
    first: bool,
}

impl Rotation {
    /// Nothing is known yet; the union has at most `limit` members.
    pub(super) fn new(limit: usize) -> Rotation {
        Rotation {
            limit: limit.max(MAX_WINDOW),
            rotating: false,
            members: Members::default(),
            missed: BTreeMap::new(),
            sizes: VecDeque::new(),
            next_from: None,
            same: 0,
            comeback: false,
            relapses: 0,
            doubts: 0,
            first: true,
        }
    }

    /// Takes up an answer. `offered` gives whoever is offered, listed or not: when answers turn out
    /// to rotate, those are the union.
    ///
    /// Additions take effect with every answer. Misses and comebacks count only when the answer is
    /// another one, as the time for which the one before may be believed has run out, and misses
    /// only when it differs, so that a cache which does not say how old its answers are makes
    /// nobody leave.
    pub(super) fn observe(
        &mut self,
        listed: BTreeMap<Member, Shown>,
        offered: &dyn Fn() -> BTreeSet<Member>,
        facts: Facts<'_>,
    ) -> Option<Turn> {
        if facts.repeated && !self.first {
            return None;
        }
        self.missed.clear();
        let fresh = self.next_from.is_none_or(|from| facts.now >= from);
        if fresh {
            self.next_from = Some(facts.now + facts.believed_for);
        }
        if listed.len() > MAX_WINDOW {
            let rotated = self.rotating;
            let sizes = std::mem::take(&mut self.sizes);
            self.start_over();
            self.sizes = sizes;
            self.sized(listed.len(), fresh);
            self.first = false;
            return rotated.then_some(Turn::Ended(Ended::Large));
        }
        let answer: BTreeSet<_> = listed.keys().cloned().collect();
        self.same = match answer == *self.members.last() && !self.first {
            true => self.same + u32::from(fresh),
            false => 0,
        };
        let largest = self.sizes.iter().max().copied().unwrap_or_default();
        if !self.rotating {
            self.doubt(&answer, largest, fresh);
        }
        self.members.list(listed, fresh && self.same == 0);
        let (ended, began) = match self.rotating {
            true => (self.end(answer.len(), largest), false),
            false => (None, self.begin(offered)),
        };
        self.sized(answer.len(), fresh);
        self.first = false;
        if let Some(Rotating { misses, .. }) = self.rotating()
            && fresh
            && self.same == 0
        {
            self.missed = self.members.evict(misses, self.limit);
        }
        match began {
            true => self.rotating().map(Turn::Rotates),
            false => ended.map(Turn::Ended),
        }
    }

    /// How answers rotate, if they do.
    pub(super) fn rotating(&self) -> Option<Rotating> {
        let shown = self.sizes.iter().min().copied().unwrap_or(1);
        self.rotating.then(|| Rotating {
            shown,
            known: self.members.len(),
            misses: misses(shown, self.members.len()),
        })
    }

    /// May the last answer be a part, although that is not certain? Then nobody should leave
    /// because of it.
    pub(super) fn is_doubtful(&self) -> bool {
        (1..=MEMORY).contains(&self.doubts)
    }

    /// From when on another answer says something new.
    pub(super) fn next_from(&self) -> Option<Instant> {
        self.next_from
    }

    /// Members of the union that the last answer did not list, and what was last said of them.
    pub(super) fn unlisted(&self) -> impl Iterator<Item = (&Member, &Shown)> {
        self.members.unlisted().filter(|_| self.rotating)
    }

    /// Is it in the union without being listed?
    pub(super) fn remembers(&self, endpoint: &Endpoint) -> bool {
        self.rotating && self.members.remember(endpoint)
    }

    /// Is it to be left out although its member is in the union?
    pub(super) fn is_unreachable(&self, endpoint: &Endpoint) -> bool {
        self.members.is_unreachable(endpoint)
    }

    /// See [`Members::unreachable`].
    pub(super) fn unreachable(&mut self, endpoint: &Endpoint, alone: bool) {
        self.members.unreachable(endpoint, alone);
    }

    /// After how many answers without it somebody was taken for gone just now.
    pub(super) fn missed(&self, endpoint: &Endpoint) -> Option<u32> {
        let candidates = Member::candidates(endpoint);
        candidates.iter().find_map(|m| self.missed.get(m).copied())
    }

    /// Forgets everything but that there were answers: nobody is there any more.
    pub(super) fn start_over(&mut self) {
        *self = Rotation {
            next_from: self.next_from,
            first: self.first,
            ..Rotation::new(self.limit)
        };
    }

    /// Remembers the size of an answer.
    fn sized(&mut self, size: usize, fresh: bool) {
        if size > 0 && fresh {
            self.sizes.truncate(RECENT - 1);
            self.sizes.push_front(size);
        }
    }

    /// Before answers are known to rotate: what speaks for it?
    fn doubt(&mut self, answer: &BTreeSet<Member>, largest: usize, fresh: bool) {
        if answer.len() > largest || self.same >= SETTLED {
            self.comeback = false;
            self.relapses = 0;
            self.members.forget_returns();
        }
        let last = self.members.last();
        let gone = last.difference(answer).count();
        let replaced = gone > 0 && !answer.is_subset(last);
        let mostly = gone * 2 > last.len();
        if fresh && replaced && answer.len() >= largest {
            self.relapses += u8::from(self.members.relapse(answer));
            self.comeback |= self.members.mark_returns(answer);
        }
        let (doubted, suspicious) = (self.doubts > 0, self.comeback);
        let second = self.sizes.len() == 1;
        let doubtful = match replaced {
            true => mostly || second || doubted || suspicious,
            false => doubted && suspicious && self.same < SETTLED,
        };
        self.doubts = match doubtful {
            true => self.doubts.saturating_add(1),
            false => 0,
        };
    }

    /// Do they rotate by now?
    fn begin(&mut self, offered: &dyn Fn() -> BTreeSet<Member>) -> bool {
        self.rotating = self.relapses >= RELAPSES;
        if self.rotating {
            self.doubts = 0;
            let offered = offered();
            self.members.retain(|member, _| offered.contains(member));
        } else {
            let calm = self.same >= CALM;
            self.members.retain(|_, misses| !calm && misses <= MEMORY);
        }
        self.rotating
    }

    /// Do they no longer rotate? The answer, of that size, is then all there is.
    fn end(&mut self, size: usize, largest: usize) -> Option<Ended> {
        let ended = if self.same >= CALM {
            Ended::Calm
        } else if size > largest && size == self.members.len() {
            Ended::Whole
        } else {
            return None;
        };
        let mut members = std::mem::take(&mut self.members);
        members.retain(|_, _| false);
        let same = self.same;
        self.start_over();
        (self.members, self.same) = (members, same);
        Some(ended)
    }
}

impl fmt::Display for Rotating {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rotating {
            shown,
            known,
            misses,
        } = self;
        write!(
            f,
            "answers rotate, {shown} of {known} seen so far at a time: all of them are used, and one leaves when {misses} answers in a row lack it or a connect to it fails"
        )
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ended::Large => f.write_str("an answer is too large to be a part of more"),
            Ended::Whole => f.write_str("an answer lists all, and more than any before it"),
            Ended::Calm => write!(f, "the same answer came {CALM} times more"),
        }
    }
}

#[cfg(test)]
#[path = "rotation_tests.rs"]
mod tests;
