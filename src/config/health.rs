//! Health of a service's backends: its checks, its ejection, and which responses are tried again.
//! The tables as they are written, and what they become.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::UpstreamProtocol;
use super::diagnostics::{Problem, Problems};
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

/// When a backend is ejected because of what became of requests.
#[derive(Debug, Clone, PartialEq)]
pub struct EjectionRules {
    /// Failed attempts in a row (5); 0: they do not eject.
    pub failures: u32,
    /// Fewer attempts of a hundred succeed than with the others of its tier (20); 0: that does not
    /// eject.
    pub success_rate: u8,
    /// Status codes that count as a failed attempt (none).
    pub statuses: Vec<RangeInclusive<u16>>,
    /// The first time (10 s); it doubles.
    pub time: Duration,
    /// The longest (300 s).
    pub max_time: Duration,
    /// Of a hundred backends of a tier at most so many are out at once, unless a lower tier can
    /// serve (50).
    pub max_percent: u8,
}

/// Responses that are tried again with another backend.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RetryOn {
    /// Status codes (none).
    pub statuses: Vec<RangeInclusive<u16>>,
    /// Methods for which that is safe (GET, HEAD).
    pub methods: Vec<Box<str>>,
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

impl EjectionRules {
    /// Does this status count as a failed attempt?
    pub fn counts(&self, status: u16) -> bool {
        self.statuses.iter().any(|range| range.contains(&status))
    }
}

impl Default for EjectionRules {
    fn default() -> EjectionRules {
        EjectionRules {
            failures: 5,
            success_rate: 20,
            statuses: Vec::new(),
            time: Duration::from_secs(10),
            max_time: Duration::from_secs(300),
            max_percent: 50,
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

table! {
    /// `ejection`, written out.
    pub(super) struct EjectionTable = "ejection" {
        "failures" => failures: At<Within<0, 1000>>,
        "success_rate" => success_rate: At<Within<0, 100>>,
        "status" => statuses: Vec<At<Statuses>>,
        "time" => time: At<Positive>,
        "max_time" => max_time: At<Positive>,
        "max_percent" => max_percent: At<Within<0, 100>>,
    }
    later []
}

table! {
    /// `retry_on`
    pub(super) struct RetryOnTable = "retry_on" {
        "status" => statuses: Vec<At<Statuses>>,
        "methods" => methods: Vec<At<String>>,
    }
    required ["status"]
    later ["grpc"]
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

/// `retry_on`: the word `off`, or a table.
#[derive(Debug, Clone)]
pub(super) enum RawRetryOn {
    Off,
    Table(RetryOnTable),
}

impl Read for RawRetryOn {
    const EXPECTS: &'static str = "a table such as { status = [502, 503] }, or \"off\"";

    fn read(node: &Node, problems: &mut Problems) -> Option<Self> {
        match node.value {
            Value::Table(_) => RetryOnTable::read(node, problems).map(RawRetryOn::Table),
            Value::Text(_) | Value::Word(_) => {
                At::<Off>::read(node, problems).map(|_| RawRetryOn::Off)
            }
            _ => {
                problems.push(
                    Problem::error(node.span, format!("this takes {}", Self::EXPECTS))
                        .help("retry_on = { status = [502, 503, 504] }"),
                );
                None
            }
        }
    }

    fn schema() -> serde_json::Value {
        schema::any(vec![Off::schema(), RetryOnTable::schema()])
    }

    fn keys() -> &'static [Key] {
        RetryOnTable::keys()
    }
}

/// `ejection`: the word `off`, or a table.
#[derive(Debug, Clone)]
pub(super) enum Ejection {
    Off,
    Rules(Box<EjectionTable>),
}

impl Read for Ejection {
    const EXPECTS: &'static str = "\"off\" or a table";

    fn read(node: &Node, problems: &mut Problems) -> Option<Self> {
        if matches!(node.value, Value::Table(_)) {
            return EjectionTable::read(node, problems)
                .map(Box::new)
                .map(Ejection::Rules);
        }
        At::<Off>::read(node, problems).map(|_| Ejection::Off)
    }

    fn schema() -> serde_json::Value {
        schema::any(vec![Off::schema(), EjectionTable::schema()])
    }

    fn keys() -> &'static [Key] {
        EjectionTable::keys()
    }
}

/// The word `off`.
#[derive(Debug, Clone, Copy)]
struct Off;

choice! {
    Off = "\"off\"" { "off" => Off, }
    later []
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

/// A status code, a range of them, or a class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Statuses(RangeInclusive<u16>);

impl Scalar for Statuses {
    const EXPECTS: &'static str = "a status code such as 200, \"200-399\" or \"2xx\"";

    fn schema() -> serde_json::Value {
        let text = r"^\s*[1-5](xx|[0-9]{2}(\s*-\s*[1-5][0-9]{2})?)\s*$";
        let code = serde_json::json!({ "type": "integer", "minimum": 100, "maximum": 599 });
        schema::any(vec![code, schema::pattern(text)])
    }

    fn from_text(text: &str) -> Result<Self, Refusal> {
        let text = text.trim();
        let range = if let Some(class) = text.strip_suffix("xx") {
            let class: u16 = class.parse().map_err(|_| Refusal::kind())?;
            class.saturating_mul(100)..=class.saturating_mul(100).saturating_add(99)
        } else if let Some((first, last)) = text.split_once('-') {
            let code = |text: &str| text.trim().parse().map_err(|_| Refusal::kind());
            code(first)?..=code(last)?
        } else {
            let code: u16 = text.parse().map_err(|_| Refusal::kind())?;
            code..=code
        };
        if *range.start() < 100 || *range.end() > 599 || range.is_empty() {
            return Err(Refusal::because(format!(
                "`{text}` names no status code between 100 and 599"
            )));
        }
        Ok(Statuses(range))
    }

    fn from_integer(n: i64) -> Result<Self, Refusal> {
        Self::from_text(&n.to_string())
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

/// Builds the rules of ejection of a service.
pub(super) fn ejection(raw: Option<&Ejection>, problems: &mut Problems) -> EjectionRules {
    let default = EjectionRules::default();
    let raw = match raw {
        None => return default,
        Some(Ejection::Off) => {
            return EjectionRules {
                failures: 0,
                success_rate: 0,
                ..default
            };
        }
        Some(Ejection::Rules(raw)) => raw,
    };
    let time = raw.time.as_ref().map_or(default.time, |at| at.value.0);
    let max_time = raw.max_time.as_ref();
    if let Some(at) = max_time.filter(|at| at.value.0 < time) {
        problems.error(
            at.span,
            format!("`max_time` is shorter than `time` ({time:?})"),
        );
    }
    EjectionRules {
        failures: raw
            .failures
            .as_ref()
            .map_or(default.failures, |at| at.value.0 as u32),
        success_rate: raw
            .success_rate
            .as_ref()
            .map_or(default.success_rate, |at| at.value.0 as u8),
        statuses: raw
            .statuses
            .iter()
            .flatten()
            .map(|at| at.value.0.clone())
            .collect(),
        time,
        max_time: max_time.map_or(default.max_time.max(time), |at| at.value.0),
        max_percent: raw
            .max_percent
            .as_ref()
            .map_or(default.max_percent, |at| at.value.0 as u8),
    }
}

/// Builds what is tried again.
pub(super) fn retry_on(raw: Option<&RawRetryOn>, problems: &mut Problems) -> RetryOn {
    let Some(RawRetryOn::Table(raw)) = raw else {
        return RetryOn::default();
    };
    if raw.statuses.is_none() {
        super::build::missing(
            &raw.present,
            "status",
            raw.span,
            "for example { status = [502, 503, 504] }",
            problems,
        );
    }
    for at in raw.statuses.iter().flatten() {
        if *at.value.0.start() < 400 {
            problems.error(at.span, "only an error is tried again: 400 to 599");
        }
    }
    for at in raw.methods.iter().flatten() {
        if !KNOWN_METHODS.contains(&at.value.as_str()) {
            problems.push(
                Problem::error(at.span, format!("`{}` is not a method", at.value))
                    .did_you_mean(&at.value, KNOWN_METHODS.iter().copied()),
            );
        }
    }
    RetryOn {
        statuses: raw
            .statuses
            .iter()
            .flatten()
            .map(|at| at.value.0.clone())
            .collect(),
        methods: match &raw.methods {
            Some(list) => list.iter().map(|at| at.value.as_str().into()).collect(),
            None => vec!["GET".into(), "HEAD".into()],
        },
    }
}

/// No check, and no pause between two, is shorter: a wrong unit shall not flood a backend.
const SHORTEST_CHECK: Duration = Duration::from_millis(10);

/// Methods that can be named as safe to repeat.
const KNOWN_METHODS: [&str; 8] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH",
];
