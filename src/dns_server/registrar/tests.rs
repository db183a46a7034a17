//! Tests of the registrar. Real servers are in `tests/register.rs`.

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{DNSClass, RData, Record};
use tokio::net::UdpSocket;

use crate::dns_server::client::Update;

use super::*;
use crate::dns_server::{Bounds, Grant, Handle, Names, Updates, Zone};

/// Longer than any test has to wait for a withdrawal.
const MAX_LEASE: Duration = Duration::from_secs(30);

/// Between two looks at the zone.
const LOOK: Duration = Duration::from_millis(20);

const PATIENCE: Duration = Duration::from_secs(20);

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

fn conditions(update: &Update) -> Vec<String> {
    let conditions = update.conditions().iter();
    let line = |record: &Record| {
        let (class, owner, kind) = (record.dns_class, &record.name, record.record_type());
        format!("{class} {owner} {} {kind} {}", record.ttl, record.data)
    };
    conditions.map(line).collect()
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

    assert_eq!(conditions(&update), Vec::<String>::new());

    let own = registration().srv();
    let another = srv(1, 8081, "B1.web.svc.test");
    let elsewhere = srv(1, 8081, "b2.web.svc.test");
    let gone = "delete _http._tcp.web.svc.test. 0 SRV 0 1 8080 b1.web.svc.test.";
    let leased = registration().withdrawing(&zone, &addresses);
    assert_eq!(lines(&leased), [gone]);
    let withdrawing = |others: &[SRV]| registration().withdrawing_all(&zone, &addresses, others);
    let alone = withdrawing(&[own.clone(), elsewhere]);
    assert_eq!(lines(&alone), [gone, expected[2], expected[3]]);
    let shared = withdrawing(&[own, another]);
    assert_eq!(lines(&shared), [gone], "the addresses are another's too");
    let if_ours = [
        "IN b1.web.svc.test. 0 A 192.0.2.1",
        "IN b1.web.svc.test. 0 AAAA 2001:db8::1",
    ];
    for update in [leased, alone, shared] {
        assert_eq!(conditions(&update), if_ours);
    }
    let none = registration().withdrawing(&zone, &[]);
    let if_none = [
        "NONE b1.web.svc.test. 0 A UPDATE",
        "NONE b1.web.svc.test. 0 AAAA UPDATE",
    ];
    assert_eq!(conditions(&none), if_none);

    let outside = Registration {
        target: name("b1.example.test"),
        ..registration()
    };
    let update = outside.registering(&zone, &addresses, Vec::new());
    assert_eq!(lines(&update).len(), 1, "no addresses outside of the zone");
    let update = outside.withdrawing_all(&zone, &addresses, &[]);
    assert_eq!((lines(&update).len(), conditions(&update).len()), (1, 0));
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
        max_lease: MAX_LEASE,
        bounds: Bounds::default(),
        rate: 1000,
        state: None,
    };
    let zone = Zone::new("svc.test").unwrap();
    let sockets = vec![sockets.unwrap()];
    let server = crate::dns_server::serve_updates(sockets, zone.clone(), updates).unwrap();
    // Nothing was there before.
    zone.set_recovering(false);
    (server, file, key)
}

/// What a [`Relay`] does with updates; questions always go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    PassOn,
    Refuse(ResponseCode),
}

/// Stands before a server, over UDP, and can be told to refuse updates in its name.
struct Relay {
    address: SocketAddr,
    mood: watch::Sender<Mood>,
    /// Updates refused so far.
    refused: watch::Receiver<usize>,
    task: tokio::task::AbortHandle,
}

impl Relay {
    async fn before(server: SocketAddr) -> Relay {
        let front = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = front.local_addr().unwrap();
        let (mood, moods) = watch::channel(Mood::PassOn);
        let (refusing, refused) = watch::channel(0);
        let task = tokio::spawn(async move {
            let back = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            back.connect(server).await.unwrap();
            let (mut request, mut answer) = ([0; 4096], [0; 4096]);
            loop {
                let (length, from) = front.recv_from(&mut request).await.unwrap();
                let request = &request[..length];
                // RFC 2136 section 2.2: opcode 5.
                let is_update = (request[2] >> 3) & 0b1111 == 5;
                let now = *moods.borrow();
                let answer = match now {
                    Mood::Refuse(code) if is_update => {
                        let asked = Message::from_vec(request).unwrap().metadata;
                        let mut refusal = Message::response(asked.id, asked.op_code);
                        refusal.metadata.response_code = code;
                        refusing.send_modify(|n| *n += 1);
                        refusal.to_vec().unwrap()
                    }
                    _ => {
                        back.send(request).await.unwrap();
                        let length = back.recv(&mut answer).await.unwrap();
                        answer[..length].to_vec()
                    }
                };
                front.send_to(&answer, from).await.unwrap();
            }
        });
        Relay {
            address,
            mood,
            refused,
            task: task.abort_handle(),
        }
    }

    /// Refuses from now on, after what was asked before has been answered.
    fn refuse(&mut self, code: ResponseCode) {
        self.mood.send_replace(Mood::Refuse(code));
        self.refused.mark_unchanged();
    }

    async fn has_refused(&mut self) {
        let refused = timeout(PATIENCE, self.refused.changed()).await;
        refused.expect("an update in time").unwrap();
    }

    fn pass_on(&self) {
        self.mood.send_replace(Mood::PassOn);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A server, a relay before it, and a registrar that talks to the relay.
struct Story {
    _server: Handle,
    folder: tempfile::TempDir,
    relay: Relay,
    client: Client,
    wanted: watch::Sender<bool>,
    running: tokio::task::JoinHandle<Withdrawal>,
}

impl Story {
    /// Begins with a registration that stands.
    async fn begin() -> Story {
        let folder = tempfile::tempdir().unwrap();
        let (server, key_file, key) = server(&folder).await;
        let relay = Relay::before(server.address()).await;
        let client = Client::new(server.address(), key);
        let (wanted, wants) = watch::channel(true);
        let at = ServerAddress::At(relay.address);
        let registrar = Registrar::new(registration(), at, key_file);
        let running = tokio::spawn(registrar.run(wants));
        until(&client, true).await;
        Story {
            _server: server,
            folder,
            relay,
            client,
            wanted,
            running,
        }
    }
}

/// Waits until the record is there, or is not.
async fn until(client: &Client, there: bool) {
    let (asked, own) = (registration().name, registration().srv());
    let looking = async {
        while client.srv(&asked).await.ok() != Some(vec![own.clone(); there.into()]) {
            sleep(LOOK).await;
        }
    };
    let found = timeout(PATIENCE, looking).await;
    found.unwrap_or_else(|_| panic!("never there: {there}"));
}

#[tokio::test]
async fn the_record_is_there_while_it_is_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let (server, key_file, key) = server(&folder).await;
    let client = Client::new(server.address(), key);
    let at = ServerAddress::At(server.address());
    let registrar = Registrar::new(registration(), at, key_file);
    let (wanted, wants) = watch::channel(false);
    let running = tokio::spawn(registrar.run(wants));
    until(&client, false).await;
    for there in [true, false, true] {
        wanted.send(there).unwrap();
        until(&client, there).await;
    }
    drop(wanted);
    assert_eq!(running.await.unwrap(), Withdrawal::Gone);
    assert_eq!(client.srv(&registration().name).await.unwrap(), []);
}

#[tokio::test]
async fn a_withdrawal_that_fails_is_tried_again() {
    let mut story = Story::begin().await;
    story.relay.refuse(ResponseCode::NotAuth);
    story.wanted.send_replace(false);
    story.relay.has_refused().await;
    story.relay.pass_on();
    // Long before its lease ends.
    until(&story.client, false).await;
    drop(story.wanted);
    story.running.await.unwrap();
}

#[tokio::test]
async fn a_withdrawal_that_failed_is_tried_again_at_the_end() {
    let mut story = Story::begin().await;
    story.relay.refuse(ResponseCode::NotAuth);
    story.wanted.send_replace(false);
    story.relay.has_refused().await;
    story.relay.pass_on();
    drop(story.wanted);
    assert_eq!(story.running.await.unwrap(), Withdrawal::Gone);
    until(&story.client, false).await;
}

#[tokio::test]
async fn a_withdrawal_may_be_overtaken() {
    let mut story = Story::begin().await;
    story.relay.refuse(ResponseCode::NotAuth);
    story.wanted.send_replace(false);
    story.relay.has_refused().await;
    // It never left the server, and is renewed again.
    story.wanted.send_replace(true);
    story.relay.has_refused().await;
    story.relay.pass_on();
    until(&story.client, true).await;
    drop(story.wanted);
    assert_eq!(story.running.await.unwrap(), Withdrawal::Gone);
}

#[tokio::test]
async fn refused_is_not_final_for_what_was_confirmed() {
    let mut story = Story::begin().await;
    story.relay.refuse(ResponseCode::Refused);
    drop(story.wanted);
    story.relay.has_refused().await;
    story.relay.pass_on();
    assert_eq!(story.running.await.unwrap(), Withdrawal::Gone);
    until(&story.client, false).await;
}

#[tokio::test]
async fn a_name_is_resolved_anew_after_a_no() {
    let folder = tempfile::tempdir().unwrap();
    let (server, key_file, key) = server(&folder).await;
    let client = Client::new(server.address(), key);
    // What the name stood for before the server moved.
    let mut old = Relay::before(server.address()).await;
    old.refuse(ResponseCode::NotAuth);
    let named = ServerAddress::Named {
        host: "localhost".to_owned(),
        port: server.address().port(),
    };
    let mut registrar = Registrar::new(registration(), named, key_file);
    registrar.servers = vec![old.address];
    let (wanted, wants) = watch::channel(true);
    let running = tokio::spawn(registrar.run(wants));
    old.has_refused().await;
    until(&client, true).await;
    drop(wanted);
    assert_eq!(running.await.unwrap(), Withdrawal::Gone);
}

#[tokio::test]
async fn a_neighbour_that_does_not_listen_yet_stays() {
    let story = Story::begin().await;
    let neighbour = Registration {
        port: 9.try_into().unwrap(),
        ..registration()
    };
    let file = story.folder.path().join("web.key");
    let at = ServerAddress::At(story.relay.address);
    let (wanted, wants) = watch::channel(true);
    let running = tokio::spawn(Registrar::new(neighbour, at, file).run(wants));
    let both = async {
        let mut seen = false;
        loop {
            let records = story.client.srv(&registration().name).await.unwrap();
            assert!(
                records.contains(&registration().srv()),
                "nobody listens: no reason"
            );
            // Whatever goes after the registration has gone by the second time.
            if records.len() == 2 && std::mem::replace(&mut seen, true) {
                return;
            }
            sleep(LOOK).await;
        }
    };
    timeout(PATIENCE, both).await.unwrap();
    drop(wanted);
    assert_eq!(running.await.unwrap(), Withdrawal::Gone);
    until(&story.client, true).await;
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

#[tokio::test]
async fn registers_where_what_else_there_is_cannot_be_asked() {
    // More than fits into a datagram, and TCP does not get through.
    let folder = tempfile::tempdir().unwrap();
    let (server, key_file, key) = server(&folder).await;
    let client = Client::new(server.address(), key);
    let mut many = Update::new(name("svc.test"));
    for n in 0..60 {
        let data = RData::SRV(srv(1, 9000 + n, "b2.web.svc.test"));
        many.add(Record::from_rdata(registration().name, 1, data));
    }
    client.update(&many).await.unwrap();
    let relay = Relay::before(server.address()).await;
    let (_wanted, wants) = watch::channel(true);
    let registrar = Registrar::new(registration(), ServerAddress::At(relay.address), key_file);
    let running = tokio::spawn(registrar.run(wants));
    let there = async {
        let own = registration().srv();
        while !client
            .srv(&registration().name)
            .await
            .unwrap()
            .contains(&own)
        {
            sleep(LOOK).await;
        }
    };
    timeout(PATIENCE, there).await.expect("it is registered");
    running.abort();
}
