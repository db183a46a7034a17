//! WebSocket over HTTP/2 (RFC 8441): what is an upgrade on one side and an extended CONNECT on the other
//! is one tunnel.

use std::io::{Read, Write};
use std::net::TcpStream;

use aws_lc_rs::digest;
use bytes::Bytes;
use data_encoding::BASE64;
use h2::ext::Protocol;
use http::{Method, Response};

use crate::bodies::{Behind, pattern};
use crate::frames::*;
use crate::peers::{self, block, connect};
use crate::support::Gate;
use crate::support::backend::Backend;
use crate::support::client::{Client, End};
use crate::support::server::Server;
use crate::{config, ejecting, metric};

/// RFC 6455 §4.2.2.
fn accept(key: &str) -> String {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let hashed = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
    BASE64.encode(hashed.as_ref())
}

/// Accepts an upgrade and sends back what comes, until it ends.
fn echo_h1(mut stream: TcpStream) {
    let mut inbox = Vec::new();
    let mut room = [0; 65536];
    let head = loop {
        if let Some(at) = crate::support::wire::find(&inbox, b"\r\n\r\n") {
            break inbox.drain(..at + 4).collect::<Vec<u8>>();
        }
        match stream.read(&mut room) {
            Ok(n @ 1..) => inbox.extend_from_slice(&room[..n]),
            _ => return,
        }
    };
    let head = String::from_utf8_lossy(&head).into_owned();
    let field = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(": "));
        let found = lines.find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.to_owned())
    };
    assert!(head.starts_with("GET /chat HTTP/1.1\r\n"), "{head}");
    assert_eq!(field("upgrade").as_deref(), Some("websocket"), "{head}");
    assert_eq!(field("sec-websocket-version").as_deref(), Some("13"));
    let Some(key) = field("sec-websocket-key") else {
        panic!("no key: {head}");
    };
    let opened = write!(
        stream,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\nhello",
        accept(&key)
    );
    if opened.is_err() || stream.write_all(&inbox).is_err() {
        return;
    }
    loop {
        match stream.read(&mut room) {
            Ok(n @ 1..) if stream.write_all(&room[..n]).is_ok() => {}
            _ => return,
        }
    }
}

/// The same by an extended CONNECT.
async fn echo_h2(mut call: peers::Call) {
    let request = &call.request;
    assert_eq!(request.method(), Method::CONNECT);
    let protocol = request.extensions().get::<Protocol>();
    assert_eq!(protocol.map(Protocol::as_str), Some("websocket"));
    assert_eq!(request.uri().path(), "/chat");
    assert_eq!(request.headers()["sec-websocket-version"], "13");
    assert!(!request.headers().contains_key("sec-websocket-key"));
    let Ok(mut stream) = call.respond.send_response(Response::new(()), false) else {
        return;
    };
    let _ = peers::write_some(&mut stream, Bytes::from_static(b"hello")).await;
    let body = call.request.body_mut();
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
        if peers::write_some(&mut stream, data).await.is_err() {
            return;
        }
    }
    let _ = stream.send_data(Bytes::new(), true);
}

fn backends() -> [Behind; 2] {
    [
        Behind::H1(Backend::custom("websocket", echo_h1)),
        Behind::H2(peers::Backend::with(
            |settings| {
                settings.enable_connect_protocol();
            },
            echo_h2,
        )),
    ]
}

fn open() -> http::Request<()> {
    let mut request = http::Request::builder()
        .method(Method::CONNECT)
        .uri("http://a.test/chat")
        .header("sec-websocket-version", "13")
        .body(())
        .expect("it is one");
    request
        .extensions_mut()
        .insert(Protocol::from_static("websocket"));
    request
}

const LONG: usize = 300_000;

/// From HTTP/2 to either kind of backend; each direction ends when its sender ends it.
#[test]
fn from_a_stream() {
    for behind in backends() {
        let server = behind.server("", "");
        block(async {
            let (send, _ended) = connect(server.address()).await;
            let mut send = send.ready().await.expect("it is there");
            // RFC 8441 §3: it is allowed once the server has said so.
            while !send.is_extended_connect_protocol_enabled() {
                tokio::task::yield_now().await;
            }
            let (response, mut stream) = send.send_request(open(), false).expect("it is sent");
            let (head, mut body) = response.await.expect("it is answered").into_parts();
            assert_eq!(head.status, 200);
            assert!(!head.headers.contains_key("sec-websocket-accept"));
            assert!(!head.headers.contains_key("upgrade"));
            let sending = tokio::task::spawn_local(async move {
                peers::write(&mut stream, pattern(LONG), None).await
            });
            let (came, _) = peers::read(&mut body).await.expect("it ends well");
            assert!(came[..5] == *b"hello" && came[5..] == pattern(LONG));
            sending.await.expect("no panic").expect("all was taken");
        });
    }
}

/// From HTTP/1.1 to a backend that speaks HTTP/2.
#[test]
fn to_a_stream() {
    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
    for behind in backends() {
        let server = behind.server("", "");
        let mut client = Client::plain(server.address());
        client.send(format!(
            "GET /chat HTTP/1.1\r\nHost: a.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        ));
        let opened = client.response().expect("it is answered");
        assert_eq!(opened.status(), 101);
        let proof = opened.field("sec-websocket-accept");
        assert_eq!(proof, Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert_eq!(client.exactly(5).expect("it greets"), b"hello");
        let mut writer = client.tcp().try_clone().expect("there are descriptors");
        let sending = std::thread::spawn(move || writer.write_all(&pattern(LONG)));
        let came = client.exactly(LONG).expect("it comes back");
        assert!(came == pattern(LONG));
        sending.join().expect("no panic").expect("all was taken");
        client.finish();
        assert_eq!(client.rest(), Ok((Vec::new(), End::Closed)));
    }
}

/// A client that resets its stream ends the tunnel at the backend; a backend that leaves ends the
/// client's stream.
#[test]
fn tunnels_end_at_both_ends() {
    for behind in backends() {
        let server = behind.server("", "");
        let mut peer = Peer::connect(server.address());
        let mut fields = request("CONNECT", "/chat").to_vec();
        fields.extend([(":protocol", "websocket"), ("sec-websocket-version", "13")]);
        for stream in [1, 3] {
            peer.send(headers(stream, 0, &fields));
            peer.until(|peer| peer.came.get(&stream).is_some_and(|c| c.data == b"hello"));
            peer.send(reset(stream, CANCEL));
        }
        match &behind {
            Behind::H1(backend) => {
                crate::support::wait_until("its connections end", || backend.open() == 0);
                assert_eq!(backend.connections(), 2);
            }
            Behind::H2(backend) => assert_eq!(backend.connections(), 1),
        }
        peer.send(headers(5, 0, &fields));
        peer.until(|peer| peer.came.get(&5).is_some_and(|c| c.data == b"hello"));
        drop(behind);
        assert!(peer.over(5).is_over());
        drop(server);
    }
}

/// A backend that knows no extended CONNECT, one that refuses, and one that lies.
#[test]
fn what_is_no_tunnel() {
    let without = peers::Backend::start(|mut call| async move { call.answer(200) });
    let server = Server::in_process(&config("h2c", &[without.address], "retries = 0", ""));
    let mut fields = request("CONNECT", "/chat").to_vec();
    fields.extend([(":protocol", "websocket"), ("sec-websocket-version", "13")]);
    let mut peer = Peer::connect(server.address());
    peer.send(headers(1, 0, &fields));
    assert_eq!(peer.over(1).status(), Some(502));
    let mut client = Client::plain(server.address());
    client.send(
        "GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    );
    assert_eq!(client.response().expect("it is told").status(), 502);
    // A refusal passes as what it is.
    let refuses = peers::Backend::with(
        |settings| {
            settings.enable_connect_protocol();
        },
        |mut call| async move { call.answer(403) },
    );
    let server = Server::in_process(&config("h2c", &[refuses.address], "", ""));
    let mut peer = Peer::connect(server.address());
    peer.send(headers(1, 0, &fields));
    assert_eq!(peer.over(1).status(), Some(403));
    let h1 = Backend::start("b");
    h1.usually(vec![
        crate::support::backend::Step::Request,
        crate::support::backend::Step::send("HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno"),
    ]);
    let server = Server::in_process(&config("http", &[h1.address], "", ""));
    let mut peer = Peer::connect(server.address());
    peer.send(headers(1, 0, &fields));
    let came = peer.over(1);
    assert_eq!((came.status(), &*came.data), (Some(403), &b"no"[..]));
    // 101 with the wrong proof.
    h1.usually(vec![
        crate::support::backend::Step::Request,
        crate::support::backend::Step::send(
            "HTTP/1.1 101 Yes\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        ),
    ]);
    peer.send(headers(3, 0, &fields));
    let came = peer.over(3);
    assert!(!came.ended || came.status() == Some(502), "{came:?}");
}

/// RFC 8441 §5: to an extended CONNECT, 2xx is consent. A backend of HTTP/1.1 that answers an upgrade with
/// 200 has not consented, and is sound.
#[test]
fn a_page_is_no_consent() {
    let backends = [Backend::start("a"), Backend::start("b")];
    let addresses = backends.each_ref().map(|b| b.address);
    let server = Server::in_process(&ejecting(
        &config("http", &addresses, "", ""),
        "failures = 2, success_rate = 0",
    ));
    let mut fields = request("CONNECT", "/chat").to_vec();
    fields.extend([(":protocol", "websocket"), ("sec-websocket-version", "13")]);
    let mut peer = Peer::connect(server.address());
    for n in 0..12 {
        peer.send(headers(2 * n + 1, 0, &fields));
        let came = peer.over(2 * n + 1);
        assert_eq!(came.status(), Some(502), "{came:?}");
        assert_eq!(came.heads.len(), 1);
    }
    peer.send(get(101, "/"));
    assert_eq!(peer.over(101).status(), Some(200));
    for address in addresses {
        let series = format!(
            "evenkeel_backend_ejections_total{{service=\"web\",backend=\"{address}\",reason=\"failures\"}}"
        );
        assert_eq!(metric(&server, &series).unwrap_or_default(), 0.0);
    }
}

/// Many tunnels over one connection, of which each moves little, get everything, both ways.
#[test]
fn many_at_once() {
    const MANY: usize = 75;
    const SHORT: usize = 60 * 1024;
    for behind in backends() {
        let server = behind.server("", "");
        block(async {
            let (send, _ended) = connect(server.address()).await;
            let send = send.ready().await.expect("it is there");
            while !send.is_extended_connect_protocol_enabled() {
                tokio::task::yield_now().await;
            }
            let mut tunnels = Vec::new();
            for _ in 0..MANY {
                let mut send = send.clone().ready().await.expect("there is room");
                let (response, mut stream) = send.send_request(open(), false).expect("it is sent");
                tunnels.push(tokio::task::spawn_local(async move {
                    let (head, mut body) = response.await.expect("it is answered").into_parts();
                    assert_eq!(head.status, 200);
                    let writing = peers::write_some(&mut stream, pattern(SHORT).into());
                    let reading = async {
                        let mut came = Vec::new();
                        while came.len() < 5 + SHORT {
                            let data = body.data().await.expect("more comes");
                            let data = data.expect("nothing is wrong");
                            let flow = body.flow_control();
                            flow.release_capacity(data.len()).expect("it came");
                            came.extend_from_slice(&data);
                        }
                        came
                    };
                    let (wrote, came) = tokio::join!(writing, reading);
                    wrote.expect("all was taken");
                    assert!(came[..5] == *b"hello" && came[5..] == pattern(SHORT));
                    // Open until all have everything.
                    (stream, body)
                }));
            }
            let mut all = Vec::new();
            for tunnel in tunnels {
                all.push(tunnel.await.expect("it came back whole"));
            }
        });
    }
}

/// A client that has ended its direction and then resets its stream, or leaves, ends the tunnel, though
/// the backend says nothing and closes nothing.
#[test]
fn a_client_that_is_gone_after_its_last_word() {
    // Reads to the end, and is silent until it is told that all is over; then it looks whether it is.
    fn silent(mut stream: TcpStream, ended: &Gate, gate: &Gate) {
        let mut inbox = Vec::new();
        let mut room = [0; 4096];
        while crate::support::wire::find(&inbox, b"\r\n\r\n").is_none() {
            match stream.read(&mut room) {
                Ok(n @ 1..) => inbox.extend_from_slice(&room[..n]),
                _ => return,
            }
        }
        let head = String::from_utf8_lossy(&inbox).into_owned();
        let mut lines = head.lines().filter_map(|line| line.split_once(": "));
        let key = lines.find(|(n, _)| n.eq_ignore_ascii_case("sec-websocket-key"));
        let proof = accept(key.expect("there is a key").1);
        let opened = write!(
            stream,
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {proof}\r\n\r\n"
        );
        if opened.is_err() {
            return;
        }
        while let Ok(1..) = stream.read(&mut room) {}
        ended.open();
        gate.pass();
        // An error says that the other end is gone.
        while stream.write_all(b"x").is_ok() {
            crate::support::pause(std::time::Duration::from_millis(1));
        }
    }
    for leaves in [false, true] {
        let (ended, gate) = (Gate::new(), Gate::new());
        let (saw, told) = (ended.clone(), gate.clone());
        let backend = Backend::custom("silent", move |tcp| silent(tcp, &saw, &told));
        let server = Server::in_process(&config("http", &[backend.address], "", ""));
        let in_flight = format!(
            "evenkeel_backend_in_flight{{service=\"web\",backend=\"{}\"}}",
            backend.address
        );
        let mut fields = request("CONNECT", "/chat").to_vec();
        fields.extend([(":protocol", "websocket"), ("sec-websocket-version", "13")]);
        let mut peer = Peer::connect(server.address());
        peer.send(headers(1, 0, &fields));
        peer.until(|peer| peer.came.contains_key(&1));
        assert_eq!(peer.came[&1].status(), Some(200));
        assert_eq!(metric(&server, &in_flight), Some(1.0));
        peer.send(frame(DATA, END_STREAM, 1, b"last"));
        assert!(ended.pass(), "the backend sees the end");
        assert!(!peer.came[&1].is_over());
        peer.send(match leaves {
            true => Vec::new(),
            false => reset(1, CANCEL),
        });
        let stays = (!leaves).then_some(peer);
        crate::support::wait_until("nothing is in flight", || {
            metric(&server, &in_flight) == Some(0.0)
        });
        gate.open();
        crate::support::wait_until("the backend's connection is closed", || backend.open() == 0);
        drop(stays);
    }
}
