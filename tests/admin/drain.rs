//! Draining the whole instance by the API.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::site::Site;
use crate::support::client::Client;
use crate::support::server::Server;
use crate::support::wait_until;

fn ready(server: &Server) -> u16 {
    let probe = server.probe.expect("there is a probe listener");
    Client::plain(probe)
        .get("probe", "/readyz")
        .expect("it answers")
        .status()
}

#[test]
fn a_drain_is_unready_and_accepting_and_can_be_taken_back() {
    let site = Site::start();
    wait_until("it is ready", || ready(&site.server) == 200);
    for _ in 0..2 {
        let (status, drain) = site.post("/api/v1/drain", None);
        assert_eq!(
            (status, &drain["phase"], &drain["by"]),
            (200, &json!("announced"), &json!("api"))
        );
        assert_eq!(drain["accepting"], true);
    }
    assert_eq!(ready(&site.server), 503);
    assert_eq!(site.get("/api/v1/status")["unmet"], json!(["draining"]));
    let mut client = Client::plain(site.server.address());
    let answer = client.get("x", "/").expect("it accepts still");
    assert_eq!((answer.status(), answer.field("connection")), (200, None));
    let (status, drain) = site.post("/api/v1/undrain", None);
    assert_eq!(
        (status, &drain["phase"], &drain["since"]),
        (200, &json!("serving"), &json!(null))
    );
    assert_eq!(ready(&site.server), 200);
    assert_eq!(client.get("x", "/").expect("it serves").status(), 200);
    assert_eq!(site.post("/api/v1/undrain", None).0, 409);
}

#[test]
fn a_signal_after_a_drain_waits_only_for_what_is_left() {
    let site = Site::start();
    site.post("/api/v1/drain", None);
    let begun = Instant::now();
    // The configuration waits for 2 s.
    wait_until("it was announced for long", || {
        begun.elapsed() > Duration::from_millis(2100)
    });
    let Site {
        server,
        backends,
        folder,
        client,
    } = site;
    // A connection that is open has 2 s more.
    drop(client);
    let signalled = Instant::now();
    server.drain();
    server.drained();
    // Without a connection under way a worker ends at its next tick.
    assert!(
        signalled.elapsed() < Duration::from_millis(1500),
        "{:?}",
        signalled.elapsed()
    );
    drop((backends, folder));
}

#[test]
fn a_signal_cannot_be_taken_back() {
    let site = Site::start();
    site.post("/api/v1/drain", None);
    site.server.drain();
    wait_until("the signal has come", || {
        site.get("/api/v1/status")["drain"]["by"] == "signal"
    });
    assert_eq!(site.post("/api/v1/undrain", None).0, 409);
    assert_eq!(site.post("/api/v1/drain", None).0, 409);
    site.server.drained();
}
