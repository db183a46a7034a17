//! One request and its answer: over UDP, the same bytes again when nothing comes, and over TCP when
//! either of them is too large.
//!
//! What an answer is, the caller's `judge` says. Every wait ends.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::DEFAULT_MAX_PAYLOAD_LEN;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout, timeout_at};

use super::Failure;
use crate::dns_server::key::VerifyError;

/// How often a request goes out over UDP.
const TRIES: usize = 3;

/// For a connection, the request and the answer over TCP.
const TCP_PATIENCE: Duration = Duration::from_secs(3);

/// What came back.
pub(super) enum Verdict<T> {
    /// Not for us, or not to be believed: the right answer may still come.
    Ignore(Option<VerifyError>),
    /// It did not fit.
    Truncated,
    /// The answer.
    Done(Result<T, Failure>),
}

/// Sends a request until `judge` is content with what came back. `patience` is how long an answer
/// over UDP is waited for before the request goes out again. Takes [`TRIES`] × `patience` +
/// [`TCP_PATIENCE`] at most.
pub(super) async fn exchange<T>(
    server: SocketAddr,
    patience: Duration,
    request: &[u8],
    judge: impl Fn(&[u8]) -> Verdict<T>,
) -> Result<T, Failure> {
    if request.len() <= DEFAULT_MAX_PAYLOAD_LEN.into()
        && let Some(answer) = over_udp(server, patience, request, &judge).await?
    {
        return Ok(answer);
    }
    over_tcp(server, request, &judge).await
}

/// `None`: the answer does not fit UDP.
async fn over_udp<T>(
    server: SocketAddr,
    patience: Duration,
    request: &[u8],
    judge: &impl Fn(&[u8]) -> Verdict<T>,
) -> Result<Option<T>, Failure> {
    let failed = |source| Failure::Network { server, source };
    // A port of its own for every exchange, and only the server's packets: hard to forge.
    let socket = connected(server).await.map_err(failed)?;
    let mut doubt = None;
    let mut buffer = [0; DEFAULT_MAX_PAYLOAD_LEN as usize];
    for _ in 0..TRIES {
        socket.send(request).await.map_err(failed)?;
        let until = Instant::now() + patience;
        while let Ok(received) = timeout_at(until, socket.recv(&mut buffer)).await {
            let length = received.map_err(failed)?;
            match judge(&buffer[..length]) {
                Verdict::Ignore(why) => doubt = why.or(doubt),
                Verdict::Truncated => return Ok(None),
                Verdict::Done(answer) => return answer.map(Some),
            }
        }
    }
    Err(match doubt {
        Some(source) => Failure::Unbelievable { server, source },
        None => Failure::Silence { server },
    })
}

/// RFC 1035 section 4.2.2: two octets of length before each message.
async fn over_tcp<T>(
    server: SocketAddr,
    request: &[u8],
    judge: &impl Fn(&[u8]) -> Verdict<T>,
) -> Result<T, Failure> {
    let length = u16::try_from(request.len()).map_err(|_| Failure::Unsendable)?;
    let framed = [&length.to_be_bytes(), request].concat();
    let conversation = async {
        let mut stream = TcpStream::connect(server).await?;
        stream.write_all(&framed).await?;
        let length = stream.read_u16().await?;
        let mut answer = vec![0; length.into()];
        stream.read_exact(&mut answer).await?;
        io::Result::Ok(answer)
    };
    let answer = timeout(TCP_PATIENCE, conversation)
        .await
        .map_err(|_| Failure::Silence { server })?
        .map_err(|source| Failure::Network { server, source })?;
    match judge(&answer) {
        Verdict::Done(answer) => answer,
        Verdict::Ignore(Some(source)) => Err(Failure::Unbelievable { server, source }),
        Verdict::Ignore(None) | Verdict::Truncated => Err(Failure::Silence { server }),
    }
}

/// A UDP socket that sends to `server` and hears only from there.
pub(super) async fn connected(server: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    Ok(socket)
}
