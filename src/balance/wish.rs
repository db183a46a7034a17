//! What a request asks of a schedule, why it is served where it is, and why it may get nobody.

use super::affinity::Token;
use crate::clock::Millis;
use crate::upstream::backend::{BackendId, Trial};

/// What a request asks for.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// The present.
    pub now: Millis,
    /// Backends that it has tried.
    pub excluded: &'a [BackendId],
    /// May it find out whether an ejected backend is back?
    pub trial: Trial,
    /// What becomes of it where the backends whose turn it is have as much as they may.
    pub when_full: WhenFull,
    /// If nobody else can be picked, one that is out is better than nobody.
    pub last_resort: bool,
    /// What it is told apart from others by, hashed; for strategy `hash`. `None`: nothing.
    pub key: Option<u64>,
    /// The backend that it was with before, by its cookie.
    pub token: Option<Token>,
}

/// What a request does when all backends of a tier that could serve it are full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// It waits for one of them.
    Waits,
    /// It has waited, or does not want to: the next tier.
    GoesOn,
}

/// Why it is this tier that serves a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhyTier {
    /// It is the first one.
    First,
    /// Those before it have nobody who can serve, or who has room.
    Lower,
    /// It takes its part of what one before it does not take (`spill`, `slow_start`).
    Spill,
    /// Nobody can serve, as far as is known: whoever is there is tried.
    Panic,
    /// All tiers take part (`cycle`).
    Cycle,
    /// The request's cookie led into it.
    Cookie,
}

impl WhyTier {
    /// In words, of the tier.
    pub fn words(self) -> &'static str {
        match self {
            WhyTier::First => "the first one",
            WhyTier::Lower => "those before it have nobody who can serve",
            WhyTier::Spill => "it takes its part of what one before it does not take",
            WhyTier::Panic => "nobody can serve: tried as if all were well",
            WhyTier::Cycle => "all tiers take part in the cycle",
            WhyTier::Cookie => "the cookie leads into it",
        }
    }
}

/// Why a tier has nobody for a request. By rising hope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Missed {
    /// All are out, or excluded.
    Nobody,
    /// There is somebody, with as much as it may have.
    Full,
}

impl Wish<'_> {
    /// A request that has tried nobody, can be repeated, and has no key.
    pub fn at(now: Millis) -> Wish<'static> {
        Wish {
            now,
            excluded: &[],
            trial: Trial::Welcome,
            when_full: WhenFull::Waits,
            last_resort: true,
            key: None,
            token: None,
        }
    }
}
