//! `auth`: another service says whether a request may go on.

use crate::support::backend::{Backend, Step, nobody};
use crate::support::client::Client;
use crate::support::server::Server;
use crate::support::wire::Message;
use crate::support::{Gate, wait_until};
use crate::{BOTH, Lines, Over, config, get};

const ROUTE: &str = r#"
    [[route]]
    name = "guarded"
    path = "/app"
    strip_prefix = true
    service = "a"
    auth = { service = "auth", path = "/verify", response_headers = ["Remote-User", "Remote-Groups"], timeout = "2s" }
    [[route]]
    service = "a"
"#;

fn site(a: &Backend, auth: &Backend) -> Server {
    Server::in_process(&config(&[("a", a), ("auth", auth)], ROUTE))
}

fn answers(text: &str) -> Vec<Step> {
    vec![Step::Request, Step::send(text)]
}

fn last(backend: &Backend) -> Message {
    let received = backend.take().pop().and_then(|r| r.whole);
    received.expect("it was sent")
}

fn all<'m>(message: &'m Message, name: &str) -> Vec<&'m str> {
    let fields = message.fields.iter().filter(|(n, _)| n == name);
    fields.map(|(_, value)| value.as_str()).collect()
}

#[test]
fn who_is_granted_goes_on_and_the_backend_is_told_who_it_is() {
    let (a, auth) = (Backend::start("a"), Backend::start("auth"));
    auth.usually(answers(
        "HTTP/1.1 204 No Content\r\nRemote-User: ana\r\nRemote-Groups: x\r\nRemote-Groups: y\r\n\
         X-Other: 1\r\n\r\n",
    ));
    let server = site(&a, &auth);
    for over in BOTH {
        let ask = get("/app/x?q=1")
            .method("POST")
            .body(b"the body")
            .with("Cookie", "sid=7")
            .with("Content-Type", "text/plain")
            .with("If-None-Match", "\"x\"")
            .with("X-Forwarded-Uri", "/public")
            .with("X-Forwarded-Method", "GET")
            .with("Remote-User", "root")
            .with("remote-groups", "wheel");
        let answer = ask.ask(over, server.address());
        assert_eq!(answer.text(), "POST /x?q=1 the body", "{over:?}");
        let asked = last(&auth);
        assert_eq!(
            (asked.method(), asked.target()),
            ("GET", "/verify"),
            "{over:?}"
        );
        assert!(asked.body.is_empty(), "{over:?}");
        for (name, value) in [
            ("host", &["a.test"][..]),
            ("cookie", &["sid=7"]),
            ("x-forwarded-method", &["POST"]),
            ("x-forwarded-uri", &["/app/x?q=1"]),
            ("x-forwarded-host", &["a.test"]),
            ("x-forwarded-proto", &["http"]),
            ("x-forwarded-for", &["127.0.0.1"]),
            ("content-type", &[]),
            ("content-length", &[]),
            ("transfer-encoding", &[]),
            ("if-none-match", &[]),
        ] {
            assert_eq!(all(&asked, name), value, "{name} {over:?}");
        }
        let sent = last(&a);
        assert_eq!(all(&sent, "remote-user"), ["ana"], "{over:?}");
        assert_eq!(all(&sent, "remote-groups"), ["x", "y"], "{over:?}");
        assert_eq!(all(&sent, "x-other"), [""; 0], "{over:?}");
        assert_eq!(all(&sent, "cookie"), ["sid=7"], "{over:?}");
        assert_eq!(
            sent.field("x-request-id"),
            asked.field("x-request-id"),
            "{over:?}"
        );
    }
    // Nobody is asked where nothing says so.
    assert_eq!(get("/").ask(Over::H1, server.address()).status, 200);
    assert_eq!(auth.requests(), 2);
}

/// Neither in a head nor behind a body, whatever the service says of it.
#[test]
fn a_client_says_nothing_of_itself_that_the_service_would_say() {
    let (a, auth) = (Backend::start("a"), Backend::start("auth"));
    auth.usually(answers("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"));
    let text = config(&[("a", &a), ("auth", &auth)], ROUTE);
    let server = Server::in_process(&format!("{text}\n[http]\nallow_underscores = true\n"));
    for over in BOTH {
        let ask = get("/app")
            .with("Remote-User", "root")
            .with("REMOTE-user", "root")
            .with("Remote_User", "root");
        assert_eq!(ask.ask(over, server.address()).status, 200, "{over:?}");
        let sent = String::from_utf8_lossy(&last(&a).raw).to_lowercase();
        assert!(!sent.contains("root"), "{over:?}: {sent}");
    }
    auth.take();
    let mut client = Client::plain(server.address());
    client.send(
        "POST /app HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n\
         1\r\nx\r\n0\r\nRemote-User: root\r\nremote_user: root\r\nX-Sum: 1\r\n\r\n",
    );
    assert_eq!(client.response().expect("an answer").status(), 200);
    let sent = last(&a);
    assert_eq!(sent.trailers, [("x-sum".to_owned(), "1".to_owned())]);

    use crate::frames::{DATA, END_STREAM, Peer, frame, headers, request};
    let mut peer = Peer::connect(server.address());
    peer.send(headers(1, 0, &request("POST", "/app")));
    peer.send(frame(DATA, 0, 1, "x"));
    let trailers = [("remote-user", "root"), ("x-sum", "1")];
    peer.send(headers(1, END_STREAM, &trailers));
    assert_eq!(peer.over(1).status(), Some(200));
    let sent = last(&a);
    assert_eq!(sent.trailers, [("x-sum".to_owned(), "1".to_owned())]);
}

#[test]
fn any_other_answer_is_the_clients() {
    let (a, auth) = (Backend::start("a"), Backend::start("auth"));
    let log = Lines::default();
    let text = config(&[("a", &a), ("auth", &auth)], ROUTE);
    let server = Server::logging(&text, log.clone());
    let rows = [
        (
            401,
            "WWW-Authenticate: Basic realm=\"x\"\r\nContent-Length: 4\r\n\r\nwho?",
            "who?",
        ),
        (
            302,
            "Location: https://login.test/?rd=x\r\nContent-Length: 0\r\n\r\n",
            "",
        ),
        (
            403,
            "Transfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",
            "no",
        ),
        (500, "Content-Length: 2\r\nSet-Cookie: a=b\r\n\r\n:(", ":("),
    ];
    for (status, rest, body) in rows {
        for over in BOTH {
            for method in ["GET", "HEAD", "POST"] {
                auth.next(answers(&format!("HTTP/1.1 {status} X\r\n{rest}")));
                let mut ask = get("/app").method(method);
                if method == "POST" {
                    ask = ask.body(b"abc");
                }
                let answer = ask.ask(over, server.address());
                assert_eq!(answer.status, status, "{method} {over:?}");
                let expected = if method == "HEAD" { "" } else { body };
                assert_eq!(answer.text(), expected, "{status} {method} {over:?}");
                let field = |name: &str| answer.field(name).map(str::to_owned);
                match status {
                    401 => assert_eq!(
                        field("www-authenticate").as_deref(),
                        Some("Basic realm=\"x\"")
                    ),
                    302 => assert_eq!(
                        field("location").as_deref(),
                        Some("https://login.test/?rd=x")
                    ),
                    500 => assert_eq!(field("set-cookie").as_deref(), Some("a=b")),
                    _ => {}
                }
            }
        }
    }
    assert_eq!(a.requests(), 0);
    wait_until("all are logged", || log.text().lines().count() == 24);
    let text = log.text();
    assert_eq!(
        text.matches("\"phase\":\"not_granted\"").count(),
        24,
        "{text}"
    );
    assert_eq!(text.matches("\"service\":\"a\"").count(), 24, "{text}");

    // The connection goes on where the request was whole, and only there.
    let mut client = Client::plain(server.address());
    let refused = || answers("HTTP/1.1 401 X\r\nContent-Length: 0\r\n\r\n");
    auth.next(refused());
    client.send("POST /app HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\nabc");
    let answer = client.response().expect("an answer");
    assert_eq!((answer.status(), answer.field("connection")), (401, None));
    assert_eq!(
        client.get("a.test", "/").expect("an answer").text(),
        "GET / "
    );
    auth.next(refused());
    client.send("POST /app HTTP/1.1\r\nHost: a.test\r\nContent-Length: 30\r\n\r\nabc");
    let answer = client.response().expect("an answer");
    assert_eq!(
        (answer.status(), answer.field("connection")),
        (401, Some("close"))
    );
    a.take();
}

#[test]
fn nobody_gets_past_a_service_that_cannot_be_asked() {
    let (a, auth) = (Backend::start("a"), Backend::start("auth"));
    let dead = format!(
        "[[service]]\nname = \"dead\"\ndiscover = {{ static = \"{}\" }}\n\
         [[route]]\npath = \"/dead\"\nservice = \"a\"\nauth = {{ service = \"dead\", path = \"/\" }}\n",
        nobody()
    );
    let text = config(&[("a", &a), ("auth", &auth)], &(ROUTE.to_owned() + &dead));
    let text = text.replace("timeout = \"2s\"", "timeout = \"200ms\"");
    let log = Lines::default();
    let server = Server::logging(&text, log.clone());
    for over in BOTH {
        assert_eq!(
            get("/dead").ask(over, server.address()).status,
            503,
            "{over:?}"
        );
        auth.next(answers("nonsense\r\n\r\n"));
        assert_eq!(
            get("/app").ask(over, server.address()).status,
            502,
            "{over:?}"
        );
        // It was asked, and says nothing.
        let gate = Gate::new();
        auth.next(vec![Step::Request, Step::Wait(gate.clone()), Step::Close]);
        let answer = get("/app").ask(over, server.address());
        gate.open();
        assert_eq!(answer.status, 503, "{over:?}");
        assert!(!answer.text().contains("127.0.0.1"), "{answer:?}");
    }
    assert_eq!(a.requests(), 0);
    wait_until("all are logged", || log.text().lines().count() == 6);
    assert_eq!(
        log.text().matches("\"phase\":\"auth_unasked\"").count(),
        6,
        "{}",
        log.text()
    );
}

#[test]
fn a_websocket_is_asked_about_too() {
    let (a, auth) = (Backend::start("a"), Backend::start("auth"));
    auth.next(answers("HTTP/1.1 401 X\r\nContent-Length: 0\r\n\r\n"));
    auth.next(answers(
        "HTTP/1.1 200 OK\r\nRemote-User: ana\r\nContent-Length: 0\r\n\r\n",
    ));
    a.usually(vec![
        Step::Head,
        Step::send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nhello",
        ),
        Step::AwaitClose,
    ]);
    let server = site(&a, &auth);
    let ask = "GET /app/chat HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
               Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    let mut client = Client::plain(server.address());
    client.send(ask);
    assert_eq!(client.response().expect("an answer").status(), 401);
    let mut client = Client::plain(server.address());
    client.send(ask);
    assert_eq!(client.response().expect("an answer").status(), 101);
    assert_eq!(client.exactly(5).expect("it goes on"), b"hello");
    let asked = auth.look();
    let upgrade = |r: &crate::support::backend::Received| {
        String::from_utf8_lossy(&r.bytes)
            .to_lowercase()
            .contains("upgrade")
    };
    assert!(!asked.iter().any(upgrade), "{asked:?}");
    let sent = a.look();
    assert!(
        String::from_utf8_lossy(&sent[0].bytes).contains("Remote-User: ana"),
        "{sent:?}"
    );
}
