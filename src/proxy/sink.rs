//! Where a message goes: an HTTP/1.1 connection, or a stream of HTTP/2.

use std::future::poll_fn;
use std::io;
use std::task::Poll;

use bytes::Bytes;

use super::mirror::Copied;
use super::recode::{Recode, joined};
use super::source::{Piece, Source};
use crate::http::body::BodyFraming;
use crate::http::h2::head;
use crate::http::h2::outgoing::Outgoing;
use crate::http::headers::{Fields, Nominated};
use crate::io::duplex::{Duplex, WriteError};
use crate::io::pace::Pace;

/// Where a message goes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Sink<'a> {
    H1(&'a Duplex),
    H2(&'a Outgoing),
    /// Nowhere, up to a bound.
    Nowhere(&'a Copied),
}

impl Sink<'_> {
    /// How a body that comes framed as `framing` is written here, where it is framed as `out`.
    pub(super) fn recode(
        self,
        source: &Source<'_>,
        framing: BodyFraming,
        out: BodyFraming,
    ) -> Recode {
        match (self, source, framing, out) {
            (Sink::H1(_), _, _, BodyFraming::Chunked) => Recode::Chunk,
            (_, Source::H1 { .. }, BodyFraming::Chunked, _) => Recode::Unchunk,
            _ => Recode::Direct,
        }
    }

    /// Writes `out`, what was encoded for it, and `piece` behind it. `end`: it is the last, with these
    /// trailers; HTTP/1.1 has them in `out`. Not cancel-safe.
    pub(super) async fn write(
        self,
        out: &mut Vec<u8>,
        piece: Piece<'_>,
        end: Option<&Fields>,
        pace: &mut Pace,
    ) -> Result<(), WriteError> {
        match self {
            Sink::Nowhere(copied) => copied.discard(out.len() + piece.len()),
            Sink::H1(io) => {
                let direct: &[u8] = match &piece {
                    Piece::Lent(bytes) => bytes,
                    Piece::Owned(bytes) => bytes,
                };
                let direct = joined(out, direct);
                io.write_all(out, direct, pace).await
            }
            Sink::H2(stream) => {
                let first = Piece::Lent(out);
                let trailers = end.filter(|trailers| !trailers.is_empty());
                let ends_bare = end.is_some() && trailers.is_none();
                let ends_first = ends_bare && piece.is_empty();
                if !first.is_empty() {
                    send(stream, first, ends_first, pace).await?;
                    if ends_first {
                        return Ok(());
                    }
                }
                if !piece.is_empty() {
                    send(stream, piece, ends_bare, pace).await?;
                } else if ends_bare {
                    stream.send(Bytes::new(), true).map_err(broken)?;
                }
                if let Some(trailers) = trailers {
                    let trailers = head::trailers(trailers, &Nominated::default());
                    stream.end_with(trailers).map_err(broken)?;
                }
                Ok(())
            }
        }
    }

    /// Ends this direction of a tunnel.
    pub(super) async fn end(self) -> io::Result<()> {
        match self {
            Sink::H1(io) => io.shutdown().await,
            Sink::Nowhere(_) => Ok(()),
            Sink::H2(stream) => stream.send(Bytes::new(), true).map_err(io::Error::other),
        }
    }
}

/// Sends data as the windows open. What is lent is copied only where there is room for it.
async fn send(
    stream: &Outgoing,
    mut data: Piece<'_>,
    ended: bool,
    pace: &mut Pace,
) -> Result<(), WriteError> {
    while !data.is_empty() {
        let room = poll_fn(|cx| match stream.poll_room(cx, data.len()) {
            Poll::Ready(room) => Poll::Ready(room.map_err(broken)),
            Poll::Pending => pace.poll_wait(cx).map(|_| Err(WriteError::Stalled)),
        })
        .await?;
        pace.progress(room);
        let part = data.split_to(room);
        let is_last = ended && data.is_empty();
        stream.send(part, is_last).map_err(broken)?;
    }
    Ok(())
}

fn broken(error: ::h2::Error) -> WriteError {
    WriteError::Io(io::Error::other(error))
}
