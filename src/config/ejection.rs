//! What becomes of failed attempts: when a backend is ejected, and which responses are tried again.
//! The tables as they are written, and what they become.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::diagnostics::{Problem, Problems};
use super::read::{At, Key, Read, Refusal, Scalar, choice, table};
use super::scalar::{Positive, Within};
use super::schema;
use super::tree::{Node, Value};

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

/// A status code, a range of them, or a class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Statuses(pub(super) RangeInclusive<u16>);

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

/// Methods that can be named as safe to repeat.
const KNOWN_METHODS: [&str; 8] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH",
];
