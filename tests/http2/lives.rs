//! How connections of clients begin and end, and what we say ourselves on them.

use std::process::Command;
use std::time::Duration;

use tokio::time::Instant;

use crate::bodies::{Behind, pattern};
use crate::frames::*;
use crate::peers::{self, ask, block, connect};
use crate::support::backend::{Backend, Step, nobody};
use crate::support::server::{Folder, Server, output};
use crate::support::{Gate, pause, require, wait_until};
use crate::{config, metric};

/// §6.8: a drain says GOAWAY, what is under way is finished, then the connection ends.
#[test]
fn a_drain_finishes_what_is_under_way() {
    let backend = Backend::start("b");
    let gate = Gate::new();
    backend.next(vec![Step::Request, Step::Wait(gate.clone()), Step::Echo]);
    let behind = Behind::H1(backend);
    let server = behind.server("", "[drain]\nwait = \"100ms\"");
    let Behind::H1(backend) = &behind else { return };
    let mut idle = Peer::connect(server.address());
    idle.send(get(1, "/idle"));
    // It waits at the gate if it is the first.
    let mut busy = Peer::connect(server.address());
    busy.send(get(1, "/busy"));
    backend.await_requests(2);
    server.drain();
    for peer in [&mut idle, &mut busy] {
        peer.until(|peer| peer.goaway.is_some());
        assert_eq!(peer.goaway.map(|(code, _)| code), Some(NO_ERROR));
    }
    gate.open();
    for peer in [&mut idle, &mut busy] {
        let came = peer.over(1);
        assert!(came.ended && came.status() == Some(200));
        peer.end();
        assert_eq!(peer.goaway, Some((NO_ERROR, 1)));
    }
    server.drained();
}

/// What was answered when a drain began arrives whole, however slowly the client reads.
#[test]
fn a_drain_waits_for_who_reads_slowly() {
    const MANY: u32 = 90;
    const SIZE: usize = 60_000;
    let backend = Backend::start("b");
    let mut response = format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n").into_bytes();
    response.extend(pattern(SIZE));
    backend.usually(vec![Step::Request, Step::Send(response)]);
    let drain = "[drain]\nwait = \"0s\"";
    let server = Server::in_process(&config("http", &[backend.address], "", drain));
    let mut peer = Peer::mute(server.address());
    let socket = socket2::SockRef::from(&peer.tcp);
    socket
        .set_recv_buffer_size(256 << 10)
        .expect("it is a socket");
    peer.send(PREFACE);
    peer.send(settings(&[(4, 1 << 30)]));
    peer.send(window(0, 1 << 30));
    for n in 0..MANY {
        peer.send(get(2 * n + 1, "/"));
    }
    let series = format!(
        "evenkeel_backend_in_flight{{service=\"web\",backend=\"{}\"}}",
        backend.address
    );
    wait_until("every response is with us", || {
        backend.requests() == MANY as usize && metric(&server, &series) == Some(0.0)
    });
    server.drain();
    // For longer than a connection without requests is kept in a drain: it takes something now and then.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(2_500) {
        assert!(peer.step());
        pause(Duration::from_millis(50));
    }
    let so_far = peer.came.values().filter(|came| came.ended).count();
    assert!(so_far < MANY as usize, "too fast to show anything");
    peer.end();
    for n in 0..MANY {
        let came = &peer.came[&(2 * n + 1)];
        assert!(came.ended && came.data == pattern(SIZE), "{n}");
    }
    assert_eq!(peer.goaway.map(|(code, _)| code), Some(NO_ERROR));
    server.drained();
}

/// A connection that becomes too old is given up without losing a request: whatever stream GOAWAY
/// names is answered (§6.8).
#[test]
fn an_old_connection_ends_without_losing_a_request() {
    let behind = Behind::H1(Backend::start("b"));
    let server = behind.server("", "[defaults]\nmax_connection_age = \"1s\"");
    for _ in 0..2 {
        let mut peer = Peer::connect(server.address());
        let mut stream = 1;
        while !peer.closed {
            peer.send(get(stream, "/"));
            let came = peer.over(stream);
            match peer.goaway {
                Some((code, last)) if stream > last => assert_eq!(code, NO_ERROR),
                _ => assert_eq!(came.status(), Some(200), "{stream}: {:?}", peer.goaway),
            }
            stream += 2;
        }
        assert_eq!(peer.goaway.map(|(code, _)| code), Some(NO_ERROR));
    }
    // And a client that keeps to the RFC notices nothing but a new connection.
    block(async {
        let mut connections = 0;
        let mut answered = 0;
        while connections < 3 {
            let (send, _ended) = connect(server.address()).await;
            connections += 1;
            loop {
                match ask(&send, "GET", "/").await {
                    Ok(answer) => answered += usize::from(answer.status == 200),
                    // It was not taken.
                    Err(e) if e.is_go_away() && e.reason() == Some(h2::Reason::NO_ERROR) => break,
                    Err(e) if e.is_io() => break,
                    Err(e) => panic!("after {answered}: {e}"),
                }
            }
        }
        assert!(answered > 3);
    });
}

/// `keep_alive` bounds how long a connection has no streams, `header_timeout` how long it may have had
/// none at all.
#[test]
fn an_idle_connection_ends() {
    let behind = Behind::H1(Backend::start("b"));
    let idle = "[defaults]\nkeep_alive = \"300ms\"\nheader_timeout = \"200ms\"";
    let server = behind.server("", idle);
    let mut peer = Peer::connect(server.address());
    peer.end();
    assert_eq!(peer.goaway, Some((NO_ERROR, 0)));
    let mut peer = Peer::connect(server.address());
    peer.send(get(1, "/"));
    assert_eq!(peer.over(1).status(), Some(200));
    peer.end();
    assert_eq!(peer.goaway, Some((NO_ERROR, 1)));
}

/// §5.1.2: `max_streams` is told; a stream more is refused, and the others go on.
#[test]
fn no_more_streams_than_allowed() {
    let backend = Backend::start("b");
    let gate = Gate::new();
    backend.usually(vec![Step::Request, Step::Wait(gate.clone()), Step::Echo]);
    let behind = Behind::H1(backend);
    let server = behind.server("", "[limits]\nmax_streams = 3");
    let mut peer = Peer::connect(server.address());
    peer.until(|peer| !peer.settings.is_empty());
    assert!(peer.settings.contains(&(3, 3)), "{:?}", peer.settings);
    for stream in [1, 3, 5, 7] {
        peer.send(get(stream, "/"));
    }
    assert_eq!(peer.over(7).reset, Some(REFUSED_STREAM));
    gate.open();
    for stream in [1, 3, 5] {
        assert_eq!(peer.over(stream).status(), Some(200));
    }
    peer.send(get(9, "/"));
    assert_eq!(peer.over(9).status(), Some(200));
}

/// Answers of our own are whole, and leave the connection as good as it was.
#[test]
fn what_we_say_ourselves() {
    let backend = Backend::start("b");
    let server = Server::in_process(&format!(
        r#"
        [[listener]]
        address = "127.0.0.1:0"
        protocol = "http"
        [[service]]
        name = "web"
        discover = {{ static = ["{}"] }}
        max_body = 10
        [[service]]
        name = "scarce"
        discover = {{ static = ["{}"] }}
        rate_limit = {{ requests = 1, per = "1h" }}
        [[service]]
        name = "gone"
        discover = {{ static = ["{}"] }}
        [[route]]
        path = "/web"
        service = "web"
        [[route]]
        path = "/scarce"
        service = "scarce"
        [[route]]
        path = "/gone"
        service = "gone"
        "#,
        backend.address,
        backend.address,
        nobody(),
    ));
    let mut peer = Peer::connect(server.address());
    let post = |stream: u32, path: &str, length: Option<&str>| {
        let mut fields = request("POST", path).to_vec();
        fields.extend(length.map(|n| ("content-length", n)));
        let body = frame(DATA, END_STREAM, stream, [b'x'; 11]);
        [headers(stream, 0, &fields), body].concat()
    };
    for (at, (rule, frames, status)) in [
        ("no route", get(1, "/none"), 404),
        ("a body that is too large", post(3, "/web", Some("11")), 413),
        ("the same, not told before", post(5, "/web", None), 413),
        ("a first request", get(7, "/scarce"), 200),
        ("a second request", get(9, "/scarce"), 429),
        ("no backend", get(11, "/gone"), 503),
        ("a request that is in order", get(13, "/web"), 200),
    ]
    .into_iter()
    .enumerate()
    {
        peer.send(frames);
        let came = peer.over(2 * at as u32 + 1);
        assert_eq!(came.status(), Some(status), "{rule}");
        assert!(came.ended, "{rule}: {came:?}");
        let length = came.data.len().to_string();
        assert_eq!(came.field("content-length"), Some(length), "{rule}");
        assert_eq!(came.field("connection"), None, "{rule}");
        if status != 200 {
            let text = String::from_utf8_lossy(&came.data).into_owned();
            assert!(text.starts_with(&status.to_string()), "{rule}: {text}");
        }
    }
    let mut head = Peer::connect(server.address());
    head.send(headers(1, END_STREAM, &request("HEAD", "/none")));
    let came = head.over(1);
    assert!(came.ended && came.data.is_empty() && came.status() == Some(404));
    assert_eq!((peer.goaway, peer.closed), (None, false));
}

/// gRPC, "Responses": what fails is said by one head with `grpc-status`; trailers of a backend pass.
#[test]
fn calls_by_grpc_fail_in_their_own_words() {
    let dead = Server::in_process(&config("h2c", &[nobody()], "", ""));
    let refused = Server::in_process(&config(
        "h2c",
        &[nobody()],
        "rate_limit = { requests = 1, per = \"1h\" }",
        "",
    ));
    let call = |stream: u32| {
        let mut fields = request("POST", "/a.B/C").to_vec();
        fields.extend([("content-type", "application/grpc"), ("te", "trailers")]);
        let message = frame(DATA, END_STREAM, stream, [0; 5]);
        [headers(stream, 0, &fields), message].concat()
    };
    for (rule, server, code) in [
        ("no backend", &dead, "14"),
        ("no backend", &refused, "14"),
        ("too many", &refused, "14"),
    ] {
        let mut peer = Peer::connect(server.address());
        peer.send(call(1));
        let came = peer.over(1);
        assert_eq!((came.status(), came.heads.len()), (Some(200), 1), "{rule}");
        assert!(came.ended && came.data.is_empty(), "{rule}");
        assert_eq!(came.field("grpc-status").as_deref(), Some(code), "{rule}");
        assert_eq!(
            came.field("content-type").as_deref(),
            Some("application/grpc"),
            "{rule}"
        );
        assert_eq!(came.field("content-length"), None, "{rule}");
    }
    let backend = peers::Backend::start(|mut call| async move {
        assert_eq!(call.request.headers()["te"], "trailers");
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-status", http::HeaderValue::from_static("5"));
        if let Ok(mut stream) = call.respond.send_response(http::Response::new(()), false) {
            let _ = peers::write(&mut stream, vec![0; 5], Some(trailers)).await;
        }
    });
    let server = Server::in_process(&config("h2c", &[backend.address], "", ""));
    let mut peer = Peer::connect(server.address());
    peer.send(call(1));
    let came = peer.over(1);
    assert_eq!((came.heads.len(), came.data.len()), (2, 5));
    assert_eq!(came.field("grpc-status").as_deref(), Some("5"));
}

/// What we say ourselves to a call is in the access log and in the metrics as a backend's word is.
#[test]
fn failures_of_calls_are_accounted_for() {
    let configuration = config("h2c", &[nobody()], "", "[log]\naccess = \"json\"");
    let mut server = Server::binary(&configuration);
    let mut peer = Peer::connect(server.address());
    let mut fields = request("POST", "/a.B/C").to_vec();
    fields.extend([("content-type", "application/grpc"), ("te", "trailers")]);
    peer.send(headers(1, 0, &fields));
    peer.send(frame(DATA, END_STREAM, 1, [0; 5]));
    assert_eq!(peer.over(1).field("grpc-status").as_deref(), Some("14"));
    let series = "evenkeel_grpc_calls_total{service=\"web\",status=\"UNAVAILABLE\"}";
    wait_until("it is counted", || metric(&server, series) == Some(1.0));
    wait_until("it is in the log", || {
        let log = server.process().access().join("\n");
        log.contains("\"grpc_status\":\"UNAVAILABLE\"")
    });
}

/// RFC 9113 §3.2: by ALPN over TLS, unless it is switched off; HTTP/1.1 for whoever knows no other.
#[test]
fn curl_speaks_what_was_agreed_upon() {
    if !require("curl") {
        return;
    }
    let folder = Folder::new();
    let certificate = folder.certificate("default", &["localhost"]);
    let backend = Backend::start("b");
    let server = Server::binary(&format!(
        r#"
        [[listener]]
        address = "127.0.0.1:0"
        protocol = "https"
        certificates = [{certificate}]
        [[listener]]
        address = "127.0.0.1:0"
        protocol = "https"
        http2 = false
        certificates = [{certificate}]
        [[listener]]
        address = "127.0.0.1:0"
        protocol = "http"
        [[service]]
        name = "web"
        discover = {{ static = ["{backend}"] }}
        [[route]]
        service = "web"
        "#,
        certificate = certificate.entry(),
        backend = backend.address,
    ));
    for (listener, scheme, option, version) in [
        (0, "https", "--http2", "2"),
        (0, "https", "--http1.1", "1.1"),
        (1, "https", "--http2", "1.1"),
        (2, "http", "--http2-prior-knowledge", "2"),
        (2, "http", "--http1.1", "1.1"),
    ] {
        let mut curl = Command::new("curl");
        let port = server.addresses[listener].port();
        curl.args([
            "--silent",
            "--show-error",
            "--noproxy",
            "*",
            "--max-time",
            "40",
        ])
        .arg("--cacert")
        .arg(&certificate.ca)
        .args(["--resolve", &format!("localhost:{port}:127.0.0.1"), option])
        .args([
            "--data",
            "abc",
            "--write-out",
            " %{http_version} %{http_code}",
        ])
        .arg(format!("{scheme}://localhost:{port}/curl"));
        let output = output(&mut curl);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(
            text,
            format!("POST /curl abc {version} 200"),
            "{option}: {output:?}"
        );
    }
}
