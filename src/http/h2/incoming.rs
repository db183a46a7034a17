//! What comes on a stream: data as it arrives, then trailers.
//!
//! What has not gone on yet is held, and what has gone on as well until it becomes too much: a
//! request that is short can be sent again. A peer's windows open by what has gone on, so that of a
//! stream there is never more than its window and what is held.

use std::collections::VecDeque;
use std::task::{Context, Poll};

use ::h2::RecvStream;
use bytes::Bytes;

use super::head;
use crate::http::h1::body::BadBody;
use crate::http::headers::{Fields, Nominated};

/// So much is held for another attempt, and taken in before somebody passes it on, in bytes. Within
/// one read of a connection, as in HTTP/1.1.
pub const HELD: usize = 64 * 1024;

/// The half of a stream that comes.
#[derive(Debug)]
pub struct Incoming {
    stream: RecvStream,
    held: VecDeque<Bytes>,
    /// Bytes in `held`.
    size: usize,
    /// So many of `held`, from the front, were taken for what is written now.
    taken: usize,
    /// So many of `held`, from the front, have gone on, and are held for another attempt only.
    gone: usize,
    /// Something was let go: it cannot be sent again.
    let_go: bool,
    /// Bytes that the head has promised and that have not come.
    promised: Option<u64>,
    trailers: Fields,
    /// Trailers that are not to go on.
    barred: Nominated,
    /// What is held is all that is left.
    ended: bool,
}

impl Incoming {
    /// Of which nothing has come. `length`: what the head says of it.
    pub fn new(stream: RecvStream, length: Option<u64>) -> Incoming {
        Incoming {
            ended: stream.is_end_stream(),
            stream,
            held: VecDeque::new(),
            size: 0,
            taken: 0,
            gone: 0,
            let_go: false,
            promised: length,
            trailers: Fields::default(),
            barred: Nominated::default(),
        }
    }

    /// The same for what is sent once: nothing of it is held when it has gone on.
    pub fn passing(stream: RecvStream, length: Option<u64>) -> Incoming {
        Incoming {
            let_go: true,
            ..Incoming::new(stream, length)
        }
    }

    /// Trailers of these names are not to go on.
    pub fn bar(&mut self, barred: Nominated) {
        self.trailers.retain(|field| !barred.has(field.name));
        self.barred = barred;
    }

    /// From now on nothing is held that has gone on.
    pub fn pass(&mut self) {
        self.let_go = true;
    }

    /// Takes in what has come. Ready with the number of bytes; 0: it has ended. The stream may have
    /// ended with the bytes as well: see [`Incoming::has_ended`].
    pub fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Gone>> {
        let mut came = 0;
        while !self.ended && (came == 0 || self.size < HELD) {
            match self.stream.poll_data(cx) {
                Poll::Ready(Some(Ok(data))) => {
                    came += data.len();
                    self.hold(data)?;
                }
                Poll::Ready(Some(Err(e))) => return Poll::Ready(Err(Gone::Stream(e))),
                Poll::Ready(None) => match self.stream.poll_trailers(cx) {
                    Poll::Ready(Ok(trailers)) => {
                        if let Some(trailers) = trailers {
                            head::trailers_from(&trailers, &mut self.trailers);
                            let barred = &self.barred;
                            self.trailers.retain(|field| !barred.has(field.name));
                        }
                        self.end()?;
                    }
                    Poll::Ready(Err(e)) => return Poll::Ready(Err(Gone::Stream(e))),
                    Poll::Pending => break,
                },
                Poll::Pending => break,
            }
            if !self.ended && self.stream.is_end_stream() {
                self.end()?;
            }
        }
        match came > 0 || self.ended {
            true => Poll::Ready(Ok(came)),
            false => Poll::Pending,
        }
    }

    fn hold(&mut self, data: Bytes) -> Result<(), Gone> {
        if let Some(promised) = &mut self.promised {
            let left = promised.checked_sub(data.len() as u64);
            *promised = left.ok_or(Gone::Bad(BadBody("more than content-length says")))?;
        }
        if !data.is_empty() {
            self.size += data.len();
            self.held.push_back(data);
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), Gone> {
        self.ended = true;
        match self.promised {
            Some(1..) => Err(Gone::Bad(BadBody("less than content-length says"))),
            _ => Ok(()),
        }
    }

    /// The next piece to be written, if there is one.
    pub fn take(&mut self) -> Option<Bytes> {
        let next = self.held.get(self.taken)?.clone();
        self.taken += 1;
        Some(next)
    }

    /// What was taken has been written. True: it was let go, and cannot be taken again.
    pub fn went_on(&mut self) -> bool {
        // Windows open by what has gone on, held or not: those of the connection are others' too.
        // (After another attempt has begun, some had gone on before.)
        for gone in self.held.range(self.gone.min(self.taken)..self.taken) {
            // An error: the connection is over, and its windows with it.
            let _ = self.stream.flow_control().release_capacity(gone.len());
        }
        self.gone = self.gone.max(self.taken);
        if !self.let_go && self.size <= HELD && !self.is_long() {
            return false;
        }
        for gone in self.held.drain(..self.taken) {
            self.size -= gone.len();
        }
        self.gone -= self.taken;
        self.taken = 0;
        self.let_go = true;
        true
    }

    /// Does its head say that it is longer than what is held? Then it is let go from the start.
    fn is_long(&self) -> bool {
        self.promised.is_some_and(|left| left > HELD as u64)
    }

    /// Begins anew, for another attempt. Nothing may have been let go.
    pub fn rewind(&mut self) {
        self.taken = 0;
    }

    /// All has come, and all of it was taken.
    pub fn is_done(&self) -> bool {
        self.ended && self.taken == self.held.len()
    }

    /// Nothing more will come.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// What came behind the data.
    pub fn trailers(&self) -> &Fields {
        &self.trailers
    }
}

/// Why nothing more comes.
#[derive(Debug, thiserror::Error)]
pub enum Gone {
    /// The peer reset the stream, or its connection is over.
    #[error(transparent)]
    Stream(::h2::Error),
    /// It is not what its head has promised.
    #[error(transparent)]
    Bad(BadBody),
}
