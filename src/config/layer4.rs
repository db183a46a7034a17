//! Routes of whole connections: which of them a listener of layer 4 has, and what is wrong with that.
//!
//! `routes.rs` builds routes and calls this; the router builds its tables from the same answer
//! ([`Config::layer4_routes`]).

use super::diagnostics::{Problem, Problems};
use super::read::At;
use super::source::Span;
use super::{
    Config, HashBy, HostPattern, Listener, Protocol, Route, Service, UpstreamProtocol, raw,
};

/// Keys of a route that do something with requests.
const OF_REQUESTS: &[&str] = &[
    "redirect",
    "strip_prefix",
    "rewrite",
    "request_headers",
    "response_headers",
    "auth",
    "mirror",
];

/// RFC 7301 §3.1: a protocol's name has one length byte.
const LONGEST_PROTOCOL: usize = 255;

impl Config {
    /// The routes of a listener of layer 4 (index into [`Config::listeners`]): those that name it. If
    /// none does, those that name no listener and ask for nothing that it cannot see.
    /// With their indexes.
    pub fn layer4_routes(&self, listener: usize) -> impl Iterator<Item = (usize, &Route)> {
        let protocol = &self.listeners[listener].protocol;
        let has = has(listener, protocol, self.routes.iter());
        let routes = self.routes.iter().enumerate();
        routes.filter(move |(_, route)| has(route))
    }
}

/// Which of `all` routes a listener has.
fn has<'r>(
    listener: usize,
    protocol: &Protocol,
    mut all: impl Iterator<Item = &'r Route>,
) -> impl Fn(&Route) -> bool {
    let is_named = all.any(|r| r.listeners.contains(&listener));
    move |route| match is_named {
        true => route.listeners.contains(&listener),
        false => route.listeners.is_empty() && sees(protocol, route),
    }
}

/// Can a listener tell whether a connection is what `route` asks for?
fn sees(protocol: &Protocol, route: &Route) -> bool {
    let of_requests =
        &*route.path != "/" || !route.conditions.is_empty() || route.acts_on_requests();
    let of_hellos = route.host != HostPattern::Any || !route.alpn.is_empty();
    match protocol {
        Protocol::Http | Protocol::Https(_) => route.alpn.is_empty(),
        Protocol::Tls => !of_requests,
        Protocol::Tcp => !of_requests && !of_hellos,
    }
}

/// Says what a route asks for that the listener it names cannot see.
pub(super) fn refuse_unseen(
    route: &raw::Route,
    listener: &At<String>,
    protocol: &Protocol,
    problems: &mut Problems,
) {
    let (speaks, unseen, help): (_, &[&str], _) = match protocol {
        Protocol::Http | Protocol::Https(_) => (
            "http",
            &["alpn"],
            "`alpn` tells connections of listeners with protocol = \"tls\" apart",
        ),
        Protocol::Tcp => (
            "tcp",
            &["host", "path", "methods", "headers", "query", "alpn"],
            "all that comes to a tcp listener goes to one service; names are seen with \
             protocol = \"tls\", paths and headers with \"http\" and \"https\"",
        ),
        Protocol::Tls => (
            "tls",
            &["path", "methods", "headers", "query"],
            "a client says only its `host` and `alpn` before it speaks in secret; \
             protocol = \"https\" sees all",
        ),
    };
    let without_effect = match protocol.is_layer4() {
        true => OF_REQUESTS,
        false => &[],
    };
    for key in without_effect {
        if let Some(span) = route.key(key) {
            let title = format!(
                "`{key}` has no effect on listener `{}`, which speaks {speaks}",
                listener.value
            );
            problems.push(
                Problem::error(span, title)
                    .and(listener.span, "named here")
                    .help("it is about requests, which are not looked at there"),
            );
        }
    }
    for key in unseen {
        if let Some(span) = route.key(key) {
            let title = format!(
                "`{key}` cannot be seen on listener `{}`, which speaks {speaks}",
                listener.value
            );
            problems.push(
                Problem::error(span, title)
                    .and(listener.span, "named here")
                    .help(help),
            );
        }
    }
}

/// The protocols of which the client must offer one.
pub(super) fn alpn(route: &raw::Route, problems: &mut Problems) -> Vec<Box<str>> {
    if let (Some([]), Some(span)) = (route.alpn.as_deref(), route.key("alpn")) {
        problems.push(
            Problem::error(span, "no client offers one of no protocols")
                .help("leave `alpn` out for whatever it offers"),
        );
    }
    let mut protocols: Vec<Box<str>> = Vec::new();
    for at in route.alpn.iter().flatten() {
        let name = at.value.as_str();
        if name.len() > LONGEST_PROTOCOL {
            let title = format!("the name of a protocol has at most {LONGEST_PROTOCOL} bytes");
            problems.error(at.span, title);
        } else if protocols.iter().any(|p| **p == *name) {
            problems.error(at.span, format!("`{name}` is listed twice"));
        }
        protocols.push(name.into());
    }
    protocols
}

/// Says which listeners of layer 4 don't know where a connection goes.
pub(super) fn check(
    routes: &[(Route, Span)],
    raw: &[raw::Listener],
    listeners: &[Listener],
    problems: &mut Problems,
) {
    // A route that was refused might have been the one.
    let complete = !problems.any_error();
    let any_tls = listeners
        .iter()
        .any(|l| matches!(l.protocol, Protocol::Tls));
    for (route, span) in routes.iter().filter(|_| !any_tls) {
        if route.listeners.is_empty() && !route.alpn.is_empty() {
            problems.push(
                Problem::error(*span, "no listener sees what `alpn` asks for")
                    .help("that is a listener with protocol = \"tls\""),
            );
        }
    }
    for (index, listener) in listeners.iter().enumerate() {
        let at = raw[index].span;
        let has = has(index, &listener.protocol, routes.iter().map(|(r, _)| r));
        let its: Vec<&(Route, Span)> = routes.iter().filter(|(r, _)| has(r)).collect();
        match listener.protocol {
            Protocol::Http | Protocol::Https(_) => {}
            Protocol::Tcp => one_route(listener, at, &its, complete, problems),
            Protocol::Tls => {
                refuse_ties(&its, problems);
                if its.is_empty() && complete {
                    problems.push(
                        Problem::warning(at, "no route uses this listener")
                            .help("it refuses every client with an alert"),
                    );
                }
            }
        }
    }
}

/// Says which services can't be spoken to in the words of whoever comes: what is passed on as it is, is
/// not spoken by us.
pub(super) fn refuse_protocols(
    routes: &[Route],
    (raw_listeners, listeners): (&[raw::Listener], &[Listener]),
    (raw_services, services): (&[raw::Service], &[Service]),
    problems: &mut Problems,
) {
    for (index, listener) in listeners.iter().enumerate() {
        if !listener.protocol.is_layer4() {
            continue;
        }
        let has = has(index, &listener.protocol, routes.iter());
        let its = routes.iter().filter(|route| has(route));
        for index in its.flat_map(|route| route.target.services()) {
            let service = &services[index];
            let spoken = service.upstream.protocol;
            let refused = match listener.protocol {
                Protocol::Tls => spoken != UpstreamProtocol::Http,
                _ => spoken.is_h2(),
            };
            let Some(span) = raw_services[index].key("upstream").filter(|_| refused) else {
                continue;
            };
            problems.push(
                Problem::error(
                    span,
                    format!(
                        "listener `{}` passes connections on as they are, and service `{}` cannot \
                         be spoken to so",
                        listener.name, service.name
                    ),
                )
                .and(raw_listeners[index].span, "this listener")
                .help("leave `upstream` out: the client and the backend agree between themselves"),
            );
        }
    }
}

/// Says which settings of a service have no effect, because only whole connections lead to it.
pub(super) fn warn_of_unused(
    routes: &[Route],
    listeners: &[Listener],
    raw_services: &[raw::Service],
    problems: &mut Problems,
) {
    let brings_requests = |route: &Route| {
        let mut by = listeners.iter().enumerate().filter(|(index, listener)| {
            let named = route.listeners.is_empty() || route.listeners.contains(index);
            named && !listener.protocol.is_layer4()
        });
        by.next().is_some()
    };
    for (index, service) in raw_services.iter().enumerate() {
        let mut leading = routes
            .iter()
            .filter(|r| r.target.services().any(|s| s == index))
            .peekable();
        if leading.peek().is_none() || leading.any(brings_requests) {
            continue;
        }
        let by_address = (service.hash_by.as_ref()).is_some_and(|at| at.value == HashBy::Address);
        for key in [
            "hash_by",
            "max_body",
            "retry_on",
            "sticky",
            "upgrade",
            "request_headers",
            "response_headers",
            "security_headers",
            "compress",
        ] {
            if let Some(span) = service.key(key).filter(|_| key != "hash_by" || !by_address) {
                let title = format!("`{key}` has no effect: no request leads to this service");
                problems.push(
                    Problem::warning(span, title).help(
                        "its routes belong to listeners that pass connections on as they are",
                    ),
                );
            }
        }
    }
}

fn one_route(
    listener: &Listener,
    at: Span,
    its: &[&(Route, Span)],
    complete: bool,
    problems: &mut Problems,
) {
    let name = &listener.name;
    match its {
        [] if complete => problems.push(
            Problem::error(at, format!("no route says where listener `{name}` leads")).help(
                "add [[route]] with `listener` and `service`, without host, path and headers",
            ),
        ),
        [(_, first_span), (_, second_span), ..] => problems.push(
            Problem::error(
                *second_span,
                format!(
                    "this route and another one both take every connection of listener `{name}`"
                ),
            )
            .and(*first_span, "the other one")
            .help("a tcp listener leads to one service"),
        ),
        _ => {}
    }
}

/// Two routes of one host leave the choice to chance if both ask for nothing more, or for the same
/// protocol. (Of different protocols, the client's order decides.)
fn refuse_ties(its: &[&(Route, Span)], problems: &mut Problems) {
    for (i, (first, first_span)) in its.iter().enumerate() {
        for (second, second_span) in &its[i + 1..] {
            let shared = first.alpn.iter().find(|p| second.alpn.contains(p));
            let both_any = first.alpn.is_empty() && second.alpn.is_empty();
            if first.host != second.host || !(both_any || shared.is_some()) {
                continue;
            }
            let mut problem = Problem::error(
                *second_span,
                format!(
                    "routes `{}` and `{}` can match the same connection with equal rank",
                    first.label, second.label
                ),
            )
            .and(*first_span, "the other one");
            if let Some(shared) = shared {
                problem = problem.help(format!("both list `{shared}`"));
            }
            problems.push(problem);
        }
    }
}
