//! A sample backend: HTTP/1.1 that shows every request to who sent it, and WebSocket echo.
//!
//! To try a balancer with, not to serve anybody. The way of a request: [`serve`] accepts →
//! `connection.rs` reads it → `behaviour.rs` says what it gets → `answer.rs` writes that down;
//! `socket.rs` takes over where it becomes a WebSocket. Used by `evenkeel backend`, which puts
//! signals and a registration around it, and by the demo.

mod answer;
mod behaviour;
mod connection;
mod socket;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::upstream::connect::notice_dead_peers;
pub use behaviour::{Chance, Delay, LARGEST_ANSWER, LONGEST_DELAY};
pub use socket::LARGEST_MESSAGE;

/// What a sample backend answers, and when.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Its name; what can stand in a field value.
    pub name: String,
    /// Time taken over each answer.
    pub delay: Delay,
    /// Requests that get a 503 by chance.
    pub error_rate: Chance,
}

impl Sample {
    /// One that answers at once and always.
    pub fn new(name: impl Into<String>) -> Sample {
        Sample {
            name: name.into(),
            delay: Delay::default(),
            error_rate: Chance::default(),
        }
    }
}

/// How far it has come. Only goes forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// It serves, but nobody can know of it yet: 503 at `/healthz`.
    Joining,
    /// It serves.
    Serving,
    /// It serves, but says that it will not for long: `Connection: close` with every answer, 503 at
    /// `/healthz`.
    Leaving,
    /// It takes no connections any more. Requests under way are finished, and those that still
    /// come on an open connection within [`LINGER`].
    Closing,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Everything was finished.
    Finished,
    /// So many connections were cut off in the middle of something.
    Cut(usize),
}

/// An idle connection is kept for so long once no new ones are taken: a request may be on its way
/// on it. Longer than a balancer keeps one that it does not use (4 s), so that it is the balancer
/// who closes it, and nothing crosses that on the way.
pub const LINGER: Duration = Duration::from_secs(5);

/// For what is under way then. Docker gives ten seconds before it kills.
pub const GRACE: Duration = Duration::from_secs(8);

/// Connections at once; further ones wait in the socket's queue. Every one may hold a WebSocket
/// message and its echo.
const MAX_CONNECTIONS: usize = 1024;

/// That queue, as tokio makes it.
const BACKLOG: usize = 1024;

/// After a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What all connections know.
#[derive(Debug)]
struct Shared {
    sample: Sample,
    /// Answered so far, health checks left out. Only counts, so any order will do.
    requests: AtomicU64,
    phases: watch::Receiver<Phase>,
}

impl Shared {
    fn phase(&self) -> Phase {
        *self.phases.borrow()
    }

    /// The number of the next request, from 1.
    fn count(&self) -> u64 {
        self.requests.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Waits until no connections are taken any more. Cancel-safe.
    async fn closing(&self) {
        let mut phases = self.phases.clone();
        let closing = phases.wait_for(|phase| *phase >= Phase::Closing);
        let nobody_says_so = closing.await.is_err();
        if nobody_says_so {
            std::future::pending::<()>().await;
        }
    }
}

/// Answers on every connection until `phases` says [`Phase::Closing`], and then for [`GRACE`] at
/// most. When the future is dropped, the socket and all connections close at once, as if the
/// process had been killed.
pub async fn serve(listener: TcpListener, sample: Sample, phases: watch::Receiver<Phase>) -> Ended {
    let shared = Arc::new(Shared {
        sample,
        requests: AtomicU64::new(0),
        phases,
    });
    let mut connections = JoinSet::new();
    loop {
        let has_room = connections.len() < MAX_CONNECTIONS;
        let accepted = tokio::select! {
            biased;
            () = shared.closing() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept(), if has_room => accepted,
        };
        match accepted {
            Ok((stream, peer)) => admit(&mut connections, &shared, stream, peer),
            // Out of descriptors, most likely: it would fail again at once.
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
    if let Err(error) = take_the_rest(listener, |stream, peer| {
        admit(&mut connections, &shared, stream, peer);
    }) {
        tracing::debug!(%error, "connections may have been lost");
    }
    let all = async { while connections.join_next().await.is_some() {} };
    match timeout(GRACE, all).await {
        Ok(()) => Ended::Finished,
        Err(_) => Ended::Cut(connections.len()),
    }
}

fn admit(connections: &mut JoinSet<()>, shared: &Arc<Shared>, stream: TcpStream, peer: SocketAddr) {
    // The client was gone before it was served.
    if notice_dead_peers((&stream).into()).is_err() {
        return;
    }
    let shared = Arc::clone(shared);
    connections.spawn(async move {
        // A peer that misbehaves or goes away ends its own connection only.
        if let Err(error) = connection::converse(stream, peer, shared).await {
            tracing::debug!(%peer, %error, "a connection failed");
        }
    });
}

/// Takes the connections that the kernel has completed, and closes the socket. The kernel itself is
/// asked: what the runtime knows may be older.
fn take_the_rest(
    listener: TcpListener,
    mut admit: impl FnMut(TcpStream, SocketAddr),
) -> io::Result<()> {
    let listener = listener.into_std()?;
    // Whoever connects meanwhile could keep us here for ever.
    for _ in 0..BACKLOG {
        match listener.accept() {
            Ok((stream, peer)) => {
                stream.set_nonblocking(true)?;
                admit(TcpStream::from_std(stream)?, peer);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            // The client was gone before we looked.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
