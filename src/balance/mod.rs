//! Which backend serves the next request.
//!
//! `service.rs` writes snapshots on the control thread, `snapshot.rs` is what workers read,
//! `picker.rs` is one worker's schedule over it, a file per strategy does the choosing, and
//! `shares.rs` turns SRV weights into shares.

mod cycle;
mod edf;
pub mod picker;
pub mod service;
pub mod shares;
pub mod snapshot;
#[cfg(test)]
mod testing;
pub mod wish;
