//! Why a request, or a connection, has the route that it has: what speaks for each route of the
//! configuration, or against it. Pure.
//!
//! It goes through the rules of `router.rs` and `layer4.rs` route by route, as they are written, where
//! those look things up in tables; its tests hold the two against each other. For people who ask,
//! never on the way of a request.

use std::cmp::Reverse;
use std::fmt;

use super::Request;
use super::conditions::{Unmet, unmet};
use crate::config::{Config, HostPattern, Route};

/// What becomes of a route. The order is that in which the rules are looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is the one.
    Wins,
    /// It is on other listeners.
    OtherListener,
    /// It is for another host.
    OtherHost,
    /// Its path is no prefix of the request's in whole segments.
    OtherPath,
    /// It asks for another method.
    OtherMethod,
    /// It asks for a field that is not there.
    NoHeader(Box<str>),
    /// It asks for another value of this field.
    OtherHeader(Box<str>),
    /// It asks for this field not to be there.
    HasHeader(Box<str>),
    /// It asks for a parameter of the query that is not there.
    NoParameter(Box<str>),
    /// It asks for another value of this parameter.
    OtherParameter(Box<str>),
    /// It asks for this parameter not to be there.
    HasParameter(Box<str>),
    /// It asks for a protocol (ALPN) that is not offered. No request says what its connection offered.
    NotOffered,
    /// It matches, and the winner's host is more exact.
    LessExactHost,
    /// It matches, and the winner's path is longer.
    ShorterPath,
    /// It matches, and the winner has more conditions, or more exact ones.
    FewerConditions,
    /// It matches, and the winner asks for a protocol that the client offers, or names earlier.
    LaterProtocol,
}

/// The verdict on each of [`Config::routes`], for a request. O(routes).
pub fn request(config: &Config, request: Request<'_>) -> Vec<Verdict> {
    let judged = config.routes.iter().map(|route| {
        against(route, request).map_or_else(
            || {
                Ok((
                    exactness(&route.host),
                    key(route).len(),
                    route.conditions.rank(),
                ))
            },
            Err,
        )
    });
    decide(judged.collect(), |winner, loser| {
        match (winner.0 == loser.0, winner.1 == loser.1) {
            (false, _) => Verdict::LessExactHost,
            (true, false) => Verdict::ShorterPath,
            (true, true) => Verdict::FewerConditions,
        }
    })
}

/// The same for a connection that is passed on as it is; see
/// [`Router::connection`](super::Router::connection).
pub fn connection(
    config: &Config,
    listener: usize,
    host: Option<&str>,
    protocols: &[&[u8]],
) -> Vec<Verdict> {
    let on_it: Vec<&Route> = config.layer4_routes(listener).map(|(_, r)| r).collect();
    let judged = config.routes.iter().map(|route| {
        if !on_it.iter().any(|other| std::ptr::eq(*other, route)) {
            return Err(Verdict::OtherListener);
        }
        if !covers(&route.host, host.unwrap_or_default()) {
            return Err(Verdict::OtherHost);
        }
        let listed = |protocol: &&[u8]| route.alpn.iter().any(|p| p.as_bytes() == *protocol);
        match protocols.iter().position(listed) {
            Some(place) => Ok((exactness(&route.host), Some(Reverse(place)))),
            None if route.alpn.is_empty() => Ok((exactness(&route.host), None)),
            None => Err(Verdict::NotOffered),
        }
    });
    decide(judged.collect(), |winner, loser| {
        match winner.0 == loser.0 {
            false => Verdict::LessExactHost,
            true => Verdict::LaterProtocol,
        }
    })
}

/// The highest rank wins, of equal ones the first; `lost`: what is said of another, by the winner's
/// rank and its own.
fn decide<R: Ord + Copy>(
    judged: Vec<Result<R, Verdict>>,
    lost: impl Fn(R, R) -> Verdict,
) -> Vec<Verdict> {
    let ranks = judged.iter().enumerate();
    let ranks = ranks.filter_map(|(index, rank)| Some((*rank.as_ref().ok()?, Reverse(index))));
    let winner = ranks.max();
    let judged = judged.into_iter().enumerate();
    judged
        .map(|(index, rank)| match (rank, winner) {
            (Err(verdict), _) => verdict,
            (Ok(_), Some((_, Reverse(best)))) if best == index => Verdict::Wins,
            (Ok(rank), Some((best, _))) => lost(best, rank),
            (Ok(_), None) => Verdict::Wins,
        })
        .collect()
}

/// Why a route does not match; `None`: it does.
fn against(route: &Route, request: Request<'_>) -> Option<Verdict> {
    if !route.listeners.is_empty() && !route.listeners.contains(&request.listener) {
        return Some(Verdict::OtherListener);
    }
    if !route.alpn.is_empty() {
        return Some(Verdict::NotOffered);
    }
    if !covers(&route.host, request.host) {
        return Some(Verdict::OtherHost);
    }
    if !leads_to(key(route), request.path) {
        return Some(Verdict::OtherPath);
    }
    Some(match unmet(&route.conditions, &request)? {
        Unmet::Method => Verdict::OtherMethod,
        Unmet::NoHeader(name) => Verdict::NoHeader(name.into()),
        Unmet::OtherHeader(name) => Verdict::OtherHeader(name.into()),
        Unmet::HasHeader(name) => Verdict::HasHeader(name.into()),
        Unmet::NoParameter(name) => Verdict::NoParameter(name.into()),
        Unmet::OtherParameter(name) => Verdict::OtherParameter(name.into()),
        Unmet::HasParameter(name) => Verdict::HasParameter(name.into()),
    })
}

/// A path without its final slash: what a request's path must begin with.
fn key(route: &Route) -> &[u8] {
    route.path.trim_end_matches('/').as_bytes()
}

/// Does `path` begin with these segments? `*` begins with none.
fn leads_to(key: &[u8], path: &[u8]) -> bool {
    match path.strip_prefix(key) {
        Some(rest) => rest.is_empty() || rest.starts_with(b"/") || key.is_empty(),
        None => false,
    }
}

fn covers(pattern: &HostPattern, host: &str) -> bool {
    match pattern {
        HostPattern::Any => true,
        HostPattern::Exact(exact) => **exact == *host,
        // `*` stands for at least one label.
        HostPattern::Wildcard(suffix) => host
            .strip_suffix(&**suffix)
            .and_then(|front| front.strip_suffix('.'))
            .is_some_and(|label| !label.is_empty()),
    }
}

/// No host, then wildcards, the longer the better, then one host.
fn exactness(pattern: &HostPattern) -> usize {
    match pattern {
        HostPattern::Any => 0,
        HostPattern::Wildcard(suffix) => suffix.len(),
        HostPattern::Exact(_) => usize::MAX,
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Wins => "it wins",
            Verdict::OtherListener => "it is on another listener",
            Verdict::OtherHost => "another host",
            Verdict::OtherPath => "another path (whole segments count)",
            Verdict::OtherMethod => "another method",
            Verdict::NoHeader(name) => return write!(f, "the request has no `{name}`"),
            Verdict::OtherHeader(name) => {
                return write!(f, "the request has another value of `{name}`");
            }
            Verdict::HasHeader(name) => return write!(f, "the request has a `{name}`"),
            Verdict::NoParameter(name) => return write!(f, "the query has no `{name}`"),
            Verdict::OtherParameter(name) => {
                return write!(f, "the query has another value of `{name}`");
            }
            Verdict::HasParameter(name) => return write!(f, "the query has a `{name}`"),
            Verdict::NotOffered => "it asks for a protocol (ALPN) that is not offered",
            Verdict::LessExactHost => "it matches, but its host is less exact",
            Verdict::ShorterPath => "it matches, but its path is shorter",
            Verdict::FewerConditions => "it matches, but its conditions are fewer, or less exact",
            Verdict::LaterProtocol => "it matches, but the client prefers the other's protocol",
        })
    }
}

#[cfg(test)]
#[path = "explain_tests.rs"]
mod tests;
