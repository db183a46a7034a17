//! A zone that is changed from anywhere while it is served: the lock around `records.rs`.

use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use hickory_proto::rr::rdata::{A, AAAA, CNAME, SRV};
use hickory_proto::rr::{Name, RData, RecordType};

use super::records::{Answer, Records};

/// How long a negative answer is believed: short, so that what is added is found.
const NEGATIVE_TTL: Duration = Duration::from_secs(1);

/// A zone. Clones share the records.
#[derive(Debug, Clone)]
pub struct Zone {
    /// Held for one change, or for putting one answer together.
    inner: Arc<RwLock<Records>>,
}

/// The data of one SRV record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SrvData {
    /// Lower goes first.
    pub priority: u16,
    /// Share within its priority.
    pub weight: u16,
    /// Port.
    pub port: u16,
    /// Host name; `.` says that the service is not offered.
    pub target: String,
}

/// Why a change was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ZoneError {
    /// Not a name that DNS can carry.
    #[error("`{name}` is not a DNS name: {reason}")]
    BadName {
        /// As it was given.
        name: String,
        /// Why.
        reason: String,
    },
    /// It belongs to another zone.
    #[error("`{name}` is not in the zone `{origin}`")]
    Outside {
        /// As it was given.
        name: String,
        /// Of this zone.
        origin: String,
    },
}

impl SrvData {
    /// In the order in which zone files write them.
    pub fn new(priority: u16, weight: u16, port: u16, target: &str) -> SrvData {
        SrvData {
            priority,
            weight,
            port,
            target: target.to_owned(),
        }
    }
}

impl Zone {
    /// An empty zone. Names are given in full, with or without the final dot.
    pub fn new(origin: &str) -> Result<Zone, ZoneError> {
        let origin = absolute(origin)?;
        Ok(Zone {
            inner: Arc::new(RwLock::new(Records::new(origin, seconds(NEGATIVE_TTL)))),
        })
    }

    /// How long negative answers are believed (1 s unless set), in whole seconds.
    pub fn set_negative_ttl(&self, ttl: Duration) {
        self.write().negative_ttl = seconds(ttl);
    }

    /// Replaces the SRV records of `name`; an empty list removes them.
    pub fn set_srv(&self, name: &str, ttl: Duration, records: &[SrvData]) -> Result<(), ZoneError> {
        let data = records.iter().map(srv).collect::<Result<_, _>>()?;
        self.put(name, RecordType::SRV, ttl, data)
    }

    /// Adds one SRV record, or replaces the one with the same target and port.
    pub fn add_srv(&self, name: &str, ttl: Duration, record: SrvData) -> Result<(), ZoneError> {
        let new = srv(&record)?;
        let owner = self.inside(name)?;
        let mut records = self.write();
        let mut all = without(&records, &owner, &new);
        all.push(new);
        records.replace(&owner, RecordType::SRV, seconds(ttl), all);
        Ok(())
    }

    /// Removes the SRV record of `name` with that target and port; is it gone now because of it?
    pub fn remove_srv(&self, name: &str, target: &str, port: u16) -> Result<bool, ZoneError> {
        let gone = srv(&SrvData::new(0, 0, port, target))?;
        let owner = self.inside(name)?;
        let mut records = self.write();
        let ttl = records
            .set(&owner, RecordType::SRV)
            .map_or(0, |set| set.ttl);
        let rest = without(&records, &owner, &gone);
        Ok(records.replace(&owner, RecordType::SRV, ttl, rest))
    }

    /// Replaces the A and AAAA records of `name`; an empty list removes them.
    pub fn set_addresses(
        &self,
        name: &str,
        ttl: Duration,
        addresses: &[IpAddr],
    ) -> Result<(), ZoneError> {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for address in addresses {
            match address {
                IpAddr::V4(a) => v4.push(RData::A(A(*a))),
                IpAddr::V6(a) => v6.push(RData::AAAA(AAAA(*a))),
            }
        }
        let owner = self.inside(name)?;
        let mut records = self.write();
        records.replace(&owner, RecordType::A, seconds(ttl), v4);
        records.replace(&owner, RecordType::AAAA, seconds(ttl), v6);
        Ok(())
    }

    /// Makes `name` an alias; whatever else it has is removed (RFC 1034 section 3.6.2).
    pub fn set_alias(&self, name: &str, ttl: Duration, target: &str) -> Result<(), ZoneError> {
        let target = absolute(target)?;
        let owner = self.inside(name)?;
        let mut records = self.write();
        records.remove(&owner);
        let alias = vec![RData::CNAME(CNAME(target))];
        records.replace(&owner, RecordType::CNAME, seconds(ttl), alias);
        Ok(())
    }

    /// Removes everything that `name` has.
    pub fn remove_name(&self, name: &str) -> Result<(), ZoneError> {
        let owner = self.inside(name)?;
        self.write().remove(&owner);
        Ok(())
    }

    /// Keeps updates, and what is stored, away from `name`: it belongs to the configuration. It is
    /// answered also while the rest of a lost zone is being registered again.
    pub fn fix(&self, name: &str) -> Result<(), ZoneError> {
        let owner = self.inside(name)?;
        self.write().fixed.insert(owner);
        Ok(())
    }

    /// Nothing is known of `name` at the moment (SERVFAIL), or something is again.
    pub fn set_unknown(&self, name: &str, unknown: bool) -> Result<(), ZoneError> {
        let owner = self.inside(name)?;
        let mut records = self.write();
        match unknown {
            true => records.unknown.insert(owner),
            false => records.unknown.remove(&owner),
        };
        Ok(())
    }

    /// The name of the zone, lower case, with the final dot.
    pub fn origin(&self) -> Name {
        self.read().origin.clone()
    }

    /// Counts the changes (the serial of the SOA record).
    pub fn serial(&self) -> u32 {
        self.read().serial
    }

    /// The zone was lost, or is whole again; was it the other way before?
    pub(super) fn set_recovering(&self, recovering: bool) -> bool {
        let mut records = self.write();
        let before = records.recovering;
        records.recovering = recovering;
        if before != recovering {
            // What is stored says so too.
            records.changed();
        }
        before != recovering
    }

    /// Answers a question, if the records of the answer fit into `room` octets.
    pub(super) fn answer(&self, name: &Name, qtype: RecordType, room: usize) -> Answer {
        self.read().answer(name, qtype, room)
    }

    fn put(
        &self,
        name: &str,
        kind: RecordType,
        ttl: Duration,
        data: Vec<RData>,
    ) -> Result<(), ZoneError> {
        let owner = self.inside(name)?;
        self.write().replace(&owner, kind, seconds(ttl), data);
        Ok(())
    }

    fn inside(&self, name: &str) -> Result<Name, ZoneError> {
        let owner = absolute(name)?;
        let origin = &self.read().origin;
        if origin.zone_of(&owner) {
            return Ok(owner);
        }
        Err(ZoneError::Outside {
            name: name.to_owned(),
            origin: origin.to_ascii(),
        })
    }

    pub(super) fn read(&self) -> std::sync::RwLockReadGuard<'_, Records> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> std::sync::RwLockWriteGuard<'_, Records> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn absolute(name: &str) -> Result<Name, ZoneError> {
    let bad = |reason: String| ZoneError::BadName {
        name: name.to_owned(),
        reason,
    };
    if !name.is_ascii() || name.is_empty() {
        return Err(bad("it is empty or not ASCII".to_owned()));
    }
    let mut parsed = Name::from_ascii(name).map_err(|error| bad(error.to_string()))?;
    parsed.set_fqdn(true);
    Ok(parsed.to_lowercase())
}

fn srv(record: &SrvData) -> Result<RData, ZoneError> {
    let target = absolute(&record.target)?;
    let (priority, weight, port) = (record.priority, record.weight, record.port);
    Ok(RData::SRV(SRV::new(priority, weight, port, target)))
}

/// The SRV records of a name but those of the same target and port.
fn without(records: &Records, owner: &Name, this: &RData) -> Vec<RData> {
    let set = records.set(owner, RecordType::SRV);
    let entries = set.into_iter().flat_map(|set| set.entries.values());
    let others = entries.filter(|entry| !same_endpoint(&entry.data, this));
    others.map(|entry| entry.data.clone()).collect()
}

fn same_endpoint(a: &RData, b: &RData) -> bool {
    matches!((a, b), (RData::SRV(a), RData::SRV(b)) if a.target == b.target && a.port == b.port)
}

fn seconds(ttl: Duration) -> u32 {
    u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX)
}
