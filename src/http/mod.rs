//! HTTP messages: heads, fields, framing, the HTTP/1.1 wire format, and what HTTP/2 makes of them.
//!
//! Nothing here reads a socket, knows a route or picks a backend.

pub mod authority;
pub mod body;
pub mod coding;
pub mod cookies;
pub mod h1;
pub mod h2;
pub mod head;
pub mod headers;
