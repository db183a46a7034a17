//! Bytes to heads: a strict scan first, then httparse (RFC 9112 §2–§5).

use crate::http::head::{BadResponse, Rejection, RequestHead, ResponseHead};

/// Bounds of a head.
#[derive(Debug, Clone, Copy)]
pub struct HeadLimits {
    /// Bytes, first line and final empty line included.
    pub bytes: usize,
    /// Number of fields.
    pub fields: usize,
}

/// Reads a request head from the front of `input`. `Ok(None)`: it is not whole yet, nothing is
/// wrong so far. `Ok(Some(n))`: `head` is filled in and took `n` bytes.
pub fn request_head(
    input: &[u8],
    limits: HeadLimits,
    head: &mut RequestHead,
) -> Result<Option<usize>, Rejection> {
    let _ = (input, limits, head);
    todo!()
}

/// Reads a response head, interim or final, from the front of `input`; as [`request_head`].
pub fn response_head(
    input: &[u8],
    limits: HeadLimits,
    head: &mut ResponseHead,
) -> Result<Option<usize>, BadResponse> {
    let _ = (input, limits, head);
    todo!()
}
