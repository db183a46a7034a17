//! `--synth`: SRV records made of another server's addresses.

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use tokio::task::spawn_blocking;

use crate::dns::{DnsServer, Reply, address_reply};
use crate::signatures::{add, ask, code, exchange, signed, unix_now};
use crate::support::wait_until;
use crate::zone::ZoneServer;

const SERVICE: &str = "_http._tcp.shop.svc.test.";

async fn until(server: &std::sync::Arc<ZoneServer>, wanted: (ResponseCode, usize), what: &str) {
    let (server, what) = (std::sync::Arc::clone(server), what.to_owned());
    let waiting = spawn_blocking(move || {
        wait_until(&what, || ask(&server, SERVICE, RecordType::SRV) == wanted);
    });
    waiting.await.expect("it comes to that");
}

#[tokio::test]
async fn follows_the_addresses_and_says_servfail_when_it_cannot() {
    let engine = DnsServer::start().await;
    let shop = |list: &[&str]| engine.on("shop", RecordType::A, address_reply("shop", 600, list));
    engine.on("shop", RecordType::A, Reply::Silence);
    engine.on("shop", RecordType::AAAA, Reply::NoData(None));
    // A second service under the same name, on one of the same hosts.
    engine.on(
        "admin",
        RecordType::A,
        address_reply("admin", 600, &["10.0.0.2"]),
    );
    let asked = engine.address().to_string();
    let started = spawn_blocking(move || {
        ZoneServer::with_key(
            "2s",
            &[
                "--synth",
                "_http._tcp.shop=shop.:8080",
                "--synth",
                "_admin._tcp.shop=admin.:9000",
                "--synth-server",
                &asked,
            ],
        )
    });
    let server = std::sync::Arc::new(started.await.expect("it starts"));
    until(&server, (ResponseCode::ServFail, 0), "nothing is known yet").await;
    shop(&["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    until(&server, (ResponseCode::NoError, 3), "three addresses").await;
    let target = "10-0-0-2.shop.svc.test.";
    assert_eq!(
        ask(&server, target, RecordType::A),
        (ResponseCode::NoError, 1)
    );
    shop(&["10.0.0.3"]);
    until(&server, (ResponseCode::NoError, 1), "two of them left").await;
    let kept = ask(&server, target, RecordType::A);
    assert_eq!(
        kept,
        (ResponseCode::NoError, 1),
        "the other service still names it"
    );
    assert_eq!(ask(&server, "10-0-0-1.shop.svc.test.", RecordType::A).1, 0);
    engine.on("shop", RecordType::A, Reply::Code(ResponseCode::ServFail));
    until(&server, (ResponseCode::ServFail, 0), "the engine fails").await;
    engine.on("shop", RecordType::A, Reply::NxDomain(Some(1)));
    until(&server, (ResponseCode::NXDomain, 0), "nobody, decidedly").await;
    shop(&["10.0.0.9"]);
    until(&server, (ResponseCode::NoError, 1), "somebody again").await;

    let key = server.key("k.key");
    let update = signed(&key, vec![add(SERVICE, 1)], None, unix_now());
    let answer = exchange(&server, &update);
    assert_eq!(
        code(&answer),
        ResponseCode::Refused,
        "it belongs to the configuration"
    );
}

#[tokio::test]
async fn what_is_made_is_not_stored_and_holds_no_renewal_up() {
    let engine = DnsServer::start().await;
    let shop = |list: &[&str]| engine.on("shop", RecordType::A, address_reply("shop", 600, list));
    shop(&["10.0.0.1"]);
    engine.on("shop", RecordType::AAAA, Reply::NoData(None));
    // A second service under the same name, on one of the same hosts.
    engine.on(
        "admin",
        RecordType::A,
        address_reply("admin", 600, &["10.0.0.2"]),
    );
    let asked = engine.address().to_string();
    let started = spawn_blocking(move || {
        ZoneServer::with_key(
            "2s",
            &[
                "--synth",
                "_http._tcp.shop=shop.:8080",
                "--synth",
                "_admin._tcp.shop=admin.:9000",
                "--synth-server",
                &asked,
            ],
        )
    });
    let server = std::sync::Arc::new(started.await.expect("it starts"));
    let key = server.key("k.key");
    let register = |seconds: u64| {
        let update = signed(
            &key,
            vec![add("b1.svc.test.", 1)],
            Some(30),
            unix_now() + seconds,
        );
        let server = std::sync::Arc::clone(&server);
        spawn_blocking(move || code(&exchange(&server, &update)))
    };
    assert_eq!(register(0).await.expect("answered"), ResponseCode::NoError);
    shop(&["10.0.0.1", "10.0.0.2"]);
    until(&server, (ResponseCode::NoError, 2), "another address").await;
    let renewed = register(1).await.expect("answered");
    assert_eq!(renewed, ResponseCode::NoError, "though nothing is new");
}
