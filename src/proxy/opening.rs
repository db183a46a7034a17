//! A new connection to a backend for a client's request: what the backend is told of the client, and
//! room where descriptors have run out.

use std::rc::Rc;
use std::time::Duration;

use super::connection::Peer;
use super::worker::Worker;
use crate::config::Upstream;
use crate::io::deadline::Timer;
use crate::io::duplex::Duplex;
use crate::io::proxy_header::Version;
use crate::io::proxy_header::encode::{ClientTls, Introduction, header};
use crate::io::transport::Transport;
use crate::upstream::backend::Backend;
use crate::upstream::connect::is_exhaustion;
use crate::upstream::establish::{Unestablished, Waits, establish};

/// Opens one, within `left`. Where descriptors have run out, idle connections to backends go for it.
pub(super) async fn open(
    worker: &Rc<Worker>,
    backend: &Backend,
    (peer, client): (&Peer, &Duplex),
    limits: &Upstream,
    (timer, left): (&Timer, Duration),
) -> Result<Transport, Unestablished> {
    let told = match backend.layers.header {
        None => Vec::new(),
        Some(version) => introduction(version, peer, client),
    };
    let waits = Waits {
        connect: limits.connect_timeout,
        tls: limits.tls_timeout,
        all: left,
    };
    let tls = backend.layers.tls.as_ref();
    let address = backend.endpoint.socket();
    let attempt = || establish(address, &told, tls, &worker.buffers, Some((timer, waits)));
    match attempt().await {
        Err(e) if is_exhaustion(e.error()) && worker.pool().borrow_mut().shed() => attempt().await,
        outcome => outcome,
    }
}

/// What a backend is told of the client.
fn introduction(version: Version, peer: &Peer, client: &Duplex) -> Vec<u8> {
    client.with_transport(|transport| {
        let Ok(destination) = transport.tcp().local_addr() else {
            // It is gone already, and so is what could be said of it.
            return header(version, None);
        };
        let tls = transport.tls();
        let of = Introduction {
            source: peer.address,
            destination,
            tls: peer.tls.map(|version| ClientTls {
                version,
                alpn: tls.and_then(|tls| tls.alpn()),
                name: tls.and_then(|tls| tls.name()),
            }),
        };
        header(version, Some(&of))
    })
}
