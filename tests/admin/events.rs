//! The stream of events.

use std::time::Duration;

use serde_json::Value;

use crate::schema::Contract;
use crate::site::Site;
use crate::support::client::Client;
use crate::support::wait_until;

/// A stream that is read piece by piece.
struct Stream {
    client: Client,
    text: String,
}

impl Stream {
    fn open(site: &Site, path: &str, fields: &str) -> Stream {
        let mut client = Client::plain(site.address());
        client.send(format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n{fields}\r\n"
        ));
        let mut stream = Stream {
            client,
            text: String::new(),
        };
        let head = stream.until("\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(
            head.contains("content-type: text/event-stream\r\n"),
            "{head}"
        );
        stream
    }

    fn until(&mut self, end: &str) -> String {
        loop {
            if let Some(at) = self.text.find(end) {
                let rest = self.text.split_off(at + end.len());
                return std::mem::replace(&mut self.text, rest);
            }
            self.client.read_some().expect("it goes on");
            self.text += &String::from_utf8_lossy(&self.client.take());
        }
    }

    /// The next message: its type, its id, its data. Comments and `retry` are left out.
    fn next(&mut self) -> (String, String, Value) {
        loop {
            let message = self.until("\n\n");
            let field = |name: &str| {
                let mut lines = message.lines();
                lines
                    .find_map(|line| line.strip_prefix(name))
                    .map(str::to_owned)
            };
            if let (Some(kind), Some(data)) = (field("event: "), field("data: ")) {
                let data = serde_json::from_str(&data).expect("it is JSON");
                return (kind, field("id: ").unwrap_or_default(), data);
            }
        }
    }
}

#[test]
fn a_stream_goes_on_after_the_last_id() {
    let site = Site::start();
    let contract = Contract::read();
    let mut first = Stream::open(&site, "/api/v1/events?since=0", "");
    let (kind, id, started) = first.next();
    assert_eq!(
        (kind.as_str(), &started["kind"]),
        ("event", &Value::from("started"))
    );
    contract.check_as("Event", &started);
    site.post(&format!("{}/drain", site.id(0)), None);
    let (_, _, drained) = first.next();
    assert_eq!(drained["kind"], "backend_drained");
    assert_eq!(
        format!("/api/v1/backends/{}", drained["backend"].as_str().unwrap()),
        site.id(0)
    );
    drop(first);
    site.post(&format!("{}/undrain", site.id(0)), None);
    let mut again = Stream::open(&site, "/api/v1/events", &format!("Last-Event-ID: {id}\r\n"));
    let kinds = [again.next(), again.next()].map(|(_, _, event)| event["kind"].clone());
    assert_eq!(kinds, ["backend_drained", "backend_undrained"]);

    let mut other = Stream::open(&site, "/api/v1/events", "Last-Event-ID: other.17\r\n");
    let (kind, _, missed) = other.next();
    assert_eq!(kind, "missed");
    contract.check_as("Missed", &missed);
    assert_eq!(other.next().2["kind"], "started");
}

#[test]
fn samples_come_each_second_to_who_wants_them() {
    let site = Site::start();
    let contract = Contract::read();
    let mut stream = Stream::open(&site, "/api/v1/events?samples=true", "");
    for _ in 0..2 {
        let (kind, id, sample) = stream.next();
        assert_eq!((kind.as_str(), id.as_str()), ("sample", ""));
        contract.check_as("Sample", &sample);
    }
}

#[test]
fn streams_are_bounded_and_a_place_comes_back_with_its_reader() {
    let site = Site::start();
    let bound = evenkeel::admin::occupancy::STREAMS;
    let streams: Vec<_> = (0..bound)
        .map(|_| Stream::open(&site, "/api/v1/events", ""))
        .collect();
    let accept = [("accept", "text/event-stream")];
    assert_eq!(
        site.ask("GET", "/api/v1/events", &accept, None).status(),
        429
    );
    assert_eq!(
        site.post("/api/v1/drain", None).0,
        200,
        "commands come through"
    );
    drop(streams);
    wait_until("there is a place", || {
        let mut client = Client::plain(site.address());
        client.patience(Duration::from_secs(1));
        client.send(
            "GET /api/v1/events?since=0 HTTP/1.1\r\nHost: localhost\r\n\
             Accept: text/event-stream\r\n\r\n",
        );
        client.exactly(12).is_ok_and(|head| head == b"HTTP/1.1 200")
    });
}

#[test]
fn another_tier_that_serves_is_an_event() {
    let site = Site::start();
    let mut stream = Stream::open(&site, "/api/v1/events", "");
    // The tier that served is seen once before.
    wait_until("a sample was taken", || {
        let status = site.get("/api/v1/status");
        status["sample"].is_object()
    });
    for backend in 0..2 {
        site.post(&format!("{}/drain", site.id(backend)), None);
    }
    let event = loop {
        let (_, _, event) = stream.next();
        if event["kind"] == "failed_over" {
            break event;
        }
    };
    assert_eq!(event["service"], "web");
    assert_eq!(event["text"], "priority 10 serves, it was 0");
}
