//! Limits of the client's side.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

/// Limits of the client's side.
#[derive(Debug, Clone)]
pub struct Downstream {
    /// For a whole request head (10 s).
    pub header_timeout: Duration,
    /// Size of a request head (32 KiB).
    pub header_bytes: usize,
    /// Fields of a request head (100).
    pub header_fields: usize,
    /// For the TLS handshake (10 s).
    pub handshake_timeout: Duration,
    /// Idle time between requests (75 s).
    pub keep_alive: Duration,
    /// A client's connection takes new requests for so long, less a random part of it; `None`: for
    /// ever.
    pub max_connection_age: Option<Duration>,
    /// Streams that are open at once on one HTTP/2 connection of a client (128).
    pub max_streams: u32,
    /// Open client connections in this process.
    pub max_connections: NonZeroUsize,
    /// Of them, those of one client address (IPv6: of one /64); `None`: as many as there may be.
    pub max_connections_per_client: Option<NonZeroU32>,
    /// `%2f` and `%5c` in a path are a 400.
    pub reject_encoded_slash: bool,
    /// Field names with an underscore are passed on.
    pub allow_underscores: bool,
    /// `Forwarded` (RFC 7239) is set besides `X-Forwarded-*`.
    pub forwarded: bool,
}

/// How much memory there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryLimit {
    /// As much as the control group has.
    Group,
    /// So many bytes for this process.
    Bytes(u64),
    /// Nobody looks.
    Off,
}
