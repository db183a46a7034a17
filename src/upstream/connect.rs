//! TCP to backends; `establish.rs` adds what comes on top.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpSocket, TcpStream};

use crate::io::deadline::Timer;

/// Unacknowledged data after which the kernel gives a connection up (RFC 5482).
const USER_TIMEOUT: Duration = Duration::from_secs(30);

/// Silence after which the kernel asks whether the peer is still there, and how often.
const PROBE_AFTER: Duration = Duration::from_secs(30);
const PROBE_EVERY: Duration = Duration::from_secs(10);
const PROBES: u32 = 3;

/// Connects to a backend within `wait`; `timer` is the caller's to lend. Cancel-safe.
pub async fn connect(address: SocketAddr, timer: &Timer, wait: Duration) -> io::Result<TcpStream> {
    let stream = timer.limit(wait, connect_unbounded(address)).await;
    stream.map_err(|_| io::ErrorKind::TimedOut)?
}

/// The same for a caller who bounds the time. Cancel-safe.
pub async fn connect_unbounded(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    let stream = socket.connect(address).await?;
    notice_dead_peers(SockRef::from(&stream))?;
    Ok(stream)
}

/// Does this process, or the host, lack descriptors, ports or memory? Nobody else's fault then.
pub fn is_exhaustion(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOBUFS,
        Errno::NOMEM,
        Errno::ADDRNOTAVAIL,
    ]
    .iter()
    .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// Sets what makes the kernel notice a peer that is gone without a word, and TCP_NODELAY. What is
/// accepted from a listening socket has what that had (Linux).
pub fn notice_dead_peers(socket: SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    let keepalive = TcpKeepalive::new()
        .with_time(PROBE_AFTER)
        .with_interval(PROBE_EVERY)
        .with_retries(PROBES);
    socket.set_tcp_keepalive(&keepalive)
}
