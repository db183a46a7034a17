//! Connections that a proxy in front passes on: whose they are, by their PROXY header.
//!
//! Where `proxy_protocol` is on, a header comes first on every connection, and only from peers in
//! `trusted_proxies`; nothing is guessed. From then on its address is the client's.

use std::net::SocketAddr;

use tokio::net::TcpStream;

use super::complaints::Complaints;
use crate::config::Protocol;
use crate::io::proxy_header::receive::{NoHeader, receive};
use crate::proxy::worker::Worker;

/// May a connection from `address` come to this listener? If not, it is counted.
pub(super) fn expected(
    worker: &Worker,
    complaints: &Complaints,
    listener: usize,
    address: SocketAddr,
) -> bool {
    let config = &worker.shared.config;
    let listener = &config.listeners[listener];
    if !listener.proxy_protocol || config.trusts(address.ip()) {
        return true;
    }
    worker.metrics.refused("proxy_untrusted");
    complaints.untrusted(address, &listener.name);
    false
}

/// Whose a connection is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Client {
    /// Where the client is, as far as that is known.
    pub(super) address: SocketAddr,
    /// It is not: the address is that of the proxy, and nobody trusts the client for that.
    pub(super) is_unknown: bool,
}

/// The client of a connection that a trusted peer made, by its header; the peer itself if the header
/// says so. `None`: there is no header, and that is counted.
pub(super) async fn client(
    worker: &Worker,
    complaints: &Complaints,
    listener: usize,
    stream: &TcpStream,
    peer: SocketAddr,
) -> Option<Client> {
    let config = &worker.shared.config;
    let downstream = &config.downstream;
    let wait = match config.listeners[listener].protocol {
        Protocol::Http => downstream.header_timeout,
        _ => downstream.handshake_timeout,
    };
    let no = match receive(stream, &worker.deadlines.timer(), wait).await {
        Ok(header) => {
            return Some(Client {
                address: header.source.unwrap_or(peer),
                is_unknown: header.is_unknown,
            });
        }
        Err(no) => no,
    };
    match no {
        // Somebody looked whether the port is open.
        NoHeader::Closed => {}
        NoHeader::Late => worker.metrics.refused("proxy_timeout"),
        NoHeader::Bad(_) | NoHeader::Cut | NoHeader::Io(_) => {
            worker.metrics.refused("proxy_header");
            complaints.no_header(peer, &config.listeners[listener].name, &no);
        }
    }
    tracing::debug!(address = %peer, error = %no, "a connection ends without a PROXY header");
    None
}
