//! Services: where their backends are, and how they are looked up and talked to.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use super::build::{missing, number};
use super::diagnostics::{Problem, Problems};
use super::header_edits::{self, Of, SecurityHeaders};
use super::read::At;
use super::source::{Files, Sources, Span};
use super::{
    Balancing, Discover, Family, HashBy, Listener, Lookup, Service, StaticEndpoint, Strategy,
    Upstream, UpstreamProtocol, backend_tls, compress, ejection, health, in_flight, names, rate,
    raw, routes, sticky,
};

/// Builds one service.
pub fn service(
    raw: &raw::Service,
    dns: &raw::Dns,
    defaults: &raw::Defaults,
    (files, sources): (Files, &Sources),
    problems: &mut Problems,
) -> Service {
    if raw.name.is_none() {
        missing(
            &raw.present,
            "name",
            raw.span,
            "routes lead to it by this name",
            problems,
        );
    }
    let own_dns = raw.dns.clone().unwrap_or_default();
    if let Some(span) = own_dns.key("allow") {
        problems.push(
            Problem::error(span, "`allow` does not belong here")
                .help("which addresses DNS may give is decided once, in [dns]"),
        );
    }
    let lookup = lookup(&own_dns, dns, problems);
    let discover = match &raw.discover {
        Some(discover) => self::discover(discover, lookup, problems),
        None => {
            let help = "discover = { srv = \"_http._tcp.web.example\" }, \
                        { a = \"web\", port = 8080 } or { static = [\"10.0.0.7:8080\"] }";
            missing(&raw.present, "discover", raw.span, help, problems);
            None
        }
    };
    let balancing = balancing(raw, defaults, problems);
    sticky::check(raw.sticky.as_ref(), files, sources, problems);
    let tls = backend_tls::build(raw, defaults, (files, sources), problems);
    let protocol = raw.upstream.as_ref().map(|at| at.value);
    health::check_layers(raw.health.as_ref(), protocol.unwrap_or_default(), problems);
    Service {
        name: Arc::from(raw.name.as_ref().map_or("", |at| at.value.as_str())),
        discover: discover.unwrap_or(Discover::Static(Vec::new())),
        balancing,
        hash_by: hash_by(raw, defaults, balancing.strategy, problems),
        sticky: sticky::build(raw.sticky.as_ref().or(defaults.sticky.as_ref()), sources),
        check: health::check(raw.health.as_ref().or(defaults.health.as_ref()), problems),
        ejection: ejection::ejection(
            raw.ejection.as_ref().or(defaults.ejection.as_ref()),
            problems,
        ),
        in_flight: in_flight::limits(raw, defaults, problems),
        tls,
        proxy_header: raw.proxy_protocol.as_ref().map(|at| at.value),
        upstream: upstream(raw, defaults, problems),
        upgrade: upgrade(raw.upgrade.as_ref().or(defaults.upgrade.as_ref()), problems),
        max_body: raw
            .max_body
            .as_ref()
            .or(defaults.max_body.as_ref())
            .map(|at| at.value.0),
        rate_limit: rate::limit(
            raw.rate_limit.as_ref(),
            defaults.rate_limit.as_ref(),
            problems,
        ),
        request_headers: header_edits::build(raw.request_headers.as_ref(), Of::Requests, problems),
        response_headers: header_edits::build(
            raw.response_headers.as_ref(),
            Of::Responses,
            problems,
        ),
        security_headers: (raw.security_headers.as_ref())
            .or(defaults.security_headers.as_ref())
            .is_some_and(|at| at.value == SecurityHeaders::Basic),
        compress: compress::build(
            raw.compress.as_ref().or(defaults.compress.as_ref()),
            problems,
        ),
    }
}

fn balancing(own: &raw::Service, defaults: &raw::Defaults, problems: &mut Problems) -> Balancing {
    let strategy = own.strategy.as_ref().or(defaults.strategy.as_ref());
    let strategy = strategy.map_or(Strategy::default(), |at| at.value);
    if let (Some(span), Strategy::Cycle) = (own.key("spill"), strategy) {
        problems.push(
            Problem::error(span, "`spill` has no effect with strategy = \"cycle\"")
                .help("every tier takes part in a cycle"),
        );
    }
    let spill = own.spill.as_ref().or(defaults.spill.as_ref());
    let slow_start = own.slow_start.as_ref().or(defaults.slow_start.as_ref());
    Balancing {
        strategy,
        spill: spill.and_then(|at| at.value.0),
        slow_start: slow_start.and_then(|at| at.value.0).unwrap_or_default(),
    }
}

fn hash_by(
    own: &raw::Service,
    defaults: &raw::Defaults,
    strategy: Strategy,
    problems: &mut Problems,
) -> HashBy {
    if let (Some(span), true) = (own.key("hash_by"), strategy != Strategy::Hash) {
        problems.push(
            Problem::error(span, "`hash_by` has no effect without strategy = \"hash\"")
                .help("it says which requests go to the same backend"),
        );
    }
    let given = own.hash_by.as_ref().or(defaults.hash_by.as_ref());
    given.map_or(HashBy::default(), |at| at.value.clone())
}

fn discover(raw: &raw::Discover, lookup: Lookup, problems: &mut Problems) -> Option<Discover> {
    let ways: Vec<(&str, Span)> = ["srv", "a", "static"]
        .into_iter()
        .filter_map(|way| raw.key(way).map(|span| (way, span)))
        .collect();
    match ways.as_slice() {
        [] => {
            problems.push(
                Problem::error(raw.span, "nothing says where the backends are")
                    .help("give one of `srv`, `a` with `port`, and `static`"),
            );
            return None;
        }
        [_] => {}
        [(first, first_span), (second, second_span), ..] => {
            problems.push(
                Problem::error(
                    *second_span,
                    format!("`{second}` and `{first}` exclude each other"),
                )
                .and(*first_span, ""),
            );
            return None;
        }
    }
    if let (Some(port), None) = (raw.key("port"), raw.key("a")) {
        problems.push(
            Problem::error(port, "`port` goes with `a` only")
                .help("SRV records and static addresses bring their own ports"),
        );
    }
    if let Some(srv) = &raw.srv {
        let name = dns_name(srv, "srv://", problems)?;
        return Some(Discover::Srv { name, lookup });
    }
    if let Some(a) = &raw.a {
        let name = dns_name(a, "a://", problems);
        if raw.port.is_none() {
            let help = "address records have none: { a = \"web\", port = 8080 }";
            missing(&raw.present, "port", raw.span, help, problems);
        }
        let port = number(&raw.port).and_then(|p| u16::try_from(p).ok());
        return Some(Discover::Address {
            name: name?,
            port: port.and_then(NonZeroU16::new)?,
            lookup,
        });
    }
    raw.fixed
        .as_ref()
        .and_then(|list| static_endpoints(list, raw.key("static")?, problems))
}

fn dns_name(at: &At<String>, scheme: &str, problems: &mut Problems) -> Option<Arc<str>> {
    let name = at.value.as_str();
    let problem = if let Some(bare) = name.strip_prefix(scheme) {
        Problem::error(at.span, "a name is written without a scheme")
            .help(format!("write \"{bare}\""))
    } else if name.parse::<std::net::IpAddr>().is_ok() || name.parse::<SocketAddr>().is_ok() {
        Problem::error(at.span, format!("`{name}` is an address, not a name"))
            .help("addresses are listed with { static = [\"10.0.0.7:8080\"] }")
    } else {
        match names::check(name.as_bytes()) {
            Ok(()) => return Some(Arc::from(name)),
            Err(why) => Problem::error(at.span, why),
        }
    };
    problems.push(problem);
    None
}

fn static_endpoints(
    list: &[raw::StaticEndpoint],
    span: Span,
    problems: &mut Problems,
) -> Option<Discover> {
    if list.is_empty() {
        problems.error(span, "a static service needs at least one address");
    }
    let mut seen: std::collections::HashMap<SocketAddr, Span> = std::collections::HashMap::new();
    let mut endpoints = Vec::with_capacity(list.len());
    for raw::StaticEndpoint(entry) in list {
        let Some(address) = &entry.address else {
            let help = "an address and port such as \"10.0.0.7:8080\"";
            missing(&entry.present, "address", entry.span, help, problems);
            continue;
        };
        if let Some(first) = seen.insert(address.value.0, address.span) {
            problems.push(
                Problem::error(address.span, format!("{} is listed twice", address.value.0))
                    .and(first, "here first"),
            );
        }
        let number = |at, default| {
            number(&at)
                .and_then(|n| u16::try_from(n).ok())
                .unwrap_or(default)
        };
        endpoints.push(StaticEndpoint {
            address: address.value.0,
            priority: number(entry.priority.clone(), 0),
            weight: number(entry.weight.clone(), 1),
        });
    }
    Some(Discover::Static(endpoints))
}

/// A backend that is one of our own listeners would send each request round for ever.
pub fn refuse_own_addresses(
    services: &[raw::Service],
    listeners: &[Listener],
    problems: &mut Problems,
) {
    let written = services
        .iter()
        .filter_map(|s| s.discover.as_ref()?.fixed.as_ref())
        .flatten()
        .filter_map(|raw::StaticEndpoint(entry)| entry.address.as_ref());
    for address in written {
        if listeners.iter().any(|l| l.address == address.value.0) {
            problems.error(
                address.span,
                format!("{} is a listener of this configuration", address.value.0),
            );
        }
    }
}

/// Nothing is asked for more often than this, so that a wrong unit does not flood a name server.
const SHORTEST_REFRESH: Duration = Duration::from_millis(10);

/// How a service's names are looked up: its own keys over those of `[dns]` over the defaults.
pub fn lookup(own: &raw::Dns, shared: &raw::Dns, problems: &mut Problems) -> Lookup {
    /// The service's own, or that of `[dns]`, or the default.
    macro_rules! pick {
        ($field:ident, $convert:expr, $default:expr) => {
            own.$field
                .as_ref()
                .or(shared.$field.as_ref())
                .map_or($default, $convert)
        };
    }
    for at in [&own.interval, &own.min_ttl, &own.max_ttl]
        .into_iter()
        .flatten()
    {
        if at.value.0 < SHORTEST_REFRESH {
            problems.error(at.span, "a name is asked for at most every 10ms");
        }
    }
    let min_ttl = pick!(min_ttl, |at| at.value.0, Duration::from_secs(1));
    let max_ttl = pick!(max_ttl, |at| at.value.0, Duration::from_secs(30));
    if min_ttl > max_ttl
        && let Some(at) = own.min_ttl.as_ref().or(own.max_ttl.as_ref())
    {
        problems.error(
            at.span,
            format!("`min_ttl` ({min_ttl:?}) is longer than `max_ttl` ({max_ttl:?})"),
        );
    }
    Lookup {
        servers: own
            .servers
            .as_ref()
            .or(shared.servers.as_ref())
            .map(|list| list.iter().map(|at| at.value.0).collect())
            .unwrap_or_default(),
        timeout: pick!(timeout, |at| at.value.0, Duration::from_secs(1)),
        retries: pick!(retries, |at| at.value.0 as u8, 1),
        interval: own
            .interval
            .as_ref()
            .or(shared.interval.as_ref())
            .map(|at| at.value.0),
        min_ttl,
        max_ttl,
        absent_after: pick!(absent_after, |at| at.value.0 as u8, 3),
        shrink_guard: pick!(shrink_guard, |at| at.value.0 as u8, 2),
        max_endpoints: pick!(max_endpoints, |at| at.value.0 as usize, 4096),
        family: pick!(family, |at| at.value, Family::Auto),
    }
}

fn upstream(own: &raw::Service, defaults: &raw::Defaults, problems: &mut Problems) -> Upstream {
    /// The service's own, or that of `[defaults]`, or the default.
    macro_rules! pick {
        ($field:ident, $convert:expr, $default:expr) => {
            own.$field
                .as_ref()
                .or(defaults.$field.as_ref())
                .map_or($default, $convert)
        };
    }
    let seconds = Duration::from_secs;
    Upstream {
        protocol: own
            .upstream
            .as_ref()
            .map_or(UpstreamProtocol::Http, |at| at.value),
        max_age: pick!(backend_max_age, |at| at.value.0, Some(seconds(10 * 60))),
        ping: pick!(backend_ping, |at| at.value.0, Some(seconds(310))),
        connect_timeout: pick!(connect_timeout, |at| at.value.0, seconds(1)),
        tls_timeout: pick!(tls_timeout, |at| at.value.0, seconds(2)),
        response_timeout: pick!(response_timeout, |at| at.value.0, seconds(60)),
        body_timeout: pick!(body_timeout, |at| at.value.0, seconds(30)),
        stream_idle: pick!(stream_idle, |at| at.value.0, seconds(5 * 60)),
        stall_timeout: pick!(stall_timeout, |at| at.value.0, seconds(30)),
        min_rate: pick!(min_rate, |at| at.value.0, 240),
        tunnel_idle: pick!(tunnel_idle, |at| at.value.0, seconds(60 * 60)),
        keep_alive: pick!(backend_keep_alive, |at| at.value, seconds(4)),
        max_idle: pick!(max_idle, |at| at.value.0 as usize, 64),
        retries: pick!(retries, |at| at.value.0 as u8, 1),
        retry_budget_percent: pick!(retry_budget_percent, |at| at.value.0 as u8, 20),
        retry_budget_per_second: pick!(retry_budget_per_second, |at| at.value.0 as u32, 10),
        try_timeout: pick!(try_timeout, |at| at.value.0, None),
        retry_on: ejection::retry_on(
            own.retry_on.as_ref().or(defaults.retry_on.as_ref()),
            problems,
        ),
    }
}

fn upgrade(given: Option<&Vec<At<String>>>, problems: &mut Problems) -> Vec<Box<str>> {
    let Some(given) = given else {
        return vec!["websocket".into()];
    };
    given
        .iter()
        .map(|at| {
            let token = at.value.to_ascii_lowercase();
            if token == "h2c" || token == "h2" {
                problems.error(
                    at.span,
                    format!("`{token}` is never passed on as an upgrade"),
                );
            } else if !token.bytes().all(|b| routes::is_token_byte(b) || b == b'/') {
                problems.error(at.span, format!("`{token}` is not the name of a protocol"));
            }
            token.into_boxed_str()
        })
        .collect()
}
