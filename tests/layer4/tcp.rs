//! protocol = "tcp".

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_proto::rr::RecordType;
use tokio::time::Instant;

use crate::dns::{DnsServer, srv_reply};
use crate::support::backend::{Backend, nobody};
use crate::support::client::{Client, End};
use crate::support::server::Server;
use crate::support::{PATIENCE, lock, wait_until};
use crate::{await_outcome, echo, greeter, greeting, is_echoed, metric, pattern, to_end};

/// A tcp listener in front of service `raw`. `discover` and `more` are TOML, the latter for the
/// service's table and what follows.
fn config(discover: &str, more: &str) -> String {
    format!(
        r#"
        workers = 1
        [[listener]]
        name = "front"
        address = "127.0.0.1:0"
        protocol = "tcp"
        [[route]]
        service = "raw"
        [[service]]
        name = "raw"
        discover = {discover}
        {more}
        "#
    )
}

fn fixed(backends: &[&Backend]) -> String {
    let list: Vec<String> = backends
        .iter()
        .map(|b| format!("\"{}\"", b.address))
        .collect();
    format!("{{ static = [{}] }}", list.join(", "))
}

fn in_front_of(backends: &[&Backend], more: &str) -> Server {
    Server::in_process(&config(&fixed(backends), more))
}

/// Is a new client reset before it is told anything? That may be before its connect returns.
fn is_reset(server: &Server) -> bool {
    let told = TcpStream::connect(server.address()).and_then(|mut stream| {
        stream.set_read_timeout(Some(PATIENCE))?;
        to_end(&mut stream)
    });
    told.is_err_and(|e| e.kind() == ErrorKind::ConnectionReset)
}

const LARGE: usize = 8 << 20;

#[test]
fn both_directions_at_once_deliver_everything() {
    let backend = Backend::custom("echo", echo);
    let server = in_front_of(&[&backend], "");
    let client = Client::plain(server.address());
    let mut writer = client.tcp().try_clone().expect("there are descriptors");
    let sent = pattern(LARGE);
    let sending = sent.clone();
    let sender = std::thread::spawn(move || {
        writer.write_all(&sending).expect("it is taken");
        writer.shutdown(Shutdown::Write).expect("it is open");
    });
    let mut reader = client.tcp().try_clone().expect("there are descriptors");
    let came = to_end(&mut reader).expect("it ends properly");
    sender.join().expect("it sends");
    assert!(came == sent, "{} of {LARGE} bytes", came.len());
    await_outcome(&server, "complete", 1);
    for direction in ["in", "out"] {
        let labels = format!("{{service=\"raw\",direction=\"{direction}\"}}");
        let series = format!("evenkeel_client_body_bytes_total{labels}");
        assert_eq!(metric(&server, &series), LARGE as f64);
    }
    assert_eq!(
        metric(
            &server,
            "evenkeel_open_connections{side=\"upstream\",name=\"raw\"}"
        ),
        0.0
    );
}

/// More than there are pipes, so that some are copied and some are not.
#[test]
fn bulk_of_many_at_once_is_delivered() {
    let backend = Backend::custom("echo", echo);
    let server = in_front_of(&[&backend], "");
    std::thread::scope(|scope| {
        for n in 0..24 {
            let client = Client::plain(server.address());
            let writer = client.tcp().try_clone().expect("there are descriptors");
            let reader = client.tcp().try_clone().expect("there are descriptors");
            let sent = Arc::new(pattern(LARGE / 4 + n));
            let sending = Arc::clone(&sent);
            scope.spawn(move || {
                (&writer).write_all(&sending).expect("it is taken");
                writer.shutdown(Shutdown::Write).expect("it is open");
            });
            scope.spawn(move || {
                let came = to_end(&mut { reader }).expect("it ends properly");
                assert!(came == *sent, "{n}: {} of {} bytes", came.len(), sent.len());
            });
        }
    });
    await_outcome(&server, "complete", 24);
}

/// Whoever ends first still gets all that the other one has to say.
#[test]
fn a_half_close_ends_one_direction_only() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&heard);
    let speaks_first = Backend::custom("first", move |mut stream| {
        stream.write_all(&pattern(LARGE)).expect("it is taken");
        stream.shutdown(Shutdown::Write).expect("it is open");
        *lock(&kept) = to_end(&mut stream).expect("it ends properly");
    });
    let server = in_front_of(&[&speaks_first], "");
    let mut stream = Client::plain(server.address())
        .tcp()
        .try_clone()
        .expect("descriptors");
    assert!(to_end(&mut stream).expect("it ends properly") == pattern(LARGE));
    stream.write_all(&pattern(LARGE / 2)).expect("it is taken");
    stream.shutdown(Shutdown::Write).expect("it is open");
    wait_until("the backend hears all", || !lock(&heard).is_empty());
    assert!(*lock(&heard) == pattern(LARGE / 2));
    await_outcome(&server, "complete", 1);
}

#[test]
fn shares_are_exact() {
    let backends = [greeter("a"), greeter("b"), greeter("c")];
    let list: Vec<String> = backends
        .iter()
        .zip([5, 3, 2])
        .map(|(b, weight)| format!("{{ address = \"{}\", weight = {weight} }}", b.address))
        .collect();
    let discover = format!("{{ static = [{}] }}", list.join(", "));
    let server = Server::in_process(&config(&discover, ""));
    let mut counts = BTreeMap::new();
    for _ in 0..100 {
        let name = greeting(&mut Client::plain(server.address()));
        *counts.entry(name).or_insert(0) += 1;
    }
    let expected = [("a", 50), ("b", 30), ("c", 20)];
    assert_eq!(counts, expected.map(|(n, c)| (n.to_owned(), c)).into());
}

#[test]
fn the_same_client_address_leads_to_the_same_backend() {
    let backends = [greeter("a"), greeter("b"), greeter("c")];
    let all: Vec<&Backend> = backends.iter().collect();
    let server = in_front_of(&all, "strategy = \"hash\"");
    let mut names = BTreeMap::new();
    for n in 1..30u8 {
        let of = || {
            greeting(&mut Client::plain_from(
                [127, 0, 0, n].into(),
                server.address(),
            ))
        };
        let name = of();
        assert!((0..3).all(|_| of() == name), "127.0.0.{n}");
        *names.entry(name).or_insert(0) += 1;
    }
    assert_eq!(names.len(), 3, "{names:?}");
}

#[test]
fn who_cannot_be_reached_costs_no_connection() {
    let (gone, there) = (nobody(), greeter("b"));
    let discover = format!("{{ static = [\"{gone}\", \"{}\"] }}", there.address);
    let log = Arc::new(Mutex::new(Vec::new()));
    let server = Server::logging(&config(&discover, ""), Lines(Arc::clone(&log)));
    for _ in 0..6 {
        assert_eq!(greeting(&mut Client::plain(server.address())), "b");
    }
    let labels = format!("{{service=\"raw\",backend=\"{gone}\"}}");
    let failures = format!("evenkeel_backend_connect_failures_total{labels}");
    assert_eq!(metric(&server, &failures), 1.0, "it is passed over");
    await_outcome(&server, "complete", 6);
    drop(server);
    let log = String::from_utf8_lossy(&lock(&log)).into_owned();
    let lines: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).expect("it is JSON"))
        .collect();
    assert_eq!(lines.len(), 6, "{log}");
    let retried = lines
        .iter()
        .find(|line| line["attempts"] == 2)
        .expect("one was tried twice");
    let expected = [
        ("listener", "front"),
        ("protocol", "TCP"),
        ("route", "*/"),
        ("service", "raw"),
        ("end", "complete"),
        ("method", ""),
        ("path", ""),
    ];
    for (field, value) in expected {
        assert_eq!(retried[field], value, "{field}");
    }
    assert_eq!(retried["backend"], there.address.to_string());
    assert_eq!(
        (&retried["received"], &retried["sent"]),
        (&0.into(), &2.into())
    );
    assert!(retried["connect_ms"].is_number() && retried["first_byte_ms"].is_number());
}

/// Keeps the access log.
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        lock(&self.0).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn when_nobody_can_be_reached_the_client_is_reset() {
    let discover = format!("{{ static = [\"{}\", \"{}\"] }}", nobody(), nobody());
    let server = Server::in_process(&config(&discover, ""));
    assert!(is_reset(&server));
    await_outcome(&server, "connect_failed", 1);
}

#[test]
fn a_standby_takes_over() {
    let (first, standby) = (greeter("first"), greeter("standby"));
    let discover = format!(
        "{{ static = [\"{}\", {{ address = \"{}\", priority = 10 }}] }}",
        first.address, standby.address
    );
    let server = Server::in_process(&config(&discover, ""));
    for _ in 0..4 {
        assert_eq!(greeting(&mut Client::plain(server.address())), "first");
    }
    drop(first);
    for _ in 0..4 {
        assert_eq!(greeting(&mut Client::plain(server.address())), "standby");
    }
}

/// A port that is forwarded to nobody: it accepts, and resets.
#[test]
fn who_accepts_and_resets_is_ejected() {
    let broken = Backend::custom("broken", |stream| crate::support::client::reset(&stream));
    let well = greeter("well");
    let more = "ejection = { failures = 3, time = \"60s\" }";
    let server = in_front_of(&[&broken, &well], more);
    let labels = format!(
        "{{service=\"raw\",backend=\"{}\",state=\"ejected\",reason=\"failures\"}}",
        broken.address
    );
    let ejected = format!("evenkeel_backend_state{labels}");
    wait_until("it is ejected", || {
        // Either backend's word will do; that of the broken one may come before a connect returns.
        let _ = TcpStream::connect(server.address()).and_then(|mut stream| {
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.read(&mut [0; 64])
        });
        metric(&server, &ejected) == 1.0
    });
    for _ in 0..8 {
        assert_eq!(greeting(&mut Client::plain(server.address())), "well");
    }
}

#[test]
fn a_silent_connection_ends() {
    let backend = greeter("b");
    let server = in_front_of(&[&backend], "tunnel_idle = \"1500ms\"");
    let mut client = Client::plain(server.address());
    assert_eq!(greeting(&mut client), "b");
    // Longer than the deadline in all, but never silent for as long.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(2_500) {
        assert!(is_echoed(&mut client, "still here"));
        crate::support::pause(Duration::from_millis(50));
    }
    assert_eq!(client.rest(), Ok((Vec::new(), End::Reset)));
    await_outcome(&server, "stream_idle", 1);
}

/// Both directions are under way; the client sends, and takes nothing.
#[test]
fn who_does_not_take_what_it_is_sent_is_cut_off() {
    let backend = Backend::custom("endless", |mut stream| {
        let bytes = pattern(64 * 1024);
        while stream.write_all(&bytes).is_ok() {}
    });
    let server = in_front_of(&[&backend], "stall_timeout = \"1s\"");
    let mut client = Client::plain(server.address());
    client.send("more, please");
    await_outcome(&server, "client_closed", 1);
    wait_until("the backend is let go", || backend.open() == 0);
    let (came, end) = client.rest().expect("it ends");
    assert_eq!(end, End::Reset, "after {} bytes", came.len());
}

#[test]
fn who_comes_when_all_are_busy_waits_in_line() {
    let backend = greeter("b");
    let more = "max_in_flight = 1\nmax_queue = 1\nqueue_timeout = \"15s\"";
    let server = in_front_of(&[&backend], more);
    let mut first = Client::plain(server.address());
    assert_eq!(greeting(&mut first), "b");
    let waits = || {
        let of = "evenkeel_bounded{of=\"queue\",service=\"raw\"}";
        metric(&server, of) == 1.0
    };
    // One that gives up while it waits leaves its place.
    let impatient = Client::plain(server.address());
    wait_until("it waits", waits);
    impatient.reset();
    await_outcome(&server, "client_closed", 1);
    let mut second = Client::plain(server.address());
    second.send("early");
    wait_until("the next one waits", waits);
    assert!(is_reset(&server), "the line is full");
    await_outcome(&server, "overloaded", 1);
    assert_eq!(backend.connections(), 1);
    drop(first);
    assert_eq!(greeting(&mut second), "b");
    assert_eq!(
        second.exactly(5).expect("what it said is passed on"),
        b"early"
    );
}

#[test]
fn connections_of_one_client_are_limited() {
    let backend = greeter("b");
    let server = in_front_of(&[&backend], "[limits]\nmax_connections_per_client = 1");
    let mut first = Client::plain(server.address());
    assert_eq!(greeting(&mut first), "b");
    let refused = Client::plain(server.address()).rest();
    let (told, _) = refused.expect("it ends");
    assert_eq!(told, b"", "nothing that is not its protocol");
    let other = &mut Client::plain_from([127, 0, 0, 2].into(), server.address());
    assert_eq!(greeting(other), "b");
}

#[test]
fn connections_count_for_a_rate_limit() {
    let backend = greeter("b");
    let server = in_front_of(&[&backend], "rate_limit = { requests = 2, per = \"1h\" }");
    for _ in 0..2 {
        assert_eq!(greeting(&mut Client::plain(server.address())), "b");
    }
    assert!(is_reset(&server));
    await_outcome(&server, "rate_limited", 1);
    let other = &mut Client::plain_from([127, 0, 0, 2].into(), server.address());
    assert_eq!(greeting(other), "b");
}

const HASTY: &str = "[drain]\nwait = \"200ms\"\nrequests = \"1s\"\nstreams = \"3s\"";

#[test]
fn a_drain_waits_for_streams_and_then_cuts_them() {
    let backend = greeter("b");
    for (rule, finishes, code) in [("it finishes", true, 0), ("it does not", false, 3)] {
        let mut server = Server::binary(&config(&fixed(&[&backend]), HASTY));
        let mut client = Client::plain(server.address());
        assert_eq!(greeting(&mut client), "b");
        server.drain();
        let address = server.address();
        wait_until("the listener closes", || {
            std::net::TcpStream::connect(address).is_err()
        });
        assert!(is_echoed(&mut client, "still here"), "{rule}");
        if finishes {
            client.finish();
            assert_eq!(client.rest(), Ok((Vec::new(), End::Closed)), "{rule}");
        } else {
            assert_eq!(client.rest(), Ok((Vec::new(), End::Reset)), "{rule}");
        }
        assert_eq!(server.process().exit_code(PATIENCE), Some(code), "{rule}");
    }
}

/// A backend that is withdrawn gets no new connection, and has its time for those that it has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_change_lead_elsewhere() {
    const NAME: &str = "_raw._tcp.web.test";
    let (old, new) = (greeter("old"), greeter("new"));
    let dns = DnsServer::start().await;
    let only = |address: SocketAddr| {
        let member = (0, 1, address.port(), "b.web.test", &["127.0.0.1"][..]);
        srv_reply(NAME, 1, &[member])
    };
    dns.on(NAME, RecordType::SRV, only(old.address));
    let discover = format!("{{ srv = \"{NAME}\" }}");
    let more = format!(
        "dns = {{ servers = [\"{}\"], interval = \"50ms\", shrink_guard = 1 }}\n[drain]\nstreams = \"1s\"",
        dns.address()
    );
    tokio::task::block_in_place(|| {
        let server = Server::in_process(&config(&discover, &more));
        let connect = || {
            let mut client = Client::plain(server.address());
            (greeting(&mut client), client)
        };
        let mut kept = None;
        wait_until("the records are known", || {
            let (name, client) = connect();
            kept = Some(client);
            name == "old"
        });
        let mut kept = kept.expect("it was made");
        dns.on(NAME, RecordType::SRV, only(new.address));
        wait_until("the new one is known", || connect().0 == "new");
        assert!(
            is_echoed(&mut kept, "still here"),
            "what is under way goes on"
        );
        assert_eq!(kept.rest(), Ok((Vec::new(), End::Reset)), "for its time");
        await_outcome(&server, "drained", 1);
    });
}
