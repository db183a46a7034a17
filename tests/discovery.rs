//! Watched names against a DNS server that misbehaves on command: the answer → action table over
//! real sockets. Waits for conditions with a deadline, never for a fixed time, except where the
//! claim is that something does *not* happen.

#[path = "support/dns.rs"]
mod dns;

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use dns::{DnsServer, Reply, address, address_reply, cname, cname_reply, srv, srv_reply};
use evenkeel::config::{Discover, Family, Lookup, StaticEndpoint};
use evenkeel::discovery::answers::{Answer, SrvAnswer};
use evenkeel::discovery::journal::{Event, Hold};
use evenkeel::discovery::resolver::{Limits, Resolver};
use evenkeel::discovery::system::Servers;
use evenkeel::discovery::watch::{Publication, Subscription, Watches};
use evenkeel::discovery::{Discovered, Offer};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use tokio::time::{Instant, sleep, timeout};

/// The name that most tests watch.
const NAME: &str = "_http._tcp.web.test";

/// Between two questions in tests.
const TICK: Duration = Duration::from_millis(60);

fn lookup(servers: &[SocketAddr]) -> Lookup {
    Lookup {
        servers: servers.to_vec(),
        timeout: Duration::from_millis(150),
        retries: 0,
        interval: Some(TICK),
        min_ttl: Duration::from_millis(100),
        max_ttl: Duration::from_secs(30),
        absent_after: 3,
        shrink_guard: 2,
        max_endpoints: 4096,
        family: Family::Auto,
    }
}

fn watches() -> Watches {
    Watches::new(Vec::new(), Vec::new())
}

fn srv_of(lookup: Lookup) -> Discover {
    Discover::Srv {
        name: NAME.into(),
        lookup,
    }
}

fn watch(watches: &Watches, server: &DnsServer) -> Subscription {
    watches.subscribe(&srv_of(lookup(&[server.address()])))
}

/// Waits until the publication is as wanted.
async fn until(
    subscription: &mut Subscription,
    what: &str,
    wanted: impl Fn(&Publication) -> bool,
) -> Publication {
    let deadline = Instant::now() + Duration::from_secs(8);
    loop {
        let now = subscription.offers.borrow_and_update().clone();
        if wanted(&now) {
            return now;
        }
        let changed = timeout(deadline - Instant::now(), subscription.offers.changed());
        if changed.await.is_err() {
            panic!("never: {what}; now {now:#?}");
        }
    }
}

/// `target address:port priority/weight` of every endpoint, sorted.
fn listed(offer: &Offer) -> Vec<String> {
    let Offer::Endpoints(endpoints) = offer else {
        return Vec::new();
    };
    let line = |d: &Discovered| {
        let socket = d.endpoint.socket();
        format!("{} {socket} {}/{}", d.endpoint.target, d.priority, d.weight)
    };
    let mut lines: Vec<_> = endpoints.iter().map(line).collect();
    lines.sort();
    lines
}

/// Waits until exactly these addresses are offered.
async fn until_addresses(subscription: &mut Subscription, wanted: &[&str]) -> Publication {
    let mut wanted: Vec<SocketAddr> = wanted.iter().map(|a| a.parse().unwrap()).collect();
    wanted.sort();
    let what = format!("{wanted:?}");
    until(subscription, &what, |p| sockets(&p.offer) == wanted).await
}

fn sockets(offer: &Offer) -> Vec<SocketAddr> {
    let Offer::Endpoints(endpoints) = offer else {
        return Vec::new();
    };
    let mut sockets: Vec<_> = endpoints.iter().map(|d| d.endpoint.socket()).collect();
    sockets.sort();
    sockets
}

/// Waits until the server was asked `more` times more.
async fn asked(server: &DnsServer, name: &str, kind: RecordType, more: usize) {
    let from = server.count(name, kind);
    let deadline = Instant::now() + Duration::from_secs(8);
    while server.count(name, kind) < from + more {
        assert!(Instant::now() < deadline, "{name} {kind} is not asked for");
        sleep(Duration::from_millis(5)).await;
    }
}

/// `n` members in one tier with their addresses, 10.0.0.1 and up, port 80.
fn members(n: usize) -> Reply {
    let targets: Vec<_> = (1..=n).map(|n| format!("b{n}.test")).collect();
    let addresses: Vec<_> = (1..=n).map(|n| format!("10.0.0.{n}")).collect();
    let mut answers = Vec::new();
    let mut additionals = Vec::new();
    for (target, ip) in targets.iter().zip(&addresses) {
        answers.push(srv(NAME, 0, (0, 10, 80, target)));
        additionals.push(address(target, 0, ip));
    }
    Reply::Records {
        answers,
        additionals,
    }
}

fn events(watches: &Watches, wanted: impl Fn(&Event) -> bool) -> usize {
    let entries = watches.journal().since(0);
    entries.iter().filter(|e| wanted(&e.event)).count()
}

#[tokio::test]
async fn records_with_glue_are_published_without_another_question() {
    let server = DnsServer::start().await;
    let reply = srv_reply(
        NAME,
        5,
        &[
            (0, 30, 9001, "B1.Test", &["10.0.0.1"]),
            (0, 20, 9002, "b2.test", &["10.0.0.2", "10.0.0.3"]),
            (10, 40, 9003, "b3.test", &["10.0.0.4", "fd00::4"]),
        ],
    );
    server.on(NAME, RecordType::SRV, reply);
    let watches = watches();
    let mut subscription = watch(&watches, &server);
    let published = until(&mut subscription, "four", |p| listed(&p.offer).len() == 4).await;
    assert_eq!(
        listed(&published.offer),
        [
            "b1.test 10.0.0.1:9001 0/30",
            "b2.test 10.0.0.2:9002 0/20",
            "b2.test 10.0.0.3:9002 0/20",
            "b3.test 10.0.0.4:9003 10/40", // auto: A is there, AAAA is not used
        ]
    );
    let Offer::Endpoints(endpoints) = &published.offer else {
        panic!();
    };
    let split = |d: &Discovered| d.split;
    assert_eq!(
        endpoints.iter().map(split).collect::<Vec<_>>(),
        [1, 2, 2, 1]
    );
    assert_eq!(published.ttl, Some(Duration::from_secs(5)));
    assert_eq!(published.server, Some(server.address()));
    assert_eq!((published.stale_since, &published.detail), (None, &None));
    asked(&server, NAME, RecordType::SRV, 2).await;
    let seen = server.seen();
    assert!(seen.iter().all(|s| s.kind == RecordType::SRV), "{seen:?}");
    assert!(seen.iter().all(|s| s.payload == Some(1232)), "{seen:?}");
}

#[tokio::test]
async fn missing_glue_is_looked_up_and_only_that() {
    let server = DnsServer::start().await;
    let reply = srv_reply(
        NAME,
        5,
        &[
            (0, 1, 80, "with.test", &["10.0.0.1"]),
            (0, 1, 80, "without.test", &[]),
            // AAAA glue alone does not tell that there is no A.
            (0, 1, 80, "six.test", &["fd00::6"]),
            (0, 1, 80, "alias.test", &[]),
        ],
    );
    server.on(NAME, RecordType::SRV, reply);
    server.on(
        "without.test",
        RecordType::A,
        address_reply("without.test", 5, &["10.0.0.2"]),
    );
    server.on("six.test", RecordType::A, Reply::NoData(Some(1)));
    // RFC 2782 forbids an alias as a target; people do it nevertheless.
    server.on(
        "alias.test",
        RecordType::A,
        Reply::Records {
            answers: vec![
                cname("alias.test", 5, "real.test"),
                address("real.test", 5, "10.0.0.7"),
            ],
            additionals: vec![],
        },
    );
    let watches = watches();
    let mut subscription = watch(&watches, &server);
    let wanted = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.7:80", "[fd00::6]:80"];
    until_addresses(&mut subscription, &wanted).await;
    assert_eq!(server.count("with.test", RecordType::A), 0);
    assert_eq!(server.count("six.test", RecordType::AAAA), 0);
    assert!(server.count("without.test", RecordType::A) > 0);
}

#[tokio::test]
async fn every_kind_of_failure_keeps_the_last_good_set() {
    let garbage = Reply::Garbage(b"GET / HTTP/1.0\r\n\r\n".to_vec());
    let table = [
        ("SERVFAIL", Reply::Code(ResponseCode::ServFail)),
        ("REFUSED", Reply::Code(ResponseCode::Refused)),
        ("NOTIMP", Reply::Code(ResponseCode::NotImp)),
        ("time-out", Reply::Silence),
        ("garbage", garbage),
        ("one byte", Reply::Garbage(vec![7])),
        ("a broken body under the right id", Reply::BrokenBody),
        ("wrong id", Reply::WrongId(Box::new(members(1)))),
        (
            "another question",
            Reply::OtherQuestion(Box::new(members(1))),
        ),
        ("truncated, TCP closes", Reply::Truncated(None)),
        (
            "truncated, TCP says SERVFAIL",
            Reply::Truncated(Some(Box::new(Reply::Code(ResponseCode::ServFail)))),
        ),
        ("a referral is no NODATA (RFC 2308 2.2)", Reply::Referral),
        (
            "records of another name",
            address_reply("elsewhere.test", 5, &["10.9.9.9"]),
        ),
        ("alias loop", cname_reply(NAME, 0, NAME)),
    ];
    let server = DnsServer::start().await;
    let watches = watches();
    let mut subscription = watch(&watches, &server);
    for (rule, reply) in table {
        server.on(NAME, RecordType::SRV, members(3));
        until(&mut subscription, rule, |p| {
            p.stale_since.is_none() && sockets(&p.offer).len() == 3
        })
        .await;
        let recovered = events(&watches, |e| matches!(e, Event::Recovered { .. }));
        server.on(NAME, RecordType::SRV, reply);
        let stale = until(&mut subscription, rule, |p| p.stale_since.is_some()).await;
        assert_eq!(sockets(&stale.offer).len(), 3, "{rule}");
        assert!(
            stale.detail.is_some() && stale.last_success.is_some(),
            "{rule}"
        );
        // It stays so over further failures, and is told once.
        asked(&server, NAME, RecordType::SRV, 2).await;
        assert_eq!(
            sockets(&subscription.offers.borrow().offer).len(),
            3,
            "{rule}"
        );
        let told = events(&watches, |e| matches!(e, Event::Stale { .. }));
        assert_eq!(told, recovered + 1, "{rule}");
    }
    assert!(watches.snapshot().names[NAME].stale);
    let results: Vec<_> = watches
        .snapshot()
        .lookups
        .into_keys()
        .map(|k| k.result)
        .collect();
    for result in [
        "ok",
        "servfail",
        "refused",
        "timeout",
        "malformed",
        "truncated",
        "error",
    ] {
        assert!(results.contains(&result), "{result} in {results:?}");
    }
}

#[tokio::test]
async fn truncation_without_any_tcp_keeps_the_last_good_set() {
    let server = DnsServer::without_tcp().await;
    server.on(NAME, RecordType::SRV, members(3));
    let watches = watches();
    let mut subscription = watch(&watches, &server);
    until_addresses(
        &mut subscription,
        &["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"],
    )
    .await;
    server.on(NAME, RecordType::SRV, Reply::Truncated(None));
    let stale = until(&mut subscription, "stale", |p| p.stale_since.is_some()).await;
    assert_eq!(sockets(&stale.offer).len(), 3);
    assert!(stale.detail.unwrap().contains("truncated"));
}

#[tokio::test]
async fn five_hundred_records_come_over_tcp() {
    let targets: Vec<_> = (0..500).map(|n| format!("b{n}.test")).collect();
    let mut answers = Vec::new();
    let mut additionals = Vec::new();
    for (n, target) in targets.iter().enumerate() {
        answers.push(srv(NAME, 30, (0, n as u16, 80, target)));
        let ip = format!("10.1.{}.{}", n / 250, n % 250 + 1);
        additionals.push(address(target, 30, &ip));
    }
    let server = DnsServer::start().await;
    let reply = Reply::Records {
        answers: answers.clone(),
        additionals,
    };
    server.on(
        NAME,
        RecordType::SRV,
        Reply::Truncated(Some(Box::new(reply))),
    );
    let watches = watches();
    let mut subscription = watch(&watches, &server);
    until(&mut subscription, "500", |p| sockets(&p.offer).len() == 500).await;
    assert!(server.seen().iter().any(|s| s.tcp));
    // Five hundred that joined are one event, not five hundred.
    let joined = |e: &Event| matches!(e, Event::Joined { .. });
    assert_eq!(events(&watches, joined), 0);
    let many = |e: &Event| matches!(e, Event::Many { joined: 500, .. });
    assert_eq!(events(&watches, many), 1);
}

#[tokio::test]
async fn five_hundred_targets_without_glue_are_asked_for_with_a_bound() {
    let server = DnsServer::start().await;
    let mut answers = Vec::new();
    for n in 0..500 {
        let target = format!("b{n}.test");
        answers.push(srv(NAME, 30, (0, 1, 80, &target)));
        let ip = format!("10.1.{}.{}", n / 250, n % 250 + 1);
        let reply = address_reply(&target, 30, &[&ip]);
        server.on(&target, RecordType::A, reply);
    }
    let reply = Reply::Records {
        answers,
        additionals: vec![],
    };
    server.on(NAME, RecordType::SRV, reply);
    let watches = watches();
    let lookup = Lookup {
        interval: None,
        ..lookup(&[server.address()])
    };
    let mut subscription = watches.subscribe(&srv_of(lookup));
    until(&mut subscription, "500", |p| sockets(&p.offer).len() == 500).await;
    let stats = watches.snapshot();
    assert!(stats.in_flight_high <= 64, "{}", stats.in_flight_high);
    assert!(stats.in_flight_high > 8, "{}", stats.in_flight_high);
}

#[tokio::test]
async fn nxdomain_and_nodata_are_believed_after_absent_after() {
    for (rule, nothing) in [
        ("NXDOMAIN without SOA", Reply::NxDomain(None)),
        ("NXDOMAIN with TTL 0", Reply::NxDomain(Some(0))),
        ("NODATA", Reply::NoData(None)),
        ("NODATA with TTL 0", Reply::NoData(Some(0))),
    ] {
        let server = DnsServer::start().await;
        server.on(NAME, RecordType::SRV, members(3));
        let watches = watches();
        let mut subscription = watch(&watches, &server);
        until(&mut subscription, rule, |p| sockets(&p.offer).len() == 3).await;
        let before = server.count(NAME, RecordType::SRV);
        server.on(NAME, RecordType::SRV, nothing);
        let held = until(&mut subscription, rule, |p| p.held.is_some()).await;
        assert_eq!(sockets(&held.offer).len(), 3, "{rule}");
        assert_eq!(held.stale_since, None, "{rule}: it is an answer");
        until(&mut subscription, rule, |p| p.offer == Offer::Absent).await;
        let answers = server.count(NAME, RecordType::SRV) - before;
        assert!(answers >= 3, "{rule}: {answers}");
        server.on(NAME, RecordType::SRV, members(1));
        until_addresses(&mut subscription, &["10.0.0.1:80"]).await;
    }
}

#[tokio::test]
async fn one_nxdomain_among_answers_removes_nobody() {
    let server = DnsServer::start().await;
    server.on(NAME, RecordType::SRV, members(3));
    let watches = watches();
    let mut subscription = watch(&watches, &server);
    until(&mut subscription, "three", |p| sockets(&p.offer).len() == 3).await;
    for _ in 0..3 {
        server.on(NAME, RecordType::SRV, Reply::NxDomain(None));
        let absent = |p: &Publication| matches!(p.held, Some(Hold::Absent { seen: 1, .. }));
        until(&mut subscription, "held", absent).await;
        server.on(NAME, RecordType::SRV, members(3));
        until(&mut subscription, "let go", |p| p.held.is_none()).await;
    }
    assert_eq!(events(&watches, |e| matches!(e, Event::Left { .. })), 0);
}

#[tokio::test]
async fn a_confirmation_counts_only_when_it_is_a_new_answer() {
    let server = DnsServer::start().await;
    server.on(NAME, RecordType::SRV, members(2));
    let watches = watches();
    let lookup = Lookup {
        absent_after: 2,
        ..lookup(&[server.address()])
    };
    let mut subscription = watches.subscribe(&srv_of(lookup));
    until(&mut subscription, "two", |p| sockets(&p.offer).len() == 2).await;
    // Asked every 60 ms, a cache would repeat the same NXDOMAIN for a second.
    server.on(NAME, RecordType::SRV, Reply::NxDomain(Some(1)));
    until(&mut subscription, "held", |p| p.held.is_some()).await;
    let since = Instant::now();
    until(&mut subscription, "absent", |p| p.offer == Offer::Absent).await;
    let took = since.elapsed();
    assert!(took >= Duration::from_millis(900), "{took:?}");
}

#[tokio::test]
async fn the_target_dot_is_believed_at_once() {
    let server = DnsServer::start().await;
    server.on(NAME, RecordType::SRV, members(3));
    let watches = watches();
    let mut subscription = watch(&watches, &server);
    until(&mut subscription, "three", |p| sockets(&p.offer).len() == 3).await;
    server.on(
        NAME,
        RecordType::SRV,
        srv_reply(NAME, 0, &[(0, 0, 0, ".", &[])]),
    );
    let gone = until(&mut subscription, "gone", |p| sockets(&p.offer).is_empty()).await;
    assert_eq!(gone.offer, Offer::Absent);
    assert_eq!(events(&watches, |e| matches!(e, Event::HeldBack { .. })), 0);
    assert_eq!(
        server.count(".", RecordType::A) + server.count("", RecordType::A),
        0
    );
}

#[tokio::test]
async fn a_name_that_never_was_is_absent_at_the_first_answer() {
    let server = DnsServer::start().await;
    server.on(NAME, RecordType::SRV, Reply::NxDomain(Some(30)));
    let watches = watches();
    let mut subscription = watch(&watches, &server);
    until(&mut subscription, "absent", |p| p.offer == Offer::Absent).await;
    server.on(NAME, RecordType::SRV, members(1));
    until_addresses(&mut subscription, &["10.0.0.1:80"]).await;
}

#[tokio::test]
async fn a_larger_removal_is_believed_after_two_answers_a_smaller_one_at_once() {
    let server = DnsServer::start().await;
    server.on(NAME, RecordType::SRV, members(4));
    let watches = watches();
    let mut subscription = watch(&watches, &server);
    until(&mut subscription, "four", |p| sockets(&p.offer).len() == 4).await;
    server.on(NAME, RecordType::SRV, members(2));
    until(&mut subscription, "half", |p| sockets(&p.offer).len() == 2).await;
    assert_eq!(events(&watches, |e| matches!(e, Event::HeldBack { .. })), 0);
    // A whole replacement: the new one joins at once, the old ones go one answer later.
    let replaced = srv_reply(NAME, 0, &[(0, 1, 80, "new.test", &["10.0.1.1"])]);
    server.on(NAME, RecordType::SRV, replaced);
    let both = until(&mut subscription, "union", |p| sockets(&p.offer).len() == 3).await;
    assert!(matches!(
        both.held,
        Some(Hold::Shrink { seen: 1, needed: 2 })
    ));
    let alone = until_addresses(&mut subscription, &["10.0.1.1:80"]).await;
    assert_eq!(alone.held, None);
    assert_eq!(events(&watches, |e| matches!(e, Event::HeldBack { .. })), 1);
}

#[tokio::test]
async fn a_failed_connect_ends_the_hold_for_that_backend() {
    let server = DnsServer::start().await;
    server.on(NAME, RecordType::SRV, members(3));
    let watches = watches();
    let lookup = Lookup {
        absent_after: 200,
        ..lookup(&[server.address()])
    };
    let mut subscription = watches.subscribe(&srv_of(lookup));
    until(&mut subscription, "three", |p| sockets(&p.offer).len() == 3).await;
    server.on(NAME, RecordType::SRV, Reply::NxDomain(None));
    until(&mut subscription, "held", |p| p.held.is_some()).await;
    subscription.connect_failed("10.0.0.2:80".parse().unwrap());
    until_addresses(&mut subscription, &["10.0.0.1:80", "10.0.0.3:80"]).await;
    subscription.connect_failed("10.9.9.9:80".parse().unwrap());
    asked(&server, NAME, RecordType::SRV, 1).await;
    assert_eq!(sockets(&subscription.offers.borrow().offer).len(), 2);
}

#[tokio::test]
async fn failing_backends_do_not_count_as_working_for_the_shrink_guard() {
    let server = DnsServer::start().await;
    server.on(NAME, RecordType::SRV, members(4));
    let watches = watches();
    let mut subscription = watch(&watches, &server);
    until(&mut subscription, "four", |p| sockets(&p.offer).len() == 4).await;
    for dead in ["10.0.0.2:80", "10.0.0.3:80", "10.0.0.4:80"] {
        subscription.connect_failed(dead.parse().unwrap());
    }
    // Listed still, so they stay.
    asked(&server, NAME, RecordType::SRV, 2).await;
    assert_eq!(sockets(&subscription.offers.borrow().offer).len(), 4);
    server.on(NAME, RecordType::SRV, members(1));
    until_addresses(&mut subscription, &["10.0.0.1:80"]).await;
    assert_eq!(events(&watches, |e| matches!(e, Event::HeldBack { .. })), 0);
}

#[tokio::test]
async fn weights_and_priorities_change_in_place_and_order_means_nothing() {
    let server = DnsServer::start().await;
    let one = [
        (0, 30, 80, "b1.test", &["10.0.0.1"][..]),
        (0, 20, 80, "b2.test", &["10.0.0.2"][..]),
    ];
    server.on(NAME, RecordType::SRV, srv_reply(NAME, 0, &one));
    let watches = watches();
    let mut subscription = watch(&watches, &server);
    until(&mut subscription, "two", |p| sockets(&p.offer).len() == 2).await;
    server.on(NAME, RecordType::SRV, srv_reply(NAME, 0, &[one[1], one[0]]));
    asked(&server, NAME, RecordType::SRV, 2).await;
    let later = watches.journal().since(2);
    assert!(
        later.is_empty(),
        "a shuffled answer changes nothing: {later:?}"
    );
    let two = [
        (0, 15, 80, "b1.test", &["10.0.0.1"][..]),
        (7, 20, 80, "b2.test", &["10.0.0.2"][..]),
    ];
    server.on(NAME, RecordType::SRV, srv_reply(NAME, 0, &two));
    let changed = ["b1.test 10.0.0.1:80 0/15", "b2.test 10.0.0.2:80 7/20"];
    until(&mut subscription, "new terms", |p| {
        listed(&p.offer) == changed
    })
    .await;
    let reweighted = |e: &Event| matches!(e, Event::Reweighted { .. });
    assert_eq!(events(&watches, reweighted), 2);
    assert_eq!(events(&watches, |e| matches!(e, Event::Left { .. })), 0);
    assert_eq!(watches.snapshot().names[NAME].reweighted, 2);
}

#[tokio::test]
async fn a_target_never_resolved_waits_alone_and_the_others_are_published_at_once() {
    for (rule, reply) in [
        ("silence", Reply::Silence),
        ("SERVFAIL", Reply::Code(ResponseCode::ServFail)),
        ("NXDOMAIN", Reply::NxDomain(None)),
    ] {
        let server = DnsServer::start().await;
        let both = [
            (0, 1, 80, "b1.test", &["10.0.0.1"][..]),
            (0, 1, 80, "lost.test", &[][..]),
        ];
        server.on(NAME, RecordType::SRV, srv_reply(NAME, 0, &both));
        server.otherwise(reply);
        let watches = watches();
        let lookup = Lookup {
            timeout: Duration::from_secs(2),
            ..lookup(&[server.address()])
        };
        let start = Instant::now();
        let mut subscription = watches.subscribe(&srv_of(lookup));
        until_addresses(&mut subscription, &["10.0.0.1:80"]).await;
        let took = start.elapsed();
        assert!(took < Duration::from_millis(500), "{rule}: {took:?}");
        server.on(
            "lost.test",
            RecordType::A,
            address_reply("lost.test", 0, &["10.0.0.9"]),
        );
        until_addresses(&mut subscription, &["10.0.0.1:80", "10.0.0.9:80"]).await;
    }
}

#[tokio::test]
async fn a_target_whose_lookup_fails_keeps_its_last_addresses() {
    let server = DnsServer::start().await;
    let both = [
        (0, 1, 80, "b1.test", &["10.0.0.1"][..]),
        (0, 1, 80, "b2.test", &[][..]),
    ];
    server.on(NAME, RecordType::SRV, srv_reply(NAME, 0, &both));
    server.on(
        "b2.test",
        RecordType::A,
        address_reply("b2.test", 0, &["10.0.0.2"]),
    );
    let watches = watches();
    let mut subscription = watch(&watches, &server);
    until_addresses(&mut subscription, &["10.0.0.1:80", "10.0.0.2:80"]).await;
    for (rule, reply) in [
        ("SERVFAIL", Reply::Code(ResponseCode::ServFail)),
        ("silence", Reply::Silence),
    ] {
        server.on("b2.test", RecordType::A, reply);
        asked(&server, "b2.test", RecordType::A, 3).await;
        until(&mut subscription, rule, |p| p.detail.is_some()).await;
        let now = subscription.offers.borrow().clone();
        assert_eq!(sockets(&now.offer).len(), 2, "{rule}");
        assert_eq!(now.stale_since, None, "{rule}: the name itself is answered");
    }
    // Another address is another endpoint, and the old one goes.
    server.on(
        "b2.test",
        RecordType::A,
        address_reply("b2.test", 0, &["10.0.0.3"]),
    );
    until_addresses(&mut subscription, &["10.0.0.1:80", "10.0.0.3:80"]).await;
    assert_eq!(subscription.offers.borrow().detail, None);
    // "It has no address", three times, is believed.
    server.on("b2.test", RecordType::A, Reply::NxDomain(None));
    until_addresses(&mut subscription, &["10.0.0.1:80"]).await;
}

#[tokio::test]
async fn an_answer_of_unresolved_targets_only_does_not_empty_the_service() {
    let server = DnsServer::start().await;
    server.on(NAME, RecordType::SRV, members(2));
    let watches = watches();
    let mut subscription = watch(&watches, &server);
    until(&mut subscription, "two", |p| sockets(&p.offer).len() == 2).await;
    server.otherwise(Reply::Code(ResponseCode::ServFail));
    let lost = srv_reply(NAME, 0, &[(0, 1, 80, "lost.test", &[])]);
    server.on(NAME, RecordType::SRV, lost);
    until(&mut subscription, "held", |p| {
        p.held == Some(Hold::Unresolved)
    })
    .await;
    asked(&server, NAME, RecordType::SRV, 4).await;
    assert_eq!(sockets(&subscription.offers.borrow().offer).len(), 2);
    server.on(
        "lost.test",
        RecordType::A,
        address_reply("lost.test", 0, &["10.0.0.9"]),
    );
    until_addresses(&mut subscription, &["10.0.0.9:80"]).await;
}

#[tokio::test]
async fn records_that_cannot_be_used_are_rejected_with_a_reason() {
    let server = DnsServer::start().await;
    let reply = srv_reply(
        NAME,
        0,
        &[
            (0, 1, 80, "b1.test", &["10.0.0.1"]),
            (0, 1, 0, "b2.test", &["10.0.0.2"]),
            (0, 1, 80, "10.0.0.3", &[]),
            (0, 1, 80, "b d.test", &[]),
            (0, 1, 80, ".", &[]),
            (0, 1, 80, "meta.test", &["169.254.169.254"]),
            (0, 1, 8443, "self.test", &["10.0.0.5"]),
            (1, 1, 80, "spare1.test", &["10.0.0.6"]),
            (1, 1, 80, "spare2.test", &["10.0.0.7"]),
        ],
    );
    server.on(NAME, RecordType::SRV, reply);
    let watches = Watches::new(vec!["10.0.0.5:8443".parse().unwrap()], vec![]);
    let lookup = Lookup {
        max_endpoints: 2,
        ..lookup(&[server.address()])
    };
    let mut subscription = watches.subscribe(&srv_of(lookup));
    until_addresses(&mut subscription, &["10.0.0.1:80", "10.0.0.6:80"]).await;
    asked(&server, NAME, RecordType::SRV, 2).await;
    assert_eq!(watches.snapshot().names[NAME].rejected, 7);
    let told = events(&watches, |e| matches!(e, Event::Rejected { .. }));
    assert_eq!(told, 5, "told once, and not all of them");
    // Asking for nothing that would be thrown away.
    assert_eq!(server.count("10.0.0.3", RecordType::A), 0);
}

#[tokio::test]
async fn admission_can_change_while_it_runs() {
    let server = DnsServer::start().await;
    let both = [
        (0, 1, 80, "b1.test", &["10.0.0.1"][..]),
        (0, 1, 80, "b2.test", &["169.254.7.7"][..]),
    ];
    server.on(NAME, RecordType::SRV, srv_reply(NAME, 30, &both));
    let watches = watches();
    let slow = Lookup {
        interval: None,
        ..lookup(&[server.address()])
    };
    let mut subscription = watches.subscribe(&srv_of(slow));
    until_addresses(&mut subscription, &["10.0.0.1:80"]).await;
    watches.set_admission(vec![], vec!["169.254.7.0/24".parse().unwrap()]);
    until_addresses(&mut subscription, &["10.0.0.1:80", "169.254.7.7:80"]).await;
    assert_eq!(server.count(NAME, RecordType::SRV), 1);
}

#[tokio::test]
async fn aliases_lead_to_records() {
    let glue = || vec![address("b1.test", 0, "10.0.0.1")];
    let record = |owner: &str| srv(owner, 0, (0, 1, 80, "b1.test"));
    // The alias and the records in one answer: hickory's Resolver calls that NODATA.
    let server = DnsServer::start().await;
    let answers = vec![cname(NAME, 0, "real.test"), record("real.test")];
    let additionals = glue();
    let reply = Reply::Records {
        answers,
        additionals,
    };
    server.on(NAME, RecordType::SRV, reply);
    let watches = watches();
    let mut subscription = watch(&watches, &server);
    until_addresses(&mut subscription, &["10.0.0.1:80"]).await;
    assert_eq!(server.count("real.test", RecordType::SRV), 0);

    // One answer for each step, eight steps.
    let server = DnsServer::start().await;
    let chain = |n: usize| match n {
        0 => NAME.to_owned(),
        n => format!("c{n}.test"),
    };
    for n in 0..8 {
        let reply = cname_reply(&chain(n), 0, &chain(n + 1));
        server.on(&chain(n), RecordType::SRV, reply);
    }
    let end = Reply::Records {
        answers: vec![record("c8.test")],
        additionals: glue(),
    };
    server.on("c8.test", RecordType::SRV, end.clone());
    let mut subscription = watch(&watches, &server);
    until_addresses(&mut subscription, &["10.0.0.1:80"]).await;
    assert!(server.count("c8.test", RecordType::SRV) > 0);

    // Nine are too many, and keep what is there.
    server.on(
        "c8.test",
        RecordType::SRV,
        cname_reply("c8.test", 0, "c9.test"),
    );
    server.on("c9.test", RecordType::SRV, end);
    let stale = until(&mut subscription, "stale", |p| p.stale_since.is_some()).await;
    assert_eq!(sockets(&stale.offer).len(), 1);
    assert!(stale.detail.unwrap().contains("CNAME"));

    // An alias to a name that is not there (RFC 6604: the code is that of the end).
    server.on(NAME, RecordType::SRV, cname_reply(NAME, 0, "nix.test"));
    until(&mut subscription, "absent", |p| p.offer == Offer::Absent).await;
}

#[tokio::test]
async fn a_server_without_edns_is_asked_without() {
    let server = DnsServer::start().await;
    let reply = Reply::NoEdns(Box::new(members(2)));
    server.on(NAME, RecordType::SRV, reply);
    let watches = watches();
    let mut subscription = watch(&watches, &server);
    until(&mut subscription, "two", |p| sockets(&p.offer).len() == 2).await;
}

#[tokio::test]
async fn only_nothing_moves_on_along_the_search_list() {
    let server = DnsServer::start().await;
    let servers = Servers {
        addresses: vec![server.address()],
        search: vec![dns::absolute("a.test"), dns::absolute("b.test")],
        ndots: 5,
        hosts_file: None,
    };
    let lookup = lookup(&[]);
    let limits = Arc::<Limits>::default();
    let resolver = Resolver::with_servers(
        "_x._tcp.web".into(),
        &lookup,
        servers,
        limits,
        Arc::default(),
    );
    let found = |name: &str| srv_reply(name, 5, &[(0, 1, 80, "b1.test", &["10.0.0.1"])]);
    let name_of = |answer| match answer {
        Ok(Answer::Found(found)) => {
            let SrvAnswer { origin, .. } = found;
            origin.name.to_string()
        }
        Ok(Answer::Nothing(negative)) => format!("nothing, exists: {}", negative.name_exists),
        Err(error) => format!("error: {error}"),
    };
    let nothing = Reply::NxDomain(Some(5));
    server.only(nothing.clone());
    let all = "_x._tcp.web";
    let (a, b) = ("_x._tcp.web.a.test", "_x._tcp.web.b.test");
    assert_eq!(name_of(resolver.srv(all).await), "nothing, exists: false");
    let order: Vec<_> = server.seen().into_iter().map(|seen| seen.name).collect();
    assert_eq!(order, [a, b, all]);
    server.on(a, RecordType::SRV, Reply::NoData(Some(5)));
    assert_eq!(name_of(resolver.srv(all).await), "nothing, exists: true");
    server.on(b, RecordType::SRV, found(b));
    assert_eq!(name_of(resolver.srv(all).await), b);
    server.on(a, RecordType::SRV, Reply::Code(ResponseCode::ServFail));
    let failed = name_of(resolver.srv(all).await);
    assert!(failed.contains("Server Failure"), "{failed}");
    let before = server.seen().len();
    assert_eq!(
        name_of(resolver.srv("_x._tcp.web.").await),
        "nothing, exists: false"
    );
    assert_eq!(
        server.seen().len(),
        before + 1,
        "a final dot skips the list"
    );
}

#[tokio::test]
async fn hundreds_of_silent_targets_delay_nobody_else() {
    let server = DnsServer::start().await;
    let bad = "_bad._tcp.test";
    let answers = (0..400).map(|n| srv(bad, 0, (0, 1, 80, &format!("s{n}.test"))));
    let reply = Reply::Records {
        answers: answers.collect(),
        additionals: vec![],
    };
    server.on(bad, RecordType::SRV, reply);
    server.otherwise(Reply::Silence);
    server.on(
        NAME,
        RecordType::SRV,
        srv_reply(NAME, 0, &[(0, 1, 80, "b1.test", &[])]),
    );
    server.on(
        "b1.test",
        RecordType::A,
        address_reply("b1.test", 0, &["10.0.0.1"]),
    );
    let watches = watches();
    let slow = Lookup {
        timeout: Duration::from_secs(1),
        ..lookup(&[server.address()])
    };
    let _bad = watches.subscribe(&Discover::Srv {
        name: bad.into(),
        lookup: slow.clone(),
    });
    asked(&server, "s0.test", RecordType::A, 1).await;
    let start = Instant::now();
    let mut good = watches.subscribe(&srv_of(slow));
    until_addresses(&mut good, &["10.0.0.1:80"]).await;
    let took = start.elapsed();
    assert!(took < Duration::from_millis(500), "{took:?}");
}

#[tokio::test]
async fn the_next_server_is_asked_when_one_fails() {
    let closed = {
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.local_addr().unwrap()
    };
    let second = DnsServer::start().await;
    second.on(NAME, RecordType::SRV, members(2));
    for (rule, reply) in [
        ("SERVFAIL", Reply::Code(ResponseCode::ServFail)),
        ("REFUSED", Reply::Code(ResponseCode::Refused)),
        ("silence", Reply::Silence),
        ("truncated without TCP", Reply::Truncated(None)),
        ("broken", Reply::BrokenBody),
        ("referral", Reply::Referral),
    ] {
        let first = DnsServer::without_tcp().await;
        first.only(reply);
        let watches = watches();
        let lookup = lookup(&[first.address(), second.address()]);
        let mut subscription = watches.subscribe(&srv_of(lookup));
        let published = until(&mut subscription, rule, |p| sockets(&p.offer).len() == 2).await;
        assert_eq!(published.server, Some(second.address()), "{rule}");
        assert_eq!(published.stale_since, None, "{rule}");
        // Ten rounds: it does not stick to the failing one.
        asked(&second, NAME, RecordType::SRV, 10).await;
        assert_eq!(
            events(&watches, |e| matches!(e, Event::Stale { .. })),
            0,
            "{rule}"
        );
    }
    let watches = watches();
    let servers = lookup(&[closed, second.address()]);
    let mut subscription = watches.subscribe(&srv_of(servers));
    until(&mut subscription, "closed", |p| {
        sockets(&p.offer).len() == 2
    })
    .await;

    // NXDOMAIN is an answer: nobody else is asked.
    let first = DnsServer::start().await;
    let servers = lookup(&[first.address(), second.address()]);
    let before = second.count(NAME, RecordType::SRV);
    drop(subscription);
    let mut subscription = watches.subscribe(&srv_of(servers));
    until(&mut subscription, "absent", |p| p.offer == Offer::Absent).await;
    assert!(second.count(NAME, RecordType::SRV) <= before + 1);
}

#[tokio::test]
async fn a_silent_first_server_slows_only_the_first_round() {
    let first = DnsServer::start().await;
    first.only(Reply::Silence);
    let second = DnsServer::start().await;
    second.on(NAME, RecordType::SRV, members(2));
    let watches = watches();
    let slow = Lookup {
        timeout: Duration::from_millis(400),
        ..lookup(&[first.address(), second.address()])
    };
    let mut subscription = watches.subscribe(&srv_of(slow));
    until(&mut subscription, "two", |p| sockets(&p.offer).len() == 2).await;
    let start = Instant::now();
    asked(&second, NAME, RecordType::SRV, 5).await;
    let took = start.elapsed();
    assert!(took < Duration::from_millis(1200), "{took:?}");
}

#[tokio::test]
async fn a_first_server_that_dies_changes_nothing() {
    let first = DnsServer::start().await;
    let second = DnsServer::start().await;
    first.on(NAME, RecordType::SRV, members(2));
    second.on(NAME, RecordType::SRV, members(3));
    let watches = watches();
    let servers = lookup(&[first.address(), second.address()]);
    let mut subscription = watches.subscribe(&srv_of(servers));
    until(&mut subscription, "two", |p| sockets(&p.offer).len() == 2).await;
    drop(first);
    until(&mut subscription, "three", |p| sockets(&p.offer).len() == 3).await;
    assert_eq!(events(&watches, |e| matches!(e, Event::Left { .. })), 0);
}

#[tokio::test]
async fn it_starts_when_dns_is_down() {
    let address = {
        let server = DnsServer::start().await;
        server.address()
    };
    let watches = watches();
    let mut subscription = watches.subscribe(&srv_of(lookup(&[address])));
    let down = until(&mut subscription, "stale", |p| p.stale_since.is_some()).await;
    assert_eq!((down.offer, down.last_success), (Offer::Pending, None));
    let server = DnsServer::at(address).await;
    server.on(NAME, RecordType::SRV, members(1));
    until_addresses(&mut subscription, &["10.0.0.1:80"]).await;
}

#[tokio::test]
async fn one_task_however_many_services_and_none_after_the_last() {
    let server = DnsServer::start().await;
    server.on(NAME, RecordType::SRV, members(2));
    let watches = watches();
    let slow = Lookup {
        interval: Some(Duration::from_millis(300)),
        ..lookup(&[server.address()])
    };
    let mut first = watches.subscribe(&srv_of(slow.clone()));
    let mut second = watches.subscribe(&srv_of(slow.clone()));
    until(&mut first, "two", |p| sockets(&p.offer).len() == 2).await;
    until(&mut second, "two", |p| sockets(&p.offer).len() == 2).await;
    assert_eq!(server.count(NAME, RecordType::SRV), 1);
    drop(first);
    // A late subscriber has the publication at hand.
    let third = watches.subscribe(&srv_of(slow));
    assert_eq!(sockets(&third.offers.borrow().offer).len(), 2);
    asked(&server, NAME, RecordType::SRV, 1).await;
    drop((second, third));
    let deadline = Instant::now() + Duration::from_secs(5);
    while !watches.snapshot().names.is_empty() {
        assert!(Instant::now() < deadline, "the task goes on");
        sleep(Duration::from_millis(10)).await;
    }
    let count = server.count(NAME, RecordType::SRV);
    sleep(Duration::from_millis(700)).await;
    assert_eq!(server.count(NAME, RecordType::SRV), count);
}

#[tokio::test]
async fn failed_connects_ask_early_and_not_often() {
    let server = DnsServer::start().await;
    server.on(NAME, RecordType::SRV, members(2));
    let watches = watches();
    let slow = Lookup {
        interval: Some(Duration::from_secs(60)),
        ..lookup(&[server.address()])
    };
    let mut subscription = watches.subscribe(&srv_of(slow));
    until(&mut subscription, "two", |p| sockets(&p.offer).len() == 2).await;
    let start = Instant::now();
    for _ in 0..1000 {
        subscription.connect_failed("10.0.0.2:80".parse().unwrap());
    }
    server.on(NAME, RecordType::SRV, members(1));
    until_addresses(&mut subscription, &["10.0.0.1:80"]).await;
    assert!(start.elapsed() >= Duration::from_millis(900));
    assert_eq!(server.count(NAME, RecordType::SRV), 2);
}

#[tokio::test]
async fn ttl_zero_is_clamped() {
    let server = DnsServer::start().await;
    server.on(NAME, RecordType::SRV, members(1));
    let watches = watches();
    let by_ttl = Lookup {
        interval: None,
        min_ttl: Duration::from_millis(200),
        ..lookup(&[server.address()])
    };
    let mut subscription = watches.subscribe(&srv_of(by_ttl));
    until(&mut subscription, "one", |p| sockets(&p.offer).len() == 1).await;
    sleep(Duration::from_secs(1)).await;
    let asked = server.count(NAME, RecordType::SRV);
    assert!((4..=7).contains(&asked), "{asked}");
}

#[tokio::test]
async fn the_ttl_sets_the_pace_down_to_that_of_the_glue() {
    let server = DnsServer::start().await;
    let reply = Reply::Records {
        answers: vec![srv(NAME, 3600, (0, 1, 80, "b1.test"))],
        additionals: vec![address("b1.test", 1, "10.0.0.1")],
    };
    server.on(NAME, RecordType::SRV, reply);
    let watches = watches();
    let by_ttl = Lookup {
        interval: None,
        ..lookup(&[server.address()])
    };
    let mut subscription = watches.subscribe(&srv_of(by_ttl));
    until(&mut subscription, "one", |p| sockets(&p.offer).len() == 1).await;
    let start = Instant::now();
    asked(&server, NAME, RecordType::SRV, 1).await;
    let took = start.elapsed();
    let (least, most) = (Duration::from_millis(850), Duration::from_millis(1300));
    assert!(took > least && took < most, "{took:?}");
}

fn by_address(name: &str, lookup: Lookup) -> Discover {
    Discover::Address {
        name: name.into(),
        port: NonZeroU16::new(8080).unwrap(),
        lookup,
    }
}

#[tokio::test]
async fn addresses_by_family() {
    let server = DnsServer::start().await;
    let two = ["10.0.0.1", "10.0.0.2"];
    server.on(
        "web.test",
        RecordType::A,
        address_reply("web.test", 600, &two),
    );
    server.on(
        "web.test",
        RecordType::AAAA,
        address_reply("web.test", 600, &["fd00::1"]),
    );
    server.on("six.test", RecordType::A, Reply::NoData(Some(5)));
    server.on(
        "six.test",
        RecordType::AAAA,
        address_reply("six.test", 5, &["fd00::6"]),
    );
    server.on(
        "quiet.test",
        RecordType::A,
        address_reply("quiet.test", 5, &["10.0.0.9"]),
    );
    server.on("quiet.test", RecordType::AAAA, Reply::Silence);
    let four: &[&str] = &["10.0.0.1:8080", "10.0.0.2:8080"];
    let six: &[&str] = &["[fd00::1]:8080"];
    let both: &[&str] = &["10.0.0.1:8080", "10.0.0.2:8080", "[fd00::1]:8080"];
    let table = [
        ("auto takes A", "web.test", Family::Auto, four),
        ("v4", "web.test", Family::V4, four),
        ("v6", "web.test", Family::V6, six),
        ("both", "web.test", Family::Both, both),
        (
            "auto takes AAAA where there is no A",
            "six.test",
            Family::Auto,
            &["[fd00::6]:8080"],
        ),
        (
            "auto does not wait for AAAA",
            "quiet.test",
            Family::Auto,
            &["10.0.0.9:8080"],
        ),
        (
            "both takes what it gets",
            "quiet.test",
            Family::Both,
            &["10.0.0.9:8080"],
        ),
    ];
    for (rule, name, family, wanted) in table {
        let lookup = Lookup {
            family,
            timeout: Duration::from_secs(1),
            ..lookup(&[server.address()])
        };
        let start = Instant::now();
        let mut subscription = watches().subscribe(&by_address(name, lookup));
        let published = until_addresses(&mut subscription, wanted).await;
        let Offer::Endpoints(endpoints) = &published.offer else {
            panic!("{rule}");
        };
        for d in endpoints.iter() {
            assert_eq!((d.priority, d.weight, d.split), (0, 1, 1), "{rule}");
            assert_eq!(&*d.endpoint.target, name, "{rule}");
        }
        if family == Family::Auto {
            assert!(start.elapsed() < Duration::from_millis(500), "{rule}");
        }
    }
}

#[tokio::test]
async fn address_answers_go_by_the_same_table() {
    let server = DnsServer::start().await;
    let name = "web.test";
    let full = address_reply(name, 0, &["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    server.on(name, RecordType::A, full.clone());
    let watches = watches();
    let servers = lookup(&[server.address()]);
    let mut subscription = watches.subscribe(&by_address(name, servers));
    until(&mut subscription, "three", |p| sockets(&p.offer).len() == 3).await;
    server.on(name, RecordType::A, Reply::Code(ResponseCode::ServFail));
    let stale = until(&mut subscription, "stale", |p| p.stale_since.is_some()).await;
    assert_eq!(sockets(&stale.offer).len(), 3);
    server.on(name, RecordType::A, address_reply(name, 0, &["10.0.0.1"]));
    let shrunk = |p: &Publication| matches!(p.held, Some(Hold::Shrink { .. }));
    let held = until(&mut subscription, "held", shrunk).await;
    assert_eq!(sockets(&held.offer).len(), 3);
    until_addresses(&mut subscription, &["10.0.0.1:8080"]).await;
    server.on(name, RecordType::A, Reply::NxDomain(None));
    until(&mut subscription, "held", |p| p.held.is_some()).await;
    until(&mut subscription, "absent", |p| p.offer == Offer::Absent).await;
}

#[tokio::test]
async fn what_the_configuration_lists_is_there_at_once() {
    let watches = Watches::new(vec!["10.0.0.1:80".parse().unwrap()], vec![]);
    let endpoint = |address: &str, priority, weight| StaticEndpoint {
        address: address.parse().unwrap(),
        priority,
        weight,
    };
    let written = vec![
        endpoint("10.0.0.1:80", 0, 30),
        endpoint("127.0.0.1:80", 10, 40),
    ];
    let subscription = watches.subscribe(&Discover::Static(written));
    let published = subscription.offers.borrow().clone();
    assert_eq!(
        listed(&published.offer),
        ["10.0.0.1 10.0.0.1:80 0/30", "127.0.0.1 127.0.0.1:80 10/40"]
    );
    subscription.connect_failed("10.0.0.1:80".parse().unwrap());
    assert!(!subscription.offers.has_changed().unwrap());

    let mut literal = watches.subscribe(&by_address("192.0.2.7", lookup(&[])));
    until_addresses(&mut literal, &["192.0.2.7:8080"]).await;
}
