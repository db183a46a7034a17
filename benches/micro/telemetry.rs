//! What is written down of a request.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use divan::{Bencher, black_box};
use evenkeel::telemetry::access::{AccessFormat, AccessWriter, Record};
use evenkeel::telemetry::metrics::{BackendLabels, Metrics, Names};

fn record() -> Record<'static> {
    Record {
        ended: SystemTime::now(),
        client: "192.0.2.7",
        client_port: 50_000,
        tls: Some("1.3"),
        client_cert: None,
        listener: "front",
        route: Some("shop.example/"),
        service: Some("web"),
        backend: Some("10.0.0.1:8080"),
        attempts: 1,
        method: b"GET",
        host: b"shop.example",
        path: b"/items/4711",
        query: b"",
        protocol: "HTTP/1.1",
        status: 200,
        received: 0,
        sent: 4_567,
        broken: None,
        grpc_status: None,
        request_id: b"4bf92f3577b34da6a3ce929d0e0e4736",
        traceparent: None,
        referer: None,
        user_agent: Some(b"curl/8.5.0"),
        connect: None,
        first_byte: Some(Duration::from_micros(1_500)),
        total: Duration::from_micros(2_000),
    }
}

/// A line, and its part of handing a batch to the thread that throws it away here.
fn line(bencher: Bencher<'_, '_>, format: AccessFormat) {
    let writer = AccessWriter::start(format, false, io::sink()).expect("there are threads");
    let log = writer.log();
    assert!(log.is_on());
    let record = record();
    bencher.bench_local(|| log.record(black_box(&record)));
}

// One is shorter than what the clock can tell.
#[divan::bench(sample_size = 1000)]
fn access_line_json(bencher: Bencher<'_, '_>) {
    line(bencher, AccessFormat::Json);
}

// One is shorter than what the clock can tell.
#[divan::bench(sample_size = 1000)]
fn access_line_combined(bencher: Bencher<'_, '_>) {
    line(bencher, AccessFormat::Combined);
}

/// All that is counted of a request that goes well.
// One is shorter than what the clock can tell.
#[divan::bench(sample_size = 1000)]
fn metrics_of_a_request(bencher: Bencher<'_, '_>) {
    let metrics = Metrics::new(Arc::new(Names {
        services: vec!["web".into()],
        listeners: vec!["front".into()],
    }));
    let shard = metrics.shard();
    let labels = || BackendLabels {
        service: "web".into(),
        backend: "10.0.0.1:8080".into(),
    };
    let took = Duration::from_micros(1_500);
    bencher.bench_local(|| {
        shard.request(Some(0), black_box("GET"), black_box(200), black_box(took));
        shard.bytes(Some(0), 0, black_box(4_567));
        shard.attempt(black_box(7), Some(took), labels);
    });
}
