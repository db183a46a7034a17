//! A client's connection: how heads are read off it, and how it ends.
//!
//! `serve.rs` leads it from request to request; `request.rs` carries one out.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::drain::Phase;
use super::exchange::Pinned;
use super::worker::Worker;
use crate::config::Listener;
use crate::http::h1::parse::{self, HeadLimits};
use crate::http::head::{Rejection, RequestHead, ResponseHead};
use crate::io::buffer::Inbox;
use crate::io::deadline::Timer;
use crate::io::duplex::Duplex;
use crate::io::pace::{Pace, Patience};
use crate::io::transport::Transport;
use crate::upstream::backend::BackendId;

/// A client that was told that the connection closes is listened to for so long, and for so many
/// bytes, so that what it still sends does not destroy the response (RFC 9112 §9.6).
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 1024 * 1024;

/// Who a connection belongs to.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The client's address.
    pub address: SocketAddr,
    /// The listener that accepted it.
    pub listener: usize,
    /// TLS version, if it came over TLS.
    pub tls: Option<&'static str>,
}

/// A client's connection and the room its requests use again and again.
pub(super) struct Connection {
    pub(super) worker: Rc<Worker>,
    pub(super) peer: Peer,
    /// The client's address as text, without the mapping of IPv4 into IPv6.
    pub(super) client: Box<str>,
    pub(super) trusted: bool,
    pub(super) io: Duplex,
    pub(super) inbox: Inbox,
    pub(super) timer: Timer,
    pub(super) watch: Timer,
    pub(super) pinned: Option<Pinned>,
    pub(super) reading: Pace,
    pub(super) writing: Pace,
    pub(super) pushing: Pace,
    pub(super) head: RequestHead,
    pub(super) response: ResponseHead,
    pub(super) tried: Vec<BackendId>,
}

impl Connection {
    /// A connection that nothing has come on yet.
    pub(super) fn new(worker: Rc<Worker>, transport: Transport, peer: Peer) -> Connection {
        let address = peer.address.ip().to_canonical();
        let trusted = &worker.shared.config.trusted_proxies;
        let no_patience = Patience {
            stall: Duration::from_secs(30),
            min_rate: 0,
        };
        let pace = || Pace::new(worker.deadlines.timer(), no_patience);
        Connection {
            client: address.to_string().into(),
            trusted: trusted.iter().any(|net| net.contains(&address)),
            io: Duplex::new(transport),
            inbox: Inbox::new(Rc::clone(&worker.buffers)),
            timer: worker.deadlines.timer(),
            watch: worker.deadlines.timer(),
            pinned: None,
            reading: pace(),
            writing: pace(),
            pushing: pace(),
            head: RequestHead::default(),
            response: ResponseHead::default(),
            tried: Vec::new(),
            peer,
            worker,
        }
    }

    pub(super) fn listener(&self) -> &Listener {
        &self.worker.shared.config.listeners[self.peer.listener]
    }

    /// Reads the next request head. `None`: there will be none.
    pub(super) async fn read_head(&mut self, first: bool) -> Result<Option<()>, Rejection> {
        let worker = Rc::clone(&self.worker);
        let downstream = &worker.shared.config.downstream;
        let limits = HeadLimits {
            bytes: downstream.header_bytes,
            fields: downstream.header_fields,
        };
        let idle = match first {
            true => downstream.header_timeout,
            false => downstream.keep_alive,
        };
        self.timer.set(match self.is_idle() {
            true => idle,
            false => downstream.header_timeout,
        });
        self.head.shed();
        self.response.shed();
        let outcome = loop {
            if !self.inbox.is_empty() {
                match parse::request_head(self.inbox.filled(), limits, &mut self.head) {
                    Ok(Some(n)) => {
                        self.inbox.consume(n);
                        break Ok(Some(()));
                    }
                    Ok(None) => {}
                    Err(rejection) => break Err(rejection),
                }
            }
            match self.fill_or_give_up().await {
                Wait::Filled(true) if !self.is_idle() => self.timer.set(downstream.header_timeout),
                Wait::Filled(_) => {}
                Wait::Over if self.is_idle() => break Ok(None),
                Wait::Over => {
                    break Err(Rejection {
                        status: 400,
                        reason: "the connection ended within a request head",
                    });
                }
                Wait::Failed => break Ok(None),
                // Whoever sent nothing is not told anything: it may be about to reuse the
                // connection, and would take our 408 for the answer to its request.
                Wait::Expired if self.is_idle() => break Ok(None),
                Wait::Expired => {
                    break Err(Rejection {
                        status: 408,
                        reason: "the request head did not come in time",
                    });
                }
            }
        };
        self.timer.clear();
        outcome
    }

    /// Has nothing of a request come? The empty line that some clients send after a body is nothing
    /// yet (RFC 9112 §2.2).
    fn is_idle(&self) -> bool {
        matches!(self.inbox.filled(), b"" | b"\r" | b"\r\n")
    }

    /// Waits for bytes of a head, the deadline, or that a drain closes idle connections.
    async fn fill_or_give_up(&mut self) -> Wait {
        let idle = self.is_idle();
        let Connection {
            worker,
            io,
            inbox,
            timer,
            ..
        } = self;
        poll_fn(|cx| {
            if let Poll::Ready(outcome) = io.poll_fill(cx, inbox) {
                return Poll::Ready(match outcome {
                    Ok(0) => Wait::Over,
                    Ok(_) => Wait::Filled(idle),
                    Err(_) => Wait::Failed,
                });
            }
            if idle && worker.shared.drain.phase() >= Phase::ClosingIdle {
                return Poll::Ready(Wait::Over);
            }
            timer.poll_expired(cx).map(|_| Wait::Expired)
        })
        .await
    }

    /// Ends an idle connection.
    pub(super) async fn end(self) {
        // Either way the connection is dropped now.
        let _ = self.timer.limit(LINGER, self.io.shutdown()).await;
    }

    /// Ends the connection so that the client can still read what it was sent.
    pub(super) async fn close(mut self) {
        let mut taken = 0;
        let work = async {
            if self.io.shutdown().await.is_err() {
                return;
            }
            while let Ok(n @ 1..) = self.io.fill(&mut self.inbox).await {
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

/// How waiting for a head ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// Bytes came; true if they are the first ones of a head.
    Filled(bool),
    /// The client is done, or a drain ended its idle connection.
    Over,
    /// The connection failed.
    Failed,
    /// The deadline passed.
    Expired,
}
