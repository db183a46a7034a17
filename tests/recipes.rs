//! Consul as the registry, as docs/consul.md and deploy/compose/consul have it, and the configurations
//! of all recipes.
//!
//! Consul itself is not here: a server answers as it does. Order is another one each time, the TTL is
//! 0, targets are addresses in hexadecimal below `addr`, and those come along. What becomes of answers
//! that are cut or rotate is in rotation.rs.

#[path = "support/dns.rs"]
mod dns;
#[path = "support/ledger.rs"]
mod ledger;
mod support;
#[path = "support/traffic.rs"]
mod traffic;

use std::fs;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use evenkeel::config::{Format, Loader};
use hickory_proto::rr::RecordType;
use tokio::time::{Instant, sleep};

use dns::{DnsServer, address, cut, srv};
use ledger::{Keep, Ledger};
use support::server::{Folder, Server, output};
use traffic::{Client, Target, Traffic};

const NAME: &str = "_web._tcp.service.consul";

/// How many are known by the page's name, which has a final dot.
const ENDPOINTS: &str = r#"evenkeel_dns_endpoints{name="_web._tcp.service.consul."}"#;

/// Of three instances, as Consul's `weights.passing`.
const WEIGHTS: [u16; 3] = [3, 2, 1];

/// Blocks of a page in that language.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let text = fs::read_to_string(page).expect("the page is in the repository");
    let fence = format!("\n```{language}\n");
    let mut blocks = text.split(&fence).skip(1).map(|rest| {
        let (block, _) = rest.split_once("\n```").expect("a block ends");
        block.to_owned() + "\n"
    });
    let found: Vec<String> = blocks.by_ref().collect();
    assert!(!found.is_empty(), "{page} has {language}");
    found
}

#[test]
fn configurations_of_recipes_load() {
    for recipe in ["bind", "consul", "coredns", "plain"] {
        let file = format!("deploy/compose/{recipe}/evenkeel.toml");
        let loaded = Loader::file(&file).load().unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(loaded.warnings.to_string(), "", "{file}");
    }
    for block in blocks("docs/consul.md", "toml") {
        let loaded = Loader::text(&block, Format::Toml).load();
        let loaded = loaded.unwrap_or_else(|e| panic!("{e}\n{block}"));
        assert_eq!(loaded.warnings.to_string(), "", "{block}");
    }
}

/// Instances that pass, with their weights, by number; what Consul says of them at the moment of each question.
type Passing = Arc<Mutex<Vec<(usize, u16)>>>;

async fn consul(passing: &Passing, ports: Vec<u16>) -> DnsServer {
    let passing = Arc::clone(passing);
    let server = DnsServer::start().await;
    // Two instances of one host share its name, each with its port.
    let record = move |(n, weight): &(usize, u16)| {
        let host = "7f000001.addr.dc1.consul";
        let record = srv(NAME, 0, (1, *weight, ports[*n], host));
        (record, vec![address(host, 0, "127.0.0.1")])
    };
    let set = move || support::lock(&passing).iter().map(&record).collect();
    server.on(NAME, RecordType::SRV, cut(set));
    server
}

/// So many requests in a row, over one connection, by backend.
async fn ask(client: &mut Client, ledger: &Ledger, count: u64) -> Vec<u64> {
    let before = ledger.counts();
    for _ in 0..count {
        let answer = client.get("/").await.expect("it is answered");
        assert_eq!(answer.status, 200);
    }
    let after = ledger.counts().into_iter();
    after
        .zip(before)
        .map(|(after, before)| after - before)
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weights_and_checks_of_consul_are_followed() {
    let ledger = Ledger::start(&["b1", "b2", "b3"], Keep::Counts);
    let ports: Vec<_> = (0..3).map(|n| ledger.port(n)).collect();
    let passing: Passing = Arc::new(Mutex::new(WEIGHTS.into_iter().enumerate().collect()));
    let dns = consul(&passing, ports).await;

    // The page's own file, but for places that are not free here.
    let folder = Folder::new();
    let certificate = folder.certificate("dev", &["localhost"]);
    let mut file = format!("workers = 1\n{}", blocks("docs/consul.md", "toml")[0]);
    for (theirs, ours) in [
        ("127.0.0.1:8600", dns.address().to_string()),
        ("[::]:8443", "127.0.0.1:0".to_owned()),
        (
            r#"{ cert = "certs/dev.pem", key = "certs/dev.key" }"#,
            certificate.entry(),
        ),
    ] {
        assert!(file.contains(theirs), "{theirs} in {file}");
        file = file.replace(theirs, &ours);
    }
    let server = Server::binary(&file);
    let target = Target::tls(server.address(), &certificate.ca);
    let mut client = Client::new(target.clone());
    until("all are known", || server.metric(ENDPOINTS) == Some(3.0)).await;

    let begun = Instant::now();
    let asked_before = dns.count(NAME, RecordType::SRV);
    expect(&ask(&mut client, &ledger, 600).await, [300, 200, 100]);

    // Its check fails, so Consul does not list it: no request is lost, and none goes there.
    let traffic = Traffic::start("steady", &target, 2, Duration::from_millis(4));
    support::lock(&passing).retain(|(n, _)| *n != 0);
    until("it left", || server.metric(ENDPOINTS) == Some(2.0)).await;
    let records = traffic.stop().await;
    let failed: Vec<_> = records.iter().filter(|r| r.failed()).collect();
    assert!(failed.is_empty(), "of {}: {failed:#?}", records.len());
    expect(&ask(&mut client, &ledger, 300).await, [0, 200, 100]);

    // A warning, say: another weight, and nobody is disconnected.
    *support::lock(&passing) = vec![(1, 1), (2, 1)];
    let deadline = Instant::now() + support::PATIENCE;
    loop {
        let halves = ask(&mut client, &ledger, 100).await;
        if near(&halves, [0, 50, 50]) {
            break;
        }
        assert!(Instant::now() < deadline, "{halves:?}");
    }

    // A TTL of 0 is one question a second, whatever is asked for meanwhile.
    let asked = dns.count(NAME, RecordType::SRV) - asked_before;
    let most = begun.elapsed().as_secs_f64() / 0.9 + 2.0;
    assert!((asked as f64) < most, "{asked} in {:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn query_shows_what_consul_says() {
    let passing: Passing = Arc::new(Mutex::new(vec![(0, 3), (1, 1)]));
    let dns = consul(&passing, vec![9001, 9002]).await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
    command.args(["query", NAME, "--resolver", &dns.address().to_string()]);
    let run = tokio::task::spawn_blocking(move || output(&mut command));
    let said = run.await.expect("it does not panic").stdout;
    let said = String::from_utf8(said).expect("it is text");
    let first = "75.00 %  127.0.0.1:9001  7f000001.addr.dc1.consul, weight 3, glue, TTL 0s";
    let second = "25.00 %  127.0.0.1:9002  7f000001.addr.dc1.consul, weight 1, glue, TTL 0s";
    for line in [
        "priority 1",
        first,
        second,
        "the TTL is 0: it is asked again every second",
    ] {
        assert!(said.contains(line), "`{line}` in {said}");
    }
}

/// A backend may be one turn ahead of its share, or behind.
fn near(counts: &[u64], wanted: [u64; 3]) -> bool {
    let mut pairs = counts.iter().zip(wanted);
    pairs.all(|(count, wanted)| count.abs_diff(wanted) <= 1 && (wanted > 0 || *count == 0))
}

fn expect(counts: &[u64], wanted: [u64; 3]) {
    assert!(near(counts, wanted), "{counts:?} instead of {wanted:?}");
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < support::PATIENCE, "never: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}
