//! Finding a request's route among many.

use std::sync::Arc;

use divan::{Bencher, black_box};
use evenkeel::config::{self, Config, HostPattern};
use evenkeel::http::headers::Fields;
use evenkeel::router::{Request, Router};

const SIZES: [usize; 3] = [1, 100, 10_000];

/// A router with a route for each of these hosts and paths.
fn router(routes: impl Iterator<Item = (HostPattern, String)>) -> Router {
    let mut config: Config = config::from_toml_str(
        r#"
        [[listener]]
        address = "127.0.0.1:0"
        protocol = "http"
        [[service]]
        name = "web"
        discover = { static = ["127.0.0.1:1"] }
        [[route]]
        service = "web"
        path = "/"
        "#,
    )
    .expect("nothing is wrong with it");
    let example = config.routes.remove(0);
    for (host, path) in routes {
        let mut route = example.clone();
        route.label = Arc::from(path.as_str());
        (route.host, route.path) = (host, path.into());
        config.routes.push(route);
    }
    Router::new(&config)
}

fn by_host(n: usize) -> Router {
    router((0..n).map(|i| {
        let host = HostPattern::Exact(format!("shop{i}.example").into());
        (host, "/".to_owned())
    }))
}

fn by_wildcard(n: usize) -> Router {
    router((0..n).map(|i| {
        let host = HostPattern::Wildcard(format!("shop{i}.example").into());
        (host, "/".to_owned())
    }))
}

fn by_path(n: usize) -> Router {
    router((0..n).map(|i| (HostPattern::Any, format!("/api/v1/service{i}"))))
}

fn find(bencher: Bencher<'_, '_>, router: &Router, host: &str, path: &[u8], hits: bool) {
    let fields = Fields::default();
    let request = Request {
        listener: 0,
        method: b"GET",
        host,
        path,
        query: b"",
        fields: &fields,
    };
    assert_eq!(router.route(request).is_some(), hits);
    bencher.bench_local(|| {
        let found = router.route(black_box(request));
        found.is_some()
    });
}

#[divan::bench(args = SIZES)]
fn host(bencher: Bencher<'_, '_>, n: usize) {
    let host = format!("shop{}.example", n / 2);
    find(bencher, &by_host(n), &host, b"/items/4711", true);
}

#[divan::bench(args = SIZES)]
fn host_unknown(bencher: Bencher<'_, '_>, n: usize) {
    find(bencher, &by_host(n), "none.example", b"/items/4711", false);
}

#[divan::bench(args = SIZES)]
fn wildcard_host(bencher: Bencher<'_, '_>, n: usize) {
    let host = format!("a.b.shop{}.example", n / 2);
    find(bencher, &by_wildcard(n), &host, b"/items/4711", true);
}

#[divan::bench(args = SIZES)]
fn wildcard_host_unknown(bencher: Bencher<'_, '_>, n: usize) {
    let router = by_wildcard(n);
    find(bencher, &router, "a.b.none.example", b"/items/4711", false);
}

#[divan::bench(args = SIZES)]
fn path(bencher: Bencher<'_, '_>, n: usize) {
    let path = format!("/api/v1/service{}/items/4711", n / 2);
    find(bencher, &by_path(n), "shop.example", path.as_bytes(), true);
}

#[divan::bench(args = SIZES)]
fn path_unknown(bencher: Bencher<'_, '_>, n: usize) {
    let path = b"/api/v1/none/items/4711";
    find(bencher, &by_path(n), "shop.example", path, false);
}
