//! The PROXY protocol, versions 1 and 2: what a proxy says, before anything else, about whose
//! connection it passes on (HAProxy's `proxy-protocol.txt`, sections 2.1 and 2.2).
//!
//! `decode` (pure) reads a header, `receive` takes one off a connection; `encode` (pure) writes one.

pub mod decode;
pub mod encode;
pub mod receive;

/// Which form of the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// A line of text.
    V1,
    /// A binary block, with room for what is known of TLS.
    V2,
}
