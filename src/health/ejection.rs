//! Ejection: backends that fail requests are taken out for a while, within bounds, and come back
//! by a trial. One judge per service, on the control thread, since the bounds are a tier's.
//!
//! Pure but for the verdict that it writes into the backend: the present and the tiers are pushed
//! in. What the workers notice comes as [`Ejector::failing`] and [`Ejector::trial`]; [`Ejector::tick`]
//! compares success rates and holds the bounds where the tiers have changed. After "outlier
//! detection" in Envoy; the comparison of rates is with the others of the tier taken together,
//! because a standard deviation of three says nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::balance::snapshot::{Snapshot, Tier};
use crate::clock::Millis;
use crate::config::EjectionRules;
use crate::upstream::backend::{Backend, Outcomes};
use crate::upstream::standing::{Ejection, Reason};

/// The judge of one service.
#[derive(Debug)]
pub struct Ejector {
    rules: EjectionRules,
    records: HashMap<u64, Record>,
    /// When rates were compared last.
    compared: Millis,
}

/// What is remembered of a backend.
#[derive(Debug, Default)]
struct Record {
    /// Ejections that still count: the next one is twice as long for each.
    times: u32,
    /// How long the last one was.
    last: Duration,
    /// When it was taken back.
    back_since: Option<Millis>,
    /// What had become of its attempts when rates were compared last.
    seen: Outcomes,
}

/// What happened to a backend.
#[derive(Debug, Clone)]
pub struct Ruling {
    /// Whom it is about.
    pub backend: Arc<Backend>,
    /// What happened.
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// It was ejected for so long.
    Ejected(Reason, Duration),
    /// Its trial failed: it stays out for so long.
    TrialFailed(Duration),
    /// Its trial passed: it is back.
    Back,
    /// It is back before its time: its tier would have too few without it.
    Released,
}

impl Ejector {
    /// Nothing has happened yet.
    pub fn new(rules: EjectionRules, now: Millis) -> Ejector {
        Ejector {
            rules,
            records: HashMap::new(),
            compared: now,
        }
    }

    /// So many attempts with a backend have failed in a row that it may be ejected.
    pub fn failing(&mut self, now: Millis, snapshot: &Snapshot, backend: u64) -> Option<Ruling> {
        self.eject(now, snapshot, backend, Reason::Failures)
    }

    /// The trial of an ejected backend is over.
    pub fn trial(
        &mut self,
        now: Millis,
        snapshot: &Snapshot,
        backend: u64,
        passed: bool,
    ) -> Option<Ruling> {
        let (_, backend) = find(snapshot, backend)?;
        // News of a trial that was overtaken by something else says nothing.
        if !matches!(backend.ejection(), Ejection::Trial(_)) {
            return None;
        }
        let backend = Arc::clone(backend);
        if passed {
            backend.readmit();
            let record = self.records.entry(backend.id.0).or_default();
            record.back_since = Some(now);
            // Its failures before count no more.
            record.seen = backend.outcomes();
            let what = What::Back;
            return Some(Ruling { backend, what });
        }
        let time = self.sentence(backend.id.0);
        let reason = backend.ejected_for();
        backend.eject(now.after(time), reason);
        let what = What::TrialFailed(time);
        Some(Ruling { backend, what })
    }

    /// To be called about once a second: compares success rates every `WINDOW`, and takes back
    /// whom the bounds do not allow to be out any more.
    pub fn tick(&mut self, now: Millis, snapshot: &Snapshot) -> Vec<Ruling> {
        let mut rulings = Vec::new();
        if now.since(self.compared) >= WINDOW {
            self.compared = now;
            self.compare(now, snapshot, &mut rulings);
        }
        self.hold_bounds(now, snapshot, &mut rulings);
        self.forgive(now);
        let listed = |id: &u64| snapshot.backends().any(|b| b.id.0 == *id);
        if self.records.len() > snapshot.backends().count() + FORGOTTEN_AT {
            self.records.retain(|id, _| listed(id));
        }
        rulings
    }

    fn eject(
        &mut self,
        now: Millis,
        snapshot: &Snapshot,
        backend: u64,
        reason: Reason,
    ) -> Option<Ruling> {
        let (tier, backend) = find(snapshot, backend)?;
        if backend.ejection() != Ejection::None || !self.may_go(now, snapshot, tier, backend) {
            return None;
        }
        let backend = Arc::clone(backend);
        let time = self.sentence(backend.id.0);
        backend.eject(now.after(time), reason);
        Some(Ruling {
            backend,
            what: What::Ejected(reason, time),
        })
    }

    /// How long a backend goes out now.
    fn sentence(&mut self, backend: u64) -> Duration {
        let record = self.records.entry(backend).or_default();
        let doubled = self.rules.time.saturating_mul(1 << record.times.min(20));
        record.times += 1;
        record.back_since = None;
        record.last = doubled.min(self.rules.max_time);
        record.last
    }

    /// May one more of a tier go?
    fn may_go(&self, now: Millis, snapshot: &Snapshot, tier: usize, backend: &Backend) -> bool {
        if lower_serves(now, snapshot, tier) {
            return true;
        }
        let tier = &snapshot.tiers[tier];
        let others_serve = serving(now, tier).any(|b| b.id != backend.id);
        others_serve && ejected(tier).count() < self.most(tier)
    }

    /// So many of a tier may be out at once while no lower tier can serve.
    fn most(&self, tier: &Tier) -> usize {
        tier.members.len() * usize::from(self.rules.max_percent) / 100
    }

    /// Takes back whom the bounds do not allow to be out: members have left, others have gone down,
    /// or a lower tier cannot serve any more. Whose time is over first comes first.
    fn hold_bounds(&mut self, now: Millis, snapshot: &Snapshot, rulings: &mut Vec<Ruling>) {
        for (index, tier) in snapshot.tiers.iter().enumerate() {
            let lower = &snapshot.tiers[index + 1..];
            if lower
                .iter()
                .any(|tier| in_service(now, tier).next().is_some())
            {
                continue;
            }
            let mut out: Vec<_> = ejected(tier).cloned().collect();
            let excess = out.len().saturating_sub(self.most(tier));
            // Those whose checks pass first: they are of use.
            let is_down = |backend: &Arc<Backend>| backend.down() != Reason::None;
            out.sort_by_key(|backend| match backend.ejection() {
                Ejection::Until(until) | Ejection::Trial(until) => (is_down(backend), until),
                Ejection::None => (is_down(backend), now),
            });
            // One whose trial is due does not count here: a trial is one request.
            let mut members = tier.members.iter().map(|member| &member.backend);
            let somebody = members.any(|b| b.ejection() == Ejection::None && !is_down(b));
            let needed = !somebody && out.first().is_some_and(|b| !is_down(b));
            out.truncate(excess.max(usize::from(needed)));
            for backend in out {
                backend.readmit();
                self.records.entry(backend.id.0).or_default().back_since = Some(now);
                rulings.push(Ruling {
                    backend,
                    what: What::Released,
                });
            }
        }
    }

    /// Ejects whose attempts succeed noticeably less often than those of the others of its tier.
    fn compare(&mut self, now: Millis, snapshot: &Snapshot, rulings: &mut Vec<Ruling>) {
        let mut below = Vec::new();
        for tier in &snapshot.tiers {
            let mut rates = Vec::new();
            for member in &tier.members {
                let (id, outcomes) = (member.backend.id.0, member.backend.outcomes());
                let record = self.records.entry(id).or_default();
                let successes = outcomes.successes.wrapping_sub(record.seen.successes);
                let failures = outcomes.failures.wrapping_sub(record.seen.failures);
                record.seen = outcomes;
                let attempts = u64::from(successes) + u64::from(failures);
                if attempts >= ENOUGH && member.backend.ejection() == Ejection::None {
                    rates.push((id, u64::from(successes), attempts));
                }
            }
            let (successes, attempts) = rates
                .iter()
                .fold((0, 0), |sum, rate| (sum.0 + rate.1, sum.1 + rate.2));
            for &(id, own, of) in &rates {
                let (others, of_others) = (successes - own, attempts - of);
                let percent = |part: u64, whole: u64| 100.0 * part as f64 / whole as f64;
                let margin = f64::from(self.rules.success_rate);
                if margin > 0.0
                    && of_others > 0
                    && percent(own, of) + margin < percent(others, of_others)
                {
                    below.push((percent(own, of), id));
                }
            }
        }
        // The worst first: the bounds may not let all of them go.
        below.sort_by(|a, b| a.0.total_cmp(&b.0));
        for (_, id) in below {
            rulings.extend(self.eject(now, snapshot, id, Reason::SuccessRate));
        }
    }

    /// An ejection is forgotten once the backend has been back for as long as it had been out.
    fn forgive(&mut self, now: Millis) {
        for record in self.records.values_mut() {
            if let Some(since) = record.back_since
                && record.times > 0
                && now.since(since) >= record.last
            {
                record.times -= 1;
                record.back_since = Some(now);
            }
        }
    }
}

/// Can anybody of a tier after `tier` be picked?
pub(super) fn lower_serves(now: Millis, snapshot: &Snapshot, tier: usize) -> bool {
    let mut lower = snapshot.tiers[tier + 1..].iter();
    lower.any(|tier| serving(now, tier).next().is_some())
}

/// Those of a tier that can be picked now, be it as a trial: one whose time is over long ago is in a
/// tier that nobody needed meanwhile.
pub(super) fn serving(now: Millis, tier: &Tier) -> impl Iterator<Item = &Arc<Backend>> {
    in_service(now, tier).filter(move |backend| backend.out_until(now).is_none())
}

/// Those of a tier that are neither down nor within the time of an ejection, be they passed over
/// for this moment.
fn in_service(now: Millis, tier: &Tier) -> impl Iterator<Item = &Arc<Backend>> {
    let backends = tier.members.iter().map(|member| &member.backend);
    backends.filter(move |b| b.ejection().out_until(now).is_none() && b.down() == Reason::None)
}

fn ejected(tier: &Tier) -> impl Iterator<Item = &Arc<Backend>> {
    let backends = tier.members.iter().map(|member| &member.backend);
    backends.filter(|backend| backend.ejection() != Ejection::None)
}

/// The backend with that identity, and the index of its tier.
pub(super) fn find(snapshot: &Snapshot, backend: u64) -> Option<(usize, &Arc<Backend>)> {
    snapshot.tiers.iter().enumerate().find_map(|(index, tier)| {
        let mut members = tier.members.iter();
        let found = members.find(|member| member.backend.id.0 == backend)?;
        Some((index, &found.backend))
    })
}

/// Success rates are compared over so long.
const WINDOW: Duration = Duration::from_secs(10);

/// A backend takes part in a comparison with so many attempts in a window: of fewer, luck decides.
/// With 100 a rate is known to about ±4 % of a hundred, a fifth of the margin by default.
const ENOUGH: u64 = 100;

/// Records of backends that are gone are dropped when there are so many of them.
const FORGOTTEN_AT: usize = 256;

#[cfg(test)]
#[path = "ejection_tests.rs"]
mod tests;
