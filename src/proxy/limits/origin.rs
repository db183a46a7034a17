//! Whom a limit takes for one client. Pure.

use std::net::IpAddr;

/// One client, as far as an address tells: an IPv4 address, or the /64 of an IPv6 one. A host is
/// given a whole /64 and may use another address of it for each connection (RFC 4291 §2.5.4,
/// RFC 8981).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// An IPv4 address, or one that was mapped into IPv6.
    V4(u32),
    /// The upper half of an IPv6 address.
    V6(u64),
}

impl Origin {
    /// Whose address it is.
    pub fn of(address: IpAddr) -> Origin {
        match address.to_canonical() {
            IpAddr::V4(v4) => Origin::V4(v4.into()),
            IpAddr::V6(v6) => Origin::V6((u128::from(v6) >> 64) as u64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_or_two() {
        for (rule, a, b, one) in [
            (
                "an IPv4 address counts whole",
                "192.0.2.7",
                "192.0.2.8",
                false,
            ),
            (
                "a mapped one is that address",
                "192.0.2.7",
                "::ffff:192.0.2.7",
                true,
            ),
            (
                "mapped ones count whole too",
                "::ffff:192.0.2.7",
                "::ffff:192.0.2.8",
                false,
            ),
            (
                "a /64 is one",
                "2001:db8:0:1::1",
                "2001:db8:0:1:ffff::9",
                true,
            ),
            (
                "the next /64 is another",
                "2001:db8:0:1::1",
                "2001:db8:0:2::1",
                false,
            ),
            (
                "a number is not an address of the other family",
                "0.0.0.1",
                "0:0:0:1::",
                false,
            ),
        ] {
            let of = |text: &str| Origin::of(text.parse().expect("it is an address"));
            assert_eq!(of(a) == of(b), one, "{rule}");
        }
    }
}
