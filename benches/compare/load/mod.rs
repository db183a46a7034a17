//! The load generator and the backend, both processes of their own on the other core.
//!
//! A [`Job`] goes in as JSON on the command line, an [`Outcome`] comes out as JSON on standard output.

#![allow(dead_code, reason = "filled in by the next commits")]

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What one run of the load generator does.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    /// Where the proxy listens.
    pub target: SocketAddr,
    /// TLS to speak; `None`: plain.
    pub tls: Option<Tls>,
    /// Client connections (at once, where each request has its own).
    pub connections: usize,
    /// Connections of these that send requests; the others are opened and stay idle.
    pub active: usize,
    /// What a request is.
    pub request: Request,
    /// How requests follow each other.
    pub pattern: Pattern,
    /// Length of the run, in seconds.
    pub seconds: f64,
}

/// TLS as every peer is asked for it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Tls {
    /// The authority that signed the certificate, PEM.
    pub ca: PathBuf,
    /// Name to ask for and to verify.
    pub name: String,
    /// Whether a new connection resumes the session of an earlier one.
    pub resume: bool,
}

/// One request.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    /// Value of the Host field.
    pub host: String,
    /// Path; `/N` is answered with N bytes by the backend.
    pub path: String,
    /// Bytes of body to send (POST with Content-Length); 0: GET without one.
    pub upload: u64,
}

/// How requests follow each other.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub enum Pattern {
    /// The next one as soon as the answer is there, on the same connection.
    KeepAlive,
    /// A new connection for each request (with a new handshake, where it is TLS).
    Connect,
    /// So many per second in all, on kept-alive connections, due at fixed times; the latency counts
    /// from when one was due (no coordinated omission).
    Rate(f64),
    /// None: connections are opened, one request is made on each, and they are held until standard input ends.
    Hold,
}

/// What came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outcome {
    /// Requests answered with 200 and the whole body.
    pub requests: u64,
    /// Requests that were not, and connections that failed.
    pub errors: u64,
    /// The first error, in words.
    pub first_error: Option<String>,
    /// Body bytes, both directions.
    pub bytes: u64,
    /// Seconds from the first request to the last answer.
    pub seconds: f64,
    /// Microseconds.
    pub p50: f64,
    /// Microseconds.
    pub p99: f64,
    /// Microseconds.
    pub max: f64,
    /// CPU seconds that the load generator itself used.
    pub own_cpu: f64,
}
