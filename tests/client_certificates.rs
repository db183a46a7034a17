//! Clients that show certificates: who is let in, what the backend is told, and that nobody can say
//! it himself.

mod support;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind, RootCertStore, SupportedProtocolVersion};

use support::backend::Backend;
use support::client::{Client, tls_config};
use support::server::{Certificate, Folder, Server, output, output_of};
use support::wire::Message;
use support::{require, wait_until};

/// Who issues certificates for clients.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// One that was issued.
struct Issued {
    cert: PathBuf,
    key: PathBuf,
    der: Vec<u8>,
}

impl Authority {
    fn new(name: &str) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).expect("no names are sound");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name = named(&[(DnType::CommonName, name)]);
        let key = KeyPair::generate().expect("there is randomness");
        let pem = params.self_signed(&key).expect("it can be signed").pem();
        Authority {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    /// A certificate for a client, with that serial number; `change` makes another one of it.
    fn issue(
        &self,
        folder: &Folder,
        serial: u64,
        subject: &[(DnType, &str)],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Issued {
        let mut params = CertificateParams::new(Vec::new()).expect("no names are sound");
        params.serial_number = Some(SerialNumber::from(serial));
        params.distinguished_name = named(subject);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let key = KeyPair::generate().expect("there is randomness");
        let made = params.signed_by(&key, &self.issuer);
        let made = made.expect("it can be signed");
        let name = format!("{serial}-{}", fastrand::u64(..));
        Issued {
            cert: folder.write(&format!("{name}.pem"), &made.pem()),
            key: folder.write(&format!("{name}.key"), &key.serialize_pem()),
            der: made.der().to_vec(),
        }
    }

    /// A list that revokes one serial number.
    fn revoke(&self, serial: u64, next_update: i32) -> String {
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(next_update, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams {
                serial_number: SerialNumber::from(serial),
                revocation_time: date_time_ymd(2020, 1, 1),
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let signed = list.signed_by(&self.issuer).expect("it can be signed");
        signed.pem().expect("it can be written")
    }
}

fn named(subject: &[(DnType, &str)]) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    for (kind, value) in subject {
        name.push(kind.clone(), *value);
    }
    name
}

const ANA: &[(DnType, &str)] = &[
    (DnType::OrganizationName, "Keel, Sons"),
    (DnType::CommonName, "ana"),
];
const ANA_TEXT: &str = r"CN=ana,O=Keel\, Sons";

/// Listeners: certificates required; optional, and the whole one passed on; optional behind a peer
/// that is trusted; nobody is asked; plain.
struct Site {
    server: Server,
    backend: Backend,
    certificate: Certificate,
    authority: Authority,
    folder: Folder,
}

const REQUIRED: usize = 0;
const OPTIONAL: usize = 1;
const NOT_ASKED: usize = 2;
const PLAIN: usize = 3;

impl Site {
    fn start(more: &str) -> Site {
        Site::run(Server::in_process, "", more)
    }

    fn run(run: impl FnOnce(&str) -> Server, crl: &str, more: &str) -> Site {
        let authority = Authority::new("Clients of Keel");
        Site::of(run, authority, crl, "", more)
    }

    fn of(
        run: impl FnOnce(&str) -> Server,
        authority: Authority,
        crl: &str,
        top: &str,
        more: &str,
    ) -> Site {
        let backend = Backend::start("b");
        let folder = Folder::new();
        let certificate = folder.certificate("default", &["localhost"]);
        let ca = folder.write("clients.pem", &authority.pem);
        let entry = certificate.entry();
        let crl = match crl {
            "" => String::new(),
            text => format!(
                "crl = \"{}\", ",
                folder.write("revoked.pem", text).display()
            ),
        };
        let wants = format!("ca = \"{}\", {crl}", ca.display());
        let server = run(&format!(
            r#"
            {top}
            [[listener]]
            name = "required"
            address = "127.0.0.1:0"
            protocol = "https"
            certificates = [{entry}]
            client_certificates = {{ {wants} mode = "required" }}
            [[listener]]
            name = "optional"
            address = "127.0.0.1:0"
            protocol = "https"
            certificates = [{entry}]
            client_certificates = {{ {wants} mode = "optional", pass_whole = true }}
            [[listener]]
            name = "not-asked"
            address = "127.0.0.1:0"
            protocol = "https"
            certificates = [{entry}]
            [[listener]]
            name = "plain"
            address = "127.0.0.1:0"
            protocol = "http"
            [http]
            allow_underscores = true
            [[service]]
            name = "web"
            discover = {{ static = ["{}"] }}
            [[route]]
            service = "web"
            {more}
            "#,
            backend.address,
        ));
        Site {
            server,
            backend,
            certificate,
            authority,
            folder,
        }
    }

    fn address(&self, listener: usize) -> SocketAddr {
        self.server.addresses[listener]
    }

    fn ana(&self) -> Issued {
        self.authority.issue(&self.folder, 1, ANA, |_| ())
    }

    /// The only request that has come since the last look.
    fn request(&self) -> Message {
        self.backend.await_requests(1);
        let mut taken = self.backend.take();
        assert_eq!(taken.len(), 1, "{taken:?}");
        taken.remove(0).whole.expect("it is whole")
    }

    /// Fields of that request about a certificate, in order.
    fn told(&self) -> Vec<(String, String)> {
        let fields = self.request().fields;
        let about = |name: &str| name.contains("cert") || name.contains("ssl");
        fields.into_iter().filter(|(name, _)| about(name)).collect()
    }

    /// A client of ours with this certificate, or without one.
    fn client(
        &self,
        shows: Option<&Issued>,
        version: &'static SupportedProtocolVersion,
    ) -> Arc<ClientConfig> {
        let Some(issued) = shows else {
            return tls_config(&self.certificate.ca, &[version]);
        };
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_file(&self.certificate.ca).expect("it was written");
        roots.add(ca).expect("it is a certificate");
        let chain = vec![CertificateDer::from_pem_file(&issued.cert).expect("it was written")];
        let key = PrivateKeyDer::from_pem_file(&issued.key).expect("it was written");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .expect("the provider has it")
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .expect("they belong together");
        Arc::new(config)
    }

    fn get(&self, listener: usize, config: &Arc<ClientConfig>) -> (u16, HandshakeKind) {
        let client = Client::tls(self.address(listener), config, "localhost");
        let mut client = client.expect("the handshake is made");
        let status = client.get("a", "/").expect("it is served").status();
        let kind = client
            .session()
            .and_then(|session| session.handshake_kind());
        (status, kind.expect("the handshake is made"))
    }

    /// What OpenSSL says of a handshake and of a request behind it, with this certificate.
    fn openssl(&self, listener: usize, version: &str, shows: Option<&Issued>) -> String {
        let mut command = Command::new("openssl");
        command
            .args([
                "s_client",
                version,
                "-ign_eof",
                "-servername",
                "localhost",
                "-connect",
            ])
            .arg(self.address(listener).to_string())
            .arg("-CAfile")
            .arg(&self.certificate.ca);
        if let Some(issued) = shows {
            command
                .arg("-cert")
                .arg(&issued.cert)
                .arg("-key")
                .arg(&issued.key);
        }
        let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        let output = output_of(&mut command, request.to_vec());
        let out = String::from_utf8_lossy(&output.stdout);
        format!("{out}{}", String::from_utf8_lossy(&output.stderr))
    }
}

fn fingerprint(der: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der);
    let bytes = digest.as_ref().iter();
    bytes.map(|b| format!("{b:02x}")).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    expected.iter().map(pair).collect()
}

#[test]
fn the_backend_is_told_who_the_client_is() {
    let mut site = Site::run(Server::binary, "", "[log]\naccess = \"json\"\n");
    let ana = site.ana();
    let print = fingerprint(&ana.der);
    let whole = format!(":{}:", data_encoding::BASE64.encode(&ana.der));
    let told = [
        ("x-client-cert-verified", "SUCCESS"),
        ("x-client-cert-subject", ANA_TEXT),
        ("x-client-cert-fingerprint", &*print),
        ("client-cert", &*whole),
    ];
    for version in [&TLS12, &TLS13] {
        let shows = site.client(Some(&ana), version);
        assert_eq!(site.get(REQUIRED, &shows).0, 200);
        assert_eq!(site.told(), pairs(&told[..3]));
        assert_eq!(site.get(OPTIONAL, &shows).0, 200);
        assert_eq!(site.told(), pairs(&told));
        // Nobody wanted to see it.
        assert_eq!(site.get(NOT_ASKED, &shows).0, 200);
        assert_eq!(site.told(), []);
        let without = site.client(None, version);
        assert_eq!(site.get(OPTIONAL, &without).0, 200);
        assert_eq!(site.told(), pairs(&[("x-client-cert-verified", "NONE")]));
    }
    wait_until("all are in the access log", || {
        site.server.process().access().len() == 8
    });
    let logged = site.server.process().access();
    let subject: Vec<_> = logged
        .iter()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("it is JSON"))
        .filter_map(|line| Some(line.get("client_cert")?.as_str()?.to_owned()))
        .collect();
    assert_eq!(subject, [ANA_TEXT; 4]);
}

#[test]
fn what_a_subject_holds_stays_in_its_field() {
    let site = Site::start("");
    let subject = [
        (DnType::OrganizationName, "Čamci\r\nX-Admin: 1"),
        (DnType::CommonName, " \u{0}eve\u{9b}\",CN=ana"),
    ];
    let eve = site.authority.issue(&site.folder, 7, &subject, |_| ());
    assert_eq!(site.get(REQUIRED, &site.client(Some(&eve), &TLS13)).0, 200);
    let request = site.request();
    assert_eq!(
        request.field("x-client-cert-subject"),
        Some(r#"CN=\ \00eve\C2\9B\"\,CN=ana,O=\C4\8Camci\0D\0AX-Admin: 1"#)
    );
    assert_eq!(request.field("x-admin"), None);
    // Nobody in it at all.
    let none = site.authority.issue(&site.folder, 8, &[], |params| {
        params.subject_alt_names = vec![rcgen::SanType::DnsName(
            "c.example".try_into().expect("it is ASCII"),
        )];
    });
    assert_eq!(site.get(REQUIRED, &site.client(Some(&none), &TLS13)).0, 200);
    let told = [
        ("x-client-cert-verified", "SUCCESS"),
        ("x-client-cert-fingerprint", &*fingerprint(&none.der)),
    ];
    assert_eq!(site.told(), pairs(&told));
}

const FORGED: &str = "GET / HTTP/1.1\r\nHost: a\r\n\
    X-Client-Cert-Verified: SUCCESS\r\nX-Client-Cert-Subject: CN=root\r\n\
    x-CLIENT-cert-FINGERPRINT: 00\r\nClient-Cert: :AAAA:\r\nclient-cert-chain: :AAAA:\r\n\
    X_Client_Cert_Subject: CN=root\r\nX-Client_Cert-Verified: SUCCESS\r\nx_client-cert_fingerprint: 00\r\n\
    Client_Cert: :AAAA:\r\nCLIENT_CERT: x\r\nX-Forwarded-Client-Cert: x\r\nX_Forwarded_Client_Cert: x\r\n\
    SSL-Client-Verify: SUCCESS\r\nssl_client_s_dn: CN=root\r\nX-SSL-Client-Cert: x\r\nX_SSL_Client_DN: x\r\n\
    X-Amzn-Mtls-Clientcert: x\r\nX-ARR-ClientCert: x\r\nX-Other: cert\r\n\
    Connection: X-Client-Cert-Subject, X-Client-Cert-Verified\r\n\r\n";

#[test]
fn nobody_can_say_it_himself() {
    let site = Site::start("");
    let ana = site.ana();
    let shows = site.client(Some(&ana), &TLS13);
    let without = site.client(None, &TLS13);
    let print = fingerprint(&ana.der);
    let tls = |listener, config| {
        let client = Client::tls(site.address(listener), config, "localhost");
        client.expect("the handshake is made")
    };
    for (rule, mut client, expected) in [
        ("plain", Client::plain(site.address(PLAIN)), &[][..]),
        ("nobody is asked", tls(NOT_ASKED, &shows), &[]),
        (
            "none is shown",
            tls(OPTIONAL, &without),
            &[("x-client-cert-verified", "NONE")],
        ),
        (
            "another one is shown",
            tls(REQUIRED, &shows),
            &[
                ("x-client-cert-verified", "SUCCESS"),
                ("x-client-cert-subject", ANA_TEXT),
                ("x-client-cert-fingerprint", &*print),
            ],
        ),
    ] {
        client.send(FORGED);
        assert_eq!(
            client.response().expect("it is served").status(),
            200,
            "{rule}"
        );
        let request = site.request();
        assert_eq!(request.field("x-other"), Some("cert"), "{rule}");
        let about = |name: &str| name.contains("cert") || name.contains("ssl");
        let told: Vec<_> = request
            .fields
            .into_iter()
            .filter(|(name, _)| about(name))
            .collect();
        assert_eq!(told, pairs(expected), "{rule}");
        // In a trailer neither.
        client.send(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\
             X-Client-Cert-Subject: CN=root\r\nX-Client-Cert-Verified: SUCCESS\r\n\r\n",
        );
        assert_eq!(
            client.response().expect("it is served").status(),
            200,
            "{rule}"
        );
        site.backend.await_requests(1);
        let taken = site.backend.take();
        let bytes = String::from_utf8_lossy(&taken[0].bytes).into_owned();
        assert!(!bytes.contains("CN=root"), "{rule}: {bytes}");
    }
}

/// It may end TLS itself, and speak of its own client.
#[test]
fn what_a_trusted_proxy_says_is_kept() {
    let authority = Authority::new("Clients of Keel");
    let trusting = "trusted_proxies = [\"127.0.0.1\"]\n";
    let site = Site::of(Server::in_process, authority, "", trusting, "");
    let ana = site.ana();
    let shows = site.client(Some(&ana), &TLS13);
    let tls = |listener, config| {
        let client = Client::tls(site.address(listener), config, "localhost");
        client.expect("the handshake is made")
    };
    let print = fingerprint(&ana.der);
    let says = "X-Client-Cert-Subject: CN=bob\r\n";
    let kept = [("x-client-cert-subject", "CN=bob")];
    let own = [
        ("x-client-cert-verified", "SUCCESS"),
        ("x-client-cert-subject", ANA_TEXT),
        ("x-client-cert-fingerprint", &*print),
    ];
    let envoy = [("x-forwarded-client-cert", "Hash=00")];
    for (rule, mut client, says, expected) in [
        (
            "over plain",
            Client::plain(site.address(PLAIN)),
            says,
            &kept[..],
        ),
        ("beside its own", tls(REQUIRED, &shows), says, &kept),
        (
            "in other words",
            tls(REQUIRED, &shows),
            "X-Forwarded-Client-Cert: Hash=00\r\n",
            &envoy,
        ),
        ("of itself alone", tls(REQUIRED, &shows), "", &own),
    ] {
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{says}\r\n"));
        assert_eq!(
            client.response().expect("it is served").status(),
            200,
            "{rule}"
        );
        assert_eq!(site.told(), pairs(expected), "{rule}");
    }
}

/// The alerts of RFC 8446 §6.2 and RFC 5246 §7.2.2, and no request behind any of them.
#[test]
fn who_is_not_let_in_is_told_why() {
    if !require("openssl") {
        return;
    }
    let authority = Authority::new("Clients of Keel");
    let list = authority.revoke(66, 2090);
    let site = Site::of(Server::in_process, authority, &list, "", "");
    let alike = Authority::new("Clients of Keel").issue(&site.folder, 2, ANA, |_| ());
    let issue = |serial, change: fn(&mut CertificateParams)| {
        site.authority.issue(&site.folder, serial, ANA, change)
    };
    let ana = site.ana();
    let stranger = Authority::new("Others").issue(&site.folder, 2, ANA, |_| ());
    let expired = issue(3, |params| params.not_after = date_time_ymd(2021, 1, 1));
    let early = issue(4, |params| params.not_before = date_time_ymd(2080, 1, 1));
    let server = issue(5, |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    let revoked = issue(66, |_| ());
    for version in ["-tls1_2", "-tls1_3"] {
        for listener in [REQUIRED, OPTIONAL] {
            let said = site.openssl(listener, version, Some(&ana));
            assert!(said.contains("HTTP/1.1 200"), "{version}: {said}");
            for (rule, shown, alert) in [
                // TLS 1.2 knows only 40, and rustls says in its handshake too what 1.3 calls it.
                ("none", None, "SSL alert number 116"),
                (
                    "of another authority",
                    Some(&stranger),
                    "SSL alert number 48",
                ),
                ("of one with its name", Some(&alike), "SSL alert number 51"),
                ("expired", Some(&expired), "SSL alert number 45"),
                ("not valid yet", Some(&early), "SSL alert number"),
                ("for servers", Some(&server), "SSL alert number 43"),
                ("revoked", Some(&revoked), "SSL alert number 44"),
            ] {
                let said = site.openssl(listener, version, shown);
                if shown.is_none() && listener == OPTIONAL {
                    assert!(said.contains("HTTP/1.1 200"), "{rule} {version}: {said}");
                } else {
                    assert!(said.contains(alert), "{rule} {version}: {said}");
                    assert!(!said.contains("HTTP/1.1"), "{rule} {version}: {said}");
                }
            }
        }
    }
    // The good ones, and those without on the listener that does not mind.
    assert_eq!(site.backend.requests(), 6);
}

#[test]
fn a_revocation_list_that_has_expired_lets_nobody_in() {
    let authority = Authority::new("Clients of Keel");
    let list = authority.revoke(66, 2021);
    let site = Site::of(Server::in_process, authority, &list, "", "");
    let ana = site.ana();
    let mut client = Client::tls(
        site.address(REQUIRED),
        &site.client(Some(&ana), &TLS12),
        "localhost",
    );
    assert!(client.is_err(), "{client:?}");
    client = Client::tls(
        site.address(OPTIONAL),
        &site.client(None, &TLS12),
        "localhost",
    );
    assert_eq!(
        client
            .expect("none was shown")
            .get("a", "/")
            .expect("it is served")
            .status(),
        200
    );
}

#[test]
fn sessions_resume_with_their_certificate_and_on_their_listener_alone() {
    let site = Site::start("");
    let ana = site.ana();
    for version in [&TLS12, &TLS13] {
        let shows = site.client(Some(&ana), version);
        let subject = || {
            let request = site.request();
            request.field("x-client-cert-subject").map(str::to_owned)
        };
        let (status, kind) = site.get(REQUIRED, &shows);
        assert_eq!((status, kind), (200, HandshakeKind::Full));
        assert_eq!(subject().as_deref(), Some(ANA_TEXT));
        let (status, kind) = site.get(REQUIRED, &shows);
        assert_eq!((status, kind), (200, HandshakeKind::Resumed));
        assert_eq!(subject().as_deref(), Some(ANA_TEXT));
        // The client remembers the session by the server's name, and offers it here too.
        for listener in [OPTIONAL, NOT_ASKED, REQUIRED] {
            let (status, kind) = site.get(listener, &shows);
            assert_eq!((status, kind), (200, HandshakeKind::Full), "{listener}");
            let expected = (listener != NOT_ASKED).then_some(ANA_TEXT);
            assert_eq!(subject().as_deref(), expected, "{listener}");
        }
        // One that began without a certificate stays without.
        let without = site.client(None, version);
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            assert_eq!(site.get(OPTIONAL, &without), (200, kind));
            assert_eq!(site.told(), pairs(&[("x-client-cert-verified", "NONE")]));
        }
    }
    // A large one makes large tickets.
    let large = site.authority.issue(&site.folder, 9, ANA, |params| {
        let names = (0..120).map(|n| format!("{n}.{}.example", "n".repeat(40)));
        params.subject_alt_names = names
            .map(|name| rcgen::SanType::DnsName(name.try_into().expect("it is ASCII")))
            .collect();
    });
    assert!(large.der.len() > 6 * 1024);
    for version in [&TLS12, &TLS13] {
        let shows = site.client(Some(&large), version);
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            assert_eq!(site.get(OPTIONAL, &shows), (200, kind));
            assert_eq!(site.told().len(), 4);
        }
    }
    // And does not get in where one is required.
    let without = site.client(None, &TLS12);
    assert_eq!(site.get(OPTIONAL, &without).0, 200);
    let refused = Client::tls(site.address(REQUIRED), &without, "localhost");
    assert!(refused.is_err(), "{refused:?}");
    assert_eq!(site.backend.take().len(), 1);
}

#[test]
fn curl_shows_its_certificate() {
    if !require("curl") {
        return;
    }
    let site = Site::start("");
    let ana = site.ana();
    let curl = |listener: usize, shows: Option<&Issued>, version: &str, http: &str| {
        let mut command = Command::new("curl");
        let port = site.address(listener).port();
        command
            .args([
                "--silent",
                "--show-error",
                "--fail",
                "--noproxy",
                "*",
                "--max-time",
                "20",
            ])
            .args(["--tls-max", version, http, "--cacert"])
            .arg(&site.certificate.ca)
            .args(["--resolve", &format!("localhost:{port}:127.0.0.1")])
            .args([
                "-H",
                "X-Client-Cert-Subject: CN=root",
                "-H",
                "X-Client-Cert-Verified: SUCCESS",
            ])
            .args([
                "-H",
                "x_client_cert_verified: SUCCESS",
                "-H",
                "Client-Cert: :AAAA:",
            ])
            .arg(format!("https://localhost:{port}/"));
        if let Some(issued) = shows {
            command
                .arg("--cert")
                .arg(&issued.cert)
                .arg("--key")
                .arg(&issued.key);
        }
        output(&mut command)
    };
    let protocols = ["--http1.1", "--http2"];
    for (version, http) in ["1.2", "1.3"]
        .into_iter()
        .flat_map(|version| protocols.map(|http| (version, http)))
    {
        for listener in [REQUIRED, OPTIONAL] {
            let ended = curl(listener, Some(&ana), version, http);
            assert!(ended.status.success(), "{ended:?}");
            assert_eq!(
                site.request().field("x-client-cert-subject"),
                Some(ANA_TEXT)
            );
        }
        let ended = curl(OPTIONAL, None, version, http);
        assert!(ended.status.success(), "{ended:?}");
        assert_eq!(site.told(), pairs(&[("x-client-cert-verified", "NONE")]));
        let ended = curl(REQUIRED, None, version, http);
        assert!(!ended.status.success(), "{ended:?}");
    }
    assert_eq!(site.backend.take().len(), 0);
}

#[test]
fn check_loads_authorities_and_lists() {
    let folder = Folder::new();
    let authority = Authority::new("Clients of Keel");
    let certificate = folder.certificate("default", &["localhost"]);
    let ca = folder.write("clients.pem", &authority.pem);
    let crl = folder.write("revoked.pem", &authority.revoke(1, 2090));
    let old = folder.write("old.pem", &authority.revoke(1, 2021));
    let check = |wants: &str| {
        let file = folder.write(
            "evenkeel.toml",
            &format!(
                "[[listener]]\nname = \"front\"\naddress = \"127.0.0.1:8443\"\nprotocol = \"https\"\n\
                 certificates = [{}]\nclient_certificates = {{ {wants} }}\n\
                 [[service]]\nname = \"a\"\ndiscover = {{ static = \"127.0.0.1:1\" }}\n\
                 [[route]]\nservice = \"a\"\n",
                certificate.entry()
            ),
        );
        let mut command = support::server::binary();
        let output = output(command.arg("check").arg(file));
        let out = String::from_utf8_lossy(&output.stdout);
        (
            output.status.code(),
            format!("{out}{}", String::from_utf8_lossy(&output.stderr)),
        )
    };
    let of = |file: &Path| format!("\"{}\"", file.display());
    let (ca, crl, old, key) = (of(&ca), of(&crl), of(&old), of(&certificate.key));
    for (wants, code, says) in [
        (format!("ca = {ca}"), 0, "clients' certificates required"),
        (
            format!("ca = {ca}, crl = {crl}, mode = \"optional\""),
            0,
            "clients' certificates optional",
        ),
        (
            format!("ca = {ca}, crl = {old}"),
            0,
            "was to be renewed by 2021-01-01T00:00:00Z",
        ),
        (
            format!("ca = {key}"),
            1,
            "no certificate in it: the authorities of clients' certificates are wanted",
        ),
        (
            format!("ca = {ca}, crl = {ca}"),
            1,
            "no certificate revocation list in it",
        ),
    ] {
        let (ended, said) = check(&wants);
        assert_eq!(ended, Some(code), "{wants}: {said}");
        assert!(said.contains(says), "{wants}: {said}");
    }
}
