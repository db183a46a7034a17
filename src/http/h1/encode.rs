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
    let ours = |known| {
        matches!(
            known,
            Known::Connection | Known::ContentLength | Known::Host | Known::TransferEncoding
        )
    };
    for lines in fields.lines(|known| !ours(known)) {
        out.extend_from_slice(lines);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> RequestHead {
        let mut head = RequestHead {
            path: b"/a".to_vec(),
            query: b"?b".to_vec(),
            authority: b"c:80".to_vec(),
            ..RequestHead::default()
        };
        for (name, value) in [
            ("A", "1"),
            ("content-length", "5"),
            ("B", ""),
            ("TRANSFER-ENCODING", "chunked"),
            ("Host", "smuggled"),
            ("Connection", "close"),
            ("a", "2"),
        ] {
            head.fields.push(name.as_bytes(), value.as_bytes());
        }
        head
    }

    #[test]
    fn requests() {
        for (framing, connection, last_lines) in [
            (BodyFraming::None, ConnectionField::None, ""),
            (
                BodyFraming::Length(0),
                ConnectionField::None,
                "Content-Length: 0\r\n",
            ),
            (
                BodyFraming::Length(u64::MAX),
                ConnectionField::Close,
                "Content-Length: 18446744073709551615\r\nConnection: close\r\n",
            ),
            (
                BodyFraming::Chunked,
                ConnectionField::KeepAlive,
                "Transfer-Encoding: chunked\r\nConnection: keep-alive\r\n",
            ),
            (
                BodyFraming::UntilClose,
                ConnectionField::Upgrade,
                "Transfer-Encoding: chunked\r\nConnection: Upgrade\r\n",
            ),
        ] {
            let mut out = b"before ".to_vec();
            request_head(&request(), framing, connection, &mut out);
            let expected = format!(
                "before GET /a?b HTTP/1.1\r\nHost: c:80\r\nA: 1\r\nB: \r\na: 2\r\n{last_lines}\r\n"
            );
            assert_eq!(String::from_utf8(out).unwrap(), expected, "{framing:?}");
        }
    }

    #[test]
    fn methods() {
        for (method, text, expected) in [
            (Method::Delete, "", "DELETE "),
            (Method::Other, "PROPFIND", "PROPFIND "),
            (Method::Other, "OTHER", "OTHER "),
        ] {
            let head = RequestHead {
                method,
                method_text: text.as_bytes().to_vec(),
                ..request()
            };
            let mut out = Vec::new();
            request_head(&head, BodyFraming::None, ConnectionField::None, &mut out);
            assert!(out.starts_with(expected.as_bytes()));
        }
    }

    #[test]
    fn responses() {
        const BOTH: &[(&str, &str)] = &[("Content-Length", "5"), ("Transfer-Encoding", "chunked")];
        const TWICE: &[(&str, &str)] = &[("Content-Length", "5, 5"), ("Content-Length", "5")];
        const BAD: &[(&str, &str)] = &[("Content-Length", "5\t6")];
        const NEITHER: &[(&str, &str)] = &[];
        for (rule, status, list, framing, expected) in [
            (
                "the framing alone says",
                200,
                BOTH,
                BodyFraming::Length(7),
                "Content-Length: 7\r\n",
            ),
            (
                "the framing alone says",
                200,
                BOTH,
                BodyFraming::Chunked,
                "Transfer-Encoding: chunked\r\n",
            ),
            (
                "the framing alone says",
                200,
                BOTH,
                BodyFraming::UntilClose,
                "",
            ),
            (
                "9110 §8.6 HEAD and 304 keep it",
                304,
                BOTH,
                BodyFraming::None,
                "Content-Length: 5\r\n",
            ),
            (
                "9110 §8.6 said once",
                200,
                TWICE,
                BodyFraming::None,
                "Content-Length: 5\r\n",
            ),
            (
                "9110 §8.6 not one that is malformed",
                200,
                BAD,
                BodyFraming::None,
                "",
            ),
            ("9110 §8.6 a 204 has none", 204, BOTH, BodyFraming::None, ""),
            ("9110 §8.6 a 1xx has none", 103, BOTH, BodyFraming::None, ""),
            ("there was none", 200, NEITHER, BodyFraming::None, ""),
        ] {
            let mut head = ResponseHead {
                status,
                reason: b"So so".to_vec(),
                ..ResponseHead::default()
            };
            for (name, value) in list {
                head.fields.push(name.as_bytes(), value.as_bytes());
            }
            let mut out = Vec::new();
            response_head(&head, framing, ConnectionField::None, &mut out);
            let expected = format!("HTTP/1.1 {status} So so\r\n{expected}\r\n");
            assert_eq!(String::from_utf8(out).unwrap(), expected, "{rule}");
        }
    }

    #[test]
    fn numbers() {
        for n in [
            0,
            1,
            9,
            10,
            15,
            16,
            255,
            4096,
            65535,
            u64::from(u32::MAX),
            u64::MAX,
        ] {
            let mut out = Vec::new();
            number(n, 10, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), n.to_string());
            let mut out = Vec::new();
            number(n, 16, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), format!("{n:x}"));
        }
    }
}
