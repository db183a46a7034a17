//! TLS towards clients: certificates, the choice among them by SNI, those that clients show, and the
//! server's parameters.
//!
//! Nothing here opens a socket or waits; handshakes belong to the listener.

pub mod certificates;
pub mod client_certificates;
mod der;
pub mod dev;
pub mod server;
pub mod subject;
mod validity;
