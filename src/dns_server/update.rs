//! Dynamic update (RFC 2136): prerequisites, then changes, all or nothing.
//!
//! Pure: works on [`Records`], told by its caller what the sender may change, how long a lease is
//! and when it begins. Who the sender is was settled before (`signature.rs`). The comments name
//! the sections of RFC 2136.

mod prerequisites;
mod transaction;

use std::collections::BTreeSet;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use super::lease::Lease;
use super::records::{Records, Set, octets};
use prerequisites::check_prerequisites;
use transaction::{Touched, carry_out, difference, undo};

/// What a zone may grow to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Names with records.
    pub names: usize,
    /// Records of all names.
    pub records: usize,
    /// Octets of an answer with all records of one name and type: more than one message can carry
    /// would never be answered.
    pub answer: usize,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds {
            names: 20_000,
            records: 50_000,
            answer: 60_000,
        }
    }
}

/// What an update did.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Changes {
    /// Records that were not there before.
    pub(super) added: Vec<(Name, RData)>,
    /// Records that are there no longer.
    pub(super) removed: Vec<(Name, RData)>,
    /// An answer reads otherwise than before. A lease that begins anew does not count.
    pub(super) changed: bool,
    /// What is kept on disk is another: an answer, or the length of a lease.
    pub(super) stored: bool,
}

/// Why an update was not carried out: the code for the sender, the words for the log.
#[derive(Debug, PartialEq)]
pub(super) struct Refusal {
    pub(super) code: ResponseCode,
    pub(super) why: String,
}

impl Refusal {
    /// A prerequisite did not hold: an answer that the sender reckons with.
    pub(super) fn is_condition(&self) -> bool {
        use ResponseCode::{NXDomain, NXRRSet, YXDomain, YXRRSet};
        matches!(self.code, NXDomain | NXRRSet | YXDomain | YXRRSet)
    }
}

/// On what terms an update is carried out.
pub(super) struct Terms<'a> {
    /// May the sender change what this name has?
    pub(super) may_change: &'a dyn Fn(&Name) -> bool,
    /// Of what is added; `None`: it stays until it is removed.
    pub(super) lease: Option<Lease>,
    pub(super) bounds: Bounds,
}

/// Carries out an update message, or changes nothing and says why.
pub(super) fn apply(
    records: &mut Records,
    message: &Message,
    terms: &Terms<'_>,
) -> Result<Changes, Refusal> {
    check_zone(records, message)?;
    check_prerequisites(records, &message.answers)?;
    // Section 3.4.1.3: every record is looked at before any of them takes effect.
    let updates = message.authorities.iter();
    let updates: Vec<Update> = updates
        .map(|record| Update::read(record, &records.origin))
        .collect::<Result<_, _>>()?;
    for update in &updates {
        check_permission(records, update, terms)?;
    }
    let before = (records.name_count(), records.record_count());
    let mut done = Vec::new();
    for update in &updates {
        carry_out(records, update, terms.lease, &mut done);
    }
    if let Err(refusal) = check_bounds(records, before, &done, terms.bounds) {
        undo(records, done);
        return Err(refusal);
    }
    let changes = difference(records, done);
    if changes.changed {
        records.changed();
    } else if changes.stored {
        records.generation += 1;
    }
    Ok(changes)
}

/// Section 3.1: the zone section names exactly this zone.
fn check_zone(records: &Records, message: &Message) -> Result<(), Refusal> {
    let [zone] = message.queries.as_slice() else {
        return refuse(ResponseCode::FormErr, "the zone section is not one name");
    };
    if zone.query_type() != RecordType::SOA {
        return refuse(ResponseCode::FormErr, "the zone section is no SOA");
    }
    if zone.query_class() != DNSClass::IN || *zone.name() != records.origin {
        let why = format!("{} is not served here", zone.name());
        return refuse(ResponseCode::NotAuth, why);
    }
    Ok(())
}

/// One record of the update section.
#[derive(Debug)]
struct Update {
    owner: Name,
    action: Action,
}

#[derive(Debug)]
enum Action {
    Add { ttl: u32, data: RData },
    RemoveName,
    RemoveSet(RecordType),
    Remove(RData),
    Ignore,
}

impl Update {
    /// Section 3.4.1.2.
    fn read(record: &Record, origin: &Name) -> Result<Update, Refusal> {
        let owner = record.name.to_lowercase();
        if !origin.zone_of(&owner) {
            return refuse(ResponseCode::NotZone, format!("{owner} is not in the zone"));
        }
        let kind = record.record_type();
        let empty = matches!(record.data, RData::Update0(_));
        let bad = |why: &str| refuse(ResponseCode::FormErr, format!("{owner} {kind}: {why}"));
        let all = kind == RecordType::ANY;
        if is_meta(kind) && !(all && record.dns_class == DNSClass::ANY) {
            return bad("no type of a record");
        }
        // The zone's own records are not for others to change: section 3.4.2.3 and 3.4.2.4 have
        // most of that ignored, and here it is all of it.
        let own = owner == *origin && matches!(kind, RecordType::SOA | RecordType::NS);
        let action = match record.dns_class {
            DNSClass::IN if empty => return bad("an addition without data"),
            DNSClass::ANY | DNSClass::NONE if record.ttl != 0 => return bad("removal with a TTL"),
            DNSClass::ANY if !empty => return bad("removal of a set with data"),
            DNSClass::NONE if empty => return bad("removal of a record without data"),
            DNSClass::IN | DNSClass::ANY | DNSClass::NONE if own => Action::Ignore,
            DNSClass::IN => Action::Add {
                // RFC 2181 section 8: a TTL with the top bit is zero.
                ttl: if record.ttl > i32::MAX as u32 {
                    0
                } else {
                    record.ttl
                },
                data: lower_case(&record.data),
            },
            DNSClass::ANY if all => Action::RemoveName,
            DNSClass::ANY => Action::RemoveSet(kind),
            DNSClass::NONE => Action::Remove(lower_case(&record.data)),
            _ => return bad("another class"),
        };
        Ok(Update { owner, action })
    }
}

/// Section 3.3: what this sender may do, and what nobody may.
fn check_permission(records: &Records, update: &Update, terms: &Terms<'_>) -> Result<(), Refusal> {
    let owner = &update.owner;
    if matches!(update.action, Action::Ignore) {
        return Ok(());
    }
    if records.fixed.contains(owner) {
        let why = format!("{owner} belongs to the configuration");
        return refuse(ResponseCode::Refused, why);
    }
    if !(terms.may_change)(owner) {
        let why = format!("the key may not change {owner}");
        return refuse(ResponseCode::Refused, why);
    }
    let Action::Add { data, .. } = &update.action else {
        return Ok(());
    };
    let target = match data {
        RData::SRV(srv) => &srv.target,
        RData::CNAME(alias) => &alias.0,
        RData::PTR(pointer) => &pointer.0,
        _ => owner,
    };
    if let Some(odd) = [owner, target].into_iter().find(|name| !is_plain(name)) {
        let why = format!("{odd}: only letters, digits, - and _ are taken in names");
        return refuse(ResponseCode::Refused, why);
    }
    if !SERVED.contains(&data.record_type()) {
        let why = format!("{owner}: {} is not kept here", data.record_type());
        return refuse(ResponseCode::Refused, why);
    }
    if octets(data).len() > MAX_DATA {
        let why = format!("{owner}: a record of more than {MAX_DATA} octets");
        return refuse(ResponseCode::Refused, why);
    }
    Ok(())
}

/// Whoever adds nothing is never refused for want of room, however full the zone is: a renewal
/// must go through when others, or a smaller limit after a restart, have used it up.
fn check_bounds(
    records: &Records,
    (names, count): (usize, usize),
    done: &[Touched],
    bounds: Bounds,
) -> Result<(), Refusal> {
    let full = |what: &str, most: usize| {
        let why = format!("the zone is full: at most {most} {what}");
        refuse(ResponseCode::Refused, why)
    };
    if records.name_count() > bounds.names.max(names) {
        return full("names", bounds.names);
    }
    if records.record_count() > bounds.records.max(count) {
        return full("records", bounds.records);
    }
    let new = done.iter().filter(|touched| touched.before.is_none());
    let sets: BTreeSet<_> = new.map(|new| (&new.owner, new.kind)).collect();
    let sets = sets
        .into_iter()
        .filter_map(|(owner, kind)| records.set(owner, kind));
    if sets.map(answer_octets).any(|octets| octets > bounds.answer) {
        return full("octets of records of one name and type", bounds.answer);
    }
    Ok(())
}

/// In an answer: a pointer to the name, type, class, TTL, length, data.
fn answer_octets(set: &Set) -> usize {
    set.entries.keys().map(|octets| 12 + octets.len()).sum()
}

/// Names in data compare without regard to case, and balancers tell endpoints by them.
fn lower_case(data: &RData) -> RData {
    let mut data = data.clone();
    match &mut data {
        RData::SRV(srv) => srv.target = srv.target.to_lowercase(),
        RData::CNAME(name) => name.0 = name.0.to_lowercase(),
        RData::PTR(name) => name.0 = name.0.to_lowercase(),
        _ => {}
    }
    data
}

/// Host names (RFC 952) and services (RFC 2782); what else DNS can carry would have to be escaped
/// wherever it is shown.
fn is_plain(name: &Name) -> bool {
    let plain = |octet: &u8| octet.is_ascii_alphanumeric() || b"-_".contains(octet);
    name.iter().all(|label| label.iter().all(plain))
}

/// Types that stand in questions only (RFC 6895 section 3.1).
fn is_meta(kind: RecordType) -> bool {
    (128..=255).contains(&u16::from(kind)) || kind == RecordType::OPT || kind == RecordType::ZERO
}

fn refuse<T>(code: ResponseCode, why: impl Into<String>) -> Result<T, Refusal> {
    let why = why.into();
    Err(Refusal { code, why })
}

/// What registrations are made of.
const SERVED: [RecordType; 6] = [
    RecordType::SRV,
    RecordType::A,
    RecordType::AAAA,
    RecordType::TXT,
    RecordType::CNAME,
    RecordType::PTR,
];

/// Octets of one record's data: a long TXT record, so that an answer fits into a message.
const MAX_DATA: usize = 1024;

#[cfg(test)]
mod tests;
