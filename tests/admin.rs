//! The control listener: what it says against `docs/openapi.json`, who it refuses, what it changes.

#[path = "admin/by_hand.rs"]
mod by_hand;
#[path = "admin/cli.rs"]
mod cli;
#[path = "admin/dns.rs"]
mod dns;
#[path = "admin/drain.rs"]
mod drain;
#[path = "admin/events.rs"]
mod events;
#[path = "admin/log_level.rs"]
mod log_level;
#[path = "admin/schema.rs"]
mod schema;
#[path = "admin/security.rs"]
mod security;
#[path = "admin/site.rs"]
mod site;
mod support;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use schema::Contract;
use site::{Site, TOKEN};
use support::client::Client;
use support::wait_until;

#[test]
fn every_route_is_described_and_the_reverse() {
    let routes: BTreeSet<_> = evenkeel::admin::api::routes()
        .map(|(method, path)| (method.as_str().to_owned(), path.to_owned()))
        .collect();
    assert_eq!(routes, Contract::read().operations());
}

/// Kinds of events are an open list, so the schema has them as examples.
#[test]
fn every_kind_of_event_is_described_and_the_reverse() {
    let kinds = evenkeel::events::journal::Kind::ALL.iter();
    let kinds: BTreeSet<_> = kinds.map(|kind| kind.name().to_owned()).collect();
    let contract = Contract::read();
    let described = contract.schema("Event")["properties"]["kind"]["examples"].clone();
    let described: BTreeSet<String> = serde_json::from_value(described).expect("names");
    assert_eq!(kinds, described);
}

#[test]
fn every_answer_is_as_it_is_described() {
    let site = Site::start();
    let contract = Contract::read();
    for _ in 0..20 {
        site.request();
    }
    wait_until("a sample was taken", || {
        let status = site.get("/api/v1/status");
        let sample = &status["history"]["samples"];
        sample.as_array().is_some_and(|samples| !samples.is_empty())
    });
    let id = site.id(0);
    let (drain, weight) = (format!("{id}/drain"), format!("{id}/weight"));
    let undrain = format!("{id}/undrain");
    for (method, path, body, route, status) in [
        ("GET", "/api/v1/status", None, "/api/v1/status", 200),
        ("GET", "/api/v1/services", None, "/api/v1/services", 200),
        (
            "GET",
            "/api/v1/services?service=web",
            None,
            "/api/v1/services",
            200,
        ),
        (
            "GET",
            "/api/v1/services?service=x",
            None,
            "/api/v1/services",
            404,
        ),
        ("GET", "/api/v1/backends", None, "/api/v1/backends", 200),
        (
            "GET",
            "/api/v1/backends?service=x",
            None,
            "/api/v1/backends",
            404,
        ),
        ("GET", "/api/v1/dns?name=x", None, "/api/v1/dns", 404),
        ("GET", "/api/v1/dns", None, "/api/v1/dns", 200),
        ("GET", "/api/v1/events", None, "/api/v1/events", 200),
        ("GET", "/api/v1/events?since=x", None, "/api/v1/events", 400),
        ("GET", "/api/v1/config", None, "/api/v1/config", 200),
        ("GET", "/api/v1/certs", None, "/api/v1/certs", 200),
        ("GET", "/api/v1/explain", None, "/api/v1/explain", 400),
        ("POST", "/api/v1/drain", None, "/api/v1/drain", 200),
        ("POST", "/api/v1/undrain", None, "/api/v1/undrain", 200),
        ("POST", "/api/v1/undrain", None, "/api/v1/undrain", 409),
        (
            "POST",
            "/api/v1/dns/refresh",
            None,
            "/api/v1/dns/refresh",
            200,
        ),
        (
            "POST",
            "/api/v1/dns/refresh",
            Some(r#"{"name":"x"}"#),
            "/api/v1/dns/refresh",
            404,
        ),
        (
            "POST",
            "/api/v1/dns/refresh",
            Some(r#"{"nam":"x"}"#),
            "/api/v1/dns/refresh",
            400,
        ),
        ("POST", "/api/v1/reload", None, "/api/v1/reload", 200),
        ("POST", &drain, None, "/api/v1/backends/{id}/drain", 200),
        ("POST", &undrain, None, "/api/v1/backends/{id}/undrain", 200),
        (
            "POST",
            &weight,
            Some(r#"{"weight":7}"#),
            "/api/v1/backends/{id}/weight",
            200,
        ),
        (
            "POST",
            &weight,
            Some(r#"{"weight":null}"#),
            "/api/v1/backends/{id}/weight",
            200,
        ),
        (
            "POST",
            &weight,
            Some(r#"{"weight":65536}"#),
            "/api/v1/backends/{id}/weight",
            400,
        ),
        (
            "POST",
            &weight,
            Some("{}"),
            "/api/v1/backends/{id}/weight",
            400,
        ),
        (
            "POST",
            "/api/v1/backends/web/10.0.0.1:1/drain",
            None,
            "/api/v1/backends/{id}/drain",
            404,
        ),
    ] {
        let answer = site.ask(method, path, &[("authorization", TOKEN)], body);
        assert_eq!(
            answer.status(),
            status,
            "{method} {path}: {}",
            answer.text()
        );
        assert_eq!(
            answer.field("content-type"),
            Some("application/json"),
            "{path}"
        );
        let value: Value = serde_json::from_slice(&answer.body).expect("it is JSON");
        contract.check(method, route, status, &value);
    }
    // After all of that there are events of several kinds.
    let events = site.get("/api/v1/events");
    contract.check("GET", "/api/v1/events", 200, &events);
    assert!(
        events["events"].as_array().expect("a list").len() > 5,
        "{events}"
    );
}

#[test]
fn shares_are_measured_and_weights_and_routes_are_shown() {
    let site = Site::start();
    wait_until("both backends have their measured shares", || {
        (0..30).for_each(|_| site.request());
        [0.75, 0.25]
            .into_iter()
            .enumerate()
            .all(|(backend, share)| {
                let shown = &site.backend(backend)["share"];
                let measured = shown["measured"].as_f64();
                shown["configured"] == share
                    && measured.is_some_and(|measured| (measured - share).abs() < 0.02)
            })
    });
    let service = &site.get("/api/v1/services")[0];
    assert_eq!(service["name"], "web");
    assert_eq!(
        service["routes"],
        json!(["shop", "api.example/ x-api-key=redacted"])
    );
    assert_eq!(
        (&service["healthy"], &service["total"]),
        (&json!(3), &json!(3))
    );
    let serving = |tier: usize| service["tiers"][tier]["serving"].as_bool();
    assert_eq!((serving(0), serving(1)), (Some(true), Some(false)));
    let status = site.get("/api/v1/status");
    assert_eq!(
        (&status["state"], &status["ready"]),
        (&json!("ready"), &json!(true))
    );
    assert!(
        status["sample"]["p50_ms"]
            .as_f64()
            .is_some_and(|ms| ms > 0.0),
        "{status}"
    );
}

#[test]
fn the_configuration_is_shown_without_its_secrets() {
    let site = Site::start();
    let config = site.get("/api/v1/config");
    assert_eq!(config["generation"], 1);
    assert!(
        config["file"]
            .as_str()
            .is_some_and(|file| file.ends_with("evenkeel.toml"))
    );
    assert_eq!(config["written"]["service"][0]["name"], "web");
    assert_eq!(
        config["written"]["route"][1]["headers"]["X-Api-Key"],
        "redacted"
    );
    assert!(!config.to_string().contains("s3cret"));
}

#[test]
fn a_backend_that_fails_is_shown_with_its_reason() {
    let mut site = Site::start();
    let gone = site.backends.remove(0).address.to_string();
    wait_until("it is passed over", || {
        site.request();
        let backends = site.get("/api/v1/backends");
        let mut backends = backends.as_array().expect("a list").iter();
        let backend = backends.find(|backend| backend["address"] == *gone);
        let backend = backend.expect("it is listed still");
        backend["state"] == "passed_over" && backend["reason"] == "connect"
    });
}

#[test]
fn the_page_is_served_and_nothing_beside_it() {
    let site = Site::start();
    let page = site.ask("GET", "/", &[], None);
    assert_eq!(page.status(), 200);
    assert_eq!(page.field("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(site.ask("GET", "/etc/passwd", &[], None).status(), 404);
    assert_eq!(site.ask("GET", "//", &[], None).status(), 404);
    let head = Client::plain(site.address())
        .send("HEAD /api/v1/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .rest();
    let (head, _) = head.expect("it answers");
    assert!(head.starts_with(b"HTTP/1.1 200 OK\r\n") && head.ends_with(b"\r\n\r\n"));
}
