//! A client's connection that speaks HTTP/2: streams are accepted, each is a request of its own, and
//! the connection ends when its time is up, a drain ends it, or its client floods it.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use ::h2::server::{self, Connection as Wire};
use bytes::Bytes;

use super::connection::{Connection, Origin};
use super::drain::Phase;
use super::peer::ArrivedAt;
use super::serve::Runners;
use super::stream::Stream;
use super::tally::{Counted, Tally};
use crate::clock::Millis;
use crate::config::Service;
use crate::http::h2::PREFACE;
use crate::http::h2::flood::{Flood, Kind};
use crate::io::adapter::{Adapter, Inspect};
use crate::io::deadline::Deadlines;
use crate::io::pace::{Pace, Patience};

/// Counts the frames of a connection, and remembers which were too many.
#[derive(Debug)]
struct Guard {
    flood: Flood,
    deadlines: Rc<Deadlines>,
    tripped: Rc<Cell<Option<Kind>>>,
    held_up: Rc<Cell<bool>>,
}

impl Inspect for Guard {
    fn came(&mut self, bytes: &[u8]) -> bool {
        // Once is enough: what comes behind it need not be carried out.
        let kind = self.flood.look(bytes, self.deadlines.now());
        if kind.is_some() {
            self.tripped.set(kind);
        }
        kind.is_none()
    }

    fn went(&mut self, n: usize) {
        self.flood.sent(n);
    }

    fn held_up(&mut self, held_up: bool) {
        self.held_up.set(held_up);
    }
}

/// Serves a connection whose client speaks HTTP/2, until it ends.
pub(super) async fn streams(connection: Connection, runners: Rc<Runners>) {
    let (mut origin, transport, came, ages, open) = connection.into_parts();
    let is_told = |service: &Service| service.proxy_header.is_some();
    if origin.worker.shared.config.services.iter().any(is_told)
        && let Ok(address) = transport.tcp().local_addr()
    {
        let name = transport.tls().and_then(|tls| tls.name());
        let name = name.map(Into::into);
        origin.peer.arrival = Some(Rc::new(ArrivedAt { address, name }));
    }
    origin.peer.coding = Some(Rc::default());
    let origin = Rc::new(origin);
    let worker = Rc::clone(&origin.worker);
    let (downstream, deadlines) = (&worker.shared.config.downstream, &worker.deadlines);
    let tripped = Rc::new(Cell::new(None));
    let held_up = Rc::<Cell<bool>>::default();
    let guard = Guard {
        flood: Flood::new(PREFACE.len(), deadlines.now()),
        deadlines: Rc::clone(deadlines),
        tripped: Rc::clone(&tripped),
        held_up: Rc::clone(&held_up),
    };
    let writing = Pace::new(
        deadlines.timer(),
        most_patient(&worker.shared.config.services),
    );
    let io = Adapter::new(transport, came, guard, writing, deadlines.timer());
    let handshake = server::Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(downstream.max_streams)
        .max_header_list_size(u32::try_from(downstream.header_bytes).unwrap_or(u32::MAX))
        .max_send_buffer_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(Some(OWN_RESETS))
        .enable_connect_protocol()
        .handshake::<_, Bytes>(io);
    let timer = deadlines.timer();
    let wire = match timer.limit(downstream.header_timeout, handshake).await {
        Ok(Ok(wire)) => wire,
        Ok(Err(error)) => return tracing::debug!(%error, "no HTTP/2 after all"),
        Err(_) => return,
    };
    // It may be open for longer than its generation of the configuration.
    drop(worker);
    let mut session = Session {
        origin,
        wire,
        runners,
        tally: Rc::default(),
        tripped,
        held_up,
        ages,
        ending: Ending::Not,
        fresh: true,
        resting: false,
        timer,
    };
    if let Err(error) = poll_fn(|cx| session.poll(cx)).await {
        tracing::debug!(%error, client = %session.origin.client, "HTTP/2 connection failed");
    }
    drop(open);
}

/// A connection that is served.
struct Session {
    origin: Rc<Origin>,
    wire: Wire<Adapter<Guard>, Bytes>,
    runners: Rc<Runners>,
    tally: Rc<Tally>,
    tripped: Rc<Cell<Option<Kind>>>,
    /// The client has not taken all that was sent to it.
    held_up: Rc<Cell<bool>>,
    ages: Option<Millis>,
    ending: Ending,
    /// No request has come on it yet.
    fresh: bool,
    /// No request is under way, and the timer is set for that.
    resting: bool,
    timer: crate::io::deadline::Timer,
}

/// How far a connection is on its way to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Not,
    /// The client was told to send no more; what is under way goes on (RFC 9113 §6.8).
    Graceful,
    /// It floods us, and is told so.
    Abrupt,
}

impl Session {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ::h2::Error>> {
        if self.origin.worker.is_superseded() && !self.origin.is_closed() {
            self.origin = Rc::new(self.origin.renewed());
        }
        loop {
            while let Poll::Ready(accepted) = self.wire.poll_accept(cx) {
                match accepted {
                    None => return Poll::Ready(Ok(())),
                    Some(Err(e)) => return Poll::Ready(Err(e)),
                    Some(Ok((request, respond))) => {
                        self.fresh = false;
                        let counted = Counted::one(&self.tally);
                        let origin = Rc::clone(&self.origin);
                        let stream = Stream::new(origin, request, respond, counted);
                        tokio::task::spawn_local(self.runners.carry_out(stream));
                    }
                }
            }
            if let Some(kind) = self.tripped.take() {
                self.origin.worker.metrics.downstream_error(kind.name());
                tracing::debug!(client = %self.origin.client, kind = kind.name(), "HTTP/2 flood");
                self.wire.abrupt_shutdown(kind.reason());
                self.ending = Ending::Abrupt;
                self.timer.set(FAREWELL);
                continue;
            }
            if self.ending != Ending::Not {
                return self.poll_end(cx);
            }
            if !self.is_over(cx) {
                return Poll::Pending;
            }
            self.wire.graceful_shutdown();
            self.ending = Ending::Graceful;
            self.resting = false;
        }
    }

    /// Is the client to be told to send no more?
    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        let worker = &self.origin.worker;
        if worker.shared.drain.phase() >= Phase::Closing {
            return true;
        }
        if self.ages.is_some_and(|ages| self.timer.now() >= ages) || self.origin.is_closed() {
            return true;
        }
        let longest = self.longest_rest();
        if self.rests(cx, longest) {
            return true;
        }
        if !self.resting {
            return false;
        }
        self.origin
            .worker
            .sheds(|| longest.saturating_sub(self.timer.left()))
    }

    /// True: no request was under way for so long. Until then the task is woken in time.
    fn rests(&mut self, cx: &mut Context<'_>, time: Duration) -> bool {
        if self.tally.is_any() {
            self.tally.wake_when_none(cx.waker());
            if self.resting {
                self.resting = false;
                self.timer.clear();
            }
            // To be woken when a drain goes on; and its age is looked at now and then.
            let left = self.ages.map(|ages| ages.since(self.timer.now()));
            if let Some(left) = left {
                self.timer.set(left);
            }
            let _ = self.timer.poll_expired(cx);
            return false;
        }
        if !self.resting {
            self.resting = true;
            self.timer.set(time);
        }
        self.timer.poll_expired(cx).is_ready()
    }

    fn longest_rest(&self) -> Duration {
        let downstream = &self.origin.worker.shared.config.downstream;
        match self.fresh {
            true => downstream.header_timeout,
            false => downstream.keep_alive,
        }
    }

    /// Waits for the requests that are under way, and a little for the client to go.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ::h2::Error>> {
        let is_over = match self.ending {
            Ending::Abrupt => self.timer.poll_expired(cx).is_ready(),
            Ending::Graceful | Ending::Not => {
                self.ages = None;
                // Answers are sent when they are with us; how long the client may take for them is the
                // adapter's matter.
                if self.held_up.get() {
                    self.resting = false;
                }
                self.rests(cx, FAREWELL)
            }
        };
        match is_over {
            true => Poll::Ready(Ok(())),
            false => Poll::Pending,
        }
    }
}

/// With a client that does not take what is sent to it at all, whichever stream it is for: as much
/// patience as the most patient service has.
fn most_patient(services: &[Service]) -> Patience {
    let limits = || services.iter().map(|service| &service.upstream);
    Patience {
        stall: limits().map(|l| l.stall_timeout).max().unwrap_or(STALL),
        min_rate: limits().map(|l| l.min_rate).min().unwrap_or(0),
    }
}

/// Where there is no service.
const STALL: Duration = Duration::from_secs(30);

/// A client whose connection ends, and that has no request under way, has so long to go.
const FAREWELL: Duration = Duration::from_secs(2);

/// What a client may send before it was passed on, in bytes: on one stream, on all of a connection.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// Bytes that a stream holds which have room in its window and are not with the kernel yet.
const SEND_BUFFER: usize = 64 * 1024;

/// Streams that were reset before we saw them (CVE-2023-44487).
const PENDING_RESETS: usize = 20;

/// Streams that a client made us reset (CVE-2025-8671, "MadeYouReset"), until the connection ends.
const OWN_RESETS: usize = 200;
