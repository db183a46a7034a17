//! Tiers by rising priority, each with a strategy of its own inside (RFC 2782: the lowest-numbered
//! priority that can be reached). `spill.rs` says where the one is softened.

use std::sync::Arc;

use fastrand::Rng;

use super::edf::Edf;
use super::hash::Hash;
use super::least_connections::LeastConnections;
use super::random::Random;
use super::shares;
use super::snapshot::{Member, Tier};
use super::spill::Spill;
use super::two_choices::TwoChoices;
use super::wish::{Missed, WhenFull, WhyTier, Wish};
use crate::config::{Balancing, Strategy};
use crate::upstream::backend::{Backend, Claim};

/// The tiers of a service.
#[derive(Debug, Clone)]
pub(super) struct Tiers {
    balancing: Balancing,
    levels: Vec<Level>,
    spill: Spill,
    rng: Rng,
}

/// One tier.
#[derive(Debug, Clone)]
struct Level {
    priority: u16,
    order: Order,
}

/// Who is next within a tier.
#[derive(Debug, Clone)]
enum Order {
    Edf(Edf),
    LeastConnections(LeastConnections),
    Random(Random),
    TwoChoices(TwoChoices),
    Hash(Hash),
}

impl Tiers {
    /// No tiers yet; `seed` is where chance begins.
    pub(super) fn new(balancing: Balancing, seed: u64) -> Tiers {
        Tiers {
            balancing,
            levels: Vec::new(),
            spill: Spill::default(),
            rng: Rng::with_seed(seed),
        }
    }

    /// The next backend, the priority of its tier, and why that tier. `tiers` are those of the last
    /// [`Tiers::rebuild`].
    pub(super) fn pick(
        &mut self,
        tiers: &[Tier],
        wish: Wish<'_>,
    ) -> Result<(u16, WhyTier, Claim), Missed> {
        if self.levels.len() > 1 && Spill::matters(&self.balancing) {
            let next = self.spill.next(tiers, &self.balancing, wish.now);
            // The first one has its turn below.
            if next > 0 {
                let Level { priority, order } = &mut self.levels[next];
                // If it has nobody after all, or nobody with room, it is as if nothing spilled.
                if let Ok(claim) = order.pick(wish) {
                    return Ok((*priority, WhyTier::Spill, claim));
                }
            }
        }
        let mut missed = Missed::Nobody;
        let mut why = WhyTier::First;
        for Level { priority, order } in &mut self.levels {
            match order.pick(wish) {
                Ok(claim) => return Ok((*priority, why, claim)),
                Err(Missed::Full) if wish.when_full == WhenFull::Waits => return Err(Missed::Full),
                Err(Missed::Full) => missed = Missed::Full,
                Err(Missed::Nobody) => {}
            }
            why = WhyTier::Lower;
        }
        if missed == Missed::Full || !wish.last_resort {
            // They can serve, only not now; or those who cannot have been tried often enough.
            return Err(missed);
        }
        // Nobody can serve as far as we know: better to try than to refuse.
        for Level { priority, order } in &mut self.levels {
            match order.pick_out(wish) {
                Ok(claim) => return Ok((*priority, WhyTier::Panic, claim)),
                Err(Missed::Full) => missed = Missed::Full,
                Err(Missed::Nobody) => {}
            }
        }
        Err(missed)
    }

    /// The probability of each member of that tier, if chance chooses among them; empty where there
    /// are too many to say. `out`: as if nobody were out.
    pub(super) fn chances(&self, priority: u16, wish: Wish<'_>, out: bool) -> Option<Vec<f64>> {
        match (&self.level(priority)?.order, out) {
            (Order::Edf(_) | Order::Hash(_), _) => None,
            (Order::LeastConnections(order), false) => order.chances(wish),
            (Order::LeastConnections(order), true) => Some(order.chances_out(wish)),
            (Order::Random(order), false) => Some(order.chances(wish)),
            (Order::Random(order), true) => Some(order.chances_out(wish)),
            (Order::TwoChoices(order), false) => Some(order.chances(wish)),
            (Order::TwoChoices(order), true) => Some(order.chances_out(wish)),
        }
    }

    /// The members of that tier in the order in which they have a key; `None`: they have none.
    pub(super) fn owners(&self, priority: u16, key: u64) -> Option<Vec<usize>> {
        match &self.level(priority)?.order {
            Order::Hash(order) => Some(order.owners(key)),
            _ => None,
        }
    }

    /// The part of all requests that each tier takes, as of the last pick; empty where the first that
    /// can serve takes all.
    pub(super) fn parts(&self) -> Vec<f64> {
        match self.levels.len() > 1 && Spill::matters(&self.balancing) {
            true => self.spill.parts(),
            false => Vec::new(),
        }
    }

    fn level(&self, priority: u16) -> Option<&Level> {
        self.levels.iter().find(|level| level.priority == priority)
    }

    /// Calls `see` with each backend, perhaps more than once.
    pub(super) fn backends(&mut self, see: &mut dyn FnMut(&mut Arc<Backend>)) {
        for Level { order, .. } in &mut self.levels {
            match order {
                Order::Edf(order) => order.backends(see),
                Order::LeastConnections(order) => order.backends(see),
                Order::Random(order) => order.backends(see),
                Order::TwoChoices(order) => order.backends(see),
                Order::Hash(order) => order.backends(see),
            }
        }
    }

    /// Takes over new records. A tier is the same tier while its priority is the same.
    pub(super) fn rebuild(&mut self, tiers: &[Tier]) {
        let mut old = std::mem::take(&mut self.levels).into_iter().peekable();
        for tier in tiers {
            while old
                .next_if(|level| level.priority < tier.priority)
                .is_some()
            {}
            let known = old.next_if(|level| level.priority == tier.priority);
            let mut level = known.unwrap_or_else(|| Level {
                priority: tier.priority,
                order: Order::new(self.balancing, self.rng.u64(..)),
            });
            let strides = match self.balancing.strategy {
                Strategy::RoundRobin => shares::equal_strides(tier.members.len()),
                _ => shares::strides(&tier.weights()),
            };
            level.order.rebuild(&tier.members, &strides);
            self.levels.push(level);
        }
        self.spill.rebuild(tiers, self.balancing.strategy);
    }
}

impl Order {
    fn new(balancing: Balancing, seed: u64) -> Order {
        let slow_start = balancing.slow_start;
        match balancing.strategy {
            // `picker.rs` keeps `cycle` away from tiers.
            Strategy::Weighted | Strategy::RoundRobin | Strategy::Cycle => {
                Order::Edf(Edf::new(seed, slow_start))
            }
            Strategy::LeastConnections => {
                Order::LeastConnections(LeastConnections::new(seed, slow_start))
            }
            Strategy::Random => Order::Random(Random::new(seed, slow_start)),
            Strategy::TwoChoices => Order::TwoChoices(TwoChoices::new(seed, slow_start)),
            Strategy::Hash => Order::Hash(Hash::new(seed, slow_start)),
        }
    }

    /// Takes over a tier's members with their strides.
    fn rebuild(&mut self, members: &[Member], strides: &[u128]) {
        match self {
            Order::Edf(order) => order.rebuild(members, strides),
            Order::LeastConnections(order) => order.rebuild(members, strides),
            Order::Random(order) => order.rebuild(members, strides),
            Order::TwoChoices(order) => order.rebuild(members, strides),
            Order::Hash(order) => order.rebuild(members, strides),
        }
    }

    /// Who is next, without those that are out, excluded or full.
    fn pick(&mut self, wish: Wish<'_>) -> Result<Claim, Missed> {
        match self {
            Order::Edf(order) => order.pick(wish),
            Order::LeastConnections(order) => order.pick(wish),
            Order::Random(order) => order.pick(wish),
            Order::TwoChoices(order) => order.pick(wish),
            Order::Hash(order) => order.pick(wish),
        }
    }

    /// Who is next as if nobody were out, after [`Order::pick`] found nobody.
    fn pick_out(&mut self, wish: Wish<'_>) -> Result<Claim, Missed> {
        match self {
            Order::Edf(order) => order.pick_out(wish),
            Order::LeastConnections(order) => order.pick_out(wish),
            Order::Random(order) => order.pick_out(wish),
            Order::TwoChoices(order) => order.pick_out(wish),
            Order::Hash(order) => order.pick_out(wish),
        }
    }
}
