//! `mirror`: another service gets a copy of a share of a route's requests, and the client no trace of it.

use crate::support::backend::{Backend, Step, nobody};
use crate::support::client::Client;
use crate::support::server::Server;
use crate::support::wait_until;
use crate::{BOTH, config, get, metric};

fn site(a: &Backend, shadow: &Backend, mirror: &str) -> Server {
    let route =
        format!("[[route]]\nservice = \"a\"\nmirror = {{ service = \"shadow\", {mirror} }}");
    Server::in_process(&config(&[("a", a), ("shadow", shadow)], &route))
}

fn counted(server: &Server, outcome: &str) -> f64 {
    let labels = format!("{{service=\"shadow\",outcome=\"{outcome}\"}}");
    let series = format!("evenkeel_mirrored_requests_total{labels}");
    metric(server, &series).unwrap_or(0.0)
}

fn wait_for(server: &Server, outcome: &str, n: u32) {
    wait_until(outcome, || counted(server, outcome) >= f64::from(n));
    assert_eq!(counted(server, outcome), f64::from(n), "{outcome}");
}

#[test]
fn the_share_is_exact() {
    let (a, shadow) = (Backend::start("a"), Backend::start("shadow"));
    let server = site(&a, &shadow, "percent = 10");
    let mut client = Client::plain(server.address());
    for n in 0..1000 {
        let answer = client.get("a.test", "/").expect("an answer");
        assert_eq!(answer.field("x-backend"), Some("a"), "{n}");
    }
    wait_for(&server, "answered", 100);
    assert_eq!((a.requests(), shadow.requests()), (1000, 100));
}

#[test]
fn a_copy_is_the_request_byte_for_byte_and_says_what_it_is() {
    let (a, shadow) = (Backend::start("a"), Backend::start("shadow"));
    let server = site(&a, &shadow, "percent = 100");
    let body: Vec<u8> = (0..10_000_u32).map(|n| (n % 251) as u8).collect();
    for (n, over) in (1..).zip(BOTH) {
        let answer = get("/x?q=1")
            .method("POST")
            .body(&body)
            .ask(over, server.address());
        assert_eq!(answer.backend(), Some("a"), "{over:?}");
        wait_for(&server, "answered", n);
        let whole = |b: &Backend| b.take().pop().and_then(|r| r.whole).expect("it was sent");
        let (sent, copy) = (whole(&a), whole(&shadow));
        assert_eq!(copy.body, body, "{over:?}");
        assert_eq!(
            (copy.method(), copy.target()),
            ("POST", "/x?q=1"),
            "{over:?}"
        );
        assert_eq!(copy.field("x-evenkeel-mirror"), Some("1"), "{over:?}");
        assert_eq!(sent.field("x-evenkeel-mirror"), None, "{over:?}");
        for name in ["host", "x-request-id", "traceparent", "x-forwarded-for"] {
            assert_eq!(copy.field(name), sent.field(name), "{name} {over:?}");
        }
    }
}

/// Whatever the other service does, its client waits for nothing.
#[test]
fn a_bad_shadow_costs_the_client_nothing() {
    let a = Backend::start("a");
    let scripts = [
        // It hangs for longer than the test goes on: nobody has waited for it.
        (vec![Step::Request, Step::AwaitClose], "300s", None),
        (
            vec![Step::Request, Step::AwaitClose],
            "300ms",
            Some("timeout"),
        ),
        (
            vec![Step::Request, Step::send("nonsense\r\n\r\n"), Step::Close],
            "300s",
            Some("failed"),
        ),
        (vec![Step::Request, Step::Close], "300s", Some("failed")),
    ];
    for (script, timeout, outcome) in scripts {
        let shadow = Backend::start("shadow");
        shadow.usually(script);
        let server = site(
            &a,
            &shadow,
            &format!("percent = 100, timeout = \"{timeout}\""),
        );
        for over in BOTH {
            let answer = get("/").ask(over, server.address());
            assert_eq!(
                (answer.status, answer.backend()),
                (200, Some("a")),
                "{over:?}"
            );
        }
        shadow.await_requests(2);
        if let Some(outcome) = outcome {
            wait_for(&server, outcome, 2);
        }
    }
    let route = "[[route]]\nservice = \"a\"\nmirror = { service = \"shadow\", percent = 100 }";
    let dead = format!(
        "[[service]]\nname = \"shadow\"\ndiscover = {{ static = [\"{}\"] }}\n{route}",
        nobody()
    );
    let server = Server::in_process(&config(&[("a", &a)], &dead));
    assert_eq!(get("/").ask(BOTH[0], server.address()).status, 200);
    wait_for(&server, "failed", 1);
}

#[test]
fn no_more_are_under_way_than_may_be() {
    let (a, shadow) = (Backend::start("a"), Backend::start("shadow"));
    shadow.usually(vec![Step::Request, Step::AwaitClose]);
    let server = site(
        &a,
        &shadow,
        "percent = 100, max_in_flight = 2, timeout = \"20s\"",
    );
    for _ in 0..5 {
        assert_eq!(get("/").ask(BOTH[0], server.address()).status, 200);
    }
    wait_for(&server, "dropped", 3);
    shadow.await_requests(2);
    assert_eq!(shadow.requests(), 2);
}

#[test]
fn a_body_beyond_the_bound_is_not_copied() {
    let (a, shadow) = (Backend::start("a"), Backend::start("shadow"));
    let server = site(&a, &shadow, "percent = 100, max_body = 8");
    for over in BOTH {
        let ask = get("/").method("POST").body(b"123456789");
        assert_eq!(ask.ask(over, server.address()).status, 200, "{over:?}");
    }
    let mut client = Client::plain(server.address());
    client.send(
        "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n123456789\r\n0\r\n\r\n",
    );
    assert_eq!(client.response().expect("an answer").status(), 200);
    wait_for(&server, "too_large", 3);
    client.send(
        "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n\
         4\r\n1234\r\n4\r\n5678\r\n0\r\n\r\n",
    );
    assert_eq!(client.response().expect("an answer").status(), 200);
    wait_for(&server, "answered", 1);
    let copy = shadow.take().pop().and_then(|r| r.whole);
    assert_eq!(copy.expect("it was sent").body, b"12345678");
    assert_eq!(shadow.requests(), 1);
}

#[test]
fn a_request_that_is_tried_again_is_copied_once() {
    let (a, shadow) = (Backend::start("a"), Backend::start("shadow"));
    let b = Backend::start("b");
    for backend in [&a, &b] {
        backend.next(vec![Step::Request, Step::Close]);
    }
    let rest = format!(
        "[[service]]\nname = \"two\"\nejection = \"off\"\n\
         discover = {{ static = [\"{}\", \"{}\"] }}\n\
         [[route]]\nservice = \"two\"\nmirror = {{ service = \"shadow\", percent = 100 }}",
        a.address, b.address
    );
    b.forget_scripts();
    let server = Server::in_process(&config(&[("shadow", &shadow)], &rest));
    for _ in 0..2 {
        assert_eq!(get("/").ask(BOTH[0], server.address()).status, 200);
    }
    assert_eq!(a.requests() + b.requests(), 3, "one was tried again");
    wait_for(&server, "answered", 2);
    assert_eq!(shadow.requests(), 2);
}

#[test]
fn what_is_a_conversation_is_not_mirrored() {
    let (a, shadow) = (Backend::start("a"), Backend::start("shadow"));
    let server = site(&a, &shadow, "percent = 100");
    let asks = [
        get("/").with("Content-Type", "application/grpc"),
        get("/")
            .with("Upgrade", "websocket")
            .with("Connection", "upgrade"),
        get("/").with("Expect", "100-continue"),
    ];
    for ask in asks {
        assert_eq!(ask.ask(BOTH[0], server.address()).status, 200, "{ask:?}");
    }
    // The only one that is.
    assert_eq!(get("/").ask(BOTH[0], server.address()).status, 200);
    wait_for(&server, "answered", 1);
    assert_eq!(shadow.requests(), 1);
}

/// What one service is told is no business of the other one, which is told what is its own.
#[test]
fn a_copy_has_the_fields_of_its_own_service() {
    let (a, shadow) = (Backend::start("a"), Backend::start("shadow"));
    let rest = format!(
        r#"
        [[service]]
        name = "one"
        discover = {{ static = "{}" }}
        request_headers = {{ set = {{ Authorization = "of one" }}, remove = "Cookie" }}
        [[service]]
        name = "next"
        discover = {{ static = "{}" }}
        request_headers = {{ set = {{ X-Key = "of next" }}, remove = "X-Private" }}
        [[route]]
        service = "one"
        request_headers = {{ set = {{ X-Route = "both" }} }}
        mirror = {{ service = "next", percent = 100 }}
        "#,
        a.address, shadow.address
    );
    let server = Server::in_process(&config(&[], &rest));
    for over in BOTH {
        let asked = get("/").with("Cookie", "c=1").with("X-Private", "p");
        assert_eq!(asked.ask(over, server.address()).status, 200, "{over:?}");
        shadow.await_requests(1);
        let whole = |b: &Backend| b.take().pop().and_then(|r| r.whole).expect("it was sent");
        let (sent, copy) = (whole(&a), whole(&shadow));
        for (name, to_one, to_next) in [
            ("authorization", Some("of one"), None),
            ("cookie", None, Some("c=1")),
            ("x-key", None, Some("of next")),
            ("x-private", Some("p"), None),
            ("x-route", Some("both"), Some("both")),
        ] {
            assert_eq!(sent.field(name), to_one, "{name} {over:?}");
            assert_eq!(copy.field(name), to_next, "{name} {over:?}");
        }
    }
}

/// A proxy in front says what is a copy already; a client says so in vain.
#[test]
fn who_says_that_it_is_a_copy_is_believed_if_it_is_trusted() {
    let (a, shadow) = (Backend::start("a"), Backend::start("shadow"));
    let server = site(&a, &shadow, "percent = 100");
    let marked = || get("/").with("X-Evenkeel-Mirror", "1");
    for over in BOTH {
        let (proxy, client) = (marked().from("127.9.0.1"), marked().from("127.3.0.1"));
        for (ask, passed_on) in [(proxy, Some("1")), (client, None)] {
            assert_eq!(ask.ask(over, server.address()).status, 200, "{ask:?}");
            let sent = a.take().pop().and_then(|r| r.whole).expect("it was sent");
            assert_eq!(sent.field("x-evenkeel-mirror"), passed_on, "{ask:?}");
        }
    }
    // Those of the client.
    wait_for(&server, "answered", 2);
    assert_eq!(shadow.requests(), 2);
}
