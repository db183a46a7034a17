//! Clients that mean harm. Each must be shown the door, or stay harmless: our memory stays within a
//! bound, and every request of another client succeeds meanwhile.
//!
//! What it cost is printed: `cargo test --test http2 attacks -- --nocapture`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::bodies::pattern;
use crate::config;
use crate::frames::*;
use crate::hpack::{indexed_literal, literals};
use crate::support::backend::{Backend, Step};
use crate::support::client::Client;
use crate::support::server::{Process, Server};
use crate::support::{pause, wait_until};

const MIB: u64 = 1 << 20;

/// The most memory that a process ever had, in bytes.
fn peak(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id()));
    let status = status.expect("the process is there");
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kib = line.and_then(|l| l.trim().strip_suffix(" kB"));
    let kib: u64 = kib.expect("it is in kB").trim().parse().expect("a number");
    kib * 1024
}

/// Runs an attack against the binary, beside a client that does as it should.
fn held(name: &str, more: &str, top: &str, bound: u64, attack: impl FnOnce(SocketAddr) -> String) {
    let backend = Backend::start("b");
    let body = pattern(MIB as usize);
    let mut response = format!("HTTP/1.1 200 OK\r\nContent-Length: {MIB}\r\n\r\n").into_bytes();
    response.extend(body);
    let big = Backend::start("big");
    big.usually(vec![Step::Request, Step::Send(response)]);
    let other = format!(
        r#"
        [[service]]
        name = "big"
        discover = {{ static = ["{}"] }}
        ejection = "off"
        {more}
        [[route]]
        path = "/big"
        service = "big"
        {top}
        "#,
        big.address
    );
    let mut server = Server::binary(&config("http", &[backend.address], more, &other));
    let address = server.address();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let innocent = std::thread::spawn(move || {
        let mut times = Vec::new();
        let mut over_h2 = Peer::connect(address);
        let mut over_h1 = Client::plain(address);
        let mut stream = 1;
        while !stopped.load(Ordering::SeqCst) || times.len() < 50 {
            let begun = Instant::now();
            over_h2.send(get(stream, "/innocent"));
            let came = over_h2.over(stream);
            assert_eq!(came.status(), Some(200), "another's request failed");
            over_h2.came.clear();
            stream += 2;
            times.push(begun.elapsed());
            let begun = Instant::now();
            let response = over_h1.get("a.test", "/innocent");
            let response = response.expect("another's request is answered");
            assert_eq!(response.status(), 200, "another's request failed");
            times.push(begun.elapsed());
            pause(Duration::from_millis(2));
        }
        times.sort();
        (times.len(), times[times.len() * 99 / 100])
    });
    let (before, cpu) = (server.process().resident(), server.process().cpu());
    let begun = Instant::now();
    let outcome = attack(address);
    let took = begun.elapsed();
    stop.store(true, Ordering::SeqCst);
    let (requests, p99) = innocent.join().expect("the other client is served");
    assert!(server.process().is_running(), "{name}");
    let grown = peak(server.process()).saturating_sub(before);
    println!(
        "{name}: {outcome}; took {took:?}, CPU {:?}, memory {} KiB and at most {} KiB more, \
         another's {requests} requests with p99 {p99:?}",
        server.process().cpu() - cpu,
        before / 1024,
        grown / 1024,
    );
    assert!(grown < bound, "{name}: {grown} bytes more");
}

/// Sends the same again and again, at most so often, and reads what comes, until the connection is
/// over: how often, and what was said.
fn flood(peer: &mut Peer, most: usize, mut next: impl FnMut(usize) -> Vec<u8>) -> (usize, String) {
    let mut reader = Reader::new(peer);
    let mut sent = 0;
    while sent < most {
        // So many in one write, as somebody would who wants to be fast.
        let batch: Vec<u8> = (sent..sent + 64).flat_map(&mut next).collect();
        if peer.try_send(batch).is_err() || reader.is_over() {
            break;
        }
        sent += 64;
    }
    let goaway = reader.finish(peer);
    (sent, goaway)
}

/// Reads on a thread of its own, so that an attacker is never held up by what it is sent.
struct Reader {
    thread: Option<std::thread::JoinHandle<Option<(u32, u32)>>>,
    over: Arc<AtomicBool>,
}

impl Reader {
    fn new(peer: &Peer) -> Reader {
        let over = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&over);
        let mut copy = peer.reader();
        let thread = std::thread::spawn(move || {
            // It ends when the connection does.
            while copy.try_step().unwrap_or(false) {
                copy.came.clear();
            }
            ended.store(true, Ordering::SeqCst);
            copy.goaway
        });
        Reader {
            thread: Some(thread),
            over,
        }
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    fn finish(&mut self, peer: &Peer) -> String {
        // Whoever was told to go is left alone; whoever was not is noticed by `is_over` below.
        let begun = Instant::now();
        while !self.is_over() && begun.elapsed() < Duration::from_secs(5) {
            pause(Duration::from_millis(5));
        }
        let ended = self.is_over();
        let _ = peer.tcp.shutdown(std::net::Shutdown::Both);
        let thread = self.thread.take().expect("it ends once");
        let goaway = thread.join().expect("it does not panic");
        assert!(ended, "the connection goes on");
        match goaway {
            Some((code, _)) => {
                assert!(matches!(code, ENHANCE_YOUR_CALM | PROTOCOL_ERROR), "{code}");
                format!("ended with code {code}")
            }
            None => "closed".to_owned(),
        }
    }
}

const MANY: usize = 1_000_000;

fn is_ended(peer: &mut Peer, next: impl FnMut(usize) -> Vec<u8>) -> String {
    let (sent, how) = flood(peer, MANY, next);
    assert!(sent < MANY, "all was taken");
    format!("{how} after {sent}")
}

fn stream(n: usize) -> u32 {
    (2 * n + 1) as u32
}

#[test]
fn rapid_reset() {
    held("rapid reset", "", "", 32 * MIB, |address| {
        let mut peer = Peer::connect(address);
        is_ended(&mut peer, |n| {
            [get(stream(n), "/"), reset(stream(n), CANCEL)].concat()
        })
    });
}

#[test]
fn rapid_reset_of_much() {
    held("rapid reset of much", "", "", 32 * MIB, |address| {
        let mut peer = Peer::connect(address);
        is_ended(&mut peer, |n| {
            [get(stream(n), "/big"), reset(stream(n), CANCEL)].concat()
        })
    });
}

#[test]
fn made_you_reset() {
    held(
        "made you reset: window overflow",
        "",
        "",
        32 * MIB,
        |address| {
            let mut peer = Peer::connect(address);
            is_ended(&mut peer, |n| {
                let n = stream(n);
                [get(n, "/"), window(n, 0x7fff_ffff)].concat()
            })
        },
    );
    held(
        "made you reset: content-length",
        "",
        "",
        32 * MIB,
        |address| {
            let mut peer = Peer::connect(address);
            is_ended(&mut peer, |n| {
                let mut fields = request("POST", "/").to_vec();
                fields.push(("content-length", "1"));
                let n = stream(n);
                [headers(n, 0, &fields), frame(DATA, 1, n, "ab")].concat()
            })
        },
    );
    held(
        "made you reset: self-dependency",
        "",
        "",
        32 * MIB,
        |address| {
            let mut peer = Peer::connect(address);
            is_ended(&mut peer, |n| {
                let n = stream(n);
                let priority = [&n.to_be_bytes()[..], &[9]].concat();
                [get(n, "/"), frame(PRIORITY, 0, n, priority)].concat()
            })
        },
    );
}

#[test]
fn continuation_flood() {
    for (name, size) in [("small", 1), ("large", 16_000)] {
        held(
            &format!("continuation flood, {name}"),
            "",
            "",
            16 * MIB,
            |address| {
                let mut peer = Peer::connect(address);
                let field = literals(&[("x", "y".repeat(size - 1))]);
                is_ended(&mut peer, |n| match n {
                    0 => frame(HEADERS, 1, 1, literals(&request("GET", "/"))),
                    _ if size == 1 => frame(CONTINUATION, 0, 1, [b'a']),
                    _ => frame(CONTINUATION, 0, 1, &field),
                })
            },
        );
    }
}

#[test]
fn frames_that_say_nothing() {
    let post = || headers(1, 0, &request("POST", "/"));
    let floods: [(&str, Vec<u8>); 9] = [
        ("settings", settings(&[(3, 100)])),
        ("acknowledgements of settings", frame(SETTINGS, ACK, 0, [])),
        ("ping", frame(PING, 0, 0, [7; 8])),
        ("answers to no ping", frame(PING, ACK, 0, [7; 8])),
        ("priority", frame(PRIORITY, 0, 3, [0, 0, 0, 0, 9])),
        ("unknown", frame(0xee, 0, 0, [7; 8])),
        ("window of the connection", window(0, 1)),
        ("window of a stream", window(1, 1)),
        ("empty data", frame(DATA, 0, 1, [])),
    ];
    for (name, one) in floods {
        held(&format!("flood of {name}"), "", "", 16 * MIB, |address| {
            let mut peer = Peer::connect(address);
            peer.send(post());
            is_ended(&mut peer, |_| one.clone())
        });
    }
}

/// Data a byte at a time is what a typist sends. It is passed on and costs what it costs: nobody else
/// is to suffer from it.
#[test]
fn tiny_data() {
    held("flood of tiny data", "", "", 16 * MIB, |address| {
        let mut peer = Peer::connect(address);
        peer.send(headers(1, 0, &request("POST", "/")));
        peer.until(|peer| !peer.settings.is_empty());
        // What the connection has room for without another window.
        let one = frame(DATA, 0, 1, [7]);
        let mut reader = Reader::new(&peer);
        let mut sent = 0;
        while sent < 60_000 && peer.try_send(one.repeat(100)).is_ok() && !reader.is_over() {
            sent += 100;
        }
        if reader.is_over() {
            let how = reader.finish(&peer);
            return format!("{how} after {sent}");
        }
        let _ = peer.tcp.shutdown(std::net::Shutdown::Both);
        format!("{sent} were taken")
    });
}

/// One field of 4 KB, put into the table once and named again and again (CVE-2016-6581).
#[test]
fn hpack_bomb() {
    held("HPACK bomb", "", "", 24 * MIB, |address| {
        let mut peer = Peer::connect(address);
        let mut block = literals(&request("GET", "/"));
        block.extend(indexed_literal(b"x", &[b'y'; 3_900]));
        peer.send(frame(HEADERS, 5, 1, &block));
        assert_eq!(peer.over(1).status(), Some(200));
        let mut bomb = literals(&request("GET", "/"));
        bomb.extend([0xbe; 16_000]);
        let mut refused = 0;
        for stream in (3..200).step_by(2) {
            peer.send(frame(HEADERS, 5, stream, &bomb));
            let came = peer.over(stream);
            if peer.closed {
                break;
            }
            assert_ne!(came.status(), Some(200));
            refused += 1;
        }
        format!("{refused} heads of 60 MB each refused, {:?}", peer.goaway)
    });
    held("many small fields", "", "", 24 * MIB, |address| {
        let mut peer = Peer::connect(address);
        let mut bomb = literals(&request("GET", "/"));
        // `accept: ` out of the static table.
        bomb.extend([0x93; 16_000]);
        let mut refused = 0;
        for stream in (1..200).step_by(2) {
            peer.send(frame(HEADERS, 5, stream, &bomb));
            let came = peer.over(stream);
            if peer.closed {
                break;
            }
            assert_ne!(came.status(), Some(200));
            refused += 1;
        }
        format!("{refused} refused, {:?}", peer.goaway)
    });
}

/// Streams whose windows stay shut, on several connections: each ends after `stall_timeout`.
#[test]
fn windows_that_stay_shut() {
    let more = "stall_timeout = \"1s\"";
    held("windows that stay shut", more, "", 96 * MIB, |address| {
        let mut peers: Vec<Peer> = (0..5).map(|_| Peer::mute(address)).collect();
        for peer in &mut peers {
            peer.send(PREFACE).send(settings(&[(4, 0)]));
            for n in 0..100 {
                peer.send(get(stream(n), "/big"));
            }
        }
        let mut ended = 0;
        for peer in &mut peers {
            for n in 0..100 {
                let came = peer.over(stream(n));
                assert!(!came.ended && came.data.is_empty());
                ended += usize::from(came.reset.is_some());
            }
        }
        format!("{ended} streams of 500 reset")
    });
}

/// A client with wide windows that never reads: its connection ends.
#[test]
fn sockets_that_nobody_reads() {
    let more = "stall_timeout = \"1s\"";
    let top = "[defaults]\nkeep_alive = \"1s\"";
    held(
        "sockets that nobody reads",
        more,
        top,
        96 * MIB,
        |address| {
            let mut peers: Vec<Peer> = (0..5).map(|_| Peer::mute(address)).collect();
            for peer in &mut peers {
                peer.send(PREFACE).send(settings(&[(4, 0x7fff_ffff)]));
                peer.send(window(0, 0x7000_0000));
                for n in 0..100 {
                    peer.send(get(stream(n), "/big"));
                }
            }
            for peer in &mut peers {
                wait_until("its connection ends", || {
                    pause(Duration::from_millis(50));
                    peer.try_send(frame(0xee, 0, 0, [])).is_err()
                });
            }
            format!("{} connections ended", peers.len())
        },
    );
}

/// Requests whose bodies never come, as many as there may be at once: each is ended.
#[test]
fn streams_that_are_left_silent() {
    let more = "body_timeout = \"1s\"\nresponse_timeout = \"1s\"";
    held(
        "streams that are left silent",
        more,
        "",
        64 * MIB,
        |address| {
            let mut peers: Vec<Peer> = (0..10).map(|_| Peer::connect(address)).collect();
            for peer in &mut peers {
                for n in 0..100 {
                    peer.send(headers(stream(n), 0, &request("POST", "/")));
                }
            }
            let mut answers = std::collections::BTreeMap::<Option<u16>, usize>::new();
            for peer in &mut peers {
                for n in 0..100 {
                    let came = peer.over(stream(n));
                    assert!(came.is_over());
                    *answers.entry(came.status()).or_default() += 1;
                }
            }
            format!("{answers:?}")
        },
    );
}

/// A connection on which nothing is said, or only half a head.
#[test]
fn connections_that_say_nothing() {
    let top = "[defaults]\nheader_timeout = \"1s\"";
    held(
        "connections that say nothing",
        "",
        top,
        32 * MIB,
        |address| {
            let half = frame(HEADERS, 1, 1, &literals(&request("GET", "/"))[..9]);
            let beginnings = [
                Vec::new(),
                PREFACE[..5].to_vec(),
                PREFACE.to_vec(),
                [PREFACE, &settings(&[])].concat(),
                [PREFACE, &settings(&[]), &half].concat(),
                [PREFACE, &settings(&[]), &get(1, "/")[..12]].concat(),
            ];
            let mut peers = Vec::new();
            for beginning in &beginnings {
                let mut peer = Peer::mute(address);
                peer.polite = false;
                peer.send(beginning);
                peers.push(peer);
            }
            for (peer, beginning) in peers.iter_mut().zip(&beginnings) {
                while peer.frame().is_ok_and(|frame| frame.is_some()) {}
                assert!(peer.closed, "{:?}", String::from_utf8_lossy(beginning));
            }
            format!("{} of {0} ended", beginnings.len())
        },
    );
}
