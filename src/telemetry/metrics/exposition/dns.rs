//! What the page says of discovery.

use std::fmt;

use prometheus_client::metrics::MetricType::{Counter, Gauge, Histogram};

use super::super::DnsName;
use super::super::family::{Out, Value};
use super::{Page, truth};

impl Page {
    pub(super) fn dns(&self, out: &mut Out<'_>) -> fmt::Result {
        let dns = &self.live.dns;
        let mut family = out.family("dns_lookups", "Lookups, by how they ended", Counter)?;
        for lookups in &dns.lookups {
            let labels = [
                ("name", &*lookups.name),
                ("qtype", lookups.qtype),
                ("result", lookups.result),
            ];
            family.add(&labels, Value::Count(lookups.count))?;
        }
        out.family(
            "dns_lookup_duration_seconds",
            "How long lookups took",
            Histogram,
        )?
        .only(Value::Buckets(&dns.durations, dns.seconds))?;
        let mut family = out.family(
            "dns_last_success_timestamp_seconds",
            "When an answer last came, a negative one included",
            Gauge,
        )?;
        for name in &dns.names {
            if let Some(seconds) = name.last_success {
                family.add(&[("name", &*name.name)], Value::Gauge(seconds))?;
            }
        }
        let mut family = out.family(
            "dns_changes",
            "Changes of endpoints that were applied",
            Counter,
        )?;
        for name in &dns.names {
            for &(op, count) in &name.changes {
                family.add(&[("name", &*name.name), ("op", op)], Value::Count(count))?;
            }
        }
        type Count = fn(&DnsName) -> u64;
        let counters: [(&str, &str, Count); 2] = [
            (
                "dns_held_back",
                "Answers of which a removal was held back",
                |name| name.held_back,
            ),
            (
                "dns_rejected_records",
                "Records that were refused",
                |name| name.rejected,
            ),
        ];
        for (series, help, count) in counters {
            let mut family = out.family(series, help, Counter)?;
            for name in &dns.names {
                family.add(&[("name", &*name.name)], Value::Count(count(name)))?;
            }
        }
        type Level = fn(&DnsName) -> f64;
        let gauges: [(&str, &str, Level); 4] = [
            (
                "dns_stale",
                "1: what is in use is older than it should be",
                |name| truth(name.stale),
            ),
            ("dns_endpoints", "Endpoints that a name has", |name| {
                name.endpoints as f64
            }),
            (
                "dns_unlisted_endpoints",
                "Endpoints in use that the last answer does not list",
                |name| name.unlisted as f64,
            ),
            (
                "dns_rotates",
                "1: answers show a part of a larger set, another one each time",
                |name| truth(name.rotates),
            ),
        ];
        for (series, help, value) in gauges {
            let mut family = out.family(series, help, Gauge)?;
            for name in &dns.names {
                family.add(&[("name", &*name.name)], Value::Gauge(value(name)))?;
            }
        }
        Ok(())
    }
}
