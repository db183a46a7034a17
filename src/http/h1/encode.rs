//! Heads to bytes.
//!
//! Writes what the heads hold: the parser, or whoever pushed a field, has checked it. How the
//! body is framed is said by the caller alone, never by the fields.

use crate::http::body::{BodyFraming, Declared, declared_length};
use crate::http::head::{Method, RequestHead, ResponseHead};
use crate::http::headers::{Fields, Known};

/// What goes into `Connection` of an encoded head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionField {
    /// Nothing: HTTP/1.1 keep-alive is the default.
    None,
    /// `Connection: close`.
    Close,
    /// `Connection: keep-alive`, for an HTTP/1.0 client that asked for it.
    KeepAlive,
    /// `Connection: Upgrade`; the `Upgrade` field itself is among the head's fields.
    Upgrade,
}

/// Appends an HTTP/1.1 request head to `out`: origin-form target (or `*`), `Host` first, the
/// fields as they are, then the framing field and `Connection`. `Content-Length`,
/// `Transfer-Encoding`, `Connection` and `Host` among the fields are skipped: `framing`,
/// `connection` and the head's `authority` alone say.
///
/// An empty `authority` gives an empty `Host` (RFC 9112 §3.2). A request's body cannot last
/// [until the connection closes](BodyFraming::UntilClose): that is written as chunked.
pub fn request_head(
    head: &RequestHead,
    framing: BodyFraming,
    connection: ConnectionField,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(match head.method {
        Method::Other => &head.method_text,
        known => known.name().as_bytes(),
    });
    out.push(b' ');
    out.extend_from_slice(&head.path);
    out.extend_from_slice(&head.query);
    out.extend_from_slice(b" HTTP/1.1\r\n");
    field(b"Host", &head.authority, out);
    fields(&head.fields, out);
    framing_field(
        match framing {
            BodyFraming::UntilClose => BodyFraming::Chunked,
            possible => possible,
        },
        out,
    );
    end(connection, out);
}

/// Appends a response head with an `HTTP/1.1` status line, as [`request_head`] does. With
/// `BodyFraming::None` a `Content-Length` among the fields is kept (HEAD and 304 carry the
/// length that a GET would have had), except in a 1xx or 204, which must not have one
/// (RFC 9110 §8.6).
pub fn response_head(
    head: &ResponseHead,
    framing: BodyFraming,
    connection: ConnectionField,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(b"HTTP/1.1 ");
    number(u64::from(head.status), 10, out);
    out.push(b' ');
    out.extend_from_slice(&head.reason);
    out.extend_from_slice(b"\r\n");
    fields(&head.fields, out);
    let kept = match (head.status, declared_length(&head.fields)) {
        (100..=199 | 204, _) => BodyFraming::None,
        (_, Ok(Declared::Once(n) | Declared::Repeated(n))) => BodyFraming::Length(n),
        _ => BodyFraming::None,
    };
    framing_field(
        match framing {
            BodyFraming::None => kept,
            other => other,
        },
        out,
    );
    end(connection, out);
}

/// Appends `name: value` and CRLF.
pub(super) fn field(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Appends a number in base 10 or 16.
pub(super) fn number(mut n: u64, base: u64, out: &mut Vec<u8>) {
    let mut digits = [0; MAX_DIGITS];
    let mut start = MAX_DIGITS;
    loop {
        start -= 1;
        digits[start] = b"0123456789abcdef"[(n % base) as usize];
        n /= base;
        if n == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

fn fields(fields: &Fields, out: &mut Vec<u8>) {
    for f in fields.iter() {
        if !matches!(
            f.known,
            Known::Connection | Known::ContentLength | Known::Host | Known::TransferEncoding
        ) {
            field(f.name, f.value, out);
        }
    }
}

fn framing_field(framing: BodyFraming, out: &mut Vec<u8>) {
    match framing {
        BodyFraming::None | BodyFraming::UntilClose => {}
        BodyFraming::Length(n) => {
            out.extend_from_slice(b"Content-Length: ");
            number(n, 10, out);
            out.extend_from_slice(b"\r\n");
        }
        BodyFraming::Chunked => field(b"Transfer-Encoding", b"chunked", out),
    }
}

fn end(connection: ConnectionField, out: &mut Vec<u8>) {
    match connection {
        ConnectionField::None => {}
        ConnectionField::Close => field(b"Connection", b"close", out),
        ConnectionField::KeepAlive => field(b"Connection", b"keep-alive", out),
        ConnectionField::Upgrade => field(b"Connection", b"Upgrade", out),
    }
    out.extend_from_slice(b"\r\n");
}

/// `u64::MAX` in base 10.
const MAX_DIGITS: usize = 20;
