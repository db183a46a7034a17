//! Host, path and header fields to a route. Built once per configuration, read by every worker.
//!
//! Which route wins, first difference decides:
//! 1. an exact host before a wildcard (the longer suffix first) before no host;
//! 2. the longer path, in whole segments;
//! 3. more conditions (method, header fields, parameters of the query), and then more exact ones.
//!
//! Every route that matches takes part: when no path of the exact host matches, or its
//! conditions are not met, the wildcard's routes are tried, and then those without a host. What is
//! left equal is refused when the configuration is read.
//!
//! A lookup costs one hash per label of the host and one per segment of the path, both bounded by
//! the longest that is configured, so that a long request costs no more. It allocates nothing.
//!
//! `conditions.rs` says whether a request meets the conditions of a route; `layer4.rs` has the routes
//! of connections that are passed on as they are; `explain.rs` says why each route won or lost.

pub mod conditions;
pub mod explain;
mod layer4;

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::FixedState;

use crate::config::{Conditions, Config, HostPattern, Route};
use crate::http::head::other_readings;
use crate::http::headers::Fields;

/// A table of what the configuration says. Nobody else puts anything in, so that nobody can make its
/// keys collide: the hash need not be SipHash, which costs five times as much.
type Table<K, V> = HashMap<K, V, FixedState>;

/// All routes of a configuration.
#[derive(Debug, Default)]
pub struct Router {
    exact: Table<Box<str>, Paths>,
    wildcard: Table<Box<str>, Paths>,
    any: Paths,
    /// Bytes of the longest key of `wildcard`.
    longest_wildcard: usize,
    /// Some route lets some in only.
    guards: bool,
    layer4: layer4::Layer4,
}

/// The route of a request, or of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteMatch {
    /// Index into [`Config::routes`].
    pub route: usize,
    /// What logs call the route.
    pub label: Arc<str>,
}

/// A request as far as routes go by it.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Index of the listener that it came in on, into [`Config::listeners`].
    pub listener: usize,
    /// As it was sent; that of a WebSocket is GET, over HTTP/2 too.
    pub method: &'a [u8],
    /// Lower case without port and final dot.
    pub host: &'a str,
    /// Normalised; `*` of `OPTIONS *` matches what has no path.
    pub path: &'a [u8],
    /// With its `?`, or empty.
    pub query: &'a [u8],
    /// Its fields.
    pub fields: &'a Fields,
}

/// The routes of one host pattern.
#[derive(Debug, Default)]
struct Paths {
    /// By path without a final slash, so that `/` is the empty key; each list begins with the
    /// routes that ask for most.
    by_path: Table<Box<[u8]>, Vec<Candidate>>,
    /// Bytes of the longest key.
    longest: usize,
}

#[derive(Debug)]
struct Candidate {
    /// Indexes of listeners; empty: all.
    listeners: Box<[usize]>,
    conditions: Conditions,
    found: RouteMatch,
}

impl Router {
    /// Builds the tables.
    pub fn new(config: &Config) -> Router {
        let mut router = Router {
            layer4: layer4::Layer4::new(config),
            guards: config.routes.iter().any(Route::is_guarded),
            ..Router::default()
        };
        // No request says what its connection offered.
        let of_requests = |(_, route): &(usize, &Route)| route.alpn.is_empty();
        for (index, route) in config.routes.iter().enumerate().filter(of_requests) {
            let paths = match &route.host {
                HostPattern::Any => &mut router.any,
                HostPattern::Exact(host) => router.exact.entry(host.clone()).or_default(),
                HostPattern::Wildcard(suffix) => {
                    router.longest_wildcard = router.longest_wildcard.max(suffix.len());
                    router.wildcard.entry(suffix.clone()).or_default()
                }
            };
            paths.insert(index, route);
        }
        let all = router
            .exact
            .values_mut()
            .chain(router.wildcard.values_mut());
        for paths in all.chain([&mut router.any]) {
            for candidates in paths.by_path.values_mut() {
                candidates.sort_by_key(|c| std::cmp::Reverse(c.conditions.rank()));
            }
        }
        router
    }

    /// Would it be another route's, and one that lets some in only, for a backend that reads its path
    /// otherwise? Its guard would not be asked.
    pub fn evades_guard(&self, request: Request<'_>, found: usize, config: &Config) -> bool {
        self.guards
            && other_readings(request.path).iter().any(|path| {
                let other = self.route(Request { path, ..request });
                other.is_some_and(|other| {
                    other.route != found && config.routes[other.route].is_guarded()
                })
            })
    }

    /// The route of a request.
    pub fn route(&self, request: Request<'_>) -> Option<&RouteMatch> {
        let exact = self.exact.get(request.host);
        if let Some(found) = exact.and_then(|paths| paths.find(&request)) {
            return Some(found);
        }
        self.suffixes(request.host)
            .filter_map(|suffix| self.wildcard.get(suffix))
            .find_map(|paths| paths.find(&request))
            .or_else(|| self.any.find(&request))
    }

    /// The route of a connection that came in on `listener`, which is to be passed on as it is.
    /// `host`: the name that its ClientHello has, lower case without final dot; `protocols`: what it
    /// offers, in its order. On a tcp listener there is neither.
    pub fn connection<'p>(
        &self,
        listener: usize,
        host: Option<&str>,
        protocols: impl Iterator<Item = &'p [u8]> + Clone,
    ) -> Option<&RouteMatch> {
        self.layer4.route(listener, host, protocols)
    }

    /// What is behind each dot of `host`, longest first, as far as a wildcard can be that long.
    fn suffixes<'h>(&self, host: &'h str) -> impl Iterator<Item = &'h str> {
        // With no wildcard at all nothing is looked at.
        let reach = if self.wildcard.is_empty() {
            host.len()
        } else {
            // One byte more, for the dot in front of the longest.
            host.len().saturating_sub(self.longest_wildcard + 1)
        };
        memchr::memchr_iter(b'.', &host.as_bytes()[reach..])
            .map(move |dot| reach + dot)
            // `*` stands for at least one label.
            .filter(|dot| *dot > 0)
            .map(move |dot| &host[dot + 1..])
    }
}

impl Paths {
    fn insert(&mut self, index: usize, route: &Route) {
        let key = route.path.trim_end_matches('/').as_bytes();
        self.longest = self.longest.max(key.len());
        self.by_path.entry(key.into()).or_default().push(Candidate {
            listeners: route.listeners.clone().into(),
            conditions: route.conditions.clone(),
            found: RouteMatch {
                route: index,
                label: route.label.clone(),
            },
        });
    }

    fn find(&self, request: &Request<'_>) -> Option<&RouteMatch> {
        let path = request.path;
        let whole = (path.len() <= self.longest).then_some(path.len());
        // A key ends where a slash follows, so slashes after `longest` cannot end one.
        let reach = &path[..path.len().min(self.longest + 1)];
        whole
            .into_iter()
            .chain(memchr::memrchr_iter(b'/', reach))
            // `*` has no slash to end the empty key.
            .chain((!path.starts_with(b"/")).then_some(0))
            .filter_map(|end| self.by_path.get(&path[..end]))
            .flatten()
            .find(|candidate| candidate.matches(request))
            .map(|candidate| &candidate.found)
    }
}

impl Candidate {
    fn matches(&self, request: &Request<'_>) -> bool {
        (self.listeners.is_empty() || self.listeners.contains(&request.listener))
            && conditions::unmet(&self.conditions, request).is_none()
    }
}

#[cfg(test)]
mod tests;
