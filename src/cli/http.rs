//! One HTTP/1.1 request over TCP or a Unix socket, for commands that ask a running process.
//!
//! The answer is read as it comes, so that a stream of events can be followed; deadlines are the
//! caller's. HTTP is hyper's.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// Whom to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// One of these, tried in turn; at least one.
    Tcp(Vec<SocketAddr>),
    /// A Unix socket.
    Socket(PathBuf),
}

/// An answer of which the head is there.
#[derive(Debug)]
pub struct Answer {
    head: Response<Incoming>,
    /// Carries the connection; ends with this.
    connection: tokio::task::JoinHandle<()>,
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// Sends `request`, its connection's only one, and waits for the head of the answer. Within a runtime.
/// Cancel-safe.
pub async fn ask(peer: &Peer, mut request: Request<Whole>) -> io::Result<Answer> {
    let close = HeaderValue::from_static("close");
    request.headers_mut().insert(CONNECTION, close);
    match peer {
        Peer::Tcp(addresses) => over(TcpStream::connect(&addresses[..]).await?, request).await,
        Peer::Socket(path) => over(connect(path).await?, request).await,
    }
}

async fn connect(path: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(path).await
}

async fn over<S>(stream: S, request: Request<Whole>) -> io::Result<Answer>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let shaken = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(io::Error::other)?;
    // What fails there fails for whoever waits for the answer too.
    let connection = tokio::spawn(async { drop(connection.await) });
    match sender.send_request(request).await {
        Ok(head) => Ok(Answer { head, connection }),
        Err(error) => {
            connection.abort();
            Err(match (error.is_parse(), error.is_incomplete_message()) {
                (true, _) => io::Error::other("what answers does not speak HTTP"),
                (_, true) => io::ErrorKind::UnexpectedEof.into(),
                _ => io::Error::other(error),
            })
        }
    }
}

impl Answer {
    /// Its status.
    pub fn status(&self) -> u16 {
        self.head.status().as_u16()
    }

    /// The next piece of its body; `None`: that was all. Cancel-safe.
    pub async fn chunk(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            let body = self.head.body_mut();
            let frame = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await;
            match frame.transpose().map_err(io::Error::other)? {
                None => return Ok(None),
                Some(frame) => match frame.into_data() {
                    Ok(data) => return Ok(Some(data)),
                    // Trailers.
                    Err(_) => continue,
                },
            }
        }
    }

    /// All of its body, of at most so many bytes.
    pub async fn whole(&mut self, most: usize) -> io::Result<Bytes> {
        let mut bytes = BytesMut::new();
        while let Some(chunk) = self.chunk().await? {
            if bytes.len() + chunk.len() > most {
                return Err(io::Error::other("the answer is too long"));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes.freeze())
    }
}

/// The body of a request.
#[derive(Debug, Default)]
pub struct Whole(Option<Bytes>);

impl Whole {
    /// This.
    pub fn of(bytes: impl Into<Bytes>) -> Whole {
        Whole(Some(bytes.into()))
    }
}

impl Body for Whole {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        let length = self.0.as_ref().map_or(0, |bytes| bytes.len() as u64);
        hyper::body::SizeHint::with_exact(length)
    }
}
