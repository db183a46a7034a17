//! A body on its way through: taken out of what was received, in the framing that the other side
//! wants (RFC 9112 §6, §7).
//!
//! Pure: bytes in, bytes out. `attempt` reads and writes them.

use std::ops::Range;

use crate::http::body::BodyFraming;
use crate::http::h1::body::{BadBody, BodyDecoder, encode_chunk, encode_last_chunk};

/// Bound of a chunked body's trailer section, in bytes.
pub(super) const TRAILERS: usize = 16 * 1024;

/// Longest body that is copied behind its head, in bytes. Measured on loopback: up to here the
/// copy costs less than the kernel takes for a second piece.
const JOINED: usize = 2 * 1024;

/// How a body's framing changes on its way through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recode {
    /// Not at all: its bytes go on as they lie in the inbox.
    Direct,
    /// Whatever it was, it becomes chunked.
    Chunk,
    /// It was chunked and becomes bare.
    Unchunk,
}

/// What [`gather`] found in an inbox.
#[derive(Debug)]
pub(super) struct Gathered {
    /// Bytes of the inbox that are used up once the output is written.
    pub(super) used: usize,
    /// Where in the inbox the bytes lie that go on behind the output.
    pub(super) direct: Range<usize>,
    /// Bytes of data.
    pub(super) data: u64,
}

/// Takes all there is of a body out of `input`, appended to `out` where its framing changes.
pub(super) fn gather(
    body: &mut BodyDecoder,
    input: &[u8],
    recode: Recode,
    out: &mut Vec<u8>,
) -> Result<Gathered, BadBody> {
    let mut gathered = Gathered {
        used: 0,
        direct: 0..0,
        data: 0,
    };
    while !body.is_done() {
        let rest = &input[gathered.used..];
        let piece = body.decode(rest)?;
        let data = &rest[piece.data.clone()];
        gathered.data += data.len() as u64;
        match recode {
            Recode::Chunk => encode_chunk(data, out),
            Recode::Unchunk => out.extend_from_slice(data),
            Recode::Direct => {
                // A body of known length, or until close, is one run.
                if !data.is_empty() {
                    gathered.direct =
                        gathered.used + piece.data.start..gathered.used + piece.data.end;
                }
            }
        }
        gathered.used += piece.consumed;
        if piece.end {
            if recode == Recode::Chunk {
                encode_last_chunk(body.trailers(), out);
            }
            break;
        }
        if piece.consumed == 0 || gathered.used == input.len() {
            break;
        }
    }
    Ok(gathered)
}

/// Takes a short body into the output behind its head, for a write of one piece is cheaper than a
/// vectored one; a longer body is given back, for copying it would cost more than that.
pub(super) fn joined<'a>(out: &mut Vec<u8>, direct: &'a [u8]) -> &'a [u8] {
    if out.is_empty() || direct.len() > JOINED {
        return direct;
    }
    out.extend_from_slice(direct);
    &[]
}

/// Length of a request's body at the front of `input`, framing included, if it is whole there.
pub(super) fn whole_body(framing: BodyFraming, input: &[u8]) -> Option<usize> {
    let mut body = BodyDecoder::new(framing, TRAILERS);
    let mut used = 0;
    while !body.is_done() {
        let piece = body.decode(&input[used..]).ok()?;
        used += piece.consumed;
        if piece.consumed == 0 && !piece.end {
            return None;
        }
    }
    Some(used)
}

#[cfg(test)]
mod tests;
