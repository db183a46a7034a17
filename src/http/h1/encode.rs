//! Heads and chunks to bytes.

use crate::http::body::BodyFraming;
use crate::http::head::{RequestHead, ResponseHead};

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
/// fields as they are, then the framing field and `Connection`. `Content-Length` and
/// `Transfer-Encoding` among the fields are skipped: `framing` alone says.
pub fn request_head(
    head: &RequestHead,
    framing: BodyFraming,
    connection: ConnectionField,
    out: &mut Vec<u8>,
) {
    let _ = (head, framing, connection, out);
    todo!()
}

/// Appends a response head with an `HTTP/1.1` status line, as [`request_head`] does. With
/// `BodyFraming::None` a `Content-Length` among the fields is kept (HEAD and 304 carry the
/// length that a GET would have had).
pub fn response_head(
    head: &ResponseHead,
    framing: BodyFraming,
    connection: ConnectionField,
    out: &mut Vec<u8>,
) {
    let _ = (head, framing, connection, out);
    todo!()
}
