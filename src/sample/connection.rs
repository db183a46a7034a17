//! One connection, request after request, until one of both sides has had enough.
//!
//! Reads heads and bodies, each wait with its deadline, and holds no more than a head, a read and
//! the start of a body. Called by `serve`.

use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::answer::{self, Body, Envelope, Request};
use super::behaviour::{Content, behaviour};
use super::socket::{self, Handshake};
use super::{LINGER, Phase, Shared};
use crate::http::body::{BodyFraming, request_framing, request_keeps_alive};
use crate::http::h1::body::BodyDecoder;
use crate::http::h1::encode::ConnectionField;
use crate::http::h1::parse::{self, HeadLimits};
use crate::http::head::{Method, Rejection, RequestHead, Version};
use crate::http::headers::Known;

/// Heads above this are refused.
const LIMITS: HeadLimits = HeadLimits {
    bytes: 32 << 10,
    fields: 100,
};

/// For the next request on an idle connection; as long as the balancer keeps a client.
const IDLE: Duration = Duration::from_secs(75);

/// For a head, from its first byte to its last.
const HEAD_PATIENCE: Duration = Duration::from_secs(10);

/// For a peer to send or to take something.
const PATIENCE: Duration = Duration::from_secs(30);

/// For a peer to close after us, and what it may send meanwhile: bytes that nobody reads turn our
/// close into a reset, which can overtake the last answer.
const FAREWELL: Duration = Duration::from_secs(1);
const FAREWELL_BYTES: usize = 1 << 20;

/// Read and written at a time.
const PIECE: usize = 16 << 10;

/// Answers on a connection until it ends; what went wrong is of interest to nobody but a log.
pub(super) async fn converse(
    stream: TcpStream,
    client: SocketAddr,
    shared: Arc<Shared>,
) -> io::Result<()> {
    let connection = Connection {
        address: stream.local_addr()?,
        stream,
        client,
        shared,
        input: Vec::with_capacity(PIECE),
        head: RequestHead::default(),
    };
    connection.serve().await
}

struct Connection {
    stream: TcpStream,
    address: SocketAddr,
    client: SocketAddr,
    shared: Arc<Shared>,
    /// Received and not yet taken.
    input: Vec<u8>,
    head: RequestHead,
}

/// What comes next on a connection.
enum Next {
    /// A request; its head has so many bytes of the input.
    Request(usize),
    /// No more of them: the peer closed, or nothing came.
    Nothing,
}

/// Why a request cannot be served.
enum Bad {
    Request(Rejection),
    /// The peer is gone, or has failed.
    Connection(io::Error),
}

impl From<io::Error> for Bad {
    fn from(error: io::Error) -> Bad {
        Bad::Connection(error)
    }
}

impl Connection {
    async fn serve(mut self) -> io::Result<()> {
        loop {
            let served = match self.next().await {
                Ok(Next::Nothing) => return self.farewell().await,
                Ok(Next::Request(length)) => self.request(length).await,
                Err(bad) => Err(bad),
            };
            match served {
                Ok(After::Next) => {}
                Ok(After::Farewell) => return self.farewell().await,
                Ok(After::Socket) => {
                    socket::echo(self.stream, self.input, &self.shared).await;
                    return Ok(());
                }
                Err(Bad::Connection(error)) => return Err(error),
                Err(Bad::Request(rejection)) => {
                    self.refuse(rejection.status, rejection.reason).await?;
                    return self.farewell().await;
                }
            }
        }
    }

    /// Waits for a request's head.
    async fn next(&mut self) -> Result<Next, Bad> {
        let shared = Arc::clone(&self.shared);
        // What still comes on an idle connection when the end is near is answered.
        let mut parting = pin!(async {
            shared.closing().await;
            sleep(LINGER).await;
        });
        let mut idle = self.holds_nothing();
        let mut deadline = Instant::now() + if idle { IDLE } else { HEAD_PATIENCE };
        // What is refused for its first line is no HEAD, whatever came before it.
        self.head.method = Method::Get;
        loop {
            let parsed = parse::request_head(&self.input, LIMITS, &mut self.head);
            if let Some(length) = parsed.map_err(Bad::Request)? {
                return Ok(Next::Request(length));
            }
            let read = tokio::select! {
                biased;
                read = timeout_at(deadline, self.stream.read_buf(&mut self.input)) => read,
                () = &mut parting, if idle => {
                    if is_silent(&self.stream) {
                        return Ok(Next::Nothing);
                    }
                    // It came at the last moment.
                    deadline = Instant::now() + HEAD_PATIENCE;
                    idle = false;
                    continue;
                }
            };
            match read {
                Ok(Ok(0)) if self.holds_nothing() => return Ok(Next::Nothing),
                Ok(Ok(0)) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(Ok(_)) if idle && !self.holds_nothing() => {
                    deadline = Instant::now() + HEAD_PATIENCE;
                    idle = false;
                }
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(error.into()),
                Err(_) if idle => return Ok(Next::Nothing),
                Err(_) => return Err(Bad::Request(TOO_SLOW)),
            }
        }
    }

    /// Nothing of a request has come. An empty line before one is no part of it (RFC 9112 §2.2):
    /// some clients send it after a body.
    fn holds_nothing(&self) -> bool {
        matches!(self.input[..], [] | [b'\r'] | [b'\r', b'\n'])
    }

    /// Writes down that a request is here in full. Before it is answered: what becomes of it after
    /// that, if this process is killed, nobody else can know.
    fn note(&self, number: u64) {
        let [method, path, query] = [&self.head.method_text, &self.head.path, &self.head.query]
            .map(|text| String::from_utf8_lossy(text));
        tracing::debug!(number, "sample: {method} {path}{query}");
    }

    /// Serves the request whose head is `self.head` and has the first `length` bytes of the input.
    async fn request(&mut self, length: usize) -> Result<After, Bad> {
        let framing = request_framing(&self.head).map_err(Bad::Request)?;
        let raw: Vec<u8> = self.input.drain(..length).collect();
        let shared = Arc::clone(&self.shared);
        let dice = [fastrand::f64(), fastrand::f64()];
        let behaviour = behaviour(&shared.sample, &self.head, shared.phase(), dice);
        let number = match behaviour.content {
            Content::Health => 0,
            _ => shared.count(),
        };
        let wants_socket = behaviour.status == 200 && behaviour.content == Content::Echo;
        let handshake = match framing {
            BodyFraming::None | BodyFraming::Length(0) if wants_socket => Handshake::of(&self.head),
            _ => Handshake::None,
        };
        self.expect(framing).await?;
        let body = self.body(framing).await?;
        if behaviour.content != Content::Health {
            self.note(number);
        }
        sleep(behaviour.delay).await;
        let mut out = Vec::new();
        match handshake {
            Handshake::None => {}
            Handshake::Accept(accept) => {
                accept.write(self.envelope(ConnectionField::Upgrade), &mut out);
                self.write(&out).await?;
                return Ok(After::Socket);
            }
            Handshake::Refuse(status, reason) => {
                return Err(Bad::Request(Rejection { status, reason }));
            }
        }
        // What was sent behind this request is answered too, whoever leaves.
        let stays = shared.phase() <= Phase::Serving || !self.holds_nothing();
        let keeps_alive = stays && request_keeps_alive(&self.head);
        let connection = match (keeps_alive, self.head.version) {
            (false, _) => ConnectionField::Close,
            (true, Version::Http10) => ConnectionField::KeepAlive,
            (true, _) => ConnectionField::None,
        };
        let request = Request {
            backend: &shared.sample.name,
            address: self.address,
            client: self.client,
            number,
            head: &raw,
            body: &body,
        };
        let bytes = answer::answer(&behaviour, &request, self.envelope(connection), &mut out);
        self.write(&out).await?;
        self.write_bytes(bytes).await?;
        self.head.shed();
        self.input.shrink_to(PIECE);
        match keeps_alive {
            true => Ok(After::Next),
            false => Ok(After::Farewell),
        }
    }

    /// RFC 9110 §10.1.1: says that the body may come, if the client waits for that.
    async fn expect(&mut self, framing: BodyFraming) -> io::Result<()> {
        let expects = |value: &[u8]| value.eq_ignore_ascii_case(b"100-continue");
        let waits = self.head.version != Version::Http10
            && self.head.fields.all(Known::Expect).any(expects)
            && !matches!(framing, BodyFraming::None | BodyFraming::Length(0))
            && self.input.is_empty();
        match waits {
            true => self.write(b"HTTP/1.1 100 Continue\r\n\r\n").await,
            false => Ok(()),
        }
    }

    /// Reads a body to its end and keeps its start.
    async fn body(&mut self, framing: BodyFraming) -> Result<Body, Bad> {
        let mut body = Body::default();
        let mut decoder = BodyDecoder::new(framing, LIMITS.bytes);
        loop {
            let decoded = decoder.decode(&self.input);
            let decoded = decoded.map_err(|bad| Bad::Request(Rejection::bad_request(bad.0)))?;
            body.push(&self.input[decoded.data]);
            self.input.drain(..decoded.consumed);
            if decoded.end {
                body.trailers = decoder.trailers().clone();
                return Ok(body);
            }
            if decoded.consumed == 0 {
                let read = timeout(PATIENCE, self.stream.read_buf(&mut self.input)).await;
                if read.map_err(|_| Bad::Request(TOO_SLOW))?? == 0 {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                }
            }
        }
    }

    async fn refuse(&mut self, status: u16, reason: &str) -> io::Result<()> {
        let mut out = Vec::new();
        let envelope = self.envelope(ConnectionField::Close);
        answer::refusal(status, reason, envelope, &mut out);
        self.write(&out).await
    }

    fn envelope(&self, connection: ConnectionField) -> Envelope<'_> {
        Envelope {
            backend: &self.shared.sample.name,
            method: self.head.method,
            connection,
            now: SystemTime::now(),
        }
    }

    async fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = timeout(PATIENCE, self.stream.write(bytes)).await??;
            bytes = &bytes[written..];
        }
        Ok(())
    }

    /// As many as were asked for, made while they go out.
    async fn write_bytes(&mut self, mut left: u64) -> io::Result<()> {
        if left == 0 {
            return Ok(());
        }
        let piece = LINE.repeat(PIECE / LINE.len());
        while left > 0 {
            let now = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            self.write(&piece[..now]).await?;
            left -= now as u64;
        }
        Ok(())
    }

    /// Ends our direction, and reads until the peer has ended its own.
    async fn farewell(self) -> io::Result<()> {
        farewell(self.stream).await
    }
}

/// What follows a request.
enum After {
    Next,
    Farewell,
    /// A WebSocket.
    Socket,
}

/// Ends our direction, and reads until the peer has ended its own, or long enough.
pub(super) async fn farewell(mut stream: TcpStream) -> io::Result<()> {
    stream.shutdown().await?;
    let drained = timeout(FAREWELL, async {
        let mut room = [0; 1024];
        let mut left = FAREWELL_BYTES;
        while left > 0 {
            match stream.read(&mut room).await? {
                0 => break,
                read => left = left.saturating_sub(read),
            }
        }
        Ok(())
    });
    drained.await.unwrap_or(Ok(()))
}

/// Does the kernel hold nothing for us? Asks it, whatever the runtime has heard.
fn is_silent(stream: &TcpStream) -> bool {
    let asked = SockRef::from(stream).peek(&mut [MaybeUninit::uninit()]);
    matches!(asked, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

const TOO_SLOW: Rejection = Rejection {
    status: 408,
    reason: "the request did not come in time",
};

/// What bytes that were asked for are made of.
const LINE: &[u8; 64] = b"the quick brown fox jumps over the lazy dog, time and again 012\n";
