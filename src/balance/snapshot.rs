//! The backends of a service as the workers see them: immutable, tier by tier.
//!
//! Written by `service.rs`, read by every worker's picker, and by metrics and the admin pages
//! through [`Snapshot::status`].

use std::sync::Arc;
use std::time::Duration;

use super::shares::{self, Weight};
use crate::clock::Millis;
use crate::upstream::backend::Backend;

/// All tiers of a service at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Has discovery said anything yet (even that nobody is there)?
    pub answered: bool,
    /// By rising priority value; none is empty.
    pub tiers: Vec<Tier>,
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
    /// Its SRV weight.
    pub weight: u16,
    /// Number of addresses that share that weight.
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
    /// Its share in its tier by weight, between 0 and 1.
    pub share: f64,
    /// Exchanges under way.
    pub in_flight: u32,
    /// How much longer it is passed over because connects to it failed.
    pub passed_over: Option<Duration>,
}

impl Snapshot {
    /// All backends, tier by tier.
    pub fn backends(&self) -> impl Iterator<Item = &Arc<Backend>> {
        let members = self.tiers.iter().flat_map(|tier| &tier.members);
        members.map(|member| &member.backend)
    }

    /// Every backend with its share and its state at `now`, tier by tier.
    pub fn status(&self, now: Millis) -> Vec<BackendStatus> {
        let mut all = Vec::new();
        for tier in &self.tiers {
            for (member, share) in tier.members.iter().zip(shares::shares(&tier.weights())) {
                let backend = Arc::clone(&member.backend);
                all.push(BackendStatus {
                    priority: tier.priority,
                    weight: member.weight,
                    split: member.split,
                    share,
                    in_flight: backend.in_flight(),
                    passed_over: backend.passed_over_until(now).map(|until| until.since(now)),
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
