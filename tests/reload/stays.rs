//! What a reload leaves alone: connections, schedules, cookies, tickets, tunnels, verdicts.

use std::net::SocketAddr;
use std::path::Path;

use crate::support::backend::{Backend, Step, nobody};
use crate::support::client::{self, Client};
use crate::support::{Gate, wait_until};
use crate::{Site, listener, service};

/// Something that differs, beside what is looked at.
fn with(first: &str, number: usize) -> String {
    format!(
        "{first}\n[defaults]\nheader_timeout = \"{}s\"\n",
        10 + number
    )
}

fn who(client: &mut Client, path: &str) -> String {
    let answer = client.get("x", path).expect("it answers");
    assert_eq!(answer.status(), 200);
    answer.field("x-backend").expect("it says").to_owned()
}

fn echoing(name: &str) -> Backend {
    let backend = Backend::start(name);
    backend.usually(vec![Step::Echo]);
    backend
}

/// A backend whose next request becomes a tunnel that says back what it hears.
fn tunnelling() -> Backend {
    let one = Backend::start("one");
    one.next(vec![
        Step::Request,
        Step::send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        ),
        Step::Mirror,
    ]);
    one
}

/// A tunnel to it.
fn tunnel(site: &Site) -> Client {
    let mut tunnel = Client::plain(site.server.address());
    tunnel
        .send("GET /one HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(tunnel.response().expect("it answers").status(), 101);
    tunnel
}

/// A service with these backends, by address and weight; `more` goes to it.
fn weighted(backends: &[(SocketAddr, u16)], more: &str) -> String {
    let written = backends.iter();
    let written = written.map(|(a, w)| format!("{{ address = \"{a}\", weight = {w} }}"));
    let written: Vec<_> = written.collect();
    format!(
        "workers = 1\n{}[[service]]\nname = \"web\"\ndiscover = {{ static = [{}] }}\n{more}\n\
         [[route]]\nservice = \"web\"\n",
        listener("front"),
        written.join(", ")
    )
}

#[test]
fn backends_keep_their_connections_and_shares_stay_exact() {
    let [one, two] = ["one", "two"].map(echoing);
    let first = weighted(&[(one.address, 3), (two.address, 1)], "");
    let mut site = Site::start(&first);
    let mut client = Client::plain(site.server.address());
    let mut counts = [0, 0];
    // After each pick a reload: a schedule that began anew would give them all to one.
    for number in 0..40 {
        counts[usize::from(who(&mut client, "/") == "two")] += 1;
        site.reload(&with(&first, number)).expect("it is right");
    }
    assert_eq!(counts, [30, 10]);
    assert_eq!((one.connections(), two.connections()), (1, 1));
}

#[test]
fn a_cookie_leads_to_the_same_backend() {
    let [one, two] = ["one", "two"].map(echoing);
    let backends = [(one.address, 1), (two.address, 1)];
    let first = weighted(&backends, "sticky = \"cookie\"");
    let mut site = Site::start(&first);
    let mut client = Client::plain(site.server.address());
    let answer = client.get("x", "/").expect("it answers");
    let cookie = answer.field("set-cookie").expect("there is one");
    let cookie = cookie.split(';').next().expect("it begins so").to_owned();
    let had = answer.field("x-backend").expect("it says").to_owned();
    // The same, and one whose backends are made anew.
    let bounded = weighted(&backends, "sticky = \"cookie\"\nmax_in_flight = 5");
    for text in [with(&first, 1), bounded] {
        site.reload(&text).expect("it is right");
        for _ in 0..6 {
            client.send(format!(
                "GET / HTTP/1.1\r\nHost: x\r\nCookie: {cookie}\r\n\r\n"
            ));
            let answer = client.response().expect("it answers");
            assert_eq!(answer.field("x-backend"), Some(&*had));
            assert_eq!(answer.field("set-cookie"), None);
        }
    }
}

#[test]
fn who_is_out_stays_out() {
    let one = echoing("one");
    let dead = nobody();
    let more = "health = { tcp = true, interval = \"50ms\", fall = 1, rise = 1 }";
    let first = weighted(&[(one.address, 1), (dead, 1)], more);
    let mut site = Site::start(&first);
    let up = format!("evenkeel_backend_up{{service=\"web\",backend=\"{dead}\"}}");
    let failures =
        format!("evenkeel_backend_check_failures_total{{service=\"web\",backend=\"{dead}\"}}");
    wait_until("it is down", || site.metric(&up) == Some(0.0));
    let before = site.metric(&failures).expect("it was checked");
    site.reload(&with(&first, 1)).expect("it is right");
    assert_eq!(site.metric(&up), Some(0.0));
    assert!(site.metric(&failures) >= Some(before), "it was counted on");
    // Another check takes over; without one nobody says that it is down.
    let slower = more.replace("50ms", "60ms");
    site.reload(&weighted(&[(one.address, 1), (dead, 1)], &slower))
        .expect("it is right");
    assert_eq!(site.metric(&up), Some(0.0));
    site.reload(&weighted(&[(one.address, 1), (dead, 1)], ""))
        .expect("it is right");
    assert_eq!(site.metric(&up), Some(1.0));
    site.reload(&first).expect("it is right");
    wait_until("it is checked again", || site.metric(&up) == Some(0.0));
}

/// A counter that falls, or a series that breaks off, hides what was found just before.
#[test]
fn what_checks_found_outlives_the_backend() {
    let one = echoing("one");
    let dead = nobody();
    let more = "health = { tcp = true, interval = \"50ms\", fall = 1, rise = 1 }";
    let with_dead = weighted(&[(one.address, 1), (dead, 1)], more);
    let without = weighted(&[(one.address, 1)], more);
    let mut site = Site::start(&with_dead);
    let labels = format!("{{service=\"web\",backend=\"{dead}\"}}");
    let failures = format!("evenkeel_backend_check_failures_total{labels}");
    wait_until("checks fail", || site.metric(&failures) >= Some(3.0));
    let ejections = format!(
        "evenkeel_backend_ejections_total{{service=\"web\",backend=\"{dead}\",reason=\"failures\"}}"
    );
    let mut before = site.metric(&failures).expect("it was checked");
    for _ in 0..3 {
        site.reload(&without).expect("it is right");
        let gone = site.metric(&format!("evenkeel_backend_up{labels}"));
        assert_eq!(gone, None, "it is gone");
        let after = site.metric(&failures).expect("what was counted is not");
        assert!(after >= before, "{after} < {before}");
        assert_eq!(site.metric(&ejections), Some(0.0));
        site.reload(&with_dead).expect("it is right");
        let again = site.metric(&failures).expect("it is back");
        assert!(again >= after, "{again} < {after}");
        wait_until("it is counted on", || site.metric(&failures) > Some(again));
        before = site.metric(&failures).expect("it was checked");
        // Its backends are made anew, its connections and checks are others.
        let anew = format!("{more}\nmax_in_flight = 5");
        site.reload(&weighted(&[(one.address, 1), (dead, 1)], &anew))
            .expect("it is right");
        let after = site.metric(&failures).expect("it is the same series");
        assert!(after >= before, "{after} < {before}");
        before = after;
    }
}

#[test]
fn a_tunnel_is_not_cut() {
    let one = tunnelling();
    let first = listener("front") + &service("one", one.address);
    let mut site = Site::start(&first);
    let mut tunnel = tunnel(&site);
    let mut echo = |text: &str| {
        tunnel.send(text);
        assert_eq!(
            tunnel.exactly(text.len()).expect("it is open"),
            text.as_bytes()
        );
    };
    echo("before");
    for number in 0..20 {
        site.reload(&with(&first, number)).expect("it is right");
        echo(&format!("number {number}"));
    }
    // Even when its route leads elsewhere and its backends are others.
    let other = echoing("other");
    site.reload(&(listener("front") + &service("one", other.address)))
        .expect("it is right");
    echo("after");
    let mut client = Client::plain(site.server.address());
    assert_eq!(who(&mut client, "/one"), "other");
    echo("and still");
}

#[test]
fn the_next_handshake_has_the_new_certificate_and_tickets_live_on() {
    let one = echoing("one");
    let mut site = Site::start(&(listener("front") + &service("one", one.address)));
    let old = site.folder.certificate("tls", &["localhost"]);
    let text = format!(
        "[[listener]]\nname = \"front\"\naddress = \"127.0.0.1:0\"\nprotocol = \"https\"\n\
         certificates = [{}]\n{}",
        old.entry(),
        service("one", one.address)
    );
    site.reload(&text).expect("it is right");
    let address = site.server.address();
    let trusting = |ca: &Path| client::tls_config(ca, rustls::DEFAULT_VERSIONS);
    let [first, stranger] = [(); 2].map(|()| trusting(&old.ca));
    let mut open = Client::tls(address, &first, "localhost").expect("it is trusted");
    assert_eq!(who(&mut open, "/one"), "one");
    let new = site.folder.certificate("tls", &["localhost"]);
    assert_eq!(new.cert, old.cert, "in the same files");
    assert!(site.server.reload().error.is_none());
    assert_eq!(who(&mut open, "/one"), "one", "who is there stays");
    let second = trusting(&new.ca);
    let mut client = Client::tls(address, &second, "localhost").expect("it is trusted");
    assert_eq!(who(&mut client, "/one"), "one");
    let refused = Client::tls(address, &stranger, "localhost");
    assert!(
        refused.is_err(),
        "the authority of before issued none of these"
    );
    let mut resumed = Client::tls(address, &first, "localhost").expect("by its ticket");
    assert_eq!(who(&mut resumed, "/one"), "one");
    let kind = resumed
        .session()
        .and_then(|session| session.handshake_kind());
    assert_eq!(kind, Some(rustls::HandshakeKind::Resumed));
}

#[test]
fn a_request_that_waits_ends_as_it_began() {
    let one = Backend::start("one");
    let gate = Gate::new();
    one.next(vec![Step::Request, Step::Wait(gate.clone()), Step::Echo]);
    let first = listener("front") + &service("one", one.address);
    let mut site = Site::start(&first);
    let mut client = Client::plain(site.server.address());
    client.send("GET /one HTTP/1.1\r\nHost: x\r\n\r\n");
    one.await_requests(1);
    let other = echoing("other");
    site.reload(&(listener("front") + &service("other", other.address)))
        .expect("it is right");
    gate.open();
    let answer = client.response().expect("it answers");
    assert_eq!(
        (answer.status(), answer.field("x-backend")),
        (200, Some("one"))
    );
    assert_eq!(
        answer.field("connection"),
        None,
        "its listener is still there"
    );
    assert_eq!(who(&mut client, "/other"), "other");
}

/// What was still to be picked for it when its service went.
#[test]
fn a_request_finds_the_backends_of_a_service_that_went_meanwhile() {
    let pair = |first: &Backend, second: &Backend| {
        format!(
            "{}[[service]]\nname = \"pair\"\ndiscover = {{ static = [{{ address = \"{}\" }}, \
             {{ address = \"{}\", priority = 10 }}] }}\n[[route]]\nservice = \"pair\"\n",
            listener("front"),
            first.address,
            second.address
        )
    };
    let guarded = |asked: &Backend, backend: &Backend| {
        format!(
            "{}[[service]]\nname = \"gate\"\ndiscover = {{ static = [\"{}\"] }}\n[[service]]\n\
             name = \"web\"\ndiscover = {{ static = [\"{}\"] }}\n[[route]]\nservice = \"web\"\n\
             auth = {{ service = \"gate\", path = \"/auth\" }}\n",
            listener("front"),
            asked.address,
            backend.address
        )
    };
    type Text<'a> = &'a dyn Fn(&Backend, &Backend) -> String;
    let rows: [(&str, Text<'_>, Vec<Step>); 2] = [
        ("it is tried again", &pair, vec![Step::Close]),
        ("it was asked about", &guarded, vec![Step::Echo]),
    ];
    for (rule, text, then) in rows {
        let [first, second, other] = ["first", "second", "other"].map(Backend::start);
        let gate = Gate::new();
        let mut steps = vec![Step::Request, Step::Wait(gate.clone())];
        steps.extend(then);
        first.next(steps);
        let mut site = Site::start(&text(&first, &second));
        let mut client = Client::plain(site.server.address());
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        first.await_requests(1);
        site.reload(&(listener("front") + &service("other", other.address)))
            .expect("it is right");
        gate.open();
        let answer = client.response().expect("it answers");
        assert_eq!(
            (answer.status(), answer.field("x-backend")),
            (200, Some("second")),
            "{rule}"
        );
    }
}

/// Nobody comes to the backends of a service that is gone, so those of its tunnels have their time.
#[test]
fn a_tunnel_of_a_service_that_is_gone_has_its_time() {
    let one = tunnelling();
    let times = "[drain]\nrequests = \"200ms\"\nstreams = \"200ms\"\n";
    let first = format!(
        "{times}{}{}",
        listener("front"),
        service("one", one.address)
    );
    let mut site = Site::start(&first);
    let mut tunnel = tunnel(&site);
    let other = echoing("other");
    let next = format!(
        "{times}{}{}",
        listener("front"),
        service("other", other.address)
    );
    site.reload(&next).expect("it is right");
    assert!(tunnel.rest().is_ok(), "it is cut");
}

/// Not only when the time is up that a drain gives requests.
#[test]
fn the_backends_of_a_service_that_is_gone_are_let_go_when_nobody_goes_on_by_it() {
    let [one, other] = ["one", "other"].map(echoing);
    let common = format!(
        "[drain]\nrequests = \"10m\"\n[defaults]\nbackend_keep_alive = \"5m\"\n{}{}",
        listener("front"),
        service("other", other.address)
    );
    let mut site = Site::start(&(common.clone() + &service("one", one.address)));
    let mut client = Client::plain(site.server.address());
    assert_eq!(who(&mut client, "/one"), "one");
    let idle = format!(
        "evenkeel_backend_connections{{service=\"one\",backend=\"{}\",state=\"idle\"}}",
        one.address
    );
    let kept = |site: &Site| {
        site.metric(&idle)
            .expect("it is there for some minutes more")
    };
    wait_until("it is kept", || kept(&site) == 1.0);
    site.reload(&common).expect("it is right");
    wait_until("nobody goes to it any more", || kept(&site) == 0.0);
    assert_eq!(who(&mut client, "/other"), "other");
}
