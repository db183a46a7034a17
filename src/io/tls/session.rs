//! rustls' side of a connection at either end.

use rustls::CommonState;
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;

/// Which end we are.
pub(super) enum Session {
    /// The peer is a client.
    Server(UnbufferedServerConnection),
    /// The peer is a backend.
    Client(UnbufferedClientConnection),
}

impl Session {
    /// What both ends have.
    pub(super) fn state(&self) -> &CommonState {
        match self {
            Session::Server(session) => session,
            Session::Client(session) => session,
        }
    }
}

/// Has rustls look at what was received. What it says has another type at each end.
macro_rules! process {
    ($session:expr, $incoming:expr, $status:pat => $work:expr) => {
        match $session {
            Session::Server(session) => {
                let $status = session.process_tls_records($incoming);
                $work
            }
            Session::Client(session) => {
                let $status = session.process_tls_records($incoming);
                $work
            }
        }
    };
}

pub(super) use process;
