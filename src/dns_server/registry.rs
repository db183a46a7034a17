//! Who may change the zone, how often, and for how long what they add stays.
//!
//! [`Registry`] carries out updates whose sender is known (`signature.rs`), by the rules of
//! `update.rs`; [`Registry::tend`] ends leases that nobody renewed. It never looks at a socket.
//! RFC 2136 (updates), RFC 9664 (leases).

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, RData};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::key::Key;
use super::lease::{self, Lease};
use super::quota::{Buckets, site};
use super::replay::Seen;
use super::signature::Signing;
use super::store::{Store, StoreError, Stored};
use super::update::{self, Bounds, Changes, Terms};
use super::zone::Zone;

/// A key and the names that it may change.
#[derive(Debug, Clone)]
pub struct Grant {
    /// The key.
    pub key: Key,
    /// Any of these suffices.
    pub names: Vec<Names>,
}

/// Names, in lower case and fully qualified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Names {
    /// This one.
    Exactly(Name),
    /// All that end in this one, at any depth, but not this one itself.
    Below(Name),
}

impl Names {
    /// Is `name` one of them?
    pub fn include(&self, name: &Name) -> bool {
        match self {
            Names::Exactly(one) => one == name,
            Names::Below(top) => top != name && top.zone_of(name),
        }
    }
}

/// How a zone takes updates.
#[derive(Debug)]
pub struct Updates {
    /// Who may change what.
    pub grants: Vec<Grant>,
    /// The longest lease that is granted.
    pub max_lease: Duration,
    /// What the zone may grow to.
    pub bounds: Bounds,
    /// Updates in a second of one key from one address; ten times as many at once.
    pub rate: u32,
    /// Where the zone is kept on disk; `None`: in memory only.
    pub state: Option<PathBuf>,
}

/// Carries out updates on a zone.
#[derive(Debug)]
pub(super) struct Registry {
    zone: Zone,
    keys: Vec<Key>,
    names: Vec<Vec<Names>>,
    max_lease: Duration,
    /// From the start on, if the zone was lost.
    recovery: Duration,
    bounds: Bounds,
    rate: f64,
    store: Option<Store>,
    /// Held for one look, never across an await.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// By key and client: one that runs wild does not use up what the others need.
    buckets: Buckets<(usize, IpAddr)>,
    /// By key: nobody makes room for the messages of others.
    seen: Vec<Seen>,
    /// Refusals since the last one in the log, and when that was.
    refused: Option<(Instant, u64)>,
}

/// What an update comes to.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) code: ResponseCode,
    /// The lease that was granted.
    pub(super) lease: Option<Duration>,
    /// The answer must wait until the zone's changes up to this one are on disk.
    pub(super) durable_at: Option<u64>,
}

impl Registry {
    /// Begins to take updates for `zone`: what is stored is loaded into it. With nothing stored,
    /// and somebody who may register, the zone is taken for lost: for one lease nothing is said
    /// of names that are not fixed.
    pub(super) fn new(zone: Zone, updates: Updates) -> Result<Registry, StoreError> {
        let now = Instant::now();
        let store = updates.state.map(Store::new);
        let stored = match &store {
            Some(store) => store.load(&zone, updates.max_lease, now)?,
            None => Stored::default(),
        };
        zone.set_recovering(!stored.whole && !updates.grants.is_empty());
        let rate = f64::from(updates.rate);
        let state = State {
            buckets: Buckets::new(rate, rate * BURST),
            seen: updates.grants.iter().map(|_| Seen::default()).collect(),
            refused: None,
        };
        let (keys, names) = updates
            .grants
            .into_iter()
            .map(|grant| (grant.key, grant.names))
            .unzip();
        Ok(Registry {
            zone,
            keys,
            names,
            max_lease: updates.max_lease,
            // Whoever was granted a longer lease before renews at its pace.
            recovery: updates.max_lease.max(stored.max_lease),
            bounds: updates.bounds,
            rate,
            store,
            state: Mutex::new(state),
        })
    }

    /// For how long a lost zone is silent.
    pub(super) fn recovery(&self) -> Duration {
        self.recovery
    }

    /// Of whom a signature is known.
    pub(super) fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// Carries out an update of the sender whose key is the `nth`. The same message again, which
    /// is told by its MAC, gets the same answer and changes nothing: it is a datagram that was
    /// sent twice, or somebody who recorded it.
    pub(super) fn update(
        &self,
        message: &Message,
        nth: usize,
        signing: &Signing,
        client: IpAddr,
        now: Instant,
    ) -> Outcome {
        let mut state = self.state();
        let mac = signing.request_mac();
        if let Some((code, lease)) = state.seen[nth].get(mac) {
            return Outcome {
                code,
                lease,
                durable_at: self.store.as_ref().map(|_| self.zone.read().generation),
            };
        }
        let key = self.keys[nth].name();
        if !state.buckets.take((nth, site(client)), 1.0, now) {
            drop(state);
            let why = format!("more than {} updates a second", self.rate);
            // Not REFUSED: it may well be asked again.
            return self.refuse(ResponseCode::ServFail, client, Some(key), &why, now);
        }
        let granted = lease::of(message.edns.as_ref());
        let granted =
            granted.map(|asked| asked.clamp(MIN_LEASE.min(self.max_lease), self.max_lease));
        let terms = Terms {
            may_change: &|owner| self.names[nth].iter().any(|names| names.include(owner)),
            lease: granted.map(|granted| Lease::new(granted, now)),
            bounds: self.bounds,
        };
        let mut records = self.zone.write();
        let applied = update::apply(&mut records, message, &terms);
        let generation = records.generation;
        drop(records);
        let outcome = match &applied {
            Ok(_) => Outcome {
                code: ResponseCode::NoError,
                lease: granted,
                durable_at: self.store.as_ref().map(|_| generation),
            },
            Err(refusal) => Outcome {
                code: refusal.code,
                lease: None,
                durable_at: None,
            },
        };
        let until = now + signing.holds_for();
        state.seen[nth].put(mac, (outcome.code, outcome.lease), until, now);
        drop(state);
        match applied {
            Ok(changes) => {
                report(&changes, key, client, granted);
                if changes.stored {
                    self.write_later();
                }
            }
            Err(refusal) if refusal.is_condition() => {
                tracing::debug!(%client, %key, "dns: {}", refusal.why);
            }
            Err(refusal) => {
                return self.refuse(refusal.code, client, Some(key), &refusal.why, now);
            }
        }
        outcome
    }

    /// An update that is not carried out. Somebody who keeps on gets one line a second.
    pub(super) fn refuse(
        &self,
        code: ResponseCode,
        client: IpAddr,
        key: Option<&Name>,
        why: &str,
        now: Instant,
    ) -> Outcome {
        let mut state = self.state();
        let more = match &mut state.refused {
            Some((at, more)) if now.saturating_duration_since(*at) < LOG_GAP => {
                *more += 1;
                None
            }
            refused => Some(refused.replace((now, 0)).map_or(0, |(_, more)| more)),
        };
        drop(state);
        if let Some(more) = more {
            let key = key.map(|key| key.to_string()).unwrap_or_default();
            let why = printable(why);
            tracing::warn!(%client, %key, answer = %code, more, "dns: update refused: {why}");
        }
        Outcome {
            code,
            lease: None,
            durable_at: None,
        }
    }

    /// Waits until all changes are on disk, for a bounded time.
    pub(super) async fn flush(&self) {
        let generation = self.zone.read().generation;
        self.write_later();
        self.durable(generation).await;
    }

    /// Waits until the changes up to `generation` are on disk, for a bounded time.
    pub(super) async fn durable(&self, generation: u64) -> bool {
        match &self.store {
            Some(store) => store.durable(generation).await,
            None => true,
        }
    }

    /// Ends leases, ends the recovery, writes the zone to disk. Never returns; may be dropped at
    /// any await.
    pub(super) async fn tend(&self) {
        let store = async {
            match &self.store {
                Some(store) => store.run(&self.zone, self.max_lease).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.end_leases() => {}
            () = store => {}
        }
    }

    async fn end_leases(&self) {
        let mut recovered = Instant::now() + self.recovery;
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = Instant::now();
        loop {
            ticks.tick().await;
            let now = Instant::now();
            let away = now.saturating_duration_since(last);
            last = now;
            if away > STALL {
                // We did not hear anybody in that time, so nobody is to blame for not renewing.
                tracing::warn!(
                    ?away,
                    "dns: did not run for a while; leases are extended by that"
                );
                self.zone.write().leases_mut().for_each(|l| l.until += away);
                recovered += away;
                continue;
            }
            if now >= recovered && self.zone.set_recovering(false) {
                tracing::info!("dns: whoever lives has registered again; answers as usual");
                self.write_later();
            }
            let lives = |lease: &Lease| now < lease.until;
            let gone = self
                .zone
                .write()
                .retain(|entry| entry.lease.as_ref().is_none_or(lives));
            if gone.is_empty() {
                continue;
            }
            for (owner, data) in gone.iter().take(LOGGED) {
                let record = printable(&format!("{} {data}", data.record_type()));
                match data {
                    // A backend that withdraws leaves its address behind, which nothing names.
                    RData::A(_) | RData::AAAA(_) => {
                        tracing::info!(name = %owner, record, "dns: its lease ran out");
                    }
                    _ => tracing::warn!(name = %owner, record, "dns: its lease ran out"),
                }
            }
            if gone.len() > LOGGED {
                tracing::warn!(more = gone.len() - LOGGED, "dns: and further leases");
            }
            self.write_later();
        }
    }

    fn write_later(&self) {
        if let Some(store) = &self.store {
            store.write_later();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn report(changes: &Changes, key: &Name, client: IpAddr, lease: Option<Duration>) {
    let lease = lease.map_or(0, |lease| lease.as_secs());
    let each = |list: &[(Name, RData)], what: &'static str| {
        for (name, data) in list.iter().take(LOGGED) {
            let record = printable(&format!("{} {data}", data.record_type()));
            tracing::info!(%name, %record, %key, %client, lease, "dns: {what}");
        }
        if list.len() > LOGGED {
            tracing::info!(%key, more = list.len() - LOGGED, "dns: and more {what}");
        }
    };
    each(&changes.removed, "removed");
    each(&changes.added, "added");
}

/// What strangers wrote, without control characters.
fn printable(text: &str) -> String {
    let shown = text.chars().take(MAX_SHOWN);
    shown.flat_map(|c| c.escape_debug()).collect()
}

/// A shorter one could end between two renewals that are a second late.
const MIN_LEASE: Duration = Duration::from_secs(2);

/// How late a lease may be ended.
const TICK: Duration = Duration::from_millis(250);

/// A pause of the process (a snapshot, a starved machine) that is longer than a renewal may be
/// late.
const STALL: Duration = Duration::from_secs(1);

/// At once, in seconds of the rate: everybody registers when a cluster starts.
const BURST: f64 = 10.0;

/// Between two lines about refusals.
const LOG_GAP: Duration = Duration::from_secs(1);

/// Lines about one update or one moment.
const LOGGED: usize = 16;

/// Characters of a record in the log.
const MAX_SHOWN: usize = 200;
