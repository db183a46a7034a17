//! From one generation of the configuration to the next, while everything runs.
//!
//! All or nothing: what can fail is prepared aside ([`Prepared`]), on a thread where it may block. What
//! is new is warmed, then one publish puts it in force, and when every worker has taken it up, what is
//! gone is withdrawn. Reloads are asked for through a queue and made one after the other; those that
//! are asked for while one is under way are one.

use std::cell::RefCell;
use std::panic;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::certificates::Certificates;
use super::prepare::{Before, OwnKey, Prepared, Sockets, addresses};
use super::services::{Services, begun};
use super::systemd::Notifier;
use super::{Source, generation};
use crate::config::Config;
use crate::events::journal::{Journal, Kind, What};
use crate::events::{Reloaded, Reloads, ServiceId, Sign};
use crate::listener::inherited::Inherited;
use crate::proxy::drain::Phase;
use crate::proxy::worker::Shared;
use crate::published::Published;

/// New services are waited for so long: a name that does not answer begins without an answer.
const WARM: Duration = Duration::from_secs(2);

/// Workers are waited for so long. One that is held up takes the generation up when it turns again;
/// what is withdrawn meanwhile ends there as backends do that discovery withdraws.
const TAKE_UP: Duration = Duration::from_secs(2);

/// Time between two looks whether workers have taken it up.
const LOOK: Duration = Duration::from_millis(1);

/// The files of a configuration are read for no longer: whoever holds them may not answer any more.
const READS: Duration = Duration::from_secs(20);

/// Somebody asks for a reload, and may want to hear what became of it.
pub type Request = Option<oneshot::Sender<Reloaded>>;

/// Which configuration is taken up.
#[derive(Debug, Clone, Copy)]
enum From {
    /// The one that lies where it came from.
    Source,
    /// The one that is in force: only files that it names have changed.
    Memory,
}

/// Who reloads.
pub struct Reloader {
    pub(super) source: Option<Source>,
    pub(super) own: OwnKey,
    pub(super) inherited: Arc<Inherited>,
    pub(super) notifier: Rc<Notifier>,
    pub(super) published: Arc<Published<Shared>>,
    pub(super) services: Rc<Services>,
    /// Who looks after its certificates.
    pub(super) certificates: Certificates,
    /// Where the generation that is in force listens; nowhere any more when a drain has closed the
    /// listeners.
    pub(super) sockets: Rc<RefCell<Sockets>>,
    pub(super) signs: Vec<Arc<Sign>>,
    /// Addresses of ours besides the listeners', which are never endpoints.
    pub(super) own_addresses: Vec<std::net::SocketAddr>,
    /// The configuration of the start: what is taken up only then.
    pub(super) first: Arc<Config>,
    pub(super) record: Rc<RefCell<Reloads>>,
    pub(super) journal: Arc<Journal>,
}

impl Reloader {
    /// Carries requests out, for as long as somebody can ask. `changed`: there is something else in files
    /// by which clients or backends are judged, so the same configuration is taken up again.
    pub async fn run(
        self,
        mut requests: mpsc::UnboundedReceiver<Request>,
        mut changed: mpsc::Receiver<()>,
    ) {
        loop {
            let first = tokio::select! {
                request = requests.recv() => request,
                Some(()) = changed.recv() => {
                    tracing::info!("files of authorities, revocation lists or backends' certificates changed");
                    self.reload(From::Memory).await;
                    continue;
                }
            };
            let Some(first) = first else {
                return;
            };
            let mut askers = vec![first];
            while let Ok(more) = requests.try_recv() {
                askers.push(more);
            }
            let outcome = self.reload(From::Source).await;
            for asker in askers.into_iter().flatten() {
                // Who asked may be gone.
                let _ = asker.send(outcome.clone());
            }
        }
    }

    async fn reload(&self, from: From) -> Reloaded {
        let begun = Instant::now();
        self.notifier.reloading();
        let outcome = self.renew(from).await;
        let mut record = self.record.borrow_mut();
        let reloaded = Reloaded {
            at: SystemTime::now(),
            generation: self.published.load().generation,
            took: begun.elapsed(),
            error: outcome.as_ref().err().cloned(),
            at_next_start: outcome.unwrap_or_default(),
        };
        match &reloaded.error {
            None => {
                record.succeeded += 1;
                record.applied = Some(reloaded.at);
            }
            Some(_) => record.failed += 1,
        }
        record.last = Some(reloaded.clone());
        self.notifier.reloaded(&match &reloaded.error {
            None => format!("serving, reloaded to generation {}", reloaded.generation),
            Some(error) => format!("serving as before, the reload failed: {error}"),
        });
        say(&reloaded);
        self.journal.record(match &reloaded.error {
            None => {
                let text = format!("generation {} of the configuration", reloaded.generation);
                What::new(Kind::Reloaded, text)
            }
            // What is wrong is a picture of several lines; its first says what.
            Some(error) => {
                let first = error.lines().next().unwrap_or_default();
                What::new(Kind::ReloadRefused, first)
            }
        });
        reloaded
    }

    /// Goes to the next generation. What it returns is taken up only at the next start.
    async fn renew(&self, from: From) -> Result<Vec<&'static str>, Arc<str>> {
        let before = self.published.load();
        if before.drain.phase() >= Phase::Closing {
            return Err("it is about to end".into());
        }
        let mut prepared = self.prepare(&before, from).await?;
        let config = Arc::clone(&prepared.config);
        let own = addresses(&prepared.sockets).map(|mut own| {
            own.extend(&self.own_addresses);
            own
        });
        // New services are offered what the new rules admit, and those that still serve go on with what
        // the old ones did.
        if let Ok(own) = &own {
            let mut allowed = before.config.allowed_endpoints.clone();
            allowed.extend(&config.allowed_endpoints);
            self.services.watches().set_admission(own.clone(), allowed);
        }
        let (shared, new) = generation::next(&prepared, &before);
        let ids: Vec<ServiceId> = new
            .iter()
            .map(|(index, _)| shared.services[*index].id)
            .collect();
        for (index, mut service) in new {
            let discover = &config.services[index].discover;
            self.services.hand_down(&mut service);
            let service = begun(service, discover, self.services.watches());
            self.services
                .begin(shared.services[index].id, service, discover);
        }
        self.services.attend(&shared);
        self.services.warm(&ids, WARM).await;

        // Nothing waits between here and the publish.
        self.services.hand_down_to(&ids);
        prepared.renew_certificates();
        if let Ok(own) = own {
            let allowed = config.allowed_endpoints.clone();
            self.services.watches().set_admission(own, allowed);
        }
        let generation = shared.generation;
        self.certificates.follow(&shared);
        self.published.publish(shared);
        self.signs.iter().for_each(|sign| sign.wake.notify_one());
        self.wait_for_workers(generation).await;
        if before.drain.phase() < Phase::Closing {
            // Those that nobody has any more are closed.
            self.sockets.replace(prepared.sockets);
        }
        self.services.end_all_but(&self.published.load(), &before);
        Ok(at_next_start(&self.first, &config))
    }

    async fn prepare(&self, before: &Arc<Shared>, from: From) -> Result<Prepared, Arc<str>> {
        let source = match (from, &self.source) {
            (From::Memory, _) => None,
            (From::Source, Some(source)) => Some(Arc::clone(source)),
            (From::Source, None) => return Err("there is no configuration to read again".into()),
        };
        let (before, own) = (Arc::clone(before), self.own);
        let inherited = Arc::clone(&self.inherited);
        let is_same_configuration = source.is_none();
        let work = move || -> Result<Prepared, Arc<str>> {
            let config = match source {
                None => Config::clone(&before.config),
                Some(source) => {
                    let loaded = source().map_err(|diagnostic| diagnostic.to_string())?;
                    for warning in loaded.warnings.one_by_one() {
                        tracing::warn!("{warning}");
                    }
                    loaded.config
                }
            };
            let in_force = Before {
                shared: &before,
                is_same_configuration,
            };
            let challenges = &before.challenges;
            let prepared = Prepared::new(config, Some(in_force), &own, &inherited, challenges);
            prepared.map_err(|error| format!("{error:#}").into())
        };
        let Ok(done) = timeout(READS, spawn_blocking(work)).await else {
            let longest = READS.as_secs();
            return Err(format!("its files could not be read within {longest} s").into());
        };
        match done {
            Ok(outcome) => outcome,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => panic::resume_unwind(panic),
                Err(_) => Err("the process ends".into()),
            },
        }
    }

    async fn wait_for_workers(&self, generation: u64) {
        let all = async {
            let behind = |sign: &Arc<Sign>| sign.generation.load(Ordering::Acquire) < generation;
            while self.signs.iter().any(behind) {
                sleep(LOOK).await;
            }
        };
        if timeout_at(Instant::now() + TAKE_UP, all).await.is_err() {
            tracing::warn!("a worker is held up: it goes on by the configuration of before");
        }
    }
}

/// Says what became of it.
fn say(reloaded: &Reloaded) {
    let Reloaded {
        generation, took, ..
    } = reloaded;
    match &reloaded.error {
        None => tracing::info!(generation, ?took, "configuration reloaded"),
        Some(error) => {
            tracing::error!(
                generation,
                "configuration not reloaded, all stays as it was: {error}"
            );
        }
    }
    if !reloaded.at_next_start.is_empty() {
        let keys = reloaded.at_next_start.join(", ");
        tracing::warn!(
            keys,
            "what has changed there is taken up at the next start only"
        );
    }
}

/// The keys that differ and that a running process cannot take up.
fn at_next_start(first: &Config, now: &Config) -> Vec<&'static str> {
    let differs = [
        ("workers", first.workers != now.workers),
        ("state_dir", first.state_dir != now.state_dir),
        ("limits.memory", first.memory != now.memory),
        ("probe.address", first.probe != now.probe),
        ("admin", first.admin != now.admin),
        ("log", first.log != now.log),
        ("traces", first.traces != now.traces),
    ];
    let differing = differs.into_iter().filter(|(_, differs)| *differs);
    differing.map(|(key, _)| key).collect()
}

impl std::fmt::Debug for Reloader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reloader").finish_non_exhaustive()
    }
}
