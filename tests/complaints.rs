//! Who is refused for who he is: said in the log, and seldom.

mod support;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use serde_json::Value;

use support::client::{Client, tls_config};
use support::server::{Folder, Server};
use support::{PATIENCE, wait_until};

/// Lines of the log that warn of a refusal.
fn warnings(server: &mut Server) -> Vec<Value> {
    let lines = server.process().log();
    let lines = lines
        .iter()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let refusals = lines.filter(|line| {
        let said = line["message"].as_str().unwrap_or_default();
        line["level"] == "WARN" && said.starts_with("refused: ")
    });
    refusals.collect()
}

/// Says this and reads until the connection ends.
fn say(address: SocketAddr, bytes: &[u8]) {
    let mut connection = TcpStream::connect(address).expect("it listens");
    connection
        .set_read_timeout(Some(PATIENCE))
        .expect("a socket");
    // It may be closed by then, or reset.
    let _ = connection.write_all(bytes);
    let _ = connection.read_to_end(&mut Vec::new());
}

#[test]
fn a_proxy_that_is_not_trusted_is_told_once() {
    let site = |trusted: &str| {
        Server::binary(&format!(
            r#"
            workers = 1
            trusted_proxies = ["{trusted}"]
            [[listener]]
            name = "front"
            address = "127.0.0.1:0"
            protocol = "http"
            proxy_protocol = true
            "#
        ))
    };
    for (trusted, part) in [
        ("10.0.0.0/8", "not in `trusted_proxies`"),
        ("127.0.0.1", "sends no PROXY header"),
    ] {
        let mut server = site(trusted);
        for _ in 0..20 {
            say(server.address(), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        }
        wait_until("it is in the log", || !warnings(&mut server).is_empty());
        let warned = warnings(&mut server);
        assert_eq!(warned.len(), 1, "{warned:#?}");
        assert!(
            warned[0]["message"]
                .as_str()
                .is_some_and(|said| said.contains(part)),
            "{warned:#?}"
        );
        assert_eq!(warned[0]["listener"], "front");
        assert!(
            warned[0]["address"]
                .as_str()
                .is_some_and(|a| a.starts_with("127.0.0.1:"))
        );
    }
}

#[test]
fn a_client_without_a_certificate_is_told_once() {
    let folder = Folder::new();
    let certificate = folder.certificate("default", &["localhost"]);
    let authority = std::fs::read_to_string(&certificate.ca).expect("readable");
    let authority = folder.write("clients.pem", &authority);
    let mut server = Server::binary(&format!(
        r#"
        workers = 1
        [[listener]]
        name = "front"
        address = "127.0.0.1:0"
        protocol = "https"
        certificates = [{}]
        client_certificates = {{ ca = "{}" }}
        "#,
        certificate.entry(),
        authority.display(),
    ));
    let config = tls_config(&certificate.ca, &[&rustls::version::TLS12]);
    for _ in 0..20 {
        let refused = Client::tls(server.address(), &config, "localhost");
        assert!(refused.is_err());
    }
    // Whoever speaks no TLS at all is no matter of certificates.
    say(server.address(), b"GET / HTTP/1.1\r\n\r\n");
    wait_until("it is in the log", || !warnings(&mut server).is_empty());
    let warned = warnings(&mut server);
    assert_eq!(warned.len(), 1, "{warned:#?}");
    assert_eq!(warned[0]["message"], "refused: the client's certificate");
    assert_eq!(warned[0]["listener"], "front");
}

#[test]
fn a_certificate_that_is_not_there_can_be_made() {
    let folder = Folder::new();
    let file = folder.write(
        "evenkeel.toml",
        "[[listener]]\naddress = '127.0.0.1:0'\nprotocol = 'https'\n\
         certificates = [{ cert = 'certs/dev.pem', key = 'certs/dev.key' }]\n[probe]\naddress = 'off'\n",
    );
    let mut run = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
    let output = run
        .arg("run")
        .arg("-c")
        .arg(file)
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("`evenkeel cert dev` makes"), "{said}");
}
