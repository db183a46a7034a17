//! How a registration is taken out of the zone again: while the backend is not ready, and at the
//! end.
//!
//! What the server may have is forgotten only when it is known to be gone, so a withdrawal that
//! was dropped or failed is taken up by the next one. `registrar.rs` decides when.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::pending;
use std::net::IpAddr;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use tokio::time::{sleep, timeout};

use super::{Published, Registrar, Registration, backoff, jittered, records};
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
    /// The server no longer gives the record, or it leads to another backend.
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
        self.confirmed = 0;
        let (name, server) = (&self.registration.name, published.client.server());
        let mut last = Failure::Silence { server };
        let telling = async {
            loop {
                match self.withdraw_from(published).await {
                    Err(failure) if failure.is_final() && !may_pass(&failure, published) => {
                        return Err(failure);
                    }
                    Err(failure) => last = failure,
                    told => return told,
                }
                sleep(PAUSE).await;
            }
        };
        let told = match timeout(WITHDRAWAL, telling).await {
            Ok(told) => told?,
            Err(_) => return Err(last),
        };
        let withdrawal = if let Told::Others(address) = told {
            let target = &self.registration.target;
            tracing::warn!("{name} is not withdrawn: {target} is {address} now, and not our own");
            Withdrawal::Gone
        } else if self.disappears_from(&published.client).await {
            tracing::info!("withdrew {name}");
            Withdrawal::Gone
        } else {
            tracing::warn!("withdrew {name}, but {server} does not say that it is gone");
            Withdrawal::Unconfirmed
        };
        self.published = None;
        Ok(withdrawal)
    }

    async fn disappears_from(&self, client: &Client) -> bool {
        let own = self.registration.srv();
        let disappearance = async {
            loop {
                match client.srv(&self.registration.name).await {
                    Ok(records) if !records.contains(&own) => return,
                    _ => sleep(LOOK).await,
                }
            }
        };
        timeout(DISAPPEARANCE, disappearance).await.is_ok()
    }

    async fn withdraw_from(&self, published: &Published) -> Result<Told, Failure> {
        let Published { client, zone, .. } = published;
        let Registration { name, target, .. } = &self.registration;
        let leased = published.accepted.is_some_and(|a| a.lease.is_some());
        let sent = &published.addresses;
        let update = if leased {
            // A record of another name may need the addresses; if none does, they lapse.
            self.registration.withdrawing(zone, sent)
        } else {
            // A lost packet must not cost the time that the update needs.
            let asked = timeout(OTHERS, records(client, name)).await;
            let others = asked.ok().and_then(Result::ok).unwrap_or_default();
            self.registration.withdrawing_all(zone, sent, &others)
        };
        match client.update(&update).await {
            Err(failure) if failure.is_condition() => {}
            told => return told.map(|_| Told::Done),
        }
        let found = match client.addresses(target).await {
            // One that has lost its zone has nothing that we have put there.
            Err(Failure::Code { .. }) => return Ok(Told::Done),
            found => found?,
        };
        let own = |address| sent.contains(address) || self.addresses.contains(address);
        match found.first() {
            Some(address) if !found.iter().any(own) => Ok(Told::Others(*address)),
            // The addresses are gone, or there are more; the record is ours.
            _ => {
                let update = self.registration.withdrawing(zone, &found);
                client.update(&update).await.map(|_| Told::Done)
            }
        }
    }
}

/// What a server has been told.
#[derive(Debug, Clone, Copy)]
enum Told {
    /// That the record goes.
    Done,
    /// Nothing: with this address, the record is another backend's.
    Others(IpAddr),
}

/// A server that has taken the record, by this key, and then says REFUSED has too much to do:
/// that is how some say so.
fn may_pass(failure: &Failure, published: &Published) -> bool {
    let refused = |code| code == ResponseCode::Refused;
    matches!(failure, Failure::Refused(refusal) if refused(refusal.code) && refusal.tsig.is_none())
        && published.accepted.is_some()
}
