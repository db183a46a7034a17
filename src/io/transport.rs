//! A connection's byte stream, plain or TLS: the boundary above which nobody asks which.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Buf;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::pipes::Lent;
use super::tls::TlsStream;

/// A byte stream to a client or a backend.
#[derive(Debug)]
pub enum Transport {
    /// TCP as it is.
    Plain(TcpStream),
    /// TLS that we end. Boxed: it is many times the size of the other.
    Tls(Box<TlsStream>),
}

impl Transport {
    /// The TCP connection below.
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Transport::Plain(tcp) => tcp,
            Transport::Tls(tls) => tls.tcp(),
        }
    }

    /// Reads into `room`; `Ok(0)` is the end of the stream. An end without close_notify counts
    /// as an end: HTTP framing says whether something is missing.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Transport::Plain(tcp) => {
                let mut buf = ReadBuf::new(room);
                let outcome = Pin::new(tcp).poll_read(cx, &mut buf);
                outcome.map_ok(|()| buf.filled().len())
            }
            Transport::Tls(tls) => tls.poll_read(cx, room),
        }
    }

    /// Writes the front of `message`, all its chunks in one system call, and takes what was
    /// written off it.
    pub fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        message: &mut impl Buf,
    ) -> Poll<io::Result<usize>> {
        let tcp = match self {
            Transport::Plain(tcp) => Pin::new(tcp),
            Transport::Tls(tls) => return tls.poll_write(cx, message),
        };
        let mut slices = [io::IoSlice::new(&[]); 2];
        let outcome = match message.chunks_vectored(&mut slices) {
            0 | 1 => tcp.poll_write(cx, message.chunk()),
            n => tcp.poll_write_vectored(cx, &slices[..n]),
        };
        if let Poll::Ready(Ok(n)) = outcome {
            message.advance(n);
        }
        outcome
    }

    /// The TCP connection, if its bytes can be moved as they are.
    pub fn plain(&self) -> Option<&TcpStream> {
        match self {
            Transport::Plain(tcp) => Some(tcp),
            Transport::Tls(_) => None,
        }
    }

    /// Moves what was received into a pipe that is empty. `Ok(0)`: nothing more comes.
    pub fn poll_fill_pipe(
        &self,
        cx: &mut Context<'_>,
        pipe: &mut Lent<'_>,
    ) -> Poll<io::Result<usize>> {
        let tcp = self.tcp();
        loop {
            ready!(tcp.poll_read_ready(cx))?;
            match tcp.try_io(Interest::READABLE, || pipe.fill(tcp)) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return Poll::Ready(outcome),
            }
        }
    }

    /// Moves what is in a pipe, as far as it is taken now.
    pub fn poll_empty_pipe(
        &self,
        cx: &mut Context<'_>,
        pipe: &mut Lent<'_>,
    ) -> Poll<io::Result<usize>> {
        let tcp = self.tcp();
        loop {
            ready!(tcp.poll_write_ready(cx))?;
            match tcp.try_io(Interest::WRITABLE, || pipe.empty(tcp)) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return Poll::Ready(outcome),
            }
        }
    }

    /// Bytes that count as written and that the kernel has not taken yet.
    pub fn unsent(&self) -> usize {
        match self {
            Transport::Plain(_) => 0,
            Transport::Tls(tls) => tls.unsent(),
        }
    }

    /// Hands everything written so far to the kernel.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Transport::Plain(_) => Poll::Ready(Ok(())),
            Transport::Tls(tls) => tls.poll_flush(cx),
        }
    }

    /// Ends our direction (FIN, after close_notify with TLS).
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Transport::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Transport::Tls(tls) => tls.poll_shutdown(cx),
        }
    }

    /// Is the connection open and silent? A pooled connection on which bytes or an end wait must
    /// not be used. Costs no system call unless the runtime believes that something is there.
    pub fn is_quiet(&mut self) -> bool {
        match self {
            // Not by polling: a task whose turn is over would be told that nothing is there.
            Transport::Plain(tcp) => {
                let asked = tcp.try_read(&mut [0]);
                matches!(asked, Err(e) if e.kind() == io::ErrorKind::WouldBlock)
            }
            Transport::Tls(_) => {
                let mut cx = Context::from_waker(std::task::Waker::noop());
                self.poll_read(&mut cx, &mut [0]).is_pending()
            }
        }
    }

    /// Does the kernel hold nothing for us, not even an end? Asks it, whatever the runtime has
    /// heard: one system call, and what it holds stays there.
    pub fn is_silent(&self) -> bool {
        let mut byte = [std::mem::MaybeUninit::uninit()];
        let asked = socket2::SockRef::from(self.tcp()).peek(&mut byte);
        matches!(asked, Err(e) if e.kind() == io::ErrorKind::WouldBlock)
    }
}
