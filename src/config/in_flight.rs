//! What a service may have in flight: `max_in_flight`, `adaptive`, and the line for what is beyond.

use std::num::NonZeroU32;
use std::time::Duration;

use super::diagnostics::{Problem, Problems};
use super::raw;
use super::read::{At, Key, Read, table};
use super::scalar::Within;
use super::schema;
use super::tree::{Node, Value};

/// What a service may have in flight, in the whole process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InFlightLimits {
    /// With each backend.
    pub per_backend: Option<NonZeroU32>,
    /// As a whole, found out by latency.
    pub adaptive: Option<AdaptiveLimit>,
    /// Requests of the service that may wait (1024).
    pub queue: usize,
    /// How long one waits (5 s).
    pub timeout: Duration,
}

/// Bounds of a limit that is found out by latency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdaptiveLimit {
    /// Never less (10).
    pub least: u32,
    /// Never more (10,000).
    pub most: u32,
}

/// `adaptive`: true, false, or a table.
#[derive(Debug, Clone)]
pub(super) enum Adaptive {
    Switch(bool),
    Bounds(AdaptiveTable),
}

table! {
    /// `adaptive`, written out.
    pub(super) struct AdaptiveTable = "adaptive" {
        "min" => least: At<Within<1, 1_000_000>>,
        "max" => most: At<Within<1, 1_000_000>>,
    }
    later []
}

impl Read for Adaptive {
    const EXPECTS: &'static str = "true, false or a table";

    fn read(node: &Node, problems: &mut Problems) -> Option<Self> {
        if matches!(node.value, Value::Table(_)) {
            return AdaptiveTable::read(node, problems).map(Adaptive::Bounds);
        }
        At::<bool>::read(node, problems).map(|at| Adaptive::Switch(at.value))
    }

    fn schema() -> serde_json::Value {
        schema::any(vec![At::<bool>::schema(), AdaptiveTable::schema()])
    }

    fn keys() -> &'static [Key] {
        AdaptiveTable::keys()
    }
}

/// Builds the limits of a service, if it has any.
pub(super) fn limits(
    own: &raw::Service,
    defaults: &raw::Defaults,
    problems: &mut Problems,
) -> Option<InFlightLimits> {
    /// The service's own, or that of `[defaults]`.
    macro_rules! pick {
        ($field:ident) => {
            own.$field.as_ref().or(defaults.$field.as_ref())
        };
    }
    let per_backend = pick!(max_in_flight).and_then(|at| NonZeroU32::new(at.value.0? as u32));
    let adaptive = adaptive(pick!(adaptive), problems);
    if per_backend.is_none() && adaptive.is_none() {
        for key in ["max_queue", "queue_timeout"] {
            if let Some(span) = own.key(key) {
                problems.push(
                    Problem::error(
                        span,
                        format!("`{key}` has no effect without `max_in_flight` or `adaptive`"),
                    )
                    .help("requests wait only where something bounds what is in flight"),
                );
            }
        }
        return None;
    }
    Some(InFlightLimits {
        per_backend,
        adaptive,
        queue: pick!(max_queue).map_or(QUEUE, |at| at.value.0 as usize),
        timeout: pick!(queue_timeout).map_or(PATIENCE, |at| at.value.0),
    })
}

fn adaptive(raw: Option<&Adaptive>, problems: &mut Problems) -> Option<AdaptiveLimit> {
    let unbounded = AdaptiveTable::default();
    let raw = match raw? {
        Adaptive::Switch(false) => return None,
        Adaptive::Switch(true) => &unbounded,
        Adaptive::Bounds(raw) => raw,
    };
    let number = |at: &Option<At<Within<1, 1_000_000>>>, default| {
        at.as_ref().map_or(default, |at| at.value.0 as u32)
    };
    let least = number(&raw.least, LEAST);
    let most = number(&raw.most, MOST);
    if least > most
        && let Some(at) = raw.least.as_ref().or(raw.most.as_ref())
    {
        problems.error(
            at.span,
            format!("`min` ({least}) is more than `max` ({most})"),
        );
    }
    Some(AdaptiveLimit { least, most })
}

/// Requests that may wait unless said otherwise: with the default patience, a service that answers
/// 200 a second gets through them.
const QUEUE: usize = 1024;

/// How long one waits unless said otherwise.
const PATIENCE: Duration = Duration::from_secs(5);

/// A limit that is found out never falls below this: enough to go on finding out.
const LEAST: u32 = 10;

/// Nor does it rise above this.
const MOST: u32 = 10_000;
