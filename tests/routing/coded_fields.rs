//! `compress`: what is said of content that is coded, or could be: behind its body, and where it is not sent.

use crate::compression::{asking, gunzip, site, text};
use crate::frames::{Came, DATA, END_STREAM, Peer, frame, headers};
use crate::support::backend::{Backend, Step};
use crate::support::client::Client;
use crate::{BOTH, Over, get};

/// What a backend may say behind a body: all but one are of the bytes before they were coded.
pub(crate) const TRAILERS: &str = "Digest: sha-256=AA==\r\nX-Sum: 1\r\nContent-Digest: sha-256=:AA==:\r\n\
    Repr-Digest: sha-256=:AA==:\r\nContent-MD5: AA==\r\nETag: \"x\"\r\n";

/// `fields`: in lower case, trailers behind them.
pub(crate) fn check_trailers(fields: &str, case: &str) {
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
