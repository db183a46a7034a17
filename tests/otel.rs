//! Spans of requests, as a collector gets them: OTLP over HTTP on a real socket, taken apart by a reader
//! of protobuf that is not the product's.

#[path = "otel/protobuf.rs"]
mod protobuf;
mod support;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use tokio::time::Instant;

use protobuf::Field;
use support::backend::{Backend, Step, nobody};
use support::client::Client;
use support::server::{Server, output};
use support::{Gate, require, wait_until};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// A collector that takes everything.
fn collector() -> Backend {
    let collector = Backend::start("collector");
    let taken =
        "HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n";
    collector.usually(vec![Step::Request, Step::send(taken)]);
    collector
}

fn configuration(backends: &[SocketAddr], traces: &str) -> String {
    let backends: Vec<_> = backends.iter().map(ToString::to_string).collect();
    format!(
        r#"
        workers = 1
        {traces}
        [drain]
        wait = "0s"
        [[listener]]
        address = "127.0.0.1:0"
        protocol = "http"
        [[service]]
        name = "shop"
        discover = {{ static = {backends:?} }}
        [[route]]
        name = "all"
        path = "/in"
        rewrite = {{ prefix = "/" }}
        service = "shop"
        "#
    )
}

fn traced(backends: &[SocketAddr], collector: SocketAddr, ratio: f64) -> Server {
    let traces = format!("traces = {{ endpoint = \"http://{collector}/\", ratio = {ratio} }}");
    Server::in_process(&configuration(backends, &traces))
}

/// A span as it came.
#[derive(Debug)]
struct Span {
    trace: String,
    id: String,
    parent: String,
    name: String,
    kind: u64,
    took: Duration,
    /// Of the status; 0: unset, 2: an error.
    code: u64,
    state: String,
    attributes: BTreeMap<String, String>,
    resource: BTreeMap<String, String>,
}

/// All that a collector was sent, in the order in which it came (opentelemetry/proto/trace/v1).
fn spans(collector: &Backend) -> Vec<Span> {
    let mut spans = Vec::new();
    for received in collector.look() {
        let Some(request) = received.whole else {
            continue;
        };
        assert_eq!(request.first_line, "POST /v1/traces HTTP/1.1");
        assert_eq!(
            request.field("content-type"),
            Some("application/x-protobuf")
        );
        let whole = protobuf::read(&request.body);
        for of_resource in protobuf::all(&whole, 1).map(Field::message) {
            let resource = protobuf::one(&of_resource, 1).message();
            for scope in protobuf::all(&of_resource, 2).map(Field::message) {
                let of_scope = protobuf::all(&scope, 2).map(Field::message);
                spans.extend(of_scope.map(|fields| span(&fields, &resource)));
            }
        }
    }
    spans
}

fn span(fields: &[(u64, Field)], resource: &[(u64, Field)]) -> Span {
    let text = |number| protobuf::find(fields, number).map_or_else(String::new, |f| f.text());
    let hex = |number| protobuf::find(fields, number).map_or_else(String::new, |f| f.hex());
    let number = |of: &[(u64, Field)], number| protobuf::find(of, number).map_or(0, |f| f.number());
    let status = protobuf::find(fields, 15).map(Field::message);
    Span {
        trace: hex(1),
        id: hex(2),
        state: text(3),
        parent: hex(4),
        name: text(5),
        kind: number(fields, 6),
        took: Duration::from_nanos(number(fields, 8) - number(fields, 7)),
        code: status.map_or(0, |status| number(&status, 3)),
        attributes: attributes(fields, 9),
        resource: attributes(resource, 1),
    }
}

fn attributes(fields: &[(u64, Field)], number: u64) -> BTreeMap<String, String> {
    let pairs = protobuf::all(fields, number).map(Field::message);
    let pairs = pairs.map(|pair| {
        let value = protobuf::one(&pair, 2).message();
        let value = match &value[0] {
            (1, text) => text.text(),
            (_, number) => number.number().to_string(),
        };
        (protobuf::one(&pair, 1).text(), value)
    });
    pairs.collect()
}

/// The span that a `traceparent` names: its trace and its id.
fn named(traceparent: &str) -> (String, String) {
    let mut parts = traceparent.split('-').map(str::to_owned);
    assert_eq!(parts.next().as_deref(), Some("00"), "{traceparent}");
    let ids = parts.next().zip(parts.next()).expect("it has ids");
    assert_eq!(parts.next().as_deref(), Some("01"), "{traceparent}");
    ids
}

/// The `traceparent` of the only request that a backend has had since.
fn came(backend: &Backend) -> Option<String> {
    backend.await_requests(1);
    let mut taken = backend.take();
    assert_eq!(taken.len(), 1, "{taken:?}");
    let request = taken.remove(0).whole.expect("it is whole");
    request.field("traceparent").map(str::to_owned)
}

fn ask(server: &Server, parent: Option<&str>) -> u16 {
    let parent = parent.map_or_else(String::new, |parent| {
        format!("Traceparent: {parent}\r\nTracestate: rojo=1\r\n")
    });
    let mut client = Client::plain(server.address());
    client.send(format!(
        "GET /in/a?secret=1 HTTP/1.1\r\nHost: shop.example:81\r\n{parent}\r\n"
    ));
    client.response().expect("it is answered").status()
}

#[test]
fn a_request_is_a_span_between_its_client_and_its_backend() {
    let (backend, collector) = (Backend::start("b"), collector());
    let server = traced(&[backend.address], collector.address, 0.0);
    assert_eq!(ask(&server, Some(&format!("00-{TRACE}-{PARENT}-01"))), 200);
    let below = came(&backend).expect("it is told where it belongs");
    wait_until("the span comes", || spans(&collector).len() == 1);
    let span = spans(&collector).remove(0);
    assert_eq!((span.trace.as_str(), span.parent.as_str()), (TRACE, PARENT));
    assert_eq!(named(&below), (span.trace.clone(), span.id.clone()));
    assert_ne!(span.id, PARENT);
    assert_eq!(
        (span.name.as_str(), span.kind, span.code),
        ("GET all", 2, 0)
    );
    assert_eq!(span.state, "rojo=1");
    assert!(span.took > Duration::ZERO && span.took < support::PATIENCE);
    let backend = backend.address.to_string();
    for (key, value) in [
        ("http.request.method", "GET"),
        ("url.scheme", "http"),
        ("url.path", "/in/a"),
        ("server.address", "shop.example"),
        ("server.port", "81"),
        ("http.response.status_code", "200"),
        ("http.route", "all"),
        ("network.protocol.version", "1.1"),
        ("client.address", "127.0.0.1"),
        ("evenkeel.service", "shop"),
        ("evenkeel.backend", &backend),
        ("evenkeel.retries", "0"),
    ] {
        assert_eq!(
            span.attributes.get(key).map(String::as_str),
            Some(value),
            "{span:?}"
        );
    }
    assert!(!format!("{span:?}").contains("secret"), "{span:?}");
    assert_eq!(span.resource["service.name"], "evenkeel");
    let page = Client::plain(server.probe.expect("it listens")).get("a", "/metrics");
    let page = String::from_utf8(page.expect("it answers").body).expect("it is text");
    assert!(
        page.contains("evenkeel_trace_spans_total{result=\"exported\"} 1\n"),
        "{page}"
    );
}

#[test]
fn who_is_above_decides_and_else_the_ratio() {
    let (backend, collector) = (Backend::start("b"), collector());
    let (none, all) = (
        traced(&[backend.address], collector.address, 0.0),
        traced(&[backend.address], collector.address, 1.0),
    );
    let unsampled = format!("00-{TRACE}-{PARENT}-00");
    assert_eq!(ask(&all, Some(&unsampled)), 200);
    assert_eq!(came(&backend), Some(unsampled), "it is passed on as it is");
    assert_eq!(ask(&none, None), 200);
    assert_eq!(came(&backend), None, "none is made up");
    assert_eq!(ask(&all, None), 200);
    let first = named(&came(&backend).expect("a trace begins here"));
    assert_eq!(ask(&all, Some("00-nonsense-01")), 200);
    let second = named(&came(&backend).expect("a trace begins here"));
    assert_ne!(first.0, second.0);
    // What has not gone yet goes at the end.
    all.drain();
    all.drained();
    none.drain();
    none.drained();
    let spans = spans(&collector);
    assert!(spans.iter().all(|span| span.parent.is_empty()), "{spans:?}");
    let ids: Vec<_> = spans
        .into_iter()
        .map(|span| (span.trace, span.id))
        .collect();
    assert_eq!(ids, [first, second]);
}

#[test]
fn over_http_2_and_where_nobody_answers() {
    if !require("curl") {
        return;
    }
    let collector = collector();
    let server = traced(&[nobody()], collector.address, 1.0);
    let mut curl = Command::new("curl");
    curl.args([
        "--silent",
        "--http2-prior-knowledge",
        "--output",
        "/dev/null",
    ]);
    let answer = output(curl.arg(format!("http://{}/in/", server.address())));
    assert!(answer.status.success(), "{answer:?}");
    wait_until("the span comes", || spans(&collector).len() == 1);
    let span = spans(&collector).remove(0);
    assert_eq!(span.attributes["network.protocol.version"], "2");
    assert_eq!(span.attributes["http.response.status_code"], "503");
    assert_eq!(
        (span.code, &*span.attributes["error.type"]),
        (2, "connect_failed"),
        "{span:?}"
    );
}

#[test]
fn what_is_tried_again_is_one_span() {
    let (backend, collector) = (Backend::start("b"), collector());
    let server = traced(&[nobody(), backend.address], collector.address, 1.0);
    assert_eq!([ask(&server, None), ask(&server, None)], [200; 2]);
    wait_until("the spans come", || spans(&collector).len() == 2);
    let spans = spans(&collector);
    let mut retries: Vec<_> = spans
        .iter()
        .map(|s| &*s.attributes["evenkeel.retries"])
        .collect();
    retries.sort_unstable();
    assert_eq!(retries, ["0", "1"], "nobody is passed over the second time");
    let came: Vec<_> = backend
        .take()
        .into_iter()
        .filter_map(|came| came.whole)
        .collect();
    let told: Vec<_> = came
        .iter()
        .filter_map(|came| came.field("traceparent"))
        .collect();
    let ids: Vec<_> = spans
        .iter()
        .map(|s| format!("00-{}-{}-01", s.trace, s.id))
        .collect();
    assert_eq!(told, ids);
}

#[test]
fn a_collector_that_is_stuck_holds_nobody_up() {
    let (backend, collector) = (Backend::start("b"), Backend::start("collector"));
    collector.usually(vec![Step::Request, Step::Wait(Gate::new())]);
    let server = traced(&[backend.address], collector.address, 1.0);
    let mut client = Client::plain(server.address());
    for _ in 0..50 {
        assert_eq!(
            client.get("a", "/in/").expect("it is answered").status(),
            200
        );
    }
    collector.await_requests(1);
    assert_eq!(
        client.get("a", "/in/").expect("it is answered").status(),
        200
    );
    let begun = Instant::now();
    drop(client);
    server.drain();
    server.drained();
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn the_environment_is_enough() {
    let (backend, collector) = (Backend::start("b"), collector());
    let endpoint = format!("http://{}", collector.address);
    let toml = configuration(&[backend.address], "");
    let server = Server::binary_with("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint, &toml);
    assert_eq!(ask(&server, None), 200);
    let ids = named(&came(&backend).expect("a trace begins here"));
    wait_until("the span comes", || spans(&collector).len() == 1);
    let span = spans(&collector).remove(0);
    assert_eq!((span.trace, span.id), ids);
}
