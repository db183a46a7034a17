//! What one worker counts. Cost of a finished request: about ten relaxed loads and stores and one
//! look into a hash table; nothing is allocated once a combination was seen.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use super::compressed::{CODINGS, Compressed, Compressing};
use super::connections::{Connections, Level, OpenConnection, OpenCopy, ToBackend};
use super::histogram::{Counter, Histogram};
use super::{BackendLabels, Names};
use crate::clock::Millis;
use crate::id_map::IdMap;

/// The counters of one worker, as one generation of the configuration names them: the only hand that
/// writes them, which is why it cannot be shared between threads or cloned.
#[derive(Debug)]
pub struct Shard {
    counters: Arc<Counters>,
    names: Arc<Names>,
    /// Of each service, in the order of `names`.
    services: Box<[Arc<ServiceCounters>]>,
    /// Of each listener.
    listeners: Box<[Arc<Connections>]>,
    /// The worker's own way to the backends' counters, without the lock of the shared list. All its
    /// generations have the same.
    backends: Rc<RefCell<Local>>,
}

#[derive(Debug, Default)]
struct Local {
    by_id: IdMap<u64, Arc<BackendCounters>>,
    /// Retired ones are swept out when there are that many: amortised, a sweep is free.
    sweep_at: usize,
}

/// How a TLS handshake with a client ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Handshake {
    /// Done, with a full key exchange and a certificate.
    Full,
    /// Done, by a ticket.
    Resumed,
    /// The peers could not agree, or the client closed or sent something else.
    Failed,
    /// The deadline passed.
    TimedOut,
}

impl Shard {
    pub(super) fn new(counters: Arc<Counters>, names: &Arc<Names>) -> Rc<Shard> {
        Shard::on(counters, names, Rc::default())
    }

    fn on(counters: Arc<Counters>, names: &Arc<Names>, backends: Rc<RefCell<Local>>) -> Rc<Shard> {
        Rc::new(Shard {
            services: counters.services(&names.services),
            listeners: counters.listeners(&names.listeners),
            names: Arc::clone(names),
            counters,
            backends,
        })
    }

    /// The same counters for another generation, which has these services and listeners. What has a
    /// name that was there before is counted on.
    pub fn renamed(&self, names: &Arc<Names>) -> Rc<Shard> {
        let counters = Arc::clone(&self.counters);
        Shard::on(counters, names, Rc::clone(&self.backends))
    }

    fn service(&self, index: Option<usize>) -> &ServiceCounters {
        let named = index.and_then(|index| self.services.get(index));
        named.map_or(&self.counters.unrouted, |counters| counters)
    }

    fn name(&self, service: usize) -> Arc<str> {
        Arc::clone(&self.names.services[service])
    }

    /// A request was answered, or given up with status 0 because its client had gone. `service`:
    /// its index; `None`: it was answered before a route was found. `method`: the name of a
    /// registered method; whatever is not one of those of RFC 9110 §9.3 and PATCH is `OTHER`.
    pub fn request(
        &self,
        service: Option<usize>,
        method: &'static str,
        status: u16,
        duration: Duration,
    ) {
        let service = self.service(service);
        let status = usize::from(status).min(999);
        let page = service.requests[method_index(method) * CLASSES + status / 100]
            .get_or_init(Default::default);
        page.0[status % 100].add(1);
        service.duration.record(duration);
    }

    /// Bytes of bodies that were taken from a client and sent to it.
    pub fn bytes(&self, service: Option<usize>, received: u64, sent: u64) {
        let service = self.service(service);
        service.received.add(received);
        service.sent.add(sent);
    }

    /// An attempt was made with a backend; `first_byte`: from the start of the attempt, if one
    /// came. `labels` is called only for a backend that this worker has not seen before.
    pub fn attempt(
        &self,
        backend: u64,
        first_byte: Option<Duration>,
        labels: impl FnOnce() -> BackendLabels,
    ) {
        self.with_backend(backend, labels, |counters| {
            counters.requests.add(1);
            if let Some(duration) = first_byte {
                counters.first_byte.record(duration);
            }
        });
    }

    /// A connect to a backend failed. `labels` as in [`Shard::attempt`].
    pub fn connect_failed(&self, backend: u64, labels: impl FnOnce() -> BackendLabels) {
        self.with_backend(backend, labels, |counters| counters.failed_connects.add(1));
    }

    /// An attempt failed on the backend's side.
    pub fn upstream_error(&self, service: usize, reason: &'static str) {
        let service = self.name(service);
        self.counters.count(Rare::UpstreamError { service, reason });
    }

    /// A request failed for its client, and not by the client's doing: no backend answered it, or one
    /// broke off.
    pub fn request_failed(&self, service: usize, reason: &'static str) {
        let service = self.name(service);
        self.counters.count(Rare::FailedRequest { service, reason });
    }

    /// A request failed on the client's side: it closed, was too slow, or sent nonsense.
    pub fn downstream_error(&self, reason: &'static str) {
        self.counters.count(Rare::DownstreamError { reason });
    }

    /// A call by gRPC is over; `status`: the name of its status.
    pub fn grpc_call(&self, service: usize, status: &'static str) {
        let service = self.name(service);
        self.counters.count(Rare::GrpcCall { service, status });
    }

    /// A connection that was passed on as it is has ended. `outcome`: `complete`, or what failed.
    pub fn stream(&self, service: Option<usize>, outcome: &'static str) {
        let service = service.map(|index| self.name(index));
        self.counters.count(Rare::Stream { service, outcome });
    }

    /// A client's connection was not taken in.
    pub fn refused(&self, reason: &'static str) {
        self.counters.count(Rare::Refused { reason });
    }

    /// An idle connection of a client was closed for want of memory.
    pub fn shed(&self) {
        self.counters.count(Rare::Shed);
    }

    /// A request goes to a backend for another time.
    pub fn retry(&self, service: usize) {
        let service = self.name(service);
        self.counters.count(Rare::Retry { service });
    }

    /// A request would go to a backend for another time, if the budget allowed it.
    pub fn retry_denied(&self, service: usize) {
        let service = self.name(service);
        self.counters.count(Rare::RetryDenied { service });
    }

    /// A request was to be copied to that service: what became of the copy.
    pub fn mirrored(&self, service: usize, outcome: &'static str) {
        let service = self.name(service);
        self.counters.count(Rare::Mirrored { service, outcome });
    }

    /// A handshake with a client ended. `version`: `1.2` or `1.3`; `None`: it did not get so far.
    pub fn handshake(&self, version: Option<&'static str>, ended: Handshake) {
        self.counters.count(Rare::Handshake { version, ended });
    }

    /// Counts a client's connection to a listener as open until what is returned is dropped.
    pub fn client_connection(&self, listener: usize) -> OpenConnection {
        OpenConnection::of_client(Arc::clone(&self.listeners[listener]))
    }

    /// Counts a connection to a backend of a service likewise. `labels` as in [`Shard::attempt`].
    pub fn backend_connection(
        &self,
        service: usize,
        backend: u64,
        labels: impl FnOnce() -> BackendLabels,
    ) -> OpenConnection {
        let service = Arc::clone(&self.services[service]);
        self.with_backend(backend, labels, |backend| {
            OpenConnection::of_backend(service, Arc::clone(backend))
        })
    }

    /// Counts a copy of a request to a service as under way until what is returned is dropped.
    pub fn copy(&self, service: usize) -> OpenCopy {
        OpenCopy::of(Arc::clone(&self.services[service]))
    }

    /// The level of idle connections that this worker keeps.
    pub fn idle_connections(&self) -> Arc<Level> {
        Arc::clone(&self.counters.idle_connections)
    }

    /// A response of a service goes out in that coding: counts its bytes. `None`: there is no such.
    pub fn compressing(&self, service: usize, coding: &str) -> Option<Compressing> {
        Compressing::of(Arc::clone(&self.services[service]), coding)
    }

    /// Size of the worker's own table, for tests.
    #[cfg(test)]
    pub(super) fn known_backends(&self) -> usize {
        self.backends.borrow().by_id.len()
    }

    fn with_backend<T>(
        &self,
        id: u64,
        labels: impl FnOnce() -> BackendLabels,
        write: impl FnOnce(&Arc<BackendCounters>) -> T,
    ) -> T {
        let mut local = self.backends.borrow_mut();
        if let Some(known) = local.by_id.get(&id)
            && !known.retired.load(Ordering::Relaxed)
        {
            return write(known);
        }
        let counters = Arc::new(BackendCounters::new(id, labels()));
        let written = write(&counters);
        self.counters.backends().push(Listed {
            counters: Arc::clone(&counters),
            gone_since: None,
        });
        local.insert(id, counters);
        written
    }
}

impl Local {
    fn insert(&mut self, id: u64, counters: Arc<BackendCounters>) {
        if self.by_id.len() >= self.sweep_at {
            self.by_id
                .retain(|_, known| !known.retired.load(Ordering::Relaxed));
            self.sweep_at = 2 * self.by_id.len() + 16;
        }
        self.by_id.insert(id, counters);
    }
}

/// What a shard shares with the scraper.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// By name. Locked by the worker when a generation begins, and by the scraper.
    services: Mutex<BTreeMap<Arc<str>, Arc<ServiceCounters>>>,
    /// Of requests without a service.
    pub(super) unrouted: ServiceCounters,
    /// By name; locked likewise.
    listeners: Mutex<BTreeMap<Arc<str>, Arc<Connections>>>,
    /// Locked by the worker when it meets a backend for the first time, and by the scraper.
    backends: Mutex<Vec<Listed>>,
    pub(super) idle_connections: Arc<Level>,
    /// Errors, retries, handshakes: what happens seldom, or costs a thousand times the lock.
    rare: Mutex<BTreeMap<Rare, u64>>,
}

#[derive(Debug)]
pub(super) struct ServiceCounters {
    /// By method and by hundred of the status code; pages that nobody needs are never made.
    requests: [OnceLock<Box<StatusPage>>; METHODS.len() * CLASSES],
    pub(super) duration: Histogram,
    pub(super) received: Counter,
    pub(super) sent: Counter,
    /// To its backends.
    pub(super) connections: Connections,
    /// Of requests, to it.
    pub(super) copies: Level,
    /// In the order of [`CODINGS`].
    pub(super) compressed: [Compressed; CODINGS.len()],
}

/// A hundred status codes.
#[derive(Debug)]
struct StatusPage([Counter; 100]);

#[derive(Debug)]
pub(super) struct BackendCounters {
    pub(super) id: u64,
    pub(super) labels: BackendLabels,
    pub(super) requests: Counter,
    pub(super) failed_connects: Counter,
    pub(super) first_byte: Histogram,
    pub(super) connections: ToBackend,
    /// Set once by the scraper, which has then forgotten this. Relaxed: a worker that sees it
    /// late counts a request into the void.
    pub(super) retired: AtomicBool,
}

/// A backend in the list that the worker shares with the scraper.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) counters: Arc<BackendCounters>,
    /// Since when the scraper has not been told of it any more.
    pub(super) gone_since: Option<Millis>,
}

/// What is counted behind a lock.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rare {
    GrpcCall {
        service: Arc<str>,
        status: &'static str,
    },
    UpstreamError {
        service: Arc<str>,
        reason: &'static str,
    },
    FailedRequest {
        service: Arc<str>,
        reason: &'static str,
    },
    DownstreamError {
        reason: &'static str,
    },
    Stream {
        service: Option<Arc<str>>,
        outcome: &'static str,
    },
    Refused {
        reason: &'static str,
    },
    Shed,
    Retry {
        service: Arc<str>,
    },
    RetryDenied {
        service: Arc<str>,
    },
    Mirrored {
        service: Arc<str>,
        outcome: &'static str,
    },
    Handshake {
        version: Option<&'static str>,
        ended: Handshake,
    },
}

/// The methods that have a label of their own; the last one stands for all others.
pub(super) const METHODS: [&str; 10] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "OTHER",
];
/// Status codes by hundreds, 0xx to 9xx.
const CLASSES: usize = 10;

impl Counters {
    /// The counters of the services with these names, in that order.
    fn services(&self, names: &[Arc<str>]) -> Box<[Arc<ServiceCounters>]> {
        let mut services = self.by_service();
        let counters = |name| Arc::clone(services.entry(Arc::clone(name)).or_default());
        names.iter().map(counters).collect()
    }

    /// Those of listeners.
    fn listeners(&self, names: &[Arc<str>]) -> Box<[Arc<Connections>]> {
        let mut listeners = self.by_listener();
        let counters = |name| Arc::clone(listeners.entry(Arc::clone(name)).or_default());
        names.iter().map(counters).collect()
    }

    pub(super) fn by_service(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Arc<ServiceCounters>>> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn by_listener(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Arc<Connections>>> {
        let listeners = self.listeners.lock();
        listeners.unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops what belongs to a service that no generation has any more.
    pub(super) fn forget_service(&self, name: &str) {
        self.by_service().remove(name);
        self.rare().retain(|what, _| what.service() != Some(name));
    }

    pub(super) fn backends(&self) -> MutexGuard<'_, Vec<Listed>> {
        self.backends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn rare(&self) -> MutexGuard<'_, BTreeMap<Rare, u64>> {
        self.rare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, what: Rare) {
        *self.rare().entry(what).or_default() += 1;
    }
}

impl Rare {
    fn service(&self) -> Option<&str> {
        match self {
            Rare::GrpcCall { service, .. }
            | Rare::UpstreamError { service, .. }
            | Rare::FailedRequest { service, .. }
            | Rare::Mirrored { service, .. }
            | Rare::Retry { service }
            | Rare::RetryDenied { service } => Some(service),
            Rare::Stream { service, .. } => service.as_deref(),
            Rare::DownstreamError { .. }
            | Rare::Refused { .. }
            | Rare::Shed
            | Rare::Handshake { .. } => None,
        }
    }
}

impl ServiceCounters {
    /// Every combination that was counted: method, status, count.
    pub(super) fn requests(&self) -> impl Iterator<Item = (&'static str, usize, u64)> {
        let pages = self.requests.iter().enumerate();
        pages
            .filter_map(|(index, page)| Some((index, page.get()?)))
            .flat_map(|(index, page)| {
                let method = METHODS[index / CLASSES];
                let hundred = index % CLASSES * 100;
                let counts = page.0.iter().enumerate();
                counts.map(move |(n, count)| (method, hundred + n, count.value()))
            })
            .filter(|&(_, _, count)| count > 0)
    }
}

impl Default for ServiceCounters {
    fn default() -> Self {
        ServiceCounters {
            requests: [const { OnceLock::new() }; METHODS.len() * CLASSES],
            duration: Histogram::default(),
            received: Counter::default(),
            sent: Counter::default(),
            connections: Connections::default(),
            copies: Level::default(),
            compressed: Default::default(),
        }
    }
}

impl Default for StatusPage {
    fn default() -> Self {
        StatusPage(std::array::from_fn(|_| Counter::default()))
    }
}

impl BackendCounters {
    fn new(id: u64, labels: BackendLabels) -> BackendCounters {
        BackendCounters {
            id,
            labels,
            requests: Counter::default(),
            failed_connects: Counter::default(),
            first_byte: Histogram::default(),
            connections: ToBackend::default(),
            retired: AtomicBool::new(false),
        }
    }
}

fn method_index(method: &str) -> usize {
    let known = METHODS.iter().position(|&name| name == method);
    known.unwrap_or(METHODS.len() - 1)
}
