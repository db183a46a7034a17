//! Backends and the connections to them.

pub mod adaptive;
pub mod backend;
pub mod connect;
mod connects;
pub mod establish;
pub mod gate;
pub mod load;
pub mod pool;
pub mod standing;
pub mod streams;
