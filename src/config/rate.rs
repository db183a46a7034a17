//! Rate limits: how many requests a client may make of a service, as written and as they are.

use std::num::NonZeroU32;
use std::time::Duration;

use super::build::{missing, number};
use super::diagnostics::{Problem, Problems};
use super::read::{At, Key, Read, Refusal, Scalar, choice, table};
use super::routes;
use super::scalar::{Positive, TOKEN, Within};
use super::schema;
use super::tree::{Node, Value};

/// How many requests whoever they count for may make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    /// So many …
    pub requests: NonZeroU32,
    /// … in so much time (1 s). One request is allowed in 1 µs at the most, and 30 days at the
    /// least.
    pub per: Duration,
    /// So many at once after a pause (`requests`). They come back in 30 days at most.
    pub burst: NonZeroU32,
    /// For whom they count.
    pub by: RateKey,
}

/// For whom requests count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RateKey {
    /// The client's address.
    Address,
    /// The value of this field, or the client's address where a request has none.
    Header(Box<str>),
}

impl Scalar for RateKey {
    const EXPECTS: &'static str = "\"address\" or \"header:NAME\"";

    fn schema() -> serde_json::Value {
        schema::pattern(&format!("^(address|header:{TOKEN})$"))
    }

    fn from_text(text: &str) -> Result<Self, Refusal> {
        if text == "address" {
            return Ok(RateKey::Address);
        }
        let name = text.strip_prefix("header:").ok_or_else(|| {
            Refusal::kind().help("a field is named with its kind: by = \"header:X-Api-Key\"")
        })?;
        if name.is_empty() || !name.bytes().all(routes::is_token_byte) {
            return Err(Refusal::because(format!("`{name}` is not a field name")));
        }
        if name.eq_ignore_ascii_case("host") {
            return Err(
                Refusal::because("`Host` says what is asked for, not by whom").help(
                    "a route with a host of its own leads to a service with limits of its own",
                ),
            );
        }
        Ok(RateKey::Header(name.into()))
    }
}

table! {
    /// `rate_limit`, written out.
    pub struct RateLimitTable = "rate_limit" {
        "requests" => requests: At<Within<1, 1_000_000>>,
        "per" => per: At<Positive>,
        "burst" => burst: At<Within<1, 1_000_000>>,
        "by" => by: At<RateKey>,
    }
    required ["requests"]
    later []
}

/// `rate_limit`: the word `off`, or a table.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub enum RawRateLimit {
    Off,
    Table(RateLimitTable),
}

/// `rate_limit` as a word.
#[derive(Debug, Clone, Copy)]
pub struct NoRateLimit;

choice! {
    NoRateLimit = "a table such as { requests = 100, per = \"1s\" }, or \"off\"" {
        "off" => NoRateLimit,
    }
    later []
}

impl Read for RawRateLimit {
    const EXPECTS: &'static str = NoRateLimit::EXPECTS;

    fn read(node: &Node, problems: &mut Problems) -> Option<Self> {
        if matches!(node.value, Value::Table(_)) {
            return RateLimitTable::read(node, problems).map(RawRateLimit::Table);
        }
        At::<NoRateLimit>::read(node, problems).map(|_| RawRateLimit::Off)
    }

    fn schema() -> serde_json::Value {
        schema::any(vec![NoRateLimit::schema(), RateLimitTable::schema()])
    }

    fn keys() -> &'static [Key] {
        RateLimitTable::keys()
    }
}

/// No more than one request in this time: the arithmetic is in whole nanoseconds, so the rate is
/// then right to a thousandth.
const SHORTEST_INTERVAL: Duration = Duration::from_micros(1);

/// A burst has come back after this time at the latest, as the longest duration that a file can
/// hold. It keeps the arithmetic away from overflow.
const LONGEST_RECOVERY: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The limit of a service: its own, or that of `[defaults]`.
pub(super) fn limit(
    own: Option<&RawRateLimit>,
    default: Option<&RawRateLimit>,
    problems: &mut Problems,
) -> Option<RateLimit> {
    match own {
        Some(own) => check(own, problems),
        // Its mistakes are reported once, where `[defaults]` is looked at.
        None => check(default?, &mut Problems::default()),
    }
}

/// Reports what is wrong with a limit.
pub(super) fn check(raw: &RawRateLimit, problems: &mut Problems) -> Option<RateLimit> {
    let RawRateLimit::Table(raw) = raw else {
        return None;
    };
    if raw.requests.is_none() {
        let help = "rate_limit = { requests = 100, per = \"1s\" }";
        missing(&raw.present, "requests", raw.span, help, problems);
    }
    let positive = |n: u64| u32::try_from(n).ok().and_then(NonZeroU32::new);
    let requests = number(&raw.requests).and_then(positive)?;
    let limit = RateLimit {
        requests,
        per: (raw.per.as_ref()).map_or(Duration::from_secs(1), |at| at.value.0),
        burst: number(&raw.burst).and_then(positive).unwrap_or(requests),
        by: (raw.by.as_ref()).map_or(RateKey::Address, |at| at.value.clone()),
    };
    let interval = limit.per / limit.requests.get();
    if interval < SHORTEST_INTERVAL {
        problems.error(raw.span, "a rate is at most 1000000 requests a second");
        return None;
    }
    if interval.saturating_mul(limit.burst.get()) > LONGEST_RECOVERY {
        let title = format!(
            "a burst of {} would take more than 30 days to come back",
            limit.burst
        );
        problems.push(
            Problem::error(raw.span, title)
                .help("`requests` come back in the time `per`, one after the other"),
        );
        return None;
    }
    Some(limit)
}
