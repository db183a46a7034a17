//! What attempts tell of their backends, and who is told.

use std::sync::Arc;
use std::time::Duration;

use super::Worker;
use crate::clock::Millis;
use crate::config::UpstreamProtocol;
use crate::events::Event;
use crate::io::duplex::Duplex;
use crate::proxy::failure::{self, Failure};
use crate::telemetry::metrics::{self, BackendLabels};
use crate::upstream::backend::Backend;
use crate::upstream::connect::is_exhaustion;
use crate::upstream::establish::{InWords, Unestablished};

/// What an attempt tells of its backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// It serves.
    Success,
    /// It does not.
    Failure,
    /// Nothing: the client's fault, ours, or a kept connection that had to end some time.
    None,
}

impl Worker {
    /// A connect to a backend failed: passed over from now on, and the control thread is told.
    /// That we have no descriptors or ports left is not the backend's fault. Returns what it
    /// tells of the backend: many that fail at one moment are one failure.
    pub fn connect_failed(
        &self,
        service: usize,
        backend: &Backend,
        error: &Unestablished,
    ) -> Evidence {
        if is_exhaustion(error.error()) {
            self.shared.limits.descriptors.failing(error.error());
            return Evidence::None;
        }
        if matches!(error, Unestablished::Tls(_) | Unestablished::Greeting(_)) {
            self.misunderstood(service, backend, error);
        }
        // The table's time may be a tick old: what is passed over is so for a second at least.
        let counted = backend.connect_failed(Millis::now());
        self.metrics
            .connect_failed(backend.id.0, || labels(backend));
        let event = Event::ConnectFailed {
            service: self.shared.services[service].id,
            backend: backend.endpoint.socket(),
        };
        // A full queue means that the control thread has plenty of such news already.
        let _ = self.shared.events.try_send(event);
        match counted {
            true => Evidence::Failure,
            false => Evidence::None,
        }
    }

    /// TLS to a backend came to nothing, or it speaks another protocol. Said aloud now and then: that
    /// stays so until somebody hears of it.
    fn misunderstood(&self, service: usize, backend: &Backend, why: &dyn std::fmt::Display) {
        if self.services[service]
            .misunderstanding
            .is_due(Millis::now())
        {
            tracing::warn!(
                service = %backend.service,
                backend = %backend.endpoint.socket(),
                name = backend.layers.tls.as_ref().map(|tls| &**tls.name()),
                "{why}",
            );
        }
    }

    /// A backend answered what cannot be understood: it may speak another protocol than is thought.
    pub fn speaks_otherwise(&self, service: usize, backend: &Backend, failure: &Failure) {
        let spoken = match self.service(service).upstream.protocol {
            UpstreamProtocol::Http => "HTTP/1.1",
            UpstreamProtocol::Https => "HTTP/1.1 over TLS",
            UpstreamProtocol::H2c => "HTTP/2",
            UpstreamProtocol::H2 => "HTTP/2 over TLS",
        };
        let why = format_args!("{failure}: is it {spoken} that it speaks (`upstream`)?");
        self.misunderstood(service, backend, &why);
    }

    /// An attempt over this connection failed. A backend that wants another certificate than ours
    /// says so only when TLS 1.3 has begun to carry the request.
    pub fn look_at_tls(&self, service: usize, backend: &Backend, connection: &Duplex) {
        connection.with_transport(|transport| {
            if let Some(error) = transport.tls().and_then(|tls| tls.failure()) {
                self.misunderstood(service, backend, &InWords(error));
            }
        });
    }

    /// What has become of an attempt, as far as it tells of the backend. `trial`: the backend was
    /// ejected, and this attempt was to find out whether it is back.
    pub fn judge(&self, service: usize, backend: &Backend, trial: bool, verdict: Evidence) {
        let failures = match verdict {
            Evidence::Success => {
                backend.succeeded();
                0
            }
            Evidence::Failure => backend.failed(),
            Evidence::None if trial => return backend.trial_abandoned(self.deadlines.now()),
            Evidence::None => return,
        };
        let threshold = self.service(service).ejection.failures;
        let (id, service) = (backend.id.0, self.shared.services[service].id);
        let event = match trial {
            true => Event::Trial {
                service,
                backend: id,
                passed: verdict == Evidence::Success,
            },
            // Again and again: the control thread may have had a reason to leave it in.
            false if failures > 0 && threshold > 0 && failures % threshold == 0 => Event::Failing {
                service,
                backend: id,
            },
            false => return,
        };
        // A full queue: a trial is made again after its time, a failing backend fails again.
        let _ = self.shared.events.try_send(event);
    }

    /// The trial of a backend has passed, although its response goes on.
    pub fn trial_passed(&self, service: usize, backend: &Backend) {
        let event = Event::Trial {
            service: self.shared.services[service].id,
            backend: backend.id.0,
            passed: true,
        };
        // A full queue: the trial is made again after its time.
        let _ = self.shared.events.try_send(event);
    }

    /// The same as [`Worker::judge`] for schedules that go by load: what failed burdens its backend,
    /// and so does an answer of 500 to 599, whatever the ejection rules say, or whoever fails fast
    /// would be thought idle. `first_byte`: how long it took to come, where that was the backend's
    /// time.
    pub fn weigh(
        &self,
        service: usize,
        backend: &Backend,
        verdict: Evidence,
        status: u16,
        first_byte: Option<Duration>,
    ) {
        if !self.service(service).balancing.strategy.minds_load() {
            return;
        }
        let now = self.deadlines.now();
        match (verdict, first_byte) {
            (Evidence::None, _) => {}
            (Evidence::Success, Some(latency)) if status < 500 => {
                backend.load.succeeded(now, latency);
            }
            (Evidence::Success, None) if status < 500 => {}
            (_, took) => backend.load.failed(now, took.unwrap_or_default()),
        }
    }

    /// An attempt with a backend is over; the first byte of its response came after so long.
    pub fn attempted(&self, backend: &Backend, first_byte: Option<Duration>) {
        self.metrics
            .attempt(backend.id.0, first_byte, || labels(backend));
    }

    /// A connection to a backend is made: counts it until what is returned is dropped.
    pub fn connected(&self, service: usize, backend: &Backend) -> metrics::OpenConnection {
        let labels = || labels(backend);
        self.metrics
            .backend_connection(service, backend.id.0, labels)
    }

    /// An attempt failed: counts it, and says so once, if it was the backend's doing.
    pub fn upstream_failed(&self, service: usize, backend: &Backend, failure: &Failure) {
        let meaning = failure.meaning();
        if meaning.side != failure::Side::Upstream {
            return;
        }
        self.metrics.upstream_error(service, meaning.reason);
        tracing::debug!(
            service = %backend.service,
            backend = %backend.endpoint.socket(),
            reason = meaning.reason,
            progress = ?failure.progress,
            error = %failure,
            "attempt failed",
        );
    }
}

/// What a backend is called in the metrics.
pub fn labels(backend: &Backend) -> BackendLabels {
    BackendLabels {
        service: Arc::clone(&backend.service),
        backend: (*backend.address).into(),
    }
}
