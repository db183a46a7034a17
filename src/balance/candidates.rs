//! The members of one tier for strategies that keep no order of their own: who of them can be had,
//! and draws by weight.
//!
//! A draw is exact: a member of share f is drawn with a probability of f (to 2⁻⁶⁰), and of f
//! divided by the shares of those who can be had where some cannot. It costs O(log n) while most
//! can be had, and one pass over all of them after [`DRAWS`] that led to nobody. Nothing is
//! allocated but by [`Candidates::rebuild`].

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;

use super::edf::LOOK_AGAIN;
use super::snapshot::Member;
use super::wish::{Missed, Wish};
use crate::clock::Millis;
use crate::upstream::backend::{Backend, Claim, Unavailable};

/// The members of one tier.
#[derive(Debug, Clone)]
pub(super) struct Candidates {
    /// Sorted by endpoint, as the tier was.
    list: Vec<Candidate>,
    /// Sums of the shares up to and with each, in units of 2⁻⁶⁰.
    sums: Vec<u64>,
    /// All were found to be out; they are not looked at before.
    all_out_until: Millis,
    slow_start: Duration,
    pub(super) rng: Rng,
}

/// A member of the tier.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub(super) backend: Arc<Backend>,
    /// One divided by its share of the tier.
    pub(super) stride: f64,
}

impl Candidates {
    /// Nobody. `slow_start`: how long a member rises; zero: none does.
    pub(super) fn new(seed: u64, slow_start: Duration) -> Candidates {
        Candidates {
            list: Vec::new(),
            sums: Vec::new(),
            all_out_until: Millis::default(),
            slow_start,
            rng: Rng::with_seed(seed),
        }
    }

    /// Takes over a tier's members with their strides.
    pub(super) fn rebuild(&mut self, members: &[Member], strides: &[u128]) {
        debug_assert_eq!(members.len(), strides.len());
        let pairs = members.iter().zip(strides);
        let candidate = |(member, stride): (&Member, &u128)| Candidate {
            backend: Arc::clone(&member.backend),
            stride: *stride as f64 / PICK,
        };
        self.list = pairs.map(candidate).collect();
        // Strides are at least one pick, 2⁶⁴, and shares sum to 1 (a little more when zero
        // weights take part): the sum stays below 2⁶².
        let mut sum = 0;
        let add = |stride: &u128| {
            sum += ((1 << 124) / stride) as u64;
            sum
        };
        self.sums = strides.iter().map(add).collect();
        self.all_out_until = Millis::default();
    }

    /// Calls `see` with each one's backend.
    pub(super) fn backends(&mut self, see: &mut dyn FnMut(&mut Arc<Backend>)) {
        self.list.iter_mut().for_each(|one| see(&mut one.backend));
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// One of them.
    pub(super) fn get(&self, index: usize) -> &Candidate {
        &self.list[index]
    }

    /// The part of its share that one has at `now`: less than 1 while it rises.
    pub(super) fn part(&self, index: usize, now: Millis) -> f64 {
        let backend = &self.list[index].backend;
        backend.part(now, self.slow_start).unwrap_or(1.0)
    }

    /// Can it be had?
    pub(super) fn look(&self, index: usize, wish: Wish<'_>) -> Result<(), Missed> {
        let backend = &self.list[index].backend;
        if wish.excluded.contains(&backend.id) {
            return Err(Missed::Nobody);
        }
        backend.look(wish.now, wish.trial).map_err(|why| match why {
            Unavailable::Until(_) => Missed::Nobody,
            Unavailable::Full => Missed::Full,
        })
    }

    /// Calls `see` with each that can be had, and with the part of its share that it has (see
    /// [`Candidates::part`]). An error says why there is none.
    pub(super) fn each(
        &mut self,
        wish: Wish<'_>,
        mut see: impl FnMut(usize, &Candidate, f64),
    ) -> Result<(), Missed> {
        if wish.now < self.all_out_until {
            return Err(Missed::Nobody);
        }
        let mut outcome = Err(Missed::Nobody);
        for (index, candidate) in self.list.iter().enumerate() {
            match self.look(index, wish) {
                Ok(()) => {
                    outcome = Ok(());
                    see(index, candidate, self.part(index, wish.now));
                }
                Err(Missed::Full) if outcome.is_err() => outcome = Err(Missed::Full),
                Err(_) => {}
            }
        }
        if outcome == Err(Missed::Nobody) {
            self.note_all_out(wish.now);
        }
        outcome
    }

    /// Nobody can be had: if that is because all are out, they are left alone for a while.
    fn note_all_out(&mut self, now: Millis) {
        let mut look_again = now.after(LOOK_AGAIN);
        for candidate in &self.list {
            match candidate.backend.out_until(now) {
                Some(until) => look_again = look_again.min(until),
                None => return,
            }
        }
        self.all_out_until = look_again;
    }

    /// Draws one that can be had by weight, anybody but `but`.
    pub(super) fn draw(&mut self, wish: Wish<'_>, but: Option<usize>) -> Result<usize, Missed> {
        if wish.now < self.all_out_until {
            return Err(Missed::Nobody);
        }
        match self.try_draw(wish, but) {
            Some(index) => Ok(index),
            None => self.draw_among_all(wish, but),
        }
    }

    /// The same without a look at all of them; `None`: [`DRAWS`] led to nobody.
    pub(super) fn try_draw(&mut self, wish: Wish<'_>, but: Option<usize>) -> Option<usize> {
        for _ in 0..DRAWS {
            let index = self.draw_any()?;
            if Some(index) != but
                && self.look(index, wish).is_ok()
                && self.keeps(self.part(index, wish.now))
            {
                return Some(index);
            }
        }
        None
    }

    /// One, by weight, whether it can be had or not; `None`: there is nobody.
    fn draw_any(&mut self) -> Option<usize> {
        let total = *self.sums.last()?;
        let ticket = self.rng.u64(..total);
        Some(self.sums.partition_point(|sum| *sum <= ticket))
    }

    /// True with that probability.
    fn keeps(&mut self, part: f64) -> bool {
        part >= 1.0 || self.rng.f64() < part
    }

    /// The same draw with one pass over all.
    fn draw_among_all(&mut self, wish: Wish<'_>, but: Option<usize>) -> Result<usize, Missed> {
        // Reservoir sampling with weights (Chao 1982): whoever comes takes the place of the one
        // that was drawn with a probability of its share of those seen so far.
        let mut rng = self.rng.fork();
        let (mut total, mut drawn) = (0.0, None);
        self.each(wish, |index, candidate, part| {
            if Some(index) == but {
                return;
            }
            let weight = part / candidate.stride;
            total += weight;
            if rng.f64() * total < weight {
                drawn = Some(index);
            }
        })?;
        drawn.ok_or(Missed::Nobody)
    }

    /// The probability with which [`Candidates::draw`] draws each, in their order.
    pub(super) fn chances(&self, wish: Wish<'_>) -> Vec<f64> {
        self.by_share(|index, one| match self.look(index, wish) {
            Ok(()) => self.part(index, wish.now) / one.stride,
            Err(_) => 0.0,
        })
    }

    /// The same for [`Candidates::pick_out`].
    pub(super) fn chances_out(&self, wish: Wish<'_>) -> Vec<f64> {
        let had =
            |one: &Candidate| !wish.excluded.contains(&one.backend.id) && one.backend.has_room();
        self.by_share(|_, one| if had(one) { 1.0 / one.stride } else { 0.0 })
    }

    /// What `weigh` gives each, so that all is 1, or 0 where nobody has anything.
    fn by_share(&self, weigh: impl Fn(usize, &Candidate) -> f64) -> Vec<f64> {
        let list = self.list.iter().enumerate();
        let mut shares: Vec<f64> = list.map(|(index, one)| weigh(index, one)).collect();
        let all: f64 = shares.iter().sum();
        if all > 0.0 {
            shares.iter_mut().for_each(|share| *share /= all);
        }
        shares
    }

    /// Wins one.
    pub(super) fn claim(&self, index: usize, wish: Wish<'_>) -> Option<Claim> {
        let backend = &self.list[index].backend;
        backend.claim(wish.now, wish.trial).ok()
    }

    /// Wins anybody, the first from a random one on: for when another worker was quicker at who
    /// was chosen.
    pub(super) fn claim_any(&mut self, wish: Wish<'_>) -> Result<Claim, Missed> {
        let begin = self.draw_any().unwrap_or(0);
        let mut missed = Missed::Nobody;
        for index in (begin..self.len()).chain(0..begin) {
            match self.look(index, wish) {
                Ok(()) => match self.claim(index, wish) {
                    Some(claim) => return Ok(claim),
                    None => missed = Missed::Full,
                },
                Err(Missed::Full) => missed = Missed::Full,
                Err(Missed::Nobody) => {}
            }
        }
        Err(missed)
    }

    /// Wins anybody, by weight, as if nobody were out: for when nobody else is left.
    pub(super) fn pick_out(&mut self, wish: Wish<'_>) -> Result<Claim, Missed> {
        let mut missed = Missed::Nobody;
        for _ in 0..DRAWS {
            let Some(index) = self.draw_any() else {
                return Err(Missed::Nobody);
            };
            match self.claim_anyway(index, wish) {
                Ok(claim) => return Ok(claim),
                Err(why) => missed = missed.max(why),
            }
        }
        for index in 0..self.len() {
            match self.claim_anyway(index, wish) {
                Ok(claim) => return Ok(claim),
                Err(why) => missed = missed.max(why),
            }
        }
        Err(missed)
    }

    /// Wins one as if it were not out.
    pub(super) fn claim_anyway(&self, index: usize, wish: Wish<'_>) -> Result<Claim, Missed> {
        let backend = &self.list[index].backend;
        if wish.excluded.contains(&backend.id) {
            return Err(Missed::Nobody);
        }
        backend.claim_anyway(wish.now).map_err(|_| Missed::Full)
    }
}

/// A stride of one pick.
const PICK: f64 = super::shares::PICK as f64;

/// So many draws that lead to nobody are made before all are looked at: with half of the shares
/// out, one pick of 65,536 looks at all.
const DRAWS: usize = 16;

#[cfg(test)]
#[path = "candidates_tests.rs"]
mod tests;
