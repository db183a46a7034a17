//! Routes: names become indexes, hosts and paths are brought to the form in which the router
//! compares them, and two routes that could claim the same request are refused.

use std::collections::HashMap;
use std::sync::Arc;

use super::build::{missing, unique};
use super::diagnostics::{Problem, Problems};
use super::header_edits::{self, Of};
use super::read::At;
pub(super) use super::scalar::is_token_byte;
use super::source::Span;
use super::target::{self, RawTarget};
use super::{
    Conditions, HostPattern, Listener, Route, Target, access, auth, conditions, layer4, mirror,
    names, raw, redirect,
};

/// The names that routes refer to.
pub struct Known<'a> {
    listeners: Vec<(&'a str, usize)>,
    services: HashMap<&'a str, usize>,
    raw_services: &'a [raw::Service],
    raw_listeners: &'a [raw::Listener],
    pub(super) built: &'a [Listener],
}

impl<'a> Known<'a> {
    /// Collects them; a name that two services share is an error.
    pub fn new(
        raw_listeners: &'a [raw::Listener],
        listeners: &'a [Listener],
        raw_services: &'a [raw::Service],
        problems: &mut Problems,
    ) -> Known<'a> {
        let names = || raw_services.iter().map(|s| s.name.as_ref());
        unique(names().flatten(), "service", problems);
        Known {
            listeners: listeners
                .iter()
                .enumerate()
                .map(|(i, l)| (&*l.name, i))
                .collect(),
            services: names()
                .enumerate()
                .filter_map(|(i, name)| name.map(|n| (n.value.as_str(), i)))
                .collect(),
            raw_services,
            raw_listeners,
            built: listeners,
        }
    }

    fn listener(&self, name: &At<String>, problems: &mut Problems) -> Option<usize> {
        let found = self.listeners.iter().find(|(n, _)| *n == name.value);
        if found.is_none() {
            let known = self.listeners.iter().map(|(n, _)| *n);
            problems.push(unknown("listener", name, known));
        }
        found.map(|(_, i)| *i)
    }

    fn service(&self, name: &At<String>, problems: &mut Problems) -> Option<usize> {
        let found = self.services.get(name.value.as_str()).copied();
        if found.is_none() {
            let mut known: Vec<&str> = self.services.keys().copied().collect();
            known.sort_unstable();
            problems.push(unknown("service", name, known.into_iter()));
        }
        found
    }
}

fn unknown<'a>(
    what: &str,
    name: &At<String>,
    known: impl Iterator<Item = &'a str> + Clone,
) -> Problem {
    let problem = Problem::error(name.span, format!("there is no {what} `{}`", name.value));
    let problem = problem.did_you_mean(&name.value, known.clone());
    if problem.places.iter().any(|(_, label)| !label.is_empty()) {
        return problem;
    }
    // A long list would hide the message.
    let mut list: Vec<String> = known.take(10).map(|n| format!("`{n}`")).collect();
    list.sort();
    match list.as_slice() {
        [] => problem.help(format!("no {what} is configured")),
        _ => problem.help(format!("known: {}", list.join(", "))),
    }
}

/// Builds the routes and says which services and listeners none of them uses.
pub fn build(raw: &[raw::Route], known: &Known<'_>, problems: &mut Problems) -> Vec<Route> {
    unique(
        raw.iter().filter_map(|r| r.name.as_ref()),
        "route",
        problems,
    );
    let routes: Vec<(Route, Span)> = raw
        .iter()
        .filter_map(|r| route(r, known, problems).map(|route| (route, r.span)))
        .collect();
    refuse_ties(&routes, known, problems);
    layer4::check(&routes, known.raw_listeners, known.built, problems);
    // A route that was refused might have been the one that leads there.
    if !problems.any_error() {
        warn_of_unused(&routes, known, problems);
    }
    routes.into_iter().map(|(route, _)| route).collect()
}

fn route(raw: &raw::Route, known: &Known<'_>, problems: &mut Problems) -> Option<Route> {
    let before = problems.count();
    let host = match &raw.host {
        Some(at) => host(at, problems),
        None => Some(HostPattern::Any),
    };
    let path = match &raw.path {
        Some(at) => path(at, problems),
        None => Some("/".into()),
    };
    let mut listeners = Vec::new();
    for name in raw.listeners.iter().flatten() {
        if let Some(index) = known.listener(name, problems) {
            if let Some(redirect) = &known.raw_listeners[index].redirect {
                problems.push(
                    Problem::error(
                        name.span,
                        format!("listener `{}` redirects every request", name.value),
                    )
                    .and(redirect.0.span, "here"),
                );
            }
            layer4::refuse_unseen(raw, name, &known.built[index].protocol, problems);
            if !listeners.contains(&index) {
                listeners.push(index);
            }
        }
    }
    if let (Some([]), Some(span)) = (raw.listeners.as_deref(), raw.key("listener")) {
        problems.push(
            Problem::error(span, "this route is on no listener")
                .help("leave `listener` out for all of them"),
        );
    }
    let conditions = conditions::build(raw, problems);
    let access = access::build(
        raw.allow.as_deref(),
        raw.deny.as_deref(),
        |key| raw.key(key),
        problems,
    );
    let alpn = layer4::alpn(raw, problems);
    let target = match (&raw.redirect, &raw.service) {
        (Some(redirect), _) => {
            let span = raw.key("redirect").unwrap_or(raw.span);
            redirect::refuse_both(raw, span, problems);
            let on = |index: &usize| listeners.is_empty() || listeners.contains(index);
            let matched = redirect::Matched {
                host: host.as_ref().unwrap_or(&HostPattern::Any),
                path: path.as_deref().unwrap_or("/"),
                listeners: (0..known.built.len())
                    .filter(on)
                    .map(|i| &known.built[i])
                    .collect(),
            };
            redirect::redirect(redirect, &matched, problems).map(Target::Redirect)
        }
        (None, Some(RawTarget::Name(name))) => known.service(name, problems).map(Target::Service),
        (None, Some(RawTarget::Shares(shares))) => {
            let span = raw.key("service").unwrap_or(raw.span);
            target::split(shares, span, |name, p| known.service(name, p), problems)
        }
        (None, None) => {
            let help = "the name of a [[service]]; or `redirect`";
            missing(&raw.present, "service", raw.span, help, problems);
            None
        }
    };
    let rewrite = match (&raw.redirect, &path) {
        (None, Some(path)) => redirect::rewrite(raw, path, problems),
        _ => None,
    };
    let request_headers = header_edits::build(raw.request_headers.as_ref(), Of::Requests, problems);
    let response_headers =
        header_edits::build(raw.response_headers.as_ref(), Of::Responses, problems);
    let known_service = |name: &At<String>, p: &mut Problems| known.service(name, p);
    let auth = (raw.auth.as_ref()).and_then(|auth| auth::build(auth, known_service, problems));
    let mirror = raw.mirror.as_ref();
    let mirror = mirror.and_then(|mirror| mirror::build(mirror, known_service, problems));
    let (host, path, target) = (host?, path?, target?);
    if problems.count() > before {
        return None;
    }
    Some(Route {
        label: match &raw.name {
            Some(name) => Arc::from(name.value.as_str()),
            None => label(&host, &path, &conditions, &alpn),
        },
        listeners,
        host,
        path,
        conditions,
        alpn,
        access,
        rewrite,
        request_headers,
        response_headers,
        auth,
        mirror,
        target,
    })
}

/// What a route without a name is called.
fn label(host: &HostPattern, path: &str, conditions: &Conditions, alpn: &[Box<str>]) -> Arc<str> {
    let mut text = match host {
        HostPattern::Any => "*".to_owned(),
        HostPattern::Wildcard(suffix) => format!("*.{suffix}"),
        HostPattern::Exact(host) => host.to_string(),
    };
    text.push_str(path);
    text.push_str(&conditions.label());
    if !alpn.is_empty() {
        text.push_str(&format!(" alpn={}", alpn.join(",")));
    }
    text.into()
}

/// Brings a host to the form in which a request's is compared: lower case, no final dot.
fn host(at: &At<String>, problems: &mut Problems) -> Option<HostPattern> {
    let written = at.value.to_ascii_lowercase();
    let bare = written.strip_suffix('.').unwrap_or(&written);
    let refused = |why: &str, help: &str| Some(Problem::error(at.span, why).help(help));
    let problem = if bare == "*" {
        refused("`*` alone is every host", "leave `host` out")
    } else if bare.contains("://") {
        refused(
            "a host is written without a scheme",
            "for example host = \"shop.example.com\"",
        )
    } else if bare.contains('/') {
        refused("a host has no path", "`path` is a key of its own")
    } else if let Some(v6) = bare.strip_prefix('[').and_then(|b| b.strip_suffix(']')) {
        match v6.parse::<std::net::Ipv6Addr>() {
            Ok(_) => return Some(HostPattern::Exact(bare.into())),
            Err(_) => refused(
                "this is not an IPv6 address",
                "for example host = \"[::1]\"",
            ),
        }
    } else if bare.parse::<std::net::Ipv6Addr>().is_ok() {
        refused(
            "an IPv6 address stands in brackets",
            &format!("write \"[{bare}]\""),
        )
    } else if bare.contains(':') {
        refused(
            "a host has no port",
            "a route matches the host whatever the port",
        )
    } else {
        let suffix = bare.strip_prefix("*.");
        match names::check(suffix.unwrap_or(bare).as_bytes()) {
            Ok(()) => {
                return Some(match suffix {
                    Some(suffix) => HostPattern::Wildcard(suffix.into()),
                    None => HostPattern::Exact(bare.into()),
                });
            }
            Err(_) if bare.contains('*') => refused(
                "`*` stands only in front, for one or more labels",
                "for example host = \"*.example.com\"",
            ),
            Err(why) => Some(Problem::error(at.span, why)),
        }
    };
    problem.into_iter().for_each(|p| problems.push(p));
    None
}

/// Checks that a path is in the form that a request's path has after normalisation, so that the
/// two can be compared byte by byte. A final slash means nothing: `/api/` is `/api`.
fn path(at: &At<String>, problems: &mut Problems) -> Option<Box<str>> {
    normal(at, problems).then(|| match at.value.trim_end_matches('/') {
        "" => "/".into(),
        trimmed => trimmed.into(),
    })
}

/// Is a path in the form that normalisation gives?
pub(super) fn normal(at: &At<String>, problems: &mut Problems) -> bool {
    let path = at.value.as_str();
    let refused = |why: String, help: Option<String>| {
        let mut problem = Problem::error(at.span, why);
        problem.help = help;
        Some(problem)
    };
    let problem = if !path.starts_with('/') {
        refused(
            "a path starts with `/`".into(),
            Some(format!("write \"/{path}\"")),
        )
    } else if path.contains('*') {
        refused(
            "`*` has no meaning in a path".into(),
            Some(
                "a path matches itself and all that is below it: \"/api\" covers \"/api/x\"".into(),
            ),
        )
    } else if let Some(bad) = path.chars().find(|c| !is_path_char(*c)) {
        refused(
            format!("a path has no `{bad}` in it, at least not raw"),
            None,
        )
    } else if path.split('/').any(|s| s == "." || s == "..") {
        refused("a path has no `.` and `..` in it".into(), None)
    } else if path.contains("//") {
        refused(
            "a path has no empty segments in it".into(),
            Some("routes are looked for as if `//` were `/`".into()),
        )
    } else if let Some(escape) = unneeded_escape(path) {
        refused(
            format!("`{escape}` is not how a request's path arrives here"),
            Some("letters, digits, `-`, `.`, `_` and `~` stand for themselves; other bytes are `%` and two hex digits, with capital letters".into()),
        )
    } else {
        return true;
    };
    problem.into_iter().for_each(|p| problems.push(p));
    false
}

/// What normalisation lets through raw; a space and what is not ASCII arrive as escapes.
fn is_path_char(c: char) -> bool {
    c.is_ascii_graphic() && !"?#\\".contains(c)
}

/// The first escape that normalisation would have decoded, or that is none.
fn unneeded_escape(path: &str) -> Option<&str> {
    path.match_indices('%').map(|(at, _)| at).find_map(|at| {
        let escape = path.get(at..at + 3).unwrap_or(&path[at..]);
        let byte = escape
            .get(1..)
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        let fine = escape.len() == 3
            && escape[1..]
                .bytes()
                .all(|b| b.is_ascii_hexdigit() && !b.is_ascii_lowercase())
            && byte.is_some_and(|b| b != 0 && !(b.is_ascii_alphanumeric() || b"-._~".contains(&b)));
        (!fine).then_some(escape)
    })
}

/// Two routes of equal rank that can match the same request leave the choice to chance.
///
/// Rank is host, path and that of the conditions, so only routes with the same host and the same path
/// can tie: with the same conditions, or with other ones of the same rank that one request can meet.
/// The latter are settled by a third route that asks for the conditions of both.
///
/// This is about requests; `layer4.rs` has the ties of whole connections.
fn refuse_ties(routes: &[(Route, Span)], known: &Known<'_>, problems: &mut Problems) {
    let http = |index: usize| !known.built[index].protocol.is_layer4();
    let http: Vec<usize> = (0..known.built.len()).filter(|i| http(*i)).collect();
    let mut groups: HashMap<(&HostPattern, &str), Vec<&(Route, Span)>> = HashMap::new();
    for entry in routes.iter().filter(|(r, _)| r.alpn.is_empty()) {
        groups
            .entry((&entry.0.host, &entry.0.path))
            .or_default()
            .push(entry);
    }
    for group in groups.values() {
        for (i, (first, first_span)) in group.iter().enumerate() {
            let rivals = group[i + 1..].iter().filter(|(second, _)| {
                share_one_of(&http, first, second)
                    && first.conditions.rank() == second.conditions.rank()
                    && first.conditions.compatible(&second.conditions)
                    && !settled(first, second, group)
            });
            for (second, second_span) in rivals {
                let mut problem = Problem::error(
                    *second_span,
                    format!(
                        "routes `{}` and `{}` can match the same request with equal rank",
                        first.label, second.label
                    ),
                )
                .and(*first_span, "the other one");
                if first.conditions.share_methods(&second.conditions) {
                    problem = problem.help("list each method in one of them only");
                } else if first.conditions != second.conditions {
                    problem = problem.help("add a route with the conditions of both, or drop one");
                }
                problems.push(problem);
            }
        }
    }
}

fn share_one_of(listeners: &[usize], a: &Route, b: &Route) -> bool {
    let is_on = |r: &Route, l: &usize| r.listeners.is_empty() || r.listeners.contains(l);
    listeners.iter().any(|l| is_on(a, l) && is_on(b, l))
}

/// True if a third route takes every request that both would match.
fn settled(a: &Route, b: &Route, group: &[&(Route, Span)]) -> bool {
    let covers = |c: &Route| {
        c.listeners.is_empty()
            || [a, b].iter().any(|r| {
                !r.listeners.is_empty() && r.listeners.iter().all(|l| c.listeners.contains(l))
            })
    };
    group.iter().any(|(c, _)| {
        c.conditions.rank() > a.conditions.rank()
            && c.conditions.follow_from(&a.conditions, &b.conditions)
            && covers(c)
    })
}

/// Does anything of a route go to this service?
fn leads_to(route: &Route, service: usize) -> bool {
    let asks = route.auth.iter().map(|auth| auth.service);
    let copies = route.mirror.iter().map(|mirror| mirror.service);
    let all = route.target.services().chain(asks).chain(copies);
    all.into_iter().any(|s| s == service)
}

fn warn_of_unused(routes: &[(Route, Span)], known: &Known<'_>, problems: &mut Problems) {
    for (index, service) in known.raw_services.iter().enumerate() {
        if !routes.iter().any(|(r, _)| leads_to(r, index))
            && let Some(name) = &service.name
        {
            problems.push(Problem::warning(
                name.span,
                format!("no route leads to service `{}`", name.value),
            ));
        }
    }
    for (index, listener) in known.raw_listeners.iter().enumerate() {
        let used = |r: &Route| match r.listeners.is_empty() {
            true => r.alpn.is_empty(),
            false => r.listeners.contains(&index),
        };
        if known.built[index].protocol.is_layer4() {
            continue;
        }
        if listener.redirect.is_none() && !routes.iter().any(|(r, _)| used(r)) {
            problems.push(
                Problem::warning(listener.span, "no route uses this listener")
                    .help("it answers every request with 404"),
            );
        }
    }
}
