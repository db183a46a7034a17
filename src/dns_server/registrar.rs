//! The life of one registration: an SRV record and the addresses of its target, put into a zone by
//! dynamic update, renewed, and taken out again.
//!
//! Talks to one server through `client.rs`; whether the backend works is for others to say. Used
//! by `evenkeel register` and `evenkeel backend`. Nothing is registered twice: a record of our
//! target and port with another weight or priority is replaced, in the same update.
//!
//! RFC 2136 (dynamic update), RFC 9664 (leases), RFC 2782 (SRV).

mod predecessors;
mod registration;
mod server;
mod trouble;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use hickory_proto::rr::Name;
use hickory_proto::rr::rdata::SRV;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::client::{Accepted, Client, Failure};
use super::key::Key;
use predecessors::predecessors;
pub use registration::{Registration, absolute, default_target};
pub use server::{BadServer, ServerAddress};
use trouble::Trouble;

/// A registration is renewed this often in its lease: two renewals may be lost.
const RENEWALS: u32 = 3;

/// Not more often, however short the lease.
const SHORTEST_RENEWAL: Duration = Duration::from_millis(500);

/// First wait after a failure; it doubles up to [`LONGEST_BACKOFF`].
const BACKOFF: Duration = Duration::from_secs(1);

/// Longest wait after a failure, however long the lease.
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);

/// Between two looks for a key file that is not there: it costs next to nothing.
const LOOK_FOR_KEY: Duration = Duration::from_millis(250);

/// For taking the record out. Whoever ends us gives ten seconds as a rule (Docker), and the
/// backend needs some of them.
const WITHDRAWAL: Duration = Duration::from_secs(4);

/// Of that, for asking whether another record needs the addresses.
const OTHERS: Duration = Duration::from_secs(1);

/// Wait before another try at the withdrawal.
const WITHDRAWAL_PAUSE: Duration = Duration::from_millis(300);

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

/// Keeps one registration.
#[derive(Debug)]
pub struct Registrar {
    registration: Registration,
    server: ServerAddress,
    key_file: PathBuf,
    /// As last read.
    key: Option<Key>,
    /// Left to be tried of what the server's name last stood for.
    servers: Vec<SocketAddr>,
    /// The zone that the server named.
    zone: Option<Name>,
    /// What the server may have: set before it is sent.
    published: Option<Published>,
    /// Addresses that were registered last, for the log.
    addresses: Vec<IpAddr>,
}

/// A registration that a server has, or may have.
#[derive(Debug)]
struct Published {
    client: Client,
    zone: Name,
    confirmed: bool,
}

impl Registrar {
    /// Does nothing yet. The key is read from the file whenever it is needed, so the file may
    /// come later and may change.
    pub fn new(
        registration: Registration,
        server: ServerAddress,
        key_file: impl Into<PathBuf>,
    ) -> Registrar {
        Registrar {
            registration,
            server,
            key_file: key_file.into(),
            key: None,
            servers: Vec::new(),
            zone: None,
            published: None,
            addresses: Vec::new(),
        }
    }

    /// Keeps the record in the zone while `wanted` is true, and out of it while it is false. Ends
    /// when the other end of `wanted` is dropped: then the record is withdrawn, within seven
    /// seconds. Failures are logged, once for each kind in a row, and tried again without end.
    ///
    /// Not cancel-safe: when the future is dropped, the record stays until its lease ends, and
    /// for good if the server grants none.
    pub async fn run(mut self, mut wanted: watch::Receiver<bool>) -> Withdrawal {
        loop {
            while !*wanted.borrow_and_update() {
                if wanted.changed().await.is_err() {
                    return Withdrawal::Nothing;
                }
            }
            // In this order: a registration that is not wanted any more is not begun.
            tokio::select! {
                biased;
                () = until_unwanted(&mut wanted) => {}
                never = self.hold() => match never {},
            }
            let withdrawal = self.withdraw().await;
            if wanted.has_changed().is_err() {
                return withdrawal;
            }
        }
    }

    /// Registers and renews. May be dropped at any moment: what the server may have is known.
    async fn hold(&mut self) -> Infallible {
        let mut told = BTreeSet::new();
        let mut failed = 0;
        let mut lease = self.registration.lease;
        loop {
            let was_registered = self.is_registered();
            let wait = match self.register().await {
                Ok(accepted) => {
                    if was_registered && !told.is_empty() {
                        let name = &self.registration.name;
                        tracing::info!("the registration of {name} is renewed again");
                    }
                    told.clear();
                    failed = 0;
                    lease = accepted.lease.unwrap_or(self.registration.lease);
                    renewal(lease)
                }
                Err(trouble) => {
                    // Once for each kind: the rest says nothing new.
                    if told.insert(trouble.label()) {
                        self.tell(&trouble);
                    }
                    if trouble.is_expected() {
                        LOOK_FOR_KEY
                    } else {
                        failed += 1;
                        backoff(failed, lease)
                    }
                }
            };
            sleep(jittered(wait, fastrand::f64())).await;
        }
    }

    fn tell(&self, trouble: &Trouble) {
        let name = &self.registration.name;
        if trouble.is_expected() {
            tracing::info!("{name} is not registered yet: {trouble}");
        } else if self.is_registered() {
            tracing::warn!("the registration of {name} is not renewed: {trouble}; trying again");
        } else {
            tracing::warn!("{name} is not registered: {trouble}; trying again");
        }
    }

    fn is_registered(&self) -> bool {
        self.published.as_ref().is_some_and(|p| p.confirmed)
    }

    /// One try, from the key to the server's confirmation.
    async fn register(&mut self) -> Result<Accepted, Trouble> {
        let key = self.current_key()?;
        let server = self.current_server().await?;
        let client = Client::new(server, key);
        let tried = self.register_with(&client).await;
        if let Err(failure) = &tried {
            self.zone = None;
            if failure.is_silence() {
                // The next of its addresses, or the name anew.
                self.servers.retain(|address| *address != server);
            }
        }
        Ok(tried?)
    }

    async fn register_with(&mut self, client: &Client) -> Result<Accepted, Failure> {
        let zone = match (&self.registration.zone, &self.zone) {
            (Some(zone), _) | (None, Some(zone)) => zone.clone(),
            (None, None) => client.zone_of(&self.registration.name).await?,
        };
        self.zone = Some(zone.clone());
        let mut addresses = self.registration.addresses.clone();
        if addresses.is_empty() {
            addresses.push(client.local_address().await?.to_canonical());
        }
        let others = records(client, &self.registration.name).await?;
        let first = !self.is_registered();
        let replaced = predecessors(&self.registration, others, &addresses, first).await;
        let update = self.registration.registering(&zone, &addresses, replaced);
        let unknown_before = self.published.is_none();
        self.published = Some(Published {
            client: client.clone(),
            zone,
            confirmed: !first,
        });
        match client.update(&update).await {
            Ok(accepted) => {
                self.confirm(client, addresses, accepted);
                Ok(accepted)
            }
            Err(failure) => {
                if unknown_before && failure.is_final() {
                    // It has nothing of ours.
                    self.published = None;
                }
                Err(failure)
            }
        }
    }

    /// Notes and logs what is new.
    fn confirm(&mut self, client: &Client, addresses: Vec<IpAddr>, accepted: Accepted) {
        let Some(published) = &mut self.published else {
            return;
        };
        let first = !published.confirmed;
        published.confirmed = true;
        if first || addresses != self.addresses {
            let Registration {
                name, target, port, ..
            } = &self.registration;
            let (zone, server) = (&published.zone, client.server());
            let lease = match accepted.lease {
                Some(lease) => format!("for {}", humantime::format_duration(lease)),
                None => "without a lease: it stays if this process is killed".to_owned(),
            };
            tracing::info!(
                "registered {name} as {target} port {port}, address {}, in the zone {zone} at \
                 {server}, {lease}",
                list(&addresses)
            );
        }
        self.addresses = addresses;
    }

    /// What was good once is used as long as the file cannot be read.
    fn current_key(&mut self) -> Result<Key, Trouble> {
        match Key::read(&self.key_file) {
            Ok(file) => {
                if file.exposed && self.key.is_none() {
                    let path = self.key_file.display();
                    tracing::warn!("{path} can be read by everybody on this machine");
                }
                self.key = Some(file.key.clone());
                Ok(file.key)
            }
            Err(error) => self.key.clone().ok_or(Trouble::Key(error)),
        }
    }

    async fn current_server(&mut self) -> Result<SocketAddr, Trouble> {
        if self.servers.is_empty() {
            self.servers = self.server.resolve().await.map_err(Trouble::Server)?;
        }
        let first = self.servers.first().copied();
        first.ok_or_else(|| Trouble::Server("it has no address".to_owned()))
    }

    /// Takes out what the server may have, and waits until it is gone.
    async fn withdraw(&mut self) -> Withdrawal {
        let Some(Published { client, zone, .. }) = self.published.take() else {
            return Withdrawal::Nothing;
        };
        self.addresses.clear();
        let name = &self.registration.name;
        let mut why = "no answer in time".to_owned();
        let telling = async {
            while let Err(failure) = self.withdraw_from(&client, &zone).await {
                why = failure.to_string();
                if failure.is_final() {
                    return false;
                }
                sleep(WITHDRAWAL_PAUSE).await;
            }
            true
        };
        if !timeout(WITHDRAWAL, telling).await.unwrap_or(false) {
            tracing::warn!("{name} could not be withdrawn: {why}; its lease, if any, ends it");
            return Withdrawal::Failed;
        }
        let own = self.registration.srv();
        let disappearance = async {
            loop {
                match client.srv(name).await {
                    Ok(records) if !records.contains(&own) => return,
                    _ => sleep(LOOK).await,
                }
            }
        };
        match timeout(DISAPPEARANCE, disappearance).await {
            Ok(()) => {
                tracing::info!("withdrew {name}");
                Withdrawal::Gone
            }
            Err(_) => {
                let server = client.server();
                tracing::warn!("withdrew {name}, but {server} does not say that it is gone");
                Withdrawal::Unconfirmed
            }
        }
    }

    async fn withdraw_from(&self, client: &Client, zone: &Name) -> Result<(), Failure> {
        // A lost packet must not cost the time that the update needs.
        let asked = timeout(OTHERS, records(client, &self.registration.name)).await;
        let others = asked.ok().and_then(Result::ok).unwrap_or_default();
        let update = self.registration.withdrawing(zone, &others);
        client.update(&update).await.map(drop)
    }
}

/// Waits until the record shall not be there, or nobody is left to say so.
async fn until_unwanted(wanted: &mut watch::Receiver<bool>) {
    while *wanted.borrow_and_update() {
        if wanted.changed().await.is_err() {
            return;
        }
    }
}

/// The records of the name, as far as the server says: one that holds its answers back, as ours
/// does when it has just started, takes updates all the same.
async fn records(client: &Client, name: &Name) -> Result<Vec<SRV>, Failure> {
    match client.srv(name).await {
        Err(Failure::Code { .. }) => Ok(Vec::new()),
        other => other,
    }
}

/// The wait after so many failures in a row. Never longer than between two renewals: a server that
/// comes back counts every lease from then on, and speaks for its zone again after one of them.
fn backoff(failures: u32, lease: Duration) -> Duration {
    let doubled = BACKOFF * 2_u32.saturating_pow(failures.saturating_sub(1).min(10));
    doubled.min(LONGEST_BACKOFF).min(renewal(lease))
}

fn renewal(lease: Duration) -> Duration {
    (lease / RENEWALS).max(SHORTEST_RENEWAL)
}

/// A tenth more or less, so that many backends do not come all at once. `random` from [0, 1).
fn jittered(wait: Duration, random: f64) -> Duration {
    wait.mul_f64(0.9 + 0.2 * random)
}

fn list(addresses: &[IpAddr]) -> String {
    let texts: Vec<_> = addresses.iter().map(IpAddr::to_string).collect();
    texts.join(", ")
}

#[cfg(test)]
mod tests;
