//! The same bytes, cut in two at every offset, on either side: what comes out must be the same.
//!
//! Between the two pieces the server has read the first one (see [`Bench::barrier`]), so each cut
//! is really seen by it. Where chunks begin and end may change with the cuts; what they hold not.

use crate::bench::{Bench, mask};
use crate::support::backend::{Received, Step};
use crate::support::client::{Client, End};
use crate::support::wire::{Kind, Message};

/// A message without what may change with the cuts.
#[derive(Debug, PartialEq, Eq)]
struct Essence {
    head: String,
    body: String,
    trailers: Vec<(String, String)>,
}

fn essence(message: &Message) -> Essence {
    Essence {
        head: mask(&message.head),
        body: message.text(),
        trailers: message.trailers.clone(),
    }
}

fn requests(received: &[Received]) -> Vec<Essence> {
    let whole = received.iter().map(|r| {
        let whole = r.whole.as_ref();
        essence(whole.unwrap_or_else(|| panic!("not whole: {r:?}")))
    });
    whole.collect()
}

/// Sends `bytes` cut at `at` and reads as many responses as there are `kinds`.
fn exchange(
    bench: &Bench,
    client: &mut Client,
    bytes: &[u8],
    at: usize,
    kinds: &[Kind],
    barrier: &mut crate::bench::Barrier,
) -> (Vec<Essence>, Vec<Essence>) {
    let pieces = [&bytes[..at], &bytes[at..]];
    client.send_pieces(&pieces, || barrier.pass());
    let responses = kinds
        .iter()
        .map(|kind| match client.message(*kind) {
            Ok(response) => essence(&response),
            Err(no) => panic!(
                "cut at {at} of {:?}: {no:?}",
                String::from_utf8_lossy(bytes)
            ),
        })
        .collect();
    bench.main.await_requests(kinds.len());
    (responses, requests(&bench.main.take()))
}

#[test]
fn requests_at_every_offset() {
    let bench = Bench::start();
    let mut barrier = bench.barrier();
    let (plain, head) = (Kind::Response, Kind::ResponseToHead);
    for (bytes, kinds) in [
        (
            "\r\nGET /a/../p?q HTTP/1.1\r\nHost: a:80\r\nX:  1 \r\nConnection: X\r\nX_Y: 2\r\nY: 3\r\n\r\n",
            &[plain][..],
        ),
        ("GET http://b/p HTTP/1.1\r\nHost: a\r\n\r\n", &[plain]),
        (
            "POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\n0\r\n\r\nGET / H",
            &[plain],
        ),
        (
            "POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
             3;a=\"b\"\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\nX: 1\r\nHost: b\r\n\r\n",
            &[plain],
        ),
        (
            "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\
             HEAD /2 HTTP/1.1\r\nHost: a\r\n\r\n\
             POST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nd\r\n0\r\n\r\n\
             \r\nGET /4 HTTP/1.1\r\nHost: a\r\n\r\n",
            &[plain, head, plain, plain],
        ),
    ] {
        let mut client = bench.client();
        let bytes = bytes.as_bytes();
        let whole = exchange(&bench, &mut client, bytes, 0, kinds, &mut barrier);
        for at in 1..bytes.len() {
            let cut = exchange(&bench, &mut client, bytes, at, kinds, &mut barrier);
            assert_eq!(
                cut,
                whole,
                "cut at {at} of {:?}",
                String::from_utf8_lossy(bytes)
            );
        }
    }
    // The same once more, byte by byte.
    let bytes = b"POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
        3;a=\"b\"\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\nX: 1\r\n\r\n";
    let mut client = bench.client();
    let whole = exchange(&bench, &mut client, bytes, 0, &[plain], &mut barrier);
    let pieces: Vec<&[u8]> = bytes.chunks(1).collect();
    client.send_pieces(&pieces, || barrier.pass());
    let response = client.response().expect("it is answered");
    bench.main.await_requests(1);
    assert_eq!(
        (vec![essence(&response)], requests(&bench.main.take())),
        whole
    );
}

/// Refused wherever they are cut, and no backend ever gets a whole request out of them.
#[test]
fn bad_requests_at_every_offset() {
    let bench = Bench::start();
    let mut barrier = bench.barrier();
    for (status, bytes) in [
        (400, "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nX : 1\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nX: 1\n\r\n"),
        (
            501,
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x, chunked\r\n\r\n",
        ),
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd",
        ),
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX : 1\r\n\r\n",
        ),
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1 \r\n",
        ),
    ] {
        for at in 0..bytes.len() {
            let mut client = bench.client();
            let (first, second) = bytes.as_bytes().split_at(at);
            client.send_pieces(&[first, second], || barrier.pass());
            let response = client.response();
            let response = response.unwrap_or_else(|no| panic!("cut at {at} of {bytes:?}: {no:?}"));
            assert_eq!(response.status(), status, "cut at {at} of {bytes:?}");
            assert_eq!(
                client.rest(),
                Ok((Vec::new(), End::Closed)),
                "cut at {at} of {bytes:?}"
            );
        }
    }
    let mut innocent = bench.client();
    assert_eq!(
        innocent.get("a", "/i").expect("it is answered").text(),
        "GET /i "
    );
    bench.main.await_requests(1);
    let whole: Vec<_> = bench
        .main
        .take()
        .into_iter()
        .filter(|r| r.whole.is_some())
        .collect();
    assert_eq!(whole.len(), 1, "{whole:?}");
}

#[test]
fn responses_at_every_offset() {
    let bench = Bench::start();
    let read = bench.server_has_read();
    for (request, interim, response) in [
        (
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            0,
            "HTTP/1.1 200 OK\r\nConnection: X\r\nX: 1\r\nContent-Length: 3\r\n\r\nabc",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            0,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;a=\"b\"\r\nabc\r\n\
             10\r\n0123456789abcdef\r\n0\r\nX: 1\r\nContent-Length: 5\r\n\r\n",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            2,
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n\
             HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        ),
        (
            "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
            0,
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            0,
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
            0,
            "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n",
        ),
    ] {
        let mut client = bench.client();
        let kind = match request.starts_with("HEAD") {
            true => Kind::ResponseToHead,
            false => Kind::Response,
        };
        let mut fetch = |at: usize| {
            let (first, second) = response.as_bytes().split_at(at);
            bench.main.next(vec![
                Step::Request,
                Step::send(first),
                read.clone(),
                Step::send(second),
            ]);
            client.send(request);
            let mut seen = Vec::new();
            for n in 0..=interim {
                match client.message(if n < interim { Kind::Response } else { kind }) {
                    Ok(response) => seen.push(essence(&response)),
                    Err(no) => panic!("cut at {at} of {response:?}: {no:?}"),
                }
            }
            bench.main.await_requests(1);
            (seen, requests(&bench.main.take()))
        };
        let whole = fetch(0);
        for at in 1..response.len() {
            assert_eq!(fetch(at), whole, "cut at {at} of {response:?}");
        }
        assert_eq!(
            bench.main.connections(),
            1,
            "one kept connection served them all"
        );
    }
}

/// A body that only the close ends, and bytes of a tunnel, cut at every offset.
#[test]
fn closes_and_tunnels_at_every_offset() {
    let bench = Bench::start();
    let read = bench.server_has_read();
    let response = b"HTTP/1.1 200 OK\r\nA: 1\r\n\r\n0\r\n\r\n";
    let mut client = bench.client();
    for at in 0..=response.len() {
        bench.main.next(vec![
            Step::Request,
            Step::send(&response[..at]),
            read.clone(),
            Step::send(&response[at..]),
            Step::Close,
        ]);
        let seen = client.get("a", "/").expect("it is answered");
        let head = "HTTP/1.1 200 OK\r\nA: 1\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(
            (&*mask(&seen.head), &*seen.text()),
            (head, "0\r\n\r\n"),
            "cut at {at}"
        );
    }

    let opening = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhello";
    let request =
        b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nworld";
    let mut barrier = bench.barrier();
    let other = read;
    for at in 0..opening.len() {
        bench.main.next(vec![
            Step::Request,
            Step::send(&opening[..at]),
            other.clone(),
            Step::send(&opening[at..]),
            Step::Mirror,
        ]);
        let mut client = bench.client();
        let cut = at.min(request.len());
        client.send_pieces(&[&request[..cut], &request[cut..]], || barrier.pass());
        let seen = client.exactly(opening.len() + 5).expect("it opens");
        let expected = [&opening[..], b"world"].concat();
        assert_eq!(mask(&seen), mask(&expected), "cut at {at}");
        client.finish();
        assert_eq!(client.rest(), Ok((Vec::new(), End::Closed)), "cut at {at}");
    }
}
