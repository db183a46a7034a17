//! `evenkeel health` as a program, for what is not the balancer itself: a URL, a DNS server. That of
//! the balancer's own probe is tested with the probe, in operation.rs.

#[path = "support/dns.rs"]
mod dns;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::process::Command;

use dns::{DnsServer, Reply, srv_reply};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

const NAME: &str = "_http._tcp.web.test";

/// Exit code, and what it said on both of its outputs.
fn health(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_evenkeel"))
        .arg("health")
        .args(arguments)
        .output()
        .expect("the program runs");
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8(both).expect("text");
    (output.status.code(), text)
}

/// Takes one connection, reads a request's head, sends `response`.
fn once(response: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("it connects");
        let mut request = Vec::new();
        let mut room = [0; 1024];
        while !request.ends_with(b"\r\n\r\n") {
            let n = stream.read(&mut room).expect("it sends a head");
            request.extend_from_slice(&room[..n]);
        }
        let head = String::from_utf8(request).expect("text");
        // Names of fields mean the same in any case (RFC 9110 §5.1).
        let lines = format!("get /well?deep http/1.1\r\nhost: {address}\r\n");
        assert!(head.to_ascii_lowercase().starts_with(&lines), "{head}");
        stream.write_all(response.as_bytes()).expect("it listens");
        // A connection that stays open is no reason to wait for more.
        let _ = stream.read(&mut room);
    });
    address
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}/well?deep")
}

#[test]
fn a_url_is_well_when_it_answers_with_2xx() {
    for (response, code, words) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", 0, "200"),
        ("HTTP/1.1 204 No Content\r\n\r\n", 0, "204"),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200 OK\r\n\r\n",
            0,
            "200",
        ),
        ("HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n", 1, "302"),
        ("HTTP/1.1 404 Not Found\r\n\r\n", 1, "404"),
        ("HTTP/1.1 503 Service Unavailable\r\n\r\n", 1, "503"),
        ("SSH-2.0-OpenSSH\r\n", 1, "does not speak HTTP"),
        ("HTTP/1.1 20", 1, "no answer within 300ms"),
    ] {
        let url = url(once(response));
        let (exit, text) = health(&["--url", &url, "--timeout", "300ms"]);
        assert_eq!(exit, Some(code), "{response}: {text}");
        assert!(text.contains(words), "{response}: {text}");
        assert!(text.contains(&url), "{text}");
    }
    let gone = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr());
    let (exit, text) = health(&["--url", &url(gone.expect("loopback"))]);
    assert_eq!(exit, Some(1), "{text}");
    assert!(text.contains("refused"), "{text}");
}

async fn ask(server: SocketAddr, name: &str) -> (Option<i32>, String) {
    let (server, name) = (server.to_string(), name.to_owned());
    let run = move || health(&["--dns", &server, "--name", &name]);
    tokio::task::spawn_blocking(run).await.expect("it runs")
}

#[tokio::test]
async fn a_dns_server_is_well_when_it_knows_the_name_or_that_there_is_none() {
    let records = srv_reply(
        NAME,
        5,
        &[
            (0, 1, 80, "b1.test", &["10.0.0.1"]),
            (0, 1, 80, "b2.test", &["10.0.0.2"]),
        ],
    );
    for (reply, code, words) in [
        (records.clone(), 0, "_http._tcp.web.test.: 2"),
        (Reply::NoData(Some(5)), 0, "_http._tcp.web.test.: 0"),
        (
            Reply::NxDomain(Some(5)),
            0,
            "there is no _http._tcp.web.test.",
        ),
        (Reply::Code(ResponseCode::ServFail), 1, "SERVFAIL"),
        (Reply::Code(ResponseCode::Refused), 1, "REFUSED"),
        (Reply::Truncated(Some(Box::new(records))), 0, ": 2"),
        (Reply::Silence, 1, "no answer within 2s"),
    ] {
        let server = DnsServer::start().await;
        server.on(NAME, RecordType::SRV, reply.clone());
        let (exit, text) = ask(server.address(), NAME).await;
        assert_eq!(exit, Some(code), "{reply:?}: {text}");
        assert!(text.contains(words), "{reply:?}: {text}");
    }
    // One lost packet is no illness.
    let server = DnsServer::start().await;
    server.next(NAME, RecordType::SRV, vec![Reply::Silence]);
    let (exit, text) = ask(server.address(), NAME).await;
    assert_eq!(exit, Some(0), "{text}");
    assert_eq!(server.count(NAME, RecordType::SRV), 2);
    let gone = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    let (exit, text) = ask(gone.expect("loopback"), NAME).await;
    assert_eq!(exit, Some(1), "{text}");
    assert!(text.contains("refused"), "{text}");
}

#[test]
fn questions_that_make_no_sense_are_usage_errors() {
    for arguments in [
        &["--dns", "127.0.0.1"][..],
        &["--name", NAME],
        &["--dns", "web:53", "--name", NAME],
        &["--url", "https://127.0.0.1/"],
        &["--url", "http://web/"],
        &["--url", "http://127.0.0.1/", "--ready"],
        &["--url", "http://127.0.0.1/", "--address", "127.0.0.1:1"],
        &[
            "--url",
            "http://127.0.0.1/",
            "--dns",
            "127.0.0.1",
            "--name",
            NAME,
        ],
    ] {
        let (exit, text) = health(arguments);
        assert_eq!(exit, Some(2), "{arguments:?}: {text}");
    }
}
