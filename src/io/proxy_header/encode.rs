//! A PROXY protocol header as bytes. Pure; `upstream::establish` sends it.

use std::net::{IpAddr, SocketAddr};

use super::Version;

/// What a backend is told of the client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Introduction<'a> {
    /// The client.
    pub source: SocketAddr,
    /// Where it connected.
    pub destination: SocketAddr,
    /// Its TLS, if it came over TLS. Version 1 has no room for that.
    pub tls: Option<ClientTls<'a>>,
}

/// What a backend is told of a client's TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientTls<'a> {
    /// `1.2` or `1.3`.
    pub version: &'a str,
    /// What was agreed on by ALPN, if anything was.
    pub alpn: Option<&'a [u8]>,
    /// What it named in SNI, if anything.
    pub name: Option<&'a str>,
}

/// The header. `None`: the connection is our own, a check, and serves nobody (`UNKNOWN` and
/// `LOCAL`).
pub fn header(version: Version, of: Option<&Introduction<'_>>) -> Vec<u8> {
    match version {
        Version::V1 => line(of).into_bytes(),
        Version::V2 => binary(of),
    }
}

/// §2.1: at most 107 bytes.
fn line(of: Option<&Introduction<'_>>) -> String {
    let Some(of) = of else {
        return "PROXY UNKNOWN\r\n".to_owned();
    };
    let (source, destination) = of.addresses();
    let family = match source {
        IpAddr::V4(_) => "TCP4",
        IpAddr::V6(_) => "TCP6",
    };
    let (from, to) = (of.source.port(), of.destination.port());
    format!("PROXY {family} {source} {destination} {from} {to}\r\n")
}

/// §2.2.
fn binary(of: Option<&Introduction<'_>>) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    let Some(of) = of else {
        header.extend_from_slice(&[VERSION | LOCAL, UNSPEC, 0, 0]);
        return header;
    };
    let mut body = Vec::new();
    let (source, destination) = of.addresses();
    for address in [source, destination] {
        match address {
            IpAddr::V4(ip) => body.extend_from_slice(&ip.octets()),
            IpAddr::V6(ip) => body.extend_from_slice(&ip.octets()),
        }
    }
    for port in [of.source.port(), of.destination.port()] {
        body.extend_from_slice(&port.to_be_bytes());
    }
    if let Some(tls) = &of.tls {
        describe(tls, &mut body);
    }
    let family = match source {
        IpAddr::V4(_) => TCP4,
        IpAddr::V6(_) => TCP6,
    };
    header.extend_from_slice(&[VERSION | PROXY, family]);
    // ALPN and SNI have at most 255 bytes each: all of it is far below what a length can say.
    header.extend_from_slice(&(body.len() as u16).to_be_bytes());
    header.extend_from_slice(&body);
    header
}

/// §2.2.1 to §2.2.3 and §2.2.7.
fn describe(tls: &ClientTls<'_>, out: &mut Vec<u8>) {
    let fits = |value: &&[u8]| value.len() <= LONGEST_NAME;
    if let Some(alpn) = tls.alpn.filter(fits) {
        field(TYPE_ALPN, alpn, out);
    }
    if let Some(name) = tls.name.map(str::as_bytes).filter(fits) {
        field(TYPE_AUTHORITY, name, out);
    }
    // That it came over TLS, and in four bytes that are not zero: it has proved nothing by a
    // certificate.
    let mut ssl = vec![CLIENT_SSL, 0, 0, 0, 1];
    field(
        SUBTYPE_VERSION,
        format!("TLSv{}", tls.version).as_bytes(),
        &mut ssl,
    );
    field(TYPE_SSL, &ssl, out);
}

fn field(kind: u8, value: &[u8], out: &mut Vec<u8>) {
    out.push(kind);
    out.extend_from_slice(&(value.len() as u16).to_be_bytes());
    out.extend_from_slice(value);
}

impl Introduction<'_> {
    /// Both of one family: IPv4 unless one of them is IPv6 and no mapped IPv4.
    fn addresses(&self) -> (IpAddr, IpAddr) {
        let [source, destination] =
            [self.source, self.destination].map(|address| address.ip().to_canonical());
        if source.is_ipv4() == destination.is_ipv4() {
            return (source, destination);
        }
        let mapped = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => IpAddr::V6(ip.to_ipv6_mapped()),
            IpAddr::V6(_) => ip,
        };
        (mapped(source), mapped(destination))
    }
}

/// No TLV of a name is longer: a DNS name has at most 253 bytes, a protocol's 255.
const LONGEST_NAME: usize = 255;

/// §2.2: what no other protocol begins with.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Version 2 in the high half; the command in the low one.
const VERSION: u8 = 0x20;
const LOCAL: u8 = 0;
const PROXY: u8 = 1;

/// Address family in the high half, SOCK_STREAM in the low one.
const UNSPEC: u8 = 0;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

const TYPE_ALPN: u8 = 0x01;
const TYPE_AUTHORITY: u8 = 0x02;
const TYPE_SSL: u8 = 0x20;
const SUBTYPE_VERSION: u8 = 0x21;
const CLIENT_SSL: u8 = 0x01;

#[cfg(test)]
mod tests {
    use super::*;

    fn introduction(source: &str, destination: &str) -> Introduction<'static> {
        Introduction {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            tls: None,
        }
    }

    #[test]
    fn version_1() {
        for (rule, source, destination, expected) in [
            (
                "IPv4",
                "192.0.2.7:1000",
                "198.51.100.1:443",
                "PROXY TCP4 192.0.2.7 198.51.100.1 1000 443\r\n",
            ),
            (
                "IPv6",
                "[2001:db8::7]:65535",
                "[::1]:443",
                "PROXY TCP6 2001:db8::7 ::1 65535 443\r\n",
            ),
            (
                "IPv4 mapped into IPv6 is IPv4",
                "[::ffff:192.0.2.7]:1",
                "[::ffff:198.51.100.1]:2",
                "PROXY TCP4 192.0.2.7 198.51.100.1 1 2\r\n",
            ),
            (
                "of two families",
                "192.0.2.7:1",
                "[2001:db8::1]:2",
                "PROXY TCP6 ::ffff:192.0.2.7 2001:db8::1 1 2\r\n",
            ),
        ] {
            let of = introduction(source, destination);
            let line = header(Version::V1, Some(&of));
            assert_eq!(String::from_utf8(line).unwrap(), expected, "{rule}");
        }
        assert_eq!(header(Version::V1, None), b"PROXY UNKNOWN\r\n");
    }

    #[test]
    fn version_2() {
        let of = introduction("192.0.2.7:1000", "198.51.100.1:443");
        let mut expected = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
        expected.extend_from_slice(&[192, 0, 2, 7, 198, 51, 100, 1, 3, 232, 1, 187]);
        assert_eq!(header(Version::V2, Some(&of)), expected);

        let of = introduction("[2001:db8::7]:1", "192.0.2.1:2");
        let mixed = header(Version::V2, Some(&of));
        assert_eq!(mixed[12..16], [0x21, 0x21, 0, 36]);
        assert_eq!(
            mixed[32..48],
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 192, 0, 2, 1]
        );

        assert_eq!(header(Version::V2, None), b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0");
    }

    #[test]
    fn version_2_says_what_is_known_of_tls() {
        let mut of = introduction("192.0.2.7:1000", "198.51.100.1:443");
        of.tls = Some(ClientTls {
            version: "1.3",
            alpn: Some(b"http/1.1"),
            name: Some("shop.example"),
        });
        let full = header(Version::V2, Some(&of));
        let mut expected = b"\x01\0\x08http/1.1\x02\0\x0cshop.example".to_vec();
        expected.extend_from_slice(b"\x20\0\x0f\x01\0\0\0\x01\x21\0\x07TLSv1.3");
        assert_eq!(full[28..], expected);
        assert_eq!(usize::from(full[15]), full.len() - 16);

        let long = "x".repeat(256);
        of.tls = Some(ClientTls {
            version: "1.2",
            alpn: None,
            name: Some(&long),
        });
        let short = header(Version::V2, Some(&of));
        assert_eq!(short[28..], *b"\x20\0\x0f\x01\0\0\0\x01\x21\0\x07TLSv1.2");
    }
}
