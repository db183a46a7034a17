//! Listening sockets that systemd holds and hands over (socket activation, sd_listen_fds(3)): clients
//! wait in their queues while one process ends and the next one starts, and none is turned away.
//!
//! They are kept until a drain closes what is listened on, so that a reload can take one up again. Taken
//! from the environment once, by `server::run`.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use listenfd::ListenFd;
use socket2::SockRef;

use crate::upstream::connect::notice_dead_peers;

/// Those that were handed over.
#[derive(Debug, Default)]
pub struct Inherited(Mutex<Vec<Socket>>);

#[derive(Debug)]
struct Socket {
    /// `FileDescriptorName` in its unit; that of the unit where there is none.
    name: String,
    address: SocketAddr,
    listener: TcpListener,
    /// Somebody listens on it. Relaxed: it orders nothing.
    is_used: AtomicBool,
}

impl Inherited {
    /// Takes what the environment says was handed to this process; others come to nothing with a
    /// warning. To be called while there is one thread.
    pub fn take() -> Inherited {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut given = ListenFd::from_env();
        let mut sockets = Vec::new();
        for nth in 0..given.len() {
            let name = names.next().unwrap_or_default().to_owned();
            let taken = given.take_tcp_listener(nth);
            let socket = taken.and_then(|listener| Socket::new(name.clone(), listener));
            match socket {
                Ok(socket) => sockets.push(socket),
                Err(error) => tracing::warn!(nth, name, %error, "a socket of systemd is of no use"),
            }
        }
        Inherited(Mutex::new(sockets))
    }

    /// A listening socket for a listener of this name, or at this address.
    pub fn socket(&self, name: &str, address: SocketAddr) -> io::Result<Option<TcpListener>> {
        let sockets = self.lock();
        let by_name = sockets.iter().find(|socket| socket.name == name);
        let at = |socket: &&Socket| socket.address == address;
        let Some(found) = by_name.or_else(|| sockets.iter().find(at)) else {
            return Ok(None);
        };
        found.is_used.store(true, Ordering::Relaxed);
        found.listener.try_clone().map(Some)
    }

    /// Closes them. What others have of them they keep, as systemd does; but once systemd has let go too,
    /// nobody listens there any more, and the next process can.
    pub fn close(&self) {
        self.lock().clear();
    }

    /// Held for some loads or a system call, by the control thread and by who prepares a reload.
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Socket>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says which of them nobody listens on: their clients wait for nothing.
    pub fn warn_of_unused(&self) {
        for socket in self.lock().iter() {
            if !socket.is_used.load(Ordering::Relaxed) {
                let Socket { name, address, .. } = socket;
                tracing::warn!(
                    name, %address,
                    "a socket of systemd has neither the name nor the address of a listener"
                );
            }
        }
    }
}

impl Socket {
    fn new(name: String, listener: Option<TcpListener>) -> io::Result<Socket> {
        let listener = listener.ok_or(io::ErrorKind::NotFound)?;
        if !SockRef::from(&listener).is_listener()? {
            return Err(io::Error::other(
                "nobody can connect to it (ListenStream is missing)",
            ));
        }
        notice_dead_peers(SockRef::from(&listener))?;
        listener.set_nonblocking(true)?;
        Ok(Socket {
            name,
            address: listener.local_addr()?,
            listener,
            is_used: AtomicBool::new(false),
        })
    }
}
