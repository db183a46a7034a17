//! `compress`: which responses go out in which coding. Bodies are decoded by curl.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use crate::coded_fields::{TRAILERS, check_trailers};
use crate::frames::{END_STREAM, Peer, headers, request};
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
