//! Flow control (RFC 9113 §5.2, §6.9): what we send never exceeds what the client has room for, and one
//! stream that stands still holds no other up.

use std::time::Duration;

use crate::bodies::{Behind, pattern};
use crate::frames::*;
use crate::peers;
use crate::support::backend::{Backend, Step};

const INITIAL_WINDOW_SIZE: u16 = 4;

/// Answers with so many bytes.
fn bodies_of(size: usize) -> [Behind; 2] {
    let h1 = Backend::start("b");
    let mut response = format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n").into_bytes();
    response.extend(pattern(size));
    h1.usually(vec![Step::Request, Step::Send(response)]);
    let h2 = peers::Backend::start(move |mut call| async move {
        call.answer_with(pattern(size)).await;
    });
    [Behind::H1(h1), Behind::H2(h2)]
}

/// Takes in whatever comes until nothing comes for a while.
fn settle(peer: &mut Peer) {
    peer.patience(Duration::from_millis(150));
    while peer.try_step().unwrap_or(false) {}
    peer.patience(crate::support::PATIENCE);
}

/// Waits until a stream has so many bytes; then no more may come.
fn stands_at(peer: &mut Peer, stream: u32, bytes: usize) {
    peer.until(|peer| {
        peer.came
            .get(&stream)
            .is_some_and(|c| c.data.len() >= bytes)
    });
    settle(peer);
    assert_eq!(peer.came[&stream].data.len(), bytes);
    assert!(!peer.closed);
}

/// §6.9.1: to the byte, as far as the windows are open.
#[test]
fn no_more_is_sent_than_the_client_has_room_for() {
    for behind in bodies_of(100_000) {
        let server = behind.server("", "");
        let mut peer = Peer::mute(server.address());
        peer.send(PREFACE);
        peer.send(settings(&[(INITIAL_WINDOW_SIZE, 10)]));
        peer.send(get(1, "/"));
        stands_at(&mut peer, 1, 10);
        peer.send(window(1, 1));
        stands_at(&mut peer, 1, 11);
        peer.send(window(1, 20_000));
        stands_at(&mut peer, 1, 20_011);
        // §6.9.2: a change applies to the streams that are open.
        peer.send(settings(&[(INITIAL_WINDOW_SIZE, 1_010)]));
        stands_at(&mut peer, 1, 21_011);
        // The window is negative now; what comes first makes up for that.
        peer.send(settings(&[(INITIAL_WINDOW_SIZE, 10)]));
        peer.until(|peer| peer.acks >= 3);
        peer.send(window(1, 1_000));
        settle(&mut peer);
        assert_eq!(peer.came[&1].data.len(), 21_011);
        peer.send(window(1, 5));
        stands_at(&mut peer, 1, 21_016);
        // §6.9.1: and the connection's window.
        peer.send(window(1, 1_000_000));
        stands_at(&mut peer, 1, 65_535);
        peer.send(get(3, "/"));
        peer.until(|peer| peer.came.contains_key(&3));
        settle(&mut peer);
        assert_eq!(peer.came[&3].data.len(), 0, "the connection has no room");
        peer.send(window(0, 1_000_000));
        let came = peer.over(1);
        assert!(came.ended && came.data == pattern(100_000));
        stands_at(&mut peer, 3, 10);
    }
}

/// §6.9.2: a window of nothing lets nothing but heads pass.
#[test]
fn a_window_of_nothing_lets_heads_pass() {
    for behind in bodies_of(0) {
        let server = behind.server("", "");
        let mut peer = Peer::mute(server.address());
        peer.send(PREFACE);
        peer.send(settings(&[(INITIAL_WINDOW_SIZE, 0)]));
        peer.send(get(1, "/"));
        let came = peer.over(1);
        assert!(came.ended && came.status() == Some(200));
    }
    for behind in bodies_of(5) {
        let server = behind.server("", "");
        let mut peer = Peer::mute(server.address());
        peer.send(PREFACE);
        peer.send(settings(&[(INITIAL_WINDOW_SIZE, 0)]));
        peer.send(get(1, "/"));
        peer.until(|peer| peer.came.contains_key(&1));
        stands_at(&mut peer, 1, 0);
        peer.send(window(1, 5));
        assert!(peer.over(1).ended);
    }
}

/// A stream that nobody reads leaves the others of its connection alone, over either kind of backend:
/// what is held of it is a window's worth.
#[test]
fn a_stream_that_stands_still_holds_no_other_up() {
    for behind in bodies_of(3_000_000) {
        let server = behind.server("", "");
        let mut peer = Peer::mute(server.address());
        peer.send(PREFACE);
        peer.send(settings(&[(INITIAL_WINDOW_SIZE, 1_000)]));
        peer.send(window(0, 0x7000_0000));
        for stream in (1..20).step_by(2) {
            peer.send(get(stream, "/slow"));
        }
        peer.until(|peer| peer.came.len() == 10);
        peer.send(get(101, "/"));
        peer.send(window(101, 0x7000_0000));
        let came = peer.over(101);
        assert!(came.ended && came.data == pattern(3_000_000));
        for stream in (1..20).step_by(2) {
            assert_eq!(peer.came[&stream].data.len(), 1_000);
        }
    }
}

/// The same the other way: a request that its backend does not read holds no other up, and the client
/// is given no more room than we keep.
#[test]
fn a_request_that_nobody_reads_holds_no_other_up() {
    let h1 = Backend::start("b");
    let gate = crate::support::Gate::new();
    let h2 = peers::Backend::start(|mut call| async move {
        match call.request.uri().path() {
            // Not read, and not given up either.
            "/unread" => std::future::pending().await,
            _ => call.answer(200),
        }
    });
    h1.next(vec![Step::Head, Step::Wait(gate.clone())]);
    h1.usually(vec![
        Step::Head,
        Step::send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ]);
    for behind in [Behind::H1(h1), Behind::H2(h2)] {
        let server = behind.server("", "");
        let mut peer = Peer::connect(server.address());
        peer.send(headers(1, 0, &request("POST", "/unread")));
        let mut sent = 0;
        // As far as our windows go, or the sockets of the backend.
        while sent < 100 << 20 {
            let room = |peer: &Peer, stream| {
                let first = match stream {
                    0 => 65_535,
                    _ => {
                        let own = peer.settings.iter().rev().find(|(n, _)| *n == 4);
                        own.map_or(65_535, |(_, v)| u64::from(*v))
                    }
                };
                first + peer.windows.get(&stream).copied().unwrap_or_default()
            };
            peer.until(|peer| !peer.settings.is_empty());
            if room(&peer, 0).min(room(&peer, 1)) < sent + 10_000 {
                settle(&mut peer);
                if room(&peer, 0).min(room(&peer, 1)) < sent + 10_000 {
                    break;
                }
            }
            peer.send(frame(DATA, 0, 1, [7; 10_000]));
            sent += 10_000;
        }
        assert!(sent < 30 << 20, "{sent} bytes were taken");
        peer.send(get(3, "/"));
        assert_eq!(peer.over(3).status(), Some(200));
    }
    gate.open();
}
