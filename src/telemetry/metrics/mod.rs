//! What is counted, and the page on which Prometheus reads it.
//!
//! Each worker counts in a [`Shard`] of its own and a scrape sums them. A shard has exactly one
//! writer, so a count is a relaxed load and a relaxed store: no read-modify-write, no lock, and
//! no cache line that two cores fight for. A mutex per shard would cost a request about as little
//! while nobody scrapes, but a scraper that loses its core while it holds the mutex would stop
//! the worker for a scheduler's slice.
//!
//! What changes seldom (backends, names in DNS) is not registered here: the caller of
//! [`Metrics::render`] says what there is at that moment, as [`Live`].
//!
//! - `shard.rs`: what the request path calls.
//! - `connections.rs`, `compressed.rs`: what is open, and what was compressed.
//! - `tally.rs`, `verdicts.rs`: what threads count together, seldom.
//! - `histogram.rs`: times in classic buckets.
//! - `totals.rs`: what was counted so far, in short.
//! - `ledger.rs`: how long a backend's series outlive the backend.
//! - `exposition.rs`: the page, written with `family.rs`. `process.rs`: the `process_*` series.

pub mod classic;
mod compressed;
mod connections;
mod exposition;
mod family;
mod histogram;
mod ledger;
pub mod process;
mod shard;
mod tally;
mod totals;
mod verdicts;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

pub use compressed::Compressing;
pub use connections::{Level, Levels, OpenConnection, OpenCopy};
pub use histogram::{Histogram, HistogramTotals};
pub use shard::{Handshake, Shard};
pub use tally::Tally;
pub use totals::{Requests, Totals};
pub use verdicts::Verdicts;

use crate::clock::Millis;
use exposition::Page;
use ledger::Ledger;
use shard::Counters;

/// Everything that is counted in this process.
#[derive(Debug)]
pub struct Metrics {
    /// Of the first generation.
    names: Arc<Names>,
    /// One per worker and never removed: a count must not go down. Locked to add one and by a
    /// scrape, never by a request.
    shards: Mutex<Vec<Arc<Counters>>>,
    /// Locked by scrapes and sweeps only.
    ledger: Mutex<Ledger>,
}

/// Label values for what the request path names by index, in one generation of the configuration.
#[derive(Debug)]
pub struct Names {
    /// Of the services.
    pub services: Vec<Arc<str>>,
    /// Of the listeners.
    pub listeners: Vec<Arc<str>>,
}

/// Labels of a backend's series.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct BackendLabels {
    /// Name of its service.
    pub service: Arc<str>,
    /// Its address and port, or whatever else tells it apart within its service.
    pub backend: Arc<str>,
}

/// What there is at the moment of a scrape.
#[derive(Debug, Default)]
pub struct Live {
    /// The name of every service, whether it has backends or not.
    pub services: Vec<Arc<str>>,
    /// Every backend of every service.
    pub backends: Vec<BackendSample>,
    /// What discovery counted.
    pub dns: DnsSample,
    /// Every certificate that is served.
    pub certificates: Vec<CertificateSample>,
    /// What became of their files since.
    pub certificate_files: CertificateFilesSample,
    /// What came of orders for others; `None`: none are ordered.
    pub acme: Option<AcmeSample>,
    /// Every bounded thing.
    pub bounds: Vec<BoundSample>,
    /// Lines that the access log had to drop.
    pub access_lines_dropped: u64,
    /// How many spans ended how; `None`: nothing is traced.
    pub spans: Option<[(&'static str, u64); 3]>,
    /// Memory, where it has a budget.
    pub memory: Option<MemorySample>,
    /// Clients whose requests a rate limit forgot although they counted still.
    pub rate_limit_forgiven: u64,
    /// Workers that do not turn.
    pub stuck_workers: usize,
    /// Between the signal to drain and the end.
    pub draining: bool,
    /// What became of reloads.
    pub reloads: ReloadSample,
}

/// Reloads at the moment of a scrape.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReloadSample {
    /// That put a new configuration in force.
    pub succeeded: u64,
    /// That changed nothing.
    pub failed: u64,
    /// The generation that is in force.
    pub generation: u64,
    /// When the last one was done, and whether it succeeded.
    pub last: Option<(SystemTime, bool)>,
}

/// A backend at the moment of a scrape.
#[derive(Debug, Clone)]
pub struct BackendSample {
    /// The identity under which the shards count it.
    pub id: u64,
    /// Its labels.
    pub labels: BackendLabels,
    /// It can be picked.
    pub up: bool,
    /// Its state in a word, and the reason in another; the reason is empty if there is none.
    pub state: (&'static str, &'static str),
    /// What was found of it, which goes on to be counted after this moment.
    pub verdicts: Arc<Verdicts>,
    /// SRV weight.
    pub weight: u16,
    /// SRV priority.
    pub priority: u16,
    /// Exchanges under way.
    pub in_flight: u32,
}

/// Discovery at the moment of a scrape.
#[derive(Debug, Default)]
pub struct DnsSample {
    /// How many lookups ended how; no combination of labels twice.
    pub lookups: Vec<DnsLookups>,
    /// How long they took: upper bounds in seconds, the last one infinite, with the number of
    /// lookups in each bucket, not cumulative.
    pub durations: Vec<(f64, u64)>,
    /// Their sum in seconds.
    pub seconds: f64,
    /// Every name that is looked up, none twice.
    pub names: Vec<DnsName>,
}

/// Lookups of one kind with one result.
#[derive(Debug, Clone)]
pub struct DnsLookups {
    /// The name, as it was configured.
    pub name: Arc<str>,
    /// SRV, A, AAAA.
    pub qtype: &'static str,
    /// For instance `ok`, `nxdomain`, `timeout`.
    pub result: &'static str,
    /// How many.
    pub count: u64,
}

/// A name in DNS.
#[derive(Debug, Clone)]
pub struct DnsName {
    /// As it was configured.
    pub name: Arc<str>,
    /// When an answer last came, in seconds since 1970.
    pub last_success: Option<f64>,
    /// What is in use is older than it should be.
    pub stale: bool,
    /// How many endpoints it has.
    pub endpoints: usize,
    /// Answers show a part of it, another one each time.
    pub rotates: bool,
    /// Endpoints that the last answer does not list.
    pub unlisted: usize,
    /// Changes that were applied, by kind: joined, left, reweighted.
    pub changes: Vec<(&'static str, u64)>,
    /// Answers of which a removal was held back.
    pub held_back: u64,
    /// Records that were refused.
    pub rejected: u64,
}

/// Certificates that are ordered.
#[derive(Debug, Clone, Default)]
pub struct AcmeSample {
    /// How many orders ended how.
    pub orders: Vec<(&'static str, u64)>,
    /// When each name's certificate is to be renewed.
    pub renewals: Vec<(Arc<str>, SystemTime)>,
}

/// What became of the files of certificates.
#[derive(Debug, Clone, Copy, Default)]
pub struct CertificateFilesSample {
    /// Certificates that took another one's place.
    pub replaced: u64,
    /// Contents that could not be used.
    pub refused: u64,
    /// Pairs of files that cannot be used as they are now.
    pub unusable: u64,
}

/// A certificate at the moment of a scrape.
#[derive(Debug, Clone)]
pub struct CertificateSample {
    /// The listener that serves it.
    pub listener: Arc<str>,
    /// The file it came from.
    pub file: Arc<str>,
    /// When it expires.
    pub not_after: SystemTime,
}

/// A bounded thing at the moment of a scrape.
#[derive(Debug, Clone, Default)]
pub struct BoundSample {
    /// Which thing.
    pub what: &'static str,
    /// The service that it belongs to, if each has one.
    pub service: Option<Arc<str>>,
    /// What it holds.
    pub now: u64,
    /// The most that it may hold, where that is a fixed number.
    pub bound: Option<u64>,
    /// The most that it ever held, where somebody keeps count.
    pub high_water: Option<u64>,
}

/// Memory at the moment of a scrape.
#[derive(Debug, Clone, Copy)]
pub struct MemorySample {
    /// Bytes that count.
    pub used: u64,
    /// The most that ever did, as far as somebody looked.
    pub high_water: u64,
    /// Of so many.
    pub budget: u64,
    /// 0: nothing is done about it, 1: idle clients are closed, 2: new ones are refused.
    pub level: u8,
}

impl Metrics {
    /// Nothing counted yet. A new shard has these names; see [`Shard::renamed`].
    pub fn new(names: Arc<Names>) -> Arc<Metrics> {
        Arc::new(Metrics {
            names,
            shards: Mutex::new(Vec::new()),
            ledger: Mutex::new(Ledger::default()),
        })
    }

    /// A further shard, for the one thread that calls this. What it counts stays when it is
    /// dropped.
    pub fn shard(&self) -> Rc<Shard> {
        let counters = Arc::<Counters>::default();
        let mut shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
        shards.push(Arc::clone(&counters));
        Shard::new(counters, &self.names)
    }

    /// Forgets backends that are gone for some minutes. To be called every few seconds, so that
    /// memory is bounded where nobody scrapes; a scrape does it too.
    pub fn sweep(&self, now: Millis, backends: &[BackendSample]) {
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        ledger.sweep(now, backends, &self.shards());
    }

    /// The page, in the OpenMetrics text format 1.0 ([`CONTENT_TYPE`]).
    pub fn render(&self, now: Millis, live: Live) -> String {
        let shards = self.shards();
        let backends = {
            let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
            ledger.sweep(now, &live.backends, &shards);
            ledger.totals(&shards)
        };
        Page {
            shards,
            backends,
            live,
        }
        .render()
    }

    /// Copies of requests that are under way to each service.
    pub fn copies(&self) -> BTreeMap<Arc<str>, Levels> {
        let mut copies = BTreeMap::<_, Levels>::new();
        for shard in self.shards() {
            for (name, service) in shard.by_service().iter() {
                let levels = copies.entry(Arc::clone(name)).or_default();
                levels.add(&service.copies);
            }
        }
        copies
    }

    /// Idle connections to backends that are kept.
    pub fn idle_connections(&self) -> Levels {
        self.levels(|shard| &shard.idle_connections)
    }

    fn levels(&self, of: impl Fn(&Counters) -> &Level) -> Levels {
        let mut levels = Levels::default();
        let shards = self.shards();
        shards.iter().for_each(|shard| levels.add(of(shard)));
        levels
    }

    fn shards(&self) -> Vec<Arc<Counters>> {
        let shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
        shards.clone()
    }
}

/// Media type of the page.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[cfg(test)]
mod tests;
