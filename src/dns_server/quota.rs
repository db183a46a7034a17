//! Bounds over time: how many updates a key may send, and how much a forged address can draw.
//!
//! Pure: time comes in as an argument.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

/// A bucket that fills by `rate` a second up to `burst`.
#[derive(Debug)]
pub(super) struct Bucket {
    level: f64,
    at: Instant,
}

impl Bucket {
    /// A full one.
    pub(super) fn new(burst: f64, now: Instant) -> Bucket {
        Bucket {
            level: burst,
            at: now,
        }
    }

    /// Takes `amount` if that much is there.
    pub(super) fn take(&mut self, amount: f64, rate: f64, burst: f64, now: Instant) -> bool {
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

/// What answers over UDP may have more than their questions, per network that asks.
///
/// The address of a datagram can be forged, and then the answer hits somebody else. Up to this
/// much a second such an attack gains; beyond it, answers are as short as their questions and say
/// "truncated": whoever really asked comes again over TCP, where addresses cannot be forged.
#[derive(Debug, Default)]
pub(super) struct Surplus {
    networks: HashMap<IpAddr, Bucket>,
    swept: Option<Instant>,
}

impl Surplus {
    /// May so many octets more than were asked go to `client`?
    pub(super) fn allows(&mut self, client: IpAddr, octets: usize, now: Instant) -> bool {
        let network = network(client);
        if !self.networks.contains_key(&network) {
            self.sweep(now);
            if self.networks.len() >= MAX_NETWORKS {
                return false;
            }
        }
        let bucket = self.networks.entry(network);
        let bucket = bucket.or_insert_with(|| Bucket::new(SURPLUS_BURST, now));
        bucket.take(octets as f64, SURPLUS_RATE, SURPLUS_BURST, now)
    }

    /// Networks that have been quiet for long enough are full again, and need no memory. Not with
    /// every question of a flood: it takes a look at all of them.
    fn sweep(&mut self, now: Instant) {
        let due = |at| now.saturating_duration_since(at) >= SWEEP;
        if self.networks.len() < MAX_NETWORKS || !self.swept.is_none_or(due) {
            return;
        }
        self.swept = Some(now);
        let full = Duration::from_secs_f64(SURPLUS_BURST / SURPLUS_RATE);
        self.networks
            .retain(|_, bucket| now.saturating_duration_since(bucket.at) < full);
    }
}

/// Whoever can forge one address of a network can forge its neighbour's.
fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4((u32::from(ip) & 0xffff_ff00).into()),
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) & !(u128::MAX >> 56)).into()),
    }
}

/// Octets a second: two hundred balancers that each ask once a second for six hundred more than
/// they send.
const SURPLUS_RATE: f64 = 128.0 * 1024.0;

/// Octets at once.
const SURPLUS_BURST: f64 = 1024.0 * 1024.0;

/// Between two looks at all networks.
const SWEEP: Duration = Duration::from_secs(1);

/// Networks that are told apart at a time, about 100 octets each.
const MAX_NETWORKS: usize = 16_384;

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
        assert_eq!(surplus.networks.len(), MAX_NETWORKS);
        assert!(!surplus.allows(IpAddr::from([203, 0, 113, 1]), 1, now));
        let later = now + Duration::from_secs(9);
        assert!(surplus.allows(IpAddr::from([203, 0, 113, 1]), 1, later));
        assert_eq!(surplus.networks.len(), 1);
    }
}
