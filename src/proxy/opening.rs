//! A new connection to a backend for a client's request: what the backend is told of the client, and
//! room where descriptors have run out.

use std::rc::Rc;
use std::time::Duration;

use super::peer::Peer;
use super::worker::Worker;
use crate::config::Upstream;
use crate::http::h2;
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
    (peer, client): (&Peer, Option<&Duplex>),
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
    making_room(worker, backend, &told, (timer, waits)).await
}

/// Opens one that serves all clients, in the time that the service has for that.
pub(super) async fn open_for_all(
    worker: &Rc<Worker>,
    backend: &Backend,
    limits: &Upstream,
    timer: &Timer,
) -> Result<Transport, Unestablished> {
    let waits = Waits {
        connect: limits.connect_timeout,
        tls: limits.tls_timeout,
        all: limits.connect_timeout.saturating_add(limits.tls_timeout),
    };
    making_room(worker, backend, &[], (timer, waits)).await
}

async fn making_room(
    worker: &Rc<Worker>,
    backend: &Backend,
    told: &[u8],
    bounds: (&Timer, Waits),
) -> Result<Transport, Unestablished> {
    let (address, tls) = (backend.endpoint.socket(), backend.layers.tls.as_ref());
    let mut again = true;
    loop {
        let made = establish(address, told, tls, &worker.buffers, Some(bounds)).await;
        match made {
            Err(e) if again && is_exhaustion(e.error()) && worker.make_room() => again = false,
            outcome => return outcome,
        }
    }
}

/// What a backend is told of the client.
fn introduction(version: Version, peer: &Peer, client: Option<&Duplex>) -> Vec<u8> {
    match (client, &peer.arrival) {
        (Some(client), _) => client.with_transport(|transport| {
            let Ok(destination) = transport.tcp().local_addr() else {
                // It is gone already, and so is what could be said of it.
                return header(version, None);
            };
            let session = transport.tls();
            let alpn = session.and_then(|session| session.alpn());
            let name = session.and_then(|session| session.name());
            let tls = client_tls(peer, alpn, name);
            header(
                version,
                Some(&Introduction {
                    source: peer.address,
                    destination,
                    tls,
                }),
            )
        }),
        (None, Some(arrival)) => {
            let tls = client_tls(peer, Some(h2::ALPN), arrival.name.as_deref());
            header(
                version,
                Some(&Introduction {
                    source: peer.address,
                    destination: arrival.address,
                    tls,
                }),
            )
        }
        (None, None) => header(version, None),
    }
}

fn client_tls<'a>(
    peer: &Peer,
    alpn: Option<&'a [u8]>,
    name: Option<&'a str>,
) -> Option<ClientTls<'a>> {
    peer.tls.map(|version| ClientTls {
        version,
        alpn,
        name,
    })
}
