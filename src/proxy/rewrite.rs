//! What becomes of a request's path, and where a redirect sends its client. Pure.

use crate::config::{PathChange, RouteRedirect, Scheme};
use crate::http::head::RequestHead;

/// Changes a normalised path. `matched`: bytes of the route's path, without its final slash, with
/// which it begins. What comes out is normalised too. The path `*` has nothing to be changed.
pub(super) fn path(path: &mut Vec<u8>, matched: usize, change: &PathChange) {
    if !path.starts_with(b"/") {
        return;
    }
    match change {
        PathChange::Whole(whole) => {
            path.clear();
            path.extend_from_slice(whole.as_bytes());
        }
        PathChange::Prefix(prefix) => {
            let mut taken = end_of(path, matched);
            if prefix.is_empty() {
                // `//host` at the beginning would be read as a host by whoever puts it into a URL.
                while path[taken..].starts_with(b"//") {
                    taken += 1;
                }
            }
            path.splice(..taken, prefix.bytes());
            if path.is_empty() {
                path.push(b'/');
            }
        }
    }
}

/// Where in a path the first `matched` bytes end that it has without empty segments.
fn end_of(path: &[u8], matched: usize) -> usize {
    let mut before = 0;
    let counted = path.iter().enumerate().filter(|&(_, &byte)| {
        let is_extra = byte == b'/' && before == b'/';
        before = byte;
        !is_extra
    });
    { counted }.nth(matched).map_or(path.len(), |(at, _)| at)
}

/// The value of `Location`; `None`: the request has no host, or no path, that could
/// be named. `scheme`: the one by
/// which the client came.
pub(super) fn location(
    to: &RouteRedirect,
    head: &RequestHead,
    matched: usize,
    scheme: Scheme,
) -> Option<Vec<u8>> {
    let mut location = Vec::new();
    if to.scheme.is_some() || to.host.is_some() || to.port.is_some() {
        let host = match &to.host {
            Some(host) => host,
            None => head.host.as_str(),
        };
        if host.is_empty() {
            return None;
        }
        let scheme = to.scheme.unwrap_or(scheme);
        let usual = match scheme {
            Scheme::Http => 80,
            Scheme::Https => 443,
        };
        let name = scheme.name();
        location.extend_from_slice(format!("{name}://{host}").as_bytes());
        if let Some(port) = to.port.filter(|port| *port != usual) {
            location.extend_from_slice(format!(":{port}").as_bytes());
        }
    }
    let mut path = head.path.clone();
    if let Some(change) = &to.path {
        self::path(&mut path, matched, change);
    }
    if path.starts_with(b"/") {
        location.extend_from_slice(&path);
        location.extend_from_slice(&head.query);
    }
    // `OPTIONS *` has no path that could be another.
    (!location.is_empty()).then_some(location)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).expect("ASCII")
    }

    #[test]
    fn paths() {
        let prefix = |text: &str| PathChange::Prefix(text.into());
        for (rule, before, matched, change, after) in [
            ("stripped", "/api/x", "/api", prefix(""), "/x"),
            ("nothing is left", "/api", "/api", prefix(""), "/"),
            ("a final slash is", "/api/", "/api", prefix(""), "/"),
            (
                "no host comes to the front",
                "/api//evil",
                "/api",
                prefix(""),
                "/evil",
            ),
            (
                "of however many slashes",
                "/api////x//y",
                "/api",
                prefix(""),
                "/x//y",
            ),
            (
                "an encoded slash is none",
                "/api/%2Fx",
                "/api",
                prefix(""),
                "/%2Fx",
            ),
            ("replaced", "/api/x", "/api", prefix("/v1"), "/v1/x"),
            ("all of it", "/api", "/api", prefix("/v1"), "/v1"),
            (
                "by something longer",
                "/a/b/",
                "/a",
                prefix("/b/c"),
                "/b/c/b/",
            ),
            ("put in front", "/x", "", prefix("/v1"), "/v1/x"),
            ("in front of the root", "/", "", prefix("/v1"), "/v1/"),
            (
                "empty segments stay",
                "/api//x",
                "/api",
                prefix("/v1"),
                "/v1//x",
            ),
            (
                "the whole",
                "/api/x",
                "/api",
                PathChange::Whole("/y".into()),
                "/y",
            ),
            (
                "empty segments in what was matched",
                "//a///b//c",
                "/a/b",
                prefix("/v1"),
                "/v1//c",
            ),
            ("they are stripped too", "///a//b", "/a/b", prefix(""), "/"),
            ("OPTIONS *", "*", "", prefix("/v1"), "*"),
            (
                "OPTIONS *, whole",
                "*",
                "",
                PathChange::Whole("/y".into()),
                "*",
            ),
        ] {
            let mut path = before.as_bytes().to_vec();
            self::path(&mut path, matched.len(), &change);
            assert_eq!(text(path), after, "{rule}");
        }
    }

    #[test]
    fn locations() {
        let head = RequestHead {
            host: "a.test".into(),
            authority: b"a.test:8080".to_vec(),
            port: Some(8080),
            path: b"/old/x".to_vec(),
            query: b"?q=1".to_vec(),
            ..RequestHead::default()
        };
        let nothing = RouteRedirect {
            status: 308,
            scheme: None,
            host: None,
            port: None,
            path: None,
        };
        let moved = Some(PathChange::Prefix("/new".into()));
        for (rule, to, location) in [
            (
                "only the path: whatever the client calls us",
                RouteRedirect {
                    path: moved.clone(),
                    ..nothing.clone()
                },
                "/new/x?q=1",
            ),
            (
                "another host, by the scheme of the request",
                RouteRedirect {
                    host: Some("b.test".into()),
                    ..nothing.clone()
                },
                "http://b.test/old/x?q=1",
            ),
            (
                "another scheme, at its own port",
                RouteRedirect {
                    scheme: Some(Scheme::Https),
                    ..nothing.clone()
                },
                "https://a.test/old/x?q=1",
            ),
            (
                "another port",
                RouteRedirect {
                    port: Some(8443),
                    ..nothing.clone()
                },
                "http://a.test:8443/old/x?q=1",
            ),
            (
                "all of it",
                RouteRedirect {
                    scheme: Some(Scheme::Https),
                    host: Some("[::1]".into()),
                    port: Some(443),
                    path: moved,
                    ..nothing.clone()
                },
                "https://[::1]/new/x?q=1",
            ),
        ] {
            let found = self::location(&to, &head, "/old".len(), Scheme::Http);
            assert_eq!(text(found.expect("there is a host")), location, "{rule}");
        }
        let all = RequestHead {
            path: b"*".to_vec(),
            ..RequestHead::default()
        };
        let within = RouteRedirect {
            path: Some(PathChange::Prefix("/new".into())),
            ..nothing.clone()
        };
        let found = self::location(&within, &all, 0, Scheme::Http);
        assert_eq!(found, None, "OPTIONS *");
        let nameless = RequestHead::default();
        let to = RouteRedirect {
            port: Some(1),
            ..nothing
        };
        assert_eq!(self::location(&to, &nameless, 0, Scheme::Http), None);
    }
}
