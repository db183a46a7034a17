//! What is said of names in DNS.

use hickory_proto::rr::RecordType;
use serde_json::Value;

#[path = "../support/dns.rs"]
mod server;

use crate::schema::Contract;
use crate::site::{TOKEN, ask};
use crate::support::server::{Folder, Server};
use crate::support::wait_until;
use server::{DnsServer, srv_reply};

const NAME: &str = "_http._tcp.web.test";

#[test]
fn each_change_is_kept_with_the_answer_that_made_it() {
    let runtime = tokio::runtime::Runtime::new().expect("there is a runtime");
    let dns = runtime.block_on(DnsServer::start());
    let set = |ttl, members: &[(u16, u16, u16, &str, &[&str])]| {
        dns.on(NAME, RecordType::SRV, srv_reply(NAME, ttl, members));
    };
    let (one, two) = (&["127.0.0.1"][..], &["127.0.0.2"][..]);
    set(
        60,
        &[
            (0, 10, 8001, "one.test", one),
            (0, 10, 8002, "two.test", two),
        ],
    );
    let folder = Folder::new();
    folder.write("token", TOKEN.strip_prefix("Bearer ").expect("it has one"));
    let toml = format!(
        "[[listener]]\naddress = \"127.0.0.1:0\"\nprotocol = \"http\"\n\
         [[service]]\nname = \"web\"\ndiscover = {{ srv = \"{NAME}\" }}\n\
         [[route]]\nservice = \"web\"\n\
         [dns]\nservers = [\"{}\"]\nmax_ttl = \"1m\"\nabsent_after = 2\n\
         [admin]\naddress = \"127.0.0.1:0\"\nsocket = \"off\"\ntoken_file = \"{}/token\"\n",
        dns.address(),
        folder.path().display(),
    );
    let server = Server::in_process(&toml);
    let address = server.admin.expect("it listens");
    let get = |path: &str| -> Value {
        let answer = ask(address, "GET", path, &[], None);
        assert_eq!(answer.status(), 200, "{path}");
        let value = serde_json::from_slice(&answer.body).expect("it is JSON");
        Contract::read().check("GET", path.split('?').next().unwrap_or(path), 200, &value);
        value
    };
    let name = || get(&format!("/api/v1/dns?name={NAME}"))[0].clone();
    let refresh = || {
        let body = format!("{{\"name\":\"{NAME}\"}}");
        let fields = [("authorization", TOKEN)];
        let answer = ask(address, "POST", "/api/v1/dns/refresh", &fields, Some(&body));
        assert_eq!(answer.status(), 200, "{}", answer.text());
    };
    wait_until("the first answer is there", || name()["endpoints"] == 2);
    let first = name();
    assert_eq!(first["kind"], "srv");
    assert_eq!(first["services"][0], "web");
    assert_eq!(first["server"], dns.address().to_string());
    assert_eq!(first["ttl_seconds"], 60.0);
    assert!(
        first["ttl_left_seconds"]
            .as_f64()
            .is_some_and(|left| (50.0..=60.0).contains(&left))
    );
    let joined = &first["journal"][0];
    assert_eq!(
        (&joined["rcode"], &joined["records"]),
        (&"NOERROR".into(), &2.into())
    );
    assert_eq!(
        (&joined["glue"], &joined["transport"]),
        (&2.into(), &"udp".into())
    );
    assert_eq!(joined["joined"].as_array().map(Vec::len), Some(2));

    // Asked for by hand, far ahead of its TTL.
    set(
        50,
        &[
            (0, 30, 8001, "one.test", one),
            (0, 10, 8002, "two.test", two),
        ],
    );
    refresh();
    wait_until("the weight has changed", || {
        let change = &name()["journal"][0];
        change["changed"][0]["to"]["weight"] == 30 && change["ttl_seconds"] == 50.0
    });
    dns.on(NAME, RecordType::SRV, server::Reply::NxDomain(None));
    refresh();
    wait_until("that all would go is held back", || {
        let change = &name()["journal"][0];
        change["rcode"] == "NXDOMAIN" && change["held_back"].is_string()
    });
    assert_eq!(get("/api/v1/backends").as_array().map(Vec::len), Some(2));
    let events = get("/api/v1/events");
    let kinds = events["events"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|event| &event["kind"]);
    let kinds: Vec<_> = kinds.filter_map(Value::as_str).collect();
    for kind in [
        "dns_joined",
        "dns_reweighted",
        "dns_held_back",
        "refresh_asked",
    ] {
        assert!(kinds.contains(&kind), "{kind} is not in {kinds:?}");
    }
}
