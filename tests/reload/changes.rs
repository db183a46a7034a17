//! What a reload changes, and that it changes all of it or nothing.

use std::net::TcpStream;

use crate::support::backend::{Backend, Step};
use crate::support::client::{Client, End};
use crate::support::{Gate, wait_until};
use crate::{Site, listener, service};

#[test]
fn a_connection_goes_on_with_other_routes() {
    let [one, two] = ["one", "two"].map(Backend::start);
    let first = listener("front") + &service("one", one.address);
    let mut site = Site::start(&first);
    let mut client = Client::plain(site.server.address());
    let mut ask = |path: &str| client.get("x", path).expect("it answers").status();
    assert_eq!((ask("/one"), ask("/two")), (200, 404));
    site.reload(&(first.clone() + &service("two", two.address)))
        .expect("it is right");
    assert_eq!((ask("/one"), ask("/two")), (200, 200));
    site.reload(&(listener("front") + &service("two", two.address)))
        .expect("it is right");
    assert_eq!((ask("/one"), ask("/two")), (404, 200));
    site.reload(&first).expect("it is right");
    assert_eq!((ask("/one"), ask("/two")), (200, 404));
    assert_eq!((one.requests(), two.requests()), (3, 2));
    assert_eq!(
        site.metric("evenkeel_config_reloads_total{result=\"ok\"}"),
        Some(3.0)
    );
    assert_eq!(site.metric("evenkeel_config_generation"), Some(4.0));
    let counted = "evenkeel_requests_total{service=\"one\",method=\"GET\",code=\"200\"}";
    assert_eq!(site.metric(counted), Some(3.0), "it was counted on");
}

#[test]
fn what_is_wrong_changes_nothing() {
    let [one, two] = ["one", "two"].map(Backend::start);
    for backend in [&one, &two] {
        backend.usually(vec![Step::Echo]);
    }
    let first = listener("front") + &service("one", one.address);
    let mut site = Site::start(&first);
    let address = site.server.address();
    let mut client = Client::plain(address);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    let taken = taken.local_addr().map(|a| (taken, a)).expect("it is bound");
    let other = service("one", two.address);
    let listen =
        |address: &str| format!("[[listener]]\nname = \"more\"\naddress = \"{address}\"\n");
    for (rule, text, said) in [
        ("no TOML", "[[listener".to_owned(), "evenkeel.toml"),
        (
            "an unknown key",
            format!("{other}worker = 2\n{first}"),
            "worker",
        ),
        ("a service twice", format!("{first}{other}"), "one"),
        (
            "an address that another program has",
            format!(
                "{}{other}{}protocol = \"http\"\n",
                listener("front"),
                listen(&taken.1.to_string())
            ),
            "cannot listen",
        ),
        (
            "a certificate that is not there",
            format!(
                "{}{other}{}protocol = \"https\"\ncertificates = [{{ cert = \"no.pem\", key = \"no.key\" }}]\n",
                listener("front"),
                listen("127.0.0.1:0")
            ),
            "no.pem",
        ),
    ] {
        let error = site.reload(&text).expect_err(rule);
        assert!(error.contains(said), "{rule}: {error}");
        let answer = client.get("x", "/one").expect("it answers");
        assert_eq!(
            (answer.status(), answer.field("x-backend")),
            (200, Some("one")),
            "{rule}"
        );
        assert_eq!(site.server.addresses, [address], "{rule}");
    }
    assert_eq!(one.connections(), 1, "not even its connection");
    assert_eq!(two.connections(), 0);
    assert_eq!(
        site.metric("evenkeel_config_reloads_total{result=\"failed\"}"),
        Some(5.0)
    );
    assert_eq!(
        site.metric("evenkeel_config_last_reload_successful"),
        Some(0.0)
    );
    assert_eq!(site.metric("evenkeel_config_generation"), Some(1.0));
    std::fs::remove_file(&site.file).expect("it is there");
    let gone = site
        .server
        .reload()
        .error
        .expect("there is nothing to read");
    assert!(gone.contains("evenkeel.toml"), "{gone}");
    site.reload(&(listener("front") + &other))
        .expect("it is right");
    let answer = client.get("x", "/one").expect("it answers");
    assert_eq!(answer.field("x-backend"), Some("two"));
    assert_eq!(
        site.metric("evenkeel_config_last_reload_successful"),
        Some(1.0)
    );
    drop(site.folder);
}

#[test]
fn listeners_come_and_go() {
    let one = Backend::start("one");
    let service = service("one", one.address);
    let mut site = Site::start(&(listener("stays") + &listener("goes") + &service));
    let [stays, goes] = site.server.addresses[..] else {
        panic!("there are two");
    };
    let mut staying = Client::plain(stays);
    let mut idle = Client::plain(goes);
    assert_eq!(idle.get("x", "/one").expect("it answers").status(), 200);
    assert_eq!(staying.get("x", "/one").expect("it answers").status(), 200);
    let gate = Gate::new();
    one.next(vec![Step::Request, Step::Wait(gate.clone()), Step::Echo]);
    let mut busy = Client::plain(goes);
    busy.send("GET /one HTTP/1.1\r\nHost: x\r\n\r\n");
    one.await_requests(3);

    site.reload(&(listener("comes") + &listener("stays") + &service))
        .expect("it is right");
    let [comes, still] = site.server.addresses[..] else {
        panic!("there are two");
    };
    assert_eq!(still, stays, "its socket was kept");
    wait_until("nobody listens there", || TcpStream::connect(goes).is_err());
    assert_eq!(
        Client::plain(comes)
            .get("x", "/one")
            .expect("it answers")
            .status(),
        200
    );
    assert_eq!(staying.get("x", "/one").expect("it answers").status(), 200);
    gate.open();
    let late = busy.response().expect("it is answered");
    assert_eq!(late.field("connection"), Some("close"));
    let (_, end) = idle.rest().expect("it ends");
    assert_eq!(end, End::Closed, "who was idle there is let go");
    wait_until("its connections are gone", || {
        site.metric("evenkeel_open_connections{side=\"downstream\",name=\"goes\"}") == Some(0.0)
    });
}
