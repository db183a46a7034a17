//! How long series outlive what they count: a backend, a service, a listener.
//!
//! Series are told apart by labels, counters by id: a backend that goes and comes back has a new
//! id under the same labels. While its labels live, what the old id counted is carried on, so
//! that the series does not fall; a few minutes after the last id is gone, the series goes too.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::connections::ByState;
use super::histogram::HistogramTotals;
use super::shard::{BackendCounters, Counters};
use super::{BackendLabels, BackendSample, Verdicts};
use crate::clock::Millis;

/// Long enough that the usual scrape intervals see the last counts several times.
const KEPT: Duration = Duration::from_secs(300);
/// Series of backends that are gone, at most: the oldest go first.
const MAX_GONE: usize = 4_096;

/// The labels that have a series.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    lines: BTreeMap<BackendLabels, Line>,
    /// What was found of each backend, by id, kept as long as what the shards counted of it.
    judged: HashMap<u64, Judged>,
    /// Services, and listeners, that no generation of the configuration has any more, since when. A
    /// tunnel keeps the generation that it began in.
    services_gone: BTreeMap<Arc<str>, Millis>,
    listeners_gone: BTreeMap<Arc<str>, Millis>,
}

#[derive(Debug)]
struct Line {
    /// When a backend with these labels was last there, or counted for the first time.
    last_live: Millis,
    /// What retired ids had counted.
    carried: BackendTotals,
}

#[derive(Debug)]
struct Judged {
    labels: BackendLabels,
    verdicts: Arc<Verdicts>,
    gone_since: Option<Millis>,
}

/// The counts of one series.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct BackendTotals {
    pub(super) requests: u64,
    pub(super) failed_connects: u64,
    pub(super) first_byte: HistogramTotals,
    pub(super) check_failures: u64,
    /// By reason.
    pub(super) ejections: BTreeMap<&'static str, u64>,
    /// Of backends that are not retired.
    pub(super) connections: ByState,
}

impl Ledger {
    /// Takes note of who is there and forgets who is long gone.
    pub(super) fn sweep(&mut self, now: Millis, live: &[BackendSample], shards: &[Arc<Counters>]) {
        for sample in live {
            self.line(&sample.labels, now).last_live = now;
            let judged = self.judged.entry(sample.id);
            judged.or_insert_with(|| Judged {
                labels: sample.labels.clone(),
                verdicts: Arc::clone(&sample.verdicts),
                gone_since: None,
            });
        }
        let live: HashSet<u64> = live.iter().map(|sample| sample.id).collect();
        for shard in shards {
            for listed in shard.backends().iter_mut() {
                self.line(&listed.counters.labels, now);
                note_gone(
                    &mut listed.gone_since,
                    live.contains(&listed.counters.id),
                    now,
                );
            }
        }
        for (id, judged) in &mut self.judged {
            note_gone(&mut judged.gone_since, live.contains(id), now);
        }
        self.forget_lines(now);
        let lines = &mut self.lines;
        self.judged.retain(|_, judged| {
            let line = lines.get_mut(&judged.labels);
            line.is_some_and(|line| {
                let old = is_long_gone(judged.gone_since, now);
                if old {
                    line.carried.judge(&judged.verdicts);
                }
                !old
            })
        });
        for shard in shards {
            shard.backends().retain(|listed| {
                let kept = |line: &mut Line| {
                    let old = is_long_gone(listed.gone_since, now);
                    if old {
                        line.carried.count(&listed.counters);
                    }
                    !old
                };
                let keep = self
                    .lines
                    .get_mut(&listed.counters.labels)
                    .is_some_and(kept);
                if !keep {
                    listed.counters.retired.store(true, Ordering::Relaxed);
                }
                keep
            });
        }
        self.forget_names(now, shards);
    }

    /// Forgets the services and listeners that are long gone. Names that come and go with every
    /// reload are held no longer than backends are.
    fn forget_names(&mut self, now: Millis, shards: &[Arc<Counters>]) {
        let (mut services, mut listeners) = (BTreeMap::new(), BTreeMap::new());
        for shard in shards {
            count_holders(&shard.by_service(), &mut services);
            count_holders(&shard.by_listener(), &mut listeners);
        }
        for name in gone_for_long(&mut self.services_gone, services, now) {
            shards.iter().for_each(|shard| shard.forget_service(&name));
        }
        for name in gone_for_long(&mut self.listeners_gone, listeners, now) {
            for shard in shards {
                shard.by_listener().remove(&name);
            }
        }
    }

    /// What to show for each line.
    pub(super) fn totals(
        &self,
        shards: &[Arc<Counters>],
    ) -> BTreeMap<BackendLabels, BackendTotals> {
        let carried =
            |(labels, line): (&BackendLabels, &Line)| (labels.clone(), line.carried.clone());
        let mut totals: BTreeMap<_, _> = self.lines.iter().map(carried).collect();
        for shard in shards {
            for listed in shard.backends().iter() {
                if let Some(total) = totals.get_mut(&listed.counters.labels) {
                    total.count(&listed.counters);
                    total
                        .connections
                        .add(listed.counters.connections.by_state());
                }
            }
        }
        for judged in self.judged.values() {
            if let Some(total) = totals.get_mut(&judged.labels) {
                total.judge(&judged.verdicts);
            }
        }
        totals
    }

    fn line(&mut self, labels: &BackendLabels, now: Millis) -> &mut Line {
        // Not the entry API: it would clone the labels each time.
        if !self.lines.contains_key(labels) {
            let line = Line {
                last_live: now,
                carried: BackendTotals::default(),
            };
            self.lines.insert(labels.clone(), line);
        }
        self.lines
            .get_mut(labels)
            .expect("was there or was inserted above")
    }

    fn forget_lines(&mut self, now: Millis) {
        self.lines
            .retain(|_, line| now.since(line.last_live) < KEPT);
        let mut gone: Vec<Millis> = self.lines.values().map(|line| line.last_live).collect();
        gone.retain(|&last_live| last_live < now);
        if let Some(excess) = gone.len().checked_sub(MAX_GONE + 1) {
            let (_, &mut newest_to_go, _) = gone.select_nth_unstable(excess);
            self.lines.retain(|_, line| line.last_live > newest_to_go);
        }
    }
}

/// Takes note of whether somebody is there, or since when not.
fn note_gone(gone_since: &mut Option<Millis>, is_live: bool, now: Millis) {
    *gone_since = match is_live {
        true => None,
        false => gone_since.or(Some(now)),
    };
}

fn is_long_gone(gone_since: Option<Millis>, now: Millis) -> bool {
    gone_since.is_some_and(|since| now.since(since) >= KEPT)
}

/// Adds up in how many hands the counters of each name are, besides the table's own.
fn count_holders<T>(table: &BTreeMap<Arc<str>, Arc<T>>, holders: &mut BTreeMap<Arc<str>, usize>) {
    for (name, counters) in table {
        *holders.entry(Arc::clone(name)).or_default() += Arc::strong_count(counters) - 1;
    }
}

/// The names that nobody has held for long, which are noted no more; takes note of the others that
/// nobody holds.
fn gone_for_long(
    gone: &mut BTreeMap<Arc<str>, Millis>,
    holders: BTreeMap<Arc<str>, usize>,
    now: Millis,
) -> Vec<Arc<str>> {
    gone.retain(|name, _| holders.get(name) == Some(&0));
    let mut long = Vec::new();
    for (name, _) in holders.into_iter().filter(|(_, count)| *count == 0) {
        let since = *gone.entry(Arc::clone(&name)).or_insert(now);
        if now.since(since) >= KEPT {
            gone.remove(&name);
            long.push(name);
        }
    }
    long
}

impl BackendTotals {
    fn count(&mut self, counters: &BackendCounters) {
        self.requests += counters.requests.value();
        self.failed_connects += counters.failed_connects.value();
        self.first_byte.add(&counters.first_byte.totals());
    }

    fn judge(&mut self, verdicts: &Verdicts) {
        self.check_failures += verdicts.check_failures();
        for (reason, count) in verdicts.ejections() {
            *self.ejections.entry(reason).or_default() += count;
        }
    }
}
