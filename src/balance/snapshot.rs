//! The backends of a service as the workers see them: immutable, tier by tier.
//!
//! Written by `service.rs`, read by every worker's picker, and by metrics and the admin pages
//! through [`Snapshot::status`].

use std::sync::Arc;
use std::time::SystemTime;

use super::affinity::Tokens;
use super::shares::{self, Weight};
use crate::clock::Millis;
use crate::config::Strategy;
use crate::upstream::backend::Backend;
use crate::upstream::standing::{Reason, State};

/// All tiers of a service at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Counts the snapshots of a service from 1 on; 0: nobody has published one.
    pub number: u64,
    /// When it was made.
    pub made: Millis,
    /// Has discovery said anything yet (even that nobody is there)?
    pub answered: bool,
    /// When it was made; `None`: it is the first, empty one.
    pub made_at: Option<SystemTime>,
    /// By rising priority value; none is empty.
    pub tiers: Vec<Tier>,
    /// Those that are drained by hand, by tier in the same way: no schedule has them.
    pub drained: Vec<Tier>,
    /// Where cookies lead; empty if the service has none.
    pub tokens: Tokens,
    /// Who was withdrawn lately, and when; the last first. They get no new request.
    pub withdrawn: Vec<(Arc<Backend>, Millis)>,
}

/// The backends of one SRV priority.
#[derive(Debug, Clone)]
pub struct Tier {
    /// The SRV priority.
    pub priority: u16,
    /// Its members, sorted by endpoint.
    pub members: Vec<Member>,
}

/// A backend's place in a tier.
#[derive(Debug, Clone)]
pub struct Member {
    /// The backend.
    pub backend: Arc<Backend>,
    /// The weight that counts: its SRV weight, or what overrides it.
    pub weight: u16,
    /// Its SRV weight.
    pub recorded: u16,
    /// The weight that counts was set by hand.
    pub overridden: bool,
    /// Number of addresses that share the weight.
    pub split: u16,
}

/// One backend as people and metrics see it.
#[derive(Debug, Clone)]
pub struct BackendStatus {
    /// The backend: identity, service, endpoint.
    pub backend: Arc<Backend>,
    /// Priority of its tier.
    pub priority: u16,
    /// Its SRV weight.
    pub weight: u16,
    /// Number of addresses that share that weight.
    pub split: u16,
    /// Its configured share, between 0 and 1: of its tier's requests, or of all requests with
    /// strategy `cycle`. Strategies that go by load give it where the load is equal.
    pub share: f64,
    /// Exchanges under way.
    pub in_flight: u32,
    /// May it be picked, and if not, why?
    pub state: (State, Reason),
}

impl Snapshot {
    /// All backends that the schedules have, tier by tier.
    pub fn backends(&self) -> impl Iterator<Item = &Arc<Backend>> {
        let members = self.tiers.iter().flat_map(|tier| &tier.members);
        members.map(|member| &member.backend)
    }

    /// Calls `see` with the backend of each place that there is for one.
    pub(super) fn backends_mut(&mut self, see: &mut dyn FnMut(&mut Arc<Backend>)) {
        let tiers = self.tiers.iter_mut().chain(&mut self.drained);
        let members = tiers.flat_map(|tier| &mut tier.members);
        members.for_each(|member| see(&mut member.backend));
        self.tokens
            .values_mut()
            .for_each(|(backend, _)| see(backend));
    }

    /// All that discovery lists with the priority of their tiers: those that the schedules have, then
    /// those that are drained by hand.
    pub fn listed(&self) -> impl Iterator<Item = (u16, &Member)> {
        let tiers = self.tiers.iter().chain(&self.drained);
        tiers.flat_map(|tier| tier.members.iter().map(|member| (tier.priority, member)))
    }

    /// The configured share of each backend with `strategy`, in the order of
    /// [`Snapshot::backends`]; see [`BackendStatus::share`].
    pub fn shares(&self, strategy: Strategy) -> Vec<f64> {
        let tiers = self.tiers.iter();
        match strategy {
            Strategy::Weighted
            | Strategy::LeastConnections
            | Strategy::Random
            | Strategy::TwoChoices
            | Strategy::Hash => tiers.flat_map(|t| shares::shares(&t.weights())).collect(),
            Strategy::RoundRobin => tiers
                .flat_map(|t| t.members.iter().map(|_| 1.0 / t.members.len() as f64))
                .collect(),
            Strategy::Cycle => {
                let weights: Vec<_> = tiers.flat_map(Tier::weights).collect();
                let turns = shares::turns(&weights);
                let all = turns.iter().sum::<u64>() as f64;
                turns.into_iter().map(|turns| turns as f64 / all).collect()
            }
        }
    }

    /// Every backend with its share and its state at `now`, in the order of
    /// [`Snapshot::backends`].
    pub fn status(&self, strategy: Strategy, now: Millis) -> Vec<BackendStatus> {
        let mut shares = self.shares(strategy).into_iter();
        let mut all = Vec::with_capacity(shares.len());
        for tier in &self.tiers {
            for (member, share) in tier.members.iter().zip(&mut shares) {
                let backend = Arc::clone(&member.backend);
                all.push(BackendStatus {
                    priority: tier.priority,
                    weight: member.weight,
                    split: member.split,
                    share,
                    in_flight: backend.in_flight(),
                    state: backend.state(now),
                    backend,
                });
            }
        }
        all
    }
}

impl Tier {
    /// The weights of its members, in their order.
    pub fn weights(&self) -> Vec<Weight> {
        let weigh = |member: &Member| Weight {
            weight: member.weight,
            split: member.split,
        };
        self.members.iter().map(weigh).collect()
    }
}
