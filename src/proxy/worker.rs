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
use std::net::IpAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::drain::Drain;
use super::failure::{self, Failure};
use super::limits::{Admitted, Limits, Refused};
use super::questions::Questions;
use super::retry::Budget;
use super::samples::{self, Samples};
use super::seating::{Seat, Seating};
use super::splits::Splits;
use crate::balance::affinity::Affinity;
use crate::balance::picker::{NoBackend, Pick, Picker};
use crate::balance::snapshot::Snapshot;
use crate::balance::wish::Wish;
use crate::clock::Millis;
use crate::config::{Balancing, Config, Service, Target, UpstreamProtocol};
use crate::events::{Event, ListenerId, ServiceId};
use crate::io::buffer::BufferPool;
use crate::io::deadline::Deadlines;
use crate::io::duplex::Duplex;
use crate::io::pipes::Pipes;
use crate::published::Published;
use crate::router::Router;
use crate::telemetry::access::AccessLog;
use crate::telemetry::metrics::{self, BackendLabels, Names, Shard, Side};
use crate::telemetry::seldom::Seldom;
use crate::tls::challenges::Challenges;
use crate::tls::server::FrontEnd;
use crate::upstream::backend::{Backend, BackendId};
use crate::upstream::connect::is_exhaustion;
use crate::upstream::establish::{InWords, Layering, Unestablished};
use crate::upstream::gate::Gate;
use crate::upstream::pool::Pool;
use crate::upstream::streams::Streams;

/// One generation of the configuration, and what the workers need under it.
#[derive(Debug, Clone)]
pub struct Shared {
    /// Which one: counts up from 1.
    pub generation: u64,
    /// The configuration.
    pub config: Arc<Config>,
    /// Its routes.
    pub router: Arc<Router>,
    /// What its services and listeners are counted under.
    pub names: Arc<Names>,
    /// Its services, in the order of the configuration.
    pub services: Vec<Serviced>,
    /// Its listeners, in the order of the configuration.
    pub listeners: Vec<Listened>,
    /// How far a drain has come.
    pub drain: Arc<Drain>,
    /// Where noticed things go.
    pub events: mpsc::Sender<Event>,
    /// What the workers together may take on.
    pub limits: Arc<Limits>,
    /// How many client connections each worker has.
    pub seating: Arc<Seating>,
    /// What the control thread asks.
    pub questions: Arc<Questions>,
    /// Requests that people may look at.
    pub samples: Arc<Samples>,
    /// What authorities are answered that validate a name.
    pub challenges: Arc<Published<Challenges>>,
}

/// What workers need of a service.
#[derive(Debug, Clone)]
pub struct Serviced {
    /// The same in all generations that share its backends.
    pub id: ServiceId,
    /// Its backends.
    pub snapshot: Arc<Published<Snapshot>>,
    /// Where requests wait; `None`: nothing bounds what its backends have.
    pub gate: Option<Arc<Gate>>,
    /// Its cookie; `None`: it has none.
    pub affinity: Option<Arc<Affinity>>,
    /// What lies between TCP and HTTP on connections to its backends.
    pub layering: Layering,
}

/// What workers need of a listener.
#[derive(Debug, Clone)]
pub struct Listened {
    /// The same in all generations in which it promises the same.
    pub id: ListenerId,
    /// Where it listens. Of the newest generation only: an old one, which a tunnel may hold for hours,
    /// keeps no port.
    pub socket: std::sync::Weak<std::net::TcpListener>,
    /// Its TLS; `None`: it ends none.
    pub tls: Option<FrontEnd>,
}

impl Shared {
    /// Where in this generation a listener is, if it is there.
    pub fn listener(&self, id: ListenerId) -> Option<usize> {
        self.listeners.iter().position(|listener| listener.id == id)
    }

    /// Does any of its listeners accept from this socket?
    pub fn listens_on(&self, socket: &std::sync::Weak<std::net::TcpListener>) -> bool {
        let mut listeners = self.listeners.iter();
        listeners.any(|listener| listener.socket.ptr_eq(socket))
    }
}

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
    pool: Rc<RefCell<Pool>>,
    streams: Rc<Streams>,
    random: Rc<RefCell<fastrand::Rng>>,
}

/// The client connections of a worker.
#[derive(Debug, Default)]
pub struct Crowd {
    /// Open ones.
    pub connections: Cell<usize>,
    /// The most there were since they last became noticeably fewer.
    most: Cell<usize>,
    /// The control thread has to be told that a burst is over.
    burst_over: Cell<bool>,
    /// So many idle ones are to be closed for want of memory.
    to_shed: Cell<usize>,
    /// In this round.
    shed_in: Cell<u32>,
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
        let worker = Rc::new(Worker {
            index,
            superseded: Cell::new(false),
            newest: Rc::default(),
            services,
            splits,
            buffers: BufferPool::new(),
            pipes: Rc::default(),
            deadlines,
            crowd: Rc::default(),
            sample_due: Rc::default(),
            metrics,
            access: Rc::new(access),
            pool: Rc::new(RefCell::new(Pool::new(idle_connections(&shared)))),
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
        Rc::new(Worker {
            index: self.index,
            superseded: Cell::new(true),
            newest: Rc::clone(&self.newest),
            services,
            splits,
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
    /// [`Config::routes`]); `None`: it leads elsewhere.
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

    /// A connect to a backend failed: passed over from now on, and the control thread is told.
    /// That we have no descriptors or ports left is not the backend's fault. Returns what it
    /// tells of the backend: many that fail at one moment are one failure.
    pub fn connect_failed(
        &self,
        service: usize,
        backend: &Backend,
        error: &Unestablished,
    ) -> Evidence {
        if is_exhaustion(error.error()) {
            self.shared.limits.descriptors.failing(error.error());
            return Evidence::None;
        }
        if matches!(error, Unestablished::Tls(_) | Unestablished::Greeting(_)) {
            self.misunderstood(service, backend, error);
        }
        // The table's time may be a tick old: what is passed over is so for a second at least.
        let counted = backend.connect_failed(Millis::now());
        self.metrics
            .connect_failed(backend.id.0, || labels(backend));
        let event = Event::ConnectFailed {
            service: self.shared.services[service].id,
            backend: backend.endpoint.socket(),
        };
        // A full queue means that the control thread has plenty of such news already.
        let _ = self.shared.events.try_send(event);
        match counted {
            true => Evidence::Failure,
            false => Evidence::None,
        }
    }

    /// TLS to a backend came to nothing, or it speaks another protocol. Said aloud now and then: that
    /// stays so until somebody hears of it.
    fn misunderstood(&self, service: usize, backend: &Backend, why: &dyn std::fmt::Display) {
        if self.services[service]
            .misunderstanding
            .is_due(Millis::now())
        {
            tracing::warn!(
                service = %backend.service,
                backend = %backend.endpoint.socket(),
                name = backend.layers.tls.as_ref().map(|tls| &**tls.name()),
                "{why}",
            );
        }
    }

    /// A backend answered what cannot be understood: it may speak another protocol than is thought.
    pub fn speaks_otherwise(&self, service: usize, backend: &Backend, failure: &Failure) {
        let spoken = match self.service(service).upstream.protocol {
            UpstreamProtocol::Http => "HTTP/1.1",
            UpstreamProtocol::Https => "HTTP/1.1 over TLS",
            UpstreamProtocol::H2c => "HTTP/2",
            UpstreamProtocol::H2 => "HTTP/2 over TLS",
        };
        let why = format_args!("{failure}: is it {spoken} that it speaks (`upstream`)?");
        self.misunderstood(service, backend, &why);
    }

    /// An attempt over this connection failed. A backend that wants another certificate than ours
    /// says so only when TLS 1.3 has begun to carry the request.
    pub fn look_at_tls(&self, service: usize, backend: &Backend, connection: &Duplex) {
        connection.with_transport(|transport| {
            if let Some(error) = transport.tls().and_then(|tls| tls.failure()) {
                self.misunderstood(service, backend, &InWords(error));
            }
        });
    }

    /// What has become of an attempt, as far as it tells of the backend. `trial`: the backend was
    /// ejected, and this attempt was to find out whether it is back.
    pub fn judge(&self, service: usize, backend: &Backend, trial: bool, verdict: Evidence) {
        let failures = match verdict {
            Evidence::Success => {
                backend.succeeded();
                0
            }
            Evidence::Failure => backend.failed(),
            Evidence::None if trial => return backend.trial_abandoned(self.deadlines.now()),
            Evidence::None => return,
        };
        let threshold = self.service(service).ejection.failures;
        let (id, service) = (backend.id.0, self.shared.services[service].id);
        let event = match trial {
            true => Event::Trial {
                service,
                backend: id,
                passed: verdict == Evidence::Success,
            },
            // Again and again: the control thread may have had a reason to leave it in.
            false if failures > 0 && threshold > 0 && failures % threshold == 0 => Event::Failing {
                service,
                backend: id,
            },
            false => return,
        };
        // A full queue: a trial is made again after its time, a failing backend fails again.
        let _ = self.shared.events.try_send(event);
    }

    /// The trial of a backend has passed, although its response goes on.
    pub fn trial_passed(&self, service: usize, backend: &Backend) {
        let event = Event::Trial {
            service: self.shared.services[service].id,
            backend: backend.id.0,
            passed: true,
        };
        // A full queue: the trial is made again after its time.
        let _ = self.shared.events.try_send(event);
    }

    /// The same as [`Worker::judge`] for schedules that go by load: what failed burdens its backend,
    /// and so does an answer of 500 to 599, whatever the ejection rules say, or whoever fails fast
    /// would be thought idle. `first_byte`: how long it took to come, where that was the backend's
    /// time.
    pub fn weigh(
        &self,
        service: usize,
        backend: &Backend,
        verdict: Evidence,
        status: u16,
        first_byte: Option<Duration>,
    ) {
        if !self.service(service).balancing.strategy.minds_load() {
            return;
        }
        let now = self.deadlines.now();
        match (verdict, first_byte) {
            (Evidence::None, _) => {}
            (Evidence::Success, Some(latency)) if status < 500 => {
                backend.load.succeeded(now, latency);
            }
            (Evidence::Success, None) if status < 500 => {}
            (_, took) => backend.load.failed(now, took.unwrap_or_default()),
        }
    }

    /// An attempt with a backend is over; the first byte of its response came after so long.
    pub fn attempted(&self, backend: &Backend, first_byte: Option<Duration>) {
        self.metrics
            .attempt(backend.id.0, first_byte, || labels(backend));
    }

    /// An attempt failed: counts it, and says so once, if it was the backend's doing.
    pub fn upstream_failed(&self, service: usize, backend: &Backend, failure: &Failure) {
        let meaning = failure.meaning();
        if meaning.side != failure::Side::Upstream {
            return;
        }
        self.metrics.upstream_error(service, meaning.reason);
        tracing::debug!(
            service = %backend.service,
            backend = %backend.endpoint.socket(),
            reason = meaning.reason,
            progress = ?failure.progress,
            error = %failure,
            "attempt failed",
        );
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
        let emptied = self.has_emptied();
        if emptied || runners >= BURST || buffers >= BURST_BUFFERS {
            self.crowd.burst_over.set(true);
        }
        // A full queue is tried again at the next tick.
        if self.crowd.burst_over.get() && self.shared.events.try_send(Event::BurstOver).is_ok() {
            self.crowd.burst_over.set(false);
        }
    }

    /// Where memory runs short, a share of the connections is to be closed now, as far as they are
    /// idle. To be called at every tick of the deadlines. O(connections) once in a round, else O(1).
    pub fn shed(&self) {
        let pressure = &self.shared.limits.pressure;
        let round = pressure.round();
        let share = match self.crowd.shed_in.replace(round) == round {
            // Who was not idle then is not this round's any more.
            true => 0,
            false => pressure.share(self.crowd.connections.get()),
        };
        self.crowd.to_shed.set(share);
        if share > 0 {
            self.deadlines.wake_all();
        }
    }

    /// Is a connection that has been idle for so long to be closed for want of memory? If so, it is
    /// counted. Whoever became idle just now may be about to ask, and is let be.
    pub fn sheds(&self, idle: impl FnOnce() -> Duration) -> bool {
        let left = self.crowd.to_shed.get();
        if left == 0 || idle() < LEAST_IDLE {
            return false;
        }
        self.crowd.to_shed.set(left - 1);
        self.metrics.shed();
        true
    }

    /// Are there noticeably fewer connections than there were? Says so once.
    fn has_emptied(&self) -> bool {
        let (now, most) = (self.crowd.connections.get(), self.crowd.most.get());
        let emptied = most - now >= BURST.max(most / 4);
        if emptied {
            self.crowd.most.set(now);
        }
        emptied
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

/// What an attempt tells of its backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// It serves.
    Success,
    /// It does not.
    Failure,
    /// Nothing: the client's fault, ours, or a kept connection that had to end some time.
    None,
}

/// Idle connections that a worker keeps, to all backends together: a quarter of the descriptors are
/// for those of all workers.
fn idle_connections(shared: &Shared) -> usize {
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

/// What a backend is called in the metrics.
pub fn labels(backend: &Backend) -> BackendLabels {
    BackendLabels {
        service: Arc::clone(&backend.service),
        backend: (*backend.address).into(),
    }
}

/// Counts an open client connection until it is dropped. It belongs to no generation.
#[derive(Debug)]
pub struct OpenConnection {
    crowd: Rc<Crowd>,
    admitted: Admitted,
    _counted: metrics::OpenConnection,
    _seat: Seat,
}

impl OpenConnection {
    /// Counts one more of the client at `address`, unless a limit forbids it. `seat`: at this
    /// worker; `listener`: where it came.
    pub fn open(
        worker: &Worker,
        seat: Seat,
        listener: usize,
        address: IpAddr,
    ) -> Result<OpenConnection, Refused> {
        let admitted = match worker.shared.limits.admit(address) {
            Ok(admitted) => admitted,
            Err(refused) => {
                worker.metrics.refused(refused.reason());
                return Err(refused);
            }
        };
        let crowd = Rc::clone(&worker.crowd);
        let connections = crowd.connections.get() + 1;
        crowd.connections.set(connections);
        crowd.most.set(crowd.most.get().max(connections));
        Ok(OpenConnection {
            crowd,
            admitted,
            _counted: worker.metrics.open(Side::Downstream(listener)),
            _seat: seat,
        })
    }

    /// A trusted proxy has said whose connection this is: counts it as that client's, unless a limit
    /// forbids it.
    pub fn identify(&mut self, worker: &Worker, client: IpAddr) -> Result<(), Refused> {
        let identified = (worker.shared.limits).identify(&mut self.admitted, client);
        identified.inspect_err(|refused| worker.metrics.refused(refused.reason()))
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        let connections = &self.crowd.connections;
        connections.set(connections.get() - 1);
    }
}

/// Runners, or connections, of which it is worth the while to ask the allocator for the memory of
/// those that went: 1 to 2 MiB, of 4 to 8 KiB for each that was measured.
const BURST: usize = 256;

/// The same of large buffers, which have 63 to 79 KiB: 2 MiB.
const BURST_BUFFERS: usize = 32;

/// An idle connection is not closed earlier for want of memory: a client that was connected or
/// answered has sent its next request by then, if it had one.
const LEAST_IDLE: Duration = Duration::from_secs(1);

/// Time between two runs of [`Worker::tick`].
pub const HOUSEKEEPING: Duration = Duration::from_secs(1);

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;
