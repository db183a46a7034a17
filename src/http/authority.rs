//! The authority of a request: `host [":" port]` out of `Host`, an absolute-form target or an
//! HTTP/2 `:authority` (RFC 9110 §7.2, RFC 3986 §3.2.2).
//!
//! Stricter than the URI grammar on purpose: a host is a DNS name or an IP address, so escapes,
//! sub-delimiters, user information, zone identifiers and IPvFuture are refused. What is accepted
//! is read by every backend in the same way.

use std::fmt::Write as _;
use std::net::Ipv6Addr;

use super::head::{Rejection, RequestHead};

impl RequestHead {
    /// Takes the authority apart into `authority`, `host` and `port`. An empty one is refused;
    /// [`RequestHead::clear_authority`] is for requests that may come without. An empty port
    /// (`example.com:`) is left out (RFC 3986 §6.2.3).
    pub fn set_authority(&mut self, raw: &[u8]) -> Result<(), Rejection> {
        self.clear_authority();
        let (host, port) = split_port(raw)?;
        if host.first() == Some(&b'[') {
            write_ipv6(host, &mut self.host)?;
        } else {
            write_name(host, &mut self.host)?;
        }
        self.authority.extend_from_slice(match port {
            Some(_) => raw,
            None => host,
        });
        self.port = port;
        Ok(())
    }

    /// No authority: an HTTP/1.0 request without `Host`.
    pub fn clear_authority(&mut self) {
        self.authority.clear();
        self.host.clear();
        self.port = None;
    }
}

/// Host and port; an empty port counts as none.
fn split_port(raw: &[u8]) -> Result<(&[u8], Option<u16>), Rejection> {
    // Inside an IPv6 literal a colon separates groups.
    let host_end = match raw.first() {
        Some(b'[') => match memchr::memchr(b']', raw) {
            Some(end) => end + 1,
            None => return Err(BAD_HOST),
        },
        _ => memchr::memchr(b':', raw).unwrap_or(raw.len()),
    };
    let (host, rest) = raw.split_at(host_end);
    let port = match rest {
        [] | [b':'] => None,
        [b':', digits @ ..] => Some(port_number(digits)?),
        _ => return Err(BAD_HOST),
    };
    Ok((host, port))
}

fn port_number(digits: &[u8]) -> Result<u16, Rejection> {
    if digits.len() > PORT_DIGITS || !digits.iter().all(u8::is_ascii_digit) {
        return Err(BAD_PORT);
    }
    let port = digits
        .iter()
        .fold(0u32, |n, d| n * 10 + u32::from(d - b'0'));
    match u16::try_from(port) {
        Ok(port) if port != 0 => Ok(port),
        _ => Err(BAD_PORT),
    }
}

/// A DNS name or an IPv4 address: letters, digits, `-`, `_`, `~` in labels that are not empty.
/// `_` is no host name character, but container names use it.
fn write_name(host: &[u8], out: &mut String) -> Result<(), Rejection> {
    let name = host.strip_suffix(b".").unwrap_or(host);
    let mut before = b'.';
    for &b in name {
        let fits = match b {
            b'.' => before != b'.',
            _ => b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'~'),
        };
        if !fits {
            return Err(BAD_HOST);
        }
        before = b;
    }
    // Also true for an empty name.
    if before == b'.' || name.len() > NAME_BYTES {
        return Err(BAD_HOST);
    }
    out.push_str(std::str::from_utf8(name).map_err(|_| BAD_HOST)?);
    out.make_ascii_lowercase();
    Ok(())
}

/// An address in brackets, written in its one canonical form (RFC 5952), so that a route's host
/// is compared as text.
fn write_ipv6(host: &[u8], out: &mut String) -> Result<(), Rejection> {
    let address = host
        .strip_prefix(b"[")
        .and_then(|h| h.strip_suffix(b"]"))
        .and_then(|h| std::str::from_utf8(h).ok())
        .and_then(|h| h.parse::<Ipv6Addr>().ok())
        .ok_or(BAD_HOST)?;
    write!(out, "[{address}]").map_err(|_| BAD_HOST)
}

/// RFC 3986 §3.2.2: a registered name has at most 255 characters.
const NAME_BYTES: usize = 255;
/// 65535 has five digits.
const PORT_DIGITS: usize = 5;
const BAD_HOST: Rejection = Rejection::bad_request("malformed host");
const BAD_PORT: Rejection = Rejection::bad_request("malformed port in the host");
