//! Which backends are out, and when they come back. Lives on the control thread.
//!
//! `prober.rs` checks backends on a thread of its own, with `probe.rs` and `grpc.rs` for one check
//! and `rise_fall.rs` (pure) for the counts; `ejection.rs` judges by what became of requests;
//! `chronicle.rs` says what happened, a handful of lines however often a backend flaps. Here all of
//! it comes together: who writes a backend's verdicts is this and nobody else.
//!
//! It knows nothing of clients' requests but what the workers say of backends ([`Event`]), and
//! decides nothing about discovery: that is told when a backend goes out.
//!
//! [`Event`]: crate::events::Event

pub mod ejection;
pub mod probe;
pub mod prober;
pub mod rise_fall;

mod chronicle;
mod grpc;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::mpsc;

use chronicle::{Chronicle, Why};
use ejection::{Ejector, Ruling, What};
use prober::{News, Prober, Report};

use crate::balance::snapshot::{Member, Snapshot};
use crate::clock::Millis;
use crate::config::{Check, EjectionRules, Service};
use crate::events::ServiceId;
use crate::events::journal::Journal;
use crate::published::Published;
use crate::upstream::backend::Backend;
use crate::upstream::standing::Reason;

/// The health of all services.
#[derive(Debug)]
pub struct Health {
    wards: BTreeMap<ServiceId, Ward>,
    /// Begins with the first service that is checked.
    prober: Option<Prober>,
    /// Where it reports to.
    reports: mpsc::Sender<Report>,
    chronicle: Chronicle,
}

/// The health of one service.
#[derive(Debug)]
struct Ward {
    snapshot: Arc<Published<Snapshot>>,
    check: Option<Arc<Check>>,
    rules: EjectionRules,
    ejector: Ejector,
    /// The share of a backend that comes back grows.
    rises: bool,
}

/// A backend went out: its name deserves an early lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WentOut {
    /// Of which service.
    pub service: ServiceId,
    /// Where the backend is.
    pub address: SocketAddr,
}

impl Health {
    /// Of no service yet. What checks find comes by `reports`, for [`Health::report`].
    pub fn new(reports: mpsc::Sender<Report>) -> Health {
        Health {
            wards: BTreeMap::new(),
            prober: None,
            reports,
            chronicle: Chronicle::default(),
        }
    }

    /// What happens is told to the journal of the process from now on.
    pub fn tell(&mut self, journal: Arc<Journal>) {
        self.chronicle.journal = journal;
    }

    /// Takes a service into care, or goes on with it by other rules. What is known of its backends
    /// stays known.
    pub fn attend(
        &mut self,
        id: ServiceId,
        service: &Service,
        snapshot: &Arc<Published<Snapshot>>,
        now: Millis,
    ) {
        let ejector = || Ejector::new(service.ejection.clone(), now);
        let ward = self.wards.entry(id).or_insert_with(|| Ward {
            snapshot: Arc::clone(snapshot),
            check: None,
            rules: service.ejection.clone(),
            ejector: ejector(),
            rises: false,
        });
        ward.rises = !service.balancing.slow_start.is_zero();
        if ward.rules != service.ejection {
            ward.rules = service.ejection.clone();
            ward.ejector = ejector();
        }
        if ward.check == service.check {
            return;
        }
        if let (Some(check), Some(prober)) = (&ward.check, &self.prober) {
            prober.watch(id, check, Vec::new());
        }
        ward.check = service.check.clone();
        if ward.check.is_none() {
            for (_, Member { backend, .. }) in ward.snapshot.load().listed() {
                // Nobody would ever say that it is back.
                backend.set_down(Reason::None);
            }
        }
        self.changed(id);
    }

    /// A service is not there any more.
    pub fn dismiss(&mut self, id: ServiceId) {
        let ward = self.wards.remove(&id);
        let check = ward.and_then(|ward| ward.check);
        if let (Some(check), Some(prober)) = (check, &self.prober) {
            prober.watch(id, &check, Vec::new());
        }
    }

    /// The backends of a service have changed.
    pub fn changed(&mut self, service: ServiceId) {
        let Some(ward) = self.wards.get(&service) else {
            return;
        };
        let Some(check) = &ward.check else { return };
        if self.prober.is_none() {
            match Prober::start(self.reports.clone()) {
                Ok(prober) => self.prober = Some(prober),
                Err(error) => tracing::error!(%error, "backends are not checked"),
            }
        }
        if let Some(prober) = &self.prober {
            let snapshot = ward.snapshot.load();
            // Those that are drained too: who takes one back wants to know.
            let listed = snapshot.listed().map(|(_, member)| &member.backend);
            let backends = listed.cloned().collect();
            prober.watch(service, check, backends);
        }
    }

    /// A backend has failed so often in a row that it may be ejected.
    pub fn failing(&mut self, service: ServiceId, backend: u64, now: Millis) -> Option<WentOut> {
        let ward = self.wards.get_mut(&service)?;
        let ruling = ward.ejector.failing(now, &ward.snapshot.load(), backend)?;
        self.carry_out(service, ruling, now)
    }

    /// The trial of an ejected backend is over.
    pub fn trial(
        &mut self,
        service: ServiceId,
        backend: u64,
        passed: bool,
        now: Millis,
    ) -> Option<WentOut> {
        let ward = self.wards.get_mut(&service)?;
        let ruling = ward
            .ejector
            .trial(now, &ward.snapshot.load(), backend, passed)?;
        self.carry_out(service, ruling, now)
    }

    /// To be called about once a second.
    pub fn tick(&mut self, now: Millis) -> Vec<WentOut> {
        let mut out = Vec::new();
        let wards = self.wards.iter_mut();
        let rulings = wards.map(|(id, ward)| (*id, ward.ejector.tick(now, &ward.snapshot.load())));
        for (service, rulings) in rulings.collect::<Vec<_>>() {
            for ruling in rulings {
                out.extend(self.carry_out(service, ruling, now));
            }
        }
        self.chronicle.tick(now);
        out
    }

    /// The backends of a service that are out, be it for their checks or for what became of
    /// requests.
    pub fn out(&self, service: ServiceId, now: Millis) -> Arc<[SocketAddr]> {
        let Some(ward) = self.wards.get(&service) else {
            return Arc::default();
        };
        let snapshot = ward.snapshot.load();
        let out = snapshot
            .backends()
            .filter(|b| b.down() != Reason::None || b.ejection().out_until(now).is_some());
        out.map(|backend| backend.endpoint.socket()).collect()
    }

    /// Checks have found something out.
    pub fn report(&mut self, report: Report, now: Millis) -> Vec<WentOut> {
        let mut out = Vec::new();
        for backend in report.backends {
            let before = backend.down();
            match &report.news {
                News::Up => {
                    if before == Reason::None {
                        // The first pass of one that was never out.
                        continue;
                    }
                    backend.set_down(Reason::None);
                    self.rise(&backend, now);
                    let why = Why::said("checks pass");
                    self.chronicle.write(&backend, now, "up", why, None);
                }
                News::Down(failed) => {
                    backend.set_down(failed.reason);
                    let detail = Some(failed.detail.as_str());
                    let why = failed.reason.into();
                    self.chronicle.write(&backend, now, "down", why, detail);
                    if let Some(service) = self.service_of(&backend) {
                        let address = backend.endpoint.socket();
                        out.push(WentOut { service, address });
                    }
                }
            }
        }
        out
    }

    fn carry_out(&mut self, service: ServiceId, ruling: Ruling, now: Millis) -> Option<WentOut> {
        let Ruling { backend, what } = ruling;
        let address = backend.endpoint.socket();
        let trial_failed = Why {
            name: "trial_failed",
            words: "the request that tried it failed",
        };
        let (event, why, time) = match what {
            What::Ejected(reason, time) => ("ejected", reason.into(), Some(time)),
            What::TrialFailed(time) => ("ejected", trial_failed, Some(time)),
            What::Back => ("up", Why::said("trial passed"), None),
            What::Released => ("up", Why::said("its tier needs it"), None),
        };
        if what == What::Back {
            self.rise(&backend, now);
        }
        let detail = time.map(|time| format!("for {time:?}"));
        self.chronicle
            .write(&backend, now, event, why, detail.as_deref());
        time.map(|_| WentOut { service, address })
    }

    /// Lets the share of a backend that is back grow, if somebody is there to take the rest.
    fn rise(&self, backend: &Arc<Backend>, now: Millis) {
        let Some(ward) = self.service_of(backend).and_then(|id| self.wards.get(&id)) else {
            return;
        };
        let snapshot = ward.snapshot.load();
        let Some((tier, _)) = ejection::find(&snapshot, backend.id.0) else {
            return;
        };
        let others = ejection::serving(now, &snapshot.tiers[tier]).any(|b| b.id != backend.id);
        let somebody = others || ejection::lower_serves(now, &snapshot, tier);
        backend.rise((ward.rises && somebody).then_some(now));
    }

    fn service_of(&self, backend: &Backend) -> Option<ServiceId> {
        let has = |ward: &Ward| ejection::find(&ward.snapshot.load(), backend.id.0).is_some();
        let mut wards = self.wards.iter();
        wards.find(|(_, ward)| has(ward)).map(|(id, _)| *id)
    }
}
