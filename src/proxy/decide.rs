//! Where a request goes, or what is answered here instead. Nothing is sent or waited for.

use std::sync::Arc;

use super::account::Account;
use super::admission;
use super::connection::Serving;
use super::drain::Phase;
use super::exchange::Failed;
use super::failure::{Cause, Failure, Progress};
use super::request::Wanted;
use super::respond::{self, Own};
use super::rewrite;
use crate::config::{Access, Target};
use crate::http::body::BodyFraming;
use crate::http::head::{Rejection, without_empty_segments};
use crate::router;

/// What becomes of a request.
#[derive(Debug)]
pub(super) enum Decision {
    /// It has its answer.
    Answered(Own),
    /// It goes on.
    Passed(Passed),
}

/// Where it goes on to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Passed {
    /// Index of its route.
    pub route: usize,
    /// Index of its service.
    pub service: usize,
    /// Bytes of its path that the route's stands for.
    pub matched: usize,
}

impl Serving<'_> {
    /// Decides, and says in the account what was found on the way.
    pub(super) fn decide(
        &self,
        wanted: Wanted<'_>,
        account: &mut Account,
    ) -> Result<Decision, Failed> {
        let shared = &self.worker.shared;
        if shared.drain.phase() >= Phase::CutRequests {
            // There is no time left for it.
            shared.drain.cut();
            return Err(refused(Cause::Drained));
        }
        if let Some(answer) = self.answer_to_authority() {
            let own = respond::text(answer, self.head, &account.request_id);
            return Ok(Decision::Answered(own));
        }
        self.admit(self.listener().access.as_ref())?;
        if let Some(to) = self.listener().redirect {
            if self.head.host.is_empty() {
                return Err(nameless());
            }
            let location = respond::over_https(to, self.head);
            return Ok(self.elsewhere(to.status, &location, account));
        }
        let head = &*self.head;
        let path = without_empty_segments(&head.path);
        let asked = router::Request {
            listener: self.peer.listener,
            method: match wanted.extended {
                // In HTTP/1.1 it is a GET.
                Some(_) => b"GET",
                None => &head.method_text,
            },
            host: &head.host,
            path: &path,
            query: &head.query,
            fields: &head.fields,
        };
        let found = shared.router.route(asked);
        let found = found.ok_or_else(|| refused(Cause::NoRoute))?;
        if shared
            .router
            .evades_guard(asked, found.route, &shared.config)
        {
            let reason = "escapes in a path that is guarded without them";
            return Err(refused(Cause::Rejected(Rejection::bad_request(reason))));
        }
        let route = &shared.config.routes[found.route];
        account.route = Some(Arc::clone(&found.label));
        account.route_index = Some(found.route);
        self.admit(route.access.as_ref())?;
        let matched = route.path.trim_end_matches('/').len();
        if let Target::Redirect(to) = &route.target {
            let location = rewrite::location(to, head, matched, self.scheme(&head.fields));
            let location = location.ok_or_else(nameless)?;
            return Ok(self.elsewhere(to.status, &location, account));
        }
        let index = self.worker.service_for(found.route);
        let index = index.expect("what does not redirect leads to a service");
        account.service = Some(index);
        let client = || self.peer.client(&head.fields, &shared.config);
        let spent = (shared.limits).spend(index, client, &head.fields, account.begun);
        spent.map_err(|wait| refused(Cause::RateLimited(wait)))?;
        if let (BodyFraming::Length(length), Some(max)) =
            (wanted.framing, self.worker.service(index).max_body)
            && length > max
        {
            return Err(refused(Cause::BodyTooLarge));
        }
        Ok(Decision::Passed(Passed {
            route: found.route,
            service: index,
            matched,
        }))
    }

    /// The client is sent elsewhere.
    fn elsewhere(&self, status: u16, location: &[u8], account: &Account) -> Decision {
        let edits = self.edits(&self.worker.shared.config, self.head, account);
        let own = respond::redirect(status, location, self.head, &account.request_id);
        Decision::Answered(own.edited(edits))
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

    /// Refuses the request where a list does not admit its client.
    fn admit(&self, access: Option<&Access>) -> Result<(), Failed> {
        let config = &self.worker.shared.config;
        let admitted = admission::of_request(access, self.peer, &self.head.fields, config);
        admitted.map_err(refused)
    }
}

/// A request that went nowhere.
fn refused(cause: Cause) -> Failed {
    Failed::unconsumed(Failure::new(cause, Progress::NothingSent))
}

/// HTTP/1.0 without Host.
fn nameless() -> Failed {
    refused(Cause::Rejected(Rejection::bad_request(
        "no host to redirect to",
    )))
}
