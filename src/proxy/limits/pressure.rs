//! How short memory is: written by the control thread, looked at by every worker.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use crate::memory::budget::Look;
use crate::memory::level::Level;
use crate::telemetry::metrics::MemorySample;

/// The present state. Relaxed all of it: workers look again at every tick, and what one of them
/// does by an older state it would have done a moment earlier.
#[derive(Debug, Default)]
pub struct Pressure {
    level: AtomicU8,
    /// A number for each time that a share of the idle connections is to be closed.
    round: AtomicU32,
    /// Bytes; a budget of 0: there is none.
    used: AtomicU64,
    most: AtomicU64,
    budget: AtomicU64,
}

/// At [`Level::Shedding`] one of so many connections of a worker goes in a round, at
/// [`Level::Refusing`] one of fewer, as far as they are idle. What that brings is seen before the
/// next round: no more are closed than have to be.
const SHARE: usize = 8;
const LARGER_SHARE: usize = 2;

impl Pressure {
    /// Where we are.
    pub fn level(&self) -> Level {
        Level::of(self.level.load(Ordering::Relaxed))
    }

    /// The round.
    pub fn round(&self) -> u32 {
        self.round.load(Ordering::Relaxed)
    }

    /// Takes up a look, if there was one; returns the level before and the one now. Only the control
    /// thread calls it.
    pub fn update(&self, look: Option<Look>) -> (Level, Level) {
        let before = self.level();
        let (used, budget) = look.map_or((0, 0), |look| (look.used, look.budget));
        self.used.store(used, Ordering::Relaxed);
        self.most.fetch_max(used, Ordering::Relaxed);
        self.budget.store(budget, Ordering::Relaxed);
        let now = match look {
            Some(_) => before.next(used, budget),
            None => Level::Fine,
        };
        self.level.store(now as u8, Ordering::Relaxed);
        if now > Level::Fine {
            self.round.fetch_add(1, Ordering::Relaxed);
        }
        (before, now)
    }

    /// How many of so many connections are to be closed in a round.
    pub fn share(&self, connections: usize) -> usize {
        match self.level() {
            Level::Fine => 0,
            Level::Shedding => connections.div_ceil(SHARE),
            Level::Refusing => connections.div_ceil(LARGER_SHARE),
        }
    }

    /// How much memory there is, in bytes; 0: nobody says so.
    pub fn budget(&self) -> u64 {
        self.budget.load(Ordering::Relaxed)
    }

    /// For a scrape. `None`: there is no budget.
    pub fn sample(&self) -> Option<MemorySample> {
        let budget = self.budget();
        (budget > 0).then(|| MemorySample {
            used: self.used.load(Ordering::Relaxed),
            high_water: self.most.load(Ordering::Relaxed),
            budget,
            level: self.level() as u8,
        })
    }
}
