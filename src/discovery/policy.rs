//! What an answer changes: publish, keep, or hold removals back until they are confirmed.
//!
//! Pure: time and health come in as arguments, what happened goes out as events. One `Policy` per
//! watched name, driven by `task.rs`. Guards only ever hold back removals; additions, weights and
//! priorities take effect at once. Any sequence of answers converges on the last one, once that
//! has been given [`Settings::absent_after`] or [`Settings::shrink_guard`] times, and where answers
//! rotated before (`rotation.rs`), so often that they no longer do.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::journal::{Event, Hold, Why};
use super::members::{Member, Shown};
use super::outcome::Outcome;
use super::rotation::{Rotating, Rotation, Turn};
use super::streak::{Facts, Streak};
use super::{Discovered, Endpoint, Offer};

/// The guards of one name.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// NXDOMAIN or NODATA answers in a row until they are believed; 0 counts as 1.
    pub absent_after: u8,
    /// Answers in a row that would remove more than half of the working endpoints until they are
    /// believed; 0 counts as 1.
    pub shrink_guard: u8,
    /// Members that are remembered at most when answers rotate.
    pub max_endpoints: usize,
}

/// The state of one name.
#[derive(Debug)]
pub struct Policy {
    settings: Settings,
    answered: bool,
    current: BTreeMap<Endpoint, Place>,
    /// Part of `current` that only a guard keeps.
    held: BTreeSet<Endpoint>,
    hold: Option<Hold>,
    absent: Streak,
    shrink: Streak,
    rotation: Rotation,
    /// Not told yet.
    turned: Option<Turn>,
    stale_since: Option<Instant>,
    /// It was told that no server answers.
    failing: bool,
    last_success: Option<Instant>,
}

/// Priority, weight and split of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    priority: u16,
    weight: u16,
    split: u16,
}

/// What was answered.
#[derive(Debug, Clone)]
pub enum Answer {
    /// Endpoints, by whatever records.
    Endpoints {
        /// Each identity once.
        set: Vec<Discovered>,
        /// There are targets besides that have no address yet.
        waiting: bool,
    },
    /// The target `.`.
    Declined,
    /// NXDOMAIN or NODATA.
    Nothing,
}

impl Policy {
    /// Nothing is known yet.
    pub fn new(settings: Settings) -> Policy {
        Policy {
            settings,
            answered: false,
            current: BTreeMap::new(),
            held: BTreeSet::new(),
            hold: None,
            absent: Streak::default(),
            shrink: Streak::default(),
            rotation: Rotation::new(settings.max_endpoints),
            turned: None,
            stale_since: None,
            failing: false,
            last_success: None,
        }
    }

    /// What subscribers are offered.
    pub fn offer(&self) -> Offer {
        if !self.answered {
            return Offer::Pending;
        }
        if self.current.is_empty() {
            return Offer::Absent;
        }
        let discovered = |(endpoint, place): (&Endpoint, &Place)| Discovered {
            endpoint: endpoint.clone(),
            priority: place.priority,
            weight: place.weight,
            split: place.split,
        };
        Offer::Endpoints(self.current.iter().map(discovered).collect())
    }

    /// Since when no server answers.
    pub fn stale_since(&self) -> Option<Instant> {
        self.stale_since
    }

    /// When a server last answered.
    pub fn last_success(&self) -> Option<Instant> {
        self.last_success
    }

    /// Why the offer has endpoints that the last answer does not list.
    pub fn hold(&self) -> Option<Hold> {
        self.hold
    }

    /// The moment from which on another answer counts as a confirmation, while one is awaited.
    pub fn confirmed_from(&self) -> Option<Instant> {
        match self.hold {
            Some(Hold::Absent { .. }) => self.absent.next_from,
            Some(Hold::Shrink { .. }) => self.shrink.next_from,
            Some(Hold::Doubt) => self.rotation.next_from(),
            Some(Hold::Unresolved) => None,
            None => self.rotation.rotating().and(self.rotation.next_from()),
        }
    }

    /// How answers rotate, if they do.
    pub fn rotating(&self) -> Option<Rotating> {
        self.rotation.rotating()
    }

    /// Is somebody offered at this address?
    pub fn offers(&self, address: SocketAddr) -> bool {
        self.current.keys().any(|e| e.socket() == address)
    }

    /// Endpoints on offer that the last answer does not list.
    pub fn unlisted(&self) -> usize {
        let unlisted = |e: &&Endpoint| self.held.contains(*e) || self.rotation.remembers(e);
        self.current.keys().filter(unlisted).count()
    }

    /// Targets whose addresses are of use, listed or not.
    pub fn targets(&self) -> HashSet<Arc<str>> {
        let offered = self.current.keys().map(|e| &e.target);
        let remembered = self.rotation.unlisted().map(|(m, _)| &m.target);
        offered.chain(remembered).cloned().collect()
    }

    /// Takes up whom an answer lists, before it is put together for [`Policy::answered`]: returns
    /// who belongs to it although it does not list them, because answers rotate.
    pub fn lists(
        &mut self,
        listed: BTreeMap<Member, Shown>,
        facts: Facts<'_>,
    ) -> Vec<(Member, Shown)> {
        let current = &self.current;
        let offered = || current.keys().flat_map(Member::candidates).collect();
        if let Some(turn) = self.rotation.observe(listed, &offered, facts) {
            self.turned = Some(turn);
        }
        let unlisted = self.rotation.unlisted();
        unlisted
            .map(|(m, shown)| (m.clone(), shown.clone()))
            .collect()
    }

    /// Takes up what was known before this process began, as of `since`: it is in effect and stale
    /// until a server answers, and then guarded as if a server had given it. To be called again with
    /// less of it when the rules of admission change before that.
    pub fn restored(&mut self, set: Vec<Discovered>, since: Instant) -> Outcome {
        let mut outcome = Outcome::default();
        // That nothing of it can be used does not tell that nobody is there.
        if set.is_empty() && !self.answered {
            return outcome;
        }
        let why = match set.is_empty() {
            true => Why::Unusable,
            false => Why::Unlisted,
        };
        self.stale_since = Some(since);
        let facts = Facts {
            now: since,
            believed_for: Duration::ZERO,
            repeated: true,
            failing: &HashSet::new(),
        };
        self.adopt(set, None, why, facts, &mut outcome);
        outcome
    }

    /// No server gave an answer: what is known stays, and is stale from now on.
    pub fn failed(&mut self, error: &str, now: Instant) -> Outcome {
        let mut outcome = Outcome::default();
        self.stale_since.get_or_insert(now);
        if !self.failing {
            self.failing = true;
            outcome.events.push(Event::Stale {
                error: error.to_owned(),
            });
        }
        outcome
    }

    /// A server answered.
    pub fn answered(&mut self, answer: Answer, facts: Facts<'_>) -> Outcome {
        let mut outcome = Outcome::default();
        if !facts.repeated {
            self.last_success = Some(facts.now);
            self.failing = false;
            if let Some(since) = self.stale_since.take() {
                outcome.events.push(Event::Recovered {
                    after: facts.now.duration_since(since),
                });
            }
        }
        outcome.events.extend(self.turned.take().map(Event::from));
        match answer {
            Answer::Declined => {
                self.absent = Streak::default();
                self.shrink = Streak::default();
                self.rotation.start_over();
                self.adopt(Vec::new(), None, Why::Declined, facts, &mut outcome);
            }
            Answer::Nothing => {
                self.shrink = Streak::default();
                let seen = self.absent.count(facts);
                let needed = self.settings.absent_after.max(1);
                let hold = (seen < needed).then_some(Hold::Absent { seen, needed });
                if hold.is_none() {
                    self.rotation.start_over();
                }
                self.adopt(Vec::new(), hold, Why::Nonexistent, facts, &mut outcome);
            }
            Answer::Endpoints { set, waiting } => {
                self.absent = Streak::default();
                self.listed(set, waiting, facts, &mut outcome);
            }
        }
        outcome
    }

    /// A connect failed: whatever is offered at that address although it is not listed leaves.
    pub fn connect_failed(&mut self, address: SocketAddr) -> Outcome {
        let mut outcome = Outcome::default();
        let here = self.current.keys().filter(|e| e.socket() == address);
        let unlisted = |e: &&Endpoint| self.held.contains(*e) || self.rotation.remembers(e);
        let gone: Vec<_> = here.filter(unlisted).cloned().collect();
        for endpoint in gone {
            self.held.remove(&endpoint);
            self.current.remove(&endpoint);
            self.unreachable(&endpoint);
            outcome.left(endpoint, Why::UnlistedAndUnreachable(address));
        }
        if self.held.is_empty() && self.hold != Some(Hold::Unresolved) {
            self.hold = None;
        }
        outcome
    }

    fn listed(
        &mut self,
        set: Vec<Discovered>,
        waiting: bool,
        facts: Facts<'_>,
        outcome: &mut Outcome,
    ) {
        if set.is_empty() && waiting {
            // Somebody is there, and we cannot reach them yet. Those of before are a better
            // guess than nobody, and connects to them tell soon enough.
            self.shrink = Streak::default();
            if !self.current.is_empty() {
                self.announce(Hold::Unresolved, self.current.len(), outcome);
                self.held.clear();
            }
            return;
        }
        let why = if set.is_empty() {
            Why::Unusable
        } else {
            Why::Unlisted
        };
        let listed: HashSet<_> = set.iter().map(|d| &d.endpoint).collect();
        let working = self
            .current
            .keys()
            .filter(|e| !facts.failing.contains(&e.socket()));
        let (going, all) = working.fold((0usize, 0usize), |(going, all), endpoint| {
            (going + usize::from(!listed.contains(endpoint)), all + 1)
        });
        let needed = self.settings.shrink_guard.max(1);
        // Answers that differ each time confirm nothing.
        let doubtful = needed > 1
            && self.rotation.is_doubtful()
            && self.current.len() < self.settings.max_endpoints;
        if doubtful || going * 2 <= all {
            self.shrink = Streak::default();
        }
        if going * 2 <= all {
            let hold = doubtful.then_some(Hold::Doubt);
            return self.adopt(set, hold, why, facts, outcome);
        }
        let seen = self.shrink.count(facts);
        let hold = (seen < needed).then_some(Hold::Shrink { seen, needed });
        if hold.is_none() {
            self.shrink = Streak::default();
        }
        self.adopt(set, hold, why, facts, outcome);
    }

    /// Takes over `set`. With a hold, what `set` lacks stays, unless connects to it fail. Of those
    /// that are only remembered, whoever fails leaves.
    fn adopt(
        &mut self,
        set: Vec<Discovered>,
        hold: Option<Hold>,
        why: Why,
        facts: Facts<'_>,
        outcome: &mut Outcome,
    ) {
        let (failing, rotation) = (facts.failing, &self.rotation);
        let reachable = |e: &Endpoint| {
            !rotation.remembers(e) || !failing.contains(&e.socket()) && !rotation.is_unreachable(e)
        };
        let mut new: BTreeMap<_, _> = set
            .into_iter()
            .filter(|d| reachable(&d.endpoint))
            .map(|d| {
                let place = Place {
                    priority: d.priority,
                    weight: d.weight,
                    split: d.split,
                };
                (d.endpoint, place)
            })
            .collect();
        let before = std::mem::take(&mut self.current);
        let nobody_before = before.is_empty();
        self.held.clear();
        let mut left = Vec::new();
        for (endpoint, place) in before {
            if let Some(now) = new.get(&endpoint) {
                if (place.priority, place.weight) != (now.priority, now.weight) {
                    let (from, to) = (place.terms(), now.terms());
                    outcome.reweighted(endpoint.clone(), from, to);
                }
                self.current.insert(endpoint, place);
            } else if facts.failing.contains(&endpoint.socket())
                && (hold.is_some() || self.rotation.remembers(&endpoint))
            {
                let address = endpoint.socket();
                left.push((endpoint, Why::UnlistedAndUnreachable(address)));
            } else if hold.is_none() {
                let missed = self.rotation.missed(&endpoint).map(Why::Missed);
                left.push((endpoint, missed.unwrap_or(why)));
            } else {
                self.held.insert(endpoint.clone());
                self.current.insert(endpoint, place);
            }
        }
        for (endpoint, place) in &new {
            if !self.current.contains_key(endpoint) {
                outcome.joined(endpoint.clone(), place.terms());
            }
        }
        self.current.append(&mut new);
        for (endpoint, why) in left {
            if let Why::UnlistedAndUnreachable(_) = why {
                self.unreachable(&endpoint);
            }
            outcome.left(endpoint, why);
        }
        outcome.summarise();
        match hold.filter(|_| !self.held.is_empty()) {
            Some(hold) => self.announce(hold, self.held.len(), outcome),
            None => self.hold = None,
        }
        if self.current.is_empty() && (!self.answered || !nobody_before) {
            outcome.events.push(Event::Absent { why });
        }
        self.answered = true;
    }

    /// It left because connects to it fail: it is not to come back before it is listed.
    fn unreachable(&mut self, endpoint: &Endpoint) {
        let same = |e: &&Endpoint| (&e.target, e.port) == (&endpoint.target, endpoint.port);
        let alone = !self.current.keys().any(|e| same(&e));
        self.rotation.unreachable(endpoint, alone);
    }

    /// Takes up `hold`; each step of it is an event, a repetition is none.
    fn announce(&mut self, hold: Hold, endpoints: usize, outcome: &mut Outcome) {
        if self.hold != Some(hold) {
            self.hold = Some(hold);
            outcome.events.push(Event::HeldBack { endpoints, hold });
        }
    }
}

impl Place {
    fn terms(&self) -> (u16, u16) {
        (self.priority, self.weight)
    }
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
