//! Workers for unit tests: one plain listener, no route, and nobody on the control thread.

use super::*;
use crate::config::from_toml_str;
use crate::proxy::seating::Arrival;
use crate::telemetry::metrics::Metrics;

const CONFIG: &str = "[[listener]]\naddress = \"127.0.0.1:0\"\nprotocol = \"http\"\n\
    [limits]\nmax_connections = 10000\n";

/// The workers of one process.
pub struct Workers {
    pub workers: Vec<Rc<Worker>>,
    /// What each is handed connections by.
    pub arrivals: Vec<mpsc::Receiver<Arrival>>,
    /// What they tell the control thread, of which only one word may wait.
    pub told: mpsc::Receiver<Event>,
}

impl Workers {
    pub fn new(count: usize) -> Workers {
        let config = Arc::new(from_toml_str(CONFIG).expect("it is right"));
        let (seating, arrivals) = Seating::new(count);
        let (events, told) = mpsc::channel(1);
        let shared = Shared {
            router: Arc::new(Router::new(&config)),
            snapshots: Vec::new(),
            gates: Vec::new(),
            affinities: Vec::new(),
            certificates: Vec::new(),
            drain: Drain::new(),
            events,
            limits: Limits::new(Arc::clone(&config)),
            seating,
            questions: Questions::new(count),
            samples: Samples::new(count),
            config,
        };
        let metrics = Metrics::new(Vec::new(), vec!["front".into()]);
        let worker = |index| Worker::new(index, shared.clone(), metrics.shard(), AccessLog::off());
        Workers {
            workers: (0..count).map(worker).collect(),
            arrivals,
            told,
        }
    }

    /// The only one, of a process that has one.
    pub fn only(mut self) -> (Rc<Worker>, mpsc::Receiver<Event>) {
        assert_eq!(self.workers.len(), 1);
        (self.workers.remove(0), self.told)
    }
}
