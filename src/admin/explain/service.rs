//! What becomes of a request at its service: where cookie and key lead, which tier serves, what each
//! backend can do, and who would be next on each worker.

use std::sync::Arc;
use std::time::Duration;

use super::Routed;
use super::answer::{
    Candidate, Explanation, Kind, NextPick, Preference, SnapshotOf, TierOf, TierState, Withdrawn,
};
use crate::admin::model::backend_id;
use crate::balance::affinity::Affinity;
use crate::balance::explain::Forecast;
use crate::balance::picker::{NoBackend, Pick};
use crate::balance::snapshot::{Member, Snapshot};
use crate::balance::wish::{WhenFull, WhyTier, Wish};
use crate::clock::Millis;
use crate::config::{Config, Service, Strategy};
use crate::http::body::BodyFraming;
use crate::proxy::explain::{Described, Wants, by, wants};
use crate::proxy::questions::Unanswered;
use crate::upstream::backend::{Backend, Unavailable};
use crate::upstream::gate::Gate;
use crate::upstream::standing::{Ejection, Reason, State};

/// What is known of a service.
#[derive(Debug)]
pub struct Known<'a> {
    /// Its backends.
    pub snapshot: Arc<Snapshot>,
    /// Its cookie.
    pub affinity: Option<&'a Affinity>,
    /// Where requests wait.
    pub gate: Option<&'a Gate>,
    /// What the schedule of each worker would do.
    pub forecasts: Vec<Result<Forecast, Unanswered>>,
}

/// Says what becomes of a request at its service.
pub fn serve(config: &Config, routed: &Routed, known: Known<'_>, explanation: &mut Explanation) {
    let now = Millis::now();
    let service = &config.services[routed.service];
    let Known {
        snapshot,
        affinity,
        gate,
        mut forecasts,
    } = known;
    explanation.service = Some(service.name.to_string());
    explanation.strategy = Some(service.balancing.strategy.name().to_owned());
    explanation.snapshot = Some(SnapshotOf {
        number: snapshot.number,
        age_seconds: (snapshot.number > 0).then(|| now.since(snapshot.made).as_secs_f64()),
    });
    explanation.withdrawn = withdrawn(&snapshot, now);
    if let (BodyFraming::Length(length), Some(most)) = (routed.question.framing, service.max_body)
        && length > most
    {
        let why = format!("the body is larger than `max_body` ({most} bytes)");
        explanation.refuse(Some(413), &why);
        return;
    }
    let question = &routed.question;
    let described = Described {
        head: &question.head,
        framing: question.framing,
        client: question.client,
        listener: question.index,
    };
    let wants = wants(config, routed.service, affinity, described);
    let wish = Wish {
        trial: wants.trial,
        when_full: match gate {
            Some(_) => WhenFull::Waits,
            None => WhenFull::GoesOn,
        },
        key: wants.key,
        token: wants.token,
        ..Wish::at(now)
    };
    let nexts: Vec<_> = (forecasts.iter_mut())
        .map(|forecast| match forecast {
            Ok(forecast) => Ok(forecast.next(wish)),
            Err(unanswered) => Err(*unanswered),
        })
        .collect();
    let answered = forecasts.iter().zip(&nexts);
    let answered = answered.filter_map(|(forecast, next)| {
        Some((forecast.as_ref().ok()?, next.as_ref().ok()?.as_ref().ok()?))
    });
    let first = answered.into_iter().next();
    explanation.backends = candidates(service, &snapshot, wish);
    let (mut by_chance, mut parts) = (false, Vec::new());
    if let Some((forecast, pick)) = first {
        explanation.tier = Some(TierOf {
            priority: pick.priority,
            why: pick.why.words().to_owned(),
        });
        by_chance = tell_chances(forecast, pick, wish, explanation);
        parts = forecast.parts();
    }
    explanation.tiers = tiers(&snapshot, &parts, wish);
    explanation.preferences = preferences(service, &snapshot, &wants, first, wish);
    let nexts = nexts.iter().enumerate();
    explanation.next = nexts
        .map(|(worker, next)| next_pick(worker, next, by_chance))
        .collect();
    match forecasts.iter().any(Result::is_ok) {
        true => outcome(explanation, gate, by_chance),
        false => {
            let words = "unknown: no worker has answered".to_owned();
            explanation.end(Kind::Unknown, None, words);
        }
    }
}

/// Says of each backend of the tier that serves how probable it is; true if chance chooses at all.
fn tell_chances(
    forecast: &Forecast,
    pick: &Pick,
    wish: Wish<'_>,
    explanation: &mut Explanation,
) -> bool {
    let Some(chances) = forecast.chances(pick.priority, pick.why, wish) else {
        return false;
    };
    let tiers = &forecast.snapshot().tiers;
    let members = tiers.iter().find(|tier| tier.priority == pick.priority);
    for (member, chance) in members.into_iter().flat_map(|t| &t.members).zip(chances) {
        let id = id(&member.backend);
        let is_it = |one: &&mut Candidate| one.id == id && one.priority == pick.priority;
        if let Some(candidate) = explanation.backends.iter_mut().find(is_it) {
            candidate.chance = Some(chance);
        }
    }
    true
}

fn next_pick(
    worker: usize,
    next: &Result<Result<Pick, NoBackend>, Unanswered>,
    by_chance: bool,
) -> NextPick {
    let nobody = |why: String| NextPick {
        worker,
        backend: None,
        priority: None,
        why,
    };
    match next {
        Err(unanswered) => nobody(unanswered.to_string()),
        Ok(Err(none)) => nobody(none.to_string()),
        Ok(Ok(pick)) if by_chance && pick.why != WhyTier::Cookie => NextPick {
            priority: Some(pick.priority),
            ..nobody("by chance".to_owned())
        },
        Ok(Ok(pick)) => NextPick {
            worker,
            backend: Some(id(pick.backend())),
            priority: Some(pick.priority),
            why: match pick.trial {
                true => format!("{}; a trial after its ejection", pick.why.words()),
                false => pick.why.words().to_owned(),
            },
        },
    }
}

/// Says what would be done.
fn outcome(explanation: &mut Explanation, gate: Option<&Gate>, by_chance: bool) {
    let next = &explanation.next;
    if by_chance && let Some(tier) = &explanation.tier {
        let words = format!("goes to a backend of tier {} by chance", tier.priority);
        return explanation.end(Kind::Forwarded, None, words);
    }
    let mut ids: Vec<&str> = next.iter().filter_map(|n| n.backend.as_deref()).collect();
    ids.sort_unstable();
    ids.dedup();
    if let Some(one) = ids.first() {
        let words = match ids.len() {
            1 => format!("goes to {one}"),
            _ => "goes to the next backend of the worker that it comes to".to_owned(),
        };
        return explanation.end(Kind::Forwarded, None, words);
    }
    let full = NoBackend::Full.to_string();
    if let Some(gate) = gate.filter(|_| next.iter().any(|n| n.why == full)) {
        let words = format!(
            "waits in line, behind {} of at most {}, for {} at most; then the next tier, or 503",
            gate.waiting(),
            gate.room,
            words(gate.patience),
        );
        return explanation.end(Kind::Queued, None, words);
    }
    let why = next.first().map(|next| next.why.clone());
    explanation.refuse(
        Some(503),
        &why.unwrap_or_else(|| "nobody was asked".to_owned()),
    );
}

fn candidates(service: &Service, snapshot: &Snapshot, wish: Wish<'_>) -> Vec<Candidate> {
    let shares = snapshot.shares(service.balancing.strategy);
    // Those that are drained come last, and have none.
    let shares = shares.into_iter().chain(std::iter::repeat(0.0));
    let mut candidates: Vec<_> = snapshot
        .listed()
        .zip(shares)
        .map(|((priority, member), share)| candidate(service, priority, member, share, wish))
        .collect();
    candidates.sort_by_key(|candidate| candidate.priority);
    candidates
}

fn candidate(
    service: &Service,
    priority: u16,
    member: &Member,
    share: f64,
    wish: Wish<'_>,
) -> Candidate {
    let backend = &*member.backend;
    let (state, reason) = backend.state(wish.now);
    let out_until = backend
        .out_until(wish.now)
        .filter(|until| until.0 < u64::MAX);
    Candidate {
        id: id(backend),
        target: backend.endpoint.target.to_string(),
        priority,
        weight: member.weight,
        share,
        in_flight: backend.in_flight(),
        state: state.name().to_owned(),
        reason: (reason != Reason::None).then(|| reason.name().to_owned()),
        out_for_seconds: out_until.map(|until| until.since(wish.now).as_secs_f64()),
        pickable: is_pickable(backend, wish),
        why: why(service, backend, wish),
        chance: None,
    }
}

fn is_pickable(backend: &Backend, wish: Wish<'_>) -> bool {
    !backend.drained() && backend.look(wish.now, wish.trial).is_ok()
}

/// Why a backend can be picked, or cannot.
fn why(service: &Service, backend: &Backend, wish: Wish<'_>) -> String {
    let now = wish.now;
    let (state, reason) = backend.state(now);
    let left = |until: Option<Millis>| words(until.map_or(Duration::ZERO, |u| u.since(now)));
    match state {
        State::Drained => "drained by hand: nothing but its cookies leads to it".to_owned(),
        State::Down => match backend.down_since() {
            Some(since) if reason != Reason::Unchecked => {
                format!("down for {}: {}", words(now.since(since)), said_of(reason))
            }
            _ => said_of(reason).to_owned(),
        },
        State::PassedOver => format!(
            "passed over for another {}: {}; picked where nobody else is left",
            left(backend.passed_over_until(now)),
            said_of(reason)
        ),
        State::Ejected => match backend.ejection().out_until(now) {
            Some(until) => format!(
                "ejected for another {}: {}",
                left(Some(until)),
                said_of(reason)
            ),
            None => match backend.look(now, wish.trial) {
                Err(Unavailable::Until(_)) => format!(
                    "ejected: {}; a request that may be repeated is to try it first",
                    said_of(reason)
                ),
                _ => format!(
                    "ejected: {}; the next request tries whether it is back",
                    said_of(reason)
                ),
            },
        },
        State::Trial => match backend.ejection() {
            Ejection::Trial(until) => format!(
                "ejected: {}; a request is finding out whether it is back, for {} at most",
                said_of(reason),
                left(Some(until))
            ),
            _ => said_of(reason).to_owned(),
        },
        State::Up if !backend.has_room() => format!(
            "full: {} in flight, and no room for more (`max_in_flight`, `adaptive`)",
            backend.in_flight()
        ),
        State::Up => match backend.part(now, service.balancing.slow_start) {
            Some(part) => format!(
                "it can be picked; its share has grown to {:.0} % (`slow_start`)",
                part * 100.0
            ),
            None => "it can be picked".to_owned(),
        },
    }
}

fn said_of(reason: Reason) -> &'static str {
    match reason {
        Reason::None => "nothing is known against it",
        Reason::Unchecked => "it has not passed a check yet",
        Reason::CheckConnect => "its checks find nobody who accepts",
        Reason::CheckTimeout => "its checks are not answered in time",
        Reason::CheckAnswer => "its checks are answered otherwise than expected",
        Reason::Failures => "too many attempts in a row failed",
        Reason::SuccessRate => "fewer attempts succeed than with the others",
        Reason::Connect => "connects to it failed",
        Reason::ByHand => "somebody said so",
    }
}

fn withdrawn(snapshot: &Snapshot, now: Millis) -> Vec<Withdrawn> {
    let told = |(backend, left): &(Arc<Backend>, Millis)| Withdrawn {
        id: id(backend),
        since_seconds: now.since(*left).as_secs_f64(),
        in_flight: backend.in_flight(),
    };
    let lately = |(_, left): &&(Arc<Backend>, Millis)| now.since(*left) < LATELY;
    snapshot.withdrawn.iter().filter(lately).map(told).collect()
}

fn tiers(snapshot: &Snapshot, parts: &[f64], wish: Wish<'_>) -> Vec<TierState> {
    let parts = parts
        .iter()
        .copied()
        .map(Some)
        .chain(std::iter::repeat(None));
    let tiers = snapshot.tiers.iter().zip(parts);
    tiers
        .map(|(tier, part)| {
            let can = |member: &&Member| is_pickable(&member.backend, wish);
            TierState {
                priority: tier.priority,
                pickable: tier.members.iter().filter(can).count(),
                backends: tier.members.len(),
                part,
            }
        })
        .collect()
}

/// Where cookie and key lead. `first`: a worker's schedule, and what it would give.
fn preferences(
    service: &Service,
    snapshot: &Snapshot,
    wants: &Wants,
    first: Option<(&Forecast, &Pick)>,
    wish: Wish<'_>,
) -> Vec<Preference> {
    let mut all = Vec::new();
    if let Some(name) = &wants.cookie {
        let backend = wants.token.and_then(|token| snapshot.tokens.get(&token));
        all.push(Preference {
            kind: "cookie".to_owned(),
            of: name.clone(),
            leads_to: backend.iter().map(|(b, _)| id(b)).collect(),
            why: match backend {
                None => "it stands for nobody who is listed: the schedule chooses".to_owned(),
                Some((backend, _)) => match backend.look(wish.now, wish.trial) {
                    Ok(()) => "it goes before the schedule".to_owned(),
                    Err(_) => format!(
                        "that one cannot be had, so the schedule chooses: {}",
                        why(service, backend, wish)
                    ),
                },
            },
        });
    }
    if service.balancing.strategy != Strategy::Hash {
        return all;
    }
    let owners = first.zip(wants.key).and_then(|((forecast, pick), key)| {
        let owners = forecast.owners(pick.priority, key)?;
        let mut tiers = forecast.snapshot().tiers.iter();
        let tier = tiers.find(|tier| tier.priority == pick.priority)?;
        let ids = owners
            .iter()
            .take(OWNERS)
            .filter_map(|i| tier.members.get(*i));
        Some(ids.map(|member| id(&member.backend)).collect())
    });
    all.push(Preference {
        kind: "key".to_owned(),
        of: by(&service.hash_by),
        leads_to: owners.unwrap_or_default(),
        why: match wants.key {
            Some(_) => "the first that is not out, full or too busy has it".to_owned(),
            None => "the request has none: by weight".to_owned(),
        },
    });
    all
}

/// As the control API calls a backend.
pub(super) fn id(backend: &Backend) -> String {
    backend_id(&backend.service, &backend.address)
}

/// A time as people say it: tenths of seconds, or seconds and more.
fn words(time: Duration) -> String {
    match time.as_secs() {
        ..10 => format!("{:.1} s", time.as_secs_f64()),
        seconds => humantime::format_duration(Duration::from_secs(seconds)).to_string(),
    }
}

/// Of those who have a key so many are told.
const OWNERS: usize = 3;

/// So long somebody who was withdrawn is told of: as long as discovery remembers it.
const LATELY: Duration = Duration::from_secs(300);
