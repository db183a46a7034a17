//! `compress`: which responses go out in which coding. Bodies are decoded by curl.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use crate::frames::{Came, DATA, END_STREAM, Peer, frame, headers, request};
use crate::support::Gate;
use crate::support::backend::{Backend, Step};
use crate::support::client::{Client, End, NoResponse};
use crate::support::require;
use crate::support::server::Server;
use crate::{BOTH, Over, config, get};

pub(crate) fn site(backend: &Backend, keys: &str) -> Server {
    let text = config(
        &[("a", backend)],
        &format!("{keys}\n[[route]]\nservice = \"a\"\n"),
    );
    Server::in_process(&text)
}

/// A long text that is not the same all over.
pub(crate) fn text(lines: usize) -> String {
    (0..lines)
        .map(|n| format!("line {n} of {lines}, {}\n", n * n))
        .collect()
}

fn answer(fields: &str, body: &str) -> Vec<Step> {
    let length = body.len();
    vec![
        Step::Request,
        Step::send(format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n{fields}Content-Length: {length}\r\n\r\n{body}"
        )),
    ]
}

/// What curl makes of a response: its head, and its body decoded.
fn curl(over: Over, address: SocketAddr, accepted: &str) -> (String, Vec<u8>) {
    let mut command = Command::new("curl");
    command.args([
        "-sS",
        "-D",
        "/dev/stderr",
        "--compressed",
        "--max-time",
        "20",
        "-H",
    ]);
    command.arg(format!("Accept-Encoding: {accepted}"));
    if over == Over::H2 {
        command.arg("--http2-prior-knowledge");
    }
    let output = command
        .arg(format!("http://{address}/"))
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{over:?} {accepted}: {output:?}");
    let head = String::from_utf8_lossy(&output.stderr).to_lowercase();
    (head, output.stdout)
}

#[test]
fn each_coding_over_each_version_and_framing() {
    if !require("curl") {
        return;
    }
    let backend = Backend::start("a");
    let server = site(&backend, "compress = \"on\"");
    let body = text(8_000);
    let (first, rest) = body.split_at(70_001);
    let (half, last) = rest.split_at(100_003);
    let chunked = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTrailer: Digest, X-Sum\r\n\
         Transfer-Encoding: chunked\r\n\r\n\
         {:x}\r\n{first}\r\n{:x}\r\n{half}\r\n{:x}\r\n{last}\r\n0\r\n{TRAILERS}\r\n",
        first.len(),
        half.len(),
        last.len()
    );
    let until_close =
        format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/plain\r\n\r\n{body}");
    let framings = [
        (
            "length",
            answer("ETag: \"x\"\r\nAccept-Ranges: bytes\r\n", &body),
        ),
        ("chunked", vec![Step::Request, Step::send(chunked)]),
        (
            "until close",
            vec![Step::Request, Step::send(until_close), Step::Close],
        ),
    ];
    for (framing, script) in framings {
        backend.usually(script);
        for over in BOTH {
            for coding in ["zstd", "br", "gzip"] {
                let (head, decoded) = curl(over, server.address(), coding);
                let case = format!("{framing}, {over:?}, {coding}");
                assert!(
                    decoded == body.as_bytes(),
                    "{case}: {} bytes",
                    decoded.len()
                );
                assert!(
                    head.contains(&format!("content-encoding: {coding}\r\n")),
                    "{case}: {head}"
                );
                assert!(head.contains("vary: accept-encoding\r\n"), "{case}: {head}");
                for gone in ["content-length:", "accept-ranges:"] {
                    assert!(!head.contains(gone), "{case}: {head}");
                }
                if framing == "chunked" {
                    check_trailers(&head, &case);
                }
                if framing == "length" {
                    assert!(head.contains("etag: w/\"x\"\r\n"), "{case}: {head}");
                }
            }
        }
    }
}

/// What a backend may say behind a body: all but one are of the bytes before they were coded.
const TRAILERS: &str = "Digest: sha-256=AA==\r\nX-Sum: 1\r\nContent-Digest: sha-256=:AA==:\r\n\
    Repr-Digest: sha-256=:AA==:\r\nContent-MD5: AA==\r\nETag: \"x\"\r\n";

/// `fields`: in lower case, trailers behind them.
fn check_trailers(fields: &str, case: &str) {
    assert!(fields.contains("x-sum: 1\r\n"), "{case}: {fields}");
    for gone in ["digest", "content-md5", "etag", "trailer:"] {
        assert!(!fields.contains(gone), "{case}: {fields}");
    }
}

#[test]
fn trailers_of_a_backend_that_speaks_http_2() {
    let body = text(100);
    let sent = body.clone();
    let backend = Backend::custom("b", move |tcp| {
        let Some(mut peer) = Peer::accept(tcp, &[]) else {
            return;
        };
        let is_asked = |peer: &Peer, stream| peer.came.get(&stream).is_some_and(Came::is_over);
        for stream in (1..).step_by(2) {
            peer.until(|peer| is_asked(peer, stream));
            if peer.closed {
                return;
            }
            let length = sent.len().to_string();
            let mut fields = vec![(":status", "200"), ("content-type", "text/plain")];
            if stream > 1 {
                fields.push(("content-length", &length));
            }
            let trailers: Vec<_> = TRAILERS
                .split_terminator("\r\n")
                .filter_map(|line| line.split_once(": "))
                .map(|(name, value)| (name.to_lowercase(), value))
                .collect();
            peer.send(headers(stream, 0, &fields))
                .send(frame(DATA, 0, stream, &sent))
                .send(headers(stream, END_STREAM, &trailers));
        }
    });
    let server = site(&backend, "compress = \"on\"\nupstream = \"h2c\"");
    // The second of each is one whose length is known before.
    for over in [Over::H1, Over::H1, Over::H2, Over::H2] {
        let (fields, coded) = match over {
            Over::H1 => {
                let mut client = Client::plain(server.address());
                client.send("GET / HTTP/1.1\r\nHost: a.test\r\nAccept-Encoding: gzip\r\n\r\n");
                let came = client.response().expect("an answer");
                let fields = came.fields.iter().chain(&came.trailers).cloned();
                (fields.collect::<Vec<_>>(), came.body)
            }
            Over::H2 => {
                let mut peer = Peer::connect(server.address());
                peer.send(asking(1, "gzip"));
                let came = peer.over(1);
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let fields = came.heads.iter().flatten();
                let fields = fields.map(|(name, value)| (text(name), text(value)));
                (fields.collect(), came.data)
            }
        };
        let lines = fields
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"));
        check_trailers(&lines.collect::<String>(), &format!("{over:?}"));
        assert!(gunzip(&coded) == body.as_bytes(), "{over:?}");
    }
}

/// As few bytes as a sentence arrive although more are to come, and in a form that can be decoded.
#[test]
fn what_has_come_goes_on_at_once() {
    let backend = Backend::start("a");
    let server = site(&backend, "compress = \"gzip\"");
    let gate = Gate::default();
    backend.next(vec![
        Step::Request,
        Step::send(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n\
             a\r\ndata: one\n\r\n",
        ),
        Step::Wait(gate.clone()),
        Step::send("a\r\ndata: two\n\r\n0\r\n\r\n"),
    ]);
    let mut client = Client::plain(server.address());
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\nAccept-Encoding: gzip\r\n\r\n");
    let mut came = Vec::new();
    let mut decoded = String::new();
    while decoded != "data: one\n" {
        client.read_some().expect("more comes");
        came.extend(client.take());
        decoded = decoded_so_far(&came);
        assert!("data: one\n".starts_with(&decoded), "{decoded}");
    }
    gate.open();
    while decoded != "data: one\ndata: two\n" {
        client.read_some().expect("more comes");
        came.extend(client.take());
        decoded = decoded_so_far(&came);
    }
}

/// What can be decoded of the chunks of a response.
fn decoded_so_far(response: &[u8]) -> String {
    use std::io::Read as _;
    let Some(end) = response.windows(4).position(|w| w == b"\r\n\r\n") else {
        return String::new();
    };
    let (mut rest, mut coded) = (&response[end + 4..], Vec::new());
    while let Some(line) = rest.windows(2).position(|w| w == b"\r\n") {
        let size = std::str::from_utf8(&rest[..line]).expect("a size");
        let size = usize::from_str_radix(size, 16).expect("a size");
        let Some(chunk) = rest.get(line + 2..line + 2 + size) else {
            break;
        };
        coded.extend_from_slice(chunk);
        rest = rest.get(line + 4 + size..).unwrap_or_default();
    }
    let mut decoded = Vec::new();
    // It ends in the middle: what came before is read.
    let _ = flate2::read::GzDecoder::new(&coded[..]).read_to_end(&mut decoded);
    String::from_utf8(decoded).expect("text")
}

/// What was coded, if it is whole.
pub(crate) fn gunzip(coded: &[u8]) -> Vec<u8> {
    use std::io::Read as _;
    let mut decoded = Vec::new();
    let read = flate2::read::GzDecoder::new(coded).read_to_end(&mut decoded);
    read.expect("it has its end");
    decoded
}

/// The head of a request for a coding over HTTP/2.
pub(crate) fn asking(stream: u32, coding: &str) -> Vec<u8> {
    let mut fields = request("GET", "/").to_vec();
    fields.push(("accept-encoding", coding));
    headers(stream, END_STREAM, &fields)
}

#[test]
fn what_breaks_off_does_not_end_well() {
    let backend = Backend::start("a");
    let server = site(&backend, "compress = \"on\"");
    let body = text(50);
    for coding in ["zstd", "br", "gzip"] {
        let script = vec![
            Step::Request,
            Step::send(format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 9999999\r\n\r\n{body}"
            )),
            Step::Close,
        ];
        backend.next(script.clone());
        let mut client = Client::plain(server.address());
        client.send(format!(
            "GET / HTTP/1.1\r\nHost: a.test\r\nAccept-Encoding: {coding}\r\n\r\n"
        ));
        match client.response() {
            Err(NoResponse::Ended(End::Closed | End::Reset, said)) => {
                assert!(!said.ends_with(b"0\r\n\r\n"), "{coding}");
            }
            other => panic!("{coding}: {other:?}"),
        }
        backend.next(script);
        let mut peer = Peer::connect(server.address());
        peer.send(asking(1, coding));
        let came = peer.over(1);
        assert_eq!(came.field("content-encoding").as_deref(), Some(coding));
        assert!(came.reset.is_some() && !came.ended, "{coding}: {came:?}");
    }
}

#[test]
fn which_responses() {
    let backend = Backend::start("a");
    let server = site(&backend, "compress = \"on\"");
    let long = text(100);
    // Is it coded, and are caches told of it?
    for (rule, ask, answered, coded, varies) in [
        ("a text", get("/"), answer("", &long), true, true),
        (
            "of a client that takes none",
            get("/").with("Accept-Encoding", "identity"),
            answer("", &long),
            false,
            true,
        ),
        ("too short", get("/"), answer("", "short"), false, true),
        (
            "coded already",
            get("/"),
            answer("Content-Encoding: br\r\n", &long),
            false,
            false,
        ),
        (
            "not to be transformed",
            get("/"),
            answer("Cache-Control: public, No-Transform\r\n", &long),
            false,
            false,
        ),
        (
            "a part",
            get("/"),
            answer("Content-Range: bytes 0-1/9\r\n", &long),
            false,
            true,
        ),
        (
            "of a client that wants nothing transformed",
            get("/")
                .with("Accept-Encoding", "gzip")
                .with("Cache-Control", "max-age=0, No-Transform"),
            answer("", &long),
            false,
            true,
        ),
        (
            "of a client whose weight is none",
            get("/").with("Accept-Encoding", "gzip;q = 0"),
            answer("", &long),
            false,
            true,
        ),
        (
            "a picture",
            get("/"),
            vec![
                Step::Request,
                Step::send(format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: {}\r\n\r\n{long}",
                    long.len()
                )),
            ],
            false,
            false,
        ),
        (
            "no type",
            get("/"),
            vec![
                Step::Request,
                Step::send(format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{long}",
                    long.len()
                )),
            ],
            false,
            false,
        ),
        (
            "an error page",
            get("/"),
            vec![
                Step::Request,
                Step::send(format!(
                    "HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\r\n{long}",
                    long.len()
                )),
            ],
            true,
            true,
        ),
        (
            "varies already",
            get("/"),
            answer("Vary: Origin, accept-encoding\r\n", &long),
            true,
            true,
        ),
        (
            "varies by everything",
            get("/"),
            answer("Vary: *\r\n", &long),
            true,
            false,
        ),
        (
            "nothing to be coded",
            get("/"),
            vec![
                Step::Request,
                Step::send("HTTP/1.1 204 No Content\r\nContent-Type: text/plain\r\n\r\n"),
            ],
            false,
            false,
        ),
        (
            "to HEAD as to GET",
            get("/").method("HEAD"),
            vec![
                Step::Request,
                Step::send(
                    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 4000\r\n\r\n",
                ),
            ],
            true,
            true,
        ),
        (
            "to HEAD, too short",
            get("/").method("HEAD"),
            vec![
                Step::Request,
                Step::send(
                    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 40\r\n\r\n",
                ),
            ],
            false,
            true,
        ),
    ] {
        backend.usually(answered);
        let ask = match ask.fields.is_empty() {
            true => ask.with("Accept-Encoding", "gzip;q=0.9, zstd"),
            false => ask,
        };
        for over in BOTH {
            let came = ask.ask(over, server.address());
            let all = |name: &str| -> Vec<String> {
                let fields = came.fields.iter().filter(|(n, _)| n == name);
                fields.map(|(_, value)| value.to_lowercase()).collect()
            };
            let case = format!("{rule}, {over:?}: {came:?}");
            assert_eq!(all("content-encoding") == ["zstd"], coded, "{case}");
            let vary = all("vary");
            let said = vary
                .iter()
                .filter(|v| v.contains("accept-encoding"))
                .count();
            assert_eq!(said, usize::from(varies), "{case}");
            if coded {
                assert!(all("content-length").is_empty(), "{case}");
            } else if ask.method != "HEAD" {
                assert!(
                    came.body == b"short" || came.body == long.as_bytes() || came.status == 204,
                    "{case}"
                );
            }
        }
    }
}

/// The heads of responses without content, or with a part of it, are those of the whole response.
#[test]
fn heads_say_what_that_of_the_whole_says() {
    let backend = Backend::start("a");
    let server = site(&backend, "compress = \"on\"");
    const ACCEPTED: (&str, &str) = ("Accept-Encoding", "zstd");
    let ask = |name, value| get("/").with(ACCEPTED.0, ACCEPTED.1).with(name, value);
    let any = || get("/").with(ACCEPTED.0, ACCEPTED.1);
    let head = || any().method("HEAD");
    let not_modified = "304 Not Modified\r\n";
    let part = "206 Partial Content\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\
        Content-Range: bytes 0-1/4000\r\n";
    let chunked = "200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n";
    let unsaid = "200 OK\r\nContent-Type: text/plain\r\n";
    for (rule, ask, answered, varies, tag, coding) in [
        ("RFC 9110 §15.4.5", any(), not_modified, true, "w/\"x\"", ""),
        (
            "by the tag of the coded one",
            ask("If-None-Match", "W/\"x\", \"y\""),
            not_modified,
            true,
            "w/\"x\"",
            "",
        ),
        (
            "by the tag of what was not coded",
            ask("If-None-Match", "\"y\", \"x\""),
            not_modified,
            true,
            "\"x\"",
            "",
        ),
        (
            "of a client that takes none",
            get("/").with("Accept-Encoding", "identity"),
            not_modified,
            true,
            "\"x\"",
            "",
        ),
        (
            "of a picture",
            any(),
            "304 Not Modified\r\nContent-Type: image/png\r\n",
            false,
            "\"x\"",
            "",
        ),
        (
            "RFC 9110 §8.6: no length of other bytes",
            any(),
            "304 Not Modified\r\nContent-Length: 4000\r\nDigest: sha-256=AA==\r\n",
            true,
            "w/\"x\"",
            "",
        ),
        (
            "of what is too short",
            any(),
            "304 Not Modified\r\nContent-Length: 40\r\n",
            true,
            "\"x\"",
            "",
        ),
        (
            "not to be transformed",
            any(),
            "304 Not Modified\r\nCache-Control: no-transform\r\n",
            false,
            "\"x\"",
            "",
        ),
        ("a part", ask("Range", "bytes=0-1"), part, true, "\"x\"", ""),
        ("RFC 9110 §9.3.2", head(), chunked, true, "w/\"x\"", "zstd"),
        (
            "no word of a length",
            head(),
            unsaid,
            true,
            "w/\"x\"",
            "zstd",
        ),
        (
            "HEAD of what has no content",
            head(),
            "204 No Content\r\nContent-Type: text/plain\r\n",
            false,
            "\"x\"",
            "",
        ),
    ] {
        let content = if answered == part { "li" } else { "" };
        let response = format!("HTTP/1.1 {answered}ETag: \"x\"\r\n\r\n{content}");
        backend.usually(vec![Step::Request, Step::send(response)]);
        for over in BOTH {
            let came = ask.ask(over, server.address());
            let said = |name| came.field(name).unwrap_or_default().to_lowercase();
            let case = format!("{rule}, {over:?}: {came:?}");
            assert_eq!(said("vary") == "accept-encoding", varies, "{case}");
            assert_eq!(said("etag"), tag, "{case}");
            assert_eq!(said("content-encoding"), coding, "{case}");
            assert_eq!(came.body, content.as_bytes(), "{case}");
            if tag.starts_with("w/") {
                assert_eq!((said("content-length"), said("digest")), Default::default());
            }
        }
    }
}

#[test]
fn http_1_0_and_services_that_do_not_ask_for_it() {
    let backend = Backend::start("a");
    let body = text(100);
    backend.usually(answer("", &body));
    let on = site(&backend, "compress = \"on\"");
    let mut client = Client::plain(on.address());
    client.send("GET / HTTP/1.0\r\nHost: a.test\r\nAccept-Encoding: gzip\r\n\r\n");
    assert_eq!(client.response().expect("an answer").body, body.as_bytes());
    for keys in ["", "compress = \"off\""] {
        let off = site(&backend, keys);
        let came = get("/")
            .with("Accept-Encoding", "gzip")
            .ask(Over::H1, off.address());
        assert_eq!(came.body, body.as_bytes(), "{keys}");
        assert!(
            !came.fields.iter().any(|(name, _)| name == "vary"),
            "{keys}"
        );
    }
}

/// The connection goes on behind a coded response, and what the backend was asked is what the client
/// asked unless it is told otherwise.
#[test]
fn connections_go_on_and_a_backend_can_be_kept_from_coding() {
    let backend = Backend::start("a");
    let body = text(100);
    backend.usually(answer("", &body));
    let server = site(
        &backend,
        "compress = \"on\"\nrequest_headers = { remove = \"Accept-Encoding\" }",
    );
    let mut client = Client::plain(server.address());
    client.patience(Duration::from_secs(20));
    for _ in 0..3 {
        client.send("GET / HTTP/1.1\r\nHost: a.test\r\nAccept-Encoding: br\r\n\r\n");
        let came = client.response().expect("an answer");
        assert_eq!(came.field("content-encoding"), Some("br"));
    }
    for received in backend.take() {
        let whole = received.whole.expect("it was sent");
        assert_eq!(whole.field("accept-encoding"), None);
    }
}
