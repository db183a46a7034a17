//! Updates that came before: the same message again changes nothing (RFC 8945 section 10).
//!
//! Pure: time comes in as an argument. In memory only: after a restart the signatures of the last
//! five minutes hold once more.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use tokio::time::Instant;

/// What became of the updates whose signatures still hold, by their MACs.
#[derive(Debug, Default)]
pub(super) struct Seen {
    results: HashMap<u128, Answered>,
    order: VecDeque<(u128, Instant)>,
}

/// The code, and the lease that was granted.
pub(super) type Answered = (ResponseCode, Option<Duration>);

impl Seen {
    /// What was answered to the message with this MAC.
    pub(super) fn get(&self, mac: &[u8]) -> Option<Answered> {
        self.results.get(&short(mac)).copied()
    }

    /// Remembers what was answered for as long as the message would be believed again.
    pub(super) fn put(&mut self, mac: &[u8], answered: Answered, until: Instant, now: Instant) {
        while let Some((oldest, holds_until)) = self.order.front() {
            if *holds_until > now && self.order.len() < MAX_SEEN {
                break;
            }
            self.results.remove(oldest);
            self.order.pop_front();
        }
        if self.results.insert(short(mac), answered).is_none() {
            self.order.push_back((short(mac), until));
        }
    }
}

/// The first 16 octets tell MACs apart well enough: nobody can choose them.
fn short(mac: &[u8]) -> u128 {
    let mut octets = [0; 16];
    let length = mac.len().min(16);
    octets[..length].copy_from_slice(&mac[..length]);
    u128::from_be_bytes(octets)
}

/// Messages remembered of one key, some 100 octets each: those of five minutes at 500 a second.
/// Beyond that the oldest are forgotten.
const MAX_SEEN: usize = 150_000;

#[cfg(test)]
mod tests {
    use super::*;

    const DONE: Answered = (ResponseCode::NoError, None);

    fn mac(n: u32) -> [u8; 32] {
        let mut mac = [7; 32];
        mac[..4].copy_from_slice(&n.to_be_bytes());
        mac
    }

    #[tokio::test(start_paused = true)]
    async fn for_as_long_as_the_signature_holds() {
        let mut seen = Seen::default();
        let now = Instant::now();
        let second = Duration::from_secs(1);
        seen.put(&mac(1), DONE, now + second, now);
        seen.put(&mac(2), DONE, now + 9 * second, now);
        assert!(seen.get(&mac(1)).is_some() && seen.get(&mac(3)).is_none());
        seen.put(&mac(3), DONE, now + 9 * second, now + second);
        assert!(seen.get(&mac(1)).is_none(), "nobody would believe it now");
        assert!(seen.get(&mac(2)).is_some() && seen.get(&mac(3)).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_many() {
        let mut seen = Seen::default();
        let now = Instant::now();
        let until = now + Duration::from_secs(300);
        for n in 0..MAX_SEEN as u32 + 10 {
            seen.put(&mac(n), DONE, until, now);
        }
        assert_eq!((seen.results.len(), seen.order.len()), (MAX_SEEN, MAX_SEEN));
        assert!(seen.get(&mac(9)).is_none() && seen.get(&mac(10)).is_some());
    }
}
