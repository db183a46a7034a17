//! Certificates that are ordered from an authority (ACME, RFC 8555) for the names of routes.
//!
//! A thread of its own, since it reads and writes files that replicas share, and waits for an authority
//! that may be down. It never touches a listener: it puts certificates into the store, from where
//! `tls::reload` takes them up here and on every replica, and says what validations are answered
//! ([`Challenges`]). `server` says which names are wanted ([`Acme::set`]).
//!
//! - `renewal.rs`: when something is ordered, and by whom.
//! - `order.rs`: one order; `dns.rs`: the proof by DNS; `http.rs`: the way to the authority.
//! - `store.rs`: the folder. `schedule.rs`: times (pure).

mod dns;
mod http;
mod order;
mod renewal;
mod schedule;
mod store;

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use crate::config::{self, AcmeCertificate};
use crate::events::journal::{Journal, Kind, What};
use crate::published::Published;
use crate::telemetry::metrics::AcmeSample;
use crate::tls::challenges::Challenges;
use store::{Open, Store};

/// Time between two looks for challenges that another replica has begun.
const READ_EVERY: Duration = Duration::from_secs(1);

/// A store that cannot be used is tried again after this time.
const STORE_EVERY: Duration = Duration::from_secs(30);

/// Does it again when the authority did not take the nonce: some take no nonce twice, some forget them
/// (RFC 8555 §6.5). Instant-acme tries three times by itself.
macro_rules! again {
    ($call:expr) => {{
        let mut left = 3_u8;
        loop {
            match $call {
                Err(error) if left > 0 && $crate::acme::is_bad_nonce(&error) => left -= 1,
                outcome => break outcome,
            }
        }
    }};
}
use again;

/// What is to be ordered, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The authority and the store.
    pub config: config::Acme,
    /// For which names, and where each certificate goes.
    pub certificates: BTreeSet<AcmeCertificate>,
}

/// The way to the thread that orders. Dropped, the thread ends.
#[derive(Debug)]
pub struct Acme {
    /// There as soon as there is a plan.
    plans: OnceCell<mpsc::UnboundedSender<Option<Plan>>>,
    challenges: Arc<Published<Challenges>>,
    counts: Arc<Counts>,
}

/// What came of it.
#[derive(Debug, Default)]
struct Counts {
    issued: AtomicU64,
    refused: AtomicU64,
    unreachable: AtomicU64,
    /// When each name is to be renewed.
    renewals: Mutex<BTreeMap<Arc<str>, SystemTime>>,
    /// What happens is told to it.
    journal: Arc<Journal>,
}

impl Counts {
    fn tell(&self, kind: Kind, name: &str, text: String) {
        self.journal.record(What {
            name: Some(name.into()),
            ..What::new(kind, text)
        });
    }
}

impl Acme {
    /// Orders nothing yet. `challenges`: where validations are answered from; `journal` of what
    /// happens.
    pub fn new(challenges: Arc<Published<Challenges>>, journal: Arc<Journal>) -> Acme {
        Acme {
            plans: OnceCell::new(),
            challenges,
            counts: Arc::new(Counts {
                journal,
                ..Counts::default()
            }),
        }
    }

    /// From now on this is to be ordered, and nothing else; what is being ordered at this moment is brought
    /// to its end. The plan that is being carried out already changes nothing.
    pub fn set(&self, plan: Option<Plan>) {
        if self.plans.get().is_none() && plan.is_some() {
            match self.start() {
                // It was empty.
                Ok(plans) => drop(self.plans.set(plans)),
                Err(error) => tracing::error!(%error, "acme: no certificates are ordered"),
            }
        }
        if let Some(plans) = self.plans.get() {
            // It fails only when the thread has gone, and has said so.
            let _ = plans.send(plan);
        }
    }

    fn start(&self) -> io::Result<mpsc::UnboundedSender<Option<Plan>>> {
        let (plans, planned) = mpsc::unbounded_channel();
        let challenges = Arc::clone(&self.challenges);
        let counted = Arc::clone(&self.counts);
        let thread = std::thread::Builder::new().name("acme".to_owned());
        thread.spawn(move || {
            let runtime = Builder::new_current_thread()
                .enable_all()
                .build_local(LocalOptions::default());
            match runtime {
                Ok(runtime) => runtime.block_on(run(planned, &challenges, &counted)),
                Err(e) => tracing::error!(error = %e, "acme: no certificates are ordered"),
            }
        })?;
        Ok(plans)
    }

    /// What came of it; `None`: nothing was ever to be ordered.
    pub fn sample(&self) -> Option<AcmeSample> {
        self.plans.get()?;
        let counts = &*self.counts;
        // Relaxed: each stands for itself.
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let renewals = counts.renewals.lock();
        let renewals = renewals.unwrap_or_else(PoisonError::into_inner);
        Some(AcmeSample {
            orders: vec![
                ("issued", read(&counts.issued)),
                ("refused", read(&counts.refused)),
                ("unreachable", read(&counts.unreachable)),
            ],
            renewals: renewals.iter().map(|(n, t)| (Arc::clone(n), *t)).collect(),
        })
    }
}

async fn run(
    mut plans: mpsc::UnboundedReceiver<Option<Plan>>,
    challenges: &Published<Challenges>,
    counts: &Counts,
) {
    let mut plan = None;
    loop {
        let next = match &plan {
            None => plans.recv().await,
            Some(plan) => until_another(plan, &mut plans, challenges, counts).await,
        };
        let renewals = counts.renewals.lock();
        (renewals.unwrap_or_else(PoisonError::into_inner)).clear();
        plan = match next {
            Some(next) => next,
            None => return,
        };
    }
}

/// Carries a plan out until there is another one, and what is being ordered then has come to its end.
/// Returns that; `None`: there will be none any more.
async fn until_another(
    plan: &Plan,
    plans: &mut mpsc::UnboundedReceiver<Option<Plan>>,
    challenges: &Published<Challenges>,
    counts: &Counts,
) -> Option<Option<Plan>> {
    let (stop, stopped) = watch::channel(false);
    let mut work = pin!(carry_out(plan, challenges, counts, stopped));
    let mut newest = None;
    loop {
        tokio::select! {
            next = plans.recv() => {
                newest = next?;
                stop.send_replace(newest.as_ref() != Some(plan));
            }
            // It was stopped: there was another one.
            () = &mut work => return Some(newest),
        }
    }
}

/// Ends soon after it was `stopped`, with no order under way. Dropped before, as the process ends, it leaves
/// behind an order that the authority forgets, answers that are cleared away in an hour, and perhaps the
/// record of a proof by DNS.
async fn carry_out(
    plan: &Plan,
    challenges: &Published<Challenges>,
    counts: &Counts,
    mut stopped: watch::Receiver<bool>,
) {
    let store = loop {
        match Store::open(&plan.config.folder()) {
            Ok(store) => break store,
            Err(error) => tracing::error!(%error, "acme: no store, so nothing is ordered"),
        }
        tokio::select! {
            () = sleep(STORE_EVERY) => {}
            _ = stopped.wait_for(|stopped| *stopped) => return,
        }
    };
    tokio::select! {
        () = answer(&store, challenges) => {}
        () = renewal::keep_renewed(plan, &store, counts, stopped) => {}
    }
}

/// Keeps up with the challenges that are open, whoever has begun them.
async fn answer(store: &Store, challenges: &Published<Challenges>) {
    let mut known: Vec<Open> = Vec::new();
    loop {
        match store.challenges() {
            Ok(open) if open == known => {}
            Ok(open) => {
                challenges.publish(answers(&open));
                known = open;
            }
            Err(error) => tracing::warn!(%error, "acme: challenges cannot be read"),
        }
        sleep(READ_EVERY).await;
    }
}

fn answers(open: &[Open]) -> Challenges {
    let mut challenges = Challenges::default();
    for open in open {
        if !open.by_tls {
            challenges.answer_over_http(&open.token, &open.key_authorization);
        } else if let Err(error) = challenges.answer_by_tls(&open.name, &open.key_authorization) {
            tracing::warn!(name = open.name, %error, "acme: a challenge cannot be answered");
        }
    }
    challenges
}

fn is_bad_nonce(error: &instant_acme::Error) -> bool {
    is_problem(error, "badNonce")
}

/// Is it this one of the problems that RFC 8555 §6.7 names?
fn is_problem(error: &instant_acme::Error, name: &str) -> bool {
    let instant_acme::Error::Api(problem) = error else {
        return false;
    };
    let kind = problem.r#type.as_deref().unwrap_or_default();
    kind.strip_prefix("urn:ietf:params:acme:error:") == Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::AcmeChallenge;
    use crate::tls::dev;

    #[tokio::test(start_paused = true)]
    async fn the_same_plan_again_changes_nothing_and_another_one_is_taken_up() {
        let folder = tempfile::tempdir().unwrap();
        let certificate = |name: &str| {
            let file = folder.path().join(name);
            let made = dev::self_signed(&[name.to_owned()]).unwrap();
            std::fs::write(&file, format!("{}\n{}", made.cert, made.key)).unwrap();
            let name = name.into();
            AcmeCertificate { name, file }
        };
        let config = config::Acme {
            directory: "https://127.0.0.1:1/dir".into(),
            ca: None,
            contact: Vec::new(),
            store: folder.path().join("store"),
            eab: None,
            challenges: vec![AcmeChallenge::Tls],
            dns: None,
        };
        let [a, b] = ["a.example", "b.example"].map(certificate);
        let plan = |certificates| Plan {
            config: config.clone(),
            certificates,
        };
        let one = plan(BTreeSet::from([a.clone()]));
        let both = plan(BTreeSet::from([a, b]));
        let (plans, planned) = mpsc::unbounded_channel();
        let (counts, challenges) = (Counts::default(), Published::new(Challenges::default()));
        let told = async |plan: &Plan| {
            plans.send(Some(plan.clone())).unwrap();
            sleep(Duration::from_secs(1)).await;
            counts.renewals.lock().unwrap().clone()
        };
        let test = async {
            let first = told(&one).await;
            assert_eq!(first.len(), 1);
            // Begun anew, it would draw another time.
            assert_eq!(told(&one).await, first);
            assert_eq!(told(&both).await.len(), 2);
        };
        tokio::select! {
            () = run(planned, &challenges, &counts) => unreachable!("somebody can still tell"),
            () = test => {}
        }
    }
}
