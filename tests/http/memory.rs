//! Memory that runs short: idle clients go first, then new ones are refused, and nobody else
//! notices.

use std::io::Write;
use std::net::TcpStream;

use rustls::version::TLS13;

use crate::Site;
use crate::support::backend::{Backend, Step};
use crate::support::client::{Client, End, tls_config};
use crate::support::{Gate, wait_until};

/// What the load may take beside what the server has without any, in bytes.
const ROOM: u64 = 64 << 20;

/// Clients that have asked once and say nothing more.
const IDLE: (usize, usize) = (600, 100);

/// A head that is not whole holds a buffer and a runner.
const PART: usize = 30 << 10;

const LEVEL: &str = "evenkeel_memory_level";
const CLOSED: &str = "evenkeel_connections_closed_for_memory_total";

fn more(memory: &str) -> String {
    format!(
        "[limits]\nmax_connections = 10000\nmemory = \"{memory}\"\n\
         [defaults]\nheader_timeout = \"10m\"\nbody_timeout = \"10m\"\nkeep_alive = \"10m\"\n"
    )
}

/// Connections with a request under way that hold memory.
struct Load {
    begun: Vec<TcpStream>,
}

impl Load {
    /// Adds some until so many percent of the budget are in use and the level is reached.
    fn raise(&mut self, site: &mut Site, percent: u64, level: f64) {
        let part = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(PART));
        let target = site.metric("evenkeel_memory_budget_bytes") as u64 * percent / 100;
        wait_until(&format!("level {level} is reached"), || {
            // No more than it takes, or a level would be passed over.
            for _ in 0..if site.server.process().resident() < target {
                5
            } else {
                0
            } {
                let stream = TcpStream::connect(site.server.addresses[1]);
                let mut stream = stream.expect("it listens");
                // It may be one that is refused.
                let _ = stream.write_all(part.as_bytes());
                self.begun.push(stream);
            }
            assert!(self.begun.len() < 9_000, "memory is not bounded");
            site.metric(LEVEL) >= level
        });
    }
}

#[test]
#[cfg_attr(
    not(target_env = "gnu"),
    ignore = "only glibc is told to give memory back"
)]
fn idle_clients_go_first_then_new_ones_are_refused() {
    let backend = Backend::start("b");
    // What the server has by itself is not known beforehand.
    let mut site = Site::start(&backend, &more("off"));
    assert_eq!(
        Client::plain(site.server.addresses[1])
            .get("a", "/")
            .expect("it is served")
            .status(),
        200
    );
    let own = site.server.process().resident();
    assert_eq!(
        site.metric("evenkeel_memory_budget_bytes"),
        0.0,
        "nobody looks"
    );
    drop(site);

    let mut site = Site::start(&backend, &more(&(own + ROOM).to_string()));
    let [secure, plain] = [site.server.addresses[0], site.server.addresses[1]];
    let trust = tls_config(&site.certificate.ca, &[&TLS13]);
    let mut idle: Vec<_> = (0..IDLE.0).map(|_| Client::plain(plain)).collect();
    let shake = |_| Client::tls(secure, &trust, "localhost").expect("it is TLS");
    idle.extend((0..IDLE.1).map(shake));
    for client in &mut idle {
        assert_eq!(client.get("a", "/").expect("it is served").status(), 200);
    }
    let gate = Gate::new();
    backend.next(vec![Step::Wait(gate.clone()), Step::Echo]);
    let mut busy = Client::tls(secure, &trust, "localhost").expect("it is TLS");
    busy.send("POST /busy HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbo");
    assert_eq!((site.metric(LEVEL), site.metric(CLOSED)), (0.0, 0.0));

    let mut load = Load { begun: Vec::new() };
    load.raise(&mut site, 88, 1.0);
    wait_until("idle ones are closed", || site.metric(CLOSED) > 0.0);
    let mut new = Client::plain(plain);
    assert_eq!(new.get("a", "/").expect("it is taken in").status(), 200);
    idle.push(new);
    load.raise(&mut site, 97, 2.0);
    let refused = r#"evenkeel_refused_connections_total{reason="memory"}"#;
    wait_until("a new one is refused", || {
        let mut new = Client::plain(plain);
        let told = new.get("a", "/").expect("it is told");
        told.text() == "503: no memory for more connections now\n"
            && new.rest() == Ok((Vec::new(), End::Closed))
    });
    assert!(site.metric(refused) >= 1.0);
    wait_until("all who are idle are closed", || {
        site.metric(CLOSED) >= idle.len() as f64
    });
    for client in &mut idle {
        assert_eq!(client.rest(), Ok((Vec::new(), End::Closed)));
    }

    busy.send("dy");
    gate.open();
    let answer = busy.response().expect("it is served to its end");
    assert_eq!(answer.text(), "POST /busy body");
    drop(load);
    wait_until("there is room again", || site.metric(LEVEL) == 0.0);
    let mut new = Client::plain(plain);
    assert_eq!(new.get("a", "/").expect("it is served").status(), 200);
    assert_eq!(busy.get("a", "/").expect("it is served").status(), 200);

    let log = site.server.process().log();
    let said = |what: &str| log.iter().filter(|line| line.contains(what)).count();
    assert!(said("memory runs short") >= 1 && said("memory runs out") >= 1);
    assert!(said("memory suffices again") >= 1);
    let changes = said("memory ");
    assert!(changes < 20, "{changes} changes of level");
}
