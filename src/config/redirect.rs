//! `redirect`, `strip_prefix` and `rewrite` of a route: where its requests are sent instead, or by which
//! path they go on.

use super::build::number;
use super::diagnostics::{Problem, Problems};
use super::read::{At, Key, Read, choice, table};
use super::scalar::Within;
use super::schema;
use super::source::Span;
use super::tree::{Node, Value};
use super::{HostPattern, Listener, Protocol, names, raw, routes};

/// Clients are told to ask elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteRedirect {
    /// 301, 302, 303, 307 or 308 (default).
    pub status: u16,
    /// By which scheme; `None`: that of the request.
    pub scheme: Option<Scheme>,
    /// Of which host; `None`: that of the request.
    pub host: Option<Box<str>>,
    /// At which port; `None`: that of the scheme where scheme or host is given, or that of the request.
    pub port: Option<u16>,
    /// For which path; `None`: that of the request.
    pub path: Option<PathChange>,
}

/// A scheme of URLs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    /// As URLs have it.
    pub fn name(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }
}

/// What becomes of a request's path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathChange {
    /// This takes the place of the route's path. Without a final slash, so that `/` is empty.
    Prefix(Box<str>),
    /// This takes the place of all of it.
    Whole(Box<str>),
}

/// By which path requests go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewrite {
    /// What becomes of it.
    pub change: PathChange,
    /// The route's path is taken away, and the backend is told so.
    pub strips: bool,
}

choice! {
    Scheme = "\"http\" or \"https\"" {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
    }
    later []
}

table! {
    /// `redirect` of a route, written out.
    pub(super) struct RouteRedirectTable = "redirect" {
        "scheme" => scheme: At<Scheme>,
        "host" => host: At<String>,
        "port" => port: At<Within<1, 65535>>,
        "prefix" => prefix: At<String>,
        "path" => path: At<String>,
        "status" => status: At<Within<300, 399>>,
    }
    later []
    elsewhere {
        "to" => "say what is to be another: `scheme`, `host`, `port`, `prefix` or `path`",
        "url" => "say what is to be another: `scheme`, `host`, `port`, `prefix` or `path`",
    }
}

/// `redirect` of a route: a scheme, or a table.
#[derive(Debug, Clone)]
pub(super) struct RawRouteRedirect(RouteRedirectTable);

impl Read for RawRouteRedirect {
    const EXPECTS: &'static str = "\"https\" or a table";

    fn read(node: &Node, problems: &mut Problems) -> Option<Self> {
        if matches!(node.value, Value::Table(_)) {
            return RouteRedirectTable::read(node, problems).map(RawRouteRedirect);
        }
        At::<Scheme>::read(node, problems).map(|scheme| {
            RawRouteRedirect(RouteRedirectTable {
                span: scheme.span,
                scheme: Some(scheme),
                ..RouteRedirectTable::default()
            })
        })
    }

    fn schema() -> serde_json::Value {
        schema::any(vec![At::<Scheme>::schema(), RouteRedirectTable::schema()])
    }

    fn keys() -> &'static [Key] {
        RouteRedirectTable::keys()
    }
}

table! {
    /// `rewrite`
    pub(super) struct RewriteTable = "rewrite" {
        "prefix" => prefix: At<String>,
        "path" => path: At<String>,
    }
    later []
}

/// What a route asks for, as far as a redirect can lead back to it.
pub(super) struct Matched<'a> {
    pub host: &'a HostPattern,
    pub path: &'a str,
    /// The listeners that it may be on.
    pub listeners: Vec<&'a Listener>,
}

/// Builds the redirect of a route.
pub(super) fn redirect(
    raw: &RawRouteRedirect,
    matched: &Matched<'_>,
    problems: &mut Problems,
) -> Option<RouteRedirect> {
    let raw = &raw.0;
    let status = number(&raw.status).unwrap_or(308);
    if let (Some(at), false) = (&raw.status, [301, 302, 303, 307, 308].contains(&status)) {
        let title = format!("{status} is not one of 301, 302, 303, 307 and 308");
        problems.error(at.span, title);
    }
    let host = raw.host.as_ref().and_then(|at| host(at, problems));
    let redirect = RouteRedirect {
        status: u16::try_from(status).unwrap_or(308),
        scheme: raw.scheme.as_ref().map(|at| at.value),
        host,
        port: number(&raw.port).and_then(|p| u16::try_from(p).ok()),
        path: change(raw.prefix.as_ref(), raw.path.as_ref(), problems),
    };
    if raw.host.is_some() == redirect.host.is_some()
        && (raw.prefix.is_some() || raw.path.is_some()) == redirect.path.is_some()
        && redirect.leads_back(matched)
    {
        problems.push(
            Problem::error(raw.span, "this redirect leads back to the same route")
                .help("a client would follow it in a circle: another scheme, host, port or path"),
        );
    }
    Some(redirect)
}

impl RouteRedirect {
    /// Is there a request that it leads back to itself, as it was?
    fn leads_back(&self, matched: &Matched<'_>) -> bool {
        let same_scheme = match self.scheme {
            None => true,
            Some(scheme) => {
                let speaks = |l: &&Listener| match l.protocol {
                    Protocol::Http => scheme == Scheme::Http,
                    Protocol::Https(_) => scheme == Scheme::Https,
                    Protocol::Tcp | Protocol::Tls => false,
                };
                matched.listeners.iter().any(speaks)
            }
        };
        let same_host = match (&self.host, matched.host) {
            (None, _) | (Some(_), HostPattern::Any) => true,
            (Some(host), HostPattern::Exact(exact)) => host == exact,
            (Some(host), HostPattern::Wildcard(suffix)) => host
                .strip_suffix(&**suffix)
                .is_some_and(|front| front.ends_with('.') && front.len() > 1),
        };
        let same_path = match &self.path {
            None => true,
            Some(PathChange::Prefix(prefix)) => **prefix == *matched.path.trim_end_matches('/'),
            Some(PathChange::Whole(path)) => **path == *matched.path,
        };
        same_scheme && same_host && self.port.is_none() && same_path
    }
}

/// Builds what becomes of the path of requests that go on.
pub(super) fn rewrite(raw: &raw::Route, path: &str, problems: &mut Problems) -> Option<Rewrite> {
    let strip = raw.strip_prefix.as_ref().filter(|at| at.value);
    if let (Some(strip), Some(rewrite)) = (strip, &raw.rewrite) {
        problems.push(
            Problem::error(
                rewrite.span,
                "`rewrite` and `strip_prefix` exclude each other",
            )
            .and(strip.span, "")
            .help("`strip_prefix` is rewrite = { prefix = \"/\" }, and tells the backend"),
        );
        return None;
    }
    if let Some(strip) = strip {
        if path == "/" {
            problems.push(
                Problem::error(strip.span, "there is nothing to be stripped")
                    .help("it takes away the `path` of its route"),
            );
        }
        return Some(Rewrite {
            change: PathChange::Prefix("".into()),
            strips: true,
        });
    }
    let raw = raw.rewrite.as_ref()?;
    if raw.key("prefix").is_none() && raw.key("path").is_none() {
        problems.push(
            Problem::error(raw.span, "nothing says by which path requests go on")
                .help("`prefix` takes the place of the route's path, `path` that of the whole"),
        );
    }
    let change = change(raw.prefix.as_ref(), raw.path.as_ref(), problems)?;
    Some(Rewrite {
        change,
        strips: false,
    })
}

fn change(
    prefix: Option<&At<String>>,
    whole: Option<&At<String>>,
    problems: &mut Problems,
) -> Option<PathChange> {
    if let (Some(prefix), Some(whole)) = (prefix, whole) {
        problems.push(
            Problem::error(whole.span, "`path` and `prefix` exclude each other")
                .and(prefix.span, "")
                .help("`prefix` takes the place of the route's path, `path` that of the whole"),
        );
        return None;
    }
    let mut valid = |at: &At<String>| {
        if at.value.starts_with("//") {
            // A client would read it as a host.
            problems.error(at.span, "a path begins with one slash");
            return None;
        }
        routes::normal(at, problems).then(|| at.value.as_str().into())
    };
    match (prefix, whole) {
        (Some(at), _) => {
            let prefix: Box<str> = valid(at)?;
            Some(PathChange::Prefix(prefix.trim_end_matches('/').into()))
        }
        (_, Some(at)) => valid(at).map(PathChange::Whole),
        (None, None) => None,
    }
}

/// A host as it is written into a URL.
fn host(at: &At<String>, problems: &mut Problems) -> Option<Box<str>> {
    let host = at.value.to_ascii_lowercase();
    let bracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let why = match bracketed {
        Some(v6) if v6.parse::<std::net::Ipv6Addr>().is_ok() => return Some(host.into()),
        Some(_) => "this is not an IPv6 address".to_owned(),
        None if host.contains("://") || host.contains('/') => {
            "a host has neither scheme nor path".to_owned()
        }
        None if host.contains(':') => "a host has no port: `port` is a key of its own".to_owned(),
        None => match names::check(host.as_bytes()) {
            Ok(()) => return Some(host.into()),
            Err(why) => why.to_string(),
        },
    };
    problems.error(at.span, why);
    None
}

/// Says that a route cannot both redirect and pass on.
pub(super) fn refuse_both(raw: &raw::Route, redirect: Span, problems: &mut Problems) {
    for key in [
        "service",
        "strip_prefix",
        "rewrite",
        "request_headers",
        "auth",
        "mirror",
    ] {
        if let Some(span) = raw.key(key) {
            problems.push(
                Problem::error(span, format!("`{key}` has no effect beside `redirect`"))
                    .and(redirect, "here")
                    .help("the client is sent elsewhere, and nothing goes on from here"),
            );
        }
    }
}
