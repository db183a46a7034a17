//! `mirror` of a route: a copy of a share of its requests goes to another service.

use std::time::Duration;

use super::build::missing;
use super::diagnostics::Problems;
use super::read::{At, table};
use super::scalar::{ByteSize, Positive, Within};

/// What is copied, and to whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// Index of the service that gets the copies.
    pub service: usize,
    /// Share of the requests, in percent: 1 to 100.
    pub percent: u8,
    /// A copy ends after so long, answered or not (5 s).
    pub timeout: Duration,
    /// Bytes of a body that is copied (64 KiB); a request with more is not mirrored.
    pub max_body: usize,
    /// Copies at the same time, of each worker (100).
    pub max_in_flight: u32,
}

/// The most that `max_body` may be.
const LARGEST_BODY: u64 = 1024 * 1024;

table! {
    /// `mirror`
    pub(super) struct MirrorTable = "mirror" {
        "service" => service: At<String>,
        "percent" => percent: At<Within<1, 100>>,
        "timeout" => timeout: At<Positive>,
        "max_body" => max_body: At<ByteSize>,
        "max_in_flight" => max_in_flight: At<Within<1, 10000>>,
    }
    required ["service", "percent"]
    later []
    elsewhere {
        "url" => "name the service that gets the copies",
        "weight" => "the share is `percent`",
    }
}

/// Builds it. `known`: the index of a service, or a problem.
pub(super) fn build(
    raw: &MirrorTable,
    known: impl Fn(&At<String>, &mut Problems) -> Option<usize>,
    problems: &mut Problems,
) -> Option<Mirror> {
    if raw.service.is_none() {
        let help = "the name of a [[service]] that gets the copies";
        missing(&raw.present, "service", raw.span, help, problems);
    }
    if raw.percent.is_none() {
        let help = "the share of the requests that is copied, such as 10";
        missing(&raw.present, "percent", raw.span, help, problems);
    }
    if let Some(at) = &raw.max_body
        && at.value.0 > LARGEST_BODY
    {
        problems.error(
            at.span,
            "a copy has a body of at most 1MiB: it is kept until it sets out",
        );
    }
    let service = raw.service.as_ref().and_then(|name| known(name, problems));
    // All are within their bounds.
    Some(Mirror {
        service: service?,
        percent: raw.percent.as_ref()?.value.0 as u8,
        timeout: (raw.timeout.as_ref()).map_or(Duration::from_secs(5), |at| at.value.0),
        max_body: (raw.max_body.as_ref()).map_or(64 * 1024, |at| at.value.0 as usize),
        max_in_flight: (raw.max_in_flight.as_ref()).map_or(100, |at| at.value.0 as u32),
    })
}
