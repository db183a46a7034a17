//! Debian's Pebble does not suggest when to renew (RFC 9773), so somebody in front of it does: passes
//! everything on as it is, adds `renewalInfo` to the directory, and answers for it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread;

use rustls::pki_types::CertificateDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::support::client::{Client, tls_config};
use crate::support::server::Certificate;
use crate::support::wire::{self, Kind, Message};
use crate::support::{PATIENCE, lock};

/// What was asked and ordered, oldest first.
#[derive(Debug, Default)]
pub struct Seen {
    /// Identifiers of the certificates about which it was asked.
    pub asked: Vec<String>,
    /// What each order says that it replaces.
    pub orders: Vec<Option<String>>,
}

/// Stands in front of an authority on its own port, for as long as the test lives.
pub struct Suggesting {
    pub port: u16,
    seen: Arc<Mutex<Seen>>,
}

impl Suggesting {
    /// In front of who listens on that port with this certificate. Its window for every certificate is
    /// the last minute.
    pub fn before(port: u16, certificate: &Certificate) -> Suggesting {
        let read = |file| std::fs::read(file).expect("it was written");
        let (chain, key) = (read(&certificate.cert), read(&certificate.key));
        let chain: Result<Vec<CertificateDer<'static>>, _> =
            rustls_pemfile::certs(&mut &*chain).collect();
        let key = rustls_pemfile::private_key(&mut &*key).expect("it is PEM");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has them")
            .with_no_client_auth()
            .with_single_cert(chain.expect("it is PEM"), key.expect("there is one"))
            .expect("they belong together");
        let trust = tls_config(&certificate.ca, rustls::ALL_VERSIONS);
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
        let own = listener.local_addr().expect("it is bound").port();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (config, noted) = (Arc::new(config), Arc::clone(&seen));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let connection =
                    ServerConnection::new(Arc::clone(&config)).expect("it is complete");
                let client = StreamOwned::new(connection, stream);
                let (trust, noted) = (Arc::clone(&trust), Arc::clone(&noted));
                thread::spawn(move || serve(client, (own, port), &trust, &noted));
            }
        });
        Suggesting { port: own, seen }
    }

    /// What was seen so far.
    pub fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        lock(&self.seen)
    }
}

type Stream = StreamOwned<ServerConnection, std::net::TcpStream>;

fn serve(
    mut client: Stream,
    (own, port): (u16, u16),
    trust: &Arc<rustls::ClientConfig>,
    seen: &Mutex<Seen>,
) {
    let _ = client.sock.set_read_timeout(Some(PATIENCE));
    let mut inbox = Vec::new();
    let mut room = [0; 16 * 1024];
    loop {
        let request = match wire::message(&inbox, Kind::Request, false) {
            Ok(Some(request)) => request,
            Ok(None) => match client.read(&mut room) {
                Ok(n @ 1..) => {
                    inbox.extend_from_slice(&room[..n]);
                    continue;
                }
                _ => return,
            },
            Err(wrong) => panic!("a client of the authority: {wrong}"),
        };
        inbox.drain(..request.raw.len());
        if client
            .write_all(&answered(&request, (own, port), trust, seen))
            .is_err()
        {
            return;
        }
        let _ = client.flush();
    }
}

fn answered(
    request: &Message,
    (own, port): (u16, u16),
    trust: &Arc<rustls::ClientConfig>,
    seen: &Mutex<Seen>,
) -> Vec<u8> {
    if let Some(id) = request.target().strip_prefix("/renewal-info/") {
        lock(seen).asked.push(id.to_owned());
        let now = std::time::SystemTime::now();
        let at = |seconds| {
            let time = now - std::time::Duration::from_secs(seconds);
            humantime::format_rfc3339_seconds(time).to_string()
        };
        let window = serde_json::json!({ "suggestedWindow": { "start": at(60), "end": at(1) } });
        return json(&window, "Retry-After: 3600\r\n");
    }
    if request.target().contains("order-plz") {
        lock(seen).orders.push(replaced(&request.body));
    }
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut authority = Client::tls(address, trust, "localhost").expect("it listens");
    authority.send(&request.raw);
    let kind = match request.method() {
        "HEAD" => Kind::ResponseToHead,
        _ => Kind::Response,
    };
    let answer = authority.message(kind).expect("it answers");
    if request.target() != "/dir" {
        return answer.raw;
    }
    let mut directory: serde_json::Value =
        serde_json::from_slice(&answer.body).expect("a directory is JSON");
    directory["renewalInfo"] = format!("https://127.0.0.1:{own}/renewal-info").into();
    json(&directory, "")
}

fn json(value: &serde_json::Value, fields: &str) -> Vec<u8> {
    let body = value.to_string();
    let length = body.len();
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{fields}Content-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// What a signed order says that it replaces (RFC 9773 §5).
fn replaced(signed: &[u8]) -> Option<String> {
    let signed: serde_json::Value = serde_json::from_slice(signed).expect("JSON");
    let payload = base64url(signed["payload"].as_str().expect("it has one"));
    let order: serde_json::Value = serde_json::from_slice(&payload).expect("JSON");
    order["replaces"].as_str().map(str::to_owned)
}

/// RFC 4648 §5, without padding.
pub fn base64url(text: &str) -> Vec<u8> {
    let alphabet = ('A'..='Z')
        .chain('a'..='z')
        .chain('0'..='9')
        .chain(['-', '_']);
    let alphabet: Vec<char> = alphabet.collect();
    let digit = |c| alphabet.iter().position(|a| *a == c).expect("base64url") as u32;
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0, 0);
    for c in text.chars() {
        (bits, held) = (bits << 6 | digit(c), held + 6);
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    bytes
}
