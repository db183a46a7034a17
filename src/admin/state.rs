//! Is this process ready, is it alive, and what does a scrape show?
//!
//! Everything is read out of what the workers and the control thread share; nothing is told to
//! this file, so no answer can be forgotten to be updated.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::balance::affinity::Affinity;
use crate::balance::snapshot::Snapshot;
use crate::clock::Millis;
use crate::config::Config;
use crate::discovery::stats::{DURATION_BOUNDS, DnsStats, Stats};
use crate::proxy::drain::{Drain, Phase};
use crate::proxy::limits::Limits;
use crate::proxy::questions::Questions;
use crate::proxy::samples::Samples;
use crate::proxy::worker::labels;
use crate::published::Published;
use crate::telemetry::metrics::{
    BackendSample, BoundSample, CertificateSample, DnsLookups, DnsName, DnsSample, Live, Metrics,
};
use crate::tls::certificates::CertificateSet;
use crate::upstream::gate::Gate;

/// What the probe listener reads. Lives on the control thread.
#[derive(Debug)]
pub struct State {
    /// When the process began to serve. Certificates are loaded by then: a listener that has none
    /// is never started.
    pub started: Millis,
    /// The configuration.
    pub config: Arc<Config>,
    /// The backends of each service, in the order of the configuration.
    pub snapshots: Vec<Arc<Published<Snapshot>>>,
    /// Where requests to each service wait; `None`: they do not.
    pub gates: Vec<Option<Arc<Gate>>>,
    /// The certificates of each listener, in the order of the configuration; `None`: no TLS.
    pub certificates: Vec<Option<Arc<Published<CertificateSet>>>>,
    /// How far a drain has come.
    pub drain: Arc<Drain>,
    /// When each worker last turned, as [`Millis`].
    pub heartbeats: Vec<Arc<AtomicU64>>,
    /// What the workers together may take on, and how much of it is taken.
    pub limits: Arc<Limits>,
    /// How workers are asked why.
    pub asking: Asking,
    /// What the workers counted.
    pub metrics: Arc<Metrics>,
    /// What discovery counted.
    pub discovery: Arc<Stats>,
    /// Lines that the access log had to drop.
    pub access_lines_dropped: Arc<AtomicU64>,
}

/// What it takes to explain where requests go.
#[derive(Debug)]
pub struct Asking {
    /// The cookie of each service, in the order of the configuration; `None`: it has none.
    pub affinities: Vec<Option<Arc<Affinity>>>,
    /// What workers are asked by.
    pub questions: Arc<Questions>,
    /// Requests that they kept.
    pub samples: Arc<Samples>,
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
            let services = self.config.services.iter().zip(&self.snapshots);
            unmet.extend(
                services
                    .filter(|(_, snapshot)| !snapshot.load().answered)
                    .map(|(service, _)| Unmet::NoAnswer(Arc::clone(&service.name))),
            );
        }
        unmet
    }

    /// Workers that are stuck.
    pub fn stuck(&self, now: Millis) -> Vec<Stuck> {
        let quiet = |beat: &Arc<AtomicU64>| now.since(Millis(beat.load(Ordering::Relaxed)));
        let workers = self.heartbeats.iter().map(quiet).enumerate();
        workers
            .filter(|&(_, quiet)| quiet > HEARTBEAT)
            .map(|(worker, quiet)| Stuck { worker, quiet })
            .collect()
    }

    /// The page for Prometheus.
    pub fn scrape(&self, now: Millis) -> String {
        let dns = self.discovery.snapshot();
        let live = Live {
            backends: self.backends(now),
            certificates: self.certificates(),
            bounds: self.bounds(&dns),
            dns: dns_sample(dns),
            access_lines_dropped: self.access_lines_dropped.load(Ordering::Relaxed),
            memory: self.limits.pressure.sample(),
            rate_limit_forgiven: self.limits.forgiven(),
            draining: self.draining(),
        };
        self.metrics.render(now, live)
    }

    /// Forgets the series of backends that are long gone. To be called every few seconds.
    pub fn sweep(&self, now: Millis) {
        self.metrics.sweep(now, &self.backends(now));
    }

    fn bounds(&self, dns: &DnsStats) -> Vec<BoundSample> {
        let mut bounds = self.limits.bounds();
        bounds.push(BoundSample {
            what: "dns_lookups",
            now: dns.in_flight as u64,
            high_water: Some(dns.in_flight_high as u64),
            ..BoundSample::default()
        });
        let services = self.config.services.iter().zip(&self.gates);
        let lines = services.filter_map(|(service, gate)| Some((service, gate.as_ref()?)));
        bounds.extend(lines.map(|(service, gate)| BoundSample {
            what: "queue",
            service: Some(Arc::clone(&service.name)),
            now: gate.waiting() as u64,
            bound: Some(gate.room as u64),
            high_water: Some(gate.high_water() as u64),
        }));
        let services = self.config.services.iter().zip(&self.gates);
        let adaptive =
            services.filter_map(|(service, gate)| Some((service, gate.as_ref()?.adaptive()?)));
        bounds.extend(adaptive.map(|(service, adaptive)| BoundSample {
            what: "in_flight",
            service: Some(Arc::clone(&service.name)),
            now: adaptive.in_flight().into(),
            bound: Some(adaptive.limit().into()),
            high_water: None,
        }));
        bounds
    }

    fn draining(&self) -> bool {
        self.drain.phase() > Phase::Serving
    }

    fn backends(&self, now: Millis) -> Vec<BackendSample> {
        let mut samples = Vec::new();
        for snapshot in &self.snapshots {
            let snapshot = snapshot.load();
            samples.extend(snapshot.listed().map(|(priority, member)| {
                let backend = &member.backend;
                let (state, reason) = backend.state(now);
                let ejections = backend.ejections();
                BackendSample {
                    id: backend.id.0,
                    labels: labels(backend),
                    up: !backend.drained() && backend.out_until(now).is_none(),
                    state: (state.name(), reason.name()),
                    check_failures: backend.check_failures(),
                    ejections: ejections
                        .map(|(reason, count)| (reason.name(), count))
                        .into(),
                    weight: member.weight,
                    priority,
                    in_flight: backend.in_flight(),
                }
            }));
        }
        samples
    }

    fn certificates(&self) -> Vec<CertificateSample> {
        let listeners = self.config.listeners.iter().zip(&self.certificates);
        let sets = listeners.filter_map(|(listener, set)| Some((listener, set.as_ref()?.load())));
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
