//! The page that Prometheus reads: names, help texts and labels of all series, in one place.
//!
//! A page is a registry made for one scrape, whose collectors sum what the shards hold. Every
//! label value is a name from the configuration, from DNS, or one of a fixed set of words.

mod dns;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::MetricType::{self, Counter, Gauge, Histogram};
use prometheus_client::registry::Registry;

use super::family::{Out, Value};
use super::ledger::BackendTotals;
use super::process::Process;
use super::shard::{Counters, Handshake, Rare, ServiceCounters};
use super::{BackendLabels, BackendSample, BoundSample, HistogramTotals, Live};
use crate::telemetry::date::unix_millis;

/// Everything that one scrape shows.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) shards: Vec<Arc<Counters>>,
    pub(super) backends: BTreeMap<BackendLabels, BackendTotals>,
    pub(super) live: Live,
}

impl Page {
    pub(super) fn render(self) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Process::look()));
        registry
            .sub_registry_with_prefix("evenkeel")
            .register_collector(Box::new(self));
        let mut text = String::new();
        encode(&mut text, &registry).expect("a String takes everything");
        text
    }

    /// The names of all services, in order.
    fn services(&self) -> BTreeSet<Arc<str>> {
        let names = |shard: &Arc<Counters>| shard.by_service().keys().cloned().collect::<Vec<_>>();
        self.shards.iter().flat_map(names).collect()
    }

    fn requests(&self, out: &mut Out<'_>) -> fmt::Result {
        let mut family = out.family("requests", "Requests that were answered", Counter)?;
        let mut sums: BTreeMap<Arc<str>, ServiceSums> = BTreeMap::new();
        // Requests without a service have the empty label, which no service can have.
        let unrouted = sums.entry("".into()).or_default();
        for shard in &self.shards {
            unrouted.add(&shard.unrouted);
        }
        for shard in &self.shards {
            for (name, counters) in shard.by_service().iter() {
                sums.entry(Arc::clone(name)).or_default().add(counters);
            }
        }
        for (service, sums) in &sums {
            for ((method, code), count) in &sums.requests {
                let code = code.to_string();
                let labels = [("service", &**service), ("method", method), ("code", &code)];
                family.add(&labels, Value::Count(*count))?;
            }
        }
        let mut family = out.family(
            "request_duration_seconds",
            "From the first byte of a request to the last of its response",
            Histogram,
        )?;
        for (service, sums) in &sums {
            family.add(&[("service", &**service)], Value::Times(&sums.times))?;
        }
        let mut family = out.family(
            "client_body_bytes",
            "Bytes of bodies taken from clients (in) and sent to them (out)",
            Counter,
        )?;
        for (service, sums) in &sums {
            for (direction, bytes) in [("in", sums.received), ("out", sums.sent)] {
                let labels = [("service", &**service), ("direction", direction)];
                family.add(&labels, Value::Count(bytes))?;
            }
        }
        Ok(())
    }

    fn backends(&self, out: &mut Out<'_>) -> fmt::Result {
        let labels_of = |labels: &BackendLabels| {
            [
                ("service", labels.service.to_string()),
                ("backend", labels.backend.to_string()),
            ]
        };
        let mut family = out.family("backend_requests", "Attempts made with a backend", Counter)?;
        for (labels, totals) in &self.backends {
            family.add(&labels_of(labels), Value::Count(totals.requests))?;
        }
        let mut family = out.family(
            "backend_connect_failures",
            "Connects to a backend that failed",
            Counter,
        )?;
        for (labels, totals) in &self.backends {
            family.add(&labels_of(labels), Value::Count(totals.failed_connects))?;
        }
        let mut family = out.family(
            "backend_first_byte_seconds",
            "From the start of an attempt to the first byte of its response",
            Histogram,
        )?;
        for (labels, totals) in &self.backends {
            family.add(&labels_of(labels), Value::Times(&totals.first_byte))?;
        }

        let mut live: BTreeMap<&BackendLabels, BackendSample> = BTreeMap::new();
        for sample in &self.live.backends {
            live.entry(&sample.labels)
                .and_modify(|first| {
                    if !first.up {
                        first.state = sample.state;
                    }
                    first.up |= sample.up;
                    first.check_failures += sample.check_failures;
                    for ((_, count), (_, more)) in first.ejections.iter_mut().zip(&sample.ejections)
                    {
                        *count += more;
                    }
                    first.in_flight += sample.in_flight;
                })
                .or_insert_with(|| sample.clone());
        }
        type Gauge = fn(&BackendSample) -> f64;
        let gauges: [(&str, &str, Gauge); 4] = [
            ("backend_up", "1: it can be picked, 0: it is out", |b| {
                truth(b.up)
            }),
            ("backend_weight", "Its SRV weight", |b| f64::from(b.weight)),
            ("backend_priority", "Its SRV priority", |b| {
                f64::from(b.priority)
            }),
            ("backend_in_flight", "Exchanges under way with it", |b| {
                f64::from(b.in_flight)
            }),
        ];
        for (name, help, gauge) in gauges {
            let mut family = out.family(name, help, Gauge)?;
            for (labels, sample) in &live {
                family.add(&labels_of(labels), Value::Gauge(gauge(sample)))?;
            }
        }
        let mut family = out.family(
            "backend_state",
            "1 for the state that it is in, with the reason",
            Gauge,
        )?;
        for (labels, sample) in &live {
            let [service, backend] = labels_of(labels);
            let (state, reason) = sample.state;
            let labels = [
                service,
                backend,
                ("state", state.to_owned()),
                ("reason", reason.to_owned()),
            ];
            family.add(&labels, Value::Gauge(1.0))?;
        }
        let mut family = out.family("backend_check_failures", "Checks that failed", Counter)?;
        for (labels, sample) in &live {
            family.add(&labels_of(labels), Value::Count(sample.check_failures))?;
        }
        let mut family = out.family(
            "backend_ejections",
            "Times that it was ejected, by reason",
            Counter,
        )?;
        for (labels, sample) in &live {
            for &(reason, count) in &sample.ejections {
                let [service, backend] = labels_of(labels);
                let labels = [service, backend, ("reason", reason.to_owned())];
                family.add(&labels, Value::Count(count))?;
            }
        }
        Ok(())
    }

    fn rare(&self, out: &mut Out<'_>) -> fmt::Result {
        let mut sums: BTreeMap<Rare, u64> = BTreeMap::new();
        for shard in &self.shards {
            for (what, count) in shard.rare().iter() {
                *sums.entry(what.clone()).or_default() += count;
            }
        }
        let services = self.services();
        let mut family = out.family(
            "retries",
            "Requests sent to a backend for another time",
            Counter,
        )?;
        for service in &services {
            let retry = Rare::Retry {
                service: Arc::clone(service),
            };
            let count = sums.get(&retry).copied().unwrap_or(0);
            family.add(&[("service", &**service)], Value::Count(count))?;
        }
        let mut family = out.family(
            "retries_denied",
            "Requests that were not sent another time because the budget was spent",
            Counter,
        )?;
        for service in &services {
            let denied = Rare::RetryDenied {
                service: Arc::clone(service),
            };
            let count = sums.get(&denied).copied().unwrap_or(0);
            family.add(&[("service", &**service)], Value::Count(count))?;
        }
        let mut family = out.family(
            "mirrored_requests",
            "Requests that were to be copied to the service, by what became of the copy",
            Counter,
        )?;
        for (what, &count) in &sums {
            if let Rare::Mirrored { service, outcome } = what {
                let labels = [("service", &**service), ("outcome", *outcome)];
                family.add(&labels, Value::Count(count))?;
            }
        }
        let mut family = out.family(
            "upstream_errors",
            "Attempts that failed on a backend's side",
            Counter,
        )?;
        for (what, &count) in &sums {
            if let Rare::UpstreamError { service, reason } = what {
                let labels = [("service", &**service), ("reason", *reason)];
                family.add(&labels, Value::Count(count))?;
            }
        }
        let mut family = out.family(
            "grpc_calls",
            "Calls by gRPC, by the status that ended them",
            Counter,
        )?;
        for (what, &count) in &sums {
            if let Rare::GrpcCall { service, status } = what {
                let labels = [("service", &**service), ("status", *status)];
                family.add(&labels, Value::Count(count))?;
            }
        }
        let mut family = out.family(
            "downstream_errors",
            "Requests that failed on the client's side",
            Counter,
        )?;
        for (what, &count) in &sums {
            if let Rare::DownstreamError { reason } = what {
                family.add(&[("reason", *reason)], Value::Count(count))?;
            }
        }
        let mut family = out.family(
            "streams",
            "Connections that were passed on as they are, by how they ended",
            Counter,
        )?;
        for (what, &count) in &sums {
            if let Rare::Stream { service, outcome } = what {
                let labels = [
                    ("service", service.as_deref().unwrap_or_default()),
                    ("outcome", *outcome),
                ];
                family.add(&labels, Value::Count(count))?;
            }
        }
        let mut family = out.family(
            "refused_connections",
            "Connections of clients that were not taken in, by the limit that forbade it",
            Counter,
        )?;
        for (what, &count) in &sums {
            if let Rare::Refused { reason } = what {
                family.add(&[("reason", *reason)], Value::Count(count))?;
            }
        }
        let mut family = out.family(
            "connections_closed_for_memory",
            "Idle connections of clients that were closed for want of memory",
            Counter,
        )?;
        family.only(Value::Count(sums.get(&Rare::Shed).copied().unwrap_or(0)))?;
        let mut family = out.family(
            "tls_handshakes",
            "TLS handshakes with clients, by how they ended",
            Counter,
        )?;
        for (what, &count) in &sums {
            if let Rare::Handshake { version, ended } = what {
                let result = match ended {
                    Handshake::Full => "full",
                    Handshake::Resumed => "resumed",
                    Handshake::Failed => "failed",
                    Handshake::TimedOut => "timeout",
                };
                let labels = [
                    ("version", version.unwrap_or("unknown")),
                    ("result", result),
                ];
                family.add(&labels, Value::Count(count))?;
            }
        }
        Ok(())
    }

    fn connections(&self, out: &mut Out<'_>) -> fmt::Result {
        let mut rows: BTreeMap<(&str, Arc<str>), (u64, u64)> = BTreeMap::new();
        let mut count = |side, name: &Arc<str>, (opened, open): (u64, u64)| {
            let row = rows.entry((side, Arc::clone(name))).or_default();
            *row = (row.0 + opened, row.1 + open);
        };
        for shard in &self.shards {
            for (name, listener) in shard.by_listener().iter() {
                count("downstream", name, listener.totals());
            }
            for (name, service) in shard.by_service().iter() {
                count("upstream", name, service.connections.totals());
            }
        }
        let mut family = out.family(
            "connections",
            "Connections opened so far, from clients by listener and to backends by service",
            Counter,
        )?;
        for ((side, name), (opened, _)) in &rows {
            let labels = [("side", *side), ("name", &**name)];
            family.add(&labels, Value::Count(*opened))?;
        }
        let mut family = out.family("open_connections", "Connections that are open", Gauge)?;
        for ((side, name), (_, open)) in &rows {
            let labels = [("side", *side), ("name", &**name)];
            family.add(&labels, Value::Gauge(*open as f64))?;
        }
        Ok(())
    }

    fn others(&self, out: &mut Out<'_>) -> fmt::Result {
        let mut family = out.family(
            "tls_cert_not_after_timestamp_seconds",
            "When a certificate expires",
            Gauge,
        )?;
        let mut seen = BTreeSet::new();
        for certificate in &self.live.certificates {
            if seen.insert((&certificate.listener, &certificate.file)) {
                let labels = [
                    ("listener", &*certificate.listener),
                    ("file", &*certificate.file),
                ];
                family.add(&labels, Value::Gauge(unix_seconds(certificate.not_after)))?;
            }
        }
        let files = self.live.certificate_files;
        let mut family = out.family(
            "tls_certificate_reloads",
            "Certificates whose files changed, by what became of them",
            Counter,
        )?;
        for (result, count) in [("replaced", files.replaced), ("refused", files.refused)] {
            family.add(&[("result", result)], Value::Count(count))?;
        }
        let mut family = out.family(
            "tls_certificates_unusable",
            "Certificates whose files cannot be used as they are now",
            Gauge,
        )?;
        family.only(Value::Gauge(files.unusable as f64))?;
        if let Some(spans) = &self.live.spans {
            let mut family = out.family(
                "trace_spans",
                "Spans of requests that were recorded, by what became of them",
                Counter,
            )?;
            for &(result, count) in spans {
                family.add(&[("result", result)], Value::Count(count))?;
            }
        }
        if let Some(acme) = &self.live.acme {
            let mut family = out.family(
                "acme_orders",
                "Certificates that were ordered, by what came of it",
                Counter,
            )?;
            for &(result, count) in &acme.orders {
                family.add(&[("result", result)], Value::Count(count))?;
            }
            let mut family = out.family(
                "acme_renewal_timestamp_seconds",
                "When the next certificate for a name is ordered",
                Gauge,
            )?;
            for (name, at) in &acme.renewals {
                let at = Value::Gauge(unix_seconds(*at));
                family.add(&[("name", &**name)], at)?;
            }
        }
        type Level = fn(&BoundSample) -> Option<u64>;
        let levels: [(&str, &str, Level); 3] = [
            ("bounded", "What a bounded thing holds", |bound| {
                Some(bound.now)
            }),
            ("bounded_limit", "The most that it may hold", |bound| {
                bound.bound
            }),
            (
                "bounded_high_water",
                "The most that it ever held",
                |bound| bound.high_water,
            ),
        ];
        for (name, help, level) in levels {
            let mut family = out.family(name, help, Gauge)?;
            for bound in &self.live.bounds {
                if let Some(level) = level(bound) {
                    let value = Value::Gauge(level as f64);
                    match &bound.service {
                        Some(service) => {
                            family.add(&[("of", bound.what), ("service", service)], value)?;
                        }
                        None => family.add(&[("of", bound.what)], value)?,
                    }
                }
            }
        }
        if let Some(memory) = self.live.memory {
            for (name, help, value) in [
                ("memory_bytes", "Memory that counts", memory.used),
                ("memory_budget_bytes", "Most of it", memory.budget),
                (
                    "memory_level",
                    "1: idle clients are closed, 2: new ones are refused",
                    u64::from(memory.level),
                ),
            ] {
                let mut family = out.family(name, help, Gauge)?;
                family.only(Value::Gauge(value as f64))?;
            }
        }
        let mut family = out.family(
            "access_log_dropped_lines",
            "Lines of the access log that were lost because nobody read them fast enough",
            Counter,
        )?;
        family.only(Value::Count(self.live.access_lines_dropped))?;
        let mut family = out.family(
            "rate_limit_evictions",
            "Clients whose requests were forgotten for want of room although they counted still",
            Counter,
        )?;
        family.only(Value::Count(self.live.rate_limit_forgiven))?;
        let mut family = out.family(
            "draining",
            "1: between the signal to drain and the end",
            Gauge,
        )?;
        family.only(Value::Gauge(truth(self.live.draining)))?;
        let reloads = self.live.reloads;
        let mut family = out.family(
            "config_reloads",
            "Reloads of the configuration, by whether they put a new one in force",
            Counter,
        )?;
        for (result, count) in [("ok", reloads.succeeded), ("failed", reloads.failed)] {
            family.add(&[("result", result)], Value::Count(count))?;
        }
        let mut family = out.family(
            "config_generation",
            "The generation of the configuration that is in force, from 1",
            Gauge,
        )?;
        family.only(Value::Gauge(reloads.generation as f64))?;
        if let Some((at, succeeded)) = reloads.last {
            let mut family = out.family(
                "config_last_reload_timestamp_seconds",
                "When the last reload was done",
                Gauge,
            )?;
            family.only(Value::Gauge(unix_seconds(at)))?;
            let mut family = out.family(
                "config_last_reload_successful",
                "1: the last reload put a new configuration in force",
                Gauge,
            )?;
            family.only(Value::Gauge(truth(succeeded)))?;
        }
        let mut family = out.family("build", "Which program this is", MetricType::Info)?;
        family.info(&[("version", env!("CARGO_PKG_VERSION"))])
    }
}

impl Collector for Page {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let out = &mut Out::new(encoder);
        self.requests(out)?;
        self.backends(out)?;
        self.rare(out)?;
        self.connections(out)?;
        self.dns(out)?;
        self.others(out)
    }
}

/// What all workers counted of one service.
#[derive(Debug, Default)]
struct ServiceSums {
    /// By method and status.
    requests: BTreeMap<(&'static str, usize), u64>,
    times: HistogramTotals,
    received: u64,
    sent: u64,
}

impl ServiceSums {
    fn add(&mut self, counters: &ServiceCounters) {
        for (method, code, count) in counters.requests() {
            *self.requests.entry((method, code)).or_default() += count;
        }
        self.times.add(&counters.duration.totals());
        self.received += counters.received.value();
        self.sent += counters.sent.value();
    }
}

fn unix_seconds(time: SystemTime) -> f64 {
    unix_millis(time) as f64 / 1e3
}

/// 1 for true, as gauges have it.
fn truth(is: bool) -> f64 {
    f64::from(u8::from(is))
}
