//! The page that Prometheus reads: names, help texts and labels of all series, a file for each subject.
//!
//! A page is a registry made for one scrape, whose collectors sum what the shards hold. Every
//! label value is a name from the configuration, from DNS, or one of a fixed set of words.

mod backends;
mod bounds;
mod certificates;
mod dns;
mod outcomes;
mod program;
mod requests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use super::family::Out;
use super::ledger::BackendTotals;
use super::process::Process;
use super::shard::Counters;
use super::{BackendLabels, Live};
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
}

impl Collector for Page {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let out = &mut Out::new(encoder);
        self.requests(out)?;
        self.backends(out)?;
        self.outcomes(out)?;
        self.connections(out)?;
        self.dns(out)?;
        self.certificates(out)?;
        self.bounds(out)?;
        self.program(out)
    }
}

fn unix_seconds(time: SystemTime) -> f64 {
    unix_millis(time) as f64 / 1e3
}

/// 1 for true, as gauges have it.
fn truth(is: bool) -> f64 {
    f64::from(u8::from(is))
}
