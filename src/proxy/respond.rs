//! Responses of our own: errors and redirects.

use std::time::SystemTime;

use crate::config::Redirect;
use crate::http::body::BodyFraming;
use crate::http::h1::encode::{self, ConnectionField};
use crate::http::head::{Method, RequestHead, ResponseHead};
use crate::http::headers::Known;

/// Writes an error response into `out`. `retry_after`: seconds. `head` is the request's, if it was
/// understood.
pub fn error(
    status: u16,
    explanation: &str,
    retry_after: Option<u64>,
    request_id: &[u8; 32],
    head: Option<&RequestHead>,
    connection: ConnectionField,
    out: &mut Vec<u8>,
) -> u64 {
    let wants_json = head
        .and_then(|h| h.fields.first(Known::Accept))
        .is_some_and(|accept| accept.windows(16).any(|w| w == b"application/json"));
    let id = String::from_utf8_lossy(request_id);
    let (content_type, body) = if wants_json {
        let value = serde_json::json!({
            "status": status,
            "error": reason(status),
            "detail": explanation,
            "request_id": id,
        });
        ("application/json", format!("{value}\n"))
    } else {
        (
            "text/plain; charset=utf-8",
            format!("{status} {}: {explanation}\n", reason(status)),
        )
    };
    let mut response = own(status, request_id);
    response
        .fields
        .push(b"Content-Type", content_type.as_bytes());
    response.fields.push(b"Cache-Control", b"no-store");
    if let Some(seconds) = retry_after {
        let seconds = seconds.to_string();
        response.fields.push(b"Retry-After", seconds.as_bytes());
    }
    if status == 405 {
        // RFC 9110 §15.5.6. Only CONNECT is refused; what else is allowed is the backend's matter.
        response.fields.push(
            b"Allow",
            b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE",
        );
    }
    let is_head = head.is_some_and(|h| h.method == Method::Head);
    write(&response, body.as_bytes(), is_head, connection, out)
}

/// Writes a redirect to the same place over https into `out`.
pub fn redirect(
    to: Redirect,
    head: &RequestHead,
    request_id: &[u8; 32],
    connection: ConnectionField,
    out: &mut Vec<u8>,
) -> u64 {
    let mut location = Vec::from(&b"https://"[..]);
    location.extend_from_slice(head.host.as_bytes());
    if to.port != 443 {
        location.extend_from_slice(format!(":{}", to.port).as_bytes());
    }
    if head.path != b"*" {
        location.extend_from_slice(&head.path);
        location.extend_from_slice(&head.query);
    }
    let mut response = own(to.status, request_id);
    response.fields.push(b"Location", &location);
    write(&response, b"", head.method == Method::Head, connection, out)
}

fn own(status: u16, request_id: &[u8; 32]) -> ResponseHead {
    let mut response = ResponseHead {
        status,
        reason: reason(status).into(),
        ..ResponseHead::default()
    };
    let date = httpdate::fmt_http_date(SystemTime::now());
    response.fields.push(b"Server", b"evenkeel");
    response.fields.push(b"Date", date.as_bytes());
    response.fields.push(b"X-Request-Id", request_id);
    response
}

fn write(
    response: &ResponseHead,
    body: &[u8],
    is_head: bool,
    connection: ConnectionField,
    out: &mut Vec<u8>,
) -> u64 {
    let length = body.len() as u64;
    encode::response_head(response, BodyFraming::Length(length), connection, out);
    if is_head {
        return 0;
    }
    out.extend_from_slice(body);
    length
}

/// Reason phrases of the statuses that are ours to send.
fn reason(status: u16) -> &'static str {
    match status {
        301 => "Moved Permanently",
        302 => "Found",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        421 => "Misdirected Request",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Error",
    }
}
