//! The load generator and the backend of `benches/compare`: figures are worth what counts them.
//!
//! They are no part of the library, so their folder is taken in as it is.

#[allow(
    dead_code,
    unused_imports,
    reason = "the bench uses what the tests do not"
)]
#[path = "../benches/compare/load/mod.rs"]
mod load;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use load::answer::{Answer, Answered};
use load::backend::Backend;
use load::latency::Latency;
use load::{Job, Outcome, Pattern, Request, Tls};
use rustls::crypto::aws_lc_rs;

#[test]
fn an_answer_is_read_whole_and_at_every_split() {
    let rows: &[(&str, &str, u64, bool)] = &[
        (
            "a length",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            5,
            true,
        ),
        (
            "no content",
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            0,
            true,
        ),
        (
            "chunks, an extension and a trailer",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1F;a=b\r\n\
             0123456789012345678901234567890\r\n0\r\nName: value\r\n\r\n",
            36,
            true,
        ),
        (
            "the last one on its connection",
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\n!",
            1,
            false,
        ),
        (
            "an interim answer first",
            "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            2,
            true,
        ),
    ];
    for &(name, bytes, content, reusable) in rows {
        let bytes = bytes.as_bytes();
        let right = Some(Answered { content, reusable });
        for split in 0..bytes.len() {
            let mut answer = Answer::default();
            for _ in 0..2 {
                answer.reset();
                let (front, back) = bytes.split_at(split);
                assert_eq!(answer.feed(front).unwrap(), None, "{name}, {split}");
                assert_eq!(answer.feed(back).unwrap(), right, "{name}, {split}");
            }
        }
    }
}

#[test]
fn an_answer_that_is_wrong_is_an_error() {
    let rows = [
        ("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", "status 503"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab",
            "1 bytes behind the end of the answer",
        ),
        ("SSH-2.0\r\n\r\n", "the answer is not HTTP/1.1"),
    ];
    for (bytes, text) in rows {
        let error = Answer::default().feed(bytes.as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), text);
    }
}

#[test]
fn an_answer_that_ends_early_is_an_error_where_its_length_is_known() {
    let rows = [
        ("", Err("closed without an answer")),
        ("HTTP/1.1 2", Err("closed within the head of the answer")),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab",
            Err("closed after 2 bytes of body"),
        ),
        ("HTTP/1.1 200 OK\r\n\r\nab", Ok(2)),
    ];
    for (bytes, right) in rows {
        let mut answer = Answer::default();
        assert_eq!(answer.feed(bytes.as_bytes()).unwrap(), None);
        let closed = answer.close().map(|answered| answered.content);
        assert_eq!(
            closed.map_err(|error| error.to_string()),
            right.map_err(str::to_owned)
        );
    }
}

#[test]
fn a_quantile_is_at_most_one_percent_above() {
    let mut latency = Latency::new();
    for microseconds in 1..=10_000 {
        latency.record(microseconds * 1000);
    }
    for (share, exact) in [(0.5, 5000.0), (0.99, 9900.0), (1.0, 10_000.0)] {
        let quantile = latency.quantile(share);
        assert!(quantile >= exact && quantile <= exact * 1.01, "{quantile}");
    }
    assert_eq!(latency.max(), 10_000.0);
    latency.record(u64::MAX);
    assert_eq!(latency.max(), u64::MAX as f64 / 1e3);
    assert_eq!(Latency::new().quantile(0.5), 0.0);
}

#[test]
fn every_pattern_gets_whole_answers() {
    let job = Job {
        connections: 6,
        ..job(backend())
    };
    let upload = Request {
        path: "/10".to_owned(),
        upload: 3_000_000,
        ..job.request.clone()
    };
    let large = Request {
        path: "/5000000".to_owned(),
        ..job.request.clone()
    };
    for pattern in [Pattern::KeepAlive, Pattern::Connect, Pattern::Rate(200.0)] {
        for request in [&job.request, &upload, &large] {
            let outcome = run(&Job {
                pattern,
                request: request.clone(),
                ..job.clone()
            });
            assert_eq!(outcome.first_error, None, "{pattern:?}");
            assert_eq!(outcome.errors, 0, "{pattern:?}");
            assert!(outcome.requests > 0, "{pattern:?}");
            let content: u64 = request.path[1..].parse().unwrap();
            assert_eq!(outcome.bytes, outcome.requests * (content + request.upload));
            match pattern {
                // One each 5 ms, whatever they take.
                Pattern::Rate(_) => assert_eq!(outcome.requests, 40),
                Pattern::Connect => assert_eq!(outcome.connects, outcome.requests),
                _ => assert_eq!(outcome.connects, 0),
            }
        }
    }
}

#[test]
fn held_connections_have_had_one_request_each() {
    let (outcome, _held) = load::run(&Job {
        connections: 300,
        pattern: Pattern::Hold,
        ..job(backend())
    })
    .unwrap();
    assert_eq!((outcome.requests, outcome.errors), (300, 0));
}

#[test]
fn what_goes_wrong_is_counted_and_told() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let refused = job(nobody.local_addr().unwrap());
    drop(nobody);
    for pattern in [Pattern::KeepAlive, Pattern::Connect, Pattern::Rate(100.0)] {
        let outcome = run(&Job {
            pattern,
            ..refused.clone()
        });
        assert_eq!(outcome.requests, 0);
        assert!(outcome.errors > 0);
        assert!(outcome.first_error.unwrap().contains("refused"));
    }
    let mut unknown = job(backend());
    unknown.request.path = "/no-number".to_owned();
    let outcome = run(&unknown);
    assert_eq!(outcome.requests, 0);
    assert_eq!(outcome.first_error.as_deref(), Some("status 404"));
}

#[test]
fn a_short_answer_is_no_request() {
    let mut job = job(answering("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"));
    job.request.path = "/4".to_owned();
    let outcome = run(&job);
    assert_eq!(outcome.requests, 0);
    assert_eq!(
        outcome.first_error.as_deref(),
        Some("3 bytes of body, not 4")
    );
}

#[test]
fn a_connection_that_the_peer_closes_is_opened_again() {
    let mut job = job(answering("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc"));
    job.request.path = "/3".to_owned();
    let outcome = run(&job);
    assert_eq!(outcome.first_error, None);
    assert!(outcome.requests > 4);
    assert!(outcome.connects > 0);
}

#[test]
fn sessions_begin_anew_or_are_resumed_as_told() {
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    for tickets in [true, false] {
        for resume in [false, true] {
            for pattern in [Pattern::KeepAlive, Pattern::Connect] {
                let tls = Tls {
                    ca: ca.clone(),
                    name: "load.test".to_owned(),
                    resume,
                };
                let job = Job {
                    target: tls_server(&ca, tickets),
                    tls: Some(tls),
                    pattern,
                    ..job(SocketAddr::from(([127, 0, 0, 1], 0)))
                };
                let connect = matches!(pattern, Pattern::Connect);
                if connect && resume && !tickets {
                    let error = load::run(&job).map(|_| ()).unwrap_err();
                    assert!(error.to_string().contains("resumed a session"), "{error}");
                    continue;
                }
                let outcome = run(&job);
                assert_eq!(outcome.first_error, None);
                assert!(outcome.requests > 0);
                let handshakes = (outcome.full_handshakes, outcome.resumed_handshakes);
                match (connect, resume) {
                    (false, _) => assert_eq!(handshakes, (0, 0)),
                    (true, false) => assert_eq!(handshakes, (outcome.connects, 0)),
                    (true, true) => assert_eq!(handshakes, (0, outcome.connects)),
                }
            }
        }
    }
}

#[test]
fn a_certificate_of_another_authority_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let (ca, other) = (
        folder.path().join("ca.pem"),
        folder.path().join("other.pem"),
    );
    tls_server(&other, true);
    let outcome = run(&Job {
        target: tls_server(&ca, true),
        tls: Some(Tls {
            ca: other,
            name: "load.test".to_owned(),
            resume: false,
        }),
        ..job(SocketAddr::from(([127, 0, 0, 1], 0)))
    });
    assert_eq!(outcome.requests, 0);
    let text = outcome.first_error.unwrap();
    assert!(text.contains("invalid peer certificate"), "{text}");
}

fn run(job: &Job) -> Outcome {
    load::run(job).unwrap().0
}

/// Four connections, 128 bytes, a fifth of a second.
fn job(target: SocketAddr) -> Job {
    Job {
        target,
        tls: None,
        connections: 4,
        active: 4,
        request: Request {
            host: "load.test".to_owned(),
            path: "/128".to_owned(),
            upload: 0,
        },
        pattern: Pattern::KeepAlive,
        seconds: 0.2,
        watched: Vec::new(),
    }
}

fn backend() -> SocketAddr {
    let mut backend = Backend::new(&[SocketAddr::from(([127, 0, 0, 1], 0))]).unwrap();
    let address = backend.addresses()[0];
    thread::spawn(move || backend.serve());
    address
}

/// Answers the first request on each connection with these bytes, and closes it.
fn answering(bytes: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                read_head(&mut stream);
                let _ = stream.write_all(bytes.as_bytes());
            });
        }
    });
    address
}

/// Answers with 128 bytes; its authority goes to `ca`.
fn tls_server(ca: &PathBuf, tickets: bool) -> SocketAddr {
    let made = rcgen::generate_simple_self_signed(["load.test".to_owned()]).unwrap();
    std::fs::write(ca, made.cert.pem()).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    if tickets {
        config.ticketer = aws_lc_rs::Ticketer::new().unwrap();
    } else {
        config.send_tls13_tickets = 0;
    }
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let tls = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = rustls::StreamOwned::new(tls, stream.unwrap());
            thread::spawn(move || {
                while read_head(&mut stream) {
                    let answer =
                        format!("HTTP/1.1 200 OK\r\nContent-Length: 128\r\n\r\n{:128}", "");
                    if stream.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// Whether the head of a request came.
fn read_head(stream: &mut impl Read) -> bool {
    let mut head = Vec::new();
    let mut bytes = [0; 4096];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut bytes) {
            Ok(0) | Err(_) => return false,
            Ok(count) => head.extend_from_slice(&bytes[..count]),
        }
    }
    true
}
