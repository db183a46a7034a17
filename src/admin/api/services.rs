//! `services`: tiers and backends of each.

use std::collections::BTreeMap;

use super::backends::Lines;
use super::{Desk, Refusal, date};
use crate::admin::history::is_healthy;
use crate::admin::model::{Backend, Discover, Queue, Service, Snapshot, Tier};
use crate::balance::explain::parts;
use crate::clock::Millis;
use crate::config::{self, UpstreamProtocol};
use crate::proxy::worker::{Serviced, Shared};

impl Desk {
    pub(super) fn services(&self, only: Option<&str>) -> Result<Vec<Service>, Refusal> {
        let shared = self.shared();
        let lines = Lines::of(&self.journal);
        let services = named(&shared, only)?;
        let services = services.map(|(index, config, serviced)| {
            let (now, snapshot) = (Millis::now(), serviced.snapshot.load());
            let mut tiers: BTreeMap<u16, Vec<Backend>> = BTreeMap::new();
            for backend in self.backends_of(config, serviced, &lines) {
                tiers.entry(backend.priority).or_default().push(backend);
            }
            let parts = parts(&snapshot, &config.balancing, now);
            let of = snapshot.tiers.iter().map(|tier| tier.priority);
            let part: BTreeMap<u16, f64> = of.zip(parts.tiers).collect();
            let tiers = tiers.into_iter().map(|(priority, backends)| {
                // Of a tier of which all are drained the schedules know nothing.
                let part = part.get(&priority).copied().unwrap_or(0.0);
                Tier {
                    priority,
                    serving: part > 0.0,
                    part,
                    last_resort: parts.last_resort && part > 0.0,
                    backends,
                }
            });
            let listed = || snapshot.listed().map(|(_, member)| &member.backend);
            let (lately, ever) = self.history.borrow().of_service(&config.name);
            let millis = |seconds: Option<f64>| seconds.map(|seconds| seconds * 1_000.0);
            let routes = shared
                .config
                .routes
                .iter()
                .filter(|route| route.target.services().any(|s| s == index));
            Service {
                name: config.name.to_string(),
                discover: discover(&config.discover),
                strategy: config.balancing.strategy.name().to_owned(),
                sticky: config.sticky.is_some(),
                upstream: match config.upstream.protocol {
                    UpstreamProtocol::Http => "http",
                    UpstreamProtocol::Https => "https",
                    UpstreamProtocol::H2c => "h2c",
                    UpstreamProtocol::H2 => "h2",
                }
                .to_owned(),
                routes: routes.map(|route| route.label.to_string()).collect(),
                answered: snapshot.answered,
                snapshot: Snapshot {
                    number: serviced.snapshot.version(),
                    changed_at: snapshot.made_at.map(date),
                },
                healthy: listed().filter(|backend| is_healthy(backend, now)).count() as u64,
                total: listed().count() as u64,
                in_flight: listed().map(|backend| u64::from(backend.in_flight())).sum(),
                queue: serviced.gate.as_ref().map(|gate| Queue {
                    waiting: gate.waiting() as u64,
                    room: gate.room as u64,
                }),
                requests: ever.count,
                errors: ever.errors,
                requests_per_second: lately.requests_per_second,
                p50_ms: millis(lately.p50),
                p99_ms: millis(lately.p99),
                tiers: tiers.collect(),
            }
        });
        Ok(services.collect())
    }
}

/// The services, or the one of that name, with their indexes.
pub(super) fn named<'s>(
    shared: &'s Shared,
    only: Option<&'s str>,
) -> Result<impl Iterator<Item = (usize, &'s config::Service, &'s Serviced)>, Refusal> {
    let services = || shared.config.services.iter();
    if let Some(name) = only
        && services().all(|service| *service.name != *name)
    {
        return Err(Refusal::unknown("service", name));
    }
    let all = services().zip(&shared.services).enumerate();
    let all = all.map(|(index, (config, serviced))| (index, config, serviced));
    Ok(all.filter(move |(_, config, _)| only.is_none_or(|name| *config.name == *name)))
}

fn discover(discover: &config::Discover) -> Discover {
    let (kind, name) = match discover {
        config::Discover::Srv { name, .. } => ("srv", Some(name)),
        config::Discover::Address { name, .. } => ("a", Some(name)),
        config::Discover::Static(_) => ("static", None),
    };
    Discover {
        kind: kind.to_owned(),
        name: name.map(ToString::to_string),
    }
}
