//! Workers for unit tests: one plain listener, no route, and nobody on the control thread.

use tokio::sync::mpsc;

use super::*;
use crate::config::from_toml_str;
use crate::events::{Event, ListenerId};
use crate::proxy::drain::Drain;
use crate::proxy::limits::Limits;
use crate::proxy::questions::Questions;
use crate::proxy::samples::Samples;
use crate::proxy::seating::{Arrival, Seating};
use crate::router::Router;
use crate::telemetry::metrics::{Metrics, Names};
use crate::tls::server::FrontEnd;

const CONFIG: &str = "[[listener]]\naddress = \"127.0.0.1:0\"\nprotocol = \"http\"\n\
    [limits]\nmax_connections = 10000\n";

/// The workers of one process.
pub struct Workers {
    pub workers: Vec<Rc<Worker>>,
    /// What each is handed connections by.
    pub arrivals: Vec<mpsc::Receiver<Arrival>>,
    /// What they tell the control thread, of which only one word may wait.
    pub told: mpsc::Receiver<Event>,
    /// Where they listen.
    pub socket: Arc<std::net::TcpListener>,
}

impl Workers {
    pub fn new(count: usize) -> Workers {
        Workers::behind(count, None)
    }

    /// The same with TLS.
    pub fn behind(count: usize, tls: Option<FrontEnd>) -> Workers {
        let any = "127.0.0.1:0".parse().expect("it is right");
        let socket = crate::listener::bind(any).expect("loopback has ports");
        let socket = Arc::new(socket);
        let config = Arc::new(from_toml_str(CONFIG).expect("it is right"));
        let (seating, arrivals) = Seating::new(count);
        let (events, told) = mpsc::channel(1);
        let shared = Shared {
            generation: 1,
            router: Arc::new(Router::new(&config)),
            names: Arc::new(Names {
                services: Vec::new(),
                listeners: vec!["front".into()],
            }),
            services: Vec::new(),
            listeners: vec![Listened {
                id: ListenerId::unused(),
                socket: Arc::downgrade(&socket),
                tls,
            }],
            drain: Drain::new(),
            events,
            limits: Limits::new(Arc::clone(&config)),
            seating,
            questions: Questions::new(count),
            samples: Samples::new(count),
            challenges: Published::new(Default::default()),
            tracer: None,
            config,
        };
        let metrics = Metrics::new(Arc::clone(&shared.names));
        let shared = Arc::new(shared);
        let worker = |index| {
            let shared = Arc::clone(&shared);
            Worker::new(index, shared, metrics.shard(), AccessLog::off())
        };
        Workers {
            workers: (0..count).map(worker).collect(),
            arrivals,
            told,
            socket,
        }
    }

    /// The only one, of a process that has one.
    pub fn only(mut self) -> (Rc<Worker>, mpsc::Receiver<Event>) {
        assert_eq!(self.workers.len(), 1);
        (self.workers.remove(0), self.told)
    }
}
