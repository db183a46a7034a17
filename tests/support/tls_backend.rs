//! Backends that speak TLS, or expect a PROXY header, or both, and say what they saw of it; and
//! authorities that issue whatever certificate is asked for.

#![allow(dead_code, reason = "each test file uses the part that it needs")]

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{HandshakeKind, RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use crate::support::backend::Backend;
use crate::support::server::Folder;
use crate::support::{PATIENCE, lock, wait_until};

/// An authority with its key.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
}

/// A certificate with its key.
#[derive(Clone)]
pub struct Issued {
    /// PEM.
    pub certificate: String,
    /// PEM.
    pub key: String,
}

/// When a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Valid {
    /// Now.
    Now,
    /// It has expired.
    Before,
    /// Not before years to come.
    Later,
}

impl Authority {
    /// A new one.
    pub fn new(name: &str) -> Authority {
        let mut params = params(&[], Valid::Now);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("there are random numbers");
        let made = params.self_signed(&key).expect("it is well formed");
        Authority {
            certificate: made.der().clone(),
            pem: made.pem(),
            issuer: Issuer::new(params, key),
        }
    }

    /// Issues one for servers and clients.
    pub fn issue(&self, names: &[&str], valid: Valid) -> Issued {
        let key = KeyPair::generate().expect("there are random numbers");
        let made = params(names, valid).signed_by(&key, &self.issuer);
        Issued {
            certificate: made.expect("it is well formed").pem(),
            key: key.serialize_pem(),
        }
    }

    /// Its certificate in a file.
    pub fn file(&self, folder: &Folder, name: &str) -> PathBuf {
        folder.write(name, &self.pem)
    }
}

/// One that nobody but itself vouches for.
pub fn self_signed(names: &[&str]) -> Issued {
    let key = KeyPair::generate().expect("there are random numbers");
    let made = params(names, Valid::Now).self_signed(&key);
    Issued {
        certificate: made.expect("it is well formed").pem(),
        key: key.serialize_pem(),
    }
}

fn params(names: &[&str], valid: Valid) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let first = names.first().cloned().unwrap_or_default();
    let mut params = CertificateParams::new(names).expect("the names are sound");
    params.distinguished_name.push(DnType::CommonName, first);
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let (from, until) = match valid {
        Valid::Now => (2020, 2120),
        Valid::Before => (2020, 2021),
        Valid::Later => (2110, 2120),
    };
    params.not_before = date_time_ymd(from, 1, 1);
    params.not_after = date_time_ymd(until, 1, 1);
    params
}

impl Issued {
    /// In two files, as a table of a configuration.
    pub fn entry(&self, folder: &Folder, name: &str) -> String {
        let cert = folder.write(&format!("{name}.pem"), &self.certificate);
        let key = folder.write(&format!("{name}.key"), &self.key);
        format!(
            "{{ cert = \"{}\", key = \"{}\" }}",
            cert.display(),
            key.display()
        )
    }

    /// A server with it; `clients`: who has to vouch for its clients, if anybody.
    pub fn server(
        &self,
        versions: &[&'static rustls::SupportedProtocolVersion],
        clients: Option<&Authority>,
    ) -> ServerConfig {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .expect("the provider has them");
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                let added = roots.add(authority.certificate.clone());
                added.expect("it is an authority");
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().expect("it has a root"))
            }
        };
        let chain: Result<Vec<_>, _> =
            rustls_pemfile::certs(&mut self.certificate.as_bytes()).collect();
        let key = rustls_pemfile::private_key(&mut self.key.as_bytes());
        let key: PrivateKeyDer<'static> = key.expect("it is PEM").expect("it is a key");
        builder
            .with_single_cert(chain.expect("it is PEM"), key)
            .expect("they belong together")
    }
}

/// What a backend saw of a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// The PROXY header, if one is expected.
    pub header: Vec<u8>,
    /// SNI.
    pub name: Option<String>,
    /// Its TLS resumed a session.
    pub resumed: bool,
    /// ALPN.
    pub alpn: Option<String>,
    /// The client had a certificate.
    pub certified: bool,
    /// Why the handshake failed.
    pub failed: Option<String>,
    /// Targets of the requests that came.
    pub requests: Vec<String>,
}

/// A backend; it ends with its value. A request for
///
/// - `/close` is answered with `Connection: close`;
/// - `/until-close` with a body that the end of the connection ends, and `/cut` with the same, but
///   without close_notify;
/// - `/rekey` as usual, and the keys are renewed when [`TlsBackend::rekey`] says so;
/// - `/tunnel` with 101, and then with what comes until that ends;
/// - anything else with 200 and the backend's name. A body is sent back.
pub struct TlsBackend {
    /// Where it listens.
    pub address: SocketAddr,
    backend: Backend,
    seen: Arc<Mutex<Vec<Seen>>>,
    rekeys: Arc<AtomicUsize>,
}

impl TlsBackend {
    /// Speaks TLS.
    pub fn tls(name: &str, config: ServerConfig) -> TlsBackend {
        TlsBackend::start(name, false, Some(config))
    }

    /// Expects a PROXY header in front of everything; then TLS, if there is a configuration.
    pub fn introduced(name: &str, config: Option<ServerConfig>) -> TlsBackend {
        TlsBackend::start(name, true, config)
    }

    fn start(name: &str, header: bool, config: Option<ServerConfig>) -> TlsBackend {
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (notes, config) = (Arc::clone(&seen), config.map(Arc::new));
        let rekeys: Arc<AtomicUsize> = Arc::default();
        let told = Arc::clone(&rekeys);
        let body = name.to_owned();
        let backend = Backend::custom(name, move |stream| {
            let index = {
                let mut seen = lock(&notes);
                seen.push(Seen::default());
                seen.len() - 1
            };
            let note = |write: &dyn Fn(&mut Seen)| {
                if let Some(seen) = lock(&notes).get_mut(index) {
                    write(seen);
                }
            };
            // It ends when its client does.
            let _ = serve(stream, header, config.as_ref(), &body, &note, &told);
        });
        TlsBackend {
            address: backend.address,
            backend,
            seen,
            rekeys,
        }
    }

    /// Has the connection of a `/rekey` that was answered renew its keys, and waits until it has.
    pub fn rekey(&self) {
        let done = || {
            let seen = lock(&self.seen);
            let all = seen.iter().flat_map(|seen| &seen.requests);
            all.filter(|request| *request == "rekeyed").count()
        };
        let before = done();
        self.rekeys.fetch_add(1, Ordering::SeqCst);
        wait_until("the keys are renewed", || done() > before);
    }

    /// What was seen of its connections, in order.
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.seen).clone()
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.backend.connections()
    }
}

type Note<'a> = &'a dyn Fn(&dyn Fn(&mut Seen));

fn serve(
    mut stream: TcpStream,
    header: bool,
    config: Option<&Arc<ServerConfig>>,
    body: &str,
    note: Note<'_>,
    rekeys: &AtomicUsize,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(3 * PATIENCE))?;
    if header {
        let header = read_header(&mut stream)?;
        note(&|seen| seen.header.clone_from(&header));
    }
    let Some(config) = config else {
        while answer(&mut stream, body, note)? == After::Next {}
        return Ok(());
    };
    let session = ServerConnection::new(Arc::clone(config)).expect("it is complete");
    let mut tls = StreamOwned::new(session, stream);
    while tls.conn.is_handshaking() {
        if let Err(e) = tls.conn.complete_io(&mut tls.sock) {
            note(&|seen| seen.failed = Some(e.to_string()));
            return Err(e);
        }
    }
    note(&|seen| {
        seen.name = tls.conn.server_name().map(str::to_owned);
        seen.resumed = tls.conn.handshake_kind() == Some(HandshakeKind::Resumed);
        let alpn = tls.conn.alpn_protocol();
        seen.alpn = alpn.map(|alpn| String::from_utf8_lossy(alpn).into_owned());
        seen.certified = tls.conn.peer_certificates().is_some();
    });
    loop {
        match answer(&mut tls, body, note)? {
            After::Next => {}
            After::Rekey => {
                wait_until("the keys are to be renewed", || {
                    let (told, one_less) = (Ordering::SeqCst, |n: usize| n.checked_sub(1));
                    rekeys.fetch_update(told, told, one_less).is_ok()
                });
                tls.conn.refresh_traffic_keys().map_err(io::Error::other)?;
                tls.flush()?;
                note(&|seen| seen.requests.push("rekeyed".to_owned()));
            }
            After::Close => {
                tls.conn.send_close_notify();
                tls.flush()?;
                return Ok(());
            }
            After::Cut => return Ok(()),
            After::Tunnel => {
                let mut room = [0; 4096];
                loop {
                    let n = tls.read(&mut room)?;
                    if n == 0 {
                        tls.conn.send_close_notify();
                        return tls.flush();
                    }
                    tls.write_all(&room[..n])?;
                    tls.flush()?;
                }
            }
        }
    }
}

/// Byte by byte, so that nothing of what follows is taken.
fn read_header(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut header = Vec::new();
    let mut next = |header: &mut Vec<u8>| {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        header.push(byte[0]);
        io::Result::Ok(())
    };
    while header.len() < 12 {
        next(&mut header)?;
    }
    if header.starts_with(b"PROXY ") {
        while !header.ends_with(b"\r\n") {
            next(&mut header)?;
        }
        return Ok(header);
    }
    while header.len() < 16 {
        next(&mut header)?;
    }
    let length = u16::from_be_bytes([header[14], header[15]]);
    while header.len() < 16 + usize::from(length) {
        next(&mut header)?;
    }
    Ok(header)
}

#[derive(Debug, PartialEq, Eq)]
enum After {
    Next,
    Rekey,
    Close,
    Cut,
    Tunnel,
}

fn answer(stream: &mut (impl Read + Write), body: &str, note: Note<'_>) -> io::Result<After> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
    note(&|seen| seen.requests.push(target.clone()));
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let body = match length {
        None | Some(0) => body.as_bytes().to_vec(),
        Some(length) => {
            let mut body = vec![0; length];
            stream.read_exact(&mut body)?;
            body
        }
    };
    if target == "/tunnel" {
        let switched = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                        Upgrade: websocket\r\n\r\n";
        stream.write_all(switched.as_bytes())?;
        stream.flush()?;
        return Ok(After::Tunnel);
    }
    let (fields, after) = match target.as_str() {
        "/close" => ("Connection: close\r\n", After::Close),
        "/until-close" => ("", After::Close),
        "/cut" => ("", After::Cut),
        "/rekey" => ("", After::Rekey),
        _ => ("", After::Next),
    };
    let length = match target.as_str() {
        "/until-close" | "/cut" => String::new(),
        _ => format!("Content-Length: {}\r\n", body.len()),
    };
    let mut response = format!("HTTP/1.1 200 OK\r\n{fields}{length}\r\n").into_bytes();
    response.extend_from_slice(&body);
    stream.write_all(&response)?;
    stream.flush()?;
    Ok(after)
}
