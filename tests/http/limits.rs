//! What is refused, to whom, and what the others notice of it.

use std::net::IpAddr;

use rustls::version::TLS13;

use crate::Site;
use crate::support::backend::Backend;
use crate::support::client::{Client, End, tls_config};
use crate::support::wait_until;

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
    assert_eq!(site.metric(&refused), 2.0);

    let mut other = Client::plain_from(address("127.0.0.2"), plain);
    assert_eq!(other.get("a", "/").expect("it is served").status(), 200);
    for (of, now, limit) in [
        ("clients", 2.0, None),
        ("connections_of_one_client", 2.0, Some(2.0)),
        ("client_connections", 3.0, None),
    ] {
        let labels = format!("{{of=\"{of}\"}}");
        assert_eq!(site.metric(&format!("evenkeel_bounded{labels}")), now);
        if let Some(limit) = limit {
            let series = format!("evenkeel_bounded_limit{labels}");
            assert_eq!(site.metric(&series), limit, "{of}");
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
        site.metric(r#"evenkeel_bounded{of="clients"}"#) == 0.0
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

/// What a client got: the status, and how long it is to wait.
fn outcome(client: &mut Client, path: &str, fields: &str) -> (u16, Option<u64>) {
    client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
    let answer = client.response().expect("it is answered");
    let wait = answer.field("retry-after");
    let wait = wait.map(|seconds| seconds.parse().expect("it is a number"));
    (answer.status(), wait)
}

/// Two places that come back in an hour each; a service beside it without a limit.
const TWO: &str = r#"{ requests = 1, per = "1h", burst = 2 }"#;

fn rated(limit: &str, top: &str, backend: &Backend) -> Site {
    let more = format!(
        r#"
        [defaults]
        rate_limit = {limit}
        [[service]]
        name = "free"
        discover = {{ static = ["{}"] }}
        rate_limit = "off"
        [[route]]
        path = "/free"
        service = "free"
        "#,
        backend.address
    );
    Site::start_under(top, backend, &more)
}

#[test]
fn requests_of_one_address_are_limited() {
    let backend = Backend::start("b");
    let mut site = rated(TWO, "", &backend);
    let trust = tls_config(&site.certificate.ca, &[&TLS13]);
    let [secure, plain] = [site.server.addresses[0], site.server.addresses[1]];
    let mut first = Client::tls(secure, &trust, "localhost").expect("it is TLS");
    let mut second = Client::plain(plain);
    assert_eq!(outcome(&mut first, "/", ""), (200, None));
    assert_eq!(outcome(&mut second, "/", ""), (200, None));
    for client in [&mut first, &mut second] {
        let (status, wait) = outcome(client, "/", "");
        assert_eq!(status, 429);
        assert!(matches!(wait, Some(3_000..=3_600)), "{wait:?}");
        let freely = outcome(client, "/free", "");
        assert_eq!(freely, (200, None), "the connection goes on");
    }
    let mut other = Client::plain_from(address("127.0.0.2"), plain);
    assert_eq!(outcome(&mut other, "/", ""), (200, None));

    // Somebody who is not trusted says nothing about where it comes from.
    let forged = "X-Forwarded-For: 192.0.2.1\r\n";
    assert_eq!(outcome(&mut second, "/", forged).0, 429);

    let reason = r#"evenkeel_downstream_errors_total{reason="rate_limited"}"#;
    // A response is on its way before it is counted.
    wait_until("they are counted", || site.metric(reason) >= 3.0);
    assert_eq!(site.metric(reason), 3.0);
    let code = r#"evenkeel_requests_total{service="web",method="GET",code="429"}"#;
    assert_eq!(site.metric(code), 3.0);
    let of = r#"{of="rate_limited_clients"}"#;
    assert_eq!(site.metric(&format!("evenkeel_bounded{of}")), 2.0);
    assert_eq!(site.metric("evenkeel_rate_limit_evictions_total"), 0.0);
    assert_eq!(backend.take().len(), 5, "nobody else got through");
    wait_until("it is logged", || {
        let lines = site.server.process().access();
        let limited = lines.iter().filter(|line| {
            let line: serde_json::Value = serde_json::from_str(line).expect("it is an object");
            line["status"] == 429
                && line["service"] == "web"
                && (&line["end"], &line["phase"]) == (&"downstream".into(), &"rate_limited".into())
        });
        limited.count() == 3
    });
}

/// A body that lies there whole is skipped; one that is still to come ends the connection.
#[test]
fn what_is_over_the_limit_keeps_its_connection_where_its_framing_allows() {
    let backend = Backend::start("b");
    let site = rated(r#"{ requests = 1, per = "1h" }"#, "", &backend);
    let mut client = Client::plain(site.server.addresses[1]);
    assert_eq!(outcome(&mut client, "/", "").0, 200);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody");
    assert_eq!(client.response().expect("it is told").status(), 429);
    assert_eq!(outcome(&mut client, "/free", "").0, 200);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbo");
    assert_eq!(client.response().expect("it is told").status(), 429);
    assert_eq!(client.rest(), Ok((Vec::new(), End::Closed)));
}

#[test]
fn requests_with_one_value_of_a_field_are_limited() {
    let backend = Backend::start("b");
    let limit = r#"{ requests = 1, per = "1h", burst = 2, by = "header:X-Api-Key" }"#;
    let site = rated(limit, "", &backend);
    let plain = site.server.addresses[1];
    let mut client = Client::plain(plain);
    let mut other = Client::plain_from(address("127.0.0.2"), plain);
    for (key, expected) in [
        ("X-Api-Key: one\r\n", [200, 200, 429, 429]),
        ("x-api-key: two\r\n", [200, 200, 429, 429]),
        ("X-Api-Key: o\r\nX-Api-Key: ne\r\n", [200, 200, 429, 429]),
        ("", [200, 200, 429, 429]),
        ("X-Api-Key:\r\n", [429, 429, 429, 429]),
    ] {
        let found = [(); 4].map(|()| outcome(&mut client, "/", key).0);
        assert_eq!(found, expected, "{key:?}");
    }
    let key = "X-Api-Key: one\r\n";
    assert_eq!(outcome(&mut other, "/", key).0, 429, "whose it is");
    assert_eq!(outcome(&mut other, "/", "").0, 200, "it has an address");
}

#[test]
fn clients_behind_a_trusted_proxy_are_limited_one_by_one() {
    let backend = Backend::start("b");
    let trusted = "trusted_proxies = [\"127.0.0.2\", \"10.0.0.0/8\"]";
    let site = rated(r#"{ requests = 1, per = "1h" }"#, trusted, &backend);
    let mut proxy = Client::plain_from(address("127.0.0.2"), site.server.addresses[1]);
    for (chain, status) in [
        ("192.0.2.1", 200),
        ("192.0.2.2", 200),
        ("198.51.100.9, 192.0.2.1, 10.0.0.7", 429),
        ("192.0.2.3, 192.0.2.2", 429),
        ("192.0.2.3", 200),
        ("2001:db8::1", 200),
        ("2001:db8::ffff:1", 429),
        ("unknown", 200),
        ("127.0.0.2", 429),
    ] {
        let field = format!("X-Forwarded-For: {chain}\r\n");
        assert_eq!(outcome(&mut proxy, "/", &field).0, status, "{chain}");
    }
}

#[test]
fn what_was_spent_comes_back() {
    let backend = Backend::start("b");
    let site = rated(r#"{ requests = 5 }"#, "", &backend);
    let mut client = Client::plain(site.server.addresses[1]);
    let mut refused = false;
    wait_until("it is refused, and served again", || {
        let (status, wait) = outcome(&mut client, "/", "");
        if status == 429 {
            assert_eq!(wait, Some(1), "a whole second at least");
        }
        refused |= status == 429;
        refused && status == 200
    });
}
