//! A PROXY header: never a panic; what was decided stays so, whatever comes behind it; until then no
//! more is waited for than a header may have. An address that was read can be written in both forms
//! and read again.

#![no_main]

use std::net::{IpAddr, SocketAddr};

use evenkeel::io::proxy_header::decode::{self, Header, MOST};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let whole = decode::header(input);
    // What decides is found at the same place however much is there.
    let decided = (0..=input.len()).find(|&end| decode::header(&input[..end]) != Ok(None));
    match decided {
        None => assert!(input.len() < MOST),
        Some(end) => {
            assert!(end <= MOST);
            assert_eq!(decode::header(&input[..end]), whole);
            if let Ok(Some(header)) = whole {
                assert_eq!(header.length, end);
            }
        }
    }
    if let Ok(Some(Header {
        source: Some(source),
        ..
    })) = whole
    {
        for written in [line(source), block(source)] {
            let again = decode::header(&written).unwrap().unwrap();
            assert_eq!((again.source, again.length), (Some(source), written.len()));
        }
    }
});

fn line(source: SocketAddr) -> Vec<u8> {
    let (ip, port) = (source.ip(), source.port());
    let family = if ip.is_ipv4() { "TCP4" } else { "TCP6" };
    format!("PROXY {family} {ip} {ip} {port} 443\r\n").into_bytes()
}

fn block(source: SocketAddr) -> Vec<u8> {
    let (family, octets) = match source.ip() {
        IpAddr::V4(v4) => (0x11, v4.octets().to_vec()),
        IpAddr::V6(v6) => (0x21, v6.octets().to_vec()),
    };
    let mut content = [&octets[..], &octets].concat();
    content.extend(source.port().to_be_bytes());
    content.extend([1, 187]);
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n\x21".to_vec();
    bytes.push(family);
    bytes.extend((content.len() as u16).to_be_bytes());
    bytes.extend(content);
    bytes
}
