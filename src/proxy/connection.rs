//! A client's connection: how heads are read off it, and how it ends.
//!
//! `serve.rs` leads it from request to request; `request.rs` carries one out. What a connection has
//! of its own is small, because most connections are idle most of the time; what requests need
//! beside it is a `Room`, of which a worker has as many as there are requests under way.

use std::cell::OnceCell;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;

use super::drain::Phase;
use super::exchange::Lent;
use super::job::Downstream;
use super::peer::Peer;
use super::pinned::Pinned;
use super::worker::{OpenConnection, Worker};
use crate::clock::Millis;
use crate::config::Listener;
use crate::http::h1::parse::{self, HeadLimits};
use crate::http::h2;
use crate::http::head::{Rejection, RequestHead, ResponseHead};
use crate::io::adapter::{LINGER, LINGER_BYTES};
use crate::io::buffer::Inbox;
use crate::io::deadline::{Deadlines, TICK, Timer};
use crate::io::duplex::Duplex;
use crate::io::pace::{Pace, Patience};
use crate::io::transport::Transport;
use crate::upstream::backend::BackendId;

/// A response of our own to a request that has no service: so long for the client to take it.
const OWN_RESPONSE: Patience = Patience {
    stall: Duration::from_secs(30),
    min_rate: 0,
};

/// An idle connection whose listener is not there any more ends after so long.
const LAST_REST: Duration = Duration::from_secs(2);

/// Where requests come from: what all those of one connection have in common.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) worker: Rc<Worker>,
    pub(super) peer: Peer,
    /// The client's address as text, without the mapping of IPv4 into IPv6.
    pub(super) client: Box<str>,
    /// What it says of where its requests come from is believed.
    pub(super) trusted: bool,
    /// The host that its first request named, where others may follow on the same connection because
    /// a certificate stands for both.
    first_host: OnceCell<Box<str>>,
}

impl Origin {
    /// Was a request for this host sent to the wrong connection (RFC 9110 §15.5.20)? One that was made
    /// for another host has shown a certificate: with another one a client has no reason to be here.
    pub(super) fn is_misdirected(&self, host: &str) -> bool {
        let first = self.first_host.get_or_init(|| host.into());
        if **first == *host {
            return false;
        }
        let tls = &self.worker.shared.listeners[self.peer.listener].tls;
        tls.as_ref()
            .is_some_and(|tls| !tls.certificates.load().share(first, host))
    }

    /// Goes on to the newest generation, unless that has no such listener any more: then the
    /// connection ends as soon as it can.
    fn renew(&mut self) {
        let Some(newest) = self.worker.newest() else {
            return;
        };
        let id = self.worker.shared.listeners[self.peer.listener].id;
        let Some(listener) = newest.shared.listener(id) else {
            return;
        };
        self.peer.listener = listener;
        self.trusted = is_trusted(&newest, &self.peer);
        self.worker = newest;
    }

    /// The same in the newest generation, for requests that are to come.
    pub(super) fn renewed(&self) -> Origin {
        let mut origin = Origin {
            worker: Rc::clone(&self.worker),
            peer: self.peer.clone(),
            client: self.client.clone(),
            trusted: self.trusted,
            first_host: self.first_host.clone(),
        };
        origin.renew();
        origin
    }

    /// Its listener is not there any more.
    pub(super) fn is_closed(&self) -> bool {
        self.worker.has_closed(self.peer.listener)
    }
}

/// Is what it says of where its requests come from believed?
fn is_trusted(worker: &Worker, peer: &Peer) -> bool {
    let address = peer.address.ip().to_canonical();
    !peer.is_unknown && worker.shared.config.trusts(address)
}

/// A client's connection: what of it is there as long as it is open, and all there is while it is
/// idle.
#[derive(Debug)]
pub struct Connection {
    origin: Origin,
    /// No request has come on it yet.
    fresh: bool,
    io: Duplex,
    inbox: Inbox,
    timer: Timer,
    /// Boxed: hardly any connection has one.
    pinned: Option<Box<Pinned>>,
    /// When it has become old.
    ages: Option<Millis>,
    /// Held for its end.
    open: OpenConnection,
}

/// What requests need beside their connection: lent to it while one is under way, and used again
/// by the next, whosever that is.
#[derive(Debug)]
pub(super) struct Room {
    pinned: Option<Pinned>,
    /// For requests that share their connection.
    timer: Timer,
    deadline: Timer,
    watch: Timer,
    reading: Pace,
    writing: Pace,
    pushing: Pace,
    head: RequestHead,
    response: ResponseHead,
    tried: Vec<BackendId>,
}

/// The bytes of a connection over which one request comes after the other.
pub(super) struct Line<'a> {
    pub(super) fresh: &'a mut bool,
    io: &'a Duplex,
    inbox: &'a mut Inbox,
    timer: &'a Timer,
}

/// What carries a request out: where it comes from, with the room that it needs.
pub(super) struct Serving<'a> {
    pub(super) worker: &'a Rc<Worker>,
    pub(super) peer: &'a Peer,
    pub(super) client: &'a str,
    pub(super) trusted: bool,
    /// It has become old: the response closes it.
    pub(super) aged: bool,
    pub(super) deadline: &'a Timer,
    pub(super) head: &'a mut RequestHead,
    pub(super) lent: Lent<'a>,
}

/// Why an idle connection has to be seen to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    /// Bytes came.
    Request,
    /// The client is done, the connection failed, its time is up, a drain ends it, or memory
    /// runs short.
    End,
}

impl Connection {
    /// A connection that nothing has come on yet.
    pub fn new(
        worker: Rc<Worker>,
        transport: Transport,
        peer: Peer,
        open: OpenConnection,
    ) -> Connection {
        let address = peer.address.ip().to_canonical();
        let deadlines = &worker.deadlines;
        let age = worker.shared.config.downstream.max_connection_age;
        Connection {
            fresh: true,
            // So that clients that came at once do not all come again at once.
            ages: age.map(|age| {
                deadlines
                    .now()
                    .after(age.mul_f64(0.9 + 0.1 * fastrand::f64()))
            }),
            io: Duplex::new(transport),
            inbox: Inbox::new(Rc::clone(&worker.buffers)),
            timer: worker.deadlines.timer(),
            pinned: None,
            origin: Origin {
                client: address.to_string().into(),
                trusted: is_trusted(&worker, &peer),
                peer,
                worker,
                first_host: OnceCell::new(),
            },
            open,
        }
    }

    /// From now on it is idle.
    pub(super) fn rest(&self) {
        self.timer.set(self.longest_rest());
    }

    /// It may be idle for so long.
    fn longest_rest(&self) -> Duration {
        let downstream = &self.origin.worker.shared.config.downstream;
        match self.fresh {
            true => downstream.header_timeout,
            false => downstream.keep_alive,
        }
    }

    /// Waits for the first bytes of a request, or a reason to end the connection. An empty line is
    /// neither, and moves no deadline.
    pub(super) fn poll_call(&mut self, cx: &mut Context<'_>) -> Poll<Call> {
        while let Poll::Ready(outcome) = self.io.poll_fill(cx, &mut self.inbox) {
            match outcome {
                Ok(1..) if is_nothing(self.inbox.filled()) => {}
                Ok(1..) => return Poll::Ready(Call::Request),
                Ok(0) | Err(_) => return Poll::Ready(Call::End),
            }
        }
        if self.origin.worker.shared.drain.phase() >= Phase::ClosingIdle {
            return Poll::Ready(Call::End);
        }
        if self.origin.worker.is_superseded() {
            self.origin.renew();
            if self.origin.is_closed() && self.timer.left() > LAST_REST + TICK {
                // A request that is on its way is answered still.
                self.timer.set(LAST_REST);
            }
        }
        let idle = || self.longest_rest().saturating_sub(self.timer.left());
        if self.origin.worker.sheds(idle) {
            return Poll::Ready(Call::End);
        }
        self.timer.poll_expired(cx).map(|_| Call::End)
    }

    /// Has something of a request come that nobody has looked at?
    pub(super) fn is_called(&self) -> bool {
        !is_nothing(self.inbox.filled())
    }

    /// The connection with the room that its requests need. [`Room::leave`] takes it back.
    pub(super) fn served_in<'a>(&'a mut self, room: &'a mut Room) -> (Line<'a>, Serving<'a>) {
        room.pinned = self.pinned.take().map(|pinned| *pinned);
        let line = Line {
            fresh: &mut self.fresh,
            io: &self.io,
            inbox: &mut self.inbox,
            timer: &self.timer,
        };
        self.origin.renew();
        let now = self.timer.now();
        let mut serving = room.serve(&self.origin);
        serving.aged = self.ages.is_some_and(|ages| now >= ages) || self.origin.is_closed();
        serving.lent.timer = &self.timer;
        (line, serving)
    }

    /// Does its client speak HTTP/2 by prior knowledge (RFC 9113 §3.3)? `None`: too little has come to
    /// say. Over TLS that is agreed upon, not known.
    pub(super) fn is_h2(&self) -> Option<bool> {
        let Origin { worker, peer, .. } = &self.origin;
        let came = self.inbox.filled();
        let shared = came
            .iter()
            .zip(h2::PREFACE)
            .take_while(|(a, b)| a == b)
            .count();
        match shared {
            _ if !self.fresh || peer.tls.is_some() => Some(false),
            _ if !worker.shared.config.listeners[peer.listener].http2 => Some(false),
            PREFACE_LENGTH => Some(true),
            _ if shared < came.len() => Some(false),
            _ => None,
        }
    }

    /// Takes it apart, for another protocol: with what came on it already, and when it has become old.
    pub(super) fn into_parts(self) -> (Origin, Transport, Bytes, Option<Millis>, OpenConnection) {
        let came = Bytes::copy_from_slice(self.inbox.filled());
        let transport = self.io.into_transport();
        (self.origin, transport, came, self.ages, self.open)
    }
}

/// Octets of the preface of HTTP/2.
const PREFACE_LENGTH: usize = h2::PREFACE.len();

impl Room {
    /// An empty one.
    pub(super) fn new(deadlines: &Rc<Deadlines>) -> Room {
        let pace = || Pace::new(deadlines.timer(), OWN_RESPONSE);
        Room {
            pinned: None,
            timer: deadlines.timer(),
            deadline: deadlines.timer(),
            watch: deadlines.timer(),
            reading: pace(),
            writing: pace(),
            pushing: pace(),
            head: RequestHead::default(),
            response: ResponseHead::default(),
            tried: Vec::new(),
        }
    }

    /// With what requests from there need.
    pub(super) fn serve<'a>(&'a mut self, origin: &'a Origin) -> Serving<'a> {
        Serving {
            worker: &origin.worker,
            peer: &origin.peer,
            client: &origin.client,
            trusted: origin.trusted,
            aged: false,
            deadline: &self.deadline,
            head: &mut self.head,
            lent: Lent {
                timer: &self.timer,
                watch: &self.watch,
                pinned: &mut self.pinned,
                reading: &mut self.reading,
                writing: &mut self.writing,
                pushing: &mut self.pushing,
                response: &mut self.response,
                tried: &mut self.tried,
            },
        }
    }

    /// `connection` needs it no more; nothing of its requests stays.
    pub(super) fn leave(&mut self, connection: &mut Connection) {
        connection.pinned = self.pinned.take().map(Box::new);
        self.clear();
    }

    /// Nothing of the requests that used it stays.
    pub(super) fn clear(&mut self) {
        self.pinned = None;
        self.timer.clear();
        self.deadline.clear();
        self.watch.clear();
        for pace in [&mut self.reading, &mut self.writing, &mut self.pushing] {
            pace.restart(OWN_RESPONSE);
        }
        self.head.shed();
        self.response.shed();
    }
}

impl Serving<'_> {
    pub(super) fn listener(&self) -> &Listener {
        &self.worker.shared.config.listeners[self.peer.listener]
    }

    /// Reads the request head of which something has come. `None`: the connection failed.
    pub(super) async fn read_head(&mut self, line: &mut Line<'_>) -> Result<Option<()>, Rejection> {
        let downstream = &self.worker.shared.config.downstream;
        let limits = HeadLimits {
            bytes: downstream.header_bytes,
            fields: downstream.header_fields,
        };
        line.timer.set(downstream.header_timeout);
        self.head.shed();
        self.lent.response.shed();
        let outcome = loop {
            if !line.inbox.is_empty() {
                match parse::request_head(line.inbox.filled(), limits, self.head) {
                    Ok(Some(n)) => {
                        line.inbox.consume(n);
                        break Ok(Some(()));
                    }
                    Ok(None) => {}
                    Err(rejection) => break Err(rejection),
                }
            }
            match line.timer.guard(line.io.fill(line.inbox)).await {
                Ok(Ok(1..)) => {}
                Ok(Ok(0)) => {
                    break Err(Rejection {
                        status: 400,
                        reason: "the connection ended within a request head",
                    });
                }
                Ok(Err(_)) => break Ok(None),
                Err(_) => {
                    break Err(Rejection {
                        status: 408,
                        reason: "the request head did not come in time",
                    });
                }
            }
        };
        line.timer.clear();
        outcome
    }
}

impl Line<'_> {
    /// What a request comes over.
    pub(super) fn downstream(&mut self) -> Downstream<'_> {
        Downstream::H1 {
            io: self.io,
            inbox: self.inbox,
        }
    }

    /// Has nothing of a further request come?
    pub(super) fn is_idle(&self) -> bool {
        is_nothing(self.inbox.filled())
    }

    /// Ends an idle connection.
    pub(super) async fn end(&self) {
        // Either way the connection is dropped now.
        let _ = self.timer.limit(LINGER, self.io.shutdown()).await;
    }

    /// Ends the connection so that the client can still read what it was sent.
    pub(super) async fn close(&mut self) {
        let mut taken = 0;
        // A full inbox would leave no room to read into.
        self.inbox.consume(self.inbox.filled().len());
        let work = async {
            if self.io.shutdown().await.is_err() {
                return;
            }
            while let Ok(n @ 1..) = self.io.fill(self.inbox).await {
                taken += n;
                let held = self.inbox.filled().len();
                self.inbox.consume(held);
                if taken > LINGER_BYTES {
                    return;
                }
            }
        };
        // Either way the connection is dropped now.
        let _ = self.timer.limit(LINGER, work).await;
    }
}

/// Is this nothing of a request yet? Some clients send an empty line after a body (RFC 9112 §2.2).
fn is_nothing(received: &[u8]) -> bool {
    matches!(received, b"" | b"\r" | b"\r\n")
}
