//! Health of a service's backends: how they are checked. The table as it is written, and what it becomes.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::UpstreamProtocol;
use super::diagnostics::{Problem, Problems};
use super::ejection::Statuses;
use super::read::{At, Key, Read, Refusal, Scalar, choice, table};
use super::scalar::{Positive, Within};
use super::schema;
use super::tree::{Node, Value};

/// How a service's backends are checked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Check {
    /// What is asked.
    pub ask: Ask,
    /// Time between two checks of a backend, give or take a tenth (2 s).
    pub interval: Duration,
    /// For a whole check (1 s).
    pub timeout: Duration,
    /// Failed checks in a row until a backend is down (3).
    pub fall: u32,
    /// Passed checks in a row until it is up again (2).
    pub rise: u32,
    /// Another port than that of the backend.
    pub port: Option<u16>,
    /// A new backend is out until it has passed once.
    pub initially_down: bool,
    /// Without TLS, although requests go over TLS.
    pub plain: bool,
}

/// What a check asks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Ask {
    /// Whether a connection can be made.
    Tcp,
    /// A request.
    Http(HttpCheck),
    /// The gRPC health protocol.
    Grpc(GrpcCheck),
}

/// A call of the gRPC health protocol, over HTTP/2.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GrpcCheck {
    /// Whose health is asked for; empty: the server's as a whole.
    pub service: Box<str>,
    /// Its `:authority`; absent: the target and the port of the backend.
    pub host: Option<Box<str>>,
}

/// A request, and which response passes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HttpCheck {
    /// Its method (GET).
    pub method: Box<str>,
    /// Its path, with a query if there is one.
    pub path: Box<str>,
    /// Its Host; absent: the target and the port of the backend.
    pub host: Option<Box<str>>,
    /// Status codes that pass (200 to 399).
    pub statuses: Vec<RangeInclusive<u16>>,
    /// What the body must contain, if anything.
    pub body: Option<Box<str>>,
}

impl Check {
    /// Does what is asked depend on the backend's name, besides its address?
    pub fn needs_host(&self) -> bool {
        match &self.ask {
            Ask::Tcp => false,
            Ask::Http(HttpCheck { host, .. }) | Ask::Grpc(GrpcCheck { host, .. }) => host.is_none(),
        }
    }
}

table! {
    /// `health`, written out.
    pub(super) struct HealthTable = "health" {
        "tcp" => tcp: At<bool>,
        "http" => http: At<String>,
        "grpc" => grpc: At<GrpcService>,
        "method" => method: At<String>,
        "host" => host: At<String>,
        "status" => statuses: Vec<At<Statuses>>,
        "body" => body: At<String>,
        "interval" => interval: At<Positive>,
        "timeout" => timeout: At<Positive>,
        "fall" => fall: At<Within<1, 100>>,
        "rise" => rise: At<Within<1, 100>>,
        "port" => port: At<Within<1, 65535>>,
        "initial" => initial: At<Initial>,
        "tls" => tls: At<bool>,
    }
    later []
    elsewhere {
        "path" => "it is the value of `http`: health = { http = \"/healthz\" }",
        "check" => "say what is asked: { tcp = true } or { http = \"/healthz\" }",
    }
}

/// `health`: a path, a word, or a table. `None`: off.
#[derive(Debug, Clone)]
pub(super) struct Health(Option<Box<HealthTable>>);

impl Read for Health {
    const EXPECTS: &'static str =
        "a path such as \"/healthz\", \"tcp\", \"grpc\", \"off\", or a table";

    fn read(node: &Node, problems: &mut Problems) -> Option<Self> {
        if matches!(node.value, Value::Table(_)) {
            return HealthTable::read(node, problems).map(|table| Health(Some(Box::new(table))));
        }
        let text = At::<String>::read(node, problems)?;
        let mut table = HealthTable {
            span: text.span,
            ..HealthTable::default()
        };
        match text.value.as_str() {
            "tcp" => {
                table.tcp = Some(At {
                    value: true,
                    span: text.span,
                });
            }
            "off" => return Some(Health(None)),
            path if path.starts_with('/') => table.http = Some(text),
            "grpc" => {
                table.grpc = Some(At {
                    value: GrpcService(String::new()),
                    span: text.span,
                });
            }
            other => {
                problems.push(
                    Problem::error(text.span, format!("`{other}` is not {}", Self::EXPECTS)).help(
                        "health = \"/healthz\" asks for that path, health = \"tcp\" connects",
                    ),
                );
                return None;
            }
        }
        Some(Health(Some(Box::new(table))))
    }

    fn schema() -> serde_json::Value {
        schema::any(vec![
            schema::words(&["tcp", "grpc", "off"]),
            schema::pattern("^/"),
            HealthTable::schema(),
        ])
    }

    fn keys() -> &'static [Key] {
        HealthTable::keys()
    }
}

/// `initial` of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Initial {
    Up,
    Down,
}

choice! {
    Initial = "\"up\" or \"down\"" {
        "up" => Initial::Up,
        "down" => Initial::Down,
    }
    later []
}

/// `grpc` of a check: the name of a service, or `true` for the server as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GrpcService(String);

impl Scalar for GrpcService {
    const EXPECTS: &'static str = "true, or the name of a gRPC service";

    fn schema() -> serde_json::Value {
        schema::any(vec![
            serde_json::json!({ "const": true }),
            schema::pattern("^[!-~]*$"),
        ])
    }

    fn from_text(text: &str) -> Result<Self, Refusal> {
        match text.bytes().all(|b| b.is_ascii_graphic()) {
            true => Ok(GrpcService(text.to_owned())),
            false => Err(Refusal::kind()),
        }
    }

    fn from_bool(whole: bool) -> Result<Self, Refusal> {
        match whole {
            true => Ok(GrpcService(String::new())),
            false => Err(Refusal::because("`grpc = false` says nothing")
                .help("a service without `health` is not checked")),
        }
    }

    fn from_word(word: &str) -> Result<Self, Refusal> {
        match word {
            "true" => Self::from_bool(true),
            word => Self::from_text(word),
        }
    }
}

/// Builds the check of a service, if it has one.
pub(super) fn check(raw: Option<&Health>, problems: &mut Problems) -> Option<Arc<Check>> {
    let raw = raw?.0.as_deref()?;
    let ask = ask(raw, problems)?;
    let seconds = Duration::from_secs;
    let interval = raw.interval.as_ref().map_or(seconds(2), |at| at.value.0);
    for at in [&raw.interval, &raw.timeout].into_iter().flatten() {
        if at.value.0 < SHORTEST_CHECK {
            problems.error(
                at.span,
                "a check takes at least 10ms, and so does the pause",
            );
        }
    }
    let number = |at: &Option<At<Within<1, 100>>>, default| {
        at.as_ref().map_or(default, |at| at.value.0 as u32)
    };
    Some(Arc::new(Check {
        ask,
        interval,
        timeout: raw.timeout.as_ref().map_or(seconds(1), |at| at.value.0),
        fall: number(&raw.fall, 3),
        rise: number(&raw.rise, 2),
        port: raw.port.as_ref().map(|at| at.value.0 as u16),
        initially_down: raw
            .initial
            .as_ref()
            .is_some_and(|at| at.value == Initial::Down),
        plain: raw.tls.as_ref().is_some_and(|at| !at.value),
    }))
}

/// A check can do without the TLS of its service, but has none of its own.
pub(super) fn check_layers(
    raw: Option<&Health>,
    protocol: UpstreamProtocol,
    problems: &mut Problems,
) {
    let table = raw.and_then(|raw| raw.0.as_deref());
    // Another port may well be one for HTTP/1.1.
    if let Some(span) = table.and_then(|table| table.key("http"))
        && protocol.is_h2()
        && table.is_some_and(|table| table.port.is_none())
    {
        problems.push(
            Problem::error(span, "checks by `http` speak HTTP/1.1, and these backends HTTP/2")
                .help("write health = { grpc = true } or { tcp = true }, or give the `port` of one that speaks HTTP/1.1"),
        );
    }
    let over_tls = protocol.is_tls();
    let tls = raw.and_then(|raw| raw.0.as_deref()?.tls.as_ref());
    if let Some(at) = tls.filter(|at| at.value && !over_tls) {
        problems.push(
            Problem::error(at.span, "`tls = true` has no effect on plain http")
                .help("checks speak TLS where requests do: upstream = \"https\", or \"h2\""),
        );
    }
}

fn ask(raw: &HealthTable, problems: &mut Problems) -> Option<Ask> {
    let tcp = raw.tcp.as_ref();
    if let Some(off) = tcp.filter(|at| !at.value) {
        problems.push(
            Problem::error(off.span, "`tcp = false` says nothing")
                .help("a service without `health` is not checked"),
        );
        return None;
    }
    let ways: Vec<_> = ["tcp", "http", "grpc"]
        .into_iter()
        .filter_map(|way| Some((way, raw.key(way)?)))
        .collect();
    if let [(first, first_span), (second, second_span), ..] = ways.as_slice() {
        problems.push(
            Problem::error(
                *second_span,
                format!("`{second}` and `{first}` exclude each other"),
            )
            .and(*first_span, ""),
        );
        return None;
    }
    let only_for = |way: &str, keys: &[&str], problems: &mut Problems| {
        for key in keys {
            if let Some(span) = raw.key(key) {
                problems.error(span, format!("`{key}` goes with {way} only"));
            }
        }
    };
    if let Some(path) = &raw.http {
        return Some(Ask::Http(http(raw, path, problems)));
    }
    only_for("`http`", &["method", "status", "body"], problems);
    if let Some(grpc) = &raw.grpc {
        return Some(Ask::Grpc(GrpcCheck {
            service: grpc.value.0.as_str().into(),
            host: host(raw, problems),
        }));
    }
    only_for("`http` and `grpc`", &["host"], problems);
    if tcp.is_none() && ways.is_empty() {
        problems.push(
            Problem::error(raw.span, "nothing says how backends are checked")
                .help("give `http` with a path, grpc = true or tcp = true"),
        );
    }
    tcp.map(|_| Ask::Tcp)
}

fn host(raw: &HealthTable, problems: &mut Problems) -> Option<Box<str>> {
    let at = raw.host.as_ref()?;
    if !at.value.bytes().all(|b| b.is_ascii_graphic()) {
        problems.error(at.span, format!("`{}` is not a host", at.value));
    }
    Some(at.value.as_str().into())
}

fn http(raw: &HealthTable, path: &At<String>, problems: &mut Problems) -> HttpCheck {
    let visible = |text: &str| text.bytes().all(|b| b.is_ascii_graphic());
    if !path.value.starts_with('/') || !visible(&path.value) {
        problems.push(
            Problem::error(path.span, format!("`{}` is not a path", path.value))
                .help("it begins with a slash and has no spaces: \"/healthz\""),
        );
    }
    let method = raw.method.as_ref();
    if let Some(at) = method.filter(|at| !at.value.bytes().all(super::routes::is_token_byte)) {
        problems.error(at.span, format!("`{}` is not a method", at.value));
    }
    let text = |at: &Option<At<String>>| at.as_ref().map(|at| at.value.as_str().into());
    HttpCheck {
        method: text(&raw.method).unwrap_or_else(|| "GET".into()),
        path: path.value.as_str().into(),
        host: host(raw, problems),
        statuses: match &raw.statuses {
            Some(list) => list.iter().map(|at| at.value.0.clone()).collect(),
            None => vec![200..=399],
        },
        body: text(&raw.body),
    }
}

/// No check, and no pause between two, is shorter: a wrong unit shall not flood a backend.
const SHORTEST_CHECK: Duration = Duration::from_millis(10);
