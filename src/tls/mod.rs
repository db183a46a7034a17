//! TLS parameters: certificates, the choice among them by SNI, what we are to clients, what clients
//! show, and what backends have to prove to us; and what a ClientHello says, for connections whose TLS
//! a backend ends.
//!
//! Nothing here opens a socket, and only `reload` waits, in a thread of its own; handshakes belong to the listener and to `upstream`.

pub mod authority_key;
pub mod certificates;
pub mod challenges;
pub mod client;
pub mod client_certificates;
pub mod client_hello;
pub mod contents;
mod der;
pub mod dev;
mod expiry;
pub mod reload;
pub mod server;
pub mod subject;
mod validity;
