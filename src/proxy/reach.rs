//! How one attempt reaches its backend: over the client's own connection, a kept one, a new one, or a
//! stream of one that has others.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::answer::cause_of;
use super::attempt::ends_with_head;
use super::choice::Over;
use super::failure::{Cause, Failure, Progress};
use super::job::{Job, Upstream};
use super::opening::{open, open_for_all};
use super::pinned::Pinned;
use super::worker::{Evidence, Worker};
use crate::http::h2;
use crate::http::head::BadResponse;
use crate::io::deadline::Timer;
use crate::io::duplex::Duplex;
use crate::io::pace::Patience;
use crate::io::transport::Transport;
use crate::telemetry::metrics;
use crate::upstream::backend::Backend;
use crate::upstream::establish::Unestablished;
use crate::upstream::streams::{Keeping, Making, Place, Slot};

/// A request that may not be repeated takes a kept connection only if it was used within this
/// time: the shorter it was idle, the less likely its peer is closing it at this moment.
const FRESH: Duration = Duration::from_secs(1);

/// What reaching a backend needs to know.
#[derive(Debug)]
pub(super) struct Reaching<'a> {
    pub(super) worker: &'a Rc<Worker>,
    /// Index of the service.
    pub(super) service: usize,
    pub(super) backend: &'a Arc<Backend>,
    pub(super) job: &'a Job<'a>,
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
    /// The backend over a connection that is there and carries one request at a time, if there is one.
    /// `introduced`: a connection that told some backend who this client is.
    pub(super) fn kept(&self, over: Over, introduced: Option<Pinned>) -> Option<Reached> {
        if self.job.limits.protocol.is_h2() {
            return None;
        }
        let kept = match over {
            Over::Own(io) => Some(io),
            Over::New => None,
            Over::Any => {
                let (worker, backend) = (self.worker, self.backend);
                let max_age = if self.repeatable {
                    Duration::MAX
                } else {
                    FRESH
                };
                let now = worker.deadlines.now();
                let kept = match backend.layers.header {
                    None => worker.pool().borrow_mut().take(backend.id, max_age, now),
                    Some(_) => {
                        let ages = (max_age, self.job.limits.keep_alive);
                        introduced.and_then(|own| own.to(backend, ages, now))
                    }
                };
                // What cannot be repeated is worth a system call.
                kept.filter(|kept| self.repeatable || kept.is_silent())
            }
        };
        kept.map(|kept| Reached {
            upstream: Upstream::H1(kept),
            reused: true,
            connecting: None,
        })
    }

    /// Reaches the backend over another one, `client` being the client's own. Cancel-safe: a connection
    /// that is being made is dropped.
    pub(super) async fn reach(&self, client: Option<&Duplex>) -> Result<Reached, Unreached> {
        if self.job.limits.protocol.is_h2() {
            return self.by_stream().await;
        }
        let (transport, counted) = self.connect(client).await?;
        Ok(Reached {
            upstream: Upstream::H1(Duplex::new(transport).counted(counted)),
            reused: false,
            connecting: Some(self.begun.elapsed()),
        })
    }

    /// By a stream of a connection that is there, or that is being made for all.
    async fn by_stream(&self) -> Result<Reached, Unreached> {
        let streams = self.worker.streams();
        let mut waited = false;
        let slot = loop {
            let pending = match streams.place(self.backend.id) {
                Place::Slot(slot) => break slot,
                Place::Wait(pending) => pending,
                Place::Make(making) => {
                    let pending = making.pending();
                    let (worker, backend) = (Rc::clone(self.worker), Arc::clone(self.backend));
                    // Whoever wanted it first may not wait for it: others do.
                    tokio::task::spawn_local(make(worker, self.service, backend, making));
                    pending
                }
            };
            waited = true;
            let left = self.left.saturating_sub(self.begun.elapsed());
            let over = self.timer.limit(left, pending.wait()).await;
            let failed = match over {
                Ok(()) => pending.failure(),
                Err(_) => Some(Unestablished::Connect(io::ErrorKind::TimedOut.into())),
            };
            if let Some(failed) = failed {
                return Err(Unreached {
                    failure: Failure::new(Cause::Connect(failed), Progress::NothingSent),
                    evidence: match over {
                        // Whoever made it has told.
                        Ok(()) => None,
                        Err(_) => Some(Evidence::None),
                    },
                });
            }
        };
        self.say(slot, waited)
    }

    /// Sends the head of the request.
    fn say(&self, slot: Slot, made: bool) -> Result<Reached, Unreached> {
        let &Job {
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
        let secure = limits.protocol.is_tls();
        let request = h2::head::request(head, framing, secure, upgrade, &self.backend.address)
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

    fn unsaid(&self, cause: Cause) -> Unreached {
        Unreached {
            failure: Failure::new(cause, Progress::NothingSent),
            evidence: Some(Evidence::None),
        }
    }

    /// A connection for this request alone.
    async fn connect(
        &self,
        client: Option<&Duplex>,
    ) -> Result<(Transport, metrics::OpenConnection), Unreached> {
        let (worker, backend, job) = (self.worker, self.backend, self.job);
        let waits = (self.timer, self.left);
        match open(worker, backend, (job.peer, client), job.limits, waits).await {
            Ok(transport) => {
                backend.connected();
                let counted = worker.connected(self.service, backend);
                Ok((transport, counted))
            }
            Err(e) => Err(Unreached {
                evidence: Some(worker.connect_failed(self.service, backend, &e)),
                failure: Failure::new(Cause::Connect(e), Progress::NothingSent),
            }),
        }
    }
}

/// Makes a connection to a backend that speaks HTTP/2, for all who wait for it, with the time that the
/// service has for that and not that of one of its clients.
async fn make(worker: Rc<Worker>, service: usize, backend: Arc<Backend>, making: Making) {
    let config = Arc::clone(&worker.shared.config);
    let limits = &config.services[service].upstream;
    let timer = worker.deadlines.timer();
    let mut left = 0;
    let made = loop {
        let opened = open_for_all(&worker, &backend, limits, &timer).await;
        let transport = match opened {
            Ok(transport) => transport,
            Err(e) => break Err(e),
        };
        let made = {
            let counted = worker.connected(service, &backend);
            let keeping = Keeping {
                max_age: limits.max_age,
                ping: limits.ping,
                greeting: limits.connect_timeout,
                patience: Patience {
                    stall: limits.stall_timeout,
                    min_rate: limits.min_rate,
                },
            };
            making
                .made(&backend, transport, counted, keeping, &worker.deadlines)
                .await
        };
        // Whoever is about to go ends old and new connections alike; the next one may stay.
        let is_leaving = matches!(&made, Err(e) if e.is_leaving());
        left += u32::from(is_leaving);
        if !is_leaving || left > LEAVING {
            break made;
        }
    };
    match made {
        Ok(()) => backend.connected(),
        Err(e) => {
            let evidence = worker.connect_failed(service, &backend, &e);
            worker.judge(service, &backend, false, evidence);
            making.failed(e);
        }
    }
}

/// So many connections may be ended by a backend before they have streams, one after the other.
const LEAVING: u32 = 8;
