//! One worker's door: from an accepted connection to one that is served.
//!
//! Owns what an accepted connection needs: its seat, its place among those that may be open, the
//! TLS handshake, a task. `accept` brings connections, and other workers hand some over.

use std::cell::RefCell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::complaints::{Complaints, is_about_certificate};
use super::introduction::{self, Client};
use super::refusal::{self, Refusals};
use crate::config::ProxyHeader;
use crate::events::ListenerId;
use crate::http::h2;
use crate::io::tls::TlsStream;
use crate::io::transport::Transport;
use crate::proxy::connection::Connection;
use crate::proxy::drain::Phase;
use crate::proxy::layer4;
use crate::proxy::limits::Refused;
use crate::proxy::peer::Peer;
use crate::proxy::seating::{Arrival, Seat};
use crate::proxy::serve::{Runners, Serve};
use crate::proxy::worker::{OpenConnection, Shared, Worker};
use crate::telemetry::metrics::Handshake;
use crate::tls::challenges;
use crate::tls::client_certificates::{ClientCertificate, Unusable};

/// A client whose handshake failed may take so long to take the alert.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// And may send so much meanwhile: a flight of requests that nobody will answer.
const LAST_BYTES: usize = 64 * 1024;

/// A worker's door.
#[derive(Debug)]
pub struct Entrance {
    /// The worker, under the newest generation.
    worker: RefCell<Rc<Worker>>,
    /// The one before, for what was accepted under it and is on its way here. Not for long.
    before: RefCell<Option<Rc<Worker>>>,
    runners: Rc<Runners>,
    refusals: Refusals,
    complaints: Rc<Complaints>,
}

impl Entrance {
    /// The door of `worker`.
    pub fn new(worker: Rc<Worker>) -> Rc<Entrance> {
        Rc::new(Entrance {
            runners: Runners::new(Rc::clone(&worker.deadlines)),
            worker: RefCell::new(worker),
            before: RefCell::default(),
            refusals: Refusals::default(),
            complaints: Rc::default(),
        })
    }

    /// The worker, under the newest generation.
    pub fn worker(&self) -> Rc<Worker> {
        Rc::clone(&self.worker.borrow())
    }

    /// From now on `shared` is the newest generation.
    pub fn renew(&self, shared: Arc<Shared>) {
        let before = self.worker();
        let newer = before.renewed(shared);
        self.worker.replace(Rc::clone(&newer));
        before.supersede(&newer);
        self.before.replace(Some(before));
    }

    /// Nothing that was accepted under the generation before is on its way any more.
    pub fn forget_before(&self) {
        self.before.take();
    }

    /// Under which generation a connection is served that came to this listener: this worker may be
    /// ahead of the one that accepted it.
    pub fn under(&self, id: ListenerId) -> Option<(Rc<Worker>, usize)> {
        let find = |worker: &Rc<Worker>| Some((Rc::clone(worker), worker.shared.listener(id)?));
        let newest = find(&self.worker.borrow());
        newest.or_else(|| find(self.before.borrow().as_ref()?))
    }

    /// What is to be done every [`HOUSEKEEPING`](crate::proxy::worker::HOUSEKEEPING), besides the
    /// deadlines.
    pub fn tick(&self) {
        self.worker().tick(self.runners.trim());
    }

    /// A connection that was accepted in the generation of `worker`: served here, or by a worker that has
    /// fewer. `listener`: its index in that generation.
    pub(super) fn welcome(
        self: &Rc<Self>,
        worker: &Rc<Worker>,
        stream: TcpStream,
        address: SocketAddr,
        listener: usize,
    ) {
        let limits = &worker.shared.limits;
        if !limits.descriptors.suffice(stream.as_fd()) {
            match stream.into_std() {
                Ok(stream) => self.turn_away(worker, stream, listener),
                Err(e) => tracing::debug!(error = %e, "a connection cannot be turned away"),
            }
            return;
        }
        let own = worker.index;
        let seating = &worker.shared.seating;
        let seat = match worker.shared.drain.phase() >= Phase::Closing {
            // The others may be gone.
            true => seating.seat(own),
            false => seating.choose(own),
        };
        if seat.worker() == own {
            return self.admit(worker, stream, address, listener, seat);
        }
        let arrival = match stream.into_std() {
            Ok(stream) => Arrival {
                stream,
                address,
                listener: worker.shared.listeners[listener].id,
                seat,
            },
            Err(e) => return tracing::warn!(error = %e, "a connection cannot be handed over"),
        };
        if let Err(arrival) = arrival.send() {
            let seat = seating.seat(own);
            self.take_over(Arrival { seat, ..arrival });
        }
    }

    /// A connection for which there is no descriptor to spare; it does not block. It is closed now.
    pub(super) fn turn_away(&self, worker: &Worker, stream: std::net::TcpStream, listener: usize) {
        let why = Refused::Descriptors;
        worker.metrics.refused(why.reason());
        worker.shared.limits.descriptors.refusing();
        if answers_plainly(&worker.shared, listener) {
            refusal::tell_at_once(why, stream);
        }
    }

    /// Takes what other workers hand over, until a drain has closed the listeners: then what they
    /// have sent already, and nothing more.
    pub async fn take_arrivals(self: Rc<Self>, mut arrivals: mpsc::Receiver<Arrival>) {
        let (timer, drain) = {
            let worker = self.worker.borrow();
            (worker.deadlines.timer(), Arc::clone(&worker.shared.drain))
        };
        loop {
            let arrival = poll_fn(|cx| {
                if drain.phase() >= Phase::Closing {
                    arrivals.close();
                }
                match arrivals.poll_recv(cx) {
                    // The timer is never set: it is there to be woken when the phase changes.
                    Poll::Pending => timer.poll_expired(cx).map(|_| None),
                    ready => ready,
                }
            });
            match arrival.await {
                Some(arrival) => self.take_over(arrival),
                None => return,
            }
        }
    }

    fn take_over(self: &Rc<Self>, arrival: Arrival) {
        let Arrival {
            stream,
            address,
            listener,
            seat,
        } = arrival;
        let Some((worker, listener)) = self.under(listener) else {
            return tracing::warn!("a connection to a listener that is long gone is closed");
        };
        match TcpStream::from_std(stream) {
            Ok(stream) => self.admit(&worker, stream, address, listener, seat),
            Err(e) => tracing::warn!(error = %e, "a connection cannot be taken over"),
        }
    }

    fn admit(
        self: &Rc<Self>,
        worker: &Rc<Worker>,
        stream: TcpStream,
        address: SocketAddr,
        listener: usize,
        seat: Seat,
    ) {
        if !introduction::expected(worker, &self.complaints, listener, address) {
            return;
        }
        let opened = OpenConnection::open(worker, seat, listener, address.ip());
        let mut open = match opened {
            Ok(open) => open,
            Err(refused) => return self.refuse(worker, refused, stream, listener),
        };
        if !worker.shared.config.listeners[listener].proxy_protocol {
            let client = Client {
                address,
                is_unknown: false,
            };
            return self.serve(worker, stream, client, listener, open);
        }
        let (entrance, worker) = (Rc::clone(self), Rc::clone(worker));
        tokio::task::spawn_local(async move {
            let complaints = &entrance.complaints;
            let client = introduction::client(&worker, complaints, listener, &stream, address);
            let Some(client) = client.await else { return };
            match open.identify(&worker, client.address.ip()) {
                Ok(()) => entrance.serve(&worker, stream, client, listener, open),
                Err(refused) => entrance.refuse(&worker, refused, stream, listener),
            }
        });
    }

    fn refuse(&self, worker: &Worker, refused: Refused, stream: TcpStream, listener: usize) {
        // A client that speaks TLS could read a reason only after a handshake, which costs more than
        // a connection does.
        if answers_plainly(&worker.shared, listener) {
            self.refusals.tell(refused, stream, &worker.deadlines);
        }
    }

    /// A connection that was taken in.
    fn serve(
        &self,
        worker: &Rc<Worker>,
        stream: TcpStream,
        client: Client,
        listener: usize,
        open: OpenConnection,
    ) {
        let worker = Rc::clone(worker);
        let tls = worker.shared.listeners[listener].tls.as_ref();
        let tls = tls.map(|tls| Arc::clone(&tls.config));
        let runners = Rc::clone(&self.runners);
        let peer = Peer {
            address: client.address,
            is_unknown: client.is_unknown,
            listener,
            tls: None,
            certificate: None,
            arrival: None,
            coding: None,
        };
        match tls {
            None if is_layer4(&worker.shared, listener) => {
                tokio::task::spawn_local(layer4::carry(worker, stream, peer, open));
            }
            None => {
                let transport = Transport::Plain(stream);
                let connection = Connection::new(worker, transport, peer, open);
                tokio::task::spawn_local(Serve::new(connection, runners));
            }
            Some(config) => {
                let complaints = Rc::clone(&self.complaints);
                tokio::task::spawn_local(async move {
                    let arrived = (listener, peer.address);
                    let shaken = handshake(&worker, &complaints, config, arrived, stream).await;
                    if let Some((tls, certificate)) = shaken {
                        let is_h2 = tls.alpn() == Some(h2::ALPN);
                        let peer = Peer {
                            tls: Some(tls.version()),
                            certificate,
                            ..peer
                        };
                        let connection = Connection::new(worker, Transport::Tls(tls), peer, open);
                        match is_h2 {
                            true => Serve::h2(connection, runners).await,
                            false => Serve::new(connection, runners).await,
                        }
                    }
                });
            }
        }
    }
}

/// Are connections of this listener passed on as they are?
fn is_layer4(shared: &Shared, listener: usize) -> bool {
    shared.config.listeners[listener].protocol.is_layer4()
}

/// Does a client of this listener understand a response of ours without a handshake?
fn answers_plainly(shared: &Shared, listener: usize) -> bool {
    shared.listeners[listener].tls.is_none() && !is_layer4(shared, listener)
}

/// A connection on which the handshake was made, and the certificate that was shown.
type Shaken = (Box<TlsStream>, Option<Rc<ClientCertificate>>);

async fn handshake(
    worker: &Rc<Worker>,
    complaints: &Complaints,
    config: Arc<ServerConfig>,
    (listener, address): (usize, SocketAddr),
    stream: TcpStream,
) -> Option<Shaken> {
    let metrics = &worker.metrics;
    let refused = |error: &dyn std::error::Error| {
        let name = &worker.shared.config.listeners[listener].name;
        complaints.client_certificate(address, name, error);
    };
    let failed = |error: &dyn std::error::Error| {
        tracing::debug!(%error, "TLS handshake failed");
        metrics.handshake(None, Handshake::Failed);
    };
    let services = &worker.shared.config.services;
    let name_counts = services
        .iter()
        .any(|service| service.proxy_header == Some(ProxyHeader::V2));
    let tls = match name_counts {
        true => TlsStream::noting_name(stream, &config, &worker.buffers),
        false => TlsStream::new(stream, config, &worker.buffers),
    };
    let mut tls = match tls {
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
            let certificate = match certificate(worker, listener, &tls) {
                Ok(certificate) => certificate,
                Err(e) => {
                    failed(&e);
                    refused(&e);
                    return None;
                }
            };
            if tls.alpn() == Some(challenges::ALPN) {
                // An authority has seen what it came for (RFC 8737 §3).
                let _ = timer.limit(LAST_WORDS, Box::pin(part(&mut tls))).await;
                return None;
            }
            let version = tls.version();
            let ended = match tls.is_resumed() {
                true => Handshake::Resumed,
                false => Handshake::Full,
            };
            metrics.handshake(Some(version), ended);
            Some((tls, certificate))
        }
        Ok(Err(e)) => {
            failed(&e);
            if is_about_certificate(tls.failure()) {
                refused(&e);
            }
            // The alert says to the client what was wrong. Then it is dropped, either way. Boxed, so
            // that connections that live need no room for it.
            let _ = timer.limit(LAST_WORDS, Box::pin(part(&mut tls))).await;
            None
        }
        Err(_) => {
            metrics.handshake(None, Handshake::TimedOut);
            None
        }
    }
}

/// Who the client is, where it was asked for a certificate and has shown one.
fn certificate(
    worker: &Worker,
    listener: usize,
    tls: &TlsStream,
) -> Result<Option<Rc<ClientCertificate>>, Unusable> {
    let wanted = worker.shared.config.listeners[listener].client_certificates();
    let (Some(wanted), Some(der)) = (wanted, tls.client_certificate()) else {
        return Ok(None);
    };
    let certificate = ClientCertificate::of(der, wanted, SystemTime::now())?;
    Ok(Some(Rc::new(certificate)))
}

/// Sends the alert and waits until the client has closed, whatever it still sends. In TLS 1.3 it may
/// have sent its request already when its certificate is refused, and a connection that is closed
/// with bytes unread is reset, the alert with it.
async fn part(tls: &mut TlsStream) {
    if poll_fn(|cx| tls.poll_shutdown(cx)).await.is_err() {
        return;
    }
    let (tcp, mut rest, mut taken) = (tls.tcp(), [0; 1024], 0);
    while taken < LAST_BYTES && tcp.readable().await.is_ok() {
        match tcp.try_read(&mut rest) {
            Ok(n @ 1..) => taken += n,
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            Ok(0) | Err(_) => return,
        }
    }
}
