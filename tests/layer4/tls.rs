//! protocol = "tls": by what the client says in the open, without a look at the rest.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};

use crate::support::backend::Backend;
use crate::support::client::{Client, End, tls_config, tls_config_with};
use crate::support::server::{Certificate, Folder, Server, output};
use crate::support::{lock, pause, require, wait_until};
use crate::{metric, to_end};

/// Key shares with one that makes the hello larger than a segment, which the backends take.
fn post_quantum() -> CryptoProvider {
    CryptoProvider {
        kx_groups: vec![
            aws_lc_rs::kx_group::X25519MLKEM768,
            aws_lc_rs::kx_group::X25519,
        ],
        ..aws_lc_rs::default_provider()
    }
}

/// A backend that ends TLS and answers any request with its name and the protocol that was agreed on.
fn tls_backend(name: &'static str, certificate: &Certificate) -> Backend {
    let chain = CertificateDer::pem_file_iter(&certificate.cert).expect("it was written");
    let chain = chain.map(|c| c.expect("it is PEM")).collect();
    let key = PrivateKeyDer::from_pem_file(&certificate.key).expect("it was written");
    let mut config = ServerConfig::builder_with_provider(Arc::new(post_quantum()))
        .with_safe_default_protocol_versions()
        .expect("the provider has them")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("they belong together");
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let config = Arc::new(config);
    Backend::custom(name, move |mut tcp| {
        let Ok(mut tls) = ServerConnection::new(Arc::clone(&config)) else {
            return;
        };
        let mut stream = rustls::Stream::new(&mut tls, &mut tcp);
        // An error means that the other end is gone.
        let _ = answer(&mut stream, name);
    })
}

fn answer(
    stream: &mut rustls::Stream<'_, ServerConnection, TcpStream>,
    name: &str,
) -> std::io::Result<()> {
    let mut room = [0; 4096];
    if stream.read(&mut room)? == 0 {
        return Ok(());
    }
    let agreed = stream.conn.alpn_protocol().unwrap_or_default().to_vec();
    let body = format!("{name} {}", String::from_utf8_lossy(&agreed));
    let head = format!(
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head, body].concat().into_bytes())?;
    stream.conn.send_close_notify();
    stream.flush()?;
    stream.sock.shutdown(Shutdown::Write)?;
    while stream.sock.read(&mut room)? > 0 {}
    Ok(())
}

/// Four backends behind names and protocols, which all have the same certificate.
struct Site {
    server: Server,
    certificate: Certificate,
    _folder: Folder,
    _backends: [Backend; 4],
}

impl Site {
    fn start() -> Site {
        Site::start_with("")
    }

    /// The same with more TOML.
    fn start_with(more: &str) -> Site {
        let folder = Folder::new();
        let names = ["shop.example", "*.shop.example", "127.0.0.1"];
        let certificate = folder.certificate("c", &names);
        let backends = ["exact", "h2", "wildcard", "any"].map(|n| tls_backend(n, &certificate));
        let front = "name = \"front\"\naddress = \"127.0.0.1:0\"\nprotocol = \"tls\"";
        let mut toml = format!("[[listener]]\n{front}\n{more}\n");
        for (backend, route) in backends.iter().zip([
            "host = \"shop.example\"",
            "host = \"shop.example\"\nalpn = \"h2\"",
            "host = \"*.shop.example\"",
            "alpn = [\"h2\", \"none-such\"]",
        ]) {
            let name = backend.address;
            toml += &format!(
                "[[service]]\nname = \"{name}\"\ndiscover = {{ static = [\"{name}\"] }}\n\
                 [[route]]\n{route}\nservice = \"{name}\"\n"
            );
        }
        Site {
            server: Server::in_process(&toml),
            certificate,
            _folder: folder,
            _backends: backends,
        }
    }

    fn client(&self, alpn: &[&str]) -> ClientConfig {
        let versions = [&TLS13, &TLS12];
        let mut config = tls_config_with(post_quantum(), &self.certificate.ca, &versions);
        config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
        config
    }

    /// Who answers a client that asks for `name`.
    fn asked(&self, name: &str, alpn: &[&str]) -> Result<String, std::io::Error> {
        let config = Arc::new(self.client(alpn));
        let mut client = Client::tls(self.server.address(), &config, name)?;
        Ok(client.get(name, "/").expect("it is answered").text())
    }

    fn ended(&self, outcome: &str) -> f64 {
        let labels = format!("{{service=\"\",outcome=\"{outcome}\"}}");
        metric(&self.server, &format!("evenkeel_streams_total{labels}"))
    }
}

#[test]
fn by_name_and_protocol() {
    let site = Site::start();
    for (rule, name, alpn, expected) in [
        ("exact name", "shop.example", &[][..], "exact "),
        ("protocol", "shop.example", &["http/1.1", "h2"], "h2 h2"),
        (
            "not that protocol",
            "shop.example",
            &["http/1.1"],
            "exact http/1.1",
        ),
        ("wildcard", "a.shop.example", &["h2"], "wildcard h2"),
        ("an address is no name", "127.0.0.1", &["h2"], "any h2"),
    ] {
        let answered = site
            .asked(name, alpn)
            .unwrap_or_else(|e| panic!("{rule}: {e}"));
        assert_eq!(answered, expected, "{rule}");
    }
}

#[test]
fn curl_meets_the_backend_itself() {
    if !require("curl") {
        return;
    }
    let site = Site::start();
    let port = site.server.address().port();
    let curl = |host: &str| {
        let mut command = Command::new("curl");
        command
            .args(["--silent", "--show-error", "--http1.1", "--noproxy", "*"])
            .args(["--max-time", "40", "--connect-to", "::127.0.0.1:"])
            .arg("--cacert")
            .arg(&site.certificate.ca)
            .arg(format!("https://{host}:{port}/"));
        output(&mut command)
    };
    let seen = curl("shop.example");
    let stderr = String::from_utf8_lossy(&seen.stderr);
    assert_eq!(
        String::from_utf8_lossy(&seen.stdout),
        "exact http/1.1",
        "{stderr}"
    );
    // The certificate is the backend's, and the name in it is checked end to end.
    assert_eq!(
        String::from_utf8_lossy(&curl("b.shop.example").stdout),
        "wildcard http/1.1"
    );
    let refused = curl("other.example");
    assert_eq!(refused.status.code(), Some(35), "the handshake fails");
    let stderr = String::from_utf8_lossy(&refused.stderr);
    assert!(
        stderr.to_lowercase().contains("unrecognized name"),
        "{stderr}"
    );
}

#[test]
fn who_leads_nowhere_is_told_by_an_alert() {
    let site = Site::start();
    let refused = site
        .asked("other.example", &[])
        .expect_err("no route has that name");
    let refused = refused.to_string();
    assert!(refused.contains("UnrecognisedName"), "{refused}");
    wait_until("it is counted", || site.ended("no_route") == 1.0);
    // No name, and nothing offered that the route without a host lists.
    assert!(site.asked("127.0.0.1", &["http/1.1"]).is_err());

    // A record of a ClientHello whose length says more than it holds.
    let mut client = Client::plain(site.server.address());
    client.send(b"\x16\x03\x01\x00\x06\x01\x00\x00\x02\x03\x03 and more that nobody reads");
    let decode_error = b"\x15\x03\x01\x00\x02\x02\x32".to_vec();
    client.finish();
    assert_eq!(client.rest(), Ok((decode_error, End::Closed)));

    let mut client = Client::plain(site.server.address());
    client.send("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    assert_eq!(
        client.rest(),
        Ok((Vec::new(), End::Reset)),
        "it does not speak TLS"
    );
    wait_until("all are counted", || {
        (
            site.ended("no_route"),
            site.ended("bad_client_hello"),
            site.ended("not_tls"),
        ) == (2.0, 1.0, 1.0)
    });
}

#[test]
fn who_does_not_say_hello_in_time_is_left() {
    let site = Site::start_with("[defaults]\nhandshake_timeout = \"1s\"");
    let mut silent = Client::plain(site.server.address());
    let mut halfway = Client::plain(site.server.address());
    halfway.send(b"\x16\x03\x01\x02");
    for client in [&mut silent, &mut halfway] {
        assert_eq!(client.rest(), Ok((Vec::new(), End::Reset)));
    }
    wait_until("both are counted", || site.ended("client_stalled") == 2.0);
}

/// The hello comes in pieces and small records, with more behind it: the backend gets each byte.
#[test]
fn what_was_read_is_passed_on_unchanged() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&heard);
    let backend = Backend::custom("raw", move |mut stream| {
        let bytes = to_end(&mut stream).expect("it ends properly");
        lock(&kept).push(bytes);
    });
    let server = Server::in_process(&format!(
        "[[listener]]\naddress = \"127.0.0.1:0\"\nprotocol = \"tls\"\n\
         [[service]]\nname = \"raw\"\ndiscover = {{ static = [\"{}\"] }}\n\
         [[route]]\nhost = \"a.example\"\nservice = \"raw\"\n",
        backend.address
    ));
    let folder = Folder::new();
    let trust = tls_config(&folder.certificate("c", &["a.example"]).ca, &[&TLS13]);
    let name = ServerName::try_from("a.example").expect("it is a name");
    let mut tls = ClientConnection::new(trust, name).expect("it is complete");
    let mut hello = Vec::new();
    tls.write_tls(&mut hello).expect("a Vec takes everything");
    let mut records = Vec::new();
    for fragment in hello[5..].chunks(7) {
        records.extend_from_slice(&[0x16, 3, 1, 0, fragment.len() as u8]);
        records.extend_from_slice(fragment);
    }
    for (rule, sent, piece) in [
        ("at once", &hello, 10_000),
        ("in pieces", &hello, 40),
        ("in small records and pieces", &records, 60),
    ] {
        let sent = [&sent[..], b"\x17\x03\x03\x00\x03abc"].concat();
        let mut client = Client::plain(server.address());
        let pieces: Vec<&[u8]> = sent.chunks(piece).collect();
        client.send_pieces(&pieces, || pause(Duration::from_millis(3)));
        client.finish();
        wait_until(rule, || !lock(&heard).is_empty());
        let came = lock(&heard).pop().expect("it is there");
        assert!(
            came == sent,
            "{rule}: {} of {} bytes",
            came.len(),
            sent.len()
        );
    }
}
