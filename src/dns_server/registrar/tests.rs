//! Tests of the registrar. Real servers are in `tests/register.rs`.

use hickory_proto::rr::DNSClass;

use crate::dns_server::client::Update;

use super::*;
use crate::dns_server::{Bounds, Grant, Handle, Names, Updates, Zone};

fn name(text: &str) -> Name {
    absolute(text).unwrap()
}

fn registration() -> Registration {
    let port = 8080.try_into().unwrap();
    Registration::new(
        name("_http._tcp.web.svc.test"),
        port,
        name("b1.web.svc.test"),
    )
}

fn srv(weight: u16, port: u16, target: &str) -> SRV {
    SRV::new(0, weight, port, name(target))
}

#[test]
fn names_are_absolute_and_lower_case() {
    for text in ["Web.Svc.Test", "web.svc.test."] {
        assert_eq!(name(text).to_string(), "web.svc.test.");
    }
    for (text, words) in [
        ("", "it is empty"),
        (".", "it is empty"),
        ("a..b", "`a..b` is no DNS name"),
        ("bücher.test", "in its ASCII form"),
    ] {
        let error = absolute(text).unwrap_err();
        assert!(error.contains(words), "{text}: {error}");
    }
}

#[test]
fn the_target_unless_one_is_given() {
    for (host, of, target) in [
        ("b1", "_http._tcp.web.svc.test", "b1.web.svc.test."),
        (
            "B1.example.test",
            "_http._tcp.web.svc.test",
            "b1.web.svc.test.",
        ),
        ("3f2a9c", "_a._b._c.svc.test", "3f2a9c.svc.test."),
        ("my_host", "web.svc.test", "my_host.web.svc.test."),
    ] {
        let derived = default_target(host, &name(of)).unwrap();
        assert_eq!(derived.to_string(), target, "{host} {of}");
    }
    let long = "a".repeat(64);
    for (host, of, words) in [
        ("b1", "_http._tcp", "nothing after its labels"),
        ("", "_http._tcp.svc.test", "cannot be a label"),
        ("b 1", "_http._tcp.svc.test", "cannot be a label"),
        (&long, "_http._tcp.svc.test", "is no DNS name"),
    ] {
        let error = default_target(host, &name(of)).unwrap_err();
        assert!(error.contains(words), "{host} {of}: {error}");
    }
}

/// Changes as lines: class, then name, type and data.
fn lines(update: &Update) -> Vec<String> {
    let changes = update.changes().iter();
    changes
        .map(|record| {
            let change = match record.dns_class {
                DNSClass::IN => "add",
                DNSClass::NONE => "delete",
                _ => "delete all",
            };
            let (owner, kind) = (&record.name, record.record_type());
            format!("{change} {owner} {} {kind} {}", record.ttl, record.data)
        })
        .collect()
}

#[test]
fn updates() {
    let zone = name("svc.test");
    let addresses = ["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
    let old = vec![srv(9, 8080, "b1.web.svc.test")];
    let update = registration().registering(&zone, &addresses, old);
    let expected = [
        "delete _http._tcp.web.svc.test. 0 SRV 0 9 8080 b1.web.svc.test.",
        "add _http._tcp.web.svc.test. 2 SRV 0 1 8080 b1.web.svc.test.",
        "delete all b1.web.svc.test. 0 A UPDATE",
        "delete all b1.web.svc.test. 0 AAAA UPDATE",
        "add b1.web.svc.test. 2 A 192.0.2.1",
        "add b1.web.svc.test. 2 AAAA 2001:db8::1",
    ];
    assert_eq!(lines(&update), expected);

    let own = registration().srv();
    let another = srv(1, 8081, "B1.web.svc.test");
    let elsewhere = srv(1, 8081, "b2.web.svc.test");
    let alone = registration().withdrawing(&zone, &[own.clone(), elsewhere]);
    let gone = "delete _http._tcp.web.svc.test. 0 SRV 0 1 8080 b1.web.svc.test.";
    assert_eq!(lines(&alone), [gone, expected[2], expected[3]]);
    let shared = registration().withdrawing(&zone, &[own, another]);
    assert_eq!(lines(&shared), [gone], "the addresses are another's too");

    let outside = Registration {
        target: name("b1.example.test"),
        ..registration()
    };
    let update = outside.registering(&zone, &addresses, Vec::new());
    assert_eq!(lines(&update).len(), 1, "no addresses outside of the zone");
    assert_eq!(lines(&outside.withdrawing(&zone, &[])).len(), 1);
}

#[test]
fn renewals_come_three_times_in_a_lease() {
    let renewal = |seconds| renewal(Duration::from_secs(seconds)).as_millis();
    assert_eq!(renewal(30), 10_000);
    assert_eq!(renewal(0), 500, "however short");
    let wait = Duration::from_secs(10);
    assert_eq!(jittered(wait, 0.0), Duration::from_secs(9));
    assert_eq!(jittered(wait, 0.5), wait);
    assert!(jittered(wait, 0.999) < Duration::from_secs(11));
}

#[test]
fn a_server_that_comes_back_is_told_within_its_lease() {
    for (failures, lease, wait) in [
        (1, 30, 1),
        (3, 30, 4),
        (9, 30, 10),
        (u32::MAX, 3600, 10),
        (9, 6, 2),
    ] {
        let backoff = backoff(failures, Duration::from_secs(lease));
        assert_eq!(
            backoff.as_secs(),
            wait,
            "{failures} failures, lease {lease} s"
        );
    }
}

/// A zone that one key may change, with that key in a file.
async fn server(folder: &tempfile::TempDir) -> (Handle, PathBuf, Key) {
    let file = folder.path().join("web.key");
    let key = Key::create(&file, name("web")).unwrap().key;
    let sockets = crate::dns_server::bind("127.0.0.1:0".parse().unwrap()).await;
    let updates = Updates {
        grants: vec![Grant {
            key: key.clone(),
            names: vec![Names::Below(name("svc.test"))],
        }],
        max_lease: Duration::from_secs(1),
        bounds: Bounds::default(),
        rate: 1000,
        state: None,
    };
    let zone = Zone::new("svc.test").unwrap();
    let server = crate::dns_server::serve_updates(vec![sockets.unwrap()], zone, updates).unwrap();
    (server, file, key)
}

#[tokio::test]
async fn the_record_is_there_while_it_is_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let (server, key_file, key) = server(&folder).await;
    let client = Client::new(server.address(), key);
    let registration = registration();
    let (asked, own) = (registration.name.clone(), registration.srv());
    let at = ServerAddress::At(server.address());
    let registrar = Registrar::new(registration, at, key_file);
    let (wanted, wants) = watch::channel(false);
    let running = tokio::spawn(registrar.run(wants));
    let until = async |there: bool| {
        let looking = async {
            while client.srv(&asked).await.ok() != Some(vec![own.clone(); there.into()]) {
                sleep(LOOK).await;
            }
        };
        let found = timeout(Duration::from_secs(20), looking).await;
        found.unwrap_or_else(|_| panic!("never there: {there}"));
    };
    until(false).await;
    for there in [true, false, true] {
        wanted.send(there).unwrap();
        until(there).await;
    }
    drop(wanted);
    assert_eq!(running.await.unwrap(), Withdrawal::Gone);
    assert_eq!(client.srv(&asked).await.unwrap(), []);
}

#[tokio::test]
async fn nothing_to_withdraw() {
    // Nobody listens there, and nobody is asked.
    let at = ServerAddress::At("127.0.0.1:1".parse().unwrap());
    let registrar = || Registrar::new(registration(), at.clone(), "/nowhere/web.key");
    let (wanted, wants) = watch::channel(false);
    drop(wanted);
    assert_eq!(registrar().run(wants).await, Withdrawal::Nothing);
    // Even though the last word was yes.
    let (wanted, wants) = watch::channel(true);
    drop(wanted);
    assert_eq!(registrar().run(wants).await, Withdrawal::Nothing);
}
