//! The composition root: binds sockets, starts workers and the control thread, carries a drain out.
//!
//! One control thread (discovery, services, probe listener, drain) and one thread per worker,
//! each with a single-threaded runtime of its own. Workers read snapshots and send events; the
//! control thread writes snapshots and never touches a request.

mod control;
mod memory;
mod orders;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::sleep;

use control::Control;
pub use orders::Order;
use orders::Signals;

use crate::admin::state::Asking;
use crate::balance::affinity::Affinity;
use crate::balance::service::{Service, Terms};
use crate::balance::snapshot::Snapshot;
use crate::clock::Millis;
use crate::config::{Config, Protocol, Sticky};
use crate::discovery::keeper::Keeper;
use crate::discovery::watch::Watches;
use crate::io::deadline::TICK;
use crate::listener::entrance::Entrance;
use crate::listener::{self, Listening};
use crate::proxy::drain::{Drain, Phase};
use crate::proxy::limits::Limits;
use crate::proxy::questions::Questions;
use crate::proxy::samples::Samples;
use crate::proxy::seating::{Arrival, Seating};
use crate::proxy::worker::{HOUSEKEEPING, Shared, Worker};
use crate::published::Published;
use crate::router::Router;
use crate::telemetry::access::{AccessLog, AccessWriter};
use crate::telemetry::metrics::Metrics;
use crate::tls::client::Loader;
use crate::tls::server::front_end;
use crate::upstream::adaptive::Adaptive;
use crate::upstream::establish::Layering;
use crate::upstream::gate::Gate;

/// Events that wait for the control thread; more are dropped.
const EVENTS: usize = 1024;

/// In a drain, connections without a request get so long to send one, and to be told that the
/// connection closes with its response.
const IDLE_GRACE: Duration = Duration::from_secs(2);

/// At the end, whoever reads the access log gets so long to take what is left of it.
const LAST_LINES: Duration = Duration::from_secs(1);

/// And the latest answers get so long to be written for the next start.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// A server that runs in threads of its own.
#[derive(Debug)]
pub struct Running {
    /// Where each listener listens, in the order of the configuration.
    pub addresses: Vec<SocketAddr>,
    /// Where the probe listener listens.
    pub probe: Option<SocketAddr>,
    orders: mpsc::UnboundedSender<Order>,
    control: std::thread::JoinHandle<anyhow::Result<Drained>>,
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Everything under way was finished.
    Clean,
    /// A deadline passed, or it was told to stop at once, with something still under way.
    Cut,
}

/// Runs until a signal ends it: the body of `evenkeel run` and `evenkeel proxy`.
pub fn run(config: Config) -> anyhow::Result<ExitCode> {
    let runtime = runtime().context("cannot start a runtime for signals")?;
    // Before anybody can know that we are there: a signal that nobody listens for kills.
    let signals = runtime.block_on(async { Signals::listen() })?;
    let running = start(config)?;
    let orders = running.orders.clone();
    // The control thread can end on its own only by an error; then there is no signal to wait for.
    let (ended, has_ended) = oneshot::channel();
    let control = running.control;
    let waiter = std::thread::spawn(move || {
        let outcome = control.join();
        let _ = ended.send(());
        outcome
    });
    runtime.block_on(async {
        tokio::select! {
            () = signals.give(orders) => {}
            _ = has_ended => {}
        }
    });
    let outcome = waiter.join().expect("it only joins another thread");
    match outcome {
        Ok(Ok(Drained::Clean)) => {
            tracing::info!("drained: everything under way was finished");
            Ok(ExitCode::SUCCESS)
        }
        Ok(Ok(Drained::Cut)) => {
            tracing::warn!("ended with something still under way");
            Ok(ExitCode::from(3))
        }
        Ok(Err(e)) => Err(e),
        Err(_) => anyhow::bail!("the control thread panicked"),
    }
}

/// Binds every socket, loads every certificate and starts all threads. Nothing is resolved here:
/// DNS may be down. An error leaves nothing running.
pub fn start(config: Config) -> anyhow::Result<Running> {
    start_logging(config, std::io::stdout())
}

/// [`start`] with the access log, if the configuration has one, written to `out`.
pub fn start_logging(
    config: Config,
    out: impl std::io::Write + Send + 'static,
) -> anyhow::Result<Running> {
    let config = Arc::new(config);
    let mut sockets = Vec::new();
    let mut front_ends = Vec::new();
    for listener in &config.listeners {
        let socket = listener::bind(listener.address).with_context(|| {
            format!(
                "listener {}: cannot listen on {}",
                listener.name, listener.address
            )
        })?;
        sockets.push(socket);
        front_ends.push(match &listener.protocol {
            Protocol::Http | Protocol::Tcp | Protocol::Tls => None,
            Protocol::Https(tls) => {
                let name = &listener.name;
                Some(front_end(tls, listener.http2).with_context(|| format!("listener {name}"))?)
            }
        });
    }
    let probe = config.probe.map(|address| {
        listener::bind(address).with_context(|| {
            format!(
                "probe listener: cannot listen on {address} (another address: \
                 --set probe.address=127.0.0.1:9903; none: --set probe.address=off)"
            )
        })
    });
    let probe = probe.transpose()?;
    let addresses = sockets
        .iter()
        .map(|s| s.local_addr())
        .collect::<Result<Vec<_>, _>>()?;
    let probe_address = probe.as_ref().map(|s| s.local_addr()).transpose()?;

    let own_addresses = addresses.iter().copied().chain(probe_address).collect();
    let names = config.services.iter().map(|s| &s.discover);
    let keeper = config.state_dir.as_deref();
    let keeper = keeper.map(|folder| Keeper::open(folder, names).map(Arc::new));
    let keeper = keeper
        .transpose()
        .context("cannot start a thread for `state_dir`")?;
    let allowed = config.allowed_endpoints.clone();
    let watches = Watches::keeping(own_addresses, allowed, keeper.clone());
    let affinities = affinities(&config)?;
    let services: Vec<_> = config
        .services
        .iter()
        .zip(affinities)
        .zip(layerings(&config)?)
        .map(|((s, affinity), layering)| {
            let mut service = Service::on(Arc::clone(&s.name), terms(s, affinity, layering));
            // The first client may be here before the control thread is.
            if let Some(offer) = watches.known(&s.discover) {
                service.apply(&offer);
            }
            service
        })
        .collect();
    let (events, noticed) = mpsc::channel(EVENTS);
    let (seating, arrivals) = Seating::new(config.workers.get());
    let shared = Shared {
        router: Arc::new(Router::new(&config)),
        snapshots: services.iter().map(|s| Arc::clone(s.snapshot())).collect(),
        gates: services.iter().map(|s| s.gate().cloned()).collect(),
        affinities: services.iter().map(|s| s.affinity().cloned()).collect(),
        certificates: front_ends
            .iter()
            .map(|f| f.as_ref().map(|f| Arc::clone(&f.certificates)))
            .collect(),
        drain: Drain::new(),
        events,
        limits: Limits::new(Arc::clone(&config)),
        seating,
        questions: Questions::new(config.workers.get()),
        samples: Samples::new(config.workers.get()),
        config: Arc::clone(&config),
    };
    (shared.limits.descriptors).compare(config.downstream.max_connections.get());
    let metrics = Metrics::new(
        config
            .services
            .iter()
            .map(|s| Arc::clone(&s.name))
            .collect(),
        config
            .listeners
            .iter()
            .map(|l| Arc::clone(&l.name))
            .collect(),
    );

    let access = AccessWriter::start(config.log.access, config.log.access_query, out)
        .context("cannot start the access log")?;

    // Dropped by a worker when it ends: the control thread learns that all have.
    let (alive, mut gone) = mpsc::channel::<()>(1);
    let mut heartbeats = Vec::new();
    let mut threads = Vec::new();
    for (index, arrivals) in arrivals.into_iter().enumerate() {
        let heartbeat = Arc::new(AtomicU64::new(Millis::now().0));
        heartbeats.push(Arc::clone(&heartbeat));
        let start = WorkerStart {
            index,
            listening: listening(&sockets)?,
            arrivals,
            tls: front_ends
                .iter()
                .map(|f| f.as_ref().map(|f| Arc::clone(&f.config)))
                .collect(),
            shared: shared.clone(),
            metrics: Arc::clone(&metrics),
            access: access.log(),
            heartbeat,
            alive: alive.clone(),
        };
        let thread = std::thread::Builder::new().name(format!("worker-{index}"));
        threads.push(thread.spawn(move || start.run())?);
    }
    drop((alive, sockets));
    let access_lines_dropped = access.dropped();

    let (orders, receiver) = mpsc::unbounded_channel();
    let ordered = Orders {
        receiver,
        snapshots: shared.snapshots.clone(),
    };
    let drain = Arc::clone(&shared.drain);
    let times = config.drain;
    let control = Control {
        config: Arc::clone(&config),
        watches,
        services,
        drain: Arc::clone(&drain),
        certificates: front_ends
            .iter()
            .map(|f| f.as_ref().map(|f| Arc::clone(&f.certificates)))
            .collect(),
        heartbeats,
        limits: shared.limits,
        asking: Asking {
            affinities: shared.affinities,
            questions: shared.questions,
            samples: shared.samples,
        },
        metrics,
        access_lines_dropped,
    };
    let thread = std::thread::Builder::new().name("control".to_owned());
    let control = thread.spawn(move || {
        let runtime = runtime().context("cannot start the control thread's runtime")?;
        let outcome = runtime.block_on(async {
            control.start(noticed, probe)?;
            carry_out(&drain, ordered, &mut gone, times).await
        });
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a worker panicked");
            }
        }
        if keeper.is_some_and(|keeper| !keeper.finish(LAST_ANSWERS)) {
            tracing::warn!("state: the latest answers could not be written");
        }
        if !access.finish(LAST_LINES) {
            tracing::warn!("the end of the access log was not taken by its reader");
        }
        outcome
    })?;
    for (listener, address) in config.listeners.iter().zip(&addresses) {
        tracing::info!(listener = %listener.name, %address, "listening");
    }
    if let Some(address) = probe_address {
        tracing::info!(%address, "probe listening");
    }
    Ok(Running {
        addresses,
        probe: probe_address,
        orders,
        control,
    })
}

impl Running {
    /// Gives an order; the first [`Order::Drain`] counts.
    pub fn order(&self, order: Order) {
        // It fails only when the server has ended already.
        let _ = self.orders.send(order);
    }

    /// Waits until the server has ended.
    pub fn wait(self) -> anyhow::Result<Drained> {
        match self.control.join() {
            Ok(outcome) => outcome,
            Err(_) => anyhow::bail!("the control thread panicked"),
        }
    }
}

/// The orders that change what is going on; a report is made in passing.
struct Orders {
    receiver: mpsc::UnboundedReceiver<Order>,
    snapshots: Vec<Arc<Published<Snapshot>>>,
}

impl Orders {
    /// The next order to end, slowly or at once. Cancel-safe.
    async fn next(&mut self) -> Order {
        loop {
            match self.receiver.recv().await {
                Some(Order::Report) => control::report(&self.snapshots),
                Some(order) => return order,
                // Nobody is left who could give one.
                None => return Order::Stop,
            }
        }
    }
}

/// Waits for orders and takes the drain from phase to phase.
async fn carry_out(
    drain: &Drain,
    mut orders: Orders,
    gone: &mut mpsc::Receiver<()>,
    times: crate::config::Drain,
) -> anyhow::Result<Drained> {
    let order = tokio::select! {
        order = orders.next() => order,
        _ = gone.recv() => anyhow::bail!("no worker is running any more"),
    };
    if order == Order::Drain {
        drain.advance(Phase::Announced);
        let steps = [
            (times.wait, Phase::Closing),
            (IDLE_GRACE.min(times.requests), Phase::ClosingIdle),
            (
                times.requests.saturating_sub(IDLE_GRACE),
                Phase::CutRequests,
            ),
            (times.streams.saturating_sub(times.requests), Phase::CutAll),
        ];
        for (wait, phase) in steps {
            tokio::select! {
                () = sleep(wait) => drain.advance(phase),
                _ = gone.recv() => {
                    return Ok(match drain.has_cut() {
                        true => Drained::Cut,
                        false => Drained::Clean,
                    });
                }
                _ = orders.next() => break,
            }
        }
    }
    drain.advance(Phase::CutAll);
    // Workers look at the phase at every tick.
    gone.recv().await;
    Ok(Drained::Cut)
}

/// The cookie of each service that has one. Those without a key file share a key of this process.
fn affinities(config: &Config) -> anyhow::Result<Vec<Option<Arc<Affinity>>>> {
    let mut own = [0; 32];
    aws_lc_rs::rand::fill(&mut own).map_err(|_| anyhow::anyhow!("no random numbers"))?;
    let affinity = |service: &crate::config::Service| {
        let Some(sticky) = &service.sticky else {
            return Ok(None);
        };
        let key = match &sticky.key_file {
            Some(path) => Sticky::key(path).with_context(|| {
                format!("service {}: cannot use {}", service.name, path.display())
            })?,
            None => own.to_vec(),
        };
        let affinity = Affinity::new(Arc::clone(&service.name), sticky, &key);
        Ok(Some(Arc::new(affinity)))
    };
    config.services.iter().map(affinity).collect()
}

/// What lies between TCP and HTTP on the connections to each service. Reads certificates.
fn layerings(config: &Config) -> anyhow::Result<Vec<Layering>> {
    let mut loader = Loader::default();
    let layering = |service: &crate::config::Service| {
        let tls = service.tls.as_ref().map(|terms| loader.load(terms));
        let tls = tls.transpose();
        Ok(Layering {
            header: service.proxy_header.map(Into::into),
            tls: tls.with_context(|| format!("service {}", service.name))?,
            h2: service.upstream.protocol.is_h2(),
        })
    };
    config.services.iter().map(layering).collect()
}

/// What a service's backends begin with.
fn terms(
    service: &crate::config::Service,
    affinity: Option<Arc<Affinity>>,
    layering: Layering,
) -> Terms {
    Terms {
        affinity,
        layering,
        gate: service.in_flight.map(|limits| {
            let adaptive = limits.adaptive.map(|a| Adaptive::new(a.least, a.most));
            Gate::new(limits.per_backend, adaptive, limits.queue, limits.timeout)
        }),
        unchecked_is_down: service.check.as_ref().is_some_and(|c| c.initially_down),
        rises: !service.balancing.slow_start.is_zero(),
    }
}

fn listening(sockets: &[std::net::TcpListener]) -> anyhow::Result<Vec<Listening>> {
    let duplicates = sockets.iter().enumerate().map(|(index, socket)| {
        let socket = socket.try_clone();
        let socket = socket.context("cannot share a listening socket")?;
        Ok(Listening { index, socket })
    });
    duplicates.collect()
}

fn runtime() -> std::io::Result<LocalRuntime> {
    Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
}

/// What a worker's thread starts with.
struct WorkerStart {
    index: usize,
    listening: Vec<Listening>,
    arrivals: mpsc::Receiver<Arrival>,
    /// Of each listener.
    tls: Vec<Option<Arc<rustls::ServerConfig>>>,
    shared: Shared,
    metrics: Arc<Metrics>,
    access: AccessLog,
    heartbeat: Arc<AtomicU64>,
    alive: mpsc::Sender<()>,
}

impl WorkerStart {
    fn run(self) {
        let runtime = match runtime() {
            Ok(runtime) => runtime,
            Err(e) => {
                tracing::error!(error = %e, "a worker cannot start");
                return;
            }
        };
        runtime.block_on(async {
            let worker = Worker::new(self.index, self.shared, self.metrics.shard(), self.access);
            let entrance = Entrance::new(Rc::clone(&worker), self.tls);
            let accepting = self
                .listening
                .into_iter()
                .map(|l| spawn_local(listener::accept(Rc::clone(&entrance), l)));
            let accepting: Vec<_> = accepting.collect();
            let taking = spawn_local(Rc::clone(&entrance).take_arrivals(self.arrivals));
            let mut seen = Phase::Serving;
            let mut since_housekeeping = Duration::ZERO;
            loop {
                sleep(TICK).await;
                worker.deadlines.sweep();
                worker.access.flush();
                worker.answer();
                self.heartbeat.store(Millis::now().0, Ordering::Relaxed);
                since_housekeeping += TICK;
                if since_housekeeping >= HOUSEKEEPING {
                    since_housekeeping = Duration::ZERO;
                    entrance.tick();
                }
                let phase = worker.shared.drain.phase();
                if phase != seen {
                    seen = phase;
                    worker.deadlines.wake_all();
                }
                worker.shed();
                let closed = accepting.iter().all(JoinHandle::is_finished) && taking.is_finished();
                if phase >= Phase::CutAll || (closed && worker.connections.get() == 0) {
                    break;
                }
            }
            if seen >= Phase::CutAll {
                // One turn more, for those who were just woken to say what became of them.
                sleep(TICK).await;
            }
        });
        drop(self.alive);
    }
}
