//! How one attempt reaches its backend: over the client's own connection, a kept one, a new one, or a
//! stream of one that has others.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;

use super::answer::cause_of;
use super::attempt::ends_with_head;
use super::choice::Over;
use super::failure::{Cause, Failure, Progress};
use super::job::{Job, Upstream};
use super::worker::{Evidence, Worker};
use crate::config::UpstreamProtocol;
use crate::http::h2;
use crate::http::head::BadResponse;
use crate::io::deadline::Timer;
use crate::io::duplex::Duplex;
use crate::io::pace::Patience;
use crate::io::transport::Transport;
use crate::telemetry::metrics;
use crate::upstream::backend::Backend;
use crate::upstream::connect::{connect, is_exhaustion};
use crate::upstream::streams::{Keeping, Place, Slot};

/// A request that may not be repeated takes a kept connection only if it was used within this
/// time: the shorter it was idle, the less likely its peer is closing it at this moment.
const FRESH: Duration = Duration::from_secs(1);

/// What reaching a backend needs to know.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reaching<'a> {
    pub(super) worker: &'a Rc<Worker>,
    /// Index of the service.
    pub(super) service: usize,
    pub(super) backend: &'a Arc<Backend>,
    pub(super) job: Job<'a>,
    /// The request may be repeated.
    pub(super) repeatable: bool,
    /// Lent for connecting.
    pub(super) timer: &'a Timer,
    /// Time that there is.
    pub(super) left: Duration,
    /// When the attempt began.
    pub(super) begun: Instant,
}

/// A backend that was reached.
#[derive(Debug)]
pub(super) struct Reached {
    pub(super) upstream: Upstream,
    /// Over a connection that was used before, which its peer may have closed meanwhile.
    pub(super) reused: bool,
    /// How long a new connection took.
    pub(super) connecting: Option<Duration>,
}

/// A backend that was not reached.
#[derive(Debug)]
pub(super) struct Unreached {
    pub(super) failure: Failure,
    /// What that tells of it; `None`: somebody else has told it.
    pub(super) evidence: Option<Evidence>,
}

impl Reaching<'_> {
    /// Reaches the backend. Cancel-safe: a connection that is being made is dropped.
    pub(super) async fn reach(self, over: Over) -> Result<Reached, Unreached> {
        if self.job.limits.protocol.is_h2() {
            return self.by_stream().await;
        }
        if let Some(kept) = self.kept(over) {
            return Ok(Reached {
                upstream: Upstream::H1(kept),
                reused: true,
                connecting: None,
            });
        }
        let (transport, counted) = self.connect().await?;
        Ok(Reached {
            upstream: Upstream::H1(Duplex::new(transport).counted(counted)),
            reused: false,
            connecting: Some(self.begun.elapsed()),
        })
    }

    fn kept(self, over: Over) -> Option<Duplex> {
        match over {
            Over::Own(io) => Some(io),
            Over::New => None,
            Over::Any => {
                let worker = self.worker;
                let max_age = if self.repeatable {
                    Duration::MAX
                } else {
                    FRESH
                };
                let mut pool = worker.pool().borrow_mut();
                let kept = pool.take(self.backend.id, max_age, worker.deadlines.now());
                // What cannot be repeated is worth a system call.
                kept.filter(|kept| self.repeatable || kept.is_silent())
            }
        }
    }

    /// By a stream of a connection that is there, or that somebody makes for all.
    async fn by_stream(self) -> Result<Reached, Unreached> {
        let streams = self.worker.streams();
        let mut made = false;
        let slot = loop {
            match streams.place(self.backend.id) {
                Place::Slot(slot) => break slot,
                Place::Wait(pending) => {
                    let left = self.left.saturating_sub(self.begun.elapsed());
                    let waited = self.timer.limit(left, pending.wait()).await;
                    if waited.is_err() || pending.has_failed() {
                        let failed = io::Error::other("the connection that others make has failed");
                        return Err(Unreached {
                            failure: Failure::new(Cause::Connect(failed), Progress::NothingSent),
                            evidence: None,
                        });
                    }
                }
                Place::Make(making) => {
                    let (transport, counted) = match self.connect().await {
                        Ok(connected) => connected,
                        Err(unreached) => {
                            making.failed();
                            return Err(unreached);
                        }
                    };
                    let limits = self.job.limits;
                    let keeping = Keeping {
                        max_age: limits.max_age,
                        greeting: limits.connect_timeout.min(self.left),
                        patience: Patience {
                            stall: limits.stall_timeout,
                            min_rate: limits.min_rate,
                        },
                    };
                    made = true;
                    let deadlines = &self.worker.deadlines;
                    let begun = making.made(self.backend, transport, counted, keeping, deadlines);
                    match begun.await {
                        Ok(slot) => break slot,
                        Err(e) => return Err(self.unsaid(cause_of(&e))),
                    }
                }
            }
        };
        self.say(slot, made)
    }

    /// Sends the head of the request.
    fn say(self, slot: Slot, made: bool) -> Result<Reached, Unreached> {
        let Job {
            head,
            framing,
            upgrade,
            limits,
            ..
        } = self.job;
        if upgrade.is_some() && !slot.connects() {
            let cause = BadResponse("the backend takes no extended CONNECT");
            return Err(Unreached {
                evidence: Some(Evidence::None),
                ..self.unsaid(Cause::BadResponse(cause))
            });
        }
        let secure = limits.protocol == UpstreamProtocol::H2;
        let request = h2::head::request(head, framing, secure, upgrade)
            .map_err(|what| self.unsaid(Cause::BadResponse(BadResponse(what))))?;
        let ends = ends_with_head(self.job) && upgrade.is_none();
        let call = slot
            .call(request, ends)
            .map_err(|e| self.unsaid(cause_of(&e)))?;
        Ok(Reached {
            upstream: Upstream::H2(call),
            reused: !made,
            connecting: made.then(|| self.begun.elapsed()),
        })
    }

    fn unsaid(self, cause: Cause) -> Unreached {
        Unreached {
            failure: Failure::new(cause, Progress::NothingSent),
            evidence: Some(Evidence::None),
        }
    }

    async fn connect(self) -> Result<(Transport, metrics::OpenConnection), Unreached> {
        let (worker, backend) = (self.worker, self.backend);
        let wait = self.job.limits.connect_timeout.min(self.left);
        match connect_making_room(worker, backend.endpoint.socket(), self.timer, wait).await {
            Ok(tcp) => {
                backend.connected();
                let counted = worker.metrics.open(metrics::Side::Upstream(self.service));
                Ok((Transport::Plain(tcp), counted))
            }
            Err(e) => Err(Unreached {
                evidence: Some(worker.connect_failed(self.service, backend, &e)),
                failure: Failure::new(Cause::Connect(e), Progress::NothingSent),
            }),
        }
    }
}

/// Connects. Where descriptors have run out, idle connections to backends go for it.
async fn connect_making_room(
    worker: &Worker,
    address: SocketAddr,
    timer: &Timer,
    wait: Duration,
) -> io::Result<TcpStream> {
    match connect(address, timer, wait).await {
        Err(e) if is_exhaustion(&e) && worker.make_room() => connect(address, timer, wait).await,
        outcome => outcome,
    }
}
