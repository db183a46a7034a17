//! Who may ask what: `Host`, `Origin`, token. Pure.
//!
//! A page of some other site that a browser on this machine shows can send requests to loopback too,
//! and a name of its own can be made to lead there (DNS rebinding). So a request has to name a host
//! that is ours, and not to come from another origin; a change needs a token besides, as containers
//! of a pod share loopback. Over the Unix socket nothing is asked: its mode is the guard.

use std::net::IpAddr;

use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, ORIGIN};
use hyper::http::request::Parts;

use super::token::Token;

/// Guards one way in.
#[derive(Debug)]
pub enum Guard {
    /// The Unix socket.
    FileMode,
    /// TCP.
    Network {
        /// What changes need.
        token: Token,
        /// Only this machine gets here: reading needs no token.
        loopback: bool,
        /// Names by which it may be asked besides addresses, lower case.
        hosts: Vec<Box<str>>,
    },
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forbidden {
    /// It cannot be understood: no `Host`, or several.
    BadHost,
    /// `Host` is none of ours.
    Host,
    /// It comes from another origin.
    Origin,
    /// It needs a token.
    Token,
}

/// What a request wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wants {
    /// The page itself, in which nothing of this process is said.
    Page,
    /// To be told something.
    Read,
    /// To change something.
    Change,
}

/// Browsers say where a request comes from, even without `Origin`.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

impl Guard {
    /// May it? `local`: the address at which the client reached us, if it has one.
    pub fn admit(
        &self,
        request: &Parts,
        wants: Wants,
        local: Option<IpAddr>,
    ) -> Result<(), Forbidden> {
        let Guard::Network {
            token,
            loopback,
            hosts,
        } = self
        else {
            return Ok(());
        };
        let fields = &request.headers;
        let authority = authority(request)?;
        if !is_ours(host_of(authority), hosts, local) {
            return Err(Forbidden::Host);
        }
        if !is_same_origin(fields, authority, wants) {
            return Err(Forbidden::Origin);
        }
        let needs_token = match wants {
            Wants::Page => false,
            Wants::Read => !loopback,
            Wants::Change => true,
        };
        match needs_token && !bears(fields, token) {
            true => Err(Forbidden::Token),
            false => Ok(()),
        }
    }
}

/// The one `Host`, which is also the authority of the target where that has one.
fn authority(request: &Parts) -> Result<&str, Forbidden> {
    let mut hosts = request.headers.get_all(HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok());
    let (Some(host), None) = (host, hosts.next()) else {
        return Err(Forbidden::BadHost);
    };
    match request.uri.authority() {
        Some(target) if !target.as_str().eq_ignore_ascii_case(host) => Err(Forbidden::BadHost),
        _ => Ok(host),
    }
}

/// Without the port, and an address without its brackets.
fn host_of(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split_once(']').map_or("", |(host, _)| host);
    }
    authority
        .rsplit_once(':')
        .map_or(authority, |(host, _)| host)
}

fn is_ours(host: &str, hosts: &[Box<str>], local: Option<IpAddr>) -> bool {
    if let Ok(address) = host.parse::<IpAddr>() {
        let address = address.to_canonical();
        let listed = hosts.iter().any(|known| known.parse() == Ok(address));
        return address.is_loopback() || listed || local.map(|l| l.to_canonical()) == Some(address);
    }
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    host == "localhost" || hosts.iter().any(|known| **known == *host)
}

/// A request without `Origin` is no script's, or a simple one to its own origin.
fn is_same_origin(fields: &HeaderMap, authority: &str, wants: Wants) -> bool {
    if wants != Wants::Page
        && fields
            .get_all(FETCH_SITE)
            .iter()
            .any(|site| site != "same-origin" && site != "none")
    {
        return false;
    }
    let own = |origin: &str| {
        let rest = origin
            .strip_prefix("http://")
            .or_else(|| origin.strip_prefix("https://"));
        rest.is_some_and(|origin| origin.eq_ignore_ascii_case(authority))
    };
    let mut origins = fields.get_all(ORIGIN).iter();
    origins.all(|origin| origin.to_str().is_ok_and(own))
}

fn bears(fields: &HeaderMap, token: &Token) -> bool {
    let mut given = fields.get_all(AUTHORIZATION).iter();
    let (Some(given), None) = (given.next(), given.next()) else {
        return false;
    };
    match given.as_bytes().split_at_checked(BEARER.len()) {
        Some((scheme, rest)) => scheme.eq_ignore_ascii_case(BEARER) && token.is(rest),
        None => false,
    }
}

const BEARER: &[u8] = b"Bearer ";

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::Request;

    fn network(loopback: bool) -> Guard {
        Guard::Network {
            token: Token::new("0123456789abcdef".to_owned()),
            loopback,
            hosts: vec!["balancer.internal".into(), "192.0.2.7".into()],
        }
    }

    fn request(fields: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().uri("/api/v1/status");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn asked(loopback: bool, wants: Wants, fields: &[(&str, &str)]) -> Result<(), Forbidden> {
        let local = Some(IpAddr::from([10, 0, 0, 5]));
        network(loopback).admit(&request(fields), wants, local)
    }

    const RIGHT: (&str, &str) = ("authorization", "bearer 0123456789abcdef");

    #[test]
    fn host_is_one_of_ours() {
        for (host, allowed) in [
            ("localhost", Ok(())),
            ("LocalHost.:9901", Ok(())),
            ("127.0.0.1:9901", Ok(())),
            ("127.8.8.8", Ok(())),
            ("[::1]:9901", Ok(())),
            ("10.0.0.5:9901", Ok(())),
            ("[::ffff:10.0.0.5]:9901", Ok(())),
            ("balancer.internal:80", Ok(())),
            ("192.0.2.7", Ok(())),
            ("10.0.0.6", Err(Forbidden::Host)),
            ("evil.example:9901", Err(Forbidden::Host)),
            ("localhost.evil.example", Err(Forbidden::Host)),
            ("127.0.0.1.evil.example", Err(Forbidden::Host)),
            ("xlocalhost", Err(Forbidden::Host)),
            ("", Err(Forbidden::Host)),
            ("[::1", Err(Forbidden::Host)),
        ] {
            assert_eq!(
                asked(true, Wants::Read, &[("host", host)]),
                allowed,
                "{host}"
            );
        }
        assert_eq!(asked(true, Wants::Read, &[]), Err(Forbidden::BadHost));
        let two = [("host", "localhost"), ("host", "localhost")];
        assert_eq!(asked(true, Wants::Read, &two), Err(Forbidden::BadHost));
    }

    #[test]
    fn an_absolute_target_says_what_host_says() {
        let mut parts = request(&[("host", "localhost")]);
        parts.uri = "http://evil.example/api/v1/status".parse().unwrap();
        let admitted = network(true).admit(&parts, Wants::Read, None);
        assert_eq!(admitted, Err(Forbidden::BadHost));
    }

    #[test]
    fn origin_is_our_own() {
        let host = ("host", "localhost:9901");
        for (origin, allowed) in [
            ("http://localhost:9901", Ok(())),
            ("https://LOCALHOST:9901", Ok(())),
            ("http://localhost:8080", Err(Forbidden::Origin)),
            ("http://127.0.0.1:9901", Err(Forbidden::Origin)),
            ("http://evil.example", Err(Forbidden::Origin)),
            ("null", Err(Forbidden::Origin)),
        ] {
            for wants in [Wants::Page, Wants::Read, Wants::Change] {
                let fields = [host, ("origin", origin), RIGHT];
                assert_eq!(asked(true, wants, &fields), allowed, "{origin} {wants:?}");
            }
        }
        for (site, allowed) in [
            ("same-origin", Ok(())),
            ("none", Ok(())),
            ("same-site", Err(Forbidden::Origin)),
            ("cross-site", Err(Forbidden::Origin)),
        ] {
            let fields = [host, ("sec-fetch-site", site)];
            assert_eq!(asked(true, Wants::Read, &fields), allowed, "{site}");
            assert_eq!(
                asked(true, Wants::Page, &fields),
                Ok(()),
                "a link leads here"
            );
        }
    }

    #[test]
    fn a_change_needs_the_token_and_off_loopback_everything_but_the_page_does() {
        let host = ("host", "localhost");
        let wrong = ("authorization", "Bearer 0123456789abcdeF");
        let longer = ("authorization", "Bearer 0123456789abcdef0");
        let basic = ("authorization", "Basic 0123456789abcdef");
        let none = ("x", "y");
        for loopback in [true, false] {
            for wants in [Wants::Page, Wants::Read, Wants::Change] {
                let free = match wants {
                    Wants::Page => true,
                    Wants::Read => loopback,
                    Wants::Change => false,
                };
                let refused = if free { Ok(()) } else { Err(Forbidden::Token) };
                for field in [wrong, longer, basic, none] {
                    assert_eq!(asked(loopback, wants, &[host, field]), refused, "{field:?}");
                }
                assert_eq!(asked(loopback, wants, &[host, RIGHT]), Ok(()));
            }
        }
        let twice = asked(true, Wants::Change, &[host, RIGHT, RIGHT]);
        assert_eq!(twice, Err(Forbidden::Token));
    }

    #[test]
    fn over_the_socket_nothing_is_asked() {
        let admitted = Guard::FileMode.admit(&request(&[]), Wants::Change, None);
        assert_eq!(admitted, Ok(()));
    }
}
