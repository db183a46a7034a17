//! The loop behind one watched name: asks on a ticker, takes answers and wishes.
//!
//! Started by `watch.rs`, ended when the last subscription is dropped. It asks in tasks of its
//! own set, so that a silent server or target never keeps it from anything else; dropping the
//! loop drops them. `task/settle.rs` puts answers together and publishes what `policy.rs` makes of
//! them; `task/keep.rs` has them stored for a restart, and offers what was stored before.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::admission::Admission;
use super::answers::{
    Addresses, Answer as Asked, Glue, LookupError, Negative, OneFamily, SrvAnswer, SrvRecord,
    Target,
};
use super::journal::Event;
use super::outcome::Outcome;
use super::pace::{self, Answered};
use super::policy::{Policy, Settings};
use super::resolver::Resolver;
use super::srv::Rejected;
use super::system::{RESOLV_CONF, Servers};
use super::targets::Targets;
use super::watch::{Publication, Shared, Wish};
use crate::config::{Discover, Family, Lookup};

/// An answer whose targets have to be looked up is published after so long with those that are
/// known by then. Below the half second in which a change must be in effect.
const GRACE: Duration = Duration::from_millis(200);

/// Targets that answer after that are published together within this time.
const GATHER: Duration = Duration::from_millis(50);

/// Failed connects lead to at most one early question in this time.
const EARLY_GAP: Duration = Duration::from_secs(1);

/// Targets that no answer lists just now are looked up again so many at a time, so that a set of
/// hundreds behind answers of a few does not cost hundreds of questions each second.
const UNLISTED_AT_ONCE: usize = 8;

/// Failed connects that are remembered.
const MAX_FAILING: usize = 4096;

mod keep;
mod settle;

pub(super) use keep::asks_loopback;

pub(super) struct Task {
    discover: Discover,
    name: Arc<str>,
    lookup: Lookup,
    publisher: watch::Sender<Publication>,
    wishes: mpsc::Receiver<Wish>,
    shared: Arc<Shared>,
    admission: watch::Receiver<Arc<Admission>>,

    resolver: Option<Arc<Resolver>>,
    lookups: JoinSet<Done>,
    /// The question for the name itself is under way.
    asking: bool,
    /// Targets that are being asked for.
    targets_asked: HashSet<Arc<str>>,

    latest: Option<Latest>,
    targets: Targets,
    policy: Policy,
    failing: HashMap<SocketAddr, Instant>,
    troubles: BTreeMap<Arc<str>, String>,
    rejected: BTreeSet<Rejected>,
    error: Option<String>,

    asked_at: Instant,
    next: Instant,
    settle_at: Option<Instant>,
    /// Rounds in a row in which something went wrong.
    failures: u32,
    /// What is on disk of this name.
    kept: keep::Kept,
    /// What was journaled since the last publication, and the number of the first of it.
    told: Vec<Event>,
    told_from: Option<u64>,
}

/// The last answer that was one.
struct Latest {
    said: Said,
    at: Instant,
    ttl: Option<Duration>,
    server: Option<SocketAddr>,
    /// The policy has seen it.
    settled: bool,
}

enum Said {
    Srv(SrvAnswer),
    Addresses,
    Nothing { name_exists: bool },
}

/// A lookup that has ended.
enum Done {
    Srv(Result<Asked<SrvAnswer>, LookupError>),
    Addresses(Addresses),
    Target(Arc<str>, Addresses),
}

impl Task {
    pub(super) fn new(
        discover: Discover,
        (name, lookup): (Arc<str>, Lookup),
        publisher: watch::Sender<Publication>,
        wishes: mpsc::Receiver<Wish>,
        shared: Arc<Shared>,
        admission: watch::Receiver<Arc<Admission>>,
    ) -> Task {
        let now = Instant::now();
        let policy = Policy::new(Settings {
            absent_after: lookup.absent_after,
            shrink_guard: lookup.shrink_guard,
            max_endpoints: lookup.max_endpoints,
        });
        Task {
            discover,
            name,
            lookup,
            publisher,
            wishes,
            shared,
            admission,
            resolver: None,
            lookups: JoinSet::new(),
            asking: false,
            targets_asked: HashSet::new(),
            latest: None,
            targets: Targets::default(),
            policy,
            failing: HashMap::new(),
            troubles: BTreeMap::new(),
            rejected: BTreeSet::new(),
            error: None,
            asked_at: now,
            next: now,
            settle_at: None,
            failures: 0,
            kept: keep::Kept::default(),
            told: Vec::new(),
            told_from: None,
        }
    }

    pub(super) async fn run(mut self) {
        loop {
            let settle_at = self.settle_at;
            tokio::select! {
                wish = self.wishes.recv() => match wish {
                    Some(wish) => self.wished(wish),
                    None => return,
                },
                Some(done) = self.lookups.join_next() => match done {
                    Ok(done) => self.done(done),
                    Err(error) => {
                        self.asking = false;
                        self.targets_asked.clear();
                        self.failed(error.to_string());
                    }
                },
                () = sleep_until(self.next), if !self.asking => self.ask(),
                () = sleep_until(settle_at.unwrap_or(self.next)), if settle_at.is_some() => {
                    self.settle();
                }
                Ok(()) = self.admission.changed() => {
                    self.admission.mark_unchanged();
                    match self.latest {
                        Some(_) => self.settle(),
                        None => self.admit_restored(),
                    }
                }
            }
        }
    }

    fn ask(&mut self) {
        self.asked_at = Instant::now();
        let resolver = match &self.resolver {
            Some(resolver) => Arc::clone(resolver),
            None => {
                let (limits, stats) = (
                    Arc::clone(&self.shared.limits),
                    Arc::clone(&self.shared.stats),
                );
                match Resolver::new(Arc::clone(&self.name), &self.lookup, limits, stats) {
                    Ok(resolver) => Arc::clone(self.resolver.insert(Arc::new(resolver))),
                    Err(error) => return self.failed(error.to_string()),
                }
            }
        };
        self.asking = true;
        let name = Arc::clone(&self.name);
        if let Discover::Srv { .. } = self.discover {
            self.lookups
                .spawn(async move { Done::Srv(resolver.srv(&name).await) });
        } else {
            let family = self.lookup.family;
            self.lookups
                .spawn(async move { Done::Addresses(resolver.addresses(&name, family).await) });
        }
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Srv(outcome) => {
                self.asking = false;
                match outcome {
                    Ok(Asked::Found(answer)) => self.records(answer),
                    Ok(Asked::Nothing(negative)) => self.nothing(&negative),
                    Err(error) => self.failed(error.to_string()),
                }
            }
            Done::Addresses(addresses) => {
                self.asking = false;
                self.addresses(&addresses);
            }
            Done::Target(target, addresses) => {
                self.targets_asked.remove(&target);
                let now = Instant::now();
                self.targets.update(&target, &addresses, &self.lookup, now);
                if self.targets_asked.is_empty() {
                    self.settle();
                } else if self.settle_at.is_none() {
                    self.settle_at = Some(now + GATHER);
                }
            }
        }
    }

    /// An SRV answer: looks up the targets that came without addresses.
    fn records(&mut self, answer: SrvAnswer) {
        let now = Instant::now();
        let hosts: BTreeSet<_> = answer.records.iter().filter_map(host).cloned().collect();
        let of_use = self.policy.targets();
        self.targets
            .retain(|target| hosts.contains(target), |t| of_use.contains(t));
        let resolver = self.resolver.as_ref();
        let mut ttl = answer.origin.ttl;
        // Targets without trouble so far, which will be there in a moment.
        let mut awaited = false;
        // Targets of members that this answer, one of many that differ, does not list. What is
        // done about them waits for nobody.
        let unlisted = match self.policy.rotating() {
            Some(_) => self.targets.unlisted_expired(now, UNLISTED_AT_ONCE),
            None => Vec::new(),
        };
        // What fits a message (64 KiB) bounds their number.
        for target in hosts.iter().cloned().chain(unlisted) {
            let glue = answer.glue.get(&target).cloned();
            let family = self.lookup.family;
            if let Some(glue) = &glue {
                ttl = ttl.min(glue.ttl);
                if glue_is_enough(glue, family) {
                    let addresses = glue_addresses(glue, answer.origin.server, family);
                    self.targets.update(&target, &addresses, &self.lookup, now);
                    continue;
                }
            }
            if self.targets.is_fresh(&target, now) || self.targets_asked.contains(&target) {
                continue;
            }
            let Some(resolver) = resolver.map(Arc::clone) else {
                continue;
            };
            awaited |= hosts.contains(&target) && self.targets.trouble(&target).is_none();
            self.targets_asked.insert(Arc::clone(&target));
            let server = answer.origin.server;
            self.lookups.spawn(async move {
                let glue = glue.as_ref().map(|glue| (glue, server));
                let addresses = resolver.target(&target, family, glue).await;
                Done::Target(target, addresses)
            });
        }
        self.carried(&answer);
        let server = answer.origin.server;
        self.succeeded(Said::Srv(answer), Some(ttl), server, now);
        if awaited {
            let by = now + GRACE;
            self.settle_at = Some(self.settle_at.map_or(by, |at| at.min(by)));
        } else {
            self.settle();
        }
    }

    /// An answer for the addresses of the name itself.
    fn addresses(&mut self, addresses: &Addresses) {
        let now = Instant::now();
        let families = [&addresses.v4, &addresses.v6];
        let found = families.iter().find_map(|family| match family {
            OneFamily::Found { server, .. } => Some(*server),
            _ => None,
        });
        let failure = families.iter().find_map(|family| match family {
            OneFamily::Failed(error) => Some(error.to_string()),
            _ => None,
        });
        let ttls = families.iter().filter_map(|family| match family {
            OneFamily::Found { ttl, .. } => Some(*ttl),
            _ => None,
        });
        let ttl = ttls.min();
        self.targets
            .update(&self.name, addresses, &self.lookup, now);
        match (found, failure) {
            (Some(server), _) => {
                self.succeeded(Said::Addresses, ttl, server, now);
                self.settle();
            }
            (None, Some(error)) => self.failed(error),
            (None, None) => {
                let negatives = families.iter().filter_map(|family| match family {
                    OneFamily::Nothing(negative) => Some((*negative).clone()),
                    _ => None,
                });
                if let Some(negative) = negatives.reduce(Negative::and) {
                    self.nothing(&negative);
                }
            }
        }
    }

    fn nothing(&mut self, negative: &Negative) {
        let now = Instant::now();
        let name_exists = negative.name_exists;
        let said = Said::Nothing { name_exists };
        self.succeeded(said, negative.ttl, negative.server, now);
        self.settle();
    }

    fn succeeded(&mut self, said: Said, ttl: Option<Duration>, server: SocketAddr, now: Instant) {
        self.shared.stats.answered(&self.name);
        self.error = None;
        self.outdated();
        self.latest = Some(Latest {
            said,
            at: now,
            ttl,
            server: Some(server),
            settled: false,
        });
        // Until it is settled; the question is answered, so it must not be asked at once again.
        self.next = self.after_answer(now);
    }

    fn failed(&mut self, error: String) {
        let now = Instant::now();
        let outcome = self.policy.failed(&error, now);
        self.error = Some(error);
        self.failures = self.failures.saturating_add(1);
        self.next = now + self.backoff();
        if self.lookup.servers.is_empty() {
            // Containers get another resolv.conf when their network changes.
            let read = Servers::read(RESOLV_CONF.as_ref()).ok();
            if self.resolver.as_ref().map(|r| r.servers()) != read.as_ref() {
                self.resolver = None;
            }
        }
        self.record(outcome);
        self.publish();
    }

    fn wished(&mut self, wish: Wish) {
        let now = Instant::now();
        match wish {
            Wish::Refresh => {}
            Wish::StillOut(backends) => {
                for &address in backends.iter() {
                    self.fails(address, now);
                }
                return;
            }
            Wish::ConnectFailed(address) => {
                if !self.fails(address, now) {
                    return;
                }
                let outcome = self.policy.connect_failed(address);
                if outcome != Outcome::default() {
                    self.record(outcome);
                    self.publish();
                }
            }
        }
        self.next = self.next.min(now.max(self.asked_at + EARLY_GAP));
    }

    /// Counts a backend as not working from now on, for a while; false: nobody is offered there.
    fn fails(&mut self, address: SocketAddr, now: Instant) -> bool {
        let offered = self.policy.offers(address);
        if offered && (self.failing.len() < MAX_FAILING || self.failing.contains_key(&address)) {
            self.failing.insert(address, now);
        }
        offered
    }

    /// When to ask again after the latest answer.
    fn after_answer(&self, now: Instant) -> Instant {
        let latest = self.latest.as_ref();
        let answered = Answered {
            at: latest.map_or(now, |latest| latest.at),
            ttl: latest.and_then(|latest| latest.ttl),
            targets: self.targets.next_expiry(),
            retry: (!self.troubles.is_empty()).then(|| now + self.backoff()),
            confirms_from: self.policy.confirmed_from(),
        };
        pace::after(answered, self.asked_at, &self.lookup, fastrand::f64())
    }

    fn backoff(&self) -> Duration {
        let ttl = self.latest.as_ref().and_then(|latest| latest.ttl);
        pace::backoff(self.failures, ttl, &self.lookup, fastrand::f64())
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.shared.ended(&self.discover, &self.name);
    }
}

fn host(record: &SrvRecord) -> Option<&Arc<str>> {
    match &record.target {
        Target::Host(target) if record.port != 0 => Some(target),
        _ => None,
    }
}

/// AAAA glue alone is not enough for `auto`: the A records may not have fitted.
fn glue_is_enough(glue: &Glue, family: Family) -> bool {
    match family {
        Family::Auto | Family::V4 => !glue.v4.is_empty(),
        Family::V6 => !glue.v6.is_empty(),
        Family::Both => !glue.v4.is_empty() && !glue.v6.is_empty(),
    }
}

fn glue_addresses(glue: &Glue, server: SocketAddr, family: Family) -> Addresses {
    let one = |addresses: &Vec<_>, wanted: bool| match wanted && !addresses.is_empty() {
        true => OneFamily::Found {
            addresses: addresses.clone(),
            ttl: glue.ttl,
            server,
            glue: true,
        },
        false => OneFamily::NotAsked,
    };
    Addresses {
        v4: one(&glue.v4, family != Family::V6),
        v6: one(&glue.v6, matches!(family, Family::V6 | Family::Both)),
    }
}
