//! HTTP/1.1 on the wire (RFC 9112): bytes to heads and bodies, and back.

pub mod body;
pub mod encode;
pub mod parse;
