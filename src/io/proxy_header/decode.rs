//! A PROXY header read from bytes. Pure.
//!
//! Strict: what a proxy that keeps to the specification cannot have sent is refused, and as soon as
//! it shows, so that a client that speaks something else is not waited for. Section numbers are
//! those of HAProxy's `proxy-protocol.txt`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Version;

/// Longest header that is read, in bytes: 16, and 4 KiB of addresses and TLVs. A client certificate
/// in a TLV has some 2 KiB; the format could say 64 KiB.
pub const MOST: usize = FIXED + MOST_BLOCK;

/// A whole header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// In which form it came.
    pub version: Version,
    /// Bytes that it took.
    pub length: usize,
    /// Where the client is; `None`: the proxy speaks for itself, or does not know. Then the
    /// connection's own address counts (2.1, 2.2).
    pub source: Option<SocketAddr>,
    /// The proxy has a client, and does not say where it is.
    pub is_unknown: bool,
}

/// Why this is no PROXY header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum BadHeader {
    #[error("no PROXY header")]
    Absent,
    #[error("PROXY header: the line does not end within {LONGEST_LINE} bytes with CRLF")]
    Line,
    #[error("PROXY header: unknown protocol")]
    Protocol,
    #[error("PROXY header: not two addresses and two ports")]
    Addresses,
    #[error("PROXY header: unknown version or command")]
    Command,
    #[error("PROXY header: unknown family, or not a stream")]
    Family,
    #[error("PROXY header: more than {MOST_BLOCK} bytes")]
    TooLong,
    #[error("PROXY header: too short for its addresses")]
    TooShort,
    #[error("PROXY header: TLVs that do not fit")]
    Tlv,
    #[error("PROXY header: wrong checksum")]
    Checksum,
}

/// Reads the header that `bytes` begins with. `None`: all of them belong to it, and more has to
/// come, up to [`MOST`] in all. O(bytes).
pub fn header(bytes: &[u8]) -> Result<Option<Header>, BadHeader> {
    if begins(bytes, SIGNATURE) {
        return block(bytes);
    }
    if begins(bytes, PREFIX) {
        return line(bytes);
    }
    Err(BadHeader::Absent)
}

/// Does one begin with the other?
fn begins(bytes: &[u8], expected: &[u8]) -> bool {
    let both = bytes.len().min(expected.len());
    bytes[..both] == expected[..both]
}

/// Version 1 (2.1).
fn line(bytes: &[u8]) -> Result<Option<Header>, BadHeader> {
    let within = &bytes[..bytes.len().min(LONGEST_LINE)];
    let Some(end) = memchr::memchr(b'\n', within) else {
        return match bytes.len() < LONGEST_LINE {
            true => Ok(None),
            false => Err(BadHeader::Line),
        };
    };
    let length = end + 1;
    let line = bytes[..end].strip_suffix(b"\r").ok_or(BadHeader::Line)?;
    let rest = line.strip_prefix(PREFIX).ok_or(BadHeader::Line)?;
    let (protocol, rest) = match memchr::memchr(b' ', rest) {
        Some(space) => (&rest[..space], Some(&rest[space + 1..])),
        None => (rest, None),
    };
    let source = match (protocol, rest) {
        // Whatever follows is to be ignored.
        (b"UNKNOWN", _) => None,
        (b"TCP4", Some(rest)) => Some(ends::<Ipv4Addr>(rest)?),
        (b"TCP6", Some(rest)) => Some(ends::<Ipv6Addr>(rest)?),
        (b"TCP4" | b"TCP6", None) => return Err(BadHeader::Addresses),
        _ => return Err(BadHeader::Protocol),
    };
    Ok(Some(Header {
        version: Version::V1,
        length,
        source,
        is_unknown: source.is_none(),
    }))
}

/// `SOURCE DESTINATION SOURCE-PORT DESTINATION-PORT`, with one space between them: the source.
fn ends<A: std::str::FromStr + Into<IpAddr>>(text: &[u8]) -> Result<SocketAddr, BadHeader> {
    let text = std::str::from_utf8(text).map_err(|_| BadHeader::Addresses)?;
    let mut parts = text.split(' ');
    let mut next = || parts.next().ok_or(BadHeader::Addresses);
    let (source, destination, port, other_port) = (next()?, next()?, next()?, next()?);
    let address = |text: &str| text.parse::<A>().map_err(|_| BadHeader::Addresses);
    let source: IpAddr = address(source)?.into();
    address(destination)?;
    let port = decimal(port).ok_or(BadHeader::Addresses)?;
    decimal(other_port).ok_or(BadHeader::Addresses)?;
    match parts.next() {
        None => Ok(SocketAddr::new(source, port)),
        Some(_) => Err(BadHeader::Addresses),
    }
}

/// A port: digits only, and no 0 in front of others.
fn decimal(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let padded = text.len() > 1 && text.starts_with('0');
    match digits && !padded {
        true => text.parse().ok(),
        false => None,
    }
}

/// Version 2 (2.2).
fn block(bytes: &[u8]) -> Result<Option<Header>, BadHeader> {
    let end = SIGNATURE.len();
    let local = match bytes.get(end) {
        None => return Ok(None),
        Some(0x20) => true,
        Some(0x21) => false,
        Some(_) => return Err(BadHeader::Command),
    };
    let Some(&family) = bytes.get(end + 1) else {
        return Ok(None);
    };
    // Of LOCAL, the family is to be ignored.
    let family = match (local, family) {
        (true, _) => Family::None,
        (false, 0x00) => Family::None,
        (false, 0x11) => Family::V4,
        (false, 0x21) => Family::V6,
        // Sockets of Unix have no address by which a client is known, and datagrams don't come here.
        (false, _) => return Err(BadHeader::Family),
    };
    let Some(length) = bytes.get(end + 2..FIXED) else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
    if length > MOST_BLOCK {
        return Err(BadHeader::TooLong);
    }
    if length < family.addresses() {
        return Err(BadHeader::TooShort);
    }
    let Some(header) = bytes.get(..FIXED + length) else {
        return Ok(None);
    };
    let (addresses, tlvs) = header[FIXED..].split_at(family.addresses());
    let source = match family {
        // Nothing says where TLVs would begin.
        Family::None => None,
        Family::V4 => Some(source_v4(addresses)),
        Family::V6 => Some(source_v6(addresses)),
    };
    if source.is_some() {
        check_tlvs(header, header.len() - tlvs.len())?;
    }
    Ok(Some(Header {
        version: Version::V2,
        length: header.len(),
        is_unknown: source.flatten().is_none() && !local,
        source: source.flatten(),
    }))
}

/// Of which kind the addresses of a block are.
#[derive(Debug, Clone, Copy)]
enum Family {
    None,
    V4,
    V6,
}

impl Family {
    /// Bytes of two addresses and two ports.
    fn addresses(self) -> usize {
        match self {
            Family::None => 0,
            Family::V4 => 4 + 4 + 2 + 2,
            Family::V6 => 16 + 16 + 2 + 2,
        }
    }
}

/// Source, destination, source's port, destination's port.
fn source_v4(addresses: &[u8]) -> Option<SocketAddr> {
    let address: [u8; 4] = *addresses.first_chunk()?;
    let port = addresses.get(8..10)?.first_chunk()?;
    Some((address, u16::from_be_bytes(*port)).into())
}

fn source_v6(addresses: &[u8]) -> Option<SocketAddr> {
    let address: [u8; 16] = *addresses.first_chunk()?;
    let port = addresses.get(32..34)?.first_chunk()?;
    Some((address, u16::from_be_bytes(*port)).into())
}

/// Goes through the TLVs (2.2.1) that begin at `start` of a header: they fill it exactly, and a
/// checksum (2.2.3) is right. What else they say is not looked at.
fn check_tlvs(header: &[u8], start: usize) -> Result<(), BadHeader> {
    let mut at = start;
    let mut checked = false;
    while at < header.len() {
        let Some(&[kind, high, low]) = header[at..].first_chunk() else {
            return Err(BadHeader::Tlv);
        };
        let value = at + 3;
        let length = usize::from(u16::from_be_bytes([high, low]));
        at = value + length;
        let Some(content) = header.get(value..at) else {
            return Err(BadHeader::Tlv);
        };
        if kind != CRC32C {
            continue;
        }
        // One that is no number, or a second one, was not made by the rules.
        let (Ok(content), false) = (<[u8; 4]>::try_from(content), checked) else {
            return Err(BadHeader::Checksum);
        };
        checked = true;
        let parts = [&header[..value], &[0; 4], &header[at..]];
        if crc32c(&parts) != u32::from_be_bytes(content) {
            return Err(BadHeader::Checksum);
        }
    }
    Ok(())
}

/// CRC-32C (RFC 9260 appendix A) over all parts, bit by bit: some 8 operations a byte, for what is
/// rare, short, and comes from a trusted peer.
fn crc32c(parts: &[&[u8]]) -> u32 {
    let bytes = parts.iter().flat_map(|part| part.iter());
    !bytes.fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (POLYNOMIAL & (crc & 1).wrapping_neg())
        })
    })
}

/// What version 1 begins with.
const PREFIX: &[u8] = b"PROXY ";

/// Bytes of the longest line, CRLF included (2.1).
const LONGEST_LINE: usize = 107;

/// What version 2 begins with.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Bytes of signature, version and command, family and length.
const FIXED: usize = 16;

/// Bytes that a block may have behind those.
const MOST_BLOCK: usize = 4096;

/// The TLV with a checksum (2.2.3).
const CRC32C: u8 = 0x03;

/// Castagnoli's, with its bits in reverse.
const POLYNOMIAL: u32 = 0x82f6_3b78;

#[cfg(test)]
mod tests;
