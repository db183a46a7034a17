//! Method, header fields and parameters of the query.

use crate::support::backend::Backend;
use crate::support::server::Server;
use crate::{Ask, BOTH, config, get};

#[test]
fn a_request_goes_by_all_that_is_asked_for() {
    let backends = ["a", "b", "c", "d", "e", "f", "g"].map(|name| (name, Backend::start(name)));
    let named: Vec<(&str, &Backend)> = backends.iter().map(|(name, b)| (*name, b)).collect();
    let server = Server::in_process(&config(
        &named,
        r#"
        [[route]]
        service = "a"
        [[route]]
        methods = ["POST", "PURGE"]
        service = "b"
        [[route]]
        headers = { X-Debug = true }
        service = "c"
        [[route]]
        methods = ["POST", "PURGE"]
        headers = { X-Debug = true }
        service = "d"
        [[route]]
        path = "/v"
        headers = { X-Version = { prefix = "2." } }
        service = "e"
        [[route]]
        path = "/v"
        headers = { X-Version = true }
        service = "b"
        [[route]]
        path = "/v"
        headers = { X-Version = false }
        service = "f"
        [[route]]
        path = "/q"
        query = { "the id" = "4 2", dry = false }
        service = "g"
        "#,
    ));
    let rows: &[(&str, Ask<'_>, &str)] = &[
        ("nothing of it", get("/"), "a"),
        ("the method", get("/").method("POST"), "b"),
        ("an extension method", get("/").method("PURGE"), "b"),
        ("HEAD is not GET, nor POST", get("/").method("HEAD"), "a"),
        ("a field that is there", get("/").with("x-debug", "0"), "c"),
        ("also without a value", get("/").with("x-debug", ""), "c"),
        (
            "both go before one",
            get("/").method("POST").with("x-debug", "1"),
            "d",
        ),
        (
            "the beginning of a value",
            get("/v").with("x-version", "2.1"),
            "e",
        ),
        ("another beginning", get("/v").with("x-version", "3.1"), "b"),
        ("a field that is not there", get("/v/w"), "f"),
        ("a parameter, decoded", get("/q?x=1&the+id=4%202"), "g"),
        ("another value", get("/q?the+id=42"), "a"),
        (
            "the first of that name counts",
            get("/q?the+id=1&the+id=4+2"),
            "a",
        ),
        (
            "one that must not be there",
            get("/q?the%20id=4+2&dry"),
            "a",
        ),
    ];
    for (rule, ask, service) in rows {
        for over in BOTH {
            let answer = ask.ask(over, server.address());
            assert_eq!(answer.status, 200, "{rule} {over:?}");
            assert_eq!(answer.backend(), Some(*service), "{rule} {over:?}");
        }
    }
}

#[test]
fn nobody_asks_for_what_came() {
    let backend = Backend::start("a");
    let server = Server::in_process(&config(
        &[("a", &backend)],
        "[[route]]\nmethods = [\"GET\", \"HEAD\"]\nservice = \"a\"\n",
    ));
    for over in BOTH {
        let answer = get("/").method("DELETE").ask(over, server.address());
        assert_eq!(answer.status, 404, "{over:?}");
        assert_eq!(get("/").ask(over, server.address()).status, 200, "{over:?}");
    }
    assert_eq!(backend.requests(), 2);
}

/// Over HTTP/2 it is a CONNECT, and means the same.
#[test]
fn a_websocket_is_a_get() {
    use crate::frames::{Peer, headers};
    use crate::support::backend::Step;
    let backend = Backend::start("a");
    backend.usually(vec![Step::send(
        "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
    )]);
    let server = Server::in_process(&config(
        &[("a", &backend)],
        "[[route]]\nmethods = \"GET\"\nservice = \"a\"\n",
    ));
    let mut peer = Peer::connect(server.address());
    let fields = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":authority", "a.test"),
        (":path", "/chat"),
        ("sec-websocket-version", "13"),
    ];
    peer.send(headers(1, 0, &fields));
    peer.until(|peer| {
        peer.came
            .get(&1)
            .is_some_and(|came| came.status().is_some())
    });
    assert_eq!(peer.came[&1].status(), Some(403), "the backend's own");
    assert_eq!(backend.requests(), 1);
}
