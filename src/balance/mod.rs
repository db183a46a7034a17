//! Which backend serves the next request.
//!
//! `service.rs` writes snapshots on the control thread, `snapshot.rs` is what workers read,
//! `picker.rs` is one worker's schedule over it, `tiers.rs` goes from priority to priority (`spill.rs`
//! where more than one takes part), a file
//! per strategy does the choosing (`candidates.rs` is what some of them share), `shares.rs` turns
//! SRV weights into shares, `split.rs` shares requests out over services, `affinity.rs` makes the
//! cookies that go before any strategy, `by_hand.rs` keeps what an operator set, and `explain.rs` says
//! what a schedule would do.

pub mod affinity;
pub mod by_hand;
#[cfg(test)]
mod by_hand_tests;
mod candidates;
mod cycle;
mod edf;
pub mod explain;
pub mod hash;
mod least_connections;
pub mod picker;
mod random;
pub mod service;
pub mod shares;
pub mod snapshot;
mod spill;
pub mod split;
#[cfg(test)]
mod testing;
mod tiers;
mod two_choices;
pub mod wish;
