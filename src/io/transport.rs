//! A connection's byte stream, plain or TLS: the boundary above which nobody asks which.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// A byte stream to a client or a backend.
#[derive(Debug)]
pub enum Transport {
    /// TCP as it is.
    Plain(TcpStream),
    /// TLS that we ended. Boxed: it is twenty times the size of the other.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Transport {
    /// The TCP connection below.
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Transport::Plain(tcp) => tcp,
            Transport::Tls(tls) => tls.get_ref().0,
        }
    }

    /// Reads into `room`; `Ok(0)` is the end of the stream. An end without close_notify counts
    /// as an end: HTTP framing says whether something is missing.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buf = ReadBuf::new(room);
        let outcome = match self {
            Transport::Plain(tcp) => Pin::new(tcp).poll_read(cx, &mut buf),
            Transport::Tls(tls) => Pin::new(tls.as_mut()).poll_read(cx, &mut buf),
        };
        match outcome {
            Poll::Ready(Err(e)) if e.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(0)),
            outcome => outcome.map_ok(|()| buf.filled().len()),
        }
    }

    /// Writes the front of `first` followed by `second`, in one system call.
    pub fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        first: &[u8],
        second: &[u8],
    ) -> Poll<io::Result<usize>> {
        let one = if second.is_empty() {
            Some(first)
        } else if first.is_empty() {
            Some(second)
        } else {
            None
        };
        let both = [io::IoSlice::new(first), io::IoSlice::new(second)];
        match (self, one) {
            (Transport::Plain(tcp), Some(bytes)) => Pin::new(tcp).poll_write(cx, bytes),
            (Transport::Plain(tcp), None) => Pin::new(tcp).poll_write_vectored(cx, &both),
            (Transport::Tls(tls), Some(bytes)) => Pin::new(tls.as_mut()).poll_write(cx, bytes),
            (Transport::Tls(tls), None) => Pin::new(tls.as_mut()).poll_write_vectored(cx, &both),
        }
    }

    /// Hands everything written so far to the kernel.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Transport::Plain(_) => Poll::Ready(Ok(())),
            Transport::Tls(tls) => Pin::new(tls.as_mut()).poll_flush(cx),
        }
    }

    /// Ends our direction (FIN, after close_notify with TLS).
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Transport::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Transport::Tls(tls) => Pin::new(tls.as_mut()).poll_shutdown(cx),
        }
    }

    /// Is the connection open and silent? A pooled connection on which bytes or an end wait must
    /// not be used. Costs no system call unless the runtime believes that something is there.
    pub fn is_quiet(&mut self) -> bool {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        match self {
            Transport::Plain(tcp) => match tcp.poll_read_ready(&mut cx) {
                Poll::Pending => true,
                Poll::Ready(Err(_)) => false,
                // A read that exactly filled its buffer leaves the readiness set: ask.
                Poll::Ready(Ok(())) => {
                    let asked = tcp.try_read(&mut [0]);
                    matches!(asked, Err(e) if e.kind() == io::ErrorKind::WouldBlock)
                }
            },
            Transport::Tls(_) => self.poll_read(&mut cx, &mut [0]).is_pending(),
        }
    }
}
