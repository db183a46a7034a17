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
mod rival;
mod server;
mod trouble;
mod withdrawal;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use hickory_proto::rr::Name;
use hickory_proto::rr::rdata::SRV;
use tokio::sync::watch::{self, error::RecvError};
use tokio::time::{sleep, timeout};

use super::client::{Accepted, Client, Failure};
use super::key::Key;
use predecessors::{abandoned, replaced};
pub use registration::{Registration, absolute, default_target};
use rival::rival;
pub use server::{BadServer, ServerAddress};
use trouble::Trouble;
pub use withdrawal::Withdrawal;

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

/// For each question of what else there is: a registration must not come late for it.
const RIVAL: Duration = Duration::from_secs(1);

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
    /// How often, since it was last withdrawn; from 1 on, what comes next is a renewal.
    confirmed: u32,
    /// Addresses that a server has confirmed last.
    addresses: Vec<IpAddr>,
    /// Whether a server has ever confirmed any.
    known: watch::Sender<bool>,
}

/// A registration that a server has, or may have.
#[derive(Debug, Clone)]
struct Published {
    client: Client,
    zone: Name,
    addresses: Vec<IpAddr>,
    /// What this server has said to it, if it has.
    accepted: Option<Accepted>,
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
            confirmed: 0,
            addresses: Vec::new(),
            known: watch::Sender::new(false),
        }
    }

    /// Becomes true when a server has confirmed the registration for the first time, and stays so
    /// whatever happens to the record later.
    pub fn known(&self) -> watch::Receiver<bool> {
        self.known.subscribe()
    }

    /// Keeps the record in the zone while `wanted` is true, and out of it while it is false. Ends
    /// when the other end of `wanted` is dropped: then the record is withdrawn, within seven
    /// seconds. Failures are logged, once for each kind in a row, and tried again without end;
    /// at the end they are tried again for four seconds.
    ///
    /// Not cancel-safe: when the future is dropped, the record stays until its lease ends, and
    /// for good if the server grants none.
    pub async fn run(mut self, mut wanted: watch::Receiver<bool>) -> Withdrawal {
        loop {
            tokio::select! {
                biased;
                still = until_wanted(&mut wanted) => if still.is_err() {
                    return self.leave().await;
                },
                never = self.keep_out() => match never {},
            }
            // In this order: a registration that is not wanted any more is not begun.
            tokio::select! {
                biased;
                () = until_unwanted(&mut wanted) => {}
                never = self.hold() => match never {},
            }
        }
    }

    /// Registers and renews. May be dropped at any moment: what the server may have is known.
    async fn hold(&mut self) -> Infallible {
        let mut told = BTreeSet::new();
        let mut failed = 0;
        let mut lease = self.registration.lease;
        loop {
            let was_registered = self.confirmed > 0;
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
        } else if self.confirmed > 0 {
            tracing::warn!("the registration of {name} is not renewed: {trouble}; trying again");
        } else {
            tracing::warn!("{name} is not registered: {trouble}; trying again");
        }
    }

    /// One try, from the key to the server's confirmation.
    async fn register(&mut self) -> Result<Accepted, Trouble> {
        let key = self.current_key()?;
        let server = self.current_server().await?;
        let client = Client::new(server, key);
        let tried = self.register_with(&client).await;
        if tried.is_err() {
            self.zone = None;
            // The next of its addresses, or the name anew. Also after a "no": what has the server's
            // old address now, or what the server was before it moved, may answer like that.
            self.servers.retain(|address| *address != server);
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
        let others = self.others(client).await;
        let foreign = self.foreign(client, &zone, &addresses).await;
        let replaced = replaced(&self.registration, &others);
        let update = self.registration.registering(&zone, &addresses, replaced);
        let before = self.published.clone();
        let same = before
            .as_ref()
            .filter(|p| p.client.server() == client.server());
        let published = Published {
            client: client.clone(),
            zone,
            addresses,
            accepted: same.and_then(|p| p.accepted),
        };
        self.published = Some(published.clone());
        match client.update(&update).await {
            Ok(accepted) => {
                let first = self.confirmed == 0;
                self.confirm(published.clone(), accepted);
                if first && accepted.lease.is_none() {
                    self.clear_away(&published, &others).await;
                }
                if let Some(rival) = rival(&self.registration, &others, &foreign).await {
                    self.complain_of(rival);
                }
                Ok(accepted)
            }
            Err(failure) => {
                if failure.is_final() {
                    // It has what it had, and nothing of this.
                    self.published = before;
                }
                Err(failure)
            }
        }
    }

    /// The other records of the name, while the registration is new. A renewal asks for nothing: a
    /// large service is answered over TCP alone, and all its members would ask all the time. And
    /// when nobody says, it is better to register beside an old record of ours than not at all.
    async fn others(&self, client: &Client) -> Vec<SRV> {
        if self.confirmed > 1 {
            return Vec::new();
        }
        let asked = timeout(RIVAL, records(client, &self.registration.name)).await;
        asked.ok().and_then(Result::ok).unwrap_or_default()
    }

    /// Addresses of our target that are not ours, as long as nobody was told of a rival: before
    /// the first registration, and before the first renewal, for two who start together do not
    /// see each other earlier.
    async fn foreign(&self, client: &Client, zone: &Name, addresses: &[IpAddr]) -> Vec<IpAddr> {
        let target = &self.registration.target;
        if self.confirmed > 1 || !zone.zone_of(target) {
            return Vec::new();
        }
        // Not worth a registration that comes late.
        let asked = timeout(RIVAL, client.addresses(target)).await;
        let mut found = asked.ok().and_then(Result::ok).unwrap_or_default();
        found.retain(|address| !addresses.contains(address) && !self.addresses.contains(address));
        found
    }

    /// Removes what no lease removes. If that fails, it stays: balancers pass over it.
    async fn clear_away(&self, published: &Published, others: &[SRV]) {
        let Some(address) = published.addresses.first() else {
            return;
        };
        let gone = abandoned(&self.registration, others, *address).await;
        if gone.is_empty() {
            return;
        }
        let update = self.registration.removing(&published.zone, gone);
        if let Err(failure) = published.client.update(&update).await {
            let name = &self.registration.name;
            tracing::warn!("{name} keeps records of this host that lead nowhere: {failure}");
        }
    }

    fn complain_of(&self, rival: IpAddr) {
        let Registration { target, port, .. } = &self.registration;
        tracing::error!(
            "another backend has registered {target} port {port}: it listens at {rival}, and only \
             one of the two gets requests. Each needs a --target, or a host name, of its own"
        );
    }

    /// Notes and logs what is new.
    fn confirm(&mut self, published: Published, accepted: Accepted) {
        let first = self.confirmed == 0;
        self.confirmed = self.confirmed.saturating_add(1);
        self.known.send_replace(true);
        let addresses = &published.addresses;
        if first || *addresses != self.addresses {
            let Registration {
                name, target, port, ..
            } = &self.registration;
            let (zone, server) = (&published.zone, published.client.server());
            let lease = match accepted.lease {
                Some(lease) => format!("for {}", humantime::format_duration(lease)),
                None => "without a lease: it stays if this process is killed".to_owned(),
            };
            tracing::info!(
                "registered {name} as {target} port {port}, address {}, in the zone {zone} at \
                 {server}, {lease}",
                list(addresses)
            );
        }
        self.addresses.clone_from(addresses);
        self.published = Some(Published {
            accepted: Some(accepted),
            ..published
        });
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
}

/// Waits until the record shall be there; an error: nobody is left to say so.
async fn until_wanted(wanted: &mut watch::Receiver<bool>) -> Result<(), RecvError> {
    wanted.wait_for(|wanted| *wanted).await?;
    // Nobody is left who could want it.
    wanted.has_changed().map(drop)
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
