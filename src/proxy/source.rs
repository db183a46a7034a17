//! Where a message's body comes from: an HTTP/1.1 connection, or a stream of HTTP/2.

use std::io;
use std::ops::Range;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::mirror::Copying;
use super::recode::{self, Recode};
use crate::http::h1::body::{BadBody, BodyDecoder, encode_chunk, encode_last_chunk};
use crate::http::h2::incoming::{Gone, Incoming};
use crate::http::headers::Fields;
use crate::io::buffer::Inbox;
use crate::io::duplex::Duplex;

/// Where a body comes from.
#[derive(Debug)]
pub(super) enum Source<'a> {
    /// Out of the framing of HTTP/1.1.
    H1 {
        io: &'a Duplex,
        inbox: &'a mut Inbox,
        body: BodyDecoder,
        /// Its peer has closed, which is its end.
        closed: bool,
    },
    /// A stream.
    H2(&'a mut Incoming),
    /// What was copied of another request's.
    Copy { body: Bytes, trailers: Fields },
    /// There is none, whatever comes.
    Nothing,
}

/// What there was of a body, on its way to where it goes. Beside it there may be bytes in an output.
#[derive(Debug, Default)]
pub(super) struct Lot {
    /// Bytes of the inbox that are used up once it is written.
    pub(super) used: usize,
    /// Where in the inbox the bytes lie that go on behind the output.
    range: Range<usize>,
    /// Or the bytes themselves.
    bytes: Bytes,
    /// Bytes of data.
    pub(super) data: u64,
}

impl Lot {
    /// The same when all of it went into so many bytes of another coding.
    pub(super) fn into_coded(self, coded: usize) -> Lot {
        Lot {
            used: self.used,
            data: coded as u64,
            ..Lot::default()
        }
    }
}

/// The part of a [`Lot`] that goes on as it came.
#[derive(Debug, Clone)]
pub(super) enum Piece<'a> {
    Lent(&'a [u8]),
    Owned(Bytes),
}

/// Why nothing more comes from a source.
#[derive(Debug)]
pub(super) enum Broken {
    /// Its peer closed before the end.
    Closed,
    /// Its connection failed.
    Io(io::Error),
    /// Its stream was reset, or the connection of the stream is over.
    Reset(::h2::Error),
    /// It is not what its head has promised.
    Bad(BadBody),
}

impl<'a> Source<'a> {
    pub(super) fn h1(io: &'a Duplex, inbox: &'a mut Inbox, body: BodyDecoder) -> Source<'a> {
        Source::H1 {
            io,
            inbox,
            body,
            closed: false,
        }
    }

    /// Takes all there is at the moment, appended to `out` where its framing changes. To be written,
    /// and then [`Source::went_on`]. `copying`: gets its data too.
    pub(super) fn gather(
        &mut self,
        recode: Recode,
        out: &mut Vec<u8>,
        copying: Option<&Copying>,
    ) -> Result<Lot, BadBody> {
        match self {
            Source::H1 {
                inbox,
                body,
                closed,
                ..
            } => {
                if let Some(copying) = copying {
                    copying.add_framed(inbox.filled());
                }
                let gathered = recode::gather(body, inbox.filled(), recode, out)?;
                if *closed && recode == Recode::Chunk {
                    encode_last_chunk(&Fields::default(), out);
                }
                Ok(Lot {
                    used: gathered.used,
                    range: gathered.direct,
                    bytes: Bytes::new(),
                    data: gathered.data,
                })
            }
            Source::H2(incoming) => {
                let mut lot = Lot::default();
                while let Some(piece) = incoming.take() {
                    lot.data += piece.len() as u64;
                    if let Some(copying) = copying {
                        copying.add(&piece);
                    }
                    match recode {
                        Recode::Chunk => encode_chunk(&piece, out),
                        Recode::Direct | Recode::Unchunk => {
                            // One piece goes on as it is, several as one.
                            let before = std::mem::replace(&mut lot.bytes, piece);
                            out.extend_from_slice(&before);
                        }
                    }
                }
                if recode == Recode::Chunk && incoming.is_done() {
                    encode_last_chunk(incoming.trailers(), out);
                }
                Ok(lot)
            }
            Source::Copy { body, .. } => Ok(Lot {
                data: body.len() as u64,
                bytes: std::mem::take(body),
                ..Lot::default()
            }),
            Source::Nothing => Ok(Lot::default()),
        }
    }

    /// What of a lot goes on as it came.
    pub(super) fn piece(&self, lot: &Lot) -> Piece<'_> {
        match self {
            Source::H1 { inbox, .. } => Piece::Lent(&inbox.filled()[lot.range.clone()]),
            Source::H2(_) | Source::Copy { .. } | Source::Nothing => {
                Piece::Owned(lot.bytes.clone())
            }
        }
    }

    /// A lot has been written. True: it is gone for good, and cannot be sent again.
    pub(super) fn went_on(&mut self, lot: &Lot) -> bool {
        match self {
            Source::H1 { inbox, .. } => {
                inbox.consume(lot.used);
                lot.used > 0
            }
            Source::H2(incoming) => incoming.went_on(),
            Source::Copy { .. } | Source::Nothing => false,
        }
    }

    /// The whole body has been taken.
    pub(super) fn is_done(&self) -> bool {
        match self {
            Source::H1 { body, closed, .. } => *closed || body.is_done(),
            Source::H2(incoming) => incoming.is_done(),
            Source::Copy { body, .. } => body.is_empty(),
            Source::Nothing => true,
        }
    }

    /// What came behind it.
    pub(super) fn trailers(&self) -> Option<&Fields> {
        match self {
            Source::H1 { body, .. } => Some(body.trailers()),
            Source::H2(incoming) => Some(incoming.trailers()),
            Source::Copy { trailers, .. } => Some(trailers),
            Source::Nothing => None,
        }
    }

    /// Takes in what comes: ready with the number of bytes, or 0 at the end of the body.
    pub(super) fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Broken>> {
        match self {
            Source::H1 {
                io,
                inbox,
                body,
                closed,
            } => io.poll_fill(cx, inbox).map(|outcome| match outcome {
                Ok(0) if body.closed() => {
                    *closed = true;
                    Ok(0)
                }
                Ok(0) => Err(Broken::Closed),
                Ok(n) => Ok(n),
                Err(e) => Err(Broken::Io(e)),
            }),
            Source::H2(incoming) => incoming.poll_more(cx).map_err(|gone| match gone {
                Gone::Stream(e) => Broken::Reset(e),
                Gone::Bad(e) => Broken::Bad(e),
            }),
            Source::Copy { .. } | Source::Nothing => Poll::Ready(Ok(0)),
        }
    }
}

impl Piece<'_> {
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Piece::Lent(bytes) => bytes.is_empty(),
            Piece::Owned(bytes) => bytes.is_empty(),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Piece::Lent(bytes) => bytes.len(),
            Piece::Owned(bytes) => bytes.len(),
        }
    }

    /// Takes so many bytes off its front. O(n) for what is lent.
    pub(super) fn split_to(&mut self, n: usize) -> Bytes {
        match self {
            Piece::Lent(bytes) => {
                let (part, rest) = bytes.split_at(n);
                *bytes = rest;
                Bytes::copy_from_slice(part)
            }
            Piece::Owned(bytes) => bytes.split_to(n),
        }
    }
}
