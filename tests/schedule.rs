//! `evenkeel schedule` with the real binary against a DNS server in this process.

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::time::Duration;

use evenkeel::dns_server::{self, Handle, SrvData, Zone};

const NAME: &str = "_http._tcp.web.schedule.test";
const TTL: Duration = Duration::from_secs(1);

/// b1 (0, 30), b2 (0, 20) with two addresses, b3 (10, 40).
async fn dns() -> Handle {
    let zone = Zone::new("schedule.test").expect("a name");
    let records = [("b1", 0, 30, 1), ("b2", 0, 20, 2), ("b3", 10, 40, 1)];
    for (host, priority, weight, addresses) in records {
        let target = format!("{host}.schedule.test");
        let last = host.as_bytes()[1] - b'0';
        let addresses: Vec<_> = (0..addresses)
            .map(|n| IpAddr::V4(Ipv4Addr::new(127, 0, n, last)))
            .collect();
        zone.set_addresses(&target, TTL, &addresses)
            .expect("in the zone");
        let record = SrvData::new(priority, weight, 9000, &target);
        zone.add_srv(NAME, TTL, record).expect("in the zone");
    }
    let address = (Ipv4Addr::LOCALHOST, 0).into();
    let (udp, tcp) = dns_server::bind(address).await.expect("a port");
    dns_server::serve(udp, tcp, zone).expect("it serves")
}

/// Exit code, standard output and standard error of `schedule` with these arguments.
async fn schedule(arguments: &[&str], dns: &Handle) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
    command.arg("schedule").args(arguments);
    command.args(["--resolver", &dns.address().to_string()]);
    // On a thread of its own: this one has to answer the questions.
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .expect("no panic")
        .expect("it starts");
    let text = |bytes| String::from_utf8(bytes).expect("it prints text");
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// The row of the backend whose name begins so, without what is in front of the priority.
fn row(text: &str, name: &str) -> String {
    let line = text.lines().find(|line| line.contains(name));
    let line = line.unwrap_or_else(|| panic!("no {name} in\n{text}"));
    let (_, rest) = line.split_once(')').expect("the address in brackets");
    rest.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn a_name_is_asked_once_and_its_weights_shared_among_addresses() {
    let dns = dns().await;
    let to = format!("srv://{NAME}.");
    let (code, text, error) = schedule(&[&to, "-n", "1000"], &dns).await;
    assert_eq!(code, Some(0), "{text}{error}");
    assert!(text.contains("weighted, 4 backends in 2 tiers"), "{text}");
    let b1 = "b1.schedule.test:9000 (127.0.0.1)";
    assert_eq!(row(&text, b1), "0 30 60.0 % 600 60.0 %");
    for address in ["127.0.0.2", "127.0.1.2"] {
        let b2 = format!("b2.schedule.test:9000 ({address})");
        assert_eq!(row(&text, &b2), "0 20 20.0 % 200 20.0 %");
    }
    let b3 = "b3.schedule.test:9000 (127.0.0.3)";
    assert_eq!(row(&text, b3), "10 40 100.0 % 0 standby");
}

#[tokio::test]
async fn a_seed_repeats_a_schedule() {
    let dns = dns().await;
    let to = format!("srv://{NAME}.");
    let first = schedule(&[&to, "--seed", "7"], &dns).await;
    assert_eq!(first, schedule(&[&to, "--seed", "7"], &dns).await);
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_said_in_words() {
    let dns = dns().await;
    let to = "srv://_http._tcp.nobody.schedule.test.";
    let (code, text, error) = schedule(&[to], &dns).await;
    assert_eq!(code, Some(0), "{text}{error}");
    assert!(text.contains("nobody is registered"), "{text}{error}");
}
