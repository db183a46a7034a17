//! An authoritative DNS server for one zone in memory, over UDP and TCP.
//!
//! [`Zone`] is the records, changed live from anywhere; [`serve`] answers from it until the
//! [`Handle`] is dropped. For the demo, the tests, and whoever wants a registry without BIND. It
//! never resolves anything for others. `zone.rs` is pure, `responder.rs` is the wire, `key.rs` has
//! the keys of those who may change it.
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
mod records;
mod responder;
mod update;
mod zone;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hickory_server::Server;
use tokio::net::{TcpListener, UdpSocket};

use responder::Responder;
pub use zone::{SrvData, Zone, ZoneError};

/// A TCP client that sends nothing for so long is let go.
const TCP_IDLE: Duration = Duration::from_secs(10);

/// Answers that wait for a TCP client to take them.
const TCP_ANSWERS: usize = 32;

/// Tries to find a port that is free for UDP and for TCP.
const BIND_TRIES: usize = 16;

/// A server that runs. Dropping it ends it at once.
pub struct Handle {
    server: Server<Responder>,
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

/// Serves `zone` on both sockets, in tasks of the current tokio runtime.
pub fn serve(udp: UdpSocket, tcp: TcpListener, zone: Zone) -> io::Result<Handle> {
    let address = udp.local_addr()?;
    let mut server = Server::new(Responder::new(zone));
    server.register_socket(udp);
    server.register_listener(tcp, TCP_IDLE, TCP_ANSWERS);
    Ok(Handle { server, address })
}

impl Handle {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits for the sockets to end, which they do only by an error that cannot be mended.
    pub async fn ended(&mut self) -> io::Result<()> {
        self.server
            .block_until_done()
            .await
            .map_err(io::Error::other)
    }

    /// Ends it when the answers under way are out.
    pub async fn shutdown(mut self) -> io::Result<()> {
        self.server
            .shutdown_gracefully()
            .await
            .map_err(io::Error::other)
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
