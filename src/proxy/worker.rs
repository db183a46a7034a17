//! What one worker owns: its schedules, its idle connections, its buffers and deadlines.
//!
//! Everything here lives on one thread; a borrow of a cell never crosses an await.
//!
//! A [`Worker`] is a worker under one generation of the configuration ([`Shared`]): indexes of
//! services and listeners mean the same throughout. What a reload changes makes another `Worker`
//! ([`Worker::renewed`]), which has the same buffers, connections and, of services that stay, the same
//! schedules. A request ends in the generation in which it began; a connection goes on to the newest
//! between two requests ([`Worker::newest`]).

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use super::mirror::Mirrors;
use super::retry::Budget;
use super::samples::{self};
use super::splits::Splits;
use crate::balance::affinity::Affinity;
use crate::balance::picker::{NoBackend, Pick, Picker};
use crate::balance::snapshot::Snapshot;
use crate::balance::wish::Wish;
use crate::clock::Millis;
use crate::config::{Balancing, Service, Target};
use crate::io::buffer::BufferPool;
use crate::io::deadline::Deadlines;
use crate::io::pipes::Pipes;
use crate::published::Published;
use crate::telemetry::access::AccessLog;
use crate::telemetry::metrics::Shard;
use crate::telemetry::seldom::Seldom;
use crate::upstream::backend::BackendId;
use crate::upstream::gate::Gate;
use crate::upstream::pool::Pool;
use crate::upstream::streams::Streams;

/// One worker, under one generation of the configuration.
#[derive(Debug)]
pub struct Worker {
    /// Its number, from 0.
    pub index: usize,
    /// The generation, shared with the others.
    pub shared: Arc<Shared>,
    /// There is a newer one.
    superseded: Cell<bool>,
    /// Which one is the newest.
    newest: Rc<RefCell<Weak<Worker>>>,
    /// Spare buffers.
    pub buffers: Rc<BufferPool>,
    /// Pipes for bulk that is passed on as it is.
    pub pipes: Rc<Pipes>,
    /// Its table of deadlines.
    pub deadlines: Rc<Deadlines>,
    /// How many there are, and how many are to go.
    pub crowd: Rc<Crowd>,
    /// From then on a request may be sampled.
    sample_due: Rc<Cell<Millis>>,
    /// Its share of the metrics.
    pub metrics: Rc<Shard>,
    /// Its end of the access log.
    pub access: Rc<AccessLog>,
    services: Box<[Rc<ServiceState>]>,
    splits: Splits,
    mirrors: Mirrors,
    pool: Rc<RefCell<Pool>>,
    streams: Rc<Streams>,
    random: Rc<RefCell<fastrand::Rng>>,
}

#[derive(Debug)]
struct ServiceState {
    /// Whose backends it schedules, and how.
    snapshot: Arc<Published<Snapshot>>,
    terms: Terms,
    picker: RefCell<Picker>,
    budget: RefCell<Budget>,
    /// That a backend is not understood, or TLS to it fails, is said now and then.
    misunderstanding: Seldom,
}

impl Worker {
    /// A worker with schedules of its own.
    pub fn new(
        index: usize,
        shared: Arc<Shared>,
        metrics: Rc<Shard>,
        access: AccessLog,
    ) -> Rc<Worker> {
        let deadlines = Deadlines::new();
        let mut random = fastrand::Rng::new();
        let services = services(&shared, &[], &mut random, deadlines.now());
        let splits = Splits::new(&shared.config, &Splits::default(), &mut random);
        let mirrors = Mirrors::new(&shared.config, &Mirrors::default());
        let worker = Rc::new(Worker {
            index,
            superseded: Cell::new(false),
            newest: Rc::default(),
            services,
            splits,
            mirrors,
            buffers: BufferPool::new(),
            pipes: Rc::default(),
            deadlines,
            crowd: Rc::default(),
            sample_due: Rc::default(),
            pool: Rc::new(RefCell::new(Pool::new(
                idle_connections(&shared),
                metrics.idle_connections(),
            ))),
            metrics,
            access: Rc::new(access),
            streams: Rc::default(),
            random: Rc::new(RefCell::new(random)),
            shared,
        });
        worker.newest.replace(Rc::downgrade(&worker));
        worker
    }

    /// The same worker under another generation. Services that have the same backends and are
    /// scheduled in the same way keep their schedules and retry budgets. It becomes the newest only
    /// by [`Worker::supersede`].
    pub fn renewed(&self, shared: Arc<Shared>) -> Rc<Worker> {
        let now = self.deadlines.now();
        let mut random = self.random.borrow_mut();
        let services = services(&shared, &self.services, &mut random, now);
        let splits = Splits::new(&shared.config, &self.splits, &mut random);
        let mirrors = Mirrors::new(&shared.config, &self.mirrors);
        Rc::new(Worker {
            index: self.index,
            superseded: Cell::new(true),
            newest: Rc::clone(&self.newest),
            services,
            splits,
            mirrors,
            buffers: Rc::clone(&self.buffers),
            pipes: Rc::clone(&self.pipes),
            deadlines: Rc::clone(&self.deadlines),
            crowd: Rc::clone(&self.crowd),
            sample_due: Rc::clone(&self.sample_due),
            metrics: self.metrics.renamed(&shared.names),
            access: Rc::clone(&self.access),
            pool: Rc::clone(&self.pool),
            streams: Rc::clone(&self.streams),
            random: Rc::clone(&self.random),
            shared,
        })
    }

    /// `newer` is the newest from now on: connections go on to it between two requests, the idle ones
    /// when they are next looked at.
    pub fn supersede(&self, newer: &Rc<Worker>) {
        self.newest.replace(Rc::downgrade(newer));
        newer.superseded.set(false);
        self.superseded.set(true);
        self.deadlines.wake_all();
    }

    /// The newest generation, if this is not it.
    pub fn newest(&self) -> Option<Rc<Worker>> {
        match self.superseded.get() {
            true => self.newest.borrow().upgrade(),
            false => None,
        }
    }

    /// Is there a newer generation?
    pub fn is_superseded(&self) -> bool {
        self.superseded.get()
    }

    /// Has the newest generation no such listener any more? `listener`: its index in this one.
    pub fn has_closed(&self, listener: usize) -> bool {
        self.superseded.get()
            && self.newest().is_none_or(|newest| {
                let id = self.shared.listeners[listener].id;
                newest.shared.listener(id).is_none()
            })
    }

    /// The configuration of a service.
    pub fn service(&self, service: usize) -> &Service {
        &self.shared.config.services[service]
    }

    /// The service for the next request, or connection, that has this route (index into
    /// [`Config::routes`](crate::config::Config::routes)); `None`: it leads elsewhere.
    pub fn service_for(&self, route: usize) -> Option<usize> {
        match &self.shared.config.routes[route].target {
            Target::Service(index) => Some(*index),
            Target::Split(shares) => {
                let place = self.splits.pick(route)?;
                Some(shares[place].service)
            }
            Target::Redirect(_) => None,
        }
    }

    /// The shares of routes that mirror.
    pub(super) fn mirrors(&self) -> &Mirrors {
        &self.mirrors
    }

    /// The backend for the next request to a service.
    pub fn pick(&self, service: usize, wish: Wish<'_>) -> Result<Pick, NoBackend> {
        self.services[service].picker.borrow_mut().pick(wish)
    }

    /// Answers a question of the control thread, if there is one. To be called at every tick of the
    /// deadlines. O(backends) if there is one.
    pub fn answer(&self) {
        let Some(question) = self.shared.questions.take(self.index) else {
            return;
        };
        // Of another generation it knows nothing: whoever asks is told so as it is dropped.
        if question.generation == self.shared.generation {
            let forecast = self.services[question.service].picker.borrow().forecast();
            question.answer(forecast);
        }
    }

    /// Is the request that ends now to be sampled? One a second is.
    pub fn samples(&self) -> bool {
        let now = self.deadlines.now();
        let due = now >= self.sample_due.get();
        if due {
            self.sample_due.set(now.after(samples::EVERY));
        }
        due
    }

    /// Where requests to a service wait, if what its backends have in flight is bounded.
    pub fn gate(&self, service: usize) -> Option<&Arc<Gate>> {
        self.shared.services[service].gate.as_ref()
    }

    /// The cookie of a service, if it has one.
    pub fn affinity(&self, service: usize) -> Option<&Affinity> {
        self.shared.services[service].affinity.as_deref()
    }

    /// Is there a backend besides those tried, and can a retry be paid for?
    pub fn may_try_another(&self, service: usize, tried: &[BackendId]) -> bool {
        let (now, index) = (self.deadlines.now(), service);
        let service = &self.services[index];
        if !service.picker.borrow_mut().has_other(now, tried) {
            return false;
        }
        let affords = service.budget.borrow_mut().affords(now);
        if !affords {
            self.metrics.retry_denied(index);
        }
        affords
    }

    /// A request was begun: the retry budget of its service grows.
    pub fn earn_retry(&self, service: usize) {
        self.services[service].budget.borrow_mut().earn();
    }

    /// Takes a retry out of the budget of a service, if it is there.
    pub fn spend_retry(&self, service: usize) -> bool {
        let now = self.deadlines.now();
        let granted = self.services[service].budget.borrow_mut().spend(now);
        if !granted {
            self.metrics.retry_denied(service);
        }
        granted
    }

    /// The idle connections.
    pub fn pool(&self) -> &RefCell<Pool> {
        &self.pool
    }

    /// The connections whose backends speak HTTP/2.
    pub fn streams(&self) -> &Rc<Streams> {
        &self.streams
    }

    /// Drops idle connections to backends, where descriptors have run out. False: there was none.
    pub fn make_room(&self) -> bool {
        self.pool.borrow_mut().shed() || self.streams.shed()
    }

    /// 32 random hexadecimal digits.
    pub fn request_id(&self) -> [u8; 32] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut random = self.random.borrow_mut();
        let bits = (u128::from(random.u64(..)) << 64) | u128::from(random.u64(..));
        std::array::from_fn(|i| DIGITS[(bits >> (4 * i)) as usize & 15])
    }

    /// Most idle connections this worker keeps to one backend.
    pub fn idle_limit(&self, service: usize) -> usize {
        let workers = self.shared.config.workers.get();
        self.service(service).upstream.max_idle.div_ceil(workers)
    }

    /// What is to be done at every tick, besides the deadlines. `runners`: so many were dropped
    /// now because nobody needs them.
    pub fn tick(&self, runners: usize) {
        let now = self.deadlines.now();
        self.pool.borrow_mut().sweep(now);
        self.streams.sweep(now);
        let buffers = self.buffers.trim();
        self.pipes.trim();
        self.note_burst(runners, buffers);
    }
}

/// What the schedule and the budget of a service are made by.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Terms {
    balancing: Balancing,
    retry_budget_percent: u8,
    retry_budget_per_second: u32,
}

impl Terms {
    fn of(service: &Service) -> Terms {
        Terms {
            balancing: service.balancing,
            retry_budget_percent: service.upstream.retry_budget_percent,
            retry_budget_per_second: service.upstream.retry_budget_per_second,
        }
    }
}

/// A worker's state of all services of a generation: as it was, where nothing of it differs.
fn services(
    shared: &Shared,
    before: &[Rc<ServiceState>],
    random: &mut fastrand::Rng,
    now: Millis,
) -> Box<[Rc<ServiceState>]> {
    let workers = u32::try_from(shared.config.workers.get()).unwrap_or(u32::MAX);
    let known: HashMap<_, _> = before
        .iter()
        .map(|state| (Arc::as_ptr(&state.snapshot), state))
        .collect();
    let services = shared.config.services.iter().zip(&shared.services);
    let services = services.map(|(service, serviced)| {
        let terms = Terms::of(service);
        let known = known.get(&Arc::as_ptr(&serviced.snapshot));
        if let Some(known) = known.filter(|known| known.terms == terms) {
            return Rc::clone(known);
        }
        let phase = random.u64(..);
        Rc::new(ServiceState {
            picker: RefCell::new(Picker::new(
                serviced.snapshot.reader(),
                &terms.balancing,
                phase,
            )),
            budget: RefCell::new(Budget::new(
                terms.retry_budget_percent,
                terms.retry_budget_per_second,
                workers,
                now,
            )),
            misunderstanding: Seldom::default(),
            snapshot: Arc::clone(&serviced.snapshot),
            terms,
        })
    });
    services.collect()
}

/// Idle connections that a worker keeps, to all backends together: a quarter of the descriptors are
/// for those of all workers.
pub fn idle_connections(shared: &Shared) -> usize {
    let workers = shared.config.workers.get();
    let most = shared
        .limits
        .descriptors
        .limit()
        .map_or(usize::MAX, |limit| {
            usize::try_from(limit / 4).unwrap_or(usize::MAX)
        });
    (most / workers).max(1)
}

/// Time between two runs of [`Worker::tick`].
pub const HOUSEKEEPING: Duration = Duration::from_secs(1);

mod crowd;
mod evidence;
#[cfg(test)]
pub(crate) mod fixture;
mod shared;
#[cfg(test)]
mod tests;

pub use crowd::{Crowd, OpenConnection};
pub use evidence::{Evidence, labels};
pub use shared::{Listened, Serviced, Shared};
