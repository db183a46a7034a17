//! A connection's byte stream, plain or TLS: the boundary above which nobody asks which.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Buf;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::pipes::Lent;
use super::tls::{AskThe, TlsStream};

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

    /// Reads into `room`; `Ok(0)` is the end of the stream. A client's end without close_notify
    /// counts as an end: HTTP framing says whether something is missing. A backend's does not, since
    /// the end may be all that a response is framed by (RFC 9112 §9.8).
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
            Transport::Tls(tls) => tls.is_quiet(AskThe::Runtime),
        }
    }

    /// Does the kernel hold nothing for us, not even an end? Asks it, whatever the runtime has
    /// heard: one system call. What it holds stays there, but for what TLS says to itself.
    pub fn is_silent(&mut self) -> bool {
        match self {
            Transport::Plain(tcp) => {
                let mut byte = [std::mem::MaybeUninit::uninit()];
                let asked = socket2::SockRef::from(&*tcp).peek(&mut byte);
                matches!(asked, Err(e) if e.kind() == io::ErrorKind::WouldBlock)
            }
            Transport::Tls(tls) => tls.is_quiet(AskThe::Kernel),
        }
    }

    /// Its TLS, if it has any.
    pub fn tls(&self) -> Option<&TlsStream> {
        match self {
            Transport::Plain(_) => None,
            Transport::Tls(tls) => Some(tls),
        }
    }
}

/// For those who bring their own protocol. What was written is on its way only after a flush.
impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let outcome = Transport::poll_read(self.get_mut(), cx, buf.initialize_unfilled());
        outcome.map_ok(|n| buf.advance(n))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Transport::poll_write(self.get_mut(), cx, &mut bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Transport::poll_flush(self.get_mut(), cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Transport::poll_shutdown(self.get_mut(), cx)
    }
}
