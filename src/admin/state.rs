//! Is this process ready, is it alive, and what does a scrape show?
//!
//! Everything is read out of what the workers and the control thread share; nothing is told to
//! this file, so no answer can be forgotten to be updated.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::occupancy::Occupancy;
use crate::acme::Acme;
use crate::clock::Millis;
use crate::discovery::stats::{DURATION_BOUNDS, DnsStats, Stats};
use crate::events::journal::{CAPACITY, Journal};
use crate::events::{Reloads, Sign};
use crate::proxy::drain::{Drain, Phase};
use crate::proxy::worker::{Shared, idle_connections, labels};
use crate::published::Published;
use crate::telemetry::metrics::{
    BackendSample, BoundSample, CertificateSample, DnsLookups, DnsName, DnsSample, Levels, Live,
    Metrics, ReloadSample,
};
use crate::tls::reload::CertificateWatch;

/// What the probe listener reads. Lives on the control thread.
#[derive(Debug)]
pub struct State {
    /// When the process began to serve. Certificates are loaded by then: a listener that has none
    /// is never started.
    pub started: Millis,
    /// The generation of the configuration that is in force.
    pub generations: Arc<Published<Shared>>,
    /// What is known of each worker.
    pub signs: Vec<Arc<Sign>>,
    /// Whoever takes up other certificates.
    pub certificate_watch: Rc<CertificateWatch>,
    /// Whoever orders them.
    pub acme: Rc<Acme>,
    /// What the workers counted.
    pub metrics: Arc<Metrics>,
    /// What discovery counted.
    pub discovery: Arc<Stats>,
    /// Lines that the access log had to drop.
    pub access_lines_dropped: Arc<AtomicU64>,
    /// What became of reloads.
    pub reloads: Rc<RefCell<Reloads>>,
    /// What happened.
    pub journal: Arc<Journal>,
    /// Who asks.
    pub occupancy: Occupancy,
}

/// Something that keeps this process from being ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unmet {
    /// It was told to end.
    Draining,
    /// This service has heard nothing of its backends, not even that there are none.
    NoAnswer(Arc<str>),
}

/// A worker that has not turned for longer than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stuck {
    /// Which one.
    pub worker: usize,
    /// For how long.
    pub quiet: Duration,
}

/// From the start on, a service is waited for that long; then the process is ready without it.
/// DNS that is down must not keep every replica out of its cluster.
const FIRST_ANSWERS: Duration = Duration::from_secs(10);
/// A worker turns ten times a second. One that took this long is held up by something that it
/// will not get over.
const HEARTBEAT: Duration = Duration::from_secs(10);

impl State {
    /// What keeps this process from being ready. Once empty, only a drain makes it unready: an
    /// answer, once there, stays, and so does the time that has passed.
    pub fn unmet(&self, now: Millis) -> Vec<Unmet> {
        let mut unmet = Vec::new();
        if self.draining() {
            unmet.push(Unmet::Draining);
        }
        if now.since(self.started) < FIRST_ANSWERS {
            let shared = self.generations.load();
            let services = shared.config.services.iter().zip(&shared.services);
            unmet.extend(
                services
                    .filter(|(_, serviced)| !serviced.snapshot.load().answered)
                    .map(|(service, _)| Unmet::NoAnswer(Arc::clone(&service.name))),
            );
        }
        unmet
    }

    /// Workers that are stuck.
    pub fn stuck(&self, now: Millis) -> Vec<Stuck> {
        let quiet = |sign: &Arc<Sign>| now.since(Millis(sign.heartbeat.load(Ordering::Relaxed)));
        let workers = self.signs.iter().map(quiet).enumerate();
        workers
            .filter(|&(_, quiet)| quiet > HEARTBEAT)
            .map(|(worker, quiet)| Stuck { worker, quiet })
            .collect()
    }

    /// The page for Prometheus.
    pub fn scrape(&self, now: Millis) -> String {
        let dns = self.discovery.snapshot();
        let shared = self.generations.load();
        let reloads = self.reloads.borrow();
        let live = Live {
            reloads: ReloadSample {
                succeeded: reloads.succeeded,
                failed: reloads.failed,
                generation: shared.generation,
                last: reloads
                    .last
                    .as_ref()
                    .map(|last| (last.at, last.error.is_none())),
            },
            services: shared
                .config
                .services
                .iter()
                .map(|service| Arc::clone(&service.name))
                .collect(),
            backends: backends(&shared, now),
            certificates: certificates(&shared),
            certificate_files: self.certificate_watch.counted(),
            acme: self.acme.sample(),
            bounds: self.bounds(&shared, &dns),
            dns: dns_sample(dns),
            access_lines_dropped: self.access_lines_dropped.load(Ordering::Relaxed),
            memory: shared.limits.pressure.sample(),
            rate_limit_forgiven: shared.limits.forgiven(),
            stuck_workers: self.stuck(now).len(),
            draining: self.draining(),
            spans: shared.tracer.as_ref().map(|tracer| tracer.counts.results()),
        };
        self.metrics.render(now, live)
    }

    fn bounds(&self, shared: &Shared, dns: &DnsStats) -> Vec<BoundSample> {
        let mut bounds = bounds(shared, dns);
        let workers = self.signs.len();
        bounds.extend(copies(shared, &self.metrics, workers));
        let of_workers = |what, level: Levels, bound_of_one: usize| BoundSample {
            what,
            service: None,
            now: level.now,
            bound: bound_of_one.checked_mul(workers).map(|n| n as u64),
            high_water: Some(level.most),
        };
        let idle = idle_connections(shared);
        bounds.push(of_workers(
            "idle_connections",
            self.metrics.idle_connections(),
            idle,
        ));
        let (first, next) = self.journal.bounds();
        bounds.push(BoundSample {
            what: "journal",
            service: None,
            now: next - first,
            bound: Some(CAPACITY as u64),
            // It only grows.
            high_water: Some(next - first),
        });
        bounds.extend(self.occupancy.bounds());
        bounds
    }

    /// Forgets the series of backends that are long gone. To be called every few seconds.
    pub fn sweep(&self, now: Millis) {
        self.metrics
            .sweep(now, &backends(&self.generations.load(), now));
    }

    /// Has a drain begun?
    pub fn draining(&self) -> bool {
        self.drain().phase() > Phase::Serving
    }

    /// How far a drain has come.
    pub fn drain(&self) -> Arc<Drain> {
        Arc::clone(&self.generations.load().drain)
    }
}

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unmet::Draining => f.write_str("draining"),
            Unmet::NoAnswer(service) => {
                write!(f, "service {service}: no answer from discovery yet")
            }
        }
    }
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "worker {} has not turned for {} s",
            self.worker,
            self.quiet.as_secs()
        )
    }
}

fn bounds(shared: &Shared, dns: &DnsStats) -> Vec<BoundSample> {
    let mut bounds = shared.limits.bounds();
    bounds.push(BoundSample {
        what: "dns_lookups",
        now: dns.in_flight as u64,
        high_water: Some(dns.in_flight_high as u64),
        ..BoundSample::default()
    });
    let services = shared.config.services.iter().zip(&shared.services);
    let lines = services.filter_map(|(service, gate)| Some((service, gate.gate.as_ref()?)));
    bounds.extend(lines.map(|(service, gate)| BoundSample {
        what: "queue",
        service: Some(Arc::clone(&service.name)),
        now: gate.waiting() as u64,
        bound: Some(gate.room as u64),
        high_water: Some(gate.high_water() as u64),
    }));
    let services = shared.config.services.iter().zip(&shared.services);
    let adaptive =
        services.filter_map(|(service, gate)| Some((service, gate.gate.as_ref()?.adaptive()?)));
    bounds.extend(adaptive.map(|(service, adaptive)| BoundSample {
        what: "in_flight",
        service: Some(Arc::clone(&service.name)),
        now: adaptive.in_flight().into(),
        bound: Some(adaptive.limit().into()),
        high_water: Some(adaptive.most().into()),
    }));
    for (service, serviced) in shared.config.services.iter().zip(&shared.services) {
        let Some(gate) = &serviced.gate else { continue };
        let Some(limit) = gate.per_backend else {
            continue;
        };
        let snapshot = serviced.snapshot.load();
        let in_flight = snapshot.listed().map(|(_, m)| m.backend.in_flight());
        let now = in_flight.max().unwrap_or(0);
        bounds.push(BoundSample {
            what: "in_flight_of_one_backend",
            service: Some(Arc::clone(&service.name)),
            now: now.into(),
            bound: Some(limit.get().into()),
            high_water: Some(gate.most_of_one().max(now).into()),
        });
    }
    bounds
}

/// Copies of requests, by the service that gets them. Each worker has a bound for each route.
fn copies(shared: &Shared, metrics: &Metrics, workers: usize) -> Vec<BoundSample> {
    let mut bounds = BTreeMap::<usize, u64>::new();
    for mirror in shared
        .config
        .routes
        .iter()
        .filter_map(|r| r.mirror.as_ref())
    {
        let bound = bounds.entry(mirror.service).or_default();
        *bound += u64::from(mirror.max_in_flight) * workers as u64;
    }
    let levels = metrics.copies();
    let sample = |(service, bound): (usize, u64)| {
        let name = &shared.config.services[service].name;
        let level = levels.get(name).copied().unwrap_or_default();
        BoundSample {
            what: "mirrored_requests",
            service: Some(Arc::clone(name)),
            now: level.now,
            bound: Some(bound),
            high_water: Some(level.most),
        }
    };
    bounds.into_iter().map(sample).collect()
}

fn backends(shared: &Shared, now: Millis) -> Vec<BackendSample> {
    let mut samples = Vec::new();
    for service in &shared.services {
        let snapshot = service.snapshot.load();
        samples.extend(snapshot.listed().map(|(priority, member)| {
            let backend = &member.backend;
            let (state, reason) = backend.state(now);
            BackendSample {
                id: backend.id.0,
                labels: labels(backend),
                up: !backend.drained() && backend.out_until(now).is_none(),
                state: (state.name(), reason.name()),
                verdicts: Arc::clone(&backend.verdicts),
                weight: member.weight,
                priority,
                in_flight: backend.in_flight(),
            }
        }));
    }
    samples
}

fn certificates(shared: &Shared) -> Vec<CertificateSample> {
    let listeners = shared.config.listeners.iter().zip(&shared.listeners);
    let sets = listeners
        .filter_map(|(listener, set)| Some((listener, set.tls.as_ref()?.certificates.load())));
    sets.flat_map(|(listener, set)| {
        let sample = |certificate: &crate::tls::certificates::Certificate| CertificateSample {
            listener: Arc::clone(&listener.name),
            file: certificate.files().cert.display().to_string().into(),
            not_after: certificate.validity().not_after,
        };
        set.certificates().iter().map(sample).collect::<Vec<_>>()
    })
    .collect()
}

fn dns_sample(stats: DnsStats) -> DnsSample {
    let bounds = DURATION_BOUNDS.into_iter().chain([f64::INFINITY]);
    DnsSample {
        durations: bounds.zip(stats.duration.buckets).collect(),
        seconds: stats.duration.sum,
        lookups: stats
            .lookups
            .into_iter()
            .map(|(key, count)| DnsLookups {
                name: key.name,
                qtype: key.qtype,
                result: key.result,
                count,
            })
            .collect(),
        names: stats
            .names
            .into_iter()
            .map(|(name, stats)| DnsName {
                name,
                last_success: stats.last_success,
                stale: stats.stale,
                endpoints: stats.endpoints,
                rotates: stats.rotates,
                unlisted: stats.unlisted,
                changes: vec![
                    ("joined", stats.joined),
                    ("left", stats.left),
                    ("reweighted", stats.reweighted),
                ],
                held_back: stats.held_back,
                rejected: stats.rejected,
            })
            .collect(),
    }
}

#[cfg(test)]
pub(super) mod tests;
