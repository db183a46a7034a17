//! `allow` and `deny`, of listeners and of routes.

use crate::support::backend::Backend;
use crate::support::client::{Client, End, NoResponse};
use crate::support::server::Server;
use crate::support::wait_until;
use crate::{Ask, BOTH, Lines, config, get, metric};

#[test]
fn who_is_admitted_by_a_route() {
    let backend = Backend::start("a");
    let server = Server::in_process(&config(
        &[("a", &backend)],
        r#"
        [[route]]
        service = "a"
        [[route]]
        path = "/inside"
        allow = ["127.1.0.0/16", "192.0.2.0/24"]
        deny = "127.1.0.9"
        service = "a"
        [[route]]
        path = "/most"
        deny = ["127.1.0.0/16", "192.0.2.7"]
        service = "a"
        [[route]]
        path = "/things:all"
        allow = "127.1.0.0/16"
        service = "a"
        "#,
    ));
    let forwarded = |target, chain| get(target).with("x-forwarded-for", chain);
    let rows: &[(&str, Ask<'_>, u16)] = &[
        ("no list", get("/").from("127.1.0.9"), 200),
        ("allowed", get("/inside").from("127.1.0.8"), 200),
        (
            "below the path too",
            get("/inside/x").from("127.3.0.8"),
            403,
        ),
        ("not allowed", get("/inside").from("127.3.0.8"), 403),
        (
            "nor with more slashes",
            get("//inside").from("127.3.0.8"),
            403,
        ),
        ("anywhere", get("/x/..///inside//x").from("127.3.0.8"), 403),
        // As it is for nginx, which serves its `/inside` for all of these.
        ("an encoded slash", get("/%2finside").from("127.3.0.8"), 400),
        ("below", get("/inside%2Fx").from("127.3.0.8"), 400),
        (
            "behind a parent",
            get("/a/..%2finside").from("127.3.0.8"),
            400,
        ),
        ("in front", get("/a%2f..%2finside").from("127.3.0.8"), 400),
        (
            "encoded dots",
            get("/a/%2e%2e%2finside").from("127.3.0.8"),
            400,
        ),
        ("above", get("/..%2f..%2f/inside").from("127.3.0.8"), 400),
        ("backslashes", get("/x/..%5Cinside").from("127.3.0.8"), 400),
        // Programs differ in what they decode and resolve; one that gets there is enough.
        (
            "slashes alone are decoded",
            get("/inside%2Fa%5C..%5C..%5Cx").from("127.3.0.8"),
            400,
        ),
        (
            "backslashes alone are",
            get("/x%5C..%5Cinside%5Ca%2F..%2F..").from("127.3.0.8"),
            400,
        ),
        (
            "parents are not resolved after that",
            get("/inside%2F..%2Fx").from("127.3.0.8"),
            400,
        ),
        (
            "empty segments count",
            get("/x%2F..%2Finside%2F%2F..%2Fy").from("127.3.0.8"),
            400,
        ),
        (
            "a colon needs no escape",
            get("/things%3aall/x").from("127.3.0.8"),
            400,
        ),
        ("another one", get("/other%3Aall").from("127.3.0.8"), 200),
        (
            "its own slashes, for who is allowed",
            get("/inside/a%2Fb").from("127.1.0.8"),
            200,
        ),
        ("elsewhere", get("/x%2fy").from("127.3.0.8"), 200),
        ("not quite", get("/x%2finside").from("127.3.0.8"), 200),
        ("allowed and denied", get("/inside").from("127.1.0.9"), 403),
        ("denied", get("/most").from("127.1.0.8"), 403),
        ("not denied", get("/most").from("127.3.0.8"), 200),
        (
            "what a client says of itself is not believed",
            forwarded("/inside", "127.1.0.8").from("127.3.0.8"),
            403,
        ),
        (
            "nor does it free anybody",
            forwarded("/most", "10.0.0.1").from("127.1.0.8"),
            403,
        ),
        (
            "what a trusted proxy says is believed",
            forwarded("/inside", "192.0.2.8").from("127.9.0.1"),
            200,
        ),
        (
            "of its client alone",
            forwarded("/inside", "192.0.2.8, 198.51.100.7").from("127.9.0.1"),
            403,
        ),
        (
            "through a chain of them",
            forwarded("/most", "192.0.2.7, 127.9.0.2").from("127.9.0.1"),
            403,
        ),
        (
            "the proxy itself is nobody in the list",
            get("/inside").from("127.9.0.1"),
            403,
        ),
    ];
    let mut denied = 0.0;
    for (rule, ask, status) in rows {
        for over in BOTH {
            let before = backend.requests();
            let answer = ask.ask(over, server.address());
            assert_eq!(answer.status, *status, "{rule} {over:?}");
            let sent = backend.requests() - before;
            assert_eq!(sent, usize::from(*status == 200), "{rule} {over:?}");
            denied += f64::from(u8::from(*status == 403));
        }
    }
    let counted = "evenkeel_downstream_errors_total{reason=\"denied\"}";
    assert_eq!(metric(&server, counted), Some(denied));
}

#[test]
fn a_listener_admits_before_anything_else_is_looked_at() {
    let backend = Backend::start("a");
    let text = config(
        &[("a", &backend)],
        r#"
        [[route]]
        service = "a"
        [[listener]]
        name = "to https"
        address = "127.0.0.1:0"
        protocol = "http"
        redirect = "https"
        allow = "127.0.0.1"
        "#,
    );
    let text = text.replace(
        "name = \"plain\"",
        "name = \"plain\"\ndeny = \"127.3.0.0/16\"",
    );
    let server = Server::in_process(&text);
    for over in BOTH {
        for (at, from, status) in [
            (0, "127.0.0.1", 200),
            (0, "127.3.0.1", 403),
            (1, "127.0.0.1", 308),
            (1, "127.3.0.1", 403),
        ] {
            let answer = get("/").from(from).ask(over, server.addresses[at]);
            assert_eq!(answer.status, status, "{at} {from} {over:?}");
        }
    }
    // The connection lives on: behind one address there may be others.
    let mut client = Client::plain_from([127, 3, 0, 1].into(), server.address());
    for _ in 0..2 {
        let answer = client.get("a.test", "/").expect("an answer");
        assert_eq!(answer.status(), 403);
        assert!(answer.text().contains("not admitted"), "{answer:?}");
    }
}

#[test]
fn connections_of_layer_4_are_admitted_too() {
    let backend = Backend::start("a");
    let log = Lines::default();
    let text = config(
        &[("a", &backend)],
        r#"
        [[listener]]
        name = "raw"
        address = "127.0.0.1:0"
        protocol = "tcp"
        deny = "127.3.0.0/16"
        [[listener]]
        name = "inner"
        address = "127.0.0.1:0"
        protocol = "tcp"
        [[route]]
        service = "a"
        [[route]]
        name = "inner"
        listener = "inner"
        allow = "127.1.0.0/16"
        service = "a"
        "#,
    );
    let server = Server::logging(&text, log.clone());
    for (at, from, admitted) in [
        (1, [127, 0, 0, 1], true),
        (1, [127, 3, 0, 1], false),
        (2, [127, 1, 0, 1], true),
        (2, [127, 0, 0, 1], false),
    ] {
        let mut client = Client::plain_from(from.into(), server.addresses[at]);
        match client.get("a.test", "/") {
            Ok(answer) => assert!(admitted && answer.status() == 200, "{at} {from:?}"),
            Err(NoResponse::Ended(End::Reset, came)) => {
                assert!(!admitted && came.is_empty(), "{at} {from:?}");
            }
            other => panic!("{at} {from:?}: {other:?}"),
        }
    }
    wait_until("both are logged", || {
        let text = log.text();
        text.matches("\"phase\":\"denied\"").count() == 2 && text.contains("\"route\":\"inner\"")
    });
}
