//! `request_headers` and `response_headers` of routes and services: fields that are set, added and
//! removed on the way; `security_headers`. As written, and as they are.

use super::diagnostics::{Problem, Problems};
use super::read::{At, Pairs, choice, table};
use super::routes::is_token_byte;

/// What is done to the fields of a message. First `remove`, then `set`, then `add`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    /// Names of fields that do not go on.
    pub remove: Vec<Box<str>>,
    /// Fields that take the place of all of their names.
    pub set: Vec<(Box<str>, Template)>,
    /// Fields that come beside others of their names.
    pub add: Vec<(Box<str>, Template)>,
}

/// A value with placeholders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(pub Box<[Piece]>);

/// A piece of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// This.
    Text(Box<str>),
    /// `{client}`: the client's address.
    Client,
    /// `{host}`: the host that was asked for, lower case, without a port.
    Host,
    /// `{request_id}`: the request's identity.
    RequestId,
    /// `{scheme}`: by which the client came, `http` or `https`.
    Scheme,
}

table! {
    /// `request_headers` and `response_headers`
    pub(super) struct HeaderEditsTable = "a table of changes" {
        "set" => set: Pairs<At<String>>,
        "add" => add: Pairs<At<String>>,
        "remove" => remove: Vec<At<String>>,
    }
    later []
}

/// `security_headers`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SecurityHeaders {
    Off,
    Basic,
}

choice! {
    SecurityHeaders = "\"basic\" or \"off\"" {
        "basic" => SecurityHeaders::Basic,
        "off" => SecurityHeaders::Off,
    }
    later []
}

/// Whose fields are changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    Requests,
    Responses,
}

/// Builds the changes; `None`: nothing is changed.
pub(super) fn build(
    raw: Option<&HeaderEditsTable>,
    of: Of,
    problems: &mut Problems,
) -> Option<HeaderEdits> {
    let raw = raw?;
    let mut edits = HeaderEdits::default();
    for at in raw.remove.iter().flatten() {
        check_name(at, of, problems);
        let listed = edits
            .remove
            .iter()
            .any(|n| n.eq_ignore_ascii_case(&at.value));
        twice(at, listed, problems);
        edits.remove.push(at.value.as_str().into());
    }
    for (pairs, list) in [(&raw.set, &mut edits.set), (&raw.add, &mut edits.add)] {
        for (name, value) in pairs.iter().flat_map(|pairs| &pairs.0) {
            check_name(name, of, problems);
            let listed = list
                .iter()
                .any(|(n, _)| n.eq_ignore_ascii_case(&name.value));
            twice(name, listed, problems);
            if let Some(template) = template(value, problems) {
                list.push((name.value.as_str().into(), template));
            }
        }
    }
    (edits != HeaderEdits::default()).then_some(edits)
}

fn twice(name: &At<String>, listed: bool, problems: &mut Problems) {
    if listed {
        problems.error(name.span, format!("`{}` is listed twice", name.value));
    }
}

/// Reports what is no name, or the name of a field that is not for a configuration to change.
pub(super) fn check_name(at: &At<String>, of: Of, problems: &mut Problems) {
    let lower = at.value.to_ascii_lowercase();
    if lower.is_empty() || !lower.bytes().all(is_token_byte) {
        let title = format!("`{}` is not the name of a header", at.value);
        problems.error(at.span, title);
        return;
    }
    // What backends take for the same (see `allow_underscores`).
    let name = lower.replace('_', "-");
    let is = |list: &[&str]| list.contains(&name.as_str());
    let why = if is(HOP_BY_HOP) {
        "it belongs to one connection, and Evenkeel says it for each of its own"
    } else if is(FRAMING) {
        "it says where a message ends, and Evenkeel says that itself"
    } else if is(HANDSHAKE) {
        "it belongs to the handshake of a WebSocket"
    } else if of == Of::Requests && name == "host" {
        "the backend gets the host that the client asked for"
    } else if of == Of::Requests
        && (is(OURS) || OUR_PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
    {
        "Evenkeel sets it, and backends rely on that"
    } else {
        return;
    };
    let title = format!("`{}` cannot be changed", at.value);
    problems.push(Problem::error(at.span, title).help(why));
}

/// RFC 9110 §7.6.1.
const HOP_BY_HOP: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "upgrade",
    "http2-settings",
];

const FRAMING: &[&str] = &["content-length", "expect", "trailer", "transfer-encoding"];

const HANDSHAKE: &[&str] = &[
    "sec-websocket-accept",
    "sec-websocket-key",
    "sec-websocket-version",
];

const OURS: &[&str] = &[
    "forwarded",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-method",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "x-forwarded-uri",
    "x-request-id",
];

const OUR_PREFIXES: &[&str] = &["client-cert", "x-client-cert-", "x-evenkeel-"];

/// Takes a value apart. A brace that stands for itself is doubled.
fn template(at: &At<String>, problems: &mut Problems) -> Option<Template> {
    let value = at.value.as_str();
    if value.trim() != value {
        problems.error(at.span, "a header's value has no space around it");
        return None;
    }
    if value.bytes().any(|b| (b < b' ' && b != b'\t') || b == 0x7f) {
        problems.error(at.span, "a header's value has no control characters");
        return None;
    }
    let (mut pieces, mut text, mut rest) = (Vec::new(), String::new(), value);
    while let Some(brace) = rest.find(['{', '}']) {
        text.push_str(&rest[..brace]);
        rest = &rest[brace..];
        if let Some(behind) = rest.strip_prefix("{{") {
            (text, rest) = (text + "{", behind);
            continue;
        }
        if let Some(behind) = rest.strip_prefix("}}") {
            (text, rest) = (text + "}", behind);
            continue;
        }
        let end = rest.find('}').filter(|_| rest.starts_with('{'));
        let piece = end.and_then(|end| Some((placeholder(&rest[1..end])?, end)));
        let Some((piece, end)) = piece else {
            let found = end.map_or(&rest[..1], |end| &rest[..=end]);
            problems.push(
                Problem::error(at.span, format!("`{found}` stands for nothing")).help(
                    "there are {client}, {host}, {request_id} and {scheme}; a brace that stands \
                     for itself is doubled",
                ),
            );
            return None;
        };
        if !text.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut text).into()));
        }
        pieces.push(piece);
        rest = &rest[end + 1..];
    }
    text.push_str(rest);
    if !text.is_empty() {
        pieces.push(Piece::Text(text.into()));
    }
    Some(Template(pieces.into()))
}

fn placeholder(name: &str) -> Option<Piece> {
    Some(match name {
        "client" => Piece::Client,
        "host" => Piece::Host,
        "request_id" => Piece::RequestId,
        "scheme" => Piece::Scheme,
        _ => return None,
    })
}
