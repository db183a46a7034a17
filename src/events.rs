//! What passes between the workers, the control thread and the admin listeners.
//!
//! Workers send with `try_send` on a bounded queue and never wait; a full queue loses the event,
//! not the request. `journal.rs` is what happened, for whoever asks; `command.rs` is what the control
//! listener asks for.

pub mod command;
pub mod journal;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;

use crate::clock::Millis;

/// A service, as long as its backends are the same objects: what generations of the configuration
/// have in common. No two ever have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceId(u64);

/// A listener, as long as what it promises its clients is the same. No two ever have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerId(u64);

impl ServiceId {
    /// One that nobody had yet.
    pub fn unused() -> ServiceId {
        ServiceId(unused())
    }
}

impl ListenerId {
    /// One that nobody had yet.
    pub fn unused() -> ListenerId {
        ListenerId(unused())
    }
}

fn unused() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    // Relaxed: it only has to be another one each time.
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// What became of a reload.
#[derive(Debug, Clone)]
pub struct Reloaded {
    /// When it was done.
    pub at: SystemTime,
    /// The generation that is in force since, or still.
    pub generation: u64,
    /// How long it took.
    pub took: Duration,
    /// Why everything stays as it was; `None`: the new configuration is in force.
    pub error: Option<Arc<str>>,
    /// Keys that differ from those of the start and are taken up at the next one only.
    pub at_next_start: Vec<&'static str>,
}

/// All reloads of this process.
#[derive(Debug, Clone, Default)]
pub struct Reloads {
    /// How many put a new generation in force.
    pub succeeded: u64,
    /// How many changed nothing.
    pub failed: u64,
    /// When the last one that did was done.
    pub applied: Option<SystemTime>,
    /// The last one.
    pub last: Option<Reloaded>,
}

/// Something a worker noticed that the control thread acts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A connect to a backend failed: its name deserves an early lookup, and a removal that
    /// discovery holds back need not be held back for this backend any longer.
    ConnectFailed {
        /// Of which service.
        service: ServiceId,
        /// Address of the backend.
        backend: SocketAddr,
    },
    /// So many attempts with a backend have failed in a row that it may be ejected.
    Failing {
        /// Of which service.
        service: ServiceId,
        /// Identity of the backend.
        backend: u64,
    },
    /// The one request that tried whether an ejected backend is back is over.
    Trial {
        /// Of which service.
        service: ServiceId,
        /// Identity of the backend.
        backend: u64,
        /// It succeeded.
        passed: bool,
    },
    /// A worker dropped what it had needed for a burst: the allocator may give pages back.
    BurstOver,
}

/// What the control thread knows of a worker, and how it wakes it.
#[derive(Debug)]
pub struct Sign {
    /// When it last turned, as [`Millis`]. Relaxed: it is looked at again and again.
    pub heartbeat: AtomicU64,
    /// The generation that it has taken up. Written by the worker (Release) when nothing that begins
    /// there begins under an older one any more, read by a reload (Acquire).
    pub generation: AtomicU64,
    /// There is another generation.
    pub wake: Notify,
}

impl Sign {
    /// Of a worker that has just turned, under no generation yet.
    pub fn new() -> Arc<Sign> {
        Arc::new(Sign {
            heartbeat: AtomicU64::new(Millis::now().0),
            generation: AtomicU64::new(0),
            wake: Notify::new(),
        })
    }
}
