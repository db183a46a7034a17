//! What is written is read back, and what is not entirely in order is not used.

use proptest::prelude::*;

use super::super::admission::Admission;
use super::*;
use crate::config::Lookup;

const NAME: &str = "_http._tcp.web.test";

fn asked(name: &str) -> Asked {
    let lookup = Lookup::to(&["127.0.0.1:53".parse().unwrap()]);
    let name = name.into();
    Asked::of(&Discover::Srv { name, lookup }).unwrap()
}

fn discovered(target: &str, address: &str, (priority, weight): (u16, u16)) -> Discovered {
    Discovered {
        endpoint: Endpoint {
            target: target.into(),
            address: address.parse().unwrap(),
            port: 8080,
        },
        priority,
        weight,
        split: 2,
    }
}

fn stored() -> Stored {
    let local = discovered("c.test", "127.0.0.3", (10, 0));
    Stored {
        answered: UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        from_loopback: BTreeSet::from([local.endpoint.clone()]),
        endpoints: [
            discovered("a.test", "10.0.0.1", (0, 30)),
            discovered("b_1.test", "2001:db8::1", (0, 65535)),
            local,
        ]
        .into(),
    }
}

/// The format is a promise to the next version: it changes with [`VERSION`] or not at all.
#[test]
fn the_text() {
    let endpoints = [discovered("a.test", "10.0.0.1", (0, 30))].into();
    let one = Stored {
        endpoints,
        ..stored()
    };
    let text = String::from_utf8(one.encode(&asked(NAME))).unwrap();
    assert_eq!(
        text,
        concat!(
            r#"{"version":1,"asked":{"name":"_http._tcp.web.test","type":"SRV","#,
            r#""servers":["127.0.0.1:53"],"family":"auto"},"answered":1700000000,"#,
            r#""endpoints":[{"target":"a.test","address":"10.0.0.1","port":8080,"#,
            r#""priority":0,"weight":30,"split":2}]}"#,
            "\n"
        )
    );
}

#[test]
fn what_is_written_is_read_back() {
    let asked = asked(NAME);
    let bytes = stored().encode(&asked);
    assert_eq!(Stored::decode(&bytes, &asked).unwrap(), stored());
}

/// A crash may leave any part of a file.
#[test]
fn a_part_of_a_text_is_never_used() {
    let asked = asked(NAME);
    let bytes = stored().encode(&asked);
    // The last octet is the end of the line, which adds nothing.
    for length in 0..bytes.len() - 1 {
        let cut = Stored::decode(&bytes[..length], &asked);
        assert!(matches!(cut, Err(Unusable::Damaged(_))), "{length}");
        let mut zeroed = bytes.clone();
        zeroed[length..].fill(0);
        let zeroed = Stored::decode(&zeroed, &asked);
        assert!(matches!(zeroed, Err(Unusable::Damaged(_))), "{length}");
    }
}

#[test]
fn what_is_not_used() {
    let asked = asked(NAME);
    let text = String::from_utf8(stored().encode(&asked)).unwrap();
    let changed = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1)
    };
    let rows: &[(&str, String, &str)] = &[
        (
            "a later version, whatever it has",
            r#"{"version":2,"asked":7}"#.to_owned(),
            "its version is 2",
        ),
        ("no version", changed("version", "versions"), "damaged"),
        ("nothing", String::new(), "damaged"),
        ("something after it", format!("{text}{{}}"), "damaged"),
        (
            "a key twice",
            changed(r#""split":2"#, r#""split":2,"split":2"#),
            "damaged",
        ),
        ("no address", changed("10.0.0.1", "10.0.0"), "damaged"),
        (
            "a weight that is none",
            changed("65535", "65536"),
            "damaged",
        ),
        (
            "another name",
            changed("web.test", "api.test"),
            "another question",
        ),
        (
            "another server",
            changed("127.0.0.1:53", "127.0.0.2:53"),
            "another question",
        ),
        (
            "another type",
            changed(r#""SRV""#, r#""A/AAAA""#),
            "another question",
        ),
        ("port 0", changed("8080", "0"), "endpoint number 0"),
        (
            "an empty share",
            changed(r#""split":2"#, r#""split":0"#),
            "endpoint number 0",
        ),
        (
            "a target that is an address",
            changed("a.test", "10.0.0.9"),
            "endpoint number 0",
        ),
        (
            "a target that is no host name",
            changed("a.test", "a b"),
            "endpoint number 0",
        ),
        (
            "a target as nobody compares it",
            changed("a.test", "A.test"),
            "endpoint number 0",
        ),
        (
            "a target with a final dot",
            changed("a.test", "a.test."),
            "endpoint number 0",
        ),
        (
            "no target",
            changed(r#""a.test""#, r#""""#),
            "endpoint number 0",
        ),
        (
            "an identity twice",
            changed("b_1.test", "a.test").replacen("2001:db8::1", "10.0.0.1", 1),
            "endpoint number 1",
        ),
        (
            "a time after the end of time",
            changed("1700000000", "18446744073709551615"),
            "from the future",
        ),
    ];
    for (rule, text, why) in rows {
        let error = Stored::decode(text.as_bytes(), &asked).expect_err(rule);
        assert!(error.to_string().contains(why), "{rule}: {error}");
    }
    let nobody = Stored {
        endpoints: [].into(),
        ..stored()
    };
    let nobody = Stored::decode(&nobody.encode(&asked), &asked).unwrap_err();
    assert_eq!(nobody.to_string(), "it has 0 endpoints");
}

#[test]
fn addresses_of_a_name_belong_to_that_name() {
    let name: Arc<str> = "Web.Test.".into();
    let discover = Discover::Address {
        name: Arc::clone(&name),
        port: 8080.try_into().unwrap(),
        lookup: Lookup::to(&[]),
    };
    let asked = Asked::of(&discover).unwrap();
    let of = |target: &str| Stored {
        endpoints: [discovered(target, "10.0.0.1", (0, 1))].into(),
        ..stored()
    };
    Stored::decode(&of(&name).encode(&asked), &asked).unwrap();
    Stored::decode(&of("other.test").encode(&asked), &asked).unwrap_err();
    assert_eq!(Asked::of(&Discover::Static(Vec::new())), None);
}

/// The largest answer that may be kept can be read again.
#[test]
fn the_largest_text_is_within_bounds() {
    let target = ["a".repeat(63).as_str(); 3].join(".") + "." + &"a".repeat(61);
    let endpoint = |n: usize| Discovered {
        endpoint: Endpoint {
            target: target.as_str().into(),
            address: IpAddr::from([u16::MAX; 8]),
            port: n as u16 | 0x8000,
        },
        priority: u16::MAX,
        weight: u16::MAX,
        split: u16::MAX,
    };
    let endpoints: Arc<[_]> = (0..1000).map(endpoint).collect();
    let stored = Stored {
        from_loopback: endpoints.iter().map(|d| d.endpoint.clone()).collect(),
        endpoints,
        ..stored()
    };
    let length = stored.encode(&asked(NAME)).len() as u64;
    assert!(length * MAX_ENDPOINTS as u64 / 1000 <= LARGEST, "{length}");
}

#[test]
fn a_file_is_called_after_the_question_and_is_no_path() {
    let mut files = BTreeSet::new();
    for name in ["web.test", "web.test.", "../../etc/passwd", "/", "", "\0"] {
        let file = asked(name).file();
        assert!(is_file(&file), "{file}");
        files.insert(file);
    }
    let lookup = Lookup {
        timeout: Duration::from_secs(7),
        ..Lookup::to(&["127.0.0.1:53".parse().unwrap()])
    };
    let slower = |lookup| Discover::Srv {
        name: "web.test".into(),
        lookup,
    };
    let file = |discover| Asked::of(&discover).unwrap().file();
    assert!(
        files.contains(&file(slower(lookup))),
        "another time-out is no other question"
    );
    files.insert(file(slower(Lookup::to(&[]))));
    let address = |port: u16| Discover::Address {
        name: "web.test".into(),
        port: port.try_into().unwrap(),
        lookup: Lookup::to(&[]),
    };
    files.insert(file(address(80)));
    files.insert(file(address(81)));
    assert_eq!(files.len(), 9, "each has its own");
    let (hash, digits) = ("0".repeat(64), "A".repeat(64));
    for other in [
        hash.clone(),
        format!("{hash}.jsn"),
        format!("{}.json", &hash[1..]),
        format!("{digits}.json"),
        format!("../{}.json", &hash[3..]),
    ] {
        assert!(!is_file(&other), "{other}");
    }
}

#[test]
fn how_old_it_may_be() {
    let (stored, second) = (stored(), Duration::from_secs(1));
    let age = |now| stored.age(now).map_err(|why| why.to_string());
    let at = stored.answered;
    assert_eq!(age(at), Ok(Duration::ZERO));
    assert_eq!(age(at + 90 * second), Ok(90 * second));
    assert_eq!(age(at + OLDEST), Ok(OLDEST));
    let error = age(at + OLDEST + second).unwrap_err();
    assert_eq!(error, "it is 3days 1s old");
    assert_eq!(age(at - OLDEST), Ok(Duration::ZERO), "a clock put back");
    let error = age(at - OLDEST - second).unwrap_err();
    assert_eq!(error, "it is from the future, by 3days 1s");
}

#[test]
fn a_file_lets_nobody_in_whom_dns_could_not_name() {
    let local = discovered("local.test", "127.0.0.1", (0, 1));
    let smuggled = discovered("smuggled.test", "127.0.0.2", (0, 1));
    let stored = Stored {
        from_loopback: BTreeSet::from([local.endpoint.clone()]),
        endpoints: [
            discovered("own.test", "10.0.0.9", (0, 1)),
            discovered("metadata.test", "169.254.169.254", (0, 1)),
            smuggled,
            local,
            discovered("standby.test", "10.0.0.2", (10, 1)),
            discovered("good.test", "10.0.0.1", (0, 1)),
        ]
        .into(),
        ..stored()
    };
    let admission = Admission::new(vec!["10.0.0.9:8080".parse().unwrap()], Vec::new());
    let admit = |endpoint, local| admission.judge(endpoint, local, &|_| false);
    let admitted = |asks_loopback, max| {
        let (set, rejected) = stored.admitted(&admit, asks_loopback, max);
        assert_eq!(set.len() + rejected.len(), 6);
        let targets: Vec<_> = set.iter().map(|d| d.endpoint.target.to_string()).collect();
        targets
    };
    assert_eq!(
        admitted(true, 9),
        ["good.test", "local.test", "standby.test"]
    );
    assert_eq!(
        admitted(false, 9),
        ["good.test", "standby.test"],
        "no server on loopback is asked"
    );
    assert_eq!(admitted(true, 2), ["good.test", "local.test"]);
}

fn any_discovered() -> impl Strategy<Value = Discovered> {
    let address = prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(IpAddr::from)
    ];
    let numbers = (1..=u16::MAX, any::<u16>(), any::<u16>(), 1..=u16::MAX);
    ("[a-z][a-z0-9_-]{0,20}\\.test", address, numbers).prop_map(
        |(target, address, (port, priority, weight, split))| Discovered {
            endpoint: Endpoint {
                target: target.into(),
                address,
                port,
            },
            priority,
            weight,
            split,
        },
    )
}

proptest! {
    #[test]
    fn any_answer_is_read_back(
        set in prop::collection::vec((any_discovered(), any::<bool>()), 1..20),
        seconds in 0..u64::from(u32::MAX),
    ) {
        let mut seen = BTreeSet::new();
        let set: Vec<_> = set
            .into_iter()
            .filter(|(d, _)| seen.insert(d.endpoint.clone()))
            .collect();
        let from_loopback = set.iter().filter(|(_, local)| *local);
        let stored = Stored {
            answered: UNIX_EPOCH + Duration::from_secs(seconds),
            from_loopback: from_loopback.map(|(d, _)| d.endpoint.clone()).collect(),
            endpoints: set.iter().map(|(d, _)| d.clone()).collect(),
        };
        let asked = asked(NAME);
        prop_assert_eq!(Stored::decode(&stored.encode(&asked), &asked).unwrap(), stored);
    }

    #[test]
    fn any_octets_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Stored::decode(&bytes, &asked(NAME));
    }
}
