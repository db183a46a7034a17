//! What gRPC adds to HTTP/2 that a proxy has to know: its status codes, its deadlines
//! (gRPC over HTTP/2, "PROTOCOL-HTTP2.md").

use std::time::Duration;

use super::respond::{self, Own};
use crate::http::headers::Fields;

/// Says in gRPC's words that a call failed: the status of HTTP is 200, and everything is in one head.
pub(super) fn error(status: u16, explanation: &str, request_id: &[u8; 32]) -> Own {
    let mut head = respond::own(200, request_id);
    head.fields.push(b"Content-Type", b"application/grpc");
    let code = code_of(status).to_string();
    head.fields.push(b"Grpc-Status", code.as_bytes());
    head.fields
        .push(b"Grpc-Message", message(explanation).as_bytes());
    Own::bare(head)
}

/// The status code of gRPC for a response of ours. Where gRPC's table for clients ("HTTP to gRPC
/// Status Code Mapping") has one code for several things, the one that says what happened.
pub(super) fn code_of(status: u16) -> u8 {
    match status {
        400 | 405 | 414 => INTERNAL,
        401 => UNAUTHENTICATED,
        403 => PERMISSION_DENIED,
        404 | 501 => UNIMPLEMENTED,
        408 | 504 => DEADLINE_EXCEEDED,
        413 | 431 => RESOURCE_EXHAUSTED,
        421 | 429 | 502 | 503 => UNAVAILABLE,
        _ => UNKNOWN,
    }
}

const UNKNOWN: u8 = 2;
const DEADLINE_EXCEEDED: u8 = 4;
const PERMISSION_DENIED: u8 = 7;
const RESOURCE_EXHAUSTED: u8 = 8;
const UNIMPLEMENTED: u8 = 12;
const INTERNAL: u8 = 13;
const UNAVAILABLE: u8 = 14;
const UNAUTHENTICATED: u8 = 16;

/// The highest code that there is.
const MOST: u8 = 16;

/// `grpc-message`: all but visible ASCII percent-encoded.
fn message(text: &str) -> String {
    use std::fmt::Write as _;
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'%' | ..=0x1f | 0x7f.. => {
                let written = write!(encoded, "%{byte:02X}");
                written.expect("a string takes what is written");
            }
            visible => encoded.push(char::from(visible)),
        }
    }
    encoded
}

/// `grpc-timeout` of a request: at most eight digits and a unit. `None`: there is none, or none that can
/// be read, which is the backend's matter.
pub(super) fn timeout(fields: &Fields) -> Option<Duration> {
    let value = fields.named("grpc-timeout").next()?;
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let n = digits
        .iter()
        .fold(0u64, |n, digit| n * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(n * 3600),
        b'M' => Duration::from_secs(n * 60),
        b'S' => Duration::from_secs(n),
        b'm' => Duration::from_millis(n),
        b'u' => Duration::from_micros(n),
        b'n' => Duration::from_nanos(n),
        _ => return None,
    })
}

/// `grpc-status` among these trailers, or in a head that is all there is.
pub(super) fn status(fields: &Fields) -> Option<u8> {
    let value = fields.named("grpc-status").next()?;
    let text = std::str::from_utf8(value).ok()?;
    let code: u8 = text.parse().ok()?;
    Some(code.min(MOST + 1))
}

/// A status code's name for metrics and logs; one that gRPC does not have is `OTHER`.
pub(super) fn name(code: u8) -> &'static str {
    const NAMES: [&str; MOST as usize + 1] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    NAMES.get(usize::from(code)).copied().unwrap_or("OTHER")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts() {
        for (text, expected) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("40m", Some(Duration::from_millis(40))),
            ("50u", Some(Duration::from_micros(50))),
            ("60n", Some(Duration::from_nanos(60))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("123456789S", None),
            ("S", None),
            ("", None),
            ("1", None),
            ("1s", None),
            ("-1S", None),
            ("1.5S", None),
        ] {
            let mut fields = Fields::default();
            fields.push(b"grpc-timeout", text.as_bytes());
            assert_eq!(timeout(&fields), expected, "{text}");
        }
        assert_eq!(timeout(&Fields::default()), None);
    }

    #[test]
    fn a_message_holds_visible_ascii_only() {
        assert_eq!(message("no backend"), "no backend");
        assert_eq!(message("100 %\n\u{e4}"), "100 %25%0A%C3%A4");
    }

    #[test]
    fn statuses_are_read_and_bounded() {
        for (text, expected) in [
            ("0", Some("OK")),
            ("14", Some("UNAVAILABLE")),
            ("16", Some("UNAUTHENTICATED")),
            ("17", Some("OTHER")),
            ("255", Some("OTHER")),
            ("256", None),
            ("x", None),
        ] {
            let mut fields = Fields::default();
            fields.push(b"grpc-status", text.as_bytes());
            assert_eq!(status(&fields).map(name), expected, "{text}");
        }
    }
}
