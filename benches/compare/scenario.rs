//! The table of scenarios.

use serde::Serialize;

use crate::load::Pattern;
use crate::sample::Sample;

/// One thing that all proxies do.
#[derive(Debug, Clone, Serialize)]
pub struct Scenario {
    pub name: &'static str,
    /// In words, for the report.
    pub what: String,
    /// What is compared.
    pub figure: Figure,
    #[serde(skip)]
    pub kind: Kind,
}

/// How it is run.
#[derive(Debug, Clone)]
pub enum Kind {
    /// Requests against proxies that run already.
    Traffic(Traffic),
    /// Connections that are held, against a fresh process.
    Held(Layer),
    /// Connections of which few are used, against a fresh process.
    FewActive,
    /// One worker, then two, on all cores.
    Workers,
    /// Without an access log, then with one.
    Logged,
    /// Backends from SRV records that change every second.
    Names,
    /// Requests against proxies that serve something else than HTTP/1.1.
    Front(Front),
    /// System calls, counted while requests are served.
    Calls(Layer),
}

/// What a proxy serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Front {
    /// HTTP/1.1, and the same over TLS.
    Http1,
    /// That, and over TLS HTTP/2 for those who ask for it.
    Http2,
    /// TCP, of which it knows nothing: whatever a client sends is passed on.
    Tcp,
}

/// What the load generator sends.
#[derive(Debug, Clone)]
pub struct Traffic {
    pub layer: Layer,
    pub connections: usize,
    pub path: &'static str,
    pub upload: u64,
    pub pattern: Pattern,
}

/// What is under HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    Plain,
    Tls,
    /// TLS whose later handshakes resume the session of an earlier one.
    Resumed,
}

/// The number of a scenario that is compared; less is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Figure {
    CpuPerRequest,
    CpuPerTransfer,
    P99,
    MemoryPerConnection,
    CallsPerRequest,
}

const TEN_MIB: u64 = 10 << 20;

/// Connections of the keep-alive scenarios.
const MANY: usize = 64;

/// Transfers at once.
const TRANSFERS: usize = 8;

/// Connections that are used, among many that are not.
pub const ACTIVE: usize = 64;

/// Connections of the scenario with two workers: few enough to be dealt out unevenly.
pub const UNEVEN: usize = 32;

/// Those of the small plot: one for each thing that a proxy is chosen by.
pub const HEADLINE: [&str; 9] = [
    "plain-128",
    "tls-128",
    "connect-plain",
    "handshake-full",
    "download-plain",
    "download-tls",
    "rate-tls",
    "idle-plain",
    "idle-tls",
];

/// All of them, in the order in which they run.
pub fn table(rate: f64, connections: usize) -> Vec<Scenario> {
    use Figure::{CallsPerRequest, CpuPerRequest, CpuPerTransfer, MemoryPerConnection, P99};
    use Layer::{Plain, Resumed, Tls};

    let keep = |layer, path| traffic(layer, MANY, path, 0, Pattern::KeepAlive);
    let connect = |layer| traffic(layer, MANY, "/128", 0, Pattern::Connect);
    let bulk = |layer, path, upload| traffic(layer, TRANSFERS, path, upload, Pattern::KeepAlive);
    let paced = |layer| traffic(layer, MANY, "/128", 0, Pattern::Rate(rate));
    let row = |name, figure, kind, what: &str| Scenario {
        name,
        what: what.to_owned(),
        figure,
        kind,
    };
    vec![
        row(
            "plain-128",
            CpuPerRequest,
            keep(Plain, "/128"),
            "64 kept-alive connections, answers of 128 B",
        ),
        row(
            "plain-10k",
            CpuPerRequest,
            keep(Plain, "/10240"),
            "64 kept-alive connections, answers of 10 KiB",
        ),
        row(
            "tls-128",
            CpuPerRequest,
            keep(Tls, "/128"),
            "the same over TLS, 128 B",
        ),
        row(
            "tls-10k",
            CpuPerRequest,
            keep(Tls, "/10240"),
            "the same over TLS, 10 KiB",
        ),
        row(
            "http2-128",
            CpuPerRequest,
            Kind::Front(Front::Http2),
            "HTTP/2 over TLS from h2load, HTTP/1.1 to the backend: 16 connections with 32 requests each at once, 128 B",
        ),
        row(
            "tcp",
            CpuPerRequest,
            Kind::Front(Front::Tcp),
            "TCP passed on: the requests of plain-128 and their answers, of which the proxy knows nothing",
        ),
        row(
            "connect-plain",
            CpuPerRequest,
            connect(Plain),
            "a connection for each request",
        ),
        row(
            "handshake-full",
            CpuPerRequest,
            connect(Tls),
            "a connection and a full handshake for each request",
        ),
        row(
            "handshake-resumed",
            CpuPerRequest,
            connect(Resumed),
            "a connection and a resumed handshake for each request",
        ),
        row(
            "download-plain",
            CpuPerTransfer,
            bulk(Plain, "/10485760", 0),
            "10 MiB down, 8 at once",
        ),
        row(
            "download-tls",
            CpuPerTransfer,
            bulk(Tls, "/10485760", 0),
            "10 MiB down over TLS, 8 at once",
        ),
        row(
            "upload-plain",
            CpuPerTransfer,
            bulk(Plain, "/2", TEN_MIB),
            "10 MiB up, 8 at once",
        ),
        row(
            "upload-tls",
            CpuPerTransfer,
            bulk(Tls, "/2", TEN_MIB),
            "10 MiB up over TLS, 8 at once",
        ),
        row(
            "rate-plain",
            P99,
            paced(Plain),
            &format!("{rate} requests/s, counted from when each was due"),
        ),
        row(
            "rate-tls",
            P99,
            paced(Tls),
            &format!("{rate} requests/s over TLS, counted from when each was due"),
        ),
        row(
            "idle-plain",
            MemoryPerConnection,
            Kind::Held(Plain),
            &format!("{connections} connections that had one request each and stay open"),
        ),
        row(
            "idle-tls",
            MemoryPerConnection,
            Kind::Held(Tls),
            &format!("{connections} TLS connections that had one request each and stay open"),
        ),
        row(
            "few-active",
            CpuPerRequest,
            Kind::FewActive,
            &format!("{connections} connections of which {ACTIVE} send requests"),
        ),
        row(
            "workers-2",
            CpuPerRequest,
            Kind::Workers,
            &format!("two workers, no process pinned, {UNEVEN} connections opened once and kept"),
        ),
        row(
            "logged",
            CpuPerRequest,
            Kind::Logged,
            "64 kept-alive connections, 128 B, with each proxy's usual access log to a file",
        ),
        row(
            "calls-plain",
            CallsPerRequest,
            Kind::Calls(Plain),
            "system calls, counted by strace: 64 kept-alive connections, 128 B",
        ),
        row(
            "calls-tls",
            CallsPerRequest,
            Kind::Calls(Tls),
            "the same over TLS",
        ),
        row(
            "srv-500",
            CpuPerRequest,
            Kind::Names,
            "500 backends in 3 tiers of SRV records whose weights change every second",
        ),
    ]
}

impl Figure {
    /// With its unit, for the head of a column.
    pub fn title(self) -> &'static str {
        match self {
            Figure::CpuPerRequest => "CPU per request, µs",
            Figure::CpuPerTransfer => "CPU per transfer, ms",
            Figure::P99 => "p99, µs",
            Figure::MemoryPerConnection => "memory per connection, B",
            Figure::CallsPerRequest => "system calls per request",
        }
    }

    /// It in a sample.
    pub fn of(self, sample: &Sample) -> Option<f64> {
        let requests = sample.requests as f64;
        match self {
            Figure::CpuPerRequest => Some(sample.proxy_cpu / requests * 1e6),
            Figure::CpuPerTransfer => Some(sample.proxy_cpu / requests * 1e3),
            Figure::P99 => Some(sample.p99),
            Figure::MemoryPerConnection => sample.memory.map(|memory| memory.per_connection()),
            Figure::CallsPerRequest => {
                let calls = sample.calls.as_ref()?.total();
                Some(calls as f64 / requests)
            }
        }
    }
}

fn traffic(
    layer: Layer,
    connections: usize,
    path: &'static str,
    upload: u64,
    pattern: Pattern,
) -> Kind {
    Kind::Traffic(Traffic {
        layer,
        connections,
        path,
        upload,
        pattern,
    })
}
