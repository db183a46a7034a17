//! Where clients come in: sockets, the accept loop, the TLS handshake.
//!
//! One socket per address, given to every worker as a duplicated descriptor, so that no queue is
//! lost when a worker goes and a second instance on the same port is refused.

use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use rustix::io::Errno;
use rustls::ServerConfig;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

use crate::io::tls::TlsStream;
use crate::io::transport::Transport;
use crate::proxy::connection::{Connection, Peer};
use crate::proxy::drain::Phase;
use crate::proxy::serve::{Runners, Serve};
use crate::proxy::worker::{OpenConnection, Worker};
use crate::telemetry::metrics::{Handshake, Side};
use crate::upstream::connect::{is_exhaustion, notice_dead_peers};

/// Connections that the kernel completes before we accept them.
const BACKLOG: i32 = 4096;

/// After an accept that failed for want of descriptors or memory: time for others to close some.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// A client whose handshake failed may take so long to take the alert.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What a plain client is told when there are as many connections as there may be.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nServer: evenkeel\r\n\
    Content-Type: text/plain; charset=utf-8\r\nContent-Length: 30\r\nRetry-After: 1\r\n\
    Connection: close\r\n\r\n503: too many connections now\n";

/// Binds a listening socket. An IPv6 wildcard takes IPv4 as well, or stands for the IPv4 one on a
/// host without IPv6.
pub fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    if address.is_ipv6() && address.ip().is_unspecified() {
        let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
        return bind_one(address).or_else(|e| {
            match e.raw_os_error().map(Errno::from_raw_os_error) {
                Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) => bind_one(v4),
                _ => Err(e),
            }
        });
    }
    bind_one(address)
}

fn bind_one(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    // Not SO_REUSEPORT: two instances on one port are a mistake that has to show.
    socket.set_reuse_address(true)?;
    // Accepted sockets inherit it.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// A listener as a worker is given it.
#[derive(Debug)]
pub struct Listening {
    /// Index in the configuration.
    pub index: usize,
    /// The worker's own descriptor of the shared socket.
    pub socket: std::net::TcpListener,
    /// TLS, if it speaks TLS.
    pub tls: Option<Arc<ServerConfig>>,
}

/// Accepts until a drain closes the listener; then takes what the kernel has completed already.
pub async fn accept(worker: Rc<Worker>, listening: Listening) -> io::Result<()> {
    let socket = TcpListener::from_std(listening.socket)?;
    let tls = listening.tls;
    let timer = worker.deadlines.timer();
    let runners = Runners::new(Rc::clone(&worker.deadlines));
    loop {
        let accepted = poll_fn(|cx| match socket.poll_accept(cx) {
            Poll::Ready(accepted) => Poll::Ready(Some(accepted)),
            Poll::Pending if worker.shared.drain.phase() >= Phase::Closing => Poll::Ready(None),
            // The timer is never set: it is there to be woken when the phase changes.
            Poll::Pending => timer.poll_expired(cx).map(|_| None),
        })
        .await;
        match accepted {
            None => {
                return take_the_rest(socket, |stream, address| {
                    admit(
                        &worker,
                        &runners,
                        listening.index,
                        tls.as_ref(),
                        stream,
                        address,
                    );
                });
            }
            Some(Ok((stream, address))) => {
                admit(
                    &worker,
                    &runners,
                    listening.index,
                    tls.as_ref(),
                    stream,
                    address,
                );
            }
            Some(Err(e)) if is_exhaustion(&e) => {
                tracing::warn!(error = %e, "accept failed; waiting for descriptors");
                tokio::time::sleep(EXHAUSTED).await;
            }
            // The client was gone before we looked.
            Some(Err(e)) => tracing::debug!(error = %e, "accept failed"),
        }
    }
}

/// Takes the connections that the kernel has completed, and closes the socket. The kernel itself
/// is asked: what the runtime knows of the socket may be older, and it ends a task's turn after
/// so many connections.
fn take_the_rest(socket: TcpListener, admit: impl Fn(TcpStream, SocketAddr)) -> io::Result<()> {
    let socket = socket.into_std()?;
    // Whoever connects meanwhile could keep us here for ever.
    for _ in 0..BACKLOG {
        match socket.accept() {
            Ok((stream, address)) => {
                stream.set_nonblocking(true)?;
                admit(TcpStream::from_std(stream)?, address);
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
            Err(e) if is_exhaustion(&e) => return Err(e),
            // The client was gone before we looked.
            Err(e) => tracing::debug!(error = %e, "accept failed"),
        }
    }
    Ok(())
}

fn admit(
    worker: &Rc<Worker>,
    runners: &Rc<Runners>,
    listener: usize,
    tls: Option<&Arc<ServerConfig>>,
    stream: TcpStream,
    address: SocketAddr,
) {
    let Some(open) = OpenConnection::open(worker, Side::Downstream(listener)) else {
        if tls.is_none() {
            // As much as fits at once; nobody waits for it.
            let _ = stream.try_write(FULL);
        }
        return;
    };
    if let Err(e) = notice_dead_peers(&stream) {
        tracing::debug!(error = %e, "the client was gone before it was served");
        return;
    }
    let (worker, runners) = (Rc::clone(worker), Rc::clone(runners));
    let peer = Peer {
        address,
        listener,
        tls: None,
    };
    match tls.cloned() {
        None => {
            let transport = Transport::Plain(stream);
            let connection = Connection::new(worker, transport, peer, open);
            tokio::task::spawn_local(Serve::new(connection, runners));
        }
        Some(config) => {
            tokio::task::spawn_local(async move {
                if let Some((transport, version)) = handshake(&worker, config, stream).await {
                    let peer = Peer {
                        tls: Some(version),
                        ..peer
                    };
                    let connection = Connection::new(worker, transport, peer, open);
                    Serve::new(connection, runners).await;
                }
            });
        }
    }
}

async fn handshake(
    worker: &Rc<Worker>,
    config: Arc<ServerConfig>,
    stream: TcpStream,
) -> Option<(Transport, &'static str)> {
    let metrics = &worker.metrics;
    let failed = |error: &dyn std::error::Error| {
        tracing::debug!(%error, "TLS handshake failed");
        metrics.handshake(None, Handshake::Failed);
    };
    let mut tls = match TlsStream::new(stream, config, &worker.buffers) {
        Ok(tls) => Box::new(tls),
        Err(e) => {
            failed(&e);
            return None;
        }
    };
    let wait = worker.shared.config.downstream.handshake_timeout;
    let timer = worker.deadlines.timer();
    let made = timer
        .limit(wait, poll_fn(|cx| tls.poll_handshake(cx)))
        .await;
    match made {
        Ok(Ok(())) => {
            let version = tls.version();
            let ended = match tls.is_resumed() {
                true => Handshake::Resumed,
                false => Handshake::Full,
            };
            metrics.handshake(Some(version), ended);
            Some((Transport::Tls(tls), version))
        }
        Ok(Err(e)) => {
            failed(&e);
            // The alert says to the client what was wrong. Then it is dropped, either way.
            let _ = timer
                .limit(LAST_WORDS, poll_fn(|cx| tls.poll_shutdown(cx)))
                .await;
            None
        }
        Err(_) => {
            metrics.handshake(None, Handshake::TimedOut);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::from_toml_str;
    use crate::proxy::drain::Drain;
    use crate::proxy::worker::Shared;
    use crate::router::Router;
    use crate::telemetry::access::AccessLog;
    use crate::telemetry::metrics::Metrics;

    #[tokio::test]
    async fn a_drain_takes_what_the_kernel_has_completed() {
        let config = from_toml_str(
            "[[listener]]\naddress = \"127.0.0.1:0\"\nprotocol = \"http\"\n[limits]\nmax_connections = 1000\n",
        );
        let config = Arc::new(config.expect("it is right"));
        let socket = bind(config.listeners[0].address).expect("loopback has ports");
        let address = socket.local_addr().expect("it is bound");
        // More than tokio lets a task take in one turn.
        let clients: Vec<_> = (0..200)
            .map(|_| std::net::TcpStream::connect(address).expect("the backlog has room"))
            .collect();
        let shared = Shared {
            router: Arc::new(Router::new(&config)),
            snapshots: Vec::new(),
            drain: Drain::new(),
            events: tokio::sync::mpsc::channel(1).0,
            open: Arc::default(),
            config,
        };
        shared.drain.advance(Phase::Closing);
        let metrics = Metrics::new(Vec::new(), vec!["front".into()]);
        let worker = Worker::new(shared, metrics.shard(), AccessLog::off());
        let listening = Listening {
            index: 0,
            socket,
            tls: None,
        };
        let local = tokio::task::LocalSet::new();
        local
            .run_until(accept(Rc::clone(&worker), listening))
            .await
            .expect("nothing fails");
        assert_eq!(worker.connections.get(), clients.len());
    }

    #[test]
    fn the_canned_response_tells_its_length() {
        let text = std::str::from_utf8(FULL).expect("it is text");
        let (head, body) = text.split_once("\r\n\r\n").expect("it has a head");
        assert!(
            head.contains(&format!("Content-Length: {}\r\n", body.len())),
            "{head}"
        );
    }
}
