//! A request's way to a backend: pick, connect or reuse, attempt, and again where that is safe.

use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::account::{Account, Audience};
use super::attempt::attempt;
use super::choice::{Choice, Chooser, Over, Way};
use super::drain::Withdrawal;
use super::explain;
use super::failure::{Cause, Failure, Progress, Side};
use super::job::{
    Again, Client, Done, Downstream, Job, OutOfPatience, Rest, State, Upstream, Watched,
};
use super::pinned::{Pinned, why_pinned};
use super::preference::Preference;
use super::reach::{Reached, Reaching, Unreached};
use super::retry::{Facts, Verdict, is_repeatable, trial, verdict};
use super::worker::{Evidence, Worker};
use crate::http::head::ResponseHead;
use crate::io::deadline::Timer;
use crate::io::pace::{Pace, Patience};
use crate::upstream::backend::{Backend, BackendId, InFlight};

/// How a request ended that was not a failure.
#[derive(Debug)]
pub enum Outcome {
    /// The response is with the client.
    Answered {
        /// The client's connection may be used again.
        client_keeps: bool,
        /// Bytes of the inbox that belong to this request still.
        used: usize,
    },
    /// What was asked for is granted: the head of the response lies in its room.
    Granted,
    /// The backend switched protocols: from here on it is a tunnel.
    Switched(Box<Tunnel>),
}

/// A connection that left HTTP.
#[derive(Debug)]
pub struct Tunnel {
    /// The backend's connection, or its stream.
    pub upstream: Upstream,
    /// What comes from it after its head.
    pub rest: Rest,
    /// The backend.
    pub backend: Arc<Backend>,
    /// Counts the tunnel as in flight for as long as it is held.
    pub _guard: InFlight,
}

/// A failure for which the client can still be answered, or not.
#[derive(Debug)]
pub struct Failed {
    /// What happened in the last attempt.
    pub failure: Failure,
    /// Bytes of the request's body were taken from the inbox.
    pub consumed: bool,
    /// The client was given part of a response that only the closing of its connection ends.
    pub until_close: bool,
}

/// What an exchange borrows from its connection.
#[derive(Debug)]
pub struct Lent<'a> {
    /// For response and stream deadlines.
    pub timer: &'a Timer,
    /// For looking whether the backend was withdrawn meanwhile.
    pub watch: &'a Timer,
    /// Where a backend's connection waits that must serve this client only.
    pub pinned: &'a mut Option<Pinned>,
    /// Patience with the client's sending.
    pub reading: &'a mut Pace,
    /// Patience with the client's receiving.
    pub writing: &'a mut Pace,
    /// Patience with the backend's receiving.
    pub pushing: &'a mut Pace,
    /// Room for the response head.
    pub response: &'a mut ResponseHead,
    /// Room for the backends that were tried.
    pub tried: &'a mut Vec<BackendId>,
}

impl Lent<'_> {
    /// The same for a shorter time.
    pub fn again(&mut self) -> Lent<'_> {
        Lent {
            timer: self.timer,
            watch: self.watch,
            pinned: self.pinned,
            reading: self.reading,
            writing: self.writing,
            pushing: self.pushing,
            response: self.response,
            tried: self.tried,
        }
    }

    /// From now on there is so much patience with the client's sending, and with what receives as much
    /// but for the time that it may stall.
    pub fn restart(&mut self, sending: Patience, stall: Duration) {
        self.reading.restart(sending);
        let receiving = Patience { stall, ..sending };
        self.writing.restart(receiving);
        self.pushing.restart(receiving);
    }
}

/// Sends a request to a backend of `service` and its response to the client, over what it came by.
pub async fn exchange(
    worker: &Rc<Worker>,
    service: usize,
    mut over: Downstream<'_>,
    job: &Job<'_>,
    lent: Lent<'_>,
    account: &mut Account,
) -> Result<Outcome, Failed> {
    let Lent {
        timer,
        watch,
        pinned,
        reading,
        writing,
        pushing,
        response,
        tried,
    } = lent;
    let leaving = over.leaving();
    let mut retries_left = job.limits.retries;
    let mut last: Option<Failed> = None;
    let mut refusals = 0;
    // With a body that is under way a second attempt is never made.
    let repeatable = is_repeatable(job.head.method, job.framing);
    let trial = trial(job.head.method, job.framing, retries_left);
    let mut chooser = Chooser::new(service, trial, job.preference);
    tried.clear();
    worker.earn_retry(service);
    loop {
        let Some(left) = time_left(job, account) else {
            // There is one deadline for all attempts together.
            return Err(in_time(last.unwrap_or_else(out_of_time), job, account));
        };
        let own = pinned.take().filter(|p| p.is_for(service));
        let (own, introduced) = Pinned::by_kind(own);
        let chosen = {
            let choosing = pin!(chooser.choose(worker, own, tried, timer, left));
            leaving.or(choosing).await
        };
        let Some(chosen) = chosen else {
            return Err(given_up());
        };
        let Choice {
            guard,
            trial,
            over: over_what,
            how,
        } = match chosen {
            Ok(choice) => choice,
            Err(none) => {
                let failed = last.unwrap_or_else(|| {
                    let cause = Cause::NoBackend(none);
                    Failed::unconsumed(Failure::new(cause, Progress::NothingSent))
                });
                return Err(in_time(failed, job, account));
            }
        };
        let backend = Arc::clone(guard.backend());
        if account.attempts > 0 {
            worker.metrics.retry(service);
        }
        account.attempts += 1;
        account.connect = None;
        // If nothing was waited for before the first attempt, its time need not be asked for again.
        let begun = match account.attempts {
            1 if !chooser.waited => account.begun,
            _ => Instant::now(),
        };
        account.backend = Some(Arc::clone(&backend));
        account.way = Way {
            how: Some(how),
            trial,
            after: last.as_ref().map(|last| last.failure.meaning().reason),
        };
        tried.push(backend.id);

        let was_own = matches!(over_what, Over::Own(_));
        // What was waited for, in line or for a connection, is gone.
        let left = match chooser.waited {
            true => left.saturating_sub(chooser.waited_for),
            false => left,
        };
        let reaching = Reaching {
            worker,
            service,
            backend: &backend,
            job,
            repeatable,
            timer,
            left,
            begun,
        };
        // Most connections are there, and nothing has to be waited for.
        let reached = match reaching.kept(over_what, introduced) {
            Some(kept) => Some(Ok(kept)),
            None => {
                let reach = pin!(reaching.reach(over.socket()));
                leaving.or(reach).await
            }
        };
        let Some(reached) = reached else {
            // That says nothing of the backend, and another one is to find out about it.
            worker.judge(service, &backend, trial, Evidence::None);
            return Err(given_up());
        };
        let Reached {
            upstream,
            reused,
            connecting,
        } = match reached {
            Ok(reached) => reached,
            Err(unreached) => {
                let Unreached { failure, evidence } = unreached;
                // What others have told of it already is told for a trial all the same.
                let told = match evidence {
                    None if trial => Evidence::Failure,
                    evidence => evidence.unwrap_or(Evidence::None),
                };
                worker.judge(service, &backend, trial, told);
                worker.weigh(service, &backend, told, 0, Some(begun.elapsed()));
                worker.upstream_failed(service, &backend, &failure);
                last = Some(Failed::unconsumed(failure));
                continue;
            }
        };
        account.connect = connecting;
        let connecting = connecting.unwrap_or_default();

        let state = State::new();
        let client = Client {
            over: over.again(),
            reading: &mut *reading,
            writing: &mut *writing,
        };
        let streams = worker.shared.config.drain.streams;
        let withdrawal = Withdrawal::watch(&backend, streams, watch);
        let deadlines = (timer, &mut *pushing, &withdrawal);
        let Preference { token, secure, .. } = job.preference;
        let cookie = worker
            .affinity(service)
            .filter(|_| !how.by_cookie())
            .and_then(|affinity| affinity.set_cookie(&backend, token, secure));
        let watched = Watched {
            service,
            guard: &guard,
            begun,
            trial: Cell::new(trial),
        };
        let left = left.saturating_sub(connecting);
        let explanation =
            (account.audience == Audience::Asking).then(|| explain::field(account, worker));
        let mut job = this_attempt(job, service, tried, left, retries_left);
        job.cookie = cookie.as_deref();
        job.explanation = explanation.as_deref();
        job.watched = Some(&watched);
        let job = &job;
        let outcome = attempt(worker, job, client, &upstream, deadlines, response, &state).await;
        watch.clear();
        account.received = state.received.get();
        account.sent = state.sent.get();
        account.status = state.status.get();
        let first_byte = state.first_byte.get();
        account.first_byte = first_byte.map(|at| at - account.begun);
        account.grpc_status = state.grpc_status.get();
        let took = first_byte.map(|at| at - begun);
        worker.attempted(&backend, took);
        let evidence = evidence(worker, service, &outcome, &state, reused);
        worker.judge(service, &backend, watched.trial.get(), evidence);
        let status = final_status(&outcome, &state);
        let latency = backends_time(&state, took, begun);
        worker.weigh(service, &backend, evidence, status, latency);
        match outcome {
            Ok(Done::Answered {
                client_keeps,
                upstream_keeps,
            }) => {
                let Upstream::H1(io) = upstream else {
                    // Its connection has other streams.
                    return Ok(Outcome::Answered {
                        client_keeps,
                        used: state.used.get(),
                    });
                };
                if !upstream_keeps {
                    drop(io);
                } else if let Some(why) = why_pinned(&backend, was_own, job, response) {
                    let now = worker.deadlines.now();
                    *pinned = Some(Pinned::new(backend, io, service, why, now));
                } else {
                    let limits = (job.limits.keep_alive, worker.idle_limit(service));
                    let now = worker.deadlines.now();
                    let mut pool = worker.pool().borrow_mut();
                    pool.put(&backend, io, limits.0, limits.1, now);
                }
                return Ok(Outcome::Answered {
                    client_keeps,
                    used: state.used.get(),
                });
            }
            Ok(Done::Granted { upstream_keeps }) => {
                let is_anybodys = why_pinned(&backend, was_own, job, response).is_none();
                if let (Upstream::H1(io), true) = (upstream, upstream_keeps && is_anybodys) {
                    let limits = (job.limits.keep_alive, worker.idle_limit(service));
                    let now = worker.deadlines.now();
                    let mut pool = worker.pool().borrow_mut();
                    pool.put(&backend, io, limits.0, limits.1, now);
                }
                return Ok(Outcome::Granted);
            }
            Ok(Done::Switched(rest)) => {
                return Ok(Outcome::Switched(Box::new(Tunnel {
                    upstream,
                    rest,
                    backend,
                    _guard: guard,
                })));
            }
            Err(failure) => {
                worker.upstream_failed(service, &backend, &failure);
                if matches!(failure.cause, Cause::BadResponse(_))
                    && failure.progress < Progress::Forwarded
                {
                    worker.speaks_otherwise(service, &backend, &failure);
                }
                match (&upstream, &failure.cause) {
                    (Upstream::H1(io), _) => worker.look_at_tls(service, &backend, io),
                    (
                        Upstream::H2(call),
                        Cause::ResponseTimeout | Cause::TryTimeout | Cause::UpstreamStalled,
                    ) => call.distrust(),
                    (Upstream::H2(_), _) => {}
                }
                let stale = was_stale(&failure, reused);
                let facts = Facts {
                    method: job.head.method,
                    replayable: !state.consumed.get(),
                    retries_left,
                    reused: stale && job.limits.retries > 0,
                };
                let refused = matches!(failure.cause, Cause::Refused);
                refusals += u32::from(refused);
                let again = match verdict(&failure, facts) {
                    Verdict::GiveUp => false,
                    Verdict::Again => !refused || refusals <= REFUSALS,
                    Verdict::AgainIfAffordable => {
                        if !stale {
                            retries_left -= 1;
                        }
                        worker.spend_retry(service)
                    }
                };
                if reused || refused {
                    chooser.stale = Some(backend);
                }
                if matches!(failure.cause, Cause::Status(_)) {
                    // There is an answer: nobody waits for another one.
                    chooser.goes_on();
                }
                let failed = Failed {
                    failure,
                    consumed: state.consumed.get(),
                    until_close: state.until_close.get(),
                };
                if !again {
                    return Err(failed);
                }
                last = Some(failed);
            }
        }
    }
}

/// What is left of the time for the first byte of a response, all attempts together; `None`:
/// nothing. The first attempt has all of it, for a request whose body takes long to come has it
/// anew with each part.
fn time_left(job: &Job<'_>, account: &Account) -> Option<Duration> {
    match account.attempts {
        0 => Some(job.time),
        _ => job
            .time
            .checked_sub(account.begun.elapsed())
            .filter(|left| !left.is_zero()),
    }
}

/// So many times a backend may refuse a stream of one request: one that ends its connections after so
/// many streams refuses those that were too late, again and again under load.
const REFUSALS: u32 = 8;

fn given_up() -> Failed {
    Failed::unconsumed(Failure::new(Cause::ClientReset, Progress::NothingSent))
}

/// What has failed, unless it was the time that the client itself has given.
fn in_time(failed: Failed, job: &Job<'_>, account: &Account) -> Failed {
    let is_clients = job.deadline.is_some() && job.time < job.limits.response_timeout;
    if !is_clients || account.begun.elapsed() < job.time {
        return failed;
    }
    let failure = Failure::new(Cause::CallDeadline, failed.failure.progress);
    Failed { failure, ..failed }
}

fn out_of_time() -> Failed {
    Failed::unconsumed(Failure::new(Cause::ResponseTimeout, Progress::NothingSent))
}

/// The job with the patience of one attempt.
fn this_attempt<'a>(
    job: &Job<'a>,
    service: usize,
    tried: &'a [BackendId],
    left: Duration,
    retries_left: u8,
) -> Job<'a> {
    let retry_on = &job.limits.retry_on;
    let name = job.head.method.name();
    let safe = || retry_on.methods.iter().any(|method| **method == *name);
    let again = (retries_left > 0 && !retry_on.statuses.is_empty() && safe()).then_some(Again {
        statuses: &retry_on.statuses,
        service,
        tried,
    });
    let (patience, out_of_patience) = match job.limits.try_timeout {
        Some(one) if one < left => (one, OutOfPatience::TryTimeout),
        _ => (left, OutOfPatience::ResponseTimeout),
    };
    Job {
        patience,
        out_of_patience,
        again,
        ..*job
    }
}

/// Was it the kept connection rather than its backend (RFC 9112 §9.3.1)? It may have been closed
/// before the request came.
fn was_stale(failure: &Failure, reused: bool) -> bool {
    reused && failure.progress <= Progress::Sent && matches!(failure.cause, Cause::UpstreamClosed)
}

/// What an attempt tells of its backend.
fn evidence(
    worker: &Worker,
    service: usize,
    outcome: &Result<Done, Failure>,
    state: &State,
    reused: bool,
) -> Evidence {
    let rules = &worker.service(service).ejection;
    match outcome {
        Ok(Done::Answered { .. }) if rules.counts(state.status.get()) => Evidence::Failure,
        Ok(_) => Evidence::Success,
        Err(failure) => match failure.cause {
            Cause::Status(status) if !rules.counts(status) => Evidence::Success,
            _ if failure.meaning().side != Side::Upstream || was_stale(failure, reused) => {
                Evidence::None
            }
            // It ends its connection, or has as many streams as it wants.
            Cause::Refused => Evidence::None,
            // It is sound, and does not speak what this client wants.
            Cause::NotSwitched => Evidence::None,
            // It was not asked yet: the client owes it a part of its request.
            Cause::ResponseTimeout | Cause::TryTimeout if !state.request_done.get() => {
                Evidence::None
            }
            _ => Evidence::Failure,
        },
    }
}

/// The status that a backend answered with, whether the client got it or not; 0: none.
fn final_status(outcome: &Result<Done, Failure>, state: &State) -> u16 {
    match outcome {
        Err(Failure {
            cause: Cause::Status(status),
            ..
        }) => *status,
        _ => state.status.get(),
    }
}

/// How long the first byte of the response took (`took`), or how long there was none; `None`: it had
/// to wait for the client's body, whose time is not the backend's.
fn backends_time(state: &State, took: Option<Duration>, begun: Instant) -> Option<Duration> {
    (!state.consumed.get()).then(|| took.unwrap_or_else(|| begun.elapsed()))
}

impl Failed {
    /// A failure before anything was taken from the client's inbox.
    pub fn unconsumed(failure: Failure) -> Failed {
        Failed {
            failure,
            consumed: false,
            until_close: false,
        }
    }
}
