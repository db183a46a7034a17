//! An authoritative DNS server for one zone, over UDP and TCP, with dynamic update.
//!
//! [`Zone`] is the records, changed live from anywhere; [`serve`] answers from it until the
//! [`Handle`] is dropped, and [`serve_updates`] also takes updates from whoever has a key. It never
//! resolves anything for others.
//!
//! The way of a message: `sockets.rs` → `responder.rs` → `skim.rs` (may it be decoded) →
//! `signature.rs` (who sent it) → a question to `zone.rs` and its `records.rs`, the answer written by
//! `message.rs`; an update to `registry.rs` (who may what, leases), carried out by `update.rs` on the
//! same records, kept on disk by `store.rs`. The other side of an update is `client.rs`. `key.rs` has
//! the keys of both.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use evenkeel::dns_server::{self, SrvData, Zone};
//!
//! let zone = Zone::new("demo.test")?;
//! let ttl = Duration::from_secs(1);
//! zone.set_addresses("b1.demo.test", ttl, &["127.0.0.1".parse()?])?;
//! zone.add_srv("_http._tcp.web.demo.test", ttl, SrvData::new(0, 30, 9001, "b1.demo.test"))?;
//! let (udp, tcp) = dns_server::bind("127.0.0.1:0".parse()?).await?;
//! let server = dns_server::serve(udp, tcp, zone.clone())?;
//! println!("evenkeel query _http._tcp.web.demo.test --resolver {}", server.address());
//! # Ok(()) }
//! ```

pub mod client;
pub mod key;
pub mod lease;
mod message;
mod quota;
mod records;
pub mod registrar;
mod registry;
mod replay;
mod responder;
mod signature;
mod skim;
mod sockets;
mod store;
pub mod synth;
mod update;
mod zone;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;

use registry::Registry;
pub use registry::{Grant, Names, Updates};
use responder::{Responder, Transport};
pub use store::StoreError;
pub use update::Bounds;
pub use zone::{SrvData, Zone, ZoneError};

/// Tries to find a port that is free for UDP and for TCP.
const BIND_TRIES: usize = 16;

/// A server that runs. Dropping it ends it at once.
#[derive(Debug)]
pub struct Handle {
    tasks: JoinSet<io::Result<()>>,
    responder: Arc<Responder>,
    address: SocketAddr,
}

/// Binds UDP and TCP at `address`; with port 0, the same free port for both.
pub async fn bind(address: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let mut tries = 0;
    loop {
        let udp = UdpSocket::bind(address).await?;
        match TcpListener::bind(udp.local_addr()?).await {
            Ok(tcp) => return Ok((udp, tcp)),
            Err(error) if address.port() != 0 || tries == BIND_TRIES => return Err(error),
            Err(_) => tries += 1,
        }
    }
}

/// Serves `zone` on both sockets, in tasks of the current tokio runtime. Nobody can change it
/// through them.
pub fn serve(udp: UdpSocket, tcp: TcpListener, zone: Zone) -> io::Result<Handle> {
    Handle::new(vec![(udp, tcp)], Responder::new(zone, None))
}

/// Serves `zone` on all of the sockets (at least one pair), and takes updates of it.
///
/// What is stored is loaded first; what the zone holds already is lost then unless its names are
/// fixed ([`Zone::fix`]).
pub fn serve_updates(
    sockets: Vec<(UdpSocket, TcpListener)>,
    zone: Zone,
    updates: Updates,
) -> anyhow::Result<Handle> {
    let registry = Registry::new(zone.clone(), updates)?;
    Ok(Handle::new(sockets, Responder::new(zone, Some(registry)))?)
}

/// The same without sockets, for whoever has the octets of messages already: what is answered to
/// a message, and over TCP if the flag says so. Leases are not ended.
pub fn without_sockets(
    zone: Zone,
    updates: Updates,
) -> Result<impl Fn(&[u8], bool) -> Option<Vec<u8>>, StoreError> {
    let registry = Registry::new(zone.clone(), updates)?;
    let responder = Responder::new(zone, Some(registry));
    let client = SocketAddr::from(([127, 0, 0, 1], 53_000));
    Ok(move |octets: &[u8], over_tcp: bool| {
        let transport = match over_tcp {
            true => Transport::Tcp,
            false => Transport::Udp,
        };
        let reply = responder.reply(octets, client, transport)?;
        Some(reply.octets)
    })
}

impl Handle {
    fn new(
        sockets: Vec<(UdpSocket, TcpListener)>,
        responder: Arc<Responder>,
    ) -> io::Result<Handle> {
        let first = sockets.first().ok_or(io::ErrorKind::InvalidInput)?;
        let address = first.0.local_addr()?;
        let mut tasks = JoinSet::new();
        for (udp, tcp) in sockets {
            tasks.spawn(sockets::datagrams(udp, Arc::clone(&responder)));
            tasks.spawn(sockets::streams(tcp, Arc::clone(&responder)));
        }
        if responder.registry.is_some() {
            let responder = Arc::clone(&responder);
            tasks.spawn(async move {
                if let Some(registry) = &responder.registry {
                    registry.tend().await;
                }
                Ok(())
            });
        }
        Ok(Handle {
            tasks,
            responder,
            address,
        })
    }

    /// Where it listens; the first of its addresses.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// It has lost its zone, and for so long from its start answers SERVFAIL for most names.
    pub fn recovery(&self) -> Option<Duration> {
        let registry = self.responder.registry.as_ref()?;
        let recovering = self.responder.is_recovering();
        recovering.then(|| registry.recovery())
    }

    /// Ends it when what has changed is on disk, or cannot get there within some seconds.
    pub async fn shutdown(self) {
        if let Some(registry) = &self.responder.registry {
            registry.flush().await;
        }
    }

    /// Waits until something in it fails, which nothing is known to do. May be dropped.
    pub async fn ended(&mut self) -> io::Result<()> {
        match self.tasks.join_next().await {
            Some(ended) => ended.map_err(io::Error::other)?,
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
