//! What a response says of where its request went, and who is told.

use crate::config;
use crate::support::backend::{Backend, Step, nobody};
use crate::support::client::Client;
use crate::support::server::Server;
use crate::support::wait_until;
use crate::support::wire::Message;

/// Asks as somebody who wants to know, with these fields besides.
fn ask(client: &mut Client, fields: &str) -> Message {
    client.send(format!(
        "GET /cart HTTP/1.1\r\nHost: shop.test\r\nX-Evenkeel-Explain: 1\r\n{fields}\r\n"
    ));
    client.response().expect("an answer")
}

fn said(response: &Message) -> String {
    let said = response.field("x-evenkeel-explain");
    said.unwrap_or_else(|| panic!("nothing is said: {response:?}"))
        .to_owned()
}

#[test]
fn only_who_is_listed_and_asks_is_told() {
    let backend = Backend::start("b");
    let at = backend.address;
    let server = Server::in_process(&config(&[(at, 7, 1)], "", ""));
    let response = ask(&mut Client::plain(server.address()), "");
    let expected = format!(
        "route=\"shop\", service=\"web\", tier=7, backend=\"{at}\", why=\"weighted\", attempts=1"
    );
    assert_eq!(said(&response), expected);
    let response = Client::plain(server.address()).get("shop.test", "/");
    let response = response.expect("an answer");
    assert_eq!(response.field("x-evenkeel-explain"), None, "not asked");
    let other = "127.0.0.2".parse().expect("it is an address");
    let response = ask(&mut Client::plain_from(other, server.address()), "");
    assert_eq!(response.status(), 200);
    assert_eq!(response.field("x-evenkeel-explain"), None, "not listed");
    for received in backend.take() {
        let request = received.whole.expect("it came whole");
        assert_eq!(
            request.field("x-evenkeel-explain"),
            None,
            "a backend is asked nothing"
        );
    }
}

#[test]
fn the_client_behind_a_trusted_proxy_is_the_one_that_counts() {
    let backend = Backend::start("b");
    let server = Server::in_process(&config(
        &[(backend.address, 0, 1)],
        "trusted_proxies = [\"127.0.0.0/24\"]",
        "",
    ));
    let mut client = Client::plain(server.address());
    let response = ask(&mut client, "X-Forwarded-For: 198.51.100.7\r\n");
    assert_eq!(
        response.field("x-evenkeel-explain"),
        None,
        "a stranger behind the proxy"
    );
    let response = ask(&mut client, "X-Forwarded-For: 127.0.0.1, 198.51.100.7\r\n");
    assert_eq!(
        response.field("x-evenkeel-explain"),
        None,
        "what a stranger wrote"
    );
    ask(&mut client, "")
        .field("x-evenkeel-explain")
        .expect("the proxy itself");
}

#[test]
fn what_a_backend_says_in_that_field_is_not_passed_on_as_ours() {
    let backend = Backend::start("b");
    let forged = "HTTP/1.1 200 OK\r\nX-Evenkeel-Explain: forged\r\nContent-Length: 0\r\n\r\n";
    backend.usually(vec![Step::Request, Step::send(forged)]);
    let server = Server::in_process(&config(&[(backend.address, 0, 1)], "", ""));
    let response = ask(&mut Client::plain(server.address()), "");
    assert!(said(&response).starts_with("route="), "{response:?}");
    assert!(!response.text().contains("forged"));
}

#[test]
fn an_attempt_that_failed_is_said() {
    let backend = Backend::start("b");
    let (gone, at) = (nobody(), backend.address);
    let server = Server::in_process(&config(&[(gone, 0, 1), (at, 5, 1)], "", ""));
    let mut client = Client::plain(server.address());
    let response = ask(&mut client, "");
    let expected = format!(
        "route=\"shop\", service=\"web\", tier=5, backend=\"{at}\", \
         why=\"weighted, the tiers before have nobody, again after connect_failed\", attempts=2"
    );
    assert_eq!(said(&response), expected);
    // Passed over now.
    let why = "why=\"weighted, the tiers before have nobody\", attempts=1";
    assert!(said(&ask(&mut client, "")).ends_with(why));
}

#[test]
fn a_cookie_and_a_key_are_said() {
    let backends = ["a", "b", "c"].map(Backend::start);
    let endpoints: Vec<_> = backends.iter().map(|b| (b.address, 0, 1)).collect();
    let more = "strategy = \"hash\"\nhash_by = \"header:X-Tenant\"\nsticky = \"cookie\"";
    let server = Server::in_process(&config(&endpoints, "", more));
    let mut client = Client::plain(server.address());
    let keyed = ask(&mut client, "X-Tenant: acme\r\n");
    assert!(
        said(&keyed).contains("why=\"hash of header X-Tenant\""),
        "{keyed:?}"
    );
    let unkeyed = ask(&mut client, "");
    assert!(
        said(&unkeyed).contains("why=\"weighted, without header X-Tenant\""),
        "{unkeyed:?}"
    );
    let cookie = unkeyed.field("set-cookie").expect("it is sticky");
    let cookie = cookie.split(';').next().expect("it has a value");
    let led = ask(
        &mut client,
        &format!("Cookie: {cookie}\r\nX-Tenant: acme\r\n"),
    );
    assert!(
        said(&led).contains("why=\"the request's cookie\""),
        "{led:?}"
    );
    let backend = |message: &Message| {
        let said = said(message);
        let (_, rest) = said.split_once("backend=").expect("there is one");
        rest.split(',').next().expect("it has a value").to_owned()
    };
    assert_eq!(backend(&led), backend(&unkeyed));
}

#[test]
fn spill_is_said() {
    let backends = ["a", "b", "standby"].map(Backend::start);
    let [a, b, standby] = backends.each_ref().map(|b| b.address);
    let server = Server::in_process(&config(
        &[(a, 0, 1), (b, 0, 1), (standby, 1, 1)],
        "",
        "spill = 1.0\nhealth = { http = \"/health\", interval = \"100ms\" }",
    ));
    // One of two is down: half of the requests are the standby's.
    backends[0].usually(vec![
        Step::Request,
        Step::send("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"),
    ]);
    let mut client = Client::plain(server.address());
    wait_until("the standby has its part", || {
        let said = said(&ask(&mut client, ""));
        let spilled = said.contains("spilled from the tier before");
        assert!(
            !spilled || said.contains(&format!("tier=1, backend=\"{standby}\"")),
            "{said}"
        );
        spilled
    });
}

#[test]
fn who_is_listed_learns_what_went_wrong() {
    let gone = nobody();
    let server = Server::in_process(&config(&[(gone, 0, 1)], "", ""));
    let mut client = Client::plain(server.address());
    let response = ask(&mut client, "");
    assert_eq!(response.status(), 503);
    let text = response.text();
    assert!(
        text.contains(&format!("service web, last backend {gone}, attempts 1")),
        "{text}"
    );
    assert!(
        said(&response).contains("failure=connect_failed, attempts=1"),
        "{response:?}"
    );
    let response = client.get("shop.test", "/").expect("an answer");
    assert!(response.text().contains(&gone.to_string()), "asked or not");
    assert_eq!(response.field("x-evenkeel-explain"), None);
    client.send("GET / HTTP/1.1\r\nHost: other.test\r\nX-Evenkeel-Explain: 1\r\n\r\n");
    let response = client.response().expect("an answer");
    assert_eq!(said(&response), "failure=no_route, attempts=0");
    let other = "127.0.0.2".parse().expect("it is an address");
    let response = ask(&mut Client::plain_from(other, server.address()), "");
    let text = response.text();
    assert!(text.contains("no backend can serve this now"), "{text}");
    assert!(!text.contains(&gone.to_string()), "{text}");
}
