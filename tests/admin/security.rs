//! Who is refused: other origins, forged hosts, no token, what is too large or too slow.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::site::{Site, TOKEN, ask};
use crate::support::client::Client;
use crate::support::server::Server;
use crate::support::{PATIENCE, wait_until};

const POSTS: &[&str] = &[
    "/api/v1/reload",
    "/api/v1/drain",
    "/api/v1/undrain",
    "/api/v1/dns/refresh",
    "/api/v1/backends/web/127.0.0.1:1/drain",
    "/api/v1/backends/web/127.0.0.1:1/undrain",
    "/api/v1/backends/web/127.0.0.1:1/weight",
];

#[test]
fn a_change_needs_the_token() {
    let site = Site::start();
    for path in POSTS {
        for fields in [
            &[][..],
            &[("authorization", "Bearer 0123456789abcdef0123456789abcdeF")],
            &[("authorization", "Bearer ")],
            &[("authorization", "Basic 0123456789abcdef0123456789abcdef")],
            &[("cookie", "token=0123456789abcdef0123456789abcdef")],
        ] {
            let answer = site.ask("POST", path, fields, None);
            assert_eq!(answer.status(), 401, "{path} {fields:?}");
            assert_eq!(answer.field("www-authenticate"), Some("Bearer"));
        }
    }
    assert_eq!(site.get("/api/v1/status")["drain"]["phase"], "serving");
}

#[test]
fn another_origin_and_a_forged_host_are_refused_even_with_the_token() {
    let site = Site::start();
    let token = ("authorization", TOKEN);
    let host = site.address().to_string();
    for fields in [
        ("host", "evil.example"),
        ("host", "localhost.evil.example:80"),
        ("origin", "http://evil.example"),
        ("origin", "null"),
        ("origin", "http://localhost"),
        ("sec-fetch-site", "cross-site"),
    ] {
        for (method, path) in [("GET", "/api/v1/status"), ("POST", "/api/v1/drain")] {
            let answer = site.ask(method, path, &[token, fields], None);
            assert_eq!(answer.status(), 403, "{method} {fields:?}");
            assert_eq!(answer.field("access-control-allow-origin"), None);
        }
    }
    assert_eq!(
        site.ask("GET", "/", &[("host", "evil.example")], None)
            .status(),
        403
    );
    // A preflight is no method of ours, and nothing allows it.
    let preflight = [
        ("origin", "http://evil.example"),
        ("access-control-request-method", "POST"),
    ];
    assert_eq!(
        site.ask("OPTIONS", "/api/v1/drain", &preflight, None)
            .status(),
        403
    );
    assert_eq!(site.get("/api/v1/status")["drain"]["phase"], "serving");
    for name in [
        host.as_str(),
        "localhost:9901",
        "[::1]:1",
        "balancer.internal",
    ] {
        let origin = format!("http://{name}");
        let fields = [token, ("host", name), ("origin", &origin)];
        assert_eq!(
            site.ask("GET", "/api/v1/status", &fields, None).status(),
            200,
            "{name}"
        );
    }
    let two = "GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n";
    let none = "GET /api/v1/status HTTP/1.1\r\n\r\n";
    for request in [two, none] {
        let answer = Client::plain(site.address()).send(request).response();
        assert_eq!(answer.expect("it answers").status(), 400, "{request}");
    }
}

#[test]
fn every_answer_says_what_a_browser_may_do_with_it() {
    let site = Site::start();
    for path in ["/", "/api/v1/status", "/api/v1/events", "/nothing"] {
        let answer = site.ask("GET", path, &[], None);
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("cache-control", "no-store"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(answer.field(name), Some(value), "{path}");
        }
        let policy = answer
            .field("content-security-policy")
            .expect("there is one");
        assert!(
            policy.starts_with("default-src 'none'; script-src 'self'"),
            "{policy}"
        );
    }
}

#[test]
fn methods_and_bodies_are_what_they_should_be() {
    let site = Site::start();
    let token = ("authorization", TOKEN);
    for path in POSTS {
        let answer = site.ask("GET", path, &[], None);
        assert_eq!(
            (answer.status(), answer.field("allow")),
            (405, Some("POST")),
            "{path}"
        );
    }
    assert_eq!(
        site.ask("DELETE", "/api/v1/status", &[token], None)
            .status(),
        405
    );
    let form = [token, ("content-type", "application/x-www-form-urlencoded")];
    assert_eq!(
        site.ask("POST", "/api/v1/dns/refresh", &form, Some("name=x"))
            .status(),
        415
    );
    let plain = [token, ("content-type", "text/plain")];
    assert_eq!(
        site.ask("POST", "/api/v1/drain", &plain, Some("{}"))
            .status(),
        415
    );
    let large = format!("{{\"name\":\"{}\"}}", "x".repeat(70_000));
    assert_eq!(
        site.ask("POST", "/api/v1/dns/refresh", &[token], Some(&large))
            .status(),
        413
    );
    let path = format!("/{}", "x".repeat(40_000));
    assert!(matches!(
        site.ask("GET", &path, &[], None).status(),
        414 | 431
    ));
    assert_eq!(site.get("/api/v1/status")["drain"]["phase"], "serving");
}

#[test]
fn a_body_that_does_not_come_is_not_waited_for() {
    let site = Site::start();
    let head = format!(
        "POST /api/v1/dns/refresh HTTP/1.1\r\nHost: localhost\r\nAuthorization: {TOKEN}\r\n\
         Content-Type: application/json\r\nContent-Length: 10\r\n\r\n{{"
    );
    let answer = Client::plain(site.address()).send(head).response();
    assert_eq!(answer.expect("it answers").status(), 408);
}

#[test]
fn those_who_say_nothing_keep_nobody_out() {
    let site = Site::start();
    // As many as there may be, and more.
    let silent: Vec<_> = (0..80)
        .map(|_| TcpStream::connect(site.address()))
        .collect();
    let mut status = UnixStream::connect(site.socket()).expect("it listens");
    status
        .set_read_timeout(Some(PATIENCE))
        .expect("it is not zero");
    status
        .write_all(b"GET /api/v1/status HTTP/1.1\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    status
        .read_to_string(&mut answer)
        .expect("the socket has places of its own");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    wait_until("those who say nothing are closed", || {
        let mut client = Client::plain(site.address());
        client.patience(Duration::from_secs(1));
        let sent = client.try_send("GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n");
        sent.is_ok() && client.response().is_ok_and(|answer| answer.status() == 200)
    });
    drop(silent);
}

#[test]
fn the_socket_needs_no_token_and_its_mode_is_the_guard() {
    let site = Site::start();
    let mode = site
        .socket()
        .metadata()
        .expect("it is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut socket = UnixStream::connect(site.socket()).expect("it listens");
    let request = "POST /api/v1/drain HTTP/1.1\r\nHost: whatever\r\nConnection: close\r\n\r\n";
    socket.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("it answers");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert_eq!(site.get("/api/v1/status")["drain"]["phase"], "announced");
    let path = site.socket();
    let Site { server, .. } = site;
    drop(server);
    assert!(!path.exists(), "it goes with the process");
}

#[test]
fn off_loopback_reading_needs_the_token_too() {
    let site = Site::start();
    let token = site.token_file();
    let server = Server::in_process(&format!(
        "[[listener]]\naddress = \"127.0.0.1:0\"\nprotocol = \"http\"\n\
         [[service]]\nname = \"web\"\ndiscover = {{ static = [\"{}\"] }}\n\
         [[route]]\nservice = \"web\"\n\
         [admin]\naddress = \"0.0.0.0:0\"\nsocket = \"off\"\ntoken_file = \"{}\"\n",
        site.backends[0].address,
        token.display(),
    ));
    let address = server.admin.expect("it listens");
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], address.port()));
    assert_eq!(
        ask(address, "GET", "/api/v1/status", &[], None).status(),
        401
    );
    assert_eq!(
        ask(address, "GET", "/api/v1/events", &[], None).status(),
        401
    );
    assert_eq!(ask(address, "GET", "/", &[], None).status(), 200);
    let fields = [("authorization", TOKEN)];
    assert_eq!(
        ask(address, "GET", "/api/v1/status", &fields, None).status(),
        200
    );
}
