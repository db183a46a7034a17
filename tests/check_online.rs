//! `evenkeel check --online`: what a configuration leads to, against a name server that misbehaves on
//! command and backends that are there or not.

#[path = "support/dns.rs"]
mod dns;

use std::net::{SocketAddr, TcpListener};
use std::process::Command;

use dns::{DnsServer, Reply, address_reply, srv_reply};
use hickory_proto::rr::RecordType;

/// Exit code, standard output without the summary of the file, and standard error.
async fn check(file: &str) -> (Option<i32>, String, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("evenkeel.toml");
    std::fs::write(&path, file).expect("writable");
    let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
    command.arg("check").arg(&path).arg("--online");
    let run = tokio::task::spawn_blocking(move || command.output());
    let output = run.await.unwrap().expect("the program runs");
    let [out, err] = [output.stdout, output.stderr].map(|b| String::from_utf8(b).expect("text"));
    let online = out.split_once("online, as seen from here:\n");
    let online = online.map_or("", |(_, online)| online).to_owned();
    (output.status.code(), online, err)
}

fn service(name: &str, discover: &str) -> String {
    format!(
        "[[service]]\nname = \"{name}\"\ndiscover = {discover}\n[[route]]\nhost = \"{name}\"\nservice = \"{name}\"\n"
    )
}

fn file(server: SocketAddr, services: &[String]) -> String {
    format!(
        "[[listener]]\naddress = \"127.0.0.1:0\"\nprotocol = \"http\"\n\
         [dns]\nservers = [\"{server}\"]\ntimeout = \"300ms\"\nretries = 0\n{}",
        services.concat()
    )
}

/// A port that nobody listens on: it was one a moment ago.
fn closed() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("it has one")
}

#[tokio::test]
async fn what_is_well() {
    let server = DnsServer::start().await;
    let name = "_http._tcp.web.test";
    let members: &[(u16, u16, u16, &str, &[&str])] = &[
        (0, 30, 9001, "b1.test", &["10.0.0.1"]),
        (0, 20, 9002, "b2.test", &["10.0.0.2"]),
        (10, 20, 9002, "b3.test", &["10.0.0.3"]),
    ];
    server.on(name, RecordType::SRV, srv_reply(name, 5, members));
    server.on(
        "blog.test",
        RecordType::A,
        address_reply("blog.test", 5, &["10.0.0.9"]),
    );
    let backend = TcpListener::bind("127.0.0.1:0").expect("a port");
    let backend = backend.local_addr().expect("it has one");
    let srv = format!("{{ srv = \"{name}\" }}");
    let services = [
        service("web", &srv),
        service("blog", "{ a = \"blog.test\", port = 80 }"),
        service("same", &srv),
        service("old", &format!("{{ static = [\"{backend}\"] }}")),
    ];
    let (code, out, err) = check(&file(server.address(), &services)).await;
    assert_eq!(
        out,
        "  ok       services web, same: SRV _http._tcp.web.test leads to 3 endpoints in 2 tiers\n  \
           ok       service blog: blog.test has 1 address: 10.0.0.9\n  \
           ok       service old: 1 of 1 static backend can be connected to\n"
    );
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(server.count(name, RecordType::SRV) <= 5);
}

#[tokio::test]
async fn what_is_wrong() {
    let server = DnsServer::start().await;
    server.on(
        "link.test",
        RecordType::A,
        address_reply("link.test", 5, &["169.254.169.254"]),
    );
    let target = &[
        (0, 1, 80, "gone.test", &[][..]),
        (0, 1, 80, "b1.test", &["10.0.0.1"][..]),
    ];
    let name = "_http._tcp.half.test";
    server.on(name, RecordType::SRV, srv_reply(name, 5, target));
    let closed = closed();
    let rows = [
        (
            "{ srv = \"_http._tcp.none.test\" }".to_owned(),
            "0 endpoints",
            "_http._tcp.none.test does not exist (NXDOMAIN)",
        ),
        (
            format!("{{ srv = \"{name}\" }}"),
            "leads to 1 endpoint in 1 tier",
            "target gone.test has no address",
        ),
        (
            "{ a = \"_http._tcp.none.test\", port = 80 }".to_owned(),
            "has 0 addresses",
            "discover = { srv = \"_http._tcp.none.test\" }",
        ),
        (
            "{ a = \"link.test\", port = 80 }".to_owned(),
            "has 0 addresses",
            "169.254.169.254 is not used: it is link-local",
        ),
        (
            format!("{{ static = [\"{closed}\"] }}"),
            "0 of 1 static backend can be connected to",
            "cannot be connected to: Connection refused",
        ),
    ];
    for (discover, first, then) in rows {
        let (code, out, _) = check(&file(server.address(), &[service("x", &discover)])).await;
        assert_eq!(code, Some(1), "{discover}\n{out}");
        let line = out.lines().next().unwrap_or_default();
        assert!(
            line.starts_with("  WRONG    service x: ") && line.contains(first),
            "{out}"
        );
        assert!(out.contains(then), "{out}");
    }

    server.only(Reply::Silence);
    let names = service("x", "{ srv = \"_http._tcp.web.test\" }");
    let (code, out, _) = check(&file(server.address(), &[names])).await;
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains("is a DNS server listening there"), "{out}");
}

#[tokio::test]
async fn how_long_certificates_last() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().to_str().expect("UTF-8");
    let mut make = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
    make.args(["cert", "dev", "--out", out]);
    assert!(make.output().expect("it runs").status.success());
    let listener = |cert: &str| {
        format!(
            "[[listener]]\nname = \"front\"\naddress = \"127.0.0.1:0\"\nprotocol = \"https\"\n\
             certificates = [{{ cert = \"{out}/{cert}.pem\", key = \"{out}/{cert}.key\" }}]\n"
        )
    };
    let (code, out_text, err) = check(&listener("dev")).await;
    assert_eq!(code, Some(0), "{out_text}{err}");
    let left = out_text
        .split(" days left, until 20")
        .next()
        .unwrap_or_default();
    let days = left
        .rsplit(' ')
        .next()
        .and_then(|days| days.parse::<u32>().ok());
    assert!(days.is_some_and(|days| days > 7), "{out_text}");

    // One that was valid for a day, long ago.
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut asked = rcgen::CertificateParams::new(["localhost".to_owned()]).expect("a name");
    asked.not_before = rcgen::date_time_ymd(2020, 1, 1);
    asked.not_after = rcgen::date_time_ymd(2020, 1, 2);
    let made = asked.self_signed(&key).expect("signed");
    std::fs::write(folder.path().join("old.pem"), made.pem()).expect("writable");
    std::fs::write(folder.path().join("old.key"), key.serialize_pem()).expect("writable");
    let (code, out_text, _) = check(&listener("old")).await;
    assert_eq!(code, Some(1), "{out_text}");
    assert!(
        out_text.contains("  WRONG    listener front: "),
        "{out_text}"
    );
    assert!(
        out_text.contains("days ago, until 2020-01-02T00:00:00Z"),
        "{out_text}"
    );
}
