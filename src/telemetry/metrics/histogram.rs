//! Times in classic buckets.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds in microseconds: from a cache on the same machine to the first-byte deadline.
const BOUNDS: [u64; 17] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000, 30_000_000, 60_000_000,
];
/// One more than the bounds: what is above them all.
const BUCKETS: usize = BOUNDS.len() + 1;

/// A count with one writer at a time.
///
/// Relaxed load and store: readers want a number that is recent, not one that is ordered against
/// another. With a second writer counts would be lost, so only owners that cannot be shared
/// between threads write.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, n: u64) {
        let sum = self.0.load(Ordering::Relaxed).wrapping_add(n);
        self.0.store(sum, Ordering::Relaxed);
    }

    pub(super) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The highest number that was ever shown to it. One writer at a time, as of a [`Counter`].
#[derive(Debug, Default)]
pub(super) struct Mark(AtomicU64);

impl Mark {
    pub(super) fn raise(&self, n: u64) {
        if self.0.load(Ordering::Relaxed) < n {
            self.0.store(n, Ordering::Relaxed);
        }
    }

    pub(super) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How often something took how long. One writer at a time; anybody may read.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Counter; BUCKETS],
    /// In microseconds: 2^64 of them are longer than any sum of requests.
    sum: Counter,
}

/// What a [`Histogram`] held at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HistogramTotals {
    buckets: [u64; BUCKETS],
    sum: u64,
}

impl Histogram {
    /// Counts one duration. To be called by one thread at a time.
    pub fn record(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|bound| bound * 1_000 < nanos);
        self.buckets[bucket].add(1);
        // To the nearest, so that a great many short times don't add up to nothing.
        self.sum.add(nanos.saturating_add(500) / 1_000);
    }

    /// What it holds now. Counts made meanwhile may be in the sum and not in a bucket yet.
    pub fn totals(&self) -> HistogramTotals {
        HistogramTotals {
            buckets: std::array::from_fn(|n| self.buckets[n].value()),
            sum: self.sum.value(),
        }
    }
}

impl HistogramTotals {
    /// Adds what another one held.
    pub fn add(&mut self, other: &HistogramTotals) {
        for (bucket, more) in self.buckets.iter_mut().zip(other.buckets) {
            *bucket += more;
        }
        self.sum += other.sum;
    }

    /// What was counted since `earlier`.
    pub fn since(&self, earlier: &HistogramTotals) -> HistogramTotals {
        let bucket = |n: usize| self.buckets[n].saturating_sub(earlier.buckets[n]);
        HistogramTotals {
            buckets: std::array::from_fn(bucket),
            sum: self.sum.saturating_sub(earlier.sum),
        }
    }

    /// So many of all (0 to 1) took no longer, in seconds; `None`: nothing was counted. Within a bucket
    /// they are taken to lie evenly; above the last bound, at it.
    pub fn quantile(&self, part: f64) -> Option<f64> {
        let all = self.count();
        let wanted = part * all as f64;
        let (mut below, mut from) = (0.0, 0.0);
        for (bound, count) in self.buckets() {
            let count = count as f64;
            if below + count >= wanted && count > 0.0 {
                let to = if bound.is_finite() { bound } else { from };
                return Some(from + (to - from) * ((wanted - below) / count).clamp(0.0, 1.0));
            }
            below += count;
            if bound.is_finite() {
                from = bound;
            }
        }
        None
    }

    /// How many durations were counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Their sum in seconds.
    pub fn seconds(&self) -> f64 {
        self.sum as f64 / 1e6
    }

    /// Upper bound in seconds and count of each bucket, not cumulative.
    pub fn buckets(&self) -> [(f64, u64); BUCKETS] {
        std::array::from_fn(|n| {
            let bound = BOUNDS.get(n).map_or(f64::INFINITY, |&b| b as f64 / 1e6);
            (bound, self.buckets[n])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_within_their_bucket() {
        let histogram = Histogram::default();
        assert_eq!(histogram.totals().quantile(0.5), None);
        // 90 of up to 1 ms, 10 of up to 100 ms.
        for n in 0..100 {
            let millis = if n < 90 { 1 } else { 100 };
            histogram.record(Duration::from_millis(millis));
        }
        let earlier = histogram.totals();
        let close = |got: Option<f64>, wanted: f64| {
            let got = got.expect("something was counted");
            assert!((got - wanted).abs() < 1e-9, "{got} is not {wanted}");
        };
        close(earlier.quantile(0.45), 0.000_75);
        close(earlier.quantile(0.9), 0.001);
        close(earlier.quantile(0.95), 0.075);
        close(earlier.quantile(1.0), 0.1);
        histogram.record(Duration::from_secs(600));
        let since = histogram.totals().since(&earlier);
        assert_eq!(since.count(), 1);
        close(since.quantile(0.5), 60.0);
    }

    /// OpenMetrics 1.0: a bucket counts what is less than or equal to its bound.
    #[test]
    fn a_bound_belongs_to_its_bucket() {
        for (nanos, bound) in [
            (0, 0.00025),
            (250_000, 0.00025),
            (250_001, 0.0005),
            (1_000_000_000, 1.0),
            (60_000_000_000, 60.0),
            (60_000_000_001, f64::INFINITY),
            (u64::MAX, f64::INFINITY),
        ] {
            let histogram = Histogram::default();
            histogram.record(Duration::from_nanos(nanos));
            let totals = histogram.totals();
            let hit: Vec<f64> = totals
                .buckets()
                .into_iter()
                .filter(|b| b.1 > 0)
                .map(|b| b.0)
                .collect();
            assert_eq!(hit, [bound], "{nanos} ns");
            assert_eq!(totals.count(), 1);
        }
    }

    #[test]
    fn sums_add_up() {
        let (one, other) = (Histogram::default(), Histogram::default());
        for _ in 0..1_000 {
            one.record(Duration::from_nanos(600));
            other.record(Duration::from_millis(1));
        }
        let mut totals = one.totals();
        totals.add(&other.totals());
        assert_eq!(totals.count(), 2_000);
        assert!(
            (totals.seconds() - 1.001).abs() < 1e-9,
            "{}",
            totals.seconds()
        );
    }
}
