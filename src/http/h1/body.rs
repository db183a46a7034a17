//! Bodies on the wire: a decoder that never looks past the end of a body, and an encoder.

use crate::http::body::BodyFraming;
use crate::http::headers::Fields;

/// A body whose framing is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadBody(pub &'static str);

/// What [`BodyDecoder::decode`] found at the front of its input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// Bytes of the input that are used up, data included.
    pub consumed: usize,
    /// Where in the input the data lies; empty when only framing was consumed.
    pub data: std::ops::Range<usize>,
    /// The body is at its end; nothing after `consumed` belongs to it.
    pub end: bool,
}

/// Takes a body out of its framing, a piece at a time.
#[derive(Debug)]
pub struct BodyDecoder {
    _state: (),
}

impl BodyDecoder {
    /// A decoder for a body framed so. `max_trailer_bytes` bounds a chunked body's trailer section.
    pub fn new(framing: BodyFraming, max_trailer_bytes: usize) -> BodyDecoder {
        let _ = (framing, max_trailer_bytes);
        todo!()
    }

    /// Looks at the front of `input`, returns at most one contiguous run of data. Call again with
    /// what is left until `end`, or until `consumed` is 0 (more input is needed).
    pub fn decode(&mut self, input: &[u8]) -> Result<Decoded, BadBody> {
        let _ = input;
        todo!()
    }

    /// The peer closed: true if that is a proper end ([`BodyFraming::UntilClose`], or already ended).
    pub fn closed(&self) -> bool {
        todo!()
    }

    /// Has the end been reached?
    pub fn is_done(&self) -> bool {
        todo!()
    }

    /// Bytes of data that are certainly still to come, when the length is known.
    pub fn remaining(&self) -> Option<u64> {
        todo!()
    }

    /// Trailer fields (RFC 9112 §7.1.2) after `end`: those that must not be in a trailer
    /// (framing, routing, authentication; RFC 9110 §6.5.1) are left out.
    pub fn trailers(&self) -> &Fields {
        todo!()
    }
}

/// Appends one chunk with its size line; nothing for empty data (that would end the body).
pub fn encode_chunk(data: &[u8], out: &mut Vec<u8>) {
    let _ = (data, out);
    todo!()
}

/// Appends the last chunk, the trailers and the final empty line.
pub fn encode_last_chunk(trailers: &Fields, out: &mut Vec<u8>) {
    let _ = (trailers, out);
    todo!()
}
