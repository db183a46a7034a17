//! A process that runs out of file descriptors: what its clients hear, and what is left of it.

use std::net::TcpStream;
use std::time::Duration;

use rustls::version::TLS13;
use tokio::time::Instant;

use crate::Site;
use crate::support::backend::{Backend, Step};
use crate::support::client::{Client, End, NoResponse, tls_config};
use crate::support::server::Server;
use crate::support::{Gate, pause, wait_until};

/// Of the server. It needs some thirty for itself.
const DESCRIPTORS: u32 = 120;

/// Of them for clients.
const FOR_CLIENTS: usize = 90;

const REFUSAL: &str = "503: no more connections can be opened now\n";
const REFUSED: &str = r#"evenkeel_refused_connections_total{reason="descriptors"}"#;

/// One that may have more connections than it has descriptors.
fn site(backend: &Backend) -> Site {
    let run = |toml: &str| Server::binary_with_descriptors(DESCRIPTORS, toml);
    let more = "[limits]\nmax_connections = 10000\n[defaults]\nheader_timeout = \"200ms\"\n";
    Site::run(run, "workers = 1", backend, more)
}

/// A client that is taken in and served, or `None` when it is refused.
fn admitted(site: &Site) -> Option<Client> {
    let mut client = Client::plain(site.server.addresses[1]);
    let answer = client.get("a", "/").expect("it is answered");
    if answer.status() == 200 {
        return Some(client);
    }
    assert_eq!(answer.text(), REFUSAL);
    None
}

/// Clients until one is refused.
fn fill(site: &Site) -> Vec<Client> {
    let clients: Vec<_> = std::iter::from_fn(|| admitted(site)).collect();
    assert!(
        (20..FOR_CLIENTS).contains(&clients.len()),
        "{}",
        clients.len()
    );
    clients
}

fn said(site: &mut Site, what: &str) -> usize {
    let lines = site.server.process().log();
    lines.iter().filter(|line| line.contains(what)).count()
}

#[test]
fn clients_leave_descriptors_to_backends() {
    let backend = Backend::start("b");
    let mut site = site(&backend);
    assert_eq!(said(&mut site, "limits.max_connections is more than"), 1);
    let mut clients = fill(&site);
    let trust = tls_config(&site.certificate.ca, &[&TLS13]);
    let secure = Client::tls(site.server.addresses[0], &trust, "localhost");
    assert!(secure.is_err(), "no handshake is made");
    for _ in 0..20 {
        assert!(admitted(&site).is_none());
    }
    assert_eq!(site.metric(REFUSED), 22.0);
    assert_eq!(said(&mut site, "descriptors run out"), 1);
    assert_eq!(said(&mut site, "accept failed"), 0);

    // A fifth of them at once: each needs a connection to the backend.
    let at_once = DESCRIPTORS as usize / 5;
    let gate = Gate::new();
    backend.usually(vec![Step::Wait(gate.clone()), Step::Echo]);
    for client in &mut clients[..at_once] {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    wait_until("all are under way", || backend.open() >= at_once);
    gate.open();
    for client in &mut clients[..at_once] {
        assert_eq!(client.response().expect("it is served").status(), 200);
    }
    drop(clients);
    wait_until("there is room again", || admitted(&site).is_some());
}

#[test]
fn a_flood_without_a_descriptor_left_is_answered() {
    let backend = Backend::start("b");
    let mut site = site(&backend);
    let mut clients = fill(&site);
    let gate = Gate::new();
    backend.usually(vec![Step::Wait(gate.clone()), Step::Echo]);
    // More than there are descriptors for: the last of them go to the backend's connections.
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    let failing = "no resources for a connection to a backend";
    wait_until("there is none left", || said(&mut site, failing) == 1);

    let trust = tls_config(&site.certificate.ca, &[&TLS13]);
    let [secure, plain] = [site.server.addresses[0], site.server.addresses[1]];
    let (begun, cpu) = (Instant::now(), site.server.process().cpu());
    let before = site.metric(REFUSED);
    // Whoever comes when somebody has just closed one is taken in.
    let (mut refused, mut taken_in) = (0, 0);
    for n in 0..300 {
        // Those that ask nothing, and those that ask at once.
        let mut client = Client::plain(plain);
        if n % 2 == 0 {
            // No backend is needed to answer this.
            client.send("GET / HTTP/1.1\r\n\r\n");
        }
        match client.response() {
            Ok(answer) if answer.text() == REFUSAL => {
                assert!(matches!(client.rest(), Ok((rest, _)) if rest.is_empty()));
                refused += 1;
            }
            Ok(answer) => {
                assert_eq!(answer.status(), 400);
                taken_in += 1;
            }
            // Its request came when the answer had gone out.
            Err(NoResponse::Ended(End::Reset, _)) if n % 2 == 0 => refused += 1,
            // Its time for a request was up.
            Err(NoResponse::Ended(End::Closed, _)) if n % 2 == 1 => taken_in += 1,
            Err(other) => panic!("number {n}: {other:?}"),
        }
        if n % 10 == 0 {
            match Client::tls(secure, &trust, "localhost") {
                Ok(_) => taken_in += 1,
                Err(_) => refused += 1,
            }
            let probe = site.server.probe.expect("there is a probe listener");
            let alive = Client::plain(probe).get("probe", "/livez");
            assert_eq!(alive.expect("it answers").status(), 200);
        }
        pause(Duration::from_millis(5));
    }
    let (took, used) = (begun.elapsed(), site.server.process().cpu() - cpu);
    assert!(used < took / 2, "{used:?} of {took:?}");
    assert!(refused > 200, "{refused} refused, {taken_in} taken in");
    assert_eq!(site.metric(REFUSED) - before, f64::from(refused));
    let periods = took.as_secs() as usize / 10 + 2;
    assert!(said(&mut site, "descriptors run out") <= periods);
    assert!(said(&mut site, failing) <= periods);

    // Many at once: the kernel has them all before one is accepted.
    let connect = |_| TcpStream::connect(plain).expect("the backlog has room");
    let flood: Vec<_> = (0..500).map(connect).collect();
    wait_until("each is refused", || {
        site.metric(REFUSED) - before >= f64::from(refused) + 500.0
    });
    drop(flood);

    gate.open();
    let statuses: Vec<_> = clients
        .iter_mut()
        .map(|client| client.response().expect("it is answered").status())
        .collect();
    assert!(statuses.iter().all(|status| [200, 503].contains(status)));
    let served = statuses.iter().filter(|status| **status == 200).count();
    assert!(served >= DESCRIPTORS as usize / 5, "{served}");
    // Those that were not are still there, and so is everything else.
    for client in &mut clients {
        assert_eq!(client.get("a", "/").expect("it is served").status(), 200);
    }
    drop(clients);
    wait_until("there is room again", || admitted(&site).is_some());
    assert!(Client::tls(secure, &trust, "localhost").is_ok());
}
