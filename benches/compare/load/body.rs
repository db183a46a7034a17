//! Counts the bytes of a message body and finds its end (RFC 9112 section 6); keeps none of them.
//!
//! Both sides use it: the load generator for answers, the backend for uploads.

use anyhow::{Result, bail};

/// What is left of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// So many bytes; 0 is the end.
    Length(u64),
    /// Chunks, and where in them.
    Chunked(Chunk),
    /// Whatever comes until the peer closes.
    UntilClose,
}

/// Where in a chunked body (RFC 9112 section 7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chunk {
    /// In the digits of a size; whether there was one yet.
    Size(u64, bool),
    /// Behind the digits, before the end of their line.
    Extension(u64),
    /// In the data.
    Data(u64),
    /// At the line end behind the data.
    DataEnd,
    /// In the trailer; whether the line at hand has anything on it.
    Trailer(bool),
    /// Behind it all.
    End,
}

/// What [`Body::feed`] took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fed {
    /// Bytes taken from the input; those behind belong to the next message.
    pub taken: usize,
    /// Bytes of these that are content.
    pub content: u64,
}

impl Body {
    /// A chunked body from its first byte.
    pub const CHUNKED: Self = Self::Chunked(Chunk::Size(0, false));

    /// Whether all of it has been fed.
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Chunk::End))
    }

    /// Takes what belongs to the body from the front of `bytes`.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Fed> {
        match self {
            Self::Length(left) => {
                let taken = bytes
                    .len()
                    .min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= taken as u64;
                Ok(Fed {
                    taken,
                    content: taken as u64,
                })
            }
            Self::UntilClose => Ok(Fed {
                taken: bytes.len(),
                content: bytes.len() as u64,
            }),
            Self::Chunked(chunk) => chunk.feed(bytes),
        }
    }
}

impl Chunk {
    fn feed(&mut self, bytes: &[u8]) -> Result<Fed> {
        let mut fed = Fed {
            taken: 0,
            content: 0,
        };
        while fed.taken < bytes.len() && *self != Self::End {
            if let Self::Data(left) = self {
                let rest = (bytes.len() - fed.taken) as u64;
                let now = rest.min(*left);
                fed.taken += now as usize;
                fed.content += now;
                *left -= now;
                if *left == 0 {
                    *self = Self::DataEnd;
                }
                continue;
            }
            self.step(bytes[fed.taken])?;
            fed.taken += 1;
        }
        Ok(fed)
    }

    fn step(&mut self, byte: u8) -> Result<()> {
        *self = match (*self, byte) {
            (Self::Size(size, _), digit) if digit.is_ascii_hexdigit() => {
                if size >> 56 != 0 {
                    bail!("a chunk size that is too large");
                }
                let value = char::from(digit).to_digit(16).map_or(0, u64::from);
                Self::Size(size * 16 + value, true)
            }
            (Self::Size(size, true), b';' | b' ' | b'\t' | b'\r') => Self::Extension(size),
            (Self::Extension(0), b'\n') => Self::Trailer(false),
            (Self::Extension(size), b'\n') => Self::Data(size),
            (Self::Extension(size), _) => Self::Extension(size),
            (Self::DataEnd, b'\r') => Self::DataEnd,
            (Self::DataEnd, b'\n') => Self::Size(0, false),
            (Self::Trailer(false), b'\n') => Self::End,
            (Self::Trailer(true), b'\n') => Self::Trailer(false),
            (Self::Trailer(something), b'\r') => Self::Trailer(something),
            (Self::Trailer(_), _) => Self::Trailer(true),
            (state, byte) => bail!("byte {byte:#04x} in a chunked body at {state:?}"),
        };
        Ok(())
    }
}
