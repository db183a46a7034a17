//! `service` of a route: one, or several that share its requests by weight.

use super::build::{missing, number};
use super::diagnostics::{Problem, Problems};
use super::read::{At, Key, Read, table};
use super::redirect::RouteRedirect;
use super::scalar::Within;
use super::schema;
use super::source::Span;
use super::tree::{Node, Value};

/// Where a route leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// To a service, by its index in [`Config::services`](super::Config::services).
    Service(usize),
    /// To several, each its share. None is listed twice, and one at least has a weight.
    Split(Vec<Share>),
    /// Elsewhere, and the client is told so.
    Redirect(RouteRedirect),
}

/// One of several services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Index in [`Config::services`](super::Config::services).
    pub service: usize,
    /// It gets so many of the sum of all weights. 0: none.
    pub weight: u32,
}

impl Target {
    /// The services that it can lead to.
    pub fn services(&self) -> impl Iterator<Item = usize> {
        let (one, several) = match self {
            Target::Service(index) => (Some(*index), &[][..]),
            Target::Split(shares) => (None, &shares[..]),
            Target::Redirect(_) => (None, &[][..]),
        };
        one.into_iter()
            .chain(several.iter().map(|share| share.service))
    }
}

table! {
    /// One of several services.
    pub(super) struct ShareTable = "service" {
        "service" => service: At<String>,
        "weight" => weight: At<Within<0, 1_000_000>>,
    }
    required ["service", "weight"]
    later []
    elsewhere { "name" => "write it as service = [{ service = \"…\", weight = 90 }, …]", }
}

/// `service` of a route: a name, or a list of shares.
#[derive(Debug, Clone)]
pub(super) enum RawTarget {
    Name(At<String>),
    Shares(Vec<ShareTable>),
}

impl Read for RawTarget {
    const EXPECTS: &'static str = "a name, or a list of { service = \"…\", weight = 90 }";

    fn read(node: &Node, problems: &mut Problems) -> Option<Self> {
        if matches!(node.value, Value::List(_) | Value::Table(_)) {
            return Vec::<ShareTable>::read(node, problems).map(RawTarget::Shares);
        }
        At::<String>::read(node, problems).map(RawTarget::Name)
    }

    fn schema() -> serde_json::Value {
        schema::any(vec![At::<String>::schema(), Vec::<ShareTable>::schema()])
    }

    fn keys() -> &'static [Key] {
        ShareTable::keys()
    }
}

/// Builds the shares of several services. `known`: the index of one, or a problem.
pub(super) fn split(
    raw: &[ShareTable],
    span: Span,
    known: impl Fn(&At<String>, &mut Problems) -> Option<usize>,
    problems: &mut Problems,
) -> Option<Target> {
    if raw.is_empty() {
        problems.push(Problem::error(span, "this route leads to no service").help(
            "service = [{ service = \"web\", weight = 90 }, { service = \"next\", weight = 10 }]",
        ));
    }
    let mut shares: Vec<Share> = Vec::new();
    for entry in raw {
        let present = &entry.present;
        if entry.service.is_none() {
            let help = "the name of a [[service]]";
            missing(present, "service", entry.span, help, problems);
        }
        if entry.weight.is_none() {
            let help = "its part of the sum of all weights";
            missing(present, "weight", entry.span, help, problems);
        }
        let index = entry
            .service
            .as_ref()
            .and_then(|name| known(name, problems));
        let (Some(service), Some(weight)) = (index, number(&entry.weight)) else {
            continue;
        };
        if let (Some(name), true) = (&entry.service, shares.iter().any(|s| s.service == service)) {
            problems.error(name.span, format!("`{}` is listed twice", name.value));
        }
        shares.push(Share {
            service,
            weight: u32::try_from(weight).unwrap_or(u32::MAX),
        });
    }
    if shares.len() == raw.len() && !shares.is_empty() && shares.iter().all(|s| s.weight == 0) {
        problems.push(
            Problem::error(span, "all weights are 0: no request goes anywhere")
                .help("0 is for one that gets none for now"),
        );
    }
    Some(Target::Split(shares))
}
