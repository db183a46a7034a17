//! Draining and weighing backends by hand.

use serde_json::json;

use crate::site::Site;
use crate::support::client::Client;
use crate::support::wait_until;

fn counts(site: &Site, requests: usize) -> [usize; 3] {
    let before: Vec<_> = site
        .backends
        .iter()
        .map(|backend| backend.requests())
        .collect();
    (0..requests).for_each(|_| site.request());
    [0, 1, 2].map(|n| site.backends[n].requests() - before[n])
}

/// The worker takes a snapshot up at its next pick.
fn settled(site: &Site, wanted: impl Fn([usize; 3]) -> bool) {
    wait_until("the schedule is as it was told", || wanted(counts(site, 8)));
}

/// Until what is new in a reload is warm, what it replaces still serves, and takes what is said of it.
#[test]
fn what_is_set_while_a_reload_warms_up_holds_after_it() {
    let site = Site::start();
    // It takes what is asked, and says nothing: the reload waits for as long as it ever does.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("loopback has ports");
    let dns = silent.local_addr().expect("it is bound");
    let file = site.folder.path().join("evenkeel.toml");
    let text = std::fs::read_to_string(&file).expect("it was written");
    let changed = text.replace("name = \"web\"", "name = \"web\"\nmax_in_flight = 9");
    let more = format!(
        "[[service]]\nname = \"later\"\ndns = {{ servers = [\"{dns}\"] }}\n\
         discover = {{ srv = \"_http._tcp.later.test.\" }}\n"
    );
    std::fs::write(&file, changed + &more).expect("the folder can be written");
    std::thread::scope(|scope| {
        let reload = scope.spawn(|| site.post("/api/v1/reload", None));
        // It asks for the new name: what it was told of the old services has been handed down.
        silent.recv(&mut [0; 512]).expect("it asks");
        let (status, _) = site.post(&format!("{}/drain", site.id(0)), None);
        assert_eq!(status, 200);
        assert!(!reload.is_finished(), "it waits for the name");
        let (status, answer) = reload.join().expect("it answers");
        assert_eq!(status, 200, "{answer}");
    });
    assert_eq!(
        site.get("/api/v1/status")["configuration"]["generation"],
        json!(2)
    );
    assert_eq!(counts(&site, 20), [0, 20, 0]);
}

#[test]
fn a_drained_backend_gets_nothing_and_the_last_of_a_tier_can_go_too() {
    let site = Site::start();
    let (status, answer) = site.post(&format!("{}/drain", site.id(0)), None);
    assert_eq!(
        (status, &answer["backend"]["state"]),
        (200, &json!("drained"))
    );
    assert_eq!(counts(&site, 20), [0, 20, 0]);
    site.post(&format!("{}/drain", site.id(1)), None);
    assert_eq!(counts(&site, 20), [0, 0, 20], "the standby serves");
    site.post(&format!("{}/drain", site.id(2)), None);
    let answer = Client::plain(site.server.address()).get("x", "/");
    assert_eq!(answer.expect("it answers").status(), 503);
    let backend = site.backend(0);
    assert_eq!(
        (&backend["drained"], &backend["reason"]),
        (&json!(true), &json!("by_hand"))
    );
    let service = &site.get("/api/v1/services")[0];
    assert_eq!(
        (&service["healthy"], &service["total"]),
        (&json!(0), &json!(3))
    );

    for backend in 0..3 {
        let (_, answer) = site.post(&format!("{}/undrain", site.id(backend)), None);
        assert_eq!(answer["backend"]["state"], "up");
    }
    settled(&site, |counts| counts == [6, 2, 0]);
}

#[test]
fn a_weight_by_hand_gives_its_exact_share_until_it_is_taken_back() {
    let site = Site::start();
    assert_eq!(counts(&site, 40), [30, 10, 0]);
    let weigh = |weight: &str| site.post(&format!("{}/weight", site.id(1)), Some(weight));
    let (_, answer) = weigh(r#"{"weight":9}"#);
    let expected = json!({ "srv": 1, "override": 9, "effective": 9 });
    assert_eq!(answer["backend"]["weight"], expected);
    // What was carried over is settled within a round.
    counts(&site, 12);
    assert_eq!(counts(&site, 40), [10, 30, 0]);
    let (_, answer) = weigh(r#"{"weight":null}"#);
    let expected = json!({ "srv": 1, "override": null, "effective": 1 });
    assert_eq!(answer["backend"]["weight"], expected);
    counts(&site, 12);
    assert_eq!(counts(&site, 40), [30, 10, 0]);
}

#[test]
fn what_was_set_by_hand_survives_reloads() {
    let mut site = Site::start();
    site.post(&format!("{}/drain", site.id(0)), None);
    site.post(&format!("{}/weight", site.id(1)), Some(r#"{"weight":9}"#));
    // Of a service that stays as it is, and of one that others of that name take the place of.
    let file = site.folder.path().join("evenkeel.toml");
    let text = std::fs::read_to_string(&file).expect("it is there");
    for change in [
        "discover = { static",
        "max_in_flight = 100\ndiscover = { static",
    ] {
        let changed = text.replace("discover = { static", change);
        std::fs::write(&file, changed).expect("the folder can be written");
        let reloaded = site.server.reload();
        assert_eq!(reloaded.error, None);
        assert_eq!(site.backend(0)["state"], "drained", "{change}");
        assert_eq!(site.backend(1)["weight"]["override"], 9, "{change}");
        assert_eq!(counts(&site, 20), [0, 20, 0], "{change}");
    }
    assert_eq!(site.get("/api/v1/status")["configuration"]["generation"], 3);
}

#[test]
fn a_cookie_leads_to_a_drained_backend_still() {
    let site = Site::with("[defaults]\nsticky = \"cookie\"\n");
    let mut client = Client::plain(site.server.address());
    let first = client.get("x", "/").expect("it answers");
    let cookie = first.field("set-cookie").expect("there is one");
    let cookie = cookie.split(';').next().unwrap_or_default().to_owned();
    let served = |site: &Site| -> Vec<_> { site.backends.iter().map(|b| b.requests()).collect() };
    let at = served(&site)
        .iter()
        .position(|&n| n == 1)
        .expect("one of them served");
    site.post(&format!("{}/drain", site.id(at)), None);
    for _ in 0..5 {
        client.send(format!(
            "GET / HTTP/1.1\r\nHost: x\r\nCookie: {cookie}\r\n\r\n"
        ));
        assert_eq!(client.response().expect("it answers").status(), 200);
        assert_eq!(client.get("x", "/").expect("it answers").status(), 200);
    }
    assert_eq!(
        served(&site)[at],
        6,
        "those with the cookie, and nobody else"
    );
}
