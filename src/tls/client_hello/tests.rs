//! Hellos of real clients, cut at every place and into records of every size; and one row per rule.

use std::sync::Arc;

use proptest::prelude::{any, prop};
use proptest::proptest;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::*;

/// What rustls begins with. `groups`: the key shares that it offers; the first is sent.
fn rustls_hello(
    name: &str,
    alpn: &[&[u8]],
    groups: &[&'static dyn rustls::crypto::SupportedKxGroup],
) -> Vec<u8> {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = groups.to_vec();
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .expect("the provider has them")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    let name = ServerName::try_from(name.to_owned()).expect("it is a name");
    let mut client = ClientConnection::new(Arc::new(config), name).expect("it is complete");
    let mut bytes = Vec::new();
    client
        .write_tls(&mut bytes)
        .expect("a Vec takes everything");
    bytes
}

fn post_quantum() -> Vec<u8> {
    let groups = [
        aws_lc_rs::kx_group::X25519MLKEM768,
        aws_lc_rs::kx_group::X25519,
    ];
    rustls_hello("pq.example.com", &[b"h2"], &groups)
}

const OPENSSL: &[u8] = include_bytes!("../../../fuzz/seeds/client_hello/openssl");
const OPENSSL_TLS12: &[u8] =
    include_bytes!("../../../fuzz/seeds/client_hello/openssl-tls12-no-name");
const OPENSSL_RECORDS: &[u8] = include_bytes!("../../../fuzz/seeds/client_hello/openssl-records");

/// Who it is of, the hello, the name that it asks for, and the first protocol that it offers.
type Real = (
    &'static str,
    Vec<u8>,
    Option<&'static str>,
    Option<&'static [u8]>,
);

fn real() -> Vec<Real> {
    let x25519 = [aws_lc_rs::kx_group::X25519];
    let rustls = rustls_hello("Rust.Example.com", &[b"http/1.1", b"h2"], &x25519);
    let address = rustls_hello("127.0.0.1", &[], &x25519);
    vec![
        (
            "rustls",
            rustls,
            Some("rust.example.com"),
            Some(b"http/1.1"),
        ),
        ("rustls, an address", address, None, None),
        (
            "post-quantum",
            post_quantum(),
            Some("pq.example.com"),
            Some(b"h2"),
        ),
        (
            "openssl",
            OPENSSL.into(),
            Some("shop.example.com"),
            Some(b"h2"),
        ),
        ("openssl, TLS 1.2", OPENSSL_TLS12.into(), None, None),
        (
            "openssl, several records",
            OPENSSL_RECORDS.into(),
            Some("a.example"),
            Some(b"protocol-0"),
        ),
    ]
}

/// The content of its records.
fn content(records: &[u8]) -> Vec<u8> {
    Fragments(records)
        .flat_map(|f| f.expect("they are records").to_vec())
        .collect()
}

/// The same content in records that end at these places.
fn records(content: &[u8], ends: impl IntoIterator<Item = usize>) -> Vec<u8> {
    let (mut bytes, mut begin) = (Vec::new(), 0);
    for end in ends.into_iter().chain([content.len()]) {
        let fragment = &content[begin..end.max(begin)];
        begin += fragment.len();
        if !fragment.is_empty() {
            bytes.extend_from_slice(&[HANDSHAKE, 3, 1]);
            bytes.extend_from_slice(&(fragment.len() as u16).to_be_bytes());
            bytes.extend_from_slice(fragment);
        }
    }
    bytes
}

#[test]
fn real_clients_at_every_split_offset() {
    assert!(
        post_quantum().len() > 1_400,
        "more than a segment of Ethernet"
    );
    for (client, bytes, name, protocol) in real() {
        let hello = client_hello(&bytes).expect(client).expect("it is whole");
        assert_eq!(hello.server_name.as_deref(), name, "{client}");
        assert_eq!(hello.protocols().next(), protocol, "{client}");
        for end in 0..bytes.len() {
            assert_eq!(client_hello(&bytes[..end]), Ok(None), "{client}: {end}");
        }
        let more = [&bytes[..], b"\x14\x03\x03\x00\x01\x01 and early data"].concat();
        assert_eq!(
            client_hello(&more),
            Ok(Some(hello)),
            "{client}: what follows"
        );
    }
}

#[test]
fn real_clients_in_records_that_end_anywhere() {
    for (client, bytes, ..) in real() {
        let hello = client_hello(&bytes);
        let content = content(&bytes);
        for end in 0..=content.len() {
            let split = records(&content, [end]);
            assert_eq!(client_hello(&split), hello, "{client}: {end}");
            assert_eq!(
                client_hello(&split[..split.len() - 1]),
                Ok(None),
                "{client}: {end}"
            );
        }
        let bytewise = records(&content, 1..content.len());
        assert_eq!(client_hello(&bytewise), hello, "{client}: a byte in each");
    }
}

/// A hello with these extensions.
fn hello(extensions: &[(u16, &[u8])]) -> Vec<u8> {
    let mut list = Vec::new();
    for (kind, content) in extensions {
        list.extend_from_slice(&kind.to_be_bytes());
        list.extend_from_slice(&vector(content));
    }
    let mut body = vec![3; VERSION_AND_RANDOM];
    body.extend_from_slice(b"\x00\x00\x02\x13\x01\x01\x00");
    body.extend_from_slice(&vector(&list));
    of_body(&body)
}

fn of_body(body: &[u8]) -> Vec<u8> {
    let mut message = (body.len() as u32).to_be_bytes().to_vec();
    message[0] = CLIENT_HELLO;
    message.extend_from_slice(body);
    records(
        &message,
        (1..)
            .map(|n| n * LONGEST_FRAGMENT)
            .take_while(|end| *end < message.len()),
    )
}

fn vector(content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).expect("it fits");
    [&length.to_be_bytes(), content].concat()
}

fn name(name: &[u8]) -> Vec<u8> {
    vector(&[&[HOST_NAME][..], &vector(name)].concat())
}

#[test]
fn names() {
    let long = |n: usize| [b"a.".repeat(126), b"b".repeat(n)].concat();
    for (rule, sent, expected) in [
        ("as it is", &b"a-b.example"[..], Some("a-b.example")),
        ("in any case", b"A.eXample", Some("a.example")),
        ("a final dot", b"a.example.", Some("a.example")),
        ("an underscore", b"a_b.example", Some("a_b.example")),
        ("an address", b"10.0.0.1", Some("10.0.0.1")),
        ("nothing", b"", None),
        ("a dot", b".", None),
        ("an empty label", b"a..b", None),
        ("a zero", b"a\0.example", None),
        ("a space", b"a b", None),
        ("not ASCII", "bücher.example".as_bytes(), None),
        ("IPv6", b"::1", None),
        ("a wildcard", b"*.example", None),
        ("a label of 64", &[b'a'; 64], None),
        ("254 bytes", &long(2), None),
    ] {
        let read = client_hello(&hello(&[(SERVER_NAME, &name(sent))]));
        match expected {
            Some(expected) => {
                let read = read.expect(rule).expect("it is whole");
                assert_eq!(read.server_name.as_deref(), Some(expected), "{rule}");
            }
            None => assert_eq!(read, Err(Refused::Malformed("server name")), "{rule}"),
        }
    }
    let longest = hello(&[(SERVER_NAME, &name(&long(1)))]);
    assert!(
        client_hello(&longest).is_ok_and(|hello| hello.is_some()),
        "253 bytes"
    );
}

#[test]
fn what_is_refused() {
    use Refused::{Malformed, NotTls, TooLong};
    let one = name(b"a.example");
    let two = vector(&[b"\0\0\x01a".as_slice(), b"\0\0\x01b"].concat());
    let body = |tail: &[u8]| of_body(&[&[3; VERSION_AND_RANDOM][..], tail].concat());
    let padding = vec![0; LONGEST];
    for (rule, bytes, why) in [
        ("HTTP", b"GET / HTTP/1.1\r\n".to_vec(), NotTls),
        ("one byte of it", b"G".to_vec(), NotTls),
        ("SSL 2", b"\x80\x2e\x01\x00\x02".to_vec(), NotTls),
        ("an alert", b"\x15\x03\x01\x00\x02\x02\x28".to_vec(), NotTls),
        ("another version", b"\x16\x04".to_vec(), NotTls),
        (
            "an empty record",
            b"\x16\x03\x01\x00\x00".to_vec(),
            Malformed("an empty record"),
        ),
        (
            "a record that is too long",
            b"\x16\x03\x01\x40\x01".to_vec(),
            Malformed("a record of more than 16 KiB"),
        ),
        (
            "a ServerHello",
            b"\x16\x03\x01\x00\x04\x02".to_vec(),
            Malformed("another handshake message"),
        ),
        (
            "TLS, then something else",
            b"\x16\x03\x01\x00\x01\x01\x17".to_vec(),
            NotTls,
        ),
        (
            "too long by its header",
            b"\x16\x03\x01\x10\x00\x01\x00\x40\x00".to_vec(),
            TooLong,
        ),
        ("too long in fact", hello(&[(21, &padding)]), TooLong),
        (
            "too many small records",
            records(&[&[1, 0, 0x3f, 0][..], &padding].concat(), 1..LONGEST),
            TooLong,
        ),
        (
            "nothing in it",
            of_body(&[]),
            Malformed("it ends too early"),
        ),
        (
            "a long session id",
            body(&[&[33][..], &[0; 33], b"\0\x02\x13\x01\x01\0"].concat()),
            Malformed("session id"),
        ),
        (
            "no cipher suite",
            body(b"\0\0\0\x01\0"),
            Malformed("cipher suites"),
        ),
        (
            "half a cipher suite",
            body(b"\0\0\x01\x13\x01\0"),
            Malformed("cipher suites"),
        ),
        (
            "no compression",
            body(b"\0\0\x02\x13\x01\0"),
            Malformed("compression methods"),
        ),
        (
            "bytes after the extensions",
            body(b"\0\0\x02\x13\x01\x01\0\0\0\0"),
            Malformed("length of the extensions"),
        ),
        (
            "an extension that is cut off",
            body(b"\0\0\x02\x13\x01\x01\0\0\x03\0\x05\0"),
            Malformed("an extension is cut off"),
        ),
        (
            "two server_name extensions",
            hello(&[(SERVER_NAME, &one), (SERVER_NAME, &one)]),
            Malformed("an extension comes twice"),
        ),
        (
            "two of any other kind",
            hello(&[(5, b""), (SERVER_NAME, &one), (5, b"")]),
            Malformed("an extension comes twice"),
        ),
        (
            "two names in one",
            hello(&[(SERVER_NAME, &two)]),
            Malformed("server name"),
        ),
        (
            "a list of no names",
            hello(&[(SERVER_NAME, &vector(b""))]),
            Malformed("server name"),
        ),
        (
            "no list of names",
            hello(&[(SERVER_NAME, b"")]),
            Malformed("server name"),
        ),
        (
            "a name of another type",
            hello(&[(SERVER_NAME, &vector(b"\x01\0\x01a"))]),
            Malformed("server name"),
        ),
        (
            "no protocols",
            hello(&[(ALPN, &vector(b""))]),
            Malformed("protocols"),
        ),
        (
            "a protocol without a name",
            hello(&[(ALPN, &vector(b"\0"))]),
            Malformed("protocols"),
        ),
        (
            "a protocol that is cut off",
            hello(&[(ALPN, &vector(b"\x02h"))]),
            Malformed("protocols"),
        ),
    ] {
        assert_eq!(client_hello(&bytes), Err(why), "{rule}");
        for end in (0..bytes.len()).step_by(1 + bytes.len() / 300) {
            let part = client_hello(&bytes[..end]);
            assert!(
                part == Ok(None) || part == Err(why),
                "{rule}: {end}: {part:?}"
            );
        }
    }
}

#[test]
fn a_hello_of_tls_1_2_needs_no_extensions() {
    let body = [&[3; VERSION_AND_RANDOM][..], b"\0\0\x02\x00\x2f\x01\0"].concat();
    assert_eq!(
        client_hello(&of_body(&body)),
        Ok(Some(ClientHello::default()))
    );
}

/// The extension of Encrypted Client Hello (0xfe0d) is one like others: the outer name counts.
#[test]
fn of_an_encrypted_hello_the_outer_name_is_seen() {
    let bytes = hello(&[(0xfe0d, &[0; 200]), (SERVER_NAME, &name(b"public.example"))]);
    let read = client_hello(&bytes)
        .expect("it is right")
        .expect("it is whole");
    assert_eq!(read.server_name.as_deref(), Some("public.example"));
}

#[test]
fn the_longest_hello_is_taken() {
    let room = LONGEST - HEADER - VERSION_AND_RANDOM - 7 - 2 - 4;
    let bytes = hello(&[(21, &vec![0; room])]);
    assert_eq!(client_hello(&bytes), Ok(Some(ClientHello::default())));
    let more = hello(&[(21, &vec![0; room + 1])]);
    assert_eq!(client_hello(&more), Err(Refused::TooLong));
}

proptest! {
    /// Whatever comes: no panic, and more bytes never change what was decided.
    #[test]
    fn what_was_decided_stays(
        mut bytes in prop::collection::vec(any::<u8>(), 0..200),
        like_tls: bool,
        ends in prop::collection::vec(0usize..200, 2),
    ) {
        if like_tls {
            let length = (bytes.len() as u8).wrapping_add(4);
            bytes.splice(0..0, [HANDSHAKE, 3, 1, 0, length, CLIENT_HELLO, 0, 0, length - length.min(4)]);
        }
        let whole = client_hello(&bytes);
        for end in ends {
            let part = client_hello(&bytes[..end.min(bytes.len())]);
            proptest::prop_assert!(part == Ok(None) || part == whole);
        }
    }

    /// What goes in comes out, however it is spread over records.
    #[test]
    fn what_is_said_is_read(
        host in "([a-z0-9_-]{1,20}\\.){0,5}[a-z0-9]{1,20}",
        offered in prop::collection::vec("[ -~]{1,20}", 1..6),
        others in prop::collection::btree_map(17u16..60_000, prop::collection::vec(any::<u8>(), 0..40), 0..8),
        mut ends in prop::collection::vec(0usize..600, 0..20),
    ) {
        let list: Vec<u8> = offered.iter().flat_map(|p| [&[p.len() as u8][..], p.as_bytes()].concat()).collect();
        let (host_name, list) = (name(host.as_bytes()), vector(&list));
        let mut extensions: Vec<(u16, &[u8])> = others.iter().map(|(k, c)| (*k, &**c)).collect();
        extensions.push((SERVER_NAME, &host_name));
        extensions.insert(0, (ALPN, &list));
        let content = content(&hello(&extensions));
        ends.sort_unstable();
        let bytes = records(&content, ends.into_iter().map(|end| end.min(content.len())));
        let read = client_hello(&bytes).expect("it is right").expect("it is whole");
        proptest::prop_assert_eq!(read.server_name.as_deref(), Some(&*host));
        proptest::prop_assert!(read.protocols().eq(offered.iter().map(|p| p.as_bytes())));
    }
}
