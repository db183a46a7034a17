//! The records of one zone, and what a question gets from them.
//!
//! Pure: no lock, no clock, no socket. `zone.rs` puts the lock around it, `update.rs` is dynamic
//! update on it. RFC 1034 section 4.3.2 (answers), RFC 2308 (negative answers), RFC 2782 (SRV).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{NS, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinEncodable as _, BinEncoder};

use super::lease::Lease;

/// Everything that one zone holds. Names are lower case and fully qualified.
#[derive(Debug)]
pub(super) struct Records {
    pub(super) origin: Name,
    pub(super) serial: u32,
    /// Counts the changes since the start of this process.
    pub(super) generation: u64,
    /// How long a negative answer is believed, in seconds.
    pub(super) negative_ttl: u32,
    names: BTreeMap<Name, Sets>,
    /// Of all names.
    records: usize,
    /// Names that the configuration owns: no update changes them.
    pub(super) fixed: BTreeSet<Name>,
    /// Names of which nothing is known at the moment: SERVFAIL.
    pub(super) unknown: BTreeSet<Name>,
    /// The zone was lost and is being registered again: SERVFAIL for every name that is not fixed,
    /// so that whoever knows a last good answer keeps it.
    pub(super) recovering: bool,
}

/// The records of one name, by type. A set in it is never empty.
pub(super) type Sets = BTreeMap<RecordType, Set>;

/// The records of one name and type.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Set {
    pub(super) ttl: u32,
    /// By their data as it goes over the wire, which tells them apart.
    pub(super) entries: BTreeMap<Octets, Entry>,
}

/// A record's data as it goes over the wire.
pub(super) type Octets = Box<[u8]>;

/// One record's data.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) data: RData,
    /// `None`: it stays until it is removed.
    pub(super) lease: Option<Lease>,
}

/// What a question gets.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) code: ResponseCode,
    pub(super) authoritative: bool,
    pub(super) answers: Vec<Record>,
    /// They would not fit, so there are none.
    pub(super) truncated: bool,
    /// The SOA record of a negative answer.
    pub(super) soa: Vec<Record>,
    /// Addresses of SRV targets, every one of them.
    pub(super) glue: Vec<Record>,
}

impl Records {
    /// An empty zone.
    pub(super) fn new(origin: Name, negative_ttl: u32) -> Records {
        Records {
            origin,
            serial: 1,
            generation: 0,
            negative_ttl,
            names: BTreeMap::new(),
            records: 0,
            fixed: BTreeSet::new(),
            unknown: BTreeSet::new(),
            recovering: false,
        }
    }

    /// Names that have records.
    pub(super) fn name_count(&self) -> usize {
        self.names.len()
    }

    /// Records of all names.
    pub(super) fn record_count(&self) -> usize {
        self.records
    }

    /// All names and what they have.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Name, &Sets)> {
        self.names.iter()
    }

    /// What one name has.
    pub(super) fn sets(&self, owner: &Name) -> Option<&Sets> {
        self.names.get(owner)
    }

    /// What one name has of one type.
    pub(super) fn set(&self, owner: &Name, kind: RecordType) -> Option<&Set> {
        self.names.get(owner)?.get(&kind)
    }

    /// Is there a record of any type at this name?
    pub(super) fn in_use(&self, owner: &Name) -> bool {
        *owner == self.origin || self.names.contains_key(owner)
    }

    /// Does some SRV record name it? Looks at all of them.
    pub(super) fn is_target(&self, target: &Name) -> bool {
        let sets = self.names.values().flat_map(BTreeMap::values);
        let mut entries = sets.flat_map(|set| set.entries.values());
        entries.any(|entry| matches!(&entry.data, RData::SRV(srv) if srv.target == *target))
    }

    /// Puts one record in; what was known of the same data before. The serial stays.
    pub(super) fn insert(&mut self, owner: &Name, octets: Octets, entry: Entry) -> Option<Entry> {
        if !self.names.contains_key(owner) {
            self.names.insert(owner.clone(), Sets::new());
        }
        let sets = self.names.get_mut(owner)?;
        let set = sets.entry(entry.data.record_type()).or_default();
        let before = set.entries.insert(octets, entry);
        self.records += usize::from(before.is_none());
        before
    }

    /// Takes one record out. The serial stays.
    pub(super) fn take(&mut self, owner: &Name, kind: RecordType, octets: &[u8]) -> Option<Entry> {
        let sets = self.names.get_mut(owner)?;
        let set = sets.get_mut(&kind)?;
        let taken = set.entries.remove(octets)?;
        self.records -= 1;
        if set.entries.is_empty() {
            sets.remove(&kind);
        }
        if sets.is_empty() {
            self.names.remove(owner);
        }
        Some(taken)
    }

    /// Gives a set another TTL, if there is such a set. The serial stays.
    pub(super) fn set_ttl(&mut self, owner: &Name, kind: RecordType, ttl: u32) {
        let sets = self.names.get_mut(owner);
        if let Some(set) = sets.and_then(|sets| sets.get_mut(&kind)) {
            set.ttl = ttl;
        }
    }

    /// Replaces one set; an empty one removes it. Did that change anything?
    pub(super) fn replace(
        &mut self,
        owner: &Name,
        kind: RecordType,
        ttl: u32,
        data: Vec<RData>,
    ) -> bool {
        let entry = |data: RData| (octets(&data), Entry { data, lease: None });
        let entries: BTreeMap<_, _> = data.into_iter().map(entry).collect();
        let new = Set { ttl, entries };
        let before = self.set(owner, kind).cloned().unwrap_or_default();
        let changed = match new.entries.is_empty() {
            true => !before.entries.is_empty(),
            false => before != new,
        };
        if changed {
            for octets in before.entries.keys() {
                self.take(owner, kind, octets);
            }
            for (octets, entry) in new.entries {
                self.insert(owner, octets, entry);
            }
            self.set_ttl(owner, kind, ttl);
            self.changed();
        }
        changed
    }

    /// Removes all that one name has; did it have anything?
    pub(super) fn remove(&mut self, owner: &Name) -> bool {
        let had = self.names.remove(owner);
        if let Some(sets) = &had {
            self.records -= sets.values().map(|set| set.entries.len()).sum::<usize>();
            self.changed();
        }
        had.is_some()
    }

    /// Keeps only the entries that `keep` wants; returns those that went.
    pub(super) fn retain(&mut self, keep: impl Fn(&Entry) -> bool) -> Vec<(Name, RData)> {
        let mut gone = Vec::new();
        self.names.retain(|owner, sets| {
            sets.retain(|_, set| {
                set.entries.retain(|_, entry| {
                    let kept = keep(entry);
                    if !kept {
                        gone.push((owner.clone(), entry.data.clone()));
                    }
                    kept
                });
                !set.entries.is_empty()
            });
            !sets.is_empty()
        });
        self.records -= gone.len();
        if !gone.is_empty() {
            self.changed();
        }
        gone
    }

    /// Every lease, to be changed in place.
    pub(super) fn leases_mut(&mut self) -> impl Iterator<Item = &mut Lease> {
        self.names
            .values_mut()
            .flat_map(|sets| sets.values_mut())
            .flat_map(|set| set.entries.values_mut())
            .filter_map(|entry| entry.lease.as_mut())
    }

    /// Counts a change (RFC 1982: the serial wraps).
    pub(super) fn changed(&mut self) {
        self.serial = self.serial.wrapping_add(1);
        self.generation += 1;
    }

    /// Answers a question. Of a set that certainly does not fit into `room` octets nothing is given.
    pub(super) fn answer(&self, name: &Name, qtype: RecordType, room: usize) -> Answer {
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
        for _ in 0..=MAX_ALIASES {
            if self.is_unknown(&owner, qtype) {
                return Answer {
                    code: ResponseCode::ServFail,
                    ..Answer::default()
                };
            }
            let entries = self.set(&owner, qtype).map_or(0, |set| set.entries.len());
            if entries * SMALLEST_RECORD > room {
                answer.truncated = true;
                answer.answers.clear();
                return answer;
            }
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
        self.add_glue(&mut answer);
        let found = |record: &Record| record.record_type() == qtype || qtype == RecordType::ANY;
        if self.origin.zone_of(&owner) && !answer.answers.iter().any(found) {
            if !self.exists(&owner) && !self.recovering {
                answer.code = ResponseCode::NXDomain;
            }
            answer.soa.push(self.soa(self.negative_ttl));
        }
        answer
    }

    /// Which zone a name belongs to can always be said, else nobody could register again.
    fn is_unknown(&self, owner: &Name, qtype: RecordType) -> bool {
        if qtype == RecordType::SOA || *owner == self.origin || !self.origin.zone_of(owner) {
            return false;
        }
        self.unknown.contains(owner) || (self.recovering && !self.fixed.contains(owner))
    }

    fn add_glue(&self, answer: &mut Answer) {
        let mut targets = BTreeSet::new();
        for record in &answer.answers {
            if let RData::SRV(srv) = &record.data
                && targets.insert(&srv.target)
            {
                let of = |kind| self.records(&srv.target, kind);
                answer.glue.extend(of(RecordType::A));
                answer.glue.extend(of(RecordType::AAAA));
            }
        }
    }

    fn records(&self, owner: &Name, qtype: RecordType) -> Vec<Record> {
        let apex = *owner == self.origin;
        match qtype {
            RecordType::SOA if apex => return vec![self.soa(APEX_TTL)],
            RecordType::NS if apex => {
                let ns = RData::NS(NS(self.primary()));
                return vec![Record::from_rdata(owner.clone(), APEX_TTL, ns)];
            }
            // RFC 8482 section 4.1: one set of those that there are.
            RecordType::ANY => {
                let first = self.sets(owner).and_then(|sets| sets.values().next());
                return match first {
                    None if apex => vec![self.soa(APEX_TTL)],
                    None => Vec::new(),
                    Some(set) => set.records(owner),
                };
            }
            _ => {}
        }
        let set = self.set(owner, qtype);
        set.map(|set| set.records(owner)).unwrap_or_default()
    }

    /// Does the name have records, or do names below it (RFC 8020: then it is no NXDOMAIN)?
    /// Names sort in canonical order, so those below it follow it.
    fn exists(&self, owner: &Name) -> bool {
        let mut from = self.names.range((Bound::Included(owner), Bound::Unbounded));
        let below = from.next().is_some_and(|(name, _)| owner.zone_of(name));
        *owner == self.origin || below
    }

    /// RFC 2308 section 3: the TTL of a negative answer is that of the SOA record in it.
    fn soa(&self, ttl: u32) -> Record {
        let soa = SOA::new(
            self.primary(),
            self.under("hostmaster"),
            self.serial,
            3600,
            600,
            86_400,
            self.negative_ttl,
        );
        Record::from_rdata(self.origin.clone(), ttl, RData::SOA(soa))
    }

    fn primary(&self) -> Name {
        self.under("ns")
    }

    fn under(&self, label: &str) -> Name {
        let name = Name::from_ascii(label).and_then(|name| name.append_domain(&self.origin));
        name.unwrap_or_else(|_| self.origin.clone())
    }
}

impl Set {
    fn records(&self, owner: &Name) -> Vec<Record> {
        let record =
            |entry: &Entry| Record::from_rdata(owner.clone(), self.ttl, entry.data.clone());
        self.entries.values().map(record).collect()
    }
}

/// Octets of a record with an address of IPv4, the name being a pointer.
const SMALLEST_RECORD: usize = 16;

/// Data as it goes over the wire, in canonical form (RFC 4034 section 6.2): names in full, because
/// a pointer would mean something else elsewhere, and in lower case.
pub(super) fn octets(data: &RData) -> Octets {
    let mut octets = Vec::new();
    let mut encoder = BinEncoder::new(&mut octets);
    encoder.set_canonical_form(true);
    // Only names and texts that are too long cannot be written, and no such data can be made.
    let _ = data.emit(&mut encoder);
    octets.into()
}

/// TTL of the zone's own SOA and NS records, in seconds.
const APEX_TTL: u32 = 60;

/// Aliases in a row.
const MAX_ALIASES: usize = 8;
