//! The control thread's tasks: discovery into services, what workers and checks noticed to whoever
//! judges it and back to discovery, memory back to the system after a burst, the probe listener.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};

use crate::admin::probe;
use crate::admin::state::{Asking, State};
use crate::clock::Millis;
use crate::memory;
use crate::proxy::drain::Drain;
use crate::proxy::limits::Limits;
use crate::published::Published;
use crate::telemetry::metrics::Metrics;
use crate::tls::certificates::CertificateSet;

use crate::balance::service::Service;
use crate::balance::snapshot::Snapshot;
use crate::config::Config;
use crate::discovery::watch::{STILL_OUT_EVERY, Subscription, Watches};
use crate::events::Event;
use crate::health::prober::{Prober, Report};
use crate::health::{Health, WentOut};

/// Time between two looks for series of backends that are gone.
const FORGET_EVERY: Duration = Duration::from_secs(5);

/// From the first word that a burst is over until memory is given back: the other workers notice
/// it at their next tick, and drop what it needed one tick later.
const SETTLING: Duration = Duration::from_secs(3);

/// Least time between two times that memory is given back. Each holds workers up: for 3 to 4 ms
/// after a burst on 9,000 connections that stay, of which 60 MiB go. And a page that is needed again
/// has to be fetched again.
const GIVE_BACK_PAUSE: Duration = Duration::from_secs(10);

/// The pause is so many times as long as the last time took, where that is more: a load that rises
/// and falls again and again is held up for about a thousandth of the time.
const GIVE_BACK_RARITY: u32 = 1_000;

/// Most of a pause: one time that took long, because something else had the processor, does not keep
/// memory for hours.
const GIVE_BACK_LONGEST: Duration = Duration::from_secs(60);

/// Time between two looks at success rates and at the bounds of ejection.
const HEALTH_EVERY: Duration = Duration::from_secs(1);

/// What checks have found may wait in such a number; then they wait themselves.
const REPORTS: usize = 256;

/// What the control thread works with.
#[derive(Debug)]
pub struct Control {
    /// The configuration.
    pub config: Arc<Config>,
    /// The names that are watched.
    pub watches: Watches,
    /// The services, in the order of the configuration.
    pub services: Vec<Service>,
    /// How far a drain has come.
    pub drain: Arc<Drain>,
    /// The certificates of each listener; `None`: no TLS.
    pub certificates: Vec<Option<Arc<Published<CertificateSet>>>>,
    /// When each worker last turned.
    pub heartbeats: Vec<Arc<AtomicU64>>,
    /// What the workers together may take on.
    pub limits: Arc<Limits>,
    /// How workers are asked.
    pub asking: Asking,
    /// What the workers count.
    pub metrics: Arc<Metrics>,
    /// Lines that the access log had to drop.
    pub access_lines_dropped: Arc<AtomicU64>,
}

impl Control {
    /// Starts the tasks on the present runtime; they end with it.
    pub fn start(
        self,
        noticed: mpsc::Receiver<Event>,
        probe: Option<std::net::TcpListener>,
    ) -> io::Result<()> {
        let watches = self.watches;
        let state = Rc::new(State {
            started: Millis::now(),
            snapshots: self
                .services
                .iter()
                .map(|s| Arc::clone(s.snapshot()))
                .collect(),
            gates: self.services.iter().map(|s| s.gate().cloned()).collect(),
            config: Arc::clone(&self.config),
            certificates: self.certificates,
            drain: self.drain,
            heartbeats: self.heartbeats,
            limits: self.limits,
            asking: self.asking,
            metrics: self.metrics,
            discovery: watches.stats(),
            access_lines_dropped: self.access_lines_dropped,
        });
        if let Some(probe) = probe {
            spawn_local(probe::serve(
                TcpListener::from_std(probe)?,
                Rc::clone(&state),
            ));
        }
        if let Some(budget) = super::memory::budget(&self.config) {
            spawn_local(super::memory::watch(budget, Arc::clone(&state.limits)));
        }
        spawn_local(forget_series(state));
        let (reports, found) = mpsc::channel(REPORTS);
        let checked = self.config.services.iter().any(|s| s.check.is_some());
        let prober = checked.then(|| Prober::start(reports)).transpose()?;
        let wards = self.config.services.iter().zip(&self.services);
        let wards = wards.map(|(config, service)| (config, Arc::clone(service.snapshot())));
        let health = Rc::new(RefCell::new(Health::new(wards, prober, Millis::now())));
        let services = self.config.services.iter().zip(self.services).enumerate();
        let subscriptions: Vec<_> = services
            .map(|(index, (config, service))| {
                let subscription = Rc::new(watches.subscribe(&config.discover));
                let (followed, health) = (Rc::clone(&subscription), Rc::clone(&health));
                spawn_local(follow(service, followed, index, health));
                subscription
            })
            .collect();
        let burst_over = Rc::new(Notify::new());
        spawn_local(give_back(Rc::clone(&burst_over)));
        let warden = Rc::new(Warden {
            health,
            subscriptions,
        });
        spawn_local(Rc::clone(&warden).tick());
        spawn_local(Rc::clone(&warden).take_reports(found));
        spawn_local(pass_on(noticed, warden, burst_over));
        Ok(())
    }
}

/// Health, and discovery that is told of it. A borrow of `health` never crosses an await.
struct Warden {
    health: Rc<RefCell<Health>>,
    /// By service.
    subscriptions: Vec<Rc<Subscription>>,
}

impl Warden {
    /// Lets time pass for health, for as long as the runtime lives.
    async fn tick(self: Rc<Self>) {
        let mut told = Instant::now();
        loop {
            sleep(HEALTH_EVERY).await;
            let now = Millis::now();
            let out = self.health.borrow_mut().tick(now);
            self.went_out(out);
            if told.elapsed() < STILL_OUT_EVERY {
                continue;
            }
            told = Instant::now();
            for (service, subscription) in self.subscriptions.iter().enumerate() {
                let out = self.health.borrow().out(service, now);
                if !out.is_empty() {
                    subscription.still_out(out);
                }
            }
        }
    }

    /// Takes up what checks find, until nothing is checked any more.
    async fn take_reports(self: Rc<Self>, mut found: mpsc::Receiver<Report>) {
        while let Some(report) = found.recv().await {
            let out = self.health.borrow_mut().report(report, Millis::now());
            self.went_out(out);
        }
    }

    fn went_out(&self, out: impl IntoIterator<Item = WentOut>) {
        for WentOut { service, address } in out {
            self.subscriptions[service].connect_failed(address);
        }
    }
}

/// Drops the series of backends that are long gone, where nobody scrapes.
async fn forget_series(state: Rc<State>) {
    loop {
        sleep(FORGET_EVERY).await;
        state.sweep(Millis::now());
    }
}

/// Writes the backends of every service to the log.
pub fn report(snapshots: &[Arc<Published<Snapshot>>]) {
    let now = Millis::now();
    for snapshot in snapshots {
        let snapshot = snapshot.load();
        for (priority, member) in snapshot.listed() {
            let backend = &member.backend;
            tracing::info!(
                service = %backend.service,
                backend = %backend.endpoint.socket(),
                name = %backend.endpoint.target,
                priority,
                weight = member.weight,
                in_flight = backend.in_flight(),
                state = backend.state(now).0.name(),
                reason = backend.state(now).1.name(),
                "state",
            );
        }
    }
}

/// Applies every offer of a service's discovery, for as long as the runtime lives.
async fn follow(
    mut service: Service,
    subscription: Rc<Subscription>,
    index: usize,
    health: Rc<RefCell<Health>>,
) {
    let mut offers = subscription.offers.clone();
    // Static backends were listed before anybody could be told.
    health.borrow().changed(index);
    loop {
        let offer = offers.borrow_and_update().offer.clone();
        let changes = service.apply(&offer);
        if !changes.added.is_empty() || !changes.removed.is_empty() {
            health.borrow().changed(index);
        }
        if offers.changed().await.is_err() {
            return;
        }
    }
}

/// Gives memory back to the system some time after each burst.
async fn give_back(burst_over: Rc<Notify>) {
    loop {
        burst_over.notified().await;
        sleep(SETTLING).await;
        // What was said meanwhile, by other workers too, is of the same burst.
        let _ = burst_over.notified().now_or_never();
        let begun = Instant::now();
        memory::give_back();
        let took = begun.elapsed();
        tracing::debug!(?took, "free memory given back to the system");
        sleep(pause_after(took)).await;
    }
}

/// How long nothing is given back after a time that took so long.
fn pause_after(took: Duration) -> Duration {
    took.saturating_mul(GIVE_BACK_RARITY)
        .clamp(GIVE_BACK_PAUSE, GIVE_BACK_LONGEST)
}

/// Tells those whom it concerns what the workers noticed.
async fn pass_on(mut noticed: mpsc::Receiver<Event>, warden: Rc<Warden>, burst_over: Rc<Notify>) {
    while let Some(event) = noticed.recv().await {
        match event {
            Event::ConnectFailed { service, backend } => {
                warden.subscriptions[service].connect_failed(backend);
            }
            Event::Failing { service, backend } => {
                let now = Millis::now();
                let out = warden.health.borrow_mut().failing(service, backend, now);
                warden.went_out(out);
            }
            Event::Trial {
                service,
                backend,
                passed,
            } => {
                let now = Millis::now();
                let out = warden
                    .health
                    .borrow_mut()
                    .trial(service, backend, passed, now);
                warden.went_out(out);
            }
            Event::BurstOver => burst_over.notify_one(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_the_more_seldom_the_longer_it_takes() {
        for (took_ms, pause_s) in [
            (0, 10),
            (10, 10),
            (25, 25),
            (60, 60),
            (61, 60),
            (100_000, 60),
        ] {
            let pause = pause_after(Duration::from_millis(took_ms));
            assert_eq!(pause, Duration::from_secs(pause_s), "{took_ms} ms");
        }
        assert_eq!(pause_after(Duration::MAX), GIVE_BACK_LONGEST);
    }
}
