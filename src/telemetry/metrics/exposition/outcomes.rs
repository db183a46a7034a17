//! What the page says of how things ended that end seldom: errors, retries, handshakes.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use prometheus_client::metrics::MetricType::Counter;

use super::super::family::{Out, Value};
use super::super::shard::{Handshake, Rare};
use super::Page;

/// Reasons for which requests fail when a service goes down as a whole.
const BEGINS_AN_OUTAGE: [&str; 4] = [
    "connect_failed",
    "no_backend",
    "overloaded",
    "response_timeout",
];

impl Page {
    pub(super) fn outcomes(&self, out: &mut Out<'_>) -> fmt::Result {
        let mut sums: BTreeMap<Rare, u64> = BTreeMap::new();
        for shard in &self.shards {
            for (what, count) in shard.rare().iter() {
                *sums.entry(what.clone()).or_default() += count;
            }
        }
        let services = self.services();
        let mut family = out.family(
            "retries",
            "Requests sent to a backend for another time",
            Counter,
        )?;
        for service in &services {
            let retry = Rare::Retry {
                service: Arc::clone(service),
            };
            let count = sums.get(&retry).copied().unwrap_or(0);
            family.add(&[("service", &**service)], Value::Count(count))?;
        }
        let mut family = out.family(
            "retries_denied",
            "Requests that were not sent another time because the budget was spent",
            Counter,
        )?;
        for service in &services {
            let denied = Rare::RetryDenied {
                service: Arc::clone(service),
            };
            let count = sums.get(&denied).copied().unwrap_or(0);
            family.add(&[("service", &**service)], Value::Count(count))?;
        }
        let mut family = out.family(
            "mirrored_requests",
            "Requests that were to be copied to the service, by what became of the copy",
            Counter,
        )?;
        for (what, &count) in &sums {
            if let Rare::Mirrored { service, outcome } = what {
                let labels = [("service", &**service), ("outcome", *outcome)];
                family.add(&labels, Value::Count(count))?;
            }
        }
        let mut family = out.family(
            "upstream_errors",
            "Attempts that failed on a backend's side",
            Counter,
        )?;
        for (what, &count) in &sums {
            if let Rare::UpstreamError { service, reason } = what {
                let labels = [("service", &**service), ("reason", *reason)];
                family.add(&labels, Value::Count(count))?;
            }
        }
        // From the start on, so that a rate sees the first ones of an outage.
        for service in &services {
            for reason in BEGINS_AN_OUTAGE {
                let service = Arc::clone(service);
                sums.entry(Rare::FailedRequest { service, reason })
                    .or_default();
            }
        }
        let mut family = out.family(
            "failed_requests",
            "Requests that no backend answered, or not to the end, and not by the client's doing",
            Counter,
        )?;
        for (what, &count) in &sums {
            if let Rare::FailedRequest { service, reason } = what {
                let labels = [("service", &**service), ("reason", *reason)];
                family.add(&labels, Value::Count(count))?;
            }
        }
        let mut family = out.family(
            "grpc_calls",
            "Calls by gRPC, by the status that ended them",
            Counter,
        )?;
        for (what, &count) in &sums {
            if let Rare::GrpcCall { service, status } = what {
                let labels = [("service", &**service), ("status", *status)];
                family.add(&labels, Value::Count(count))?;
            }
        }
        let mut family = out.family(
            "downstream_errors",
            "Requests that failed on the client's side",
            Counter,
        )?;
        for (what, &count) in &sums {
            if let Rare::DownstreamError { reason } = what {
                family.add(&[("reason", *reason)], Value::Count(count))?;
            }
        }
        let mut family = out.family(
            "streams",
            "Connections that were passed on as they are, by how they ended",
            Counter,
        )?;
        for (what, &count) in &sums {
            if let Rare::Stream { service, outcome } = what {
                let labels = [
                    ("service", service.as_deref().unwrap_or_default()),
                    ("outcome", *outcome),
                ];
                family.add(&labels, Value::Count(count))?;
            }
        }
        let mut family = out.family(
            "refused_connections",
            "Connections of clients that were not taken in, by the limit that forbade it",
            Counter,
        )?;
        for (what, &count) in &sums {
            if let Rare::Refused { reason } = what {
                family.add(&[("reason", *reason)], Value::Count(count))?;
            }
        }
        let mut family = out.family(
            "connections_closed_for_memory",
            "Idle connections of clients that were closed for want of memory",
            Counter,
        )?;
        family.only(Value::Count(sums.get(&Rare::Shed).copied().unwrap_or(0)))?;
        let mut family = out.family(
            "tls_handshakes",
            "TLS handshakes with clients, by how they ended",
            Counter,
        )?;
        for (what, &count) in &sums {
            if let Rare::Handshake { version, ended } = what {
                let result = match ended {
                    Handshake::Full => "full",
                    Handshake::Resumed => "resumed",
                    Handshake::Failed => "failed",
                    Handshake::TimedOut => "timeout",
                };
                let labels = [
                    ("version", version.unwrap_or("unknown")),
                    ("result", result),
                ];
                family.add(&labels, Value::Count(count))?;
            }
        }
        Ok(())
    }
}
