//! When whose next request is due, in a table of constant size.
//!
//! It is set-associative, as a processor's cache: a hash chooses a set of eight places, and whoever
//! is not there takes the place of whoever's request was due first. That is nearly always somebody
//! whose request is overdue, and who is owed nothing by being forgotten; otherwise the one who is
//! least in debt, and who is then let off. Nobody is refused for want of room. O(1), two cache
//! lines for each request.
//!
//! Callers choose their names, so the hash is keyed: nobody can aim at a set. Of a name only its
//! 64 bits are kept, which two of a table's names share once in 2^33 tables that are full. The table
//! lies in shards, each behind a lock of its own that is held for the look at one set.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, DefaultHasher, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::gcra::{Due, Gcra};
use crate::clock::Nanos;

/// Names that are remembered at most: a MiB. With a burst that comes back in a second, that is as
/// many different clients in any second.
pub(super) const NAMES: usize = SHARDS * SETS * WAYS;

/// More than workers are likely to meet in at the same moment.
const SHARDS: usize = 64;

/// Of each shard.
const SETS: usize = 128;

/// Places of a set: 128 bytes. With eight, a table half full of those who are in
/// debt forgets one in a hundred of them.
const WAYS: usize = 8;

/// The table.
#[derive(Debug)]
pub(super) struct Buckets {
    hasher: RandomState,
    shards: Box<[Shard]>,
}

/// Whose request it is, hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Name(u64);

/// What a table holds.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Totals {
    /// Names whose next request is not due yet.
    pub(super) in_debt: usize,
    /// Places that were ever taken.
    pub(super) most: usize,
}

/// On a cache line of its own: workers are in different ones.
#[derive(Debug)]
#[repr(align(64))]
struct Shard(Mutex<Sets>);

#[derive(Debug)]
struct Sets {
    sets: Box<[Set]>,
    taken: usize,
    forgiven: u64,
}

#[derive(Debug, Clone, Copy, Default)]
#[repr(align(64))]
struct Set([Place; WAYS]);

/// Empty: of nobody, due long ago.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    name: u64,
    due: Due,
}

impl Buckets {
    /// Nobody was seen yet. All of its memory is taken now.
    pub(super) fn new() -> Buckets {
        let shard = |_| {
            Shard(Mutex::new(Sets {
                sets: vec![Set::default(); SETS].into(),
                taken: 0,
                forgiven: 0,
            }))
        };
        Buckets {
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(shard).collect(),
        }
    }

    /// A name out of what `write` writes, which must not be the beginning of another's.
    pub(super) fn name(&self, write: impl FnOnce(&mut DefaultHasher)) -> Name {
        let mut hasher = self.hasher.build_hasher();
        write(&mut hasher);
        // 0 is nobody's.
        Name(hasher.finish().max(1))
    }

    /// A request at `now`; an error says for how long it has to wait.
    pub(super) fn take(&self, name: Name, gcra: Gcra, now: Nanos) -> Result<(), Duration> {
        let hash = name.0 as usize;
        let mut shard = lock(&self.shards[hash % SHARDS]);
        let Sets {
            sets,
            taken,
            forgiven,
        } = &mut *shard;
        let set = &mut sets[hash / SHARDS % SETS].0;
        if let Some(place) = set.iter_mut().find(|place| place.name == name.0) {
            place.due = gcra.take(place.due, now)?;
            return Ok(());
        }
        let next = gcra.take(Due::NEVER_SEEN, now)?;
        let first_due = set.iter_mut().min_by_key(|place| place.due);
        let place = first_due.expect("a set has places");
        *taken += usize::from(place.name == 0);
        *forgiven += u64::from(!place.due.is_over(now));
        *place = Place {
            name: name.0,
            due: next,
        };
        Ok(())
    }

    /// Names that were in debt when they were forgotten, so far.
    pub(super) fn forgiven(&self) -> u64 {
        let shards = self.shards.iter().map(lock);
        shards.map(|shard| shard.forgiven).sum()
    }

    /// For a scrape. Reads the whole table; holds each shard up for as long as it takes to read it.
    pub(super) fn totals(&self, now: Nanos) -> Totals {
        let mut totals = Totals::default();
        for shard in self.shards.iter().map(lock) {
            let places = shard.sets.iter().flat_map(|set| &set.0);
            totals.in_debt += places.filter(|place| !place.due.is_over(now)).count();
            totals.most += shard.taken;
        }
        totals
    }
}

fn lock(shard: &Shard) -> MutexGuard<'_, Sets> {
    shard.0.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{RateKey, RateLimit};
    use std::num::NonZeroU32;

    /// One request a second, after a burst.
    fn gcra(burst: u32) -> Gcra {
        Gcra::new(&RateLimit {
            requests: NonZeroU32::MIN,
            per: Duration::from_secs(1),
            burst: NonZeroU32::new(burst).expect("it is not zero"),
            by: RateKey::Address,
        })
    }

    const NOW: Nanos = Nanos(1 << 40);

    fn number(buckets: &Buckets, n: u64) -> Name {
        buckets.name(|hasher| hasher.write_u64(n))
    }

    #[test]
    fn each_name_has_its_own() {
        let buckets = Buckets::new();
        for n in 0..1_000 {
            let name = number(&buckets, n);
            let passed = (0..5).filter(|_| buckets.take(name, gcra(3), NOW).is_ok());
            assert_eq!(passed.count(), 3, "number {n}");
        }
        let all = Totals {
            in_debt: 1_000,
            most: 1_000,
        };
        assert_eq!(buckets.totals(NOW), all);
        let later = Nanos(NOW.0 + 3_000_000_000);
        assert_eq!(buckets.totals(later), Totals { in_debt: 0, ..all });
    }

    /// Everybody who comes by once forgets somebody else who came by once.
    #[test]
    fn a_million_names_take_no_more_room_and_do_not_let_off_whoever_is_deep_in_debt() {
        let buckets = Buckets::new();
        let deep: Vec<_> = (0..100).map(|n| number(&buckets, n)).collect();
        for &name in &deep {
            while buckets.take(name, gcra(10), NOW).is_ok() {}
        }
        for n in 1_000..1_001_000 {
            let name = number(&buckets, n);
            assert!(buckets.take(name, gcra(10), NOW).is_ok(), "number {n}");
        }
        for &name in &deep {
            assert!(buckets.take(name, gcra(10), NOW).is_err());
        }
        let totals = buckets.totals(NOW);
        assert_eq!((totals.in_debt, totals.most), (NAMES, NAMES));
        assert_eq!(buckets.forgiven(), 1_000_100 - NAMES as u64);
        assert_eq!(size_of::<Set>() * SHARDS * SETS, 1 << 20);
    }

    #[test]
    fn whoever_is_overdue_goes_before_whoever_is_in_debt() {
        let buckets = Buckets::new();
        let earlier = Nanos(NOW.0 - 5_000_000_000);
        for n in 0..NAMES as u64 / 2 {
            buckets
                .take(number(&buckets, n), gcra(1), earlier)
                .expect("it is new");
        }
        let before = buckets.forgiven();
        // By the Poisson distribution 274 of them find their set full, give or take 24.
        assert!(before < NAMES as u64 / 100, "half full: {before}");
        for n in 0..NAMES as u64 / 4 {
            let name = number(&buckets, 1_000_000 + n);
            buckets.take(name, gcra(1), NOW).expect("it is new");
        }
        let totals = buckets.totals(NOW);
        let quarter = NAMES / 4;
        // Some sets have more than eight of them.
        assert!(totals.in_debt > quarter * 99 / 100, "{totals:?}");
        let forgiven = buckets.forgiven() - before;
        assert_eq!(forgiven as usize, quarter - totals.in_debt);
    }

    #[test]
    fn threads_that_share_a_name_share_its_bucket() {
        let buckets = Buckets::new();
        let passed: usize = std::thread::scope(|scope| {
            let taking = || {
                let name = number(&buckets, 7);
                (0..1_000)
                    .filter(|_| buckets.take(name, gcra(500), NOW).is_ok())
                    .count()
            };
            let threads = [(); 4].map(|()| scope.spawn(taking));
            threads
                .map(|thread| thread.join().expect("no panic"))
                .iter()
                .sum()
        });
        assert_eq!(passed, 500);
    }
}
