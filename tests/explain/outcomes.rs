//! What explain says becomes of a request is what becomes of it: each is asked about, and sent.

use serde_json::Value;

use crate::support::backend::Backend;
use crate::support::client::Client;
use crate::support::server::{Server, binary, output};

const LISTENERS: &str = r#"
    workers = 1
    [admin]
    address = "127.0.0.1:0"
    socket = "off"
    [http]
    reject_encoded_slash = true
    [[listener]]
    name = "front"
    address = "127.0.0.1:0"
    protocol = "http"
    [[listener]]
    name = "closed"
    address = "127.0.0.1:0"
    protocol = "http"
    deny = ["127.0.0.0/8"]
    [[listener]]
    name = "old"
    address = "127.0.0.1:0"
    protocol = "http"
    redirect = "https"
    [[route]]
    name = "open"
    host = "open.test"
    service = "web"
    [[route]]
    name = "office"
    host = "office.test"
    allow = ["192.0.2.0/24"]
    service = "web"
    [[route]]
    name = "shunned"
    host = "shunned.test"
    deny = ["127.0.0.1"]
    service = "web"
    [[route]]
    name = "asked"
    host = "asked.test"
    auth = { service = "web", path = "/auth" }
    service = "web"
    [[route]]
    name = "split"
    host = "split.test"
    service = [{ service = "web", weight = 9 }, { service = "canary", weight = 1 }]
    [[route]]
    name = "short"
    host = "short.test"
    service = "small"
"#;

/// What is asked about, what becomes of it, and what is said of its route.
type Row = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    u16,
    &'static str,
);

const ROWS: &[Row] = &[
    (
        "front",
        "open.test",
        "/",
        "forwarded",
        200,
        "no other matches",
    ),
    ("front", "none.test", "/", "refused", 404, ""),
    ("front", "open.test", "/a%2fb", "refused", 400, ""),
    (
        "front",
        "office.test",
        "/",
        "refused",
        403,
        "no other matches",
    ),
    (
        "front",
        "shunned.test",
        "/",
        "refused",
        403,
        "no other matches",
    ),
    (
        "front",
        "asked.test",
        "/",
        "forwarded",
        200,
        "; web is asked first whether",
    ),
    (
        "front",
        "split.test",
        "/",
        "forwarded",
        200,
        "; of its requests have web 9 of 10, canary 1 of 10",
    ),
    (
        "front",
        "moved301.test",
        "/",
        "redirected",
        301,
        "no other matches",
    ),
    (
        "front",
        "moved302.test",
        "/",
        "redirected",
        302,
        "no other matches",
    ),
    (
        "front",
        "moved303.test",
        "/",
        "redirected",
        303,
        "no other matches",
    ),
    (
        "front",
        "moved307.test",
        "/",
        "redirected",
        307,
        "no other matches",
    ),
    (
        "front",
        "moved308.test",
        "/",
        "redirected",
        308,
        "no other matches",
    ),
    (
        "front",
        "short.test",
        "/",
        "refused",
        413,
        "no other matches",
    ),
    ("closed", "open.test", "/", "refused", 403, ""),
    // What is refused for its path is refused before anybody is looked at.
    ("closed", "open.test", "/a%2fb", "refused", 400, ""),
    ("old", "open.test", "/", "redirected", 308, ""),
    ("old", "open.test", "/a%2fb", "refused", 400, ""),
    ("old", "", "/", "refused", 400, ""),
];

#[test]
fn what_is_said_of_a_request_is_what_becomes_of_it() {
    let backends = ["web", "canary"].map(Backend::start);
    let [web, canary] = backends.each_ref().map(|backend| backend.address);
    let mut toml = LISTENERS.to_owned();
    for status in [301, 302, 303, 307, 308] {
        toml += &format!(
            "[[route]]\nname = \"moved{status}\"\nhost = \"moved{status}.test\"\n\
             redirect = {{ host = \"new.test\", status = {status} }}\n"
        );
    }
    for (name, address, more) in [
        ("web", web, ""),
        ("canary", canary, ""),
        ("small", web, "max_body = 3"),
    ] {
        toml += &format!(
            "[[service]]\nname = \"{name}\"\ndiscover = {{ static = \"{address}\" }}\n{more}\n"
        );
    }
    hold(&toml, ROWS);
}

/// Where encoded slashes are let through.
#[test]
fn so_it_is_of_a_path_that_some_programs_take_for_a_guarded_one() {
    let web = Backend::start("web");
    let toml = format!(
        r#"
        workers = 1
        [admin]
        address = "127.0.0.1:0"
        socket = "off"
        [[listener]]
        name = "front"
        address = "127.0.0.1:0"
        protocol = "http"
        [[route]]
        service = "web"
        [[route]]
        name = "guarded"
        path = "/admin"
        deny = ["127.0.0.1"]
        service = "web"
        [[service]]
        name = "web"
        discover = {{ static = "{}" }}
        "#,
        web.address
    );
    let matched = "no other matches";
    hold(
        &toml,
        &[
            ("front", "a.test", "/a/..%2fadmin", "refused", 400, matched),
            (
                "front",
                "a.test",
                "/admin%2fa%5c..%5c..",
                "refused",
                400,
                matched,
            ),
            (
                "front",
                "a.test",
                "/admin/a%2fb",
                "refused",
                403,
                "its path is the longest",
            ),
            ("front", "a.test", "/a%2fb", "forwarded", 200, matched),
        ],
    );
}

fn hold(toml: &str, rows: &[Row]) {
    let server = Server::in_process(toml);
    let admin = server.admin.expect("there is a control listener");
    for (listener, host, path, kind, status, route) in rows {
        let row = format!("{listener} {host}{path}");
        let place = ["front", "closed", "old"]
            .iter()
            .position(|l| l == listener);
        let address = server.addresses[place.expect("it is one of them")];
        let mut client = Client::plain(address);
        client.send(format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 4\r\n\r\nbody"
        ));
        let answer = client.response().unwrap_or_else(|e| panic!("{row}: {e:?}"));
        assert_eq!(answer.status(), *status, "{row}");

        let mut command = binary();
        let url = format!("http://{host}{path}");
        command.args([
            "explain",
            &url,
            "--admin",
            &format!("http://{admin}"),
            "-o",
            "json",
        ]);
        command.args(["--listener", listener, "-H", "Content-Length: 4"]);
        let said = output(&mut command);
        let json: Value = serde_json::from_slice(&said.stdout)
            .unwrap_or_else(|e| panic!("{row}: {e}: {}", String::from_utf8_lossy(&said.stderr)));
        let own = (*kind != "forwarded").then_some(*status);
        assert_eq!(
            (&json["kind"], &json["status"]),
            (&(*kind).into(), &own.into()),
            "{row}: {json:#}"
        );
        let why = json["route"]["why"].as_str().unwrap_or_default();
        assert!(
            why.contains(route) && why.is_empty() == route.is_empty(),
            "{row}: {why}"
        );
        let reaches = matches!(*kind, "forwarded" | "redirected");
        assert_eq!(said.status.code(), Some(i32::from(!reaches)), "{row}");
    }
}
