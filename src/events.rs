//! What passes between the workers, the control thread and the admin listeners.
//!
//! Workers send with `try_send` on a bounded queue and never wait; a full queue loses the event,
//! not the request. `journal.rs` is what happened, for whoever asks; `command.rs` is what the control
//! listener asks for.

pub mod command;
pub mod journal;

use std::net::SocketAddr;

/// Something a worker noticed that the control thread acts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A connect to a backend failed: its name deserves an early lookup, and a removal that
    /// discovery holds back need not be held back for this backend any longer.
    ConnectFailed {
        /// Index of the service in the configuration.
        service: usize,
        /// Address of the backend.
        backend: SocketAddr,
    },
    /// So many attempts with a backend have failed in a row that it may be ejected.
    Failing {
        /// Index of the service in the configuration.
        service: usize,
        /// Identity of the backend.
        backend: u64,
    },
    /// The one request that tried whether an ejected backend is back is over.
    Trial {
        /// Index of the service in the configuration.
        service: usize,
        /// Identity of the backend.
        backend: u64,
        /// It succeeded.
        passed: bool,
    },
    /// A worker dropped what it had needed for a burst: the allocator may give pages back.
    BurstOver,
}
