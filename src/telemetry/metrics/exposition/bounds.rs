//! What the page says of what is bounded: connections, tables, queues, memory.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use prometheus_client::metrics::MetricType::{Counter, Gauge};

use super::super::BoundSample;
use super::super::family::{Out, Value};
use super::Page;

impl Page {
    pub(super) fn connections(&self, out: &mut Out<'_>) -> fmt::Result {
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

    pub(super) fn bounds(&self, out: &mut Out<'_>) -> fmt::Result {
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
                    "memory_high_water_bytes",
                    "The most that ever was found",
                    memory.high_water,
                ),
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
        Ok(())
    }
}
