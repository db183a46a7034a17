//! What is behind: a name with its discovery, balancing, health and time-outs.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use super::{
    BackendTls, Check, Coding, EjectionRules, HeaderEdits, InFlightLimits, ProxyHeader, RateLimit,
    RetryOn, Sticky,
};

/// One `[[service]]`.
#[derive(Debug, Clone)]
pub struct Service {
    /// Its name, unique.
    pub name: Arc<str>,
    /// Where its endpoints come from.
    pub discover: Discover,
    /// How a backend is chosen.
    pub balancing: Balancing,
    /// What tells requests apart for strategy `hash`.
    pub hash_by: HashBy,
    /// Leads clients back to the backend that they had; `None`: nothing does.
    pub sticky: Option<Sticky>,
    /// How backends are checked; `None`: they are not.
    pub check: Option<Arc<Check>>,
    /// When what became of requests ejects a backend.
    pub ejection: EjectionRules,
    /// What may be in flight; `None`: anything.
    pub in_flight: Option<InFlightLimits>,
    /// TLS to its backends; `None`: plain HTTP.
    pub tls: Option<Arc<BackendTls>>,
    /// Backends are told who their client is, in front of everything else; `None`: they are not.
    pub proxy_header: Option<ProxyHeader>,
    /// Deadlines and retries of its exchanges.
    pub upstream: Upstream,
    /// Upgrade tokens that are passed on, lower case; `websocket` unless said otherwise.
    pub upgrade: Vec<Box<str>>,
    /// Largest request body; `None`: unlimited.
    pub max_body: Option<u64>,
    /// How many requests a client may make; `None`: as many as it likes.
    pub rate_limit: Option<RateLimit>,
    /// What is done to the fields of requests; `None`: nothing.
    pub request_headers: Option<HeaderEdits>,
    /// The same of responses.
    pub response_headers: Option<HeaderEdits>,
    /// Browsers are told to be careful, where backends say nothing of it.
    pub security_headers: bool,
    /// In which codings responses may go out, the preferred one first; none: as they are.
    pub compress: Box<[Coding]>,
}

/// Where endpoints come from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Discover {
    /// SRV records of a name, as written (a final dot skips the search list).
    Srv {
        /// The name.
        name: Arc<str>,
        /// How it is asked.
        lookup: Lookup,
    },
    /// Address records of a name, all at one port, priority 0, weight 1.
    Address {
        /// The name.
        name: Arc<str>,
        /// Port of every endpoint.
        port: NonZeroU16,
        /// How it is asked.
        lookup: Lookup,
    },
    /// Written in the configuration.
    Static(Vec<StaticEndpoint>),
}

/// How a name is looked up: two services with equal names and equal `Lookup` share one task.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lookup {
    /// Servers in order of preference; empty: those of /etc/resolv.conf.
    pub servers: Vec<SocketAddr>,
    /// Per server (1 s).
    pub timeout: Duration,
    /// More tries per server after the first (1).
    pub retries: u8,
    /// A fixed ticker instead of the TTL.
    pub interval: Option<Duration>,
    /// Bounds put on a TTL (1 s, 30 s).
    pub min_ttl: Duration,
    /// See `min_ttl`.
    pub max_ttl: Duration,
    /// NXDOMAIN or NODATA answers in a row until they are believed (3).
    pub absent_after: u8,
    /// An answer that removes more than half of the working backends is believed after this many
    /// in a row (2; 1 believes it at once).
    pub shrink_guard: u8,
    /// Endpoints of one name that are used at most (4096).
    pub max_endpoints: usize,
    /// Which address families are used.
    pub family: Family,
}

impl Lookup {
    /// With the defaults, at these servers.
    pub fn to(servers: &[SocketAddr]) -> Lookup {
        Lookup {
            servers: servers.to_vec(),
            timeout: Duration::from_secs(1),
            retries: 1,
            interval: None,
            min_ttl: Duration::from_secs(1),
            max_ttl: Duration::from_secs(30),
            absent_after: 3,
            shrink_guard: 2,
            max_endpoints: 4096,
            family: Family::Auto,
        }
    }
}

/// Address families of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Family {
    /// A if there are any, else AAAA.
    Auto,
    V4,
    V6,
    Both,
}

/// An endpoint written in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StaticEndpoint {
    /// Address and port.
    pub address: SocketAddr,
    /// As in SRV: lower goes first.
    pub priority: u16,
    /// As in SRV: share within its priority (1).
    pub weight: u16,
}

/// How a backend is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Balancing {
    /// Within a tier.
    pub strategy: Strategy,
    /// How long the share of a backend grows that comes, or comes back; zero: it has all of it at
    /// once.
    pub slow_start: Duration,
    /// A tier passes on what the part of it that can be picked, times this, is short of the whole;
    /// `None`: only what nobody in it can take.
    pub spill: Option<f64>,
}

/// How a backend is chosen within a tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strategy {
    /// Earliest deadline first over SRV weights.
    #[default]
    Weighted,
    /// Every backend of the tier alike.
    RoundRobin,
    /// Whoever has the fewest exchanges under way for its SRV weight.
    LeastConnections,
    /// By chance, over SRV weights.
    Random,
    /// The better of two that are drawn by SRV weight, by latency and exchanges under way.
    TwoChoices,
    /// One and the same for each key, by consistent hashing over SRV weights.
    Hash,
    /// The older Go project's: all tiers in one cycle.
    Cycle,
}

/// What tells requests apart for [`Strategy::Hash`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum HashBy {
    /// The client's address.
    #[default]
    Address,
    /// The value of the field of that name.
    Header(Box<str>),
    /// The value of the cookie of that name.
    Cookie(Box<str>),
    /// The path, without the query.
    Path,
}

impl Strategy {
    /// As the configuration calls it.
    pub fn name(self) -> &'static str {
        match self {
            Strategy::Weighted => "weighted",
            Strategy::RoundRobin => "round_robin",
            Strategy::LeastConnections => "least_connections",
            Strategy::Random => "random",
            Strategy::TwoChoices => "two_choices",
            Strategy::Hash => "hash",
            Strategy::Cycle => "cycle",
        }
    }

    /// Does it ask for what becomes of attempts: latency, and what failed?
    pub fn minds_load(self) -> bool {
        matches!(self, Strategy::LeastConnections | Strategy::TwoChoices)
    }
}

/// What backends speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    #[default]
    Http,
    /// HTTP/1.1 over TLS.
    Https,
    /// HTTP/2 without TLS, by prior knowledge (RFC 9113 §3.3).
    H2c,
    /// HTTP/2 over TLS.
    H2,
}

impl UpstreamProtocol {
    /// Is it HTTP/2?
    pub fn is_h2(self) -> bool {
        matches!(self, UpstreamProtocol::H2c | UpstreamProtocol::H2)
    }

    /// Is it spoken over TLS?
    pub fn is_tls(self) -> bool {
        matches!(self, UpstreamProtocol::Https | UpstreamProtocol::H2)
    }
}

/// Deadlines and retries of the exchanges with a service.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// What its backends speak.
    pub protocol: UpstreamProtocol,
    /// A connection over HTTP/2 takes new streams for so long, less a random part of it (10 min);
    /// `None`: for ever.
    pub max_age: Option<Duration>,
    /// Over HTTP/2, a backend from which nothing came for so long is asked whether it is there;
    /// `None`: it is not.
    pub ping: Option<Duration>,
    /// TCP connect to a backend (1 s).
    pub connect_timeout: Duration,
    /// TLS handshake with a backend (2 s).
    pub tls_timeout: Duration,
    /// First byte of a response (60 s).
    pub response_timeout: Duration,
    /// A client that sends nothing of its request body (30 s).
    pub body_timeout: Duration,
    /// A response under way with nothing moving in either direction (5 min).
    pub stream_idle: Duration,
    /// A peer that takes or gives nothing while we wait for it (30 s).
    pub stall_timeout: Duration,
    /// Lowest average rate of a peer that holds us up, after its first 5 s (240 B/s).
    pub min_rate: u64,
    /// A tunnel without traffic (1 h).
    pub tunnel_idle: Duration,
    /// An idle connection to a backend (4 s).
    pub keep_alive: Duration,
    /// Idle connections kept per backend in the process (64).
    pub max_idle: usize,
    /// Further attempts on another backend where it is safe (1).
    pub retries: u8,
    /// Retries may be so many percent of the requests (20) …
    pub retry_budget_percent: u8,
    /// … and so many per second besides (10).
    pub retry_budget_per_second: u32,
    /// First byte of a response to one attempt; `None`: as long as there is time for all of them.
    pub try_timeout: Option<Duration>,
    /// Responses that are tried again.
    pub retry_on: RetryOn,
}
