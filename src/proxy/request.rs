//! One request of a client: checked, routed, sent to a backend, answered, accounted for.
//!
//! Its head lies in the connection already. Whatever happens ends in a [`Next`].

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::account::Account;
use super::connection::Serving;
use super::drain::Phase;
use super::exchange::{Failed, Lent, Outcome, exchange};
use super::failure::{Cause, Failure, Progress, Side};
use super::forward::{self, Hop};
use super::job::{Client, Job, OutOfPatience};
use super::preference::Preference;
use super::recode::whole_body;
use super::respond;
use crate::http::body::{BodyFraming, request_framing, request_keeps_alive};
use crate::http::h1::encode::ConnectionField;
use crate::http::head::{Rejection, RequestHead, Version, has_encoded_slash};
use crate::http::headers::Known;
use crate::io::pace::Patience;
use crate::telemetry::access::{Broken, Record};

/// What follows after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// The next request.
    Request,
    /// Nothing: say so, let the client read what it was sent, close.
    Close,
    /// Nothing: no request was under way, there is nothing to be read any more.
    End,
    /// Nothing, and the client has to see that something is missing.
    Abort,
}

impl Serving<'_> {
    /// Answers a request that was not understood, and ends the connection.
    pub(super) async fn refuse(&mut self, rejection: Rejection) -> Next {
        let mut account = Account::begin(self.worker.request_id());
        let failure = Failure::new(Cause::Rejected(rejection), Progress::NothingSent);
        let close = ConnectionField::Close;
        let next = self
            .answer_failure(&failure, close, None, &mut account)
            .await;
        self.finish(&account, None);
        next
    }

    /// Carries one request out.
    pub(super) async fn handle(&mut self) -> Next {
        let mut account = Account::begin(self.worker.request_id());
        let framing = match self.check() {
            Ok(framing) => framing,
            Err(rejection) => {
                let failure = Failure::new(Cause::Rejected(rejection), Progress::NothingSent);
                let next = self
                    .answer_failure(&failure, ConnectionField::Close, None, &mut account)
                    .await;
                self.finish(&account, None);
                return next;
            }
        };
        let shared = &self.worker.shared;
        let keep_alive = request_keeps_alive(self.head)
            && !shared.config.downstream.keep_alive.is_zero()
            && shared.drain.phase() < Phase::Closing;
        let next = match self.forward(framing, keep_alive, &mut account).await {
            Ok(next) => next,
            Err(failed) => self.fail(failed, framing, keep_alive, &mut account).await,
        };
        self.finish(&account, Some(self.head));
        next
    }

    /// What can be said against a request that was parsed.
    fn check(&self) -> Result<BodyFraming, Rejection> {
        let framing = request_framing(self.head)?;
        let reject = self.worker.shared.config.downstream.reject_encoded_slash;
        if reject && has_encoded_slash(&self.head.path) {
            return Err(Rejection {
                status: 400,
                reason: "encoded slash in the path",
            });
        }
        Ok(framing)
    }

    async fn forward(
        &mut self,
        framing: BodyFraming,
        keep_alive: bool,
        account: &mut Account,
    ) -> Result<Next, Failed> {
        if self.worker.shared.drain.phase() >= Phase::CutRequests {
            // There is no time left for it.
            self.worker.shared.drain.cut();
            let failure = Failure::new(Cause::Drained, Progress::NothingSent);
            return Err(Failed::unconsumed(failure));
        }
        if let Some(to) = self.listener().redirect {
            if self.head.host.is_empty() {
                // HTTP/1.0 without Host.
                let rejection = Rejection::bad_request("no host to redirect to");
                let failure = Failure::new(Cause::Rejected(rejection), Progress::NothingSent);
                return Err(Failed::unconsumed(failure));
            }
            let close = self.skip_body(framing, keep_alive);
            let mut out = self.worker.buffers.output();
            account.sent =
                respond::redirect(to, self.head, &account.request_id, close, &mut out.bytes);
            account.status = to.status;
            let written = self.io.write_all(&out.bytes, &[], self.writing).await;
            return Ok(after_own(close, written.is_ok()));
        }
        let worker = Rc::clone(self.worker);
        let config = &worker.shared.config;
        let head = &self.head;
        let found = worker
            .shared
            .router
            .route(self.peer.listener, &head.host, &head.path, &head.fields)
            .ok_or_else(|| {
                Failed::unconsumed(Failure::new(Cause::NoRoute, Progress::NothingSent))
            })?;
        let index = found.service;
        let service = worker.service(index);
        account.route = Some(Arc::clone(&found.label));
        account.service = Some(index);
        let peer = self.peer.address.ip();
        let spent = (worker.shared.limits).spend(index, peer, &head.fields, account.begun);
        spent.map_err(|wait| {
            Failed::unconsumed(Failure::new(
                Cause::RateLimited(wait),
                Progress::NothingSent,
            ))
        })?;
        if let (BodyFraming::Length(length), Some(max)) = (framing, service.max_body)
            && length > max
        {
            let failure = Failure::new(Cause::BodyTooLarge, Progress::NothingSent);
            return Err(Failed::unconsumed(failure));
        }

        let upgrade = match framing {
            BodyFraming::None | BodyFraming::Length(0) => {
                forward::wanted_upgrade(head, &service.upgrade)
            }
            _ => None,
        };
        let upgrade = upgrade.map(|i| &*service.upgrade[i]);
        // RFC 9110 §10.1.1: HTTP/1.0 has no interim responses to wait for.
        let expects_continue = head.version != Version::Http10
            && head
                .fields
                .first(Known::Expect)
                .is_some_and(|v| v.eq_ignore_ascii_case(b"100-continue"));
        let hop = Hop {
            client: self.client,
            address: self.peer.address.ip().to_canonical(),
            secure: self.peer.tls.is_some(),
            trusted: self.trusted,
            underscores: config.downstream.allow_underscores,
            forwarded: config.downstream.forwarded,
        };
        let nominated = forward::nominated(framing, &self.head.fields);
        account.request_id = forward::rewrite_request(self.head, hop, account.request_id);
        if let Some(token) = upgrade {
            forward::push_upgrade(&mut self.head.fields, token);
        }

        let limits = &service.upstream;
        self.reading.restart(Patience {
            stall: limits.body_timeout,
            min_rate: limits.min_rate,
        });
        let patience = Patience {
            stall: limits.stall_timeout,
            min_rate: limits.min_rate,
        };
        self.writing.restart(patience);
        self.pushing.restart(patience);
        let job = Job {
            peer: self.peer,
            head: self.head,
            framing,
            nominated: &nominated,
            upgrade,
            preference: Preference::of(service, worker.affinity(index), self.head, self.peer),
            cookie: None,
            keep_alive,
            expects_continue,
            max_body: service.max_body.unwrap_or(u64::MAX),
            limits,
            patience: limits.response_timeout,
            out_of_patience: OutOfPatience::ResponseTimeout,
            again: None,
            watched: None,
        };
        let lent = Lent {
            client: Client {
                io: self.io,
                inbox: self.inbox,
                reading: self.reading,
                writing: self.writing,
            },
            timer: self.timer,
            watch: self.watch,
            pinned: self.pinned,
            pushing: self.pushing,
            response: self.response,
            tried: self.tried,
        };
        match exchange(&worker, index, job, lent, account).await? {
            Outcome::Answered { client_keeps, used } => {
                self.inbox.consume(used);
                Ok(match client_keeps {
                    true => Next::Request,
                    false => Next::Close,
                })
            }
            Outcome::Switched(tunnel) => {
                let token = upgrade.expect("nobody switches unasked");
                Ok(self
                    .tunnel(tunnel, token, limits.tunnel_idle, account)
                    .await)
            }
        }
    }

    /// Answers a request that failed, if anybody is there to be answered.
    async fn fail(
        &mut self,
        failed: Failed,
        framing: BodyFraming,
        keep_alive: bool,
        account: &mut Account,
    ) -> Next {
        if failed.failure.progress == Progress::Forwarded {
            account.failure = Some(failed.failure.meaning());
            if failed.until_close {
                // Nothing but a reset tells this client that the response is not whole.
                self.io.reset_on_close();
            }
            return Next::Abort;
        }
        let keep_alive = keep_alive && !failed.consumed && !failed.failure.meaning().closes;
        let connection = self.skip_body(framing, keep_alive);
        let head = std::mem::take(self.head);
        let next = self
            .answer_failure(&failed.failure, connection, Some(&head), account)
            .await;
        *self.head = head;
        next
    }

    async fn answer_failure(
        &mut self,
        failure: &Failure,
        connection: ConnectionField,
        head: Option<&RequestHead>,
        account: &mut Account,
    ) -> Next {
        let meaning = failure.meaning();
        account.failure = Some(meaning);
        if meaning.status == 0 {
            return Next::Abort;
        }
        account.status = meaning.status;
        let explanation = match &failure.cause {
            // Which backend, and why, is for the log only.
            Cause::NoBackend(_) | Cause::Connect(_) => "no backend can serve this now".to_owned(),
            Cause::BadResponse(_) | Cause::ResponseBody(_) | Cause::UpstreamClosed => {
                "the backend's response was not usable".to_owned()
            }
            cause => cause.to_string(),
        };
        let mut out = self.worker.buffers.output();
        account.sent = respond::error(
            meaning.status,
            &explanation,
            failure.retry_after(),
            &account.request_id,
            head,
            connection,
            &mut out.bytes,
        );
        let written = self.io.write_all(&out.bytes, &[], self.writing).await;
        after_own(connection, written.is_ok())
    }

    /// Takes the body of a request that nobody gets out of the inbox, if it is whole there. If it
    /// is not, the connection cannot go on.
    fn skip_body(&mut self, framing: BodyFraming, keep_alive: bool) -> ConnectionField {
        if !keep_alive {
            return ConnectionField::Close;
        }
        let Some(used) = whole_body(framing, self.inbox.filled()) else {
            return ConnectionField::Close;
        };
        self.inbox.consume(used);
        match self.head.version {
            Version::Http10 => ConnectionField::KeepAlive,
            _ => ConnectionField::None,
        }
    }

    /// The request is over: accounts for it.
    fn finish(&self, account: &Account, head: Option<&RequestHead>) {
        let metrics = &self.worker.metrics;
        let method = head.map_or("OTHER", |h| h.method.name());
        let took = account.begun.elapsed();
        metrics.request(account.service, method, account.status, took);
        metrics.bytes(account.service, account.received, account.sent);
        if let Some(meaning) = account.failure
            && meaning.side == Side::Downstream
        {
            metrics.downstream_error(meaning.reason);
        }
        if self.worker.access.is_on() {
            self.log(account, head, took);
        }
    }

    fn log(&self, account: &Account, head: Option<&RequestHead>, took: Duration) {
        // A request that was not understood leaves only what is certain of it.
        let nothing = RequestHead::default();
        let head = head.unwrap_or(&nothing);
        let service = account.service.map(|s| &*self.worker.service(s).name);
        self.worker.access.record(&Record {
            ended: SystemTime::now(),
            client: self.client,
            client_port: self.peer.address.port(),
            tls: self.peer.tls,
            listener: &self.listener().name,
            route: account.route.as_deref(),
            service,
            backend: account.backend.as_ref().map(|b| &*b.address),
            attempts: account.attempts,
            method: &head.method_text,
            host: &head.authority,
            path: &head.path,
            query: &head.query,
            protocol: match head.version {
                Version::Http10 => "HTTP/1.0",
                Version::Http11 => "HTTP/1.1",
                Version::Http2 => "HTTP/2",
            },
            status: account.status,
            received: account.received,
            sent: account.sent,
            broken: account.failure.map(|meaning| Broken {
                side: meaning.side.name(),
                phase: meaning.reason,
            }),
            request_id: &account.request_id,
            traceparent: head.fields.first(Known::Traceparent),
            referer: head.fields.first(Known::Referer),
            user_agent: head.fields.first(Known::UserAgent),
            connect: account.connect,
            first_byte: account.first_byte,
            total: took,
        });
    }
}

fn after_own(connection: ConnectionField, written: bool) -> Next {
    match (written, connection) {
        (false, _) => Next::Abort,
        (true, ConnectionField::Close) => Next::Close,
        (true, _) => Next::Request,
    }
}
