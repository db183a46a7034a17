//! TLS, certificates, routing and persistence, as clients meet them.

use std::io::BufReader;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Arc, Mutex};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, DigitallySignedStruct, HandshakeKind, SignatureScheme};

use crate::support::backend::{Backend, Step};
use crate::support::client::{Client, End, tls_config};
use crate::support::server::{Certificate, Folder, Server, output, output_of};
use crate::support::{lock, require};
use crate::{Site, curl, text};

/// A server with three certificates and a service for each.
struct Shops {
    server: Server,
    default: Certificate,
    exact: Certificate,
    wildcard: Certificate,
    _backends: [Backend; 3],
    _folder: Folder,
}

fn shops() -> Shops {
    let folder = Folder::new();
    let default = folder.certificate("default", &["default.test"]);
    let exact = folder.certificate("exact", &["shop.test", "one.wild.test"]);
    let wildcard = folder.certificate("wildcard", &["*.wild.test"]);
    let backends = ["default", "shop", "wild"].map(Backend::start);
    let server = Server::binary(&format!(
        r#"
        [[listener]]
        address = "127.0.0.1:0"
        protocol = "https"
        certificates = [{}, {}, {}]
        [[service]]
        name = "default"
        discover = {{ static = ["{}"] }}
        [[service]]
        name = "shop"
        discover = {{ static = ["{}"] }}
        [[service]]
        name = "wild"
        discover = {{ static = ["{}"] }}
        [[route]]
        service = "default"
        [[route]]
        host = "shop.test"
        service = "shop"
        [[route]]
        host = "*.wild.test"
        service = "wild"
        "#,
        default.entry(),
        exact.entry(),
        wildcard.entry(),
        backends[0].address,
        backends[1].address,
        backends[2].address,
    ));
    Shops {
        server,
        default,
        exact,
        wildcard,
        _backends: backends,
        _folder: folder,
    }
}

/// Believes everything and keeps the certificate that it was shown.
#[derive(Debug, Default)]
struct Witness(Mutex<Vec<u8>>);

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *lock(&self.0) = end_entity.to_vec();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// The certificate that a client is shown who asks for this name.
fn shown(
    address: SocketAddr,
    name: &str,
    version: &'static rustls::SupportedProtocolVersion,
) -> Vec<u8> {
    let witness = Arc::new(Witness::default());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .expect("the provider has both")
        .dangerous()
        .with_custom_certificate_verifier(witness.clone())
        .with_no_client_auth();
    Client::tls(address, &Arc::new(config), name).expect("the handshake goes through");
    std::mem::take(&mut *lock(&witness.0))
}

fn leaf(certificate: &Certificate) -> Vec<u8> {
    let file = std::fs::File::open(&certificate.cert).expect("it was written");
    let mut file = BufReader::new(file);
    let mut all = rustls_pemfile::certs(&mut file);
    all.next()
        .expect("there is one")
        .expect("it is PEM")
        .to_vec()
}

/// RFC 6066 §3, RFC 9110 §4.3.4: an exact name before a wildcard, one label for a star, the first
/// certificate for everybody else, who includes those that send no name.
#[test]
fn the_certificate_is_chosen_by_name() {
    let shops = shops();
    for version in [&TLS12, &TLS13] {
        for (name, certificate) in [
            ("shop.test", &shops.exact),
            ("SHOP.test", &shops.exact),
            ("one.wild.test", &shops.exact),
            ("two.wild.test", &shops.wildcard),
            ("a.b.wild.test", &shops.default),
            ("wild.test", &shops.default),
            ("default.test", &shops.default),
            ("unknown.test", &shops.default),
            // An address is not sent as a name.
            ("127.0.0.1", &shops.default),
        ] {
            let shown = shown(shops.server.address(), name, version);
            assert!(shown == leaf(certificate), "{name} over {version:?}");
        }
    }
}

#[test]
fn curl_is_served_by_name_in_both_versions() {
    if !require("curl") {
        return;
    }
    let shops = shops();
    let port = shops.server.address().port();
    for (name, certificate, backend) in [
        ("default.test", &shops.default, "default"),
        ("shop.test", &shops.exact, "shop"),
        ("two.wild.test", &shops.wildcard, "wild"),
    ] {
        for version in ["1.2", "1.3"] {
            let text = text(
                curl(&certificate.ca)
                    .args([&format!("--tlsv{version}"), "--tls-max", version])
                    .args(["--write-out", "%{http_version} %header{x-backend}"])
                    .arg(format!("https://{name}:{port}/p")),
            );
            assert_eq!(text, format!("GET /p 2 {backend}"), "{name}, TLS {version}");
        }
    }
}

#[test]
fn a_version_below_the_lowest_is_refused() {
    let backend = Backend::start("b");
    let folder = Folder::new();
    let certificate = folder.certificate("default", &["localhost"]);
    let server = Server::binary(&format!(
        r#"
        [[listener]]
        address = "127.0.0.1:0"
        protocol = "https"
        min_tls = "1.3"
        certificates = [{}]
        [[service]]
        name = "b"
        discover = {{ static = ["{}"] }}
        [[route]]
        service = "b"
        "#,
        certificate.entry(),
        backend.address
    ));
    let connect = |version| {
        let config = tls_config(&certificate.ca, &[version]);
        Client::tls(server.address(), &config, "localhost")
    };
    connect(&TLS12).expect_err("1.2 is refused");
    let mut client = connect(&TLS13).expect("1.3 is not");
    let response = client.get("localhost", "/").expect("it is answered");
    assert_eq!(response.text(), "GET / ");
}

/// RFC 8446 §2.2, RFC 5077: the second connection resumes the first one's session, on whichever
/// worker it lands.
#[test]
fn sessions_are_resumed() {
    let backend = Backend::start("b");
    let site = Site::start(&backend, "");
    for version in [&TLS12, &TLS13] {
        let config = tls_config(&site.certificate.ca, &[version]);
        for (n, expected) in [
            (0, HandshakeKind::Full),
            (1, HandshakeKind::Resumed),
            (2, HandshakeKind::Resumed),
            (3, HandshakeKind::Resumed),
        ] {
            let mut client = Client::tls(site.server.address(), &config, "localhost")
                .expect("the handshake goes through");
            let response = client.get("localhost", "/").expect("it is answered");
            assert_eq!(response.status(), 200);
            let kind = client.session().and_then(|s| s.handshake_kind());
            assert_eq!(kind, Some(expected), "connection {n} of {version:?}");
        }
    }
}

#[test]
fn openssl_resumes_sessions() {
    if !require("openssl") {
        return;
    }
    let backend = Backend::start("b");
    let site = Site::start(&backend, "");
    let port = site.server.address().port();
    for version in ["-tls1_2", "-tls1_3"] {
        let kept = site.folder.path().join(format!("session{version}"));
        let connect = |option: &str| {
            let mut command = Command::new("openssl");
            command
                .args(["s_client", version, "-ign_eof", "-verify_return_error"])
                .args(["-servername", "localhost", "-connect"])
                .arg(format!("127.0.0.1:{port}"))
                .arg("-CAfile")
                .arg(&site.certificate.ca)
                .arg(option)
                .arg(&kept);
            let request = "GET /s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
            let output = output_of(&mut command, request.into());
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(text.contains("GET /s "), "{command:?}: {text}");
            text
        };
        assert!(connect("-sess_out").contains("New, "));
        let again = connect("-sess_in");
        assert!(again.contains("Reused, "), "{version}: {again}");
    }
}

/// A client that speaks no TLS, and one that says nothing, harm nobody else.
#[test]
fn who_speaks_no_tls_is_turned_away() {
    let backend = Backend::start("b");
    let site = Site::start(&backend, "[defaults]\nhandshake_timeout = \"300ms\"\n");
    let mut plain = Client::plain(site.server.address());
    plain.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let (bytes, _) = plain.rest().expect("it ends");
    assert!(!bytes.starts_with(b"HTTP"), "{bytes:?}");
    let mut silent = Client::plain(site.server.address());
    assert_eq!(silent.rest(), Ok((Vec::new(), End::Closed)));
    let config = tls_config(&site.certificate.ca, &[&TLS13]);
    let mut good = Client::tls(site.server.address(), &config, "localhost").expect("it is TLS");
    assert_eq!(
        good.get("localhost", "/").expect("it is answered").text(),
        "GET / "
    );
    assert_eq!(backend.requests(), 1);
}

#[test]
fn a_listener_redirects_to_https() {
    if !require("curl") {
        return;
    }
    let backend = Backend::start("b");
    let server = Server::binary(&format!(
        r#"
        [[listener]]
        name = "plain"
        address = "127.0.0.1:0"
        protocol = "http"
        redirect = "https"
        [[listener]]
        name = "elsewhere"
        address = "127.0.0.1:0"
        protocol = "http"
        redirect = {{ to = "https", port = 8443, status = 301 }}
        [[service]]
        name = "b"
        discover = {{ static = ["{}"] }}
        [[route]]
        service = "b"
        "#,
        backend.address
    ));
    for (at, expected) in [
        (0, "308 https://shop.test/a/b?c=%20d"),
        (1, "301 https://shop.test:8443/a/b?c=%20d"),
    ] {
        let url = format!(
            "http://shop.test:{}/a/b?c=%20d",
            server.addresses[at].port()
        );
        let seen = text(
            Command::new("curl")
                .args(["--silent", "--noproxy", "*", "--connect-to", "::127.0.0.1:"])
                .args(["--write-out", "%{http_code} %{redirect_url}"])
                .arg(url),
        );
        assert_eq!(seen, expected);
    }
    assert_eq!(backend.requests(), 0);
}

/// One connection of curl's for several requests, and one of ours behind it.
#[test]
fn connections_are_kept_on_both_sides() {
    if !require("curl") {
        return;
    }
    let backend = Backend::start("b");
    let site = Site::start(&backend, "");
    let mut command = curl(&site.certificate.ca);
    command.args(["--write-out", "%{num_connects}\n"]);
    for n in 0..10 {
        command.arg(site.url(&format!("/{n}")));
    }
    let seen = text(&mut command);
    let expected: String = (0..10)
        .map(|n| format!("GET /{n} {}\n", usize::from(n == 0)))
        .collect();
    assert_eq!(seen, expected);
    assert_eq!(backend.connections(), 1);
}

/// What curl can do that our own clients do not: HEAD, HTTP/1.0, an upload in chunks, an upload
/// that waits for its 100, JSON for errors.
#[test]
fn curl_in_its_various_ways() {
    if !require("curl") {
        return;
    }
    let backend = Backend::start("b");
    let site = Site::start(&backend, "");
    let ca = &site.certificate.ca;
    let head = text(curl(ca).args(["--http1.1", "--head"]).arg(site.url("/h")));
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("Content-Length: 8\r\n"), "{head}");
    assert_eq!(
        text(curl(ca).arg("--http1.0").arg(site.url("/o"))),
        "GET /o "
    );
    let chunked = text(
        curl(ca)
            .args([
                "--header",
                "Transfer-Encoding: chunked",
                "--data-binary",
                "abc",
            ])
            .arg(site.url("/c")),
    );
    assert_eq!(chunked, "POST /c abc");
    backend.next(vec![
        Step::Head,
        Step::send("HTTP/1.1 100 Continue\r\n\r\n"),
        Step::Echo,
    ]);
    let expecting = text(
        curl(ca)
            .args([
                "--header",
                "Expect: 100-continue",
                "--expect100-timeout",
                "30",
            ])
            .args(["--data-binary", "abc"])
            .arg(site.url("/e")),
    );
    assert_eq!(expecting, "POST /e abc");
    backend.usually(vec![Step::Request, Step::send("nonsense\r\n\r\n")]);
    let failed = output(
        curl(ca)
            .args(["--header", "Accept: application/json"])
            .arg(site.url("/j")),
    );
    assert!(!failed.status.success());
    let json: serde_json::Value = serde_json::from_slice(&failed.stdout).expect("it is JSON");
    assert_eq!(json["status"], 502);
}

/// Python's own client over one TLS connection: mixed methods, bodies of known length and in
/// chunks, a body until the close, and errors in between.
#[test]
fn python_keeps_its_connection() {
    const SCRIPT: &str = r#"
import http.client, ssl, sys
port, ca = int(sys.argv[1]), sys.argv[2]
c = http.client.HTTPSConnection("localhost", port, context=ssl.create_default_context(cafile=ca), timeout=30)
c.connect()
sock = c.sock
for n in range(50):
    for method, body, chunked in (("GET", None, False), ("POST", b"abc" * n, False), ("PUT", iter([b"de", b"f"] * n), True),
                                  ("DELETE", None, False), ("HEAD", None, False)):
        c.request(method, f"/{n}", body=body, headers={"Transfer-Encoding": "chunked"} if chunked else {}, encode_chunked=chunked)
        r = c.getresponse()
        data = r.read()
        sent = b"def" * n if chunked else body or b""
        expected = b"" if method == "HEAD" else f"{method} /{n} ".encode() + sent
        assert r.status == 200 and data == expected, (method, n, r.status, data)
        assert c.sock is sock, (method, n)
print("fine")
"#;
    if !require("python3") {
        return;
    }
    let backend = Backend::start("b");
    let site = Site::start(&backend, "");
    let seen = text(
        Command::new("python3")
            .args(["-c", SCRIPT])
            .arg(site.server.address().port().to_string())
            .arg(&site.certificate.ca),
    );
    assert_eq!(seen, "fine\n");
    assert_eq!(backend.requests(), 250);
}
