//! How long a message's body is: the one place where that is decided (RFC 9112 §6).

use super::head::{BadResponse, Method, Rejection, RequestHead, ResponseHead};

/// How the end of a body is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFraming {
    /// There is no body.
    None,
    /// Exactly so many bytes (may be 0: `Content-Length: 0` was said and is to be said again).
    Length(u64),
    /// Chunked transfer coding.
    Chunked,
    /// Until the connection closes; responses only.
    UntilClose,
}

/// RFC 9112 §6.3 for a request. Anything that could be read two ways is refused.
pub fn request_framing(head: &RequestHead) -> Result<BodyFraming, Rejection> {
    let _ = head;
    todo!()
}

/// RFC 9112 §6.3 for the final response to a request with `method`.
pub fn response_framing(method: Method, head: &ResponseHead) -> Result<BodyFraming, BadResponse> {
    let _ = (method, head);
    todo!()
}

/// May another request follow on this connection (RFC 9112 §9.3), as far as the head says?
pub fn request_keeps_alive(head: &RequestHead) -> bool {
    let _ = head;
    todo!()
}

/// May the connection be used again after this response, as far as the head says?
pub fn response_keeps_alive(head: &ResponseHead) -> bool {
    let _ = head;
    todo!()
}
