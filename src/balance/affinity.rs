//! Cookies that lead a client back to the backend that it had (`sticky`).
//!
//! A cookie's value stands for one backend: HMAC-SHA256 (RFC 2104) over the names of service and
//! endpoint under a key that clients don't have, cut to 128 bits (RFC 2104 §5), in base64url. So
//! it tells no address, cannot be guessed for a backend that one was not sent to, outlives every
//! change of the records, and is the same on all replicas that share the key. Nothing is stored
//! per client: the values of all backends lie in a table that is made when the snapshot is.
//!
//! It says nothing of the client, so a shared one is worth nothing but the way to a backend.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use aws_lc_rs::{digest, hmac};
use data_encoding::BASE64URL_NOPAD;

use super::hash;
use super::snapshot::Tier;
use crate::config::Sticky;
use crate::discovery::Endpoint;
use crate::upstream::backend::Backend;

/// The cookie of one service.
#[derive(Debug)]
pub struct Affinity {
    service: Arc<str>,
    /// SHA-256 of the secret.
    stamp: [u8; 32],
    key: hmac::Key,
    name: Box<str>,
    max_age: Option<u64>,
}

/// What a cookie says: which backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token([u8; 16]);

/// Which backend each token stands for, and the priority of its tier.
pub type Tokens = HashMap<Token, (Arc<Backend>, u16)>;

impl Affinity {
    /// The cookie of `service` under a secret.
    pub fn new(service: Arc<str>, sticky: &Sticky, secret: &[u8]) -> Affinity {
        let usual = || {
            // Of the service, so that two on one host keep apart; hashed, for it may be written
            // with bytes that no cookie's name has.
            let hash = hash::key([service.as_bytes()]) >> 32;
            format!("evenkeel_{hash:08x}").into()
        };
        let stamp = digest::digest(&digest::SHA256, secret);
        Affinity {
            name: sticky.cookie.clone().unwrap_or_else(usual),
            max_age: sticky.max_age.map(|age| age.as_secs()),
            stamp: std::array::from_fn(|i| stamp.as_ref()[i]),
            key: hmac::Key::new(hmac::HMAC_SHA256, secret),
            service,
        }
    }

    /// Do both write and understand the same cookies?
    pub fn is_same(&self, other: &Affinity) -> bool {
        let terms = |a: &Affinity| (Arc::clone(&a.service), a.stamp, a.name.clone(), a.max_age);
        terms(self) == terms(other)
    }

    /// Name of the cookie.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What stands for an endpoint.
    pub fn token(&self, endpoint: &Endpoint) -> Token {
        let mut mac = hmac::Context::with_key(&self.key);
        // Neither name holds a zero byte.
        for name in [&self.service, &endpoint.target] {
            mac.update(name.as_bytes());
            mac.update(&[0]);
        }
        match endpoint.address {
            IpAddr::V4(v4) => mac.update(&v4.octets()),
            IpAddr::V6(v6) => mac.update(&v6.octets()),
        }
        mac.update(&endpoint.port.to_be_bytes());
        let tag = mac.sign();
        Token(std::array::from_fn(|i| tag.as_ref()[i]))
    }

    /// The table for the members of all tiers.
    pub(super) fn tokens(&self, tiers: &[Tier]) -> Tokens {
        let members = |tier: &Tier| {
            let priority = tier.priority;
            let all = tier.members.clone().into_iter();
            all.map(move |member| (member.backend, priority))
        };
        let all = tiers.iter().flat_map(members);
        all.map(|place| (self.token(&place.0.endpoint), place))
            .collect()
    }

    /// Value of `Set-Cookie` for a client that `backend` serves; `None`: the client has it. `sent`:
    /// what its own cookie said. `secure`: it came over TLS, and nothing else shall see it.
    pub fn set_cookie(
        &self,
        backend: &Backend,
        sent: Option<Token>,
        secure: bool,
    ) -> Option<String> {
        let token = self.token(&backend.endpoint);
        if sent == Some(token) {
            return None;
        }
        let value = BASE64URL_NOPAD.encode(&token.0);
        let mut cookie = format!("{}={value}; Path=/; HttpOnly; SameSite=Lax", self.name);
        if secure {
            cookie.push_str("; Secure");
        }
        if let Some(seconds) = self.max_age {
            let _ = write!(cookie, "; Max-Age={seconds}");
        }
        Some(cookie)
    }
}

impl Token {
    /// Reads a cookie's value; `None`: it is none of ours.
    pub fn parse(value: &[u8]) -> Option<Token> {
        let mut token = Token([0; 16]);
        let length = BASE64URL_NOPAD.decode_len(value.len()).ok()?;
        if length != token.0.len() {
            return None;
        }
        BASE64URL_NOPAD.decode_mut(value, &mut token.0).ok()?;
        Some(token)
    }
}

#[cfg(test)]
#[path = "affinity_tests.rs"]
mod tests;
