//! Asks another service whether a request may go on.
//!
//! It is an exchange like any other, of a request that has no body and is ours: a response of 2xx is
//! for us, and says that the request may go on; any other is the client's answer, as it is. Whatever
//! fails on the way there fails the request: nobody gets past a service that cannot be asked.

use std::rc::Rc;

use super::account::Account;
use super::connection::Serving;
use super::exchange::{Failed, Lent, Outcome, exchange};
use super::failure::{Cause, Failure, Progress, Side};
use super::forward::{self, Hop};
use super::job::{Downstream, Job};
use super::preference::Preference;
use super::recode::whole_body;
use super::request::Next;
use crate::config::Auth;
use crate::http::body::BodyFraming;
use crate::http::head::{Method, RequestHead};
use crate::http::headers::{Known, Nominated, is_same_field};
use crate::io::pace::Patience;

/// What is asked about a request, besides the request itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asking<'a> {
    pub auth: &'a Auth,
    pub hop: Hop<'a>,
    /// How the request's body is framed.
    pub framing: BodyFraming,
    /// The client's connection may go on after its response.
    pub keep_alive: bool,
    /// It is an extended CONNECT, which in HTTP/1.1 is a GET.
    pub extended: bool,
}

/// What was said.
#[derive(Debug)]
pub(super) enum Answer {
    /// It may go on. What the backend is told lies in the room for a response.
    Granted,
    /// It may not, and its client has the answer.
    Given(Next),
}

impl Serving<'_> {
    /// Asks. The request's head and body are left as they are.
    pub(super) async fn ask(
        &mut self,
        mut over: Downstream<'_>,
        asking: Asking<'_>,
        account: &mut Account,
    ) -> Result<Answer, Failed> {
        let Asking {
            auth,
            framing,
            keep_alive,
            ..
        } = asking;
        let worker = Rc::clone(self.worker);
        let service = worker.service(auth.service);
        let limits = &service.upstream;
        let (question, id) = question(self.head, asking, account.request_id);
        account.request_id = id;
        // A body that the client sends after its answer would be taken for its next request.
        let body = match &over {
            Downstream::H1 { inbox, .. } => whole_body(framing, inbox.filled()),
            Downstream::H2 { .. } | Downstream::Copy(_) => Some(0),
        };
        let patience = Patience {
            stall: limits.stall_timeout,
            min_rate: limits.min_rate,
        };
        self.lent.restart(patience, limits.stall_timeout);
        let edits = self.edits(&worker.shared.config, self.head, account);
        let affinity = worker.affinity(auth.service);
        let nominated = Nominated::default();
        let job = Job {
            preference: Preference::of(service, affinity, &question, self.peer),
            edits: edits.as_ref(),
            asks_for: Some(self.head.method),
            keep_alive: keep_alive && body.is_some(),
            time: auth.timeout.min(limits.response_timeout),
            ..Job::new(self.peer, &question, &nominated, limits)
        };
        let lent = Lent {
            // What waits there belongs to the request.
            pinned: &mut None,
            ..self.lent.again()
        };
        // The request has an account of its own still to come.
        let mut own = Account::begin(account.request_id);
        let outcome = exchange(&worker, auth.service, over.again(), &job, lent, &mut own).await;
        match outcome.map_err(unanswered)? {
            Outcome::Granted => {
                forward::rewrite_response(self.lent.response);
                Ok(Answer::Granted)
            }
            Outcome::Answered { client_keeps, .. } => {
                account.status = own.status;
                account.sent = own.sent;
                account.first_byte = own.first_byte;
                account.failure =
                    Some(Failure::new(Cause::NotGranted, Progress::Forwarded).meaning());
                if let (Downstream::H1 { inbox, .. }, Some(used)) = (over, body) {
                    inbox.consume(used);
                }
                Ok(Answer::Given(match client_keeps {
                    true => Next::Request,
                    false => Next::Close,
                }))
            }
            Outcome::Switched(_) => unreachable!("nothing asks it to switch"),
        }
    }

    /// Tells the backend what the service that was asked has said of the client, and nothing that the
    /// client said of itself.
    pub(super) fn tell_of_client(&mut self, auth: &Auth) {
        let names = || auth.response_headers.iter().map(|name| name.as_bytes());
        let fields = &mut self.head.fields;
        fields.retain(|field| !names().any(|name| is_same_field(field.name, name)));
        for name in &auth.response_headers {
            for value in self.lent.response.fields.named(name) {
                fields.push(name.as_bytes(), value);
            }
        }
    }
}

/// The head by which it is asked about a request.
fn question(head: &RequestHead, asking: Asking<'_>, fresh_id: [u8; 32]) -> (RequestHead, [u8; 32]) {
    let auth = asking.auth;
    let mut question = RequestHead {
        method: Method::Get,
        method_text: b"GET".to_vec(),
        version: head.version,
        authority: head.authority.clone(),
        host: head.host.clone(),
        port: head.port,
        path: auth.path.as_bytes().to_vec(),
        query: Vec::new(),
        fields: head.fields.clone(),
    };
    let id = forward::rewrite_request(&mut question, asking.hop, fresh_id);
    question.fields.retain(|field| match field.known {
        // What a proxy before us said; where it was not believed it is gone.
        Known::XForwardedOther => !is_about_request(field.name),
        Known::Forwarded
        | Known::Via
        | Known::XForwardedFor
        | Known::XForwardedHost
        | Known::XForwardedProto
        | Known::XRealIp
        | Known::XRequestId => true,
        Known::ContentLength | Known::ContentType | Known::Expect | Known::SecWebSocketKey => false,
        _ => match &auth.request_headers {
            Some(names) => names
                .iter()
                .any(|name| field.name.eq_ignore_ascii_case(name.as_bytes())),
            None => !is_about_body(field.name),
        },
    });
    let method: &[u8] = match asking.extended {
        true => b"GET",
        false => &head.method_text,
    };
    question.fields.push(b"X-Forwarded-Method", method);
    question.fields.push_with(b"X-Forwarded-Uri", |out| {
        out.extend_from_slice(&head.path);
        out.extend_from_slice(&head.query);
    });
    (question, id)
}

/// Is it one of those by which the request is described? They are ours to say.
fn is_about_request(name: &[u8]) -> bool {
    [&b"X-Forwarded-Method"[..], b"X-Forwarded-Uri"]
        .iter()
        .any(|own| is_same_field(name, own))
}

/// Is it about a body, which is not sent along, or about a part or a version of what is asked for?
fn is_about_body(name: &[u8]) -> bool {
    const PREFIXES: [&[u8]; 3] = [b"content-", b"if-", b"sec-websocket-"];
    let begins = |prefix: &&[u8]| {
        let start = name.get(..prefix.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    PREFIXES.iter().any(begins) || name.eq_ignore_ascii_case(b"range")
}

/// It was not asked, or did not answer. What is the client's own doing stays that.
fn unanswered(failed: Failed) -> Failed {
    let Failed { failure, .. } = failed;
    let progress = failure.progress;
    let is_upstream = failure.meaning().side == Side::Upstream;
    match is_upstream && progress < Progress::Forwarded {
        true => Failed {
            failure: Failure::new(Cause::Unasked(Box::new(failure)), progress),
            ..failed
        },
        false => Failed { failure, ..failed },
    }
}
