//! `request_headers`, `response_headers` and `security_headers`.

use rustls::version::{TLS12, TLS13};

use crate::support::backend::{Backend, Step};
use crate::support::client::{Client, tls_config};
use crate::support::server::{Folder, Server};
use crate::support::wire::Message;
use crate::{BOTH, Over, config, get};

/// A service with these keys, and a route that leads to it with those.
fn site(backend: &Backend, service: &str, route: &str) -> Server {
    let text = config(
        &[("a", backend)],
        &format!(
            "{service}\n[[route]]\npath = \"/r\"\nservice = \"a\"\n{route}\n[[route]]\nservice = \"a\"\n"
        ),
    );
    Server::in_process(&text)
}

fn last(backend: &Backend) -> Message {
    let received = backend.take().pop().and_then(|r| r.whole);
    received.expect("it was sent")
}

fn all<'m>(message: &'m Message, name: &str) -> Vec<&'m str> {
    let fields = message.fields.iter().filter(|(n, _)| n == name);
    fields.map(|(_, value)| value.as_str()).collect()
}

/// What is said behind a body is no way around: a program that reads both takes one for the other.
#[test]
fn trailers_do_not_undo_it() {
    let backend = Backend::start("a");
    backend.usually(vec![
        Step::Request,
        Step::send(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\
             X-Team: theirs\r\nx-inner: 1\r\nX-Sum: 1\r\n\r\n",
        ),
    ]);
    let edits = r#"{ set = { X-Team = "ours" }, remove = ["X-Inner"] }"#;
    let server = site(
        &backend,
        "",
        &format!("request_headers = {edits}\nresponse_headers = {edits}"),
    );
    let kept = [("x-sum".to_owned(), "1".to_owned())];
    let mut client = Client::plain(server.address());
    client.send(
        "POST /r HTTP/1.1\r\nHost: a.test\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n\
         1\r\nx\r\n0\r\nX-Team: root\r\nx_inner: 1\r\nX-Sum: 1\r\n\r\n",
    );
    assert_eq!(client.response().expect("an answer").trailers, kept);
    assert_eq!(last(&backend).trailers, kept);

    use crate::frames::{DATA, END_STREAM, Peer, frame, headers, request};
    let mut peer = Peer::connect(server.address());
    peer.send(headers(1, 0, &request("POST", "/r")));
    peer.send(frame(DATA, 0, 1, "x"));
    let trailers = [("x-team", "root"), ("x-inner", "1"), ("x-sum", "1")];
    peer.send(headers(1, END_STREAM, &trailers));
    assert_eq!(peer.over(1).status(), Some(200));
    assert_eq!(last(&backend).trailers, kept);
}

#[test]
fn fields_of_requests_are_changed() {
    let backend = Backend::start("a");
    let server = site(
        &backend,
        r#"request_headers = { set = { X-Team = "all", X-Real-IP = "{client}" }, remove = "X-Drop" }"#,
        r#"request_headers = { set = { X-Team = "route", X-Seen = "{scheme}://{host} {request_id}" }, add = { X-Tag = "two" } }"#,
    );
    for over in BOTH {
        let mut ask = get("/r")
            .host("A.test:8080")
            .with("X-Team", "forged")
            .with("X-Real-IP", "10.0.0.1")
            .with("X-Drop", "1")
            .with("X-Tag", "one");
        if over == Over::H1 {
            ask = ask.with("Connection", "X-Team, X-Seen");
        }
        assert_eq!(ask.ask(over, server.address()).status, 200, "{over:?}");
        let sent = last(&backend);
        assert_eq!(
            all(&sent, "x-team"),
            ["route"],
            "the route's goes last {over:?}"
        );
        assert_eq!(all(&sent, "x-real-ip"), ["127.0.0.1"], "{over:?}");
        assert_eq!(all(&sent, "x-drop"), [""; 0], "{over:?}");
        assert_eq!(all(&sent, "x-tag"), ["one", "two"], "{over:?}");
        let id = sent.field("x-request-id").expect("every request has one");
        assert_eq!(
            all(&sent, "x-seen"),
            [format!("http://a.test {id}")],
            "{over:?}"
        );

        // Only the service's, where only that applies.
        assert_eq!(get("/").ask(over, server.address()).status, 200, "{over:?}");
        let sent = last(&backend);
        assert_eq!(all(&sent, "x-team"), ["all"], "{over:?}");
        assert_eq!(all(&sent, "x-seen"), [""; 0], "{over:?}");
    }
    // The client behind a trusted proxy, not the proxy.
    let ask = get("/")
        .with("x-forwarded-for", "192.0.2.7, 127.9.0.2")
        .from("127.9.0.1");
    for over in BOTH {
        assert_eq!(ask.ask(over, server.address()).status, 200, "{over:?}");
        assert_eq!(all(&last(&backend), "x-real-ip"), ["192.0.2.7"], "{over:?}");
    }
}

#[test]
fn fields_of_responses_are_changed() {
    let backend = Backend::start("a");
    backend.usually(vec![
        Step::Request,
        Step::send(
            "HTTP/1.1 103 Early Hints\r\nX-Powered-By: hints\r\n\r\n\
             HTTP/1.1 200 OK\r\nX-Powered-By: PHP\r\nCache-Control: private\r\nVary: Accept\r\n\
             Connection: X-Frame-Options\r\nContent-Length: 2\r\n\r\nok",
        ),
    ]);
    let server = site(
        &backend,
        r#"response_headers = { remove = ["X-Powered-By"], set = { Cache-Control = "no-store" } }"#,
        r#"response_headers = { set = { Cache-Control = "max-age=60", X-Id = "{request_id}" }, add = { Vary = "Origin" } }"#,
    );
    for over in BOTH {
        let answer = get("/r").ask(over, server.address());
        assert_eq!(answer.status, 200, "{over:?}");
        assert_eq!(answer.all("x-powered-by"), [""; 0], "{over:?}");
        assert_eq!(answer.all("cache-control"), ["max-age=60"], "{over:?}");
        assert_eq!(answer.all("vary"), ["Accept", "Origin"], "{over:?}");
        let id = last(&backend).field("x-request-id").map(str::to_owned);
        assert_eq!(answer.field("x-id").map(str::to_owned), id, "{over:?}");
        assert_eq!(answer.text(), "ok", "{over:?}");
        let answer = get("/").ask(over, server.address());
        assert_eq!(answer.all("cache-control"), ["no-store"], "{over:?}");
        backend.take();
    }
}

/// A page of another site that is told of an error needs the same fields.
#[test]
fn responses_of_our_own_are_changed_too() {
    let backend = Backend::start("a");
    let text = config(
        &[("a", &backend)],
        r#"
        security_headers = "basic"
        [[route]]
        service = "a"
        deny = "127.3.0.1"
        response_headers = { set = { Access-Control-Allow-Origin = "*", Server = "x" } }
        [[route]]
        path = "/old"
        redirect = { path = "/new" }
        response_headers = { set = { Cache-Control = "max-age=60" } }
        "#,
    );
    let server = Server::in_process(&text);
    let address = backend.address;
    drop(backend);
    for over in BOTH {
        let answer = get("/").ask(over, server.address());
        assert_eq!(answer.status, 503, "nobody is at {address} {over:?}");
        assert_eq!(
            answer.field("access-control-allow-origin"),
            Some("*"),
            "{over:?}"
        );
        assert_eq!(answer.all("server"), ["x"], "{over:?}");
        assert_eq!(
            answer.field("x-content-type-options"),
            Some("nosniff"),
            "{over:?}"
        );
        let answer = get("/").from("127.3.0.1").ask(over, server.address());
        assert_eq!(answer.status, 403, "{over:?}");
        assert_eq!(
            answer.field("access-control-allow-origin"),
            Some("*"),
            "{over:?}"
        );
        let answer = get("/old").ask(over, server.address());
        assert_eq!(answer.status, 308, "{over:?}");
        assert_eq!(
            answer.field("cache-control"),
            Some("max-age=60"),
            "{over:?}"
        );
    }
}

#[test]
fn browsers_are_told_to_be_careful() {
    let folder = Folder::new();
    let certificate = folder.certificate("edge", &["localhost"]);
    let backend = Backend::start("a");
    let response = |fields: &str| {
        let text = format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 0\r\n\r\n");
        vec![Step::Request, Step::send(text)]
    };
    let text = config(
        &[("a", &backend)],
        &format!(
            "security_headers = \"basic\"\n[[listener]]\nname = \"tls\"\naddress = \"127.0.0.1:0\"\n\
             protocol = \"https\"\ncertificates = [{}]\n\
             [[route]]\nservice = \"a\"\n\
             [[route]]\npath = \"/r\"\nservice = \"a\"\nresponse_headers = {{ remove = \"Referrer-Policy\" }}\n",
            certificate.entry()
        ),
    );
    let server = Server::in_process(&text);
    const USUAL: [(&str, &str); 3] = [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "strict-origin-when-cross-origin"),
        ("x-frame-options", "SAMEORIGIN"),
    ];
    for over in BOTH {
        backend.next(response(""));
        let answer = get("/").ask(over, server.address());
        for (name, value) in USUAL {
            assert_eq!(answer.all(name), [value], "{over:?}");
        }
        // RFC 6797 §7.2.
        assert_eq!(answer.field("strict-transport-security"), None, "{over:?}");

        backend.next(response("x-frame-options: DENY\r\n"));
        let answer = get("/r").ask(over, server.address());
        assert_eq!(
            answer.all("x-frame-options"),
            ["DENY"],
            "the backend's {over:?}"
        );
        assert_eq!(
            answer.field("referrer-policy"),
            None,
            "the route's {over:?}"
        );
    }
    let trust = tls_config(&certificate.ca, &[&TLS13, &TLS12]);
    for (fields, hsts) in [
        ("", "max-age=31536000"),
        ("Strict-Transport-Security: max-age=1\r\n", "max-age=1"),
    ] {
        backend.next(response(fields));
        let mut client =
            Client::tls(server.addresses[1], &trust, "localhost").expect("a handshake");
        let answer = client.get("localhost", "/").expect("an answer");
        assert_eq!(all(&answer, "strict-transport-security"), [hsts]);
    }
}
