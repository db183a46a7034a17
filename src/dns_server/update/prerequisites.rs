//! What has to hold before an update is carried out (RFC 2136 section 3.2). Pure.

use std::collections::{BTreeMap, BTreeSet};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use super::super::records::{Octets, Records, octets};
use super::{Refusal, lower_case, refuse};

/// All of them have to hold; which one does not is in the refusal.
pub(super) fn check_prerequisites(
    records: &Records,
    prerequisites: &[Record],
) -> Result<(), Refusal> {
    let mut expected: BTreeMap<(Name, RecordType), BTreeSet<Octets>> = BTreeMap::new();
    for record in prerequisites {
        let (owner, kind) = (&record.name, record.record_type());
        if record.ttl != 0 {
            return refuse(ResponseCode::FormErr, "a prerequisite with a TTL");
        }
        if !records.origin.zone_of(owner) {
            return refuse(ResponseCode::NotZone, format!("{owner} is not in the zone"));
        }
        let empty = matches!(record.data, RData::Update0(_));
        let exists = || has(records, owner, kind);
        match record.dns_class {
            // Sections 3.2.1 to 3.2.4, "value independent".
            DNSClass::ANY | DNSClass::NONE if !empty => {
                return refuse(ResponseCode::FormErr, "a prerequisite with needless data");
            }
            DNSClass::ANY if kind == RecordType::ANY && !records.in_use(owner) => {
                return refuse(ResponseCode::NXDomain, format!("{owner} is not in use"));
            }
            DNSClass::ANY if kind != RecordType::ANY && !exists() => {
                return refuse(ResponseCode::NXRRSet, format!("{owner} has no {kind}"));
            }
            DNSClass::NONE if kind == RecordType::ANY && records.in_use(owner) => {
                return refuse(ResponseCode::YXDomain, format!("{owner} is in use"));
            }
            DNSClass::NONE if kind != RecordType::ANY && exists() => {
                return refuse(ResponseCode::YXRRSet, format!("{owner} has {kind}"));
            }
            DNSClass::ANY | DNSClass::NONE => {}
            DNSClass::IN if !empty => {
                let key = (owner.to_lowercase(), kind);
                let data = octets(&lower_case(&record.data));
                expected.entry(key).or_default().insert(data);
            }
            _ => return refuse(ResponseCode::FormErr, "a prerequisite of another class"),
        }
    }
    // Section 3.2.3, "value dependent": the whole set, in any order, whatever its TTL.
    for ((owner, kind), data) in expected {
        let set = records.set(&owner, kind);
        let has: BTreeSet<&Octets> = set.iter().flat_map(|set| set.entries.keys()).collect();
        if !data.iter().eq(has) {
            return refuse(ResponseCode::NXRRSet, format!("{owner} has other {kind}"));
        }
    }
    Ok(())
}

fn has(records: &Records, owner: &Name, kind: RecordType) -> bool {
    let own = *owner == records.origin && matches!(kind, RecordType::SOA | RecordType::NS);
    own || records.set(owner, kind).is_some()
}
