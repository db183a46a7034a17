//! `evenkeel backend` as a program, with the clients that people have: curl, Python, a WebSocket
//! client of bare sockets; alone, behind the balancer, and in DNS. What goes over the wire byte by
//! byte is tested in `src/sample`.

mod support;
#[path = "support/traffic.rs"]
mod traffic;
#[path = "support/zone.rs"]
mod zone;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use evenkeel::dns_server::client::Client;
use hickory_proto::rr::Name;
use rustix::process::Signal;
use serde_json::Value;
use tokio::task::block_in_place;

use support::server::{Process, Server, binary, output, output_of};
use support::{PATIENCE, require, wait_until};
use traffic::{Record, Target, Traffic};
use zone::ZoneServer;

/// A backend in a process, listening on loopback.
struct Backend {
    process: Process,
    address: SocketAddr,
}

impl Backend {
    fn start(name: &str, arguments: &[&str]) -> Backend {
        let mut command = binary();
        command
            .args(["backend", "--listen", "127.0.0.1:0", "--name", name])
            .args(arguments)
            .stdin(Stdio::null());
        let process = Process::spawn(&mut command);
        let mut address = None;
        wait_until("it says where it listens", || {
            let lines = process.access();
            let line = lines.first();
            address = line.and_then(|line| line.rsplit_once(" listens on ")?.1.parse().ok());
            address.is_some()
        });
        Backend {
            process,
            address: address.expect("waited for"),
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn terminate(&self) {
        self.process.signal(Signal::TERM);
    }

    fn exit_code(&mut self) -> Option<i32> {
        self.process.exit_code(PATIENCE)
    }

    fn health(&self) -> Option<i32> {
        let mut command = binary();
        let url = self.url("/healthz");
        output(command.args(["health", "--url", &url]))
            .status
            .code()
    }
}

/// The balancer in front of these, over plain HTTP.
fn balancer(backends: &[&Backend]) -> Server {
    let addresses: Vec<_> = backends
        .iter()
        .map(|b| format!("\"{}\"", b.address))
        .collect();
    Server::binary(&format!(
        r#"
        [[listener]]
        address = "127.0.0.1:0"
        protocol = "http"
        [[service]]
        name = "web"
        discover = {{ static = [{}] }}
        [[route]]
        service = "web"
        "#,
        addresses.join(", ")
    ))
}

fn curl(arguments: &[&str]) -> Command {
    let mut command = Command::new("curl");
    command
        .args([
            "--silent",
            "--show-error",
            "--noproxy",
            "*",
            "--max-time",
            "40",
        ])
        .args(arguments);
    command
}

fn said(command: &mut Command) -> String {
    let output = output(command);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {text}{errors}");
    text
}

#[test]
fn curl_is_shown_what_it_sent() {
    if !require("curl") {
        return;
    }
    let backend = Backend::start("b1", &["--delay", "1ms..2ms"]);
    let url = backend.url("/a%2Fb?c=d");
    let arguments = [
        "-i",
        "-H",
        "X-Odd: \u{e4}",
        "--data-binary",
        "h\u{e4}llo",
        &url,
    ];
    let text = said(&mut curl(&arguments));
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("\r\nX-Backend: b1\r\n"), "{head}");
    let echo: Value = serde_json::from_str(body).expect("JSON");
    assert_eq!(echo["backend"], "b1");
    assert_eq!(echo["address"], backend.address.to_string());
    assert_eq!(echo["request"], 1);
    assert_eq!(echo["method"], "POST");
    assert_eq!(echo["target"], "/a%2Fb?c=d");
    assert_eq!(echo["version"], "HTTP/1.1");
    assert_eq!(echo["body_length"], 6);
    assert_eq!(echo["body"], "h\u{e4}llo");
    let fields = echo["headers"].as_array().expect("a list");
    assert_eq!(fields[0][0], "Host");
    assert!(
        fields.contains(&serde_json::json!(["X-Odd", "\u{e4}"])),
        "{fields:?}"
    );
    let client: SocketAddr = echo["client"]
        .as_str()
        .and_then(|text| text.parse().ok())
        .expect("an address");
    assert!(client.ip().is_loopback());

    let head = said(&mut curl(&["-I", &backend.url("/")]));
    assert!(head.contains("Content-Length: "), "{head}");
    // Three requests, one connection.
    let url = backend.url("/");
    let three = [
        &url,
        "-o",
        "/dev/null",
        "-o",
        "/dev/null",
        "-o",
        "/dev/null",
    ];
    let connects = curl(&["-w", "%{num_connects} ", &url, &url])
        .args(three)
        .output()
        .expect("it starts");
    assert_eq!(String::from_utf8_lossy(&connects.stdout), "1 0 0 ");

    let code = ["-o", "/dev/null", "-w", "%{http_code} %{size_download}"];
    for (query, expected) in [("status=418", "418 "), ("bytes=70000", "200 70000")] {
        let seen = said(curl(&code).arg(backend.url(&format!("/?{query}"))));
        assert!(seen.starts_with(expected), "{query}: {seen}");
    }
    assert_eq!(backend.health(), Some(0));
    let failing = Backend::start("b2", &["--error-rate", "100%"]);
    let text = said(&mut curl(&["-i", &failing.url("/")]));
    assert!(text.starts_with("HTTP/1.1 503 "), "{text}");
    assert!(text.contains("by chance: --error-rate 100%"), "{text}");
    assert_eq!(failing.health(), Some(0));
}

/// 64 MiB each way, chunked and after a 100; memory stays where it was.
#[test]
fn large_bodies_are_not_collected() {
    const SIZE: usize = 64 << 20;
    if !require("curl") {
        return;
    }
    let backend = Backend::start("b1", &[]);
    said(&mut curl(&[&backend.url("/")]));
    let before = backend.process.resident();
    let url = backend.url("/up");
    let upload = ["-v", "-T", "-", "-H", "Expect: 100-continue", &url];
    let uploaded = output_of(&mut curl(&upload), vec![b'x'; SIZE]);
    assert!(uploaded.status.success(), "{uploaded:?}");
    let talk = String::from_utf8_lossy(&uploaded.stderr);
    assert!(talk.contains("< HTTP/1.1 100 Continue"), "{talk}");
    assert!(talk.contains("> Transfer-Encoding: chunked"), "{talk}");
    let echo: Value = serde_json::from_slice(&uploaded.stdout).expect("JSON");
    assert_eq!(echo["body_length"], SIZE);
    assert_eq!(echo["body_cut"], true);
    let bytes = backend.url(&format!("/?bytes={SIZE}"));
    let download = ["-o", "/dev/null", "-w", "%{size_download}", &bytes];
    assert_eq!(said(&mut curl(&download)), SIZE.to_string());
    let more = backend.process.resident().saturating_sub(before);
    assert!(more < 8 << 20, "{more} bytes more");
}

#[test]
fn what_has_arrived_is_in_the_log_before_it_is_answered() {
    let backend = Backend::start("b1", &["--log-level", "debug"]);
    let mut stream = std::net::TcpStream::connect(backend.address).expect("it listens");
    let request = b"POST /order?id=7&delay=60s HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n";
    stream.write_all(request).expect("it reads");
    let noted = || {
        backend
            .process
            .log()
            .join("\n")
            .contains("POST /order?id=7")
    };
    assert!(!noted(), "a part of it is no request");
    stream.write_all(b"x").expect("it reads");
    wait_until("the request is in the log", noted);
}

fn web_socket(port: u16, cases: &[&str]) -> Command {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts/websocket.py");
    let mut command = Command::new("python3");
    command.arg(script).arg(port.to_string()).args(cases);
    command
}

#[test]
fn what_is_said_over_a_web_socket_is_said_back() {
    if !require("python3") {
        return;
    }
    let backend = Backend::start("w1", &[]);
    let balancer = balancer(&[&backend]);
    for address in [backend.address, balancer.address()] {
        let text = said(&mut web_socket(address.port(), &[]));
        assert_eq!(text.lines().count(), 7, "{text}");
    }
}

#[test]
fn who_stops_takes_leave_of_web_sockets() {
    if !require("python3") {
        return;
    }
    let mut backend = Backend::start("w1", &[]);
    let mut command = web_socket(backend.address.port(), &["stays_until_it_is_told"]);
    let mut client = Process::spawn(&mut command);
    wait_until("it is open", || client.access() == ["open"]);
    backend.terminate();
    assert_eq!(client.exit_code(PATIENCE), Some(0), "{:?}", client.access());
    assert_eq!(backend.exit_code(), Some(0));
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut backend = Backend::start("b1", &[]);
    let mut stream = std::net::TcpStream::connect(backend.address).expect("it listens");
    let request = b"GET /?delay=60s HTTP/1.1\r\nHost: a\r\n\r\n";
    stream.write_all(request).expect("it reads");
    backend.terminate();
    wait_until("it takes no connections", || {
        std::net::TcpStream::connect(backend.address).is_err()
    });
    assert!(backend.process.is_running());
    backend.process.signal(Signal::INT);
    assert_eq!(backend.exit_code(), Some(3));
}

/// Who keeps its records, as Kubernetes does, tells balancers that it goes at the moment at which it
/// tells it to end.
#[test]
fn who_lingers_serves_those_who_do_not_know_yet() {
    if !require("curl") {
        return;
    }
    let mut backend = Backend::start("b1", &["--linger", "2s"]);
    assert_eq!(backend.health(), Some(0));
    let told = tokio::time::Instant::now();
    backend.terminate();
    wait_until("it says that it goes", || backend.health() == Some(1));
    let response = said(&mut curl(&["--include", &backend.url("/")]));
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    assert!(response.contains("onnection: close"), "{response}");
    assert_eq!(backend.exit_code(), Some(0));
    let lingered = told.elapsed();
    assert!(lingered >= Duration::from_secs(2), "{lingered:?}");
}

/// No failed request among these; who answered how often.
fn served(records: &[Record]) -> BTreeMap<String, usize> {
    let failed: Vec<_> = records.iter().filter(|record| record.failed()).collect();
    assert!(
        failed.is_empty(),
        "{} of {}: {failed:#?}",
        failed.len(),
        records.len()
    );
    let mut served = BTreeMap::new();
    for record in records {
        let backend = record.backend.clone().expect("a backend answered");
        *served.entry(backend).or_default() += 1;
    }
    served
}

/// Nothing tells the balancer but refused connections and `Connection: close`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_behind_the_balancer_costs_no_request() {
    let mut leaver = Backend::start("b1", &["--delay", "0ms..5ms"]);
    let stayer = Backend::start("b2", &["--delay", "0ms..5ms"]);
    let balancer = block_in_place(|| balancer(&[&leaver, &stayer]));
    let target = Target::plain(balancer.address());
    let traffic = Traffic::start("stop", &target, 8, Duration::from_millis(1));
    let answers = |n| wait_until("the traffic flows", || traffic.records().len() > n);
    block_in_place(|| answers(300));
    leaver.terminate();
    assert_eq!(block_in_place(|| leaver.exit_code()), Some(0));
    let then = traffic.records().len();
    block_in_place(|| answers(then + 300));
    let records = traffic.stop().await;
    let served = served(&records);
    assert!(served["b1"] > 100 && served["b2"] > 400, "{served:?}");
    let late = records[then + 50..].iter();
    assert_eq!(
        late.filter(|r| r.backend.as_deref() == Some("b1")).count(),
        0
    );
}

const NAME: &str = "_http._tcp.web.svc.test.";

/// Ports in the zone.
async fn registered(zone: &ZoneServer) -> Vec<u16> {
    let client = Client::new(zone.address, zone.key("web.key"));
    let name = Name::from_ascii(NAME).expect("a name");
    let records = client.srv(&name).await.unwrap_or_default();
    let mut ports: Vec<_> = records.iter().map(|record| record.port).collect();
    ports.sort_unstable();
    ports
}

async fn wait_for(zone: &ZoneServer, backends: &[&Backend]) {
    let mut ports: Vec<_> = backends.iter().map(|b| b.address.port()).collect();
    ports.sort_unstable();
    let begun = tokio::time::Instant::now();
    loop {
        let found = registered(zone).await;
        if found == ports {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{found:?} instead of {ports:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Two register, serve behind a balancer that knows no more than their name, and one leaves: its
/// record first, then, when the balancer has seen that, itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn registers_serves_and_leaves_without_a_failed_request() {
    let zone = block_in_place(|| {
        ZoneServer::start(&[
            "--zone",
            "svc.test",
            "--key",
            "web.key",
            "--make-keys",
            "--max-lease",
            "3s",
        ])
    });
    let (server, key) = (zone.address.to_string(), zone.path("web.key"));
    let key = key.to_str().expect("a path in UTF-8");
    let join = |name: &str| {
        let target = format!("{name}.web.svc.test");
        let arguments = [
            "--delay",
            "0ms..5ms",
            "--register",
            NAME,
            "--server",
            &server,
            "--tsig-file",
            key,
            "--ttl",
            "1s",
            "--lease",
            "3s",
            "--target",
            &target,
        ];
        block_in_place(|| Backend::start(name, &arguments))
    };
    let (mut leaver, stayer) = (join("b1"), join("b2"));
    wait_for(&zone, &[&leaver, &stayer]).await;
    let balancer = block_in_place(|| {
        Server::binary(&format!(
            r#"
            [[listener]]
            address = "127.0.0.1:0"
            protocol = "http"
            [dns]
            servers = ["{server}"]
            [[service]]
            name = "web"
            discover = {{ srv = "{NAME}" }}
            [[route]]
            service = "web"
            "#
        ))
    });
    let target = Target::plain(balancer.address());
    let mut client = traffic::Client::new(target.clone());
    let begun = tokio::time::Instant::now();
    while client.get("/").await.map(|answer| answer.status).ok() != Some(200) {
        assert!(begun.elapsed() < PATIENCE, "the balancer finds nobody");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let traffic = Traffic::start("leave", &target, 8, Duration::from_millis(1));
    let answers = |n| wait_until("the traffic flows", || traffic.records().len() > n);
    block_in_place(|| answers(300));

    leaver.terminate();
    wait_for(&zone, &[&stayer]).await;
    // It serves those who do not know yet, and says that it is about to go.
    let mut direct = traffic::Client::new(Target::plain(leaver.address));
    let answer = direct.get("/").await.expect("it takes connections");
    assert_eq!(answer.status, 200);
    assert_eq!(
        direct.get("/healthz").await.expect("it answers").status,
        503
    );
    assert_eq!(block_in_place(|| leaver.exit_code()), Some(0));
    let log = leaver.process.log().join("\n");
    assert!(
        log.contains("registered _http._tcp.web.svc.test. as b1"),
        "{log}"
    );
    assert!(log.contains("withdrew _http._tcp.web.svc.test."), "{log}");
    let then = traffic.records().len();
    block_in_place(|| answers(then + 100));
    let served = served(&traffic.stop().await);
    assert!(served["b1"] > 100 && served["b2"] > 100, "{served:?}");
    assert_eq!(registered(&zone).await, [stayer.address.port()]);
}

/// It serves at once and says that it is not healthy before DNS has it: whoever replaces backends
/// one by one would otherwise stop those that can be found for one that cannot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn is_healthy_once_it_is_registered() {
    let arguments = ["--zone", "svc.test", "--key", "web.key", "--make-keys"];
    let lease = ["--max-lease", "2s"];
    let zone = block_in_place(|| ZoneServer::start(&[&arguments[..], &lease].concat()));
    let (server, key) = (zone.address.to_string(), zone.path("later.key"));
    let arguments = ["--register", NAME, "--server", &server, "--tsig-file"];
    let key_argument = [key.to_str().expect("a path in UTF-8")];
    let mut backend =
        block_in_place(|| Backend::start("b1", &[&arguments[..], &key_argument].concat()));
    block_in_place(|| {
        wait_until("it waits for the key", || {
            let log = backend.process.log().join("\n");
            log.contains("is not registered yet")
        });
        assert_eq!(backend.health(), Some(1));
    });
    let mut client = traffic::Client::new(Target::plain(backend.address));
    assert_eq!(client.get("/").await.expect("it serves").status, 200);

    std::fs::copy(zone.path("web.key"), &key).expect("the folder can be written");
    block_in_place(|| wait_until("it is healthy", || backend.health() == Some(0)));
    wait_for(&zone, &[&backend]).await;
    backend.terminate();
    assert_eq!(block_in_place(|| backend.exit_code()), Some(0));
}

#[test]
fn arguments_that_make_no_sense_are_usage_errors() {
    for (arguments, words) in [
        (&["--delay", "2m"][..], "60 s at most"),
        (&["--delay", "80ms..20ms"], "the shorter time comes first"),
        (&["--error-rate", "101%"], "from 0% to 100%"),
        (&["--name", "a b"], "only visible ASCII"),
        (&["--register", NAME], "--tsig-file <FILE>"),
        (
            &["--server", "dns", "--tsig-file", "k"],
            "--register <NAME>",
        ),
        (&["--weight", "5"], "--register <NAME>"),
    ] {
        let output = output(binary().arg("backend").args(arguments));
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
        assert!(text.contains(words), "{arguments:?}: {text}");
    }
}
