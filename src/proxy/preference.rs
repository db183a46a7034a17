//! What a request says about whom it wants: the key that `hash` goes by, and the cookie that leads
//! back to a backend.
//!
//! Asked after the head was rewritten, so that nothing counts that the backend would not be told.

use std::net::IpAddr;

use super::peer::Peer;
use crate::balance::affinity::{Affinity, Token};
use crate::balance::hash;
use crate::config::{HashBy, Service, Strategy};
use crate::http::cookies;
use crate::http::head::RequestHead;

/// Whom a request wants.
#[derive(Debug, Clone, Copy, Default)]
pub struct Preference {
    /// What it is told apart from others by, hashed; `None`: nothing.
    pub key: Option<u64>,
    /// The backend that its cookie stands for. Whether there is such a one is not known yet.
    pub token: Option<Token>,
    /// It came over TLS, and what its client is to remember is for TLS alone.
    pub secure: bool,
}

impl Preference {
    /// Of a request to `service` from `peer`.
    pub fn of(
        service: &Service,
        affinity: Option<&Affinity>,
        head: &RequestHead,
        peer: &Peer,
    ) -> Preference {
        let client = peer.address.ip().to_canonical();
        Preference {
            token: affinity.and_then(|affinity| {
                cookies::named(&head.fields, affinity.name()).find_map(Token::parse)
            }),
            secure: peer.tls.is_some(),
            key: match service.balancing.strategy {
                Strategy::Hash => key(&service.hash_by, head, client),
                _ => None,
            },
        }
    }
}

impl Preference {
    /// Of a connection to `service` that is passed on as it is: all that tells it apart is its
    /// client's address.
    pub fn of_connection(service: &Service, peer: &Peer) -> Preference {
        let client = peer.address.ip().to_canonical();
        let by_address =
            service.balancing.strategy == Strategy::Hash && service.hash_by == HashBy::Address;
        Preference {
            key: by_address.then(|| address(client)),
            token: None,
            secure: false,
        }
    }
}

fn address(client: IpAddr) -> u64 {
    match client {
        IpAddr::V4(v4) => hash::key([&v4.octets()[..]]),
        IpAddr::V6(v6) => hash::key([&v6.octets()[..]]),
    }
}

fn key(by: &HashBy, head: &RequestHead, client: IpAddr) -> Option<u64> {
    match by {
        HashBy::Address => Some(address(client)),
        HashBy::Path => Some(hash::key([&head.path[..]])),
        HashBy::Cookie(name) => cookies::named(&head.fields, name)
            .next()
            .map(|value| hash::key([value])),
        // It is no field of a head any more.
        HashBy::Header(name) if name.eq_ignore_ascii_case("host") => {
            Some(hash::key([&head.authority[..]]))
        }
        // Several lines of one field are one value (RFC 9110 §5.3).
        HashBy::Header(name) => {
            let mut values = head.fields.named(name);
            let first = values.next()?;
            let more = values.flat_map(|value| [&b", "[..], value]);
            Some(hash::key([first].into_iter().chain(more)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(by: &HashBy, fields: &[(&str, &str)]) -> Option<u64> {
        let mut head = RequestHead {
            path: b"/a/b".to_vec(),
            query: b"?c=d".to_vec(),
            ..RequestHead::default()
        };
        for (name, value) in fields {
            head.fields.push(name.as_bytes(), value.as_bytes());
        }
        key(by, &head, [192, 0, 2, 7].into())
    }

    #[test]
    fn keys_by_rule() {
        let text = |text: &str| Some(hash::key([text.as_bytes()]));
        let header = HashBy::Header("X-Tenant".into());
        let cookie = HashBy::Cookie("sid".into());
        for (rule, by, fields, expected) in [
            (
                "address",
                &HashBy::Address,
                &[][..],
                Some(hash::key([&[192, 0, 2, 7][..]])),
            ),
            ("path, without the query", &HashBy::Path, &[], text("/a/b")),
            ("header", &header, &[("x-tenant", "acme")], text("acme")),
            (
                "in one line or two",
                &header,
                &[("X-Tenant", "a"), ("x-tenant", "b")],
                text("a, b"),
            ),
            ("no such header", &header, &[("X-Tenan", "acme")], None),
            ("cookie", &cookie, &[("Cookie", "a=b; sid=7")], text("7")),
            ("no such cookie", &cookie, &[("Cookie", "a=b")], None),
        ] {
            assert_eq!(of(by, fields), expected, "{rule}");
        }
    }
}
