//! The client's end against a real server's records, given at every inconvenient moment.

use std::future::poll_fn;
use std::io::Write;

use rustls::version::{TLS12, TLS13};
use rustls::{ServerConnection, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// The backend's end: rustls' buffered interface, its bytes moved by hand.
struct Backend {
    tcp: TcpStream,
    tls: ServerConnection,
}

impl Backend {
    /// What rustls wants to send.
    fn records(&mut self) -> Vec<u8> {
        let mut records = Vec::new();
        while self.tls.wants_write() {
            let written = self.tls.write_tls(&mut records);
            written.expect("a vector takes everything");
        }
        records
    }

    /// The records that carry these bytes.
    fn sealed(&mut self, bytes: &[u8]) -> Vec<u8> {
        let written = self.tls.writer().write_all(bytes);
        written.expect("there is room");
        self.records()
    }

    async fn raw(&mut self, bytes: &[u8]) {
        let sent = self.tcp.write_all(bytes).await;
        sent.expect("it is taken");
    }

    /// Reads once and takes in what came.
    async fn take(&mut self) {
        let mut bytes = vec![0; 4096];
        let n = self.tcp.read(&mut bytes).await.expect("no reset");
        assert!(n > 0, "it ended");
        let mut rest = &bytes[..n];
        while !rest.is_empty() {
            self.tls.read_tls(&mut rest).expect("it is taken in");
            self.tls.process_new_packets().expect("it is TLS");
        }
    }
}

/// Two ends that have not said anything. `change`: of what the backend is configured with.
async fn connect(
    version: &'static SupportedProtocolVersion,
    change: impl FnOnce(&mut ServerConfig),
) -> (TlsStream, Backend) {
    let (mut server, client) = fixture::pair(&[version]);
    change(&mut server);
    let listener = TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("loopback has ports");
    let address = listener.local_addr().expect("it is bound");
    let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (ours, (theirs, _)) = (ours.expect("it listens"), theirs.expect("it comes"));
    theirs.set_nodelay(true).expect("it is TCP");
    let name = ServerName::try_from("localhost").expect("it is a name");
    let pool = BufferPool::new();
    let client = TlsStream::to_backend(ours, Arc::new(client), name, &pool);
    let tls = ServerConnection::new(Arc::new(server)).expect("it is complete");
    (
        client.expect("it is complete"),
        Backend { tcp: theirs, tls },
    )
}

/// Two ends with the handshake behind them.
async fn session(version: &'static SupportedProtocolVersion) -> (TlsStream, Backend) {
    let (mut client, mut backend) = connect(version, |server| server.send_tls13_tickets = 0).await;
    let theirs = async {
        while backend.tls.is_handshaking() {
            backend.take().await;
            let records = backend.records();
            backend.raw(&records).await;
        }
    };
    let (made, ()) = tokio::join!(handshake(&mut client), theirs);
    made.expect("the handshake goes through");
    (client, backend)
}

async fn handshake(client: &mut TlsStream) -> io::Result<()> {
    poll_fn(|cx| client.poll_handshake(cx)).await?;
    poll_fn(|cx| client.poll_flush(cx)).await
}

async fn read(client: &mut TlsStream) -> io::Result<Vec<u8>> {
    let mut room = vec![0; SCRATCH];
    let n = poll_fn(|cx| client.poll_read(cx, &mut room)).await?;
    room.truncate(n);
    Ok(room)
}

#[tokio::test]
async fn a_handshake_in_single_bytes() {
    for version in VERSIONS {
        let (mut client, mut backend) = connect(version, |_| ()).await;
        let theirs = async {
            while backend.tls.is_handshaking() {
                backend.take().await;
                for byte in backend.records() {
                    backend.raw(&[byte]).await;
                    tokio::task::yield_now().await;
                }
            }
            let records = backend.sealed(b"fine");
            backend.raw(&records).await;
        };
        let (made, ()) = tokio::join!(handshake(&mut client), theirs);
        made.expect("the handshake goes through");
        assert_eq!(read(&mut client).await.expect("it is TLS"), b"fine");
        assert!(client.incoming.is_empty() && client.outgoing.is_empty());
    }
}

/// RFC 8446 §4.4.4: a server may send as soon as it has sent its Finished.
#[tokio::test]
async fn data_that_comes_with_the_finished_is_not_lost() {
    let (mut client, mut backend) =
        connect(&TLS13, |server| server.send_half_rtt_data = true).await;
    let theirs = async {
        backend.take().await;
        let mut flight = backend.records();
        flight.extend(backend.sealed(b"early words"));
        backend.raw(&flight).await;
        while backend.tls.is_handshaking() {
            backend.take().await;
        }
    };
    let (made, ()) = tokio::join!(handshake(&mut client), theirs);
    made.expect("the handshake goes through");
    assert_eq!(read(&mut client).await.expect("it is TLS"), b"early words");
}

/// What the connection is found to be when this has come.
#[tokio::test]
async fn what_is_quiet() {
    type Says = fn(&mut Backend) -> Vec<u8>;
    let rows: [(&str, Says, bool); 6] = [
        ("nothing", |_| Vec::new(), true),
        (
            "new keys, and that ours be renewed",
            |backend| {
                let renewed = backend.tls.refresh_traffic_keys();
                renewed.expect("it is TLS 1.3");
                backend.records()
            },
            true,
        ),
        ("data", |backend| backend.sealed(b"x"), false),
        (
            "a part of a record",
            |backend| backend.sealed(b"x")[..5].to_vec(),
            true,
        ),
        (
            "its end",
            |backend| {
                backend.tls.send_close_notify();
                backend.records()
            },
            false,
        ),
        (
            "no TLS",
            |_| b"HTTP/1.1 408 Request Timeout\r\n".to_vec(),
            false,
        ),
    ];
    for (rule, says, quiet) in rows {
        for ask in [AskThe::Runtime, AskThe::Kernel] {
            let (mut client, mut backend) = session(&TLS13).await;
            let bytes = says(&mut backend);
            backend.raw(&bytes).await;
            if !bytes.is_empty() {
                client.tcp.readable().await.expect("it is open");
            }
            assert_eq!(client.is_quiet(ask), quiet, "{rule}, {ask:?}");
            if quiet && rule != "a part of a record" {
                // It is as good as before, in both directions.
                let mut message = &b"ping"[..];
                let written = poll_fn(|cx| client.poll_write(cx, &mut message)).await;
                assert_eq!(written.expect("it goes"), 4, "{rule}");
                backend.take().await;
                let records = backend.sealed(b"pong");
                backend.raw(&records).await;
                assert_eq!(
                    read(&mut client).await.expect("it is TLS"),
                    b"pong",
                    "{rule}"
                );
            }
        }
    }
}

/// RFC 9112 §9.8.
#[tokio::test]
async fn an_end_counts_if_it_is_announced() {
    for version in VERSIONS {
        let (mut client, mut backend) = session(version).await;
        backend.tls.send_close_notify();
        let records = backend.records();
        backend.raw(&records).await;
        drop(backend);
        assert_eq!(read(&mut client).await.expect("an end"), b"", "{version:?}");

        let (mut client, backend) = session(version).await;
        drop(backend);
        for _ in 0..2 {
            let cut = read(&mut client).await.expect_err("it may not be the end");
            assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof, "{version:?}");
        }
        assert!(!client.is_quiet(AskThe::Kernel));
    }
}
