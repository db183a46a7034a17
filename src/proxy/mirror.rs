//! A copy of a share of a route's requests goes to another service, and nobody hears its answer.
//!
//! The body is copied as the original's goes to its backend; when that has had all of it, the copy sets
//! out in a task of its own, with one attempt, a deadline and a place among a bounded number. Nothing of
//! it comes back to the request that it is of. Which requests: an accumulator of each route and worker
//! takes `percent` for each and gives one at 100 (error diffusion), so that the share is exact.
//!
//! `request.rs` begins a copy, `attempt.rs` fills it.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use super::account::Account;
use super::connection::Serving;
use super::exchange::{Lent, exchange};
use super::failure::Cause;
use super::job::{Downstream, Job};
use super::peer::Peer;
use super::preference::Preference;
use super::recode::{self, Recode, TRAILERS};
use super::source::Source;
use super::worker::Worker;
use crate::config::{Config, Mirror};
use crate::http::body::BodyFraming;
use crate::http::h1::body::BodyDecoder;
use crate::http::head::{RequestHead, ResponseHead};
use crate::http::headers::{Fields, Nominated, is_same_field};
use crate::io::duplex::WriteError;
use crate::io::pace::{Pace, Patience};
use crate::telemetry::metrics::OpenCopy;

/// Says of a request that it is a copy.
pub(super) const FIELD: &[u8] = b"X-Evenkeel-Mirror";

/// So many bytes of an answer are read before its connection is closed instead: what a backend sends
/// without end would cost as much as an original.
const ANSWER: usize = 1024 * 1024;

/// The shares of routes that mirror, by the index of the route: one worker's.
#[derive(Debug, Default)]
pub(super) struct Mirrors(Box<[Option<Rc<Share>>]>);

/// Of one route.
#[derive(Debug)]
struct Share {
    /// Label of the route, and the listeners that it names.
    route: (Vec<Arc<str>>, Arc<str>),
    /// In hundredths of a request, below 100.
    due: Cell<u8>,
    /// Copies that are being made or are under way.
    in_flight: Cell<u32>,
}

impl Mirrors {
    /// Those of a configuration. `before`: of the one before it, whose shares go on.
    pub(super) fn new(config: &Config, before: &Mirrors) -> Mirrors {
        let mut known: Vec<_> = before.0.iter().flatten().map(Some).collect();
        let routes = config.routes.iter().map(|route| {
            route.mirror.as_ref()?;
            let listeners = route.listeners.iter();
            let listeners = listeners.map(|index| Arc::clone(&config.listeners[*index].name));
            let name = (listeners.collect(), Arc::clone(&route.label));
            let same = known
                .iter_mut()
                .find(|known| known.is_some_and(|known| known.route == name));
            let same = same.and_then(Option::take);
            Some(same.cloned().unwrap_or_else(|| {
                Rc::new(Share {
                    route: name,
                    due: Cell::new(0),
                    in_flight: Cell::new(0),
                })
            }))
        });
        Mirrors(routes.collect())
    }
}

impl Share {
    /// Is the next request one that is mirrored?
    fn takes(&self, percent: u8) -> bool {
        let due = self.due.get() + percent;
        self.due.set(due % 100);
        due >= 100
    }
}

/// A place among the copies of a route.
#[derive(Debug)]
struct Place {
    share: Rc<Share>,
    /// Counts the copy among those to its service.
    _counted: OpenCopy,
}

impl Place {
    /// `None`: all are taken.
    fn of(share: &Rc<Share>, most: u32, counted: impl FnOnce() -> OpenCopy) -> Option<Place> {
        let taken = share.in_flight.get();
        (taken < most).then(|| {
            share.in_flight.set(taken + 1);
            Place {
                share: Rc::clone(share),
                _counted: counted(),
            }
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let in_flight = &self.share.in_flight;
        in_flight.set(in_flight.get() - 1);
    }
}

impl Serving<'_> {
    /// Begins a copy of the request, if it is one that is mirrored. Its head is rewritten, and has none of
    /// the fields yet that the configuration adds: what the original's service is told, keys among it, is
    /// no business of another one.
    pub(super) fn copy_of(
        &self,
        route: usize,
        mirror: &Mirror,
        framing: BodyFraming,
        account: &Account,
    ) -> Option<Box<Copying>> {
        let worker = self.worker;
        let share = worker.mirrors().0.get(route)?.as_ref()?;
        // A copy of a copy would go round in circles where two proxies mirror to each other. A client that
        // is not trusted cannot say so: the field is taken from it.
        let is_copy = |name| is_same_field(name, FIELD);
        if self.head.fields.iter().any(|field| is_copy(field.name)) || !share.takes(mirror.percent)
        {
            return None;
        }
        if let BodyFraming::Length(length) = framing
            && length > mirror.max_body as u64
        {
            worker.metrics.mirrored(mirror.service, "too_large");
            return None;
        }
        let counted = || worker.metrics.copy(mirror.service);
        let Some(place) = Place::of(share, mirror.max_in_flight, counted) else {
            worker.metrics.mirrored(mirror.service, "dropped");
            return None;
        };
        let mut head = self.head.clone();
        let config = &worker.shared.config;
        self.edit(
            &mut head,
            worker.service(mirror.service),
            &config.routes[route],
            account,
        );
        head.fields.push(FIELD, b"1");
        Some(Box::new(Copying {
            framing,
            most: mirror.max_body,
            draft: RefCell::new(Some(Draft {
                body: BodyDecoder::new(framing, TRAILERS),
                bytes: Vec::new(),
                copy: Copy {
                    worker: Rc::clone(worker),
                    mirror: mirror.clone(),
                    peer: self.peer.clone(),
                    head,
                    request_id: account.request_id,
                    has_body: framing != BodyFraming::None,
                    _place: place,
                },
            })),
        }))
    }
}

/// A copy in the making.
#[derive(Debug)]
pub(super) struct Copying {
    framing: BodyFraming,
    /// Bytes of a body that is copied.
    most: usize,
    /// `None`: it was sent, or given up.
    draft: RefCell<Option<Draft>>,
}

#[derive(Debug)]
struct Draft {
    /// Of a body in the framing of HTTP/1.1.
    body: BodyDecoder,
    bytes: Vec<u8>,
    copy: Copy,
}

impl Copying {
    /// The request is sent from its start: for the first time, or to another backend.
    pub(super) fn begin(&self) {
        if let Some(draft) = &mut *self.draft.borrow_mut() {
            draft.bytes.clear();
            draft.body = BodyDecoder::new(self.framing, TRAILERS);
        }
    }

    /// Adds what came of the body over HTTP/1.1, and may be followed by another request.
    pub(super) fn add_framed(&self, input: &[u8]) {
        self.grow(|draft| {
            // What is wrong with it the original meets as well.
            let _ = recode::gather(&mut draft.body, input, Recode::Unchunk, &mut draft.bytes);
        });
    }

    /// Adds a piece of the body.
    pub(super) fn add(&self, piece: &[u8]) {
        self.grow(|draft| draft.bytes.extend_from_slice(piece));
    }

    fn grow(&self, add: impl FnOnce(&mut Draft)) {
        let mut slot = self.draft.borrow_mut();
        let Some(draft) = &mut *slot else {
            return;
        };
        add(draft);
        if draft.bytes.len() > self.most {
            draft.copy.count("too_large");
            *slot = None;
        }
    }

    /// The original is with its backend: so may the copy be. Once.
    pub(super) fn send(&self) {
        if let Some(Draft { bytes, copy, .. }) = self.draft.take() {
            tokio::task::spawn_local(copy.send(bytes.into()));
        }
    }
}

impl Drop for Copying {
    fn drop(&mut self) {
        if let Some(draft) = self.draft.take() {
            draft.copy.count("incomplete");
        }
    }
}

/// A request that is a copy.
#[derive(Debug)]
struct Copy {
    worker: Rc<Worker>,
    mirror: Mirror,
    peer: Peer,
    head: RequestHead,
    request_id: [u8; 32],
    has_body: bool,
    _place: Place,
}

impl Copy {
    fn count(&self, outcome: &'static str) {
        self.worker.metrics.mirrored(self.mirror.service, outcome);
    }

    /// Sends it, and drops what is answered. Ends by its deadline.
    async fn send(self, body: Bytes) {
        let worker = &self.worker;
        let (index, timeout) = (self.mirror.service, self.mirror.timeout);
        let service = worker.service(index);
        let mut limits = service.upstream.clone();
        limits.retries = 0;
        let nominated = Nominated::default();
        let timer = || worker.deadlines.timer();
        let (end, lent_timer, watch) = (timer(), timer(), timer());
        end.set(timeout);
        let job = Job {
            framing: match self.has_body {
                true => BodyFraming::Length(body.len() as u64),
                false => BodyFraming::None,
            },
            preference: Preference::of(service, worker.affinity(index), &self.head, &self.peer),
            time: timeout.min(limits.response_timeout),
            deadline: Some(&end),
            ..Job::new(&self.peer, &self.head, &nominated, &limits)
        };
        let patience = Patience {
            stall: limits.stall_timeout,
            min_rate: limits.min_rate,
        };
        let pace = || Pace::new(timer(), patience);
        let (mut reading, mut writing, mut pushing) = (pace(), pace(), pace());
        let copied = Copied {
            body,
            room: Cell::new(ANSWER),
        };
        let lent = Lent {
            timer: &lent_timer,
            watch: &watch,
            pinned: &mut None,
            reading: &mut reading,
            writing: &mut writing,
            pushing: &mut pushing,
            response: &mut ResponseHead::default(),
            tried: &mut Vec::new(),
        };
        let mut account = Account::begin(self.request_id);
        let outcome = exchange(
            worker,
            index,
            Downstream::Copy(&copied),
            &job,
            lent,
            &mut account,
        )
        .await;
        self.count(match outcome {
            _ if account.status != 0 => "answered",
            Err(failed) if matches!(failed.failure.cause, Cause::CallDeadline) => "timeout",
            _ => "failed",
        });
    }
}

/// What stands where a copy's client would: its body, and room for an answer that nobody reads.
#[derive(Debug)]
pub struct Copied {
    body: Bytes,
    /// Bytes of the answer that are still read.
    room: Cell<usize>,
}

impl Copied {
    /// Its body.
    pub(super) fn source(&self) -> Source<'static> {
        Source::Copy {
            body: self.body.clone(),
            trailers: Fields::default(),
        }
    }

    /// Takes so many bytes of the answer, unless that is too much.
    pub(super) fn discard(&self, n: usize) -> Result<(), WriteError> {
        let left = self.room.get().checked_sub(n);
        let left = left.ok_or_else(|| WriteError::Io(io::ErrorKind::FileTooLarge.into()))?;
        self.room.set(left);
        Ok(())
    }
}
