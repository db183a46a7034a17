use proptest::prelude::*;

use super::*;

/// A block with that version and command, family, and content.
fn v2(command: u8, family: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = SIGNATURE.to_vec();
    bytes.extend([command, family]);
    bytes.extend(u16::try_from(content.len()).unwrap().to_be_bytes());
    bytes.extend(content);
    bytes
}

/// 192.0.2.7:4711 to 198.51.100.1:443, and what follows.
fn v4(rest: &[u8]) -> Vec<u8> {
    let mut content = vec![192, 0, 2, 7, 198, 51, 100, 1, 0x12, 0x67, 0x01, 0xbb];
    content.extend(rest);
    content
}

/// [2001:db8::7]:4711 to [2001:db8::1]:443.
fn v6() -> Vec<u8> {
    let mut content = "2001:db8::7".parse::<Ipv6Addr>().unwrap().octets().to_vec();
    content.extend("2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
    content.extend([0x12, 0x67, 0x01, 0xbb]);
    content
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
    bytes.extend(value);
    bytes
}

/// A block of [`v4`] with a checksum between two other TLVs.
fn with_checksum() -> Vec<u8> {
    let mut tlvs = tlv(0x01, b"h2");
    let place = FIXED + 12 + tlvs.len() + 3;
    tlvs.extend(tlv(CRC32C, &[0; 4]));
    tlvs.extend(tlv(0xe0, b"own"));
    let mut bytes = v2(0x21, 0x11, &v4(&tlvs));
    let sum = crc32c(&[&bytes]);
    bytes[place..place + 4].copy_from_slice(&sum.to_be_bytes());
    bytes
}

fn source(bytes: &[u8]) -> Result<Option<String>, BadHeader> {
    let whole = header(bytes)?.expect("it is whole");
    assert_eq!(whole.length, bytes.len());
    Ok(whole.source.map(|source| source.to_string()))
}

#[test]
fn lines() {
    use BadHeader::{Absent, Addresses, Line, Protocol};
    let long_unknown = format!("UNKNOWN {}", "f".repeat(107 - 16));
    let too_long = format!("UNKNOWN {}", "f".repeat(107 - 15));
    for (rule, text, expected) in [
        (
            "TCP4",
            "TCP4 192.0.2.7 198.51.100.1 4711 443",
            Ok(Some("192.0.2.7:4711")),
        ),
        (
            "TCP6",
            "TCP6 2001:db8::7 2001:db8::1 4711 443",
            Ok(Some("[2001:db8::7]:4711")),
        ),
        (
            "TCP6, the longest",
            "TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535",
            Ok(Some("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535")),
        ),
        (
            "upper case digits",
            "TCP6 2001:DB8::7 ::1 1 2",
            Ok(Some("[2001:db8::7]:1")),
        ),
        (
            "a mapped address, as inet_ntop writes it",
            "TCP6 ::ffff:192.0.2.7 ::1 1 2",
            Ok(Some("[::ffff:192.0.2.7]:1")),
        ),
        (
            "port 0",
            "TCP4 192.0.2.7 198.51.100.1 0 0",
            Ok(Some("192.0.2.7:0")),
        ),
        ("UNKNOWN alone", "UNKNOWN", Ok(None)),
        (
            "UNKNOWN: what follows is ignored",
            "UNKNOWN any thing é",
            Ok(None),
        ),
        ("the longest line", &long_unknown, Ok(None)),
        ("one byte more", &too_long, Err(Line)),
        ("no protocol", "", Err(Protocol)),
        (
            "another protocol",
            "UDP4 192.0.2.7 198.51.100.1 1 2",
            Err(Protocol),
        ),
        (
            "lower case",
            "tcp4 192.0.2.7 198.51.100.1 1 2",
            Err(Protocol),
        ),
        ("UNKNOWN with more letters", "UNKNOWNS", Err(Protocol)),
        (
            "two spaces before the protocol",
            " TCP4 192.0.2.7 198.51.100.1 1 2",
            Err(Protocol),
        ),
        ("nothing behind the protocol", "TCP4", Err(Addresses)),
        (
            "the other family",
            "TCP4 2001:db8::7 2001:db8::1 1 2",
            Err(Addresses),
        ),
        (
            "the other family, the other way",
            "TCP6 192.0.2.7 198.51.100.1 1 2",
            Err(Addresses),
        ),
        (
            "two spaces",
            "TCP4 192.0.2.7  198.51.100.1 1 2",
            Err(Addresses),
        ),
        ("a tab", "TCP4 192.0.2.7\t198.51.100.1 1 2", Err(Addresses)),
        (
            "a space at the end",
            "TCP4 192.0.2.7 198.51.100.1 1 2 ",
            Err(Addresses),
        ),
        (
            "a word more",
            "TCP4 192.0.2.7 198.51.100.1 1 2 3",
            Err(Addresses),
        ),
        (
            "a port less",
            "TCP4 192.0.2.7 198.51.100.1 1",
            Err(Addresses),
        ),
        (
            "a zero in front of a part",
            "TCP4 192.000.2.7 198.51.100.1 1 2",
            Err(Addresses),
        ),
        (
            "three parts",
            "TCP4 192.0.2 198.51.100.1 1 2",
            Err(Addresses),
        ),
        ("a zone", "TCP6 fe80::7%eth0 ::1 1 2", Err(Addresses)),
        (
            "a bad destination",
            "TCP4 192.0.2.7 198.51.100.256 1 2",
            Err(Addresses),
        ),
        (
            "a zero in front of a port",
            "TCP4 192.0.2.7 198.51.100.1 01 2",
            Err(Addresses),
        ),
        ("a sign", "TCP4 192.0.2.7 198.51.100.1 +1 2", Err(Addresses)),
        (
            "a port too large",
            "TCP4 192.0.2.7 198.51.100.1 65536 2",
            Err(Addresses),
        ),
        (
            "the other port too large",
            "TCP4 192.0.2.7 198.51.100.1 1 65536",
            Err(Addresses),
        ),
        (
            "CR within",
            "TCP4 192.0.2.7 198.51.100.1 1 2\r",
            Err(Addresses),
        ),
    ] {
        let line = format!("PROXY {text}\r\n");
        let expected = expected.map(|source| source.map(str::to_owned));
        assert_eq!(source(line.as_bytes()), expected, "{rule}");
    }
    for (rule, bytes, expected) in [
        ("LF alone", &b"PROXY UNKNOWN\n"[..], Line),
        ("an end before the space", b"PROXY\r\n", Absent),
        (
            "lower case",
            b"proxy TCP4 192.0.2.7 198.51.100.1 1 2\r\n",
            Absent,
        ),
        ("a request", b"GET / HTTP/1.1\r\n", Absent),
        (
            "a request that begins alike",
            b"PROPFIND / HTTP/1.1\r\n",
            Absent,
        ),
        ("TLS", b"\x16\x03\x01\x02\x00", Absent),
        ("one byte is enough", b"G", Absent),
        (
            "107 bytes without an end",
            &[&b"PROXY UNKNOWN "[..], &[b'f'; 93]].concat(),
            Line,
        ),
    ] {
        assert_eq!(header(bytes), Err(expected), "{rule}");
    }
}

#[test]
fn blocks() {
    use BadHeader::{Absent, Checksum, Command, Family, Tlv, TooLong, TooShort};
    let mut twice = tlv(CRC32C, &[0; 4]);
    twice.extend(tlv(CRC32C, &[0; 4]));
    let damaged = |at: usize| {
        let mut bytes = with_checksum();
        bytes[at] ^= 1;
        bytes
    };
    let v4_source = Ok(Some("192.0.2.7:4711"));
    for (rule, bytes, expected) in [
        ("IPv4", v2(0x21, 0x11, &v4(b"")), v4_source),
        (
            "IPv6",
            v2(0x21, 0x21, &v6()),
            Ok(Some("[2001:db8::7]:4711")),
        ),
        ("LOCAL without anything", v2(0x20, 0x00, b""), Ok(None)),
        (
            "LOCAL: addresses are ignored",
            v2(0x20, 0x11, &v4(b"")),
            Ok(None),
        ),
        (
            "LOCAL: the family is ignored, whatever it is",
            v2(0x20, 0xff, b"abc"),
            Ok(None),
        ),
        (
            "UNSPEC: the client is not known",
            v2(0x21, 0x00, b""),
            Ok(None),
        ),
        (
            "UNSPEC: what is there is ignored",
            v2(0x21, 0x00, b"abc"),
            Ok(None),
        ),
        (
            "TLVs that nobody knows",
            v2(
                0x21,
                0x11,
                &v4(&[tlv(0xea, b"x"), tlv(0x20, &[0; 200])].concat()),
            ),
            v4_source,
        ),
        (
            "an empty TLV",
            v2(0x21, 0x11, &v4(&tlv(0x04, b""))),
            v4_source,
        ),
        ("a checksum", with_checksum(), v4_source),
        (
            "4 KiB",
            v2(0x21, 0x11, &v4(&tlv(0x04, &[0; 4096 - 12 - 3]))),
            v4_source,
        ),
        (
            "more",
            v2(0x21, 0x11, &v4(&tlv(0x04, &[0; 4096 - 12 - 2]))),
            Err(TooLong),
        ),
        ("more, of LOCAL", v2(0x20, 0x00, &[0; 4097]), Err(TooLong)),
        (
            "version 1 in a block",
            v2(0x11, 0x11, &v4(b"")),
            Err(Command),
        ),
        ("version 3", v2(0x31, 0x11, &v4(b"")), Err(Command)),
        ("another command", v2(0x22, 0x11, &v4(b"")), Err(Command)),
        ("datagrams", v2(0x21, 0x12, &v4(b"")), Err(Family)),
        ("sockets of Unix", v2(0x21, 0x31, &[0; 216]), Err(Family)),
        (
            "a family without a transport",
            v2(0x21, 0x10, &v4(b"")),
            Err(Family),
        ),
        ("another family", v2(0x21, 0x41, &v4(b"")), Err(Family)),
        (
            "IPv4, a byte short",
            v2(0x21, 0x11, &v4(b"")[..11]),
            Err(TooShort),
        ),
        (
            "IPv6, a byte short",
            v2(0x21, 0x21, &v6()[..35]),
            Err(TooShort),
        ),
        (
            "IPv4 addresses under IPv6",
            v2(0x21, 0x21, &v4(b"")),
            Err(TooShort),
        ),
        (
            "a TLV without its length",
            v2(0x21, 0x11, &v4(&[4, 0])),
            Err(Tlv),
        ),
        (
            "a TLV longer than the rest",
            v2(0x21, 0x11, &v4(&[4, 0, 2, 0])),
            Err(Tlv),
        ),
        (
            "one byte behind the TLVs",
            v2(0x21, 0x11, &v4(&[4, 0, 0, 9])),
            Err(Tlv),
        ),
        (
            "a checksum of another address",
            damaged(FIXED),
            Err(Checksum),
        ),
        (
            "a checksum that is wrong",
            damaged(FIXED + 12 + 5 + 3),
            Err(Checksum),
        ),
        (
            "a checksum over what follows it",
            damaged(FIXED + 12 + 5 + 7 + 4),
            Err(Checksum),
        ),
        (
            "a checksum of three bytes",
            v2(0x21, 0x11, &v4(&tlv(CRC32C, b"abc"))),
            Err(Checksum),
        ),
        ("two checksums", v2(0x21, 0x11, &v4(&twice)), Err(Checksum)),
        (
            "another signature",
            {
                let mut bytes = v2(0x21, 0x11, &v4(b""));
                bytes[11] = b'\r';
                bytes
            },
            Err(Absent),
        ),
    ] {
        let expected = expected.map(|source| source.map(str::to_owned));
        assert_eq!(source(&bytes), expected, "{rule}");
    }
}

/// RFC 3720 appendix B.4, and the usual check value.
#[test]
fn checksums() {
    for (bytes, sum) in [
        (&[0; 32][..], 0x8a91_36aa),
        (&[0xff; 32], 0x62a8_ab43),
        (b"123456789", 0xe306_9283),
        (b"", 0),
    ] {
        assert_eq!(crc32c(&[bytes]), sum);
    }
    assert_eq!(crc32c(&[b"1234", b"", b"56789"]), 0xe306_9283);
}

/// However it is cut, what is there of a header is a part of one, and what follows is not looked at.
#[test]
fn cut_anywhere() {
    for whole in [
        b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n".to_vec(),
        b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n".to_vec(),
        b"PROXY UNKNOWN\r\n".to_vec(),
        v2(0x21, 0x11, &v4(b"")),
        v2(0x21, 0x21, &v6()),
        v2(0x20, 0x00, b""),
        with_checksum(),
    ] {
        for end in 0..whole.len() {
            assert_eq!(header(&whole[..end]), Ok(None), "{whole:x?} cut at {end}");
        }
        let alone = header(&whole).unwrap().unwrap();
        for more in [
            &b"\x16\x03\x01"[..],
            b"GET / HTTP/1.1\r\n\r\n",
            b"\r\n",
            &[0; 8192],
        ] {
            let found = header(&[&whole[..], more].concat());
            assert_eq!(found, Ok(Some(alone)));
        }
    }
}

proptest! {
    #[test]
    fn an_address_comes_back(address: SocketAddr, other: SocketAddr, tail: Vec<u8>) {
        prop_assume!(address.is_ipv4() == other.is_ipv4());
        // The zone and flow label of a generated address are not on the wire.
        let address = SocketAddr::new(address.ip(), address.port());
        let (name, family) = match address {
            SocketAddr::V4(_) => ("TCP4", 0x11),
            SocketAddr::V6(_) => ("TCP6", 0x21),
        };
        let line = format!(
            "PROXY {name} {} {} {} {}\r\n", address.ip(), other.ip(), address.port(), other.port()
        );
        let octets = |ip: IpAddr| match ip {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        let mut content = [octets(address.ip()), octets(other.ip())].concat();
        content.extend(address.port().to_be_bytes());
        content.extend(other.port().to_be_bytes());
        for header in [line.into_bytes(), v2(0x21, family, &content)] {
            let found = super::header(&[&header[..], &tail].concat()).unwrap().unwrap();
            prop_assert_eq!(found.source, Some(address));
            prop_assert_eq!(found.length, header.len());
        }
    }

    /// What was undecided is decided by more of the same, and what was decided stays so.
    #[test]
    fn whatever_comes(bytes: Vec<u8>, kind in 0..3_usize, end: prop::sample::Index) {
        let begin: [&[u8]; 3] = [b"", PREFIX, SIGNATURE];
        let bytes = [begin[kind], &bytes].concat();
        let end = end.index(bytes.len() + 1);
        match header(&bytes[..end]) {
            Ok(None) => prop_assert!(end < MOST),
            decided => prop_assert_eq!(decided, header(&bytes)),
        }
    }
}
