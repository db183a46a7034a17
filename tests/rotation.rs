//! Servers that show a part of a larger set, another one with each answer: as Consul does without
//! EDNS (3 of 20, with addresses) and AWS Cloud Map (8 of 40, without); and as Consul does with EDNS
//! (as many as fit UDP, without TC).
//!
//! The real balancer under traffic: every backend is used before long, nobody who is there ever
//! leaves, one that was removed leaves after its misses or with the first connect that fails, and
//! no request does. Below that, over real sockets: what becomes of the addresses of those who are
//! not listed.

#[path = "support/dns.rs"]
mod dns;
#[path = "support/ledger.rs"]
mod ledger;
mod support;
#[path = "support/traffic.rs"]
mod traffic;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU16;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use evenkeel::config::{Discover, Family, Lookup};
use evenkeel::discovery::Offer;
use evenkeel::discovery::answers::Transport;
use evenkeel::discovery::journal::{Event, Why};
use evenkeel::discovery::watch::{Publication, Subscription, Watches};
use hickory_proto::rr::RecordType;
use tokio::time::{Instant, sleep, timeout};

use dns::{DnsServer, Reply, address, address_reply, cut, part_of, srv};
use ledger::{Keep, Ledger};
use support::server::Server;
use traffic::{Target, Traffic};

/// The name that is watched.
const NAME: &str = "_http._tcp.web.test";

/// Between two questions.
const INTERVAL: Duration = Duration::from_millis(20);

/// Answers after which each of `n` was among `k` once, but for one time in a million.
fn all_seen(k: usize, n: usize) -> usize {
    let missing = 1.0 - k as f64 / n as f64;
    ((1e-6 / n as f64).ln() / missing.ln()).ceil() as usize
}

/// Answers in a row that one of `n` is not among, but for one time in a million.
fn misses(k: usize, n: usize) -> usize {
    (1e-6_f64.ln() / (1.0 - k as f64 / n as f64).ln()).ceil() as usize
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_of_twenty_as_consul() {
    Play::new(3, 20, true).await.through().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_of_forty_as_cloud_map() {
    Play::new(8, 40, false).await.through().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fits_udp_as_consul() {
    let mut play = Play::new(40, 40, true).await;
    play.until("somebody is known", |p| p.endpoints() > 0).await;
    assert_eq!(play.endpoints(), 40, "by the first answer");
    let target = Target::plain(play.server.address());
    let traffic = Traffic::repeatable(&target, 4, Duration::from_millis(2));
    play.until("all are used", |p| p.ledger.counts().iter().all(|n| *n > 0))
        .await;
    play.asked(50).await;
    let (udp, tcp) = play.dns.by_transport(NAME, RecordType::SRV);
    assert_eq!(udp, 1, "and {tcp} over TCP");
    assert_eq!(play.metric("dns_rotates"), Some(0.0));
    assert_eq!(play.changes("left"), 0.0, "{:#?}", play.log(" left: "));
    let told = play.log("does not say that it cuts its answers");
    assert_eq!(told.len(), 1, "{told:#?}");

    // One is removed, and gone with the next answer.
    play.remove(7);
    play.until("it left", |p| p.endpoints() == 39).await;
    assert_eq!(play.log("b7.test").len(), 1);
    assert_eq!(play.changes("left"), 1.0, "{:#?}", play.log(" left: "));

    let records = traffic.stop().await;
    let failed: Vec<_> = records.iter().filter(|r| r.failed()).collect();
    assert!(failed.is_empty(), "of {}: {failed:#?}", records.len());
}

/// A balancer, a server that shows `shown` at a time (or what fits UDP, if that is all), and all the backends there are.
struct Play {
    shown: usize,
    dns: DnsServer,
    /// Who is listed, by number.
    members: Arc<Mutex<BTreeSet<usize>>>,
    ledger: Ledger,
    server: Server,
}

impl Play {
    async fn new(shown: usize, all: usize, glue: bool) -> Play {
        let names: Vec<_> = (0..all).map(|n| format!("b{n}")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let ledger = Ledger::start(&names, Keep::Counts);
        let ports: Vec<_> = (0..all).map(|n| ledger.port(n)).collect();
        let members: Arc<Mutex<BTreeSet<usize>>> = Arc::new(Mutex::new((0..all).collect()));
        let dns = DnsServer::start().await;
        let set = {
            let members = Arc::clone(&members);
            move || {
                let members = support::lock(&members);
                let record = |n: &usize| {
                    let host = format!("b{n}.test");
                    let addresses = glue.then(|| address(&host, 0, "127.0.0.1"));
                    let record = srv(NAME, 0, (1, 1, ports[*n], &host));
                    (record, addresses.into_iter().collect())
                };
                members.iter().map(record).collect()
            }
        };
        let reply = match shown < all {
            true => part_of(set, shown, 42),
            false => cut(set),
        };
        dns.on(NAME, RecordType::SRV, reply);
        for n in 0..all {
            let host = format!("b{n}.test");
            let reply = address_reply(&host, 0, &["127.0.0.1"]);
            dns.on(&host, RecordType::A, reply);
        }
        let server = Server::binary(&format!(
            r#"
workers = 1
[dns]
servers = ["{}"]
interval = "{}ms"
timeout = "1s"
[log]
access = "off"
[[listener]]
address = "127.0.0.1:0"
protocol = "http"
[[service]]
name = "web"
discover = {{ srv = "{NAME}" }}
[[route]]
service = "web"
"#,
            dns.address(),
            INTERVAL.as_millis(),
        ));
        Play {
            shown,
            dns,
            members,
            ledger,
            server,
        }
    }

    async fn through(mut self) {
        let all = self.ledger.counts().len();
        let asked_first = self.questions();
        let target = Target::plain(self.server.address());
        self.until("the first is known", |p| p.endpoints() > 0)
            .await;
        let traffic = Traffic::repeatable(&target, 4, Duration::from_millis(2));

        // Everybody is used, and within as many answers as chance needs.
        self.until("all are known", |p| p.endpoints() == all).await;
        let answers = self.questions() - asked_first;
        assert!(answers <= all_seen(self.shown, all), "after {answers}");
        self.until("all are used", |p| p.ledger.counts().iter().all(|n| *n > 0))
            .await;
        assert_eq!(self.metric("dns_rotates"), Some(1.0));
        assert!(self.metric("dns_unlisted_endpoints") >= Some((all - self.shown) as f64));

        // Nobody leaves, however often it is missed.
        self.asked(150).await;
        assert_eq!(self.metric("dns_endpoints"), Some(all as f64));
        assert_eq!(self.changes("joined"), all as f64);
        assert_eq!(self.changes("left"), 0.0, "{:#?}", self.log("left"));
        let needed = misses(self.shown, all);
        let told = self.log("answers rotate");
        assert_eq!(told.len(), 1, "{told:#?}");

        // One is removed, and goes on as if nothing had happened.
        let removed = all / 2;
        self.remove(removed);
        self.until("it left", |p| p.endpoints() == all - 1).await;
        let why = format!("{needed} answers in a row did not list it");
        self.until("said why", |p| p.log(&why).len() == 1).await;
        let before = self.ledger.counts();
        self.until("others were used meanwhile", |p| {
            let mut counts = p.ledger.counts().into_iter().zip(&before).enumerate();
            counts.all(|(n, (now, before))| n == removed || now > before + 5)
        })
        .await;
        let late = self.ledger.counts()[removed] - before[removed];
        assert!(late <= 4, "{late} requests, when four were under way");

        // Another one is removed and ends: a connect to it fails.
        let ended = all / 2 + 1;
        self.remove(ended);
        // An answer under way may list it yet, and it would join once more.
        self.asked(2).await;
        self.ledger.kill(ended);
        self.until("it left", |p| p.endpoints() == all - 2).await;
        let by_a_miss = self.log("answers in a row did not list it").len();
        assert_eq!(by_a_miss, 1, "the other one");
        let why = "the last answer does not list it, and a connect to";
        self.until("said why", |p| p.log(why).len() == 1).await;

        // The server shows everybody from now on.
        let everybody = {
            let members = support::lock(&self.members);
            let of = |n: &usize| format!("b{n}.test");
            let hosts = members.iter().map(of).zip(members.iter());
            let ports = hosts.map(|(host, n)| (host, self.ledger.port(*n)));
            let ports: Vec<_> = ports.collect();
            let answers = ports
                .iter()
                .map(|(host, port)| srv(NAME, 0, (1, 1, *port, host)));
            Reply::Records {
                answers: answers.collect(),
                additionals: Vec::new(),
            }
        };
        self.dns.on(NAME, RecordType::SRV, everybody);
        self.until("it is over", |p| p.metric("dns_rotates") == Some(0.0))
            .await;
        assert_eq!(self.endpoints(), all - 2);
        assert_eq!(self.log("answers no longer rotate").len(), 1);
        assert_eq!(self.changes("left"), 2.0, "{:#?}", self.log("left"));
        assert_eq!(self.changes("joined"), all as f64);

        let records = traffic.stop().await;
        let failed: Vec<_> = records.iter().filter(|r| r.failed()).collect();
        assert!(failed.is_empty(), "of {}: {failed:#?}", records.len());
        assert_eq!(self.ledger.damaged(), Vec::<String>::new());
    }

    fn remove(&self, member: usize) {
        support::lock(&self.members).remove(&member);
    }

    fn questions(&self) -> usize {
        self.dns.count(NAME, RecordType::SRV)
    }

    async fn asked(&mut self, more: usize) {
        let from = self.questions();
        self.until("asked", |p| p.questions() >= from + more).await;
    }

    fn endpoints(&self) -> usize {
        self.metric("dns_endpoints").unwrap_or_default() as usize
    }

    fn metric(&self, series: &str) -> Option<f64> {
        self.scrape(&format!("evenkeel_{series}{{name=\"{NAME}\"}} "))
    }

    fn changes(&self, op: &str) -> f64 {
        let series = format!("evenkeel_dns_changes_total{{name=\"{NAME}\",op=\"{op}\"}} ");
        self.scrape(&series).unwrap_or_default()
    }

    /// The value of the line that begins so.
    fn scrape(&self, series: &str) -> Option<f64> {
        let probe = self.server.probe.expect("it has a probe listener");
        let mut stream = TcpStream::connect(probe).expect("it listens");
        let patience = Some(support::PATIENCE);
        stream.set_read_timeout(patience).expect("it is not zero");
        let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request).expect("it reads");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("it answers");
        let value = text.lines().find_map(|line| line.strip_prefix(series))?;
        value.trim().parse().ok()
    }

    /// Lines of the program's log that say so.
    fn log(&mut self, words: &str) -> Vec<String> {
        let lines = self.server.process().log().into_iter();
        lines.filter(|line| line.contains(words)).collect()
    }

    async fn until(&mut self, what: &str, condition: impl Fn(&mut Play) -> bool) {
        let begun = Instant::now();
        while !condition(self) {
            assert!(
                begun.elapsed() < support::PATIENCE,
                "never: {what}; the log: {:#?}",
                self.log("")
            );
            sleep(Duration::from_millis(5)).await;
        }
    }
}

fn lookup(server: &DnsServer) -> Lookup {
    Lookup {
        servers: vec![server.address()],
        timeout: Duration::from_secs(1),
        retries: 1,
        interval: Some(INTERVAL),
        min_ttl: Duration::from_millis(100),
        max_ttl: Duration::from_secs(30),
        absent_after: 3,
        shrink_guard: 2,
        max_endpoints: 4096,
        family: Family::Auto,
    }
}

/// Waits until the publication is as wanted.
async fn until(
    subscription: &mut Subscription,
    what: &str,
    wanted: impl Fn(&Publication) -> bool,
) -> Publication {
    let deadline = Instant::now() + support::PATIENCE;
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

fn addresses(offer: &Offer) -> BTreeSet<String> {
    let Offer::Endpoints(endpoints) = offer else {
        return BTreeSet::new();
    };
    let address = |d: &evenkeel::discovery::Discovered| d.endpoint.address.to_string();
    endpoints.iter().map(address).collect()
}

fn left(watches: &Watches) -> Vec<(SocketAddr, Why)> {
    let entries = watches.journal().since(0).into_iter();
    entries
        .filter_map(|entry| match entry.event {
            Event::Left { endpoint, why } => Some((endpoint.socket(), why)),
            _ => None,
        })
        .collect()
}

/// Two of eight, whose targets have to be looked up.
async fn two_of_eight() -> (DnsServer, Watches, Subscription) {
    let server = DnsServer::start().await;
    let set = || {
        let record = |n| srv(NAME, 0, (0, 1, 80, &format!("b{n}.test")));
        (1..=8).map(|n| (record(n), Vec::new())).collect()
    };
    server.on(NAME, RecordType::SRV, part_of(set, 2, 7));
    for n in 1..=8 {
        let (host, ip) = (format!("b{n}.test"), format!("10.0.0.{n}"));
        server.on(&host, RecordType::A, address_reply(&host, 0, &[&ip]));
    }
    let watches = Watches::new(Vec::new(), Vec::new());
    let mut subscription = watches.subscribe(&Discover::Srv {
        name: NAME.into(),
        lookup: lookup(&server),
    });
    until(&mut subscription, "all eight", |p| {
        addresses(&p.offer).len() == 8 && p.rotating.is_some()
    })
    .await;
    (server, watches, subscription)
}

/// From now on, `b1` to `b3` are listed, and the others are not.
fn others_only(server: &DnsServer) {
    let set = || {
        let record = |n| srv(NAME, 0, (0, 1, 80, &format!("b{n}.test")));
        (1..=3).map(|n| (record(n), Vec::new())).collect()
    };
    server.on(NAME, RecordType::SRV, part_of(set, 2, 7));
}

#[tokio::test]
async fn a_target_that_is_not_listed_is_looked_up_all_the_same() {
    let (server, watches, mut subscription) = two_of_eight().await;
    others_only(&server);
    let host = "b5.test";
    let asked = server.count(host, RecordType::A);
    server.on(host, RecordType::A, address_reply(host, 0, &["10.0.1.5"]));
    let moved = until(&mut subscription, "b5 has moved", |p| {
        addresses(&p.offer).contains("10.0.1.5")
    })
    .await;
    assert!(!addresses(&moved.offer).contains("10.0.0.5"));
    assert_eq!(addresses(&moved.offer).len(), 8);
    assert!(server.count(host, RecordType::A) > asked);
    assert_eq!(
        left(&watches),
        [("10.0.0.5:80".parse().unwrap(), Why::Unlisted)]
    );
    assert_eq!(moved.held, None);
}

#[tokio::test]
async fn a_target_that_is_not_listed_and_has_no_address_any_more_is_gone() {
    let (server, watches, mut subscription) = two_of_eight().await;
    others_only(&server);
    server.on("b5.test", RecordType::A, Reply::NxDomain(Some(0)));
    server.on("b6.test", RecordType::A, Reply::Silence);
    until(&mut subscription, "b5 is gone", |p| {
        !addresses(&p.offer).contains("10.0.0.5")
    })
    .await;
    let gone = left(&watches);
    assert_eq!(gone, [("10.0.0.5:80".parse().unwrap(), Why::Unlisted)]);
    // Nobody is told that something is wrong with those, and those that cannot be asked stay
    // until they were missed.
    let now = subscription.offers.borrow().clone();
    assert!(addresses(&now.offer).contains("10.0.0.6"));
    let detail = now.detail.expect("that answers rotate");
    assert!(
        detail.contains("answers rotate") && !detail.contains("target"),
        "{detail}"
    );
}

#[tokio::test]
async fn a_failed_connect_evicts_whoever_is_not_listed_until_it_is() {
    let (server, watches, mut subscription) = two_of_eight().await;
    others_only(&server);
    let dead: SocketAddr = "10.0.0.7:80".parse().unwrap();
    subscription.connect_failed(dead);
    until(&mut subscription, "b7 is gone", |p| {
        !addresses(&p.offer).contains("10.0.0.7")
    })
    .await;
    assert_eq!(left(&watches), [(dead, Why::UnlistedAndUnreachable(dead))]);
    let set = || vec![(srv(NAME, 0, (0, 1, 80, "b7.test")), Vec::new())];
    server.on(NAME, RecordType::SRV, part_of(set, 1, 7));
    until(&mut subscription, "b7 is back", |p| {
        addresses(&p.offer).contains("10.0.0.7")
    })
    .await;
}

#[tokio::test]
async fn addresses_of_a_name_rotate_too() {
    let server = DnsServer::start().await;
    let set = || {
        let record = |n| address("web.test", 0, &format!("10.0.0.{n}"));
        (1..=30).map(|n| (record(n), Vec::new())).collect()
    };
    server.on("web.test", RecordType::A, part_of(set, 8, 3));
    let watches = Watches::new(Vec::new(), Vec::new());
    let mut subscription = watches.subscribe(&Discover::Address {
        name: "web.test".into(),
        port: NonZeroU16::new(8080).unwrap(),
        lookup: lookup(&server),
    });
    let all = until(&mut subscription, "all thirty", |p| {
        addresses(&p.offer).len() == 30
    })
    .await;
    let asked = server.count("web.test", RecordType::A);
    assert!(asked <= all_seen(8, 30) + 1, "after {asked}");
    let rotating = all.rotating.expect("they rotate");
    assert_eq!((rotating.shown, rotating.known), (8, 30));
    assert_eq!(rotating.misses as usize, misses(8, 30));
    // One is removed.
    let set = || {
        let record = |n| address("web.test", 0, &format!("10.0.0.{n}"));
        (1..=29).map(|n| (record(n), Vec::new())).collect()
    };
    server.on("web.test", RecordType::A, part_of(set, 8, 4));
    until(&mut subscription, "one is gone", |p| {
        addresses(&p.offer).len() == 29
    })
    .await;
    let missed = Why::Missed(rotating.misses);
    assert_eq!(
        left(&watches),
        [("10.0.0.30:8080".parse().unwrap(), missed)]
    );
}

#[tokio::test]
async fn those_who_are_not_listed_cost_few_questions() {
    let server = DnsServer::start().await;
    let set = || {
        let record = |n| srv(NAME, 0, (0, 1, 80, &format!("b{n}.test")));
        (1..=60).map(|n| (record(n), Vec::new())).collect()
    };
    server.on(NAME, RecordType::SRV, part_of(set, 3, 5));
    let hosts: Vec<_> = (1..=60).map(|n| format!("b{n}.test")).collect();
    for (n, host) in hosts.iter().enumerate() {
        let ip = format!("10.0.0.{n}");
        server.on(host, RecordType::A, address_reply(host, 0, &[&ip]));
    }
    let watches = Watches::new(Vec::new(), Vec::new());
    let mut subscription = watches.subscribe(&Discover::Srv {
        name: NAME.into(),
        lookup: lookup(&server),
    });
    until(&mut subscription, "many", |p| {
        addresses(&p.offer).len() >= 40
    })
    .await;
    let count = || {
        hosts
            .iter()
            .map(|h| server.count(h, RecordType::A))
            .sum::<usize>()
    };
    let (asked, looked_up) = (server.count(NAME, RecordType::SRV), count());
    until(&mut subscription, "all", |p| {
        addresses(&p.offer).len() == 60
    })
    .await;
    let asked = server.count(NAME, RecordType::SRV) - asked + 1;
    let looked_up = count() - looked_up;
    assert!(
        looked_up <= asked * (3 + 8),
        "{looked_up} for {asked} answers"
    );
}

/// Members of a set, by number, as records with addresses. 26 of them fill a UDP message, and
/// so do 25 but for a rest that is less than one may need.
fn members(
    numbers: impl Iterator<Item = usize>,
) -> Vec<(hickory_proto::rr::Record, Vec<hickory_proto::rr::Record>)> {
    let member = |n| {
        let host = format!("b{n:03}.test");
        let along = vec![address(&host, 0, &format!("10.0.0.{n}"))];
        (srv(NAME, 0, (0, 1, 80, &host)), along)
    };
    numbers.map(member).collect()
}

/// Waits until the server was asked so often over UDP.
async fn asked_over_udp(server: &DnsServer, times: usize) {
    let begun = Instant::now();
    loop {
        let (udp, tcp) = server.by_transport(NAME, RecordType::SRV);
        if udp >= times {
            return;
        }
        let patience = begun.elapsed() < support::PATIENCE;
        assert!(patience, "{udp} of {times} over UDP, {tcp} over TCP");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_set_that_fits_udp_again_is_asked_over_udp_again() {
    let server = DnsServer::start().await;
    server.on(NAME, RecordType::SRV, cut(|| members(1..41)));
    let watches = Watches::new(Vec::new(), Vec::new());
    let mut subscription = watches.subscribe(&Discover::Srv {
        name: NAME.into(),
        lookup: lookup(&server),
    });
    let known = |wanted| move |p: &Publication| addresses(&p.offer).len() == wanted;
    until(&mut subscription, "all", known(40)).await;
    server.on(NAME, RecordType::SRV, cut(|| members(1..36)));
    until(&mut subscription, "five less", known(35)).await;
    server.on(NAME, RecordType::SRV, cut(|| members(1..6)));
    until(&mut subscription, "a few", known(5)).await;
    let (udp, tcp) = server.by_transport(NAME, RecordType::SRV);
    asked_over_udp(&server, udp + 5).await;
    assert_eq!(server.by_transport(NAME, RecordType::SRV).1, tcp);
    let more = server.by_transport(NAME, RecordType::SRV).0;
    server.on(NAME, RecordType::SRV, cut(|| members(1..41)));
    until(&mut subscription, "all again", known(40)).await;
    let again = server.by_transport(NAME, RecordType::SRV).0;
    assert!(again <= more + 2, "{again} after {more}: once is enough");
    let cut = watches.journal().since(0).into_iter();
    let cut = cut.filter(|entry| matches!(entry.event, Event::Cut(_)));
    assert_eq!(cut.count(), 2);
}

#[tokio::test]
async fn a_full_answer_that_is_all_costs_one_question_a_change() {
    let server = DnsServer::start().await;
    let full = || members(1..27);
    server.on(NAME, RecordType::SRV, cut(full));
    let watches = Watches::new(Vec::new(), Vec::new());
    let mut subscription = watches.subscribe(&Discover::Srv {
        name: NAME.into(),
        lookup: lookup(&server),
    });
    let asked = || server.by_transport(NAME, RecordType::SRV);
    until(&mut subscription, "all", |p| {
        addresses(&p.offer).len() == 26
    })
    .await;
    for (n, last) in [27, 28, 29].into_iter().enumerate() {
        let udp = asked().0;
        asked_over_udp(&server, udp + 10).await;
        assert_eq!(asked().1, n + 1, "of {}", asked().0);
        // Somebody else instead of the last one.
        server.on(
            NAME,
            RecordType::SRV,
            cut(move || members((1..26).chain([last]))),
        );
        let there = format!("10.0.0.{last}");
        until(&mut subscription, "it is there", |p| {
            addresses(&p.offer).contains(&there)
        })
        .await;
    }
    let cut = watches.journal().since(0).into_iter();
    assert_eq!(cut.filter(|e| matches!(e.event, Event::Cut(_))).count(), 0);
}

#[tokio::test]
async fn without_tcp_an_answer_counts_as_it_is() {
    let server = DnsServer::without_tcp().await;
    server.on(NAME, RecordType::SRV, cut(|| members(1..27)));
    let watches = Watches::new(Vec::new(), Vec::new());
    let mut subscription = watches.subscribe(&Discover::Srv {
        name: NAME.into(),
        lookup: lookup(&server),
    });
    until(&mut subscription, "all", |p| {
        addresses(&p.offer).len() == 26
    })
    .await;
    server.on(NAME, RecordType::SRV, cut(|| members(2..27)));
    until(&mut subscription, "one less", |p| {
        addresses(&p.offer).len() == 25
    })
    .await;
    let told = watches.journal().since(0).into_iter();
    let told = told.filter(|entry| matches!(&entry.event, Event::Cut(Transport::Unchecked(_))));
    assert_eq!(told.count(), 1);
}

#[tokio::test]
async fn a_part_counts_for_nothing_while_tcp_fails_that_gave_more() {
    let server = DnsServer::start().await;
    server.on(NAME, RecordType::SRV, cut(|| members(1..41)));
    let watches = Watches::new(Vec::new(), Vec::new());
    let mut subscription = watches.subscribe(&Discover::Srv {
        name: NAME.into(),
        lookup: lookup(&server),
    });
    until(&mut subscription, "all", |p| {
        addresses(&p.offer).len() == 40
    })
    .await;
    let part = Box::new(cut(|| members(1..41)));
    server.on(NAME, RecordType::SRV, Reply::UdpOnly(part));
    let stale = until(&mut subscription, "stale", |p| p.stale_since.is_some()).await;
    assert_eq!(addresses(&stale.offer).len(), 40);
    assert!(stale.detail.expect("it says why").contains("over TCP"));
    server.on(NAME, RecordType::SRV, cut(|| members(1..40)));
    until(&mut subscription, "one less", |p| {
        addresses(&p.offer).len() == 39 && p.stale_since.is_none()
    })
    .await;
}
