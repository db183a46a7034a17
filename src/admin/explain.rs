//! Where a request would go, and why: for `GET /api/v1/explain` and `evenkeel explain`.
//!
//! `question.rs` makes a request of what somebody asks about, by the parser and the rules of real ones;
//! `answer.rs` is what people and programs are told; `service.rs` says of a service's backends what they
//! can do. What decides is asked of whoever decides: routes of `router::explain`, tiers and turns of
//! each worker's schedule.

pub mod answer;
pub mod question;
mod service;

use std::time::{Duration, SystemTime};

use answer::{Explanation, Kind, Listener, Named, RequestAsked, SampledRequest};
use question::{Asked, BadQuestion, Question, Verdict};
use service::id;
pub use service::{Known, serve};

use super::state::State;
use crate::config::{Access, Config, Protocol, Redirect, Route, Target};
use crate::http::head::{has_encoded_slash, other_readings, without_empty_segments};
use crate::proxy::explain::{How, steps};
use crate::proxy::limits::origin;
use crate::proxy::samples::Sample;
use crate::router::Request;
use crate::router::explain;
use crate::telemetry::characters::steers;

impl State {
    /// Where a request would go that came in now. Waits for the workers, for a second at most.
    pub async fn explain(&self, asked: &Asked) -> Result<Explanation, BadQuestion> {
        let shared = self.generations.load();
        let (mut explanation, routed) = route(&shared.config, asked)?;
        let Some(routed) = routed else {
            return Ok(explanation);
        };
        let service = &shared.services[routed.service];
        let known = Known {
            snapshot: service.snapshot.load(),
            affinity: service.affinity.as_deref(),
            gate: service.gate.as_deref(),
            forecasts: shared
                .questions
                .ask(shared.generation, routed.service)
                .await,
        };
        serve(&shared.config, &routed, known, &mut explanation);
        Ok(explanation)
    }

    /// A few requests of late, and why they went where they went; the latest first.
    pub fn sampled(&self) -> Vec<SampledRequest> {
        let samples = self.generations.load().samples.latest();
        samples.iter().map(sampled).collect()
    }
}

/// A request that has a route.
#[derive(Debug)]
pub struct Routed {
    /// The request.
    pub question: Question,
    /// Index of the service.
    pub service: usize,
}

/// As far as the configuration says it: listener and route. `None`: the request gets no further, and
/// the explanation is whole.
pub fn route(config: &Config, asked: &Asked) -> Result<(Explanation, Option<Routed>), BadQuestion> {
    let mut explanation = Explanation {
        request: RequestAsked {
            method: asked.method.clone(),
            url: asked.url.clone(),
            client: asked.client.clone(),
        },
        ..Explanation::default()
    };
    let question = match question::read(config, asked)? {
        Verdict::Asked(question) => *question,
        Verdict::NoListener(why) => {
            explanation.end(Kind::Refused, None, why);
            return Ok((explanation, None));
        }
        Verdict::Refused(listener, rejection) => {
            explanation.listener = Some(listener);
            explanation.refuse(Some(rejection.status), rejection.reason);
            return Ok((explanation, None));
        }
    };
    explanation.listener = Some(question.listener.clone());
    let listener = &config.listeners[question.index];
    let connects = listener.protocol.is_layer4();
    let admits = |access: &Option<Access>| {
        let client = match connects {
            true => question.client,
            false => origin::client(question.client, &question.head.fields, config),
        };
        access
            .as_ref()
            .is_none_or(|access| access.admits(Some(client)))
    };
    // A connection has no answer but its end.
    let with = |status: u16| (!connects).then_some(status);
    if config.downstream.reject_encoded_slash && has_encoded_slash(&question.head.path) {
        let why = "encoded slash in the path (`reject_encoded_slash`)";
        explanation.refuse(Some(400), why);
        return Ok((explanation, None));
    }
    if !admits(&listener.access) {
        explanation.refuse(with(403), "the listener does not admit this client");
        return Ok((explanation, None));
    }
    if let Some(to) = listener.redirect {
        redirect(to, &question, &mut explanation);
        return Ok((explanation, None));
    }
    let head = &question.head;
    let asked = Request {
        listener: question.index,
        method: &head.method_text,
        host: &head.host,
        path: &without_empty_segments(&head.path),
        query: &head.query,
        fields: &head.fields,
    };
    let verdicts = match listener.protocol {
        Protocol::Http | Protocol::Https(_) => explain::request(config, asked),
        Protocol::Tls => explain::connection(config, question.index, Some(&head.host), &[]),
        Protocol::Tcp => explain::connection(config, question.index, None, &[]),
    };
    let mut found = None;
    for (route, verdict) in config.routes.iter().zip(&verdicts) {
        let label = route.label.to_string();
        if *verdict == explain::Verdict::Wins {
            found = Some(route);
            explanation.route = Some(Named {
                label,
                why: why_it_won(&verdicts).to_owned(),
            });
        } else {
            let why = verdict.to_string();
            explanation.routes_lost.push(Named { label, why });
        }
    }
    let Some(route) = found else {
        explanation.refuse(with(404), "no route matches");
        return Ok((explanation, None));
    };
    let readings = match connects {
        true => Vec::new(),
        false => other_readings(asked.path),
    };
    for path in &readings {
        let verdicts = explain::request(config, Request { path, ..asked });
        let other = verdicts.iter().position(|v| *v == explain::Verdict::Wins);
        let other = other.map(|at| &config.routes[at]);
        let guarded = other.filter(|other| !std::ptr::eq(*other, route) && other.is_guarded());
        if let Some(Route { label, .. }) = guarded {
            let why = format!("with its escapes decoded it is of {label}, which is guarded");
            explanation.refuse(Some(400), &why);
            return Ok((explanation, None));
        }
    }
    if !admits(&route.access) {
        explanation.refuse(with(403), "the route does not admit this client");
        return Ok((explanation, None));
    }
    if let (Some(auth), Some(named)) = (&route.auth, &mut explanation.route) {
        let name = &config.services[auth.service].name;
        named.why += &format!("; {name} is asked first whether it may go on");
    }
    if let (Some(mirror), Some(named)) = (&route.mirror, &mut explanation.route) {
        let name = &config.services[mirror.service].name;
        named.why += &format!("; {}% of its requests are copied to {name}", mirror.percent);
    }
    let service = match &route.target {
        Target::Service(service) => *service,
        Target::Split(shares) => {
            // What is asked about is one request: that of the service which has most of them.
            let most = shares.iter().max_by_key(|share| share.weight);
            let most = most.map_or(0, |share| share.service);
            let total: u32 = shares.iter().map(|share| share.weight).sum();
            let parts = shares.iter().map(|share| {
                let name = &config.services[share.service].name;
                format!("{name} {} of {total}", share.weight)
            });
            if let Some(named) = &mut explanation.route {
                let parts = parts.collect::<Vec<_>>().join(", ");
                let name = &config.services[most].name;
                named.why += &format!("; of its requests have {parts}: this is one of {name}'s");
            }
            most
        }
        Target::Redirect(to) => {
            explanation.redirect(to.status, "the route redirects");
            return Ok((explanation, None));
        }
    };
    Ok((explanation, Some(Routed { question, service })))
}

/// By what the others lost that matched too.
fn why_it_won(verdicts: &[explain::Verdict]) -> &'static str {
    use explain::Verdict::{FewerConditions, LaterProtocol, LessExactHost, ShorterPath};
    let any = |verdict: explain::Verdict| verdicts.contains(&verdict);
    if any(FewerConditions) {
        "its conditions are more, or more exact, than those of others that match"
    } else if any(ShorterPath) {
        "its path is the longest of those that match"
    } else if any(LessExactHost) {
        "its host is the most exact of those that match"
    } else if any(LaterProtocol) {
        "it asks for a protocol that the client prefers"
    } else {
        "no other matches"
    }
}

fn redirect(to: Redirect, question: &Question, explanation: &mut Explanation) {
    let host = &question.head.host;
    if host.is_empty() {
        return explanation.refuse(Some(400), "there is no host to redirect to");
    }
    let port = match to.port {
        443 => String::new(),
        port => format!(":{port}"),
    };
    let why = format!("the listener redirects to https://{host}{port}");
    explanation.redirect(to.status, &why);
}

fn sampled(sample: &Sample) -> SampledRequest {
    let text = |bytes: &[u8]| printable(&String::from_utf8_lossy(bytes));
    let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
    let config = &sample.config;
    let service = sample
        .service
        .map(|index| config.services[index].name.to_string());
    SampledRequest {
        at: timestamp(sample.at),
        request_id: Some(text(&sample.request_id)),
        method: text(sample.method.text()),
        host: Some(text(sample.host.text())).filter(|host| !host.is_empty()),
        path: text(sample.path.text()),
        listener: config.listeners[sample.listener].name.to_string(),
        route: sample.route.as_ref().map(ToString::to_string),
        service,
        backend: sample.backend.as_deref().map(id),
        priority: match sample.way.how {
            Some(How::Turn { priority, .. }) => Some(priority),
            _ => None,
        },
        status: sample.status,
        attempts: sample.attempts,
        connect_ms: sample.connect.map(milliseconds),
        first_byte_ms: sample.first_byte.map(milliseconds),
        duration_ms: milliseconds(sample.total),
        why: steps(sample),
    }
}

/// What clients sent, as it may be shown.
fn printable(text: &str) -> String {
    let show = |c: char| if steers(c) { '\u{fffd}' } else { c };
    text.chars().map(show).collect()
}

/// RFC 3339, to the millisecond.
fn timestamp(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}

impl Listener {
    fn new(listener: &crate::config::Listener, why: String) -> Listener {
        Listener {
            name: listener.name.to_string(),
            why,
        }
    }
}

#[cfg(test)]
mod tests;
