//! The control thread's tasks: discovery into services, what workers and checks noticed to whoever
//! judges it and back to discovery, memory back to the system after a burst, the probe listener.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};

use super::Source;
use super::admin::{self, Entrances, Left, Steward};
use super::certificates::Certificates;
use super::generation::New;
use super::prepare::{OwnKey, Sockets};
use super::reload::{Reloader, Request};
use super::services::Services;
use super::systemd::{Doors, Notifier};
use crate::acme::Acme;
use crate::admin::probe;
use crate::admin::state::State;
use crate::clock::Millis;
use crate::discovery::watch::Watches;
use crate::events::journal::{Journal, Kind, What};
use crate::events::{Event, Sign};
use crate::listener::inherited::Inherited;
use crate::memory;
use crate::proxy::worker::Shared;
use crate::published::Published;
use crate::telemetry::metrics::Metrics;
use crate::tls::reload::CertificateWatch;

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

/// What checks have found may wait in such a number; then they wait themselves.
pub(super) const REPORTS: usize = 256;

/// What the control thread works with.
pub struct Control {
    /// Where the configuration comes from; `None`: it cannot be read again.
    pub source: Option<Source>,
    /// The secret of cookies without a key file.
    pub own: OwnKey,
    /// Sockets that were handed to this process.
    pub inherited: Arc<Inherited>,
    /// Who wants to know how we are.
    pub notifier: Notifier,
    /// The generation that is in force.
    pub published: Arc<Published<Shared>>,
    /// The names that are watched.
    pub watches: Watches,
    /// The services of the first generation, by index.
    pub services: New,
    /// Its listening sockets.
    pub sockets: Sockets,
    /// What is known of each worker.
    pub signs: Vec<Arc<Sign>>,
    /// What the workers count.
    pub metrics: Arc<Metrics>,
    /// Lines that the access log had to drop.
    pub access_lines_dropped: Arc<AtomicU64>,
    /// Addresses of ours besides the listeners'.
    pub own_addresses: Vec<SocketAddr>,
    /// What happens in this process.
    pub journal: Arc<Journal>,
    /// The ways in to the control listener.
    pub entrances: Entrances,
}

/// What whoever started it needs of it.
pub struct Started {
    /// Where to ask for a reload.
    pub reloads: mpsc::UnboundedSender<Request>,
    /// The listening sockets of whichever generation is in force, for whoever closes them.
    pub sockets: Rc<RefCell<Sockets>>,
    /// What is to be taken away at the end.
    pub left: Left,
}

impl Control {
    /// Starts the tasks on the present runtime; they end with it.
    pub fn start(
        self,
        noticed: mpsc::Receiver<Event>,
        probe: Option<std::net::TcpListener>,
    ) -> io::Result<Started> {
        let shared = self.published.load();
        let reloads = Rc::default();
        // One word is enough, however much has changed.
        let (changed, has_changed) = mpsc::channel(1);
        let certificates = Certificates {
            watch: Rc::new(CertificateWatch::start(changed, Arc::clone(&self.journal))?),
            acme: Rc::new(Acme::new(
                Arc::clone(&shared.challenges),
                Arc::clone(&self.journal),
            )),
        };
        certificates.follow(&shared);
        let state = Rc::new(State {
            started: Millis::now(),
            generations: Arc::clone(&self.published),
            signs: self.signs.clone(),
            certificate_watch: Rc::clone(&certificates.watch),
            acme: Rc::clone(&certificates.acme),
            metrics: self.metrics,
            discovery: self.watches.stats(),
            access_lines_dropped: self.access_lines_dropped,
            reloads: Rc::clone(&reloads),
            journal: Arc::clone(&self.journal),
            occupancy: Default::default(),
        });
        let mut doors = Doors::default();
        if let Some(probe) = probe {
            let probe = TcpListener::from_std(probe)?;
            let task = spawn_local(probe::serve(probe, Rc::clone(&state)));
            doors.tasks.push(task);
        }
        if let Some(budget) = super::memory::budget(&shared.config) {
            let pressure = Arc::clone(&shared.limits.pressure);
            spawn_local(super::memory::watch(budget, pressure));
        }
        let notifier = Rc::new(self.notifier);
        spawn_local(forget_series(Rc::clone(&state)));
        let started = format!("evenkeel {} has started", env!("CARGO_PKG_VERSION"));
        self.journal.record(What::new(Kind::Started, started));
        let (services, found) = Services::new(self.watches, Arc::clone(&self.journal));
        for (index, service) in self.services {
            let discover = &shared.config.services[index].discover;
            services.begin(shared.services[index].id, service, discover);
        }
        services.attend(&shared);
        let burst_over = Rc::new(Notify::new());
        spawn_local(give_back(Rc::clone(&burst_over)));
        spawn_local(Rc::clone(&services).tick());
        spawn_local(Rc::clone(&services).take_reports(found));
        spawn_local(pass_on(noticed, Rc::clone(&services), burst_over));
        let sockets = Rc::new(RefCell::new(self.sockets));
        let (requests, requested) = mpsc::unbounded_channel();
        let steward = Steward {
            published: Arc::clone(&self.published),
            services: Rc::clone(&services),
            reloads: requests.clone(),
            journal: Arc::clone(&self.journal),
        };
        let left = admin::start(self.entrances, &state, steward, &mut doors)?;
        spawn_local(super::systemd::attend(
            Rc::clone(&notifier),
            Rc::clone(&state),
            doors,
        ));
        let reloader = Reloader {
            source: self.source,
            own: self.own,
            inherited: self.inherited,
            notifier,
            published: self.published,
            services,
            certificates,
            sockets: Rc::clone(&sockets),
            signs: self.signs,
            own_addresses: self.own_addresses,
            journal: self.journal,
            first: Arc::clone(&shared.config),
            record: reloads,
        };
        spawn_local(reloader.run(requested, has_changed));
        Ok(Started {
            reloads: requests,
            sockets,
            left,
        })
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
pub fn report(shared: &Shared) {
    let now = Millis::now();
    for service in &shared.services {
        let snapshot = service.snapshot.load();
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
async fn pass_on(
    mut noticed: mpsc::Receiver<Event>,
    services: Rc<Services>,
    burst_over: Rc<Notify>,
) {
    while let Some(event) = noticed.recv().await {
        match event {
            Event::BurstOver => burst_over.notify_one(),
            event => services.noticed(event),
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
