//! The records of one zone, and what a question gets from them.
//!
//! Pure but for the lock around the records. RFC 1034 section 4.3.2 (answers), RFC 2308 (negative
//! answers), RFC 2782 (SRV).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, SOA, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};

/// How long a negative answer is believed: short, so that what is added is found.
const NEGATIVE_TTL: Duration = Duration::from_secs(1);

/// TTL of the zone's own SOA and NS records, in seconds.
const APEX_TTL: u32 = 60;

/// A zone. Clones share the records.
#[derive(Debug, Clone)]
pub struct Zone {
    /// Held for one change, or for putting one answer together.
    inner: Arc<RwLock<Records>>,
}

#[derive(Debug)]
struct Records {
    origin: Name,
    serial: u32,
    negative_ttl: u32,
    names: BTreeMap<Name, BTreeMap<RecordType, Set>>,
}

/// The records of one name and type.
#[derive(Debug, Default)]
struct Set {
    ttl: u32,
    data: Vec<RData>,
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

/// What a question gets.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) code: ResponseCode,
    pub(super) authoritative: bool,
    pub(super) answers: Vec<Record>,
    /// The SOA record of a negative answer.
    pub(super) soa: Vec<Record>,
    /// Addresses of SRV targets, every one of them.
    pub(super) glue: Vec<Record>,
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
            inner: Arc::new(RwLock::new(Records {
                origin,
                serial: 1,
                negative_ttl: NEGATIVE_TTL.as_secs() as u32,
                names: BTreeMap::new(),
            })),
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
        self.write().change(&owner, RecordType::SRV, |set| {
            set.data.retain(|old| !same_endpoint(old, &new));
            set.data.push(new);
            set.ttl = seconds(ttl);
            true
        });
        Ok(())
    }

    /// Removes the SRV record of `name` with that target and port; is it gone now because of it?
    pub fn remove_srv(&self, name: &str, target: &str, port: u16) -> Result<bool, ZoneError> {
        let gone = srv(&SrvData::new(0, 0, port, target))?;
        let owner = self.inside(name)?;
        let mut records = self.write();
        let removed = records.change(&owner, RecordType::SRV, |set| {
            let before = set.data.len();
            set.data.retain(|old| !same_endpoint(old, &gone));
            set.data.len() < before
        });
        Ok(removed)
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
        records.replace(&owner, RecordType::A, ttl, v4);
        records.replace(&owner, RecordType::AAAA, ttl, v6);
        Ok(())
    }

    /// Makes `name` an alias; whatever else it has is removed (RFC 1034 section 3.6.2).
    pub fn set_alias(&self, name: &str, ttl: Duration, target: &str) -> Result<(), ZoneError> {
        let target = absolute(target)?;
        let owner = self.inside(name)?;
        let mut records = self.write();
        records.names.remove(&owner);
        let alias = vec![RData::CNAME(CNAME(target))];
        records.replace(&owner, RecordType::CNAME, ttl, alias);
        Ok(())
    }

    /// Removes everything that `name` has.
    pub fn remove_name(&self, name: &str) -> Result<(), ZoneError> {
        let owner = self.inside(name)?;
        let mut records = self.write();
        if records.names.remove(&owner).is_some() {
            records.serial = records.serial.wrapping_add(1);
        }
        Ok(())
    }

    /// Counts the changes (the serial of the SOA record).
    pub fn serial(&self) -> u32 {
        self.read().serial
    }

    /// Answers a question.
    pub(super) fn answer(&self, name: &Name, qtype: RecordType) -> Answer {
        self.read().answer(name, qtype)
    }

    fn put(
        &self,
        name: &str,
        kind: RecordType,
        ttl: Duration,
        data: Vec<RData>,
    ) -> Result<(), ZoneError> {
        let owner = self.inside(name)?;
        self.write().replace(&owner, kind, ttl, data);
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

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Records> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Records> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Records {
    /// Changes one set; empty sets and empty names go. `change` tells whether it changed anything.
    fn change(
        &mut self,
        owner: &Name,
        kind: RecordType,
        change: impl FnOnce(&mut Set) -> bool,
    ) -> bool {
        let sets = self.names.entry(owner.clone()).or_default();
        let set = sets.entry(kind).or_default();
        let changed = change(set);
        if set.data.is_empty() {
            sets.remove(&kind);
        }
        if sets.is_empty() {
            self.names.remove(owner);
        }
        if changed {
            self.serial = self.serial.wrapping_add(1);
        }
        changed
    }

    fn replace(&mut self, owner: &Name, kind: RecordType, ttl: Duration, data: Vec<RData>) {
        let ttl = seconds(ttl);
        self.change(owner, kind, |set| {
            let changed = set.data != data || set.ttl != ttl;
            *set = Set { ttl, data };
            changed
        });
    }

    fn answer(&self, name: &Name, qtype: RecordType) -> Answer {
        if !self.origin.zone_of(name) {
            return Answer {
                code: ResponseCode::Refused,
                ..Answer::default()
            };
        }
        let mut answer = Answer {
            code: ResponseCode::NoError,
            authoritative: true,
            ..Answer::default()
        };
        let mut owner = name.clone();
        // An alias is followed inside the zone, at most as often as a client would.
        for _ in 0..=8 {
            let found = self.records(&owner, qtype);
            if !found.is_empty() {
                answer.answers.extend(found);
                break;
            }
            let alias = self.records(&owner, RecordType::CNAME);
            let Some(RData::CNAME(target)) = alias.first().map(|r| r.data.clone()) else {
                break;
            };
            answer.answers.extend(alias);
            owner = target.0;
        }
        for record in &answer.answers {
            if let RData::SRV(srv) = &record.data {
                let target = &srv.target;
                if !answer.glue.iter().any(|glue| glue.name == *target) {
                    answer.glue.extend(self.records(target, RecordType::A));
                    answer.glue.extend(self.records(target, RecordType::AAAA));
                }
            }
        }
        let ends_here = self.origin.zone_of(&owner);
        if ends_here && !answer.answers.iter().any(|r| r.record_type() == qtype) {
            if !self.exists(&owner) {
                answer.code = ResponseCode::NXDomain;
            }
            answer.soa.push(self.soa(self.negative_ttl));
        }
        answer
    }

    fn records(&self, owner: &Name, qtype: RecordType) -> Vec<Record> {
        if *owner == self.origin {
            match qtype {
                RecordType::SOA => return vec![self.soa(APEX_TTL)],
                RecordType::NS => {
                    let ns = RData::NS(NS(self.primary()));
                    return vec![Record::from_rdata(owner.clone(), APEX_TTL, ns)];
                }
                _ => {}
            }
        }
        let set = self.names.get(owner).and_then(|sets| sets.get(&qtype));
        let of = |set: &Set| {
            let record = |data: &RData| Record::from_rdata(owner.clone(), set.ttl, data.clone());
            set.data.iter().map(record).collect()
        };
        set.map(of).unwrap_or_default()
    }

    /// Does the name have records, or do names below it (RFC 8020: then it is no NXDOMAIN)?
    fn exists(&self, owner: &Name) -> bool {
        *owner == self.origin || self.names.keys().any(|name| owner.zone_of(name))
    }

    /// RFC 2308 section 3: the TTL of a negative answer is that of the SOA record in it.
    fn soa(&self, ttl: u32) -> Record {
        let hostmaster = Name::from_ascii("hostmaster").and_then(|n| n.append_domain(&self.origin));
        let soa = SOA::new(
            self.primary(),
            hostmaster.unwrap_or_else(|_| self.origin.clone()),
            self.serial,
            3600,
            600,
            86_400,
            self.negative_ttl,
        );
        Record::from_rdata(self.origin.clone(), ttl, RData::SOA(soa))
    }

    fn primary(&self) -> Name {
        let ns = Name::from_ascii("ns").and_then(|n| n.append_domain(&self.origin));
        ns.unwrap_or_else(|_| self.origin.clone())
    }
}

fn absolute(name: &str) -> Result<Name, ZoneError> {
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

fn same_endpoint(a: &RData, b: &RData) -> bool {
    matches!((a, b), (RData::SRV(a), RData::SRV(b)) if a.target == b.target && a.port == b.port)
}

fn seconds(ttl: Duration) -> u32 {
    u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX)
}
