//! Backends that speak HTTP/2 and end streams and connections as they may: no request fails by it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::config;
use crate::frames::*;
use crate::peers::{self, ask, block, connect, say};
use crate::support::backend::Backend;
use crate::support::client::Client;
use crate::support::server::Server;
use crate::support::{Gate, pause, wait_until};

/// Answers a stream with 200 and the number of its connection.
fn ok(stream: u32) -> Vec<u8> {
    headers(stream, END_STREAM, &[(":status", "200")])
}

/// Waits for the next stream whose request is whole.
fn next_request(peer: &mut Peer, seen: u32) -> Option<u32> {
    let mut found = None;
    peer.until(|peer| {
        let whole = peer
            .came
            .iter()
            .find(|(n, came)| **n > seen && came.is_over());
        found = whole.map(|(n, _)| *n);
        found.is_some()
    });
    found
}

/// §8.7: a stream that is refused was not looked at: it is sent again, whatever its method.
#[test]
fn refused_streams_are_sent_again() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let backend = peers::Backend::start(move |mut call| {
        let n = counted.fetch_add(1, Ordering::SeqCst);
        async move {
            if n.is_multiple_of(3) {
                return call.respond.send_reset(h2::Reason::REFUSED_STREAM);
            }
            peers::echo(call).await;
        }
    });
    let more = "retry_budget_percent = 100\nretry_budget_per_second = 1000\nretries = 2";
    let server = Server::in_process(&config("h2c", &[backend.address], more, ""));
    block(async {
        let (send, _ended) = connect(server.address()).await;
        for n in 0..60 {
            let path = format!("/{n}");
            let body = Some((b"abc".to_vec(), None));
            let answer = say(&send, peers::request("POST", &path), body).await;
            let answer = answer.expect("it is answered");
            assert_eq!(answer.status, 200, "{path}");
            assert_eq!(answer.body, format!("POST {path} abc").into_bytes());
        }
    });
    assert!(count.load(Ordering::SeqCst) >= 80);
}

/// §6.8: of a connection that ends by GOAWAY, the streams behind the one that it names were not taken.
#[test]
fn streams_behind_a_goaway_are_sent_again() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let backend = Backend::custom("goaway", move |tcp| {
        let is_first = counted.fetch_add(1, Ordering::SeqCst) == 0;
        let Some(mut peer) = Peer::accept(tcp, &[]) else {
            return;
        };
        let mut last = 0;
        while let Some(stream) = next_request(&mut peer, last) {
            last = stream;
            if !is_first {
                peer.send(ok(stream));
            } else if stream == 5 {
                // Three are under way: one was taken.
                let payload = [1_u32.to_be_bytes(), NO_ERROR.to_be_bytes()].concat();
                peer.send(frame(GOAWAY, 0, 0, payload));
                peer.send(ok(1));
                return;
            }
        }
    });
    let server = Server::in_process(&config("h2c", &[backend.address], "", ""));
    let mut client = Peer::connect(server.address());
    for stream in [1, 3, 5] {
        client.send(headers(stream, END_STREAM, &request("POST", "/")));
    }
    for stream in [1, 3, 5] {
        assert_eq!(client.over(stream).status(), Some(200), "{stream}");
    }
    assert_eq!(count.load(Ordering::SeqCst), 2);
}

/// The same of many at once. That a backend ends a connection costs no retry of the service's budget: it
/// has proved that it did nothing with the requests.
#[test]
fn a_goaway_costs_no_budget() {
    const MANY: u32 = 80;
    // One backend over a new connection; then another one, while this one goes on leaving.
    for leaves in [1, usize::MAX] {
        let count = AtomicUsize::new(0);
        let leaving = Backend::custom("leaves", move |tcp| {
            let leaves = count.fetch_add(1, Ordering::SeqCst) < leaves;
            let Some(mut peer) = Peer::accept(tcp, &[]) else {
                return;
            };
            let mut last = 0;
            while let Some(stream) = next_request(&mut peer, last) {
                last = stream;
                if !leaves {
                    peer.send(ok(stream));
                } else if stream >= MANY / 2 {
                    let payload = [0_u32.to_be_bytes(), NO_ERROR.to_be_bytes()].concat();
                    peer.send(frame(GOAWAY, 0, 0, payload));
                    // What is on its way is taken in, so that no reset hides what was said.
                    peer.end();
                    return;
                }
            }
        });
        let steady = peers::Backend::start(peers::echo);
        let mut backends = vec![leaving.address];
        backends.extend((leaves > 1).then_some(steady.address));
        let server = Server::in_process(&config("h2c", &backends, "", ""));
        let mut client = Peer::connect(server.address());
        for n in 0..MANY {
            client.send(headers(2 * n + 1, END_STREAM, &request("POST", "/")));
        }
        for n in 0..MANY {
            let came = client.over(2 * n + 1);
            assert_eq!(came.status(), Some(200), "{n}, leaves {leaves} times");
        }
        let connections = leaving.connections();
        assert!(connections >= 2 || leaves > 1, "{connections}");
    }
}

/// A backend that refuses every stream is not asked for ever.
#[test]
fn a_backend_that_refuses_everything_is_given_up() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let backend = peers::Backend::start(move |mut call| {
        counted.fetch_add(1, Ordering::SeqCst);
        async move { call.respond.send_reset(h2::Reason::REFUSED_STREAM) }
    });
    let server = Server::in_process(&config("h2c", &[backend.address], "", ""));
    let mut client = Peer::connect(server.address());
    client.send(headers(1, END_STREAM, &request("POST", "/")));
    assert_eq!(client.over(1).status(), Some(503));
    let tries = count.load(Ordering::SeqCst);
    assert!((2..=12).contains(&tries), "{tries}");
}

/// §5.1.2: a backend that takes no streams at all is one that cannot be reached, and no reason to make
/// one connection after another.
#[test]
fn a_backend_that_takes_no_streams() {
    const MAX_CONCURRENT_STREAMS: u16 = 3;
    const REQUESTS: u32 = 10;
    let backend = Backend::custom("none", |tcp| {
        if let Some(mut peer) = Peer::accept(tcp, &[(MAX_CONCURRENT_STREAMS, 0)]) {
            peer.end();
        }
    });
    let server = Server::in_process(&config("h2c", &[backend.address], "", ""));
    let mut client = Peer::connect(server.address());
    let begun = Instant::now();
    for n in 0..REQUESTS {
        client.send(get(2 * n + 1, "/"));
        assert_eq!(client.over(2 * n + 1).status(), Some(503));
    }
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    let connections = backend.connections();
    assert!(connections <= 3 * REQUESTS as usize, "{connections}");
}

/// §5.1.2: before a connection has as many streams as its peer allows there is another one, so that no
/// request waits for another.
#[test]
fn another_connection_before_the_limit_is_hit() {
    let gate = Gate::new();
    let (waiting, shut) = (Arc::new(AtomicUsize::new(0)), gate.clone());
    let counted = Arc::clone(&waiting);
    let backend = peers::Backend::with(
        |settings| {
            settings.max_concurrent_streams(2);
        },
        move |mut call| {
            counted.fetch_add(1, Ordering::SeqCst);
            let shut = shut.clone();
            async move {
                while !shut.is_open() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                call.answer(200);
            }
        },
    );
    let server = Server::in_process(&config("h2c", &[backend.address], "", ""));
    // All at once, while not even the first connection is there.
    let mut client = Peer::connect(server.address());
    for stream in (1..20).step_by(2) {
        client.send(get(stream, "/"));
    }
    wait_until("all are there at once", || {
        waiting.load(Ordering::SeqCst) == 10
    });
    assert_eq!(backend.connections(), 5);
    gate.open();
    for stream in (1..20).step_by(2) {
        assert_eq!(client.over(stream).status(), Some(200), "{stream}");
    }
}

/// A backend that ends its connections again and again, with GOAWAY, while requests come.
#[test]
fn a_backend_that_leaves_fails_no_request() {
    let backend = peers::Backend::start(peers::echo);
    let server = Server::in_process(&config("h2c", &[backend.address], "", ""));
    let address = server.address();
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..2)
        .map(|_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let mut client = Client::plain(address);
                let mut answered = 0;
                while !stop.load(Ordering::SeqCst) {
                    let response = client.get("a.test", "/").expect("it is answered");
                    assert_eq!(response.status(), 200, "after {answered}: {response:?}");
                    answered += 1;
                }
                answered
            })
        })
        .collect();
    let begun = Instant::now();
    while backend.connections() < 100 && begun.elapsed() < Duration::from_secs(10) {
        backend.leave();
        pause(Duration::from_millis(3));
    }
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        let answered = client.join().expect("no request failed");
        assert!(answered > 100, "{answered}");
    }
    assert!(backend.connections() >= 10, "{}", backend.connections());
}

/// The same without a word: it closes when it has answered, and the next request may be on its way.
#[test]
fn a_backend_that_closes_fails_no_get() {
    let backend = Backend::custom("closes", move |tcp| {
        let Some(mut peer) = Peer::accept(tcp, &[]) else {
            return;
        };
        let mut last = 0;
        while let Some(stream) = next_request(&mut peer, last) {
            last = stream;
            peer.send(ok(stream));
            if stream >= 5 {
                return;
            }
        }
    });
    let server = Server::in_process(&config("h2c", &[backend.address], "", ""));
    block(async {
        let (send, _ended) = connect(server.address()).await;
        for n in 0..300 {
            let answer = ask(&send, "GET", "/").await.expect("it is answered");
            assert_eq!(answer.status, 200, "{n}");
        }
    });
    assert!(backend.connections() >= 50);
}

/// A backend that does not answer a PING any more is not there: its connection ends, and with it the
/// requests that wait for it.
#[test]
fn a_backend_that_is_gone_is_noticed() {
    let (told, heard) = std::sync::mpsc::channel();
    let told = std::sync::Mutex::new(told);
    let backend = Backend::custom("dumb", move |tcp| {
        let Some(mut peer) = Peer::accept(tcp, &[]) else {
            return;
        };
        let Some(stream) = next_request(&mut peer, 0) else {
            return;
        };
        peer.send(ok(stream));
        let _ = next_request(&mut peer, stream);
        // From here on nothing is answered, as if its machine were gone.
        peer.polite = false;
        peer.patience(Duration::from_secs(100));
        let begun = Instant::now();
        while peer.try_step().unwrap_or(false) {}
        let _ = crate::support::lock(&told).send(begun.elapsed());
    });
    let more = "response_timeout = \"5m\"\nretries = 0\nbackend_ping = \"1s\"";
    let server = Server::in_process(&config("h2c", &[backend.address], more, ""));
    let mut client = Peer::connect(server.address());
    client.patience(Duration::from_secs(100));
    client.send(get(1, "/"));
    assert_eq!(client.over(1).status(), Some(200));
    client.send(get(3, "/"));
    // A PING after a second, and 10 s for its answer.
    while client.came.get(&3).is_none_or(|came| !came.is_over()) {
        assert!(client.try_step().expect("it is answered"));
    }
    assert_eq!(client.came[&3].status(), Some(502));
    let took = heard.recv_timeout(Duration::from_secs(10));
    let took = took.expect("its connection ends");
    assert!(took < Duration::from_secs(30), "{took:?}");
}

/// A backend that speaks HTTP/1.1 instead, one that closes, and one that says GOAWAY at once: each fails
/// as a connect does, soon, and is not asked again and again meanwhile.
#[test]
fn a_backend_that_speaks_no_http2_fails_as_one_that_cannot_be_reached() {
    for (what, words) in [
        (
            "HTTP/1.1",
            &b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"[..],
        ),
        ("nothing", b""),
        (
            "GOAWAY",
            b"\0\0\0\x04\0\0\0\0\0\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0",
        ),
    ] {
        let backend = Backend::custom(what, move |mut tcp| {
            use std::io::{Read as _, Write as _};
            let mut preface = [0; 24];
            let _ = tcp.read_exact(&mut preface);
            let _ = tcp.write_all(words);
        });
        let server = Server::in_process(&config("h2c", &[backend.address], "", ""));
        let begun = Instant::now();
        let mut client = Client::plain(server.address());
        let response = client.get("a.test", "/").expect("it is answered");
        assert!(
            matches!(response.status(), 502 | 503),
            "{what}: {response:?}"
        );
        assert!(begun.elapsed() < Duration::from_secs(10), "{what}");
        assert!(
            backend.connections() <= 10,
            "{what}: {}",
            backend.connections()
        );
    }
}
