//! TLS parameters: certificates, the choice among them by SNI, what we are to clients, and what
//! backends have to prove to us.
//!
//! Nothing here opens a socket or waits; handshakes belong to the listener and to `upstream`.

pub mod certificates;
pub mod client;
pub mod dev;
pub mod server;
mod validity;
