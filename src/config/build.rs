//! From the raw file to the [`Config`] that the rest of the program sees: defaults are filled in
//! here, names become indexes, and what contradicts itself is refused.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use super::diagnostics::{Problem, Problems};
use super::raw;
use super::read::At;
use super::scalar::{Positive, Within};
use super::source::{Files, Sources, Span};
use super::{
    AccessFormat, CertificateFiles, Config, Downstream, Drain, Listener, Log, LogFormat,
    MemoryLimit, Protocol, Redirect, Service, TlsFrontEnd, TlsVersion, access, acme, admin,
    backend_tls, identity, layer4, rate, routes, services, state_dir, sticky, traces,
};
use crate::telemetry::logging::check_level;

/// Connections are a third of the descriptors: one for the client, one for the backend, and one
/// to spare for everything else.
const DESCRIPTORS_PER_CONNECTION: u64 = 3;

/// The process itself needs half of it, with nobody connected.
const LEAST_MEMORY: u64 = 32 << 20;

/// Most connections without being told so.
const MOST_CONNECTIONS: u64 = 65_536;

/// Builds the configuration. What comes back next to recorded errors is not to be used.
pub fn build(file: raw::File, files: Files, sources: &Sources, problems: &mut Problems) -> Config {
    // Those that cannot be read might have been the ones.
    let trust_is_known = file.trusted_proxies.is_some() || file.key("trusted_proxies").is_none();
    let dns = file.dns.unwrap_or_default();
    let defaults = file.defaults.unwrap_or_default();
    let raw_listeners = file.listeners.unwrap_or_default();
    let raw_services = file.services.unwrap_or_default();

    let mut listeners: Vec<Listener> = raw_listeners
        .iter()
        .map(|l| listener(l, files, sources, problems))
        .collect();
    let probe = match file.probe.unwrap_or_default().address {
        Some(address) => address.value.0.map(|a| (a, Some(address.span))),
        None => Some((SocketAddr::from(([127, 0, 0, 1], 9902)), None)),
    };
    if trust_is_known {
        identity::check_trust(&raw_listeners, file.trusted_proxies.as_deref(), problems);
    }
    identity::check_audience(file.explain_from.as_deref(), problems);
    let raw_admin = file.admin.unwrap_or_default();
    let (admin, control) = admin::build(&raw_admin, files, sources, problems);
    refuse_shared_addresses(&raw_listeners, control, probe, problems);
    name_listeners(&raw_listeners, problems);

    // Once for the tables themselves, so that a mistake there is reported once.
    services::lookup(&dns, &raw::Dns::default(), problems);
    if let Some(limit) = &defaults.rate_limit {
        rate::check(limit, problems);
    }
    backend_tls::check(defaults.tls.as_ref(), (files, sources), problems);
    sticky::check_default(defaults.sticky.as_ref(), files, sources, problems);
    let services: Vec<Service> = raw_services
        .iter()
        .map(|s| services::service(s, &dns, &defaults, (files, sources), problems))
        .collect();
    services::refuse_own_addresses(&raw_services, &listeners, problems);
    let known = routes::Known::new(&raw_listeners, &listeners, &raw_services, problems);
    let routes = routes::build(&file.routes.unwrap_or_default(), &known, problems);
    layer4::warn_of_unused(&routes, &listeners, &raw_services, problems);
    layer4::refuse_protocols(
        &routes,
        (&raw_listeners, &listeners),
        (&raw_services, &services),
        problems,
    );

    if raw_listeners.is_empty() && file.present.iter().all(|(key, _)| *key != "listener") {
        problems.push(
            Problem::error(file.span.part(0..0), "there is no listener")
                .help("add [[listener]] with address = \":8080\" and protocol = \"http\""),
        );
    }

    let has_acme = file.present.iter().any(|(key, _)| *key == "acme");
    let raw_acme = file.acme.as_ref();
    let acme = raw_acme.and_then(|raw| acme::build(raw, files, sources, problems));
    for raw in &raw_listeners {
        acme::check_listener(raw, has_acme, problems);
    }
    let authority = acme.as_ref().zip(raw_acme);
    acme::name_certificates(authority, &raw_listeners, &mut listeners, &routes, problems);

    let raw_traces = file.traces.as_ref();
    let traces = raw_traces.map(|raw| traces::build(raw, problems));
    let limits = file.limits.unwrap_or_default();
    let memory = memory(&limits, problems);
    Config {
        workers: file
            .workers
            .and_then(|n| NonZeroUsize::new(n.value.0 as usize))
            .or_else(|| std::thread::available_parallelism().ok())
            .unwrap_or(NonZeroUsize::MIN),
        listeners,
        services,
        routes,
        trusted_proxies: values(file.trusted_proxies),
        explain_from: values(file.explain_from),
        allowed_endpoints: values(dns.allow),
        state_dir: file
            .state_dir
            .map(|at| state_dir::path(&at, files, sources, problems)),
        acme,
        downstream: downstream(&defaults, limits, file.http.unwrap_or_default(), problems),
        memory,
        probe: probe.map(|(address, _)| address),
        admin,
        log: log(file.log.unwrap_or_default(), problems),
        traces,
        drain: drain(file.drain.unwrap_or_default()),
        written: Arc::default(),
    }
}

pub(super) fn values<T>(list: Option<Vec<At<T>>>) -> Vec<T> {
    list.into_iter().flatten().map(|at| at.value).collect()
}

fn positive(at: &Option<At<Positive>>) -> Option<Duration> {
    at.as_ref().map(|at| at.value.0)
}

pub(super) fn number<const LEAST: u64, const MOST: u64>(
    at: &Option<At<Within<LEAST, MOST>>>,
) -> Option<u64> {
    at.as_ref().map(|at| at.value.0)
}

/// Reports a key that must be there, unless it is there and was refused already.
pub(super) fn missing(
    table: &[(&'static str, Span)],
    key: &str,
    span: Span,
    help: &str,
    problems: &mut Problems,
) {
    if table.iter().all(|(k, _)| *k != key) {
        problems.push(Problem::error(span, format!("`{key}` is missing")).help(help));
    }
}

fn listener(
    raw: &raw::Listener,
    files: Files,
    sources: &Sources,
    problems: &mut Problems,
) -> Listener {
    let address = raw.address.as_ref().map(|at| at.value.0);
    if address.is_none() {
        let help = "for example address = \":8443\"";
        missing(&raw.present, "address", raw.span, help, problems);
    }
    let address = address.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)));
    use raw::ListenerProtocol::{Http, Https, Tcp, Tls};
    let spoken = match raw.protocol.as_ref().map(|at| at.value) {
        Some(protocol) => protocol,
        None => {
            let help = "protocol = \"https\" with certificates, or protocol = \"http\"";
            missing(&raw.present, "protocol", raw.span, help, problems);
            match raw.certificates {
                Some(_) => Https,
                None => Http,
            }
        }
    };
    let protocol = match spoken {
        Https => Protocol::Https(tls(raw, files, sources, problems)),
        Http => Protocol::Http,
        Tcp => Protocol::Tcp,
        Tls => Protocol::Tls,
    };
    let passes_over = match spoken {
        Https => None,
        Http => Some(("plain http", "write protocol = \"https\"")),
        Tcp => Some(("tcp", "protocol = \"https\" is what ends TLS here")),
        Tls => Some((
            "tls, which a backend ends",
            "protocol = \"https\" is what ends TLS here",
        )),
    };
    if let (Some(span), Tcp | Tls) = (raw.key("http2"), spoken) {
        problems.push(
            Problem::warning(
                span,
                "`http2` has no effect where connections are passed on",
            )
            .help("the client and the backend agree between themselves what they speak"),
        );
    }
    // One that cannot be read might have been https.
    let protocol_is_known = raw.protocol.is_some() || raw.key("protocol").is_none();
    if let Some((what, help)) = passes_over.filter(|_| protocol_is_known) {
        for key in ["certificates", "min_tls", "client_certificates", "acme"] {
            if let Some(span) = raw.key(key) {
                let title = format!("`{key}` has no effect on {what}");
                problems.push(Problem::error(span, title).help(help));
            }
        }
    }
    let redirect = raw.redirect.as_ref().map(|redirect| {
        let refused = match spoken {
            Http => None,
            Https => Some("a listener that speaks https cannot redirect to https"),
            Tcp | Tls => Some("a listener that looks at no requests cannot redirect them"),
        };
        if let Some(why) = refused {
            problems.error(redirect.0.span, why);
        }
        self::redirect(&redirect.0, problems)
    });
    Listener {
        http2: raw.http2.as_ref().is_none_or(|at| at.value),
        name: match &raw.name {
            Some(name) => Arc::from(name.value.as_str()),
            None => Arc::from(address.to_string()),
        },
        address,
        protocol,
        redirect,
        access: access::build(
            raw.allow.as_deref(),
            raw.deny.as_deref(),
            |key| raw.key(key),
            problems,
        ),
        proxy_protocol: raw.proxy_protocol.as_ref().is_some_and(|at| at.value.0),
    }
}

fn tls(
    raw: &raw::Listener,
    files: Files,
    sources: &Sources,
    problems: &mut Problems,
) -> TlsFrontEnd {
    let given = raw.certificates.as_deref().unwrap_or_default();
    let ordered = raw.acme.as_ref().is_some_and(|at| at.value);
    let missing = raw.certificates.is_some() || raw.key("certificates").is_none();
    if given.is_empty() && missing && !ordered {
        problems.push(
            Problem::error(
                raw.key("certificates").unwrap_or(raw.span),
                "https needs a certificate",
            )
            .help(
                "certificates = [{ cert = \"certs/dev.pem\", key = \"certs/dev.key\" }]; \
                     `evenkeel cert dev` makes one to try with",
            ),
        );
    }
    let certificates = given
        .iter()
        .filter_map(|entry| certificate_files(entry, CERT_DEV, files, sources, problems))
        .collect();
    TlsFrontEnd {
        certificates,
        // When the routes are known.
        acme: BTreeSet::new(),
        min_version: raw
            .min_tls
            .as_ref()
            .map_or(TlsVersion::Tls12, |at| at.value),
        client_certificates: raw
            .client_certificates
            .as_ref()
            .and_then(|raw| identity::client_certificates(raw, files, sources, problems)),
    }
}

/// What helps somebody who has no certificate yet.
const CERT_DEV: &str = "`evenkeel cert dev` makes certs/dev.pem and certs/dev.key, to try with";

/// The files of a certificate and its key. `hint` is for whom the certificate is not there.
pub(super) fn certificate_files(
    entry: &raw::Certificate,
    hint: &str,
    files: Files,
    sources: &Sources,
    problems: &mut Problems,
) -> Option<CertificateFiles> {
    if entry.cert.is_none() {
        let help = "a PEM file, leaf first";
        missing(&entry.present, "cert", entry.span, help, problems);
    }
    if entry.key.is_none() {
        missing(&entry.present, "key", entry.span, "a PEM file", problems);
    }
    let mut hint = hint;
    let mut path_of = |at: &At<String>| {
        let path = sources.resolve(at.span, &at.value);
        if files == Files::Opened
            && let Err(error) = crate::io::files::open(&path)
        {
            let title = format!("cannot read {}: {error}", path.display());
            let mut problem = Problem::error(at.span, title);
            if error.kind() == ErrorKind::NotFound && !hint.is_empty() {
                problem = problem.help(std::mem::take(&mut hint));
            }
            problems.push(problem);
        }
        path
    };
    let cert = entry.cert.as_ref().map(&mut path_of);
    let key = entry.key.as_ref().map(path_of);
    Some(CertificateFiles {
        cert: cert?,
        key: key?,
    })
}

fn redirect(raw: &raw::RedirectTable, problems: &mut Problems) -> Redirect {
    let status = number(&raw.status).unwrap_or(308);
    if let (Some(at), false) = (&raw.status, [301, 302, 307, 308].contains(&status)) {
        problems.error(
            at.span,
            format!("{status} is not one of 301, 302, 307 and 308"),
        );
    }
    Redirect {
        status: u16::try_from(status).unwrap_or(308),
        port: number(&raw.port)
            .and_then(|p| u16::try_from(p).ok())
            .unwrap_or(443),
    }
}

/// Two sockets cannot share an address; a wildcard address covers the others of its port.
fn refuse_shared_addresses(
    listeners: &[raw::Listener],
    control: Option<(SocketAddr, Span)>,
    probe: Option<(SocketAddr, Option<Span>)>,
    problems: &mut Problems,
) {
    let mut taken: Vec<(SocketAddr, Span)> = Vec::new();
    let own = listeners
        .iter()
        .filter_map(|l| l.address.as_ref())
        .map(|at| (at.value.0, Some(at.span)));
    let control = control.map(|(address, span)| (address, Some(span)));
    for (address, span) in own.chain(control).chain(probe) {
        let earlier = taken
            .iter()
            .find(|(other, _)| overlap(*other, address))
            .copied();
        match (earlier, span) {
            (Some((_, first)), Some(span)) => problems.push(
                Problem::error(span, format!("{address} is listened on twice"))
                    .and(first, "here first"),
            ),
            (Some((_, first)), None) => problems.push(
                Problem::error(first, format!("{address} is the probe listener's")).help(
                    "give the probe listener another address: [probe] address = \"…\", or \"off\"",
                ),
            ),
            (None, Some(span)) => taken.push((address, span)),
            (None, None) => {}
        }
    }
}

/// True if the kernel would refuse to listen on both. Port 0 is a new port each time; `[::]` takes
/// both families.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let covers = |wide: SocketAddr, other: SocketAddr| {
        wide.ip().is_unspecified() && (wide.is_ipv6() || other.is_ipv4())
    };
    a.port() == b.port() && a.port() != 0 && (a.ip() == b.ip() || covers(a, b) || covers(b, a))
}

fn name_listeners(listeners: &[raw::Listener], problems: &mut Problems) {
    unique(
        listeners.iter().filter_map(|l| l.name.as_ref()),
        "listener",
        problems,
    );
}

/// Reports the second and each further use of a name.
pub(super) fn unique<'a>(
    given: impl Iterator<Item = &'a At<String>>,
    what: &str,
    problems: &mut Problems,
) {
    let mut first: std::collections::HashMap<&str, Span> = std::collections::HashMap::new();
    for name in given {
        match first.get(name.value.as_str()) {
            Some(earlier) => problems.push(
                Problem::error(
                    name.span,
                    format!("two {what}s are called `{}`", name.value),
                )
                .and(*earlier, "the first one"),
            ),
            None => {
                first.insert(&name.value, name.span);
            }
        }
    }
}

fn downstream(
    defaults: &raw::Defaults,
    limits: raw::Limits,
    http: raw::Http,
    problems: &mut Problems,
) -> Downstream {
    let header_bytes = limits.header_bytes.map_or(32 << 10, |at| {
        // At most what a connection's inbox holds.
        if !(1 << 10..=63 << 10).contains(&at.value.0) {
            problems.error(at.span, "a request head is allowed between 1KiB and 63KiB");
        }
        at.value.0 as usize
    });
    let flag = |at: Option<At<bool>>| at.is_some_and(|at| at.value);
    Downstream {
        header_timeout: positive(&defaults.header_timeout).unwrap_or(Duration::from_secs(10)),
        header_bytes,
        header_fields: number(&limits.header_fields).unwrap_or(100) as usize,
        handshake_timeout: positive(&defaults.handshake_timeout).unwrap_or(Duration::from_secs(10)),
        keep_alive: defaults
            .keep_alive
            .as_ref()
            .map_or(Duration::from_secs(75), |at| at.value),
        max_connection_age: (defaults.max_connection_age.as_ref()).and_then(|at| at.value.0),
        max_streams: number(&limits.max_streams).map_or(128, |n| n as u32),
        max_connections: number(&limits.max_connections)
            .and_then(|n| NonZeroUsize::new(n as usize))
            .unwrap_or_else(default_max_connections),
        max_connections_per_client: number(&limits.max_connections_per_client)
            .and_then(|n| u32::try_from(n).ok().and_then(NonZeroU32::new)),
        reject_encoded_slash: flag(http.reject_encoded_slash),
        allow_underscores: flag(http.allow_underscores),
        forwarded: flag(http.forwarded),
    }
}

fn memory(limits: &raw::Limits, problems: &mut Problems) -> MemoryLimit {
    let Some(at) = &limits.memory else {
        return MemoryLimit::Group;
    };
    match at.value.0 {
        None => MemoryLimit::Off,
        Some(bytes) => {
            if bytes < LEAST_MEMORY {
                problems.error(at.span, "this is less than the 32MiB that a process needs");
            }
            MemoryLimit::Bytes(bytes)
        }
    }
}

fn default_max_connections() -> NonZeroUsize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let third = limit.map_or(MOST_CONNECTIONS, |n| n / DESCRIPTORS_PER_CONNECTION);
    NonZeroUsize::new(third.min(MOST_CONNECTIONS) as usize).unwrap_or(NonZeroUsize::MIN)
}

fn log(raw: raw::Log, problems: &mut Problems) -> Log {
    if let Some(level) = &raw.level
        && let Err(error) = check_level(&level.value)
    {
        problems.push(
            Problem::error(level.span, error.to_string())
                .help("error, warn, info, debug or trace, or a filter such as \"info,evenkeel::discovery=debug\""),
        );
    }
    Log {
        level: raw.level.map_or_else(|| "info".into(), |at| at.value),
        format: raw.format.map_or(LogFormat::Auto, |at| at.value),
        access: raw.access.map_or(AccessFormat::Json, |at| at.value),
        access_query: raw.access_query.is_some_and(|at| at.value),
    }
}

fn drain(raw: raw::Drain) -> Drain {
    let seconds =
        |at: Option<At<Duration>>, default| at.map_or(Duration::from_secs(default), |at| at.value);
    Drain {
        wait: seconds(raw.wait, 5),
        requests: seconds(raw.requests, 30),
        streams: seconds(raw.streams, 300),
    }
}
