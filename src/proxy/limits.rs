//! What the workers together may take on: client connections, in all and of one client, and
//! requests of one client.
//!
//! Made by `server`; asked by `listener` for each connection and by `request` for each request, and
//! read by a scrape. `origin.rs` (pure) says whom a limit takes for one client; `clients.rs` counts
//! the connections of each, `rates.rs` its requests: `gcra.rs` (pure) by which rule, `buckets.rs`
//! where that is remembered. `descriptors.rs` keeps some for backends,
//! `pressure.rs` says how short memory is. What is not configured is not
//! there.

mod buckets;
mod clients;
pub mod descriptors;
mod gcra;
pub mod origin;
pub mod pressure;
mod rates;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use clients::Clients;
use descriptors::Descriptors;
use origin::Origin;
use pressure::Pressure;
use rates::Rates;

use crate::clock::Nanos;
use crate::config::Config;
use crate::http::headers::Fields;
use crate::memory::level::Level;
use crate::telemetry::metrics::BoundSample;

/// The limits of this process, and how much of each is taken.
#[derive(Debug)]
pub struct Limits {
    config: Arc<Config>,
    /// Descriptors, of which clients may not take all.
    pub descriptors: Descriptors,
    /// How short memory is.
    pub pressure: Pressure,
    /// Client connections that are open. Written by every worker. Relaxed: a number, it orders
    /// nothing; the limit holds because every taker adds first.
    open: AtomicUsize,
    /// Where connections are limited by client.
    clients: Option<Clients>,
    /// Where requests are.
    rates: Option<Rates>,
}

/// A connection that was taken in; to be given back with [`Limits::leave`].
#[derive(Debug)]
#[must_use]
pub struct Admitted {
    /// Whose count it is in, where those are kept.
    counted: Option<Origin>,
}

/// Why a client's connection is not taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// There are `limits.max_connections`.
    Full,
    /// Its client has `limits.max_connections_per_client`.
    FullForClient,
    /// There are too few descriptors left.
    Descriptors,
    /// There is too little memory left.
    Memory,
}

impl Refused {
    /// As metrics call it: the key that sets the limit, where there is one.
    pub fn reason(self) -> &'static str {
        match self {
            Refused::Full => "max_connections",
            Refused::FullForClient => "max_connections_per_client",
            Refused::Descriptors => "descriptors",
            Refused::Memory => "memory",
        }
    }
}

impl Limits {
    /// Nothing is taken yet.
    pub fn new(config: Arc<Config>) -> Arc<Limits> {
        let most = config.downstream.max_connections_per_client;
        Arc::new(Limits {
            descriptors: Descriptors::of_this_process(),
            pressure: Pressure::default(),
            open: AtomicUsize::new(0),
            clients: most.map(Clients::new),
            rates: Rates::new(&config),
            config,
        })
    }

    /// Counts one more connection of a client, unless there are as many as there may be. A trusted
    /// proxy speaks for many clients: only the limit of all connections holds for it.
    pub fn admit(&self, address: IpAddr) -> Result<Admitted, Refused> {
        if self.pressure.level() == Level::Refusing {
            return Err(Refused::Memory);
        }
        if self.open.fetch_add(1, Ordering::Relaxed) >= self.most() {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(Refused::Full);
        }
        let Some(clients) = &self.clients else {
            return Ok(Admitted { counted: None });
        };
        if self.config.trusts(address) {
            return Ok(Admitted { counted: None });
        }
        let origin = Origin::of(address);
        if clients.enter(origin) {
            return Ok(Admitted {
                counted: Some(origin),
            });
        }
        self.open.fetch_sub(1, Ordering::Relaxed);
        Err(Refused::FullForClient)
    }

    /// A trusted proxy has said whose connection one is that was taken in: it counts as that client's
    /// from now on, unless there are as many as there may be.
    pub fn identify(&self, admitted: &mut Admitted, client: IpAddr) -> Result<(), Refused> {
        let Some(clients) = &self.clients else {
            return Ok(());
        };
        if admitted.counted.is_some() || self.config.trusts(client) {
            return Ok(());
        }
        let origin = Origin::of(client);
        if !clients.enter(origin) {
            return Err(Refused::FullForClient);
        }
        admitted.counted = Some(origin);
        Ok(())
    }

    /// A connection is over.
    pub fn leave(&self, admitted: &Admitted) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        if let (Some(clients), Some(origin)) = (&self.clients, admitted.counted) {
            clients.leave(origin);
        }
    }

    /// Counts a request to a service, at `now`, with these fields, of a client at `peer` or behind
    /// it. An error says for how long the client has to wait.
    pub fn spend(
        &self,
        service: usize,
        peer: IpAddr,
        fields: &Fields,
        now: Instant,
    ) -> Result<(), Duration> {
        match &self.rates {
            None => Ok(()),
            Some(rates) => rates.spend(service, peer, fields, Nanos::of(now), &self.config),
        }
    }

    /// Clients whose requests were forgotten for want of room, although they counted still.
    pub fn forgiven(&self) -> u64 {
        self.rates.as_ref().map_or(0, Rates::forgiven)
    }

    /// For a scrape. O(clients), where connections are limited by client.
    pub fn bounds(&self) -> Vec<BoundSample> {
        let most = self.most() as u64;
        let mut bounds = vec![BoundSample {
            what: "client_connections",
            service: None,
            now: self.open.load(Ordering::Relaxed) as u64,
            bound: Some(most),
            high_water: None,
        }];
        if let Some(clients) = &self.clients {
            let (count, largest) = clients.totals();
            bounds.extend([
                BoundSample {
                    what: "clients",
                    service: None,
                    now: count as u64,
                    bound: Some(most),
                    high_water: None,
                },
                BoundSample {
                    what: "connections_of_one_client",
                    service: None,
                    now: u64::from(largest),
                    bound: Some(u64::from(clients.most())),
                    high_water: None,
                },
            ]);
        }
        bounds.extend(self.rates.as_ref().map(Rates::bound));
        bounds
    }

    fn most(&self) -> usize {
        self.config.downstream.max_connections.get()
    }
}

#[cfg(test)]
mod tests;
