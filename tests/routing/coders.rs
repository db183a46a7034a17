//! How many responses are coded at once: whoever finds no place gets the whole response as it is.

use crate::compression::{asking, gunzip, text};
use crate::frames::Peer;
use crate::support::backend::{Backend, Step};
use crate::support::client::Client;
use crate::support::server::Server;
use crate::support::{Gate, wait_until};
use crate::{config, metric};

/// A quarter of this is for coders, and half of their places for sequences.
const MEMORY: &str = "256MiB";
const PLACES: usize = 32;
const SEQUENCES: usize = PLACES / 2;

fn site(backend: &Backend) -> Server {
    let keys = "compress = \"gzip\"\n[[route]]\nservice = \"a\"\n";
    let limits = format!("[limits]\nmemory = \"{MEMORY}\"\n[log]\naccess = \"off\"\n");
    // Memory is that of the whole process, and the tests have one together.
    let server = Server::binary(&config(&[("a", backend)], &format!("{keys}{limits}")));
    let limit = Some(PLACES as f64);
    let series = "evenkeel_bounded_limit{of=\"coders\"}";
    wait_until("memory is looked at", || metric(&server, series) == limit);
    server
}

fn at_work(server: &Server) -> Option<f64> {
    metric(server, "evenkeel_bounded{of=\"coders\"}")
}

/// A response that stops halfway until the gate is opened.
fn halting(content_type: &str, body: &str, gate: &Gate) -> Vec<Step> {
    let (half, rest) = body.split_at(body.len() / 2);
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    vec![
        Step::Request,
        Step::send(head + half),
        Step::Wait(gate.clone()),
        Step::send(rest),
    ]
}

/// Asks so many times, each time over a connection of its own, and waits for each response to begin.
fn ask(server: &Server, count: usize) -> Vec<Client> {
    let one = |_| {
        let mut client = Client::plain(server.address());
        client.send("GET / HTTP/1.1\r\nHost: a.test\r\nAccept-Encoding: gzip\r\n\r\n");
        client.read_some().expect("it begins");
        client
    };
    (0..count).map(one).collect()
}

/// Reads them to their ends; which of them were coded?
fn coded(clients: &mut [Client], body: &str) -> Vec<bool> {
    let one = |client: &mut Client| {
        let came = client.response().expect("it is whole");
        let is_coded = came.field("content-encoding") == Some("gzip");
        let plain = match is_coded {
            true => gunzip(&came.body),
            false => came.body,
        };
        assert!(plain == body.as_bytes(), "{} bytes", plain.len());
        is_coded
    };
    clients.iter_mut().map(one).collect()
}

#[test]
fn whoever_finds_no_place_gets_it_as_it_is_and_whole() {
    let backend = Backend::start("a");
    let server = site(&backend);
    let (gate, body) = (Gate::default(), text(200));
    backend.usually(halting("text/event-stream", &body, &gate));
    let mut sequences = ask(&server, SEQUENCES + 2);
    assert_eq!(at_work(&server), Some(SEQUENCES as f64));
    backend.usually(halting("text/plain", &body, &gate));
    let mut others = ask(&server, PLACES - SEQUENCES + 2);
    assert_eq!(at_work(&server), Some(PLACES as f64));
    gate.open();
    for (clients, places) in [
        (&mut sequences, SEQUENCES),
        (&mut others, PLACES - SEQUENCES),
    ] {
        let expected: Vec<_> = (0..places + 2).map(|n| n < places).collect();
        assert_eq!(coded(clients, &body), expected);
    }
    wait_until("all places are free", || at_work(&server) == Some(0.0));
    assert_eq!(coded(&mut ask(&server, 1), &body), [true]);
    let most = metric(&server, "evenkeel_bounded_high_water{of=\"coders\"}");
    assert_eq!(most, Some(PLACES as f64));
}

/// Eight of the responses on one connection are coded at once.
#[test]
fn one_connection_does_not_take_all_places() {
    let backend = Backend::start("a");
    let server = site(&backend);
    let (gate, body) = (Gate::default(), text(200));
    backend.usually(halting("text/plain", &body, &gate));
    let mut peer = Peer::connect(server.address());
    let streams: Vec<u32> = (1..).step_by(2).take(10).collect();
    for &stream in &streams {
        peer.send(asking(stream, "gzip"));
        peer.until(|peer| peer.came.contains_key(&stream));
    }
    assert_eq!(at_work(&server), Some(8.0));
    let mut other = ask(&server, 1);
    gate.open();
    assert_eq!(coded(&mut other, &body), [true]);
    for (n, &stream) in streams.iter().enumerate() {
        let came = peer.over(stream);
        let is_coded = came.field("content-encoding").is_some();
        assert_eq!(is_coded, n < 8, "{n}");
        let plain = match is_coded {
            true => gunzip(&came.data),
            false => came.data,
        };
        assert!(plain == body.as_bytes(), "{n}: {} bytes", plain.len());
    }
    wait_until("all places are free", || at_work(&server) == Some(0.0));
    peer.send(asking(21, "gzip"));
    assert!(peer.over(21).field("content-encoding").is_some());
}
