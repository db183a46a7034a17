//! The sockets of the server: datagrams and streams in, replies out, everything bounded.
//!
//! Runs on the current tokio runtime until it is dropped. What a message means is `responder.rs`'s
//! affair. RFC 1035 section 4.2, RFC 7766 (TCP).

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::{self, AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};

use super::quota::site;
use super::responder::{Reply, Responder, Transport};

/// Answers datagrams. Returns when the socket fails for good.
pub(super) async fn datagrams(socket: UdpSocket, responder: Arc<Responder>) -> io::Result<()> {
    let socket = Arc::new(socket);
    let mut waiting = JoinSet::new();
    let mut buffer = vec![0; LARGEST_DATAGRAM];
    loop {
        while waiting.try_join_next().is_some() {}
        let (length, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            // What Linux reports of an earlier datagram that nobody took, or a moment without
            // memory: of one message, not of the socket.
            Err(error) => {
                tracing::debug!(%error, "dns: a datagram could not be received");
                sleep(PAUSE).await;
                continue;
            }
        };
        // Nobody asks from there; an answer would hit somebody else.
        if client.port() == 0 {
            continue;
        }
        let Some(reply) = responder.reply(&buffer[..length], client, Transport::Udp) else {
            continue;
        };
        if reply.durable_at.is_none() {
            // A full socket loses it, as a network may: the client asks again.
            let _ = socket.try_send_to(&reply.octets, client);
        } else if waiting.len() < MAX_WAITING {
            let (socket, responder) = (Arc::clone(&socket), Arc::clone(&responder));
            waiting.spawn(async move {
                if let Some(octets) = when_durable(reply, &responder).await {
                    let _ = socket.try_send_to(&octets, client);
                }
            });
        }
    }
}

/// Answers streams. Returns when the socket fails for good.
///
/// Where there are too many, in all or of one site, the one that was quiet for longest makes room:
/// whoever holds connections open for their own sake must not keep out those who have a question.
pub(super) async fn streams(listener: TcpListener, responder: Arc<Responder>) -> io::Result<()> {
    let mut open: HashMap<task::Id, Open> = HashMap::new();
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            Some(ended) = streams.join_next_with_id() => {
                let id = match ended {
                    Ok((id, ())) => id,
                    Err(error) => error.id(),
                };
                open.remove(&id);
            }
            accepted = listener.accept() => {
                let (stream, client) = match accepted {
                    Ok(accepted) => accepted,
                    // Out of descriptors, most likely: it would fail again at once.
                    Err(error) => {
                        tracing::debug!(%error, "dns: a connection could not be accepted");
                        if let Some(quiet) = quietest(&open, |_| true) {
                            quiet.task.abort();
                        }
                        sleep(PAUSE).await;
                        continue;
                    }
                };
                let site = site(client.ip());
                let of_site = |of: &Open| of.site == site;
                let too_many = if open.values().filter(|of| of_site(of)).count() >= MAX_STREAMS_OF_ONE {
                    quietest(&open, of_site)
                } else if open.len() >= MAX_STREAMS {
                    quietest(&open, |_| true)
                } else {
                    None
                };
                if let Some(quiet) = too_many {
                    quiet.task.abort();
                    let id = quiet.task.id();
                    open.remove(&id);
                }
                let heard = Arc::new(Mutex::new(Instant::now()));
                let (responder, hears) = (Arc::clone(&responder), Arc::clone(&heard));
                let task = streams.spawn(async move {
                    // A peer that misbehaves or goes away ends its own connection only.
                    let _ = converse(stream, client, &responder, &hears).await;
                });
                open.insert(task.id(), Open { site, heard, task });
            }
        }
    }
}

/// A connection.
struct Open {
    site: IpAddr,
    /// When its last message came. Locked for one look.
    heard: Arc<Mutex<Instant>>,
    task: AbortHandle,
}

fn quietest(open: &HashMap<task::Id, Open>, which: impl Fn(&Open) -> bool) -> Option<&Open> {
    let heard = |of: &&Open| *of.heard.lock().unwrap_or_else(PoisonError::into_inner);
    open.values().filter(|of| which(of)).min_by_key(heard)
}

/// One connection, message after message (RFC 7766 section 6.2.1: the answers keep their order).
async fn converse(
    mut stream: TcpStream,
    client: SocketAddr,
    responder: &Responder,
    heard: &Mutex<Instant>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut message = Vec::new();
    loop {
        let reading = async {
            let length = stream.read_u16().await?;
            message.resize(length.into(), 0);
            stream.read_exact(&mut message).await
        };
        timeout(IDLE, reading).await??;
        *heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        let reply = responder.reply(&message, client, Transport::Tcp);
        let Some(reply) = reply else {
            return Ok(());
        };
        let Some(octets) = when_durable(reply, responder).await else {
            return Ok(());
        };
        // In one write: a client may take a length alone for the whole of a segment.
        let mut framed = Vec::with_capacity(2 + octets.len());
        let length = u16::try_from(octets.len()).map_err(io::Error::other)?;
        framed.extend_from_slice(&length.to_be_bytes());
        framed.extend_from_slice(&octets);
        timeout(IDLE, stream.write_all(&framed)).await??;
        message = Vec::new();
    }
}

/// The octets of a reply, when they may leave. `None`: never. The client then asks again, which
/// is harmless, and gets no promise that the disk has not kept.
async fn when_durable(reply: Reply, responder: &Responder) -> Option<Vec<u8>> {
    match reply.durable_at {
        Some(generation) if !responder.durable(generation).await => None,
        _ => Some(reply.octets),
    }
}

/// More than EDNS lets anybody send us; what is longer is cut and then malformed.
const LARGEST_DATAGRAM: usize = 16 * 1024;

/// Datagrams whose answers wait for the disk. Further ones get none.
const MAX_WAITING: usize = 1024;

/// Connections at once.
const MAX_STREAMS: usize = 512;

/// Connections of one site at once.
const MAX_STREAMS_OF_ONE: usize = 64;

/// For a client to send a message, or to take one (RFC 7766 section 6.2.3: a few seconds).
const IDLE: Duration = Duration::from_secs(10);

/// After an error of a socket.
const PAUSE: Duration = Duration::from_millis(50);
