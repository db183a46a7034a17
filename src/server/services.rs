//! The services that run: who follows their names, and who is told of their backends. On the control
//! thread.
//!
//! A service begins when a generation of the configuration is made ready that has one with other
//! backends, and ends when it is in no newer one. What lies between is the same for all generations
//! that share it. A borrow of a cell never crosses an await.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{Instant, sleep, timeout_at};

use super::control::REPORTS;
use crate::balance::service::Service;
use crate::clock::Millis;
use crate::config::Discover;
use crate::discovery::Offer;
use crate::discovery::watch::{STILL_OUT_EVERY, Subscription, Watches};
use crate::events::command::{Change, Refused};
use crate::events::journal::Journal;
use crate::events::{Event, ServiceId};
use crate::health::prober::Report;
use crate::health::{Health, WentOut};
use crate::proxy::worker::Shared;

/// Time between two looks at success rates and at the bounds of ejection.
const HEALTH_EVERY: Duration = Duration::from_secs(1);

/// Time between two looks whether a new service can serve.
const WARMING: Duration = Duration::from_millis(10);

/// Time between two looks whether a generation is still served by.
const GONE: Duration = Duration::from_millis(100);

/// All services that run.
pub struct Services {
    watches: Watches,
    health: RefCell<Health>,
    running: RefCell<BTreeMap<ServiceId, Running>>,
    /// Generations that were in force, for as long as a connection goes on by one of them.
    past: RefCell<Vec<Weak<Shared>>>,
}

struct Running {
    service: Rc<RefCell<Service>>,
    subscription: Rc<Subscription>,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Services {
    /// None yet. The second is what checks find, for [`Services::take_reports`].
    pub fn new(watches: Watches, journal: Arc<Journal>) -> (Rc<Services>, mpsc::Receiver<Report>) {
        let (reports, found) = mpsc::channel(REPORTS);
        let mut health = Health::new(reports);
        health.tell(journal);
        let services = Services {
            watches,
            health: RefCell::new(health),
            running: RefCell::default(),
            past: RefCell::default(),
        };
        (Rc::new(services), found)
    }

    /// The names that are watched.
    pub fn watches(&self) -> &Watches {
        &self.watches
    }

    /// A service begins: its name is followed from now on.
    pub fn begin(self: &Rc<Self>, id: ServiceId, service: Service, discover: &Discover) {
        let service = Rc::new(RefCell::new(service));
        let subscription = Rc::new(self.watches.subscribe(discover));
        let follow = Rc::clone(self).follow(id, Rc::clone(&service), Rc::clone(&subscription));
        let running = Running {
            task: spawn_local(follow),
            service,
            subscription,
        };
        self.running.borrow_mut().insert(id, running);
    }

    /// What was set by hand of a running service of that name holds for one that takes its place.
    pub fn hand_down(&self, service: &mut Service) {
        let running = self.running.borrow();
        let old = running.values().map(|running| running.service.borrow());
        if let Some(old) = { old }.find(|old| old.name() == service.name()) {
            service.take_over(old.by_hand().clone(), Millis::now());
        }
    }

    /// The same for services that run already: more may have been set while they got ready.
    pub fn hand_down_to(&self, new: &[ServiceId]) {
        let running = self.running.borrow();
        for id in new {
            let Some(successor) = running.get(id) else {
                continue;
            };
            let mut successor = successor.service.borrow_mut();
            let olds = running.iter().filter(|(other, _)| !new.contains(other));
            let olds = olds.map(|(_, old)| old.service.borrow());
            if let Some(old) = { olds }.find(|old| old.name() == successor.name()) {
                successor.take_over(old.by_hand().clone(), Millis::now());
            }
        }
    }

    /// Changes something by hand of those who are at `address` in a service of the newest generation.
    pub fn set_by_hand(
        &self,
        service: ServiceId,
        address: SocketAddr,
        change: Change,
    ) -> Result<(), Refused> {
        let running = self.running.borrow();
        let running = running.get(&service).ok_or(Refused::Unknown)?;
        let mut service = running.service.borrow_mut();
        service.set_by_hand(address, change, Millis::now())?;
        Ok(())
    }

    /// The rules of a generation hold for its services.
    pub fn attend(&self, shared: &Shared) {
        let now = Millis::now();
        let mut health = self.health.borrow_mut();
        let running = self.running.borrow();
        for (config, serviced) in shared.config.services.iter().zip(&shared.services) {
            if let Some(running) = running.get(&serviced.id) {
                let initially_down = config.check.as_ref().is_some_and(|c| c.initially_down);
                let rises = !config.balancing.slow_start.is_zero();
                let mut service = running.service.borrow_mut();
                service.receive_newcomers(initially_down, rises);
            }
            health.attend(serviced.id, config, &serviced.snapshot, now);
        }
    }

    /// Waits until these services can serve, for no longer than that: their names were answered, and
    /// some backend can be picked if there is any.
    pub async fn warm(&self, new: &[ServiceId], longest: Duration) {
        let deadline = Instant::now() + longest;
        let is_warm = |id| {
            let running = self.running.borrow();
            running.get(id).is_none_or(|running| {
                let snapshot = running.service.borrow().snapshot().load();
                let now = Millis::now();
                let mut backends = snapshot.backends().peekable();
                snapshot.answered
                    && (backends.peek().is_none() || backends.any(|b| b.out_until(now).is_none()))
            })
        };
        let all = async {
            while !new.iter().all(is_warm) {
                sleep(WARMING).await;
            }
        };
        // Whoever does not answer must not keep the others waiting.
        let _ = timeout_at(deadline, all).await;
    }

    /// Services end that the newest generation does not have. The backends of one whose name is not
    /// there any more are withdrawn as soon as nobody goes on by a generation that had it, or when the
    /// time is up that a drain gives requests: until then a request of before may have its backend
    /// still to pick. Where only others have taken their place, what is under way with them goes on.
    pub fn end_all_but(&self, newest: &Shared, before: &Arc<Shared>) {
        let past = {
            let mut past = self.past.borrow_mut();
            past.retain(|generation| generation.strong_count() > 0);
            past.push(Arc::downgrade(before));
            past.clone()
        };
        let kept: BTreeSet<_> = newest.services.iter().map(|service| service.id).collect();
        let ended: Vec<_> = {
            let mut running = self.running.borrow_mut();
            running.extract_if(.., |id, _| !kept.contains(id)).collect()
        };
        for (id, running) in ended {
            self.health.borrow_mut().dismiss(id);
            let mut names = newest.config.services.iter().map(|service| &service.name);
            if !names.any(|name| name == running.service.borrow().name()) {
                let longest = newest.config.drain.requests;
                spawn_local(withdraw(running, past.clone(), longest));
            }
        }
    }

    /// Lets time pass for health, for as long as the runtime lives.
    pub async fn tick(self: Rc<Self>) {
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
            for (id, running) in self.running.borrow().iter() {
                let out = self.health.borrow().out(*id, now);
                if !out.is_empty() {
                    running.subscription.still_out(out);
                }
            }
        }
    }

    /// Takes up what checks find, for as long as the runtime lives.
    pub async fn take_reports(self: Rc<Self>, mut found: mpsc::Receiver<Report>) {
        while let Some(report) = found.recv().await {
            let out = self.health.borrow_mut().report(report, Millis::now());
            self.went_out(out);
        }
    }

    /// Takes up what a worker noticed. An event may be older than the end of its service.
    pub fn noticed(&self, event: Event) {
        let now = Millis::now();
        match event {
            Event::ConnectFailed { service, backend } => self.connect_failed(service, backend),
            Event::Failing { service, backend } => {
                let out = self.health.borrow_mut().failing(service, backend, now);
                self.went_out(out);
            }
            Event::Trial {
                service,
                backend,
                passed,
            } => {
                let mut health = self.health.borrow_mut();
                let out = health.trial(service, backend, passed, now);
                drop(health);
                self.went_out(out);
            }
            Event::BurstOver => {}
        }
    }

    fn went_out(&self, out: impl IntoIterator<Item = WentOut>) {
        for WentOut { service, address } in out {
            self.connect_failed(service, address);
        }
    }

    fn connect_failed(&self, service: ServiceId, backend: SocketAddr) {
        if let Some(running) = self.running.borrow().get(&service) {
            running.subscription.connect_failed(backend);
        }
    }

    /// Applies every offer of a service's discovery, until it ends.
    async fn follow(
        self: Rc<Self>,
        id: ServiceId,
        service: Rc<RefCell<Service>>,
        subscription: Rc<Subscription>,
    ) {
        let mut offers = subscription.offers.clone();
        // Static backends were listed before anybody could be told.
        self.health.borrow_mut().changed(id);
        loop {
            let offer = offers.borrow_and_update().offer.clone();
            let changes = service.borrow_mut().apply(&offer);
            if !changes.added.is_empty() || !changes.removed.is_empty() {
                self.health.borrow_mut().changed(id);
            }
            if offers.changed().await.is_err() {
                return;
            }
        }
    }
}

/// Withdraws the backends of a service that ended: when these generations are gone, or then.
async fn withdraw(ended: Running, past: Vec<Weak<Shared>>, longest: Duration) {
    let gone = async {
        while past.iter().any(|generation| generation.strong_count() > 0) {
            sleep(GONE).await;
        }
    };
    let _ = timeout_at(Instant::now() + longest, gone).await;
    ended.service.borrow_mut().apply(&Offer::Absent);
}

/// A service that has heard of its backends what is known without asking.
pub fn begun(mut service: Service, discover: &Discover, watches: &Watches) -> Service {
    if let Some(offer) = watches.known(discover) {
        service.apply(&offer);
    }
    service
}

impl std::fmt::Debug for Services {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Services").finish_non_exhaustive()
    }
}
