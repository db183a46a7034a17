//! What backends answer, and what of it the client may see.

use crate::bench::{Answer, Bench, Row, Talk, got};
use crate::support::Gate;
use crate::support::backend::{Backend, Script, Step};
use crate::support::client::Client;
use crate::support::server::Server;
use crate::support::wait_until;
use crate::support::wire::Kind;

const GET: &str = "GET /r HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &str = "POST /r HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
const OLD: &str = "GET /r HTTP/1.0\r\nHost: a\r\n\r\n";
const HEAD: &str = "HEAD /r HTTP/1.1\r\nHost: a\r\n\r\n";

fn says(response: impl AsRef<[u8]>) -> Script {
    vec![Step::Request, Step::send(response)]
}

fn then(response: impl AsRef<[u8]>, last: Step) -> Script {
    vec![Step::Request, Step::send(response), last]
}

/// A GET and what the client sees of the answer; both connections may go on.
fn gets(rule: &str, response: impl AsRef<[u8]>, seen: &'static str) -> Row {
    Row::new(rule, GET)
        .script(says(response))
        .answer(Answer::Raw(seen))
        .got(got("GET /r"))
}

/// A GET whose answer cannot be understood.
fn broken(rule: &str, response: impl AsRef<[u8]>) -> Row {
    Row::new(rule, GET)
        .script(says(response))
        .answer(Answer::Own(502))
        .got(got("GET /r"))
}

#[test]
fn responses_that_are_sound() {
    const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let rows = vec![
        gets("9112 §6.3 step 6 a length", OK, OK),
        gets(
            "9112 §6.3 step 6 nothing",
            "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        ),
        gets(
            "9112 §4 an empty reason",
            "HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok",
            "HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok",
        ),
        gets(
            "9112 §4 an empty reason without its space, as many have it",
            "HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok",
            "HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok",
        ),
        gets(
            "9110 §15 a status nobody knows",
            "HTTP/1.1 299 So So\r\nContent-Length: 2\r\n\r\nok",
            "HTTP/1.1 299 So So\r\nContent-Length: 2\r\n\r\nok",
        ),
        gets(
            "9110 §15 a status beyond the classes",
            "HTTP/1.1 799 What\r\nContent-Length: 2\r\n\r\nok",
            "HTTP/1.1 799 What\r\nContent-Length: 2\r\n\r\nok",
        ),
        gets(
            "9110 §5.3 fields in order, repeated ones apart",
            "HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nB: 1\r\nSet-Cookie: c\r\nX_Y: 1\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nB: 1\r\nSet-Cookie: c\r\nX_Y: 1\r\nContent-Length: 0\r\n\r\n",
        ),
        gets(
            "9112 §6.3 step 5 the same length twice is said once",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
            OK,
        ),
        gets(
            "9112 §6.3 step 5 the same length in a list",
            "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
            OK,
        ),
        gets(
            "9112 §7.1 chunks",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n1\r\n!\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n1\r\n!\r\n0\r\n\r\n",
        ),
        gets(
            "9112 §7.1.1 extensions are dropped",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n02;a=b\r\nok\r\n0;c\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        ),
        gets(
            "9112 §7.1.2 trailers go on, those that frame or authenticate do not",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: 1\r\n\
             Content-Length: 5\r\nSet-Cookie: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: 1\r\n\r\n",
        ),
        gets(
            "9110 §7.6.1 a trailer that Connection names",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: x-hop\r\n\r\n2\r\nok\r\n0\r\nX: 1\r\n\
             X-Hop: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: 1\r\n\r\n",
        ),
        gets(
            "9112 §9.3 the backend's close is not the client's",
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
            OK,
        ),
        gets(
            "9112 §2.3 an HTTP/1.0 backend",
            "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
            OK,
        ),
        gets(
            "9112 §9.3 an HTTP/1.0 backend with keep-alive",
            "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
            OK,
        ),
        gets(
            "9110 §7.6.1 fields of one hop",
            "HTTP/1.1 200 OK\r\nConnection: X, keep-alive\r\nX: 1\r\nKeep-Alive: timeout=5\r\n\
             Proxy-Connection: x\r\nUpgrade: h2c\r\nTrailer: Y\r\nA: 1\r\nContent-Length: 2\r\n\r\nok",
            "HTTP/1.1 200 OK\r\nA: 1\r\nContent-Length: 2\r\n\r\nok",
        ),
        gets(
            "9110 §7.6.1 a Connection that names what is relied on",
            "HTTP/1.1 200 OK\r\nConnection: Content-Length, Set-Cookie, Date\r\nSet-Cookie: a\r\n\
             Date: now\r\nContent-Length: 2\r\n\r\nok",
            "HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nDate: now\r\nContent-Length: 2\r\n\r\nok",
        ),
        gets(
            "9110 §15.3.5 204",
            "HTTP/1.1 204 No Content\r\nA: 1\r\n\r\n",
            "HTTP/1.1 204 No Content\r\nA: 1\r\n\r\n",
        ),
        gets(
            "9110 §8.6 a 204 with a length: neither length nor body",
            "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 204 No Content\r\n\r\n",
        ),
        gets(
            "9112 §6.1 a 204 with chunks",
            "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 204 No Content\r\n\r\n",
        ),
        gets(
            "9110 §8.6 a 304 keeps the length it would have had",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
        ),
        Row::new("9110 §9.3.2 HEAD keeps the length it would have had", HEAD)
            .script(says("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"))
            .answer(Answer::Raw("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"))
            .got(got("HEAD /r")),
        Row::new("9110 §9.3.2 HEAD answered with a body: nobody gets it", HEAD)
            .script(says("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"))
            .answer(Answer::Raw("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"))
            .got(got("HEAD /r")),
        Row::new("9112 §6.1 HEAD with a coding", HEAD)
            .script(says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"))
            .answer(Answer::Raw("HTTP/1.1 200 OK\r\n\r\n"))
            .got(got("HEAD /r")),
        Row::new("9112 §6.3 step 1 HEAD without any framing", HEAD)
            .script(says("HTTP/1.1 200 OK\r\n\r\n"))
            .answer(Answer::Raw("HTTP/1.1 200 OK\r\n\r\n"))
            .got(got("HEAD /r")),
        Row::new("9112 §6.3 step 8 until the close", GET)
            .script(then("HTTP/1.1 200 OK\r\n\r\nok", Step::Close))
            .answer(Answer::Raw(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            ))
            .got(got("GET /r")),
        Row::new("9112 §6.3 step 8 until the close, and nothing came", GET)
            .script(then("HTTP/1.1 200 OK\r\n\r\n", Step::Close))
            .answer(Answer::Raw(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            ))
            .got(got("GET /r")),
        Row::new("9112 §6.3 step 8 until the close, to HTTP/1.0", OLD)
            .script(then("HTTP/1.0 200 OK\r\n\r\nok", Step::Close))
            .answer(Answer::Raw("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok"))
            .closed()
            .got(got("GET /r").via("1.0")),
        Row::new("9112 §7.1 chunks to HTTP/1.0", OLD)
            .script(says(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n1\r\n!\r\n0\r\nX: 1\r\n\r\n",
            ))
            .answer(Answer::Raw("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok!"))
            .closed()
            .got(got("GET /r").via("1.0")),
        Row::new(
            "9112 §7.1 chunks to HTTP/1.0 end its keep-alive",
            "GET /r HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
        )
        .script(says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"))
        .answer(Answer::Raw("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok"))
        .closed()
        .got(got("GET /r").via("1.0")),
        Row::new("9112 §9.6 the backend ends its half after the response", GET)
            .script(vec![
                Step::Request,
                Step::LastWords(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec()),
            ])
            .answer(Answer::Raw(OK))
            .got(got("GET /r")),
        Row::new("9112 §9.2 stray bytes after a response reach nobody", GET)
            .script(says(
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok\
                 HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
            ))
            .answer(Answer::Raw(OK))
            .got(got("GET /r")),
        Row::new("9112 §9.2 stray bytes after chunks reach nobody", GET)
            .script(says(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n\
                 HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
            ))
            .answer(Answer::Raw(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            ))
            .got(got("GET /r")),
        Row::new("9112 §9.2 stray bytes after a 304 reach nobody", GET)
            .script(says("HTTP/1.1 304 Not Modified\r\n\r\nHTTP/1.1 200 OK\r\n"))
            .answer(Answer::Raw("HTTP/1.1 304 Not Modified\r\n\r\n"))
            .got(got("GET /r")),
    ];
    assert_eq!(Bench::start().try_all(rows), 35);
}

#[test]
fn interim_responses() {
    const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let many: &'static str = "HTTP/1.1 102 Processing\r\n\r\n".repeat(64).leak();
    let rows = vec![
        gets(
            "9110 §15.2 one that nobody asked for is passed on",
            format!("HTTP/1.1 100 Continue\r\n\r\n{OK}"),
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        ),
        gets(
            "8297 §2 early hints with their fields, more than once",
            format!("{HINTS}{HINTS}{OK}"),
            "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n\
             HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        ),
        gets(
            "9110 §15.2 one that nobody knows, fields of one hop removed",
            format!("HTTP/1.1 199 X\r\nConnection: close, A\r\nA: 1\r\nB: 2\r\n\r\n{OK}"),
            "HTTP/1.1 199 X\r\nB: 2\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        ),
        gets(
            "9110 §15.2 as many as there may be",
            format!("{many}{OK}"),
            format!("{many}{OK}").leak(),
        ),
        Row::new("9110 §15.2 more than there may be", GET)
            .script(says(format!("{many}HTTP/1.1 102 Processing\r\n\r\n{OK}")))
            .answer(Answer::Raw(many))
            .answer(Answer::Own(502))
            .got(got("GET /r")),
        Row::new("9110 §15.2 without end", GET)
            .script(vec![
                Step::Request,
                Step::SendForever(b"HTTP/1.1 102 Processing\r\n\r\n".to_vec()),
            ])
            .answer(Answer::Raw(many))
            .answer(Answer::Own(502))
            .got(got("GET /r")),
        Row::new("9110 §15.2 never to HTTP/1.0", OLD)
            .script(says(format!("{HINTS}{OK}")))
            .answer(Answer::Raw(
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
            ))
            .closed()
            .got(got("GET /r").via("1.0")),
        broken(
            "9110 §15.2 one that announces a body",
            format!(
                "HTTP/1.1 100 Continue\r\nContent-Length: {}\r\n\r\n{OK}",
                OK.len()
            ),
        ),
        broken(
            "9112 §6.1 one with a transfer coding",
            format!("HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{OK}"),
        ),
        Row::new("9110 §15.2 a broken response after one", GET)
            .script(says("HTTP/1.1 102 Processing\r\n\r\nnonsense\r\n\r\n"))
            .answer(Answer::Raw("HTTP/1.1 102 Processing\r\n\r\n"))
            .answer(Answer::Own(502))
            .got(got("GET /r")),
        Row::new("9110 §15.2 nothing after one", GET)
            .script(then("HTTP/1.1 102 Processing\r\n\r\n", Step::Close))
            .answer(Answer::Raw("HTTP/1.1 102 Processing\r\n\r\n"))
            .answer(Answer::Own(502))
            .got(got("GET /r")),
    ];
    assert_eq!(Bench::start().try_all(rows), 11);
}

#[test]
fn responses_that_are_broken() {
    let mut rows = Vec::new();
    for (rule, line) in [
        ("9112 §4 another major version", "HTTP/2 200 OK"),
        (
            "9112 §4 another major version with a minor",
            "HTTP/2.0 200 OK",
        ),
        ("9112 §4 no status", "HTTP/1.1 OK"),
        ("9112 §4 two digits", "HTTP/1.1 20 OK"),
        ("9112 §4 four digits", "HTTP/1.1 2000 OK"),
        ("9110 §15 a status below 100", "HTTP/1.1 099 OK"),
        ("9112 §4 a sign", "HTTP/1.1 +20 OK"),
        ("9112 §4 small letters", "http/1.1 200 OK"),
        ("9112 §4 another protocol", "ICY 200 OK"),
        ("9112 §4 two spaces", "HTTP/1.1  200 OK"),
        ("9112 §4 a tab", "HTTP/1.1\t200 OK"),
        ("9112 §4 something before it", "xHTTP/1.1 200 OK"),
        (
            "9112 §4 a control character in the reason",
            "HTTP/1.1 200 O\x01K",
        ),
        ("9112 §4 an empty line before it", "\r\nHTTP/1.1 200 OK"),
    ] {
        rows.push(broken(
            rule,
            format!("{line}\r\nContent-Length: 2\r\n\r\nok"),
        ));
    }
    rows.push(broken(
        "9112 §4 HTML without a head (HTTP/0.9)",
        "<html>ok</html>",
    ));
    rows.push(broken(
        "9112 §4 a greeting of SSH",
        "SSH-2.0-OpenSSH_9.2\r\n",
    ));
    for (rule, fields) in [
        (
            "9112 §6.3 step 3 length and coding",
            "Content-Length: 2\r\nTransfer-Encoding: chunked",
        ),
        (
            "9112 §6.3 step 3 coding and length",
            "Transfer-Encoding: chunked\r\nContent-Length: 2",
        ),
        (
            "9112 §6.3 step 5 two lengths",
            "Content-Length: 2\r\nContent-Length: 3",
        ),
        (
            "9112 §6.3 step 5 two lengths in a list",
            "Content-Length: 2, 3",
        ),
        ("9110 §8.6 a minus", "Content-Length: -2"),
        ("9110 §8.6 a plus", "Content-Length: +2"),
        ("9110 §8.6 a word", "Content-Length: two"),
        ("9110 §8.6 empty", "Content-Length:"),
        ("9110 §8.6 too large", "Content-Length: 9223372036854775808"),
        ("9112 §6.1 an unknown coding", "Transfer-Encoding: gzip"),
        (
            "9112 §6.1 an unknown coding under chunked",
            "Transfer-Encoding: gzip, chunked",
        ),
        (
            "9112 §6.1 chunked twice",
            "Transfer-Encoding: chunked, chunked",
        ),
        ("9112 §7 an empty coding", "Transfer-Encoding:"),
        ("9112 §7 identity", "Transfer-Encoding: identity"),
        ("9112 §5.1 a space before the colon", "Content-Length : 2"),
        ("9112 §5.2 a folded line", "X: 1\r\n 2\r\nContent-Length: 2"),
        ("9112 §5 no colon", "X\r\nContent-Length: 2"),
        ("9112 §5 no name", ": 1\r\nContent-Length: 2"),
        (
            "9110 §5.6.2 a name that is no token",
            "X@: 1\r\nContent-Length: 2",
        ),
        ("9110 §5.5 NUL", "X: \0\r\nContent-Length: 2"),
        (
            "9110 §5.5 a control character",
            "X: \x1b\r\nContent-Length: 2",
        ),
        ("9112 §2.2 a bare CR", "X: a\rb\r\nContent-Length: 2"),
        ("9112 §2.2 a bare LF", "X: a\nContent-Length: 2"),
    ] {
        rows.push(broken(
            rule,
            format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\nok"),
        ));
    }
    rows.push(broken(
        "9112 §2.2 bare LFs all over",
        "HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    ));
    rows.push(broken(
        "9112 §6.1 a coding in HTTP/1.0",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ));
    for (rule, body) in [
        (
            "9112 §7.1 a chunk size that is none",
            "x\r\nok\r\n0\r\n\r\n",
        ),
        (
            "9112 §7.1 a chunk size too large",
            "10000000000000002\r\nok\r\n0\r\n\r\n",
        ),
        ("9112 §7.1 no chunk size", "\r\nok\r\n0\r\n\r\n"),
    ] {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        rows.push(broken(rule, format!("{head}{body}")));
    }
    rows.push(broken(
        "a head with too many fields",
        format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: 1\r\n".repeat(300)),
    ));
    rows.push(
        Row::new("a head without end", GET)
            .script(vec![
                Step::Request,
                Step::send("HTTP/1.1 200 OK\r\n"),
                Step::SendForever(format!("X: {}\r\n", "y".repeat(1000)).into_bytes()),
            ])
            .answer(Answer::Own(502))
            .got(got("GET /r")),
    );
    rows.push(
        Row::new("a line without end", GET)
            .script(vec![
                Step::Request,
                Step::send("HTTP/1.1 200 "),
                Step::SendForever(b"yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy".to_vec()),
            ])
            .answer(Answer::Own(502))
            .got(got("GET /r")),
    );
    rows.push(
        Row::new("9112 §8 a head that breaks off", GET)
            .script(then("HTTP/1.1 200 OK\r\nContent-Le", Step::Close))
            .answer(Answer::Own(502))
            .got(got("GET /r")),
    );
    rows.push(
        Row::new(
            "9110 §9.2.2 nothing at all, and the method may not be repeated",
            POST,
        )
        .script(vec![Step::Request, Step::Close])
        .answer(Answer::Own(502))
        .got(got("POST /r").length("abc")),
    );
    rows.push(
        Row::new("9110 §9.2.2 a reset in place of a response", POST)
            .script(vec![Step::Request, Step::Reset])
            .answer(Answer::Own(502))
            .got(got("POST /r").length("abc")),
    );
    rows.push(
        Row::new(
            "9112 §9.6 the backend ends its half in place of a response",
            POST,
        )
        .script(vec![Step::Request, Step::HalfClose, Step::AwaitClose])
        .answer(Answer::Own(502))
        .got(got("POST /r").length("abc")),
    );
    assert_eq!(Bench::start().try_all(rows), 51);
}

#[test]
fn responses_that_break_off() {
    let mut bench = Bench::start();
    let read = bench.server_has_read();
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let rows = vec![
        Row::new("9112 §8 fewer bytes than the length said", GET)
            .script(then(
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok",
                Step::Close,
            ))
            .answer(Answer::Cut(
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok",
            ))
            .got(got("GET /r")),
        Row::new("9112 §8 chunks without a last one", GET)
            .script(then(format!("{chunked}2\r\nok\r\n"), Step::Close))
            .answer(Answer::Cut(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
            ))
            .got(got("GET /r")),
        Row::new("9112 §8 the last chunk without its empty line", GET)
            .script(then(format!("{chunked}2\r\nok\r\n0\r\n"), Step::Close))
            .answer(Answer::Cut(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
            ))
            .got(got("GET /r")),
        Row::new("9112 §7.1 nonsense after a good chunk", GET)
            .script(vec![
                Step::Request,
                Step::send(format!("{chunked}2\r\nok\r\n")),
                read.clone(),
                Step::send("nonsense"),
                Step::AwaitClose,
            ])
            .answer(Answer::Cut(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
            ))
            .got(got("GET /r")),
        Row::new("9112 §8 a reset in the middle of a body", GET)
            .script(vec![
                Step::Request,
                Step::send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok"),
                read.clone(),
                Step::Reset,
            ])
            .answer(Answer::Cut(
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok",
            ))
            .got(got("GET /r")),
        Row::new(
            "9112 §8 a reset where the close would have been the end",
            GET,
        )
        .script(vec![
            Step::Request,
            Step::send("HTTP/1.1 200 OK\r\n\r\nok"),
            read.clone(),
            Step::Reset,
        ])
        .answer(Answer::Cut(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
        ))
        .got(got("GET /r")),
        Row::new(
            "9112 §8 the same to HTTP/1.0, which only a reset can tell",
            OLD,
        )
        .script(vec![
            Step::Request,
            Step::send("HTTP/1.1 200 OK\r\n\r\nok"),
            read.clone(),
            Step::Reset,
        ])
        .answer(Answer::Reset(
            "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok",
        ))
        .got(got("GET /r").via("1.0")),
        Row::new("9112 §8 chunks that break off, to HTTP/1.0", OLD)
            .script(vec![
                Step::Request,
                Step::send(format!("{chunked}2\r\nok\r\n")),
                read.clone(),
                Step::Close,
            ])
            .answer(Answer::Reset(
                "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok",
            ))
            .got(got("GET /r").via("1.0")),
    ];
    assert_eq!(bench.try_all(rows), 8);
}

#[test]
fn answers_before_the_request_is_whole() {
    let mut bench = Bench::start();
    let partial = "POST /r HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc";
    let rows = vec![
        Row::new(
            "9112 §9.5 it is delivered, and the connection closed",
            partial,
        )
        .script(vec![
            Step::Head,
            Step::send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno"),
        ])
        .answer(Answer::Raw(
            "HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno",
        ))
        .closed()
        .got(got("POST /r").end("Content-Length: 10\r\n\r\nabc")),
        Row::new(
            "9112 §9.5 the same when the backend closes at once",
            partial,
        )
        .script(vec![
            Step::Head,
            Step::send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno"),
            Step::Close,
        ])
        .answer(Answer::Raw(
            "HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno",
        ))
        .closed()
        .got(got("POST /r").end("Content-Length: 10\r\n\r\nabc")),
        Row::new(
            "9112 §9.5 both go on side by side until both are done",
            partial,
        )
        .script(vec![
            Step::Head,
            Step::send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\none"),
            Step::Request,
            Step::send("two"),
        ])
        .talk([
            Talk::Read("HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\none"),
            Talk::Send(b"defghij".to_vec()),
        ])
        .answer(Answer::Raw("two"))
        .closed()
        .got(got("POST /r").end("Content-Length: 10\r\n\r\nabcdefghij")),
    ];
    assert_eq!(bench.try_all(rows), 3);
}

#[test]
fn retries() {
    let mut bench = Bench::start();
    let close = || vec![Step::Request, Step::Close];
    let reset = || vec![Step::Request, Step::Reset];
    let mut rows = Vec::new();
    for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"] {
        let line = format!("{method} /pair");
        rows.push(
            Row::new(
                &format!("9110 §9.2.2 {method} goes to another backend"),
                format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n"),
            )
            .script(if method == "PUT" { reset() } else { close() })
            .answer(match method {
                "HEAD" => Answer::EchoToHead,
                _ => Answer::Echo,
            })
            .got(got(&line))
            .standby_got(got(&line)),
        );
    }
    for method in ["POST", "PATCH", "LOCK"] {
        let line = format!("{method} /pair");
        rows.push(
            Row::new(
                &format!("9110 §9.2.2 {method} does not"),
                format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n"),
            )
            .script(close())
            .answer(Answer::Own(502))
            .got(got(&line)),
        );
    }
    rows.push(
        Row::new(
            "9110 §9.2.2 with a body that is still at hand",
            "PUT /pair HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        )
        .script(close())
        .answer(Answer::Echo)
        .got(got("PUT /pair").chunked("3\r\nabc\r\n0\r\n\r\n"))
        .standby_got(got("PUT /pair").chunked("3\r\nabc\r\n0\r\n\r\n")),
    );
    rows.push(
        Row::new(
            "9110 §9.2.2 a body that came in pieces is gone",
            "PUT /pair HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc",
        )
        .script(close())
        .talk([Talk::Settle, Talk::Send(b"def".to_vec())])
        .answer(Answer::Own(502))
        .closed()
        .got(got("PUT /pair").length("abcdef")),
    );
    rows.push(
        Row::new(
            "9110 §9.2.2 a byte of a response came: it is not repeated",
            "GET /pair HTTP/1.1\r\nHost: a\r\n\r\n",
        )
        .script(vec![Step::Request, Step::send("H"), Step::Close])
        .answer(Answer::Own(502))
        .got(got("GET /pair")),
    );
    rows.push(
        Row::new(
            "9110 §9.2.2 a broken response is one",
            "GET /pair HTTP/1.1\r\nHost: a\r\n\r\n",
        )
        .script(says("nonsense\r\n\r\n"))
        .answer(Answer::Own(502))
        .got(got("GET /pair")),
    );
    rows.push(
        Row::new(
            "9112 §9.3.1 a kept connection fails: again over a new one to the only backend",
            "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
        )
        .script(vec![Step::Echo])
        .script(close())
        .answer(Answer::Echo)
        .answer(Answer::Echo)
        .got(got("GET /1"))
        .got(got("GET /2"))
        .got(got("GET /2")),
    );
    rows.push(
        Row::new(
            "9112 §9.3.1 but not a POST, which may have been carried out",
            "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
        )
        .script(vec![Step::Echo])
        .script(close())
        .answer(Answer::Echo)
        .answer(Answer::Own(502))
        .got(got("GET /1"))
        .got(got("POST /2").length("abc")),
    );
    assert_eq!(bench.try_all(rows), 15);
}

/// RFC 9112 §9.3.1: a pooled connection that the backend has closed is not used, whatever the
/// method; nothing is lost and nothing is sent twice.
#[test]
fn a_kept_connection_that_was_closed_is_not_used() {
    let bench = Bench::start();
    for (n, request, body) in [
        (1, "GET /n HTTP/1.1\r\nHost: a\r\n\r\n", "GET /n "),
        (
            2,
            "POST /n HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
            "POST /n abc",
        ),
    ] {
        bench.main.next(vec![Step::Echo, Step::Close]);
        let mut client = bench.client();
        client.get("a", "/first").expect("it is answered");
        wait_until("the backend closes", || bench.main.open() == 0);
        bench.barrier().pass();
        client.send(request);
        let response = client.response().expect("it is answered as well");
        assert_eq!((response.status(), &*response.text()), (200, body));
        assert_eq!(bench.main.requests(), 2 * n, "each was sent once");
        bench.main.close_all();
        wait_until("the rest is closed too", || bench.main.open() == 0);
        bench.barrier().pass();
    }
}

/// RFC 9112 §9.3.1: that both backends close the connections that were kept to them as the request
/// comes costs a GET nothing, although it has but one retry.
#[test]
fn a_get_survives_that_every_kept_connection_is_closed() {
    let backends = ["a", "b"].map(Backend::start);
    let server = Server::in_process(&format!(
        r#"
        workers = 1
        [[listener]]
        address = "127.0.0.1:0"
        protocol = "http"
        [[service]]
        name = "pair"
        strategy = "round_robin"
        discover = {{ static = ["{}", "{}"] }}
        [[route]]
        service = "pair"
        "#,
        backends[0].address, backends[1].address
    ));
    let mut client = Client::plain(server.addresses[0]);
    for n in 0..2 {
        client.get("a", &format!("/{n}")).expect("it is answered");
    }
    assert_eq!(backends.each_ref().map(Backend::requests), [1, 1]);
    for backend in &backends {
        backend.next(vec![Step::Request, Step::Close]);
    }
    let response = client.get("a", "/2").expect("it is answered");
    assert_eq!((response.status(), &*response.text()), (200, "GET /2 "));
    let connections = backends.each_ref().map(Backend::connections);
    assert_eq!(
        connections.iter().sum::<usize>(),
        3,
        "one new one, to the first that failed or the second"
    );
}

/// RFC 9112 §9.2, §11.1: what a backend sends on an idle connection is nobody's answer.
#[test]
fn stray_bytes_on_a_kept_connection_are_nobodys_answer() {
    let bench = Bench::start();
    let (gate, sent) = (Gate::new(), Gate::new());
    let told = sent.clone();
    bench.main.next(vec![
        Step::Echo,
        Step::Wait(gate.clone()),
        Step::send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"),
        Step::Call(std::sync::Arc::new(move || told.open())),
    ]);
    let mut client = bench.client();
    client.get("a", "/1").expect("it is answered");
    gate.open();
    assert!(sent.pass());
    bench.barrier().pass();
    for n in 2..5 {
        let response = client.get("a", &format!("/{n}")).expect("it is answered");
        assert_eq!(response.text(), format!("GET /{n} "));
    }
    bench.main.await_requests(4);
    let connections: Vec<_> = bench.main.take().iter().map(|r| r.connection).collect();
    assert_eq!(connections, [1, 2, 2, 2], "and the connection is given up");
}

/// RFC 9112 §9.2: bytes that come together with a response show that the backend counts otherwise
/// than we do; it gets no further request on that connection.
#[test]
fn a_connection_with_stray_bytes_is_given_up() {
    let evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    for (request, response) in [
        (GET, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        (
            GET,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (GET, "HTTP/1.1 304 Not Modified\r\n\r\n"),
        (POST, "HTTP/1.1 204 No Content\r\n\r\n"),
        (HEAD, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"),
    ] {
        for stray in [evil, "\r\n", "x"] {
            let bench = Bench::start();
            bench.main.next(says(format!("{response}{stray}")));
            let mut client = bench.client();
            client.send(request);
            let kind = match request {
                HEAD => Kind::ResponseToHead,
                _ => Kind::Response,
            };
            client.message(kind).expect("it is answered");
            for n in 2..4 {
                let next = client.get("a", &format!("/{n}")).expect("it is answered");
                assert_eq!(next.text(), format!("GET /{n} "));
            }
            bench.main.await_requests(3);
            let received = bench.main.take();
            let connections: Vec<_> = received.iter().map(|r| r.connection).collect();
            assert_eq!(connections, [1, 2, 2], "{response:?} and {stray:?}");
        }
    }
}
