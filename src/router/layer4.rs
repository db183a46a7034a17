//! What a client says before it speaks in secret, to a route: host and protocols of a ClientHello.
//!
//! Which route wins, first difference decides:
//! 1. an exact host before a wildcard (the longer suffix first) before no host;
//! 2. a route with `alpn` before one without, if the client offers one of its protocols. If several
//!    routes list one that it offers, the protocol that it names first decides.
//!
//! Every route that matches takes part: where no protocol of the exact host is offered, the
//! wildcard's routes are tried, and then those without a host. Two routes that could claim the same
//! connection are refused when the configuration is read. A listener that looks at nothing has one
//! route, which has no host. A lookup allocates nothing.

use super::{RouteMatch, Table};
use crate::config::{Config, HostPattern, Route};

/// The routes of each listener that passes connections on as they are.
#[derive(Debug, Default)]
pub(super) struct Layer4 {
    /// In the order of the configuration; those of other listeners are empty.
    listeners: Box<[Hosts]>,
}

#[derive(Debug, Default)]
struct Hosts {
    exact: Table<Box<str>, Offers>,
    wildcard: Table<Box<str>, Offers>,
    any: Offers,
}

/// The routes of one host pattern.
#[derive(Debug, Default)]
struct Offers {
    by_protocol: Table<Box<[u8]>, RouteMatch>,
    whatever: Option<RouteMatch>,
}

impl Layer4 {
    pub(super) fn new(config: &Config) -> Layer4 {
        let listeners = config.listeners.iter().enumerate();
        let tables = listeners.map(|(index, listener)| {
            let mut hosts = Hosts::default();
            if listener.protocol.is_layer4() {
                config
                    .layer4_routes(index)
                    .for_each(|(index, route)| hosts.insert(index, route));
            }
            hosts
        });
        Layer4 {
            listeners: tables.collect(),
        }
    }

    /// See [`Router::connection`](super::Router::connection).
    pub(super) fn route<'p>(
        &self,
        listener: usize,
        host: Option<&str>,
        protocols: impl Iterator<Item = &'p [u8]> + Clone,
    ) -> Option<&RouteMatch> {
        let hosts = &self.listeners[listener];
        let exact = host.and_then(|host| hosts.exact.get(host));
        let wildcards = host.into_iter().flat_map(suffixes);
        exact
            .into_iter()
            .chain(wildcards.filter_map(|suffix| hosts.wildcard.get(suffix)))
            .chain([&hosts.any])
            .find_map(|offers| offers.find(protocols.clone()))
    }
}

impl Hosts {
    fn insert(&mut self, index: usize, route: &Route) {
        let offers = match &route.host {
            HostPattern::Any => &mut self.any,
            HostPattern::Exact(host) => self.exact.entry(host.clone()).or_default(),
            HostPattern::Wildcard(suffix) => self.wildcard.entry(suffix.clone()).or_default(),
        };
        let found = RouteMatch {
            route: index,
            label: route.label.clone(),
        };
        for protocol in &route.alpn {
            let protocol = protocol.as_bytes().into();
            offers.by_protocol.insert(protocol, found.clone());
        }
        if route.alpn.is_empty() {
            offers.whatever = Some(found);
        }
    }
}

impl Offers {
    fn find<'p>(&self, mut protocols: impl Iterator<Item = &'p [u8]>) -> Option<&RouteMatch> {
        let listed = match self.by_protocol.is_empty() {
            true => None,
            false => protocols.find_map(|protocol| self.by_protocol.get(protocol)),
        };
        listed.or(self.whatever.as_ref())
    }
}

/// What is behind each dot of a host, longest first: `*` stands for at least one label. A host has
/// at most 253 bytes.
fn suffixes(host: &str) -> impl Iterator<Item = &str> {
    let dots = memchr::memchr_iter(b'.', host.as_bytes());
    dots.filter(|dot| *dot > 0).map(move |dot| &host[dot + 1..])
}

#[cfg(test)]
mod tests {
    use crate::config::from_toml_str;
    use crate::router::Router;
    use crate::router::tests::service_of;

    /// One listener of each kind, services `a` … `f`, and these routes.
    fn router(routes: &str) -> (Router, crate::config::Config) {
        let mut text = String::new();
        for (name, protocol) in [("web", "http"), ("names", "tls"), ("raw", "tcp")] {
            text += &format!(
                "[[listener]]\nname = \"{name}\"\naddress = \"127.0.0.1:0\"\nprotocol = \"{protocol}\"\n"
            );
        }
        for name in ["a", "b", "c", "d", "e", "f"] {
            text += &format!(
                "[[service]]\nname = \"{name}\"\ndiscover = {{ static = [\"127.0.0.1:1\"] }}\n"
            );
        }
        for route in routes.lines().map(str::trim).filter(|l| !l.is_empty()) {
            text += &format!("[[route]]\n{}\n", route.replace("; ", "\n"));
        }
        let config = from_toml_str(&text).unwrap_or_else(|e| panic!("{e}"));
        (Router::new(&config), config)
    }

    #[test]
    fn hosts_and_protocols() {
        let (router, config) = router(
            r#"
            listener = "names"; host = "shop.example.com"; service = "a"
            listener = "names"; host = "shop.example.com"; alpn = "h2"; service = "b"
            listener = "names"; host = "shop.example.com"; alpn = ["acme-tls/1", "x"]; service = "c"
            listener = "names"; host = "*.example.com"; service = "d"
            listener = "names"; host = "*.eu.example.com"; alpn = "h2"; service = "e"
            listener = "names"; alpn = "h2"; service = "f"
            listener = "raw"; service = "e"
            "#,
        );
        let (h2, h1) = (&b"h2"[..], &b"http/1.1"[..]);
        for (rule, host, offered, expected) in [
            ("exact", Some("shop.example.com"), &[][..], Some("a")),
            ("offered", Some("shop.example.com"), &[h1, h2], Some("b")),
            ("not listed", Some("shop.example.com"), &[h1], Some("a")),
            (
                "two that are listed: the client's first",
                Some("shop.example.com"),
                &[b"x", h2],
                Some("c"),
            ),
            ("wildcard", Some("x.example.com"), &[h2], Some("d")),
            ("several labels", Some("x.y.example.com"), &[], Some("d")),
            ("longer suffix", Some("x.eu.example.com"), &[h2], Some("e")),
            (
                "its protocol is not offered: the shorter one",
                Some("x.eu.example.com"),
                &[h1],
                Some("d"),
            ),
            ("not the bare domain", Some("example.com"), &[h1], None),
            ("any host", Some("example.com"), &[h2], Some("f")),
            ("no name", None, &[h2], Some("f")),
            ("no name, nothing offered", None, &[], None),
        ] {
            let found = router.connection(1, host, offered.iter().copied());
            let found = found.map(|found| service_of(&config, found));
            assert_eq!(found, expected, "{rule}");
        }
        let raw = router.connection(2, None, std::iter::empty());
        assert_eq!(raw.map(|found| service_of(&config, found)), Some("e"));
    }

    #[test]
    fn which_routes_a_listener_has() {
        let names: [&[u8]; 0] = [];
        for (rule, routes, tls, tcp) in [
            (
                "those that name none and ask for nothing more than it sees",
                "service = \"a\"\nhost = \"x.y\"; service = \"b\"\nhost = \"x.y\"; path = \"/p\"; service = \"c\"",
                Some("b"),
                Some("a"),
            ),
            (
                "only those that name it, if there is one",
                "service = \"a\"\nlistener = [\"raw\"]; service = \"b\"\nlistener = [\"names\"]; host = \"x.z\"; service = \"c\"",
                None,
                Some("b"),
            ),
        ] {
            let (router, config) = router(routes);
            let to = |listener, host| {
                let found = router.connection(listener, host, names.iter().copied());
                found.map(|found| service_of(&config, found).to_owned())
            };
            assert_eq!(to(1, Some("x.y")).as_deref(), tls, "{rule}");
            assert_eq!(to(2, None).as_deref(), tcp, "{rule}");
        }
    }
}
