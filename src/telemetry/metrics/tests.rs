use std::time::{Duration, UNIX_EPOCH};

use super::*;

fn metrics() -> Arc<Metrics> {
    Metrics::new(Arc::new(Names {
        services: vec!["a".into(), "b".into()],
        listeners: vec!["front".into()],
    }))
}

fn labels(backend: &str) -> BackendLabels {
    BackendLabels {
        service: "a".into(),
        backend: backend.into(),
    }
}

fn sample(id: u64, backend: &str) -> BackendSample {
    BackendSample {
        id,
        labels: labels(backend),
        up: true,
        state: ("up", ""),
        verdicts: Arc::new(Verdicts::new(["failures", "success_rate"])),
        weight: 3,
        priority: 10,
        in_flight: 2,
    }
}

fn with_backends(backends: &[BackendSample]) -> Live {
    Live {
        backends: backends.to_vec(),
        ..Live::default()
    }
}

/// The value of the series that starts so, if it is on the page.
fn value(page: &str, series: &str) -> Option<f64> {
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map(|text| text.parse().unwrap())
}

#[test]
fn shards_are_summed() {
    let metrics = metrics();
    let threads: Vec<_> = (0..3)
        .map(|_| {
            let metrics = Arc::clone(&metrics);
            std::thread::spawn(move || {
                let shard = metrics.shard();
                for _ in 0..1_000 {
                    shard.request(Some(1), "GET", 200, Duration::from_millis(2));
                    shard.bytes(Some(1), 10, 100);
                    shard.attempt(7, Some(Duration::from_millis(1)), || labels("x"));
                }
                shard.request(None, "BREW", 404, Duration::ZERO);
                shard.request(Some(0), "POST", 503, Duration::from_secs(2));
                shard.upstream_error(0, "connect");
                shard.request_failed(0, "no_backend");
                shard.downstream_error("header_timeout");
                shard.refused("max_connections");
                shard.retry(0);
                shard.handshake(Some("1.3"), Handshake::Resumed);
                shard.handshake(None, Handshake::TimedOut);
                shard.connect_failed(7, || labels("x"));
            })
        })
        .collect();
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());

    let page = metrics.render(Millis(1), with_backends(&[sample(7, "x")]));
    for (series, expected) in [
        (
            r#"evenkeel_requests_total{service="b",method="GET",code="200"}"#,
            3_000.0,
        ),
        (
            r#"evenkeel_requests_total{service="",method="OTHER",code="404"}"#,
            3.0,
        ),
        (
            r#"evenkeel_requests_total{service="a",method="POST",code="503"}"#,
            3.0,
        ),
        (
            r#"evenkeel_request_duration_seconds_count{service="b"}"#,
            3_000.0,
        ),
        (r#"evenkeel_request_duration_seconds_sum{service="b"}"#, 6.0),
        (
            r#"evenkeel_request_duration_seconds_bucket{le="0.001",service="b"}"#,
            0.0,
        ),
        (
            r#"evenkeel_request_duration_seconds_bucket{le="0.0025",service="b"}"#,
            3_000.0,
        ),
        (
            r#"evenkeel_request_duration_seconds_bucket{le="+Inf",service="b"}"#,
            3_000.0,
        ),
        (
            r#"evenkeel_client_body_bytes_total{service="b",direction="out"}"#,
            300_000.0,
        ),
        (
            r#"evenkeel_backend_requests_total{service="a",backend="x"}"#,
            3_000.0,
        ),
        (
            r#"evenkeel_backend_connect_failures_total{service="a",backend="x"}"#,
            3.0,
        ),
        (
            r#"evenkeel_backend_first_byte_seconds_count{service="a",backend="x"}"#,
            3_000.0,
        ),
        (r#"evenkeel_backend_up{service="a",backend="x"}"#, 1.0),
        (r#"evenkeel_backend_weight{service="a",backend="x"}"#, 3.0),
        (
            r#"evenkeel_backend_priority{service="a",backend="x"}"#,
            10.0,
        ),
        (
            r#"evenkeel_backend_in_flight{service="a",backend="x"}"#,
            2.0,
        ),
        (r#"evenkeel_retries_total{service="a"}"#, 3.0),
        (r#"evenkeel_retries_total{service="b"}"#, 0.0),
        (
            r#"evenkeel_upstream_errors_total{service="a",reason="connect"}"#,
            3.0,
        ),
        (
            r#"evenkeel_failed_requests_total{service="a",reason="no_backend"}"#,
            3.0,
        ),
        (
            r#"evenkeel_failed_requests_total{service="b",reason="no_backend"}"#,
            0.0,
        ),
        (
            r#"evenkeel_refused_connections_total{reason="max_connections"}"#,
            3.0,
        ),
        (
            r#"evenkeel_downstream_errors_total{reason="header_timeout"}"#,
            3.0,
        ),
        (
            r#"evenkeel_tls_handshakes_total{version="1.3",result="resumed"}"#,
            3.0,
        ),
        (
            r#"evenkeel_tls_handshakes_total{version="unknown",result="timeout"}"#,
            3.0,
        ),
        (
            &format!(
                r#"evenkeel_build_info{{version="{}"}}"#,
                env!("CARGO_PKG_VERSION")
            ),
            1.0,
        ),
    ] {
        assert_eq!(value(&page, series), Some(expected), "{series} on:\n{page}");
    }
    assert!(page.ends_with("# EOF\n"));
}

#[test]
fn every_status_code_has_its_place() {
    let metrics = metrics();
    let shard = metrics.shard();
    for (status, code) in [
        (0, "0"),
        (100, "100"),
        (299, "299"),
        (999, "999"),
        (u16::MAX, "999"),
    ] {
        shard.request(Some(0), "GET", status, Duration::ZERO);
        let page = metrics.render(Millis(1), Live::default());
        let series =
            format!(r#"evenkeel_requests_total{{service="a",method="GET",code="{code}"}}"#);
        assert!(value(&page, &series) >= Some(1.0), "{status}");
    }
}

#[test]
fn connections_are_open_until_their_guard_goes() {
    let metrics = metrics();
    let shard = metrics.shard();
    let other = metrics.shard();
    let front = shard.client_connection(0);
    let _front = other.client_connection(0);
    let _back = shard.backend_connection(1, 7, || labels("x"));
    drop(front);
    let page = metrics.render(Millis(1), Live::default());
    for (series, expected) in [
        (
            r#"evenkeel_open_connections{side="downstream",name="front"}"#,
            1.0,
        ),
        (
            r#"evenkeel_connections_total{side="downstream",name="front"}"#,
            2.0,
        ),
        (
            r#"evenkeel_open_connections{side="upstream",name="a"}"#,
            0.0,
        ),
        (
            r#"evenkeel_open_connections{side="upstream",name="b"}"#,
            1.0,
        ),
    ] {
        assert_eq!(value(&page, series), Some(expected), "{series}");
    }
}

const REQUESTS: &str = r#"evenkeel_backend_requests_total{service="a",backend="x"}"#;
const UP: &str = r#"evenkeel_backend_up{service="a",backend="x"}"#;
const MINUTE: u64 = 60_000;

#[test]
fn a_backends_series_go_some_minutes_after_it() {
    let metrics = metrics();
    let shard = metrics.shard();
    let count = |id| shard.attempt(id, None, || labels("x"));
    let seen = |minute, live: &[_]| {
        let page = metrics.render(Millis(1 + minute * MINUTE), with_backends(live));
        (value(&page, REQUESTS), value(&page, UP))
    };
    count(1);
    assert_eq!(
        seen(0, &[sample(1, "x")]),
        (Some(1.0), Some(1.0)),
        "it is there"
    );
    assert_eq!(
        seen(1, &[]),
        (Some(1.0), None),
        "it is gone, its counts are not"
    );
    count(1);
    assert_eq!(seen(4, &[]), (Some(2.0), None), "a last exchange ended");
    assert_eq!(seen(5, &[]), (None, None), "its series are gone too");
    count(1);
    assert_eq!(
        seen(6, &[]),
        (Some(1.0), None),
        "counted from nothing if it is used again"
    );
}

#[test]
fn a_backend_that_comes_back_goes_on_counting() {
    let metrics = metrics();
    let shard = metrics.shard();
    let seen = |minute, live: &[_]| {
        metrics.sweep(Millis(1 + minute * MINUTE), live);
        let page = metrics.render(Millis(1 + minute * MINUTE), with_backends(live));
        value(&page, REQUESTS)
    };
    shard.attempt(1, None, || labels("x"));
    assert_eq!(seen(0, &[sample(1, "x")]), Some(1.0));
    assert_eq!(seen(1, &[]), Some(1.0));
    shard.attempt(2, None, || labels("x"));
    for minute in 2..20 {
        assert_eq!(
            seen(minute, &[sample(2, "x")]),
            Some(2.0),
            "minute {minute}"
        );
    }
    assert_eq!(shard_len(&metrics), 1, "the first id is retired");
}

/// However often it leaves and comes back under another id, and whatever is found of it after the last
/// look at it.
#[test]
fn what_was_found_of_a_backend_goes_some_minutes_after_it() {
    let metrics = metrics();
    let seen = |minute: u64, live: &[_]| {
        let page = metrics.render(Millis(1 + minute * MINUTE), with_backends(live));
        let failures = r#"evenkeel_backend_check_failures_total{service="a",backend="x"}"#;
        let ejections =
            r#"evenkeel_backend_ejections_total{service="a",backend="x",reason="failures"}"#;
        (value(&page, failures), value(&page, ejections))
    };
    let first = sample(1, "x");
    first.verdicts.check_failed();
    assert_eq!(
        seen(0, std::slice::from_ref(&first)),
        (Some(1.0), Some(0.0))
    );
    first.verdicts.check_failed();
    first.verdicts.ejected("failures");
    drop(first);
    assert_eq!(seen(1, &[]), (Some(2.0), Some(1.0)), "nobody had looked");
    let second = sample(2, "x");
    second.verdicts.check_failed();
    for minute in 2..20 {
        let both = (Some(3.0), Some(1.0));
        let live = std::slice::from_ref(&second);
        assert_eq!(seen(minute, live), both, "minute {minute}");
    }
    assert_eq!(seen(20, &[]), (Some(3.0), Some(1.0)), "it is gone again");
    assert_eq!(seen(24, &[]), (None, None), "and so are its series");
    assert_eq!(seen(25, &[sample(3, "x")]), (Some(0.0), Some(0.0)));
}

/// Nothing at all is no alert: a service that nobody can serve has to say so.
#[test]
fn a_service_without_backends_is_on_the_page() {
    let live = Live {
        services: vec!["a".into(), "b".into()],
        stuck_workers: 2,
        ..with_backends(&[
            sample(1, "x"),
            sample(2, "y"),
            BackendSample {
                up: false,
                ..sample(3, "z")
            },
        ])
    };
    let page = metrics().render(Millis(1), live);
    for (series, expected) in [
        (r#"evenkeel_service_backends_up{service="a"}"#, 2.0),
        (r#"evenkeel_service_backends_up{service="b"}"#, 0.0),
        ("evenkeel_stuck_workers", 2.0),
    ] {
        assert_eq!(value(&page, series), Some(expected), "{series} on:\n{page}");
    }
}

#[test]
fn a_connection_to_a_backend_is_active_or_idle_until_it_is_over() {
    let metrics = metrics();
    let [one, other] = [metrics.shard(), metrics.shard()];
    let seen = || {
        let page = metrics.render(Millis(1), with_backends(&[sample(7, "x")]));
        ["active", "idle"].map(|state| {
            let labels = format!(r#"service="a",backend="x",state="{state}""#);
            value(&page, &format!("evenkeel_backend_connections{{{labels}}}"))
        })
    };
    assert_eq!(seen(), [Some(0.0), Some(0.0)]);
    let first = one.backend_connection(0, 7, || labels("x"));
    let second = other.backend_connection(0, 7, || labels("x"));
    assert_eq!(seen(), [Some(2.0), Some(0.0)]);
    first.rests(true);
    first.rests(true);
    assert_eq!(seen(), [Some(1.0), Some(1.0)], "said twice, counted once");
    second.rests(true);
    second.rests(false);
    assert_eq!(seen(), [Some(1.0), Some(1.0)]);
    drop(first);
    assert_eq!(seen(), [Some(1.0), Some(0.0)], "an idle one is over");
    drop(second);
    assert_eq!(seen(), [Some(0.0), Some(0.0)]);
}

/// Peers come and go at will in DNS: what is kept of them must not grow.
#[test]
fn churn_is_bounded_whether_or_not_somebody_scrapes() {
    let metrics = metrics();
    let shard = metrics.shard();
    for id in 0..50_000 {
        let name = format!("10.0.0.1:{id}");
        shard.attempt(id, None, || labels(&name));
        if id % 1_000 == 0 {
            metrics.sweep(Millis(1 + id), &[sample(id, &name)]);
        }
    }
    // The oldest go first: 4,096 that are gone, a sweep's worth, and what came since.
    assert!(
        shard_len(&metrics) < 6_200,
        "{} listed",
        shard_len(&metrics)
    );
    let page = metrics.render(Millis(50_001), Live::default());
    let lines = page
        .lines()
        .filter(|l| l.starts_with("evenkeel_backend_requests_total"))
        .count();
    assert!(lines < 5_200, "{lines} lines");
    assert!(
        shard.known_backends() < 20_000,
        "{} known",
        shard.known_backends()
    );
}

fn shard_len(metrics: &Metrics) -> usize {
    metrics
        .shards()
        .iter()
        .map(|shard| shard.backends().len())
        .sum()
}

#[test]
fn two_backends_under_one_label_are_one_series() {
    let metrics = metrics();
    let shard = metrics.shard();
    shard.attempt(1, None, || labels("x"));
    shard.attempt(2, None, || labels("x"));
    let page = metrics.render(Millis(1), with_backends(&[sample(1, "x"), sample(2, "x")]));
    assert_eq!(page.matches(REQUESTS).count(), 1);
    assert_eq!(value(&page, REQUESTS), Some(2.0));
    let in_flight = r#"evenkeel_backend_in_flight{service="a",backend="x"}"#;
    assert_eq!(page.matches(in_flight).count(), 1);
    assert_eq!(value(&page, in_flight), Some(4.0));
}

#[test]
fn dns_certificates_bounds_and_process() {
    let at = UNIX_EPOCH + Duration::from_millis(1_700_000_000_500);
    let dns = DnsSample {
        lookups: vec![DnsLookups {
            name: "_http._tcp.a".into(),
            qtype: "SRV",
            result: "ok",
            count: 8,
        }],
        durations: vec![(0.5, 2), (2.0, 3), (f64::INFINITY, 1)],
        seconds: 4.5,
        names: vec![DnsName {
            name: "_http._tcp.a".into(),
            last_success: Some(1_700_000_000.5),
            stale: true,
            endpoints: 3,
            rotates: true,
            unlisted: 2,
            changes: vec![("joined", 6), ("left", 3)],
            held_back: 2,
            rejected: 1,
        }],
    };
    let certificate = CertificateSample {
        listener: "front".into(),
        file: "a\"b\\c\nd.pem".into(),
        not_after: at,
    };
    let page = metrics().render(
        Millis(1),
        Live {
            dns,
            certificates: vec![certificate.clone(), certificate],
            certificate_files: CertificateFilesSample {
                replaced: 3,
                refused: 2,
                unusable: 1,
            },
            acme: Some(AcmeSample {
                orders: vec![("issued", 4)],
                renewals: vec![("a.example".into(), at)],
            }),
            bounds: vec![BoundSample {
                what: "client_connections",
                service: None,
                now: 3,
                high_water: Some(5),
                bound: Some(10),
            }],
            access_lines_dropped: 9,
            draining: true,
            ..Live::default()
        },
    );
    for (series, expected) in [
        (
            r#"evenkeel_dns_lookups_total{name="_http._tcp.a",qtype="SRV",result="ok"}"#,
            8.0,
        ),
        (
            r#"evenkeel_dns_lookup_duration_seconds_bucket{le="2.0"}"#,
            5.0,
        ),
        (
            r#"evenkeel_dns_lookup_duration_seconds_bucket{le="+Inf"}"#,
            6.0,
        ),
        ("evenkeel_dns_lookup_duration_seconds_count", 6.0),
        ("evenkeel_dns_lookup_duration_seconds_sum", 4.5),
        (
            r#"evenkeel_dns_last_success_timestamp_seconds{name="_http._tcp.a"}"#,
            1_700_000_000.5,
        ),
        (
            r#"evenkeel_dns_changes_total{name="_http._tcp.a",op="joined"}"#,
            6.0,
        ),
        (
            r#"evenkeel_dns_changes_total{name="_http._tcp.a",op="left"}"#,
            3.0,
        ),
        (r#"evenkeel_dns_held_back_total{name="_http._tcp.a"}"#, 2.0),
        (
            r#"evenkeel_dns_rejected_records_total{name="_http._tcp.a"}"#,
            1.0,
        ),
        (r#"evenkeel_dns_stale{name="_http._tcp.a"}"#, 1.0),
        (r#"evenkeel_dns_endpoints{name="_http._tcp.a"}"#, 3.0),
        (
            r#"evenkeel_dns_unlisted_endpoints{name="_http._tcp.a"}"#,
            2.0,
        ),
        (r#"evenkeel_dns_rotates{name="_http._tcp.a"}"#, 1.0),
        (
            r#"evenkeel_tls_cert_not_after_timestamp_seconds{listener="front",file="a\"b\\c\nd.pem"}"#,
            1_700_000_000.5,
        ),
        (
            r#"evenkeel_tls_certificate_reloads_total{result="replaced"}"#,
            3.0,
        ),
        (
            r#"evenkeel_tls_certificate_reloads_total{result="refused"}"#,
            2.0,
        ),
        ("evenkeel_tls_certificates_unusable", 1.0),
        (r#"evenkeel_acme_orders_total{result="issued"}"#, 4.0),
        (
            r#"evenkeel_acme_renewal_timestamp_seconds{name="a.example"}"#,
            1_700_000_000.5,
        ),
        (r#"evenkeel_bounded{of="client_connections"}"#, 3.0),
        (
            r#"evenkeel_bounded_high_water{of="client_connections"}"#,
            5.0,
        ),
        (r#"evenkeel_bounded_limit{of="client_connections"}"#, 10.0),
        ("evenkeel_access_log_dropped_lines_total", 9.0),
        ("evenkeel_draining", 1.0),
    ] {
        assert_eq!(value(&page, series), Some(expected), "{series} on:\n{page}");
        assert_eq!(page.matches(&format!("\n{series} ")).count(), 1, "{series}");
    }
    for series in [
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_start_time_seconds",
    ] {
        assert!(value(&page, series) > Some(0.0), "{series} on:\n{page}");
    }
}
