//! The load generator and the backend, both processes of their own on the other core.
//!
//! A [`Job`] goes in as JSON on the command line, an [`Outcome`] comes out as JSON on standard output.
//!
//! A bench target runs no unit tests; those of this folder are in `tests/compare_load.rs`.

pub(crate) mod answer;
pub(crate) mod backend;
mod body;
mod connection;
mod generator;
pub(crate) mod latency;
mod time;
mod tls;

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

pub use backend::backend;
pub use generator::run;

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
    /// Processes whose use of CPU during the run is measured: those of the proxy.
    #[serde(default)]
    pub watched: Vec<u32>,
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
    /// Share of the run that it was on the CPU.
    pub busy: f64,
    /// Share of the run that it could have gone on, but another had its CPU (the backend, on the same core).
    /// Where this and `busy` together come near 1, the core of the load generator was the limit.
    pub waited: f64,
    /// [`Pattern::Rate`]: share of the requests sent more than a millisecond after they were due although a
    /// connection was free: those where the load generator itself was late.
    pub late: f64,
    /// Connections opened during the run.
    pub connects: u64,
    /// Handshakes during the run that began a session.
    pub full_handshakes: u64,
    /// Handshakes during the run that resumed one.
    pub resumed_handshakes: u64,
    /// CPU seconds that [`Job::watched`] used during the run: without set-up and without handshakes of
    /// connections that were opened before it.
    pub watched_cpu: f64,
}

/// The role `load`: does the job and prints the outcome as a line of JSON; with [`Pattern::Hold`] the connections
/// stay until standard input ends.
pub fn generator(job: &str) -> Result<()> {
    let job: Job = serde_json::from_str(job).context("the job")?;
    let (outcome, held) = run(&job)?;
    println!("{}", serde_json::to_string(&outcome)?);
    std::io::stdout().flush()?;
    if matches!(job.pattern, Pattern::Hold) {
        wait_for_input_to_end();
    }
    drop(held);
    Ok(())
}

/// Returns when whoever started this process is gone or has enough of it.
fn wait_for_input_to_end() {
    let mut input = std::io::stdin().lock();
    let mut nothing = [0; 64];
    while input.read(&mut nothing).is_ok_and(|count| count > 0) {}
}

/// As many open files as the system lets this process have.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit {
        current: maximum,
        maximum,
    };
    // Where it fails, opening the connections says so.
    let _ = setrlimit(Resource::Nofile, limit);
}

/// What bodies are made of, in both directions.
static BLOCK: [u8; 256 << 10] = [b'x'; 256 << 10];
