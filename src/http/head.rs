//! Heads of requests and responses, whatever HTTP version they came in (RFC 9110 §6).
//!
//! A head is parsed into buffers that the connection reuses, so that in the steady state a
//! request allocates nothing.

use super::headers::Fields;

/// Request method (RFC 9110 §9). The text of an extension method is in the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[allow(missing_docs)]
pub enum Method {
    #[default]
    Get,
    Head,
    Post,
    Put,
    Delete,
    Connect,
    Options,
    Trace,
    Patch,
    Other,
}

/// Protocol version of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub enum Version {
    Http10,
    #[default]
    Http11,
    Http2,
}

/// Head of a request, with what routing needs already taken apart.
#[derive(Debug, Clone, Default)]
pub struct RequestHead {
    /// The method.
    pub method: Method,
    /// The method as received; of use when `method` is [`Method::Other`].
    pub method_text: Vec<u8>,
    /// Version the client speaks.
    pub version: Version,
    /// Host and port exactly as they go into `Host` of the forwarded request. The authority of an
    /// absolute-form target takes the place of `Host` (RFC 9112 §3.2.2). Empty for an HTTP/1.0
    /// request without `Host`.
    pub authority: Vec<u8>,
    /// The authority's host for routing: lower case, no port, no final dot; an IPv6 address
    /// keeps its brackets.
    pub host: String,
    /// Port of the authority, if it has one.
    pub port: Option<u16>,
    /// Normalised path, starting with `/`; `*` for `OPTIONS *`.
    pub path: Vec<u8>,
    /// Query with its `?`, or empty.
    pub query: Vec<u8>,
    /// Fields in order, `Host` left out (it is in `authority`).
    pub fields: Fields,
}

/// Head of a response.
#[derive(Debug, Clone, Default)]
pub struct ResponseHead {
    /// Version the peer speaks.
    pub version: Version,
    /// Status code, 100..=999.
    pub status: u16,
    /// Reason phrase, perhaps empty.
    pub reason: Vec<u8>,
    /// Fields in order.
    pub fields: Fields,
}

impl Method {
    /// Recognises a method; names are case-sensitive (RFC 9110 §9.1).
    pub fn of(text: &[u8]) -> Method {
        let _ = text;
        todo!()
    }

    /// Name for logs and metrics; `OTHER` for an extension method.
    pub fn name(self) -> &'static str {
        todo!()
    }

    /// RFC 9110 §9.2.2: sending it twice has the effect of sending it once.
    pub fn is_idempotent(self) -> bool {
        todo!()
    }
}

/// A request refused before it is routed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{status}: {reason}")]
pub struct Rejection {
    /// Status to answer with; the connection is closed after it.
    pub status: u16,
    /// What is wrong, for the log and the error text.
    pub reason: &'static str,
}

/// A backend's response that cannot be understood: 502.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadResponse(pub &'static str);

/// Normalises a path once, for matching and for forwarding alike: unreserved characters are
/// decoded (RFC 3986 §6.2.2.2), dot segments removed (§5.2.4). `%2f` and `%5c` stay. A raw `\`,
/// `%00`, a malformed escape or `..` above the root is a 400.
pub fn normalise_path(raw: &[u8], out: &mut Vec<u8>) -> Result<(), Rejection> {
    let _ = (raw, out);
    todo!()
}
