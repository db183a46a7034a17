//! A generation of the configuration, as workers have it.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::balance::affinity::Affinity;
use crate::balance::snapshot::Snapshot;
use crate::config::Config;
use crate::events::{Event, ListenerId, ServiceId};
use crate::proxy::drain::Drain;
use crate::proxy::limits::Limits;
use crate::proxy::questions::Questions;
use crate::proxy::samples::Samples;
use crate::proxy::seating::Seating;
use crate::published::Published;
use crate::router::Router;
use crate::telemetry::metrics::Names;
use crate::telemetry::spans::Tracer;
use crate::tls::challenges::Challenges;
use crate::tls::server::FrontEnd;
use crate::upstream::establish::Layering;
use crate::upstream::gate::Gate;

/// One generation of the configuration, and what the workers need under it.
#[derive(Debug, Clone)]
pub struct Shared {
    /// Which one: counts up from 1.
    pub generation: u64,
    /// The configuration.
    pub config: Arc<Config>,
    /// Its routes.
    pub router: Arc<Router>,
    /// What its services and listeners are counted under.
    pub names: Arc<Names>,
    /// Its services, in the order of the configuration.
    pub services: Vec<Serviced>,
    /// Its listeners, in the order of the configuration.
    pub listeners: Vec<Listened>,
    /// How far a drain has come.
    pub drain: Arc<Drain>,
    /// Where noticed things go.
    pub events: mpsc::Sender<Event>,
    /// What the workers together may take on.
    pub limits: Arc<Limits>,
    /// How many client connections each worker has.
    pub seating: Arc<Seating>,
    /// What the control thread asks.
    pub questions: Arc<Questions>,
    /// Requests that people may look at.
    pub samples: Arc<Samples>,
    /// What authorities are answered that validate a name.
    pub challenges: Arc<Published<Challenges>>,
    /// Who records requests; `None`: nobody.
    pub tracer: Option<Arc<Tracer>>,
}

/// What workers need of a service.
#[derive(Debug, Clone)]
pub struct Serviced {
    /// The same in all generations that share its backends.
    pub id: ServiceId,
    /// Its backends.
    pub snapshot: Arc<Published<Snapshot>>,
    /// Where requests wait; `None`: nothing bounds what its backends have.
    pub gate: Option<Arc<Gate>>,
    /// Its cookie; `None`: it has none.
    pub affinity: Option<Arc<Affinity>>,
    /// What lies between TCP and HTTP on connections to its backends.
    pub layering: Layering,
}

/// What workers need of a listener.
#[derive(Debug, Clone)]
pub struct Listened {
    /// The same in all generations in which it promises the same.
    pub id: ListenerId,
    /// Where it listens. Of the newest generation only: an old one, which a tunnel may hold for hours,
    /// keeps no port.
    pub socket: std::sync::Weak<std::net::TcpListener>,
    /// Its TLS; `None`: it ends none.
    pub tls: Option<FrontEnd>,
}

impl Shared {
    /// Where in this generation a listener is, if it is there.
    pub fn listener(&self, id: ListenerId) -> Option<usize> {
        self.listeners.iter().position(|listener| listener.id == id)
    }

    /// Does any of its listeners accept from this socket?
    pub fn listens_on(&self, socket: &std::sync::Weak<std::net::TcpListener>) -> bool {
        let mut listeners = self.listeners.iter();
        listeners.any(|listener| listener.socket.ptr_eq(socket))
    }
}
