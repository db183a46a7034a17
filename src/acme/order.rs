//! One order: from the name to a certificate (RFC 8555 §7.4), with the proof that is asked for.
//!
//! What is proven by TLS or over HTTP is answered by whichever replica is asked: this puts the answer
//! into the store, waits until all have read it, and only then tells the authority.

use std::time::{Duration, SystemTime};

use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeType, Identifier,
    KeyAuthorization, NewOrder, Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::dns::{Proof, ProofError};
use super::store::{Open, Store, seconds};
use super::{READ_EVERY, again};
use crate::config::{Acme, AcmeChallenge};

/// An order takes seconds. All that is done for it, its account too, ends within this time, but for
/// [`WITHDRAWAL`]; and both before its lock does.
pub const DEADLINE: Duration = Duration::from_secs(240);

/// So much longer may it take to withdraw a proof.
pub const WITHDRAWAL: Duration = Duration::from_secs(30);

/// Replicas read the store every [`READ_EVERY`]; then they have answers that are this old.
const ALL_HAVE_READ: Duration = READ_EVERY.saturating_mul(2);

/// Authorities validate within seconds, some within a minute.
const PATIENCE: RetryPolicy = RetryPolicy::new()
    .backoff(1.5)
    .timeout(Duration::from_secs(100));

/// A chain, and its key: PEM texts.
#[derive(Debug)]
pub struct Issued {
    /// The certificate comes first.
    pub chain: String,
    /// Its private key.
    pub key: String,
}

/// What is to be ordered.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// For this name, perhaps a wildcard.
    pub name: &'a str,
    /// Which of the ways to prove it comes first: another one after each failure.
    pub attempt: u32,
    /// The certificate that it takes the place of.
    pub replaces: Option<CertificateIdentifier<'static>>,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum OrderError {
    #[error(transparent)]
    Authority(#[from] instant_acme::Error),
    #[error("the authority offers none of the configured challenges")]
    NotOffered,
    #[error("the authority was not convinced by {challenge}: {why}")]
    NotProven {
        challenge: &'static str,
        why: String,
    },
    #[error("the proof by DNS cannot be given: {0}")]
    Dns(#[from] ProofError),
    #[error("the store of `acme` cannot be used: {0}")]
    Store(#[from] std::io::Error),
    #[error("a key cannot be made: {0}")]
    Key(#[from] rcgen::Error),
    #[error("it took longer than {} s", DEADLINE.as_secs())]
    Late,
}

/// A proof that is open, to be closed again.
#[derive(Debug)]
enum Proven {
    Stored(String),
    Dns(Box<Proof>),
}

/// Orders a certificate. It is given up at `end`, and its proof withdrawn then.
pub async fn obtain(
    account: &Account,
    store: &Store,
    config: &Acme,
    wanted: Wanted<'_>,
    end: Instant,
) -> Result<Issued, OrderError> {
    let mut proven = None;
    let work = carry_out(account, store, config, &wanted, &mut proven);
    let outcome = timeout_at(end, work).await;
    let closed = match proven {
        Some(Proven::Stored(token)) => store.close_challenge(&token).map_err(OrderError::from),
        Some(Proven::Dns(proof)) => match timeout(WITHDRAWAL, proof.withdraw()).await {
            Ok(withdrawn) => withdrawn.map_err(OrderError::from),
            Err(_) => Err(OrderError::Late),
        },
        None => Ok(()),
    };
    if let Err(error) = closed {
        tracing::warn!(name = wanted.name, %error, "acme: a proof was left behind");
    }
    outcome.unwrap_or(Err(OrderError::Late))
}

async fn carry_out(
    account: &Account,
    store: &Store,
    config: &Acme,
    wanted: &Wanted<'_>,
    proven: &mut Option<Proven>,
) -> Result<Issued, OrderError> {
    let identifiers = [Identifier::Dns(wanted.name.to_owned())];
    let mut new = NewOrder::new(&identifiers);
    if let Some(replaces) = &wanted.replaces {
        new = new.replaces(replaces.clone());
    }
    let mut order = again!(account.new_order(&new).await)?;
    let by = prove(&mut order, store, config, wanted, proven).await?;
    let status = match order.state().status {
        OrderStatus::Pending => again!(order.poll_ready(&PATIENCE).await)?,
        status => status,
    };
    if status == OrderStatus::Invalid {
        return Err(OrderError::NotProven {
            challenge: by.map_or("what it knew before", AcmeChallenge::name),
            why: why(&mut order).await,
        });
    }
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec![wanted.name.to_owned()])?;
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&key)?;
    again!(order.finalize_csr(request.der()).await)?;
    let chain = again!(order.poll_certificate(&PATIENCE).await)?;
    Ok(Issued {
        chain,
        key: key.serialize_pem(),
    })
}

/// Gives the proof that is asked for, if any is; says which.
async fn prove(
    order: &mut Order,
    store: &Store,
    config: &Acme,
    wanted: &Wanted<'_>,
    proven: &mut Option<Proven>,
) -> Result<Option<AcmeChallenge>, OrderError> {
    // One name, one authorization.
    let mut authorizations = order.authorizations();
    let Some(authorization) = authorizations.next().await else {
        return Ok(None);
    };
    let mut authorization = authorization?;
    if authorization.status == AuthorizationStatus::Valid {
        return Ok(None);
    }
    let possible = config.challenges_for(wanted.name);
    let offered = possible.filter(|kind| {
        let mut offered = authorization.challenges.iter();
        offered.any(|challenge| challenge.r#type == (*kind).into())
    });
    let offered: Vec<AcmeChallenge> = offered.collect();
    let turn = wanted.attempt as usize % offered.len().max(1);
    let kind = *offered.get(turn).ok_or(OrderError::NotOffered)?;
    let Some(mut challenge) = authorization.challenge(kind.into()) else {
        return Err(OrderError::NotOffered);
    };
    let answer = challenge.key_authorization();
    *proven = Some(give(kind, &challenge.token, &answer, store, config, wanted.name).await?);
    sleep(match kind {
        AcmeChallenge::Dns => config.dns.as_ref().map_or(ALL_HAVE_READ, |dns| dns.wait),
        AcmeChallenge::Tls | AcmeChallenge::Http => ALL_HAVE_READ,
    })
    .await;
    again!(challenge.set_ready().await)?;
    Ok(Some(kind))
}

async fn give(
    kind: AcmeChallenge,
    token: &str,
    answer: &KeyAuthorization,
    store: &Store,
    config: &Acme,
    name: &str,
) -> Result<Proven, OrderError> {
    if let (AcmeChallenge::Dns, Some(dns)) = (kind, &config.dns) {
        let name = name.strip_prefix("*.").unwrap_or(name);
        let proof = Proof::put(dns, name, answer.dns_value()).await?;
        return Ok(Proven::Dns(Box::new(proof)));
    }
    store.open_challenge(&Open {
        name: name.to_owned(),
        by_tls: kind == AcmeChallenge::Tls,
        token: token.to_owned(),
        key_authorization: answer.as_str().to_owned(),
        begun: seconds(SystemTime::now()),
    })?;
    Ok(Proven::Stored(token.to_owned()))
}

impl From<AcmeChallenge> for ChallengeType {
    fn from(challenge: AcmeChallenge) -> ChallengeType {
        match challenge {
            AcmeChallenge::Tls => ChallengeType::TlsAlpn01,
            AcmeChallenge::Http => ChallengeType::Http01,
            AcmeChallenge::Dns => ChallengeType::Dns01,
        }
    }
}

/// What the authority has found wrong.
async fn why(order: &mut Order) -> String {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let Ok(state) = again!(authorization.refresh().await) else {
            break;
        };
        let mut problems = state.challenges.iter().filter_map(|c| c.error.as_ref());
        if let Some(problem) = problems.next() {
            return problem.to_string();
        }
    }
    "it does not say why".to_owned()
}
