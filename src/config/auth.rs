//! `auth` of a route: another service is asked whether a request may go on.

use std::time::Duration;

use super::build::missing;
use super::diagnostics::{Problem, Problems};
use super::header_edits::{Of, check_name};
use super::read::{At, table};
use super::routes::{is_token_byte, normal};
use super::scalar::Positive;

/// Who is asked, and what goes from one to the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    /// Index of the service that is asked.
    pub service: usize,
    /// By this path, normalised.
    pub path: Box<str>,
    /// The client's fields that it is told; `None`: all but those about a body.
    pub request_headers: Option<Vec<Box<str>>>,
    /// Its fields that the backend is told. The client's own of these names never go on.
    pub response_headers: Vec<Box<str>>,
    /// For the first byte of its answer (5 s).
    pub timeout: Duration,
}

table! {
    /// `auth`
    pub(super) struct AuthTable = "auth" {
        "service" => service: At<String>,
        "path" => path: At<String>,
        "request_headers" => request_headers: Vec<At<String>>,
        "response_headers" => response_headers: Vec<At<String>>,
        "timeout" => timeout: At<Positive>,
    }
    required ["service", "path"]
    later []
    elsewhere {
        "url" => "name its service, and the `path` by which it is asked",
        "address" => "it is a [[service]] like any other: name it",
    }
}

/// How long it may take unless said otherwise: whoever waits for it waits for two.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Builds it. `known`: the index of a service, or a problem.
pub(super) fn build(
    raw: &AuthTable,
    known: impl Fn(&At<String>, &mut Problems) -> Option<usize>,
    problems: &mut Problems,
) -> Option<Auth> {
    if raw.service.is_none() {
        let help = "the name of a [[service]] that says who may";
        missing(&raw.present, "service", raw.span, help, problems);
    }
    if raw.path.is_none() {
        let help = "by which it is asked, such as \"/auth\"";
        missing(&raw.present, "path", raw.span, help, problems);
    }
    let request_headers = raw.request_headers.as_ref().map(|list| {
        let names = list.iter().filter(|at| {
            let good = at.value.bytes().all(is_token_byte);
            if !good {
                let title = format!("`{}` is not the name of a header", at.value);
                problems.error(at.span, title);
            }
            good
        });
        names.map(|at| at.value.as_str().into()).collect()
    });
    let mut response_headers: Vec<Box<str>> = Vec::new();
    for at in raw.response_headers.iter().flatten() {
        check_name(at, Of::Requests, problems);
        if response_headers
            .iter()
            .any(|n| n.eq_ignore_ascii_case(&at.value))
        {
            problems.error(at.span, format!("`{}` is listed twice", at.value));
        }
        response_headers.push(at.value.as_str().into());
    }
    let service = raw.service.as_ref().and_then(|name| known(name, problems));
    let path = raw.path.as_ref().filter(|at| normal(at, problems));
    if let Some(at) = path.filter(|at| at.value.starts_with("//")) {
        problems.push(Problem::error(at.span, "a path begins with one slash"));
    }
    Some(Auth {
        service: service?,
        path: path?.value.as_str().into(),
        request_headers,
        response_headers,
        timeout: raw.timeout.as_ref().map_or(TIMEOUT, |at| at.value.0),
    })
}
