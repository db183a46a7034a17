//! One row per rule about records.

use super::*;

/// `priority weight port target` each, as zone files write them.
fn records(lines: &[&str]) -> Vec<SrvRecord> {
    let parse = |line: &&str| {
        let fields: Vec<_> = line.split(' ').collect();
        let number = |n: usize| fields[n].parse().unwrap();
        SrvRecord {
            priority: number(0),
            weight: number(1),
            port: number(2),
            target: match fields[3] {
                "." => Target::Declined,
                bad if bad.starts_with('!') => Target::Invalid(bad.to_owned()),
                host => Target::Host(host.into()),
            },
        }
    };
    lines.iter().map(parse).collect()
}

fn addresses(table: &[(&str, &[&str])]) -> BTreeMap<Arc<str>, Vec<Located>> {
    let located = |address: &&str| Located {
        address: address.parse().unwrap(),
        server_on_loopback: false,
    };
    table
        .iter()
        .map(|(target, list)| ((*target).into(), list.iter().map(located).collect()))
        .collect()
}

/// `target address:port priority/weight/split`, in the order given out.
fn shown(assembled: &Assembled) -> Vec<String> {
    let one = |d: &Discovered| {
        let (target, socket) = (&d.endpoint.target, d.endpoint.socket());
        format!("{target} {socket} {}/{}/{}", d.priority, d.weight, d.split)
    };
    assembled.endpoints.iter().map(one).collect()
}

#[test]
fn records_become_endpoints() {
    let known = addresses(&[
        ("a", &["10.0.0.1"]),
        ("b", &["10.0.0.2", "10.0.0.3"]),
        ("c", &["10.9.9.9"]),
        ("d", &["10.9.9.9", "10.0.0.4"]),
    ]);
    // (rule, records, endpoints, rejected, waiting)
    type Row<'a> = (&'a str, &'a [&'a str], &'a [&'a str], usize, &'a [&'a str]);
    let table: &[Row] = &[
        (
            "sorted by priority, then by identity, whatever the order of the answer",
            &["10 4 80 a", "0 2 80 b"],
            &[
                "b 10.0.0.2:80 0/2/2",
                "b 10.0.0.3:80 0/2/2",
                "a 10.0.0.1:80 10/4/1",
            ],
            0,
            &[],
        ),
        (
            "one target on two ports is two endpoints",
            &["0 1 81 a", "0 2 80 a"],
            &["a 10.0.0.1:80 0/2/1", "a 10.0.0.1:81 0/1/1"],
            0,
            &[],
        ),
        (
            "a zero weight is kept as it is",
            &["0 0 80 a"],
            &["a 10.0.0.1:80 0/0/1"],
            0,
            &[],
        ),
        (
            "the same record twice counts once (RFC 2181 5)",
            &["0 5 80 a", "0 5 80 a"],
            &["a 10.0.0.1:80 0/5/1"],
            0,
            &[],
        ),
        (
            "two records of one endpoint in a tier add up",
            &["0 5 80 a", "0 7 80 a"],
            &["a 10.0.0.1:80 0/12/1"],
            0,
            &[],
        ),
        (
            "and do not overflow",
            &["0 65535 80 a", "0 7 80 a"],
            &["a 10.0.0.1:80 0/65535/1"],
            0,
            &[],
        ),
        (
            "of two tiers the first one wins",
            &["9 5 80 a", "0 7 80 a"],
            &["a 10.0.0.1:80 0/7/1"],
            1,
            &[],
        ),
        (
            "port 0",
            &["0 1 0 a", "0 1 80 a"],
            &["a 10.0.0.1:80 0/1/1"],
            1,
            &[],
        ),
        (
            "a target that is no host name",
            &["0 1 80 !10.0.0.7."],
            &[],
            1,
            &[],
        ),
        (
            "`.` beside others",
            &["0 0 0 .", "0 1 80 a"],
            &["a 10.0.0.1:80 0/1/1"],
            1,
            &[],
        ),
        (
            "a target without an address waits, once",
            &["0 1 80 x", "0 1 81 x", "0 1 80 a"],
            &["a 10.0.0.1:80 0/1/1"],
            0,
            &["x"],
        ),
        ("a refused address", &["0 1 80 c"], &[], 1, &[]),
        (
            "the weight is shared among the addresses that are used",
            &["0 8 80 d"],
            &["d 10.0.0.4:80 0/8/1"],
            1,
            &[],
        ),
        (
            "at most four: the first by priority and identity",
            &["0 1 80 b", "5 1 80 a", "5 1 81 b", "6 1 80 d"],
            &[
                "b 10.0.0.2:80 0/1/2",
                "b 10.0.0.3:80 0/1/2",
                "a 10.0.0.1:80 5/1/1",
                "b 10.0.0.2:81 5/1/1",
            ],
            3,
            &[],
        ),
    ];
    let forbidden: IpAddr = "10.9.9.9".parse().unwrap();
    let admit = |endpoint: SocketAddr, _| match endpoint.ip() == forbidden {
        true => Err(Refusal::Own),
        false => Ok(()),
    };
    for (rule, lines, endpoints, rejected, waiting) in table {
        let mut records = records(lines);
        for _ in 0..2 {
            let assembled = assemble(&records, &known, &admit, 4);
            assert_eq!(shown(&assembled), *endpoints, "{rule}");
            assert_eq!(assembled.rejected.len(), *rejected, "{rule}: {assembled:?}");
            let waits: Vec<_> = assembled.waiting.iter().map(|t| &**t).collect();
            assert_eq!(waits, *waiting, "{rule}");
            records.reverse();
        }
    }
}

#[test]
fn declined_means_every_target_is_a_dot() {
    assert!(declined(&records(&["0 0 0 ."])));
    assert!(!declined(&records(&["0 0 0 .", "0 1 80 a"])));
    assert!(!declined(&[]));
}

#[test]
fn a_rejection_names_the_record_and_the_reason() {
    let assembled = assemble(&records(&["1 2 0 a"]), &addresses(&[]), &|_, _| Ok(()), 9);
    let rejected = &assembled.rejected[0];
    assert_eq!(rejected.record, "1 2 0 a");
    assert!(rejected.reason.contains("port is 0"), "{}", rejected.reason);
}
