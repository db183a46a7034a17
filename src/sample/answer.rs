//! The answer in bytes: its head, and the request shown as JSON. Pure.
//!
//! What is shown is what came over the wire: the target as it was written, the fields in their
//! order and spelling, `Host` among them.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::SystemTime;

use data_encoding::BASE64;
use serde_json::Value;

use super::behaviour::{Behaviour, Content};
use crate::http::body::BodyFraming;
use crate::http::h1::encode::{self, ConnectionField};
use crate::http::head::{Method, ResponseHead};
use crate::http::headers::Fields;

/// So much of a body is shown.
pub(super) const BODY_SHOWN: usize = 16 << 10;

/// A request as it came, with what is known of its surroundings.
#[derive(Debug)]
pub(super) struct Request<'a> {
    pub(super) backend: &'a str,
    pub(super) address: SocketAddr,
    pub(super) client: SocketAddr,
    /// Its number.
    pub(super) number: u64,
    /// Its head, which the parser has accepted.
    pub(super) head: &'a [u8],
    pub(super) body: &'a Body,
}

/// A body that was read to its end.
#[derive(Debug, Default)]
pub(super) struct Body {
    pub(super) length: u64,
    /// The first [`BODY_SHOWN`] bytes of it.
    pub(super) start: Vec<u8>,
    /// What came after it.
    pub(super) trailers: Fields,
}

impl Body {
    /// Takes a piece of it.
    pub(super) fn push(&mut self, piece: &[u8]) {
        let room = BODY_SHOWN - self.start.len();
        self.start
            .extend_from_slice(&piece[..piece.len().min(room)]);
        self.length += piece.len() as u64;
    }
}

/// What a response says apart from its content.
#[derive(Debug, Clone, Copy)]
pub(super) struct Envelope<'a> {
    pub(super) backend: &'a str,
    pub(super) method: Method,
    pub(super) connection: ConnectionField,
    pub(super) now: SystemTime,
}

/// Appends an answer to `out`, save for the bytes that were asked for: those the caller makes.
/// Gives their number.
pub(super) fn answer(
    behaviour: &Behaviour,
    request: &Request<'_>,
    envelope: Envelope<'_>,
    out: &mut Vec<u8>,
) -> u64 {
    let (kind, text, length): (&[u8], _, _) = match behaviour.content {
        Content::Echo => {
            let text = echo(behaviour, request);
            let length = text.len() as u64;
            (b"application/json", text, length)
        }
        Content::Health if behaviour.status == 200 => (PLAIN, "ok\n".to_owned(), 3),
        Content::Health => (PLAIN, "stopping\n".to_owned(), 9),
        Content::Bytes(length) => (PLAIN, String::new(), length),
    };
    let mut head = head(behaviour.status, envelope);
    // RFC 9110 §15.3.5, §15.3.6, §15.4.5.
    let framing = match behaviour.status {
        204 | 304 => BodyFraming::None,
        205 => BodyFraming::Length(0),
        _ => {
            head.fields.push(b"Content-Type", kind);
            BodyFraming::Length(length)
        }
    };
    encode::response_head(&head, framing, envelope.connection, out);
    if envelope.method == Method::Head || matches!(behaviour.status, 204 | 205 | 304) {
        return 0;
    }
    out.extend_from_slice(text.as_bytes());
    length - text.len() as u64
}

/// Appends an answer to what is no request that could be understood.
pub(super) fn refusal(status: u16, reason: &str, envelope: Envelope<'_>, out: &mut Vec<u8>) {
    let text = format!("{reason}\n");
    let mut head = head(status, envelope);
    head.fields.push(b"Content-Type", PLAIN);
    if status == 426 {
        // RFC 6455 §4.2.2, RFC 9110 §15.5.22.
        head.fields.push(b"Sec-WebSocket-Version", b"13");
        head.fields.push(b"Upgrade", b"websocket");
    }
    let framing = BodyFraming::Length(text.len() as u64);
    encode::response_head(&head, framing, envelope.connection, out);
    if envelope.method != Method::Head {
        out.extend_from_slice(text.as_bytes());
    }
}

/// A head with the fields that every response has.
pub(super) fn head(status: u16, envelope: Envelope<'_>) -> ResponseHead {
    let mut head = ResponseHead {
        status,
        reason: reason(status).into(),
        ..ResponseHead::default()
    };
    let date = httpdate::fmt_http_date(envelope.now);
    head.fields.push(b"Date", date.as_bytes());
    head.fields.push(b"X-Backend", envelope.backend.as_bytes());
    head
}

/// The request as a JSON object, a line for each member, so that it can be read by eye too.
fn echo(behaviour: &Behaviour, request: &Request<'_>) -> String {
    let (line, fields) = Line::of(request.head);
    let mut members = vec![
        ("backend", Value::from(request.backend)),
        ("address", request.address.to_string().into()),
        ("client", request.client.to_string().into()),
        ("request", request.number.into()),
        ("status", behaviour.status.into()),
    ];
    if let Some(note) = &behaviour.note {
        members.push(("note", note.as_str().into()));
    }
    members.extend([
        ("method", text(line.method).into()),
        ("target", text(line.target).into()),
        ("version", text(line.version).into()),
        ("headers", pairs(fields)),
        ("body_length", request.body.length.into()),
    ]);
    let body = request.body;
    let cut = body.length > body.start.len() as u64;
    if !body.start.is_empty() {
        members.push(match shown(&body.start, cut) {
            Some(text) => ("body", text.into()),
            None => ("body_base64", BASE64.encode(&body.start).into()),
        });
    }
    if cut {
        members.push(("body_cut", true.into()));
    }
    if !body.trailers.is_empty() {
        let trailers = body.trailers.iter().map(|field| (field.name, field.value));
        members.push(("trailers", pairs(trailers)));
    }
    let mut out = String::from("{");
    let mut separator = "\n";
    for (name, value) in members {
        let _ = match value.as_array() {
            Some(pairs) => {
                let lines: Vec<_> = pairs.iter().map(|pair| format!("\n    {pair}")).collect();
                write!(out, "{separator}  \"{name}\": [{}\n  ]", lines.join(","))
            }
            None => write!(out, "{separator}  \"{name}\": {value}"),
        };
        separator = ",\n";
    }
    out.push_str("\n}\n");
    out
}

fn pairs<'a>(fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Value {
    fields
        .map(|(name, value)| Value::from(vec![text(name), text(value)]))
        .collect()
}

/// A request line in its three parts.
struct Line<'a> {
    method: &'a [u8],
    target: &'a [u8],
    version: &'a [u8],
}

impl<'a> Line<'a> {
    /// Takes a head apart that is known to be sound, fields included.
    fn of(head: &'a [u8]) -> (Line<'a>, impl Iterator<Item = (&'a [u8], &'a [u8])>) {
        let head = head.strip_prefix(b"\r\n").unwrap_or(head);
        let mut lines = head
            .split(|b| *b == b'\n')
            .map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let mut parts = lines.next().unwrap_or_default().splitn(3, |b| *b == b' ');
        let mut part = || parts.next().unwrap_or_default();
        let line = Line {
            method: part(),
            target: part(),
            version: part(),
        };
        let fields = lines.take_while(|line| !line.is_empty()).map(|line| {
            let colon = line.iter().position(|b| *b == b':');
            let (name, value) = line.split_at(colon.unwrap_or(line.len()));
            (name, value.strip_prefix(b":").unwrap_or(value).trim_ascii())
        });
        (line, fields)
    }
}

/// As UTF-8; what is not is taken for Latin-1, in which every byte is a character.
fn text(bytes: &[u8]) -> String {
    match str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().copied().map(char::from).collect(),
    }
}

/// A body that is text; of one that was cut, the last character may be left out.
fn shown(body: &[u8], cut: bool) -> Option<&str> {
    match str::from_utf8(body) {
        Ok(text) => Some(text),
        Err(error) if cut && error.error_len().is_none() => {
            str::from_utf8(&body[..error.valid_up_to()]).ok()
        }
        Err(_) => None,
    }
}

const PLAIN: &[u8] = b"text/plain; charset=utf-8";

/// Of statuses that come often; any other goes without one (RFC 9112 §4).
fn reason(status: u16) -> &'static str {
    match status {
        101 => "Switching Protocols",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}
