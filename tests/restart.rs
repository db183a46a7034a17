//! A process that starts while DNS is down, with `state_dir`: who serves, what is said, and what
//! becomes of it when DNS is back.
//!
//! The real binary where a process ends and begins, watched names where only the rules matter.
//! Waits for conditions with a deadline, never for a fixed time.

#[path = "support/dns.rs"]
mod dns;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use evenkeel::config::{Discover, Lookup};
use evenkeel::discovery::journal::{Event, Hold};
use evenkeel::discovery::keeper::Keeper;
use evenkeel::discovery::stored::{Asked, Stored};
use evenkeel::discovery::watch::{Publication, Subscription, Watches};
use evenkeel::discovery::{Discovered, Endpoint, Offer};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use tokio::time::{Instant, sleep, timeout};

use dns::{DnsServer, Reply, address_reply, srv_reply};
use support::PATIENCE;
use support::backend::Backend;
use support::client::Client;
use support::server::{Folder, Server};

/// The name that is watched.
const NAME: &str = "_http._tcp.web.test";

/// The backends; their hosts are `a.test` and so on.
const BACKENDS: [&str; 3] = ["a", "b", "c"];

/// Requests in a row that tell who is in use: backends of equal weight take turns.
const WINDOW: usize = 12;

/// Backends, a name server, and a folder for its answers.
struct Site {
    backends: Vec<Backend>,
    dns: DnsServer,
    folder: Folder,
}

impl Site {
    async fn new() -> Site {
        Site {
            backends: BACKENDS.map(Backend::start).into(),
            dns: DnsServer::start().await,
            folder: Folder::new(),
        }
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("deep/state")
    }

    /// The file of the name.
    fn file(&self) -> PathBuf {
        let asked = Asked::of(&watched(self.dns.address())).expect("somebody is asked");
        self.state().join(asked.file())
    }

    /// What the file says; `None`: there is none.
    fn stored(&self) -> Option<Stored> {
        let bytes = fs::read(self.file()).ok()?;
        let asked = Asked::of(&watched(self.dns.address())).expect("somebody is asked");
        Some(Stored::decode(&bytes, &asked).expect("it is always whole"))
    }

    /// Does the file name these targets, and nobody else?
    fn stores(&self, names: &[&str]) -> bool {
        let wanted: BTreeSet<_> = names.iter().map(|n| format!("{n}.test")).collect();
        self.stored().is_some_and(|stored| {
            let targets = stored.endpoints.iter();
            wanted
                == targets
                    .map(|d| d.endpoint.target.to_string())
                    .collect::<BTreeSet<_>>()
        })
    }

    /// DNS is there, and lists these backends.
    fn lists(&self, names: &[&str]) {
        let mut answers = Vec::new();
        let mut additionals = Vec::new();
        for (name, backend) in BACKENDS.iter().zip(&self.backends) {
            if names.contains(name) {
                let target = format!("{name}.test");
                let port = backend.address.port();
                answers.push(dns::srv(NAME, 0, (0, 1, port, &target)));
                additionals.push(dns::address(&target, 0, "127.0.0.1"));
            }
        }
        self.answers(Reply::Records {
            answers,
            additionals,
        });
    }

    fn answers(&self, reply: Reply) {
        self.dns.on(NAME, RecordType::SRV, reply);
    }

    /// It does not give its port back, which somebody else might take.
    fn dns_dies(&self) {
        self.dns.only(Reply::Silence);
    }

    fn boot(&self, state: &Path) -> Server {
        Server::binary(&format!(
            r#"
workers = 1
state_dir = "{state}"
[dns]
servers = ["{dns}"]
interval = "100ms"
timeout = "300ms"
retries = 0
absent_after = 100
[drain]
wait = "0s"
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
            state = state.display(),
            dns = self.dns.address(),
        ))
    }

    /// A process that lists these, has stored them and was ended by TERM.
    async fn stored_by_a_process(&self, names: &[&str]) {
        self.lists(names);
        let mut server = self.boot(&self.state());
        until(&mut server, "served", |s| served_by(s, names)).await;
        end(&mut server);
        assert!(self.stores(names), "{:?}", self.stored());
    }
}

fn watched(server: SocketAddr) -> Discover {
    Discover::Srv {
        name: NAME.into(),
        lookup: Lookup::to(&[server]),
    }
}

/// Status, and the backend that answered, of one request.
fn request(server: &Server) -> (u16, Option<String>) {
    let response = Client::plain(server.address()).get("localhost", "/");
    let response = response.expect("there is always an answer");
    let backend = response.field("x-backend").map(str::to_owned);
    (response.status(), backend)
}

/// Are the next requests answered by exactly these?
fn served_by(server: &Server, names: &[&str]) -> bool {
    let answers: Vec<_> = (0..WINDOW).map(|_| request(server)).collect();
    let seen: BTreeSet<_> = answers.iter().filter_map(|(_, b)| b.as_deref()).collect();
    let status = if names.is_empty() { 503 } else { 200 };
    answers.iter().all(|(code, _)| *code == status) && seen == names.iter().copied().collect()
}

/// The value of a series of the name.
fn metric(server: &Server, series: &str) -> Option<f64> {
    let (status, text) = probe(server, "/metrics");
    assert_eq!(status, 200, "{text}");
    let wanted = format!("evenkeel_{series}{{name=\"{NAME}\"}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&wanted))?;
    line.trim().parse().ok()
}

fn probe(server: &Server, path: &str) -> (u16, String) {
    let address = server.probe.expect("it has a probe listener");
    let answer = Client::plain(address).get("localhost", path);
    let answer = answer.expect("it answers");
    (answer.status(), answer.text())
}

/// Waits until it is so.
async fn until(server: &mut Server, what: &str, condition: impl Fn(&Server) -> bool) {
    let begun = Instant::now();
    while !condition(server) {
        let log = server.process().log();
        assert!(begun.elapsed() < PATIENCE, "never: {what}; {log:#?}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until the log says it.
async fn until_said(server: &mut Server, what: &str) {
    let begun = Instant::now();
    while said(server, what) == 0 {
        let log = server.process().log();
        assert!(begun.elapsed() < PATIENCE, "never said: {what}; {log:#?}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// Lines of the log with these words.
fn said(server: &mut Server, what: &str) -> usize {
    let log = server.process().log();
    log.iter().filter(|line| line.contains(what)).count()
}

/// Ends it by TERM.
fn end(server: &mut Server) {
    server.drain();
    assert_eq!(server.process().exit_code(PATIENCE), Some(0));
}

#[tokio::test]
async fn a_restart_in_an_outage_serves_from_the_first_request_on() {
    let site = Site::new().await;
    site.stored_by_a_process(&["a", "b"]).await;
    site.dns_dies();

    let mut server = site.boot(&site.state());
    assert!(served_by(&server, &["a", "b"]), "from the first one on");
    assert_eq!(probe(&server, "/readyz").0, 200, "it can serve");
    until(&mut server, "it is said to be stale", |s| {
        metric(s, "dns_stale") == Some(1.0)
    })
    .await;
    assert_eq!(metric(&server, "dns_endpoints"), Some(2.0));
    let last = metric(&server, "dns_last_success_timestamp_seconds");
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
    let age = now - last.expect("it is from a server");
    assert!((0.0..120.0).contains(&age), "{age}");
    until_said(&mut server, "2 endpoints from disk").await;
    until_said(&mut server, "no answer, what is known stays").await;
    assert!(served_by(&server, &["a", "b"]));

    site.lists(&["b", "c"]);
    until(&mut server, "DNS takes over", |s| served_by(s, &["b", "c"])).await;
    until(&mut server, "no longer stale", |s| {
        metric(s, "dns_stale") == Some(0.0)
    })
    .await;
    // A crash: whatever is on disk by then counts.
    until(&mut server, "it is stored", |_| site.stores(&["b", "c"])).await;
    server.process().kill();
    site.dns_dies();
    let server = site.boot(&site.state());
    assert!(served_by(&server, &["b", "c"]));
}

#[tokio::test]
async fn a_damaged_file_is_one_warning_and_no_more() {
    let site = Site::new().await;
    site.stored_by_a_process(&["a", "b"]).await;
    site.dns_dies();
    let whole = fs::read(site.file()).expect("it was stored");
    fs::write(site.file(), &whole[..whole.len() / 2]).expect("writable");

    let mut server = site.boot(&site.state());
    assert!(served_by(&server, &[]), "nobody is known");
    until_said(&mut server, "a stored answer is not used: it is damaged").await;
    let (status, unmet) = probe(&server, "/readyz");
    assert_eq!(status, 503, "{unmet}");
    site.lists(&["a"]);
    until(&mut server, "DNS answers", |s| served_by(s, &["a"])).await;
    until(&mut server, "it is replaced", |_| {
        fs::read(site.file()).is_ok_and(|bytes| bytes.ends_with(b"}\n"))
    })
    .await;
    assert!(site.stores(&["a"]));
    assert_eq!(said(&mut server, "is not used"), 1);
}

#[tokio::test]
async fn nobody_does_not_become_somebody_by_a_restart() {
    let site = Site::new().await;
    site.stored_by_a_process(&["a", "b"]).await;
    let declined = srv_reply(NAME, 0, &[(0, 0, 0, ".", &[])]);
    site.answers(declined);
    let mut server = site.boot(&site.state());
    until(&mut server, "nobody is there", |s| served_by(s, &[])).await;
    end(&mut server);
    assert_eq!(site.stored(), None);
    site.dns_dies();
    let server = site.boot(&site.state());
    assert!(served_by(&server, &[]));
}

#[tokio::test]
async fn an_nxdomain_after_a_restart_is_not_believed_at_once() {
    let site = Site::new().await;
    site.stored_by_a_process(&["a", "b"]).await;
    site.answers(Reply::NxDomain(Some(0)));
    let mut server = site.boot(&site.state());
    assert!(served_by(&server, &["a", "b"]));
    until_said(&mut server, "this is number 3").await;
    assert!(served_by(&server, &["a", "b"]));
    // The name server shares this thread, so that one question may go unanswered.
    until(&mut server, "no longer stale", |s| {
        metric(s, "dns_stale") == Some(0.0)
    })
    .await;
    assert_eq!(metric(&server, "dns_unlisted_endpoints"), Some(2.0));
}

#[tokio::test]
async fn a_folder_that_is_none_fails_nothing() {
    let site = Site::new().await;
    site.lists(&["a"]);
    let file = site.folder.write("file", "mine");
    let mut server = site.boot(&file);
    until(&mut server, "served", |s| served_by(s, &["a"])).await;
    until_said(&mut server, "answers cannot be kept for a restart").await;
    site.lists(&["b"]);
    until(&mut server, "served", |s| served_by(s, &["b"])).await;
    end(&mut server);
    until_said(&mut server, "the latest answers could not be written").await;
    assert_eq!(said(&mut server, "cannot be kept"), 1, "once for all");
    assert_eq!(said(&mut server, "not a directory"), 1);
    assert_eq!(fs::read_to_string(file).unwrap(), "mine");
}

/// Watched names with the state folder in `folder`, and what it is kept by.
fn watches(folder: &Folder, discover: &Discover) -> (Watches, Arc<Keeper>) {
    let keeper = Keeper::open(folder.path(), [discover].into_iter());
    let keeper = Arc::new(keeper.expect("there are threads"));
    let watches = Watches::keeping(Vec::new(), Vec::new(), Some(Arc::clone(&keeper)));
    (watches, keeper)
}

async fn published(
    subscription: &mut Subscription,
    what: &str,
    wanted: impl Fn(&Publication) -> bool,
) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = subscription.offers.borrow_and_update().clone();
        if wanted(&now) {
            return;
        }
        let changed = timeout(deadline - Instant::now(), subscription.offers.changed());
        assert!(changed.await.is_ok(), "never: {what}; now {now:#?}");
    }
}

fn sockets(offer: &Offer) -> Vec<String> {
    let Offer::Endpoints(endpoints) = offer else {
        return Vec::new();
    };
    let sockets = endpoints.iter().map(|d| d.endpoint.socket());
    sockets.map(|socket| socket.to_string()).collect()
}

fn quick(server: SocketAddr) -> Lookup {
    Lookup {
        timeout: Duration::from_millis(150),
        retries: 0,
        interval: Some(Duration::from_millis(60)),
        ..Lookup::to(&[server])
    }
}

/// A target that is listed and cannot be looked up keeps its addresses over a restart too.
#[tokio::test]
async fn stored_addresses_stand_in_for_a_target_that_cannot_be_looked_up() {
    let (dns, folder) = (DnsServer::start().await, Folder::new());
    let discover = Discover::Srv {
        name: NAME.into(),
        lookup: quick(dns.address()),
    };
    let with_glue = [
        (0, 1, 80, "a.test", &["10.0.0.1"][..]),
        (0, 1, 80, "b.test", &["10.0.0.2"][..]),
    ];
    dns.on(NAME, RecordType::SRV, srv_reply(NAME, 0, &with_glue));
    let both = ["10.0.0.1:80", "10.0.0.2:80"];
    let (watches, keeper) = self::watches(&folder, &discover);
    let mut subscription = watches.subscribe(&discover);
    published(&mut subscription, "both", |p| sockets(&p.offer) == both).await;
    assert!(keeper.finish(PATIENCE));

    let without = with_glue.map(|(p, w, port, target, _)| (p, w, port, target, &[][..]));
    dns.only(Reply::Code(ResponseCode::ServFail));
    dns.on(NAME, RecordType::SRV, srv_reply(NAME, 0, &without));
    dns.on(
        "b.test",
        RecordType::A,
        address_reply("b.test", 0, &["10.0.0.3"]),
    );
    let (watches, _keeper) = self::watches(&folder, &discover);
    let mut subscription = watches.subscribe(&discover);
    let first = subscription.offers.borrow_and_update().clone();
    assert_eq!(sockets(&first.offer), both, "before anybody was asked");
    assert!(first.stale_since.is_some() && first.last_success.is_none());
    let detail = first.detail.expect("it says where it is from");
    assert!(detail.contains("from disk"), "{detail}");
    published(&mut subscription, "b has moved, a stays", |p| {
        p.stale_since.is_none() && sockets(&p.offer) == ["10.0.0.1:80", "10.0.0.3:80"]
    })
    .await;
    let events = watches.journal().since(0);
    let kept = |event: &Event| matches!(event, Event::Kept { target, .. } if **target == *"a.test");
    assert!(events.iter().any(|e| kept(&e.event)), "{events:#?}");
}

/// Addresses of a name itself; an answer that would take most of them away is not believed once.
#[tokio::test]
async fn addresses_of_a_name_are_restored_and_guarded() {
    let (dns, folder) = (DnsServer::start().await, Folder::new());
    let name = "web.test";
    let discover = Discover::Address {
        name: name.into(),
        port: 8080.try_into().unwrap(),
        lookup: quick(dns.address()),
    };
    let all = ["10.0.0.1", "10.0.0.2", "10.0.0.3"];
    dns.on(name, RecordType::A, address_reply(name, 0, &all));
    let (watches, keeper) = self::watches(&folder, &discover);
    let mut subscription = watches.subscribe(&discover);
    published(&mut subscription, "all", |p| sockets(&p.offer).len() == 3).await;
    assert!(keeper.finish(PATIENCE));

    dns.on(name, RecordType::A, address_reply(name, 30, &all[..1]));
    let (watches, _keeper) = self::watches(&folder, &discover);
    let mut subscription = watches.subscribe(&discover);
    let first = sockets(&subscription.offers.borrow_and_update().offer);
    assert_eq!(first.len(), 3);
    published(&mut subscription, "held", |p| {
        let hold = Hold::Shrink { seen: 1, needed: 2 };
        p.held == Some(hold) && sockets(&p.offer).len() == 3 && p.stale_since.is_none()
    })
    .await;
}

/// Whatever a file says, loopback needs a name server on loopback. Nobody is asked here.
#[test]
fn a_file_does_not_open_this_host() {
    let folder = Folder::new();
    let loopback = Endpoint {
        target: "local.test".into(),
        address: [127, 0, 0, 1].into(),
        port: 80,
    };
    let elsewhere = Endpoint {
        target: "web.test".into(),
        address: [10, 0, 0, 1].into(),
        port: 80,
    };
    let endpoints = [loopback.clone(), elsewhere].map(|endpoint| Discovered {
        endpoint,
        priority: 0,
        weight: 1,
        split: 1,
    });
    let stored = Stored {
        answered: SystemTime::now(),
        endpoints: endpoints.into(),
        from_loopback: BTreeSet::from([loopback]),
    };
    for (server, known) in [
        ("192.0.2.1:53", &["10.0.0.1:80"][..]),
        ("127.0.0.1:53", &["10.0.0.1:80", "127.0.0.1:80"]),
    ] {
        let discover = watched(server.parse().unwrap());
        let asked = Asked::of(&discover).unwrap();
        fs::write(folder.path().join(asked.file()), stored.encode(&asked)).unwrap();
        let (watches, _keeper) = self::watches(&folder, &discover);
        let mut found = sockets(&watches.known(&discover).unwrap());
        found.sort();
        assert_eq!(found, known, "asked: {server}");
    }
}
