//! Backends and the connections to them.

pub mod backend;
pub mod connect;
pub mod pool;
