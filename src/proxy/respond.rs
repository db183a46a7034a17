//! Responses of our own: errors, redirects, and what authorities ask for.

use std::rc::Rc;
use std::time::SystemTime;

use super::edits::Edits;
use super::forward::push_own;
use super::grpc;
use super::job::Downstream;
use super::sink::Sink;
use super::source::Piece;
use crate::config::Redirect;
use crate::http::body::BodyFraming;
use crate::http::h1::encode::{self, ConnectionField};
use crate::http::h2;
use crate::http::head::{Method, RequestHead, ResponseHead, Version};
use crate::http::headers::{Fields, Known};
use crate::io::buffer::BufferPool;
use crate::io::pace::Pace;

/// A response of ours, whole.
#[derive(Debug)]
pub(super) struct Own {
    head: ResponseHead,
    body: Vec<u8>,
    /// The request wants a head only.
    is_head: bool,
}

/// Says that a request failed. `retry_after`: seconds. `head` is the request's, if it was understood.
pub(super) fn error(
    status: u16,
    explanation: &str,
    retry_after: Option<u64>,
    request_id: &[u8; 32],
    head: Option<&RequestHead>,
) -> Own {
    if head.is_some_and(in_words_of_grpc) {
        return grpc::error(status, explanation, request_id);
    }
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
    Own {
        head: response,
        body: body.into_bytes(),
        is_head: head.is_some_and(|h| h.method == Method::Head),
    }
}

/// Is a client told in gRPC's words what went wrong?
pub(super) fn in_words_of_grpc(head: &RequestHead) -> bool {
    head.version == Version::Http2 && h2::head::is_grpc(&head.fields)
}

/// Where a request finds the same place over https.
pub(super) fn over_https(to: Redirect, head: &RequestHead) -> Vec<u8> {
    let mut location = Vec::from(&b"https://"[..]);
    location.extend_from_slice(head.host.as_bytes());
    if to.port != 443 {
        location.extend_from_slice(format!(":{}", to.port).as_bytes());
    }
    if head.path != b"*" {
        location.extend_from_slice(&head.path);
        location.extend_from_slice(&head.query);
    }
    location
}

/// Sends a client elsewhere.
pub(super) fn redirect(
    status: u16,
    location: &[u8],
    head: &RequestHead,
    request_id: &[u8; 32],
) -> Own {
    let mut response = own(status, request_id);
    response.fields.push(b"Location", location);
    Own {
        head: response,
        body: Vec::new(),
        is_head: head.method == Method::Head,
    }
}

/// A text, as it is.
pub(super) fn text(body: String, head: &RequestHead, request_id: &[u8; 32]) -> Own {
    let mut response = own(200, request_id);
    response.fields.push(b"Content-Type", b"text/plain");
    Own {
        head: response,
        body: body.into_bytes(),
        is_head: head.method == Method::Head,
    }
}

impl Own {
    /// A head and nothing else.
    pub(super) fn bare(head: ResponseHead) -> Own {
        Own {
            head,
            body: Vec::new(),
            is_head: false,
        }
    }

    /// The same with these changes to its fields.
    pub(super) fn edited(mut self, edits: Option<Edits<'_>>) -> Own {
        if let Some(edits) = edits {
            edits.apply(&mut self.head.fields);
        }
        self
    }

    /// Says where the request went.
    pub(super) fn explain(&mut self, explanation: &str) {
        push_own(&mut self.head.fields, None, Some(explanation));
    }

    /// Its status code.
    pub(super) fn status(&self) -> u16 {
        self.head.status
    }

    /// Bytes of its body, as far as the client gets them.
    pub(super) fn length(&self) -> u64 {
        match self.is_head {
            true => 0,
            false => self.body.len() as u64,
        }
    }

    /// Sends it. False: the client did not take it.
    pub(super) async fn send(
        &self,
        over: &Downstream<'_>,
        connection: ConnectionField,
        writing: &mut Pace,
        buffers: &Rc<BufferPool>,
    ) -> bool {
        let body: &[u8] = match self.is_head {
            true => b"",
            false => &self.body,
        };
        let framing = BodyFraming::Length(self.body.len() as u64);
        match over {
            // Nobody reads it.
            Downstream::Copy(_) => true,
            Downstream::H1 { io, .. } => {
                let mut out = buffers.output();
                encode::response_head(&self.head, framing, connection, &mut out.bytes);
                out.bytes.extend_from_slice(body);
                io.write_all(&out.bytes, &[], writing).await.is_ok()
            }
            Downstream::H2 { outgoing, .. } => {
                // Trailers-only, where it is gRPC's.
                let framing = match self.body.is_empty() {
                    true => BodyFraming::None,
                    false => framing,
                };
                let Ok(head) = h2::head::response(&self.head, framing) else {
                    return false;
                };
                if outgoing.begin(head, body.is_empty()).is_err() {
                    return false;
                }
                let (piece, end) = (Piece::Lent(body), Fields::default());
                body.is_empty()
                    || (Sink::H2(outgoing).write(&mut Vec::new(), piece, Some(&end), writing))
                        .await
                        .is_ok()
            }
        }
    }
}

pub(super) fn own(status: u16, request_id: &[u8; 32]) -> ResponseHead {
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

/// Reason phrases of the statuses that are ours to send.
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        403 => "Forbidden",
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
