//! The composition root: binds sockets, starts workers and the control thread, carries a drain out.
//!
//! One control thread (discovery, services, probe listener, drain) and one thread per worker,
//! each with a single-threaded runtime of its own. Workers read snapshots and send events; the
//! control thread writes snapshots and never touches a request.

mod admin;
mod certificates;
mod control;
mod file_watch;
pub mod front;
mod generation;
mod memory;
mod orders;
mod prepare;
mod reload;
mod services;
mod systemd;
mod traces;
mod worker_thread;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

use admin::Entrances;
use control::{Control, Started};
pub use file_watch::Watched;
pub use orders::Order;
use orders::Signals;
use prepare::{Prepared, Sockets};
pub use systemd::FRONT;
use systemd::Notifier;
use traces::Exporter;
use worker_thread::WorkerStart;

use crate::clock::Millis;
use crate::config::{Config, Diagnostic, Loaded};
use crate::discovery::keeper::Keeper;
use crate::discovery::watch::Watches;
use crate::events::journal::{Journal, Kind, What};
use crate::events::{Reloaded, Sign};
use crate::listener;
use crate::listener::inherited::Inherited;
use crate::proxy::drain::{Drain, Phase};
use crate::proxy::questions::Questions;
use crate::proxy::samples::Samples;
use crate::proxy::seating::Seating;
use crate::proxy::worker::Shared;
use crate::published::Published;
use crate::telemetry::access::AccessWriter;
use crate::telemetry::metrics::Metrics;
use crate::tls::challenges::Challenges;

/// Events that wait for the control thread; more are dropped.
const EVENTS: usize = 1024;

/// In a drain, connections without a request get so long to send one, and to be told that the
/// connection closes with its response.
const IDLE_GRACE: Duration = Duration::from_secs(2);

/// At the end, whoever reads the access log gets so long to take what is left of it.
const LAST_LINES: Duration = Duration::from_secs(1);

/// The collector gets so long for the last spans.
const LAST_SPANS: Duration = Duration::from_secs(2);

/// And the latest answers get so long to be written for the next start.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// Where a configuration comes from, to be read at the start and at each reload. It may block.
pub type Source = Arc<dyn Fn() -> Result<Loaded, Diagnostic> + Send + Sync>;

/// A server that runs in threads of its own.
#[derive(Debug)]
pub struct Running {
    /// Where each listener listens, in the order of the configuration.
    pub addresses: Vec<SocketAddr>,
    /// Where the probe listener listens.
    pub probe: Option<SocketAddr>,
    /// Where the control listener listens.
    pub admin: Option<SocketAddr>,
    orders: mpsc::UnboundedSender<Order>,
    /// The generation of the configuration that is in force.
    generations: Arc<Published<Shared>>,
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

/// Runs until a signal ends it: the body of `evenkeel run` and `evenkeel proxy`. `source`: where
/// `config` came from. `watched`: a file to look at, which is reloaded when it holds something else.
pub fn run(config: Config, source: Source, watched: Option<Watched>) -> anyhow::Result<ExitCode> {
    let surroundings = Surroundings {
        inherited: Inherited::take(),
        notifier: Notifier::from_env(),
    };
    let runtime = runtime().context("cannot start a runtime for signals")?;
    // Before anybody can know that we are there: a signal that nobody listens for kills.
    let signals = runtime.block_on(async { Signals::listen() })?;
    let running = start_within(config, Some(source), std::io::stdout(), surroundings)?;
    let orders = running.orders.clone();
    if let Some(watched) = watched {
        watched.follow(orders.clone())?;
    }
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
/// DNS may be down. An error leaves nothing running. It cannot be reloaded.
pub fn start(config: Config) -> anyhow::Result<Running> {
    start_logging(config, std::io::stdout())
}

/// [`start`] with the access log, if the configuration has one, written to `out`.
pub fn start_logging(
    config: Config,
    out: impl std::io::Write + Send + 'static,
) -> anyhow::Result<Running> {
    start_from(config, None, out)
}

/// [`start_logging`] with the `source` of the configuration, from which it can be reloaded.
pub fn start_from(
    config: Config,
    source: Option<Source>,
    out: impl std::io::Write + Send + 'static,
) -> anyhow::Result<Running> {
    start_within(config, source, out, Surroundings::default())
}

/// What whoever started this process has for it: systemd, or nobody.
#[derive(Debug, Default)]
struct Surroundings {
    inherited: Inherited,
    notifier: Notifier,
}

fn start_within(
    config: Config,
    source: Option<Source>,
    out: impl std::io::Write + Send + 'static,
    surroundings: Surroundings,
) -> anyhow::Result<Running> {
    let Surroundings {
        inherited,
        notifier,
    } = surroundings;
    let inherited = Arc::new(inherited);
    let mut own = [0; 32];
    aws_lc_rs::rand::fill(&mut own).map_err(|_| anyhow::anyhow!("no random numbers"))?;
    let challenges = Published::new(Challenges::default());
    let prepared = Prepared::new(config, None, &own, &inherited, &challenges)?;
    let config = Arc::clone(&prepared.config);
    let probe = config.probe.map(|address| {
        listener::listen(&inherited, "probe", address).with_context(|| {
            format!(
                "probe listener: cannot listen on {address} (another address: \
                 --set probe.address=127.0.0.1:9903; none: --set probe.address=off)"
            )
        })
    });
    let probe = probe.transpose()?;
    let addresses = prepare::addresses(&prepared.sockets)?;
    let probe_address = probe.as_ref().map(|s| s.local_addr()).transpose()?;
    let entrances = Entrances::open(&config.admin, &inherited)?;
    inherited.warn_of_unused();
    let admin_address = entrances.address();

    let others: Vec<_> = probe_address.into_iter().chain(admin_address).collect();
    let own_addresses = addresses.iter().chain(&others).copied().collect();
    let names = config.services.iter().map(|s| &s.discover);
    let keeper = config.state_dir.as_deref();
    let keeper = keeper.map(|folder| Keeper::open(folder, names).map(Arc::new));
    let keeper = keeper
        .transpose()
        .context("cannot start a thread for `state_dir`")?;
    let allowed = config.allowed_endpoints.clone();
    let journal = Arc::<Journal>::default();
    let told = Arc::clone(&journal);
    let watches = Watches::telling(own_addresses, allowed, keeper.clone(), Arc::clone(&journal));
    let (events, noticed) = mpsc::channel(EVENTS);
    let traces = Exporter::start(config.traces.as_ref())?;
    let (seating, arrivals) = Seating::new(config.workers.get());
    let common = generation::Common {
        drain: Drain::new(),
        events,
        seating,
        questions: Questions::new(config.workers.get()),
        samples: Samples::new(config.workers.get()),
        challenges,
        tracer: traces.as_ref().map(Exporter::tracer),
    };
    let (shared, new) = generation::first(&prepared, common);
    // The first client may be here before the control thread is.
    let new = new.into_iter().map(|(index, service)| {
        let discover = &config.services[index].discover;
        (index, services::begun(service, discover, &watches))
    });
    let new = new.collect();
    let descriptors = &shared.limits.descriptors;
    descriptors.compare(config.downstream.max_connections.get());
    let drain = Arc::clone(&shared.drain);
    let metrics = Metrics::new(Arc::clone(&shared.names));
    let published = Published::new(shared);

    let access = AccessWriter::start(config.log.access, config.log.access_query, out)
        .context("cannot start the access log")?;

    // Dropped by a worker when it ends: the control thread learns that all have.
    let (alive, mut gone) = mpsc::channel::<()>(1);
    let mut signs = Vec::new();
    let mut threads = Vec::new();
    for (index, arrivals) in arrivals.into_iter().enumerate() {
        let sign = Sign::new();
        signs.push(Arc::clone(&sign));
        let start = WorkerStart {
            index,
            generations: Arc::clone(&published),
            arrivals,
            metrics: Arc::clone(&metrics),
            access: access.log(),
            sign,
            alive: alive.clone(),
        };
        let thread = std::thread::Builder::new().name(format!("worker-{index}"));
        threads.push(thread.spawn(move || start.run())?);
    }
    drop(alive);
    let access_lines_dropped = access.dropped();

    let (orders, receiver) = mpsc::unbounded_channel();
    let generations = Arc::clone(&published);
    let handed_over = Arc::clone(&inherited);
    let control = Control {
        source,
        own,
        inherited,
        notifier,
        published: Arc::clone(&published),
        watches,
        services: new,
        sockets: prepared.sockets,
        signs,
        metrics,
        access_lines_dropped,
        own_addresses: others,
        journal,
        entrances,
    };
    let thread = std::thread::Builder::new().name("control".to_owned());
    let control = thread.spawn(move || {
        let runtime = runtime().context("cannot start the control thread's runtime")?;
        let outcome = runtime.block_on(async {
            let Started {
                reloads,
                sockets,
                left,
            } = control.start(noticed, probe)?;
            let ordered = Orders {
                receiver,
                reloads,
                generations,
                journal: told,
                sockets,
                inherited: handed_over,
            };
            let outcome = carry_out(&drain, ordered, &mut gone).await;
            drop(left);
            outcome
        });
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a worker panicked");
            }
        }
        if keeper.is_some_and(|keeper| !keeper.finish(LAST_ANSWERS)) {
            tracing::warn!("state: the latest answers could not be written");
        }
        if traces.is_some_and(|traces| !traces.finish(LAST_SPANS)) {
            tracing::warn!("the last spans were not taken by the collector");
        }
        if !access.finish(LAST_LINES) {
            tracing::warn!("the end of the access log was not taken by its reader");
        }
        // Whatever still waits for a file is not waited for.
        runtime.shutdown_background();
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
        admin: admin_address,
        orders,
        generations: published,
        control,
    })
}

impl Running {
    /// Gives an order; the first [`Order::Drain`] counts.
    pub fn order(&self, order: Order) {
        // It fails only when the server has ended already.
        let _ = self.orders.send(order);
    }

    /// Reads the configuration again and waits until that has come to something. `None`: the server has
    /// ended.
    pub fn reload(&self) -> Option<Reloaded> {
        let (reply, answer) = oneshot::channel();
        self.order(Order::Reload(Some(reply)));
        answer.blocking_recv().ok()
    }

    /// Where each listener listens now, in the order of the configuration.
    pub fn listening(&self) -> Vec<SocketAddr> {
        let shared = self.generations.load();
        let sockets = shared.listeners.iter().filter_map(|l| l.socket.upgrade());
        sockets
            .filter_map(|socket| socket.local_addr().ok())
            .collect()
    }

    /// Waits until the server has ended.
    pub fn wait(self) -> anyhow::Result<Drained> {
        match self.control.join() {
            Ok(outcome) => outcome,
            Err(_) => anyhow::bail!("the control thread panicked"),
        }
    }
}

/// The orders that end it; a report is made, and a reload asked for, in passing.
struct Orders {
    receiver: mpsc::UnboundedReceiver<Order>,
    reloads: mpsc::UnboundedSender<reload::Request>,
    generations: Arc<Published<Shared>>,
    journal: Arc<Journal>,
    /// To be closed when nobody is taken in any more: the kernel would complete connections that no
    /// worker accepts.
    sockets: Rc<RefCell<Sockets>>,
    /// With those of systemd.
    inherited: Arc<Inherited>,
}

/// How to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Drained,
    AtOnce,
}

impl Orders {
    /// Closes what is listened on. A process that takes minutes to finish must not hold a port as long.
    fn listen_no_more(&self) {
        self.sockets.take();
        self.inherited.close();
    }

    /// The next order to end, slowly or at once. Cancel-safe.
    async fn next(&mut self) -> End {
        loop {
            match self.receiver.recv().await {
                Some(Order::Report) => control::report(&self.generations.load()),
                Some(Order::Reload(reply)) => {
                    // It takes requests for as long as this runtime lives.
                    let _ = self.reloads.send(reply);
                }
                Some(Order::Drain) => return End::Drained,
                // Otherwise nobody is left who could give one.
                Some(Order::Stop) | None => return End::AtOnce,
            }
        }
    }
}

/// Waits for orders and takes the drain from phase to phase.
async fn carry_out(
    drain: &Drain,
    mut orders: Orders,
    gone: &mut mpsc::Receiver<()>,
) -> anyhow::Result<Drained> {
    let order = tokio::select! {
        order = orders.next() => order,
        _ = gone.recv() => anyhow::bail!("no worker is running any more"),
    };
    if order == End::Drained {
        let times = orders.generations.load().config.drain;
        let announced = drain.begin(Millis::now());
        let text = "a signal says so: this process ends when all is done";
        orders.journal.record(What::new(Kind::DrainBegun, text));
        let steps = [
            (times.wait.saturating_sub(announced), Phase::Closing),
            (IDLE_GRACE.min(times.requests), Phase::ClosingIdle),
            (
                times.requests.saturating_sub(IDLE_GRACE),
                Phase::CutRequests,
            ),
            (times.streams.saturating_sub(times.requests), Phase::CutAll),
        ];
        for (wait, phase) in steps {
            tokio::select! {
                () = sleep(wait) => {
                    drain.advance(phase);
                    orders.listen_no_more();
                }
                _ = gone.recv() => {
                    return Ok(outcome(drain));
                }
                _ = orders.next() => break,
            }
        }
    }
    drain.advance(Phase::CutAll);
    orders.listen_no_more();
    // Workers look at the phase at every tick.
    gone.recv().await;
    Ok(outcome(drain))
}

fn outcome(drain: &Drain) -> Drained {
    match drain.has_cut() {
        true => Drained::Cut,
        false => Drained::Clean,
    }
}

fn runtime() -> std::io::Result<LocalRuntime> {
    Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
}
