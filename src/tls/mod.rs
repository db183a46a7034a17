//! TLS towards clients: certificates, the choice among them by SNI, and the server's parameters.
//!
//! Nothing here opens a socket or waits; handshakes belong to the listener.

pub mod certificates;
pub mod dev;
pub mod server;
mod validity;
