//! A transport as the traits of `tokio::io` want it, for a library that drives a connection by itself.
//!
//! Whoever does not take what is sent to it is noticed here, where it is known that nothing else holds
//! the library up. What comes is shown to an inspector first, and what goes is counted.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::deadline::Timer;
use super::pace::Pace;
use super::transport::Transport;

/// A peer that was told that the connection closes is listened to for so long, and for so many
/// bytes, so that what it still sends does not destroy what it was sent (RFC 9112 §9.6).
pub const LINGER: Duration = Duration::from_secs(2);

/// See [`LINGER`].
pub const LINGER_BYTES: usize = 1024 * 1024;

/// Sees what comes before the library does, and hears how much has gone.
pub trait Inspect {
    /// Bytes that came. False: the library gets neither them nor what comes later, and whoever drives
    /// it ends the connection.
    fn came(&mut self, bytes: &[u8]) -> bool;
    /// So many bytes went out.
    fn went(&mut self, n: usize);
    /// Bytes are left that the peer does not take at the moment, or are not any more.
    fn held_up(&mut self, _: bool) {}
}

/// Of whom nothing is expected.
impl Inspect for () {
    fn came(&mut self, _: &[u8]) -> bool {
        true
    }

    fn went(&mut self, _: usize) {}
}

/// A [`Transport`] behind `tokio::io`'s traits.
#[derive(Debug)]
pub struct Adapter<I> {
    transport: Transport,
    /// What had been read before.
    first: Bytes,
    inspector: I,
    /// Patience with the peer's receiving.
    writing: Pace,
    unsent: usize,
    closing: Closing,
    linger: Timer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closing {
    Not,
    /// Our direction has ended; so much came since.
    Lingering(usize),
    Over,
}

impl<I: Inspect> Adapter<I> {
    /// Around a transport from which `first` has been read already. `linger` is lent to its end.
    pub fn new(
        transport: Transport,
        first: Bytes,
        inspector: I,
        writing: Pace,
        linger: Timer,
    ) -> Adapter<I> {
        Adapter {
            transport,
            first,
            inspector,
            writing,
            unsent: 0,
            closing: Closing::Not,
            linger,
        }
    }

    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        // A peer that takes what was sealed long ago holds us up, but does not stall.
        let before = std::mem::replace(&mut self.unsent, self.transport.unsent());
        if self.unsent < before {
            self.writing.progress(0);
        }
        self.writing
            .poll_wait(cx)
            .map(|_| io::ErrorKind::TimedOut.into())
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        mut message: impl Buf,
    ) -> Poll<io::Result<usize>> {
        match self.transport.poll_write(cx, &mut message) {
            Poll::Ready(Ok(n)) => {
                self.writing.progress(n);
                self.inspector.went(n);
                Poll::Ready(Ok(n))
            }
            Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
            Poll::Pending => {
                self.inspector.held_up(true);
                self.wait(cx).map(Err)
            }
        }
    }
}

impl<I: Inspect + Unpin> AsyncRead for Adapter<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.first.has_remaining() {
            let n = this.first.len().min(room.remaining());
            let piece = this.first.split_to(n);
            if !this.inspector.came(&piece) {
                return Poll::Pending;
            }
            room.put_slice(&piece);
            return Poll::Ready(Ok(()));
        }
        let unfilled = room.initialize_unfilled();
        match this.transport.poll_read(cx, unfilled) {
            // Nobody is woken: whoever drives the library looks at once.
            Poll::Ready(Ok(n)) if !this.inspector.came(&unfilled[..n]) => Poll::Pending,
            Poll::Ready(Ok(n)) => {
                room.advance(n);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<I: Inspect + Unpin> AsyncWrite for Adapter<I> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_send(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match slices {
            [] => this.poll_send(cx, &[][..]),
            [one] => this.poll_send(cx, &**one),
            [first, second, ..] => this.poll_send(cx, first.chain(&**second)),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.transport.poll_flush(cx) {
            Poll::Ready(outcome) => {
                this.writing.stop();
                this.inspector.held_up(false);
                Poll::Ready(outcome)
            }
            Poll::Pending => {
                this.inspector.held_up(true);
                this.wait(cx).map(Err)
            }
        }
    }

    /// Ends our direction, then reads what still comes until the peer has ended its own.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.closing == Closing::Not {
            match this.transport.poll_shutdown(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                Poll::Pending => return this.wait(cx).map(Err),
            }
            this.linger.set(LINGER);
            this.closing = Closing::Lingering(0);
        }
        while let Closing::Lingering(came) = this.closing {
            match this.transport.poll_read(cx, &mut [0; 4096]) {
                Poll::Ready(Ok(n @ 1..)) if came + n <= LINGER_BYTES => {
                    this.closing = Closing::Lingering(came + n);
                }
                Poll::Ready(_) => this.closing = Closing::Over,
                Poll::Pending => match this.linger.poll_expired(cx) {
                    Poll::Ready(_) => this.closing = Closing::Over,
                    Poll::Pending => return Poll::Pending,
                },
            }
        }
        Poll::Ready(Ok(()))
    }
}
