//! Rules of RFC 9112 §2–§6 by raw bytes: what goes in from a client, what goes out to a backend.
//!
//! Each sample is fed at every split offset. A head that is not whole is either waited for or
//! refused in the very way in which the whole one is.

use proptest::prelude::*;

use super::*;
use crate::http::body::{BodyFraming, request_framing, response_framing};
use crate::http::h1::encode::{self, ConnectionField};

const LIMITS: HeadLimits = HeadLimits {
    bytes: 600,
    fields: 8,
};

/// Parses, frames and encodes: the head that a backend gets and the number of bytes taken.
fn forwarded(raw: &[u8], limits: HeadLimits) -> Result<Option<(usize, Vec<u8>)>, Rejection> {
    let mut head = RequestHead::default();
    let Some(n) = request_head(raw, limits, &mut head)? else {
        return Ok(None);
    };
    let framing = request_framing(&head)?;
    let mut out = Vec::new();
    encode::request_head(&head, framing, ConnectionField::None, &mut out);
    Ok(Some((n, out)))
}

/// The same for a backend's response to a GET.
fn returned(raw: &[u8], limits: HeadLimits) -> Result<Option<(usize, Vec<u8>)>, BadResponse> {
    let mut head = ResponseHead::default();
    let Some(n) = response_head(raw, limits, &mut head)? else {
        return Ok(None);
    };
    let framing = response_framing(Method::Get, &head)?;
    let mut out = Vec::new();
    encode::response_head(&head, framing, ConnectionField::None, &mut out);
    Ok(Some((n, out)))
}

/// Every prefix says `None` or what the whole input says.
fn same_at_every_split<T, E>(rule: &str, raw: &[u8], read: impl Fn(&[u8]) -> Result<Option<T>, E>)
where
    T: PartialEq + std::fmt::Debug,
    E: PartialEq + std::fmt::Debug,
{
    let whole = read(raw);
    for split in 0..raw.len() {
        let part = read(&raw[..split]);
        assert!(
            matches!(part, Ok(None)) || part == whole,
            "{rule}: {split} bytes gave {part:?}, all {} gave {whole:?}",
            raw.len(),
        );
    }
}

fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn show(h: &RequestHead) -> String {
    let fields: Vec<_> = h.fields.iter().map(|f| (f.name, f.value)).collect();
    format!(
        "{:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {fields:?}",
        h.method, h.method_text, h.version, h.authority, h.host, h.port, h.path, h.query
    )
}

/// Rule, bytes of the client, bytes for the backend.
const FORWARDED: &[(&str, &[u8], &[u8])] = &[
    // The request line.
    (
        "9112 §3 origin-form",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "9112 §3.2.1 path and query",
        b"GET /x/y?z=1&?/.. HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /x/y?z=1&?/.. HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "9112 §3.2.1 an empty query stays",
        b"GET /? HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /? HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "9112 §2.2 one empty line before",
        b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "9110 §9.1 methods are case-sensitive, others pass",
        b"get / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"get / HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "9110 §9.1 extension method",
        b"M-SEARCH / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"M-SEARCH / HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "9110 §9.1 any token is a method",
        b"!#$%&'*+-.^_`|~ / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"!#$%&'*+-.^_`|~ / HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "9110 §9.3.8 TRACE passes",
        b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "9110 §2.5 a higher minor version is 1.1",
        b"GET / HTTP/1.2\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "9110 §2.5 the highest minor version",
        b"GET / HTTP/1.9\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "9112 §3.2 HTTP/1.0 without host",
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: \r\n\r\n",
    ),
    (
        "9112 §3.2 HTTP/1.0 with an empty host",
        b"GET / HTTP/1.0\r\nHost:\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: \r\n\r\n",
    ),
    (
        "9112 §3.2 HTTP/1.0 with host",
        b"GET / HTTP/1.0\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    // Targets.
    (
        "9112 §3.2.2 absolute-form replaces host",
        b"GET http://b/x?y HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /x?y HTTP/1.1\r\nHost: b\r\n\r\n",
    ),
    (
        "9112 §3.2.2 https",
        b"GET https://b:444/x HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /x HTTP/1.1\r\nHost: b:444\r\n\r\n",
    ),
    (
        "3986 §3.1 the scheme in any case",
        b"GET hTTp://b/ HTTP/1.1\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: b\r\n\r\n",
    ),
    (
        "9112 §3.2.2 absolute-form with an empty host",
        b"GET http://b/ HTTP/1.1\r\nHost:\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: b\r\n\r\n",
    ),
    (
        "9112 §3.2.2 absolute-form in 1.0 needs no host",
        b"GET http://b/ HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: b\r\n\r\n",
    ),
    (
        "9110 §4.2.3 an empty path is /",
        b"GET http://b HTTP/1.1\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: b\r\n\r\n",
    ),
    (
        "9110 §4.2.3 an empty path before a query",
        b"GET http://b?x HTTP/1.1\r\nHost: b\r\n\r\n",
        b"GET /?x HTTP/1.1\r\nHost: b\r\n\r\n",
    ),
    (
        "9110 §4.2 a slash in the query ends no authority",
        b"GET http://b?/x HTTP/1.1\r\nHost: b\r\n\r\n",
        b"GET /?/x HTTP/1.1\r\nHost: b\r\n\r\n",
    ),
    (
        "9112 §3.2.4 OPTIONS *",
        b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "9112 §3.2.4 OPTIONS with a URL without path",
        b"OPTIONS http://b HTTP/1.1\r\nHost: a\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: b\r\n\r\n",
    ),
    (
        "9112 §3.2.4 OPTIONS with a query",
        b"OPTIONS http://b?x HTTP/1.1\r\nHost: a\r\n\r\n",
        b"OPTIONS /?x HTTP/1.1\r\nHost: b\r\n\r\n",
    ),
    (
        "9112 §3.2.4 OPTIONS with a slash",
        b"OPTIONS http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"OPTIONS / HTTP/1.1\r\nHost: b\r\n\r\n",
    ),
    (
        "3986 §5.2.4 what is matched is forwarded",
        b"GET /a/./b/../%63?%63/.. HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /a/c?%63/.. HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "3986 §3.3 a path of two slashes has no authority",
        b"GET //b/c HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET //b/c HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    // Host.
    (
        "9110 §7.2 the host keeps its case",
        b"GET / HTTP/1.1\r\nhOST: ExAmple.com:8080\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: ExAmple.com:8080\r\n\r\n",
    ),
    (
        "9112 §3.2 host after other fields goes first",
        b"GET / HTTP/1.1\r\nA: b\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n\r\n",
    ),
    (
        "3986 §3.2.2 IPv6",
        b"GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
    ),
    (
        "3986 §6.2.3 an empty port goes",
        b"GET / HTTP/1.1\r\nHost: a:\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    // Fields.
    (
        "9112 §5.1 white space around the value goes",
        b"GET / HTTP/1.1\r\nHost:a\r\nA: \t b\t \r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n\r\n",
    ),
    (
        "9110 §5.5 white space inside the value stays",
        b"GET / HTTP/1.1\r\nHost: a\r\nA: b \t c\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nA: b \t c\r\n\r\n",
    ),
    (
        "9110 §5.5 an empty value",
        b"GET / HTTP/1.1\r\nHost: a\r\nA:\r\nB: \t \r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nA: \r\nB: \r\n\r\n",
    ),
    (
        "9110 §5.5 obs-text passes as it is",
        b"GET / HTTP/1.1\r\nHost: a\r\nA: \xff\x80\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nA: \xff\x80\r\n\r\n",
    ),
    (
        "9110 §5.3 order and repetition stay",
        b"GET / HTTP/1.1\r\nHost: a\r\nB: 1\r\nA: 2\r\nb: 3\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nB: 1\r\nA: 2\r\nb: 3\r\n\r\n",
    ),
    (
        "9110 §5.1 any token is a name",
        b"GET / HTTP/1.1\r\nHost: a\r\n!#$%&'*+-.^_`|~: 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n!#$%&'*+-.^_`|~: 1\r\n\r\n",
    ),
    (
        "9110 §5.5 a colon in the value",
        b"GET / HTTP/1.1\r\nHost: a\r\nA::b: c\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nA: :b: c\r\n\r\n",
    ),
    (
        "limits: as many fields as allowed",
        b"GET / HTTP/1.1\r\nHost: a\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nA: \r\nA: \r\nA: \r\nA: \r\nA: \r\nA: \r\nA: \r\n\r\n",
    ),
    // Framing.
    (
        "9112 §6.3 step 6 length",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nA: b\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nA: b\r\nContent-Length: 5\r\n\r\n",
    ),
    (
        "9112 §6.3 step 6 length 0 is said again",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "9110 §8.6 leading zeros are not passed on",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 010\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n",
    ),
    (
        "9110 §8.6 the greatest length",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775807\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775807\r\n\r\n",
    ),
    (
        "9112 §6.3 step 4 chunked in any case",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    ),
    (
        "9112 §6.3 step 7 no body",
        b"POST / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "9112 §6.3 a GET with a body",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n",
    ),
    (
        "9112 §6.3 HTTP/1.0 with length",
        b"POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 5\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n",
    ),
    (
        "9110 §5.1 an underscore is no hyphen",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent_Length: 5\r\nTransfer_Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent_Length: 5\r\nTransfer_Encoding: chunked\r\n\r\n",
    ),
];

#[test]
fn requests_that_are_forwarded() {
    for (rule, raw, expected) in FORWARDED {
        let (n, out) = forwarded(raw, LIMITS)
            .unwrap_or_else(|e| panic!("{rule}: {e}"))
            .unwrap_or_else(|| panic!("{rule}: partial"));
        assert_eq!(n, raw.len(), "{rule}");
        assert_eq!(text(&out), text(expected), "{rule}");
        same_at_every_split(rule, raw, |part| forwarded(part, LIMITS));

        // What follows the head changes nothing, be it the next request or garbage.
        for tail in [b"GET / HTTP/1.1\r\n".as_slice(), b"\0\n\r", b"\r\n\r\n"] {
            let longer = [raw, tail].concat();
            assert_eq!(
                forwarded(&longer, LIMITS),
                Ok(Some((n, out.clone()))),
                "{rule}"
            );
        }

        // What the backend gets means the same to this parser.
        if !expected.windows(8).any(|w| w == b"Host: \r\n") {
            let again = forwarded(&out, LIMITS).unwrap().unwrap();
            assert_eq!(text(&again.1), text(&out), "{rule}");
        }
    }
}

/// Rule, bytes of the client, status.
const REFUSED: &[(&str, &[u8], u16)] = &[
    // The request line.
    ("9112 §3 two spaces after the method", b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("9112 §3 two spaces after the target", b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("9112 §3 a space after the version", b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
    ("9112 §3 a space before the method", b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("9112 §3 a tab for the first space", b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("9112 §3 a tab for the second space", b"GET /\tHTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("9112 §3 a form feed for a space", b"GET\x0c/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("9112 §3 a space in the target", b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("9112 §3 no target", b"GET HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("9112 §3 no version (HTTP/0.9)", b"GET /\r\nHost: a\r\n\r\n", 400),
    ("9112 §3 an empty version", b"GET / \r\nHost: a\r\n\r\n", 400),
    ("9112 §3 only a method", b"GET\r\n\r\n", 400),
    ("9112 §3 only spaces", b"  \r\nHost: a\r\n\r\n", 400),
    ("9112 §3.1 an empty method", b" / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("9112 §3.1 a method that is no token", b"GE(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("9112 §3.1 a method with a colon", b"GET: / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("9112 §2.3 the version in lower case", b"GET / http/1.1\r\nHost: a\r\n\r\n", 400),
    ("9112 §2.3 a version of two digits", b"GET / HTTP/1.10\r\nHost: a\r\n\r\n", 400),
    ("9112 §2.3 a version with a leading zero", b"GET / HTTP/01.1\r\nHost: a\r\n\r\n", 400),
    ("9112 §2.3 no minor version", b"GET / HTTP/1\r\nHost: a\r\n\r\n", 400),
    ("9112 §2.3 no dot", b"GET / HTTP/1,1\r\nHost: a\r\n\r\n", 400),
    ("9112 §2.3 another protocol", b"GET / RTSP/1.0\r\nHost: a\r\n\r\n", 400),
    ("9112 §2.3 a signed version", b"GET / HTTP/-1.1\r\nHost: a\r\n\r\n", 400),
    ("9110 §15.6.6 HTTP/2.0", b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    ("9113 §3.4 the HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ("9110 §15.6.6 HTTP/0.9 said aloud", b"GET / HTTP/0.9\r\nHost: a\r\n\r\n", 505),
    ("9110 §15.6.6 HTTP/3.1", b"GET / HTTP/3.1\r\nHost: a\r\n\r\n", 505),
    ("9112 §2.2 two empty lines before", b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("9112 §2.2 a bare LF before", b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("9112 §2.2 a space and an empty line before", b" \r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    // Line ends.
    ("9112 §2.2 bare LF after the request line", b"GET / HTTP/1.1\nHost: a\r\n\r\n", 400),
    ("9112 §2.2 bare LF after a field", b"GET / HTTP/1.1\r\nHost: a\nA: b\r\n\r\n", 400),
    ("9112 §2.2 bare LF at the end", b"GET / HTTP/1.1\r\nHost: a\r\n\n", 400),
    ("9112 §2.2 only bare LFs", b"GET / HTTP/1.1\nHost: a\n\n", 400),
    ("9112 §2.2 bare CR in the request line", b"GET /\rx HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("9112 §2.2 bare CR in a value", b"GET / HTTP/1.1\r\nHost: a\r\nA: b\rc\r\n\r\n", 400),
    ("9112 §2.2 bare CR in a name", b"GET / HTTP/1.1\r\nHost: a\r\nA\rb: c\r\n\r\n", 400),
    ("9112 §2.2 CR CR LF", b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", 400),
    ("9112 §2.2 CR CR LF at the end", b"GET / HTTP/1.1\r\nHost: a\r\n\r\r\n", 400),
    ("9112 §2.2 bare CR as line end", b"GET / HTTP/1.1\rHost: a\r\r", 400),
    ("9110 §5.5 NUL in a value", b"GET / HTTP/1.1\r\nHost: a\r\nA: b\0c\r\n\r\n", 400),
    ("9110 §5.5 NUL in a name", b"GET / HTTP/1.1\r\nHost: a\r\nA\0: c\r\n\r\n", 400),
    ("9112 §3 NUL in the target", b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("refused at once: bare LF in a head that never ends", b"GET / HTTP/1.1\r\nHost: a\nA", 400),
    ("refused at once: bare CR in a head that never ends", b"GET / HTTP/1.1\r\nHost: a\rA", 400),
    ("refused at once: NUL in a head that never ends", b"GET / HTTP/1.1\r\nHost: a\0", 400),
    ("refused at once: a TLS ClientHello", b"\x16\x03\x01\x02\x00\x01\x00", 400),
    // Fields.
    ("9112 §5.1 a space before the colon", b"GET / HTTP/1.1\r\nHost: a\r\nA : b\r\n\r\n", 400),
    ("9112 §5.1 a tab before the colon", b"GET / HTTP/1.1\r\nHost: a\r\nA\t: b\r\n\r\n", 400),
    ("9112 §5.1 a space before Host's colon", b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
    ("9112 §5.1 a space before Content-Length's colon", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\n", 400),
    ("9112 §5.1 a space in a name", b"GET / HTTP/1.1\r\nHost: a\r\nA B: c\r\n\r\n", 400),
    ("9112 §5.2 obs-fold with a space", b"GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n c\r\n\r\n", 400),
    ("9112 §5.2 obs-fold with a tab", b"GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n\tc\r\n\r\n", 400),
    ("9112 §5.2 obs-fold that is empty", b"GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n \r\n\r\n", 400),
    ("9112 §5.2 obs-fold that looks like a field", b"POST / HTTP/1.1\r\nHost: a\r\nA: b\r\n Content-Length: 5\r\n\r\n", 400),
    ("9112 §2.2 white space before the first field", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
    ("9112 §2.2 a line of white space before the fields", b"GET / HTTP/1.1\r\n \r\nHost: a\r\n\r\n", 400),
    ("9112 §5 an empty name", b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", 400),
    ("9112 §5 no colon", b"GET / HTTP/1.1\r\nHost: a\r\nAb\r\n\r\n", 400),
    ("9112 §5 a second request line", b"GET / HTTP/1.1\r\nHost: a\r\nGET / HTTP/1.1\r\n\r\n", 400),
    ("9110 §5.1 a name above ASCII", b"GET / HTTP/1.1\r\nHost: a\r\n\xc3\xa4: b\r\n\r\n", 400),
    ("9110 §5.1 a control character in a name", b"GET / HTTP/1.1\r\nHost: a\r\nA\x0b: b\r\n\r\n", 400),
    ("9110 §5.1 a control character before a name", b"POST / HTTP/1.1\r\nHost: a\r\n\x0bTransfer-Encoding: chunked\r\n\r\n", 400),
    ("9110 §5.1 a delimiter in a name", b"GET / HTTP/1.1\r\nHost: a\r\nA(b): c\r\n\r\n", 400),
    ("9110 §5.5 a control character in a value", b"GET / HTTP/1.1\r\nHost: a\r\nA: b\x1bc\r\n\r\n", 400),
    ("9110 §5.5 a control character after the colon", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\x0bchunked\r\n\r\n", 400),
    ("9110 §5.5 a control character at the end of a value", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\x0c\r\n\r\n", 400),
    ("9110 §5.5 DEL in a value", b"GET / HTTP/1.1\r\nHost: a\r\nA: \x7f\r\n\r\n", 400),
    // Host.
    ("9112 §3.2 no host", b"GET / HTTP/1.1\r\n\r\n", 400),
    ("9112 §3.2 no host in a higher minor version", b"GET / HTTP/1.2\r\n\r\n", 400),
    ("9112 §3.2 no host beside absolute-form", b"GET http://a/ HTTP/1.1\r\n\r\n", 400),
    ("9112 §3.2 two hosts", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    ("9112 §3.2 the same host twice", b"GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", 400),
    ("9112 §3.2 two hosts beside absolute-form", b"GET http://a/ HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
    ("9112 §3.2 two hosts in HTTP/1.0", b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", 400),
    ("9112 §3.2 a second, empty host", b"GET / HTTP/1.1\r\nHost: a\r\nHost:\r\n\r\n", 400),
    ("9112 §3.2 an empty host", b"GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
    ("9112 §3.2 a host of white space", b"GET / HTTP/1.1\r\nHost: \t \r\n\r\n", 400),
    ("9112 §3.2 an empty host with OPTIONS *", b"OPTIONS * HTTP/1.1\r\nHost:\r\n\r\n", 400),
    ("9112 §3.2 a list of hosts", b"GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", 400),
    ("9112 §3.2 a space in the host", b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    ("9112 §3.2 a tab in the host", b"GET / HTTP/1.1\r\nHost: a\tb\r\n\r\n", 400),
    ("9112 §3.2 user information", b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
    ("9112 §3.2 a path in the host", b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    ("9112 §3.2 a query in the host", b"GET / HTTP/1.1\r\nHost: a?b\r\n\r\n", 400),
    ("9112 §3.2 a fragment in the host", b"GET / HTTP/1.1\r\nHost: a#b\r\n\r\n", 400),
    ("9112 §3.2 a URL as host", b"GET / HTTP/1.1\r\nHost: http://a\r\n\r\n", 400),
    ("9112 §3.2 a backslash in the host", b"GET / HTTP/1.1\r\nHost: a\\b\r\n\r\n", 400),
    ("9112 §3.2 a quote in the host", b"GET / HTTP/1.1\r\nHost: \"a\"\r\n\r\n", 400),
    ("9112 §3.2 a host above ASCII", b"GET / HTTP/1.1\r\nHost: \xc3\xa4\r\n\r\n", 400),
    ("9112 §3.2 an escape in the host", b"GET / HTTP/1.1\r\nHost: a%2eb\r\n\r\n", 400),
    ("9112 §3.2 a malformed host beside absolute-form", b"GET http://b/ HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    ("9112 §3.2 a malformed host in HTTP/1.0", b"GET / HTTP/1.0\r\nHost: a b\r\n\r\n", 400),
    ("3986 §3.2.3 a port that is no number", b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", 400),
    ("3986 §3.2.3 a port too large", b"GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n", 400),
    ("3986 §3.2.3 a port of six digits", b"GET / HTTP/1.1\r\nHost: a:000080\r\n\r\n", 400),
    ("3986 §3.2.3 a signed port", b"GET / HTTP/1.1\r\nHost: a:+80\r\n\r\n", 400),
    ("3986 §3.2.3 port 0", b"GET / HTTP/1.1\r\nHost: a:0\r\n\r\n", 400),
    ("3986 §3.2.3 two ports", b"GET / HTTP/1.1\r\nHost: a:80:81\r\n\r\n", 400),
    ("3986 §3.2.2 only a port", b"GET / HTTP/1.1\r\nHost: :80\r\n\r\n", 400),
    ("3986 §3.2.2 IPv6 without brackets", b"GET / HTTP/1.1\r\nHost: ::1\r\n\r\n", 400),
    ("3986 §3.2.2 IPv6 without an end", b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400),
    ("3986 §3.2.2 IPv6 that is none", b"GET / HTTP/1.1\r\nHost: [::g]\r\n\r\n", 400),
    ("3986 §3.2.2 text after IPv6", b"GET / HTTP/1.1\r\nHost: [::1]a\r\n\r\n", 400),
    ("6874 a zone", b"GET / HTTP/1.1\r\nHost: [fe80::1%25eth0]\r\n\r\n", 400),
    ("3986 §3.2.2 IPvFuture", b"GET / HTTP/1.1\r\nHost: [v1.a]\r\n\r\n", 400),
    ("1035 §2.3.1 an empty label", b"GET / HTTP/1.1\r\nHost: a..b\r\n\r\n", 400),
    ("1035 §2.3.1 a dot before", b"GET / HTTP/1.1\r\nHost: .a\r\n\r\n", 400),
    ("1035 §2.3.1 only a dot", b"GET / HTTP/1.1\r\nHost: .\r\n\r\n", 400),
    // Targets.
    ("9112 §3.2.3 CONNECT", b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 405),
    ("9112 §3.2.3 CONNECT with a path", b"CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", 405),
    ("9112 §3.2.3 CONNECT with a URL", b"CONNECT http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 405),
    ("9112 §3.2.3 authority-form without CONNECT", b"GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("9112 §3.2.4 * without OPTIONS", b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("9112 §3.2.4 * with a query", b"OPTIONS *?a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("9112 §3.2.4 * with a path", b"OPTIONS */ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("9112 §3.2.4 * in absolute-form", b"OPTIONS http://a* HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("9112 §3.2.1 a path without slash", b"GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("9112 §3.2.1 only a query", b"GET ?a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("9112 §3.2.2 another scheme", b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("9112 §3.2.2 a scheme without authority", b"GET http:/a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("9110 §4.2.1 an empty authority", b"GET http:///a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("9110 §4.2.1 only a scheme", b"GET http:// HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("9110 §4.2.4 user information in absolute-form", b"GET http://u:p@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("3986 §3.2.3 a bad port in absolute-form", b"GET http://a:x/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("9112 §3.2 a fragment", b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("9112 §3.2 a fragment in the query", b"GET /a?b#c HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("9112 §3.2 a fragment in absolute-form", b"GET http://a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("9112 §3.2 a target above ASCII", b"GET /\xc3\xa4 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("9112 §3.2 a query above ASCII", b"GET /?\xc3\xa4 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("9112 §3.2 a control character in the query", b"GET /?\x01 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("9112 §3.2 DEL in the target", b"GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("3986 §5.2.4 above the root", b"GET /.. HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("3986 §5.2.4 above the root by escapes", b"GET /a/%2e%2E/.%2e/b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("3986 §5.2.4 above the root in absolute-form", b"GET http://a/../ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("a backslash in the path", b"GET /a\\b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("%00 in the path", b"GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("3986 §2.1 a malformed escape", b"GET /%g0 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    // Framing.
    ("9112 §6.3 step 3 length and chunked", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    ("9112 §6.3 step 3 chunked and length", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", 400),
    ("9112 §6.3 step 3 chunked and length 0", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n", 400),
    ("9112 §6.3 step 3 an unknown coding and length", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x, chunked\r\nContent-Length: 5\r\n\r\n", 400),
    ("9112 §6.3 step 3 an empty coding and length", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\nContent-Length: 5\r\n\r\n", 400),
    ("9112 §6.3 step 3 both in HTTP/1.0", b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", 400),
    ("9112 §6.3 step 3 both in a GET", b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", 400),
    ("9112 §6.1 chunked in HTTP/1.0", b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    ("9112 §6.1 an unknown coding in HTTP/1.0", b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: x\r\n\r\n", 400),
    ("9112 §6.1 an unknown coding, then chunked, in HTTP/1.0", b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 400),
    ("9112 §6.1 an unknown coding, then chunked", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x, chunked\r\n\r\n", 501),
    ("9112 §7.2 gzip, then chunked", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
    ("9112 §6.1 the list in two fields", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n\r\n", 501),
    ("9112 §6.1 identity, then chunked", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity, chunked\r\n\r\n", 501),
    ("9112 §6.1 an empty member, then chunked", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: , chunked\r\n\r\n", 501),
    ("9112 §6.1 an empty field, then chunked", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\nTransfer-Encoding: chunked\r\n\r\n", 501),
    ("9112 §6.3 step 4 an unknown coding alone", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x\r\n\r\n", 400),
    ("9112 §6.3 step 4 identity", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", 400),
    ("9112 §6.3 step 4 empty", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n", 400),
    ("9112 §6.3 step 4 chunked, then gzip", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", 400),
    ("9112 §6.3 step 4 chunked, then gzip, in two fields", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
    ("9112 §6.3 step 4 chunked, then identity", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n", 400),
    ("9112 §6.3 step 4 chunked, then nothing", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked,\r\n\r\n", 400),
    ("9112 §7.1 chunked with a parameter", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;a=b\r\n\r\n", 400),
    ("9112 §7.1 chunked in quotes", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n", 400),
    ("9112 §7.1 chunked twice", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n", 400),
    ("9112 §7.1 chunked twice in two fields", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    ("9112 §7.1 chunked twice with another between", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, x, chunked\r\n\r\n", 400),
    ("9112 §7.1 a word that starts like chunked", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunkedx\r\n\r\n", 400),
    ("9112 §7.1 a word that ends like chunked", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", 400),
    ("9112 §7.1 chunked without a comma", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x chunked\r\n\r\n", 400),
    ("9112 §6.3 step 5 differing lengths", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", 400),
    ("9112 §6.3 step 5 differing lengths in a list", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 6\r\n\r\n", 400),
    ("9112 §6.3 step 5 the same length twice is refused too", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", 400),
    ("9112 §6.3 step 5 the same length in a list", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n", 400),
    ("9110 §8.6 an empty member", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5,\r\n\r\n", 400),
    ("9110 §8.6 an empty member before", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: ,5\r\n\r\n", 400),
    ("9110 §8.6 an empty length", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", 400),
    ("9110 §8.6 a plus", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n", 400),
    ("9110 §8.6 a minus", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n", 400),
    ("9110 §8.6 a minus and 0", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -0\r\n\r\n", 400),
    ("9110 §8.6 a point", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5.0\r\n\r\n", 400),
    ("9110 §8.6 an exponent", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5e1\r\n\r\n", 400),
    ("9110 §8.6 hexadecimal", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\n", 400),
    ("9110 §8.6 an underscore", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1_0\r\n\r\n", 400),
    ("9110 §8.6 a space between digits", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1 0\r\n\r\n", 400),
    ("9110 §8.6 in quotes", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \"5\"\r\n\r\n", 400),
    ("9110 §8.6 digits above ASCII", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \xd9\xa5\r\n\r\n", 400),
    ("9110 §8.6 one more than an i64 holds", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775808\r\n\r\n", 400),
    ("9110 §8.6 one more than a u64 holds", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\n", 400),
    ("9110 §8.6 a length that wraps to 5", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551621\r\n\r\n", 400),
    // Limits.
    ("6585 §5 one field too many", b"GET / HTTP/1.1\r\nHost: a\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\n\r\n", 431),
    ("6585 §5 too many fields in a head that never ends", b"GET / HTTP/1.1\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\n", 431),
];

#[test]
fn requests_that_are_refused() {
    for (rule, raw, status) in REFUSED {
        match forwarded(raw, LIMITS) {
            Err(rejection) => assert_eq!(rejection.status, *status, "{rule}: {rejection}"),
            Ok(other) => panic!("{rule}: {other:?}"),
        }
        same_at_every_split(rule, raw, |part| forwarded(part, LIMITS));
        // Nor does anything that may follow turn it into something else.
        let longer = [raw, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".as_slice()].concat();
        assert_eq!(forwarded(&longer, LIMITS), forwarded(raw, LIMITS), "{rule}");
    }
}

#[test]
fn every_byte_in_every_place() {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    type Place<'a> = (&'a str, &'a [u8], &'a [u8], Box<dyn Fn(u8) -> bool>);
    let places: [Place; 8] = [
        (
            "9112 §3.1 method",
            b"G",
            b"T / HTTP/1.1\r\nHost: a\r\n\r\n",
            Box::new(token),
        ),
        // A space there ends the target too early, `%` starts an escape that is malformed.
        (
            "9112 §3.2 path",
            b"GET /x",
            b"y HTTP/1.1\r\nHost: a\r\n\r\n",
            Box::new(|b| b.is_ascii_graphic() && !b"#%\\".contains(&b)),
        ),
        (
            "9112 §3.2 query",
            b"GET /?x",
            b"y HTTP/1.1\r\nHost: a\r\n\r\n",
            Box::new(|b| b.is_ascii_graphic() && b != b'#'),
        ),
        (
            "9112 §2.3 version",
            b"GET / HTTP/1.",
            b"\r\nHost: a\r\n\r\n",
            Box::new(|b| b.is_ascii_digit()),
        ),
        (
            "9110 §5.1 name",
            b"GET / HTTP/1.1\r\nHost: a\r\nA",
            b"B: c\r\n\r\n",
            Box::new(move |b| token(b) || b == b':'),
        ),
        (
            "9110 §5.5 value",
            b"GET / HTTP/1.1\r\nHost: a\r\nA: b",
            b"c\r\n\r\n",
            Box::new(|b| b == b'\t' || (b >= b' ' && b != 0x7f)),
        ),
        (
            "9110 §7.2 host",
            b"GET / HTTP/1.1\r\nHost: a",
            b"b\r\n\r\n",
            Box::new(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b)),
        ),
        (
            "9110 §8.6 length",
            b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1",
            b"1\r\n\r\n",
            Box::new(|b| b.is_ascii_digit()),
        ),
    ];
    for (place, before, after, fits) in places {
        for byte in 0..=255 {
            let raw = [before, &[byte], after].concat();
            let taken = matches!(forwarded(&raw, LIMITS), Ok(Some(_)));
            assert_eq!(taken, fits(byte), "{place}: {byte:#04x}");
            same_at_every_split(place, &raw, |part| forwarded(part, LIMITS));
        }
    }
}

#[test]
fn heads_at_the_limits() {
    let head_of = |line: usize, fields: usize| {
        let mut raw = b"GET /".to_vec();
        raw.resize(line - 11, b'x');
        raw.extend_from_slice(b" HTTP/1.1\r\nHost: a\r\nA: ");
        raw.resize(line + fields - 4, b'x');
        raw.extend_from_slice(b"\r\n\r\n");
        raw
    };
    let status = |raw: &[u8]| forwarded(raw, LIMITS).map(|taken| taken.map(|t| t.0));
    for (rule, line, fields, expected) in [
        ("just fits", 100, 500, Ok(Some(600))),
        ("6585 §5 one byte too many", 100, 501, Err(431)),
        ("6585 §5 the last line is cut", 100, 502, Err(431)),
        ("6585 §5 far too many", 100, 5000, Err(431)),
        ("a long line that just fits", 580, 20, Ok(Some(600))),
        (
            "6585 §5 the line fits, the fields do not",
            600,
            20,
            Err(431),
        ),
        (
            "9110 §15.5.15 the line alone is too long",
            601,
            20,
            Err(414),
        ),
        (
            "9110 §15.5.15 the line alone is far too long",
            5000,
            20,
            Err(414),
        ),
    ] {
        let raw = head_of(line, fields);
        assert_eq!(status(&raw).map_err(|e| e.status), expected, "{rule}");
        same_at_every_split(rule, &raw, status);
    }
    // A full buffer without an end is refused: a reader would have no room to wait for more.
    let raw = head_of(100, 600);
    assert_eq!(status(&raw[..599]), Ok(None));
    assert_eq!(status(&raw[..600]).map_err(|e| e.status), Err(431));
    let raw = head_of(700, 20);
    assert_eq!(status(&raw[..599]), Ok(None));
    assert_eq!(status(&raw[..600]).map_err(|e| e.status), Err(414));
    assert_eq!(status(b""), Ok(None));
}

#[test]
fn what_is_taken_apart_for_routing() {
    for (rule, host, name, port) in [
        ("plain", "a.example", "a.example", None),
        ("3986 §6.2.2.1 lower case", "A.Example", "a.example", None),
        ("no port", "a:8443", "a", Some(8443)),
        ("1034 §3.1 no final dot", "a.example.", "a.example", None),
        (
            "1034 §3.1 no final dot before a port",
            "a.:65535",
            "a",
            Some(65535),
        ),
        ("port with zeros", "a:00080", "a", Some(80)),
        ("IPv4", "127.0.0.1:1", "127.0.0.1", Some(1)),
        ("3986 §3.2.2 brackets stay", "[::1]", "[::1]", None),
        (
            "5952 one form of an address",
            "[2001:DB8:0:0::1]:9",
            "[2001:db8::1]",
            Some(9),
        ),
        ("container names", "my_app-1~x", "my_app-1~x", None),
    ] {
        let raw = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let mut head = RequestHead::default();
        // What an earlier request left behind must not show.
        head.host.push_str("before");
        head.authority.extend_from_slice(b"before");
        head.port = Some(7);
        request_head(raw.as_bytes(), LIMITS, &mut head).unwrap();
        assert_eq!((head.host.as_str(), head.port), (name, port), "{rule}");
        assert_eq!(head.authority, host.as_bytes(), "{rule}");
    }
}

#[test]
fn names_as_long_as_may_be() {
    for (rule, length, dot, taken) in [
        ("3986 §3.2.2 255 characters", 255, "", true),
        ("3986 §3.2.2 256 characters", 256, "", false),
        ("1034 §3.1 the final dot is not counted", 255, ".", true),
    ] {
        let mut head = RequestHead::default();
        let host = "a".repeat(length) + dot;
        assert_eq!(head.set_authority(host.as_bytes()).is_ok(), taken, "{rule}");
    }
}

#[test]
fn no_host_leaves_nothing_of_the_one_before() {
    let mut head = RequestHead::default();
    request_head(b"GET / HTTP/1.1\r\nHost: a:81\r\n\r\n", LIMITS, &mut head).unwrap();
    request_head(b"GET / HTTP/1.0\r\n\r\n", LIMITS, &mut head).unwrap();
    assert_eq!((head.host.as_str(), head.port), ("", None));
    assert_eq!(head.authority, b"");
}

#[test]
fn a_reused_head_shows_nothing_of_the_one_before() {
    let mut reused = RequestHead::default();
    for (rule, raw, _) in FORWARDED.iter().rev().chain(FORWARDED) {
        let mut fresh = RequestHead::default();
        request_head(raw, LIMITS, &mut fresh).unwrap();
        request_head(raw, LIMITS, &mut reused).unwrap();
        assert_eq!(show(&fresh), show(&reused), "{rule}");
    }
}

/// Rule, bytes of the backend, bytes for the client.
const RETURNED: &[(&str, &[u8], &[u8])] = &[
    (
        "9112 §6.3 step 6 length",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nA: b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 5\r\n\r\n",
    ),
    (
        "9112 §6.3 step 4 chunked",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    ),
    (
        "9112 §6.3 step 8 until close",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
    ),
    (
        "9112 §6.3 step 5 the same length twice",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
    ),
    (
        "9112 §6.3 step 5 the same length in a list",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5, 05\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
    ),
    (
        "9112 §4 an empty reason",
        b"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "9112 §4 no reason and no space",
        b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "9112 §4 a reason with spaces, tabs, obs-text",
        b"HTTP/1.1 404 Not\tFound  \xfc\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 404 Not\tFound  \xfc\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "9110 §15 a status that nobody knows",
        b"HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "9110 §2.5 HTTP/1.0",
        b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "9110 §2.5 a higher minor version",
        b"HTTP/1.7 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "9110 §15.2 an interim response",
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
    ),
    (
        "9110 §8.6 an interim response with length 0",
        b"HTTP/1.1 100 Continue\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
    ),
    (
        "9110 §8.6 a 204 with length 0",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
    ),
    (
        "9110 §8.6 a 204 with a length",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
    ),
    (
        "9112 §6.1 a 204 with chunked",
        b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
    ),
    (
        "9110 §8.6 a 304 keeps its length",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
    ),
    (
        "9112 §6.1 a 304 with chunked",
        b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\n\r\n",
    ),
    (
        "9112 §6.3 a 205 is framed like any",
        b"HTTP/1.1 205 Reset\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 205 Reset\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "9110 §7.8 a 101",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
    ),
    (
        "9110 §5.3 repeated fields stay apart",
        b"HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 0\r\n\r\n",
    ),
];

#[test]
fn responses_that_are_returned() {
    for (rule, raw, expected) in RETURNED {
        let (n, out) = returned(raw, LIMITS)
            .unwrap_or_else(|e| panic!("{rule}: {e}"))
            .unwrap_or_else(|| panic!("{rule}: partial"));
        assert_eq!(n, raw.len(), "{rule}");
        assert_eq!(text(&out), text(expected), "{rule}");
        same_at_every_split(rule, raw, |part| returned(part, LIMITS));
        let longer = [raw, b"\0\n".as_slice()].concat();
        assert_eq!(returned(&longer, LIMITS), Ok(Some((n, out))), "{rule}");
    }
}

/// Rule and bytes of the backend.
const BROKEN: &[(&str, &[u8])] = &[
    ("9112 §4 another protocol, at once", b"SSH-2.0-x"),
    ("9112 §4 lower case", b"http/1.1 200 OK\r\n\r\n"),
    ("9112 §4 ICY", b"ICY 200 OK\r\n\r\n"),
    ("9112 §4 only a body", b"hello\r\n\r\n"),
    (
        "9112 §2.2 an empty line before",
        b"\r\nHTTP/1.1 200 OK\r\n\r\n",
    ),
    ("9112 §2.2 a space before", b" HTTP/1.1 200 OK\r\n\r\n"),
    ("9110 §2.5 HTTP/2.0", b"HTTP/2.0 200 OK\r\n\r\n"),
    ("9110 §2.5 HTTP/0.9", b"HTTP/0.9 200 OK\r\n\r\n"),
    (
        "9112 §2.3 a minor version of two digits",
        b"HTTP/1.10 200 OK\r\n\r\n",
    ),
    ("9112 §2.3 no minor version", b"HTTP/1 200 OK\r\n\r\n"),
    ("9112 §4 no status", b"HTTP/1.1\r\n\r\n"),
    ("9112 §4 an empty status", b"HTTP/1.1 \r\n\r\n"),
    ("9112 §4 two spaces", b"HTTP/1.1  200 OK\r\n\r\n"),
    ("9112 §4 a tab", b"HTTP/1.1\t200 OK\r\n\r\n"),
    ("9112 §4 two digits", b"HTTP/1.1 20 OK\r\n\r\n"),
    ("9112 §4 four digits", b"HTTP/1.1 2000 OK\r\n\r\n"),
    ("9112 §4 a letter", b"HTTP/1.1 20x OK\r\n\r\n"),
    ("9112 §4 a sign", b"HTTP/1.1 +20 OK\r\n\r\n"),
    ("9110 §15 status 099", b"HTTP/1.1 099 OK\r\n\r\n"),
    ("9110 §15 status 000", b"HTTP/1.1 000 OK\r\n\r\n"),
    (
        "9112 §4 a tab after the status",
        b"HTTP/1.1 200\tOK\r\n\r\n",
    ),
    (
        "9112 §4 a control character in the reason",
        b"HTTP/1.1 200 O\x01K\r\n\r\n",
    ),
    ("9112 §2.2 bare LF", b"HTTP/1.1 200 OK\nA: b\r\n\r\n"),
    ("9112 §2.2 only bare LFs", b"HTTP/1.1 200 OK\n\n"),
    ("9112 §2.2 bare LF at the end", b"HTTP/1.1 200 OK\r\n\n"),
    ("9112 §2.2 bare CR", b"HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n"),
    ("9112 §2.2 CR CR LF", b"HTTP/1.1 200 OK\r\r\n\r\n"),
    ("9110 §5.5 NUL", b"HTTP/1.1 200 OK\r\nA: \0\r\n\r\n"),
    (
        "9112 §5.1 a space before the colon",
        b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
    ),
    (
        "9112 §5.2 obs-fold",
        b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
    ),
    ("9112 §5 an empty name", b"HTTP/1.1 200 OK\r\n: b\r\n\r\n"),
    ("9112 §5 no colon", b"HTTP/1.1 200 OK\r\nab\r\n\r\n"),
    (
        "9110 §5.5 a control character",
        b"HTTP/1.1 200 OK\r\nA: \x08\r\n\r\n",
    ),
    (
        "9112 §6.3 step 3 length and chunked",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    ),
    (
        "9112 §6.3 step 3 in a 304",
        b"HTTP/1.1 304 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    ),
    (
        "9112 §6.3 step 4 an unknown coding",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
    ),
    (
        "9112 §6.3 step 4 an unknown coding, then chunked",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    ),
    (
        "9112 §6.3 step 4 chunked, then an unknown coding",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
    ),
    (
        "9112 §6.3 step 4 identity",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n",
    ),
    (
        "9112 §7.1 chunked twice",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    ),
    (
        "9112 §6.1 chunked in HTTP/1.0",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    ),
    (
        "9112 §6.3 step 5 differing lengths",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
    ),
    (
        "9112 §6.3 step 5 differing lengths in a list",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\n",
    ),
    (
        "9112 §6.3 step 5 malformed",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
    ),
    (
        "9112 §6.3 step 5 malformed in a 304",
        b"HTTP/1.1 304 OK\r\nContent-Length: x\r\n\r\n",
    ),
    (
        "9112 §6.3 step 5 malformed in a 204",
        b"HTTP/1.1 204 OK\r\nContent-Length: x\r\n\r\n",
    ),
    (
        "9112 §6.3 step 5 negative",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    ),
    (
        "9112 §6.3 step 5 empty",
        b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
    ),
    (
        "9112 §6.3 step 5 overflow",
        b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\n",
    ),
    (
        "9110 §8.6 an interim response with a length",
        b"HTTP/1.1 100 OK\r\nContent-Length: 5\r\n\r\n",
    ),
    (
        "9112 §6.1 an interim response with chunked",
        b"HTTP/1.1 103 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    ),
    (
        "9112 §6.1 a 101 with chunked",
        b"HTTP/1.1 101 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    ),
    (
        "limits: too many fields",
        b"HTTP/1.1 200 OK\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\n\r\n",
    ),
];

#[test]
fn responses_that_are_broken() {
    for (rule, raw) in BROKEN {
        let whole = returned(raw, LIMITS);
        assert!(whole.is_err(), "{rule}: {whole:?}");
        same_at_every_split(rule, raw, |part| returned(part, LIMITS));
    }
    let endless = [b"HTTP/1.1 200 ".as_slice(), &[b'x'; 5000]].concat();
    assert!(returned(&endless, LIMITS).is_err());
    same_at_every_split("limits: an endless status line", &endless, |part| {
        returned(part, LIMITS)
    });
    let endless = [b"HTTP/1.1 200 OK\r\nA: ".as_slice(), &[b'x'; 5000]].concat();
    assert!(returned(&endless, LIMITS).is_err());
}

/// Bytes that look like a head often enough to get far into the parser.
fn head_like() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        prop::sample::select(FORWARDED).prop_map(|(_, raw, _)| raw.to_vec()),
        prop::sample::select(REFUSED).prop_map(|(_, raw, _)| raw.to_vec()),
        prop::sample::select(RETURNED).prop_map(|(_, raw, _)| raw.to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b": ".to_vec()),
        Just(b"Transfer-Encoding: chunked\r\n".to_vec()),
        Just(b"Content-Length: 3\r\n".to_vec()),
        prop::collection::vec(any::<u8>(), 0..4),
    ];
    let edit = (any::<prop::sample::Index>(), any::<u8>(), 0..3u8);
    (
        prop::collection::vec(piece, 1..4),
        prop::collection::vec(edit, 0..3),
    )
        .prop_map(|(pieces, edits)| {
            let mut raw = pieces.concat();
            for (at, byte, kind) in edits {
                if raw.is_empty() {
                    break;
                }
                let at = at.index(raw.len());
                match kind {
                    0 => raw[at] = byte,
                    1 => raw.insert(at, byte),
                    _ => drop(raw.remove(at)),
                }
            }
            raw
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_request_reads_the_same_at_every_split(raw in head_like()) {
        same_at_every_split("property", &raw, |part| forwarded(part, LIMITS));
    }

    #[test]
    fn any_response_reads_the_same_at_every_split(raw in head_like()) {
        same_at_every_split("property", &raw, |part| returned(part, LIMITS));
    }

    #[test]
    fn a_request_is_encoded_and_decoded(
        method in "[A-Z-]{1,12}",
        path in "/([a-z.~]|%2f|%20|/x)*",
        query in "(\\?[!-\"$-~]{0,8})?",
        host in "[a-zA-Z0-9][a-zA-Z0-9_-]{0,6}(\\.[a-z]{1,3}){0,2}(:[1-9][0-9]{0,3})?",
        list in prop::collection::vec(("X[!#$%&'*+.^_`|~0-9a-zA-Z-]{0,8}", "([!-~]([ \t!-~]{0,8}[!-~])?)?"), 0..6),
        length in proptest::option::of(0..=i64::MAX as u64),
    ) {
        let mut head = RequestHead {
            method: Method::of(method.as_bytes()),
            method_text: method.into_bytes(),
            ..RequestHead::default()
        };
        prop_assume!(head.method != Method::Connect);
        prop_assume!(normalise_path(path.as_bytes(), &mut head.path).is_ok());
        head.query.extend_from_slice(query.as_bytes());
        head.set_authority(host.as_bytes()).unwrap();
        for (name, value) in &list {
            head.fields.push(name.as_bytes(), value.as_bytes());
        }
        let framing = length.map_or(BodyFraming::Chunked, BodyFraming::Length);
        let mut raw = Vec::new();
        encode::request_head(&head, framing, ConnectionField::Close, &mut raw);

        let mut read = RequestHead::default();
        prop_assert_eq!(request_head(&raw, LIMITS, &mut read), Ok(Some(raw.len())));
        prop_assert_eq!(request_framing(&read), Ok(framing));
        prop_assert!(!crate::http::body::request_keeps_alive(&read));
        read.fields.retain(|f| !matches!(
            f.known,
            Known::Connection | Known::ContentLength | Known::TransferEncoding
        ));
        prop_assert_eq!(show(&read), show(&head));
    }

    #[test]
    fn a_response_is_encoded_and_decoded(
        status in 200..=999u16,
        reason in "[\t -~]{0,12}",
        list in prop::collection::vec(("X[!#$%&'*+.^_`|~0-9a-zA-Z-]{0,8}", "([!-~]([ \t!-~]{0,8}[!-~])?)?"), 0..6),
        framing in prop_oneof![
            (0..=i64::MAX as u64).prop_map(BodyFraming::Length),
            Just(BodyFraming::Chunked),
            Just(BodyFraming::UntilClose),
        ],
    ) {
        prop_assume!(!matches!(status, 204 | 304));
        let mut head = ResponseHead { status, reason: reason.into_bytes(), ..Default::default() };
        for (name, value) in &list {
            head.fields.push(name.as_bytes(), value.as_bytes());
        }
        let mut raw = Vec::new();
        encode::response_head(&head, framing, ConnectionField::None, &mut raw);

        let mut read = ResponseHead::default();
        prop_assert_eq!(response_head(&raw, LIMITS, &mut read), Ok(Some(raw.len())));
        prop_assert_eq!(response_framing(Method::Get, &read), Ok(framing));
        prop_assert_eq!((read.status, &read.reason), (head.status, &head.reason));
        read.fields.retain(|f| !matches!(f.known, Known::ContentLength | Known::TransferEncoding));
        let fields = |h: &ResponseHead| format!("{:?}", h.fields.iter().collect::<Vec<_>>());
        prop_assert_eq!(fields(&read), fields(&head));
    }

    /// A fixed point: nothing in what a backend gets can be read as something else by a reader
    /// as strict as this one.
    #[test]
    fn what_is_forwarded_reads_as_itself(raw in head_like()) {
        if let Ok(Some((_, once))) = forwarded(&raw, LIMITS) {
            let unbounded = HeadLimits { bytes: usize::MAX, fields: usize::MAX };
            let without_host = once.windows(8).any(|w| w == b"Host: \r\n");
            match forwarded(&once, unbounded) {
                Ok(Some((n, twice))) => {
                    prop_assert_eq!(n, once.len());
                    prop_assert_eq!(text(&twice), text(&once));
                }
                other => prop_assert!(without_host, "{:?}", other),
            }
        }
    }

    /// An independent reader agrees on every line that this one takes.
    #[test]
    fn httparse_reads_the_same_request(raw in head_like()) {
        let mut head = RequestHead::default();
        if let Ok(Some(n)) = request_head(&raw, LIMITS, &mut head) {
            let mut fields = [httparse::EMPTY_HEADER; 16];
            let mut other = httparse::Request::new(&mut fields);
            match other.parse(&raw) {
                Ok(status) => prop_assert_eq!(status, httparse::Status::Complete(n)),
                // It knows no higher minor version.
                Err(e) => {
                    prop_assert_eq!(e, httparse::Error::Version);
                    return Ok(());
                }
            }
            prop_assert_eq!(other.method.map(str::as_bytes), Some(head.method_text.as_slice()));
            let others: Vec<_> = other
                .headers
                .iter()
                .filter(|h| !h.name.eq_ignore_ascii_case("host"))
                .map(|h| (h.name.as_bytes(), h.value))
                .collect();
            let ours: Vec<_> = head.fields.iter().map(|f| (f.name, f.value)).collect();
            prop_assert_eq!(others, ours);
        }
    }
}
