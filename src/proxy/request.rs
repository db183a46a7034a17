//! One request of a client: checked, routed, sent to a backend, answered, accounted for.
//!
//! Its head lies in the connection already. Whatever happens ends in a [`Next`].

use std::net::IpAddr;
use std::rc::Rc;

use super::account::Account;
use super::auth::{Answer, Asking};
use super::certificate_fields::Asked;
use super::compress::{Negotiated, forbids_transforming};
use super::connection::Serving;
use super::decide::{Decision, Passed};
use super::drain::Phase;
use super::edits::{self, Edits, Told};
use super::exchange::{Failed, Outcome, exchange};
use super::failure::{Cause, Failure, Progress};
use super::forward::{self, Hop};
use super::grpc;
use super::job::{Downstream, Job};
use super::preference::Preference;
use super::rewrite;
use super::switch::Handshake;
use crate::config::{Config, Route, Scheme, Service};
use crate::http::body::{BodyFraming, request_framing, request_keeps_alive};
use crate::http::coding::negotiate;
use crate::http::h1::encode::ConnectionField;
use crate::http::h2;
use crate::http::head::{Rejection, RequestHead, Version, has_encoded_slash};
use crate::http::headers::{Fields, Known, Nominated};
use crate::io::pace::Patience;

/// What a request wants, besides what its head says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub framing: BodyFraming,
    /// Its connection may go on after the response.
    pub keep_alive: bool,
    /// What an extended CONNECT asks to speak.
    pub extended: Option<&'a str>,
}

/// Where a request goes on to, and by what its head is rewritten.
#[derive(Debug, Clone, Copy)]
struct Onward<'a> {
    route: &'a Route,
    service: &'a Service,
    hop: Hop<'a>,
    /// Bytes of its path that the route's stands for.
    matched: usize,
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

impl<'a> Serving<'a> {
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

    async fn forward(
        &mut self,
        mut over: Downstream<'_>,
        wanted: Wanted<'_>,
        account: &mut Account,
    ) -> Result<Next, Failed> {
        let Passed {
            route: at,
            service: index,
            matched,
        } = match self.decide(wanted, account)? {
            Decision::Answered(own) => return Ok(self.give(over, own, wanted, account).await),
            Decision::Passed(passed) => passed,
        };
        let Wanted {
            framing,
            keep_alive,
            extended,
        } = wanted;
        let worker = Rc::clone(self.worker);
        let route = &worker.shared.config.routes[at];
        let service = worker.service(index);
        let limits = &service.upstream;
        let upgrade = self.upgrade(service, wanted)?;
        // RFC 9110 §10.1.1: HTTP/1.0 has no interim responses to wait for.
        let expects_continue = self.head.version != Version::Http10
            && self
                .head
                .fields
                .first(Known::Expect)
                .is_some_and(|v| v.eq_ignore_ascii_case(b"100-continue"));
        let hop = self.hop();
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
        // What the client itself says: the backend may be told something else.
        let compress = (!service.compress.is_empty()).then(|| {
            let fields = &self.head.fields;
            let accepted = fields.named("Accept-Encoding");
            // RFC 9111 §5.2.1.6.
            let coding = negotiate(&service.compress, accepted);
            Negotiated {
                coding: coding.filter(|_| !forbids_transforming(fields)),
                service: index,
            }
        });
        let onward = Onward {
            route,
            service,
            hop,
            matched,
        };
        let nominated = self.rewrite(&mut over, onward, framing, account);
        // The rest are conversations, of which a copy would be a part only.
        let converses =
            || upgrade.is_some() || expects_continue || h2::head::is_grpc(&self.head.fields);
        let copying = match &route.mirror {
            Some(mirror) if !converses() => self.copy_of(at, mirror, framing, account),
            _ => None,
        };
        if service.request_headers.is_some() || route.request_headers.is_some() {
            let mut head = std::mem::take(self.head);
            self.edit(&mut head, service, route, account);
            *self.head = head;
        }
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
        let sending = Patience {
            stall: limits.body_timeout,
            min_rate: limits.min_rate,
        };
        self.lent.restart(sending, limits.stall_timeout);
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
        let lent = self.lent.again();
        match exchange(&worker, index, over.again(), &job, lent, account).await? {
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

    /// The protocol that the request switches to, if it wants to and may.
    fn upgrade<'s>(
        &self,
        service: &'s Service,
        wanted: Wanted<'_>,
    ) -> Result<Option<&'s str>, Failed> {
        let allowed = match (wanted.framing, wanted.extended) {
            (_, Some(protocol)) => {
                let mut allowed = service.upgrade.iter();
                let at = allowed.position(|token| **token == *protocol);
                Some(at.ok_or_else(|| {
                    Failed::unconsumed(Failure::new(
                        Cause::Rejected(Rejection {
                            status: 501,
                            reason: "this protocol is not passed on",
                        }),
                        Progress::NothingSent,
                    ))
                })?)
            }
            (BodyFraming::None | BodyFraming::Length(0), None) => {
                forward::wanted_upgrade(self.head, &service.upgrade)
            }
            _ => None,
        };
        Ok(allowed.map(|at| &*service.upgrade[at]))
    }

    /// What its head is rewritten by.
    fn hop(&self) -> Hop<'a> {
        let downstream = &self.worker.shared.config.downstream;
        Hop {
            client: self.client,
            address: self.peer.address.ip().to_canonical(),
            secure: self.peer.tls.is_some(),
            trusted: self.trusted,
            underscores: downstream.allow_underscores,
            forwarded: downstream.forwarded,
            certificate: self.listener().client_certificates().map(|_| Asked {
                shown: self.peer.certificate.as_deref(),
            }),
        }
    }

    /// Makes the client's head the one that goes on, but for what the configuration changes of its fields.
    /// What cannot be in its trailers comes back.
    fn rewrite(
        &mut self,
        over: &mut Downstream<'_>,
        onward: Onward<'_>,
        framing: BodyFraming,
        account: &mut Account,
    ) -> Nominated {
        let Onward {
            route,
            service,
            hop,
            matched,
        } = onward;
        let mut nominated = forward::nominated(framing, &self.head.fields);
        account.request_id = forward::rewrite_request(self.head, hop, account.request_id);
        if let Some(auth) = &route.auth {
            self.tell_of_client(auth);
        }
        let changes = [&service.request_headers, &route.request_headers];
        let changes = changes.into_iter().flatten();
        // What a client cannot say in its head it does not say behind its body either.
        let told = route.auth.iter().flat_map(|auth| &*auth.response_headers);
        let told = told.map(|name| name.as_bytes());
        let barred = told.chain(changes.clone().flat_map(edits::replaced));
        if framing != BodyFraming::None && barred.clone().next().is_some() {
            nominated = nominated.and(barred.clone());
            if let Downstream::H2 { incoming, .. } = over {
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
        nominated
    }

    /// Changes the fields of a head that goes on to `service` by that route.
    pub(super) fn edit(
        &self,
        head: &mut RequestHead,
        service: &Service,
        route: &Route,
        account: &Account,
    ) {
        let changes = [&service.request_headers, &route.request_headers];
        for changes in changes.into_iter().flatten() {
            let told = Told {
                client: self.client(&head.fields),
                host: &head.host,
                request_id: account.request_id,
                scheme: self.scheme(&head.fields),
            };
            edits::apply(changes, &mut head.fields, told);
        }
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
    pub(super) fn edits<'e>(
        &self,
        config: &'e Config,
        head: &'e RequestHead,
        account: &Account,
    ) -> Option<Edits<'e>> {
        let (route, service) = (account.route_index, account.service);
        edits::of_responses(config, route, service, self.peer, || Told {
            client: self.client(&head.fields),
            host: &head.host,
            request_id: account.request_id,
            scheme: self.scheme(&head.fields),
        })
    }
}
