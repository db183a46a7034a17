//! Counters of discovery, for whoever scrapes them from another thread.
//!
//! Written by the discovery tasks, read by telemetry through [`Stats::snapshot`]. Never on the
//! request path: a lookup a second and name is a lot here, so a plain mutex does.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Upper bounds of the duration histogram, in seconds: from a cache on loopback to two tries of
/// one second at each of a few servers. What is slower falls into the last, unbounded bucket.
pub const DURATION_BOUNDS: [f64; 10] = [0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.0, 5.0];

/// The counters. Shared; cheap to clone as an `Arc`.
#[derive(Debug, Default)]
pub struct Stats {
    /// Held for the few instructions of one update, or for one copy.
    inner: Mutex<DnsStats>,
}

/// A copy of the counters at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DnsStats {
    /// Questions answered (or not), by watched name, type of question and result.
    pub lookups: BTreeMap<LookupKey, u64>,
    /// How long questions took, all names together.
    pub duration: DurationHistogram,
    /// By watched name. A name goes when its last subscription does.
    pub names: BTreeMap<Arc<str>, NameStats>,
    /// Questions under way right now.
    pub in_flight: usize,
    /// The most that were ever under way at once.
    pub in_flight_high: usize,
}

/// Labels of one lookup counter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LookupKey {
    /// The watched name, as configured (not the target that was asked for).
    pub name: Arc<str>,
    /// `SRV`, `A`, `AAAA`.
    pub qtype: &'static str,
    /// `ok`, `nxdomain`, `nodata`, `servfail`, `refused`, `timeout`, `truncated`, `network`,
    /// `malformed`, `error`.
    pub result: &'static str,
}

/// A histogram over [`DURATION_BOUNDS`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DurationHistogram {
    /// Per bucket, not cumulative; the last one is unbounded.
    pub buckets: [u64; DURATION_BOUNDS.len() + 1],
    /// Seconds in all.
    pub sum: f64,
    /// Observations in all.
    pub count: u64,
}

/// State and counters of one watched name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NameStats {
    /// Unix time of the last answer (a negative one counts), in seconds.
    pub last_success: Option<f64>,
    /// Endpoints on offer.
    pub endpoints: usize,
    /// No server answers; the offer is the last good one.
    pub stale: bool,
    /// Answers show a part of a larger set, another one each time.
    pub rotates: bool,
    /// Endpoints on offer that the last answer does not list.
    pub unlisted: usize,
    /// Endpoints that joined.
    pub joined: u64,
    /// Endpoints that left.
    pub left: u64,
    /// Changes of weight or priority.
    pub reweighted: u64,
    /// Answers of which a removal was held back.
    pub held_back: u64,
    /// Records that were newly rejected.
    pub rejected: u64,
}

impl Stats {
    /// A copy of everything.
    pub fn snapshot(&self) -> DnsStats {
        self.lock().clone()
    }

    pub(super) fn asked(
        &self,
        name: &Arc<str>,
        qtype: &'static str,
        result: &'static str,
        took: Duration,
    ) {
        let mut stats = self.lock();
        let key = LookupKey {
            name: Arc::clone(name),
            qtype,
            result,
        };
        *stats.lookups.entry(key).or_default() += 1;
        stats.duration.observe(took.as_secs_f64());
    }

    pub(super) fn update(&self, name: &Arc<str>, change: impl FnOnce(&mut NameStats)) {
        change(self.lock().names.entry(Arc::clone(name)).or_default());
    }

    pub(super) fn answered(&self, name: &Arc<str>) {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0.0, |since| since.as_secs_f64());
        self.update(name, |n| n.last_success = Some(now));
    }

    /// Forgets a name that nobody watches any more.
    pub(super) fn forget(&self, name: &Arc<str>) {
        let mut stats = self.lock();
        stats.names.remove(name);
        stats.lookups.retain(|key, _| key.name != *name);
    }

    /// Counts a question as under way until the guard is dropped.
    pub(super) fn under_way(&self) -> UnderWay<'_> {
        let mut stats = self.lock();
        stats.in_flight += 1;
        stats.in_flight_high = stats.in_flight_high.max(stats.in_flight);
        UnderWay(self)
    }

    fn lock(&self) -> MutexGuard<'_, DnsStats> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See [`Stats::under_way`].
#[derive(Debug)]
pub(super) struct UnderWay<'a>(&'a Stats);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.lock().in_flight -= 1;
    }
}

impl DurationHistogram {
    fn observe(&mut self, seconds: f64) {
        let bucket = DURATION_BOUNDS
            .iter()
            .position(|bound| seconds <= *bound)
            .unwrap_or(DURATION_BOUNDS.len());
        self.buckets[bucket] += 1;
        self.sum += seconds;
        self.count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_falls_into_the_first_bucket_that_holds_it() {
        let mut histogram = DurationHistogram::default();
        for (seconds, bucket) in [(0.0, 0), (0.0005, 0), (0.0006, 1), (1.0, 7), (9.0, 10)] {
            let before = histogram.buckets[bucket];
            histogram.observe(seconds);
            assert_eq!(histogram.buckets[bucket], before + 1, "{seconds}");
        }
        assert_eq!(histogram.count, 5);
        assert_eq!(histogram.buckets.iter().sum::<u64>(), 5);
    }

    #[test]
    fn a_forgotten_name_takes_its_series_along() {
        let stats = Stats::default();
        let (kept, gone): (Arc<str>, Arc<str>) = ("kept".into(), "gone".into());
        for name in [&kept, &gone] {
            stats.asked(name, "SRV", "ok", Duration::from_millis(1));
            stats.answered(name);
        }
        stats.forget(&gone);
        let snapshot = stats.snapshot();
        assert_eq!(snapshot.lookups.keys().len(), 1);
        assert_eq!(snapshot.names.keys().collect::<Vec<_>>(), [&kept]);
        assert_eq!(snapshot.duration.count, 2);
    }

    #[test]
    fn questions_under_way_are_counted_until_they_end() {
        let stats = Stats::default();
        {
            let _one = stats.under_way();
            let _two = stats.under_way();
            assert_eq!(stats.snapshot().in_flight, 2);
        }
        let snapshot = stats.snapshot();
        assert_eq!((snapshot.in_flight, snapshot.in_flight_high), (0, 2));
    }
}
