//! What an attempt is about, how far it has come, and how it can end: what `exchange.rs`, which makes
//! attempts, and `attempt.rs`, which is one, say to each other.

use std::cell::Cell;
use std::future::poll_fn;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::compress::Negotiated;
use super::edits::Edits;
use super::failure::{Cause, Failure, Progress};
use super::mirror::{Copied, Copying};
use super::peer::Peer;
use super::preference::Preference;
use super::worker::Worker;
use crate::config::Upstream as Limits;
use crate::http::body::BodyFraming;
use crate::http::h2::incoming::Incoming;
use crate::http::h2::outgoing::Outgoing;
use crate::http::head::{Method, RequestHead};
use crate::http::headers::Nominated;
use crate::io::buffer::Inbox;
use crate::io::deadline::Timer;
use crate::io::duplex::Duplex;
use crate::io::pace::Pace;
use crate::upstream::backend::{BackendId, InFlight};
use crate::upstream::streams::Call;

/// What an attempt is about.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// Whose request it is.
    pub peer: &'a Peer,
    /// The head for the backend.
    pub head: &'a RequestHead,
    /// Framing of the request's body, the same on both sides.
    pub framing: BodyFraming,
    /// Trailers of the request that belong to the client's connection.
    pub nominated: &'a Nominated,
    /// Protocol to switch to, if the client asked for one that is allowed.
    pub upgrade: Option<&'a str>,
    /// Whom the request wants.
    pub preference: Preference,
    /// Value of a `Set-Cookie` that its client is given with the response.
    pub cookie: Option<&'a str>,
    /// What is done to the fields of a response that goes on; `None`: nothing.
    pub(super) edits: Option<&'a Edits<'a>>,
    /// In which coding the response may go out; `None`: its service codes none.
    pub(super) compress: Option<Negotiated>,
    /// Value of an `X-Evenkeel-Explain` that its client is given with the response.
    pub explanation: Option<&'a str>,
    /// It asks whether a request with this method may go on: a response of 2xx is for us.
    pub asks_for: Option<Method>,
    /// The client's connection may go on after the response.
    pub keep_alive: bool,
    /// The client waits for `100 (Continue)` before it sends its body.
    pub expects_continue: bool,
    /// Largest body.
    pub max_body: u64,
    /// Deadlines.
    pub limits: &'a Limits,
    /// It is a call by gRPC.
    pub grpc: bool,
    /// The first byte of a response has so long, all attempts together.
    pub time: Duration,
    /// When the client wants no response any more (`grpc-timeout`).
    pub deadline: Option<&'a Timer>,
    /// The first byte of a response has so long; the clock starts when the request has been sent.
    pub patience: Duration,
    /// What `patience` running out is called.
    pub out_of_patience: OutOfPatience,
    /// Responses that are not passed on, if the request may go to another backend.
    pub again: Option<Again<'a>>,
    /// Its backend, and what is found out about it by the way.
    pub watched: Option<&'a Watched<'a>>,
    /// What is sent is copied there on its way.
    pub(super) copying: Option<&'a Copying>,
}

impl<'a> Job<'a> {
    /// A request without a body, of which nothing is known but this: as long as its service has time.
    pub(super) fn new(
        peer: &'a Peer,
        head: &'a RequestHead,
        nominated: &'a Nominated,
        limits: &'a Limits,
    ) -> Job<'a> {
        Job {
            peer,
            head,
            framing: BodyFraming::None,
            nominated,
            upgrade: None,
            preference: Preference::default(),
            cookie: None,
            edits: None,
            compress: None,
            explanation: None,
            asks_for: None,
            keep_alive: true,
            expects_continue: false,
            max_body: u64::MAX,
            limits,
            grpc: false,
            time: limits.response_timeout,
            deadline: None,
            patience: limits.response_timeout,
            out_of_patience: OutOfPatience::ResponseTimeout,
            again: None,
            watched: None,
            copying: None,
        }
    }
}

/// What it is called when the first byte of a response does not come in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutOfPatience {
    /// The time for all attempts is over.
    ResponseTimeout,
    /// The time for this attempt is over.
    TryTimeout,
}

/// The backend of an attempt, while it goes on.
#[derive(Debug)]
pub struct Watched<'a> {
    /// Index of the service.
    pub service: usize,
    /// Counts the attempt.
    pub guard: &'a InFlight,
    /// When the attempt began.
    pub begun: Instant,
    /// What becomes of the attempt decides whether the backend is taken back.
    pub trial: Cell<bool>,
}

impl Watched<'_> {
    /// A final response has begun.
    pub(super) fn answered(&self, worker: &Worker, state: &State) {
        let latency = || {
            // The time of a client that was slow with its body is not the backend's.
            let first_byte = state.first_byte.get().filter(|_| !state.consumed.get());
            first_byte.map(|at| at.saturating_duration_since(self.begun))
        };
        self.guard.answered(latency, worker.deadlines.now());
    }

    /// A response that goes on for long is a trial that has passed: a stream may have no end.
    pub(super) fn look_at_trial(&self, worker: &Worker, state: &State) {
        if !self.trial.get() || state.status.get() == 0 {
            return;
        }
        let since = state.first_byte.get().map(|at| at.elapsed());
        if since.is_some_and(|since| since >= LIVES) {
            self.trial.set(false);
            worker.trial_passed(self.service, self.guard.backend());
        }
    }
}

/// Responses that are tried again rather than passed on.
#[derive(Debug, Clone, Copy)]
pub struct Again<'a> {
    /// Their status codes.
    pub statuses: &'a [RangeInclusive<u16>],
    /// Index of the service.
    pub service: usize,
    /// Backends that have had the request.
    pub tried: &'a [BackendId],
}

/// The client's side of an attempt.
#[derive(Debug)]
pub struct Client<'a> {
    /// What its request comes over.
    pub over: Downstream<'a>,
    /// Patience with its sending.
    pub reading: &'a mut Pace,
    /// Patience with its receiving.
    pub writing: &'a mut Pace,
}

/// What a client's request comes over, and its response goes back.
#[derive(Debug)]
pub enum Downstream<'a> {
    /// A connection of its own.
    H1 {
        /// The connection.
        io: &'a Duplex,
        /// What came from it and was not used yet.
        inbox: &'a mut Inbox,
    },
    /// A stream of an HTTP/2 connection.
    H2 {
        /// What comes on it.
        incoming: &'a mut Incoming,
        /// What goes.
        outgoing: &'a Outgoing,
    },
    /// Nothing: it is a copy, whose body is here, and nobody reads the response.
    Copy(&'a Copied),
}

/// What a request goes to a backend over.
#[derive(Debug)]
pub enum Upstream {
    /// A connection of its own.
    H1(Duplex),
    /// A stream of an HTTP/2 connection; its head has been sent.
    H2(Call),
}

/// What the backend sent after the head by which it switched protocols.
#[derive(Debug)]
pub enum Rest {
    /// These bytes, and what comes on the connection.
    H1(Inbox),
    /// What comes on the stream.
    H2(Incoming),
}

impl<'a> Downstream<'a> {
    /// The same for a shorter time.
    pub fn again(&mut self) -> Downstream<'_> {
        match self {
            Downstream::H1 { io, inbox } => Downstream::H1 { io, inbox },
            Downstream::H2 { incoming, outgoing } => Downstream::H2 { incoming, outgoing },
            Downstream::Copy(copied) => Downstream::Copy(copied),
        }
    }

    /// The client's connection, if it has no other requests.
    pub fn socket(&self) -> Option<&'a Duplex> {
        match self {
            Downstream::H1 { io, .. } => Some(io),
            Downstream::H2 { .. } | Downstream::Copy(_) => None,
        }
    }

    /// How the client can be seen to give the request up.
    pub fn leaving(&self) -> Leaving<'a> {
        Leaving(match self {
            Downstream::H1 { .. } | Downstream::Copy(_) => None,
            Downstream::H2 { outgoing, .. } => Some(outgoing),
        })
    }
}

/// Whether a client has given its request up. Of HTTP/1.1 that is not known before it is answered.
#[derive(Debug, Clone, Copy)]
pub struct Leaving<'a>(Option<&'a Outgoing>);

impl Leaving<'_> {
    /// Ready when it has.
    pub fn poll_gone(self, cx: &mut Context<'_>) -> Poll<()> {
        match self.0 {
            None => Poll::Pending,
            Some(outgoing) => outgoing.poll_reset(cx).map(drop),
        }
    }

    /// What a future gives; `None` if the client gives the request up before. Pinned by the caller: they
    /// are large, and would be copied here.
    pub async fn or<F: Future>(self, mut work: Pin<&mut F>) -> Option<F::Output> {
        poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
            Poll::Pending => self.poll_gone(cx).map(|()| None),
        })
        .await
    }
}

/// How far an attempt has come; looked at by both futures and by the caller afterwards.
#[derive(Debug)]
pub struct State {
    /// See [`Progress`].
    pub progress: Cell<Progress>,
    /// Bytes of the request body were taken out of the inbox: it cannot be sent again.
    pub consumed: Cell<bool>,
    /// The request has been sent to its end.
    pub request_done: Cell<bool>,
    /// Bytes in the inbox that belong to a request which is done.
    pub used: Cell<usize>,
    /// Bytes of the request's body taken from the client.
    pub received: Cell<u64>,
    /// Bytes of the response's body given to the client.
    pub sent: Cell<u64>,
    /// The client was given the 100 that it waits for.
    pub continued: Cell<bool>,
    /// When the first byte of the response came.
    pub first_byte: Cell<Option<Instant>>,
    /// Final status forwarded; 0: none yet.
    pub status: Cell<u16>,
    /// What gRPC says of how the call went.
    pub grpc_status: Cell<Option<u8>>,
    /// The response has no other end than the closing of the connection.
    pub until_close: Cell<bool>,
}

impl State {
    /// Nothing has happened.
    pub fn new() -> State {
        State {
            progress: Cell::new(Progress::NothingSent),
            consumed: Cell::new(false),
            request_done: Cell::new(false),
            used: Cell::new(0),
            received: Cell::new(0),
            sent: Cell::new(0),
            continued: Cell::new(false),
            first_byte: Cell::new(None),
            status: Cell::new(0),
            grpc_status: Cell::new(None),
            until_close: Cell::new(false),
        }
    }

    pub(super) fn reached(&self, progress: Progress) {
        self.progress.set(self.progress.get().max(progress));
    }

    pub(super) fn fail(&self, cause: Cause) -> Failure {
        Failure::new(cause, self.progress.get())
    }
}

/// How an attempt ended well.
#[derive(Debug)]
pub enum Done {
    /// The response went to the client to its end.
    Answered {
        /// The client's connection may be used again.
        client_keeps: bool,
        /// The backend's connection may be used again.
        upstream_keeps: bool,
    },
    /// What was asked for is granted; the head of the response lies in its room.
    Granted {
        /// The backend's connection may be used again.
        upstream_keeps: bool,
    },
    /// The backend switches protocols (101); nothing was sent to the client yet. What the backend
    /// sends after its head is there.
    Switched(Rest),
}

/// A trial has passed when its response has gone on for so long.
const LIVES: Duration = Duration::from_secs(2);
