//! PROXY headers to backends: what they say, whom a connection with one serves, and what HAProxy and
//! NGINX read in them.

#[path = "support/nginx.rs"]
mod nginx;
#[path = "proxy_protocol_out/peers.rs"]
mod peers;
mod support;
#[path = "support/tls_backend.rs"]
mod tls_backend;

use std::net::{IpAddr, SocketAddr};

use rustls::HandshakeKind;
use rustls::version::{TLS12, TLS13};

use support::client::{Client, tls_config, tls_config_with};
use support::server::{Folder, Server};
use support::wait_until;
use tls_backend::{TlsBackend, self_signed};

/// A server that listens here, in front of this backend.
fn front(listen: &str, backend: SocketAddr, keys: &str) -> Server {
    Server::in_process(&format!(
        r#"
        workers = 1
        [[listener]]
        address = "{listen}"
        protocol = "http"
        [[service]]
        name = "web"
        discover = {{ static = ["{backend}"] }}
        {keys}
        [[route]]
        service = "web"
        "#
    ))
}

/// A version 2 header, read apart.
#[derive(Debug, PartialEq, Eq)]
struct Binary {
    command: u8,
    family: u8,
    addresses: Vec<u8>,
    /// Type and value, in order.
    fields: Vec<(u8, Vec<u8>)>,
}

fn binary(header: &[u8]) -> Binary {
    assert_eq!(header[..12], *b"\r\n\r\n\0\r\nQUIT\n", "{header:?}");
    assert_eq!(header[12] & 0xf0, 0x20, "version 2");
    let length = usize::from(u16::from_be_bytes([header[14], header[15]]));
    assert_eq!(header.len(), 16 + length);
    let addresses = match header[13] {
        0x11 => 12,
        0x21 => 36,
        _ => 0,
    };
    Binary {
        command: header[12] & 0x0f,
        family: header[13],
        addresses: header[16..16 + addresses].to_vec(),
        fields: fields(&header[16 + addresses..]),
    }
}

fn fields(mut rest: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut all = Vec::new();
    while let [kind, high, low, after @ ..] = rest {
        let (value, after) = after.split_at(usize::from(u16::from_be_bytes([*high, *low])));
        all.push((*kind, value.to_vec()));
        rest = after;
    }
    assert!(rest.is_empty(), "{rest:?}");
    all
}

/// Addresses and ports as a header of version 2 has them.
fn packed(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let mut bytes = Vec::new();
    for address in [source, destination] {
        match address.ip() {
            IpAddr::V4(ip) => bytes.extend(ip.octets()),
            IpAddr::V6(ip) => bytes.extend(ip.octets()),
        }
    }
    bytes.extend(source.port().to_be_bytes());
    bytes.extend(destination.port().to_be_bytes());
    bytes
}

#[test]
fn who_the_client_is() {
    for (rule, listen, family) in [
        ("IPv4", "127.0.0.1:0", "TCP4"),
        ("IPv6", "[::1]:0", "TCP6"),
        ("IPv4 at a listener for both", "[::]:0", "TCP4"),
    ] {
        for version in ["v1", "v2"] {
            let backend = TlsBackend::introduced("b", None);
            let keys = format!("proxy_protocol = \"{version}\"");
            let server = front(listen, backend.address, &keys);
            let port = server.address().port();
            let mut client = match server.address() {
                SocketAddr::V6(at) if at.ip().is_loopback() => Client::plain(at.into()),
                _ => {
                    let from = [127, 0, 0, 7].into();
                    Client::plain_from(from, ([127, 0, 0, 1], port).into())
                }
            };
            let response = client.get("shop.example", "/").expect("an answer");
            assert_eq!(response.text(), "b", "{rule}, {version}");
            let source = client.tcp().local_addr().expect("it is connected");
            let destination = client.tcp().peer_addr().expect("it is connected");
            let seen = backend.seen();
            assert_eq!(seen.len(), 1);
            if version == "v1" {
                let expected = format!(
                    "PROXY {family} {} {} {} {}\r\n",
                    source.ip(),
                    destination.ip(),
                    source.port(),
                    destination.port()
                );
                assert_eq!(String::from_utf8_lossy(&seen[0].header), expected, "{rule}");
                continue;
            }
            let expected = Binary {
                command: 1,
                family: if family == "TCP4" { 0x11 } else { 0x21 },
                addresses: packed(source, destination),
                fields: Vec::new(),
            };
            assert_eq!(binary(&seen[0].header), expected, "{rule}");
        }
    }
}

/// A connection serves the client that it was opened for, and none but that.
#[test]
fn a_connection_has_one_client() {
    let backend = TlsBackend::introduced("b", None);
    let server = front("127.0.0.1:0", backend.address, "proxy_protocol = \"v1\"");
    let mut clients: Vec<_> = (0..3).map(|_| Client::plain(server.address())).collect();
    for round in 0..3 {
        for (number, client) in clients.iter_mut().enumerate() {
            let response = client.get("a", &format!("/{number}/{round}"));
            assert_eq!(response.expect("an answer").text(), "b");
        }
    }
    let seen = backend.seen();
    assert_eq!(seen.len(), 3, "{seen:?}");
    for (number, (client, seen)) in clients.iter().zip(&seen).enumerate() {
        let port = client.tcp().local_addr().expect("it is connected").port();
        let header = String::from_utf8_lossy(&seen.header);
        assert_eq!(
            header.split(' ').nth(4),
            Some(&*port.to_string()),
            "{header}"
        );
        let expected: Vec<_> = (0..3).map(|round| format!("/{number}/{round}")).collect();
        assert_eq!(seen.requests, expected);
    }
}

/// Schedules are what they are without: a kept connection draws nothing to its backend.
#[test]
fn the_schedule_goes_on() {
    let backends: Vec<_> = ["a", "b"]
        .iter()
        .map(|name| TlsBackend::introduced(name, None))
        .collect();
    let server = Server::in_process(&format!(
        "workers = 1\n[[listener]]\naddress = \"127.0.0.1:0\"\nprotocol = \"http\"\n\
         [[service]]\nname = \"web\"\nproxy_protocol = \"v1\"\n\
         discover = {{ static = [\"{}\", \"{}\"] }}\n[[route]]\nservice = \"web\"\n",
        backends[0].address, backends[1].address
    ));
    let mut client = Client::plain(server.address());
    let mut answers: Vec<_> = (0..8)
        .map(|_| client.get("x", "/").expect("an answer").text())
        .collect();
    answers.sort();
    assert_eq!(answers, ["a", "a", "a", "a", "b", "b", "b", "b"]);
}

/// An idle one is not used for a request that may not be repeated, or when it has been idle for
/// longer than the service allows.
#[test]
fn what_is_kept_is_not_kept_for_ever() {
    let backend = TlsBackend::introduced("b", None);
    let keys = "proxy_protocol = \"v1\"\nbackend_keep_alive = \"50ms\"";
    let server = front("127.0.0.1:0", backend.address, keys);
    let mut client = Client::plain(server.address());
    wait_until("a new connection is made", || {
        assert_eq!(client.get("a", "/").expect("an answer").text(), "b");
        support::pause(std::time::Duration::from_millis(60));
        backend.connections() > 2
    });
}

#[test]
fn what_is_known_of_tls() {
    let folder = Folder::new();
    let certificate = folder.certificate("front", &["localhost"]);
    let issued = self_signed(&["b.test"]);
    for (version, over_tls, named) in [
        (&TLS13, false, true),
        (&TLS12, true, true),
        (&TLS13, true, false),
    ] {
        let tls = over_tls.then(|| issued.server(&[&TLS13], None));
        let backend = TlsBackend::introduced("b", tls);
        let server = Server::in_process(&format!(
            "[[listener]]\naddress = \"127.0.0.1:0\"\nprotocol = \"https\"\n\
             certificates = [{}]\n[[service]]\nname = \"web\"\nproxy_protocol = \"v2\"\n\
             discover = {{ static = [\"{}\"] }}\n{}\n[[route]]\nservice = \"web\"\n",
            certificate.entry(),
            backend.address,
            if over_tls {
                "upstream = \"https\"\ntls = { insecure = true }"
            } else {
                ""
            }
        ));
        let mut config = tls_config_with(
            rustls::crypto::aws_lc_rs::default_provider(),
            &certificate.ca,
            &[version],
        );
        config.enable_sni = named;
        if named {
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
        }
        let config = std::sync::Arc::new(config);
        let protocol = if version == &TLS13 {
            "TLSv1.3"
        } else {
            "TLSv1.2"
        };
        let mut ssl = vec![1, 0, 0, 0, 1, 0x21, 0, 7];
        ssl.extend(protocol.as_bytes());
        // A session that is resumed is introduced as well as a new one.
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let mut client = Client::tls(server.address(), &config, "localhost").expect("TLS");
            let made = client.session().and_then(|tls| tls.handshake_kind());
            assert_eq!(made, Some(kind));
            let response = client.get("localhost", "/").expect("an answer");
            assert_eq!(response.text(), "b");
        }
        let seen = backend.seen();
        assert_eq!(seen.len(), 2);
        for seen in &seen {
            let mut expected = Vec::new();
            if named {
                expected.push((1, b"http/1.1".to_vec()));
                expected.push((2, b"localhost".to_vec()));
            }
            expected.push((0x20, ssl.clone()));
            assert_eq!(binary(&seen.header).fields, expected, "{protocol}");
            assert_eq!(seen.requests, ["/"], "behind the header");
        }
    }
}

/// Without the notes that version 2 needs, a TLS listener is what it was.
#[test]
fn version_1_over_tls() {
    let folder = Folder::new();
    let certificate = folder.certificate("front", &["localhost"]);
    let backend = TlsBackend::introduced("b", None);
    let server = Server::in_process(&format!(
        "[[listener]]\naddress = \"127.0.0.1:0\"\nprotocol = \"https\"\n\
         certificates = [{}]\n[[service]]\nname = \"web\"\nproxy_protocol = \"v1\"\n\
         discover = {{ static = [\"{}\"] }}\n[[route]]\nservice = \"web\"\n",
        certificate.entry(),
        backend.address,
    ));
    let config = tls_config(&certificate.ca, &[&TLS13]);
    let mut client = Client::tls(server.address(), &config, "localhost").expect("TLS");
    assert_eq!(client.get("localhost", "/").expect("an answer").text(), "b");
    assert!(
        backend.seen()[0]
            .header
            .starts_with(b"PROXY TCP4 127.0.0.1 127.0.0.1 ")
    );
}

/// A check is nobody's.
#[test]
fn checks_say_that_they_are_ours() {
    for (version, over_tls) in [("v1", false), ("v2", false), ("v2", true)] {
        let tls = over_tls.then(|| self_signed(&["b.test"]).server(&[&TLS13], None));
        let backend = TlsBackend::introduced("b", tls);
        let tls = if over_tls {
            "upstream = \"https\"\ntls = { insecure = true }"
        } else {
            ""
        };
        let keys = format!(
            "proxy_protocol = \"{version}\"\n{tls}\n\
             health = {{ http = \"/well\", interval = \"20ms\" }}"
        );
        let _server = front("127.0.0.1:0", backend.address, &keys);
        wait_until("it is checked", || {
            let seen = backend.seen();
            seen.iter().any(|seen| seen.requests == ["/well"])
        });
        let seen = backend.seen();
        if version == "v1" {
            assert_eq!(seen[0].header, b"PROXY UNKNOWN\r\n");
            continue;
        }
        let local = Binary {
            command: 0,
            family: 0,
            addresses: Vec::new(),
            fields: Vec::new(),
        };
        assert_eq!(binary(&seen[0].header), local);
    }
}
