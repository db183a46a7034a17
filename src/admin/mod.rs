//! What orchestrators, scrapers and people ask about this process, and tell it.
//!
//! `state.rs` knows where the answers are, `probe.rs` is the read-only listener. `control.rs` is the
//! control listener: `guard.rs` lets requests in, `api` answers them (`model.rs` is what it says,
//! `history.rs` the last minute, `explain.rs` where requests go and why), `page` is the dashboard; `runtime_dir.rs` and `token.rs` are where
//! its socket and its token are.

pub mod api;
pub mod control;
pub mod explain;
pub mod guard;
pub mod history;
pub mod model;
pub mod occupancy;
pub mod page;
mod patient;
pub mod probe;
pub mod runtime_dir;
pub mod state;
pub mod token;
