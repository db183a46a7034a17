//! Which name is ordered when, and by which replica.
//!
//! The store decides: whoever finds that a certificate is due takes the lock of its name, looks once
//! more, and orders. Failures are stored too, so that replicas and restarts don't ask again and again
//! for what was refused.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use data_encoding::BASE64URL_NOPAD;
use instant_acme::{
    Account, AccountCredentials, CertificateIdentifier, ExternalAccountKey, NewAccount,
};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use super::http::Https;
use super::order::{DEADLINE, OrderError, Wanted, obtain};
use super::schedule::{self, Failure, Window, due, wait};
use super::store::{Failures, Store, seconds};
use super::{Counts, Plan, again, is_problem};
use crate::config::{self, AcmeCertificate, Trust};
use crate::events::journal::Kind;
use crate::telemetry::date::Rfc3339;
use crate::tls::authority_key::issued_by;
use crate::tls::certificates::{Certificate, load};
use crate::tls::client::Loader;

/// Certificates are looked at this often, if nothing is to be done before.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// While another replica orders, and before anything is done at all.
const SOON: Duration = Duration::from_secs(1);

/// An authority says when it wants to be asked again about renewals; it is believed within these
/// bounds (RFC 9773 §4.3.2).
const ASK_WITHIN: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(24 * 3600));

/// After an answer that says nothing.
const ASK_AGAIN: Duration = Duration::from_secs(6 * 3600);

/// What is known of a certificate besides what is in it.
#[derive(Debug)]
struct Known {
    /// Which one it is: until when it is valid.
    not_after: SystemTime,
    /// Where in a span of time its renewal lies.
    chance: f64,
    /// What its authority suggests.
    window: Option<Window>,
    /// When it is asked.
    ask: SystemTime,
}

/// Why nothing was ordered.
#[derive(Debug, thiserror::Error)]
enum NotOrdered {
    #[error(transparent)]
    Order(#[from] OrderError),
    #[error("the store of `acme` cannot be used: {0}")]
    Store(#[from] std::io::Error),
    #[error("{0}")]
    Configured(String),
    #[error("another replica makes the account")]
    Busy,
}

struct Keeper<'a> {
    plan: &'a Plan,
    store: &'a Store,
    counts: &'a Counts,
    account: Option<Account>,
    known: HashMap<Arc<str>, Known>,
}

/// Keeps all certificates of the plan renewed, until it is `stopped`: an order that is under way then is
/// brought to its end.
pub async fn keep_renewed(
    plan: &Plan,
    store: &Store,
    counts: &Counts,
    mut stopped: watch::Receiver<bool>,
) {
    let mut keeper = Keeper {
        plan,
        store,
        counts,
        account: None,
        known: HashMap::new(),
    };
    loop {
        let mut next = SystemTime::now() + LOOK_EVERY;
        for certificate in &plan.certificates {
            if *stopped.borrow() {
                return;
            }
            let then = keeper.look(certificate).await.unwrap_or_else(|error| {
                let name = &*certificate.name;
                tracing::warn!(name, %error, "acme: the store cannot be used");
                next
            });
            next = next.min(then);
        }
        let left = next.duration_since(SystemTime::now());
        tokio::select! {
            () = sleep(left.unwrap_or_default().max(SOON)) => {}
            _ = stopped.wait_for(|stopped| *stopped) => return,
        }
    }
}

impl Keeper<'_> {
    /// Orders a certificate if it is due. Returns when to look again.
    async fn look(&mut self, certificate: &AcmeCertificate) -> std::io::Result<SystemTime> {
        let name = &certificate.name;
        let now = SystemTime::now();
        let due = self.due(certificate, now).await;
        if due > now {
            return Ok(due);
        }
        let failures = self.store.failures(name)?;
        if failures.until > seconds(now) {
            return Ok(now + Duration::from_secs(failures.until - seconds(now)));
        }
        let Some(lock) = self.store.lock(name)? else {
            return Ok(now + SOON);
        };
        // The lock lasts longer.
        let end = Instant::now() + DEADLINE;
        // Whoever had the lock before may have done it. Who does not say in time is asked no more: it
        // was due before.
        let due = timeout_at(end, self.due(certificate, now)).await;
        if let Ok(due) = due
            && due > now
        {
            return Ok(due);
        }
        let ordered = self.order(certificate, failures, end).await;
        let then = self.account_for(name, ordered, failures)?;
        drop(lock);
        match then {
            Some(then) => Ok(then),
            None => Ok(self.due(certificate, now).await),
        }
    }

    /// When a certificate is to be renewed; one that is not there, or cannot be used, is due.
    async fn due(&mut self, certificate: &AcmeCertificate, now: SystemTime) -> SystemTime {
        let due = self.due_of(certificate, now).await;
        let renewals = self.counts.renewals.lock();
        let mut renewals = renewals.unwrap_or_else(PoisonError::into_inner);
        renewals.insert(Arc::clone(&certificate.name), due);
        due
    }

    async fn due_of(&mut self, certificate: &AcmeCertificate, now: SystemTime) -> SystemTime {
        let Ok(held) = load(&certificate.files()) else {
            return now;
        };
        let validity = held.validity();
        let known = self.known.remove(&certificate.name);
        let known = known.filter(|known| known.not_after == validity.not_after);
        let mut known = known.unwrap_or_else(|| Known {
            not_after: validity.not_after,
            chance: fastrand::f64(),
            window: None,
            ask: now,
        });
        if known.ask <= now {
            let (window, again) = self.suggested(&held).await;
            known.window = window.or(known.window);
            known.ask = now + again;
        }
        let obtained = std::fs::metadata(&certificate.file).and_then(|file| file.modified());
        let obtained = obtained.unwrap_or(validity.not_before);
        let due = due(validity, obtained, known.window, known.chance);
        self.known.insert(Arc::clone(&certificate.name), known);
        due
    }

    /// What its authority suggests for a certificate, and when to ask again.
    async fn suggested(&mut self, held: &Certificate) -> (Option<Window>, Duration) {
        let Some(id) = identifier(held) else {
            return (None, ASK_AGAIN);
        };
        // Without an account there is nobody to ask, nor a reason to make one.
        let Ok(Some(account)) = self.known_account().await else {
            return (None, ASK_AGAIN);
        };
        match account.renewal_info(&id).await {
            Ok((info, again)) => {
                let window = info.suggested_window;
                let window = schedule::window(window.start.into(), window.end.into());
                (window, again.clamp(ASK_WITHIN.0, ASK_WITHIN.1))
            }
            Err(error) => {
                tracing::debug!(%error, "acme: the authority suggests no time for a renewal");
                (None, ASK_AGAIN)
            }
        }
    }

    async fn order(
        &mut self,
        certificate: &AcmeCertificate,
        failures: Failures,
        end: Instant,
    ) -> Result<Kind, NotOrdered> {
        let name = &*certificate.name;
        let account = timeout_at(end, self.account()).await;
        let account = account.unwrap_or(Err(OrderError::Late.into()))?;
        let held = load(&certificate.files()).ok();
        let kind = match held {
            Some(_) => Kind::AcmeRenewed,
            None => Kind::AcmeObtained,
        };
        let suggested = self.known.get(name).is_some_and(|k| k.window.is_some());
        // An authority may refuse to replace the same one twice.
        let replaces = held.filter(|_| suggested && failures.count == 0);
        let wanted = Wanted {
            name,
            attempt: failures.count,
            replaces: replaces.and_then(|held| identifier(&held)),
        };
        tracing::info!(name, "acme: ordering a certificate");
        let issued = obtain(&account, self.store, &self.plan.config, wanted, end).await;
        let issued = issued.inspect_err(|error| {
            if let OrderError::Authority(error) = error
                && is_problem(error, "accountDoesNotExist")
            {
                tracing::warn!("acme: the authority does not know the account any more");
                self.account = None;
                // If that fails, the next order fails in the same way.
                let _ = self.store.forget_account();
            }
        })?;
        let file = &certificate.file;
        (self.store).store_certificate(file, &issued.chain, &issued.key)?;
        Ok(kind)
    }

    /// Counts, says and stores what came of an order. Returns when to look again; `None`: there is a
    /// certificate.
    fn account_for(
        &mut self,
        name: &str,
        ordered: Result<Kind, NotOrdered>,
        failures: Failures,
    ) -> std::io::Result<Option<SystemTime>> {
        let now = SystemTime::now();
        let error = match ordered {
            Ok(kind) => {
                self.counts.issued.fetch_add(1, Ordering::Relaxed);
                let done = match kind {
                    Kind::AcmeRenewed => "renewed",
                    _ => "obtained",
                };
                let from = &self.plan.config.directory;
                let text = format!("a certificate for {name} was {done} from {from}");
                self.counts.tell(kind, name, text);
                tracing::info!(name, "acme: a certificate was issued");
                self.store.store_failures(name, Failures::default())?;
                return Ok(None);
            }
            Err(NotOrdered::Busy) => return Ok(Some(now + SOON)),
            Err(error) => error,
        };
        let failure = failure(&error);
        let count = match failure {
            Failure::Refused => &self.counts.refused,
            Failure::Unreachable => &self.counts.unreachable,
        };
        count.fetch_add(1, Ordering::Relaxed);
        let failures = failures.count.saturating_add(1);
        let until = now + wait(failure, failures, fastrand::f64());
        let until_text = Rfc3339::seconds(until);
        tracing::warn!(name, failures, next = %until_text, "acme: no certificate: {error}");
        let text = format!(
            "no certificate for {name}: {error}; tried {failures} times, next at {until_text}"
        );
        self.counts.tell(Kind::AcmeFailed, name, text);
        self.store.store_failures(
            name,
            Failures {
                count: failures,
                until: seconds(until),
            },
        )?;
        Ok(Some(until))
    }

    /// The account, which is made if there is none.
    async fn account(&mut self) -> Result<Account, NotOrdered> {
        if let Some(account) = self.known_account().await? {
            return Ok(account);
        }
        let Some(_lock) = self.store.lock_account()? else {
            return Err(NotOrdered::Busy);
        };
        if let Some(account) = self.known_account().await? {
            return Ok(account);
        }
        let config = &self.plan.config;
        let bound = config.eab.as_ref().map(external_key).transpose()?;
        let contact: Vec<&str> = config.contact.iter().map(|c| &**c).collect();
        let new = NewAccount {
            contact: &contact,
            terms_of_service_agreed: true,
            only_return_existing: false,
        };
        let url = config.directory.to_string();
        let made = again!({
            let builder = Account::builder_with_http(Box::new(https(config)?));
            builder.create(&new, url.clone(), bound.as_ref()).await
        });
        let (account, credentials) = made.map_err(OrderError::from)?;
        self.store.store_account(&credentials)?;
        tracing::info!(directory = %config.directory, "acme: an account was made");
        Ok(self.account.insert(account).clone())
    }

    /// The account that is stored.
    async fn known_account(&mut self) -> Result<Option<Account>, NotOrdered> {
        if let Some(account) = &self.account {
            return Ok(Some(account.clone()));
        }
        let Some(stored) = self.store.account::<AccountCredentials>()? else {
            return Ok(None);
        };
        let builder = Account::builder_with_http(Box::new(https(&self.plan.config)?));
        let account = builder.from_credentials(stored).await;
        let account = account.map_err(OrderError::from)?;
        Ok(Some(self.account.insert(account).clone()))
    }
}

fn https(config: &config::Acme) -> Result<Https, NotOrdered> {
    let trust = match &config.ca {
        Some(file) => Trust::Authorities(file.clone()),
        None => Trust::System,
    };
    let configured = |error: &dyn std::fmt::Display| NotOrdered::Configured(error.to_string());
    let roots = Loader::default().authorities(&trust);
    Https::new(roots.map_err(|error| configured(&error))?).map_err(|error| configured(&error))
}

fn external_key(eab: &config::ExternalAccount) -> Result<ExternalAccountKey, NotOrdered> {
    let text = std::fs::read_to_string(&eab.key_file);
    let key = text.map_err(|error| error.to_string()).and_then(|text| {
        let key = BASE64URL_NOPAD.decode(text.trim().trim_end_matches('=').as_bytes());
        key.map_err(|error| format!("not a key in base64url: {error}"))
    });
    let key =
        key.map_err(|why| NotOrdered::Configured(format!("{}: {why}", eab.key_file.display())))?;
    Ok(ExternalAccountKey::new(eab.kid.to_string(), &key))
}

fn identifier(held: &Certificate) -> Option<CertificateIdentifier<'static>> {
    let (issuer, serial) = issued_by(held.leaf())?;
    Some(CertificateIdentifier::new(issuer.into(), serial.into()).into_owned())
}

/// Did the authority say no, or nothing?
fn failure(error: &NotOrdered) -> Failure {
    use instant_acme::Error;
    match error {
        NotOrdered::Order(OrderError::Authority(
            Error::Api(_) | Error::Timeout(_) | Error::Str(_) | Error::Unsupported(_),
        ))
        | NotOrdered::Order(OrderError::NotProven { .. } | OrderError::NotOffered) => {
            Failure::Refused
        }
        _ => Failure::Unreachable,
    }
}
