//! Where a request would go, asked of the running server: it is where the next one goes. And what is
//! kept of those that went.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::Value;

use crate::config;
use crate::support::backend::{Backend, Step, nobody};
use crate::support::client::Client;
use crate::support::server::{Folder, Server, binary, output};
use crate::support::wait_until;

/// With a control listener.
const CONTROL: &str = "[admin]\naddress = \"127.0.0.1:0\"\nsocket = \"off\"";

const ASKED: &str = "/api/v1/explain?url=http%3A%2F%2Fshop.test%2Fcart";

fn get(server: &Server, path: &str) -> (u16, Value) {
    let address = server.admin.expect("there is a control listener");
    let mut client = Client::plain(address);
    client.send(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n"));
    let answer = client.response().expect("an answer");
    let value = serde_json::from_slice(&answer.body).expect("it is JSON");
    (answer.status(), value)
}

fn explain(server: &Server, more: &str) -> Value {
    let (status, value) = get(server, &format!("{ASKED}{more}"));
    assert_eq!(status, 200, "{value:#}");
    value
}

/// The only worker's next.
fn next(explanation: &Value) -> &str {
    let next = explanation["next"].as_array().expect("there is one");
    assert_eq!(next.len(), 1, "{explanation:#}");
    next[0]["backend"]
        .as_str()
        .unwrap_or_else(|| panic!("nobody: {explanation:#}"))
}

/// A request, and the id of the backend that served it.
fn request(client: &mut Client, fields: &str) -> String {
    client.send(format!(
        "GET /cart HTTP/1.1\r\nHost: shop.test\r\nX-Evenkeel-Explain: 1\r\n{fields}\r\n"
    ));
    let response = client.response().expect("an answer");
    let said = response
        .field("x-evenkeel-explain")
        .expect("we are listed")
        .to_owned();
    let (_, rest) = said.split_once("backend=\"").expect("it is said");
    format!("web/{}", rest.split('"').next().expect("it has an end"))
}

fn three() -> ([Backend; 3], Vec<(SocketAddr, u16, u16)>) {
    let backends = ["a", "b", "c"].map(Backend::start);
    let endpoints = backends.iter().zip([5, 2, 1]);
    let endpoints = endpoints
        .map(|(b, weight)| (b.address, 0, weight))
        .collect();
    (backends, endpoints)
}

fn state(explanation: &Value, address: SocketAddr) -> &Value {
    let backends = explanation["backends"].as_array().expect("a list");
    let id = format!("web/{address}");
    let found = backends.iter().find(|backend| backend["id"] == *id);
    found.unwrap_or_else(|| panic!("{id} is not listed: {explanation:#}"))
}

#[test]
fn the_next_request_goes_where_it_was_said_and_asking_moves_nothing() {
    let (_backends, endpoints) = three();
    for strategy in ["weighted", "round_robin", "cycle", "least_connections"] {
        let service = format!("strategy = \"{strategy}\"");
        let server = Server::in_process(&config(&endpoints, CONTROL, &service));
        let mut client = Client::plain(server.address());
        let mut counts = BTreeMap::new();
        for turn in 0..8 {
            let explanation = explain(&server, "");
            for _ in 0..turn % 2 {
                assert_eq!(
                    explain(&server, "")["next"],
                    explanation["next"],
                    "asked again"
                );
            }
            let served = request(&mut client, "");
            assert_eq!(served, next(&explanation), "{strategy}: {explanation:#}");
            *counts.entry(served).or_insert(0) += 1;
        }
        if matches!(strategy, "weighted" | "cycle") {
            let expected = endpoints.iter().map(|(a, _, w)| (format!("web/{a}"), *w));
            assert_eq!(
                counts,
                expected.collect(),
                "{strategy}: asking costs nobody a turn"
            );
        }
    }
}

#[test]
fn where_keys_and_cookies_lead() {
    let (_backends, endpoints) = three();
    let service = "strategy = \"hash\"\nhash_by = \"header:X-Tenant\"\nsticky = \"cookie\"";
    let server = Server::in_process(&config(&endpoints, CONTROL, service));
    let mut client = Client::plain(server.address());
    for tenant in 0..12 {
        let explanation = explain(&server, &format!("&header=X-Tenant%3A%20{tenant}"));
        let served = request(&mut client, &format!("X-Tenant: {tenant}\r\n"));
        assert_eq!(served, next(&explanation));
        let [key] = &explanation["preferences"].as_array().expect("a list")[..] else {
            panic!("one key: {explanation:#}");
        };
        assert_eq!(key["leads_to"][0], *served);
    }
    client.send("GET /cart HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    let response = client.response().expect("an answer");
    let cookie = response
        .field("set-cookie")
        .expect("it is sticky")
        .split(';')
        .next();
    let cookie = cookie.expect("it has a value");
    let explanation = explain(&server, &format!("&header=Cookie:{cookie}"));
    let served = request(&mut client, &format!("Cookie: {cookie}\r\n"));
    assert_eq!(explanation["outcome"], format!("goes to {served}"));
    assert_eq!(explanation["preferences"][0]["leads_to"][0], *served);
    assert_eq!(explanation["tier"]["why"], "the cookie leads into it");
}

#[test]
fn tiers_that_fail_and_backends_that_are_out() {
    let backends = ["sick", "well", "standby"].map(Backend::start);
    let [sick, well, standby] = backends.each_ref().map(|b| b.address);
    let gone = nobody();
    let endpoints = [(gone, 0, 1), (sick, 0, 1), (well, 1, 1), (standby, 2, 1)];
    let service = "ejection = { failures = 3 }";
    let server = Server::in_process(&config(&endpoints, CONTROL, service));
    let mut client = Client::plain(server.address());
    backends[0].usually(vec![Step::Head, Step::Reset]);
    // Until both of the first tier are known to be out.
    let mut explanation = explain(&server, "");
    wait_until("the second tier serves", || {
        request(&mut client, "");
        explanation = explain(&server, "");
        explanation["tier"]["priority"] == 1
            && state(&explanation, gone)["state"] == "passed_over"
            && state(&explanation, sick)["state"] == "ejected"
    });
    assert_eq!(
        explanation["tier"]["why"],
        "those before it have nobody who can serve"
    );
    let why = |address| {
        state(&explanation, address)["why"]
            .as_str()
            .expect("text")
            .to_owned()
    };
    assert!(
        why(gone).starts_with("passed over for another "),
        "{}",
        why(gone)
    );
    assert!(
        why(sick).contains("too many attempts in a row failed"),
        "{}",
        why(sick)
    );
    assert_eq!(why(well), "it can be picked");
    assert_eq!(state(&explanation, gone)["pickable"], false);
    assert_eq!(next(&explanation), format!("web/{well}"));
    let tiers: Vec<_> = (explanation["tiers"].as_array().expect("a list").iter())
        .map(|tier| (tier["pickable"].as_u64(), tier["backends"].as_u64()))
        .collect();
    assert_eq!(
        tiers,
        [(Some(0), Some(2)), (Some(1), Some(1)), (Some(1), Some(1))]
    );
    assert_eq!(explanation["snapshot"]["number"], 1);
    assert!(
        explanation["snapshot"]["age_seconds"]
            .as_f64()
            .is_some_and(|age| age < 60.0)
    );
}

#[test]
fn what_gets_no_further_and_what_cannot_be_asked() {
    let (_backends, endpoints) = three();
    let server = Server::in_process(&config(&endpoints, CONTROL, ""));
    let ask = |query: &str| get(&server, &format!("/api/v1/explain?{query}"));
    let (status, lost) = ask("url=http://other.test/&client=192.0.2.7");
    assert_eq!(
        (status, &lost["outcome"]),
        (200, &"404: no route matches".into())
    );
    assert_eq!(lost["routes_lost"][0]["why"], "another host");
    assert_eq!(lost["request"]["client"], "192.0.2.7");
    for query in [
        "",
        "url=nonsense",
        "url=http://shop.test/&listener=none",
        "url=http://shop.test/&header=x",
    ] {
        let (status, value) = ask(query);
        assert_eq!(
            (status, &value["error"]["code"]),
            (400, &"bad_request".into()),
            "{query}"
        );
    }
}

#[test]
fn a_few_requests_are_kept_and_say_why() {
    let backend = Backend::start("b");
    let (gone, at) = (nobody(), backend.address);
    let server = Server::in_process(&config(&[(gone, 0, 1), (at, 5, 1)], CONTROL, ""));
    let mut client = Client::plain(server.address());
    let samples = || {
        let (status, value) = get(&server, "/api/v1/explain/samples");
        assert_eq!(status, 200);
        value["samples"].as_array().expect("a list").clone()
    };
    for n in 0..20 {
        client
            .get("shop.test", &format!("/cart/{n}?secret=1"))
            .expect("an answer");
    }
    let kept = samples();
    assert!((1..=3).contains(&kept.len()), "one a second: {kept:#?}");
    let first = kept.last().expect("the first is kept");
    assert_eq!(first["path"], "/cart/0", "without the query");
    assert_eq!(
        (&first["status"], &first["attempts"]),
        (&200.into(), &2.into())
    );
    assert_eq!(first["backend"], format!("web/{at}"));
    let why: Vec<_> = first["why"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|l| l.as_str())
        .collect();
    let turn = format!("{at}: weighted, the tiers before have nobody, again after connect_failed");
    let expected = [
        "route shop leads to service web",
        "tier 5: those before it have nobody who can serve",
        &turn,
    ];
    assert_eq!(why, expected.map(Some));
    wait_until("another one is kept in another second", || {
        client.get("shop.test", "/later").expect("an answer");
        samples().iter().any(|sample| sample["path"] == "/later")
    });
    assert_eq!(samples()[0]["path"], "/later", "the latest first");
}

#[test]
fn the_command_prints_it_for_people_and_programs() {
    let (_backends, endpoints) = three();
    let toml = config(&endpoints, CONTROL, "strategy = \"random\"");
    let server = Server::in_process(&toml);
    let admin = format!(
        "http://{}",
        server.admin.expect("there is a control listener")
    );
    let explain = |more: &[&str]| {
        let mut command = binary();
        command.arg("explain").args(more);
        let output = output(&mut command);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr),
        )
    };
    let asked = ["http://shop.test/cart", "--admin", &admin];
    let (code, text, _) = explain(&asked);
    assert_eq!(code, Some(0), "{text}");
    for line in [
        "GET http://shop.test/cart",
        "          goes to a backend of tier 0 by chance",
        "route     shop: no other matches",
        "next      worker 0: by chance",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} in:\n{text}");
    }
    assert!(text.contains("62.5 %"), "five of eight:\n{text}");
    assert!(
        text.lines().all(|line| line.chars().count() <= 100),
        "{text}"
    );

    let (code, json, _) = explain(&[&asked[..], &["-o", "json"]].concat());
    let json: Value = serde_json::from_str(&json).expect("it is JSON");
    assert_eq!((code, &json["route"]["label"]), (Some(0), &"shop".into()));

    let (code, text, _) = explain(&["http://other.test/", "--admin", &admin, "-X", "POST"]);
    assert_eq!(code, Some(1));
    assert!(text.contains("404: no route matches"), "{text}");
    let (code, _, error) = explain(&["other.test", "--admin", &admin]);
    assert_eq!(code, Some(1));
    assert!(error.contains("a URL has a scheme"), "{error}");

    let folder = Folder::new();
    let file = folder.write("evenkeel.toml", &toml);
    let file = file.to_str().expect("it is text");
    let (code, text, error) = explain(&["http://shop.test/cart", "--offline", "-c", file]);
    assert_eq!(code, Some(0), "{error}");
    assert!(
        text.contains("goes to a backend of tier 0 by chance"),
        "{text}"
    );
}
