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

use std::net::SocketAddr;
use std::sync::Arc;

use chronicle::Chronicle;
use ejection::{Ejector, Ruling, What};
use prober::{News, Prober, Report};

use crate::balance::snapshot::Snapshot;
use crate::clock::Millis;
use crate::config::{Check, Service};
use crate::published::Published;
use crate::upstream::backend::Backend;
use crate::upstream::standing::Reason;

/// The health of all services.
#[derive(Debug)]
pub struct Health {
    wards: Vec<Ward>,
    prober: Option<Prober>,
    chronicle: Chronicle,
}

/// The health of one service.
#[derive(Debug)]
struct Ward {
    snapshot: Arc<Published<Snapshot>>,
    check: Option<Arc<Check>>,
    ejector: Ejector,
    /// The share of a backend that comes back grows.
    rises: bool,
}

/// A backend went out: its name deserves an early lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WentOut {
    /// Index of the service.
    pub service: usize,
    /// Where the backend is.
    pub address: SocketAddr,
}

impl Health {
    /// Of these services, each with its snapshot. Without a `prober` nothing is checked.
    pub fn new<'a>(
        services: impl Iterator<Item = (&'a Service, Arc<Published<Snapshot>>)>,
        prober: Option<Prober>,
        now: Millis,
    ) -> Health {
        let ward = |(service, snapshot): (&Service, _)| Ward {
            snapshot,
            check: service.check.clone(),
            ejector: Ejector::new(service.ejection.clone(), now),
            rises: !service.balancing.slow_start.is_zero(),
        };
        Health {
            wards: services.map(ward).collect(),
            prober,
            chronicle: Chronicle::default(),
        }
    }

    /// The backends of a service have changed.
    pub fn changed(&self, service: usize) {
        let ward = &self.wards[service];
        if let (Some(check), Some(prober)) = (&ward.check, &self.prober) {
            let snapshot = ward.snapshot.load();
            // Those that are drained too: who takes one back wants to know.
            let listed = snapshot.listed().map(|(_, member)| &member.backend);
            let backends = listed.cloned().collect();
            prober.watch(service, check, backends);
        }
    }

    /// A backend has failed so often in a row that it may be ejected.
    pub fn failing(&mut self, service: usize, backend: u64, now: Millis) -> Option<WentOut> {
        let ward = &mut self.wards[service];
        let ruling = ward.ejector.failing(now, &ward.snapshot.load(), backend)?;
        self.carry_out(service, ruling, now)
    }

    /// The trial of an ejected backend is over.
    pub fn trial(
        &mut self,
        service: usize,
        backend: u64,
        passed: bool,
        now: Millis,
    ) -> Option<WentOut> {
        let ward = &mut self.wards[service];
        let ruling = ward
            .ejector
            .trial(now, &ward.snapshot.load(), backend, passed)?;
        self.carry_out(service, ruling, now)
    }

    /// To be called about once a second.
    pub fn tick(&mut self, now: Millis) -> Vec<WentOut> {
        let mut out = Vec::new();
        for service in 0..self.wards.len() {
            let ward = &mut self.wards[service];
            let rulings = ward.ejector.tick(now, &ward.snapshot.load());
            for ruling in rulings {
                out.extend(self.carry_out(service, ruling, now));
            }
        }
        self.chronicle.tick(now);
        out
    }

    /// The backends of a service that are out, be it for their checks or for what became of
    /// requests.
    pub fn out(&self, service: usize, now: Millis) -> Arc<[SocketAddr]> {
        let snapshot = self.wards[service].snapshot.load();
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
                    self.chronicle
                        .write(&backend, now, "up", "checks pass", None);
                }
                News::Down(failed) => {
                    backend.set_down(failed.reason);
                    let detail = Some(failed.detail.as_str());
                    let reason = failed.reason.name();
                    self.chronicle.write(&backend, now, "down", reason, detail);
                    if let Some(service) = self.service_of(&backend) {
                        let address = backend.endpoint.socket();
                        out.push(WentOut { service, address });
                    }
                }
            }
        }
        out
    }

    fn carry_out(&mut self, service: usize, ruling: Ruling, now: Millis) -> Option<WentOut> {
        let Ruling { backend, what } = ruling;
        let address = backend.endpoint.socket();
        let (event, reason, time) = match what {
            What::Ejected(reason, time) => ("ejected", reason.name(), Some(time)),
            What::TrialFailed(time) => ("ejected", "trial_failed", Some(time)),
            What::Back => ("up", "trial passed", None),
            What::Released => ("up", "its tier needs it", None),
        };
        if what == What::Back {
            self.rise(&backend, now);
        }
        let detail = time.map(|time| format!("for {time:?}"));
        self.chronicle
            .write(&backend, now, event, reason, detail.as_deref());
        time.map(|_| WentOut { service, address })
    }

    /// Lets the share of a backend that is back grow, if somebody is there to take the rest.
    fn rise(&self, backend: &Arc<Backend>, now: Millis) {
        let Some(ward) = self.service_of(backend).map(|index| &self.wards[index]) else {
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

    fn service_of(&self, backend: &Backend) -> Option<usize> {
        self.wards
            .iter()
            .position(|ward| ejection::find(&ward.snapshot.load(), backend.id.0).is_some())
    }
}
