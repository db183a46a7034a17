//! Bytes in bulk: large bodies both ways, peers that are slow, tunnels.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::version::TLS13;
use tokio::time::Instant;

use crate::support::backend::{Backend, Step};
use crate::support::client::{Client, End, tls_config};
use crate::support::{Gate, PATIENCE, pause, require, wait_until, wire};
use crate::{Site, curl, text};

const MIB: usize = 1024 * 1024;

/// Bytes of which each says where it belongs, so that a piece that is lost, doubled or mixed up
/// shows.
fn pattern(from: usize, n: usize) -> &'static [u8] {
    static TABLE: OnceLock<Vec<u8>> = OnceLock::new();
    // The first 20 MiB of it or more can be had in one piece.
    let table = TABLE.get_or_init(|| {
        let all = 0..PERIOD + 24 * MIB;
        all.map(|at| (at ^ (at >> 8) ^ (at >> 16)) as u8).collect()
    });
    &table[from % PERIOD..][..n]
}

/// After so many bytes the pattern begins again.
const PERIOD: usize = 16 * MIB;

/// Reads a request's head; gives back its text and what came after it.
fn read_head(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut room = [0; 0x10000];
    loop {
        if let Some(at) = wire::find(&bytes, b"\r\n\r\n") {
            let rest = bytes.split_off(at + 4);
            return Some((String::from_utf8_lossy(&bytes).into_owned(), rest));
        }
        match stream.read(&mut room) {
            Ok(n @ 1..) => bytes.extend_from_slice(&room[..n]),
            _ => return None,
        }
    }
}

/// Sends every body back while it still comes, in chunks.
fn mirror(mut stream: TcpStream) {
    let Some((head, rest)) = read_head(&mut stream) else {
        return;
    };
    let length = head
        .lines()
        .find_map(|l| l.strip_prefix("Content-Length: "))
        .and_then(|n| n.parse::<usize>().ok());
    let mut work = || -> std::io::Result<()> {
        if head.contains("Expect: 100-continue") {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        let mut left = length.ok_or(std::io::ErrorKind::InvalidData)?;
        let mut piece = rest.clone();
        let mut room = vec![0; 0x10000];
        loop {
            left -= piece.len();
            if !piece.is_empty() {
                write!(stream, "{:x}\r\n", piece.len())?;
                stream.write_all(&piece)?;
                stream.write_all(b"\r\n")?;
            }
            if left == 0 {
                return stream.write_all(b"0\r\n\r\n");
            }
            match stream.read(&mut room)? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                n => piece = room[..n].to_vec(),
            }
        }
    };
    // A failure shows at the client.
    let _ = work();
    let _ = stream.shutdown(Shutdown::Write);
    while matches!(stream.read(&mut [0; 1024]), Ok(1..)) {}
}

/// 20 MiB up and the same 20 MiB down, at the same time, through TLS.
#[test]
fn large_bodies_both_ways() {
    const SIZE: usize = 20 * MIB;
    let backend = Backend::custom("mirror", mirror);
    let site = Site::start(&backend, "");
    let sent = pattern(0, SIZE);
    // Our own client cannot send and read at once over TLS; over plain TCP two threads can.
    let mut client = Client::plain(site.server.addresses[1]);
    let mut writer = client.tcp().try_clone().expect("there are descriptors");
    let body = sent;
    let sending = std::thread::spawn(move || {
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {SIZE}\r\n\r\n");
        writer.write_all(head.as_bytes())?;
        writer.write_all(body)
    });
    let mut raw = Vec::new();
    while !raw.ends_with(b"0\r\n\r\n") {
        client.read_some().expect("the response goes on");
        raw.append(&mut client.take());
    }
    sending
        .join()
        .expect("it does not panic")
        .expect("all of it was taken");
    let response = wire::message(&raw, wire::Kind::Response, false);
    let response = response.expect("it is sound").expect("it is whole");
    assert!(response.body == sent, "what came back is what was sent");

    // A large download over TLS.
    let backend = Backend::start("large");
    backend.next(vec![
        Step::Request,
        Step::send(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n")),
        Step::send(sent),
    ]);
    let site = Site::start(&backend, "");
    let config = tls_config(&site.certificate.ca, &[&TLS13]);
    let mut client = Client::tls(site.server.address(), &config, "localhost").expect("it is TLS");
    let response = client.get("localhost", "/").expect("it is answered");
    assert!(response.body == sent, "what came is what the backend sent");
    client
        .get("localhost", "/next")
        .expect("the connection goes on");
    // A large upload over TLS.
    let head = format!("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: {SIZE}\r\n\r\n");
    client.send(head).send(sent);
    let response = client.response().expect("it is answered");
    assert!(
        response.body[9..] == *sent,
        "what the backend got is what was sent"
    );
}

#[test]
fn curl_moves_large_bodies() {
    if !require("curl") {
        return;
    }
    const SIZE: usize = 20 * MIB;
    let backend = Backend::custom("mirror", mirror);
    let site = Site::start(&backend, "");
    let (up, down) = (
        site.folder.path().join("up"),
        site.folder.path().join("down"),
    );
    std::fs::write(&up, pattern(7, SIZE)).expect("there is room");
    text(
        curl(&site.certificate.ca)
            .arg("--upload-file")
            .arg(&up)
            .arg("--output")
            .arg(&down)
            .arg(site.url("/")),
    );
    let came = std::fs::read(&down).expect("curl wrote it");
    assert!(came == pattern(7, SIZE), "{} bytes came back", came.len());
}

/// Counts what it could write until the other end took no more.
fn stalls(counter: &AtomicU64) {
    let mut before = u64::MAX;
    let mut since = Instant::now();
    wait_until("the writer stalls", || {
        let now = counter.load(Ordering::SeqCst);
        if now != before {
            before = now;
            since = Instant::now();
        }
        now > 0 && since.elapsed() > Duration::from_millis(500)
    });
}

/// What may be under way between a backend and a client that stand still: the sockets' buffers
/// of four ends, which the kernel lets grow to some MiB each, and ours.
const UNDER_WAY: u64 = 40 * MIB as u64;

/// And what of it may be in our memory.
const OURS: u64 = 8 * MIB as u64;

/// RFC 9110 has no say in it: a client that reads slowly slows the backend down, and our memory
/// does not grow by what neither of them holds.
#[test]
fn a_slow_reader_slows_the_backend_down() {
    const SIZE: usize = 64 * MIB;
    let written = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&written);
    let backend = Backend::custom("torrent", move |mut stream| {
        if read_head(&mut stream).is_none() {
            return;
        }
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n");
        let mut sent = stream.write_all(head.as_bytes());
        for at in 0..SIZE / MIB {
            sent = sent.and_then(|()| stream.write_all(pattern(at * MIB, MIB)));
            if sent.is_err() {
                return;
            }
            counter.fetch_add(MIB as u64, Ordering::SeqCst);
        }
    });
    let mut site = Site::start(&backend, "");
    let config = tls_config(&site.certificate.ca, &[&TLS13]);
    let mut client = Client::tls(site.server.address(), &config, "localhost").expect("it is TLS");
    let before = site.server.process().resident();
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stalls(&written);
    let (held, grown) = (
        written.load(Ordering::SeqCst),
        site.server.process().resident().saturating_sub(before),
    );
    assert!(held < UNDER_WAY, "{held} bytes were taken from the backend");
    assert!(grown < OURS, "{grown} bytes of memory more");
    let mut head = 0;
    let mut came = 0;
    while came < SIZE {
        assert!(
            client.read_some().expect("it goes on") > 0,
            "{came} bytes came"
        );
        let mut bytes = client.take();
        if head == 0 {
            head = wire::find(&bytes, b"\r\n\r\n").expect("the head comes first") + 4;
            bytes.drain(..head);
        }
        assert!(bytes == pattern(came, bytes.len()), "from {came} on");
        came += bytes.len();
    }
    let grown = site.server.process().resident().saturating_sub(before);
    assert!(grown < OURS, "{grown} bytes of memory more at the end");
}

/// The same the other way round.
#[test]
fn a_slow_backend_slows_the_client_down() {
    const SIZE: usize = 64 * MIB;
    let gate = Gate::new();
    let shut = gate.clone();
    let backend = Backend::custom("sink", move |mut stream| {
        let Some((_, rest)) = read_head(&mut stream) else {
            return;
        };
        if !shut.pass() {
            return;
        }
        let mut came = rest.len();
        let mut good = rest == pattern(0, came);
        let mut room = vec![0; MIB];
        while came < SIZE {
            match stream.read(&mut room) {
                Ok(n @ 1..) => {
                    good &= room[..n] == *pattern(came, n);
                    came += n;
                }
                _ => return,
            }
        }
        let body = if good { "good" } else { "bad!" };
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n{body}");
        let _ = stream.read(&mut room);
    });
    let mut site = Site::start(&backend, "");
    let mut client = Client::plain(site.server.addresses[1]);
    let before = site.server.process().resident();
    let written = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&written);
    let mut writer = client.tcp().try_clone().expect("there are descriptors");
    let sending = std::thread::spawn(move || {
        write!(
            writer,
            "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {SIZE}\r\n\r\n"
        )?;
        for at in 0..SIZE / MIB {
            writer.write_all(pattern(at * MIB, MIB))?;
            counter.fetch_add(MIB as u64, Ordering::SeqCst);
        }
        std::io::Result::Ok(())
    });
    stalls(&written);
    let (held, grown) = (
        written.load(Ordering::SeqCst),
        site.server.process().resident().saturating_sub(before),
    );
    assert!(held < UNDER_WAY, "{held} bytes were taken from the client");
    assert!(grown < OURS, "{grown} bytes of memory more");
    gate.open();
    let response = client.response().expect("it is answered");
    assert_eq!((response.status(), &*response.text()), (200, "good"));
    sending
        .join()
        .expect("it does not panic")
        .expect("all of it was taken");
}

/// Half a close is half a close: the request is answered all the same, over TCP and over TLS.
#[test]
fn a_client_that_has_said_all_is_answered() {
    let backend = Backend::start("b");
    let site = Site::start(&backend, "");
    let config = tls_config(&site.certificate.ca, &[&TLS13]);
    let tls = Client::tls(site.server.address(), &config, "localhost").expect("it is TLS");
    let plain = Client::plain(site.server.addresses[1]);
    for mut client in [tls, plain] {
        let gate = Gate::new();
        backend.next(vec![Step::Request, Step::Wait(gate.clone()), Step::Echo]);
        client.send("POST /h HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc");
        client.finish();
        backend.await_requests(1);
        gate.open();
        let response = client.response().expect("it is answered");
        assert_eq!(response.text(), "POST /h abc");
        assert_eq!(client.rest(), Ok((Vec::new(), End::Closed)));
        backend.take();
    }
}

/// Speaks the backend's half of RFC 6455: text is sent back, a ping gets its pong, a close its
/// close.
fn web_socket(mut stream: TcpStream) {
    let Some((head, mut bytes)) = read_head(&mut stream) else {
        return;
    };
    let wanted = ["Upgrade: websocket", "Connection: Upgrade", KEY];
    assert!(wanted.iter().all(|w| head.contains(w)), "{head}");
    let opened = write!(
        stream,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
    );
    let mut room = [0; 0x10000];
    while opened.is_ok() {
        while let Some((opcode, payload, used)) = frame(&bytes) {
            bytes.drain(..used);
            let answer = if opcode == PING { PONG } else { opcode };
            if stream.write_all(&framed(answer, &payload, None)).is_err() || opcode == CLOSE {
                return;
            }
        }
        match stream.read(&mut room) {
            Ok(n @ 1..) => bytes.extend_from_slice(&room[..n]),
            _ => return,
        }
    }
}

/// The pair in the example of RFC 6455 §1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// RFC 6455 §5.2: one unfragmented frame.
fn framed(opcode: u8, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let flag = if mask.is_some() { 0x80 } else { 0 };
    let mut bytes = vec![0x80 | opcode];
    match payload.len() {
        n @ 0..126 => bytes.push(flag | n as u8),
        n @ 126..0x10000 => {
            bytes.push(flag | 126);
            bytes.extend_from_slice(&(n as u16).to_be_bytes());
        }
        n => {
            bytes.push(flag | 127);
            bytes.extend_from_slice(&(n as u64).to_be_bytes());
        }
    }
    bytes.extend(mask.iter().flatten());
    let mask = mask.unwrap_or_default();
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m));
    bytes
}

/// Opcode, payload and length of the frame at the front, if it is whole.
fn frame(bytes: &[u8]) -> Option<(u8, Vec<u8>, usize)> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    assert_eq!(first & 0xf0, 0x80, "not fragmented, no extension");
    let (length, mut at) = match second & 0x7f {
        126 => (
            u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?).into(),
            4,
        ),
        127 => (
            u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?) as usize,
            10,
        ),
        short => (usize::from(short), 2),
    };
    let mut mask = [0; 4];
    if second & 0x80 != 0 {
        mask = bytes.get(at..at + 4)?.try_into().ok()?;
        at += 4;
    }
    let payload = bytes.get(at..at + length)?;
    let payload = payload.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m);
    Some((first & 0x0f, payload.collect(), at + length))
}

/// RFC 6455 over TLS: opening handshake, frames of every size of length field, ping, close.
#[test]
fn web_sockets_pass() {
    let backend = Backend::custom("websocket", web_socket);
    let site = Site::start(&backend, "");
    let config = tls_config(&site.certificate.ca, &[&TLS13]);
    let mut client = Client::tls(site.server.address(), &config, "localhost").expect("it is TLS");
    client.send(format!(
        "GET /chat HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ));
    let opened = client.response().expect("it is answered");
    assert_eq!(opened.status(), 101);
    assert_eq!(opened.field("upgrade"), Some("websocket"));
    assert_eq!(opened.field("connection"), Some("Upgrade"));
    assert_eq!(opened.field("sec-websocket-accept"), Some(ACCEPT));
    let mut bytes = Vec::new();
    for (opcode, payload, answer) in [
        (TEXT, &b"hello"[..], TEXT),
        (PING, b"are you there", PONG),
        (TEXT, pattern(0, 1_000), TEXT),
        (TEXT, pattern(3, 300_000), TEXT),
        (TEXT, &[], TEXT),
        (CLOSE, &[3, 232], CLOSE),
    ] {
        client.send(framed(opcode, payload, Some([1, 2, 3, 4])));
        let (came, content, used) = loop {
            if let Some(found) = frame(&bytes) {
                break found;
            }
            assert!(client.read_some().expect("it goes on") > 0, "it ended");
            bytes.append(&mut client.take());
        };
        bytes.drain(..used);
        assert!(
            (came, &*content) == (answer, payload),
            "opcode {opcode}: {came}"
        );
    }
    assert_eq!(client.rest(), Ok((Vec::new(), End::Closed)));
}

/// Python's client against a body that only the close ends, and one that is cut short.
#[test]
fn python_notices_a_body_that_is_cut_short() {
    const SCRIPT: &str = r#"
import http.client, ssl, sys
port, ca = int(sys.argv[1]), sys.argv[2]
context = ssl.create_default_context(cafile=ca)
def get():
    c = http.client.HTTPSConnection("localhost", port, context=context, timeout=30)
    c.request("GET", "/")
    return c.getresponse()
print(get().read().decode())
try:
    print("whole", get().read())
except http.client.IncompleteRead as e:
    print("cut", e.partial.decode())
"#;
    if !require("python3") {
        return;
    }
    let backend = Backend::start("b");
    let site = Site::start(&backend, "");
    backend.next(vec![
        Step::Request,
        Step::send("HTTP/1.0 200 OK\r\n\r\nuntil the close"),
        Step::Close,
    ]);
    backend.next(vec![
        Step::Request,
        Step::send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nnot all"),
        Step::Close,
    ]);
    let seen = text(
        Command::new("python3")
            .args(["-c", SCRIPT])
            .arg(site.server.address().port().to_string())
            .arg(&site.certificate.ca),
    );
    assert_eq!(seen, "until the close\ncut not all\n");
}

/// A response that comes in small pieces over a long time is passed on piece by piece.
#[test]
fn events_are_passed_on_at_once() {
    let backend = Backend::start("b");
    let site = Site::start(&backend, "");
    let gates: Vec<Gate> = (0..5).map(|_| Gate::new()).collect();
    let mut script = vec![
        Step::Request,
        Step::send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"),
    ];
    for (n, gate) in gates.iter().enumerate() {
        script.push(Step::Wait(gate.clone()));
        script.push(Step::send(format!("data: {n}\n\n")));
    }
    script.push(Step::Close);
    backend.next(script);
    let config = tls_config(&site.certificate.ca, &[&TLS13]);
    let mut client = Client::tls(site.server.address(), &config, "localhost").expect("it is TLS");
    client.send("GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    let came = client
        .exactly(head.len())
        .expect("the head comes before any event");
    assert_eq!(String::from_utf8_lossy(&came), head);
    for (n, gate) in gates.iter().enumerate() {
        let begun = Instant::now();
        gate.open();
        let event = format!("9\r\ndata: {n}\n\n\r\n");
        let came = client.exactly(event.len()).expect("the event comes");
        assert_eq!(String::from_utf8_lossy(&came), event);
        assert!(begun.elapsed() < PATIENCE / 10, "{:?}", begun.elapsed());
        pause(Duration::from_millis(5));
    }
    assert_eq!(client.exactly(5).expect("it ends"), b"0\r\n\r\n");
}

/// The answer to a request that is refused arrives although much more was sent behind its head: a
/// connection that is closed with bytes unread would be reset (RFC 9112 §9.6).
#[test]
fn a_refusal_is_read_by_who_has_sent_much_already() {
    let backend = Backend::start("b");
    let site = Site::start(&backend, "");
    let mut request = b"POST / HTTP/9.9\r\nHost: a\r\nContent-Length: 500000\r\n\r\n".to_vec();
    request.resize(request.len() + 500_000, b'x');
    for _ in 0..10 {
        let mut client = Client::plain(site.server.addresses[1]);
        client.send(&request);
        assert_eq!(client.response().expect("it is told").status(), 505);
        assert_eq!(client.rest(), Ok((Vec::new(), End::Closed)));
    }
}
