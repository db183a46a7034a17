//! `redirect`, `strip_prefix` and `rewrite`.

use crate::support::backend::Backend;
use crate::support::client::Client;
use crate::support::server::Server;
use crate::support::wait_until;
use crate::{Ask, BOTH, Lines, config, get};

#[test]
fn requests_go_on_by_another_path() {
    let backend = Backend::start("a");
    let log = Lines::default();
    let text = config(
        &[("a", &backend)],
        r#"
        [[route]]
        service = "a"
        [[route]]
        path = "/api"
        strip_prefix = true
        service = "a"
        [[route]]
        path = "/old"
        rewrite = { prefix = "/new/" }
        service = "a"
        [[route]]
        path = "/one"
        rewrite = { path = "/other" }
        service = "a"
        "#,
    );
    let server = Server::logging(&text, log.clone());
    let rows: &[(&str, &str, &str, Option<&str>)] = &[
        ("as it is", "/x?q", "/x?q", None),
        ("stripped", "/api/x/y?q=1", "/x/y?q=1", Some("/api")),
        ("all of it", "/api?q", "/?q", Some("/api")),
        ("whole segments", "/apix", "/apix", None),
        (
            "what was matched, normalised",
            "/b/../%61pi/./%7Ex",
            "/~x",
            Some("/api"),
        ),
        (
            "no host comes to the front",
            "/api//evil.test/x",
            "/evil.test/x",
            Some("/api"),
        ),
        (
            "an encoded slash stays one",
            "/api/%2fevil.test",
            "/%2Fevil.test",
            Some("/api"),
        ),
        ("replaced", "/old/x?q", "/new/x?q", None),
        ("as a whole", "/one/x/y?q", "/other?q", None),
    ];
    for (rule, asked, target, stripped) in rows {
        for over in BOTH {
            let answer = get(asked).ask(over, server.address());
            assert_eq!(answer.text(), format!("GET {target} "), "{rule} {over:?}");
            let received = backend.take().pop().and_then(|r| r.whole);
            let received = received.expect("it was sent");
            let told = received.field("x-forwarded-prefix");
            assert_eq!(told, *stripped, "{rule} {over:?}");
        }
    }
    // The log has what the client asked for.
    wait_until("all are logged", || {
        log.text().lines().count() == 2 * rows.len()
    });
    let text = log.text();
    assert_eq!(text.matches("\"path\":\"/api/~x\"").count(), 2, "{text}");
    assert!(!text.contains("\"path\":\"/other\""), "{text}");
}

#[test]
fn who_stripped_before_us_is_believed_if_trusted() {
    let backend = Backend::start("a");
    let server = Server::in_process(&config(
        &[("a", &backend)],
        "[[route]]\npath = \"/api\"\nstrip_prefix = true\nservice = \"a\"\n",
    ));
    for (from, told) in [
        ("127.0.0.1", &["/api"][..]),
        ("127.9.0.1", &["/outer", "/api"]),
    ] {
        for over in BOTH {
            let ask = get("/api/x")
                .with("X-Forwarded-Prefix", "/outer")
                .from(from);
            assert_eq!(ask.ask(over, server.address()).status, 200);
            let received = backend
                .take()
                .pop()
                .and_then(|r| r.whole)
                .expect("it was sent");
            let all: Vec<&str> = (received.fields.iter())
                .filter(|(name, _)| name == "x-forwarded-prefix")
                .map(|(_, value)| value.as_str())
                .collect();
            assert_eq!(all, told, "{from} {over:?}");
        }
    }
}

/// What the backend says of where it is stays what it says.
#[test]
fn the_location_of_a_response_is_not_touched() {
    use crate::support::backend::Step;
    let backend = Backend::start("a");
    backend.usually(vec![
        Step::Request,
        Step::send("HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n"),
    ]);
    let server = Server::in_process(&config(
        &[("a", &backend)],
        "[[route]]\npath = \"/api\"\nstrip_prefix = true\nservice = \"a\"\n",
    ));
    for over in BOTH {
        let answer = get("/api/x").ask(over, server.address());
        assert_eq!(answer.field("location"), Some("/login"), "{over:?}");
    }
}

#[test]
fn clients_are_sent_elsewhere() {
    let backend = Backend::start("a");
    let server = Server::in_process(&config(
        &[("a", &backend)],
        r#"
        [[route]]
        service = "a"
        [[route]]
        path = "/old"
        redirect = { prefix = "/new", status = 301 }
        [[route]]
        path = "/root"
        redirect = { prefix = "/" }
        [[route]]
        path = "/gone"
        redirect = { path = "/gone.html", status = 303 }
        [[route]]
        host = "a.example"
        redirect = { host = "www.a.example", status = 302 }
        [[route]]
        host = "secure.example"
        redirect = "https"
        [[route]]
        host = "port.example"
        redirect = { scheme = "https", port = 8443, path = "/" }
        "#,
    ));
    let on = |host, target| get(target).host(host);
    let rows: &[(&str, Ask<'_>, u16, &str)] = &[
        ("another path", get("/old/x?q=1"), 301, "/new/x?q=1"),
        ("all of it", get("/old"), 301, "/new"),
        (
            "what was matched, normalised",
            get("/x/../%6fld/./y"),
            301,
            "/new/y",
        ),
        (
            "no other host by two slashes",
            get("/root//evil.test"),
            308,
            "/evil.test",
        ),
        ("one page", get("/gone/a/b?q"), 303, "/gone.html?q"),
        (
            "another host, whatever the port",
            on("a.example:8080", "/x?q"),
            302,
            "http://www.a.example/x?q",
        ),
        (
            "by the scheme of the client of a trusted proxy",
            on("a.example", "/x")
                .with("x-forwarded-proto", "https")
                .from("127.9.0.1"),
            302,
            "https://www.a.example/x",
        ),
        (
            "nobody else is asked",
            on("a.example", "/x").with("x-forwarded-proto", "https"),
            302,
            "http://www.a.example/x",
        ),
        (
            "another scheme",
            on("secure.example:8080", "/x?q"),
            308,
            "https://secure.example/x?q",
        ),
        (
            "and port",
            on("port.example", "/x?q"),
            308,
            "https://port.example:8443/?q",
        ),
        ("HEAD", get("/old/x").method("HEAD"), 301, "/new/x"),
        (
            "with a body",
            get("/old/x").method("POST").body(b"12345"),
            301,
            "/new/x",
        ),
    ];
    for (rule, ask, status, location) in rows {
        for over in BOTH {
            let answer = ask.ask(over, server.address());
            assert_eq!(answer.status, *status, "{rule} {over:?}");
            assert_eq!(answer.field("location"), Some(*location), "{rule} {over:?}");
            assert!(answer.body.is_empty(), "{rule} {over:?}");
        }
    }
    assert_eq!(backend.requests(), 0);

    // The connection lives on behind a body that was whole.
    let mut client = Client::plain(server.address());
    let post = "POST /old HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\nabc";
    client.send(post);
    assert_eq!(client.response().expect("an answer").status(), 301);
    assert_eq!(client.get("a.test", "/").expect("an answer").status(), 200);

    // HTTP/1.0 without Host: there is nothing that a URL could name.
    for (target, status) in [("/old", 301), ("/root", 308)] {
        let mut client = Client::plain(server.address());
        client.send(format!("GET {target} HTTP/1.0\r\n\r\n"));
        assert_eq!(client.response().expect("an answer").status(), status);
    }
}
