//! DNS to endpoints: who is there, asked for on a ticker, never on the request path.
//!
//! `watch.rs` is what the rest of the program sees: subscriptions. `task.rs` is the loop behind each,
//! `pace.rs` says when to ask, `resolver.rs` asks (`name_server.rs` one server, `cut.rs` knows whose
//! answers are cut, `system.rs` knows resolv.conf), `answers.rs` is what comes of it, `targets.rs`
//! remembers the addresses of SRV targets, `admission.rs` refuses addresses, `srv.rs` turns an answer
//! into endpoints, `policy.rs` decides what they change, `rotation.rs` sees when answers are parts of
//! a larger set (`members.rs`), `journal.rs` remembers what happened and why, `changes.rs` by which answer,
//! `stats.rs` counts.
//! `keeper.rs` keeps the last good answers for a restart: `stored.rs` is their text, `state_dir.rs`
//! their files.

pub mod admission;
pub mod answers;
pub mod changes;
mod cut;
pub mod journal;
pub mod keeper;
pub mod members;
mod name_server;
mod outcome;
mod pace;
pub mod policy;
pub mod resolver;
pub mod rotation;
pub mod srv;
mod state_dir;
pub mod stats;
pub mod stored;
mod streak;
pub mod system;
mod targets;
mod task;
pub mod watch;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// What DNS said about one address behind a name. This is its identity: priority, weight and the
/// order of records are not part of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    /// Target of the SRV record, lower case without the final dot; for other ways of discovery
    /// the name or the address itself.
    pub target: Arc<str>,
    /// Address the target resolved to.
    pub address: IpAddr,
    /// Port.
    pub port: u16,
}

impl Endpoint {
    /// Where to connect.
    pub fn socket(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }
}

/// An endpoint with its place in the order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discovered {
    /// Who.
    pub endpoint: Endpoint,
    /// SRV priority: lower goes first.
    pub priority: u16,
    /// SRV weight, of the target as a whole.
    pub weight: u16,
    /// Addresses of that target among which the weight is shared; at least 1.
    pub split: u16,
}

/// What is known of a name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Offer {
    /// No answer of any kind yet.
    #[default]
    Pending,
    /// Decidedly nobody: a believed NXDOMAIN or NODATA, or the target `.`.
    Absent,
    /// These, in no particular order. Never empty.
    Endpoints(Arc<[Discovered]>),
}
