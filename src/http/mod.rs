//! HTTP messages: heads, fields, framing, and the HTTP/1.1 wire format.
//!
//! Nothing here reads a socket, knows a route or picks a backend.

pub mod authority;
pub mod body;
pub mod cookies;
pub mod h1;
pub mod head;
pub mod headers;
