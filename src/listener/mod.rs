//! Where clients come in: sockets and the accept loop.
//!
//! One socket per address, given to every worker as a duplicated descriptor, so that no queue is lost
//! when a worker goes and a second instance on the same port is refused. `entrance` says what becomes
//! of an accepted connection, `introduction` whose it is that a proxy passes on, `refusal` what a
//! client is told that is not taken in, `complaints` what is said of those who are refused.

mod complaints;
pub mod entrance;
pub mod inherited;
mod introduction;
mod refusal;

use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

use entrance::Entrance;
use inherited::Inherited;

use crate::proxy::drain::Phase;
use crate::proxy::worker::{Listened, Worker};
use crate::upstream::connect::{is_exhaustion, notice_dead_peers};

/// Connections that the kernel completes before we accept them.
const BACKLOG: i32 = 4096;

/// After an accept that failed although a descriptor was kept for it: time for others to close some.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// A listening socket for a listener of this name: one that was handed over, or a new one.
pub fn listen(
    inherited: &Inherited,
    name: &str,
    address: SocketAddr,
) -> io::Result<std::net::TcpListener> {
    match inherited.socket(name, address)? {
        Some(socket) => Ok(socket),
        None => bind(address),
    }
}

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
    // Once here instead of six system calls for each accepted connection.
    notice_dead_peers((&socket).into())?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Accepts until a drain or a reload closes the listener; then takes what the kernel has completed
/// already. `listener`: its index in the generation of `worker`.
pub async fn accept(
    entrance: Rc<Entrance>,
    mut worker: Rc<Worker>,
    mut listener: usize,
) -> io::Result<()> {
    let Listened { id, socket, .. } = &worker.shared.listeners[listener];
    let id = *id;
    // The worker's own descriptor of the shared socket.
    let Some(shared) = socket.upgrade() else {
        // A newer generation has taken its place already.
        return Ok(());
    };
    let socket = TcpListener::from_std(shared.try_clone()?)?;
    drop(shared);
    let timer = worker.deadlines.timer();
    let descriptors = Arc::clone(&worker.shared.limits.descriptors);
    let reserve = &descriptors.reserve;
    loop {
        if let Some(newest) = worker.newest() {
            match newest.shared.listener(id) {
                Some(index) => (worker, listener) = (newest, index),
                None if newest
                    .shared
                    .listens_on(&worker.shared.listeners[listener].socket) =>
                {
                    // Another task accepts from it, under other terms.
                    return Ok(());
                }
                None => {
                    return take_the_rest(socket, |stream, address| {
                        entrance.welcome(&worker, stream, address, listener);
                    });
                }
            }
        }
        let accepted = poll_fn(|cx| {
            if let Poll::Ready(accepted) = socket.poll_accept(cx) {
                return Poll::Ready(Some(Some(accepted)));
            }
            // The kernel wants a descriptor before it looks whether anybody is there.
            reserve.refill();
            if worker.is_superseded() {
                return Poll::Ready(Some(None));
            }
            match worker.shared.drain.phase() >= Phase::Closing {
                true => Poll::Ready(None),
                // The timer is never set: it is there to be woken when the phase changes.
                false => timer.poll_expired(cx).map(|_| None),
            }
        })
        .await;
        match accepted {
            None => {
                return take_the_rest(socket, |stream, address| {
                    entrance.welcome(&worker, stream, address, listener);
                });
            }
            Some(None) => {}
            Some(Some(Ok((stream, address)))) if reserve.refill() => {
                entrance.welcome(&worker, stream, address, listener);
            }
            // Its descriptor is the last one there is: that is for the reserve.
            Some(Some(Ok((stream, _)))) => {
                entrance.turn_away(&worker, stream.into_std()?, listener);
                reserve.refill();
            }
            // By a descriptor of the reserve, then.
            Some(Some(Err(e))) if is_exhaustion(&e) && reserve.give_up() => {}
            // Others had all of that first, or it is memory that lacks.
            Some(Some(Err(e))) if is_exhaustion(&e) => {
                descriptors.refusing();
                tokio::time::sleep(EXHAUSTED).await;
                reserve.refill();
            }
            // The client was gone before we looked.
            Some(Some(Err(e))) => tracing::debug!(error = %e, "accept failed"),
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

#[cfg(test)]
mod tests;
