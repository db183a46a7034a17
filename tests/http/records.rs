//! A TLS client that makes its records itself: libraries do not send empty ones, which RFC 8446 §5.1
//! allows.

use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, ClientConnection, ConnectionTrafficSecrets, SupportedProtocolVersion};
use tokio::time::Instant;

use crate::support::backend::Backend;
use crate::support::client::{Client, tls_config, tls_config_with};
use crate::support::server::{Certificate, Folder, Server};
use crate::support::wire::{self, Kind, Message};
use crate::support::{PATIENCE, pause};

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// Content types (RFC 8446 §5.1).
const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;

/// As many empty ones as rustls takes one after the other (BoringSSL does the same).
const IN_A_ROW: usize = 32;

/// The client, after a handshake that rustls made.
struct Records {
    tcp: TcpStream,
    tls13: bool,
    sending: Direction,
    receiving: Direction,
    received: Vec<u8>,
    plain: Vec<u8>,
}

struct Direction {
    key: LessSafeKey,
    iv: [u8; 12],
    next: u64,
}

impl Direction {
    fn new((next, secrets): (u64, ConnectionTrafficSecrets)) -> Direction {
        let ConnectionTrafficSecrets::Aes256Gcm { key, iv } = secrets else {
            panic!("another cipher was asked for");
        };
        let key = UnboundKey::new(&AES_256_GCM, key.as_ref()).expect("it has its length");
        Direction {
            key: LessSafeKey::new(key),
            iv: iv.as_ref().try_into().expect("it has its length"),
            next,
        }
    }

    /// RFC 8446 §5.3.
    fn nonce13(&self) -> Nonce {
        let mut nonce = self.iv;
        for (byte, more) in nonce[4..].iter_mut().zip(self.next.to_be_bytes()) {
            *byte ^= more;
        }
        Nonce::assume_unique_for_key(nonce)
    }

    /// RFC 5288 §3: a part of it travels in the record.
    fn nonce12(&self, explicit: [u8; 8]) -> Nonce {
        let mut nonce = self.iv;
        nonce[4..].copy_from_slice(&explicit);
        Nonce::assume_unique_for_key(nonce)
    }

    /// RFC 5246 §6.2.3.3.
    fn additional12(&self, kind: u8, length: usize) -> [u8; 13] {
        let mut data = [0; 13];
        data[..8].copy_from_slice(&self.next.to_be_bytes());
        data[8..11].copy_from_slice(&[kind, 3, 3]);
        data[11..].copy_from_slice(&(length as u16).to_be_bytes());
        data
    }
}

impl Records {
    fn connect(
        server: &Server,
        ca: &Certificate,
        version: &'static SupportedProtocolVersion,
    ) -> Records {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.cipher_suites.retain(|suite| {
            let suite = suite.suite();
            suite == CipherSuite::TLS13_AES_256_GCM_SHA384
                || suite == CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
        });
        let mut config = tls_config_with(provider, &ca.ca, &[version]);
        config.enable_secret_extraction = true;
        let name = "localhost".try_into().expect("it is a name");
        let tls = ClientConnection::new(Arc::new(config), name);
        let mut tls = tls.expect("the configuration is complete");
        let mut tcp = TcpStream::connect(server.address()).expect("the server listens");
        tcp.set_nodelay(true).expect("it is TCP");
        for set in [TcpStream::set_read_timeout, TcpStream::set_write_timeout] {
            set(&tcp, Some(PATIENCE)).expect("it is not zero");
        }
        while tls.is_handshaking() {
            tls.complete_io(&mut tcp).expect("it is TLS");
        }
        let secrets = tls
            .dangerous_extract_secrets()
            .expect("they were asked for");
        Records {
            tcp,
            tls13: version.version == rustls::ProtocolVersion::TLSv1_3,
            sending: Direction::new(secrets.tx),
            receiving: Direction::new(secrets.rx),
            received: Vec::new(),
            plain: Vec::new(),
        }
    }

    /// One record with this content.
    fn seal(&mut self, content: &[u8]) -> Vec<u8> {
        let way = &mut self.sending;
        let mut sealed = content.to_vec();
        let mut record = vec![DATA, 3, 3];
        if self.tls13 {
            sealed.push(DATA);
            record.extend_from_slice(&(sealed.len() as u16 + 16).to_be_bytes());
            let additional = Aad::from(&*record);
            let key = &way.key;
            key.seal_in_place_append_tag(way.nonce13(), additional, &mut sealed)
                .expect("it is short");
        } else {
            record.extend_from_slice(&(sealed.len() as u16 + 24).to_be_bytes());
            let explicit = way.next.to_be_bytes();
            let additional = Aad::from(way.additional12(DATA, content.len()));
            way.key
                .seal_in_place_append_tag(way.nonce12(explicit), additional, &mut sealed)
                .expect("it is short");
            record.extend_from_slice(&explicit);
        }
        way.next += 1;
        record.extend_from_slice(&sealed);
        record
    }

    /// So many empty records.
    fn empty(&mut self, count: usize) -> Vec<u8> {
        (0..count).flat_map(|_| self.seal(b"")).collect()
    }

    /// Opens the next record if it has come whole; false if it has not.
    fn open(&mut self) -> bool {
        let Some(header) = self.received.first_chunk::<5>().copied() else {
            return false;
        };
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if self.received.len() < 5 + length {
            return false;
        }
        let mut record: Vec<u8> = self.received.drain(..5 + length).skip(5).collect();
        let way = &mut self.receiving;
        if self.tls13 {
            let opened = way
                .key
                .open_in_place(way.nonce13(), Aad::from(&header), &mut record);
            match opened.expect("it is sealed for us").split_last() {
                Some((&DATA, content)) => self.plain.extend_from_slice(content),
                // Tickets.
                Some((&HANDSHAKE, _)) => {}
                other => panic!("what is this: {other:?}"),
            }
        } else {
            assert_eq!(header[0], DATA);
            let explicit = record.drain(..8).collect::<Vec<_>>();
            let explicit = explicit.try_into().expect("it has its length");
            let additional = Aad::from(way.additional12(DATA, record.len() - 16));
            let opened = way
                .key
                .open_in_place(way.nonce12(explicit), additional, &mut record);
            self.plain
                .extend_from_slice(opened.expect("it is sealed for us"));
        }
        way.next += 1;
        true
    }

    fn response(&mut self) -> Message {
        loop {
            while self.open() {}
            let found = wire::message(&self.plain, Kind::Response, false).expect("it is HTTP");
            if let Some(message) = found {
                self.plain.drain(..message.raw.len());
                return message;
            }
            let mut room = [0; 4096];
            let n = self.tcp.read(&mut room).expect("it comes in time");
            assert!(n > 0, "it ended without a response");
            self.received.extend_from_slice(&room[..n]);
        }
    }
}

/// One worker with TLS.
fn start(backend: &Backend, more: &str) -> (Server, Certificate, Folder) {
    let folder = Folder::new();
    let certificate = folder.certificate("default", &["localhost"]);
    let server = Server::in_process(&format!(
        r#"
        workers = 1
        {more}
        [[listener]]
        address = "127.0.0.1:0"
        protocol = "https"
        certificates = [{}]
        [[service]]
        name = "web"
        discover = {{ static = ["{}"] }}
        [[route]]
        service = "web"
        "#,
        certificate.entry(),
        backend.address,
    ));
    (server, certificate, folder)
}

/// RFC 8446 §5.1, RFC 5246 §6.2.1: they may be sent, and are nothing.
#[test]
fn empty_records_around_a_request_are_nothing() {
    let backend = Backend::start("b");
    let (server, ca, _folder) = start(&backend, "");
    let head = "POST /e HTTP/1.1\r\nHost: localhost\r\nContent-Length: 6\r\n\r\n";
    for version in VERSIONS {
        for (rule, before) in [
            ("before the request", 0),
            ("within its head", 10),
            ("between head and body", head.len()),
            ("within its body", head.len() + 3),
            ("after it", head.len() + 6),
        ] {
            for apart in [false, true] {
                let mut client = Records::connect(&server, &ca, version);
                let request = format!("{head}abcdef");
                let (first, second) = request.as_bytes().split_at(before);
                let pieces = [
                    if first.is_empty() {
                        Vec::new()
                    } else {
                        client.seal(first)
                    },
                    client.empty(IN_A_ROW),
                    if second.is_empty() {
                        Vec::new()
                    } else {
                        client.seal(second)
                    },
                ];
                match apart {
                    false => client.tcp.write_all(&pieces.concat()).expect("it is open"),
                    true => {
                        for piece in pieces {
                            client.tcp.write_all(&piece).expect("it is open");
                            pause(std::time::Duration::from_millis(10));
                        }
                    }
                }
                let response = client.response();
                assert_eq!(response.text(), "POST /e abcdef", "{rule}, {version:?}");
                let next = client.seal(b"GET /n HTTP/1.1\r\nHost: localhost\r\n\r\n");
                client.tcp.write_all(&next).expect("it is open");
                assert_eq!(client.response().text(), "GET /n ", "{rule}, {version:?}");
            }
        }
    }
}

/// One more than that ends the connection, wherever it is, and who shares the worker does not notice.
#[test]
fn a_flood_of_empty_records_is_ended() {
    let backend = Backend::start("b");
    // No deadline is what ends it.
    let (server, ca, _folder) = start(&backend, "defaults = { header_timeout = \"60s\" }");
    for version in VERSIONS {
        let config = tls_config(&ca.ca, &[version]);
        let other = Client::tls(server.address(), &config, "localhost");
        let mut other = other.expect("it is TLS");
        for (rule, begun) in [
            ("in front of a request", ""),
            ("within a head", "GET /e HTTP/1.1\r\n"),
            (
                "within a body",
                "POST /e HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nab",
            ),
        ] {
            let floods = std::array::from_fn::<_, 4, _>(|_| {
                let mut client = Records::connect(&server, &ca, version);
                if !begun.is_empty() {
                    let sealed = client.seal(begun.as_bytes());
                    client.tcp.write_all(&sealed).expect("it is open");
                }
                std::thread::spawn(move || {
                    let begun = Instant::now();
                    let mut sent = 0;
                    while begun.elapsed() < PATIENCE {
                        let records = client.empty(IN_A_ROW + 1);
                        match client.tcp.write_all(&records).map_err(|e| e.kind()) {
                            Ok(()) => {}
                            Err(BrokenPipe | ConnectionReset) => return,
                            Err(other) => panic!("nobody reads it: {other}"),
                        }
                        sent += IN_A_ROW + 1;
                    }
                    panic!("never ended: {sent} records");
                })
            });
            while !floods.iter().all(std::thread::JoinHandle::is_finished) {
                let response = other.get("localhost", "/o").expect("it is served");
                assert_eq!(response.text(), "GET /o ", "{rule}");
            }
            for flood in floods {
                let ended = flood.join();
                ended.unwrap_or_else(|_| panic!("{rule}, {version:?}"));
            }
            let response = other.get("localhost", "/o").expect("it is served");
            assert_eq!(response.text(), "GET /o ", "{rule}");
        }
    }
}
