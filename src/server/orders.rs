//! What the control thread can be told, and the signals that tell it.

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use crate::events::Reloaded;

/// What the control thread can be told.
#[derive(Debug)]
pub enum Order {
    /// Drain, then end.
    Drain,
    /// End at once.
    Stop,
    /// Write the state of every service to the log.
    Report,
    /// Read the configuration again, and say what became of that to whoever wants to hear it.
    Reload(Option<oneshot::Sender<Reloaded>>),
}

/// The signals that mean something to us.
pub(super) struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
    usr1: Signal,
}

impl Signals {
    /// From now on they do not end the process.
    pub(super) fn listen() -> anyhow::Result<Signals> {
        Ok(Signals {
            term: signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?,
            int: signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?,
            hup: signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?,
            usr1: signal(SignalKind::user_defined1()).context("cannot listen for SIGUSR1")?,
        })
    }

    /// Turns signals into orders: the first TERM or INT drains, the second ends at once, USR1 asks
    /// for the state, HUP for a reload.
    pub(super) async fn give(mut self, orders: mpsc::UnboundedSender<Order>) {
        let mut draining = false;
        loop {
            let order = tokio::select! {
                _ = self.term.recv() => None,
                _ = self.int.recv() => None,
                _ = self.usr1.recv() => Some(Order::Report),
                _ = self.hup.recv() => Some(Order::Reload(None)),
            };
            let order = order.unwrap_or(match draining {
                false => Order::Drain,
                true => Order::Stop,
            });
            match &order {
                Order::Drain => tracing::info!("draining; another signal ends at once"),
                Order::Stop => tracing::warn!("ending at once"),
                Order::Report | Order::Reload(_) => {}
            }
            draining |= matches!(order, Order::Drain | Order::Stop);
            if orders.send(order).is_err() {
                return;
            }
        }
    }
}
