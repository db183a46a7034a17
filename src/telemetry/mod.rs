//! What the program says about itself: metrics, the access log, its own log.
//!
//! Floor 0: it knows numbers and labels, and nothing of requests, backends or names in DNS.

pub mod access;
pub mod characters;
pub mod date;
pub mod logging;
pub mod metrics;
pub mod seldom;
pub mod spans;
pub mod traceparent;
