//! What of an HTTP/2 request reaches a backend: exactly one well-formed request, known byte by byte, or
//! nothing at all.

use crate::config;
use crate::frames::*;
use crate::hpack::literals;
use crate::support::backend::{Backend, Step};
use crate::support::server::Server;
use crate::support::wait_until;
use Expect::{Cut, Refused, Reset, Sent};

/// What becomes of a request.
#[derive(Debug)]
enum Expect {
    /// The backend is sent this request line, `Host`, these fields, those that we add, and then this:
    /// framing and body.
    Sent(&'static str, &'static str, &'static str, &'static str),
    /// It is answered by us, and the backend gets nothing.
    Refused(u16),
    /// Its stream or connection ends, and the backend gets nothing.
    Reset,
    /// The same, but it is noticed behind the head: the backend sees a request that never becomes whole.
    Cut,
}

struct Row {
    rule: &'static str,
    frames: Vec<u8>,
    expect: Expect,
}

/// A request without a body: a GET with these fields, of which pseudo-fields take the place of the usual.
fn bare(rule: &'static str, fields: &[(&str, &str)], expect: Expect) -> Row {
    row(rule, fields, &[], expect)
}

/// A request with what follows its head.
fn row(rule: &'static str, fields: &[(&str, &str)], rest: &[&[u8]], expect: Expect) -> Row {
    let mut all = Vec::new();
    for usual in request("GET", "/") {
        let own = fields.iter().find(|(name, _)| *name == usual.0);
        match own {
            // To be left out.
            Some((_, "-")) => {}
            Some(own) => all.push(*own),
            None => all.push(usual),
        }
    }
    let has = |name: &str| request("GET", "/").iter().any(|(n, _)| *n == name);
    all.extend(fields.iter().filter(|(name, _)| !has(name)));
    let flags = if rest.is_empty() { END_STREAM } else { 0 };
    let mut frames = in_pieces(flags, &literals(&all));
    frames.extend(rest.concat());
    Row {
        rule,
        frames,
        expect,
    }
}

/// A head, however long.
fn in_pieces(flags: u8, block: &[u8]) -> Vec<u8> {
    let mut pieces = block.chunks(16_384).peekable();
    let (mut frames, mut kind, mut flags) = (Vec::new(), HEADERS, flags);
    while let Some(piece) = pieces.next() {
        if pieces.peek().is_none() {
            flags |= END_HEADERS;
        }
        frames.extend(frame(kind, flags, 1, piece));
        (kind, flags) = (CONTINUATION, 0);
    }
    frames
}

/// What was sent, with what differs each time masked.
fn masked(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let lines = text.split("\r\n").map(|line| match line.split_once(": ") {
        Some((name @ "X-Request-Id", _)) => format!("{name}: *"),
        Some((name @ "Sec-WebSocket-Key", _)) => format!("{name}: *"),
        _ => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\r\n")
}

fn expected(line: &str, host: &str, fields: &str, rest: &str) -> String {
    format!(
        "{line} HTTP/1.1\r\nHost: {host}\r\n{fields}X-Forwarded-For: 127.0.0.1\r\n\
         X-Forwarded-Proto: http\r\nX-Forwarded-Host: {host}\r\nX-Request-Id: *\r\n\
         Via: 2.0 evenkeel\r\n{rest}"
    )
}

fn run(server: &Server, backend: &Backend, rows: Vec<Row>) {
    let mut wrong = Vec::new();
    for row in rows {
        let mut peer = Peer::connect(server.address());
        peer.send(&row.frames);
        let came = peer.over(1);
        drop(peer);
        // What is behind it on the way to the backend is in front of this.
        let mut probe = Peer::connect(server.address());
        probe.send(get(1, "/probe"));
        assert_eq!(probe.over(1).status(), Some(200), "{}", row.rule);
        if matches!(row.expect, Sent(..) | Cut) {
            // Over another connection, which the backend may look at later.
            wait_until(row.rule, || backend.look().len() >= 2);
        }
        let received = backend.take();
        let whole = received.iter().filter(|r| r.whole.is_some()).count();
        let mut sent: Vec<String> = received.iter().map(|r| masked(&r.bytes)).collect();
        let probes = sent.len();
        sent.retain(|text| !text.starts_with("GET /probe "));
        let good = probes == sent.len() + 1
            && match row.expect {
                Sent(line, host, fields, rest) => {
                    sent == [expected(line, host, fields, rest)] && came.status() == Some(200)
                }
                Refused(status) => sent.is_empty() && came.status() == Some(status),
                Cut => sent.len() == 1 && whole == 1 && !came.ended,
                Reset => sent.is_empty() && !came.ended,
            };
        if !good {
            wrong.push(format!(
                "{}: wanted {:?}, but answered {:?} (reset {:?}), sent {sent:#?}",
                row.rule,
                row.expect,
                came.status(),
                came.reset
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

const END: &str = "\r\n";

#[test]
fn one_request_stays_one_request() {
    let backend = Backend::start("b");
    backend.usually(vec![
        Step::Request,
        Step::send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ]);
    let server = Server::in_process(&config("http", &[backend.address], "max_body = 100", ""));
    let data = |flags: u8, bytes: &str| frame(DATA, flags, 1, bytes);
    let trailers = |fields: &[(&str, &str)]| headers(1, END_STREAM, fields);
    let long = "x".repeat(40_000);
    let many: Vec<(String, String)> = (0..200).map(|n| (format!("x{n}"), "1".into())).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(n, v)| (&**n, &**v)).collect();
    let path = |path| [(":path", path)];
    let authority = |text| [(":authority", text)];
    run(
        &server,
        &backend,
        vec![
            bare("a GET", &[], Sent("GET /", "a.test", "", END)),
            bare(
                "fields in order, names as they are",
                &[("x-b", "1"), ("a", "2"), ("x-b", "3")],
                Sent("GET /", "a.test", "x-b: 1\r\nx-b: 3\r\na: 2\r\n", END),
            ),
            // Framing.
            bare(
                "transfer-encoding",
                &[("transfer-encoding", "chunked")],
                Reset,
            ),
            row(
                "transfer-encoding with a body that is a request",
                &[(":method", "POST"), ("transfer-encoding", "chunked")],
                &[&data(1, "0\r\n\r\nGET /secret HTTP/1.1\r\nHost: a\r\n\r\n")],
                Reset,
            ),
            row(
                "content-length that is right",
                &[(":method", "POST"), ("content-length", "3")],
                &[&data(1, "abc")],
                Sent("POST /", "a.test", "", "Content-Length: 3\r\n\r\nabc"),
            ),
            row(
                "content-length that is too small",
                &[(":method", "POST"), ("content-length", "3")],
                &[&data(1, "abcGET /secret HTTP/1.1\r\n\r\n")],
                Cut,
            ),
            row(
                "content-length that is too large",
                &[(":method", "POST"), ("content-length", "30")],
                &[&data(1, "abc")],
                Cut,
            ),
            row(
                "content-length twice, alike",
                &[
                    (":method", "POST"),
                    ("content-length", "3"),
                    ("content-length", "3"),
                ],
                &[&data(1, "abc")],
                Refused(400),
            ),
            row(
                "content-length twice, different",
                &[
                    (":method", "POST"),
                    ("content-length", "3"),
                    ("content-length", "4"),
                ],
                &[&data(1, "abc")],
                Reset,
            ),
            row(
                "content-length as a list",
                &[(":method", "POST"), ("content-length", "3, 3")],
                &[&data(1, "abc")],
                Reset,
            ),
            row(
                "content-length with a sign",
                &[(":method", "POST"), ("content-length", "+3")],
                &[&data(1, "abc")],
                Reset,
            ),
            row(
                "content-length that is negative",
                &[(":method", "POST"), ("content-length", "-3")],
                &[&data(1, "abc")],
                Reset,
            ),
            row(
                "content-length in hexadecimal",
                &[(":method", "POST"), ("content-length", "0x3")],
                &[&data(1, "abc")],
                Reset,
            ),
            row(
                "content-length without digits",
                &[(":method", "POST"), ("content-length", "")],
                &[&data(1, "abc")],
                Reset,
            ),
            row(
                "content-length with a leading 0",
                &[(":method", "POST"), ("content-length", "03")],
                &[&data(1, "abc")],
                Sent("POST /", "a.test", "", "Content-Length: 3\r\n\r\nabc"),
            ),
            row(
                "content-length over 2^64",
                &[
                    (":method", "POST"),
                    ("content-length", "18446744073709551619"),
                ],
                &[&data(1, "abc")],
                Reset,
            ),
            row(
                "no content-length",
                &[(":method", "POST")],
                &[&data(1, "abc")],
                Sent(
                    "POST /",
                    "a.test",
                    "",
                    "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
                ),
            ),
            bare(
                "a POST without content",
                &[(":method", "POST")],
                Sent("POST /", "a.test", "", "Content-Length: 0\r\n\r\n"),
            ),
            row(
                "a body that looks like chunks",
                &[(":method", "POST")],
                &[&data(1, "0\r\n\r\n")],
                Sent(
                    "POST /",
                    "a.test",
                    "",
                    "Transfer-Encoding: chunked\r\n\r\n5\r\n0\r\n\r\n\r\n0\r\n\r\n",
                ),
            ),
            row(
                "a body with a GET",
                &[],
                &[&data(1, "GET /secret HTTP/1.1\r\nHost: a\r\n\r\n")],
                Sent(
                    "GET /",
                    "a.test",
                    "",
                    "Transfer-Encoding: chunked\r\n\r\n21\r\nGET /secret HTTP/1.1\r\nHost: a\r\n\r\n\r\n0\r\n\r\n",
                ),
            ),
            row(
                "a body with a HEAD",
                &[(":method", "HEAD")],
                &[&data(1, "abc")],
                Sent(
                    "HEAD /",
                    "a.test",
                    "",
                    "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
                ),
            ),
            row(
                "a GET whose body is empty data",
                &[],
                &[&data(1, "")],
                Sent(
                    "GET /",
                    "a.test",
                    "",
                    "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                ),
            ),
            row(
                "a body over the bound, told",
                &[(":method", "POST"), ("content-length", "101")],
                &[&data(1, &long[..101])],
                Refused(413),
            ),
            // Octets in fields.
            bare("CR LF in a value", &[("x", "a\r\ny: b")], Reset),
            bare("LF in a value", &[("x", "a\ny: b")], Reset),
            bare("NUL in a value", &[("x", "a\0b")], Reset),
            bare("CR LF in a name", &[("x: a\r\ny", "b")], Reset),
            bare("a colon in a name", &[("x:", "b")], Reset),
            bare("a space in front of a value", &[("x", " b")], Refused(400)),
            bare(
                "an octet over 0x7f in a value",
                &[("x", "\u{e9}")],
                Sent("GET /", "a.test", "x: \u{e9}\r\n", END),
            ),
            bare(
                "a name with an underscore",
                &[("x_forwarded_for", "1.2.3.4")],
                Sent("GET /", "a.test", "", END),
            ),
            bare(
                "another name with an underscore",
                &[("content_length", "5")],
                Sent("GET /", "a.test", "", END),
            ),
            // Fields of a connection.
            bare("connection", &[("connection", "x-a"), ("x-a", "1")], Reset),
            bare("upgrade", &[("upgrade", "h2c")], Reset),
            bare("te: gzip", &[("te", "gzip")], Reset),
            bare(
                "te: trailers",
                &[("te", "trailers")],
                Sent("GET /", "a.test", "", END),
            ),
            bare("proxy-connection", &[("proxy-connection", "close")], Reset),
            bare(
                "http2-settings, which says nothing without an upgrade",
                &[("http2-settings", "AAMAAABkAAQAAP__")],
                Sent(
                    "GET /",
                    "a.test",
                    "http2-settings: AAMAAABkAAQAAP__\r\n",
                    END,
                ),
            ),
            bare(
                "x-forwarded-for of a stranger",
                &[
                    ("x-forwarded-for", "9.9.9.9"),
                    ("forwarded", "for=9.9.9.9"),
                    ("x-real-ip", "9.9.9.9"),
                ],
                Sent("GET /", "a.test", "", END),
            ),
            bare(
                "expect that asks for something else",
                &[("expect", "x")],
                Sent("GET /", "a.test", "expect: x\r\n", END),
            ),
            // The target.
            bare(
                "a query",
                &path("/a?b=c&d"),
                Sent("GET /a?b=c&d", "a.test", "", END),
            ),
            bare(
                "a query with a question mark",
                &path("/a??b"),
                Sent("GET /a??b", "a.test", "", END),
            ),
            bare("a space in :path", &path("/a HTTP/1.1\r\nx: y"), Reset),
            bare("a space alone in :path", &path("/a b"), Reset),
            bare("a space in the query", &path("/a?b c"), Reset),
            bare(":path without a slash", &path("a"), Reset),
            bare(":path that is a URL", &path("http://b.test/"), Reset),
            bare(
                ":path that begins with two slashes",
                &path("//b.test/"),
                Sent("GET //b.test/", "a.test", "", END),
            ),
            bare(
                "a fragment goes no further",
                &path("/a#b"),
                Sent("GET /a", "a.test", "", END),
            ),
            bare("a backslash in :path", &path("/a\\..\\b"), Refused(400)),
            bare("%00 in :path", &path("/a%00"), Refused(400)),
            bare("a half escape in :path", &path("/a%2"), Refused(400)),
            bare(
                "dot segments in :path",
                &path("/a/../b/./c"),
                Sent("GET /b/c", "a.test", "", END),
            ),
            bare(
                "dot segments that are escaped",
                &path("/a/%2e%2E/b"),
                Sent("GET /b", "a.test", "", END),
            ),
            bare("dot segments out of the root", &path("/../b"), Refused(400)),
            bare(
                "an escaped slash",
                &path("/a%2fb"),
                Sent("GET /a%2Fb", "a.test", "", END),
            ),
            bare(
                "an octet over 0x7f in :path",
                &path("/\u{e9}"),
                Refused(400),
            ),
            bare("a tab in :path", &path("/a\tb"), Reset),
            bare(
                "* with OPTIONS",
                &[(":method", "OPTIONS"), (":path", "*")],
                Sent("OPTIONS *", "a.test", "", END),
            ),
            bare("* without OPTIONS", &path("*"), Refused(400)),
            bare("an empty :path", &path(""), Reset),
            // The authority.
            bare(
                "a port",
                &authority("a.test:8443"),
                Sent("GET /", "a.test:8443", "", END),
            ),
            bare(
                "an empty port",
                &authority("a.test:"),
                Sent("GET /", "a.test", "", END),
            ),
            bare(
                "a port that is none",
                &authority("a.test:http"),
                Refused(400),
            ),
            bare(
                "a port over 65535",
                &authority("a.test:65536"),
                Refused(400),
            ),
            bare("the port 0", &authority("a.test:0"), Refused(400)),
            bare("user information", &authority("root@a.test"), Refused(400)),
            bare(
                "user information with a colon",
                &authority("root:x@a.test"),
                Refused(400),
            ),
            bare("an authority with a slash", &authority("a.test/b"), Reset),
            bare("an authority with a space", &authority("a.test b"), Reset),
            bare(
                "an authority with CR LF",
                &authority("a.test\r\nx: y"),
                Reset,
            ),
            bare("an empty authority", &authority(""), Reset),
            bare(
                "an address in brackets",
                &authority("[::1]:80"),
                Sent("GET /", "[::1]:80", "", END),
            ),
            bare(
                "Host alone",
                &[(":authority", "-"), ("host", "a.test")],
                Sent("GET /", "a.test", "", END),
            ),
            bare(
                "Host that says the same",
                &[("host", "A.test")],
                Sent("GET /", "a.test", "", END),
            ),
            bare(
                "Host that says otherwise",
                &[("host", "b.test")],
                Refused(400),
            ),
            bare(
                "Host twice",
                &[("host", "a.test"), ("host", "a.test")],
                Refused(400),
            ),
            bare(
                "Host that is empty",
                &[(":authority", "-"), ("host", "")],
                Refused(400),
            ),
            bare("no authority at all", &[(":authority", "-")], Refused(400)),
            // The scheme says nothing to a backend.
            bare(
                "another scheme",
                &[(":scheme", "https")],
                Sent("GET /", "a.test", "", END),
            ),
            // Cookies.
            bare(
                "cookie crumbs",
                &[
                    ("cookie", "a=1"),
                    ("x", "y"),
                    ("cookie", "b=2"),
                    ("cookie", "c=3"),
                ],
                Sent("GET /", "a.test", "x: y\r\ncookie: a=1; b=2; c=3\r\n", END),
            ),
            // Methods.
            bare(
                "a method of one's own",
                &[(":method", "PURGE")],
                Sent("PURGE /", "a.test", "", END),
            ),
            bare(
                "a method in lower case is another one",
                &[(":method", "get")],
                Sent("get /", "a.test", "", END),
            ),
            bare(
                "a method with a space",
                &[(":method", "GET /secret HTTP/1.1\r\n")],
                Reset,
            ),
            bare("a method with a colon", &[(":method", "GET:")], Reset),
            bare("an empty method", &[(":method", "")], Reset),
            bare(
                "CONNECT",
                &[(":method", "CONNECT"), (":scheme", "-"), (":path", "-")],
                Refused(405),
            ),
            bare(
                "extended CONNECT to what is not passed on",
                &[(":method", "CONNECT"), (":protocol", "connect-udp")],
                Refused(501),
            ),
            bare(
                ":protocol without CONNECT",
                &[(":protocol", "websocket")],
                Reset,
            ),
            // Trailers.
            row(
                "trailers",
                &[(":method", "POST")],
                &[&data(0, "abc"), &trailers(&[("x-sum", "1")])],
                Sent(
                    "POST /",
                    "a.test",
                    "",
                    "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n",
                ),
            ),
            row(
                "trailers that frame",
                &[(":method", "POST")],
                &[
                    &data(0, "abc"),
                    &trailers(&[("content-length", "9"), ("x-sum", "1")]),
                ],
                Sent(
                    "POST /",
                    "a.test",
                    "",
                    "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n",
                ),
            ),
            row(
                "trailers that say who one is",
                &[(":method", "POST")],
                &[
                    &data(0, "abc"),
                    &trailers(&[
                        ("authorization", "x"),
                        ("host", "b"),
                        ("cookie", "a=1"),
                        ("x-forwarded-for", "9.9.9.9"),
                        ("x-sum", "1"),
                    ]),
                ],
                Sent(
                    "POST /",
                    "a.test",
                    "",
                    "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n",
                ),
            ),
            row(
                "trailers of a connection",
                &[(":method", "POST")],
                &[
                    &data(0, "abc"),
                    &trailers(&[("transfer-encoding", "chunked")]),
                ],
                Cut,
            ),
            row(
                "trailers behind a length",
                &[(":method", "POST"), ("content-length", "3")],
                &[&data(0, "abc"), &trailers(&[("x-sum", "1")])],
                Sent("POST /", "a.test", "", "Content-Length: 3\r\n\r\nabc"),
            ),
            row(
                "trailers with CR LF",
                &[(":method", "POST")],
                &[
                    &data(0, "abc"),
                    &trailers(&[("x", "a\r\n\r\nGET / HTTP/1.1")]),
                ],
                Cut,
            ),
            // Sizes.
            bare("a head over the bound", &[("x", &long)], Refused(431)),
            bare("too many fields", &many, Refused(431)),
        ],
    );
}

/// What of a request of either version reaches a backend that speaks HTTP/2.
#[test]
fn requests_to_a_stream() {
    let backend = crate::peers::Backend::start(|mut call| async move {
        let _ = crate::peers::read(call.request.body_mut()).await;
        call.answer(200);
    });
    let server = Server::in_process(&config("h2c", &[backend.address], "", ""));
    // Request of HTTP/1.1, and what of it is seen in HTTP/2 besides what we add.
    let rows: [(&str, &str, &str, List<'_>); 11] = [
        (
            "a GET",
            "GET /a?b HTTP/1.1\r\nHost: a.test\r\n\r\n",
            "GET http://a.test/a?b",
            &[],
        ),
        (
            "Host with a port",
            "GET / HTTP/1.1\r\nHost: a.test:81\r\n\r\n",
            "GET http://a.test:81/",
            &[],
        ),
        (
            "a name in upper case",
            "GET / HTTP/1.1\r\nHost: a\r\nX-B: 1\r\n\r\n",
            "GET http://a/",
            &[("x-b", "1")],
        ),
        (
            "fields of the connection",
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: x-b, keep-alive\r\nKeep-Alive: 5\r\nX-B: 1\r\nTE: gzip\r\n\r\n",
            "GET http://a/",
            &[],
        ),
        (
            "an upgrade that is not passed on",
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n",
            "GET http://a/",
            &[],
        ),
        (
            "a length",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
            "POST http://a/",
            &[("content-length", "3")],
        ),
        (
            "chunks",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            "POST http://a/",
            &[],
        ),
        (
            "a POST without content",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
            "POST http://a/",
            &[("content-length", "0")],
        ),
        (
            "what a URI does not have",
            "GET /<a>?\"b\" HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://a/%3Ca%3E?%22b%22",
            &[],
        ),
        (
            "a method of one's own",
            "PURGE / HTTP/1.1\r\nHost: a\r\n\r\n",
            "PURGE http://a/",
            &[],
        ),
        (
            "*",
            "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
            "OPTIONS http://a*",
            &[],
        ),
    ];
    for (rule, request, line, fields) in rows {
        let mut client = crate::support::client::Client::plain(server.address());
        client.send(request);
        let response = client.response().expect(rule);
        assert_eq!(response.status(), 200, "{rule}: {response:?}");
        let heads = backend.take();
        assert_eq!(heads.len(), 1, "{rule}");
        assert_eq!(
            format!("{} {}", heads[0].method(), heads[0].uri()),
            line,
            "{rule}"
        );
        seen(rule, &heads[0], "1.1", fields);
    }
    // HTTP/1.0 may come without a host; then it is the backend's own address.
    let mut client = crate::support::client::Client::plain(server.address());
    client.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(client.response().expect("it is answered").status(), 200);
    let authority = backend.take()[0].uri().authority().map(ToString::to_string);
    assert_eq!(authority, Some(backend.address.to_string()));
    let [_, scheme, authority, path] = request("GET", "/");
    let rows: [(&str, List<'_>, List<'_>); 4] = [
        (
            "crumbs",
            &[("cookie", "a=1"), ("cookie", "b=2")],
            &[("cookie", "a=1; b=2")],
        ),
        ("te", &[("te", "trailers")], &[]),
        (
            "te of gRPC",
            &[("te", "trailers"), ("content-type", "application/grpc")],
            &[("content-type", "application/grpc"), ("te", "trailers")],
        ),
        ("host", &[("host", "a.test")], &[]),
    ];
    for (rule, fields, expected) in rows {
        let mut all = vec![(":method", "GET"), scheme, authority, path];
        all.extend(fields);
        let mut peer = Peer::connect(server.address());
        peer.send(headers(1, END_STREAM, &all));
        assert_eq!(peer.over(1).status(), Some(200), "{rule}");
        let heads = backend.take();
        assert_eq!(heads.len(), 1, "{rule}");
        seen(rule, &heads[0], "2.0", expected);
    }
}

/// Fields.
type List<'a> = &'a [(&'a str, &'a str)];

/// The fields that came besides those that we add.
fn seen(rule: &str, head: &http::Request<()>, version: &str, expected: &[(&str, &str)]) {
    let map = head.headers();
    assert_eq!(map["via"], format!("{version} evenkeel"), "{rule}");
    let ours = ["via", "x-request-id"];
    let fields = map
        .iter()
        .map(|(n, v)| (n.as_str(), v.to_str().expect("ASCII")));
    let others = fields.filter(|(n, _)| !ours.contains(n) && !n.starts_with("x-forwarded-"));
    assert_eq!(others.collect::<Vec<_>>(), expected, "{rule}");
}
