//! One row per rule.

use super::*;
use crate::config::{self, Target};

/// Builds a router of one listener per name, services `a` … `f`, and these routes.
fn router(routes: &str) -> (Router, Config) {
    let mut text = String::new();
    for name in ["outside", "inside"] {
        text += &format!(
            "[[listener]]\nname = \"{name}\"\naddress = \"127.0.0.1:0\"\nprotocol = \"http\"\n"
        );
    }
    for name in ["a", "b", "c", "d", "e", "f"] {
        text += &format!(
            "[[service]]\nname = \"{name}\"\ndiscover = {{ static = [\"127.0.0.1:1\"] }}\n"
        );
    }
    for route in routes.lines().map(str::trim).filter(|l| !l.is_empty()) {
        text += "[[route]]\n";
        text += &route.replace("; ", "\n");
        text += "\n";
    }
    let config = config::from_toml_str(&text).unwrap_or_else(|e| panic!("{e}"));
    (Router::new(&config), config)
}

/// The service that a route leads to.
pub(super) fn service_of<'c>(config: &'c Config, found: &RouteMatch) -> &'c str {
    let Target::Service(index) = config.routes[found.route].target else {
        panic!("these routes lead to services");
    };
    &config.services[index].name
}

fn fields(list: &[(&str, &str)]) -> Fields {
    let mut fields = Fields::default();
    for (name, value) in list {
        fields.push(name.as_bytes(), value.as_bytes());
    }
    fields
}

/// A GET. `path` may have a query.
fn request<'a>(listener: usize, host: &'a str, path: &'a str, fields: &'a Fields) -> Request<'a> {
    let (path, query) = path.split_at(path.find('?').unwrap_or(path.len()));
    Request {
        listener,
        method: b"GET",
        host,
        path: path.as_bytes(),
        query: query.as_bytes(),
        fields,
    }
}

/// The service that the request is routed to.
fn find<'c>(
    (router, config): &'c (Router, Config),
    listener: usize,
    host: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> Option<&'c str> {
    router
        .route(request(listener, host, path, &fields(headers)))
        .map(|found| service_of(config, found))
}

#[test]
fn hosts() {
    let router = router(
        r#"
        host = "shop.example.com"; service = "a"
        host = "*.example.com"; service = "b"
        host = "*.eu.example.com"; service = "c"
        host = "[::1]"; service = "e"
        host = "127.0.0.1"; service = "f"
        service = "d"
        "#,
    );
    for (rule, host, service) in [
        ("exact before wildcard", "shop.example.com", "a"),
        ("wildcard: one label", "www.example.com", "b"),
        ("wildcard: more labels", "a.b.c.example.com", "b"),
        ("longest wildcard first", "www.eu.example.com", "c"),
        (
            "the wildcard of the longer suffix needs its own label",
            "eu.example.com",
            "b",
        ),
        ("`*` is at least one label", "example.com", "d"),
        ("an empty label is none", ".example.com", "d"),
        ("no part of a label", "badexample.com", "d"),
        ("any", "other.org", "d"),
        ("no host (HTTP/1.0)", "", "d"),
        ("IPv6 address", "[::1]", "e"),
        ("IPv4 address", "127.0.0.1", "f"),
    ] {
        assert_eq!(
            find(&router, 0, host, "/", &[]),
            Some(service),
            "{rule}: {host}"
        );
    }
}

#[test]
fn paths() {
    let router = router(
        r#"
        path = "/api"; service = "a"
        path = "/api/v1/"; service = "b"
        path = "/a%2Fb"; service = "c"
        path = "/"; service = "d"
        "#,
    );
    for (rule, path, service) in [
        ("itself", "/api", "a"),
        ("below it", "/api/x", "a"),
        ("a final slash", "/api/", "a"),
        ("whole segments", "/apix", "d"),
        ("whole segments below", "/api/v1x", "a"),
        ("the longest", "/api/v1/x/y", "b"),
        ("a final slash in the route means nothing", "/api/v1", "b"),
        ("case counts", "/API", "d"),
        ("an encoded slash ends no segment", "/a%2Fb/c", "c"),
        (
            "as it stands: requests come without empty segments",
            "//api",
            "d",
        ),
        ("empty segments below", "/api//x", "a"),
        ("root", "/", "d"),
        ("OPTIONS *", "*", "d"),
    ] {
        assert_eq!(
            find(&router, 0, "h", path, &[]),
            Some(service),
            "{rule}: {path}"
        );
    }
}

#[test]
fn header_conditions() {
    let router = router(
        r#"
        path = "/x"; service = "a"
        path = "/x"; headers = { X-Canary = "1" }; service = "b"
        path = "/x"; headers = { x-canary = "1", x-user = "me" }; service = "c"
        path = "/x"; headers = { x-canary = "2" }; service = "d"
        path = "/x"; headers = { x-canary = "1, 2" }; service = "e"
        path = "/x/y"; headers = { x-canary = "1" }; service = "f"
        "#,
    );
    for (rule, path, headers, service) in [
        ("none given", "/x", &[][..], "a"),
        (
            "one met, whatever the case of the name",
            "/x",
            &[("x-CANARY", "1")],
            "b",
        ),
        (
            "more conditions first",
            "/x",
            &[("x-user", "me"), ("x-canary", "1")],
            "c",
        ),
        ("all of them", "/x", &[("x-user", "me")], "a"),
        ("the whole value", "/x", &[("x-canary", "11")], "a"),
        (
            "case of the value counts",
            "/x",
            &[("x-canary", "1"), ("x-user", "ME")],
            "b",
        ),
        ("another value", "/x", &[("x-canary", "2")], "d"),
        (
            "RFC 9110 §5.3: lines are joined",
            "/x",
            &[("x-canary", "1"), ("x-canary", "2")],
            "e",
        ),
        (
            "joined in order",
            "/x",
            &[("x-canary", "2"), ("x-canary", "1")],
            "a",
        ),
        (
            "a longer path goes before",
            "/x/y",
            &[("x-canary", "1"), ("x-user", "me")],
            "f",
        ),
        (
            "unmet: the shorter path takes it",
            "/x/y",
            &[("x-canary", "2")],
            "d",
        ),
    ] {
        assert_eq!(
            find(&router, 0, "h", path, headers),
            Some(service),
            "{rule}"
        );
    }
}

#[test]
fn what_does_not_match_falls_to_the_next_kind_of_host() {
    let router = router(
        r#"
        host = "shop.example.com"; path = "/a"; service = "a"
        host = "*.shop.example.com"; path = "/e"; service = "e"
        host = "*.example.com"; path = "/b"; service = "b"
        path = "/c"; service = "c"
        "#,
    );
    for (rule, host, path, service) in [
        ("exact", "shop.example.com", "/a", Some("a")),
        ("to the wildcard", "shop.example.com", "/b", Some("b")),
        ("to no host", "shop.example.com", "/c", Some("c")),
        (
            "from wildcard to wildcard",
            "x.shop.example.com",
            "/b",
            Some("b"),
        ),
        (
            "from wildcard to no host",
            "x.shop.example.com",
            "/c",
            Some("c"),
        ),
        ("nowhere", "shop.example.com", "/d", None),
        ("exact only", "other.example.com", "/a", None),
    ] {
        assert_eq!(find(&router, 0, host, path, &[]), service, "{rule}");
    }
}

#[test]
fn listeners() {
    let router = router(
        r#"
        listener = "inside"; path = "/admin"; service = "a"
        listener = ["outside", "inside"]; path = "/both"; service = "b"
        listener = "inside"; service = "c"
        listener = "outside"; service = "d"
        "#,
    );
    for (rule, listener, path, service) in [
        ("on it", 1, "/admin", "a"),
        ("not on it: the shorter path", 0, "/admin", "d"),
        ("one of two", 0, "/both", "b"),
        ("the other of two", 1, "/both", "b"),
        ("same host and path on another listener", 0, "/", "d"),
        ("same host and path on another listener", 1, "/", "c"),
    ] {
        assert_eq!(
            find(&router, listener, "h", path, &[]),
            Some(service),
            "{rule}"
        );
    }
}

#[test]
fn nothing_configured_matches_nothing() {
    let router = router("");
    assert_eq!(find(&router, 0, "h", "/", &[]), None);
    assert_eq!(find(&router, 0, "", "*", &[]), None);
}

#[test]
fn a_hostile_request_costs_no_more_than_the_longest_route() {
    let router = router(
        r#"
        host = "*.example.com"; path = "/a/b/c"; service = "a"
        service = "b"
        "#,
    );
    // Quadratic hashing of these would take minutes.
    let host = "a.".repeat(1 << 20) + "example.org";
    let path = "/a".repeat(1 << 20);
    assert_eq!(find(&router, 0, &host, &path, &[]), Some("b"));
}

#[test]
fn labels_name_what_a_route_matches() {
    let (router, _) = router(
        r#"
        name = "canary"; path = "/x"; service = "a"
        host = "*.Example.com."; path = "/y/"; headers = { X-A = "1" }; service = "b"
        "#,
    );
    let label = |host: &str, path: &str, headers: &[(&str, &str)]| {
        let found = router.route(request(0, host, path, &fields(headers)));
        found.map(|f| f.label.to_string())
    };
    assert_eq!(label("h", "/x", &[]).as_deref(), Some("canary"));
    assert_eq!(
        label("a.example.com", "/y", &[("x-a", "1")]).as_deref(),
        Some("*.example.com/y x-a=1"),
    );
}
