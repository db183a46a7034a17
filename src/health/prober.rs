//! The checks of all backends, on a thread of their own: thousands of them must not delay a reload,
//! and a reload must not make them late.
//!
//! The control thread says which backends a service has ([`Prober::watch`]); one probe serves all
//! services that share an address, what lies between TCP and HTTP there, and a check. Each probe runs
//! at its own pace, begun at a random moment, so that they are spread in time. What changes comes
//! back as [`Report`]s; a failure that is found out late because we were late ourselves says nothing
//! of the backend, and is dropped.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{Instant, sleep_until, timeout};

use super::probe::{Failed, probe};
use super::rise_fall::{RiseFall, Verdict};
use crate::clock::Millis;
use crate::config::{Ask, BackendTls, Check};
use crate::events::ServiceId;
use crate::io::proxy_header::Version;
use crate::tls::client::Alpn;
use crate::upstream::backend::Backend;
use crate::upstream::establish::Layers;
use crate::upstream::standing::Reason;

/// The way to the thread that checks. Dropped, the thread ends.
#[derive(Debug)]
pub struct Prober {
    orders: mpsc::UnboundedSender<Order>,
}

/// What a check has found out about backends.
#[derive(Debug, Clone)]
pub struct Report {
    /// All backends that share the check.
    pub backends: Vec<Arc<Backend>>,
    /// What it says of them.
    pub news: News,
}

/// What a check says.
#[derive(Debug, Clone)]
pub enum News {
    /// From now on they are up.
    Up,
    /// From now on they are down, and why.
    Down(Failed),
}

/// The backends of a service from now on.
#[derive(Debug)]
struct Order {
    /// Which service.
    service: ServiceId,
    check: Arc<Check>,
    backends: Vec<Arc<Backend>>,
}

/// What makes two checks the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    address: SocketAddr,
    /// What stands in Host; the same for all where the check does not depend on it.
    host: Box<str>,
    check: Arc<Check>,
    /// What is sent in front of everything else.
    header: Option<Version>,
    /// Who the backend has to prove to be, and by whose word.
    tls: Option<(Arc<BackendTls>, Arc<str>)>,
}

/// A check that runs.
#[derive(Debug)]
struct Running {
    /// Whom it is about, by service.
    backends: watch::Sender<Vec<(ServiceId, Arc<Backend>)>>,
    task: JoinHandle<()>,
}

impl Prober {
    /// Starts the thread. Reports go to `reports`, which may be waited for.
    pub fn start(reports: mpsc::Sender<Report>) -> io::Result<Prober> {
        let (orders, ordered) = mpsc::unbounded_channel();
        std::thread::Builder::new()
            .name("checks".to_owned())
            .spawn(move || {
                let runtime = Builder::new_current_thread()
                    .enable_all()
                    .build_local(LocalOptions::default());
                match runtime {
                    Ok(runtime) => runtime.block_on(run(ordered, reports)),
                    Err(e) => tracing::error!(error = %e, "backends are not checked"),
                }
            })?;
        Ok(Prober { orders })
    }

    /// From now on these are the backends of a service, to be checked so.
    pub fn watch(&self, service: ServiceId, check: &Arc<Check>, backends: Vec<Arc<Backend>>) {
        // It fails only when the thread has gone, and has said so.
        let _ = self.orders.send(Order {
            service,
            check: Arc::clone(check),
            backends,
        });
    }
}

async fn run(mut orders: mpsc::UnboundedReceiver<Order>, reports: mpsc::Sender<Report>) {
    let mut running: HashMap<Key, Running> = HashMap::new();
    let at_once = Rc::new(Semaphore::new(AT_ONCE));
    while let Some(order) = orders.recv().await {
        let mut wanted: HashMap<Key, Vec<Arc<Backend>>> = HashMap::new();
        for backend in order.backends {
            let key = Key::of(&backend, &order.check);
            wanted.entry(key).or_default().push(backend);
        }
        for (key, check) in &running {
            let now = wanted.remove(key).unwrap_or_default();
            check.backends.send_if_modified(|backends| {
                let before = backends.clone();
                backends.retain(|(service, _)| *service != order.service);
                backends.extend(now.into_iter().map(|backend| (order.service, backend)));
                !same(&before, backends)
            });
        }
        running.retain(|_, check| {
            let needed = !check.backends.borrow().is_empty();
            if !needed {
                check.task.abort();
            }
            needed
        });
        for (key, backends) in wanted {
            let layers = match backends.first() {
                Some(backend) => layers(backend, &key.check),
                None => continue,
            };
            let backends = backends.into_iter().map(|b| (order.service, b)).collect();
            let (backends, subject) = watch::channel(backends);
            let task = Task {
                key: key.clone(),
                layers,
                counts: RiseFall::new(&key.check),
                subject,
                told: Vec::new(),
                last: None,
                reports: reports.clone(),
                at_once: Rc::clone(&at_once),
            };
            let task = spawn_local(task.run());
            running.insert(key, Running { backends, task });
        }
    }
}

fn same(a: &[(ServiceId, Arc<Backend>)], b: &[(ServiceId, Arc<Backend>)]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.0 == b.0 && a.1.id == b.1.id)
}

impl Key {
    fn of(backend: &Backend, check: &Arc<Check>) -> Key {
        let endpoint = &backend.endpoint;
        let port = check.port.unwrap_or(endpoint.port);
        let host = match check.needs_host() {
            true => format!("{}:{port}", endpoint.target.trim_end_matches('.')),
            false => String::new(),
        };
        Key {
            address: SocketAddr::new(endpoint.address, port),
            host: host.into(),
            check: Arc::clone(check),
            header: backend.layers.header,
            tls: backend
                .layers
                .tls
                .as_ref()
                .filter(|_| !check.plain)
                .map(|tls| (Arc::clone(tls.terms()), Arc::clone(tls.name()))),
        }
    }
}

/// What lies between TCP and the question: what requests have too, unless the check is to do without
/// TLS. Its sessions are its own: a check may go to another port.
fn layers(backend: &Backend, check: &Check) -> Layers {
    let alpn = match check.ask {
        Ask::Grpc(_) => Alpn::Http2,
        Ask::Tcp | Ask::Http(_) => Alpn::Http1,
    };
    let tls = backend.layers.tls.as_ref().filter(|_| !check.plain);
    Layers {
        header: backend.layers.header,
        tls: tls.map(|tls| tls.apart(alpn)),
    }
}

/// One check, again and again.
struct Task {
    key: Key,
    layers: Layers,
    counts: RiseFall,
    subject: watch::Receiver<Vec<(ServiceId, Arc<Backend>)>>,
    /// Those who know the verdict.
    told: Vec<u64>,
    /// Why a check failed last.
    last: Option<Failed>,
    reports: mpsc::Sender<Report>,
    at_once: Rc<Semaphore>,
}

/// What one check has found out.
enum Found {
    Passed,
    Failed(Failed),
    /// It was we who were late, or had no descriptor for it.
    Nothing,
}

impl Task {
    /// Ends by being aborted, or when nobody reads the reports any more.
    async fn run(mut self) {
        let check = Arc::clone(&self.key.check);
        let mut random = fastrand::Rng::new();
        let first = match check.initially_down {
            // Somebody waits for it.
            true => check.interval.min(SOON),
            false => check.interval,
        };
        let mut next = Instant::now() + first.mul_f64(random.f64());
        loop {
            tokio::select! {
                () = sleep_until(next) => {}
                changed = self.subject.changed() => {
                    if changed.is_err() || self.greet().await.is_err() {
                        return;
                    }
                    continue;
                }
            }
            let pause = check
                .interval
                .mul_f64(1.0 - JITTER + 2.0 * JITTER * random.f64());
            next = Instant::now() + pause;
            let reason = match self.probe(&check).await {
                Found::Passed => Reason::None,
                Found::Failed(failed) => {
                    let reason = failed.reason;
                    self.last = Some(failed);
                    reason
                }
                Found::Nothing => continue,
            };
            let now = Millis::now();
            for (_, backend) in self.subject.borrow().iter() {
                backend.checked(now, reason);
            }
            let passed = reason == Reason::None;
            if self.counts.observe(passed).is_some() && self.tell_all().await.is_err() {
                return;
            }
        }
    }

    async fn probe(&self, check: &Check) -> Found {
        // Never closed.
        let _turn = self.at_once.acquire().await;
        let begun = Instant::now();
        let found = timeout(
            check.timeout,
            probe(self.key.address, &self.key.host, &self.layers, check),
        )
        .await;
        match found {
            Ok(Ok(())) => Found::Passed,
            Ok(Err(Failed {
                reason: Reason::None,
                detail,
            })) => {
                tracing::debug!(address = %self.key.address, detail, "a check was not made");
                Found::Nothing
            }
            Ok(Err(failed)) => Found::Failed(failed),
            Err(_) if begun.elapsed() > check.timeout + LATE => Found::Nothing,
            Err(_) => Found::Failed(Failed {
                reason: Reason::CheckTimeout,
                detail: format!("no answer within {:?}", check.timeout),
            }),
        }
    }

    /// Tells all of them what is found.
    async fn tell_all(&mut self) -> Result<(), Gone> {
        self.told.clear();
        self.greet().await
    }

    /// Tells those who do not know yet what is found, if anything is.
    async fn greet(&mut self) -> Result<(), Gone> {
        let all: Vec<_> = {
            let subject = self.subject.borrow_and_update();
            subject
                .iter()
                .map(|(_, backend)| Arc::clone(backend))
                .collect()
        };
        let ids = all.iter().map(|backend| backend.id.0).collect();
        let knew = std::mem::replace(&mut self.told, ids);
        let new: Vec<_> = all
            .into_iter()
            .filter(|backend| !knew.contains(&backend.id.0))
            .collect();
        let news = match (self.counts.verdict(), &self.last) {
            (Verdict::Unchecked, _) => {
                self.told.clear();
                return Ok(());
            }
            (Verdict::Down, Some(failed)) => News::Down(failed.clone()),
            (Verdict::Up | Verdict::Down, _) => News::Up,
        };
        match new.is_empty() {
            true => Ok(()),
            false => self.report(new, news).await,
        }
    }

    async fn report(&self, backends: Vec<Arc<Backend>>, news: News) -> Result<(), Gone> {
        let report = Report { backends, news };
        self.reports.send(report).await.map_err(|_| Gone)
    }
}

/// Nobody reads the reports any more.
struct Gone;

/// Checks that may be under way at once: each holds a descriptor.
const AT_ONCE: usize = 256;

/// The pause between two checks of a backend is so much longer or shorter, as a part of it.
const JITTER: f64 = 0.1;

/// A backend that is out until it has passed is checked for the first time within this.
const SOON: Duration = Duration::from_millis(200);

/// A time-out that is noticed so much later than it was due is our own doing.
const LATE: Duration = Duration::from_millis(250);

#[cfg(test)]
#[path = "prober_tests.rs"]
mod tests;
