//! The control thread's tasks: discovery into services, what workers noticed back to discovery,
//! the probe listener.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::spawn_local;

use crate::balance::service::Service;
use crate::config::Config;
use crate::discovery::watch::{Subscription, Watches};
use crate::events::Event;

/// What the control thread works with.
#[derive(Debug)]
pub struct Control {
    /// The configuration.
    pub config: Arc<Config>,
    /// Addresses that must not be endpoints: our own.
    pub own_addresses: Vec<SocketAddr>,
    /// The services, in the order of the configuration.
    pub services: Vec<Service>,
}

impl Control {
    /// Starts the tasks on the present runtime; they end with it.
    pub fn start(self, noticed: mpsc::Receiver<Event>) {
        let watches = Watches::new(self.own_addresses, self.config.allowed_endpoints.clone());
        let services = self.config.services.iter().zip(self.services);
        let subscriptions: Vec<_> = services
            .map(|(config, service)| {
                let subscription = Rc::new(watches.subscribe(&config.discover));
                spawn_local(follow(service, Rc::clone(&subscription)));
                subscription
            })
            .collect();
        spawn_local(pass_on(noticed, subscriptions));
    }
}

/// Applies every offer of a service's discovery, for as long as the runtime lives.
async fn follow(mut service: Service, subscription: Rc<Subscription>) {
    let mut offers = subscription.offers.clone();
    loop {
        let offer = offers.borrow_and_update().offer.clone();
        service.apply(&offer);
        if offers.changed().await.is_err() {
            return;
        }
    }
}

/// Tells discovery what the workers noticed.
async fn pass_on(mut noticed: mpsc::Receiver<Event>, subscriptions: Vec<Rc<Subscription>>) {
    while let Some(event) = noticed.recv().await {
        match event {
            Event::ConnectFailed { service, backend } => {
                subscriptions[service].connect_failed(backend);
            }
        }
    }
}
