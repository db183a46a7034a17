//! An answer becomes endpoints: which records are used, which are not, and why.
//!
//! Pure. What the endpoints change is decided in `policy.rs`. RFC 2782.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::admission::Refusal;
use super::answers::{SrvRecord, Target};
use super::{Discovered, Endpoint};

/// One address of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Located {
    /// The address.
    pub address: IpAddr,
    /// The DNS server that said so is on loopback.
    pub server_on_loopback: bool,
}

/// What a set of records amounts to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Assembled {
    /// Sorted by priority, then by identity; no identity twice.
    pub endpoints: Vec<Discovered>,
    /// What is not used.
    pub rejected: Vec<Rejected>,
    /// Targets that have no address yet.
    pub waiting: Vec<Arc<str>>,
}

/// A record, or one address of its target, that is not used.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rejected {
    /// `priority weight port target`, with the address where it is about one.
    pub record: String,
    /// Why.
    pub reason: String,
}

/// Do these records say that the service is decidedly not offered (every target is `.`)?
pub fn declined(records: &[SrvRecord]) -> bool {
    !records.is_empty() && records.iter().all(|r| r.target == Target::Declined)
}

/// Puts records and the addresses of their targets together.
///
/// `admit` judges each address; at most `max` endpoints are taken, the first by priority and then
/// by identity, so that the order of the answer plays no part. The same target, port and address
/// twice is one endpoint: the lowest priority wins; records of that priority are added up, since
/// each of them is a share, but a record that is the same in every field counts once
/// (RFC 2181 section 5: a set has no duplicates). A target's weight is shared among the addresses
/// of it that are used.
pub fn assemble(
    records: &[SrvRecord],
    addresses: &BTreeMap<Arc<str>, Vec<Located>>,
    admit: &dyn Fn(SocketAddr, bool) -> Result<(), Refusal>,
    max: usize,
) -> Assembled {
    let mut out = Assembled::default();
    let mut chosen = BTreeMap::<Endpoint, (u16, u16)>::new();
    let mut seen = Vec::<&SrvRecord>::new();
    let mut sorted: Vec<_> = records.iter().collect();
    sorted.sort_by_key(|r| r.priority);
    for record in sorted {
        if seen
            .last()
            .is_some_and(|last| last.priority != record.priority)
        {
            seen.clear();
        }
        if seen.contains(&record) {
            continue;
        }
        seen.push(record);
        let target = match usable(record) {
            Ok(target) => target,
            Err(reason) => {
                out.reject(record.to_string(), reason);
                continue;
            }
        };
        let Some(located) = addresses.get(target).filter(|a| !a.is_empty()) else {
            if !out.waiting.contains(target) {
                out.waiting.push(Arc::clone(target));
            }
            continue;
        };
        for Located {
            address,
            server_on_loopback,
        } in located
        {
            if let Err(refusal) = admit(SocketAddr::new(*address, record.port), *server_on_loopback)
            {
                out.reject(format!("{record} ({address})"), refusal.to_string());
                continue;
            }
            let endpoint = Endpoint {
                target: Arc::clone(target),
                address: *address,
                port: record.port,
            };
            match chosen.entry(endpoint) {
                Entry::Vacant(free) => {
                    free.insert((record.priority, record.weight));
                }
                Entry::Occupied(mut taken) if taken.get().0 == record.priority => {
                    taken.get_mut().1 = taken.get().1.saturating_add(record.weight);
                }
                Entry::Occupied(_) => out.reject(
                    format!("{record} ({address})"),
                    "the same target, port and address is listed with a lower priority".to_owned(),
                ),
            }
        }
    }
    let mut order: Vec<_> = chosen.into_iter().collect();
    order.sort_by(|(a, (p, _)), (b, (q, _))| p.cmp(q).then_with(|| a.cmp(b)));
    for (endpoint, (priority, weight)) in order.drain(max.min(order.len())..) {
        out.reject(
            format!("{priority} {weight} {} {}", endpoint.port, endpoint.target),
            format!("`max_endpoints` is {max}"),
        );
    }
    let mut split = BTreeMap::<(Arc<str>, u16), u16>::new();
    for (endpoint, _) in &order {
        let key = (Arc::clone(&endpoint.target), endpoint.port);
        let count = split.entry(key).or_default();
        *count = count.saturating_add(1);
    }
    let place = |(endpoint, (priority, weight)): (Endpoint, (u16, u16))| Discovered {
        split: split[&(Arc::clone(&endpoint.target), endpoint.port)],
        endpoint,
        priority,
        weight,
    };
    out.endpoints = order.into_iter().map(place).collect();
    out
}

fn usable(record: &SrvRecord) -> Result<&Arc<str>, String> {
    match &record.target {
        Target::Declined => {
            Err("its target is `.`, which means nothing beside other records".to_owned())
        }
        Target::Invalid(_) => Err(
            "its target is not a host name (an SRV record names a host, never an address)"
                .to_owned(),
        ),
        Target::Host(_) if record.port == 0 => Err(
            "its port is 0 (was the name asked for without `_port._protocol` in front?)".to_owned(),
        ),
        Target::Host(target) => Ok(target),
    }
}

impl Assembled {
    fn reject(&mut self, record: String, reason: String) {
        self.rejected.push(Rejected { record, reason });
    }
}

impl std::fmt::Display for SrvRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let target = match &self.target {
            Target::Declined => ".",
            Target::Host(name) => name,
            Target::Invalid(text) => text,
        };
        write!(
            f,
            "{} {} {} {target}",
            self.priority, self.weight, self.port
        )
    }
}

#[cfg(test)]
#[path = "srv_tests.rs"]
mod tests;
