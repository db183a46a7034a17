//! One request of a client: checked, routed, sent to a backend, answered, accounted for.
//!
//! Its head lies in the connection already. Whatever happens ends in a [`Next`].

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use super::account::{Account, Audience};
use super::admission;
use super::auth::{Answer, Asking};
use super::certificate_fields::Asked;
use super::compress::Negotiated;
use super::connection::Serving;
use super::drain::Phase;
use super::edits::{self, Edits, Told};
use super::exchange::{Failed, Lent, Outcome, exchange};
use super::explain;
use super::failure::{Cause, Failure, Progress};
use super::forward::{self, Hop};
use super::grpc;
use super::job::{Client, Downstream, Job};
use super::preference::Preference;
use super::recode::whole_body;
use super::respond;
use super::rewrite;
use super::switch::Handshake;
use crate::config::{Access, Config, Scheme, Target};
use crate::http::body::{BodyFraming, request_framing, request_keeps_alive};
use crate::http::coding::negotiate;
use crate::http::h1::encode::ConnectionField;
use crate::http::h2;
use crate::http::head::{
    Rejection, RequestHead, Version, has_encoded_slash, without_empty_segments,
};
use crate::http::headers::{Fields, Known, Nominated};
use crate::io::pace::Patience;
use crate::router;

/// What a request wants, besides what its head says.
#[derive(Debug, Clone, Copy)]
struct Wanted<'a> {
    framing: BodyFraming,
    /// Its connection may go on after the response.
    keep_alive: bool,
    /// What an extended CONNECT asks to speak.
    extended: Option<&'a str>,
}

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
    pub(super) async fn refuse(&mut self, over: Downstream<'_>, rejection: Rejection) -> Next {
        let mut account = Account::begin(self.worker.request_id());
        let failure = Failure::new(Cause::Rejected(rejection), Progress::NothingSent);
        let close = ConnectionField::Close;
        let next = self
            .answer_failure(&over, &failure, close, None, &mut account)
            .await;
        self.finish(&account, None);
        next
    }

    /// Carries one request out. `extended`: what an extended CONNECT asks to speak (RFC 8441).
    pub(super) async fn handle(
        &mut self,
        mut over: Downstream<'_>,
        extended: Option<&str>,
    ) -> Next {
        let mut account = Account::begin(self.worker.request_id());
        let framing = match self.check(&over, extended) {
            Ok(framing) => framing,
            Err(rejection) => {
                let failure = Failure::new(Cause::Rejected(rejection), Progress::NothingSent);
                let next = self
                    .answer_failure(&over, &failure, ConnectionField::Close, None, &mut account)
                    .await;
                self.finish(&account, None);
                return next;
            }
        };
        account.audience = self.audience();
        account.span = self.begin_span();
        let shared = &self.worker.shared;
        let keep_alive = request_keeps_alive(self.head)
            && !self.aged
            && !shared.config.downstream.keep_alive.is_zero()
            && shared.drain.phase() < Phase::Closing;
        let wanted = Wanted {
            framing,
            keep_alive,
            extended,
        };
        let next = match self.forward(over.again(), wanted, &mut account).await {
            Ok(next) => next,
            Err(failed) => self.fail(over, failed, wanted, &mut account).await,
        };
        self.finish(&account, Some(self.head));
        next
    }

    /// What can be said against a request that was parsed.
    fn check(
        &self,
        over: &Downstream<'_>,
        extended: Option<&str>,
    ) -> Result<BodyFraming, Rejection> {
        let framing = match over {
            Downstream::H1 { .. } | Downstream::Copy(_) => request_framing(self.head)?,
            // What comes on the stream is no body.
            Downstream::H2 { .. } if extended.is_some() => BodyFraming::None,
            Downstream::H2 { incoming, .. } => {
                let ended = incoming.has_ended();
                h2::head::request_framing(self.head, ended).map_err(Rejection::bad_request)?
            }
        };
        let reject = self.worker.shared.config.downstream.reject_encoded_slash;
        if reject && has_encoded_slash(&self.head.path) {
            return Err(Rejection {
                status: 400,
                reason: "encoded slash in the path",
            });
        }
        Ok(framing)
    }

    /// What an authority gets that validates a name over plain HTTP; `None`: this request is none of
    /// that kind, or about a challenge of somebody else, who may be behind a route.
    fn answer_to_authority(&self) -> Option<String> {
        let shared = &self.worker.shared;
        shared.config.acme.as_ref()?;
        let path = &self.head.path;
        if self.peer.tls.is_some() || !path.starts_with(b"/.well-known/") {
            return None;
        }
        shared.challenges.load().answer(path).map(str::to_owned)
    }

    async fn forward(
        &mut self,
        mut over: Downstream<'_>,
        wanted: Wanted<'_>,
        account: &mut Account,
    ) -> Result<Next, Failed> {
        let Wanted {
            framing,
            keep_alive,
            extended,
        } = wanted;
        if self.worker.shared.drain.phase() >= Phase::CutRequests {
            // There is no time left for it.
            self.worker.shared.drain.cut();
            let failure = Failure::new(Cause::Drained, Progress::NothingSent);
            return Err(Failed::unconsumed(failure));
        }
        if let Some(answer) = self.answer_to_authority() {
            let close = self.skip_body(&mut over, framing, keep_alive);
            let own = respond::text(answer, self.head, &account.request_id);
            account.sent = own.length();
            account.status = 200;
            let buffers = &self.worker.buffers;
            let written = own.send(&over, close, self.writing, buffers).await;
            return Ok(after_own(close, written));
        }
        self.admit(self.listener().access.as_ref())?;
        if let Some(to) = self.listener().redirect {
            if self.head.host.is_empty() {
                return Err(nameless());
            }
            let location = respond::over_https(to, self.head);
            return Ok(self
                .redirect(over, (to.status, &location), wanted, account)
                .await);
        }
        let worker = Rc::clone(self.worker);
        let config = &worker.shared.config;
        let head = &self.head;
        let path = without_empty_segments(&head.path);
        let asked = router::Request {
            listener: self.peer.listener,
            method: match extended {
                // In HTTP/1.1 it is a GET.
                Some(_) => b"GET",
                None => &head.method_text,
            },
            host: &head.host,
            path: &path,
            query: &head.query,
            fields: &head.fields,
        };
        let found = worker.shared.router.route(asked).ok_or_else(|| {
            Failed::unconsumed(Failure::new(Cause::NoRoute, Progress::NothingSent))
        })?;
        let route = &config.routes[found.route];
        account.route = Some(Arc::clone(&found.label));
        account.route_index = Some(found.route);
        self.admit(route.access.as_ref())?;
        let matched = route.path.trim_end_matches('/').len();
        if let Target::Redirect(to) = &route.target {
            let location = rewrite::location(to, head, matched, self.scheme(&head.fields));
            let location = location.ok_or_else(nameless)?;
            return Ok(self
                .redirect(over, (to.status, &location), wanted, account)
                .await);
        }
        let index = worker.service_for(found.route);
        let index = index.expect("what does not redirect leads to a service");
        let service = worker.service(index);
        account.service = Some(index);
        let client = || self.peer.client(&head.fields, &worker.shared.config);
        let spent = (worker.shared.limits).spend(index, client, &head.fields, account.begun);
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

        let upgrade = match (framing, extended) {
            (_, Some(protocol)) => {
                let allowed = service
                    .upgrade
                    .iter()
                    .position(|token| **token == *protocol);
                Some(allowed.ok_or_else(|| {
                    let rejection = Rejection {
                        status: 501,
                        reason: "this protocol is not passed on",
                    };
                    let failure = Failure::new(Cause::Rejected(rejection), Progress::NothingSent);
                    Failed::unconsumed(failure)
                })?)
            }
            (BodyFraming::None | BodyFraming::Length(0), None) => {
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
            certificate: self.listener().client_certificates().map(|_| Asked {
                shown: self.peer.certificate.as_deref(),
            }),
        };
        if let Some(auth) = &route.auth {
            let asking = Asking {
                auth,
                hop,
                framing,
                keep_alive,
                extended: extended.is_some(),
            };
            // In an allocation of its own: few routes ask, and all requests would need the room.
            match Box::pin(self.ask(over.again(), asking, account)).await? {
                Answer::Granted => {}
                Answer::Given(next) => return Ok(next),
            }
        }
        let mut nominated = forward::nominated(framing, &self.head.fields);
        account.request_id = forward::rewrite_request(self.head, hop, account.request_id);
        if let Some(auth) = &route.auth {
            self.tell_of_client(auth);
        }
        // What the client itself says: the backend may be told something else.
        let compress = (!service.compress.is_empty()).then(|| {
            let accepted = self.head.fields.named("Accept-Encoding");
            Negotiated(negotiate(&service.compress, accepted))
        });
        let changes = [&service.request_headers, &route.request_headers];
        let changes = changes.into_iter().flatten();
        // What a client cannot say in its head it does not say behind its body either.
        let told = route.auth.iter().flat_map(|auth| &*auth.response_headers);
        let told = told.map(|name| name.as_bytes());
        let barred = told.chain(changes.clone().flat_map(edits::replaced));
        if framing != BodyFraming::None && barred.clone().next().is_some() {
            nominated = nominated.and(barred.clone());
            if let Downstream::H2 { incoming, .. } = &mut over {
                incoming.bar(Nominated::default().and(barred));
            }
        }
        if let Some(rewrite) = &route.rewrite {
            account.path = Some(self.head.path.as_slice().into());
            rewrite::path(&mut self.head.path, matched, &rewrite.change);
            if rewrite.strips {
                let stripped = route.path.as_bytes();
                self.head.fields.push(b"X-Forwarded-Prefix", stripped);
            }
        }
        for changes in changes {
            let client = self.client(&self.head.fields);
            let scheme = self.scheme(&self.head.fields);
            let head = &mut *self.head;
            let told = Told {
                client,
                host: &head.host,
                request_id: account.request_id,
                scheme,
            };
            edits::apply(changes, &mut head.fields, told);
        }
        let limits = &service.upstream;
        let handshake = upgrade.map(|token| {
            let to_stream = limits.protocol.is_h2();
            Handshake::translate(token, self.head, extended.is_some(), to_stream)
        });
        let grpc = h2::head::is_grpc(&self.head.fields);
        let call_time = match grpc {
            true => grpc::timeout(&self.head.fields),
            false => None,
        };
        if let Some(time) = call_time {
            self.deadline.set(time);
        }
        // The rest are conversations, of which a copy would be a part only.
        let copying = match &route.mirror {
            Some(mirror) if upgrade.is_none() && !grpc && !expects_continue => {
                self.copy_of(found.route, mirror, framing, account)
            }
            _ => None,
        };

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
        let edits = self.edits(&worker.shared.config, self.head, account);
        let job = Job {
            framing,
            upgrade,
            preference: Preference::of(service, worker.affinity(index), self.head, self.peer),
            edits: edits.as_ref(),
            compress,
            keep_alive,
            expects_continue,
            max_body: service.max_body.unwrap_or(u64::MAX),
            grpc,
            time: call_time.map_or(limits.response_timeout, |time| {
                time.min(limits.response_timeout)
            }),
            deadline: call_time.map(|_| self.deadline),
            copying: copying.as_deref(),
            ..Job::new(self.peer, self.head, &nominated, limits)
        };
        let lent = Lent {
            client: Client {
                over: over.again(),
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
                if let Downstream::H1 { inbox, .. } = over {
                    inbox.consume(used);
                }
                Ok(match client_keeps {
                    true => Next::Request,
                    false => Next::Close,
                })
            }
            Outcome::Granted => unreachable!("nothing was asked"),
            Outcome::Switched(tunnel) => {
                let handshake = handshake.expect("nobody switches unasked");
                Ok(self
                    .tunnel(over, *tunnel, handshake, limits.tunnel_idle, account)
                    .await)
            }
        }
    }

    /// Answers a request by sending its client elsewhere.
    async fn redirect(
        &mut self,
        mut over: Downstream<'_>,
        (status, location): (u16, &[u8]),
        wanted: Wanted<'_>,
        account: &mut Account,
    ) -> Next {
        let close = self.skip_body(&mut over, wanted.framing, wanted.keep_alive);
        let config = &self.worker.shared.config;
        let own = respond::redirect(status, location, self.head, &account.request_id)
            .edited(self.edits(config, self.head, account));
        account.sent = own.length();
        account.status = status;
        let buffers = &self.worker.buffers;
        let written = own.send(&over, close, self.writing, buffers).await;
        after_own(close, written)
    }

    /// By which scheme the client came: to us, or to the trusted proxy in front.
    pub(super) fn scheme(&self, fields: &Fields) -> Scheme {
        let said = match self.trusted {
            true => fields.first(Known::XForwardedProto),
            false => None,
        };
        match (said, self.peer.tls) {
            (Some(b"https"), _) | (None, Some(_)) => Scheme::Https,
            _ => Scheme::Http,
        }
    }

    /// Where the client is, behind trusted proxies.
    pub(super) fn client(&self, fields: &Fields) -> IpAddr {
        let config = &self.worker.shared.config;
        self.peer.client(fields, config).to_canonical()
    }

    /// What is to be done to the fields of a response.
    pub(super) fn edits<'a>(
        &self,
        config: &'a Config,
        head: &'a RequestHead,
        account: &Account,
    ) -> Option<Edits<'a>> {
        let (route, service) = (account.route_index, account.service);
        edits::of_responses(config, route, service, self.peer, || Told {
            client: self.client(&head.fields),
            host: &head.host,
            request_id: account.request_id,
            scheme: self.scheme(&head.fields),
        })
    }

    /// Refuses the request where a list does not admit its client.
    fn admit(&self, access: Option<&Access>) -> Result<(), Failed> {
        let config = &self.worker.shared.config;
        let admitted = admission::of_request(access, self.peer, &self.head.fields, config);
        admitted.map_err(|cause| Failed::unconsumed(Failure::new(cause, Progress::NothingSent)))
    }

    /// What the client may hear of where its request went. Nothing is looked at where nobody may.
    fn audience(&self) -> Audience {
        let config = &self.worker.shared.config;
        if config.explain_from.is_empty() || self.peer.is_unknown {
            return Audience::Anybody;
        }
        let fields = &self.head.fields;
        match config.explains_to(self.peer.client(fields, config)) {
            false => Audience::Anybody,
            true if fields.first(Known::XEvenkeelExplain).is_some() => Audience::Asking,
            true => Audience::Listed,
        }
    }

    /// Answers a request that failed, if anybody is there to be answered.
    async fn fail(
        &mut self,
        mut over: Downstream<'_>,
        failed: Failed,
        wanted: Wanted<'_>,
        account: &mut Account,
    ) -> Next {
        if failed.failure.progress == Progress::Forwarded {
            account.failure = Some(failed.failure.meaning());
            if let (Downstream::H2 { outgoing, .. }, Cause::UpstreamReset(reason)) =
                (&over, &failed.failure.cause)
            {
                // In the backend's own words.
                outgoing.reset(*reason);
            }
            if let (Downstream::H1 { io, .. }, true) = (over, failed.until_close) {
                // Nothing but a reset tells this client that the response is not whole.
                io.reset_on_close();
            }
            return Next::Abort;
        }
        let keep_alive = wanted.keep_alive && !failed.consumed && !failed.failure.meaning().closes;
        let connection = self.skip_body(&mut over, wanted.framing, keep_alive);
        let head = std::mem::take(self.head);
        let next = self
            .answer_failure(&over, &failed.failure, connection, Some(&head), account)
            .await;
        *self.head = head;
        next
    }

    pub(super) async fn answer_failure(
        &mut self,
        over: &Downstream<'_>,
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
        if let Some(head) = head
            && respond::in_words_of_grpc(head)
        {
            account.grpc_status = Some(grpc::code_of(meaning.status));
        }
        let explanation = match &failure.cause {
            _ if account.audience != Audience::Anybody => {
                explain::details(failure, account, self.worker)
            }
            // Which backend, and why, is for the log only.
            Cause::NoBackend(_) | Cause::Connect(_) => "no backend can serve this now".to_owned(),
            Cause::BadResponse(_) | Cause::ResponseBody(_) | Cause::UpstreamClosed => {
                "the backend's response was not usable".to_owned()
            }
            Cause::Unasked(_) => "nobody can say now whether this may be done".to_owned(),
            cause => cause.to_string(),
        };
        let own = respond::error(
            meaning.status,
            &explanation,
            failure.retry_after(),
            &account.request_id,
            head,
        );
        let config = &self.worker.shared.config;
        let mut own = own.edited(head.and_then(|head| self.edits(config, head, account)));
        if account.audience == Audience::Asking {
            own.explain(&explain::field(account, self.worker));
        }
        account.sent = own.length();
        let buffers = &self.worker.buffers;
        let written = own.send(over, connection, self.writing, buffers).await;
        after_own(connection, written)
    }

    /// Takes the body of a request that nobody gets out of the inbox, if it is whole there. If it
    /// is not, the connection cannot go on.
    fn skip_body(
        &self,
        over: &mut Downstream<'_>,
        framing: BodyFraming,
        keep_alive: bool,
    ) -> ConnectionField {
        // A stream ends with its response, whatever was to come on it.
        let Downstream::H1 { inbox, .. } = over else {
            return ConnectionField::None;
        };
        if !keep_alive {
            return ConnectionField::Close;
        }
        let Some(used) = whole_body(framing, inbox.filled()) else {
            return ConnectionField::Close;
        };
        inbox.consume(used);
        match self.head.version {
            Version::Http10 => ConnectionField::KeepAlive,
            _ => ConnectionField::None,
        }
    }
}

/// HTTP/1.0 without Host.
fn nameless() -> Failed {
    let rejection = Rejection::bad_request("no host to redirect to");
    let failure = Failure::new(Cause::Rejected(rejection), Progress::NothingSent);
    Failed::unconsumed(failure)
}

fn after_own(connection: ConnectionField, written: bool) -> Next {
    match (written, connection) {
        (false, _) => Next::Abort,
        (true, ConnectionField::Close) => Next::Close,
        (true, _) => Next::Request,
    }
}
