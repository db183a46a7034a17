//! The last good answer of a name as it is kept on disk: a text of a known version, and what of it
//! may still be used.
//!
//! Pure; `state_dir.rs` has the files, `keeper.rs` says when they are written. What is read here may
//! be cut short, of another version or written by somebody else: whatever is not entirely in order
//! is not used at all, and an address that DNS could not have given is refused as one that it gave
//! is.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;
use hickory_resolver::proto::rr::Name;
use serde::{Deserialize, Serialize};

use super::admission::Refusal;
use super::answers::{SrvRecord, Target};
use super::srv::Rejected;
use super::{Discovered, Endpoint};
use crate::config::{Discover, Family};

/// Of the text. Another one is not read: it may mean something else by the same words.
const VERSION: u32 = 1;

/// An older answer is not used, as addresses have found other owners since. A long weekend without
/// DNS is bridged.
pub const OLDEST: Duration = Duration::from_secs(3 * 24 * 60 * 60);

/// Endpoints that a text may have: as many as `max_endpoints` may say.
const MAX_ENDPOINTS: usize = 65_536;

/// No text is longer: so many endpoints with the longest names (253 octets), and as much again for
/// the rest of each.
pub const LARGEST: u64 = MAX_ENDPOINTS as u64 * 512;

/// Which question an answer belongs to: what decides about it, and nothing else of the
/// configuration, so that another time-out does not make it somebody else's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    name: String,
    r#type: Type,
    /// That goes with addresses of the name itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    /// Empty: those of the system.
    servers: Vec<SocketAddr>,
    family: Addresses,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Type {
    #[serde(rename = "SRV")]
    Srv,
    #[serde(rename = "A/AAAA")]
    Address,
}

/// [`Family`], as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Addresses {
    Auto,
    V4,
    V6,
    Both,
}

/// The last good answer to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// When a server last gave it, to the second.
    pub answered: SystemTime,
    /// What was offered then, each identity once. Never empty: of a name behind which nobody is,
    /// nothing is kept.
    pub endpoints: Arc<[Discovered]>,
    /// Those of them that are on loopback and were given by a server on loopback.
    pub from_loopback: BTreeSet<Endpoint>,
}

/// Why a text is not used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// Written by another version of this program.
    #[error("its version is {0}, and this program knows {VERSION} only")]
    Version(u32),
    /// Damaged, or something else altogether.
    #[error("it is damaged: {0}")]
    Damaged(#[from] serde_json::Error),
    /// It was put under another file's name.
    #[error("it belongs to another question")]
    Another,
    /// No answer could have given the endpoint of this number.
    #[error("its endpoint number {0} cannot be one")]
    Endpoint(usize),
    /// It has none, or too many.
    #[error("it has {0} endpoints")]
    Count(usize),
    /// See [`OLDEST`].
    #[error("it is {} old", humantime::format_duration(whole_seconds(*.0)))]
    Old(Duration),
    /// One of the two clocks was wrong, and it cannot be told how old it is.
    #[error("it is from the future, by {}", humantime::format_duration(whole_seconds(*.0)))]
    Future(Duration),
}

/// What a text begins with, whatever its version.
#[derive(Deserialize)]
struct Head {
    version: u32,
}

/// The text.
#[derive(Serialize, Deserialize)]
struct Text {
    version: u32,
    asked: Asked,
    /// Seconds since 1970.
    answered: u64,
    endpoints: Vec<Line>,
}

/// One endpoint.
#[derive(Serialize, Deserialize)]
struct Line {
    target: String,
    address: IpAddr,
    port: u16,
    priority: u16,
    weight: u16,
    split: u16,
    /// Who gave this address was on loopback. Written only where it matters.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    from_loopback: bool,
}

impl Asked {
    /// `None`: there is nobody to ask.
    pub fn of(discover: &Discover) -> Option<Asked> {
        let (name, r#type, port, lookup) = match discover {
            Discover::Static(_) => return None,
            Discover::Srv { name, lookup } => (name, Type::Srv, None, lookup),
            Discover::Address { name, port, lookup } => {
                (name, Type::Address, Some(port.get()), lookup)
            }
        };
        Some(Asked {
            name: String::from(&**name),
            r#type,
            port,
            servers: lookup.servers.clone(),
            family: match lookup.family {
                Family::Auto => Addresses::Auto,
                Family::V4 => Addresses::V4,
                Family::V6 => Addresses::V6,
                Family::Both => Addresses::Both,
            },
        })
    }

    /// The name that is asked for, as configured.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of its file: a hash, so that whatever stands in a name is no path.
    pub fn file(&self) -> String {
        let text = serde_json::to_vec(self).expect("it has no maps and no floats");
        HEXLOWER.encode(digest(&SHA256, &text).as_ref()) + ENDING
    }

    /// Could an answer have named such a target?
    fn has_target(&self, target: &str) -> bool {
        match self.r#type {
            Type::Address => target == self.name,
            Type::Srv => {
                let same =
                    |name| matches!(Target::parse(&name), Target::Host(host) if *host == *target);
                !target.is_empty() && Name::from_ascii(target).is_ok_and(same)
            }
        }
    }
}

/// Of the names of files.
const ENDING: &str = ".json";

/// Is this a name that [`Asked::file`] could give?
pub fn is_file(name: &str) -> bool {
    name.strip_suffix(ENDING).is_some_and(|hash| {
        let digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        hash.len() == 2 * SHA256.output_len() && hash.bytes().all(digit)
    })
}

impl Stored {
    /// As text.
    pub fn encode(&self, asked: &Asked) -> Vec<u8> {
        let line = |discovered: &Discovered| {
            let endpoint = &discovered.endpoint;
            Line {
                target: String::from(&*endpoint.target),
                address: endpoint.address,
                port: endpoint.port,
                priority: discovered.priority,
                weight: discovered.weight,
                split: discovered.split,
                from_loopback: self.from_loopback.contains(endpoint),
            }
        };
        let since_1970 = self.answered.duration_since(UNIX_EPOCH);
        let text = Text {
            version: VERSION,
            asked: asked.clone(),
            answered: since_1970.map_or(0, |since| since.as_secs()),
            endpoints: self.endpoints.iter().map(line).collect(),
        };
        let mut bytes = serde_json::to_vec(&text).expect("it has no maps and no floats");
        bytes.push(b'\n');
        bytes
    }

    /// Reads a text that should be the answer to `asked`.
    pub fn decode(bytes: &[u8], asked: &Asked) -> Result<Stored, Unusable> {
        let Head { version } = serde_json::from_slice(bytes)?;
        if version != VERSION {
            return Err(Unusable::Version(version));
        }
        let text: Text = serde_json::from_slice(bytes)?;
        if text.asked != *asked {
            return Err(Unusable::Another);
        }
        if !(1..=MAX_ENDPOINTS).contains(&text.endpoints.len()) {
            return Err(Unusable::Count(text.endpoints.len()));
        }
        let answered = UNIX_EPOCH.checked_add(Duration::from_secs(text.answered));
        let mut seen = BTreeSet::new();
        let mut from_loopback = BTreeSet::new();
        let mut endpoints = Vec::with_capacity(text.endpoints.len());
        for (number, line) in text.endpoints.into_iter().enumerate() {
            let endpoint = Endpoint {
                target: line.target.into(),
                address: line.address,
                port: line.port,
            };
            let possible = line.port != 0 && line.split != 0 && asked.has_target(&endpoint.target);
            if !possible || !seen.insert(endpoint.clone()) {
                return Err(Unusable::Endpoint(number));
            }
            if line.from_loopback {
                from_loopback.insert(endpoint.clone());
            }
            endpoints.push(Discovered {
                endpoint,
                priority: line.priority,
                weight: line.weight,
                split: line.split,
            });
        }
        Ok(Stored {
            answered: answered.ok_or(Unusable::Future(Duration::MAX))?,
            endpoints: endpoints.into(),
            from_loopback,
        })
    }

    /// How old it is; an error if that is too old for use. A clock that was put back a little is
    /// forgiven.
    pub fn age(&self, now: SystemTime) -> Result<Duration, Unusable> {
        match now.duration_since(self.answered) {
            Ok(age) if age > OLDEST => Err(Unusable::Old(age)),
            Ok(age) => Ok(whole_seconds(age)),
            Err(ahead) if ahead.duration() > OLDEST => Err(Unusable::Future(ahead.duration())),
            Err(_) => Ok(Duration::ZERO),
        }
    }

    /// What of it may be used, the first `max` by priority and then by identity, and what may not.
    ///
    /// `admit` judges each address as it does those of an answer. That a server on loopback gave it
    /// counts only if one is asked today (`asks_loopback`): the file alone does not open this host.
    pub fn admitted(
        &self,
        admit: &dyn Fn(SocketAddr, bool) -> Result<(), Refusal>,
        asks_loopback: bool,
        max: usize,
    ) -> (Vec<Discovered>, Vec<Rejected>) {
        let mut rejected = Vec::new();
        let mut admitted = Vec::new();
        for discovered in self.endpoints.iter() {
            let endpoint = &discovered.endpoint;
            let vouched = asks_loopback && self.from_loopback.contains(endpoint);
            match admit(endpoint.socket(), vouched) {
                Ok(()) => admitted.push(discovered.clone()),
                Err(refusal) => rejected.push(reject(discovered, refusal.to_string())),
            }
        }
        admitted.sort_by(|a, b| (a.priority, &a.endpoint).cmp(&(b.priority, &b.endpoint)));
        for discovered in admitted.drain(max.min(admitted.len())..) {
            rejected.push(reject(&discovered, format!("`max_endpoints` is {max}")));
        }
        (admitted, rejected)
    }
}

/// As a record that is not used.
fn reject(discovered: &Discovered, reason: String) -> Rejected {
    let Endpoint {
        target,
        address,
        port,
    } = &discovered.endpoint;
    let record = SrvRecord {
        priority: discovered.priority,
        weight: discovered.weight,
        port: *port,
        target: Target::Host(Arc::clone(target)),
    };
    Rejected {
        record: format!("{record} ({address})"),
        reason,
    }
}

/// For people, and as exact as a text is.
fn whole_seconds(time: Duration) -> Duration {
    Duration::from_secs(time.as_secs())
}

#[cfg(test)]
#[path = "stored_tests.rs"]
mod tests;
