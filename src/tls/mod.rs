//! TLS towards clients: certificates, the choice among them by SNI, and the server's parameters; and
//! what a ClientHello says, for connections whose TLS a backend ends.
//!
//! Nothing here opens a socket or waits; handshakes belong to the listener.

pub mod certificates;
pub mod client_hello;
pub mod dev;
pub mod server;
mod validity;
