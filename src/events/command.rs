//! What the control listener asks for. It never acts itself: whoever owns the thing does, on the
//! control thread, and replies.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::Reloaded;
use crate::telemetry::logging::LoggingError;

/// One wish, and where the reply goes. Whoever asked may be gone by then.
#[derive(Debug)]
pub enum Command {
    /// Take up a changed configuration, all or nothing.
    Reload(oneshot::Sender<Reloaded>),
    /// Become unready, go on accepting.
    Drain(oneshot::Sender<Result<(), Refused>>),
    /// Take that back.
    Undrain(oneshot::Sender<Result<(), Refused>>),
    /// Look names up now: this one, or all. Replies with those that are.
    Refresh(Option<Box<str>>, oneshot::Sender<Vec<Arc<str>>>),
    /// Log at another level, or by another filter.
    LogLevel {
        /// Which.
        level: Box<str>,
        /// Who wants it, for the journal.
        by: Arc<str>,
        /// Where the reply goes: what was in force before.
        reply: oneshot::Sender<Result<String, LoggingError>>,
    },
    /// Change something of a backend by hand.
    Backend {
        /// Name of its service.
        service: Box<str>,
        /// Where it is.
        address: SocketAddr,
        /// What.
        change: Change,
        /// Where the reply goes.
        reply: oneshot::Sender<Result<(), Refused>>,
    },
}

/// A change of a backend by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// No new request from now on.
    Drain,
    /// It takes part again.
    Undrain,
    /// This weight from now on; `None`: its record's.
    Weigh(Option<u16>),
}

/// Why a command was not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum Refused {
    #[error("there is no such backend")]
    Unknown,
    #[error("too much is set by hand already: take something back first")]
    TooMany,
    #[error("this process is ending already: a signal said so")]
    Ending,
    #[error("it is not draining")]
    NotDraining,
}
