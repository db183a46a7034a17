//! What the page says of requests and what became of their bodies, by service.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use prometheus_client::metrics::MetricType::{Counter, Histogram};

use super::super::HistogramTotals;
use super::super::compressed::{CODINGS, CompressedTotals};
use super::super::family::{Out, Value};
use super::super::shard::ServiceCounters;
use super::Page;

impl Page {
    pub(super) fn requests(&self, out: &mut Out<'_>) -> fmt::Result {
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
        compressed(&sums, out)
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
    /// In the order of [`CODINGS`].
    compressed: [CompressedTotals; CODINGS.len()],
}

/// Of the codings that were used.
fn compressed(sums: &BTreeMap<Arc<str>, ServiceSums>, out: &mut Out<'_>) -> fmt::Result {
    type Count = fn(&CompressedTotals) -> u64;
    let counters: [(&str, &str, Count); 3] = [
        (
            "compressed_responses",
            "Responses that were compressed, by content coding",
            |totals| totals.responses,
        ),
        (
            "compression_uncompressed_bytes",
            "Bytes of their bodies before they were compressed",
            |totals| totals.uncompressed,
        ),
        (
            "compression_compressed_bytes",
            "Bytes of their bodies after they were compressed",
            |totals| totals.compressed,
        ),
    ];
    for (name, help, count) in counters {
        let mut family = out.family(name, help, Counter)?;
        for (service, sums) in sums {
            for (coding, totals) in CODINGS.iter().zip(&sums.compressed) {
                if totals.responses > 0 {
                    let labels = [("service", &**service), ("coding", *coding)];
                    family.add(&labels, Value::Count(count(totals)))?;
                }
            }
        }
    }
    Ok(())
}

impl ServiceSums {
    fn add(&mut self, counters: &ServiceCounters) {
        for (method, code, count) in counters.requests() {
            *self.requests.entry((method, code)).or_default() += count;
        }
        self.times.add(&counters.duration.totals());
        self.received += counters.received.value();
        self.sent += counters.sent.value();
        for (sum, counters) in self.compressed.iter_mut().zip(&counters.compressed) {
            sum.add(counters);
        }
    }
}
