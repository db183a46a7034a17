//! What is said of a connection that was passed on when it is over: a line of the access log, and
//! counts.

use std::time::SystemTime;

use crate::config::Protocol;
use crate::proxy::account::Account;
use crate::proxy::peer::Peer;
use crate::proxy::worker::Worker;
use crate::telemetry::access::{Broken, Record};

/// Accounts for a connection. It is no request: it is counted as a stream, its bytes with those of
/// its service.
pub(super) fn finish(worker: &Worker, peer: &Peer, name: Option<&str>, account: &Account) {
    let outcome = account.failure.map_or("complete", |meaning| meaning.reason);
    worker.metrics.stream(account.service, outcome);
    let (received, sent) = (account.received, account.sent);
    worker.metrics.bytes(account.service, received, sent);
    if !worker.access.is_on() {
        return;
    }
    let listener = &worker.shared.config.listeners[peer.listener];
    worker.access.record(&Record {
        ended: SystemTime::now(),
        client: &peer.address.ip().to_canonical().to_string(),
        client_port: peer.address.port(),
        tls: None,
        client_cert: None,
        grpc_status: None,
        listener: &listener.name,
        route: account.route.as_deref(),
        service: account.service.map(|index| &*worker.service(index).name),
        backend: account.backend.as_ref().map(|backend| &*backend.address),
        attempts: account.attempts,
        method: b"",
        host: name.unwrap_or_default().as_bytes(),
        path: b"",
        query: b"",
        protocol: match listener.protocol {
            Protocol::Tls => "TLS",
            _ => "TCP",
        },
        status: 0,
        received,
        sent,
        broken: account.failure.map(|meaning| Broken {
            side: meaning.side.name(),
            phase: meaning.reason,
        }),
        request_id: &account.request_id,
        traceparent: None,
        referer: None,
        user_agent: None,
        connect: account.connect,
        first_byte: account.first_byte,
        total: account.begun.elapsed(),
    });
}
