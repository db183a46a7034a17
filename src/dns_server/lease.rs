//! For how long a registration holds: the update lease of RFC 9664, and its EDNS option.
//!
//! Pure. `update.rs` grants leases, `registry.rs` takes away what was not renewed.

use std::time::Duration;

use hickory_proto::op::Edns;
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use tokio::time::Instant;

/// A record's lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lease {
    /// The record goes at this moment, by the monotonic clock.
    pub(super) until: Instant,
    /// What was granted, to begin with.
    pub(super) granted: Duration,
}

impl Lease {
    /// Begins now.
    pub(super) fn new(granted: Duration, now: Instant) -> Lease {
        Lease {
            until: now + granted,
            granted,
        }
    }
}

/// The lease that a message asks for or grants; `None`: it says nothing of one (or not in 4 or 8
/// octets, RFC 9664 section 4).
pub fn of(edns: Option<&Edns>) -> Option<Duration> {
    let option = edns?.option(EdnsCode::UL)?;
    let EdnsOption::Unknown(_, octets) = option else {
        return None;
    };
    // With eight octets the second four are the lease of a KEY record, which we do not keep.
    let lease: [u8; 4] = match octets.len() {
        4 | 8 => octets[..4].try_into().ok()?,
        _ => return None,
    };
    Some(Duration::from_secs(u32::from_be_bytes(lease).into()))
}

/// Puts the option into a message; fractions of a second are cut off.
pub fn put(edns: &mut Edns, lease: Duration) {
    let seconds = u32::try_from(lease.as_secs()).unwrap_or(u32::MAX);
    let octets = seconds.to_be_bytes().to_vec();
    edns.options_mut()
        .insert(EdnsOption::Unknown(UPDATE_LEASE, octets));
}

/// Option code of the update lease (RFC 9664 section 4).
const UPDATE_LEASE: u16 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn option() {
        let with = |octets: &[u8]| {
            let mut edns = Edns::new();
            edns.options_mut()
                .insert(EdnsOption::Unknown(UPDATE_LEASE, octets.to_vec()));
            of(Some(&edns))
        };
        assert_eq!(with(&[0, 0, 0, 30]), Some(Duration::from_secs(30)));
        let with_key = [0, 0, 1, 0, 0, 0, 0, 9];
        assert_eq!(with(&with_key), Some(Duration::from_secs(256)));
        assert_eq!(with(&[0, 0, 30]), None, "three octets");
        assert_eq!(with(&[]), None, "empty");
        assert_eq!(of(None), None);
        let mut edns = Edns::new();
        put(&mut edns, Duration::from_millis(7900));
        assert_eq!(of(Some(&edns)), Some(Duration::from_secs(7)));
    }
}
