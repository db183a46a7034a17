//! What many streams of one connection share, its windows and its room, is not used up by those of them
//! that stand still (RFC 9113 §5.2).

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use tokio::task::spawn_local;
use tokio::time::Instant;

use crate::bodies::{Behind, pattern};
use crate::config;
use crate::frames::*;
use crate::peers::{self, block, connect};
use crate::support::backend::{Backend, Step};
use crate::support::client::Client;
use crate::support::server::Server;
use crate::support::{PATIENCE, pause, wait_until};

const INITIAL_WINDOW_SIZE: u16 = 4;

/// What a stream may move before it is of interest whether windows open again.
const PIECE: usize = 50 * 1024;

/// Many enough for [`PIECE`] bytes each to be more than the windows of one connection, and still one
/// connection of a backend.
const MANY: usize = 95;

/// A client that reads nothing of its 40 responses holds up nobody else's from the same backend.
#[test]
fn who_does_not_read_holds_up_nobody_else() {
    const SLOW: u32 = 40;
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    let backend = peers::Backend::start(move |mut call| {
        let sent = Arc::clone(&counter);
        async move {
            if call.request.uri().path() != "/big" {
                return call.answer_with(pattern(100_000)).await;
            }
            let response = call.respond.send_response(Response::new(()), false);
            let Ok(mut stream) = response else { return };
            let piece = Bytes::from(pattern(8192));
            while peers::write_some(&mut stream, piece.clone()).await.is_ok() {
                sent.fetch_add(piece.len(), Ordering::SeqCst);
            }
        }
    });
    let server = Server::in_process(&config("h2c", &[backend.address], "", ""));
    let mut slow = Peer::mute(server.address());
    slow.send(PREFACE);
    slow.send(settings(&[(INITIAL_WINDOW_SIZE, 0)]));
    for stream in 0..SLOW {
        slow.send(get(2 * stream + 1, "/big"));
    }
    slow.until(|peer| peer.came.len() == SLOW as usize);
    // All that anybody takes of them is on its way.
    let mut before = 0;
    wait_until("the backend is held up", || {
        pause(Duration::from_millis(100));
        let now = sent.load(Ordering::SeqCst);
        now > 0 && std::mem::replace(&mut before, now) == now
    });
    let mut other = Peer::connect(server.address());
    let begun = Instant::now();
    other.send(get(1, "/"));
    other.send(window(1, 1 << 20)).send(window(0, 1 << 20));
    let came = other.over(1);
    assert!(came.ended && came.data == pattern(100_000));
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(backend.connections(), 1);
    for stream in 0..SLOW {
        assert_eq!(slow.came[&(2 * stream + 1)].data.len(), 0);
    }
}

/// Sends a part of a response and keeps it open.
async fn publish(mut call: peers::Call) {
    let response = call.respond.send_response(Response::new(()), false);
    let Ok(mut stream) = response else { return };
    if peers::write_some(&mut stream, pattern(PIECE).into())
        .await
        .is_ok()
    {
        std::future::pending().await
    }
}

/// Responses that stay open, of which each moves little, get all that was sent.
#[test]
fn subscriptions_get_everything() {
    let backend = peers::Backend::start(publish);
    let server = Server::in_process(&config("h2c", &[backend.address], "", ""));
    let mut peer = Peer::connect(server.address());
    peer.send(window(0, 1 << 30));
    for n in 0..MANY as u32 {
        peer.send(get(2 * n + 1, "/"));
    }
    peer.until(|peer| peer.came.len() == MANY && peer.came.values().all(|c| c.data.len() >= PIECE));
    for (stream, came) in &peer.came {
        assert!(came.data == pattern(PIECE) && !came.is_over(), "{stream}");
    }
    assert_eq!(backend.connections(), 1);
}

/// The same, of clients that speak HTTP/1.1.
#[test]
fn subscriptions_over_http1_get_everything() {
    let backend = peers::Backend::start(publish);
    let server = Server::in_process(&config("h2c", &[backend.address], "", ""));
    let mut clients: Vec<Client> = (0..MANY)
        .map(|_| {
            let mut client = Client::plain(server.address());
            client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
            client
        })
        .collect();
    for client in &mut clients {
        let mut came = Vec::new();
        let begun = Instant::now();
        while without_chunks(&came).len() < PIECE {
            assert!(begun.elapsed() < PATIENCE);
            assert!(client.read_some().expect("there is more to come") > 0);
            came.extend(client.take());
        }
        assert!(without_chunks(&came) == pattern(PIECE));
    }
    assert_eq!(backend.connections(), 1);
}

/// The content so far of a response in chunks.
fn without_chunks(bytes: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    let head = crate::support::wire::find(bytes, b"\r\n\r\n");
    let mut rest = head.map_or(&bytes[..0], |at| &bytes[at + 4..]);
    while let Some(at) = crate::support::wire::find(rest, b"\r\n") {
        let size = std::str::from_utf8(&rest[..at]).expect("it is a size");
        let size = usize::from_str_radix(size, 16).expect("it is a size");
        let data = &rest[at + 2..];
        content.extend_from_slice(&data[..size.min(data.len())]);
        rest = data.get(size + 2..).unwrap_or_default();
    }
    content
}

/// Counts what comes over HTTP/1.1.
fn count_h1(mut stream: TcpStream, sum: &AtomicUsize) {
    let mut room = [0; 65536];
    let mut came = Vec::new();
    let mut counted = 0;
    while let Ok(n @ 1..) = stream.read(&mut room) {
        came.extend_from_slice(&room[..n]);
        let content = without_chunks(&came).len();
        sum.fetch_add(
            content - std::mem::replace(&mut counted, content),
            Ordering::SeqCst,
        );
    }
}

/// Requests that stay open, of which each moves little, reach their backend.
#[test]
fn uploads_that_stay_open_arrive() {
    let sums = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
    let (one, two) = (Arc::clone(&sums[0]), Arc::clone(&sums[1]));
    let h1 = Backend::custom("count", move |tcp| count_h1(tcp, &one));
    let h2 = peers::Backend::start(move |mut call| {
        let sum = Arc::clone(&two);
        async move {
            let body = call.request.body_mut();
            while let Some(Ok(data)) = body.data().await {
                let _ = body.flow_control().release_capacity(data.len());
                sum.fetch_add(data.len(), Ordering::SeqCst);
            }
        }
    });
    for (behind, sum) in [Behind::H1(h1), Behind::H2(h2)].into_iter().zip(sums) {
        let server = behind.server("", "");
        upload(server.address(), &sum);
    }
}

fn upload(address: SocketAddr, sum: &AtomicUsize) {
    block(async {
        let (send, _ended) = connect(address).await;
        let mut uploads = Vec::new();
        for _ in 0..MANY {
            let mut send = send.clone().ready().await.expect("there is room");
            let sent = send.send_request(peers::request("POST", "/"), false);
            let (response, mut stream) = sent.expect("it is sent");
            uploads.push(spawn_local(async move {
                let sent = peers::write_some(&mut stream, pattern(PIECE).into()).await;
                sent.expect("windows open");
                // Dropped, it would be ended.
                (response, stream)
            }));
        }
        let mut open = Vec::new();
        for upload in uploads {
            open.push(upload.await.expect("no panic"));
        }
        let begun = Instant::now();
        while sum.load(Ordering::SeqCst) < MANY * PIECE {
            let so_far = sum.load(Ordering::SeqCst);
            assert!(begun.elapsed() < PATIENCE, "{so_far} bytes");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(sum.load(Ordering::SeqCst), MANY * PIECE);
    });
}

/// A client that measures how far away we are as it reads floods nobody.
#[test]
fn a_ping_for_each_kib_is_no_flood() {
    const SIZE: usize = 2 << 20;
    let backend = Backend::start("b");
    let mut response = format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n").into_bytes();
    response.extend(pattern(SIZE));
    backend.usually(vec![Step::Request, Step::Send(response)]);
    let server = Server::in_process(&config("http", &[backend.address], "", ""));
    let mut peer = Peer::mute(server.address());
    peer.send(PREFACE);
    peer.send(settings(&[(INITIAL_WINDOW_SIZE, 1 << 30)]));
    peer.send(window(0, 1 << 30));
    peer.send(get(1, "/"));
    let mut pings = 0;
    while !peer.came.get(&1).is_some_and(Came::is_over) {
        assert!(peer.step(), "it was ended: {:?}", peer.goaway);
        let kib = peer.came.get(&1).map_or(0, |came| came.data.len()) / 1024;
        let more = frame(PING, 0, 0, [7; 8]).repeat(kib - pings);
        pings = kib;
        peer.send(more);
    }
    let Came { data, reset, .. } = &peer.came[&1];
    let ended = (data.len(), *reset, peer.goaway);
    assert_eq!(ended, (SIZE, None, None));
    assert!(*data == pattern(SIZE));
    peer.until(|peer| peer.pongs == pings);
    assert_eq!((pings, peer.goaway), (SIZE / 1024, None));
}
