//! Why a request went where it went, in words: for the client who may ask, and for people who look.
//!
//! It reads an [`Account`], which is written as a request goes on; it decides nothing. [`wants`] reads
//! of a request that has not come what would be read of it.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::account::Account;
pub use super::choice::{How, Way};
use super::failure::{Cause, Failure};
use super::forward::{self, Hop};
use super::peer::Peer;
use super::preference::Preference;
use super::retry::trial;
use super::samples::{Cut, Sample};
use super::worker::Worker;
use crate::balance::affinity::{Affinity, Token};
use crate::balance::picker::NoBackend;
use crate::balance::wish::WhyTier;
use crate::config::{Config, HashBy, Protocol, Service, Strategy};
use crate::http::body::BodyFraming;
use crate::http::cookies;
use crate::http::head::RequestHead;
use crate::upstream::backend::Trial;

/// Value of `X-Evenkeel-Explain`: a dictionary of RFC 8941. Members that are not known are left out.
pub(super) fn field(account: &Account, worker: &Worker) -> String {
    let service = account.service.map(|index| worker.service(index));
    let mut members = Vec::new();
    if let Some(route) = &account.route {
        members.push(format!("route={}", quoted(route)));
    }
    if let Some(service) = service {
        members.push(format!("service={}", quoted(&service.name)));
    }
    if let Some(How::Turn { priority, .. }) = account.way.how {
        members.push(format!("tier={priority}"));
    }
    if let Some(backend) = &account.backend {
        members.push(format!("backend={}", quoted(&backend.address)));
    }
    if let (Some(how), Some(service)) = (account.way.how, service) {
        members.push(format!("why={}", quoted(&why(how, account.way, service))));
    }
    if let Some(failure) = account.failure {
        members.push(format!("failure={}", failure.reason));
    }
    members.push(format!("attempts={}", account.attempts));
    members.join(", ")
}

/// A request that is over, as it is kept for people. Allocates nothing. `head`: if it was understood.
pub(super) fn sample(
    account: &Account,
    head: Option<&RequestHead>,
    worker: &Worker,
    listener: usize,
    total: Duration,
) -> Sample {
    // As it came, whatever the route made of it.
    let path = account.path.as_deref().or(head.map(|head| &*head.path));
    Sample {
        at: SystemTime::now(),
        request_id: account.request_id,
        method: Cut::of(head.map_or(b"", |head| &head.method_text)),
        host: Cut::of(head.map_or(b"", |head| &head.authority)),
        path: Cut::of(path.unwrap_or_default()),
        config: Arc::clone(&worker.shared.config),
        listener,
        route: account.route.clone(),
        service: account.service,
        backend: account.backend.clone(),
        way: account.way,
        failure: account.failure,
        status: account.status,
        attempts: account.attempts,
        connect: account.connect,
        first_byte: account.first_byte,
        total,
    }
}

/// Why a request went where it went, step by step.
pub fn steps(sample: &Sample) -> Vec<String> {
    let mut steps = Vec::new();
    let service = sample.service.map(|index| &sample.config.services[index]);
    if let (Some(route), Some(service)) = (&sample.route, service) {
        steps.push(format!("route {route} leads to service {}", service.name));
    }
    if let Some(How::Turn { priority, why, .. }) = sample.way.how {
        steps.push(format!("tier {priority}: {}", why.words()));
    }
    if let (Some(how), Some(service), Some(backend)) = (sample.way.how, service, &sample.backend) {
        let why = why(how, sample.way, service);
        steps.push(format!("{}: {why}", backend.address));
    }
    if let Some(failure) = sample.failure {
        let side = failure.side.name();
        steps.push(format!("failed: {} ({side})", failure.reason));
    }
    steps
}

/// What a client who may hear it is told of a failure.
pub(super) fn details(failure: &Failure, account: &Account, worker: &Worker) -> String {
    let mut text = failure.to_string();
    if let Some(index) = account.service {
        let _ = write!(text, "; service {}", worker.service(index).name);
    }
    if let Some(backend) = &account.backend {
        let _ = write!(text, ", last backend {}", backend.address);
    }
    if account.attempts > 0 {
        let _ = write!(text, ", attempts {}", account.attempts);
    }
    if matches!(failure.cause, Cause::NoBackend(NoBackend::Full)) {
        text.push_str("; `max_in_flight` or `adaptive` bounds them");
    }
    text
}

/// How the last attempt came to its backend.
fn why(how: How, way: Way, service: &Service) -> String {
    let mut text = match how {
        How::Own => "a connection of this client's own".to_owned(),
        How::Again => "the same once more over a new connection".to_owned(),
        How::Turn {
            why: WhyTier::Cookie,
            ..
        } => "the request's cookie".to_owned(),
        How::Turn {
            why: WhyTier::Panic,
            ..
        } => format!(
            "nobody can serve, {} as if all were well",
            turn(how, service)
        ),
        How::Turn { why, .. } => match why {
            WhyTier::Lower => format!("{}, the tiers before have nobody", turn(how, service)),
            WhyTier::Spill => format!("{}, spilled from the tier before", turn(how, service)),
            _ => turn(how, service),
        },
    };
    if way.trial {
        text.push_str(", a trial after its ejection");
    }
    if let Some(reason) = way.after {
        let _ = write!(text, ", again after {reason}");
    }
    text
}

/// What the strategy goes by.
fn turn(how: How, service: &Service) -> String {
    let strategy = service.balancing.strategy;
    match (strategy, how) {
        (Strategy::Hash, How::Turn { keyed: true, .. }) => {
            format!("hash of {}", by(&service.hash_by))
        }
        (Strategy::Hash, _) => format!("weighted, without {}", by(&service.hash_by)),
        _ => strategy.name().to_owned(),
    }
}

/// What tells requests apart.
pub fn by(hash_by: &HashBy) -> String {
    match hash_by {
        HashBy::Address => "the client's address".to_owned(),
        HashBy::Header(name) => format!("header {name}"),
        HashBy::Cookie(name) => format!("cookie {name}"),
        HashBy::Path => "the path".to_owned(),
    }
}

/// Whom a request wants, as it would be read if it came.
#[derive(Debug)]
pub struct Wants {
    /// Name of the service's cookie, if the request has one of that name.
    pub cookie: Option<String>,
    /// What its cookie says.
    pub token: Option<Token>,
    /// What it is told apart from others by, hashed.
    pub key: Option<u64>,
    /// May it find out whether an ejected backend is back?
    pub trial: Trial,
}

/// What a request is, for [`wants`].
#[derive(Debug, Clone, Copy)]
pub struct Described<'a> {
    /// Its head.
    pub head: &'a RequestHead,
    /// How its body is framed.
    pub framing: BodyFraming,
    /// Its client.
    pub client: IpAddr,
    /// Index of the listener.
    pub listener: usize,
}

/// Whom a request to a service wants.
pub fn wants(
    config: &Config,
    service: usize,
    affinity: Option<&Affinity>,
    described: Described<'_>,
) -> Wants {
    let Described {
        head,
        framing,
        client,
        listener,
    } = described;
    let service = &config.services[service];
    let listener_of = &config.listeners[listener];
    let secure = matches!(listener_of.protocol, Protocol::Https(_));
    let peer = Peer {
        address: (client, 0).into(),
        is_unknown: false,
        listener,
        tls: secure.then_some("TLSv1.3"),
        arrival: None,
        coding: None,
        certificate: None,
    };
    if listener_of.protocol.is_layer4() {
        return Wants {
            cookie: None,
            token: None,
            key: Preference::of_connection(service, &peer).key,
            trial: Trial::Welcome,
        };
    }
    let mut head = head.clone();
    let (client, text) = (client.to_canonical(), client.to_canonical().to_string());
    let hop = Hop {
        client: &text,
        address: client,
        secure,
        trusted: config.trusts(client),
        underscores: config.downstream.allow_underscores,
        forwarded: config.downstream.forwarded,
        certificate: None,
    };
    forward::rewrite_request(&mut head, hop, [b'0'; 32]);
    let preference = Preference::of(service, affinity, &head, &peer);
    let cookie = affinity.map(Affinity::name);
    let cookie = cookie.filter(|name| cookies::named(&head.fields, name).next().is_some());
    Wants {
        cookie: cookie.map(str::to_owned),
        token: preference.token,
        key: preference.key,
        trial: trial(head.method, framing, service.upstream.retries),
    }
}

/// A string of RFC 8941 §3.3.3, which holds visible ASCII and spaces.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            ' '..='~' => quoted.push(c),
            _ => quoted.push('?'),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_breaks_out_of_its_quotes() {
        for (text, expected) in [
            ("shop/api", r#""shop/api""#),
            (r#"a"b\c"#, r#""a\"b\\c""#),
            ("a\r\nSet-Cookie: b", r#""a??Set-Cookie: b""#),
            ("schön", r#""sch?n""#),
        ] {
            assert_eq!(quoted(text), expected);
        }
    }
}
