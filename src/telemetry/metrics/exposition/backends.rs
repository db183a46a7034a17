//! What the page says of backends.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::metrics::MetricType::{Counter, Gauge, Histogram};

use super::super::connections::ByState;
use super::super::family::{Out, Value};
use super::super::{BackendLabels, BackendSample};
use super::{Page, truth};

impl Page {
    pub(super) fn backends(&self, out: &mut Out<'_>) -> fmt::Result {
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
        // Services that have none have a series as well: nobody could be told of one that is not there.
        let services = self.live.services.iter().map(|service| (&**service, 0));
        let mut up: BTreeMap<&str, u32> = services.collect();
        for (labels, sample) in &live {
            if let Some(up) = up.get_mut(&*labels.service) {
                *up += u32::from(sample.up);
            }
        }
        let mut family = out.family(
            "service_backends_up",
            "Backends of a service that can be picked",
            Gauge,
        )?;
        for (service, up) in up {
            let up = Value::Gauge(f64::from(up));
            family.add(&[("service", service)], up)?;
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
        for (labels, totals) in &self.backends {
            family.add(&labels_of(labels), Value::Count(totals.check_failures))?;
        }
        let mut family = out.family(
            "backend_ejections",
            "Times that it was ejected, by reason",
            Counter,
        )?;
        for (labels, totals) in &self.backends {
            for (reason, count) in &totals.ejections {
                let [service, backend] = labels_of(labels);
                let labels = [service, backend, ("reason", (*reason).to_owned())];
                family.add(&labels, Value::Count(*count))?;
            }
        }
        let mut family = out.family(
            "backend_connections",
            "Open connections to a backend: active with something under way on them, idle without",
            Gauge,
        )?;
        for (labels, totals) in &self.backends {
            let ByState { active, idle } = totals.connections;
            for (state, count) in [("active", active), ("idle", idle)] {
                let [service, backend] = labels_of(labels);
                let labels = [service, backend, ("state", state.to_owned())];
                family.add(&labels, Value::Gauge(count as f64))?;
            }
        }
        Ok(())
    }
}
