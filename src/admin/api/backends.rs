//! `backends`: each endpoint with its weight, its share, its state and why.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::services::named;
use super::{Desk, Refusal, date, wall};
use crate::admin::model::{Backend, Check, Ejections, Share, Weight, backend_id};
use crate::balance::snapshot::Member;
use crate::clock::Millis;
use crate::config::{self, Strategy};
use crate::events::journal::{CAPACITY, Entry, Journal, Kind};
use crate::proxy::worker::Serviced;
use crate::upstream::standing::{Reason, State};

/// The latest event of each backend, by service and address.
pub(super) struct Lines(HashMap<(String, String), Entry>);

impl Lines {
    pub(super) fn of(journal: &Journal) -> Lines {
        let entries = journal.since(0, CAPACITY).into_iter();
        let of_backends = entries.filter(|entry| {
            let kind = entry.what.kind;
            // A weight says nothing of the state.
            !matches!(kind, Kind::WeightSet | Kind::WeightCleared)
        });
        let keyed = of_backends.filter_map(|entry| {
            let (service, backend) = (entry.what.service.as_ref()?, entry.what.backend.as_ref()?);
            Some(((service.to_string(), backend.to_string()), entry))
        });
        // Later ones take the place of earlier ones.
        Lines(keyed.collect())
    }
}

impl Desk {
    pub(super) fn backends(&self, only: Option<&str>) -> Result<Vec<Backend>, Refusal> {
        let shared = self.shared();
        let lines = Lines::of(&self.journal);
        let services = named(&shared, only)?;
        let all = services.flat_map(|(_, config, serviced)| {
            let mut backends = self.backends_of(config, serviced, &lines);
            backends.sort_by_key(|backend| backend.priority);
            backends
        });
        Ok(all.collect())
    }

    /// Those of one service: those that the schedules have, then those that are drained.
    pub(super) fn backends_of(
        &self,
        config: &config::Service,
        serviced: &Serviced,
        lines: &Lines,
    ) -> Vec<Backend> {
        let (now, snapshot) = (Millis::now(), serviced.snapshot.load());
        let history = self.history.borrow();
        let lately = |member: &Member| history.of_backend(member.backend.id.0);
        // Of a tier's attempts in the time that is kept, or of all with `cycle`.
        let mut sums: HashMap<u16, u64> = HashMap::new();
        let key = |priority| match config.balancing.strategy {
            Strategy::Cycle => 0,
            _ => priority,
        };
        for (priority, member) in snapshot.listed() {
            *sums.entry(key(priority)).or_default() += lately(member).1;
        }
        // Those that are drained have none.
        let shares = snapshot.shares(config.balancing.strategy).into_iter();
        let shares = shares.chain(std::iter::repeat(0.0));
        let backend = |((priority, member), configured): ((u16, &Member), f64)| {
            let (ever, recent, seconds) = lately(member);
            let sum = sums.get(&key(priority)).copied().unwrap_or_default();
            Backend {
                share: Share {
                    configured,
                    measured: (sum > 0).then(|| recent as f64 / sum as f64),
                },
                requests: ever,
                requests_per_second: seconds.map(|seconds| recent as f64 / seconds),
                ..described(priority, member, now, lines)
            }
        };
        snapshot.listed().zip(shares).map(backend).collect()
    }
}

/// All but what is measured.
fn described(priority: u16, member: &Member, now: Millis, lines: &Lines) -> Backend {
    let backend = &member.backend;
    let (state, reason) = backend.state(now);
    let line = lines
        .0
        .get(&(backend.service.to_string(), backend.address.to_string()));
    let [(_, failures), (_, success_rate)] = backend.verdicts.ejections();
    let until = backend
        .out_until(now)
        .filter(|until| *until != Millis(u64::MAX));
    Backend {
        id: backend_id(&backend.service, &backend.address),
        number: backend.id.0,
        service: backend.service.to_string(),
        target: backend.endpoint.target.to_string(),
        address: backend.address.to_string(),
        priority,
        weight: Weight {
            srv: member.recorded,
            r#override: member.overridden.then_some(member.weight),
            effective: member.weight,
        },
        split: member.split,
        share: Share {
            configured: 0.0,
            measured: None,
        },
        state: state.name().to_owned(),
        reason: name_of(reason),
        detail: line
            .filter(|_| state != State::Up)
            .map(|line| line.what.text.clone()),
        since: line.map(|line| date(line.at)),
        out_for_seconds: until.map(|until| until.since(now).as_secs_f64()),
        drained: backend.drained(),
        last_check: backend.last_check().map(|(at, reason)| Check {
            at: date(wall(at)),
            passed: reason == Reason::None,
            reason: name_of(reason),
        }),
        check_failures: backend.verdicts.check_failures(),
        ejections: Ejections {
            failures,
            success_rate,
        },
        in_flight: backend.in_flight().into(),
        requests: 0,
        requests_per_second: None,
    }
}

fn name_of(reason: Reason) -> Option<String> {
    (reason != Reason::None).then(|| reason.name().to_owned())
}

/// Service and address of such an id.
pub(super) fn parsed(id: &str) -> Result<(&str, SocketAddr), Refusal> {
    let parts = id.rsplit_once('/');
    let parsed = parts.and_then(|(service, address)| Some((service, address.parse().ok()?)));
    parsed.ok_or_else(|| Refusal::unknown("backend", id))
}
