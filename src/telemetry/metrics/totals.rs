//! What was counted so far, in short, for whoever compares two moments: rates, shares, latencies.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Metrics;
use super::histogram::HistogramTotals;
use super::shard::{Counters, ServiceCounters};
use crate::id_map::IdMap;

/// Of the whole process, at one moment. Counts only grow, but those of a name or a backend go with it.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    /// Requests by service.
    pub services: BTreeMap<Arc<str>, Requests>,
    /// Requests of all services, and those without one.
    pub all: Requests,
    /// Connections of clients that are open.
    pub open: u64,
    /// Attempts by backend.
    pub attempts: IdMap<u64, u64>,
}

/// Requests that ended.
#[derive(Debug, Clone, Default)]
pub struct Requests {
    /// All.
    pub count: u64,
    /// Of them, those answered with 5xx.
    pub errors: u64,
    /// How long they took.
    pub duration: HistogramTotals,
}

impl Metrics {
    /// What was counted so far.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for shard in self.shards() {
            totals.add(&shard);
        }
        totals
    }
}

impl Totals {
    fn add(&mut self, shard: &Counters) {
        for (name, counters) in shard.by_service().iter() {
            let requests = Requests::of(counters);
            self.all.add(&requests);
            let service = self.services.entry(Arc::clone(name)).or_default();
            service.add(&requests);
        }
        self.all.add(&Requests::of(&shard.unrouted));
        for connections in shard.by_listener().values() {
            self.open += connections.totals().1;
        }
        for listed in shard.backends().iter() {
            let attempts = self.attempts.entry(listed.counters.id).or_default();
            *attempts += listed.counters.requests.value();
        }
    }
}

impl Requests {
    fn of(counters: &ServiceCounters) -> Requests {
        let mut requests = Requests {
            duration: counters.duration.totals(),
            ..Requests::default()
        };
        for (_, status, count) in counters.requests() {
            requests.count += count;
            requests.errors += if status / 100 == 5 { count } else { 0 };
        }
        requests
    }

    fn add(&mut self, other: &Requests) {
        self.count += other.count;
        self.errors += other.errors;
        self.duration.add(&other.duration);
    }

    /// What came since `earlier`.
    pub fn since(&self, earlier: &Requests) -> Requests {
        Requests {
            // A service that goes and comes back begins anew.
            count: self.count.saturating_sub(earlier.count),
            errors: self.errors.saturating_sub(earlier.errors),
            duration: self.duration.since(&earlier.duration),
        }
    }
}
