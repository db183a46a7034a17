//! Certificates that are replaced on disk while the server runs: how deployments do that, and what
//! goes wrong on the way.

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use tokio::time::Instant;

use support::backend::Backend;
use support::client::{Client, tls_config};
use support::server::{Folder, Server};
use support::{pause, wait_until};

/// Less than the time between two looks that nobody asked for: who is seen so soon was heard of.
const SOON: Duration = Duration::from_secs(8);

/// Who issues the server's certificates.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    file: PathBuf,
}

/// A certificate for `localhost`, and its key.
struct Issued {
    cert: String,
    key: String,
    der: CertificateDer<'static>,
}

impl Authority {
    fn new(folder: &Folder) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).expect("no names are sound");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().expect("there is randomness");
        let pem = params.self_signed(&key).expect("it can be signed").pem();
        Authority {
            issuer: Issuer::new(params, key),
            file: folder.write("authority.pem", &pem),
        }
    }

    fn issue(&self) -> Issued {
        let names = vec!["localhost".to_owned()];
        let mut params = CertificateParams::new(names).expect("the name is sound");
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().expect("there is randomness");
        let made = params.signed_by(&key, &self.issuer);
        let made = made.expect("it can be signed");
        Issued {
            cert: made.pem(),
            key: key.serialize_pem(),
            der: made.der().clone(),
        }
    }
}

/// A server whose certificate is `tls.crt` and `tls.key` in a folder of its own.
struct Site {
    server: Server,
    authority: Authority,
    /// Where the certificate lies.
    place: PathBuf,
    _folder: Folder,
    _backend: Backend,
}

impl Site {
    /// `lay`: puts the first certificate into the folder.
    fn new(lay: impl FnOnce(&Path, &Issued)) -> (Site, Issued) {
        let folder = Folder::new();
        let authority = Authority::new(&folder);
        let backend = Backend::start("one");
        let place = folder.path().join("certificates");
        fs::create_dir(&place).expect("the folder can be written");
        let first = authority.issue();
        lay(&place, &first);
        let toml = format!(
            r#"
            workers = 2

            [[listener]]
            name = "front"
            address = "127.0.0.1:0"
            protocol = "https"
            certificates = [{{ cert = "{0}/tls.crt", key = "{0}/tls.key" }}]

            [[service]]
            name = "one"
            discover = {{ static = ["{1}"] }}

            [[route]]
            service = "one"
            "#,
            place.display(),
            backend.address,
        );
        let site = Site {
            server: Server::in_process(&toml),
            authority,
            place,
            _folder: folder,
            _backend: backend,
        };
        (site, first)
    }

    /// A client that knows no session yet.
    fn stranger(&self) -> Arc<ClientConfig> {
        tls_config(&self.authority.file, &[&TLS13])
    }

    fn connect(&self, client: &Arc<ClientConfig>) -> Client {
        let connected = Client::tls(self.server.addresses[0], client, "localhost");
        connected.expect("the certificate is good for the name")
    }

    /// The certificate that a new client is shown.
    fn shown(&self) -> CertificateDer<'static> {
        shown(&self.connect(&self.stranger()))
    }

    fn await_soon(&self, issued: &Issued) {
        let begun = Instant::now();
        while self.shown() != issued.der {
            assert!(begun.elapsed() < SOON, "nobody heard of the new one");
            pause(Duration::from_millis(10));
        }
    }

    /// The value of a series on the metrics page.
    fn metric(&self, series: &str) -> f64 {
        let value = self.server.metric(series);
        value.unwrap_or_else(|| panic!("there is no {series}"))
    }

    fn refused(&self) -> f64 {
        self.metric(r#"evenkeel_tls_certificate_reloads_total{result="refused"}"#)
    }

    fn replaced(&self) -> f64 {
        self.metric(r#"evenkeel_tls_certificate_reloads_total{result="replaced"}"#)
    }

    fn unusable(&self) -> f64 {
        self.metric("evenkeel_tls_certificates_unusable")
    }
}

fn shown(client: &Client) -> CertificateDer<'static> {
    let session = client.session().expect("it speaks TLS");
    let chain = session
        .peer_certificates()
        .expect("the server has shown one");
    chain[0].clone()
}

/// Writes the files as they are.
fn write(place: &Path, issued: &Issued) {
    fs::write(place.join("tls.crt"), &issued.cert).expect("the folder can be written");
    fs::write(place.join("tls.key"), &issued.key).expect("the folder can be written");
}

/// Writes other files and renames them.
fn rename_over(place: &Path, issued: &Issued) {
    for (name, text) in [("tls.crt", &issued.cert), ("tls.key", &issued.key)] {
        let beside = place.join("beside");
        fs::write(&beside, text).expect("the folder can be written");
        fs::rename(&beside, place.join(name)).expect("the folder can be written");
    }
}

/// As Kubernetes lays a Secret out: `tls.crt` leads by `..data` into a folder of its own for each
/// version, and a new version is one rename of `..data`.
fn swap_data(place: &Path, issued: &Issued) {
    let version = format!("..{}", fastrand::u64(..));
    fs::create_dir(place.join(&version)).expect("the folder can be written");
    write(&place.join(&version), issued);
    let before = fs::read_link(place.join("..data"));
    symlink(&version, place.join("..data_tmp")).expect("the folder can be written");
    fs::rename(place.join("..data_tmp"), place.join("..data")).expect("the folder can be written");
    match before {
        Ok(before) => fs::remove_dir_all(place.join(before)).expect("it is there"),
        Err(_) => {
            for name in ["tls.crt", "tls.key"] {
                let target = Path::new("..data").join(name);
                symlink(target, place.join(name)).expect("the folder can be written");
            }
        }
    }
}

#[test]
fn no_handshake_fails_while_certificates_are_swapped() {
    const ROUNDS: usize = 8;
    let (site, first) = Site::new(write);
    assert_eq!(site.shown(), first.der);
    let mut old = site.connect(&site.stranger());
    let known = site.stranger();
    let mut resuming = site.connect(&known);
    let answer = resuming.get("localhost", "/").expect("it is answered");
    assert_eq!(answer.status(), 200);

    let (over, made) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let mut client = site.connect(&site.stranger());
                    let answer = client.get("localhost", "/").expect("it is answered");
                    assert_eq!(answer.status(), 200);
                    made.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for round in 0..ROUNDS {
            let next = site.authority.issue();
            match round % 2 {
                0 => rename_over(&site.place, &next),
                _ => write(&site.place, &next),
            }
            site.await_soon(&next);
        }
        over.store(true, Ordering::Relaxed);
    });
    assert!(made.into_inner() > ROUNDS, "clients came all the time");

    // Who was there before has noticed nothing, and a session goes on under another certificate.
    assert_eq!(old.get("localhost", "/").expect("it lives").status(), 200);
    let again = site.connect(&known);
    let kind = again.session().expect("it speaks TLS").handshake_kind();
    assert_eq!(kind, Some(HandshakeKind::Resumed));
    assert_eq!(site.replaced(), ROUNDS as f64);
    assert_eq!(site.unusable(), 0.0);
}

#[test]
fn a_secret_of_kubernetes_is_followed_again_and_again() {
    let (site, first) = Site::new(swap_data);
    assert_eq!(site.shown(), first.der);
    for _ in 0..4 {
        let next = site.authority.issue();
        swap_data(&site.place, &next);
        site.await_soon(&next);
    }
    assert_eq!(site.refused(), 0.0);
}

#[test]
fn what_cannot_be_used_leaves_the_old_one() {
    let (site, first) = Site::new(write);
    let other = site.authority.issue();
    let half = &other.cert[..other.cert.len() / 2];
    let wrong: [(&str, &str, &str); 4] = [
        ("half of it", half, &other.key),
        ("nothing", "", ""),
        ("another one's key", &other.cert, &first.key),
        ("the other way round", &other.key, &other.cert),
    ];
    for (what, cert, key) in wrong {
        let refused = site.refused();
        fs::write(site.place.join("tls.crt"), cert).expect("the folder can be written");
        fs::write(site.place.join("tls.key"), key).expect("the folder can be written");
        wait_until(what, || site.refused() > refused);
        assert_eq!(site.shown(), first.der, "{what}");
        assert_eq!(site.unusable(), 1.0, "{what}");
    }
    let refused = site.refused();
    write(&site.place, &other);
    site.await_soon(&other);
    assert_eq!(site.unusable(), 0.0);
    assert_eq!(site.refused(), refused);
}

#[test]
fn authorities_of_clients_are_taken_up_too() {
    let folder = Folder::new();
    let own = folder.certificate("own", &["localhost"]);
    let folders = [Folder::new(), Folder::new()];
    let [old, new] = folders.each_ref().map(Authority::new);
    let trusted = folder.path().join("clients.pem");
    fs::copy(&old.file, &trusted).expect("the folder can be written");
    let backend = Backend::start("one");
    let server = Server::in_process(&format!(
        r#"
        [[listener]]
        address = "127.0.0.1:0"
        protocol = "https"
        certificates = [{}]
        client_certificates = {{ ca = "{}" }}

        [[service]]
        name = "one"
        discover = {{ static = ["{}"] }}

        [[route]]
        service = "one"
        "#,
        own.entry(),
        trusted.display(),
        backend.address,
    ));
    let [old_client, new_client] = [&old, &new].map(|by| with_certificate(&own.ca, &by.issue()));
    let is_served = |client: &Arc<ClientConfig>| {
        let client = Client::tls(server.addresses[0], client, "localhost");
        let answer = client.ok().map(|mut client| client.get("localhost", "/"));
        answer.is_some_and(|answer| answer.is_ok_and(|answer| answer.status() == 200))
    };
    assert!(is_served(&old_client) && !is_served(&new_client));
    fs::copy(&new.file, folder.path().join("beside")).expect("the folder can be written");
    fs::rename(folder.path().join("beside"), &trusted).expect("the folder can be written");
    wait_until("the new one is let in", || is_served(&new_client));
    assert!(!is_served(&old_client), "not even by its session");

    // A pair that is broken meanwhile stays as it was, and holds nothing up.
    fs::write(&own.key, "gone").expect("the folder can be written");
    fs::copy(&old.file, folder.path().join("beside")).expect("the folder can be written");
    fs::rename(folder.path().join("beside"), &trusted).expect("the folder can be written");
    wait_until("the old one is let in again", || is_served(&old_client));
    assert!(!is_served(&new_client), "it is trusted no more");
}

/// A client that shows a certificate, and remembers sessions.
fn with_certificate(ca: &Path, shown: &Issued) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(ca).expect("it was written");
    roots.add(ca).expect("it is a certificate");
    let chain = vec![shown.der.clone()];
    let key = PrivateKeyDer::from_pem_slice(shown.key.as_bytes()).expect("it is PEM");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        // There a refusal is part of the handshake.
        .with_protocol_versions(&[&TLS12])
        .expect("the provider has it")
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key);
    Arc::new(config.expect("they belong together"))
}

#[test]
fn a_folder_that_goes_and_comes_back() {
    let (site, first) = Site::new(write);
    fs::remove_dir_all(&site.place).expect("it is there");
    wait_until("it is missed", || site.unusable() == 1.0);
    assert_eq!(site.shown(), first.der);
    let next = site.authority.issue();
    fs::create_dir(&site.place).expect("it is gone");
    write(&site.place, &next);
    // Of a folder that was not there, nobody is told: it is looked for.
    wait_until("it is found", || site.shown() == next.der);
    let last = site.authority.issue();
    rename_over(&site.place, &last);
    site.await_soon(&last);
}
