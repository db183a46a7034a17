//! One row per rule of RFC 2136, on records alone.

use hickory_proto::op::{OpCode, Query};
use hickory_proto::rr::rdata::{A, CNAME, SRV, TXT};
use tokio::time::Instant;

use super::*;
use crate::dns_server::records::Entry;
use std::time::Duration;

const ZONE: &str = "t.test.";
const WEB: &str = "_http._tcp.web.t.test.";

/// Any octets but the dot, as they are.
fn name(text: &str) -> Name {
    let labels = text.split('.').filter(|label| !label.is_empty());
    Name::from_labels(labels.map(str::as_bytes)).unwrap()
}

fn a(last: u8) -> RData {
    RData::A(A::new(10, 0, 0, last))
}

fn srv(port: u16, target: &str) -> RData {
    RData::SRV(SRV::new(0, 1, port, name(target)))
}

/// b1 has an address, web has b1; an alias, too.
fn records() -> Records {
    let mut records = Records::new(name(ZONE), 1);
    records.replace(&name("b1.t.test."), RecordType::A, 5, vec![a(1)]);
    let web = vec![srv(80, "b1.t.test.")];
    records.replace(&name(WEB), RecordType::SRV, 5, web);
    let alias = RData::CNAME(CNAME(name("b1.t.test.")));
    records.replace(&name("alias.t.test."), RecordType::CNAME, 5, vec![alias]);
    records.fixed.insert(name("fixed.t.test."));
    records
}

/// A record as it stands in an update.
fn record(owner: &str, class: DNSClass, ttl: u32, data: RData) -> Record {
    let mut record = Record::from_rdata(name(owner), ttl, data);
    record.dns_class = class;
    record
}

fn add(owner: &str, data: RData) -> Record {
    record(owner, DNSClass::IN, 5, data)
}

fn remove(owner: &str, data: RData) -> Record {
    record(owner, DNSClass::NONE, 0, data)
}

fn none_of(owner: &str, class: DNSClass, kind: RecordType) -> Record {
    record(owner, class, 0, RData::Update0(kind))
}

fn message(prerequisites: Vec<Record>, updates: Vec<Record>) -> Message {
    let mut message = Message::new(7, hickory_proto::op::MessageType::Query, OpCode::Update);
    message.add_query(Query::query(name(ZONE), RecordType::SOA));
    message.insert_answers(prerequisites);
    message.insert_authorities(updates);
    // As it comes off the wire.
    Message::from_vec(&message.to_vec().unwrap()).unwrap()
}

fn terms(may_change: &dyn Fn(&Name) -> bool) -> Terms<'_> {
    Terms {
        may_change,
        lease: None,
        bounds: Bounds::default(),
    }
}

fn apply_to(records: &mut Records, message: &Message) -> Result<Changes, ResponseCode> {
    let granted = |owner: &Name| !owner.to_ascii().starts_with("foreign.");
    apply(records, message, &terms(&granted)).map_err(|refusal| refusal.code)
}

/// What a zone holds, a line per record.
fn listing(records: &Records) -> Vec<String> {
    let mut lines = Vec::new();
    for (owner, sets) in records.iter() {
        for set in sets.values() {
            for entry in set.entries.values() {
                lines.push(format!("{owner} {} {}", set.ttl, entry.data));
            }
        }
    }
    lines
}

#[test]
fn zone_section_3_1() {
    let with = |zones: Vec<Query>| {
        let mut message = message(vec![], vec![add("b2.t.test.", a(2))]);
        message.queries = zones;
        apply_to(&mut records(), &message).map(|_| ())
    };
    let zone = |name_: &str, kind| Query::query(name(name_), kind);
    let mut chaos = zone(ZONE, RecordType::SOA);
    chaos.set_query_class(DNSClass::CH);
    let table = [
        ("this zone", vec![zone(ZONE, RecordType::SOA)], Ok(())),
        (
            "its case does not count",
            vec![zone("T.Test.", RecordType::SOA)],
            Ok(()),
        ),
        ("no zone", vec![], Err(ResponseCode::FormErr)),
        (
            "two zones",
            vec![zone(ZONE, RecordType::SOA), zone(ZONE, RecordType::SOA)],
            Err(ResponseCode::FormErr),
        ),
        (
            "another type",
            vec![zone(ZONE, RecordType::A)],
            Err(ResponseCode::FormErr),
        ),
        (
            "another zone",
            vec![zone("u.test.", RecordType::SOA)],
            Err(ResponseCode::NotAuth),
        ),
        (
            "a name in it",
            vec![zone("b1.t.test.", RecordType::SOA)],
            Err(ResponseCode::NotAuth),
        ),
        ("another class", vec![chaos], Err(ResponseCode::NotAuth)),
    ];
    for (rule, zones, expected) in table {
        assert_eq!(with(zones), expected, "{rule}");
    }
}

#[test]
fn prerequisites_3_2() {
    use DNSClass::{ANY, CH, IN, NONE};
    use RecordType as T;
    let b1 = "b1.t.test.";
    let nix = "nix.t.test.";
    let table = [
        ("3.2.4 in use", vec![none_of(b1, ANY, T::ANY)], None),
        (
            "3.2.4 in use, is not",
            vec![none_of(nix, ANY, T::ANY)],
            Some(ResponseCode::NXDomain),
        ),
        (
            "3.2.4 a name with names below only is not in use",
            vec![none_of("_tcp.web.t.test.", ANY, T::ANY)],
            Some(ResponseCode::NXDomain),
        ),
        (
            "3.2.4 the zone's own name is",
            vec![none_of(ZONE, ANY, T::ANY)],
            None,
        ),
        ("3.2.5 not in use", vec![none_of(nix, NONE, T::ANY)], None),
        (
            "3.2.5 not in use, but is",
            vec![none_of(b1, NONE, T::ANY)],
            Some(ResponseCode::YXDomain),
        ),
        ("3.2.1 the set exists", vec![none_of(b1, ANY, T::A)], None),
        (
            "3.2.1 the set exists, but does not",
            vec![none_of(b1, ANY, T::AAAA)],
            Some(ResponseCode::NXRRSet),
        ),
        (
            "3.2.1 the SOA exists",
            vec![none_of(ZONE, ANY, T::SOA)],
            None,
        ),
        (
            "3.2.3 the set does not exist",
            vec![none_of(b1, NONE, T::AAAA)],
            None,
        ),
        (
            "3.2.3 the set does not exist, but does",
            vec![none_of(b1, NONE, T::A)],
            Some(ResponseCode::YXRRSet),
        ),
        ("3.2.2 the set is this", vec![record(b1, IN, 0, a(1))], None),
        (
            "3.2.2 twice the same",
            vec![record(b1, IN, 0, a(1)), record(b1, IN, 0, a(1))],
            None,
        ),
        (
            "3.2.2 another",
            vec![record(b1, IN, 0, a(2))],
            Some(ResponseCode::NXRRSet),
        ),
        (
            "3.2.2 more",
            vec![record(b1, IN, 0, a(1)), record(b1, IN, 0, a(2))],
            Some(ResponseCode::NXRRSet),
        ),
        (
            "3.2.2 of a name without any",
            vec![record(nix, IN, 0, a(1))],
            Some(ResponseCode::NXRRSet),
        ),
        (
            "3.2.2 case of a target",
            vec![record(WEB, IN, 0, srv(80, "B1.t.test."))],
            None,
        ),
        (
            "all have to hold",
            vec![none_of(b1, ANY, T::A), none_of(nix, ANY, T::ANY)],
            Some(ResponseCode::NXDomain),
        ),
        (
            "a TTL",
            vec![record(b1, IN, 1, a(1))],
            Some(ResponseCode::FormErr),
        ),
        (
            "outside the zone",
            vec![none_of("b1.u.test.", ANY, T::A)],
            Some(ResponseCode::NotZone),
        ),
        (
            "data where none belongs",
            vec![record(b1, ANY, 0, a(1))],
            Some(ResponseCode::FormErr),
        ),
        (
            "no data where some belongs",
            vec![none_of(b1, IN, T::A)],
            Some(ResponseCode::FormErr),
        ),
        (
            "another class",
            vec![record(b1, CH, 0, a(1))],
            Some(ResponseCode::FormErr),
        ),
    ];
    for (rule, prerequisites, code) in table {
        let mut records = records();
        let before = listing(&records);
        let message = message(prerequisites, vec![add("new.t.test.", a(9))]);
        let result = apply_to(&mut records, &message);
        assert_eq!(result.as_ref().err().copied(), code, "{rule}");
        let changed = listing(&records) != before;
        assert_eq!(changed, code.is_none(), "{rule}: all or nothing");
    }
}

#[test]
fn updates_3_4() {
    use DNSClass::{ANY, CH, IN, NONE};
    use RecordType as T;
    let b1 = "b1.t.test.";
    let web80 = "_http._tcp.web.t.test. 5 0 1 80 b1.t.test.";
    let alias = "alias.t.test. 5 b1.t.test.";
    let same = vec![alias, "b1.t.test. 5 10.0.0.1", web80];
    let rest = vec![alias, web80];
    let with_both = vec![
        alias,
        "b1.t.test. 5 10.0.0.1",
        "b1.t.test. 5 10.0.0.2",
        web80,
    ];
    type Row<'a> = (&'a str, Vec<Record>, Result<Vec<&'a str>, ResponseCode>);
    let table: Vec<Row<'_>> = vec![
        ("nothing", vec![], Ok(same.clone())),
        ("add", vec![add(b1, a(2))], Ok(with_both.clone())),
        (
            "add twice",
            vec![add(b1, a(2)), add(b1, a(2))],
            Ok(with_both.clone()),
        ),
        ("add what is there", vec![add(b1, a(1))], Ok(same.clone())),
        (
            "case of the owner",
            vec![add("B1.T.test.", a(2))],
            Ok(with_both),
        ),
        (
            "another TTL holds for the set (RFC 2181 5.2)",
            vec![record(b1, IN, 9, a(1))],
            Ok(vec![alias, "b1.t.test. 9 10.0.0.1", web80]),
        ),
        (
            "a TTL with the top bit is zero (RFC 2181 8)",
            vec![record(b1, IN, 1 << 31, a(1))],
            Ok(vec![alias, "b1.t.test. 0 10.0.0.1", web80]),
        ),
        ("remove one", vec![remove(b1, a(1))], Ok(rest.clone())),
        (
            "remove what is not there",
            vec![remove(b1, a(2))],
            Ok(same.clone()),
        ),
        (
            "remove: case of a target",
            vec![remove(WEB, srv(80, "B1.t.test."))],
            Ok(vec![alias, "b1.t.test. 5 10.0.0.1"]),
        ),
        (
            "remove a set",
            vec![none_of(b1, ANY, T::A)],
            Ok(rest.clone()),
        ),
        (
            "remove another set",
            vec![none_of(b1, ANY, T::AAAA)],
            Ok(same.clone()),
        ),
        (
            "remove a name",
            vec![none_of(b1, ANY, T::ANY)],
            Ok(rest.clone()),
        ),
        (
            "remove a name that is not there",
            vec![none_of("nix.t.test.", ANY, T::ANY)],
            Ok(same.clone()),
        ),
        (
            "replace in one message",
            vec![none_of(b1, ANY, T::A), add(b1, a(2))],
            Ok(vec![alias, "b1.t.test. 5 10.0.0.2", web80]),
        ),
        (
            "in the order of the message",
            vec![add(b1, a(2)), none_of(b1, ANY, T::A)],
            Ok(rest),
        ),
        (
            "an alias beside other records is ignored",
            vec![add(b1, RData::CNAME(CNAME(name("x.t.test."))))],
            Ok(same.clone()),
        ),
        (
            "other records beside an alias are ignored",
            vec![add("alias.t.test.", a(2))],
            Ok(same.clone()),
        ),
        (
            "an alias replaces an alias",
            vec![add("alias.t.test.", RData::CNAME(CNAME(name("y.t.test."))))],
            Ok(vec![
                "alias.t.test. 5 y.t.test.",
                "b1.t.test. 5 10.0.0.1",
                web80,
            ]),
        ),
        (
            "the zone's SOA is left alone",
            vec![none_of(ZONE, ANY, T::SOA)],
            Ok(same.clone()),
        ),
        (
            "the zone's NS is left alone",
            vec![none_of(ZONE, ANY, T::NS)],
            Ok(same),
        ),
        (
            "outside the zone",
            vec![add("b1.u.test.", a(2))],
            Err(ResponseCode::NotZone),
        ),
        (
            "the second one is wrong",
            vec![add(b1, a(2)), add("b1.u.test.", a(2))],
            Err(ResponseCode::NotZone),
        ),
        (
            "add without data",
            vec![none_of(b1, IN, T::A)],
            Err(ResponseCode::FormErr),
        ),
        (
            "add ANY",
            vec![none_of(b1, IN, T::ANY)],
            Err(ResponseCode::FormErr),
        ),
        (
            "remove a set with data",
            vec![record(b1, ANY, 0, a(1))],
            Err(ResponseCode::FormErr),
        ),
        (
            "remove a set with a TTL",
            vec![record(b1, ANY, 3, RData::Update0(T::A))],
            Err(ResponseCode::FormErr),
        ),
        (
            "remove a set of type AXFR",
            vec![none_of(b1, ANY, T::AXFR)],
            Err(ResponseCode::FormErr),
        ),
        (
            "remove a record with a TTL",
            vec![record(b1, NONE, 3, a(1))],
            Err(ResponseCode::FormErr),
        ),
        (
            "remove a record of type ANY",
            vec![none_of(b1, NONE, T::ANY)],
            Err(ResponseCode::FormErr),
        ),
        (
            "another class",
            vec![record(b1, CH, 0, a(1))],
            Err(ResponseCode::FormErr),
        ),
        (
            "3.3 not with this key",
            vec![add("foreign.t.test.", a(2))],
            Err(ResponseCode::Refused),
        ),
        (
            "3.3 not with this key, removal",
            vec![none_of("foreign.t.test.", ANY, T::ANY)],
            Err(ResponseCode::Refused),
        ),
        (
            "3.3 with no key",
            vec![add("fixed.t.test.", a(2))],
            Err(ResponseCode::Refused),
        ),
        (
            "a type that is not kept",
            vec![add(
                b1,
                RData::NS(hickory_proto::rr::rdata::NS(name("x.test."))),
            )],
            Err(ResponseCode::Refused),
        ),
        (
            "a name that has to be escaped",
            vec![add("a b.t.test.", a(2))],
            Err(ResponseCode::Refused),
        ),
        (
            "a target that has to be escaped",
            vec![add(WEB, srv(80, "a;b.t.test."))],
            Err(ResponseCode::Refused),
        ),
        (
            "no target (RFC 2782)",
            vec![none_of(WEB, ANY, T::SRV), add(WEB, srv(0, "."))],
            Ok(vec![
                alias,
                "b1.t.test. 5 10.0.0.1",
                "_http._tcp.web.t.test. 5 0 1 0 .",
            ]),
        ),
        (
            "a very long record",
            vec![add(b1, RData::TXT(TXT::new(vec!["x".repeat(250); 5])))],
            Err(ResponseCode::Refused),
        ),
    ];
    for (rule, updates, expected) in table {
        let mut records = records();
        let (before, serial) = (listing(&records), records.serial);
        let result = apply_to(&mut records, &message(vec![], updates));
        let after = listing(&records);
        match expected {
            Ok(lines) => {
                assert!(result.is_ok(), "{rule}: {result:?}");
                assert_eq!(after, lines, "{rule}");
            }
            Err(code) => {
                assert_eq!(result.err(), Some(code), "{rule}");
                assert_eq!(after, before, "{rule}: all or nothing");
            }
        }
        assert_eq!(
            records.serial != serial,
            after != before,
            "{rule}: the serial"
        );
        let count: usize = records
            .iter()
            .flat_map(|(_, s)| s.values())
            .map(|s| s.entries.len())
            .sum();
        assert_eq!(records.record_count(), count, "{rule}: the count");
    }
}

#[tokio::test(start_paused = true)]
async fn leases() {
    let now = Instant::now();
    let granted = Duration::from_secs(3);
    let any = |_: &Name| true;
    let leased = Terms {
        lease: Some(Lease::new(granted, now)),
        ..terms(&any)
    };
    let mut records = records();
    let owner = name("b2.t.test.");
    let update = message(vec![], vec![record("b2.t.test.", DNSClass::IN, 60, a(2))]);
    let changes = apply(&mut records, &update, &leased).unwrap();
    assert_eq!(
        (changes.added.len(), changes.changed, changes.stored),
        (1, true, true)
    );
    let set = records.set(&owner, RecordType::A).unwrap();
    assert_eq!(set.ttl, 3, "not believed for longer than it is leased");

    let serial = records.serial;
    let later = Terms {
        lease: Some(Lease::new(granted, now + Duration::from_secs(1))),
        ..terms(&any)
    };
    let changes = apply(&mut records, &update, &later).unwrap();
    assert_eq!(
        (changes.changed, changes.stored),
        (false, false),
        "a renewal"
    );
    assert_eq!(records.serial, serial);
    let lives = |at| move |entry: &Entry| entry.lease.is_none_or(|lease| at < lease.until);
    let at = now + Duration::from_millis(3999);
    assert!(records.retain(lives(at)).is_empty());
    let gone = records.retain(lives(now + Duration::from_secs(4)));
    assert_eq!(gone, [(owner.clone(), a(2))]);
    assert!(records.sets(&owner).is_none());
    assert_eq!(records.record_count(), 3);

    apply(&mut records, &update, &leased).unwrap();
    let changes = apply(&mut records, &update, &terms(&any)).unwrap();
    assert!(changes.stored, "without a lease it stays");
    assert!(
        records
            .retain(lives(now + Duration::from_secs(99)))
            .is_empty()
    );
}

#[test]
fn a_zone_that_is_full() {
    let any = |_: &Name| true;
    let bounded = |names, records, answer| Terms {
        bounds: Bounds {
            names,
            records,
            answer,
        },
        ..terms(&any)
    };
    let more = |n: u8| message(vec![], vec![add(&format!("n{n}.t.test."), a(n))]);
    let table = [
        ("names", bounded(4, 99, 9999)),
        ("records", bounded(99, 4, 9999)),
    ];
    for (what, terms) in table {
        let mut records = records();
        assert!(apply(&mut records, &more(1), &terms).is_ok(), "{what}");
        let before = listing(&records);
        let refused = apply(&mut records, &more(2), &terms).unwrap_err();
        assert_eq!(refused.code, ResponseCode::Refused, "{what}");
        assert_eq!(refused.why, format!("the zone is full: at most 4 {what}"));
        assert_eq!(listing(&records), before, "{what}: all or nothing");
        let away = message(vec![], vec![remove("n1.t.test.", a(1))]);
        assert!(
            apply(&mut records, &away, &terms).is_ok(),
            "{what}: removals go on"
        );
        assert!(
            apply(&mut records, &more(2), &terms).is_ok(),
            "{what}: and make room"
        );
    }
    // A zone that is over its bounds, for whatever reason, still takes renewals.
    let mut over = records();
    let renewal = message(vec![], vec![add("b1.t.test.", a(1))]);
    assert!(apply(&mut over, &renewal, &bounded(1, 1, 1)).is_ok());
    let replaced = vec![
        none_of("b1.t.test.", DNSClass::ANY, RecordType::A),
        add("b1.t.test.", a(1)),
    ];
    assert!(apply(&mut over, &message(vec![], replaced), &bounded(1, 1, 60)).is_ok());

    let mut records = records();
    let add_two = message(
        vec![],
        vec![
            add(WEB, srv(81, "b1.t.test.")),
            add(WEB, srv(82, "b1.t.test.")),
        ],
    );
    let refused = apply(&mut records, &add_two, &bounded(99, 99, 60)).unwrap_err();
    assert_eq!(refused.code, ResponseCode::Refused);
    assert!(apply(&mut records, &add_two, &bounded(99, 99, 90)).is_ok());
}
