//! The writer of a service's snapshot: endpoints come in, the same identity keeps the same
//! backend. Lives on the control thread.
//!
//! It never asks DNS (discovery does) and never decides whether an answer is believed
//! (`discovery::policy` does): what it is offered is in effect.

use std::cmp::Reverse;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::affinity::{Affinity, Tokens};
use super::by_hand::{Change, Refused, Settings};
use super::snapshot::{Member, Snapshot, Tier};
use crate::clock::Millis;
use crate::discovery::{Discovered, Endpoint, Offer};
use crate::published::Published;
use crate::upstream::backend::{Backend, BackendId};
use crate::upstream::establish::Layering;
use crate::upstream::gate::Gate;
use crate::upstream::standing::Reason;

/// One service's backends.
#[derive(Debug)]
pub struct Service {
    name: Arc<str>,
    snapshot: Arc<Published<Snapshot>>,
    terms: Terms,
    answered: bool,
    /// Snapshots that were made.
    snapshots: u64,
    listed: BTreeMap<Endpoint, (Arc<Backend>, Place)>,
    /// Withdrawn lately, with the moment of it: if one comes back, it has its state again. Bounded
    /// by [`REMEMBERED`] and [`REMEMBERED_FOR`].
    departed: BTreeMap<Endpoint, (Arc<Backend>, Millis)>,
    by_hand: Settings,
}

/// What a service's backends begin with.
#[derive(Debug, Clone, Default)]
pub struct Terms {
    /// Bounds what each has in flight.
    pub gate: Option<Arc<Gate>>,
    /// A new one is out until it has passed a check.
    pub unchecked_is_down: bool,
    /// The share of one that joins others grows from little.
    pub rises: bool,
    /// Leads clients back to the backend that they had.
    pub affinity: Option<Arc<Affinity>>,
    /// What lies between TCP and HTTP on connections to each.
    pub layering: Layering,
}

/// Where an endpoint stands according to its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// SRV priority: lower goes first.
    pub priority: u16,
    /// SRV weight of the target as a whole.
    pub weight: u16,
    /// Addresses of the target that share it; at least 1.
    pub split: u16,
}

/// What an offer changed.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// New, or back again; with its place.
    pub added: Vec<(Arc<Backend>, Place)>,
    /// No longer listed: they get no new request.
    pub removed: Vec<Arc<Backend>>,
    /// The same backend at another place: before, now.
    pub changed: Vec<(Arc<Backend>, Place, Place)>,
    /// This was the first answer of all.
    pub first: bool,
}

impl Changes {
    /// Nothing differs; nothing was published.
    pub fn is_empty(&self) -> bool {
        !self.first && self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }
}

impl Service {
    /// A service that has heard nothing from discovery.
    pub fn new(name: Arc<str>) -> Service {
        Service::on(name, Terms::default())
    }

    /// The same, with terms for its backends.
    pub fn on(name: Arc<str>, terms: Terms) -> Service {
        Service {
            name,
            terms,
            snapshot: Published::new(Snapshot::default()),
            answered: false,
            snapshots: 0,
            listed: BTreeMap::new(),
            departed: BTreeMap::new(),
            by_hand: Settings::default(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Where requests wait, if what its backends have in flight is bounded.
    pub fn gate(&self) -> Option<&Arc<Gate>> {
        self.terms.gate.as_ref()
    }

    /// Its cookie, if it has one.
    pub fn affinity(&self) -> Option<&Arc<Affinity>> {
        self.terms.affinity.as_ref()
    }

    /// How backends that come from now on begin: out until they have passed a check, or with a share
    /// that grows from little.
    pub fn receive_newcomers(&mut self, unchecked_is_down: bool, rises: bool) {
        self.terms.unchecked_is_down = unchecked_is_down;
        self.terms.rises = rises;
    }

    /// What the workers read.
    pub fn snapshot(&self) -> &Arc<Published<Snapshot>> {
        &self.snapshot
    }

    /// Takes over what discovery offers. Same identity: same `Arc<Backend>`, its weight and
    /// priority changed in place. Publishes only if something differs, and says what.
    pub fn apply(&mut self, offer: &Offer) -> Changes {
        self.apply_at(offer, Millis::now())
    }

    /// [`Service::apply`] at a given moment.
    pub fn apply_at(&mut self, offer: &Offer, now: Millis) -> Changes {
        let offered = match offer {
            Offer::Pending => return Changes::default(),
            Offer::Absent => BTreeMap::new(),
            Offer::Endpoints(endpoints) => places(endpoints),
        };
        let mut changes = Changes {
            first: !self.answered,
            ..Changes::default()
        };
        self.answered = true;
        self.withdraw_all_but(&offered, now, &mut changes);
        for (endpoint, place) in offered {
            self.list(endpoint, place, &mut changes);
        }
        if self.terms.rises && !changes.first {
            self.let_rise(now, &changes);
        }
        self.forget(now);
        if !changes.is_empty() {
            self.publish(now);
        }
        changes
    }

    /// Drains, undrains or weighs by hand whoever is listed at `address`: it holds through changes of
    /// the records until it is taken back. Gives those whom it concerns; publishes only if something
    /// differs.
    pub fn set_by_hand(
        &mut self,
        address: SocketAddr,
        change: Change,
        now: Millis,
    ) -> Result<Vec<Arc<Backend>>, Refused> {
        let there = self.listed.iter();
        let there = there.filter(|(endpoint, _)| endpoint.socket() == address);
        let there: Vec<_> = there
            .map(|(_, (b, place))| (Arc::clone(b), *place))
            .collect();
        if there.is_empty() {
            return Err(Refused::Unknown);
        }
        let (mut differs, mut back) = (false, Changes::default());
        for (backend, place) in &there {
            let before = self.by_hand.of(&backend.endpoint);
            let set = self.by_hand.change(&backend.endpoint, change, now);
            let set = set.ok_or(Refused::TooMany)?;
            backend.set_drained(set.drained);
            differs |= before != set;
            if before.drained && !set.drained {
                back.added.push((Arc::clone(backend), *place));
            }
        }
        if differs {
            if self.terms.rises {
                self.let_rise(now, &back);
            }
            self.publish(now);
        }
        Ok(there.into_iter().map(|(backend, _)| backend).collect())
    }

    /// What is set by hand.
    pub fn by_hand(&self) -> &Settings {
        &self.by_hand
    }

    /// Takes over what was set by hand of a service of that name, for those that are listed already too.
    /// Publishes only if something differs for one of them.
    pub fn take_over(&mut self, by_hand: Settings, now: Millis) {
        let mut differs = false;
        for (endpoint, (backend, _)) in &self.listed {
            let set = by_hand.of(endpoint);
            differs |= set != self.by_hand.of(endpoint);
            backend.set_drained(set.drained);
        }
        self.by_hand = by_hand;
        if differs {
            self.publish(now);
        }
    }

    fn withdraw_all_but(
        &mut self,
        offered: &BTreeMap<Endpoint, Place>,
        now: Millis,
        changes: &mut Changes,
    ) {
        let gone = self
            .listed
            .extract_if(.., |endpoint, _| !offered.contains_key(endpoint));
        for (endpoint, (backend, _)) in gone {
            backend.set_withdrawn(true);
            changes.removed.push(Arc::clone(&backend));
            self.departed.insert(endpoint, (backend, now));
        }
    }

    fn list(&mut self, endpoint: Endpoint, place: Place, changes: &mut Changes) {
        match self.listed.entry(endpoint) {
            Entry::Occupied(mut known) => {
                let (backend, known) = known.get_mut();
                if *known != place {
                    changes.changed.push((Arc::clone(backend), *known, place));
                    *known = place;
                }
            }
            Entry::Vacant(vacant) => {
                let backend = match self.departed.remove(vacant.key()) {
                    Some((backend, _)) => backend,
                    None => {
                        let endpoint = vacant.key().clone();
                        let (name, gate) = (Arc::clone(&self.name), self.terms.gate.clone());
                        let (id, layers) = (BackendId::unused(), self.terms.layering.to(&endpoint));
                        let backend = Backend::limited(id, name, endpoint, layers, gate);
                        if self.terms.unchecked_is_down {
                            backend.set_down(Reason::Unchecked);
                        }
                        backend
                    }
                };
                backend.set_withdrawn(false);
                backend.set_drained(self.by_hand.of(vacant.key()).drained);
                changes.added.push((Arc::clone(&backend), place));
                vacant.insert((backend, place));
            }
        }
    }

    /// Whoever joins others in its tier begins with a small share, and so does a tier that comes in
    /// front of others: they take the rest. Where nobody is there to take it everybody has all.
    fn let_rise(&self, now: Millis, changes: &Changes) {
        let is_new = |backend: &Arc<Backend>| changes.added.iter().any(|(b, _)| b.id == backend.id);
        let settled: BTreeSet<u16> = self
            .listed
            .values()
            .filter(|(backend, _)| !is_new(backend) && !backend.drained())
            .map(|(_, place)| place.priority)
            .collect();
        for (backend, place) in &changes.added {
            let rises = settled.range(place.priority..).next().is_some();
            backend.rise(rises.then_some(now));
        }
    }

    /// Forgets who left long ago, and the oldest of too many.
    fn forget(&mut self, now: Millis) {
        let listed = |endpoint: &Endpoint| self.listed.contains_key(endpoint);
        self.by_hand.forget(now, listed);
        self.departed
            .retain(|_, (_, left)| now.since(*left) < REMEMBERED_FOR);
        let excess = self.departed.len().saturating_sub(REMEMBERED);
        if excess > 0 {
            let mut moments: Vec<_> = self.departed.values().map(|(_, left)| *left).collect();
            moments.sort_unstable();
            let (newest_to_go, mut to_go) = (moments[excess - 1], excess);
            self.departed.retain(|_, (_, left)| {
                let goes = *left <= newest_to_go && to_go > 0;
                to_go -= usize::from(goes);
                !goes
            });
        }
    }

    fn publish(&mut self, now: Millis) {
        self.snapshots += 1;
        self.snapshot.publish(self.compose(now));
    }

    fn compose(&self, now: Millis) -> Snapshot {
        let mut tiers: BTreeMap<u16, Vec<Member>> = BTreeMap::new();
        // `listed` is sorted by endpoint, so each tier's members are.
        for (endpoint, (backend, place)) in &self.listed {
            let by_hand = self.by_hand.of(endpoint);
            tiers.entry(place.priority).or_default().push(Member {
                backend: Arc::clone(backend),
                weight: by_hand.weight.unwrap_or(place.weight),
                recorded: place.weight,
                overridden: by_hand.weight.is_some(),
                // What is said of one address is not shared with others.
                split: by_hand.weight.map_or(place.split, |_| 1),
            });
        }
        let tier = |(priority, members)| Tier { priority, members };
        let mut tiers: Vec<_> = tiers.into_iter().map(tier).collect();
        let affinity = self.terms.affinity.as_ref();
        // Those that are drained among them: their sessions may end where they are.
        let tokens = affinity.map_or_else(Tokens::new, |affinity| affinity.tokens(&tiers));
        let drained = set_aside(&mut tiers);
        Snapshot {
            number: self.snapshots,
            made: now,
            withdrawn: self.withdrawn_last(),
            answered: self.answered,
            made_at: Some(SystemTime::now()),
            tokens,
            tiers,
            drained,
        }
    }

    /// Who left last, as many as people are told of.
    fn withdrawn_last(&self) -> Vec<(Arc<Backend>, Millis)> {
        let mut last: Vec<_> = self.departed.values().cloned().collect();
        last.sort_by_key(|(backend, left)| (Reverse(*left), backend.id));
        last.truncate(TOLD_OF);
        last
    }
}

/// Takes those that are drained by hand out of their tiers, and tiers that have nobody left.
fn set_aside(tiers: &mut Vec<Tier>) -> Vec<Tier> {
    let mut drained = Vec::new();
    for Tier { priority, members } in &mut *tiers {
        let members: Vec<_> = members.extract_if(.., |m| m.backend.drained()).collect();
        if !members.is_empty() {
            let priority = *priority;
            drained.push(Tier { priority, members });
        }
    }
    tiers.retain(|tier| !tier.members.is_empty());
    drained
}

/// By identity. An endpoint that is listed more than once stands where it would be asked first:
/// at its lowest priority, there with its highest weight.
fn places(endpoints: &[Discovered]) -> BTreeMap<Endpoint, Place> {
    let mut places = BTreeMap::new();
    for found in endpoints {
        let place = Place {
            priority: found.priority,
            weight: found.weight,
            split: found.split.max(1),
        };
        places
            .entry(found.endpoint.clone())
            .and_modify(|known: &mut Place| {
                let rank = |p: &Place| (p.priority, Reverse(p.weight), p.split);
                if rank(&place) < rank(known) {
                    *known = place;
                }
            })
            .or_insert(place);
    }
    places
}

/// So long a withdrawn backend may come back with its state: the longest time that a drain takes
/// by default (streams get 300 s).
const REMEMBERED_FOR: Duration = Duration::from_secs(300);

/// So many withdrawn backends are remembered at most: as many as a name may have by default.
const REMEMBERED: usize = 4096;

/// So many of them are told of in a snapshot: a person looks for the one that has just gone.
const TOLD_OF: usize = 16;

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
