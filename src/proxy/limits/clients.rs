//! How many connections each client has open, in the whole process.
//!
//! A table of counts in shards, each behind a lock of its own, which a connection takes when it
//! opens and when it ends; no request does. A client is in it as long as it has a connection, so
//! there are never more than connections. Clients choose their addresses: the hash is keyed.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::BuildHasher;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::origin::Origin;
use crate::telemetry::metrics::{BoundSample, Tally};

/// More than workers are likely to meet in at the same moment.
const SHARDS: usize = 16;

/// A shard with room for so few is not made smaller: 1.5 KiB.
const SMALL: usize = 64;

/// The counts.
#[derive(Debug)]
pub(super) struct Clients {
    /// Written by a reload. Relaxed: a number to compare.
    most: AtomicU32,
    /// Chooses the shard.
    hasher: RandomState,
    /// How many there are.
    count: Tally,
    shards: [Shard; SHARDS],
}

/// On a cache line of its own: workers are in different ones.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Shard(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    of: HashMap<Origin, u32>,
    /// The most that one of them ever had.
    most: u32,
}

impl Clients {
    /// Nobody is there; each may have so many.
    pub(super) fn new(most: NonZeroU32) -> Clients {
        Clients {
            most: AtomicU32::new(most.get()),
            hasher: RandomState::new(),
            count: Tally::default(),
            shards: Default::default(),
        }
    }

    /// How many each may have.
    pub(super) fn most(&self) -> u32 {
        self.most.load(Ordering::Relaxed)
    }

    /// Each may have so many from now on. Those that have more keep them.
    pub(super) fn allow(&self, most: NonZeroU32) {
        self.most.store(most.get(), Ordering::Relaxed);
    }

    /// Counts one more, unless it has as many as it may.
    pub(super) fn enter(&self, origin: Origin) -> bool {
        let mut counts = self.shard(origin);
        let Counts { of, most } = &mut *counts;
        let count = of.entry(origin).or_default();
        let fits = *count < self.most();
        if *count == 0 {
            // As many as there are connections, which have a bound of their own.
            let _ = self.count.enter(usize::MAX);
        }
        *count += u32::from(fits);
        *most = (*most).max(*count);
        fits
    }

    /// One of those that were counted is over.
    pub(super) fn leave(&self, origin: Origin) {
        let counts = &mut self.shard(origin).of;
        let Entry::Occupied(mut entry) = counts.entry(origin) else {
            return;
        };
        *entry.get_mut() -= 1;
        if *entry.get() > 0 {
            return;
        }
        entry.remove();
        self.count.leave();
        // What a burst needed is given back; by halves, so that it costs O(1) for each that left.
        if counts.capacity() > SMALL && counts.len() < counts.capacity() / 4 {
            let keep = counts.capacity() / 2;
            counts.shrink_to(keep);
        }
    }

    /// How many clients there are, of `bound` connections at most, and the connections of the one that
    /// has most. Holds each shard up for as long as it takes to read it.
    pub(super) fn bounds(&self, bound: usize) -> [BoundSample; 2] {
        let (mut largest, mut most) = (0, 0);
        for counts in self.shards.iter().map(lock) {
            largest = counts.of.values().copied().fold(largest, u32::max);
            most = most.max(counts.most);
        }
        let of_one = BoundSample {
            what: "connections_of_one_client",
            service: None,
            now: largest.into(),
            bound: Some(self.most().into()),
            high_water: Some(most.into()),
        };
        [self.count.sample("clients", bound), of_one]
    }

    fn shard(&self, origin: Origin) -> MutexGuard<'_, Counts> {
        lock(&self.shards[self.hasher.hash_one(origin) as usize % SHARDS])
    }
}

fn lock(shard: &Shard) -> MutexGuard<'_, Counts> {
    shard.0.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clients(most: u32) -> Clients {
        Clients::new(NonZeroU32::new(most).expect("it is not zero"))
    }

    /// How many clients there are and ever were, and the same of the connections of one.
    fn levels(clients: &Clients) -> [(u64, u64); 2] {
        let bounds = clients.bounds(9);
        bounds.map(|bound| (bound.now, bound.high_water.expect("somebody keeps count")))
    }

    #[test]
    fn each_client_has_its_own_count() {
        let clients = clients(2);
        let [one, other] = [Origin::V4(1), Origin::V6(1)];
        assert!(clients.enter(one) && clients.enter(one) && clients.enter(other));
        assert!(!clients.enter(one), "two are there");
        assert_eq!(levels(&clients), [(2, 2), (2, 2)]);
        clients.leave(one);
        assert!(clients.enter(one), "there is room again");
        for origin in [one, one, other] {
            clients.leave(origin);
        }
        assert_eq!(
            levels(&clients),
            [(0, 2), (0, 2)],
            "who has none is forgotten"
        );
    }

    #[test]
    fn what_a_burst_needed_is_given_back() {
        let clients = clients(1);
        let capacity = || -> usize {
            let shards = clients.shards.iter();
            shards.map(|shard| lock(shard).of.capacity()).sum()
        };
        let all = || (0..50_000).map(Origin::V6);
        assert!(all().all(|origin| clients.enter(origin)));
        assert!(capacity() >= 50_000);
        all().for_each(|origin| clients.leave(origin));
        assert!(capacity() <= 2 * SMALL * SHARDS, "{}", capacity());
    }

    #[test]
    fn the_limit_holds_while_threads_come_and_go() {
        let clients = clients(2);
        let held = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        if clients.enter(Origin::V4(7)) {
                            let before = held.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                            assert!(before < 2, "{before} were there");
                            held.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                            clients.leave(Origin::V4(7));
                        }
                    }
                });
            }
        });
        let [all, one] = levels(&clients);
        assert_eq!(all, (0, 1));
        assert!(one.0 == 0 && (1..=2).contains(&one.1), "{one:?}");
    }
}
