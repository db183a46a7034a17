//! One task per unique name and way of asking, however many services use it.
//!
//! [`Watches::subscribe`] is called by the control thread, which then follows the
//! [`Publication`]s; `task.rs` is what runs behind it. A task ends when its last
//! [`Subscription`] is dropped. Nothing here is ever on the request path.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::admission::{Admission, is_local};
use super::changes::Changes;
use super::journal::{Hold, Journal};
use super::keeper::Keeper;
use super::resolver::Limits;
use super::rotation::Rotating;
use super::stats::{DnsStats, Stats};
use super::task::{Task, asks_loopback};
use super::{Discovered, Endpoint, Offer};
use crate::config::{Discover, StaticEndpoint};
use crate::events;

/// Wishes that wait for a task. More are lost, which is harmless: they all ask for the same.
const MAX_WISHES: usize = 64;

/// All watched names of this process. Cheap to clone; all clones share the tasks.
#[derive(Debug, Clone)]
pub struct Watches {
    shared: Arc<Shared>,
    admission: Arc<watch::Sender<Arc<Admission>>>,
}

/// What the tasks share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) journal: Journal,
    pub(super) changes: Changes,
    pub(super) stats: Arc<Stats>,
    pub(super) limits: Arc<Limits>,
    /// Keeps answers for a restart.
    pub(super) keeper: Option<Arc<Keeper>>,
    /// Tasks by what they watch. Held to look one up or to put one in, never across an await.
    tasks: Mutex<HashMap<Discover, Entry>>,
}

#[derive(Debug)]
struct Entry {
    /// Weak, so that the table does not keep the task alive.
    wishes: mpsc::WeakSender<Wish>,
    offers: watch::Receiver<Publication>,
}

/// What a subscriber wants from the task.
#[derive(Debug, Clone)]
pub(super) enum Wish {
    ConnectFailed(SocketAddr),
    StillOut(Arc<[SocketAddr]>),
    Refresh,
}

/// What is known of a name at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Publication {
    /// Who is there.
    pub offer: Offer,
    /// Since when no server answers; the offer is then the last good one. `None`: it is fresh.
    pub stale_since: Option<Instant>,
    /// When a server last answered, be it "nobody".
    pub last_success: Option<Instant>,
    /// When it is asked again, unless something asks for it earlier.
    pub next_query: Option<Instant>,
    /// TTL of the last answer, as sent.
    pub ttl: Option<Duration>,
    /// Who gave it.
    pub server: Option<SocketAddr>,
    /// Why the offer still has endpoints that the last answer does not list.
    pub held: Option<Hold>,
    /// Answers show a part of a larger set, another one each time; the offer is what was seen of
    /// the whole.
    pub rotating: Option<Rotating>,
    /// What is wrong, in words; `None`: nothing.
    pub detail: Option<Arc<str>>,
}

/// A service's share in a watched name.
#[derive(Debug)]
pub struct Subscription {
    /// The offer and its later versions. Never closes while the subscription lives.
    pub offers: watch::Receiver<Publication>,
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// Never sends; kept so that `offers` does not close.
    Constant {
        _keep: watch::Sender<Publication>,
    },
    Task(mpsc::Sender<Wish>),
}

impl Watches {
    /// No names yet. `own_addresses` are refused as endpoints always, and what is in `allowed`
    /// is let in although it is refused by default (see [`Admission`]).
    pub fn new(own_addresses: Vec<SocketAddr>, allowed: Vec<IpNet>) -> Watches {
        Watches::keeping(own_addresses, allowed, None)
    }

    /// The same with answers kept for a restart, and those from before it.
    pub fn keeping(
        own_addresses: Vec<SocketAddr>,
        allowed: Vec<IpNet>,
        keeper: Option<Arc<Keeper>>,
    ) -> Watches {
        Watches::telling(own_addresses, allowed, keeper, Arc::default())
    }

    /// The same, and what happens is told to the journal of the process.
    pub fn telling(
        own_addresses: Vec<SocketAddr>,
        allowed: Vec<IpNet>,
        keeper: Option<Arc<Keeper>>,
        process: Arc<events::journal::Journal>,
    ) -> Watches {
        let admission = Arc::new(Admission::new(own_addresses, allowed));
        Watches {
            shared: Arc::new(Shared {
                journal: Journal::beside(process),
                changes: Changes::default(),
                stats: Arc::default(),
                limits: Arc::default(),
                keeper,
                tasks: Mutex::default(),
            }),
            admission: Arc::new(watch::Sender::new(admission)),
        }
    }

    /// Other listeners, other allowed networks (a reload). Running tasks look at their last
    /// answer again with the new rules.
    pub fn set_admission(&self, own_addresses: Vec<SocketAddr>, allowed: Vec<IpNet>) {
        let new = Arc::new(Admission::new(own_addresses, allowed));
        self.admission.send_if_modified(|current| {
            let differs = **current != *new;
            *current = new;
            differs
        });
    }

    /// What can be offered before anybody is asked: what never changes, or what was stored before
    /// this process began.
    pub fn known(&self, discover: &Discover) -> Option<Offer> {
        if let Some(offer) = constant(discover) {
            return Some(offer);
        }
        let stored = self.shared.keeper.as_ref()?.found(discover)?;
        let (Discover::Srv { lookup, .. } | Discover::Address { lookup, .. }) = discover else {
            return None;
        };
        let admission = Arc::clone(&self.admission.borrow());
        let admit = |endpoint, on_loopback| admission.judge(endpoint, on_loopback, &is_local);
        let (set, _) = stored.admitted(&admit, asks_loopback(lookup), lookup.max_endpoints);
        (!set.is_empty()).then(|| Offer::Endpoints(set.into()))
    }

    /// Follows what `discover` names. A name that is watched in the same way already has its
    /// publication at hand; a new one starts with what was stored of it before this process began, or
    /// as [`Offer::Pending`] (static endpoints, and an address written in place of a name, are there
    /// at once and never change).
    ///
    /// Must be called within a tokio runtime; the task runs there. On a reload, subscribe to the
    /// new services before the old subscriptions are dropped, and names that stay keep their task.
    pub fn subscribe(&self, discover: &Discover) -> Subscription {
        if let Some(offer) = constant(discover) {
            return Subscription::constant(offer);
        }
        let (name, lookup) = match discover {
            Discover::Static(_) => unreachable!("it is constant"),
            Discover::Address { name, lookup, .. } | Discover::Srv { name, lookup } => {
                (name, lookup)
            }
        };
        let mut tasks = self.shared.lock();
        if let Some(entry) = tasks.get(discover)
            && let Some(wishes) = entry.wishes.upgrade()
        {
            return Subscription {
                offers: entry.offers.clone(),
                source: Source::Task(wishes),
            };
        }
        let (wishes, wished) = mpsc::channel(MAX_WISHES);
        let (publisher, offers) = watch::channel(Publication::default());
        let mut task = Task::new(
            discover.clone(),
            (Arc::clone(name), lookup.clone()),
            publisher,
            wished,
            Arc::clone(&self.shared),
            self.admission.subscribe(),
        );
        let entry = Entry {
            wishes: wishes.downgrade(),
            offers: offers.clone(),
        };
        tasks.insert(discover.clone(), entry);
        drop(tasks);
        task.restore();
        tokio::spawn(task.run());
        Subscription {
            offers,
            source: Source::Task(wishes),
        }
    }

    /// What happened, and why.
    pub fn journal(&self) -> &Journal {
        &self.shared.journal
    }

    /// What each of the last answers for a name changed.
    pub fn changes(&self) -> &Changes {
        &self.shared.changes
    }

    /// Every name that is watched, how it is asked, and what is known of it now.
    pub fn watched(&self) -> Vec<(Discover, Publication)> {
        let tasks = self.shared.lock();
        let living = tasks
            .iter()
            .filter(|(_, entry)| entry.wishes.strong_count() > 0);
        living
            .map(|(discover, entry)| (discover.clone(), entry.offers.borrow().clone()))
            .collect()
    }

    /// Has this name, or every one, asked for at the next moment at which that is allowed (at most once
    /// a second each). Gives those that are.
    pub fn refresh(&self, only: Option<&str>) -> Vec<Arc<str>> {
        let tasks = self.shared.lock();
        let mut names: Vec<Arc<str>> = Vec::new();
        for (discover, entry) in tasks.iter() {
            let (Discover::Srv { name, .. } | Discover::Address { name, .. }) = discover else {
                continue;
            };
            if only.is_some_and(|only| **name != *only) {
                continue;
            }
            let Some(wishes) = entry.wishes.upgrade() else {
                continue;
            };
            // A full queue holds plenty of the same wish already.
            let _ = wishes.try_send(Wish::Refresh);
            names.push(Arc::clone(name));
        }
        names.sort();
        names.dedup();
        names
    }

    /// The counters, for a reader on another thread.
    pub fn stats(&self) -> Arc<Stats> {
        Arc::clone(&self.shared.stats)
    }

    /// A copy of the counters.
    pub fn snapshot(&self) -> DnsStats {
        self.shared.stats.snapshot()
    }
}

impl Shared {
    /// Takes a task that ends out of the table, unless another one took its place already, and
    /// forgets its counters if nobody else watches that name.
    pub(super) fn ended(&self, discover: &Discover, name: &Arc<str>) {
        let mut tasks = self.lock();
        if tasks
            .get(discover)
            .is_some_and(|entry| entry.wishes.strong_count() == 0)
        {
            tasks.remove(discover);
        }
        let watched = |key: &Discover| match key {
            Discover::Srv { name: other, .. } | Discover::Address { name: other, .. } => {
                other == name
            }
            Discover::Static(_) => false,
        };
        if !tasks.keys().any(watched) {
            self.stats.forget(name);
            self.changes.forget(name);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Discover, Entry>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subscription {
    /// Says that a connect to `backend` failed: the name is asked again soon (at most once a
    /// second for this reason), and if only a guard keeps that backend in the offer, it leaves.
    /// Never blocks, and may be called as often as one likes.
    pub fn connect_failed(&self, backend: SocketAddr) {
        self.wish(Wish::ConnectFailed(backend));
    }

    /// Says who is out because checks or requests fail. They count as not working for
    /// [`STILL_OUT_EVERY`] and a little more: to be said again until they are back.
    pub fn still_out(&self, backends: Arc<[SocketAddr]>) {
        self.wish(Wish::StillOut(backends));
    }

    /// Asks again at the next moment at which that is allowed (at most once a second).
    pub fn refresh(&self) {
        self.wish(Wish::Refresh);
    }

    fn wish(&self, wish: Wish) {
        if let Source::Task(wishes) = &self.source {
            // A full queue holds plenty of the same wish already.
            let _ = wishes.try_send(wish);
        }
    }

    fn constant(offer: Offer) -> Subscription {
        let (keep, offers) = watch::channel(Publication {
            offer,
            ..Publication::default()
        });
        Subscription {
            offers,
            source: Source::Constant { _keep: keep },
        }
    }
}

/// Who is out is told this often: half of the time for which it counts, so that one word may be
/// lost.
pub const STILL_OUT_EVERY: Duration = Duration::from_secs(5);

/// What is known without asking anybody, and never changes: static endpoints, and an address
/// written in place of a name. `None`: somebody has to be asked.
pub fn constant(discover: &Discover) -> Option<Offer> {
    match discover {
        Discover::Static(endpoints) => Some(of_static(endpoints)),
        Discover::Address { name, port, .. } => {
            let address: IpAddr = name.parse().ok()?;
            Some(of_static(&[StaticEndpoint {
                address: SocketAddr::new(address, port.get()),
                priority: 0,
                weight: 1,
            }]))
        }
        Discover::Srv { .. } => None,
    }
}

/// Endpoints as the configuration writes them; the address stands for the target. One that is
/// written twice counts once, as it stands first.
fn of_static(endpoints: &[StaticEndpoint]) -> Offer {
    let mut discovered: Vec<Discovered> = Vec::with_capacity(endpoints.len());
    for written in endpoints {
        let endpoint = Endpoint {
            target: written.address.ip().to_string().into(),
            address: written.address.ip(),
            port: written.address.port(),
        };
        if discovered.iter().any(|known| known.endpoint == endpoint) {
            continue;
        }
        discovered.push(Discovered {
            endpoint,
            priority: written.priority,
            weight: written.weight,
            split: 1,
        });
    }
    if discovered.is_empty() {
        return Offer::Absent;
    }
    Offer::Endpoints(discovered.into())
}
