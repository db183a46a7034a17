//! How many responses are coded at once: each coder holds memory for as long as its client takes, and all
//! workers, under whatever configuration, have the same memory.

use std::sync::Arc;

use crate::telemetry::metrics::{BoundSample, Tally};

/// What a coder is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coded {
    /// Something that ends.
    Content,
    /// A sequence that may go on for hours.
    Sequence,
}

/// The places of this process. Written by every worker.
#[derive(Debug, Default)]
pub struct Coders {
    all: Tally,
    /// Of these, for sequences.
    sequences: Tally,
}

/// A place, until it is dropped. It belongs to no generation.
#[derive(Debug)]
#[must_use]
pub struct CoderPlace {
    coders: Arc<Coders>,
    coded: Coded,
}

impl Coders {
    /// A place, if fewer than `bound` are taken. Sequences have half of them: those that are idle must
    /// not keep others from being coded.
    pub fn enter(self: &Arc<Coders>, coded: Coded, bound: usize) -> Option<CoderPlace> {
        if coded == Coded::Sequence && !self.sequences.enter(bound / 2) {
            return None;
        }
        if !self.all.enter(bound) {
            self.leave_sequences(coded);
            return None;
        }
        Some(CoderPlace {
            coders: Arc::clone(self),
            coded,
        })
    }

    /// For a scrape.
    pub fn sample(&self, bound: usize) -> BoundSample {
        self.all.sample("coders", bound)
    }

    fn leave_sequences(&self, coded: Coded) {
        if coded == Coded::Sequence {
            self.sequences.leave();
        }
    }
}

impl Drop for CoderPlace {
    fn drop(&mut self) {
        self.coders.all.leave();
        self.coders.leave_sequences(self.coded);
    }
}

/// So many places there are where memory has this budget, in bytes (0: none). O(1).
pub fn bound(budget: u64) -> usize {
    match budget {
        0 => AT_ONCE,
        _ => usize::try_from(budget / PART / CODER).map_or(AT_ONCE, |n| n.clamp(2, AT_ONCE)),
    }
}

/// Most coders at once: 512 MiB, if all of them are of br.
const AT_ONCE: usize = 256;

/// A response that is coded takes so many bytes with br, its buffers and its connection included: 1.6 to
/// 1.98 MiB were measured. zstd takes 1.3 MiB, gzip 0.4.
const CODER: u64 = 2 << 20;

/// Coders may take one part in so many of the budget of memory, which is looked at once a second only:
/// what comes within one must not take it all.
const PART: u64 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_have_half_of_the_places() {
        let coders = Arc::<Coders>::default();
        let enter = |coded| coders.enter(coded, 5);
        let sequences = [(); 3].map(|()| enter(Coded::Sequence));
        assert!(sequences[1].is_some() && sequences[2].is_none());
        let others = [(); 4].map(|()| enter(Coded::Content));
        assert!(others[2].is_some() && others[3].is_none());
        drop(sequences);
        let others = [others, [(); 4].map(|()| enter(Coded::Content))];
        assert!(others[1][1].is_some() && others[1][2].is_none());
        // There is no place at all: none of the half is lost by asking.
        assert!(enter(Coded::Sequence).is_none());
        drop(others);
        let sample = coders.sample(5);
        assert_eq!((sample.now, sample.high_water), (0, Some(5)));
        assert!([(); 2].map(|()| enter(Coded::Sequence))[1].is_some());
    }

    #[test]
    fn places_by_budget() {
        for (budget, expected) in [
            (0, 256),
            (1 << 20, 2),
            (128 << 20, 16),
            (1 << 30, 128),
            (64 << 30, 256),
            (u64::MAX, 256),
        ] {
            assert_eq!(bound(budget), expected, "{budget}");
        }
    }
}
