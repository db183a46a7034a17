//! A connection that is passed on as it is, from its first byte to its account: route, choose,
//! connect, and then whatever comes in both directions.
//!
//! Which route is all that layer 4 has of its own: a tcp listener has one, a tls listener goes by what
//! `layer4/hello.rs` reads. Choice, line, judgement, limits and deadlines are those of requests: a
//! connection is a request whose attempts fail only while it is being made, so that another backend
//! can be tried as long as there is one. `layer4/account.rs` logs and counts. `listener::entrance`
//! spawns [`carry`].

mod account;
mod hello;

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::account::Account;
use super::admission;
use super::choice::Chooser;
use super::drain::{Phase, Withdrawal};
use super::failure::{Cause, Failure, Progress};
use super::opening::open;
use super::peer::{ArrivedAt, Peer};
use super::preference::Preference;
use super::worker::{Evidence, OpenConnection, Worker};
use crate::clock::Millis;
use crate::config::Protocol;
use crate::http::headers::Fields;
use crate::io::buffer::Inbox;
use crate::io::duplex::Duplex;
use crate::io::pace::{Pace, Patience};
use crate::io::relay::{End, Ended, Relayed, relay};
use crate::io::transport::Transport;
use crate::tls::client_hello::ClientHello;
use crate::upstream::backend::{InFlight, Trial};
use crate::upstream::establish::Unestablished;

/// Carries a client's connection until it ends. `open`: its place, held for as long.
pub async fn carry(worker: Rc<Worker>, client: TcpStream, peer: Peer, open: OpenConnection) {
    let mut account = Account::begin(worker.request_id());
    let mut client = Transport::Plain(client);
    let mut stream = Stream {
        inbox: Inbox::new(Rc::clone(&worker.buffers)),
        name: None,
        worker,
        peer,
    };
    // In an allocation of its own, which goes when the connection is made: most connections are idle,
    // and hold only what carrying them needs.
    let made = Box::pin(stream.establish(&mut client, &mut account)).await;
    let client = Duplex::new(client);
    let failure = match made {
        Ok(upstream) => stream.pass_on(&client, &upstream, &mut account).await,
        Err(failure) => {
            Box::pin(stream.turn_away(&client, &failure)).await;
            Some(failure)
        }
    };
    account.failure = failure.map(|failure| failure.meaning());
    account::finish(
        &stream.worker,
        &stream.peer,
        stream.name.as_deref(),
        &account,
    );
    drop(open);
}

/// A client's connection.
struct Stream {
    worker: Rc<Worker>,
    peer: Peer,
    /// What came and was not passed on yet.
    inbox: Inbox,
    /// The name that its client asked for, for the log.
    name: Option<Box<str>>,
}

/// A connection to a backend.
struct Upstream {
    io: Duplex,
    /// Counts the connection as in flight for as long as it is held.
    guard: InFlight,
    /// Index of the service.
    service: usize,
    /// What becomes of it decides whether the backend is taken back.
    trial: bool,
    /// How long connecting took.
    connecting: Duration,
}

impl Stream {
    /// Finds out where it leads, and connects.
    async fn establish(
        &mut self,
        client: &mut Transport,
        account: &mut Account,
    ) -> Result<Upstream, Failure> {
        let worker = Rc::clone(&self.worker);
        let shared = &worker.shared;
        let listener = self.peer.listener;
        let access = &shared.config.listeners[listener].access;
        admission::of_connection(access.as_ref(), &self.peer).map_err(unsent)?;
        let hello = match shared.config.listeners[listener].protocol {
            Protocol::Tls => Some(self.read_hello(client).await.map_err(unsent)?),
            _ => None,
        };
        let host = hello
            .as_ref()
            .and_then(|hello| hello.server_name.as_deref());
        self.name = host.map(Box::from);
        let protocols = hello.iter().flat_map(ClientHello::protocols);
        let found = shared.router.connection(listener, host, protocols);
        let found = found.ok_or_else(|| unsent(Cause::NoRoute))?;
        account.route = Some(Arc::clone(&found.label));
        let access = &shared.config.routes[found.route].access;
        admission::of_connection(access.as_ref(), &self.peer).map_err(unsent)?;
        let service = worker.service_for(found.route);
        // One that redirects is for requests.
        let service = service.ok_or_else(|| unsent(Cause::NoRoute))?;
        account.service = Some(service);
        let ip = self.peer.address.ip();
        (shared.limits)
            .spend(service, || ip, &Fields::default(), account.begun)
            .map_err(|wait| unsent(Cause::RateLimited(wait)))?;

        if worker.service(service).proxy_header.is_some()
            && let Ok(address) = client.tcp().local_addr()
        {
            let name = self.name.clone();
            self.peer.arrival = Some(Rc::new(ArrivedAt { address, name }));
        }
        // A client that has sent all it has to say is still there; one that has reset is not.
        let gone = pin!(client.tcp().ready(Interest::ERROR));
        reach(&worker, service, &self.peer, gone, account).await
    }

    /// Passes on what comes until both sides are done; `None`: they are.
    async fn pass_on(
        &mut self,
        client: &Duplex,
        upstream: &Upstream,
        account: &mut Account,
    ) -> Option<Failure> {
        let worker = &self.worker;
        let limits = &worker.service(upstream.service).upstream;
        let patience = Patience {
            stall: limits.stall_timeout,
            min_rate: limits.min_rate,
        };
        let mut inbox = Inbox::new(Rc::clone(&worker.buffers));
        let mut writing = Pace::new(worker.deadlines.timer(), patience);
        let mut pushing = Pace::new(worker.deadlines.timer(), patience);
        let (activity, watch) = (worker.deadlines.timer(), worker.deadlines.timer());
        let moved = Relayed::default();
        let probation = Probation::begin(worker, upstream);
        let ended = {
            let first = End {
                io: client,
                inbox: &mut self.inbox,
                pace: &mut writing,
            };
            let second = End {
                io: &upstream.io,
                inbox: &mut inbox,
                pace: &mut pushing,
            };
            let mut relayed = pin!(
                relay(first, second, &activity, limits.tunnel_idle, &moved).through(&worker.pipes)
            );
            let streams = worker.shared.config.drain.streams;
            let withdrawal = Withdrawal::watch(upstream.guard.backend(), streams, &watch);
            poll_fn(|cx| {
                let ended = relayed.as_mut().poll(cx);
                probation.look(&moved, account);
                match ended {
                    Poll::Ready(ended) => Poll::Ready(Some(ended)),
                    Poll::Pending if worker.shared.drain.phase() >= Phase::CutAll => {
                        worker.shared.drain.cut();
                        Poll::Ready(None)
                    }
                    Poll::Pending if withdrawal.poll_over(cx) => Poll::Ready(None),
                    Poll::Pending => Poll::Pending,
                }
            })
            .await
        };
        probation.end(ended, &moved);
        account.received = moved.forth.get();
        account.sent = moved.back.get();
        let cause = match ended {
            Some(Ended::Closed) => return None,
            Some(Ended::First) => Cause::ClientClosed,
            Some(Ended::Second) => Cause::UpstreamClosed,
            Some(Ended::Idle) => Cause::StreamIdle,
            None => Cause::Drained,
        };
        // Nothing but a reset tells either side that what it got is not the whole.
        client.reset_on_close();
        upstream.io.reset_on_close();
        let failure = Failure::new(cause, Progress::Forwarded);
        if ended == Some(Ended::Second) {
            worker.upstream_failed(upstream.service, upstream.guard.backend(), &failure);
        }
        Some(failure)
    }
}

/// Connects to a backend of `service`: to another one after each that cannot be reached, as long as
/// there is one, and time for it, and its client is not `gone`.
async fn reach<T>(
    worker: &Rc<Worker>,
    service: usize,
    peer: &Peer,
    mut gone: Pin<&mut impl Future<Output = T>>,
    account: &mut Account,
) -> Result<Upstream, Failure> {
    let config = worker.service(service);
    let limits = &config.upstream;
    let timer = worker.deadlines.timer();
    // It can go on to another backend, so it may find out about one that was ejected.
    let preference = Preference::of_connection(config, peer);
    let mut chooser = Chooser::new(service, Trial::Welcome, preference);
    let mut tried = Vec::new();
    let mut last: Option<Failure> = None;
    loop {
        if worker.shared.drain.phase() >= Phase::CutRequests {
            worker.shared.drain.cut();
            return Err(unsent(Cause::Drained));
        }
        let left = limits.response_timeout.checked_sub(account.begun.elapsed());
        let Some(left) = left.filter(|left| !left.is_zero()) else {
            let timeout = || {
                unsent(Cause::Connect(Unestablished::Connect(
                    std::io::ErrorKind::TimedOut.into(),
                )))
            };
            return Err(last.unwrap_or_else(timeout));
        };
        let chosen = tokio::select! {
            biased;
            chosen = chooser.choose(worker, None, &tried, &timer, left) => chosen,
            _ = &mut gone => return Err(unsent(Cause::ClientClosed)),
        };
        let choice = match chosen {
            Ok(choice) => choice,
            Err(none) => return Err(last.unwrap_or_else(|| unsent(Cause::NoBackend(none)))),
        };
        let backend = Arc::clone(choice.guard.backend());
        if account.attempts > 0 {
            worker.metrics.retry(service);
        }
        account.attempts += 1;
        account.backend = Some(Arc::clone(&backend));
        tried.push(backend.id);
        let left = match chooser.waited {
            true => left.saturating_sub(chooser.waited_for),
            false => left,
        };
        let begun = Instant::now();
        let made = tokio::select! {
            biased;
            made = open(worker, &backend, (peer, None), limits, (&timer, left)) => made,
            _ = &mut gone => {
                worker.judge(service, &backend, choice.trial, Evidence::None);
                return Err(unsent(Cause::ClientClosed));
            }
        };
        let connecting = begun.elapsed();
        match made {
            Ok(transport) => {
                backend.connected();
                account.connect = Some(connecting);
                worker.attempted(&backend, None);
                let now = worker.deadlines.now();
                choice.guard.answered(|| Some(connecting), now);
                let counted = worker.connected(service, &backend);
                return Ok(Upstream {
                    io: Duplex::new(transport).counted(counted),
                    guard: choice.guard,
                    service,
                    trial: choice.trial,
                    connecting,
                });
            }
            Err(e) => {
                let evidence = worker.connect_failed(service, &backend, &e);
                worker.judge(service, &backend, choice.trial, evidence);
                worker.weigh(service, &backend, evidence, 0, Some(connecting));
                let failure = unsent(Cause::Connect(e));
                worker.upstream_failed(service, &backend, &failure);
                last = Some(failure);
            }
        }
    }
}

/// A failure before a byte went to a backend.
fn unsent(cause: Cause) -> Failure {
    Failure::new(cause, Progress::NothingSent)
}

/// What a connection tells of its backend, which is found out while it goes on.
///
/// That a backend accepts says little: whoever forwards a port does so for one that is not there, and
/// resets. So it has passed when a byte comes from it, or when it is still there after [`LIVES`], and
/// has failed when it breaks off before.
struct Probation<'a> {
    worker: &'a Worker,
    upstream: &'a Upstream,
    begun: Millis,
    over: Cell<bool>,
}

/// A connection that says nothing for so long was accepted by somebody who serves.
const LIVES: Duration = Duration::from_secs(2);

impl<'a> Probation<'a> {
    fn begin(worker: &'a Worker, upstream: &'a Upstream) -> Probation<'a> {
        Probation {
            worker,
            upstream,
            begun: worker.deadlines.now(),
            over: Cell::new(false),
        }
    }

    /// To be called after each turn.
    fn look(&self, moved: &Relayed, account: &mut Account) {
        let answered = moved.back.get() > 0;
        if answered && account.first_byte.is_none() {
            account.first_byte = Some(account.begun.elapsed());
        }
        if answered || self.worker.deadlines.now().since(self.begun) >= LIVES {
            self.tell(Evidence::Success);
        }
    }

    /// It is over.
    fn end(&self, ended: Option<Ended>, moved: &Relayed) {
        self.tell(match ended {
            Some(Ended::Second) => Evidence::Failure,
            // It took what it was sent.
            Some(Ended::Closed) if moved.forth.get() > 0 => Evidence::Success,
            _ => Evidence::None,
        });
    }

    fn tell(&self, evidence: Evidence) {
        if self.over.replace(true) {
            return;
        }
        let Upstream { service, guard, .. } = self.upstream;
        let (backend, connecting) = (guard.backend(), Some(self.upstream.connecting));
        self.worker
            .judge(*service, backend, self.upstream.trial, evidence);
        self.worker
            .weigh(*service, backend, evidence, 0, connecting);
    }
}
