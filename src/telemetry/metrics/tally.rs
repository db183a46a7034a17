//! How many of something there are, and the most there ever were, where several threads count: for what
//! happens once a connection, not once a request.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::BoundSample;

/// Two counts. Relaxed: numbers that order nothing; a bound holds because every taker adds first.
/// Cost of [`Tally::enter`]: one read-modify-write, and a second one only if there never were as many.
#[derive(Debug, Default)]
pub struct Tally {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Tally {
    /// One more, unless there are `bound` of them. To be ended by [`Tally::leave`].
    #[must_use]
    pub fn enter(&self, bound: usize) -> bool {
        let before = self.now.fetch_add(1, Ordering::Relaxed);
        if before >= bound {
            self.leave();
            return false;
        }
        self.mark(before + 1);
        true
    }

    /// One less.
    pub fn leave(&self) {
        self.now.fetch_sub(1, Ordering::Relaxed);
    }

    /// There are so many. Only for whoever is alone in counting.
    pub fn set(&self, now: usize) {
        self.now.store(now, Ordering::Relaxed);
        self.mark(now);
    }

    /// How many there are.
    pub fn now(&self) -> usize {
        self.now.load(Ordering::Relaxed)
    }

    /// For a scrape.
    pub fn sample(&self, what: &'static str, bound: usize) -> BoundSample {
        BoundSample {
            what,
            service: None,
            now: self.now() as u64,
            bound: Some(bound as u64),
            high_water: Some(self.most.load(Ordering::Relaxed) as u64),
        }
    }

    fn mark(&self, now: usize) {
        if self.most.load(Ordering::Relaxed) < now {
            self.most.fetch_max(now, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_stays_and_whoever_is_refused_is_not_in_it() {
        let tally = Tally::default();
        let levels = || {
            let sample = tally.sample("x", 2);
            (sample.now, sample.high_water)
        };
        assert_eq!(levels(), (0, Some(0)));
        assert!(tally.enter(2) && tally.enter(2));
        assert!(!tally.enter(2));
        assert_eq!(levels(), (2, Some(2)));
        tally.leave();
        assert_eq!(levels(), (1, Some(2)));
        tally.set(0);
        assert_eq!(levels(), (0, Some(2)));
    }
}
