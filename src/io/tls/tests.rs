//! A real client's records over a real socket, fed and taken at every inconvenient moment.

use std::future::poll_fn;
use std::io::{Read, Write};

use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, ClientConfig, ClientConnection, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::io::buffer::OUTBOX;

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// What both ends are configured with.
struct Site {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    pool: Rc<BufferPool>,
}

impl Site {
    /// Records of the client carry at most `fragment` bytes.
    fn new(version: &'static SupportedProtocolVersion, fragment: Option<usize>) -> Site {
        let (mut server, mut client) = fixture::pair(&[version]);
        // Every record that a test sees is one that it asked for.
        server.send_tls13_tickets = 0;
        // rustls counts the header of a record in.
        client.max_fragment_size = fragment.map(|n| n + 5);
        Site {
            server: Arc::new(server),
            client: Arc::new(client),
            pool: BufferPool::new(),
        }
    }

    /// Two ends that have not said anything.
    async fn connect(&self) -> (TlsStream, Client) {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("loopback has ports");
        let address = listener.local_addr().expect("it is bound");
        let (theirs, ours) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (theirs, (ours, _)) = (theirs.expect("it listens"), ours.expect("it comes"));
        for tcp in [&theirs, &ours] {
            tcp.set_nodelay(true).expect("it is TCP");
        }
        let name = ServerName::try_from("localhost").expect("it is a name");
        let tls = ClientConnection::new(Arc::clone(&self.client), name);
        let client = Client {
            tcp: theirs,
            tls: tls.expect("the configuration is complete"),
        };
        let server = TlsStream::new(ours, Arc::clone(&self.server), &self.pool);
        (server.expect("the configuration is complete"), client)
    }

    /// Two ends with the handshake behind them.
    async fn session(&self) -> (TlsStream, Client) {
        let (mut server, mut client) = self.connect().await;
        let (made, ()) = tokio::join!(handshake(&mut server), client.handshake());
        made.expect("the handshake goes through");
        (server, client)
    }
}

/// The client's end: rustls' buffered interface, its bytes moved by hand.
struct Client {
    tcp: TcpStream,
    tls: ClientConnection,
}

impl Client {
    async fn handshake(&mut self) {
        while self.tls.is_handshaking() {
            self.flush().await;
            if self.tls.wants_read() {
                self.take().await.expect("it is TLS");
            }
        }
        self.flush().await;
    }

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
        self.tls.set_buffer_limit(None);
        let written = self.tls.writer().write_all(bytes);
        written.expect("there is no limit");
        self.records()
    }

    async fn flush(&mut self) {
        let records = self.records();
        self.raw(&records).await;
    }

    async fn raw(&mut self, bytes: &[u8]) {
        let sent = self.tcp.write_all(bytes).await;
        sent.expect("the server takes it");
    }

    /// Reads once and takes in what came; the bytes as they came.
    async fn take(&mut self) -> Result<Vec<u8>, rustls::Error> {
        let mut bytes = vec![0; 4096];
        let n = self.tcp.read(&mut bytes).await.expect("no reset");
        bytes.truncate(n);
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            self.tls.read_tls(&mut rest).expect("it is taken in");
            self.tls.process_new_packets()?;
        }
        if n == 0 {
            self.tls.read_tls(&mut rest).expect("it is taken in");
        }
        Ok(bytes)
    }

    /// Waits for so many bytes of plaintext.
    async fn receive(&mut self, wanted: usize) -> Vec<u8> {
        let mut plain = vec![0; wanted];
        let mut got = 0;
        while got < wanted {
            match self.tls.reader().read(&mut plain[got..]) {
                Ok(0) => panic!("it ended after {got} bytes"),
                Ok(n) => got += n,
                Err(_) => drop(self.take().await.expect("it is TLS")),
            }
        }
        plain
    }
}

/// To the last word of it, which would otherwise go out with the first message.
async fn handshake(server: &mut TlsStream) -> io::Result<()> {
    poll_fn(|cx| server.poll_handshake(cx)).await?;
    poll_fn(|cx| server.poll_flush(cx)).await
}

/// Reads once, into room for more than a record.
async fn read(server: &mut TlsStream) -> io::Result<Vec<u8>> {
    let mut room = vec![0; SCRATCH];
    let n = poll_fn(|cx| server.poll_read(cx, &mut room)).await?;
    room.truncate(n);
    Ok(room)
}

async fn read_exactly(server: &mut TlsStream, wanted: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < wanted {
        let more = read(server).await.expect("it is TLS");
        assert!(!more.is_empty(), "it ended after {} bytes", all.len());
        all.extend(more);
    }
    assert_eq!(all.len(), wanted);
    all
}

/// Waits until something has come, and takes it in; nothing is to be read of it yet.
async fn take_in_without_a_result(server: &mut TlsStream) {
    server.tcp.readable().await.expect("it is open");
    let mut room = [0; 64];
    let mut cx = Context::from_waker(std::task::Waker::noop());
    let outcome = server.poll_read(&mut cx, &mut room);
    assert!(outcome.is_pending(), "{outcome:?}");
}

async fn write_all(server: &mut TlsStream, message: impl Buf) -> io::Result<()> {
    let mut message = message;
    while message.has_remaining() {
        poll_fn(|cx| server.poll_write(cx, &mut message)).await?;
    }
    poll_fn(|cx| server.poll_flush(cx)).await
}

fn holds_nothing(server: &TlsStream) -> bool {
    server.incoming.is_empty() && server.outgoing.is_empty() && server.surplus.capacity() == 0
}

#[tokio::test]
async fn a_request_cut_in_two_at_every_offset() {
    for version in VERSIONS {
        let (mut server, mut client) = Site::new(version, None).session().await;
        for cut in 1.. {
            let records = client.sealed(b"GET / HTTP/1.1\r\n\r\n");
            if cut == records.len() {
                break;
            }
            client.raw(&records[..cut]).await;
            take_in_without_a_result(&mut server).await;
            assert_eq!(server.incoming.filled().len(), cut, "{version:?}");
            client.raw(&records[cut..]).await;
            let got = read(&mut server).await.expect("it is whole");
            assert_eq!(got, b"GET / HTTP/1.1\r\n\r\n", "{version:?}, cut at {cut}");
            // A message may go out while a part of a record waits.
            write_all(&mut server, &b"fine"[..]).await.expect("it goes");
            assert_eq!(client.receive(4).await, b"fine");
            assert!(holds_nothing(&server));
        }
    }
}

#[tokio::test]
async fn a_message_goes_out_while_a_part_of_a_record_waits() {
    for version in VERSIONS {
        let (mut server, mut client) = Site::new(version, None).session().await;
        let records = client.sealed(b"in two parts");
        client.raw(&records[..9]).await;
        take_in_without_a_result(&mut server).await;
        write_all(&mut server, &b"meanwhile"[..])
            .await
            .expect("it goes");
        assert_eq!(client.receive(9).await, b"meanwhile");
        client.raw(&records[9..]).await;
        assert_eq!(
            read(&mut server).await.expect("it is whole"),
            b"in two parts"
        );
    }
}

#[tokio::test]
async fn a_handshake_in_single_bytes_and_in_small_records() {
    for version in VERSIONS {
        let (mut server, mut client) = Site::new(version, Some(32)).connect().await;
        let theirs = async {
            while client.tls.is_handshaking() {
                for byte in client.records() {
                    client.raw(&[byte]).await;
                    tokio::task::yield_now().await;
                }
                if client.tls.wants_read() && client.tls.is_handshaking() {
                    client.take().await.expect("it is TLS");
                }
            }
            client.flush().await;
            client
        };
        let (made, mut client) = tokio::join!(handshake(&mut server), theirs);
        made.expect("the handshake goes through");
        client.tls.set_buffer_limit(None);
        let records = client.sealed(b"and then");
        client.raw(&records).await;
        assert_eq!(read_exactly(&mut server, 8).await, b"and then");
    }
}

/// RFC 8446 §2: the client may send as soon as it has sent its Finished.
#[tokio::test]
async fn data_that_comes_with_the_finished_is_not_lost() {
    for version in VERSIONS {
        let (mut server, mut client) = Site::new(version, None).connect().await;
        let theirs = async {
            client.flush().await;
            loop {
                client.take().await.expect("it is TLS");
                if version.version == ProtocolVersion::TLSv1_3 && !client.tls.is_handshaking() {
                    break;
                }
                client.flush().await;
                if !client.tls.is_handshaking() {
                    break;
                }
            }
            // Finished and a request, in one segment with TLS 1.3.
            let records = client.sealed(b"GET / HTTP/1.1\r\n\r\n");
            client.raw(&records).await;
            client
        };
        let ours = async {
            handshake(&mut server).await?;
            read(&mut server).await
        };
        let (got, mut client) = tokio::join!(ours, theirs);
        assert_eq!(got.expect("it is whole"), b"GET / HTTP/1.1\r\n\r\n");
        write_all(&mut server, &b"fine"[..]).await.expect("it goes");
        assert_eq!(client.receive(4).await, b"fine");
        assert!(holds_nothing(&server));
    }
}

#[tokio::test]
async fn room_for_less_than_a_record_loses_nothing() {
    let (mut server, mut client) = Site::new(&TLS13, None).session().await;
    let bytes: Vec<u8> = (0..40_000u32).map(|n| n as u8).collect();
    let records = client.sealed(&bytes);
    let reading = async {
        let mut got = Vec::new();
        while got.len() < bytes.len() {
            let mut room = [0; 1000];
            let n = poll_fn(|cx| server.poll_read(cx, &mut room)).await;
            got.extend_from_slice(&room[..n.expect("it is TLS")]);
        }
        got
    };
    let (got, ()) = tokio::join!(reading, client.raw(&records));
    assert!(got == bytes);
    assert!(holds_nothing(&server));
}

#[tokio::test]
async fn very_many_small_records() {
    for version in VERSIONS {
        let (mut server, mut client) = Site::new(version, Some(32)).session().await;
        let bytes: Vec<u8> = (0..100_000u32).map(|n| (n / 7) as u8).collect();
        let records = client.sealed(&bytes);
        let (got, ()) = tokio::join!(read_exactly(&mut server, bytes.len()), client.raw(&records));
        assert!(got == bytes);
    }
}

#[tokio::test]
async fn a_head_and_its_body_are_one_record_and_a_long_body_is_full_ones() {
    for version in VERSIONS {
        let (mut server, mut client) = Site::new(version, None).session().await;
        for (head, body, lengths) in [
            (100, 300, &[400][..]),
            (100, RECORD, &[RECORD, 100]),
            (100, 4 * RECORD, &[RECORD, RECORD, RECORD, RECORD, 100]),
            (0, 5, &[5]),
        ] {
            let (head, body) = (vec![b'h'; head], vec![b'b'; body]);
            let message = Buf::chain(&*head, &*body);
            let total = message.remaining();
            let writing = write_all(&mut server, message);
            let reading = async {
                let mut raw = Vec::new();
                let mut plain = 0;
                let mut room = vec![0; total];
                while plain < total {
                    raw.extend(client.take().await.expect("it is TLS"));
                    plain += client.tls.reader().read(&mut room).unwrap_or(0);
                }
                raw
            };
            let (written, raw) = tokio::join!(writing, reading);
            written.expect("it goes");
            let mut rest = raw.as_slice();
            let mut seen = Vec::new();
            while let [23, 3, 3, high, low, tail @ ..] = rest {
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                seen.push(length);
                rest = &tail[length..];
            }
            let overhead = if version.version == ProtocolVersion::TLSv1_3 {
                17
            } else {
                24
            };
            let expected: Vec<_> = lengths.iter().map(|n| n + overhead).collect();
            assert_eq!(seen, expected, "{version:?}");
        }
    }
}

/// RFC 8446 §4.6.3: whoever is asked to changes its keys as well, before it sends anything.
#[tokio::test]
async fn a_key_update_is_answered() {
    let (mut server, mut client) = Site::new(&TLS13, None).session().await;
    for round in 0..40 {
        client.tls.refresh_traffic_keys().expect("it is TLS 1.3");
        let mut records = client.records();
        records.extend(client.sealed(b"after it"));
        client.raw(&records).await;
        assert_eq!(read_exactly(&mut server, 8).await, b"after it", "{round}");
        write_all(&mut server, &b"answer"[..])
            .await
            .expect("it goes");
        assert_eq!(client.receive(6).await, b"answer", "{round}");
    }
    // More than a client may send without anything else.
    for _ in 0..40 {
        client.tls.refresh_traffic_keys().expect("it is TLS 1.3");
    }
    client.flush().await;
    read(&mut server).await.expect_err("that is a flood");
}

#[tokio::test]
async fn both_ways_of_ending_are_an_end() {
    for version in VERSIONS {
        for announced in [true, false] {
            let (mut server, mut client) = Site::new(version, None).session().await;
            let mut records = client.sealed(b"last");
            if announced {
                client.tls.send_close_notify();
                records.extend(client.records());
                // Nothing behind it is looked at (RFC 8446 §6.1).
                records.extend([0xff; 20]);
            }
            client.raw(&records).await;
            client.tcp.shutdown().await.expect("it is open");
            assert_eq!(read_exactly(&mut server, 4).await, b"last");
            for _ in 0..2 {
                assert_eq!(read(&mut server).await.expect("it is an end"), b"");
            }
            // The other direction is open still.
            write_all(&mut server, &b"answer"[..])
                .await
                .expect("it goes");
            assert_eq!(client.receive(6).await, b"answer");
            let ended = poll_fn(|cx| server.poll_shutdown(cx)).await;
            ended.expect("it goes");
            client.take().await.expect("it is TLS");
            let mut room = [0; 1];
            let end = client
                .tls
                .reader()
                .read(&mut room)
                .expect("close_notify came");
            assert_eq!(end, 0);
            let after = write_all(&mut server, &b"more"[..]).await;
            after.expect_err("we have said that nothing follows");
        }
    }
}

#[tokio::test]
async fn a_record_that_is_cut_off_is_an_end() {
    let (mut server, mut client) = Site::new(&TLS13, None).session().await;
    let records = client.sealed(b"never whole");
    client.raw(&records[..records.len() - 1]).await;
    client.tcp.shutdown().await.expect("it is open");
    assert_eq!(read(&mut server).await.expect("it is an end"), b"");
}

#[tokio::test]
async fn what_came_before_garbage_is_read_and_the_client_is_told() {
    for version in VERSIONS {
        let (mut server, mut client) = Site::new(version, None).session().await;
        let mut records = client.sealed(b"good");
        records.extend_from_slice(b"\x17\x03\x03\x00\x20but this is no record of ours....");
        client.raw(&records).await;
        assert_eq!(read(&mut server).await.expect("it is whole"), b"good");
        for _ in 0..2 {
            read(&mut server).await.expect_err("it cannot be decrypted");
        }
        let refused = write_all(&mut server, &b"x"[..]).await;
        refused.expect_err("the connection is broken");
        let ended = poll_fn(|cx| server.poll_shutdown(cx)).await;
        ended.expect("the alert goes");
        let told = client.take().await.expect_err("it is an alert");
        let expected = rustls::Error::AlertReceived(AlertDescription::BadRecordMac);
        assert_eq!(told, expected, "{version:?}");
    }
}

#[tokio::test]
async fn a_failed_handshake_tells_the_client_why() {
    // The server knows 1.3 only, the client 1.2 only.
    let site = Site {
        client: Site::new(&TLS12, None).client,
        ..Site::new(&TLS13, None)
    };
    let (mut server, mut client) = site.connect().await;
    client.flush().await;
    handshake(&mut server)
        .await
        .expect_err("there is no version");
    let ended = poll_fn(|cx| server.poll_shutdown(cx)).await;
    ended.expect("the alert goes");
    let told = client.take().await.expect_err("it is an alert");
    let expected = rustls::Error::AlertReceived(AlertDescription::ProtocolVersion);
    assert_eq!(told, expected);

    // Somebody who speaks HTTP: a fatal alert, and the end.
    let (mut server, mut client) = site.connect().await;
    client.raw(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    handshake(&mut server).await.expect_err("it is not TLS");
    let ended = poll_fn(|cx| server.poll_shutdown(cx)).await;
    ended.expect("the alert goes");
    let mut told = Vec::new();
    let read = client.tcp.read_to_end(&mut told).await;
    read.expect("no reset");
    assert!(matches!(&*told, [21, 3, _, 0, 2, 2, _]), "{told:?}");
}

#[tokio::test]
async fn an_end_within_the_handshake_is_an_error() {
    let (mut server, mut client) = Site::new(&TLS13, None).connect().await;
    let hello = client.records();
    client.raw(&hello[..hello.len() / 2]).await;
    client.tcp.shutdown().await.expect("it is open");
    let failed = handshake(&mut server).await.expect_err("it is not whole");
    assert_eq!(failed.kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn a_handshake_message_without_end_is_refused() {
    let (mut server, mut client) = Site::new(&TLS13, None).connect().await;
    let sending = async {
        // A ClientHello that says it has 64 KiB less one byte, in records of 100 bytes.
        let mut first = vec![1, 0, 0xff, 0xff];
        first.resize(100, 0);
        let record = |payload: &[u8]| [&[22, 3, 1, 0, 100], payload].concat();
        let mut records = record(&first);
        for _ in 0..640 {
            records.extend(record(&[0; 100]));
        }
        // It is turned away in between.
        let _ = client.tcp.write_all(&records).await;
    };
    let (made, ()) = tokio::join!(handshake(&mut server), sending);
    made.expect_err("it is too long");
}

#[tokio::test]
async fn who_does_not_read_is_sealed_for_no_more_than_an_outbox() {
    for version in VERSIONS {
        let (mut server, mut client) = Site::new(version, None).session().await;
        let body: Vec<u8> = (0..(16u32 << 20)).map(|n| (n / 251) as u8).collect();
        let mut message = body.as_slice();
        let mut cx = Context::from_waker(std::task::Waker::noop());
        while let Poll::Ready(n) = server.poll_write(&mut cx, &mut message) {
            n.expect("it goes");
        }
        assert!(server.unsent() > 0 && server.unsent() <= OUTBOX);
        let sent = body.len() - message.remaining();
        assert!(message.has_remaining(), "the kernel took {sent} bytes");
        let length = body.len();
        let (written, got) = tokio::join!(write_all(&mut server, message), client.receive(length));
        written.expect("it goes");
        assert!(got == body);
        assert!(holds_nothing(&server));
    }
}

#[test]
fn what_fits_is_all_or_whole_records() {
    let full = RECORD + OVERHEAD;
    for (room, remaining, expected) in [
        (OWN_WORDS, 10, 0),
        (OWN_WORDS + OVERHEAD + 9, 10, 0),
        (OWN_WORDS + OVERHEAD + 10, 10, 10),
        (OWN_WORDS + full, RECORD, RECORD),
        (OWN_WORDS + full, RECORD + 1, RECORD),
        (OWN_WORDS + 2 * full - 1, 2 * RECORD, RECORD),
        (OWN_WORDS + 2 * full - 1, 2 * RECORD - 1, 2 * RECORD - 1),
        (0, 1, 0),
    ] {
        assert_eq!(fitting(room, remaining), expected, "{room}, {remaining}");
    }
}
