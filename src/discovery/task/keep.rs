//! What the loop does for a restart: offers the stored answer until a server gives one, and has the
//! last good one stored.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use super::super::admission::is_local;
use super::super::journal::Event;
use super::super::srv::Located;
use super::super::stored::{Asked, Stored};
use super::super::system::{RESOLV_CONF, Servers};
use super::super::targets::on_loopback;
use super::Task;
use crate::config::Lookup;
use crate::discovery::{Endpoint, Offer};

/// An answer that changes nothing is stored again after so long, so that after a restart it is known
/// how old it is; to within a fraction of `stored::OLDEST`, and for next to no writing.
const CONFIRM: Duration = Duration::from_secs(5 * 60);

/// What is stored of this name, as far as its task knows.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// As whom it is stored; `None`: it is not.
    asked: Option<Arc<Asked>>,
    /// What was there at the start, and how old it was; until a server answers.
    restored: Option<(Arc<Stored>, Duration)>,
    /// What was given away to be stored, and from when it was.
    offer: Offer,
    at: Option<Instant>,
    from_loopback: BTreeSet<Endpoint>,
}

impl Task {
    /// Offers what was stored before this process began. To be called before [`Task::run`].
    pub(in super::super) fn restore(&mut self) {
        let Some(keeper) = &self.shared.keeper else {
            return;
        };
        self.kept.asked = Asked::of(&self.discover).map(Arc::new);
        let Some(stored) = keeper.take(&self.discover) else {
            return;
        };
        // Read a moment ago, when it was not too old.
        let age = stored.age(SystemTime::now()).unwrap_or_default();
        let asks_loopback = asks_loopback(&self.lookup);
        let now = Instant::now();
        for discovered in stored.endpoints.iter() {
            let endpoint = &discovered.endpoint;
            let vouched = asks_loopback && stored.from_loopback.contains(endpoint);
            let located = Located {
                address: endpoint.address,
                server_on_loopback: vouched,
            };
            self.targets.seed(&endpoint.target, located, now);
            if vouched {
                self.kept.from_loopback.insert(endpoint.clone());
            }
        }
        let since_1970 = stored.answered.duration_since(UNIX_EPOCH);
        let seconds = since_1970.map_or(0.0, |since| since.as_secs_f64());
        let stats = &self.shared.stats;
        stats.update(&self.name, |n| n.last_success = Some(seconds));
        let event = Event::Restored {
            endpoints: stored.endpoints.len(),
            age,
        };
        self.tell(event);
        self.kept.restored = Some((stored, age));
        self.admit_restored();
    }

    /// Judges the stored answer by the rules of admission as they are now, as long as no server has
    /// answered.
    pub(super) fn admit_restored(&mut self) {
        let Some((stored, age)) = &self.kept.restored else {
            return;
        };
        let admission = Arc::clone(&self.admission.borrow());
        let admit = |endpoint, on_loopback| admission.judge(endpoint, on_loopback, &is_local);
        let asks_loopback = asks_loopback(&self.lookup);
        let max = self.lookup.max_endpoints;
        let (set, rejected) = stored.admitted(&admit, asks_loopback, max);
        let now = Instant::now();
        let since = now.checked_sub(*age).unwrap_or(now);
        let outcome = self.policy.restored(set, since);
        self.record(outcome);
        self.rejects(rejected);
        self.publish();
    }

    /// Has what is offered stored, if that is news or was last confirmed long ago.
    pub(super) fn keep(&mut self, offer: &Offer) {
        let (Some(keeper), Some(asked)) = (&self.shared.keeper, &self.kept.asked) else {
            return;
        };
        // Before that, it is what is stored already.
        let Some(answered) = self.policy.last_success() else {
            return;
        };
        let recent = |at: Instant| answered.saturating_duration_since(at) < CONFIRM;
        if *offer == self.kept.offer && self.kept.at.is_some_and(recent) {
            return;
        }
        match offer {
            Offer::Pending => return,
            // Nobody must not become somebody again by a restart.
            Offer::Absent => keeper.forget(asked),
            Offer::Endpoints(endpoints) => {
                let on_loopback = endpoints.iter().map(|d| &d.endpoint);
                let on_loopback = on_loopback.filter(|e| e.address.to_canonical().is_loopback());
                let vouched = on_loopback.filter(|e| self.is_vouched(e)).cloned();
                self.kept.from_loopback = vouched.collect();
                let stored = Stored {
                    answered: SystemTime::now() - answered.elapsed(),
                    endpoints: Arc::clone(endpoints),
                    from_loopback: self.kept.from_loopback.clone(),
                };
                keeper.keep(asked, stored);
            }
        }
        self.kept.offer = offer.clone();
        self.kept.at = Some(answered);
    }

    /// Did a server on loopback give this address? For one that is only held, what was known of it
    /// before counts.
    fn is_vouched(&self, endpoint: &Endpoint) -> bool {
        let said = self.targets.said(&endpoint.target, endpoint.address);
        match said {
            Some(located) => located.server_on_loopback,
            None => self.kept.from_loopback.contains(endpoint),
        }
    }

    /// A server has answered: what was stored before no longer counts.
    pub(super) fn outdated(&mut self) {
        self.kept.restored = None;
    }

    /// That the offer is from before this process began.
    pub(super) fn restored_detail(&self) -> Option<String> {
        let (_, age) = self.kept.restored.as_ref()?;
        let age = humantime::format_duration(*age);
        Some(format!(
            "the answer is from disk, and was {age} old at the start"
        ))
    }
}

/// Is one of the servers that are to be asked on loopback?
pub(in super::super) fn asks_loopback(lookup: &Lookup) -> bool {
    let on_loopback = |servers: &[SocketAddr]| servers.iter().copied().any(on_loopback);
    match lookup.servers.is_empty() {
        false => on_loopback(&lookup.servers),
        true => Servers::read(Path::new(RESOLV_CONF))
            .is_ok_and(|servers| on_loopback(&servers.addresses)),
    }
}
