//! The backends of a service as the workers see them: immutable, tier by tier.

use std::sync::Arc;

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
