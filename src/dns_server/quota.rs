//! Bounds over time: how many updates a key may send, and how much a forged address can draw.
//!
//! Pure: time comes in as an argument.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

/// A bucket that fills by `rate` a second up to `burst`.
#[derive(Debug)]
struct Bucket {
    level: f64,
    at: Instant,
}

impl Bucket {
    /// Takes `amount` if that much is there.
    fn take(&mut self, amount: f64, rate: f64, burst: f64, now: Instant) -> bool {
        self.fill(rate, burst, now);
        let enough = self.level >= amount;
        if enough {
            self.level -= amount;
        }
        enough
    }

    fn fill(&mut self, rate: f64, burst: f64, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.level = (self.level + passed * rate).min(burst);
        self.at = now;
    }
}

/// A bucket for each of many, of whom most are quiet: those that are full need no memory.
#[derive(Debug)]
pub(super) struct Buckets<K> {
    rate: f64,
    burst: f64,
    buckets: HashMap<K, Bucket>,
    swept: Option<Instant>,
}

impl<K: Eq + Hash + Copy> Buckets<K> {
    /// `rate` a second for each, `burst` at once.
    pub(super) fn new(rate: f64, burst: f64) -> Buckets<K> {
        Buckets {
            rate,
            burst,
            buckets: HashMap::new(),
            swept: None,
        }
    }

    /// Takes `amount` of one's own. False: there is not enough, or there are too many others.
    pub(super) fn take(&mut self, whose: K, amount: f64, now: Instant) -> bool {
        if !self.buckets.contains_key(&whose) {
            self.sweep(now);
            if self.buckets.len() >= MAX_BUCKETS {
                return false;
            }
        }
        let bucket = self.buckets.entry(whose);
        let bucket = bucket.or_insert_with(|| Bucket {
            level: self.burst,
            at: now,
        });
        bucket.take(amount, self.rate, self.burst, now)
    }

    /// Not with every question of a flood: it takes a look at all of them.
    fn sweep(&mut self, now: Instant) {
        let due = |at| now.saturating_duration_since(at) >= SWEEP;
        if self.buckets.len() < MAX_BUCKETS || !self.swept.is_none_or(due) {
            return;
        }
        self.swept = Some(now);
        let full = Duration::from_secs_f64(self.burst / self.rate);
        self.buckets
            .retain(|_, bucket| now.saturating_duration_since(bucket.at) < full);
    }
}

/// What answers over UDP may have more than their questions, per network that asks.
///
/// The address of a datagram can be forged, and then the answer hits somebody else. Up to this
/// much a second such an attack gains; beyond it, answers are as short as their questions and say
/// "truncated": whoever really asked comes again over TCP, where addresses cannot be forged.
#[derive(Debug)]
pub(super) struct Surplus(Buckets<IpAddr>);

impl Default for Surplus {
    fn default() -> Surplus {
        Surplus(Buckets::new(SURPLUS_RATE, SURPLUS_BURST))
    }
}

impl Surplus {
    /// May so many octets more than were asked go to `client`?
    pub(super) fn allows(&mut self, client: IpAddr, octets: usize, now: Instant) -> bool {
        let network = match client.to_canonical() {
            IpAddr::V4(ip) => IpAddr::V4((u32::from(ip) & 0xffff_ff00).into()),
            v6 => site(v6),
        };
        self.0.take(network, octets as f64, now)
    }
}

/// One address of IPv4, or the network that one site of IPv6 has at least (RFC 6177).
pub(super) fn site(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) & !(u128::MAX >> 56)).into()),
    }
}

/// Octets a second: two hundred balancers that each ask once a second for six hundred more than
/// they send.
const SURPLUS_RATE: f64 = 128.0 * 1024.0;

/// Octets at once.
const SURPLUS_BURST: f64 = 1024.0 * 1024.0;

/// Between two looks at all of them.
const SWEEP: Duration = Duration::from_secs(1);

/// Those that are told apart at a time, about 100 octets each.
const MAX_BUCKETS: usize = 16_384;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn surplus_is_bounded_per_network() {
        let mut surplus = Surplus::default();
        let now = Instant::now();
        let client = |last: u8| IpAddr::from([192, 0, 2, last]);
        let mut sent = 0;
        while surplus.allows(client((sent % 250) as u8), 1000, now) {
            sent += 1;
        }
        assert_eq!(sent, 1048, "a burst of 1 MiB for the whole network");
        assert!(surplus.allows(IpAddr::from([198, 51, 100, 1]), 1000, now));
        let later = now + Duration::from_secs(1);
        let mut again = 0;
        while surplus.allows(client(1), 1000, later) {
            again += 1;
        }
        assert_eq!(again, 131, "128 KiB a second");
    }

    #[tokio::test(start_paused = true)]
    async fn many_networks_are_no_memory() {
        let mut surplus = Surplus::default();
        let now = Instant::now();
        for n in 0..40_000_u32 {
            surplus.allows(IpAddr::V4((n << 8).into()), 1, now);
        }
        assert_eq!(surplus.0.buckets.len(), MAX_BUCKETS);
        assert!(!surplus.allows(IpAddr::from([203, 0, 113, 1]), 1, now));
        let later = now + Duration::from_secs(9);
        assert!(surplus.allows(IpAddr::from([203, 0, 113, 1]), 1, later));
        assert_eq!(surplus.0.buckets.len(), 1);
    }
}
