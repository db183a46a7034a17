//! What went wrong with a request: whose side, how far it had got, and what follows from that.

use std::io;
use std::time::Duration;

use crate::balance::picker::NoBackend;
use crate::http::h1::body::BadBody;
use crate::http::head::{BadResponse, Rejection};
use crate::tls::client_hello;
use crate::upstream::establish::Unestablished;

/// Whose side a failure is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The client.
    Downstream,
    /// A backend, or that there is none.
    Upstream,
    /// Ourselves, the configuration included.
    Internal,
}

impl Side {
    /// As logs and metrics call it.
    pub fn name(self) -> &'static str {
        match self {
            Side::Downstream => "downstream",
            Side::Upstream => "upstream",
            Side::Internal => "internal",
        }
    }
}

/// How far an attempt had got when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Progress {
    /// The backend has not been sent a byte.
    NothingSent,
    /// It was sent something and has sent nothing.
    Sent,
    /// Bytes of a response have come.
    Answered,
    /// Bytes of the final response have gone on to the client.
    Forwarded,
}

/// What happened.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// The client's request is refused.
    #[error("{}", .0.reason)]
    Rejected(Rejection),
    /// The client's body is broken.
    #[error("request body: {0}")]
    RequestBody(BadBody),
    /// The client's body is larger than the service takes.
    #[error("request body is larger than max_body")]
    BodyTooLarge,
    /// The client closed before its request was whole.
    #[error("the client closed before its request was whole")]
    ClientClosed,
    /// The client's connection failed.
    #[error("the client's connection failed: {0}")]
    ClientIo(#[source] io::Error),
    /// The client has given its stream up.
    #[error("the client has reset its stream, or left")]
    ClientReset,
    /// The time that the client gave to its call is over.
    #[error("the client's deadline has passed")]
    CallDeadline,
    /// The client does not send its request, or does not take its response.
    #[error("the client held us up for too long")]
    ClientStalled,
    /// The listener or the route does not admit clients from where this one is.
    #[error("clients from this address are not admitted")]
    Denied,
    /// The service that says who may did not grant it; its answer went to the client.
    #[error("another service did not grant the request")]
    NotGranted,
    /// The service that says who may could not be asked.
    #[error("another service has to grant the request, and could not be asked: {0}")]
    Unasked(#[source] Box<Failure>),
    /// No route matches.
    #[error("no route matches")]
    NoRoute,
    /// The client made more requests than it may; the next one may come after so long.
    #[error("too many requests")]
    RateLimited(Duration),
    /// There is nobody to send it to.
    #[error("{0}")]
    NoBackend(#[source] NoBackend),
    /// No connection could be made.
    #[error("{0}")]
    Connect(#[source] Unestablished),
    /// The backend closed, or its connection broke, before its response was whole.
    #[error("the backend closed its connection too early")]
    UpstreamClosed,
    /// The backend ended the stream of the request before its response was whole.
    #[error("the backend has reset the stream: {0}")]
    UpstreamReset(::h2::Reason),
    /// The backend answered otherwise than by switching protocols, and the client has no words for that.
    #[error("the backend does not switch protocols")]
    NotSwitched,
    /// The backend said that it has not taken the request, nor will it.
    #[error("the backend refused the stream")]
    Refused,
    /// The backend does not take the request.
    #[error("the backend held us up for too long")]
    UpstreamStalled,
    /// The backend's response cannot be understood.
    #[error("bad response: {0}")]
    BadResponse(BadResponse),
    /// The backend's body is broken.
    #[error("response body: {0}")]
    ResponseBody(BadBody),
    /// No response in time.
    #[error("no response in time")]
    ResponseTimeout,
    /// No response to this attempt within `try_timeout`.
    #[error("no response within try_timeout")]
    TryTimeout,
    /// A response that `retry_on` lists.
    #[error("the backend answered {0}")]
    Status(u16),
    /// Nothing moved for too long while the response was under way.
    #[error("nothing moved for too long")]
    StreamIdle,
    /// What the client begins with is no ClientHello that could be passed on.
    #[error("{0}")]
    BadHello(#[source] client_hello::Refused),
    /// It was idle, and memory runs short.
    #[error("closed for want of memory")]
    Shed,
    /// A drain's deadline passed.
    #[error("cut off by the drain deadline")]
    Drained,
}

/// A request that failed, or one attempt at it.
#[derive(Debug, thiserror::Error)]
#[error("{cause}")]
pub struct Failure {
    /// What happened.
    #[source]
    pub cause: Cause,
    /// How far it had got.
    pub progress: Progress,
}

/// What a failure means to the client, the log and the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meaning {
    /// Whose side.
    pub side: Side,
    /// Status to answer with, as long as nothing was forwarded; 0: there is nobody to answer.
    pub status: u16,
    /// Label of the metric and of the log field.
    pub reason: &'static str,
    /// The client's connection cannot be used any further.
    pub closes: bool,
}

impl Failure {
    /// A failure of an attempt that had got so far.
    pub fn new(cause: Cause, progress: Progress) -> Failure {
        Failure { cause, progress }
    }

    /// For how many seconds the client is asked to wait before it tries again (RFC 9110 §10.2.3).
    pub fn retry_after(&self) -> Option<u64> {
        match &self.cause {
            Cause::RateLimited(wait) => Some(wait.as_nanos().div_ceil(1_000_000_000) as u64),
            _ if self.meaning().status == 503 => Some(1),
            _ => None,
        }
    }

    /// The one place where status, side, label and connection handling are derived.
    pub fn meaning(&self) -> Meaning {
        use Side::{Downstream, Internal, Upstream};
        let (side, status, reason, closes) = match &self.cause {
            Cause::Rejected(r) => (Downstream, r.status, "bad_request", true),
            Cause::RequestBody(_) => (Downstream, 400, "bad_request_body", true),
            Cause::BodyTooLarge => (Downstream, 413, "body_too_large", true),
            Cause::ClientClosed => (Downstream, 400, "client_closed", true),
            Cause::ClientIo(_) => (Downstream, 0, "client_io", true),
            Cause::ClientReset => (Downstream, 0, "client_reset", true),
            Cause::CallDeadline => (Downstream, 504, "client_deadline", false),
            Cause::ClientStalled => (Downstream, 408, "client_stalled", true),
            Cause::RateLimited(_) => (Downstream, 429, "rate_limited", false),
            Cause::Denied => (Downstream, 403, "denied", false),
            Cause::NotGranted => (Downstream, 403, "not_granted", false),
            Cause::Unasked(why) => {
                let status = match why.meaning().status {
                    502 => 502,
                    _ => 503,
                };
                (Upstream, status, "auth_unasked", false)
            }
            Cause::NoRoute => (Internal, 404, "no_route", false),
            Cause::NoBackend(NoBackend::Unresolved) => (Upstream, 503, "unresolved", false),
            Cause::NoBackend(NoBackend::Full) => (Upstream, 503, "overloaded", false),
            Cause::NoBackend(_) => (Upstream, 503, "no_backend", false),
            Cause::Connect(e) => (Upstream, 503, e.reason(), false),
            Cause::UpstreamClosed => (Upstream, 502, "upstream_closed", false),
            Cause::UpstreamReset(_) => (Upstream, 502, "upstream_reset", false),
            Cause::NotSwitched => (Upstream, 502, "not_switched", false),
            Cause::Refused => (Upstream, 503, "refused_stream", false),
            Cause::UpstreamStalled => (Upstream, 504, "upstream_stalled", false),
            Cause::BadResponse(_) => (Upstream, 502, "bad_response", false),
            Cause::ResponseBody(_) => (Upstream, 502, "bad_response_body", false),
            Cause::ResponseTimeout => (Upstream, 504, "response_timeout", false),
            Cause::TryTimeout => (Upstream, 504, "try_timeout", false),
            Cause::Status(status) => (Upstream, *status, "retried_status", false),
            Cause::StreamIdle => (Upstream, 504, "stream_idle", false),
            Cause::BadHello(client_hello::Refused::NotTls) => (Downstream, 400, "not_tls", true),
            Cause::BadHello(_) => (Downstream, 400, "bad_client_hello", true),
            Cause::Shed => (Internal, 503, "memory", true),
            Cause::Drained => (Internal, 503, "drained", true),
        };
        Meaning {
            side,
            status,
            reason,
            closes,
        }
    }
}
