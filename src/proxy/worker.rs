//! What one worker owns: its schedules, its idle connections, its buffers and deadlines.
//!
//! Everything here lives on one thread; a borrow of a cell never crosses an await.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
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
use crate::balance::affinity::Affinity;
use crate::balance::picker::{NoBackend, Pick, Picker};
use crate::balance::snapshot::Snapshot;
use crate::balance::wish::Wish;
use crate::clock::Millis;
use crate::config::{Config, Service, UpstreamProtocol};
use crate::events::Event;
use crate::io::buffer::BufferPool;
use crate::io::deadline::Deadlines;
use crate::io::duplex::Duplex;
use crate::io::pipes::Pipes;
use crate::published::Published;
use crate::router::Router;
use crate::telemetry::access::AccessLog;
use crate::telemetry::metrics::{self, BackendLabels, Shard, Side};
use crate::telemetry::seldom::Seldom;
use crate::tls::certificates::CertificateSet;
use crate::upstream::backend::{Backend, BackendId};
use crate::upstream::connect::is_exhaustion;
use crate::upstream::establish::{InWords, Unestablished};
use crate::upstream::gate::Gate;
use crate::upstream::pool::Pool;
use crate::upstream::streams::Streams;

/// What a worker is given when it starts.
#[derive(Debug, Clone)]
pub struct Shared {
    /// The configuration.
    pub config: Arc<Config>,
    /// Its routes.
    pub router: Arc<Router>,
    /// The backends of each service, in the order of the configuration.
    pub snapshots: Vec<Arc<Published<Snapshot>>>,
    /// Where requests to each service wait; `None`: nothing bounds what its backends have.
    pub gates: Vec<Option<Arc<Gate>>>,
    /// The cookie of each service; `None`: it has none.
    pub affinities: Vec<Option<Arc<Affinity>>>,
    /// The certificates of each listener; `None`: it has no TLS.
    pub certificates: Vec<Option<Arc<Published<CertificateSet>>>>,
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
}

/// One worker.
#[derive(Debug)]
pub struct Worker {
    /// Its number, from 0.
    pub index: usize,
    /// Shared with the others.
    pub shared: Shared,
    /// Spare buffers.
    pub buffers: Rc<BufferPool>,
    /// Pipes for bulk that is passed on as it is.
    pub pipes: Pipes,
    /// Its table of deadlines.
    pub deadlines: Rc<Deadlines>,
    /// Open client connections of this worker.
    pub connections: Cell<usize>,
    /// The most there were since they last became noticeably fewer.
    most_connections: Cell<usize>,
    /// The control thread has to be told that a burst is over.
    burst_over: Cell<bool>,
    /// So many idle connections are to be closed for want of memory.
    to_shed: Cell<usize>,
    /// In this round.
    shed_in: Cell<u32>,
    /// From then on a request may be sampled.
    sample_due: Cell<Millis>,
    /// Its share of the metrics.
    pub metrics: Rc<Shard>,
    /// Its end of the access log.
    pub access: AccessLog,
    services: Vec<ServiceState>,
    pool: RefCell<Pool>,
    streams: Rc<Streams>,
    random: RefCell<fastrand::Rng>,
}

#[derive(Debug)]
struct ServiceState {
    picker: RefCell<Picker>,
    budget: RefCell<Budget>,
    /// That a backend is not understood, or TLS to it fails, is said now and then.
    misunderstanding: Seldom,
}

impl Worker {
    /// A worker with schedules of its own.
    pub fn new(index: usize, shared: Shared, metrics: Rc<Shard>, access: AccessLog) -> Rc<Worker> {
        let workers = u32::try_from(shared.config.workers.get()).unwrap_or(u32::MAX);
        let mut random = fastrand::Rng::new();
        let deadlines = Deadlines::new();
        let services = shared.config.services.iter().zip(&shared.snapshots);
        let services = services.map(|(service, snapshot)| {
            let upstream = &service.upstream;
            ServiceState {
                picker: RefCell::new(Picker::new(
                    snapshot.reader(),
                    &service.balancing,
                    random.u64(..),
                )),
                budget: RefCell::new(Budget::new(
                    upstream.retry_budget_percent,
                    upstream.retry_budget_per_second,
                    workers,
                    deadlines.now(),
                )),
                misunderstanding: Seldom::default(),
            }
        });
        Rc::new(Worker {
            index,
            services: services.collect(),
            buffers: BufferPool::new(),
            pipes: Pipes::default(),
            deadlines,
            connections: Cell::new(0),
            most_connections: Cell::new(0),
            burst_over: Cell::new(false),
            to_shed: Cell::new(0),
            shed_in: Cell::new(0),
            sample_due: Cell::default(),
            metrics,
            access,
            pool: RefCell::new(Pool::new(idle_connections(&shared))),
            streams: Rc::default(),
            random: RefCell::new(random),
            shared,
        })
    }

    /// The configuration of a service.
    pub fn service(&self, service: usize) -> &Service {
        &self.shared.config.services[service]
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
        // Of another configuration it knows nothing: whoever asks is told so as it is dropped.
        if Arc::ptr_eq(&question.config, &self.shared.config) {
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
        self.shared.gates[service].as_ref()
    }

    /// The cookie of a service, if it has one.
    pub fn affinity(&self, service: usize) -> Option<&Affinity> {
        self.shared.affinities[service].as_deref()
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
            service,
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
        let id = backend.id.0;
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
            service,
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
            self.burst_over.set(true);
        }
        // A full queue is tried again at the next tick.
        if self.burst_over.get() && self.shared.events.try_send(Event::BurstOver).is_ok() {
            self.burst_over.set(false);
        }
    }

    /// Where memory runs short, a share of the connections is to be closed now, as far as they are
    /// idle. To be called at every tick of the deadlines. O(connections) once in a round, else O(1).
    pub fn shed(&self) {
        let pressure = &self.shared.limits.pressure;
        let round = pressure.round();
        let share = match self.shed_in.replace(round) == round {
            // Who was not idle then is not this round's any more.
            true => 0,
            false => pressure.share(self.connections.get()),
        };
        self.to_shed.set(share);
        if share > 0 {
            self.deadlines.wake_all();
        }
    }

    /// Is a connection that has been idle for so long to be closed for want of memory? If so, it is
    /// counted. Whoever became idle just now may be about to ask, and is let be.
    pub fn sheds(&self, idle: impl FnOnce() -> Duration) -> bool {
        let left = self.to_shed.get();
        if left == 0 || idle() < LEAST_IDLE {
            return false;
        }
        self.to_shed.set(left - 1);
        self.metrics.shed();
        true
    }

    /// Are there noticeably fewer connections than there were? Says so once.
    fn has_emptied(&self) -> bool {
        let (now, most) = (self.connections.get(), self.most_connections.get());
        let emptied = most - now >= BURST.max(most / 4);
        if emptied {
            self.most_connections.set(now);
        }
        emptied
    }
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

/// Counts an open client connection until it is dropped.
#[derive(Debug)]
pub struct OpenConnection {
    worker: Rc<Worker>,
    admitted: Admitted,
    _counted: metrics::OpenConnection,
    _seat: Seat,
}

impl OpenConnection {
    /// Counts one more of the client at `address`, unless a limit forbids it. `seat`: at this
    /// worker; `listener`: where it came.
    pub fn open(
        worker: &Rc<Worker>,
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
        let connections = worker.connections.get() + 1;
        worker.connections.set(connections);
        let most = &worker.most_connections;
        most.set(most.get().max(connections));
        Ok(OpenConnection {
            admitted,
            _counted: worker.metrics.open(Side::Downstream(listener)),
            _seat: seat,
            worker: Rc::clone(worker),
        })
    }
}

impl OpenConnection {
    /// A trusted proxy has said whose connection this is: counts it as that client's, unless a limit
    /// forbids it.
    pub fn identify(&mut self, client: IpAddr) -> Result<(), Refused> {
        let identified = (self.worker.shared.limits).identify(&mut self.admitted, client);
        identified.inspect_err(|refused| self.worker.metrics.refused(refused.reason()))
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.worker.shared.limits.leave(&self.admitted);
        let connections = &self.worker.connections;
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
