//! What is refused, to whom, and what the others notice of it.

use std::net::IpAddr;

use rustls::version::TLS13;

use crate::Site;
use crate::support::backend::Backend;
use crate::support::client::{Client, End, tls_config};
use crate::support::wait_until;

/// The value of a series on the metrics page; 0 when it is not there yet.
fn metric(site: &Site, series: &str) -> f64 {
    let probe = site.server.probe.expect("there is a probe listener");
    let page = Client::plain(probe).get("probe", "/metrics");
    let page = page.expect("it answers").text();
    let value = page
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.map_or(0.0, |value| value.parse().expect("it is a number"))
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("it is an address")
}

#[test]
fn connections_of_one_client_are_limited() {
    let backend = Backend::start("b");
    let site = Site::start(&backend, "[limits]\nmax_connections_per_client = 2\n");
    let [secure, plain] = [site.server.addresses[0], site.server.addresses[1]];
    let trust = tls_config(&site.certificate.ca, &[&TLS13]);
    let connect = || Client::tls(secure, &trust, "localhost");
    let mut first = connect().expect("it is taken in");
    let mut second = Client::plain(plain);
    for client in [&mut first, &mut second] {
        assert_eq!(client.get("a", "/").expect("it is served").status(), 200);
    }

    let mut third = Client::plain(plain);
    let told = third.response().expect("it is told");
    assert_eq!(told.status(), 503);
    assert_eq!(told.text(), "503: too many connections from this address\n");
    assert_eq!(third.rest(), Ok((Vec::new(), End::Closed)));
    assert!(connect().is_err(), "no handshake is made");
    let reason = r#"{reason="max_connections_per_client"}"#;
    let refused = format!("evenkeel_refused_connections_total{reason}");
    assert_eq!(metric(&site, &refused), 2.0);

    let mut other = Client::plain_from(address("127.0.0.2"), plain);
    assert_eq!(other.get("a", "/").expect("it is served").status(), 200);
    for (of, now, limit) in [
        ("clients", 2.0, None),
        ("connections_of_one_client", 2.0, Some(2.0)),
        ("client_connections", 3.0, None),
    ] {
        let labels = format!("{{of=\"{of}\"}}");
        assert_eq!(metric(&site, &format!("evenkeel_bounded{labels}")), now);
        if let Some(limit) = limit {
            let series = format!("evenkeel_bounded_limit{labels}");
            assert_eq!(metric(&site, &series), limit, "{of}");
        }
    }

    drop(first);
    wait_until("there is room again", || {
        let mut next = Client::plain(plain);
        next.get("a", "/")
            .is_ok_and(|answer| answer.status() == 200)
    });
    drop((second, other));
    wait_until("nobody is counted", || {
        metric(&site, r#"evenkeel_bounded{of="clients"}"#) == 0.0
    });
}

/// A balancer in front has one address, and many clients behind it.
#[test]
fn connections_of_a_trusted_proxy_are_not() {
    let backend = Backend::start("b");
    let site = Site::start_under(
        "trusted_proxies = [\"127.0.0.2\"]\n",
        &backend,
        "[limits]\nmax_connections_per_client = 1\n",
    );
    let plain = site.server.addresses[1];
    let proxy = || Client::plain_from(address("127.0.0.2"), plain);
    let mut connections: Vec<_> = (0..5).map(|_| proxy()).collect();
    for client in &mut connections {
        assert_eq!(client.get("a", "/").expect("it is served").status(), 200);
    }
    let mut other = Client::plain(plain);
    assert_eq!(other.get("a", "/").expect("it is served").status(), 200);
    let mut other = Client::plain(plain);
    assert_eq!(other.response().expect("it is told").status(), 503);
}
