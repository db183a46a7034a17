//! What the workers together may take on: client connections, in all and of one client, and
//! requests of one client.
//!
//! Made by `server`; asked by `listener` for each connection and by `request` for each request, and
//! read by a scrape. `origin.rs` (pure) says whom a limit takes for one client; `clients.rs` counts
//! the connections of each, `rates.rs` its requests: `gcra.rs` (pure) by which rule, `buckets.rs`
//! where that is remembered. `descriptors.rs` keeps some for backends, `coders.rs` counts responses that
//! are coded,
//! `pressure.rs` says how short memory is. What is not configured is not
//! there.

mod buckets;
mod clients;
pub mod coders;
pub mod descriptors;
mod gcra;
pub mod origin;
pub mod pressure;
mod rates;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use clients::Clients;
use coders::{Coded, CoderPlace, Coders};
use descriptors::Descriptors;
use origin::Origin;
use pressure::Pressure;
use rates::Rates;

use crate::clock::Nanos;
use crate::config::Config;
use crate::http::headers::Fields;
use crate::memory::level::Level;
use crate::telemetry::metrics::{BoundSample, Tally};

/// The limits of this process, and how much of each is taken.
#[derive(Debug)]
pub struct Limits {
    config: Arc<Config>,
    /// Descriptors, of which clients may not take all.
    pub descriptors: Arc<Descriptors>,
    /// How short memory is.
    pub pressure: Arc<Pressure>,
    /// Client connections that are open. Written by every worker.
    open: Arc<Tally>,
    /// Responses that are being coded.
    coders: Arc<Coders>,
    /// Where connections are limited by client.
    clients: Option<Arc<Clients>>,
    /// Where requests are.
    rates: Option<Rates>,
}

/// A connection that was taken in, until it is dropped. It belongs to no generation.
#[derive(Debug)]
#[must_use]
pub struct Admitted {
    open: Arc<Tally>,
    /// Whose count it is in, where those are kept.
    counted: Option<(Arc<Clients>, Origin)>,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.open.leave();
        if let Some((clients, origin)) = &self.counted {
            clients.leave(*origin);
        }
    }
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
            descriptors: Arc::new(Descriptors::of_this_process()),
            pressure: Arc::default(),
            open: Arc::default(),
            coders: Arc::default(),
            clients: most.map(|most| Arc::new(Clients::new(most))),
            rates: Rates::new(&config, None),
            config,
        })
    }

    /// What another configuration allows; what is taken stays taken. Connections that nobody counted
    /// by client are not counted now.
    pub fn renewed(&self, config: Arc<Config>) -> Arc<Limits> {
        let most = config.downstream.max_connections_per_client;
        let clients = most.map(|most| match &self.clients {
            Some(clients) => {
                clients.allow(most);
                Arc::clone(clients)
            }
            None => Arc::new(Clients::new(most)),
        });
        Arc::new(Limits {
            descriptors: Arc::clone(&self.descriptors),
            pressure: Arc::clone(&self.pressure),
            open: Arc::clone(&self.open),
            coders: Arc::clone(&self.coders),
            clients,
            rates: Rates::new(&config, self.rates.as_ref()),
            config,
        })
    }

    /// Counts one more connection of a client, unless there are as many as there may be. A trusted
    /// proxy speaks for many clients: only the limit of all connections holds for it.
    pub fn admit(&self, address: IpAddr) -> Result<Admitted, Refused> {
        if self.pressure.level() == Level::Refusing {
            return Err(Refused::Memory);
        }
        if !self.open.enter(self.most()) {
            return Err(Refused::Full);
        }
        let mut admitted = Admitted {
            open: Arc::clone(&self.open),
            counted: None,
        };
        self.identify(&mut admitted, address)?;
        Ok(admitted)
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
        admitted.counted = Some((Arc::clone(clients), origin));
        Ok(())
    }

    /// Counts a request to a service, at `now`, with these fields, of the client that `client` names.
    /// An error says for how long the client has to wait.
    pub fn spend(
        &self,
        service: usize,
        client: impl FnOnce() -> IpAddr,
        fields: &Fields,
        now: Instant,
    ) -> Result<(), Duration> {
        match &self.rates {
            None => Ok(()),
            Some(rates) => rates.spend(service, client, fields, Nanos::of(now)),
        }
    }

    /// A place for who codes a response, if there is one, and memory.
    pub fn coder(&self, coded: Coded) -> Option<CoderPlace> {
        match self.pressure.level() {
            Level::Fine => self.coders.enter(coded, self.most_coders()),
            Level::Shedding | Level::Refusing => None,
        }
    }

    /// Clients whose requests were forgotten for want of room, although they counted still.
    pub fn forgiven(&self) -> u64 {
        self.rates.as_ref().map_or(0, Rates::forgiven)
    }

    /// For a scrape. O(clients), where connections are limited by client.
    pub fn bounds(&self) -> Vec<BoundSample> {
        let most = self.most();
        let mut bounds = vec![self.open.sample("client_connections", most)];
        if let Some(clients) = &self.clients {
            bounds.extend(clients.bounds(most));
        }
        bounds.extend(self.rates.as_ref().map(Rates::bound));
        bounds.push(self.coders.sample(self.most_coders()));
        bounds
    }

    fn most_coders(&self) -> usize {
        coders::bound(self.pressure.budget())
    }

    fn most(&self) -> usize {
        self.config.downstream.max_connections.get()
    }
}

#[cfg(test)]
mod tests;
