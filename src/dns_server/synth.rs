//! SRV records made of the address records of another name, for backends that know nothing of us:
//! where a container engine lists every replica under one name, that name gets a service.
//!
//! One task per service asks another name server on a ticker, through `discovery::resolver`, and
//! writes what it hears into the zone. What it cannot hear is SERVFAIL, so that a balancer keeps
//! what it has; "nobody" is passed on as it is.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::rr::rdata::{A, AAAA, SRV};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::time::sleep;

use super::zone::{Zone, ZoneError, absolute};
use crate::config::{Family, Lookup};
use crate::discovery::answers::{Addresses, OneFamily};
use crate::discovery::resolver::{Limits, Resolver};

/// A service that is made of addresses.
#[derive(Debug)]
pub struct Synth {
    zone: Zone,
    service: Name,
    /// What the targets are named under: the service without its leading `_` labels.
    base: Name,
    /// Whose addresses.
    host: Arc<str>,
    port: u16,
    servers: Vec<SocketAddr>,
    made: BTreeSet<IpAddr>,
}

/// What was heard.
enum Heard {
    /// These; nobody if empty.
    Addresses(BTreeSet<IpAddr>),
    Nothing(String),
}

impl Synth {
    /// `service` in `zone` is made of the addresses of `host` from now on; nothing is known of it
    /// until [`Synth::run`] has heard some. No servers: those of the system.
    pub fn new(
        zone: &Zone,
        service: &str,
        host: &str,
        port: u16,
        servers: Vec<SocketAddr>,
    ) -> Result<Synth, ZoneError> {
        zone.fix(service)?;
        zone.set_unknown(service, true)?;
        let service = absolute(service)?;
        let mut base = service.clone();
        while base
            .iter()
            .next()
            .is_some_and(|label| label.starts_with(b"_"))
            && zone.origin() != base
        {
            base = base.base_name();
        }
        // An address has to fit in front of it.
        let longest = Name::from_ascii("x".repeat(LONGEST_LABEL));
        if longest
            .and_then(|label| label.append_domain(&base))
            .is_err()
        {
            return Err(ZoneError::BadName {
                name: service.to_ascii(),
                reason: "it leaves no room for the names of its targets".to_owned(),
            });
        }
        Ok(Synth {
            zone: zone.clone(),
            service,
            base,
            host: host.into(),
            port,
            servers,
            made: BTreeSet::new(),
        })
    }

    /// Asks and writes, for ever. May be dropped at any await; the records stay.
    pub async fn run(mut self) {
        let mut resolver = None;
        let mut known: Option<bool> = None;
        loop {
            let heard = self.ask(&mut resolver).await;
            match heard {
                Heard::Addresses(addresses) => {
                    if known != Some(true) {
                        tracing::info!(service = %self.service, host = %self.host,
                            "dns: synth hears addresses");
                    }
                    known = Some(true);
                    self.write(addresses);
                }
                Heard::Nothing(error) => {
                    if known != Some(false) {
                        tracing::warn!(service = %self.service, host = %self.host, error,
                            "dns: synth hears nothing; the service is SERVFAIL until it does");
                    }
                    known = Some(false);
                    self.zone.write().unknown.insert(self.service.clone());
                    // resolv.conf may have changed.
                    resolver = None;
                }
            }
            sleep(INTERVAL.mul_f64(0.9 + 0.2 * fastrand::f64())).await;
        }
    }

    async fn ask(&self, resolver: &mut Option<Resolver>) -> Heard {
        if resolver.is_none() {
            let limits = Arc::new(Limits::default());
            let lookup = Lookup::to(&self.servers);
            let made = Resolver::new(Arc::clone(&self.host), &lookup, limits, Arc::default());
            match made {
                Ok(made) => *resolver = Some(made),
                Err(error) => return Heard::Nothing(error.to_string()),
            }
        }
        let Some(resolver) = resolver else {
            return Heard::Nothing("no resolver".to_owned());
        };
        read(&resolver.addresses(&self.host, Family::Auto).await)
    }

    fn write(&mut self, addresses: BTreeSet<IpAddr>) {
        let mut records = self.zone.write();
        records.unknown.remove(&self.service);
        for joined in addresses.difference(&self.made) {
            tracing::info!(service = %self.service, address = %joined, "dns: synth added");
        }
        // Every time, also for those that were there: another service may share a target.
        for address in &addresses {
            let target = self.target(*address);
            let (kind, data) = match *address {
                IpAddr::V4(ip) => (RecordType::A, RData::A(A(ip))),
                IpAddr::V6(ip) => (RecordType::AAAA, RData::AAAA(AAAA(ip))),
            };
            records.fixed.insert(target.clone());
            records.replace(&target, kind, TTL, vec![data]);
        }
        let srv = |ip: &IpAddr| RData::SRV(SRV::new(0, 1, self.port, self.target(*ip)));
        let all = addresses.iter().map(srv).collect();
        records.replace(&self.service, RecordType::SRV, TTL, all);
        for left in self.made.difference(&addresses) {
            tracing::info!(service = %self.service, address = %left, "dns: synth removed");
            let target = self.target(*left);
            if !records.is_target(&target) {
                records.remove(&target);
                records.fixed.remove(&target);
            }
        }
        drop(records);
        self.made = addresses;
    }

    /// `10-0-0-7.web.svc.test`, as pods are called in Kubernetes.
    fn target(&self, address: IpAddr) -> Name {
        let label = address.to_string().replace(['.', ':'], "-");
        let name = Name::from_ascii(label).and_then(|label| label.append_domain(&self.base));
        // It fits: that was checked.
        name.unwrap_or_else(|_| self.base.clone())
    }
}

fn read(addresses: &Addresses) -> Heard {
    let families = [&addresses.v4, &addresses.v6];
    let mut found = BTreeSet::new();
    let mut failed = None;
    for family in families {
        match family {
            OneFamily::Found { addresses, .. } => found.extend(addresses.iter().copied()),
            OneFamily::Failed(error) => failed = Some(error.to_string()),
            _ => {}
        }
    }
    match failed {
        Some(error) if found.is_empty() => Heard::Nothing(error),
        _ => Heard::Addresses(found.into_iter().take(MAX_ADDRESSES).collect()),
    }
}

/// Of an address of IPv6 in words.
const LONGEST_LABEL: usize = 39;

/// Between two questions: as often as a balancer asks us at most.
const INTERVAL: Duration = Duration::from_secs(1);

/// Of what is made, in seconds. Older than two of these an answer never is.
const TTL: u32 = 1;

/// Addresses of one name, of which records are made.
const MAX_ADDRESSES: usize = 1024;
