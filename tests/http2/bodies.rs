//! Messages from end to end, over each of the four pairs of HTTP/1.1 and HTTP/2.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};

use crate::config;
use crate::frames::*;
use crate::peers::{self, Answer, Call, ask, block, connect, request, say};
use crate::support::backend::{self, Step};
use crate::support::client::Client;
use crate::support::server::Server;
use crate::support::wire::{self, Kind};
use crate::support::{Gate, wait_until};

/// Some bytes that are not all alike.
pub fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|n| (n * 31 + n / 251) as u8).collect()
}

const BIG: usize = 10 * 1024 * 1024;

/// Reads a request whole, in HTTP/1.1.
fn read_whole(stream: &mut TcpStream, inbox: &mut Vec<u8>) -> Option<wire::Message> {
    let mut room = vec![0; 1 << 18];
    loop {
        let head = wire::find(inbox, b"\r\n\r\n");
        let is_long = inbox.len() > 100_000;
        // A long body is looked at when it may be whole.
        if head.is_some()
            && (!is_long || inbox.ends_with(b"\r\n\r\n"))
            && let Ok(Some(message)) = wire::message(inbox, Kind::Request, false)
        {
            inbox.drain(..message.raw.len());
            return Some(message);
        }
        match stream.read(&mut room) {
            Ok(n @ 1..) => inbox.extend_from_slice(&room[..n]),
            _ => return None,
        }
    }
}

/// Sends bodies back, with their trailers.
fn mirror_h1(mut stream: TcpStream) {
    let mut inbox = Vec::new();
    while let Some(message) = read_whole(&mut stream, &mut inbox) {
        let mut out = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for piece in message.body.chunks(70_000) {
            out.extend(format!("{:x}\r\n", piece.len()).bytes());
            out.extend_from_slice(piece);
            out.extend(b"\r\n");
        }
        out.extend(b"0\r\n");
        for (name, value) in &message.trailers {
            out.extend(format!("{name}: {value}\r\n").bytes());
        }
        out.extend(b"\r\n");
        if stream.write_all(&out).is_err() {
            return;
        }
    }
}

async fn mirror_h2(mut call: Call) {
    let Ok(mut stream) = call.respond.send_response(Response::new(()), false) else {
        return;
    };
    if let Ok((body, trailers)) = peers::read(call.request.body_mut()).await {
        let _ = peers::write(&mut stream, body, trailers).await;
    }
}

/// A server in front of a backend of either kind.
pub enum Behind {
    H1(backend::Backend),
    H2(peers::Backend),
}

impl Behind {
    pub fn address(&self) -> SocketAddr {
        match self {
            Behind::H1(backend) => backend.address,
            Behind::H2(backend) => backend.address,
        }
    }

    pub fn server(&self, more: &str, other: &str) -> Server {
        let upstream = match self {
            Behind::H1(_) => "http",
            Behind::H2(_) => "h2c",
        };
        Server::in_process(&config(upstream, &[self.address()], more, other))
    }
}

fn mirrors() -> [(&'static str, Behind); 2] {
    [
        (
            "http",
            Behind::H1(backend::Backend::custom("mirror", mirror_h1)),
        ),
        ("h2c", Behind::H2(peers::Backend::start(mirror_h2))),
    ]
}

/// 10 MiB there and back, with trailers both ways, over all four pairs.
#[test]
fn bodies_and_trailers_come_back_as_they_went() {
    let body = pattern(BIG);
    for (upstream, behind) in mirrors() {
        let server = behind.server("", "");
        // From HTTP/2.
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("17"));
        let answer = block(async {
            let (send, _ended) = connect(server.address()).await;
            let sent = Some((body.clone(), Some(trailers)));
            say(&send, request("POST", "/"), sent).await
        });
        let answer = answer.expect(upstream);
        assert_eq!(answer.status, 200, "{upstream}");
        assert!(
            answer.body == body,
            "{upstream}: {} bytes",
            answer.body.len()
        );
        assert_eq!(answer.trailers["x-sum"], "17", "{upstream}");
        // From HTTP/1.1.
        let mut client = Client::plain(server.address());
        let mut out =
            b"POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for piece in body.chunks(50_000) {
            out.extend(format!("{:x}\r\n", piece.len()).bytes());
            out.extend_from_slice(piece);
            out.extend(b"\r\n");
        }
        out.extend(b"0\r\nx-sum: 17\r\n\r\n");
        let mut writer = client.tcp().try_clone().expect("there are descriptors");
        let sending = std::thread::spawn(move || writer.write_all(&out));
        let mut came = Vec::new();
        while !came.ends_with(b"\r\nx-sum: 17\r\n\r\n") {
            let more = client.read_some().unwrap_or(0);
            assert!(more > 0, "{upstream}: it ended after {} bytes", came.len());
            came.append(&mut client.take());
        }
        sending.join().expect("no panic").expect("all was taken");
        let answer = wire::message(&came, Kind::Response, false);
        let answer = answer.expect("it is one").expect("it is whole");
        assert_eq!(answer.status(), 200, "{upstream}");
        assert!(
            answer.body == body,
            "{upstream}: {} bytes",
            answer.body.len()
        );
    }
}

/// HEAD, 204 and 304 have no body in any pair, and keep the length that they tell of.
#[test]
fn responses_without_a_body_have_none() {
    let rows = [
        ("HEAD", 200, Some("5")),
        ("HEAD", 404, None),
        ("GET", 204, None),
        ("GET", 304, Some("5")),
        ("GET", 304, None),
        ("GET", 200, Some("0")),
    ];
    for (method, status, length) in rows {
        let rule = format!("{method} {status} {length:?}");
        let h1 = backend::Backend::start("b");
        let field = length.map_or(String::new(), |n| format!("Content-Length: {n}\r\n"));
        let script = format!("HTTP/1.1 {status} Some\r\n{field}x: y\r\n\r\n");
        h1.usually(vec![Step::Request, Step::send(script)]);
        let h2 = peers::Backend::start(move |mut call| async move {
            let mut response = Response::builder().status(status).header("x", "y");
            if let Some(length) = length {
                response = response.header("content-length", length);
            }
            let response = response.body(()).expect("it is one");
            let _ = call.respond.send_response(response, true);
        });
        for behind in [Behind::H1(h1), Behind::H2(h2)] {
            let server = behind.server("", "");
            for _ in 0..2 {
                let mut peer = Peer::connect(server.address());
                peer.send(headers(1, END_STREAM, &crate::frames::request(method, "/")));
                peer.send(headers(3, END_STREAM, &crate::frames::request(method, "/")));
                let came = peer.over(1);
                assert!(came.ended && came.data.is_empty(), "{rule}: {came:?}");
                assert_eq!(came.status(), Some(status), "{rule}");
                assert_eq!(came.heads.len(), 1, "{rule}");
                assert_eq!(came.field("content-length").as_deref(), length, "{rule}");
                assert_eq!(peer.over(3).status(), Some(status), "{rule}");
            }
            let mut client = Client::plain(server.address());
            for _ in 0..2 {
                client.send(format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n"));
                let kind = match method {
                    "HEAD" => Kind::ResponseToHead,
                    _ => Kind::Response,
                };
                let response = client.message(kind).expect("it is answered");
                assert_eq!(response.status(), status, "{rule}");
                assert_eq!(response.field("x"), Some("y"), "{rule}");
                assert_eq!(response.field("content-length"), length, "{rule}");
            }
        }
    }
}

/// 103 comes before the response, and 100 before the body, in all pairs.
#[test]
fn interim_responses_pass() {
    let h1 = backend::Backend::start("b");
    h1.usually(vec![
        Step::Head,
        Step::send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
        Step::send("HTTP/1.1 100 Continue\r\n\r\n"),
        Step::Echo,
    ]);
    let h2 = peers::Backend::start(|mut call| async move {
        let hints = Response::builder().status(103).header("link", "</a>");
        let hints = hints.body(()).expect("it is one");
        let _ = call.respond.send_informational(hints);
        let more = Response::builder().status(100).body(()).expect("it is one");
        let _ = call.respond.send_informational(more);
        peers::echo(call).await;
    });
    for behind in [Behind::H1(h1), Behind::H2(h2)] {
        let server = behind.server("", "");
        let mut peer = Peer::connect(server.address());
        let mut fields = crate::frames::request("POST", "/").to_vec();
        fields.push(("expect", "100-continue"));
        peer.send(headers(1, 0, &fields));
        peer.until(|peer| peer.came.get(&1).is_some_and(|came| came.heads.len() == 2));
        let came = &peer.came[&1];
        assert_eq!(came.field("link").as_deref(), Some("</a>"));
        assert_eq!(came.status(), Some(100));
        peer.send(frame(DATA, END_STREAM, 1, "abc"));
        let came = peer.over(1);
        assert_eq!(
            (came.status(), &*came.data),
            (Some(200), &b"POST / abc"[..])
        );
        let mut client = Client::plain(server.address());
        client.send(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n",
        );
        assert_eq!(client.response().expect("hints").status(), 103);
        assert_eq!(client.response().expect("go on").status(), 100);
        client.send("abc");
        assert_eq!(client.response().expect("answer").text(), "POST / abc");
    }
}

/// An answer that comes while the body is still being sent is delivered; the stream is then over for
/// the client (RFC 9113 §8.1), which need not send the rest.
#[test]
fn an_early_response_is_delivered() {
    let h1 = backend::Backend::start("b");
    h1.usually(vec![
        Step::Head,
        Step::send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"),
    ]);
    let h2 = peers::Backend::start(|mut call| async move {
        let response = Response::builder().status(403).body(()).expect("it is one");
        if let Ok(mut stream) = call.respond.send_response(response, false) {
            let _ = stream.send_data(Bytes::from_static(b"no"), true);
        }
        // The request's body is not read.
    });
    for behind in [Behind::H1(h1), Behind::H2(h2)] {
        let server = behind.server("", "");
        let mut peer = Peer::connect(server.address());
        peer.send(headers(1, 0, &crate::frames::request("POST", "/")));
        peer.send(frame(DATA, 0, 1, "abc"));
        let came = peer.over(1);
        assert_eq!((came.status(), &*came.data), (Some(403), &b"no"[..]));
        assert!(came.ended);
        // It is told that nobody wants the rest, and others are not disturbed.
        peer.send(headers(3, 0, &crate::frames::request("POST", "/")));
        assert_eq!(peer.over(3).status(), Some(403));
        assert_eq!(peer.goaway, None);
    }
}

/// A client that resets its stream ends the request at the backend as well.
#[test]
fn a_client_that_leaves_ends_its_request() {
    let gate = Gate::new();
    let h1 = backend::Backend::start("b");
    h1.usually(vec![Step::Request, Step::AwaitClose]);
    {
        let behind = Behind::H1(h1);
        let server = behind.server("", "");
        let mut peer = Peer::connect(server.address());
        peer.send(get(1, "/"));
        let Behind::H1(backend) = &behind else { return };
        backend.await_requests(1);
        assert_eq!(backend.open(), 1);
        peer.send(reset(1, CANCEL));
        wait_until("the backend's connection ends", || backend.open() == 0);
    }
    let (told, asked) = std::sync::mpsc::channel();
    let told = std::sync::Mutex::new(told);
    let opened = gate.clone();
    let backend = peers::Backend::start(move |mut call| {
        let told = crate::support::lock(&told).clone();
        let opened = opened.clone();
        async move {
            if call.request.uri().path() == "/other" {
                return call.answer(200);
            }
            opened.open();
            let reason = std::future::poll_fn(|cx| call.respond.poll_reset(cx)).await;
            let _ = told.send(reason.ok());
        }
    });
    let behind = Behind::H2(backend);
    let server = behind.server("", "");
    let mut peer = Peer::connect(server.address());
    peer.send(get(1, "/"));
    assert!(gate.pass());
    peer.send(reset(1, CANCEL));
    let reason = asked.recv_timeout(crate::support::PATIENCE);
    assert_eq!(reason, Ok(Some(h2::Reason::CANCEL)));
    peer.send(get(3, "/other"));
    assert_eq!(peer.over(3).status(), Some(200));
}

/// A response that the backend does not finish is never a whole one for the client.
#[test]
fn a_response_that_is_cut_short_is_seen_to_be() {
    let rows: [(&str, &str); 3] = [
        (
            "a length",
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
        ),
        (
            "chunks",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        ),
        (
            "a chunk",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc",
        ),
    ];
    for (rule, script) in rows {
        for last in [Step::Close, Step::Reset] {
            let backend = backend::Backend::start("b");
            let gate = Gate::new();
            backend.usually(vec![
                Step::Request,
                Step::send(script),
                Step::Wait(gate.clone()),
                last,
            ]);
            let behind = Behind::H1(backend);
            let server = behind.server("retries = 0", "");
            cut(rule, &server, &gate);
        }
    }
    for length in [None, Some("9")] {
        let gate = Gate::new();
        let shut = gate.clone();
        let backend = peers::Backend::start(move |mut call| {
            let shut = shut.clone();
            async move {
                let mut response = Response::builder();
                if let Some(length) = length {
                    response = response.header("content-length", length);
                }
                let response = response.body(()).expect("it is one");
                let Ok(mut stream) = call.respond.send_response(response, false) else {
                    return;
                };
                let _ = stream.send_data(Bytes::from_static(b"abc"), false);
                while !shut.is_open() {
                    tokio::task::yield_now().await;
                }
                match length {
                    None => stream.send_reset(h2::Reason::INTERNAL_ERROR),
                    // Less than was promised.
                    Some(_) => drop(stream.send_data(Bytes::new(), true)),
                }
            }
        });
        let behind = Behind::H2(backend);
        let server = behind.server("retries = 0", "");
        cut("a stream", &server, &gate);
    }
}

fn cut(rule: &str, server: &Server, gate: &Gate) {
    let mut peer = Peer::connect(server.address());
    peer.send(get(1, "/"));
    peer.until(|peer| peer.came.get(&1).is_some_and(|came| came.data == b"abc"));
    let mut client = Client::plain(server.address());
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut came = Vec::new();
    while wire::find(&came, b"abc").is_none() {
        assert!(client.read_some().expect("it comes") > 0, "{rule}");
        came.append(&mut client.take());
    }
    gate.open();
    let over = peer.over(1);
    assert!(!over.ended && over.reset.is_some(), "{rule}: {over:?}");
    let (rest, _) = client.rest().expect("it ends");
    came.extend(rest);
    let whole = wire::message(&came, Kind::Response, false);
    assert!(!matches!(whole, Ok(Some(_))), "{rule}: {whole:?}");
}

/// Answers are not mixed up among many streams.
#[test]
fn many_streams_get_their_own_answers() {
    let h1 = backend::Backend::start("b");
    let h2 = peers::Backend::start(peers::echo);
    for behind in [Behind::H1(h1), Behind::H2(h2)] {
        let server = behind.server("", "");
        block(async {
            let (send, _ended) = connect(server.address()).await;
            let send = Arc::new(send);
            // Behind this it is known how many there may be at once.
            let Answer { status, .. } = ask(&send, "GET", "/").await.expect("it begins");
            assert_eq!(status, 200);
            let calls: Vec<_> = (0..500)
                .map(|n| {
                    let send = Arc::clone(&send);
                    tokio::task::spawn_local(async move {
                        let path = format!("/{n}");
                        let body = Some((path.clone().into_bytes(), None));
                        let answer = say(&send, request("PUT", &path), body).await;
                        let answer = answer.expect("it is answered");
                        let text = String::from_utf8_lossy(&answer.body).into_owned();
                        assert_eq!(text, format!("PUT {path} {path}"));
                    })
                })
                .collect();
            for call in calls {
                call.await.expect("it has its answer");
            }
        });
    }
}
