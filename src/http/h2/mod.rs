//! HTTP/2 (RFC 9113) on top of the h2 crate, which does frames, HPACK, stream states and windows.
//!
//! `head.rs` turns heads into the ones that the rest of the program knows, and back; `incoming.rs` is
//! the half of a stream that comes, `outgoing.rs` the half that goes; `flood.rs` (pure) counts frames
//! that make work and carry nothing.

pub mod flood;
pub mod head;
pub mod incoming;
pub mod outgoing;

pub use ::h2::{Error, Reason};

/// What a client that knows that the server speaks HTTP/2 says first (RFC 9113 §3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The ALPN name of HTTP/2 over TLS (RFC 9113 §3.2).
pub const ALPN: &[u8] = b"h2";
