//! Counts latencies in buckets that are less than 1 % wide (the layout of HdrHistogram, two significant figures).
//!
//! A bucket is a shift and an add away, and all of them are 58 KiB, of which a run touches two or three.

/// Latencies, in nanoseconds.
#[derive(Debug)]
pub struct Latency {
    buckets: Vec<u64>,
    count: u64,
    max: u64,
}

impl Latency {
    pub fn new() -> Self {
        Self {
            buckets: vec![0; bucket(u64::MAX) + 1],
            count: 0,
            max: 0,
        }
    }

    pub fn record(&mut self, nanoseconds: u64) {
        self.buckets[bucket(nanoseconds)] += 1;
        self.count += 1;
        self.max = self.max.max(nanoseconds);
    }

    /// The latency that so large a share of the requests did not exceed, in microseconds; 0 without any.
    pub fn quantile(&self, share: f64) -> f64 {
        let wanted = ((self.count as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return top(index).min(self.max) as f64 / 1e3;
            }
        }
        0.0
    }

    /// Microseconds.
    pub fn max(&self) -> f64 {
        self.max as f64 / 1e3
    }
}

fn bucket(value: u64) -> usize {
    // The leading bit moves to place 7; what is below it and not shifted out tells the bucket.
    let shift = (u64::BITS - value.leading_zeros()).saturating_sub(BITS + 1);
    ((shift as usize) << BITS) + (value >> shift) as usize
}

/// The largest value in a bucket.
fn top(index: usize) -> u64 {
    if index < 2 << BITS {
        return index as u64;
    }
    let shift = (index >> BITS) - 1;
    let lead = (index - (shift << BITS)) as u64;
    (lead << shift) | ((1 << shift) - 1)
}

/// Significant bits of a bucket behind the leading one: 1/128.
const BITS: u32 = 7;
