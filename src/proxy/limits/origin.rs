//! Whom a limit takes for one client. Pure.

use std::net::{IpAddr, SocketAddr};

use crate::config::Config;
use crate::http::headers::{Fields, Known, list_members};

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

/// Whose request it is that came from `peer` with these fields.
pub fn client(peer: IpAddr, fields: &Fields, config: &Config) -> IpAddr {
    match config.trusts(peer) {
        false => peer,
        true => behind(peer, fields.all(Known::XForwardedFor), |a| config.trusts(a)),
    }
}

/// The client behind a proxy that is trusted: in the chain that it hands on (`X-Forwarded-For`) the
/// right-most address that is not a trusted proxy's. What stands left of that was written by who
/// knows whom. Where the chain has no such address, or one that is none stands right of it, it is
/// the farthest trusted proxy that it leads to, `peer` at the least.
fn behind<'a>(
    peer: IpAddr,
    chain: impl Iterator<Item = &'a [u8]>,
    trusts: impl Fn(IpAddr) -> bool,
) -> IpAddr {
    // From left to right, since that is how fields are read: each that is not trusted takes the
    // place of all before it.
    let (mut client, mut farthest) = (None, None);
    for member in list_members(chain) {
        match address(member) {
            Some(address) if trusts(address) => farthest = farthest.or(Some(address)),
            untrusted => (client, farthest) = (untrusted, None),
        }
    }
    client.or(farthest).unwrap_or(peer)
}

/// A member of the chain: an address, by itself, in brackets, or with the port that some put there.
fn address(member: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(member).ok()?;
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    let with_port = || text.parse().ok().map(|address: SocketAddr| address.ip());
    bare.unwrap_or(text).parse().ok().or_else(with_port)
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

    #[test]
    fn who_is_behind_a_trusted_proxy() {
        // Trusted is 10/8, and the peer is 10.0.0.1.
        for (rule, chain, expected) in [
            ("nobody is named", &[][..], "10.0.0.1"),
            ("an empty list", &[" , "], "10.0.0.1"),
            ("the only one", &["192.0.2.7"], "192.0.2.7"),
            (
                "what a client made up is not looked at",
                &["198.51.100.1, 192.0.2.7"],
                "192.0.2.7",
            ),
            (
                "trusted ones on the right are passed",
                &["192.0.2.7, 10.0.0.3, 10.0.0.2"],
                "192.0.2.7",
            ),
            (
                "several lines are one list",
                &["192.0.2.6", "192.0.2.7,10.0.0.2"],
                "192.0.2.7",
            ),
            (
                "trusted ones left of it do not count",
                &["10.0.0.9, 192.0.2.7, 10.0.0.2"],
                "192.0.2.7",
            ),
            (
                "all are trusted: the farthest",
                &["10.0.0.3, 10.0.0.2"],
                "10.0.0.3",
            ),
            (
                "what is no address hides what is left of it",
                &["192.0.2.7, unknown, 10.0.0.2"],
                "10.0.0.2",
            ),
            ("no address at all", &["192.0.2.7, unknown"], "10.0.0.1"),
            ("bytes that are no text", &["192.0.2.7\u{e9}"], "10.0.0.1"),
            ("with a port", &["192.0.2.7:4711"], "192.0.2.7"),
            ("IPv6", &["2001:db8::7"], "2001:db8::7"),
            ("IPv6 in brackets", &["[2001:db8::7]"], "2001:db8::7"),
            ("IPv6 with a port", &["[2001:db8::7]:4711"], "2001:db8::7"),
            (
                "IPv4 mapped into IPv6",
                &["::ffff:192.0.2.7, ::ffff:10.0.0.2"],
                "192.0.2.7",
            ),
        ] {
            let address = |text: &str| -> IpAddr { text.parse().expect("it is an address") };
            let trusts = |a: IpAddr| match a.to_canonical() {
                IpAddr::V4(v4) => v4.octets()[0] == 10,
                IpAddr::V6(_) => false,
            };
            let chain = chain.iter().map(|line| line.as_bytes());
            let found = behind(address("10.0.0.1"), chain, trusts);
            assert_eq!(Origin::of(found), Origin::of(address(expected)), "{rule}");
        }
    }
}
