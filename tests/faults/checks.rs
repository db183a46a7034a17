//! Checks in a running server: who is let in, who goes out, who is told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::backend::Backend;
use crate::support::client::Client;
use crate::support::server::Server;
use crate::support::{python_with, wait_until};
use crate::{state, sum};

/// A backend that answers checks with 200 or 503 as it is told, and everything else with 200.
struct Checked {
    backend: Backend,
    well: Arc<AtomicBool>,
}

impl Checked {
    fn start(name: &'static str, well: bool) -> Checked {
        let well = Arc::new(AtomicBool::new(well));
        let says = Arc::clone(&well);
        let backend = Backend::custom(name, move |stream| answer(name, stream, &says));
        Checked { backend, well }
    }

    fn be(&self, well: bool) {
        self.well.store(well, Ordering::SeqCst);
    }

    fn address(&self) -> SocketAddr {
        self.backend.address
    }
}

fn answer(name: &str, mut stream: std::net::TcpStream, well: &AtomicBool) {
    use std::io::{Read, Write};
    let mut held = Vec::new();
    let mut room = [0; 4096];
    loop {
        while let Some(end) = crate::support::wire::find(&held, b"\r\n\r\n") {
            let check = held.starts_with(b"GET /healthz ");
            held.drain(..end + 4);
            let status = match check && !well.load(Ordering::SeqCst) {
                true => "503 No",
                false => "200 OK",
            };
            let text = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{name}",
                name.len()
            );
            if stream.write_all(text.as_bytes()).is_err() {
                return;
            }
        }
        match stream.read(&mut room) {
            Ok(n @ 1..) => held.extend_from_slice(&room[..n]),
            _ => return,
        }
    }
}

fn configuration(backends: &[(SocketAddr, u16)], health: &str) -> String {
    let list: Vec<_> = backends
        .iter()
        .map(|(address, priority)| format!("{{ address = \"{address}\", priority = {priority} }}"))
        .collect();
    format!(
        r#"
        [[listener]]
        address = "127.0.0.1:0"
        protocol = "http"
        [[service]]
        name = "web"
        discover = {{ static = [{}] }}
        health = {{ http = "/healthz", interval = "30ms", {health} }}
        [[route]]
        service = "web"
        "#,
        list.join(", "),
    )
}

/// Who answers.
fn served_by(server: &Server) -> String {
    let answer = Client::plain(server.address()).get("a", "/x");
    let answer = answer.expect("it is answered");
    assert_eq!(answer.status(), 200);
    answer.text()
}

#[test]
fn a_backend_is_out_until_it_has_passed() {
    let (well, ill) = (Checked::start("well", true), Checked::start("ill", false));
    let backends = [(well.address(), 0), (ill.address(), 0)];
    let server = Server::in_process(&configuration(&backends, "initial = \"down\""));
    wait_until("one has passed", || {
        state(&server, well.address()).0 == "up"
    });
    for _ in 0..50 {
        assert_eq!(served_by(&server), "well");
    }
    let (state_of_ill, reason) = state(&server, ill.address());
    assert_eq!(state_of_ill, "down");
    assert!(
        ["unchecked", "check_answer"].contains(&reason.as_str()),
        "{reason}"
    );
    ill.be(true);
    wait_until("the other one serves too", || served_by(&server) == "ill");
}

#[test]
fn the_standby_serves_while_the_primary_is_down() {
    let (primary, standby) = (
        Checked::start("primary", true),
        Checked::start("standby", true),
    );
    let backends = [(primary.address(), 0), (standby.address(), 10)];
    let server = Server::in_process(&configuration(&backends, "fall = 2, rise = 2"));
    assert_eq!(served_by(&server), "primary");
    primary.be(false);
    wait_until("it is down", || {
        state(&server, primary.address()).0 == "down"
    });
    assert_eq!(state(&server, primary.address()).1, "check_answer");
    assert!(sum(&server, "evenkeel_backend_check_failures_total", "") >= 2.0);
    let up = sum(
        &server,
        "evenkeel_backend_up",
        &primary.address().to_string(),
    );
    assert_eq!(up, 0.0);
    for _ in 0..20 {
        assert_eq!(served_by(&server), "standby");
    }
    primary.be(true);
    wait_until("it is back", || served_by(&server) == "primary");
}

#[test]
fn with_nobody_up_the_first_tier_is_tried_all_the_same() {
    let (primary, standby) = (
        Checked::start("primary", false),
        Checked::start("standby", false),
    );
    let backends = [(primary.address(), 0), (standby.address(), 10)];
    let server = Server::in_process(&configuration(&backends, "fall = 1"));
    for backend in [&primary, &standby] {
        wait_until("it is down", || {
            state(&server, backend.address()).0 == "down"
        });
    }
    for _ in 0..20 {
        assert_eq!(served_by(&server), "primary");
    }
}

#[test]
fn a_backend_that_flaps_writes_a_handful_of_lines() {
    let (flapping, steady) = (
        Checked::start("flapping", true),
        Checked::start("steady", true),
    );
    let backends = [(flapping.address(), 0), (steady.address(), 0)];
    let mut server = Server::binary(&configuration(&backends, "fall = 1, rise = 1"));
    let changes = 60;
    for change in 0..changes {
        let well = change % 2 == 1;
        flapping.be(well);
        let wanted = if well { "up" } else { "down" };
        wait_until(wanted, || state(&server, flapping.address()).0 == wanted);
    }
    // The last of what was left out is written when the pause is over.
    let lines = |server: &mut Server| -> Vec<serde_json::Value> {
        let log = server.process().log();
        let lines = log.iter().filter(|line| line.contains("backend is"));
        lines
            .map(|line| serde_json::from_str(line).expect("it is JSON"))
            .collect()
    };
    wait_until("every change was counted", || {
        let told = |line: &serde_json::Value| line["changes"].as_u64().expect("a number");
        lines(&mut server).iter().map(told).sum::<u64>() >= changes
    });
    let lines = lines(&mut server);
    assert!(lines.len() <= 8, "{} lines: {lines:#?}", lines.len());
    assert_eq!(lines[0]["reason"], "check_answer");
    assert_eq!(lines[0]["detail"], "answered 503");
    assert_eq!(lines[0]["backend"], flapping.address().to_string());
}

#[test]
fn a_grpc_server_says_how_it_is() {
    use std::io::{BufRead, BufReader, Write};
    let Some(python) = python_with(&["grpc", "grpc_health"]) else {
        return;
    };
    let mut peer = std::process::Command::new(python)
        .arg("tests/scripts/health_server.py")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("it is installed");
    let mut says = peer.stdin.take().expect("it is piped");
    let mut port = String::new();
    BufReader::new(peer.stdout.take().expect("it is piped"))
        .read_line(&mut port)
        .expect("it says its port");
    let address: SocketAddr = format!("127.0.0.1:{}", port.trim())
        .parse()
        .expect("a port");
    let server = Server::in_process(&format!(
        "[[listener]]\naddress = \"127.0.0.1:0\"\nprotocol = \"http\"\n[[service]]\n\
         name = \"web\"\ndiscover = {{ static = [\"{address}\"] }}\n\
         health = {{ grpc = \"shop.Cart\", interval = \"30ms\", initial = \"down\" }}\n\
         [[route]]\nservice = \"web\"\n"
    ));
    let reason = || {
        let (state, reason) = state(&server, address);
        (state == "down").then_some(reason)
    };
    wait_until("it is down", || reason().as_deref() == Some("check_answer"));
    says.write_all(b"up\n").expect("it listens");
    wait_until("it is up", || reason().is_none());
    says.write_all(b"down\n").expect("it listens");
    wait_until("it is down", || reason().as_deref() == Some("check_answer"));
    // It ends with its input.
    drop(says);
    peer.wait().expect("it is our child");
}
