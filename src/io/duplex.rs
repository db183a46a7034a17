//! One transport used in both directions by the same task.
//!
//! The copies of an exchange run side by side as two futures of one task; each borrows the
//! transport for the length of a poll only.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};

use bytes::Buf;

use super::buffer::Inbox;
use super::pace::Pace;
use super::pipes::Lent;
use super::transport::Transport;
use crate::telemetry::metrics::OpenConnection;

/// A [`Transport`] whose two directions can be driven by two futures of one task.
#[derive(Debug)]
pub struct Duplex {
    transport: RefCell<Transport>,
    /// Held for its end: the connection is counted as open for as long.
    counted: Option<OpenConnection>,
}

/// Why a write did not get through.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The connection failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The peer took nothing for too long, or too little.
    #[error("the peer does not take what is sent to it")]
    Stalled,
}

impl Duplex {
    /// Wraps a transport.
    pub fn new(transport: Transport) -> Duplex {
        Duplex {
            transport: RefCell::new(transport),
            counted: None,
        }
    }

    /// The transport, uncounted.
    pub fn into_transport(self) -> Transport {
        self.transport.into_inner()
    }

    /// The same, counted as open for as long as it lives.
    pub fn counted(self, connection: OpenConnection) -> Duplex {
        Duplex {
            counted: Some(connection),
            ..self
        }
    }

    /// Whether nothing is under way on it, from now on, for whoever counts.
    pub fn rests(&self, does: bool) {
        if let Some(counted) = &self.counted {
            counted.rests(does);
        }
    }

    /// Reads once into `inbox`. `Ok(0)`: the peer has ended its direction.
    pub fn poll_fill(&self, cx: &mut Context<'_>, inbox: &mut Inbox) -> Poll<io::Result<usize>> {
        let mut transport = self.transport.borrow_mut();
        let outcome = inbox.fill_with(|room| match transport.poll_read(cx, room) {
            Poll::Ready(outcome) => Some(outcome),
            Poll::Pending => None,
        });
        match outcome {
            Some(outcome) => Poll::Ready(outcome),
            None => Poll::Pending,
        }
    }

    /// Reads once into `inbox`; cancel-safe. `Ok(0)`: the peer has ended its direction.
    pub async fn fill(&self, inbox: &mut Inbox) -> io::Result<usize> {
        poll_fn(|cx| self.poll_fill(cx, inbox)).await
    }

    /// Writes `first` and then `second`, whole, and flushes. Not cancel-safe: how much went out
    /// is lost with the future.
    pub async fn write_all(
        &self,
        first: &[u8],
        second: &[u8],
        pace: &mut Pace,
    ) -> Result<(), WriteError> {
        let mut message = first.chain(second);
        let mut unsent = 0;
        poll_fn(|cx| self.poll_write_all(cx, &mut message, &mut unsent, pace)).await
    }

    /// Writes what is left of `message`, whole, and flushes; what was written is taken off its front.
    /// `unsent` is 0 at the beginning of a message and to be handed in again until it is done.
    pub fn poll_write_all(
        &self,
        cx: &mut Context<'_>,
        message: &mut impl Buf,
        unsent: &mut usize,
        pace: &mut Pace,
    ) -> Poll<Result<(), WriteError>> {
        let mut transport = self.transport.borrow_mut();
        let mut wait = |transport: &Transport, pace: &mut Pace, cx: &mut Context<'_>| {
            // A peer that takes what was sealed long ago holds us up, but does not stall.
            let before = std::mem::replace(unsent, transport.unsent());
            if *unsent < before {
                pace.progress(0);
            }
            pace.poll_wait(cx).map(|_| Err(WriteError::Stalled))
        };
        while message.has_remaining() {
            match transport.poll_write(cx, message) {
                Poll::Ready(Ok(0)) => {
                    return Poll::Ready(Err(io::Error::from(io::ErrorKind::WriteZero).into()));
                }
                Poll::Ready(Ok(n)) => {
                    pace.progress(n);
                }
                Poll::Ready(Err(e)) => return Poll::Ready(Err(e.into())),
                Poll::Pending => return wait(&transport, pace, cx),
            }
        }
        match transport.poll_flush(cx) {
            Poll::Ready(outcome) => {
                pace.stop();
                Poll::Ready(outcome.map_err(WriteError::from))
            }
            Poll::Pending => wait(&transport, pace, cx),
        }
    }

    /// Can its bytes be moved as they are, by [`Duplex::poll_fill_pipe`]?
    pub fn is_plain(&self) -> bool {
        self.transport.borrow().plain().is_some()
    }

    /// See [`Transport::poll_fill_pipe`].
    pub fn poll_fill_pipe(
        &self,
        cx: &mut Context<'_>,
        pipe: &mut Lent<'_>,
    ) -> Poll<io::Result<usize>> {
        self.transport.borrow().poll_fill_pipe(cx, pipe)
    }

    /// Moves some of what is in a pipe, with the patience of a write.
    pub fn poll_empty_pipe(
        &self,
        cx: &mut Context<'_>,
        pipe: &mut Lent<'_>,
        pace: &mut Pace,
    ) -> Poll<Result<usize, WriteError>> {
        match self.transport.borrow().poll_empty_pipe(cx, pipe) {
            Poll::Ready(Ok(n)) => {
                pace.progress(n);
                Poll::Ready(Ok(n))
            }
            Poll::Ready(Err(e)) => Poll::Ready(Err(e.into())),
            Poll::Pending => pace.poll_wait(cx).map(|_| Err(WriteError::Stalled)),
        }
    }

    /// Ends our direction.
    pub async fn shutdown(&self) -> io::Result<()> {
        poll_fn(|cx| self.poll_shutdown(cx)).await
    }

    /// The same, for who polls.
    pub fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.transport.borrow_mut().poll_shutdown(cx)
    }

    /// Lends the transport for a look.
    pub fn with_transport<T>(&self, look: impl FnOnce(&Transport) -> T) -> T {
        look(&self.transport.borrow())
    }

    /// When dropped, the connection is reset instead of closed: the peer cannot take what it got
    /// for the whole.
    pub fn reset_on_close(&self) {
        let transport = self.transport.borrow();
        // If it cannot be set, the connection is beyond saying anything.
        let _ = socket2::SockRef::from(transport.tcp()).set_linger(Some(std::time::Duration::ZERO));
    }

    /// See [`Transport::is_silent`].
    pub fn is_silent(&self) -> bool {
        self.transport.borrow_mut().is_silent()
    }

    /// See [`Transport::is_quiet`].
    pub fn is_quiet(&self) -> bool {
        self.transport.borrow_mut().is_quiet()
    }
}
