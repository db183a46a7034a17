//! The PROXY protocol: what a proxy says of its client in front of everything else on a connection.
//!
//! Source: <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>

pub mod encode;

/// A version of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// A line of text.
    V1,
    /// Binary, with room for what is known of TLS.
    V2,
}
