//! What a generation of the configuration consists of for the workers, made of what was prepared and of
//! what stays from the generation before.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::prepare::{Challenging, Draft, Prepared};
use crate::balance::service::{Service, Terms};
use crate::config::{self, Config};
use crate::events::{Event, ServiceId};
use crate::proxy::drain::Drain;
use crate::proxy::limits::Limits;
use crate::proxy::questions::Questions;
use crate::proxy::samples::Samples;
use crate::proxy::seating::Seating;
use crate::proxy::worker::{Serviced, Shared};
use crate::router::Router;
use crate::telemetry::metrics::Names;
use crate::telemetry::spans::Tracer;
use crate::upstream::adaptive::Adaptive;
use crate::upstream::gate::Gate;

/// Services that are new in a generation, by index.
pub type New = Vec<(usize, Service)>;

/// What the first generation begins with, and all others share.
#[derive(Debug)]
pub struct Common {
    /// How far a drain has come.
    pub drain: Arc<Drain>,
    /// Where noticed things go.
    pub events: mpsc::Sender<Event>,
    /// How many client connections each worker has.
    pub seating: Arc<Seating>,
    /// What the workers are asked.
    pub questions: Arc<Questions>,
    /// Requests that they kept.
    pub samples: Arc<Samples>,
    /// Where authorities are answered that validate a name.
    pub challenges: Challenging,
    /// Who records requests.
    pub tracer: Option<Arc<Tracer>>,
}

/// The first generation. All its services are new.
pub fn first(prepared: &Prepared, common: Common) -> (Shared, New) {
    let limits = Limits::new(Arc::clone(&prepared.config));
    make(prepared, common, limits, 1)
}

/// The generation after `before`.
pub fn next(prepared: &Prepared, before: &Shared) -> (Shared, New) {
    let common = Common {
        drain: Arc::clone(&before.drain),
        events: before.events.clone(),
        seating: Arc::clone(&before.seating),
        questions: Arc::clone(&before.questions),
        samples: Arc::clone(&before.samples),
        challenges: Arc::clone(&before.challenges),
        tracer: before.tracer.clone(),
    };
    let limits = before.limits.renewed(Arc::clone(&prepared.config));
    make(prepared, common, limits, before.generation + 1)
}

fn make(
    prepared: &Prepared,
    common: Common,
    limits: Arc<Limits>,
    generation: u64,
) -> (Shared, New) {
    let config = &prepared.config;
    let mut new = New::new();
    let drafts = config.services.iter().zip(&prepared.services).enumerate();
    let services = drafts.map(|(index, (config, draft))| {
        draft.kept.clone().unwrap_or_else(|| {
            let service = Service::on(Arc::clone(&config.name), terms(config, draft));
            let serviced = Serviced {
                id: ServiceId::unused(),
                snapshot: Arc::clone(service.snapshot()),
                gate: service.gate().cloned(),
                affinity: draft.affinity.clone(),
                layering: draft.layering.clone(),
            };
            new.push((index, service));
            serviced
        })
    });
    let services = services.collect();
    let shared = Shared {
        generation,
        router: Arc::new(Router::new(config)),
        names: Arc::new(names(config)),
        services,
        listeners: prepared.listeners.clone(),
        drain: common.drain,
        events: common.events,
        limits,
        seating: common.seating,
        questions: common.questions,
        samples: common.samples,
        challenges: common.challenges,
        tracer: common.tracer,
        config: Arc::clone(config),
    };
    (shared, new)
}

fn names(config: &Config) -> Names {
    let services = config.services.iter().map(|s| Arc::clone(&s.name));
    let listeners = config.listeners.iter().map(|l| Arc::clone(&l.name));
    Names {
        services: services.collect(),
        listeners: listeners.collect(),
    }
}

/// What a service's backends begin with.
fn terms(service: &config::Service, draft: &Draft) -> Terms {
    Terms {
        affinity: draft.affinity.clone(),
        layering: draft.layering.clone(),
        gate: service.in_flight.map(|limits| {
            let adaptive = limits.adaptive.map(|a| Adaptive::new(a.least, a.most));
            Gate::new(limits.per_backend, adaptive, limits.queue, limits.timeout)
        }),
        unchecked_is_down: service.check.as_ref().is_some_and(|c| c.initially_down),
        rises: !service.balancing.slow_start.is_zero(),
    }
}
