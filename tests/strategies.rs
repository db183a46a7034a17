//! The strategies with the real server: what a slow backend gets, what one gets that fails fast,
//! and whether keys and cookies lead to the same one.
//!
//! `cargo test --test strategies -- --nocapture` prints what each got. Speed is printed and never
//! asserted; that the slow and the broken get less is.

mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use support::backend::{Backend, Step};
use support::client::Client;
use support::server::{Folder, Server, output};
use support::wire::Message;
use support::{lock, pause, require};
use tokio::time::Instant;

/// A backend that answers each request after `delay` and says who it is.
fn answering(name: &str, status: &str, delay: Duration) -> Backend {
    let response = format!("HTTP/1.1 {status}\r\nX-Backend: {name}\r\nContent-Length: 2\r\n\r\nok");
    Backend::custom(name, move |mut stream| {
        // An error means that the other end is gone.
        let _ = answer_all(&mut stream, response.as_bytes(), delay);
    })
}

/// Answers one request after the other; none has a body.
fn answer_all(stream: &mut TcpStream, response: &[u8], delay: Duration) -> std::io::Result<()> {
    let (mut inbox, mut room) = (Vec::new(), [0; 4096]);
    loop {
        let n = stream.read(&mut room)?;
        if n == 0 {
            return Ok(());
        }
        inbox.extend_from_slice(&room[..n]);
        while let Some(end) = support::wire::find(&inbox, b"\r\n\r\n") {
            inbox.drain(..end + 4);
            let begun = Instant::now();
            while let Some(left) = delay.checked_sub(begun.elapsed()) {
                pause(left);
            }
            stream.write_all(response)?;
        }
    }
}

/// `b1`, `b2` and `b3`, each with its status and delay.
fn three(backends: [(&str, u64); 3]) -> [Backend; 3] {
    let mut number = 0;
    backends.map(|(status, millis)| {
        number += 1;
        answering(&format!("b{number}"), status, Duration::from_millis(millis))
    })
}

fn config(backends: &[Backend], more: &str) -> String {
    let addresses: Vec<_> = backends
        .iter()
        .map(|b| format!("\"{}\"", b.address))
        .collect();
    format!(
        r#"
        workers = 2
        [[listener]]
        address = "127.0.0.1:0"
        protocol = "http"
        [[route]]
        service = "web"
        [[service]]
        name = "web"
        discover = {{ static = [{}] }}
        {more}
        "#,
        addresses.join(", ")
    )
}

/// What clients saw.
struct Seen {
    counts: BTreeMap<String, usize>,
    /// Sorted.
    latencies: Vec<Duration>,
}

impl Seen {
    fn got(&self, backend: &str) -> usize {
        self.counts.get(backend).copied().unwrap_or(0)
    }

    /// So many of a hundred were answered within this time.
    fn percentile(&self, percent: usize) -> Duration {
        self.latencies[(self.latencies.len() - 1) * percent / 100]
    }
}

/// Eight clients with so many requests each, one after the other.
fn load(address: SocketAddr, requests: usize) -> Seen {
    let seen = Mutex::new(Seen {
        counts: BTreeMap::new(),
        latencies: Vec::new(),
    });
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = Client::plain(address);
                for _ in 0..requests {
                    let begun = Instant::now();
                    let response = client.get("a.test", "/").expect("an answer");
                    let took = begun.elapsed();
                    let mut seen = lock(&seen);
                    *seen.counts.entry(name(&response)).or_default() += 1;
                    seen.latencies.push(took);
                }
            });
        }
    });
    let mut seen = seen.into_inner().expect("no client panicked");
    seen.latencies.sort_unstable();
    seen
}

fn name(response: &Message) -> String {
    response.field("x-backend").unwrap_or_default().to_owned()
}

#[test]
fn a_slow_backend_gets_little_of_two_choices() {
    let mut of_the_slow_one = Vec::new();
    for strategy in ["weighted", "two_choices"] {
        let backends = three([("200 OK", 2), ("200 OK", 2), ("200 OK", 20)]);
        let more = format!("strategy = \"{strategy}\"");
        let server = Server::in_process(&config(&backends, &more));
        let seen = load(server.address(), 250);
        println!(
            "{strategy}: p50 {:?}, p99 {:?}, slow backend {} of {}",
            seen.percentile(50),
            seen.percentile(99),
            seen.got("b3"),
            seen.latencies.len(),
        );
        of_the_slow_one.push(seen.got("b3"));
    }
    let [weighted, two_choices] = of_the_slow_one[..] else {
        panic!("two strategies");
    };
    assert!(weighted.abs_diff(667) < 10, "{weighted}");
    assert!(two_choices < weighted / 2, "{two_choices} and {weighted}");
}

#[test]
fn who_fails_fast_gets_little() {
    for strategy in ["least_connections", "two_choices"] {
        let backends = three([
            ("200 OK", 5),
            ("500 Internal Server Error", 0),
            ("200 OK", 5),
        ]);
        let more = format!("strategy = \"{strategy}\"");
        let server = Server::in_process(&config(&backends, &more));
        let seen = load(server.address(), 150);
        let (failed, all) = (seen.got("b2"), seen.latencies.len());
        println!("{strategy}: the one that fails at once got {failed} of {all}");
        assert!(failed < all / 3 / 2, "{:?}", seen.counts);
    }
}

/// Who answers a request with these lines, on a connection of its own, and the response.
fn ask(address: SocketAddr, lines: &str) -> (String, Message) {
    let mut client = Client::plain(address);
    client.send(format!("GET / HTTP/1.1\r\nHost: a.test\r\n{lines}\r\n"));
    let response = client.response().expect("an answer");
    (name(&response), response)
}

#[test]
fn a_header_leads_to_the_same_backend_on_every_instance() {
    let backends = three([("200 OK", 0); 3]);
    let more = "strategy = \"hash\"\nhash_by = \"header:X-Tenant\"";
    let config = config(&backends, more);
    let servers = [Server::in_process(&config), Server::in_process(&config)];
    let mut tenants_of = BTreeMap::new();
    for tenant in 0..60 {
        let line = format!("X-Tenant: t{tenant}\r\n");
        let (first, _) = ask(servers[0].address(), &line);
        for round in 0..4 {
            let (again, _) = ask(servers[round % 2].address(), &line);
            assert_eq!(again, first, "tenant {tenant}");
        }
        *tenants_of.entry(first).or_insert(0) += 1;
    }
    println!("tenants: {tenants_of:?}");
    assert!(tenants_of.len() == 3 && tenants_of.values().all(|n| *n >= 5));
    // Without the header: by weight, in turn.
    let mut without = BTreeMap::new();
    let mut client = Client::plain(servers[0].address());
    for _ in 0..30 {
        let response = client.get("a.test", "/").expect("an answer");
        *without.entry(name(&response)).or_insert(0) += 1;
    }
    assert_eq!(without.into_values().collect::<Vec<_>>(), [10, 10, 10]);
}

/// The cookie that a response sets, without its attributes.
fn cookie(response: &Message) -> Option<String> {
    let value = response.field("set-cookie")?;
    value.split(';').next().map(str::to_owned)
}

#[test]
fn a_cookie_leads_back_for_as_long_as_its_backend_is_there() {
    let folder = Folder::new();
    let key = folder.write("sticky.key", &"k".repeat(32));
    let mut backends: BTreeMap<String, Backend> = (1..)
        .map(|n| format!("b{n}"))
        .zip(three([("200 OK", 0); 3]))
        .collect();
    let all: Vec<_> = backends
        .values()
        .map(|b| format!("\"{}\"", b.address))
        .collect();
    let config = config(
        &[],
        &format!("sticky = {{ key_file = {key:?}, max_age = \"1h\" }}"),
    )
    .replace("static = []", &format!("static = [{}]", all.join(", ")));
    let servers = [Server::in_process(&config), Server::in_process(&config)];
    let address = servers[0].address();

    let (first, response) = ask(address, "");
    let set = response.field("set-cookie").expect("a cookie").to_owned();
    assert!(
        set.starts_with("evenkeel_")
            && set.ends_with("; Path=/; HttpOnly; SameSite=Lax; Max-Age=3600"),
        "{set}"
    );
    let port = backends[&first].address.port().to_string();
    assert!(!set.contains(&port), "it tells no address");
    let has = cookie(&response).expect("a cookie");
    for round in 0..20 {
        let line = format!("Cookie: a=b\r\nCookie: theme=dark; {has}\r\n");
        let (again, response) = ask(servers[round % 2].address(), &line);
        assert_eq!(again, first, "the same on every instance");
        assert_eq!(cookie(&response), None, "it has one");
    }

    // One that nobody gave: a new one, and everybody gets some.
    let (cookie_name, _) = has.split_once('=').expect("a pair");
    let mut others = BTreeMap::new();
    for _ in 0..9 {
        let (name, response) = ask(
            address,
            &format!("Cookie: {cookie_name}=AAAAAAAAAAAAAAAAAAAAAA\r\n"),
        );
        others.insert(name, cookie(&response).expect("a new one"));
    }
    assert_eq!(others.len(), 3);
    assert_eq!(others[&first], has, "the same for whoever comes to it");

    // Its backend goes.
    drop(backends.remove(&first));
    let (second, response) = ask(address, &format!("Cookie: {has}\r\n"));
    assert_ne!(second, first);
    assert_eq!(cookie(&response), Some(others[&second].clone()));
}

/// A client that keeps cookies as browsers do.
fn curl(jar: &Path, authority: &Path, url: &str) -> String {
    let mut curl = Command::new("curl");
    curl.args([
        "--silent",
        "--show-error",
        "--noproxy",
        "*",
        "--max-time",
        "40",
    ])
    .args(["--include", "--cacert"])
    .arg(authority)
    .arg("--cookie-jar")
    .arg(jar)
    .arg("--cookie")
    .arg(jar)
    .arg(url);
    let output = output(&mut curl);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_real_client_keeps_its_session_over_tls() {
    if !require("curl") {
        return;
    }
    let folder = Folder::new();
    let certificate = folder.certificate("default", &["localhost"]);
    let backends = three([("200 OK", 0); 3]);
    let config = config(
        &backends,
        "strategy = \"random\"\nsticky = { cookie = \"at\" }",
    )
    .replace(
        "protocol = \"http\"",
        &format!(
            "protocol = \"https\"\ncertificates = [{}]",
            certificate.entry()
        ),
    );
    let server = Server::in_process(&config);
    let url = format!("https://localhost:{}/", server.address().port());
    let jar = folder.path().join("cookies");
    let first = curl(&jar, &certificate.ca, &url);
    let set = first
        .lines()
        .find(|l| l.to_lowercase().starts_with("set-cookie: at="));
    assert!(set.is_some_and(|l| l.ends_with("; Secure")), "{first}");
    let backend = |text: &str| {
        let line = text
            .lines()
            .find(|l| l.to_lowercase().starts_with("x-backend"));
        line.expect("one of ours").to_owned()
    };
    for _ in 0..10 {
        let again = curl(&jar, &certificate.ca, &url);
        assert_eq!(backend(&again), backend(&first));
        assert!(!again.to_lowercase().contains("set-cookie"), "{again}");
    }
}

#[test]
fn a_websocket_gets_its_cookie_with_the_101() {
    let backend = Backend::start("b1");
    backend.usually(vec![
        Step::Head,
        Step::send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        ),
        Step::Mirror,
    ]);
    let backends = [backend];
    let server = Server::in_process(&config(&backends, "sticky = { cookie = \"at\" }"));
    let lines = "Connection: upgrade\r\nUpgrade: websocket\r\n";
    let (_, response) = ask(server.address(), lines);
    assert_eq!(response.status(), 101);
    let has = cookie(&response).expect("a cookie");
    assert!(has.starts_with("at="), "{has}");
    let (_, response) = ask(server.address(), &format!("{lines}Cookie: {has}\r\n"));
    assert_eq!((response.status(), cookie(&response)), (101, None));
}
