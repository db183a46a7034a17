//! The metrics of a busy server, as Prometheus' own tools see them: they have nothing to complain
//! of, and a Prometheus that scrapes it has the series.

#[path = "support/dns.rs"]
mod dns;
#[path = "metrics/levels.rs"]
mod levels;
#[path = "metrics/observability.rs"]
mod observability;
#[path = "metrics/prometheus.rs"]
mod prometheus;
#[path = "metrics/promql.rs"]
mod promql;
mod support;

use std::net::SocketAddr;
use std::process::Command;

use dns::{DnsServer, srv_reply};
use hickory_proto::rr::RecordType;
use prometheus::Prometheus;
use rustls::version::TLS13;

use support::backend::{Backend, nobody};
use support::client::{Client, tls_config};
use support::server::{Folder, Server, output_of};
use support::{require, wait_until};

/// A server that has seen requests over HTTP and HTTPS, connections of layer 4, errors on both
/// sides, names in DNS, and a backend that is out.
struct Busy {
    server: Server,
    _backend: Backend,
    _folder: Folder,
}

const SRV: &str = "_http._tcp.web.test";

fn busy(name_server: SocketAddr) -> Busy {
    let backend = Backend::start("b");
    let folder = Folder::new();
    let certificate = folder.certificate("default", &["localhost"]);
    let server = Server::in_process(&format!(
        r#"
        workers = 2
        [dns]
        servers = ["{name_server}"]
        [[listener]]
        name = "web"
        address = "127.0.0.1:0"
        protocol = "http"
        [[listener]]
        name = "secure"
        address = "127.0.0.1:0"
        protocol = "https"
        certificates = [{}]
        [[listener]]
        name = "pass"
        address = "127.0.0.1:0"
        protocol = "tcp"
        [[service]]
        name = "shop"
        discover = {{ static = ["{}", "{}"] }}
        max_in_flight = 10
        rate_limit = {{ requests = 1, per = "1h", burst = 20 }}
        health = "tcp"
        [[service]]
        name = "named"
        discover = {{ srv = "{SRV}" }}
        [[route]]
        host = "shop.test"
        service = "shop"
        [[route]]
        host = "named.test"
        service = "named"
        [[route]]
        listener = "pass"
        service = "shop"
        "#,
        certificate.entry(),
        backend.address,
        nobody(),
    ));
    let [web, secure, pass] = server.addresses[..] else {
        panic!("three listeners");
    };
    // First of all: who is limited by then is reset.
    let _ = Client::plain(pass).get("any.test", "/");
    let config = tls_config(&certificate.ca, &[&TLS13]);
    for host in ["shop.test", "named.test", "nowhere.test"] {
        for method in ["GET", "DELETE", "BREW"] {
            let mut client = Client::plain(web);
            client.send(format!("{method} / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
            let _ = client.response();
        }
        let mut client = Client::tls(secure, &config, "localhost").expect("a handshake");
        let _ = client.get(host, "/");
        let _ = client.get(host, "/%00");
    }
    for _ in 0..30 {
        let _ = Client::plain(web).get("shop.test", "/");
    }
    Client::plain(secure)
        .send("no TLS at all, whatever it is")
        .finish();
    Busy {
        server,
        _backend: backend,
        _folder: folder,
    }
}

async fn name_server() -> DnsServer {
    let server = DnsServer::start().await;
    let members: &[(u16, u16, u16, &str, &[&str])] = &[(0, 1, 9, "b1.test", &["127.0.0.9"])];
    server.on(SRV, RecordType::SRV, srv_reply(SRV, 1, members));
    server
}

#[tokio::test]
async fn promtool_has_no_complaint() {
    if !require("promtool") {
        return;
    }
    let name_server = name_server().await;
    let address = name_server.address();
    let look = tokio::task::spawn_blocking(move || {
        let busy = busy(address);
        let probe = busy.server.probe.expect("there is a probe listener");
        let open_metrics =
            "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.4\r\n";
        let page = |accept: &str| {
            let mut client = Client::plain(probe);
            client.send(format!(
                "GET /metrics HTTP/1.1\r\nHost: probe\r\n{accept}\r\n"
            ));
            let page = client.response().expect("it answers");
            let kind = page.field("content-type").expect("it says what it is");
            (kind.to_owned(), page.text())
        };
        let (kind, newer) = page(open_metrics);
        assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
        assert!(newer.ends_with("# EOF\n"), "{newer}");
        let (kind, page) = page("");
        assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
        // It is about something.
        for part in [
            "evenkeel_requests_total{service=\"shop\",method=\"OTHER\"",
            "evenkeel_dns_lookups_total{",
            "evenkeel_tls_handshakes_total{",
            "evenkeel_downstream_errors_total{reason=\"rate_limited\"}",
            "evenkeel_backend_first_byte_seconds_bucket{",
        ] {
            assert!(page.contains(part), "{part} is missing: {page}");
        }
        let mut check = Command::new("promtool");
        let output = output_of(check.args(["check", "metrics"]), page.into_bytes());
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        (output.status.code(), said)
    });
    let (code, said) = look.await.expect("no panic");
    assert_eq!((code, said.as_str()), (Some(0), ""));
}

#[tokio::test]
async fn a_prometheus_has_the_series() {
    if !require("prometheus") {
        return;
    }
    let name_server = name_server().await;
    let address = name_server.address();
    let look = tokio::task::spawn_blocking(move || {
        let busy = busy(address);
        let probe = busy.server.probe.expect("there is a probe listener");
        let prometheus = Prometheus::scraping(probe, "");
        for (query, least) in [
            ("sum(evenkeel_requests_total)", 10.0),
            ("sum(evenkeel_request_duration_seconds_count)", 10.0),
            ("sum(evenkeel_dns_lookups_total)", 1.0),
            ("sum(evenkeel_backend_requests_total)", 1.0),
            ("sum(evenkeel_tls_handshakes_total)", 1.0),
            ("count(evenkeel_backend_up)", 2.0),
            ("count(evenkeel_bounded_high_water)", 2.0),
            ("count(evenkeel_backend_connections)", 4.0),
            ("count(evenkeel_backend_check_failures_total)", 2.0),
            ("count(evenkeel_build_info)", 1.0),
            ("count(process_start_time_seconds)", 1.0),
        ] {
            wait_until(query, || {
                let found = prometheus.value(query);
                found.is_some_and(|found| found >= least)
            });
        }
        // A label that clients choose would have as many values.
        let methods = prometheus.ask("count by (method) (evenkeel_requests_total)");
        assert_eq!(methods.len(), 3, "{methods:#?}");
    });
    look.await.expect("no panic");
}
