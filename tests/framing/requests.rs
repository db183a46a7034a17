//! What clients send, and what must become of it.

use crate::bench::{Answer, Bench, Row, TRUSTED, Talk, got, passes, refused};
use crate::support::backend::Step;

#[test]
fn request_lines_and_targets() {
    let mut rows = vec![
        passes(
            "9112 §3 plain",
            "GET /p?q HTTP/1.1\r\nHost: a\r\n\r\n",
            got("GET /p?q"),
        ),
        passes(
            "9112 §2.2 one empty line before the request line",
            "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            got("GET /"),
        ),
        passes(
            "9110 §9.1 a method nobody knows",
            "PROPFIND / HTTP/1.1\r\nHost: a\r\n\r\n",
            got("PROPFIND /"),
        ),
        passes(
            "9110 §9.1 methods are case-sensitive",
            "get / HTTP/1.1\r\nHost: a\r\n\r\n",
            got("get /"),
        ),
        passes(
            "9110 §9.3.8 TRACE",
            "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n",
            got("TRACE /"),
        ),
        passes(
            "9110 §2.5 a higher minor version is read as 1.1",
            "GET / HTTP/1.2\r\nHost: a\r\n\r\n",
            got("GET /"),
        ),
        passes(
            "9112 §3.2.2 absolute form",
            "GET http://a/p?q HTTP/1.1\r\nHost: a\r\n\r\n",
            got("GET /p?q"),
        ),
        passes(
            "9112 §3.2.2 the target's authority takes the place of Host",
            "GET http://a/p HTTP/1.1\r\nHost: b\r\n\r\n",
            got("GET /p"),
        ),
        passes(
            "9110 §4.2.2 absolute form with https",
            "GET https://a:8443/p HTTP/1.1\r\nHost: a\r\n\r\n",
            got("GET /p").host("a:8443"),
        ),
        passes(
            "9110 §4.2.3 a scheme in capitals, no path",
            "GET HTTP://a HTTP/1.1\r\nHost: a\r\n\r\n",
            got("GET /"),
        ),
        passes(
            "9110 §4.2.3 no path but a query",
            "GET http://a?q HTTP/1.1\r\nHost: a\r\n\r\n",
            got("GET /?q"),
        ),
        passes(
            "9112 §3.2.4 OPTIONS *",
            "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
            got("OPTIONS *"),
        ),
        passes(
            "9112 §3.2.4 OPTIONS of an authority becomes *",
            "OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n",
            got("OPTIONS *"),
        ),
        passes(
            "9110 §9.3.7 OPTIONS of a path",
            "OPTIONS /p HTTP/1.1\r\nHost: a\r\n\r\n",
            got("OPTIONS /p"),
        ),
    ];
    for (rule, status, line) in [
        (
            "9112 §3 two spaces before the target",
            400,
            "GET  / HTTP/1.1",
        ),
        (
            "9112 §3 two spaces before the version",
            400,
            "GET /  HTTP/1.1",
        ),
        ("9112 §3 a tab for a space", 400, "GET\t/ HTTP/1.1"),
        ("9112 §3 a space after the version", 400, "GET / HTTP/1.1 "),
        ("9112 §3 a space in front", 400, " GET / HTTP/1.1"),
        ("9112 §3 a space in the target", 400, "GET /a b HTTP/1.1"),
        ("9112 §3 no version (HTTP/0.9)", 400, "GET /"),
        ("9112 §3 a method alone", 400, "GET"),
        ("9112 §3 no method", 400, "/ HTTP/1.1"),
        ("9110 §9.1 a method that is no token", 400, "G(T / HTTP/1.1"),
        (
            "9112 §2.3 a version in small letters",
            400,
            "GET / http/1.1",
        ),
        (
            "9112 §2.3 a version with three digits",
            400,
            "GET / HTTP/1.10",
        ),
        ("9112 §2.3 a version without a minor", 400, "GET / HTTP/1"),
        ("9112 §2.3 another protocol", 400, "GET / ICY/1.1"),
        ("9110 §15.6.6 major version 2", 505, "GET / HTTP/2.0"),
        ("9113 §3.4 the preface of HTTP/2", 505, "PRI * HTTP/2.0"),
        ("9110 §15.6.6 major version 0", 505, "GET / HTTP/0.9"),
        ("9112 §3.2.4 * without OPTIONS", 400, "GET * HTTP/1.1"),
        ("9110 §9.3.6 CONNECT", 405, "CONNECT a:443 HTTP/1.1"),
        ("9110 §9.3.6 CONNECT with a path", 405, "CONNECT / HTTP/1.1"),
        (
            "9112 §3.2.3 authority form without CONNECT",
            400,
            "GET a:80 HTTP/1.1",
        ),
        (
            "9112 §3.2 a target that is no form at all",
            400,
            "GET p HTTP/1.1",
        ),
        ("9112 §3.2.2 another scheme", 400, "GET ftp://a/ HTTP/1.1"),
        (
            "9110 §4.2.4 user information",
            400,
            "GET http://u:p@a/ HTTP/1.1",
        ),
        (
            "9110 §4.2.1 an empty authority",
            400,
            "GET http:///p HTTP/1.1",
        ),
        ("9112 §3.2 a fragment", 400, "GET /p#f HTTP/1.1"),
        (
            "3986 §2 a byte above ASCII in the target",
            400,
            "GET /\u{e9} HTTP/1.1",
        ),
        (
            "3986 §2 a control character in the target",
            400,
            "GET /\x01 HTTP/1.1",
        ),
        ("9112 §2.2 NUL in the request line", 400, "GET /\0 HTTP/1.1"),
        (
            "9112 §2.2 a bare CR in the request line",
            400,
            "GET /\r HTTP/1.1",
        ),
    ] {
        rows.push(refused(rule, status, format!("{line}\r\nHost: a\r\n\r\n")));
    }
    rows.push(refused(
        "9112 §2.2 two empty lines before the request line",
        400,
        "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ));
    rows.push(refused(
        "9112 §2.2 a bare LF before the request line",
        400,
        "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ));
    rows.push(refused(
        "9112 §2.2 a bare LF after the request line",
        400,
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
    ));
    let long = "x".repeat(40_000);
    rows.push(refused(
        "9112 §3 a request line that is too long",
        414,
        format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"),
    ));
    rows.push(refused(
        "6585 §5 a head that is too large",
        431,
        format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n"),
    ));
    rows.push(refused(
        "6585 §5 too many fields",
        431,
        format!(
            "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
            "X: 1\r\n".repeat(100)
        ),
    ));
    rows.push(passes(
        "6585 §5 as many fields as there may be",
        format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: 1\r\n".repeat(99)),
        got("GET /").fields(&"X: 1\r\n".repeat(99)),
    ));
    assert_eq!(Bench::start().try_all(rows), 51);
}

#[test]
fn heads_as_large_as_may_be_allowed() {
    let frame = "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n".len();
    let head = |bytes: usize| {
        let value = "x".repeat(bytes - frame);
        format!("GET / HTTP/1.1\r\nHost: a\r\nX: {value}\r\n\r\n")
    };
    let most = 63 * 1024;
    let value = "x".repeat(most - frame);
    let rows = vec![
        passes(
            "6585 §5 as large as allowed",
            head(most),
            got("GET /").fields(&format!("X: {value}\r\n")),
        ),
        refused("6585 §5 a byte more", 431, head(most + 1)),
        refused("6585 §5 far more", 431, head(2 * most)),
        refused("6585 §5 without an end", 431, &head(2 * most)[..most + 1]),
    ];
    let mut bench = Bench::with("[limits]\nheader_bytes = \"63KiB\"\n");
    assert_eq!(bench.try_all(rows), 4);
}

#[test]
fn hosts() {
    let mut rows = Vec::new();
    for (rule, host, as_got) in [
        ("9110 §7.2 with a port", "a:8080", "a:8080"),
        ("3986 §3.2.3 an empty port is left out", "a:", "a"),
        ("3986 §3.2.2 an IPv6 address", "[::1]", "[::1]"),
        (
            "3986 §3.2.2 an IPv6 address and port",
            "[::1]:80",
            "[::1]:80",
        ),
        ("3986 §3.2.2 an IPv4 address", "192.0.2.1", "192.0.2.1"),
        (
            "3986 §3.2.2 capitals are passed on",
            "A.Example",
            "A.Example",
        ),
        (
            "1034 §3.1 a final dot is passed on",
            "a.example.",
            "a.example.",
        ),
        ("9110 §5.5 white space around it", " \ta\t ", "a"),
        ("1123 §2.1 an underscore, which DNS allows", "a_b", "a_b"),
    ] {
        rows.push(passes(
            rule,
            format!("GET / HTTP/1.1\r\nHost:{host}\r\n\r\n"),
            got("GET /").host(as_got),
        ));
    }
    for (rule, host) in [
        ("9112 §3.2 empty", ""),
        ("9112 §3.2 a space in it", "a b"),
        ("9112 §3.2 a list", "a, b"),
        ("9112 §3.2 a path", "a/b"),
        ("9112 §3.2 user information", "u@a"),
        ("3986 §3.2.3 a port that is no number", "a:x"),
        ("3986 §3.2.3 a port out of range", "a:65536"),
        ("3986 §3.2.3 two ports", "a:1:2"),
        ("3986 §3.2.3 a port alone", ":80"),
        ("3986 §3.2.2 an IPv6 address that does not end", "[::1"),
        ("3986 §3.2.2 something after an IPv6 address", "[::1]x"),
        ("3986 §3.2.2 no IPv6 address in brackets", "[a]"),
        ("3986 §3.2.2 an escape", "%61"),
        ("3986 §3.2.2 a query", "a?b"),
        ("3986 §3.2.2 a backslash", "a\\b"),
        ("1034 §3.1 an empty label", "a..b"),
        ("3986 §3.2.2 a byte above ASCII", "\u{e9}"),
    ] {
        rows.push(refused(
            rule,
            400,
            format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        ));
    }
    for (rule, request) in [
        ("9112 §3.2 no Host", "GET / HTTP/1.1\r\n\r\n"),
        (
            "9112 §3.2 no Host, absolute form",
            "GET http://a/ HTTP/1.1\r\n\r\n",
        ),
        (
            "9112 §3.2 Host twice",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        ),
        (
            "9112 §3.2 the same Host twice",
            "GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n",
        ),
        (
            "9112 §3.2.2 a malformed Host is one, whatever the target says",
            "GET http://a/ HTTP/1.1\r\nHost: a b\r\n\r\n",
        ),
        (
            "9112 §3.2 Host twice in HTTP/1.0",
            "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
        ),
    ] {
        rows.push(refused(rule, 400, request));
    }
    assert_eq!(Bench::start().try_all(rows), 32);
}

#[test]
fn field_lines() {
    let mut rows = Vec::new();
    for (rule, line, as_got) in [
        (
            "9112 §5 as it is, name and value",
            "x-UP: V1; \"q\"",
            "x-UP: V1; \"q\"",
        ),
        ("9112 §5.1 white space around a value", "X: \t v \t", "X: v"),
        ("9112 §5.1 no white space at all", "X:v", "X: v"),
        ("9110 §5.5 an empty value", "X:", "X: "),
        ("9110 §5.5 a tab inside", "X: a\tb", "X: a\tb"),
        (
            "9110 §5.5 bytes above ASCII",
            "X: \u{e9}",
            "X: \u{c3}\u{a9}",
        ),
        (
            "9110 §5.6.2 every sign a name may have",
            "!#$%&'*+-.^`|~: 1",
            "!#$%&'*+-.^`|~: 1",
        ),
        (
            "9110 §5.3 repeated fields stay apart",
            "X: 1\r\nX: 2",
            "X: 1\r\nX: 2",
        ),
    ] {
        rows.push(passes(
            rule,
            format!("GET / HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n"),
            got("GET /").fields(&format!("{as_got}\r\n")),
        ));
    }
    for (rule, line) in [
        ("9112 §5.1 a space before the colon", "X : 1"),
        ("9112 §5.1 a tab before the colon", "X\t: 1"),
        (
            "9112 §5.1 the same before a Content-Length",
            "Content-Length : 0",
        ),
        (
            "9112 §5.1 the same before a Transfer-Encoding",
            "Transfer-Encoding : chunked",
        ),
        ("9112 §5.2 a folded line", "X: 1\r\n 2"),
        ("9112 §5.2 folded with a tab", "X: 1\r\n\t2"),
        ("9112 §5.2 folded with nothing on it", "X: 1\r\n "),
        ("9112 §5 no name", ": 1"),
        ("9112 §5 no colon", "X"),
        ("9110 §5.6.2 a name that is no token", "X@Y: 1"),
        ("9110 §5.6.2 a name in brackets", "(X): 1"),
        ("9110 §5.6.2 a byte above ASCII in a name", "\u{e9}: 1"),
        ("9110 §5.5 NUL", "X: a\0b"),
        ("9110 §5.5 another control character", "X: a\x01b"),
        ("9110 §5.5 DEL", "X: a\x7fb"),
        ("9112 §2.2 a bare CR in a value", "X: a\rb"),
        ("9112 §2.2 a bare CR at the end of a value", "X: a\r"),
        ("9112 §2.2 a bare LF ends a line", "X: a\nY: b"),
        (
            "9112 §11.2 a bare LF hides a field",
            "X: a\nContent-Length: 5",
        ),
    ] {
        rows.push(refused(
            rule,
            400,
            format!("GET / HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n"),
        ));
    }
    rows.push(refused(
        "9112 §2.2 bare LFs end the head",
        400,
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
    ));
    rows.push(refused(
        "9112 §2.2 all lines end with a bare LF",
        400,
        "GET / HTTP/1.1\nHost: a\n\n",
    ));
    rows.push(refused(
        "9112 §5.2 the first field line is folded",
        400,
        "GET / HTTP/1.1\r\n Host: a\r\nHost: a\r\n\r\n",
    ));
    assert_eq!(Bench::start().try_all(rows), 30);
}

#[test]
fn lengths() {
    let mut rows = Vec::new();
    for (rule, length, body) in [
        ("9112 §6.3 step 6", "3", "abc"),
        ("9112 §6.2 nought", "0", ""),
        ("9110 §8.6 leading noughts", "0003", "abc"),
        ("9110 §5.5 white space around", " \t3\t", "abc"),
    ] {
        rows.push(passes(
            rule,
            format!("POST /p HTTP/1.1\r\nHost: a\r\nContent-Length:{length}\r\n\r\n{body}"),
            got("POST /p").length(body),
        ));
    }
    for (rule, length) in [
        ("9112 §6.3 step 5 a list of the same", "3, 3"),
        ("9112 §6.3 step 5 a list of different ones", "3, 4"),
        ("9112 §6.3 step 5 a list with nothing in it", ","),
        ("9112 §6.3 step 5 empty", ""),
        ("9110 §8.6 a plus", "+3"),
        ("9110 §8.6 a minus", "-3"),
        ("9110 §8.6 hexadecimal", "0x3"),
        ("9110 §8.6 a fraction", "3.0"),
        ("9110 §8.6 an exponent", "3e0"),
        ("9110 §8.6 a space inside", "3 3"),
        ("9110 §8.6 a word", "abc"),
        ("9110 §8.6 something after it", "3;a"),
        ("9110 §8.6 quotes", "\"3\""),
        ("9110 §8.6 more than 63 bits", "9223372036854775808"),
        ("9110 §8.6 more than 64 bits", "18446744073709551619"),
        ("9110 §8.6 far more", "999999999999999999999999999999"),
    ] {
        rows.push(refused(
            rule,
            400,
            format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\nabc"),
        ));
    }
    for (rule, fields) in [
        (
            "9112 §6.3 step 5 twice the same",
            "Content-Length: 3\r\nContent-Length: 3",
        ),
        (
            "9112 §6.3 step 5 twice, different",
            "Content-Length: 3\r\ncontent-length: 4",
        ),
        (
            "9112 §6.3 step 5 one of them empty",
            "Content-Length: 3\r\nContent-Length:",
        ),
        (
            "9112 §6.3 step 3 with a coding",
            "Content-Length: 3\r\nTransfer-Encoding: chunked",
        ),
        (
            "9112 §6.3 step 3 after a coding",
            "Transfer-Encoding: chunked\r\nContent-Length: 3",
        ),
        (
            "9112 §6.3 step 3 with an unknown coding",
            "Content-Length: 3\r\nTransfer-Encoding: x",
        ),
        (
            "9112 §6.3 step 3 with an empty coding",
            "Content-Length: 3\r\nTransfer-Encoding:",
        ),
    ] {
        rows.push(refused(
            rule,
            400,
            format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\nabc"),
        ));
    }
    rows.push(passes(
        "9110 §9.3.1 a GET may have a body",
        "GET /p HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
        got("GET /p").length("abc"),
    ));
    rows.push(passes(
        "9112 §6.3 step 7 no framing, no body",
        "POST /p HTTP/1.1\r\nHost: a\r\n\r\n",
        got("POST /p"),
    ));
    rows.push(
        Row::new(
            "9112 §8 a body that ends too early",
            "POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabc",
        )
        .talk([Talk::Finish])
        .answer(Answer::Own(400))
        .closed()
        .got(got("POST /p").end("Content-Length: 5\r\n\r\nabc")),
    );
    rows.push(
        Row::new(
            "9112 §8 a head that ends too early",
            "GET /p HTTP/1.1\r\nHost: a\r\n",
        )
        .talk([Talk::Finish])
        .answer(Answer::Own(400))
        .closed(),
    );
    rows.push(
        Row::new(
            "9112 §9.6 a client that has said all may still read",
            "POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
        )
        .talk([Talk::Finish])
        .answer(Answer::Echo)
        .closed()
        .got(got("POST /p").length("abc")),
    );
    assert_eq!(Bench::start().try_all(rows), 32);
}

#[test]
fn transfer_codings() {
    let mut rows = Vec::new();
    for (rule, coding) in [
        ("9112 §7.1 chunked", "chunked"),
        ("9112 §7 codings are case-insensitive", "CHUNKED"),
        ("9110 §5.5 white space around", " \tchunked\t"),
    ] {
        rows.push(passes(
            rule,
            format!("POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:{coding}\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
            got("POST /p").chunked("3\r\nabc\r\n0\r\n\r\n"),
        ));
    }
    for (rule, status, coding) in [
        ("9112 §6.1 unknown, then chunked", 501, "gzip, chunked"),
        (
            "9112 §6.1 unknown in a field of its own",
            501,
            "gzip\r\nTransfer-Encoding: chunked",
        ),
        (
            "9112 §6.1 two unknown, then chunked",
            501,
            "gzip, x, chunked",
        ),
        (
            "9112 §6.1 identity is no coding any more",
            501,
            "identity, chunked",
        ),
        (
            "9112 §6.3 step 4 chunked is not the last",
            400,
            "chunked, gzip",
        ),
        (
            "9112 §6.3 step 4 the same in two fields",
            400,
            "chunked\r\nTransfer-Encoding: gzip",
        ),
        ("9112 §6.3 step 4 not chunked at all", 400, "gzip"),
        ("9112 §6.3 step 4 identity alone", 400, "identity"),
        (
            "9112 §6.3 step 4 identity at the end",
            400,
            "chunked, identity",
        ),
        ("9112 §6.1 chunked twice", 400, "chunked, chunked"),
        (
            "9112 §6.1 chunked in two fields",
            400,
            "chunked\r\nTransfer-Encoding: chunked",
        ),
        ("9112 §7 empty", 400, ""),
        ("9112 §7 an empty member at the end", 400, "chunked,"),
        ("9112 §7.1 chunked has no parameters", 400, "chunked;q=1"),
        ("9112 §7 another word that starts so", 400, "chunkedx"),
        ("9112 §7 another word that ends so", 400, "xchunked"),
        ("9112 §7 quotes", 400, "\"chunked\""),
        (
            "9110 §5.5 a vertical tab is no white space",
            400,
            "\x0bchunked",
        ),
        (
            "9110 §5.6.3 a no-break space is none either",
            400,
            "\u{a0}chunked",
        ),
    ] {
        rows.push(refused(
            rule,
            status,
            format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: {coding}\r\n\r\n0\r\n\r\n"),
        ));
    }
    rows.push(refused(
        "9112 §6.1 a coding in HTTP/1.0",
        400,
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ));
    rows.push(
        Row::new(
            "9112 §11.2 an underscore makes it another field, which is dropped",
            "POST /p HTTP/1.1\r\nHost: a\r\nTransfer_Encoding: chunked\r\n\r\n0\r\n\r\n",
        )
        .answer(Answer::Echo)
        .answer(Answer::Own(400))
        .closed()
        .got(got("POST /p")),
    );
    assert_eq!(Bench::start().try_all(rows), 24);
}

#[test]
fn chunked_bodies() {
    let mut rows = Vec::new();
    let request = |body: &str| {
        format!("POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}")
    };
    let big = "x".repeat(0x1a);
    let big_chunk = format!("1A\r\n{big}\r\n0\r\n\r\n");
    let big_out = format!("1a\r\n{big}\r\n0\r\n\r\n");
    for (rule, body, as_got) in [
        ("9112 §7.1 no data", "0\r\n\r\n", "0\r\n\r\n"),
        (
            "9112 §7.1 two chunks",
            "1\r\na\r\n2\r\nbc\r\n0\r\n\r\n",
            "1\r\na\r\n2\r\nbc\r\n0\r\n\r\n",
        ),
        ("9112 §7.1 hexadecimal in capitals", &big_chunk, &big_out),
        (
            "9112 §7.1 leading noughts",
            "0003\r\nabc\r\n00\r\n\r\n",
            "3\r\nabc\r\n0\r\n\r\n",
        ),
        (
            "9112 §7.1.1 extensions are dropped",
            "3;a=b\r\nabc\r\n0;c\r\n\r\n",
            "3\r\nabc\r\n0\r\n\r\n",
        ),
        (
            "9112 §7.1.1 a quoted extension",
            "3;a=\"\\\";\"\r\nabc\r\n0\r\n\r\n",
            "3\r\nabc\r\n0\r\n\r\n",
        ),
        (
            "9112 §7.1.2 trailers go on as trailers",
            "0\r\nX-Sum: 1\r\nY: 2\r\n\r\n",
            "0\r\nX-Sum: 1\r\nY: 2\r\n\r\n",
        ),
        (
            "9110 §6.5.1 framing in a trailer",
            "0\r\nContent-Length: 5\r\nX: 1\r\n\r\n",
            "0\r\nX: 1\r\n\r\n",
        ),
        (
            "9110 §6.5.1 a coding in a trailer",
            "0\r\nTransfer-Encoding: chunked\r\n\r\n",
            "0\r\n\r\n",
        ),
        (
            "9110 §6.5.1 routing in a trailer",
            "0\r\nHost: b\r\n\r\n",
            "0\r\n\r\n",
        ),
        (
            "9110 §6.5.1 authentication in a trailer",
            "0\r\nAuthorization: x\r\nCookie: y\r\n\r\n",
            "0\r\n\r\n",
        ),
        (
            "9110 §6.5.1 what we set, in a trailer",
            "0\r\nX-Forwarded-For: 1\r\nVia: x\r\n\r\n",
            "0\r\n\r\n",
        ),
        (
            "9110 §6.5.1 what belongs to a hop, in a trailer",
            "0\r\nConnection: close\r\nUpgrade: x\r\n\r\n",
            "0\r\n\r\n",
        ),
        (
            "9110 §6.5.1 an underscore in a trailer",
            "0\r\nX_Y: 1\r\n\r\n",
            "0\r\n\r\n",
        ),
        (
            "9112 §7.1 data that looks like framing",
            "7\r\n0\r\n\r\nab\r\n0\r\n\r\n",
            "7\r\n0\r\n\r\nab\r\n0\r\n\r\n",
        ),
    ] {
        rows.push(passes(rule, request(body), got("POST /p").chunked(as_got)));
    }
    rows.push(passes(
        "9110 §7.6.1 trailers that Connection names",
        "POST /p HTTP/1.1\r\nHost: a\r\nConnection: x-hop, Y\r\nTransfer-Encoding: chunked\r\n\r\n\
         0\r\nX-Hop: 1\r\nX: 2\r\ny: 3\r\n\r\n",
        got("POST /p").chunked("0\r\nX: 2\r\n\r\n"),
    ));
    let long = "x".repeat(5_000);
    for (rule, body) in [
        ("9112 §7.1 no size", "\r\nabc\r\n0\r\n\r\n".to_owned()),
        (
            "9112 §7.1 a size that is no number",
            "g\r\nabc\r\n0\r\n\r\n".into(),
        ),
        ("9112 §7.1 0x", "0x3\r\nabc\r\n0\r\n\r\n".into()),
        ("9112 §7.1 a minus", "-3\r\nabc\r\n0\r\n\r\n".into()),
        ("9112 §7.1 a plus", "+3\r\nabc\r\n0\r\n\r\n".into()),
        ("9112 §7.1 a space before", " 3\r\nabc\r\n0\r\n\r\n".into()),
        ("9112 §7.1.1 a space after", "3 \r\nabc\r\n0\r\n\r\n".into()),
        (
            "9112 §7.1.1 a space before an extension",
            "3 ;a\r\nabc\r\n0\r\n\r\n".into(),
        ),
        ("9112 §7.1 an underscore", "1_0\r\nabc\r\n0\r\n\r\n".into()),
        (
            "9112 §7.1 more than 64 bits",
            "10000000000000003\r\nabc\r\n0\r\n\r\n".into(),
        ),
        (
            "9112 §7.1 far more",
            "fffffffffffffffffffffffff\r\nabc\r\n0\r\n\r\n".into(),
        ),
        (
            "9112 §7.1 noughts without end",
            format!("{}3\r\nabc\r\n0\r\n\r\n", "0".repeat(40)),
        ),
        (
            "9112 §2.2 a bare LF after a size",
            "3\nabc\r\n0\r\n\r\n".into(),
        ),
        (
            "9112 §2.2 a bare CR after a size",
            "3\rabc\r\n0\r\n\r\n".into(),
        ),
        (
            "9112 §7.1 data is longer than its size",
            "3\r\nabcd\r\n0\r\n\r\n".into(),
        ),
        (
            "9112 §7.1 data is shorter than its size",
            "3\r\nab\r\n0\r\n\r\n".into(),
        ),
        (
            "9112 §7.1 a bare LF after data",
            "3\r\nabc\n0\r\n\r\n".into(),
        ),
        ("9112 §7.1 nothing after data", "3\r\nabc0\r\n\r\n".into()),
        (
            "9112 §7.1.1 a bare LF in an extension",
            "3;a\n\r\nabc\r\n0\r\n\r\n".into(),
        ),
        (
            "9112 §7.1.1 a bare CR in an extension",
            "3;a\rb\r\nabc\r\n0\r\n\r\n".into(),
        ),
        (
            "9112 §7.1.1 NUL in an extension",
            "3;a\0\r\nabc\r\n0\r\n\r\n".into(),
        ),
        (
            "9112 §7.1.1 extensions that are too long",
            format!("3;{long}\r\nabc\r\n0\r\n\r\n"),
        ),
        (
            "9112 §7.1.2 a trailer without a colon",
            "0\r\nX\r\n\r\n".into(),
        ),
        (
            "9112 §5.1 a space before a trailer's colon",
            "0\r\nX : 1\r\n\r\n".into(),
        ),
        (
            "9112 §5.2 a folded trailer",
            "0\r\nX: 1\r\n 2\r\n\r\n".into(),
        ),
        (
            "9112 §2.2 a bare LF in the trailers",
            "0\r\nX: 1\n\r\n".into(),
        ),
        ("9112 §2.2 a bare LF for the end", "0\r\n\n".into()),
        ("9110 §5.5 NUL in a trailer", "0\r\nX: \0\r\n\r\n".into()),
        (
            "9112 §7.1.2 trailers that are too large",
            format!("0\r\n{}", format!("X: {long}\r\n").repeat(4)),
        ),
    ] {
        rows.push(refused(rule, 400, request(&body)));
    }
    rows.push(
        Row::new(
            "9112 §8 a chunked body that ends too early",
            request("3\r\nabc\r\n"),
        )
        .talk([Talk::Finish])
        .answer(Answer::Own(400))
        .closed()
        .got(got("POST /p").chunked("3\r\nabc\r\n")),
    );
    rows.push(
        Row::new(
            "9112 §7.1 the next request starts right after the last chunk",
            request("3\r\nabc\r\n0\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n"),
        )
        .answer(Answer::Echo)
        .answer(Answer::Echo)
        .got(got("POST /p").chunked("3\r\nabc\r\n0\r\n\r\n"))
        .got(got("GET /2")),
    );
    assert_eq!(Bench::start().try_all(rows), 47);
}

#[test]
fn versions_and_persistence() {
    let rows = vec![
        Row::new(
            "9112 §9.3 HTTP/1.0 does not persist",
            "GET /p HTTP/1.0\r\nHost: a\r\n\r\n",
        )
        .answer(Answer::Echo)
        .closed()
        .got(got("GET /p").via("1.0")),
        Row::new("9112 §3.2 HTTP/1.0 without Host", "GET /p HTTP/1.0\r\n\r\n")
            .answer(Answer::Echo)
            .closed()
            .got(got("GET /p").via("1.0").host("")),
        Row::new(
            "9112 §3.2 HTTP/1.0 with an empty Host",
            "GET /p HTTP/1.0\r\nHost:\r\n\r\n",
        )
        .answer(Answer::Echo)
        .closed()
        .got(got("GET /p").via("1.0").host("")),
        Row::new(
            "9112 §3.2.2 HTTP/1.0, absolute form",
            "GET http://a/p HTTP/1.0\r\n\r\n",
        )
        .answer(Answer::Echo)
        .closed()
        .got(got("GET /p").via("1.0")),
        Row::new(
            "9112 §9.3 HTTP/1.0 with keep-alive",
            "GET /p HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
        )
        .answer(Answer::Raw(
            "HTTP/1.1 200 OK\r\nX-Backend: main\r\nContent-Length: 7\r\n\
             Connection: keep-alive\r\n\r\nGET /p ",
        ))
        .got(got("GET /p").via("1.0")),
        Row::new(
            "9112 §9.3 HTTP/1.0 with keep-alive and close",
            "GET /p HTTP/1.0\r\nHost: a\r\nConnection: keep-alive, close\r\n\r\n",
        )
        .answer(Answer::Echo)
        .closed()
        .got(got("GET /p").via("1.0")),
        Row::new(
            "9112 §6.2 HTTP/1.0 with a body",
            "POST /p HTTP/1.0\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
        )
        .answer(Answer::Echo)
        .closed()
        .got(got("POST /p").via("1.0").length("abc")),
        Row::new(
            "9112 §9.6 close",
            "GET /p HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        )
        .answer(Answer::Raw(
            "HTTP/1.1 200 OK\r\nX-Backend: main\r\nContent-Length: 7\r\n\
             Connection: close\r\n\r\nGET /p ",
        ))
        .closed()
        .got(got("GET /p")),
        Row::new(
            "9112 §9.6 close in a list, in capitals",
            "GET /p HTTP/1.1\r\nHost: a\r\nConnection: x, CLOSE\r\n\r\n",
        )
        .answer(Answer::Echo)
        .closed()
        .got(got("GET /p")),
        Row::new(
            "9112 §9.6 nothing is read after close",
            "GET /p HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n\
             GET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
        )
        .answer(Answer::Echo)
        .closed()
        .got(got("GET /p")),
        passes(
            "9112 §9.3 keep-alive is the default, saying so changes nothing",
            "GET /p HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\n\r\n",
            got("GET /p"),
        ),
    ];
    assert_eq!(Bench::start().try_all(rows), 11);
}

#[test]
fn pipelining_and_head() {
    let large = "x".repeat(700_000);
    let many: String = (0..20)
        .map(|n| format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n"))
        .collect();
    let mut all = Row::new("9112 §9.3.2 twenty requests in one write", many);
    for n in 0..20 {
        all = all.answer(Answer::Echo).got(got(&format!("GET /{n}")));
    }
    let rows = vec![
        all,
        Row::new(
            "9112 §9.3.2 bodies in between, answered in order",
            "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\
             GET /2 HTTP/1.1\r\nHost: a\r\n\r\n\
             POST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n0\r\n\r\n\
             POST /4 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        )
        .answer(Answer::Echo)
        .answer(Answer::Echo)
        .answer(Answer::Echo)
        .answer(Answer::Echo)
        .got(got("POST /1").length("abc"))
        .got(got("GET /2"))
        .got(got("POST /3").chunked("2\r\nde\r\n0\r\n\r\n"))
        .got(got("POST /4").length("")),
        Row::new(
            "9112 §2.2 an empty line after a body belongs to nobody",
            "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\r\n\
             GET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
        )
        .answer(Answer::Echo)
        .answer(Answer::Echo)
        .got(got("POST /1").length("abc"))
        .got(got("GET /2")),
        Row::new(
            "9112 §2.2 an empty line after a body, and the client is done",
            "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\r\n",
        )
        .talk([Talk::Finish])
        .answer(Answer::Echo)
        .closed()
        .got(got("POST /1").length("abc")),
        Row::new(
            "9112 §9.3.2 a body larger than any buffer, and a request right behind it",
            format!(
                "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{large}\
                 GET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
                large.len()
            ),
        )
        .answer(Answer::Echo)
        .answer(Answer::Echo)
        .got(got("POST /1").length(&large))
        .got(got("GET /2")),
        Row::new(
            "9112 §9.6 a large body that nobody gets does not destroy the answer",
            format!(
                "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{large}",
                large.len() + 1
            ),
        )
        .at_bare()
        .answer(Answer::Own(404))
        .closed(),
        Row::new(
            "9112 §9.6 nor does one behind a head that is refused",
            format!("POST /1 HTTP/1.1\r\n\r\n{large}"),
        )
        .answer(Answer::Own(400))
        .closed(),
        Row::new(
            "9112 §9.3.2 a good one, then a bad one",
            "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\n\r\n",
        )
        .answer(Answer::Echo)
        .answer(Answer::Own(400))
        .closed()
        .got(got("GET /1")),
        Row::new(
            "9112 §11.2 bytes after a request without a body are another request",
            "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nabc\r\n\r\n",
        )
        .answer(Answer::Echo)
        .answer(Answer::Own(400))
        .closed()
        .got(got("GET /1")),
        Row::new(
            "9110 §9.3.2 HEAD has no body",
            "HEAD /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
        )
        .answer(Answer::EchoToHead)
        .answer(Answer::Echo)
        .got(got("HEAD /1"))
        .got(got("GET /2")),
        Row::new(
            "9110 §9.3.2 our own answer to HEAD has none either",
            "HEAD /1 HTTP/1.1\r\nHost: a\r\n\r\n",
        )
        .at_bare()
        .answer(Answer::OwnToHead(404)),
        Row::new(
            "9112 §9.3 a body that no backend gets is read over",
            "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\
             POST /2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n\
             GET /3 HTTP/1.1\r\nHost: a\r\n\r\n",
        )
        .at_bare()
        .answer(Answer::Own(404))
        .answer(Answer::Own(404))
        .answer(Answer::Own(404)),
        Row::new(
            "9112 §9.3 one that is not all there closes the connection",
            "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabc",
        )
        .at_bare()
        .answer(Answer::Own(404))
        .closed(),
        Row::new(
            "9110 §15.6.4 nobody to send it to; the connection goes on",
            "POST /absent HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
        )
        .answer(Answer::Own(503)),
    ];
    assert_eq!(Bench::start().try_all(rows), 14);
}

#[test]
fn fields_of_one_hop() {
    let mut rows = Vec::new();
    for (rule, fields, as_got) in [
        (
            "9110 §7.6.1 a field that Connection names",
            "Connection: X\r\nX: 1\r\nY: 2\r\n",
            "Y: 2\r\n",
        ),
        (
            "9110 §7.6.1 names in a list, any case",
            "connection: x , Y,\r\nX: 1\r\ny: 2\r\nZ: 3\r\n",
            "Z: 3\r\n",
        ),
        (
            "9110 §7.6.1 two Connection fields",
            "Connection: x\r\nX: 1\r\nConnection: y\r\nY: 2\r\n",
            "",
        ),
        ("9110 §7.6.1 Keep-Alive", "Keep-Alive: timeout=5\r\n", ""),
        (
            "9110 §7.6.1 Proxy-Connection",
            "Proxy-Connection: keep-alive\r\n",
            "",
        ),
        (
            "9110 §10.1.4 TE",
            "TE: trailers, gzip\r\nConnection: TE\r\n",
            "",
        ),
        ("9110 §6.6.2 Trailer", "Trailer: X\r\n", ""),
        ("9110 §7.6.1 naming Host", "Connection: Host\r\n", ""),
        (
            "9110 §7.6.1 naming what we set",
            "Connection: X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host, Via, X-Request-Id\r\n",
            "",
        ),
        (
            "9110 §7.6.1 naming credentials",
            "Connection: Authorization, Cookie\r\nAuthorization: x\r\nCookie: y\r\n",
            "Authorization: x\r\nCookie: y\r\n",
        ),
        (
            "9110 §7.6.3 Via is appended to",
            "Via: 1.0 other\r\n",
            "Via: 1.0 other\r\n",
        ),
        (
            "9110 §11.7.2 Proxy-Authorization is another's to read",
            "Proxy-Authorization: x\r\n",
            "Proxy-Authorization: x\r\n",
        ),
        (
            "trace context is passed on",
            "traceparent: 00-1-2-01\r\ntracestate: a=b\r\nConnection: traceparent\r\n",
            "traceparent: 00-1-2-01\r\ntracestate: a=b\r\n",
        ),
        (
            "9110 §7.8 h2c is never passed on",
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
            "",
        ),
        (
            "9110 §7.8 h2c beside websocket",
            "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n",
            "",
        ),
        (
            "9110 §7.8 an upgrade that is not listed",
            "Connection: Upgrade\r\nUpgrade: irc/6.9\r\n",
            "",
        ),
        (
            "9110 §7.8 Upgrade that Connection does not name",
            "Upgrade: websocket\r\n",
            "",
        ),
        (
            "names with an underscore are dropped",
            "X_A: 1\r\nContent_Length: 5\r\nX-A: 2\r\n",
            "X-A: 2\r\n",
        ),
        (
            "7239 §8.1 an untrusted client's word is not passed on",
            "X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Port: 1\r\n\
             X-Forwarded-Prefix: /x\r\nX-Forwarded-Client-Cert: x\r\nForwarded: for=1.1.1.1\r\nX-Real-IP: 1.1.1.1\r\nX-Request-Id: mine\r\n",
            "",
        ),
        (
            "9440 §2 nor about its certificate",
            "Client-Cert: :x:\r\nClient-Cert-Chain: :x:\r\nX-SSL-Client-Cert: x\r\nX-SSL-Client-Verify: SUCCESS\r\nSSL-Client-Cert: x\r\nX-Client-Cert: x\r\nX-Client-Verify: x\r\n",
            "",
        ),
    ] {
        rows.push(passes(
            rule,
            format!("GET /p HTTP/1.1\r\nHost: a\r\n{fields}\r\n"),
            got("GET /p").fields(as_got),
        ));
    }
    rows.push(passes(
        "9110 §7.6.1 naming Content-Length",
        "POST /p HTTP/1.1\r\nHost: a\r\nConnection: Content-Length\r\nContent-Length: 3\r\n\r\nabc",
        got("POST /p").length("abc"),
    ));
    rows.push(passes(
        "9110 §7.6.1 naming Transfer-Encoding",
        "POST /p HTTP/1.1\r\nHost: a\r\nConnection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
        got("POST /p").chunked("1\r\na\r\n0\r\n\r\n"),
    ));
    rows.push(passes(
        "9110 §7.8 no upgrade together with a body",
        "POST /p HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 3\r\n\r\nabc",
        got("POST /p").length("abc"),
    ));
    rows.push(
        Row::new(
            "9110 §7.8 HTTP/1.0 has no upgrade",
            "GET /p HTTP/1.0\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        )
        .answer(Answer::Echo)
        .closed()
        .got(got("GET /p").via("1.0")),
    );
    rows.push(
        passes(
            "7239 §5 a trusted proxy's word is kept and appended to",
            "GET /p HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 2.2.2.2\r\n\
             X-Forwarded-Proto: https\r\nX-Forwarded-Host: shop\r\nX-Real-IP: 1.1.1.1\r\n\
             Forwarded: for=1.1.1.1\r\nX-Request-Id: mine\r\nClient-Cert: :x:\r\n\r\n",
            got("GET /p")
                .fields(
                    "X-Forwarded-Proto: https\r\nX-Forwarded-Host: shop\r\nX-Real-IP: 1.1.1.1\r\n\
                     Forwarded: for=1.1.1.1\r\nX-Request-Id: mine\r\nClient-Cert: :x:\r\n",
                )
                .client("1.1.1.1, 2.2.2.2, 127.0.0.2")
                .without_proto()
                .without_forwarded_host()
                .without_id(),
        )
        .from(TRUSTED),
    );
    rows.push(
        passes(
            "7239 §5 a trusted proxy that says nothing",
            "GET /p HTTP/1.1\r\nHost: a\r\n\r\n",
            got("GET /p").client("127.0.0.2"),
        )
        .from(TRUSTED),
    );
    assert_eq!(Bench::start().try_all(rows), 26);
}

#[test]
fn paths() {
    let mut rows = Vec::new();
    for (rule, path, as_got) in [
        ("3986 §5.2.4 one dot", "/a/./b", "/a/b"),
        ("3986 §5.2.4 two dots", "/a/../b", "/b"),
        ("3986 §5.2.4 one dot at the end", "/a/.", "/a/"),
        ("3986 §5.2.4 two dots at the end", "/a/b/..", "/a/"),
        ("3986 §5.2.4 three dots are a name", "/a/.../b", "/a/.../b"),
        (
            "3986 §6.2.2.2 unreserved characters are decoded",
            "/%7Ea%2D%41",
            "/~a-A",
        ),
        ("3986 §6.2.2.2 escaped dots", "/a/%2e%2E/b", "/b"),
        (
            "3986 §2.2 an escaped slash stays",
            "/a%2fb%2Fc",
            "/a%2Fb%2Fc",
        ),
        ("3986 §2.2 an escaped backslash stays", "/a%5cb", "/a%5Cb"),
        (
            "3986 §6.2.2.1 other escapes stay, in one spelling",
            "/%20%c3%a9%25",
            "/%20%C3%A9%25",
        ),
        ("3986 §2.4 nothing is decoded twice", "/%2541", "/%2541"),
        ("3986 §3.3 empty segments stay", "//a//b", "//a//b"),
        (
            "3986 §3.4 a query is left alone",
            "/a?x=/../%00%41\\",
            "/a?x=/../%00%41\\",
        ),
        ("3986 §3.4 a second question mark", "/a??b", "/a??b"),
        (
            "3986 §3.3 signs that need no escape",
            "/a;b=c,d@e!$&'()*+:",
            "/a;b=c,d@e!$&'()*+:",
        ),
    ] {
        rows.push(passes(
            rule,
            format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"),
            got(&format!("GET {as_got}")),
        ));
    }
    for (rule, path) in [
        ("3986 §5.2.4 above the root", "/.."),
        ("3986 §5.2.4 above the root and back", "/../a"),
        ("3986 §5.2.4 above the root further in", "/a/../../b"),
        ("3986 §5.2.4 above the root, escaped", "/%2e%2e/a"),
        ("3986 §2.1 %00", "/a%00b"),
        ("3986 §2.1 an escape that is none", "/a%zz"),
        ("3986 §2.1 half an escape", "/a%4"),
        ("3986 §3.3 a backslash", "/a\\b"),
    ] {
        rows.push(refused(
            rule,
            400,
            format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"),
        ));
    }
    for (rule, path, as_got) in [
        ("a route takes its path", "/secret", "/secret"),
        ("and what is below it", "/secret/x?y", "/secret/x?y"),
        (
            "what was matched is what is forwarded",
            "/x/../secret/y",
            "/secret/y",
        ),
        ("the same, escaped", "/x/%2e%2e/%73ecret", "/secret"),
        ("the same, with a dot", "/./secret", "/secret"),
        (
            "whoever merges slashes is guarded too",
            "//secret",
            "//secret",
        ),
    ] {
        rows.push(
            Row::new(rule, format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"))
                .answer(Answer::Echo)
                .secret_got(got(&format!("GET {as_got}"))),
        );
    }
    for (rule, path, as_got) in [
        ("whole segments only", "/secretx", "/secretx"),
        (
            "an escaped slash is no segment",
            "/secret%2fx",
            "/secret%2Fx",
        ),
        ("out of a route again", "/secret/../x", "/x"),
        ("paths are case-sensitive", "/Secret", "/Secret"),
    ] {
        rows.push(passes(
            rule,
            format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"),
            got(&format!("GET {as_got}")),
        ));
    }
    assert_eq!(Bench::start().try_all(rows), 33);
}

#[test]
fn refused_by_a_service() {
    let rows = vec![
        Row::new(
            "9110 §15.5.14 a length beyond max_body",
            "POST /small HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n01234567890",
        )
        .answer(Answer::Own(413))
        .closed(),
        Row::new(
            "9110 §15.5.14 a length beyond max_body, before any of it was sent",
            "POST /small HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 11\r\n\r\n",
        )
        .answer(Answer::Own(413))
        .closed(),
        Row::new(
            "9110 §15.5.14 chunks beyond max_body",
            "POST /small HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
             b\r\n01234567890\r\n0\r\n\r\n",
        )
        .answer(Answer::Own(413))
        .closed(),
        passes(
            "9110 §15.5.14 as large as it may be",
            "POST /small HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
             a\r\n0123456789\r\n0\r\n\r\n",
            got("POST /small").chunked("a\r\n0123456789\r\n0\r\n\r\n"),
        ),
        Row::new("9110 §15.4.9 a redirect", "GET /p?q HTTP/1.1\r\nHost: Shop.Example:80\r\n\r\n")
            .at_redirect()
            .answer(Answer::Raw(
                "HTTP/1.1 308 Permanent Redirect\r\nServer: evenkeel\r\nDate: *\r\n\
                 X-Request-Id: *\r\nLocation: https://shop.example/p?q\r\nContent-Length: 0\r\n\r\n",
            )),
        Row::new(
            "9110 §15.4.9 a redirect takes the body along and goes on",
            "POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\
             GET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
        )
        .at_redirect()
        .answer(Answer::Own(308))
        .answer(Answer::Own(308)),
        Row::new(
            "9110 §7.2 nowhere to redirect to without a Host",
            "GET /p HTTP/1.0\r\n\r\n",
        )
        .at_redirect()
        .answer(Answer::Own(400))
        .closed(),
    ];
    assert_eq!(Bench::start().try_all(rows), 7);
}

#[test]
fn expectations() {
    let expecting =
        "POST /p HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
    let with_expect = |body: &str| {
        got("POST /p")
            .fields("Expect: 100-continue\r\n")
            .end(&format!("Content-Length: 3\r\n\r\n{body}"))
    };
    let rows = vec![
        Row::new("9110 §10.1.1 the backend's 100, then the body", expecting)
            .script(vec![
                Step::Head,
                Step::send("HTTP/1.1 100 Continue\r\n\r\n"),
                Step::Echo,
            ])
            .talk([
                Talk::Interim("HTTP/1.1 100 Continue\r\n\r\n"),
                Talk::Send(b"abc".to_vec()),
            ])
            .answer(Answer::Echo)
            .got(with_expect("abc")),
        Row::new("9110 §10.1.1 a final response in place of the 100", expecting)
            .script(vec![
                Step::Head,
                Step::send("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno"),
                Step::AwaitClose,
            ])
            .answer(Answer::Raw(
                "HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno",
            ))
            .closed()
            .got(with_expect("")),
        passes(
            "9110 §10.1.1 the body is sent without waiting",
            format!("{expecting}abc"),
            with_expect("abc"),
        ),
        Row::new(
            "9110 §10.1.1 the backend closes after its 100: the client still gets an answer",
            expecting,
        )
        .script(vec![
            Step::Head,
            Step::send("HTTP/1.1 100 Continue\r\n\r\n"),
            Step::Close,
        ])
        .talk([Talk::Interim("HTTP/1.1 100 Continue\r\n\r\n")])
        .answer(Answer::Own(502))
        .closed()
        .got(with_expect("")),
        Row::new(
            "9110 §15.5.14 the body turns out too large after the 100",
            "POST /small HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n",
        )
        .script(vec![
            Step::Head,
            Step::send("HTTP/1.1 100 Continue\r\n\r\n"),
            Step::Request,
        ])
        .talk([
            Talk::Interim("HTTP/1.1 100 Continue\r\n\r\n"),
            Talk::Send(b"b\r\n01234567890\r\n0\r\n\r\n".to_vec()),
        ])
        .answer(Answer::Own(413))
        .closed()
        .got(
            got("POST /small")
                .fields("Expect: 100-continue\r\n")
                .chunked(""),
        ),
        Row::new(
            "9110 §10.1.1 an expectation in HTTP/1.0 is ignored",
            "POST /p HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
        )
        .answer(Answer::Echo)
        .closed()
        .got(got("POST /p").via("1.0").length("abc")),
        passes(
            "9110 §10.1.1 another expectation is the backend's to judge",
            "GET /p HTTP/1.1\r\nHost: a\r\nExpect: miracle\r\n\r\n",
            got("GET /p").fields("Expect: miracle\r\n"),
        ),
        Row::new(
            "9110 §10.1.1 a body that nobody waits for closes the connection",
            "POST /1 HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n",
        )
        .at_bare()
        .answer(Answer::Own(404))
        .closed(),
    ];
    assert_eq!(Bench::start().try_all(rows), 8);
}

#[test]
fn upgrades() {
    let request = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\
        Sec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n";
    let fields = "Sec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n";
    let forwarded = || {
        got("GET /ws")
            .fields(fields)
            .end("Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
    };
    let rows = vec![
        Row::new("9110 §7.8 refused with a 200: still HTTP, and another request", request)
            .answer(Answer::Echo)
            .got(forwarded()),
        Row::new(
            "9110 §7.8 refused: what the client sent ahead is a request",
            format!("{request}GET /2 HTTP/1.1\r\nHost: a\r\n\r\n"),
        )
        .answer(Answer::Echo)
        .answer(Answer::Echo)
        .got(forwarded())
        .got(got("GET /2")),
        Row::new("9110 §7.8 refused with a 426", request)
            .script(vec![
                Step::Request,
                Step::send(
                    "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                     Content-Length: 0\r\n\r\n",
                ),
            ])
            .answer(Answer::Raw("HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n"))
            .got(forwarded()),
        Row::new("9110 §15.2.2 a 101 to something else", request)
            .script(vec![
                Step::Request,
                Step::send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"),
                Step::AwaitClose,
            ])
            .answer(Answer::Own(502))
            .got(forwarded()),
        Row::new("9110 §15.2.2 a 101 that does not say to what", request)
            .script(vec![
                Step::Request,
                Step::send("HTTP/1.1 101 Switching Protocols\r\n\r\n"),
                Step::AwaitClose,
            ])
            .answer(Answer::Own(502))
            .got(forwarded()),
        Row::new("9110 §15.2.2 a 101 that nobody asked for", "GET /p HTTP/1.1\r\nHost: a\r\n\r\n")
            .script(vec![
                Step::Request,
                Step::send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
                Step::AwaitClose,
            ])
            .answer(Answer::Own(502))
            .got(got("GET /p")),
    ];
    assert_eq!(Bench::start().try_all(rows), 6);
}

/// RFC 9110 §7.8: no byte of the client's goes on before the backend's 101; from then on whatever
/// comes goes both ways, and half a close is half a close.
#[test]
fn a_tunnel_opens_with_the_101() {
    let bench = Bench::start();
    let gate = crate::support::Gate::new();
    bench.main.next(vec![
        Step::Request,
        Step::WaitInSilence(gate.clone()),
        Step::send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX: 1\r\n\r\nEARLY"),
        Step::Mirror,
    ]);
    let mut client = bench.client();
    client.send(
        "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nAHEAD",
    );
    bench.main.await_requests(1);
    let mut barrier = bench.barrier();
    barrier.pass();
    client.send("more");
    barrier.pass();
    let got: String = got("GET /ws")
        .end("Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        .into();
    gate.open();
    let expected = "HTTP/1.1 101 Switching Protocols\r\nX: 1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
    let head = client.exactly(expected.len()).expect("the tunnel opens");
    assert_eq!(String::from_utf8_lossy(&head), expected);
    assert_eq!(client.exactly(14).expect("both ways"), b"EARLYAHEADmore");
    let received = bench.main.look();
    assert_eq!(received.len(), 1);
    assert_eq!(crate::bench::mask(&received[0].bytes), got);
    assert_eq!(received[0].malformed, None, "nothing came before the 101");
    client.send("after");
    client.finish();
    let rest = client.rest().expect("the other half closes as well");
    assert_eq!(
        rest,
        (b"after".to_vec(), crate::support::client::End::Closed)
    );
}
