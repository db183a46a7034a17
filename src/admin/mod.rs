//! What orchestrators, scrapers and people ask about this process.
//!
//! `state.rs` knows where the answers are, `probe.rs` is the read-only listener, `explain.rs` says where
//! requests go and why.

pub mod explain;
pub mod probe;
pub mod state;
