//! Backends and the connections to them.

pub mod backend;
