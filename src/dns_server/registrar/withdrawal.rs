//! How a registration is taken out of the zone again: while the backend is not ready, and at the
//! end.
//!
//! What the server may have is forgotten only when it is known to be gone, so a withdrawal that
//! was dropped or failed is taken up by the next one. `registrar.rs` decides when.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::pending;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use tokio::time::{sleep, timeout};

use super::{Published, Registrar, backoff, jittered, records};
use crate::dns_server::client::{Client, Failure};

/// For taking the record out. Whoever ends us gives ten seconds as a rule (Docker), and the
/// backend needs some of them.
const WITHDRAWAL: Duration = Duration::from_secs(4);

/// Of that, for asking whether another record needs the addresses.
const OTHERS: Duration = Duration::from_secs(1);

/// Wait before another try at the withdrawal.
const PAUSE: Duration = Duration::from_millis(300);

/// For the server to act on what it has confirmed; most do so before they answer.
const DISAPPEARANCE: Duration = Duration::from_secs(2);

/// Between two looks whether the record is gone.
const LOOK: Duration = Duration::from_millis(50);

/// How a registration ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Withdrawal {
    /// There had been none.
    Nothing,
    /// The server no longer gives the record.
    Gone,
    /// The server has confirmed that, but gives the record still, or does not say.
    Unconfirmed,
    /// The server could not be told. Its lease, if it has one, takes the record away.
    Failed,
}

impl Registrar {
    /// Withdraws, and tries again without end where that fails. May be dropped at any moment.
    pub(super) async fn keep_out(&mut self) -> Infallible {
        let mut told = BTreeSet::new();
        let mut failed = 0;
        while self.published.is_some() {
            let Err(failure) = self.withdraw().await else {
                continue;
            };
            if told.insert(failure.label()) {
                let name = &self.registration.name;
                tracing::warn!("{name} could not be withdrawn: {failure}; trying again");
            }
            failed += 1;
            let wait = backoff(failed, self.registration.lease);
            sleep(jittered(wait, fastrand::f64())).await;
            self.find_server_anew().await;
        }
        pending().await
    }

    /// One withdrawal that must do. Takes [`WITHDRAWAL`] and [`DISAPPEARANCE`] at most.
    pub(super) async fn leave(mut self) -> Withdrawal {
        self.withdraw().await.unwrap_or_else(|failure| {
            let name = &self.registration.name;
            tracing::warn!("{name} could not be withdrawn: {failure}; its lease, if any, ends it");
            Withdrawal::Failed
        })
    }

    /// The server may have moved, and the key may be another, since the record was published.
    async fn find_server_anew(&mut self) {
        if let Some(published) = &self.published {
            let silent = published.client.server();
            self.servers.retain(|address| *address != silent);
        }
        // If either is not to be had now, what was good before is tried again.
        if let Ok(key) = self.current_key()
            && let Ok(server) = self.current_server().await
            && let Some(published) = &mut self.published
        {
            published.client = Client::new(server, key);
        }
    }

    /// Takes out what the server may have, and waits until it is gone.
    async fn withdraw(&mut self) -> Result<Withdrawal, Failure> {
        let Some(published) = &self.published else {
            return Ok(Withdrawal::Nothing);
        };
        self.registered = false;
        let (name, server) = (&self.registration.name, published.client.server());
        let mut last = Failure::Silence { server };
        let telling = async {
            while let Err(failure) = self.withdraw_from(published).await {
                if failure.is_final() && !may_pass(&failure, published) {
                    return Err(failure);
                }
                last = failure;
                sleep(PAUSE).await;
            }
            Ok(())
        };
        match timeout(WITHDRAWAL, telling).await {
            Ok(told) => told?,
            Err(_) => return Err(last),
        }
        let own = self.registration.srv();
        let disappearance = async {
            loop {
                match published.client.srv(name).await {
                    Ok(records) if !records.contains(&own) => return,
                    _ => sleep(LOOK).await,
                }
            }
        };
        let withdrawal = match timeout(DISAPPEARANCE, disappearance).await {
            Ok(()) => {
                tracing::info!("withdrew {name}");
                Withdrawal::Gone
            }
            Err(_) => {
                tracing::warn!("withdrew {name}, but {server} does not say that it is gone");
                Withdrawal::Unconfirmed
            }
        };
        self.published = None;
        Ok(withdrawal)
    }

    async fn withdraw_from(&self, published: &Published) -> Result<(), Failure> {
        let Published { client, zone, .. } = published;
        // A lost packet must not cost the time that the update needs.
        let asked = timeout(OTHERS, records(client, &self.registration.name)).await;
        let others = asked.ok().and_then(Result::ok).unwrap_or_default();
        let update = self.registration.withdrawing(zone, &others);
        client.update(&update).await.map(drop)
    }
}

/// A server that has taken the record, by this key, and then says REFUSED has too much to do:
/// that is how some say so.
fn may_pass(failure: &Failure, published: &Published) -> bool {
    let refused = |code| code == ResponseCode::Refused;
    matches!(failure, Failure::Refused(refusal) if refused(refusal.code) && refusal.tsig.is_none())
        && published.accepted.is_some()
}
