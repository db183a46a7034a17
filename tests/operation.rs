//! What whoever runs it sees: probes, metrics, the access log, exit codes, certificates.

mod support;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Output, Stdio};

use rustls::HandshakeKind;
use rustls::version::{TLS12, TLS13};
use serde_json::Value;

use support::backend::{Backend, Step};
use support::client::{self, Client};
use support::server::{Folder, Server, binary, output};
use support::{Gate, PATIENCE, wait_until};

fn configuration(protocol: &str, backend: SocketAddr) -> String {
    format!(
        r#"
        [[listener]]
        name = "front"
        address = "127.0.0.1:0"
        {protocol}

        [[service]]
        name = "web"
        discover = {{ static = ["{backend}"] }}

        [[route]]
        name = "shop"
        path = "/shop"
        service = "web"

        [drain]
        wait = "300ms"
        "#
    )
}

const HTTP: &str = r#"protocol = "http""#;

fn https(entries: &[String]) -> String {
    format!(
        "protocol = \"https\"\ncertificates = [{}]",
        entries.join(", ")
    )
}

/// Status and body of a probe's answer.
fn probe(server: &Server, path: &str) -> (u16, String) {
    let address = server.probe.expect("there is a probe listener");
    let answer = Client::plain(address)
        .get("probe", path)
        .expect("it answers");
    (
        answer.status(),
        String::from_utf8(answer.body.clone()).expect("it is text"),
    )
}

/// The value of a series on the metrics page.
fn metric(server: &Server, series: &str) -> Option<f64> {
    let (_, page) = probe(server, "/metrics");
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map(|value| value.parse().expect("it is a number"))
}

/// An address that was free a moment ago, for a server that cannot say which one it took.
fn free_address() -> SocketAddr {
    let taken = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr());
    taken.expect("loopback has ports")
}

fn health(address: SocketAddr, arguments: &[&str]) -> Output {
    let mut command = binary();
    command
        .arg("health")
        .arg("--address")
        .arg(address.to_string())
        .args(arguments);
    output(&mut command)
}

#[test]
fn a_drain_is_seen_by_probes_and_loses_no_line_of_the_log() {
    let backend = Backend::start("one");
    let mut server = Server::binary(&configuration(HTTP, backend.address));
    let probe_address = server.probe.expect("there is a probe listener");
    wait_until("it is ready", || {
        probe(&server, "/readyz") == (200, "ready\n".to_owned())
    });
    assert!(health(probe_address, &["--ready"]).status.success());

    let mut client = Client::plain(server.address());
    for n in 0..3 {
        let answer = client.get("shop.example", &format!("/shop/{n}?secret={n}"));
        assert_eq!(answer.expect("it answers").status(), 200);
    }
    assert_eq!(
        client
            .get("shop.example", "/other")
            .expect("it answers")
            .status(),
        404
    );
    let gate = Gate::new();
    backend.next(vec![Step::Wait(gate.clone()), Step::Echo]);
    client.send("GET /shop/last HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    wait_until("the request is under way", || {
        metric(
            &server,
            &format!(
                r#"evenkeel_backend_in_flight{{service="web",backend="{}"}}"#,
                backend.address
            ),
        ) == Some(1.0)
    });

    server.drain();
    wait_until("it is not ready", || {
        probe(&server, "/readyz") == (503, "draining\n".to_owned())
    });
    assert_eq!(probe(&server, "/livez"), (200, "alive\n".to_owned()));
    assert_eq!(metric(&server, "evenkeel_draining"), Some(1.0));
    let ready = health(probe_address, &["--ready"]);
    assert_eq!(ready.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&ready.stdout), "draining\n");
    assert_eq!(
        health(probe_address, &[]).status.code(),
        Some(0),
        "it is alive"
    );
    gate.open();
    assert_eq!(client.response().expect("it is answered").status(), 200);
    assert_eq!(server.process().exit_code(PATIENCE), Some(0));
    assert_eq!(
        health(probe_address, &[]).status.code(),
        Some(1),
        "nobody is there"
    );

    wait_until("the log has ended", || server.process().access().len() == 5);
    let lines: Vec<Value> = server
        .process()
        .access()
        .iter()
        .map(|line| serde_json::from_str(line).expect("each line is an object"))
        .collect();
    let paths: Vec<_> = lines
        .iter()
        .map(|line| line["path"].as_str().unwrap_or(""))
        .collect();
    assert_eq!(
        paths,
        ["/shop/0", "/shop/1", "/shop/2", "/other", "/shop/last"]
    );
    for line in &lines {
        let routed = line["path"] != "/other";
        assert_eq!(line["listener"], "front");
        assert_eq!(line["status"], if routed { 200 } else { 404 });
        assert_eq!(line["route"].as_str(), routed.then_some("shop"));
        assert_eq!(line["attempts"], u8::from(routed));
        let backend = backend.address.to_string();
        assert_eq!(line["backend"].as_str(), routed.then_some(&*backend));
        assert_eq!(line["end"], if routed { "complete" } else { "internal" });
        assert!(
            line.get("query").is_none(),
            "queries are not logged unless asked for"
        );
        assert!(line.get("tls").is_none());
    }
    let ids: std::collections::BTreeSet<_> = lines
        .iter()
        .map(|line| line["request_id"].to_string())
        .collect();
    assert_eq!(ids.len(), 5, "each request has an identity of its own");
}

#[test]
fn counts_of_requests_backends_and_handshakes() {
    let folder = Folder::new();
    let certificate = folder.certificate("one", &["shop.example"]);
    let backend = Backend::start("one");
    let server = Server::in_process(&configuration(
        &https(&[certificate.entry()]),
        backend.address,
    ));
    for version in [&TLS12, &TLS13] {
        let trust = client::tls_config(&certificate.ca, &[version]);
        for expected in [false, true] {
            let mut client =
                Client::tls(server.address(), &trust, "shop.example").expect("it shakes");
            assert_eq!(
                client
                    .get("shop.example", "/shop")
                    .expect("it answers")
                    .status(),
                200
            );
            let kind = client
                .session()
                .and_then(|session| session.handshake_kind());
            assert_eq!(
                kind == Some(HandshakeKind::Resumed),
                expected,
                "{version:?}"
            );
        }
    }
    let mut plain = Client::plain(server.address());
    plain.send("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    let _ = plain.rest(); // an alert, or nothing
    let labels = format!(r#"service="web",backend="{}""#, backend.address);
    wait_until("all is counted", || {
        metric(
            &server,
            r#"evenkeel_open_connections{side="downstream",name="front"}"#,
        ) == Some(0.0)
    });
    for (series, expected) in [
        (
            r#"evenkeel_requests_total{service="web",method="GET",code="200"}"#,
            4.0,
        ),
        (
            r#"evenkeel_request_duration_seconds_count{service="web"}"#,
            4.0,
        ),
        (
            r#"evenkeel_tls_handshakes_total{version="1.2",result="full"}"#,
            1.0,
        ),
        (
            r#"evenkeel_tls_handshakes_total{version="1.2",result="resumed"}"#,
            1.0,
        ),
        (
            r#"evenkeel_tls_handshakes_total{version="1.3",result="full"}"#,
            1.0,
        ),
        (
            r#"evenkeel_tls_handshakes_total{version="1.3",result="resumed"}"#,
            1.0,
        ),
        (
            r#"evenkeel_tls_handshakes_total{version="unknown",result="failed"}"#,
            1.0,
        ),
        (
            r#"evenkeel_connections_total{side="downstream",name="front"}"#,
            5.0,
        ),
        (&format!("evenkeel_backend_requests_total{{{labels}}}"), 4.0),
        (
            &format!("evenkeel_backend_first_byte_seconds_count{{{labels}}}"),
            4.0,
        ),
        (&format!("evenkeel_backend_up{{{labels}}}"), 1.0),
        (&format!("evenkeel_backend_in_flight{{{labels}}}"), 0.0),
        (r#"evenkeel_bounded{of="client_connections"}"#, 0.0),
        ("evenkeel_draining", 0.0),
    ] {
        assert_eq!(metric(&server, series), Some(expected), "{series}");
    }
    let opened = r#"evenkeel_connections_total{side="upstream",name="web"}"#;
    assert_eq!(metric(&server, opened), Some(backend.connections() as f64));
    // Idle ones are kept for some seconds, so the two are looked at until they agree.
    wait_until("open connections are those that the backend sees", || {
        let open = r#"evenkeel_open_connections{side="upstream",name="web"}"#;
        metric(&server, open) == Some(backend.open() as f64)
    });
    let expires = format!(
        r#"evenkeel_tls_cert_not_after_timestamp_seconds{{listener="front",file="{}"}}"#,
        certificate.cert.display()
    );
    let days = (metric(&server, &expires).expect("it is there") - now()) / 86_400.0;
    assert!((364.0..366.0).contains(&days), "{days} days");
}

fn now() -> f64 {
    std::time::UNIX_EPOCH
        .elapsed()
        .expect("it is after 1970")
        .as_secs_f64()
}

#[test]
fn a_client_that_does_not_shake_hands_is_cut_off() {
    let folder = Folder::new();
    let certificate = folder.certificate("one", &["shop.example"]);
    let backend = Backend::start("one");
    let text = configuration(&https(&[certificate.entry()]), backend.address)
        + "\n[defaults]\nhandshake_timeout = \"200ms\"\n";
    let server = Server::in_process(&text);
    let mut silent = Client::plain(server.address());
    let _ = silent.rest();
    wait_until("it is counted", || {
        metric(
            &server,
            r#"evenkeel_tls_handshakes_total{version="unknown",result="timeout"}"#,
        ) == Some(1.0)
    });
}

#[test]
fn a_log_that_nobody_reads_any_more_changes_nothing() {
    let folder = Folder::new();
    let backend = Backend::start("one");
    let front = free_address();
    let toml = configuration(HTTP, backend.address)
        .replace("127.0.0.1:0", &front.to_string())
        .replace("[drain]", "[probe]\naddress = \"off\"\n\n[drain]");
    let file = folder.write("evenkeel.toml", &toml);
    let mut child = binary()
        .args(["run", "--set", "log.level=debug", "-c"])
        .arg(&file)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary was built");
    wait_until("the binary listens", || TcpStream::connect(front).is_ok());
    drop((child.stdout.take(), child.stderr.take()));
    let served = (0..3).all(|_| {
        let answer = Client::plain(front).get("shop", "/shop");
        answer.is_ok_and(|answer| answer.status() == 200)
    });
    let id = i32::try_from(child.id()).expect("a child has a number");
    let id = rustix::process::Pid::from_raw(id).expect("a child has a number");
    rustix::process::kill_process(id, rustix::process::Signal::TERM).expect("it is there");
    let status = child.wait().expect("it is our child");
    assert!(served, "no request minds");
    assert_eq!(status.code(), Some(0), "it drains and ends well");
}

#[test]
fn each_name_gets_its_certificate() {
    let folder = Folder::new();
    let first = folder.certificate("first", &["first.example"]);
    let wild = folder.certificate("wild", &["*.wild.example"]);
    let backend = Backend::start("one");
    let entries = [first.entry(), wild.entry()];
    let server = Server::in_process(&configuration(&https(&entries), backend.address));
    for (certificate, name, fits) in [
        (&first, "first.example", true),
        (&wild, "a.wild.example", true),
        (&wild, "first.example", false),
        (&first, "a.wild.example", false),
        (&first, "unknown.example", false),
    ] {
        let trust = client::tls_config(&certificate.ca, &[&TLS13]);
        let shaken = Client::tls(server.address(), &trust, name);
        assert_eq!(
            shaken.is_ok(),
            fits,
            "{name} by {}",
            certificate.cert.display()
        );
    }
}

#[test]
fn certificates_for_development_are_made_checked_and_served() {
    let folder = Folder::new();
    let run = |arguments: &[&str]| output(binary().current_dir(folder.path()).args(arguments));
    let made = run(&["cert", "dev", "--name", "shop.example"]);
    assert!(made.status.success(), "{made:?}");
    let again = run(&["cert", "dev"]);
    assert_eq!(again.status.code(), Some(1));
    let message = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(
        message.contains("certs/dev.key is there already; --force replaces it"),
        "{message}"
    );

    let certs = folder.path().join("certs");
    let entry = |folder: &Path| {
        let [cert, key] = ["dev.pem", "dev.key"].map(|name| folder.join(name));
        format!(
            "{{ cert = \"{}\", key = \"{}\" }}",
            cert.display(),
            key.display()
        )
    };
    let backend = Backend::start("one");
    let text = configuration(&https(&[entry(&certs)]), backend.address);
    folder.write("evenkeel.toml", &text);
    let checked = run(&["check"]);
    assert!(checked.status.success(), "{checked:?}");

    let server = Server::binary(&text);
    let trust = client::tls_config(&certs.join("ca.pem"), &[&TLS13]);
    let mut client = Client::tls(server.address(), &trust, "shop.example").expect("it shakes");
    assert_eq!(
        client
            .get("shop.example", "/shop")
            .expect("it answers")
            .status(),
        200
    );

    // Only the key is of another making: what is wrong is said, with the files.
    let spare = std::fs::read(certs.join("dev.pem")).expect("it was written");
    assert!(run(&["cert", "dev", "--force"]).status.success());
    std::fs::write(certs.join("dev.pem"), spare).expect("it can be written");
    let checked = run(&["check"]);
    assert_eq!(checked.status.code(), Some(1));
    let message = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(
        message.contains("dev.key: the key does not match the first certificate"),
        "{message}"
    );
    let started = run(&["run"]);
    assert_eq!(
        started.status.code(),
        Some(1),
        "a process without its certificate does not start"
    );
    let message = String::from_utf8_lossy(&started.stderr).into_owned();
    assert!(message.contains("does not match"), "{message}");
}

#[test]
fn version_names_the_compiler_and_the_tls_library() {
    let told = output(binary().arg("version"));
    let text = String::from_utf8_lossy(&told.stdout).into_owned();
    for part in [
        env!("CARGO_PKG_VERSION"),
        "rustc 1.",
        "rustls 0.23.",
        "aws-lc-rs 1.",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

/// An edit with a mistake is refused by who runs, and must not make it look dead: `HEALTHCHECK` asks so.
#[test]
fn it_is_found_healthy_beside_a_file_with_a_mistake() {
    let backend = Backend::start("one");
    let server = Server::binary(&configuration(HTTP, backend.address));
    let probe_address = server.probe.expect("there is a probe listener");
    let folder = Folder::new();
    // Its address is in that file, and what is wrong is before it.
    let mistaken = format!("[[listener\n[probe]\naddress = \"{probe_address}\"\n");
    let file = folder.write("evenkeel.toml", &mistaken);
    let mut command = binary();
    command.args(["health", "--ready", "-c"]).arg(file);
    wait_until("it is ready", || {
        probe(&server, "/readyz") == (200, "ready\n".to_owned())
    });
    let asked = output(&mut command);
    let said = String::from_utf8_lossy(&asked.stderr);
    assert!(asked.status.success(), "{said}");
    assert!(said.contains("has a mistake"), "{said}");
}
