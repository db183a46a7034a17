//! Bodies on the wire: a decoder that never looks past the end of a body, and an encoder
//! (RFC 9112 §6, §7).
//!
//! The decoder keeps no data, only where it is in the framing, so the same bytes give the same
//! body however they are cut.

use std::ops::Range;

use super::encode::{field, number};
use super::parse::field_line;
use crate::http::body::BodyFraming;
use crate::http::headers::{Fields, Known, Nominated, is_about_client_certificate};

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
    pub data: Range<usize>,
    /// The body is at its end; nothing after `consumed` belongs to it.
    pub end: bool,
}

/// Takes a body out of its framing, a piece at a time.
#[derive(Debug)]
pub struct BodyDecoder {
    state: State,
    /// Bytes that the trailer section may still take.
    trailer_budget: usize,
    /// Bytes that chunk extensions may still take.
    extension_budget: usize,
    /// The trailer line under way; allocates only when there is one.
    line: Vec<u8>,
    trailers: Fields,
    /// Trailers that belong to one hop.
    nominated: Nominated,
}

/// Where in the framing the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Length(u64),
    UntilClose,
    /// In a chunk's size, so many digits in.
    Size {
        size: u64,
        digits: u32,
    },
    Extension {
        size: u64,
    },
    /// After the CR of the size line.
    SizeLf {
        size: u64,
    },
    /// In a chunk's data; so many bytes left, at least one.
    Data(u64),
    DataCr,
    DataLf,
    /// In a line of the trailer section.
    Trailer,
    TrailerLf,
    Done,
    Broken(BadBody),
}

impl BodyDecoder {
    /// A decoder for a body framed so. `max_trailer_bytes` bounds a chunked body's trailer section.
    pub fn new(framing: BodyFraming, max_trailer_bytes: usize) -> BodyDecoder {
        BodyDecoder {
            state: match framing {
                BodyFraming::None | BodyFraming::Length(0) => State::Done,
                BodyFraming::Length(n) => State::Length(n),
                BodyFraming::Chunked => SIZE_START,
                BodyFraming::UntilClose => State::UntilClose,
            },
            // The empty line that ends the section belongs to every chunked body.
            trailer_budget: max_trailer_bytes.saturating_add(2),
            extension_budget: MAX_EXTENSION_BYTES,
            line: Vec::new(),
            trailers: Fields::default(),
            nominated: Nominated::default(),
        }
    }

    /// The same for a message whose `Connection` names these fields: none of them is a trailer that
    /// travels on (RFC 9110 §7.6.1).
    pub fn barring(self, nominated: Nominated) -> BodyDecoder {
        BodyDecoder { nominated, ..self }
    }

    /// Looks at the front of `input`, returns at most one contiguous run of data. Call again with
    /// what is left until `end`, or until `consumed` is 0 (more input is needed).
    ///
    /// A body without bytes is at its end at once, whatever the input. An error comes after the
    /// data in front of it, and again from every later call.
    pub fn decode(&mut self, input: &[u8]) -> Result<Decoded, BadBody> {
        let mut consumed = 0;
        let mut data = 0..0;
        loop {
            let rest = &input[consumed..];
            let left = match self.state {
                State::Done => break,
                State::Broken(bad) => return Err(bad),
                State::Length(left) | State::Data(left) => left,
                State::UntilClose => u64::MAX,
                _ => {
                    if let Some((size, length)) = self.usual_framing(rest) {
                        self.state = State::Data(size);
                        consumed += length;
                        continue;
                    }
                    let Some(&byte) = rest.first() else { break };
                    match self.framing_byte(byte) {
                        Ok(next) => self.state = next,
                        Err(bad) => {
                            self.state = State::Broken(bad);
                            if data.is_empty() {
                                return Err(bad);
                            }
                            break;
                        }
                    }
                    consumed += 1;
                    continue;
                }
            };
            if rest.is_empty() || !data.is_empty() {
                break;
            }
            let run = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            data = consumed..consumed + run;
            consumed += run;
            let left = left - run as u64;
            self.state = match self.state {
                State::Length(_) if left == 0 => State::Done,
                State::Length(_) => State::Length(left),
                State::Data(_) if left == 0 => State::DataCr,
                State::Data(_) => State::Data(left),
                other => other,
            };
        }
        Ok(Decoded {
            consumed,
            data,
            end: self.state == State::Done,
        })
    }

    /// The peer closed: true if that is a proper end ([`BodyFraming::UntilClose`], or already ended).
    pub fn closed(&self) -> bool {
        matches!(self.state, State::UntilClose | State::Done)
    }

    /// Has the end been reached?
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Bytes of data that are certainly still to come, when the length is known.
    pub fn remaining(&self) -> Option<u64> {
        match self.state {
            State::Length(left) => Some(left),
            State::Done => Some(0),
            _ => None,
        }
    }

    /// Trailer fields (RFC 9112 §7.1.2) after `end`: those that must not be in a trailer
    /// (framing, routing, authentication; RFC 9110 §6.5.1) are left out, those with an underscore
    /// in their name, and those that [`BodyDecoder::barring`] was told of.
    pub fn trailers(&self) -> &Fields {
        &self.trailers
    }

    /// What nearly always stands in front of a chunk's data, in one step: the end of the chunk
    /// before, if that is due, and a size line without extensions. Gives the size and the bytes
    /// that this takes. Whatever else comes, or is not whole, goes byte by byte.
    fn usual_framing(&self, rest: &[u8]) -> Option<(u64, usize)> {
        let start = match (self.state, rest) {
            (SIZE_START, _) => 0,
            (State::DataCr, [b'\r', b'\n', ..]) => 2,
            _ => return None,
        };
        let mut size = 0;
        let mut digits = 0;
        let mut end = start;
        while let Some(digit) = rest.get(end).and_then(|&b| char::from(b).to_digit(16)) {
            size = size << 4 | u64::from(digit);
            digits += 1;
            end += 1;
            if digits > MAX_SIZE_DIGITS {
                return None;
            }
        }
        let ends = rest.get(end..end + 2) == Some(b"\r\n");
        // Zero is the last chunk, behind which something else follows.
        (ends && size > 0).then_some((size, end + 2))
    }

    /// RFC 9112 §7.1: the state after one byte that is not data. No white space anywhere around
    /// the size: readers differ on it.
    fn framing_byte(&mut self, byte: u8) -> Result<State, BadBody> {
        match (self.state, byte) {
            (State::Size { size, digits }, _) if byte.is_ascii_hexdigit() => {
                if digits == MAX_SIZE_DIGITS {
                    return Err(BadBody("chunk size too large"));
                }
                let digit = (byte as char).to_digit(16).unwrap_or_default();
                Ok(State::Size {
                    size: size << 4 | u64::from(digit),
                    digits: digits + 1,
                })
            }
            (State::Size { size, digits: 1.. }, b'\r') => Ok(State::SizeLf { size }),
            (State::Size { size, digits: 1.. }, b';') => self.extension_byte(size),
            (State::Size { .. }, _) => Err(BadBody("malformed chunk size")),
            (State::Extension { size }, b'\r') => Ok(State::SizeLf { size }),
            (State::Extension { size }, b'\t' | b' '..=b'~' | 0x80..) => self.extension_byte(size),
            (State::Extension { .. }, _) => Err(BadBody("control character in a chunk extension")),
            (State::SizeLf { size: 0 }, b'\n') => Ok(State::Trailer),
            (State::SizeLf { size }, b'\n') => Ok(State::Data(size)),
            (State::SizeLf { .. }, _) => Err(BadBody("bare CR in a chunk's size line")),
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(SIZE_START),
            (State::DataCr | State::DataLf, _) => Err(BadBody("no CRLF after a chunk")),
            (State::Trailer | State::TrailerLf, _) => self.trailer_byte(byte),
            (
                State::Length(_)
                | State::UntilClose
                | State::Data(_)
                | State::Done
                | State::Broken(_),
                _,
            ) => Ok(self.state),
        }
    }

    fn extension_byte(&mut self, size: u64) -> Result<State, BadBody> {
        match self.extension_budget.checked_sub(1) {
            Some(left) => self.extension_budget = left,
            None => return Err(BadBody("chunk extensions too long")),
        }
        Ok(State::Extension { size })
    }

    fn trailer_byte(&mut self, byte: u8) -> Result<State, BadBody> {
        match self.trailer_budget.checked_sub(1) {
            Some(left) => self.trailer_budget = left,
            None => return Err(BadBody("trailer section too large")),
        }
        match (self.state, byte) {
            (State::TrailerLf, b'\n') if self.line.is_empty() => Ok(State::Done),
            (State::TrailerLf, b'\n') => {
                let (name, value) = field_line(&self.line).map_err(BadBody)?;
                if may_be_trailer(name) && !self.nominated.has(name) {
                    self.trailers.push(name, value);
                }
                self.line.clear();
                Ok(State::Trailer)
            }
            (State::TrailerLf, _) => Err(BadBody("bare CR in the trailer section")),
            (_, b'\r') => Ok(State::TrailerLf),
            (_, b'\n') => Err(BadBody("bare LF in the trailer section")),
            (_, 0) => Err(BadBody("NUL in the trailer section")),
            _ => {
                self.line.push(byte);
                Ok(State::Trailer)
            }
        }
    }
}

/// Appends one chunk with its size line; nothing for empty data (that would end the body).
pub fn encode_chunk(data: &[u8], out: &mut Vec<u8>) {
    if data.is_empty() {
        return;
    }
    number(data.len() as u64, 16, out);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

/// Appends the last chunk, the trailers and the final empty line.
pub fn encode_last_chunk(trailers: &Fields, out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n");
    for f in trailers.iter() {
        field(f.name, f.value, out);
    }
    out.extend_from_slice(b"\r\n");
}

/// RFC 9110 §6.5.1: a field that frames, routes, authenticates, modifies the request or says how
/// to handle the content has to be known before the content; a reader that merges it into the
/// head afterwards could be made to change its mind.
pub(in crate::http) fn may_be_trailer(name: &[u8]) -> bool {
    if memchr::memchr(b'_', name).is_some() {
        return false;
    }
    match Known::of(name) {
        Known::Other => {
            !is_about_client_certificate(name)
                && !BARRED_TRAILERS
                    .iter()
                    .any(|barred| name.eq_ignore_ascii_case(barred.as_bytes()))
        }
        Known::Accept | Known::Date | Known::Referer | Known::UserAgent => true,
        _ => false,
    }
}

/// Besides those that the proxy knows.
const BARRED_TRAILERS: [&str; 24] = [
    "age",
    "alt-svc",
    "authentication-info",
    "cache-control",
    "clear-site-data",
    "content-encoding",
    "content-range",
    "expires",
    "http2-settings",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "max-forwards",
    "pragma",
    "proxy-authentication-info",
    "range",
    "retry-after",
    "strict-transport-security",
    "tracestate",
    "vary",
    "warning",
    "x-http-method-override",
];

const SIZE_START: State = State::Size { size: 0, digits: 0 };
/// A `u64` in hexadecimal.
const MAX_SIZE_DIGITS: u32 = 16;
/// For a whole body. Nobody needs extensions (they are dropped here), and unbounded ones let a
/// peer keep us busy without ever sending data (as in CVE-2023-39326).
const MAX_EXTENSION_BYTES: usize = 4096;

#[cfg(test)]
mod tests;
