//! What is registered, and the updates that do it. Pure.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::time::Duration;

use hickory_proto::rr::rdata::SRV;
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::dns_server::client::{self, Update};

/// What is put into the zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Owner of the SRV record, absolute, such as `_http._tcp.web.svc.test.`
    pub name: Name,
    /// Where the backend listens.
    pub port: NonZeroU16,
    /// SRV priority: lower goes first.
    pub priority: u16,
    /// SRV weight: share within the priority.
    pub weight: u16,
    /// TTL of the records, in whole seconds.
    pub ttl: Duration,
    /// After so long without a renewal the server shall forget the records; in whole seconds.
    pub lease: Duration,
    /// The zone; `None`: the server is asked.
    pub zone: Option<Name>,
    /// The host that the SRV record points to, absolute. Its addresses are ours to set when it
    /// lies in the zone.
    pub target: Name,
    /// Its addresses; empty: the one from which this host reaches the server, looked up anew with
    /// each renewal.
    pub addresses: Vec<IpAddr>,
}

impl Registration {
    /// Priority 0, weight 1, TTL 2 s, lease 30 s; zone and address are found out.
    pub fn new(name: Name, port: NonZeroU16, target: Name) -> Registration {
        Registration {
            name,
            port,
            priority: 0,
            weight: 1,
            ttl: Duration::from_secs(2),
            lease: Duration::from_secs(30),
            zone: None,
            target,
            addresses: Vec::new(),
        }
    }

    pub(super) fn srv(&self) -> SRV {
        let port = self.port.get();
        SRV::new(self.priority, self.weight, port, self.target.clone())
    }

    /// Everything anew, in one go: whoever asks sees the old state or the new one.
    pub(super) fn registering(
        &self,
        zone: &Name,
        addresses: &[IpAddr],
        replaced: Vec<SRV>,
    ) -> Update {
        let mut update = self.removing(zone, replaced);
        let ttl = u32::try_from(self.ttl.as_secs()).unwrap_or(u32::MAX);
        let record = |name: &Name, data| Record::from_rdata(name.clone(), ttl, data);
        update.add(record(&self.name, RData::SRV(self.srv())));
        if zone.zone_of(&self.target) {
            self.delete_addresses(&mut update);
            for address in addresses {
                update.add(record(&self.target, client::address(*address)));
            }
        }
        update.lease(self.lease);
        update
    }

    /// Other records of the name go.
    pub(super) fn removing(&self, zone: &Name, others: Vec<SRV>) -> Update {
        let mut update = Update::new(zone.clone());
        for srv in others {
            update.delete(self.name.clone(), RData::SRV(srv));
        }
        update
    }

    /// The record, if the target has these addresses; otherwise the record may be the work of
    /// another backend with the same target and port, of which ours says nothing.
    pub(super) fn withdrawing(&self, zone: &Name, addresses: &[IpAddr]) -> Update {
        let mut update = Update::new(zone.clone());
        if zone.zone_of(&self.target) {
            update.require_addresses(&self.target, addresses);
        }
        update.delete(self.name.clone(), RData::SRV(self.srv()));
        update
    }

    /// The same, and the addresses with it, unless one of the `others` needs them.
    pub(super) fn withdrawing_all(
        &self,
        zone: &Name,
        addresses: &[IpAddr],
        others: &[SRV],
    ) -> Update {
        let mut update = self.withdrawing(zone, addresses);
        let own = self.srv();
        let needed = others
            .iter()
            .any(|srv| *srv != own && srv.target == self.target);
        if zone.zone_of(&self.target) && !needed {
            self.delete_addresses(&mut update);
        }
        update
    }

    fn delete_addresses(&self, update: &mut Update) {
        for record_type in [RecordType::A, RecordType::AAAA] {
            update.delete_set(self.target.clone(), record_type);
        }
    }
}

/// A name as somebody writes it, absolute whether or not there is a final dot, in lower case.
pub fn absolute(text: &str) -> Result<Name, String> {
    let bad = |why: &dyn std::fmt::Display| format!("`{text}` is no DNS name: {why}");
    if !text.is_ascii() {
        return Err(bad(&"write it in its ASCII form (xn--…)"));
    }
    let mut name = Name::from_ascii(text).map_err(|error| bad(&error))?;
    if name.is_root() || text.is_empty() {
        return Err(bad(&"it is empty"));
    }
    name.set_fqdn(true);
    Ok(name.to_lowercase())
}

/// The target for which nobody has named one: this host, below what the name is about.
/// `_http._tcp.web.svc.test` on the host `b1` gives `b1.web.svc.test`.
pub fn default_target(host: &str, name: &Name) -> Result<Name, String> {
    let services = name.iter().take_while(|label| label.starts_with(b"_"));
    let rest = name.trim_to(name.iter().len() - services.count());
    if rest.is_root() {
        return Err(format!("{name} has nothing after its labels with `_`"));
    }
    // A host's name may have its domain with it.
    let host = host.split('.').next().unwrap_or(host).to_ascii_lowercase();
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if host.is_empty() || !host.chars().all(fits) {
        return Err(format!(
            "`{host}`, the name of this host, cannot be a label"
        ));
    }
    let target = rest.prepend_label(host.as_bytes());
    target.map_err(|error| format!("{host}.{rest} is no DNS name: {error}"))
}
