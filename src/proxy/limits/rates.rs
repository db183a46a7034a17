//! The rate limits of all services.

use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::buckets::{Buckets, NAMES, Name};
use super::gcra::Gcra;
use super::origin::Origin;
use crate::clock::Nanos;
use crate::config::{Config, RateKey};
use crate::http::headers::Fields;
use crate::telemetry::metrics::BoundSample;

/// Limits, and who has made how many requests. In whichever service, they share one table.
#[derive(Debug)]
pub(super) struct Rates {
    /// Of each service, in the order of the configuration.
    limits: Box<[Option<Limit>]>,
    buckets: Arc<Buckets>,
}

#[derive(Debug)]
struct Limit {
    /// Stands for the service, in every generation of the configuration.
    service: Arc<str>,
    gcra: Gcra,
    by: RateKey,
}

impl Rates {
    /// `None`: no service has a limit. What was counted `before` is not forgotten.
    pub(super) fn new(config: &Config, before: Option<&Rates>) -> Option<Rates> {
        let limits = config.services.iter().map(|service| {
            service.rate_limit.as_ref().map(|limit| Limit {
                service: Arc::clone(&service.name),
                gcra: Gcra::new(limit),
                by: limit.by.clone(),
            })
        });
        let limits: Box<[_]> = limits.collect();
        limits.iter().any(Option::is_some).then(|| Rates {
            limits,
            buckets: match before {
                Some(before) => Arc::clone(&before.buckets),
                None => Arc::new(Buckets::new()),
            },
        })
    }

    /// See [`Limits::spend`](super::Limits::spend).
    pub(super) fn spend(
        &self,
        service: usize,
        client: impl FnOnce() -> IpAddr,
        fields: &Fields,
        now: Nanos,
    ) -> Result<(), Duration> {
        let Some(limit) = &self.limits[service] else {
            return Ok(());
        };
        let name = match &limit.by {
            RateKey::Header(name) => self.by_header(&limit.service, name, fields),
            RateKey::Address => None,
        };
        let by_address = || self.by_address(&limit.service, client());
        let name = name.unwrap_or_else(by_address);
        self.buckets.take(name, limit.gcra, now)
    }

    /// All lines of a field are one value. One without a value says nothing.
    fn by_header(&self, service: &str, name: &str, fields: &Fields) -> Option<Name> {
        let values = || fields.named(name).filter(|value| !value.is_empty());
        values().next()?;
        Some(self.buckets.name(|hasher| {
            (service, true).hash(hasher);
            values().for_each(|value| value.hash(hasher));
        }))
    }

    fn by_address(&self, service: &str, client: IpAddr) -> Name {
        let origin = Origin::of(client);
        (self.buckets).name(|hasher| (service, false, origin).hash(hasher))
    }

    /// Names that were in debt when they were forgotten.
    pub(super) fn forgiven(&self) -> u64 {
        self.buckets.forgiven()
    }

    /// For a scrape.
    pub(super) fn bound(&self) -> BoundSample {
        let totals = self.buckets.totals(Nanos::now());
        BoundSample {
            what: "rate_limited_clients",
            service: None,
            now: totals.in_debt as u64,
            bound: Some(NAMES as u64),
            high_water: Some(totals.most as u64),
        }
    }
}
