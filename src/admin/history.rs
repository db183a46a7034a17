//! The last minute: rates, latencies and shares, from what is counted anyway.
//!
//! Totals are taken each second; of services and backends every `STEP` are kept, so that thousands
//! of them take a few megabytes. It also sees when another tier begins to serve, and says so.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::model::Sample;
use super::state::State;
use crate::balance::snapshot::Snapshot;
use crate::clock::Millis;
use crate::config::Strategy;
use crate::events::journal::{Journal, Kind, What};
use crate::proxy::worker::Shared;
use crate::telemetry::date::Rfc3339;
use crate::telemetry::metrics::{Requests, Totals};

/// Samples that are kept: a minute.
const SAMPLES: usize = 60;

/// Between two samples.
pub const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// Between two totals of services and backends that are kept.
const STEP: u32 = 5;

/// So many of those: a minute, and the one that it is compared with.
const STEPS: usize = 13;

/// What was seen lately.
#[derive(Debug)]
pub struct History {
    samples: VecDeque<Arc<Sample>>,
    /// Oldest first.
    steps: VecDeque<(Instant, Totals)>,
    /// What the last sample was compared with.
    last: Option<(Instant, Requests)>,
    ticks: u32,
    /// The priority that serves, by service; `None`: nobody can.
    serving: BTreeMap<Arc<str>, Option<u16>>,
    newest: watch::Sender<Option<Arc<Sample>>>,
}

/// What a service did lately.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lately {
    /// Requests that ended in the last step.
    pub requests_per_second: Option<f64>,
    /// Half of those of the last minute took no longer, in seconds.
    pub p50: Option<f64>,
    /// 99 of 100 of those of the last minute.
    pub p99: Option<f64>,
}

impl Default for History {
    fn default() -> Self {
        History {
            samples: VecDeque::new(),
            steps: VecDeque::new(),
            last: None,
            ticks: 0,
            serving: BTreeMap::new(),
            newest: watch::Sender::new(None),
        }
    }
}

/// Looks each second, for as long as it is polled.
pub async fn watch(
    history: Rc<std::cell::RefCell<History>>,
    state: Rc<State>,
    journal: Arc<Journal>,
) {
    let mut ticker = interval(SAMPLE_EVERY);
    ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticker.tick().await;
        let shared = state.generations.load();
        let totals = state.metrics.totals();
        let mut history = history.borrow_mut();
        history.look(&shared, totals, Instant::now());
        history.see_tiers(&shared, &journal);
    }
}

impl History {
    /// Oldest first.
    pub fn samples(&self) -> impl Iterator<Item = &Arc<Sample>> {
        self.samples.iter()
    }

    /// The newest sample, whenever there is another one.
    pub fn news(&self) -> watch::Receiver<Option<Arc<Sample>>> {
        self.newest.subscribe()
    }

    /// What a service did lately; `total`: what it did ever.
    pub fn of_service(&self, name: &str) -> (Lately, Requests) {
        let Some((at, newest)) = self.steps.back() else {
            return Default::default();
        };
        let Some(total) = newest.services.get(name) else {
            return Default::default();
        };
        let since = |step: Option<&(Instant, Totals)>| {
            let (then, totals) = step?;
            let passed = at.duration_since(*then).as_secs_f64();
            let before = totals.services.get(name).cloned().unwrap_or_default();
            (passed > 0.0).then(|| (total.since(&before), passed))
        };
        let step = since(self.steps.iter().rev().nth(1));
        let minute = since(self.steps.front());
        let quantile = |part| {
            minute
                .as_ref()
                .and_then(|(requests, _)| requests.duration.quantile(part))
        };
        let lately = Lately {
            requests_per_second: step.map(|(requests, passed)| requests.count as f64 / passed),
            p50: quantile(0.5),
            p99: quantile(0.99),
        };
        (lately, total.clone())
    }

    /// Attempts with a backend: ever, in the time that is kept, and how long that is in seconds.
    pub fn of_backend(&self, id: u64) -> (u64, u64, Option<f64>) {
        let (Some((at, newest)), Some((then, oldest))) = (self.steps.back(), self.steps.front())
        else {
            return (0, 0, None);
        };
        let ever = newest.attempts.get(&id).copied().unwrap_or_default();
        let before = oldest.attempts.get(&id).copied().unwrap_or_default();
        let passed = at.duration_since(*then).as_secs_f64();
        (
            ever,
            ever.saturating_sub(before),
            (passed > 0.0).then_some(passed),
        )
    }

    fn look(&mut self, shared: &Shared, totals: Totals, now: Instant) {
        let all = totals.all.clone();
        if let Some((then, before)) = self.last.replace((now, all.clone())) {
            let passed = now.duration_since(then).as_secs_f64().max(0.001);
            let since = all.since(&before);
            let millis = |part| {
                since
                    .duration
                    .quantile(part)
                    .map(|seconds| seconds * 1_000.0)
            };
            let (mut backends, mut healthy, mut in_flight) = (0, 0, 0);
            let present = Millis::now();
            for service in &shared.services {
                let snapshot = service.snapshot.load();
                for (_, member) in snapshot.listed() {
                    let backend = &member.backend;
                    backends += 1;
                    healthy += u64::from(is_healthy(backend, present));
                    in_flight += u64::from(backend.in_flight());
                }
                // Who is withdrawn finishes what it has.
                let withdrawn = snapshot.withdrawn.iter();
                in_flight += withdrawn
                    .map(|(b, _)| u64::from(b.in_flight()))
                    .sum::<u64>();
            }
            let sample = Arc::new(Sample {
                at: Rfc3339::millis(SystemTime::now()).to_string(),
                requests_per_second: since.count as f64 / passed,
                errors_per_second: since.errors as f64 / passed,
                p50_ms: millis(0.5),
                p99_ms: millis(0.99),
                in_flight,
                open_connections: totals.open,
                backends,
                healthy,
            });
            if self.samples.len() == SAMPLES {
                self.samples.pop_front();
            }
            self.samples.push_back(Arc::clone(&sample));
            self.newest.send_replace(Some(sample));
        }
        if self.ticks.is_multiple_of(STEP) {
            if self.steps.len() == STEPS {
                self.steps.pop_front();
            }
            self.steps.push_back((now, totals));
        }
        self.ticks = self.ticks.wrapping_add(1);
    }

    /// Says where another tier serves than a second ago.
    fn see_tiers(&mut self, shared: &Shared, journal: &Journal) {
        let now = Millis::now();
        let mut serving = BTreeMap::new();
        for (config, service) in shared.config.services.iter().zip(&shared.services) {
            let snapshot = service.snapshot.load();
            // With `cycle` all tiers serve; before an answer nobody is missed.
            if config.balancing.strategy == Strategy::Cycle || !snapshot.answered {
                continue;
            }
            let tier = self::serving(&snapshot, now);
            if let Some(before) = self.serving.get(&config.name)
                && *before != tier
            {
                let text = match (before, tier) {
                    (_, None) => "no backend can be picked any more".to_owned(),
                    (None, Some(tier)) => format!("priority {tier} serves again"),
                    (Some(before), Some(tier)) => {
                        format!("priority {tier} serves, it was {before}")
                    }
                };
                journal.record(What {
                    service: Some(Arc::clone(&config.name)),
                    ..What::new(Kind::FailedOver, text)
                });
            }
            serving.insert(Arc::clone(&config.name), tier);
        }
        self.serving = serving;
    }
}

/// The priority of the first tier with somebody who can be picked.
pub fn serving(snapshot: &Snapshot, now: Millis) -> Option<u16> {
    let mut tiers = snapshot.tiers.iter();
    let tier = tiers.find(|tier| tier.members.iter().any(|m| is_healthy(&m.backend, now)));
    tier.map(|tier| tier.priority)
}

/// Can it be picked?
pub fn is_healthy(backend: &crate::upstream::backend::Backend, now: Millis) -> bool {
    !backend.drained() && backend.out_until(now).is_none()
}
