//! Connections to backends that speak HTTP/2, kept by one worker: few of them, with many streams each.
//!
//! A connection takes streams as long as its peer lets it (RFC 9113 §5.1.2); before that is used up
//! another one is opened. It takes none any more when its peer says so (GOAWAY), when it has become old,
//! when a PING stays unanswered, or when discovery has withdrawn its backend; its streams end in their
//! own time. While a connection is made others wait for it instead of making their own.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ::h2::client::{self, Connection as Wire, ResponseFuture, SendRequest};
use ::h2::{Error, Ping, PingPong, RecvStream};
use ::http::Request;
use bytes::Bytes;
use tokio::sync::Notify;

use super::backend::{Backend, BackendId};
use super::establish::Unestablished;
use crate::clock::Millis;
use crate::http::h2::head;
use crate::http::h2::outgoing::Outgoing;
use crate::http::head::{BadResponse, ResponseHead};
use crate::id_map::IdMap;
use crate::io::adapter::{Adapter, Inspect};
use crate::io::deadline::{Deadlines, Timer};
use crate::io::pace::{Pace, Patience};
use crate::io::transport::Transport;
use crate::telemetry::metrics::OpenConnection;

/// The connections of one worker.
#[derive(Debug, Default)]
pub struct Streams {
    backends: RefCell<IdMap<BackendId, Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    connections: Vec<Rc<Connection>>,
    /// One that is being made.
    pending: Option<Rc<Pending>>,
}

/// A connection that is being made, for those who wait for it.
#[derive(Debug, Default)]
pub struct Pending {
    over: Cell<bool>,
    failed: RefCell<Option<Unestablished>>,
    told: Notify,
}

/// Whoever holds it makes a connection; dropped, it says that this is over.
#[derive(Debug)]
pub struct Making {
    streams: Rc<Streams>,
    backend: BackendId,
    pending: Rc<Pending>,
}

/// One connection.
#[derive(Debug)]
struct Connection {
    backend: Arc<Backend>,
    send: SendRequest<Bytes>,
    active: Cell<usize>,
    /// For whoever counts: gone when the connection is, however long a stream of it is still held.
    counted: Weak<OpenConnection>,
    /// It takes no more streams.
    retired: Cell<bool>,
    idle_since: Cell<Millis>,
    expires: Millis,
}

/// A place for a stream on a connection.
#[derive(Debug)]
pub struct Slot(Rc<Connection>);

/// How to get a place.
#[derive(Debug)]
pub enum Place {
    /// Here it is.
    Slot(Slot),
    /// By making a connection.
    Make(Making),
    /// By waiting until somebody else has made one.
    Wait(Rc<Pending>),
}

/// How a connection is kept.
#[derive(Debug, Clone, Copy)]
pub struct Keeping {
    /// It takes no streams after so long, less a random part of it; `None`: it does not age.
    pub max_age: Option<Duration>,
    /// On a connection on which nothing came for so long, a PING asks whether the backend is there.
    pub ping: Option<Duration>,
    /// How long the backend may hold us up.
    pub patience: Patience,
    /// So long is waited for the backend's SETTINGS.
    pub greeting: Duration,
}

/// What has come from a peer.
#[derive(Debug, Default)]
struct Heard {
    /// Its first frame, whole: the SETTINGS that say what it allows (RFC 9113 §3.4).
    greeting: Cell<bool>,
    octets: Cell<u64>,
}

/// Listens for what a peer says at all.
#[derive(Debug)]
struct Listening {
    /// The length of its first frame, as far as that has come.
    head: [u8; 3],
    heard: Rc<Heard>,
}

impl Inspect for Listening {
    fn came(&mut self, bytes: &[u8]) -> bool {
        const HEAD: u64 = 9;
        let before = self.heard.octets.get();
        let octets = before + bytes.len() as u64;
        self.heard.octets.set(octets);
        if !self.heard.greeting.get() {
            for (at, byte) in (before..).zip(bytes) {
                if let Some(place) = usize::try_from(at)
                    .ok()
                    .and_then(|at| self.head.get_mut(at))
                {
                    *place = *byte;
                } else {
                    break;
                }
            }
            let [a, b, c] = self.head;
            let whole = HEAD + u64::from(u32::from_be_bytes([0, a, b, c]));
            self.heard.greeting.set(octets >= whole);
        }
        true
    }

    fn went(&mut self, _: usize) {}
}

/// One request on its way: a stream of a connection.
#[derive(Debug)]
pub struct Call {
    /// The half that goes.
    pub outgoing: Outgoing,
    response: RefCell<ResponseFuture>,
    slot: Slot,
}

/// Why a call has no response.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Its stream failed.
    #[error(transparent)]
    Stream(#[from] Error),
    /// What came cannot be understood.
    #[error(transparent)]
    Bad(#[from] BadResponse),
}

impl Streams {
    /// A place for one more stream to a backend, or how to get it.
    pub fn place(self: &Rc<Self>, backend: BackendId) -> Place {
        let mut backends = self.backends.borrow_mut();
        let kept = backends.entry(backend).or_default();
        // The first that has room, so that others become idle.
        let found = kept.connections.iter().find(|c| c.has_room());
        if let Some(connection) = found {
            return Place::Slot(Slot::take(Rc::clone(connection)));
        }
        match &kept.pending {
            Some(pending) => Place::Wait(Rc::clone(pending)),
            None => {
                let pending = Rc::<Pending>::default();
                kept.pending = Some(Rc::clone(&pending));
                Place::Make(Making {
                    streams: Rc::clone(self),
                    backend,
                    pending,
                })
            }
        }
    }

    /// To be called every second: drops what is idle for too long, what is old and what belongs to
    /// a withdrawn backend.
    pub fn sweep(&self, now: Millis) {
        self.backends.borrow_mut().retain(|_, kept| {
            kept.connections.retain(|connection| {
                if now >= connection.expires || connection.backend.withdrawn() {
                    connection.retired.set(true);
                }
                let idle =
                    connection.active.get() == 0 && now.since(connection.idle_since.get()) >= IDLE;
                !connection.retired.get() && !idle
            });
            !kept.connections.is_empty() || kept.pending.is_some()
        });
    }

    /// Drops the connections that have no streams: descriptors are needed. False: there was none.
    pub fn shed(&self) -> bool {
        let mut found = false;
        for kept in self.backends.borrow_mut().values_mut() {
            kept.connections.retain(|connection| {
                let idle = connection.active.get() == 0;
                found |= idle;
                !idle
            });
        }
        found
    }
}

impl Making {
    /// What others wait for.
    pub fn pending(&self) -> Rc<Pending> {
        Rc::clone(&self.pending)
    }

    /// No connection could be made: those who wait need not try it themselves.
    pub fn failed(self, why: Unestablished) {
        *self.pending.failed.borrow_mut() = Some(why);
    }

    /// The connection is there: begins HTTP/2 on it. A task of its own drives it until it ends. What
    /// the backend allows is waited for: without that the first requests, of which there may be many
    /// at once, would be more than it takes. Cancel-safe: a connection that has not begun is dropped.
    pub async fn made(
        &self,
        backend: &Arc<Backend>,
        transport: Transport,
        counted: OpenConnection,
        keeping: Keeping,
        deadlines: &Rc<Deadlines>,
    ) -> Result<(), Unestablished> {
        let writing = Pace::new(deadlines.timer(), keeping.patience);
        let heard = Rc::<Heard>::default();
        let listening = Listening {
            head: [0; 3],
            heard: Rc::clone(&heard),
        };
        let io = Adapter::new(
            transport,
            Bytes::new(),
            listening,
            writing,
            deadlines.timer(),
        );
        let handshake = client::Builder::new()
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(HEADERS)
            .max_send_buffer_size(SEND_BUFFER)
            .handshake(io);
        let (send, mut wire) = match handshake.await {
            Ok(made) => made,
            Err(e) => return Err(Unestablished::Greeting(io::Error::other(e))),
        };
        let now = deadlines.now();
        let counted = Rc::new(counted);
        let connection = Rc::new(Connection {
            backend: Arc::clone(backend),
            send,
            active: Cell::new(0),
            counted: Rc::downgrade(&counted),
            retired: Cell::new(false),
            idle_since: Cell::new(now),
            expires: match keeping.max_age {
                // So that not all connections of all workers are made anew at once.
                Some(age) => now.after(age.mul_f64(0.8 + 0.2 * fastrand::f64())),
                None => Millis(u64::MAX),
            },
        });
        let ping = wire.ping_pong().zip(keeping.ping);
        let watched = Rc::downgrade(&connection);
        let timer = deadlines.timer();
        let told = Rc::new(Notify::new());
        let telling = Rc::clone(&told);
        let ended = Rc::<Cell<Option<io::Error>>>::default();
        let ending = Rc::clone(&ended);
        tokio::task::spawn_local(async move {
            let _counted = counted;
            let error = drive(wire, ping, timer, (&heard, &telling)).await;
            let error = error.map_or_else(|| io::ErrorKind::UnexpectedEof.into(), io::Error::other);
            ending.set(Some(error));
            // Nobody is to wait for what will never be said.
            telling.notify_one();
            if let Some(connection) = watched.upgrade() {
                connection.retired.set(true);
            }
        });
        // Whoever says nothing shows in its own time what is wrong with it.
        let _ = deadlines
            .timer()
            .limit(keeping.greeting, told.notified())
            .await;
        if let Some(error) = ended.take() {
            return Err(Unestablished::Greeting(error));
        }
        if connection.send.current_max_send_streams() == 0 {
            let none = "it takes no streams (SETTINGS_MAX_CONCURRENT_STREAMS is 0)";
            return Err(Unestablished::Greeting(io::Error::other(none)));
        }
        if !connection.has_room() {
            // Or it would be made again and again, as long as anybody waits.
            let none = "it ends its connections before they have streams";
            let left = io::Error::new(io::ErrorKind::ConnectionAborted, none);
            return Err(Unestablished::Greeting(left));
        }
        let mut backends = self.streams.backends.borrow_mut();
        let kept = backends.entry(self.backend).or_default();
        connection.rests(true);
        kept.connections.push(connection);
        Ok(())
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        if let Some(kept) = self.streams.backends.borrow_mut().get_mut(&self.backend) {
            kept.pending = None;
        }
        self.pending.over.set(true);
        self.pending.told.notify_waiters();
    }
}

impl Pending {
    /// Why it could not be made, if so.
    pub fn failure(&self) -> Option<Unestablished> {
        let failed = self.failed.borrow();
        failed.as_ref().map(Unestablished::again)
    }

    /// Waits until the connection is made or could not be. Cancel-safe.
    pub async fn wait(&self) {
        let told = self.told.notified();
        if !self.over.get() {
            told.await;
        }
    }
}

impl Connection {
    fn rests(&self, does: bool) {
        if let Some(counted) = self.counted.upgrade() {
            counted.rests(does);
        }
    }

    fn has_room(&self) -> bool {
        if self.retired.get() || self.active.get() >= self.send.current_max_send_streams().min(MOST)
        {
            return false;
        }
        // After GOAWAY, or when it failed, it says so.
        let mut cx = Context::from_waker(std::task::Waker::noop());
        match self.send.clone().poll_ready(&mut cx) {
            Poll::Ready(Ok(())) => true,
            Poll::Ready(Err(_)) => {
                self.retired.set(true);
                false
            }
            Poll::Pending => false,
        }
    }
}

impl Slot {
    fn take(connection: Rc<Connection>) -> Slot {
        let others = connection.active.get();
        connection.active.set(others + 1);
        if others == 0 {
            connection.rests(false);
        }
        Slot(connection)
    }

    /// May an extended CONNECT be sent (RFC 8441 §3)?
    pub fn connects(&self) -> bool {
        self.0.send.is_extended_connect_protocol_enabled()
    }

    /// Sends the head of a request; `ended`: nothing follows.
    pub fn call(self, request: Request<()>, ended: bool) -> Result<Call, Error> {
        let (response, stream) = self.0.send.clone().send_request(request, ended)?;
        Ok(Call {
            outgoing: Outgoing::request(stream),
            response: RefCell::new(response),
            slot: self,
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let connection = &self.0;
        let others = connection.active.get() - 1;
        connection.active.set(others);
        if others == 0 {
            connection.rests(true);
        }
        connection.idle_since.set(Millis::now());
    }
}

impl Call {
    /// Its backend did not answer: others had better not be sent over the same connection.
    pub fn distrust(&self) {
        self.slot.0.retired.set(true);
    }

    /// Waits for the next response head: `None` for an interim one, else what follows it.
    pub fn poll_head(
        &self,
        cx: &mut Context<'_>,
        head: &mut ResponseHead,
    ) -> Poll<Result<Option<RecvStream>, CallError>> {
        let mut response = self.response.borrow_mut();
        match response.poll_informational(cx) {
            Poll::Ready(Some(Ok(interim))) => {
                let (parts, ()) = interim.into_parts();
                return Poll::Ready(match head::response_head(&parts, head) {
                    Ok(()) => Ok(None),
                    Err(e) => Err(e.into()),
                });
            }
            Poll::Ready(Some(Err(e))) => return Poll::Ready(Err(e.into())),
            Poll::Ready(None) | Poll::Pending => {}
        }
        match pin!(&mut *response).poll(cx) {
            Poll::Ready(Ok(response)) => {
                let (parts, body) = response.into_parts();
                Poll::Ready(match head::response_head(&parts, head) {
                    Ok(()) => Ok(Some(body)),
                    Err(e) => Err(e.into()),
                })
            }
            Poll::Ready(Err(e)) => Poll::Ready(Err(e.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// Drives a connection to its end, and tells once its peer's greeting was heard. When nothing came for
/// as long as `ping` says, a PING asks whether the peer is there; one that stays unanswered ends it, and
/// its streams with it. Gives back what failed.
async fn drive(
    wire: Wire<Adapter<Listening>, Bytes>,
    mut ping: Option<(PingPong, Duration)>,
    timer: Timer,
    (heard, telling): (&Heard, &Notify),
) -> Option<Error> {
    let mut told = false;
    let mut wire = pin!(wire);
    let mut asked = false;
    let mut octets = 0;
    if let Some((_, every)) = &ping {
        timer.set(*every);
    }
    let ended = poll_fn(|cx| {
        if let Poll::Ready(ended) = wire.as_mut().poll(cx) {
            return Poll::Ready(Some(ended));
        }
        // By now it has been acted upon as well.
        if heard.greeting.get() && !std::mem::replace(&mut told, true) {
            telling.notify_one();
        }
        let Some((ping, every)) = &mut ping else {
            return Poll::Pending;
        };
        loop {
            if asked {
                match ping.poll_pong(cx) {
                    Poll::Ready(Ok(_)) => {
                        asked = false;
                        timer.set(*every);
                    }
                    // The connection itself says what is wrong.
                    Poll::Ready(Err(_)) => return Poll::Pending,
                    Poll::Pending => {}
                }
            }
            if timer.poll_expired(cx).is_pending() {
                return Poll::Pending;
            }
            if !asked && octets != heard.octets.get() {
                octets = heard.octets.get();
                timer.set(*every);
                continue;
            }
            if asked || ping.send_ping(Ping::opaque()).is_err() {
                return Poll::Ready(None);
            }
            asked = true;
            timer.set(PING_PATIENCE);
            // It has a frame to send now.
            if let Poll::Ready(ended) = wire.as_mut().poll(cx) {
                return Poll::Ready(Some(ended));
            }
        }
    })
    .await;
    match ended {
        None => tracing::debug!("a backend did not answer a PING"),
        Some(Err(error)) => {
            tracing::debug!(%error, "an HTTP/2 connection to a backend failed");
            return Some(error);
        }
        Some(Ok(())) => {}
    }
    None
}

/// Streams on one connection at most, whatever its peer allows: more share one window and one core at
/// the other end (gRPC's guides name 100).
const MOST: usize = 100;

/// A connection without streams is kept for so long. Its end costs no request: whoever ends it says which
/// streams it has not taken.
const IDLE: Duration = Duration::from_secs(60);

/// So long for the answer to a PING.
const PING_PATIENCE: Duration = Duration::from_secs(10);

/// What a backend may send before it was passed on, in bytes, on one stream. In a cluster, with half a
/// millisecond there and back, that lets 250 MB/s pass.
const STREAM_WINDOW: u32 = 128 * 1024;

/// The same on all of a connection: as much as all its streams may, so that clients who don't read hold
/// up nobody else's.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * MOST as u32;

/// A response head, as in HTTP/1.1.
const HEADERS: u32 = 60 * 1024;

/// Bytes that a stream holds which have room in its window and are not with the kernel yet.
const SEND_BUFFER: usize = 64 * 1024;
