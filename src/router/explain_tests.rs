use std::sync::Arc;

use proptest::prelude::{any, prop};
use proptest::sample::{select, subsequence};
use proptest::strategy::{BoxedStrategy, Strategy};
use proptest::{option, prop_assert, prop_assert_eq, proptest};

use super::*;
use crate::config::{Conditions, Target, Wanted, from_toml_str};
use crate::http::headers::Fields;
use crate::router::Router;

/// Listeners `a` and `b` of HTTP, `names` and `raw` of layer 4, and these routes.
fn config(routes: Vec<Route>) -> Config {
    let mut text =
        String::from("[[service]]\nname = \"s\"\ndiscover = { static = [\"127.0.0.1:1\"] }\n");
    for (name, protocol) in [
        ("a", "http"),
        ("b", "http"),
        ("names", "tls"),
        ("raw", "tcp"),
    ] {
        text += &format!(
            "[[listener]]\nname = \"{name}\"\naddress = \"127.0.0.1:0\"\nprotocol = \"{protocol}\"\n\
             [[route]]\nlistener = \"{name}\"\nservice = \"s\"\n"
        );
    }
    let mut config = from_toml_str(&text).unwrap_or_else(|e| panic!("{e}"));
    config.routes = routes;
    config
}

fn pattern() -> impl Strategy<Value = HostPattern> {
    select(vec![
        HostPattern::Any,
        HostPattern::Exact("a.b.test".into()),
        HostPattern::Exact("b.test".into()),
        HostPattern::Wildcard("b.test".into()),
        HostPattern::Wildcard("test".into()),
        HostPattern::Wildcard("a.b.test".into()),
    ])
}

const HOSTS: &[&str] = &[
    "",
    "test",
    "b.test",
    "a.b.test",
    "x.a.b.test",
    "xb.test",
    ".b.test",
    "[::1]",
];
const PATHS: &[&str] = &["/", "/a", "/a/b", "/a/b/c", "/ab"];
const ASKED: &[&str] = &[
    "/", "*", "/a", "/a/", "/a/b", "/a/b/c/d", "/ab", "//a", "/a//b", "/A",
];
const FIELDS: &[(&str, &str)] = &[("x", "1"), ("x", "2"), ("x", "1, 2"), ("y", "1")];
const METHODS: &[&str] = &["GET", "HEAD", "POST"];
const QUERIES: &[&str] = &["", "?", "?q=1", "?q=12", "?r=1&q", "?q=1%2c+2"];
const PROTOCOLS: &[&str] = &["h2", "http/1.1", "acme-tls/1"];

fn routes() -> impl Strategy<Value = Vec<Route>> {
    let methods = subsequence(METHODS, 0..=2);
    let wanted = select(vec![
        Wanted::Value("1".into()),
        Wanted::Value("1, 2".into()),
        Wanted::Prefix("1".into()),
        Wanted::Present,
        Wanted::Absent,
    ]);
    let named = |names: &'static [&'static str], wanted: BoxedStrategy<Wanted>| {
        let wishes = prop::collection::vec(wanted, names.len());
        (subsequence(names, 0..=names.len()), wishes).prop_map(|(names, wishes)| {
            let list = names.into_iter().zip(wishes);
            list.map(|(name, wish)| (Box::from(name), wish))
                .collect::<Vec<_>>()
        })
    };
    let headers = named(&["x", "y"], wanted.clone().boxed());
    let query = named(&["q"], wanted.boxed());
    let conditions = (methods, headers, query).prop_map(|(methods, headers, query)| Conditions {
        methods: methods.into_iter().map(Box::from).collect(),
        headers,
        query,
    });
    let alpn = option::weighted(0.2, subsequence(PROTOCOLS, 1..=2));
    let listeners = subsequence(vec![0, 1, 2, 3], 0..=2);
    let route = (listeners, pattern(), select(PATHS), conditions, alpn);
    let route = route.prop_map(|(listeners, host, path, conditions, alpn)| Route {
        label: Arc::from("made"),
        listeners,
        host,
        path: path.into(),
        conditions,
        access: None,
        rewrite: None,
        request_headers: None,
        response_headers: None,
        auth: None,
        mirror: None,
        alpn: alpn.into_iter().flatten().map(Box::from).collect(),
        target: Target::Service(0),
    });
    prop::collection::vec(route, 0..24)
}

/// Which route won, and that there is a winner if any matches.
fn winner(verdicts: &[Verdict]) -> Option<usize> {
    let wins: Vec<_> = (0..verdicts.len())
        .filter(|&index| verdicts[index] == Verdict::Wins)
        .collect();
    assert!(wins.len() <= 1, "{verdicts:?}");
    wins.first().copied()
}

/// Which route it is: labels are shared with the configuration, so that each can be told.
fn index(config: &Config, label: Option<&Arc<str>>) -> Option<usize> {
    let is = |route: &Route| label.is_some_and(|label| Arc::ptr_eq(&route.label, label));
    config.routes.iter().position(is)
}

/// Every route its own label.
fn told_apart(mut routes: Vec<Route>) -> Vec<Route> {
    for (number, route) in routes.iter_mut().enumerate() {
        route.label = Arc::from(format!("r{number}"));
    }
    routes
}

proptest! {
    /// Whatever the routes and the request: the winner named is the one that `route` finds.
    #[test]
    fn the_winner_is_the_routers(
        routes in routes(),
        requests in prop::collection::vec(
            (
                0usize..2,
                select(HOSTS),
                select(ASKED),
                subsequence(FIELDS, 0..=3),
                select(METHODS),
                select(QUERIES),
            ),
            1..30,
        ),
    ) {
        let config = config(told_apart(routes));
        let router = Router::new(&config);
        for (listener, host, path, sent, method, query) in requests {
            let mut fields = Fields::default();
            for (name, value) in sent {
                fields.push(name.as_bytes(), value.as_bytes());
            }
            let path = path.as_bytes();
            let (method, query) = (method.as_bytes(), query.as_bytes());
            let asked = Request { listener, method, host, path, query, fields: &fields };
            let found = router.route(asked);
            let verdicts = request(&config, asked);
            prop_assert_eq!(verdicts.len(), config.routes.len());
            let expected = index(&config, found.map(|found| &found.label));
            prop_assert_eq!(winner(&verdicts), expected, "{:?}", verdicts);
        }
    }

    /// The same for connections of layer 4.
    #[test]
    fn the_winner_is_the_routers_on_layer_4_too(
        routes in routes(),
        connections in prop::collection::vec(
            (2usize..4, option::of(select(HOSTS)), subsequence(PROTOCOLS, 0..=3), any::<bool>()),
            1..30,
        ),
    ) {
        // Two that claim the same connection are refused when a configuration is read.
        let mut kept: Vec<Route> = Vec::new();
        for mut route in routes {
            route.path = "/".into();
            route.conditions = Conditions::default();
            let claims = |other: &Route| {
                other.host == route.host
                    && (other.alpn.is_empty() == route.alpn.is_empty())
                    && (route.alpn.is_empty() || route.alpn.iter().any(|p| other.alpn.contains(p)))
            };
            if !kept.iter().any(claims) {
                kept.push(route);
            }
        }
        let config = config(told_apart(kept));
        let router = Router::new(&config);
        for (listener, host, mut offered, turned) in connections {
            if turned {
                offered.reverse();
            }
            let host = host.filter(|_| listener == 2);
            let offered: Vec<&[u8]> = offered.iter().map(|p| p.as_bytes()).collect();
            let offered = if listener == 2 { &offered[..] } else { &[] };
            let found = router.connection(listener, host, offered.iter().copied());
            let verdicts = connection(&config, listener, host, offered);
            let expected = index(&config, found.map(|found| &found.label));
            prop_assert_eq!(winner(&verdicts), expected, "{:?}", verdicts);
            prop_assert!(found.is_some() || !verdicts.contains(&Verdict::Wins));
        }
    }
}

#[test]
fn what_is_said_of_those_that_lost() {
    let text = r#"
        [[listener]]
        name = "a"
        address = "127.0.0.1:0"
        protocol = "http"
        [[listener]]
        name = "b"
        address = "127.0.0.1:0"
        protocol = "http"
        [[service]]
        name = "s"
        discover = { static = ["127.0.0.1:1"] }
    "#;
    let routes = [
        (
            r#"host = "shop.test"; path = "/api"; headers = { x = "1" }"#,
            Verdict::Wins,
        ),
        (
            r#"listener = "b"; host = "shop.test"; path = "/api/v1""#,
            Verdict::OtherListener,
        ),
        (r#"host = "other.test""#, Verdict::OtherHost),
        (r#"host = "shop.test"; path = "/ap""#, Verdict::OtherPath),
        (
            r#"host = "shop.test"; path = "/api/v1"; headers = { y = "1" }"#,
            Verdict::NoHeader("y".into()),
        ),
        (
            r#"host = "shop.test"; headers = { x = "2" }"#,
            Verdict::OtherHeader("x".into()),
        ),
        (
            r#"host = "shop.test"; path = "/api/v1"; methods = "POST""#,
            Verdict::OtherMethod,
        ),
        (
            r#"host = "*.test"; path = "/api/v1"; headers = { x = false }"#,
            Verdict::HasHeader("x".into()),
        ),
        (
            r#"host = "*.test"; path = "/api"; query = { p = "1" }"#,
            Verdict::NoParameter("p".into()),
        ),
        (
            r#"host = "*.test"; query = { q = "2" }"#,
            Verdict::OtherParameter("q".into()),
        ),
        (
            r#"host = "shop.test"; path = "/api"; query = { q = false }"#,
            Verdict::HasParameter("q".into()),
        ),
        (
            r#"host = "*.test"; path = "/api/v1""#,
            Verdict::LessExactHost,
        ),
        (r#"host = "shop.test""#, Verdict::ShorterPath),
        (
            r#"host = "shop.test"; path = "/api""#,
            Verdict::FewerConditions,
        ),
    ];
    let mut text = text.to_owned();
    for (route, _) in &routes {
        text += &format!(
            "[[route]]\nservice = \"s\"\n{}\n",
            route.replace("; ", "\n")
        );
    }
    let config = from_toml_str(&text).unwrap_or_else(|e| panic!("{e}"));
    let mut fields = Fields::default();
    fields.push(b"X", b"1");
    let asked = Request {
        listener: 0,
        method: b"GET",
        host: "shop.test",
        path: b"/api/v1",
        query: b"?q=1",
        fields: &fields,
    };
    let verdicts = request(&config, asked);
    for ((route, expected), verdict) in routes.iter().zip(&verdicts) {
        assert_eq!(verdict, expected, "{route}");
    }
}
