//! One worker's door: from an accepted connection to one that is served.
//!
//! Owns what an accepted connection needs: its seat, its place among those that may be open, the
//! TLS handshake, a task. `accept` brings connections, and other workers hand some over.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::refusal::{self, Refusals};
use crate::io::tls::TlsStream;
use crate::io::transport::Transport;
use crate::proxy::connection::{Connection, Peer};
use crate::proxy::drain::Phase;
use crate::proxy::layer4;
use crate::proxy::limits::Refused;
use crate::proxy::seating::{Arrival, Seat};
use crate::proxy::serve::{Runners, Serve};
use crate::proxy::worker::{OpenConnection, Worker};
use crate::telemetry::metrics::Handshake;

/// A client whose handshake failed may take so long to take the alert.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A worker's door.
#[derive(Debug)]
pub struct Entrance {
    /// The worker.
    pub worker: Rc<Worker>,
    runners: Rc<Runners>,
    /// TLS of each listener that speaks it.
    tls: Vec<Option<Arc<ServerConfig>>>,
    refusals: Refusals,
}

impl Entrance {
    /// The door of `worker`. `tls`: of each listener, in the order of the configuration.
    pub fn new(worker: Rc<Worker>, tls: Vec<Option<Arc<ServerConfig>>>) -> Rc<Entrance> {
        Rc::new(Entrance {
            runners: Runners::new(Rc::clone(&worker.deadlines)),
            worker,
            tls,
            refusals: Refusals::default(),
        })
    }

    /// What is to be done every [`HOUSEKEEPING`](crate::proxy::worker::HOUSEKEEPING), besides the
    /// deadlines.
    pub fn tick(&self) {
        self.worker.tick(self.runners.trim());
    }

    /// An accepted connection: served here, or by a worker that has fewer.
    pub(super) fn welcome(&self, stream: TcpStream, address: SocketAddr, listener: usize) {
        let limits = &self.worker.shared.limits;
        if !limits.descriptors.suffice(stream.as_fd()) {
            match stream.into_std() {
                Ok(stream) => self.turn_away(stream, listener),
                Err(e) => tracing::debug!(error = %e, "a connection cannot be turned away"),
            }
            return;
        }
        let own = self.worker.index;
        let seating = &self.worker.shared.seating;
        let seat = match self.worker.shared.drain.phase() >= Phase::Closing {
            // The others may be gone.
            true => seating.seat(own),
            false => seating.choose(own),
        };
        if seat.worker() == own {
            return self.admit(stream, address, listener, seat);
        }
        let arrival = match stream.into_std() {
            Ok(stream) => Arrival {
                stream,
                address,
                listener,
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
    pub(super) fn turn_away(&self, stream: std::net::TcpStream, listener: usize) {
        let why = Refused::Descriptors;
        self.worker.metrics.refused(why.reason());
        self.worker.shared.limits.descriptors.refusing();
        if self.answers_plainly(listener) {
            refusal::tell_at_once(why, stream);
        }
    }

    /// Takes what other workers hand over, until a drain has closed the listeners: then what they
    /// have sent already, and nothing more.
    pub async fn take_arrivals(self: Rc<Self>, mut arrivals: mpsc::Receiver<Arrival>) {
        let timer = self.worker.deadlines.timer();
        loop {
            let arrival = poll_fn(|cx| {
                if self.worker.shared.drain.phase() >= Phase::Closing {
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

    /// Are connections of this listener passed on as they are?
    fn is_layer4(&self, listener: usize) -> bool {
        let listeners = &self.worker.shared.config.listeners;
        listeners[listener].protocol.is_layer4()
    }

    /// Does a client of this listener understand a response of ours without a handshake?
    fn answers_plainly(&self, listener: usize) -> bool {
        self.tls[listener].is_none() && !self.is_layer4(listener)
    }

    fn take_over(&self, arrival: Arrival) {
        let Arrival {
            stream,
            address,
            listener,
            seat,
        } = arrival;
        match TcpStream::from_std(stream) {
            Ok(stream) => self.admit(stream, address, listener, seat),
            Err(e) => tracing::warn!(error = %e, "a connection cannot be taken over"),
        }
    }

    fn admit(&self, stream: TcpStream, address: SocketAddr, listener: usize, seat: Seat) {
        let worker = Rc::clone(&self.worker);
        let tls = self.tls[listener].clone();
        let open = match OpenConnection::open(&worker, seat, listener, address.ip()) {
            Ok(open) => open,
            Err(refused) => {
                // A client that speaks TLS could read a reason only after a handshake, which costs
                // more than a connection does.
                if self.answers_plainly(listener) {
                    self.refusals.tell(refused, stream, &worker.deadlines);
                }
                return;
            }
        };
        let runners = Rc::clone(&self.runners);
        let peer = Peer {
            address,
            listener,
            tls: None,
        };
        match tls {
            None if self.is_layer4(listener) => {
                tokio::task::spawn_local(layer4::carry(worker, stream, peer, open));
            }
            None => {
                let transport = Transport::Plain(stream);
                let connection = Connection::new(worker, transport, peer, open);
                tokio::task::spawn_local(Serve::new(connection, runners));
            }
            Some(config) => {
                tokio::task::spawn_local(async move {
                    if let Some((transport, version)) = handshake(&worker, config, stream).await {
                        let peer = Peer {
                            tls: Some(version),
                            ..peer
                        };
                        let connection = Connection::new(worker, transport, peer, open);
                        Serve::new(connection, runners).await;
                    }
                });
            }
        }
    }
}

async fn handshake(
    worker: &Rc<Worker>,
    config: Arc<ServerConfig>,
    stream: TcpStream,
) -> Option<(Transport, &'static str)> {
    let metrics = &worker.metrics;
    let failed = |error: &dyn std::error::Error| {
        tracing::debug!(%error, "TLS handshake failed");
        metrics.handshake(None, Handshake::Failed);
    };
    let mut tls = match TlsStream::new(stream, config, &worker.buffers) {
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
            let version = tls.version();
            let ended = match tls.is_resumed() {
                true => Handshake::Resumed,
                false => Handshake::Full,
            };
            metrics.handshake(Some(version), ended);
            Some((Transport::Tls(tls), version))
        }
        Ok(Err(e)) => {
            failed(&e);
            // The alert says to the client what was wrong. Then it is dropped, either way.
            let _ = timer
                .limit(LAST_WORDS, poll_fn(|cx| tls.poll_shutdown(cx)))
                .await;
            None
        }
        Err(_) => {
            metrics.handshake(None, Handshake::TimedOut);
            None
        }
    }
}
