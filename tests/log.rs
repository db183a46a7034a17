//! The logs of a running process: no character from outside steers whoever reads them, and the level
//! can be changed.

#[path = "support/dns.rs"]
mod dns;
mod support;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use dns::{DnsServer, srv_reply};
use evenkeel::telemetry::logging::{self, LogFormat};
use hickory_proto::rr::RecordType;

use support::backend::Backend;
use support::server::{Folder, Process, binary};
use support::{PATIENCE, wait_until};

/// A command to a terminal, as C0, C1 and DEL, and a line that somebody else would have written.
const STEERING: &str = "\u{1b}[31m\u{9b}2J\u{7f}\rforged";

fn say(address: SocketAddr, bytes: &[u8]) {
    let mut connection = TcpStream::connect(address).expect("it listens");
    connection
        .set_read_timeout(Some(PATIENCE))
        .expect("a socket");
    let _ = connection.write_all(bytes);
    let _ = connection.read_to_end(&mut Vec::new());
}

/// A ClientHello of TLS 1.2 that asks for this name (RFC 8446 §4.1.2, RFC 6066 §3).
fn hello(name: &[u8]) -> Vec<u8> {
    let prefixed = |bytes: &[u8], size: usize| {
        let length = (bytes.len() as u32).to_be_bytes();
        [&length[4 - size..], bytes].concat()
    };
    let entry = [&[0][..], &prefixed(name, 2)].concat();
    let extension = [&[0, 0][..], &prefixed(&prefixed(&entry, 2), 2)].concat();
    let body = [
        &[3, 3][..],
        &[7; 32],
        &[0],
        &prefixed(&[0xc0, 0x2f], 2),
        &[1, 0],
        &prefixed(&extension, 2),
    ]
    .concat();
    let handshake = [&[1][..], &prefixed(&body, 3)].concat();
    [&[22, 3, 1][..], &prefixed(&handshake, 2)].concat()
}

/// The program's log, and the access log.
async fn logs(format: &'static str, access: &'static str) -> (Vec<String>, Vec<String>) {
    let name_server = DnsServer::start().await;
    let srv = "_http._tcp.web.test";
    let target = format!("{STEERING}.test");
    let members: &[(u16, u16, u16, &str, &[&str])] = &[(0, 1, 80, &target, &[])];
    name_server.on(srv, RecordType::SRV, srv_reply(srv, 1, members));
    let name_server = name_server.address();
    tokio::task::spawn_blocking(move || {
        let folder = Folder::new();
        let certificate = folder.certificate("default", &["localhost"]);
        let backend = Backend::start("b");
        // Where it listens cannot be read out of a text.
        let [a, b, c] = [(); 3].map(|()| fastrand::u8(1..=250));
        let addresses = [1, 2, 3].map(|port| SocketAddr::from(([127, a, b, c], 8000 + port)));
        let [http, https, pass] = addresses;
        let file = folder.write(
            "evenkeel.toml",
            &format!(
                r#"
            workers = 1
            trusted_proxies = ["127.0.0.0/8"]
            [probe]
            address = "off"
            [admin]
            address = "off"
            socket = "off"
            [log]
            level = "trace"
            format = "{format}"
            access = "{access}"
            [dns]
            servers = ["{name_server}"]
            [[listener]]
            address = "{http}"
            protocol = "http"
            [[listener]]
            address = "{https}"
            protocol = "https"
            certificates = [{}]
            [[listener]]
            name = "pass"
            address = "{pass}"
            protocol = "tls"
            [[service]]
            name = "a"
            discover = {{ static = ["{}"] }}
            [[service]]
            name = "b"
            discover = {{ srv = "{srv}" }}
            [[route]]
            host = "a"
            service = "a"
            [[route]]
            host = "b"
            service = "b"
            [[route]]
            listener = "pass"
            host = "a.example"
            service = "a"
            "#,
                certificate.entry(),
                backend.address,
            ),
        );
        let process = Process::spawn(binary().arg("run").arg("-c").arg(file));
        wait_until("it listens", || {
            addresses.iter().all(|a| TcpStream::connect(a).is_ok())
        });
        let raw = |text: &str| text.replace("BAD", STEERING).into_bytes();
        for request in [
            "GET /BAD HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            "GET /x?BAD HTTP/1.1\r\nHost: a\r\nUser-Agent: BAD\r\nConnection: close\r\n\r\n",
            "GET /x HTTP/1.1\r\nHost: BAD\r\nConnection: close\r\n\r\n",
            "GET /x HTTP/1.1\r\nHost: a\r\nBAD: 1\r\nConnection: close\r\n\r\n",
            "BAD /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            "GET /é\u{202e} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            // Bytes from 0x80 on are allowed in a value (RFC 9110 §5.5).
            "GET /y HTTP/1.1\r\nHost: a\r\nUser-Agent: é\u{9b}2J\r\nReferer: \u{202e}\r\n\
             X-Request-Id: é\u{9b}2J\r\nX-Forwarded-For: \u{9b}2J\r\nConnection: close\r\n\r\n",
        ] {
            say(addresses[0], &raw(request));
        }
        for address in &addresses[1..] {
            say(*address, &hello(STEERING.as_bytes()));
        }
        wait_until("the name server's answer is in the log", || {
            process.log().iter().any(|line| line.contains("forged"))
        });
        wait_until("requests are in the log", || process.access().len() >= 7);
        (process.log(), process.access())
    })
    .await
    .expect("it does not panic")
}

#[tokio::test]
async fn no_character_from_outside_steers() {
    for (format, access) in [("text", "combined"), ("json", "json")] {
        let (log, access) = logs(format, access).await;
        let lines = || log.iter().chain(&access);
        let steering = lines().find(|line| line.chars().any(|c| c.is_control() || c == '\u{202e}'));
        assert_eq!(steering, None);
        // Nor was a line forged.
        assert_eq!(lines().find(|line| line.starts_with("forged")), None);
        for line in lines().filter(|_| format == "json") {
            serde_json::from_str::<serde_json::Value>(line).expect(line);
        }
        // They were escaped, not left out.
        let in_access = match format {
            "json" => "\\u009b",
            _ => "\\xc2\\x9b",
        };
        // In the escapes of zone files (RFC 1035 §5.1).
        assert!(log.iter().any(|l| l.contains("forged.test.")), "{log:#?}");
        assert!(access.iter().any(|l| l.contains(in_access)), "{access:#?}");
    }
}

#[test]
fn the_level_is_changed_at_run_time() {
    use tracing::{Level, enabled};
    assert!(logging::set_level("debug").is_err(), "there is no log yet");
    logging::init("warn", LogFormat::Json).expect("nobody else has one here");
    let ours = || {
        (
            enabled!(target: "evenkeel::proxy", Level::WARN),
            enabled!(target: "evenkeel::proxy", Level::DEBUG),
            enabled!(target: "hickory_resolver", Level::DEBUG),
        )
    };
    assert_eq!(ours(), (true, false, false));
    let before = logging::set_level("debug").expect("a level");
    assert_eq!((before.as_str(), ours()), ("warn", (true, true, false)));
    let before = logging::set_level("hickory_resolver=debug").expect("a filter");
    assert_eq!(before, "debug");
    assert_eq!(ours(), (false, false, true));
    let long = format!("{}info", "evenkeel=debug,".repeat(100));
    for bad in ["evenkeel=loud", "debgu", "[{a=\"\u{1b}[2J\"}]=info", &long] {
        assert!(logging::set_level(bad).is_err(), "{bad}");
        assert_eq!(ours(), (false, false, true));
    }
    let in_force = logging::level().expect("there is a log");
    assert_eq!(in_force, "hickory_resolver=debug");
    logging::set_level("warn").expect("a level");
    assert_eq!(ours(), (true, false, false));
}
