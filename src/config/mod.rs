//! The configuration as the rest of the program sees it: no invalid value has a representation.
//!
//! A load goes text → `tree.rs` (one tree for TOML, YAML and JSON, each value with its place) →
//! `overlay.rs` (environment and flags) → `raw.rs` (mirror of the file, unknown keys refused) →
//! `build.rs`, `acme.rs`, `admin.rs`, `services.rs`, `backend_tls.rs`, `health.rs`, `identity.rs`, `in_flight.rs`,
//! `rate.rs`, `routes.rs`, `conditions.rs`, `access.rs`, `redirect.rs`, `header_edits.rs`, `auth.rs`, `mirror.rs`,
//! `target.rs`, `layer4.rs`, `state_dir.rs` (defaults, cross-checks). `diagnostics.rs` says what is wrong and where;
//! reading goes on after an error, so that one run shows all of them. `schema.rs` tells editors how
//! files are written.

pub mod diagnostics;
pub mod source;
pub mod tree;

mod access;
mod acme;
mod admin;
mod auth;
mod backend_tls;
mod build;
mod compress;
mod conditions;
mod ejection;
mod header_edits;
mod health;
mod identity;
mod in_flight;
mod layer4;
mod load;
mod mirror;
mod names;
mod overlay;
mod rate;
mod raw;
mod read;
mod redirect;
mod routes;
mod scalar;
mod schema;
mod services;
mod state_dir;
mod sticky;
mod target;
mod traces;
mod written;
mod zone;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU16, NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

pub use crate::http::coding::Coding;
pub use crate::telemetry::access::AccessFormat;
pub use crate::telemetry::logging::LogFormat;

pub use access::Access;
pub use acme::{Acme, AcmeCertificate, AcmeChallenge, AcmeDns, ExternalAccount};
pub use admin::{Admin, Place, USUAL_ADDRESS, token};
pub use auth::Auth;
pub use backend_tls::{BackendTls, ProxyHeader, Trust};
pub use conditions::{Conditions, Rank, Wanted};
pub use diagnostics::Diagnostic;
pub use ejection::{EjectionRules, RetryOn};
pub use header_edits::{HeaderEdits, Piece, Template};
pub use health::{Ask, Check, GrpcCheck, HttpCheck};
pub use in_flight::{AdaptiveLimit, InFlightLimits};
pub use load::{
    Loaded, Loader, from_toml_str, json_schema, keys, load, zone_json_schema, zone_keys,
};
pub use mirror::Mirror;
pub use rate::{RateKey, RateLimit};
pub use redirect::{PathChange, Rewrite, RouteRedirect, Scheme};
pub use sticky::Sticky;
pub use target::{Share, Target};
pub use traces::Traces;
pub use tree::Format;
pub use written::Written;
pub use zone::{KeyGrant, Synth, ZoneConfig};

/// Everything that `evenkeel run` needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// Number of worker threads; default: the cores this process may use.
    pub workers: NonZeroUsize,
    /// Where clients connect.
    pub listeners: Vec<Listener>,
    /// What is behind.
    pub services: Vec<Service>,
    /// Which request goes to which service.
    pub routes: Vec<Route>,
    /// Peers whose `X-Forwarded-*` and kin are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Clients who are told why their requests went where they went.
    pub explain_from: Vec<IpNet>,
    /// Addresses that DNS may give although they are refused by default (`[dns] allow`).
    pub allowed_endpoints: Vec<IpNet>,
    /// Folder in which the last good answer of each name is kept for a restart; `None`: nowhere.
    /// It need not exist.
    pub state_dir: Option<PathBuf>,
    /// Where certificates are ordered; `None`: nowhere.
    pub acme: Option<Acme>,
    /// Limits of the client's side.
    pub downstream: Downstream,
    /// How much memory there may be.
    pub memory: MemoryLimit,
    /// Probe listener (`/livez`, `/readyz`, `/metrics`); `None` switches it off.
    pub probe: Option<SocketAddr>,
    /// Where it is asked and told: the control listener.
    pub admin: Admin,
    /// Logs.
    pub log: Log,
    /// Where spans of requests go; `None`: as the environment says.
    pub traces: Option<Traces>,
    /// How a TERM is carried out.
    pub drain: Drain,
    /// Where all of this came from.
    pub written: Arc<Written>,
}

impl Config {
    /// Is what a peer at this address says about its clients believed?
    pub fn trusts(&self, address: IpAddr) -> bool {
        lists(&self.trusted_proxies, address)
    }

    /// Is a client at this address told why its requests went where they went?
    pub fn explains_to(&self, address: IpAddr) -> bool {
        lists(&self.explain_from, address)
    }
}

fn lists(nets: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    nets.iter().any(|net| net.contains(&address))
}

/// One `[[listener]]`.
#[derive(Debug, Clone)]
pub struct Listener {
    /// Its name; default: its address.
    pub name: Arc<str>,
    /// Where it listens.
    pub address: SocketAddr,
    /// What it speaks.
    pub protocol: Protocol,
    /// HTTP/2 besides HTTP/1.1: by ALPN over TLS, else for clients that know it beforehand.
    pub http2: bool,
    /// Every connection begins with a PROXY header, and comes from a trusted peer.
    pub proxy_protocol: bool,
    /// Answer every request with a redirect to https instead of routing it.
    pub redirect: Option<Redirect>,
    /// Whom it takes requests and connections from; `None`: everybody.
    pub access: Option<Access>,
}

impl Listener {
    /// What it wants of clients' certificates; `None`: nobody is asked for one.
    pub fn client_certificates(&self) -> Option<&ClientCertificates> {
        match &self.protocol {
            Protocol::Http | Protocol::Tcp | Protocol::Tls => None,
            Protocol::Https(tls) => tls.client_certificates.as_ref(),
        }
    }
}

/// What a listener speaks.
#[derive(Debug, Clone)]
pub enum Protocol {
    /// Plain HTTP/1.1.
    Http,
    /// HTTP/1.1 in TLS.
    Https(TlsFrontEnd),
    /// Whatever it is: bytes are passed on as they come.
    Tcp,
    /// TLS that a backend ends: passed on as it is, by the name that the client asks for.
    Tls,
}

impl Protocol {
    /// Are connections passed on as they are, without a look at requests?
    pub fn is_layer4(&self) -> bool {
        matches!(self, Protocol::Tcp | Protocol::Tls)
    }
}

/// TLS of one listener.
#[derive(Debug, Clone)]
pub struct TlsFrontEnd {
    /// Certificates, chosen by SNI; the first one is the default. Empty only if some are ordered.
    pub certificates: Vec<CertificateFiles>,
    /// Certificates that are ordered.
    pub acme: BTreeSet<AcmeCertificate>,
    /// Lowest version that is accepted.
    pub min_version: TlsVersion,
    /// What is wanted of clients' certificates; `None`: nobody is asked for one.
    pub client_certificates: Option<ClientCertificates>,
}

/// What a listener wants of clients' certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificates {
    /// PEM file of the authorities that issue them.
    pub ca: PathBuf,
    /// PEM file of their revocation lists; `None`: nobody's was revoked.
    pub crl: Option<PathBuf>,
    /// Must there be one?
    pub mode: ClientCertificateMode,
    /// The backend gets the certificate itself too, in `Client-Cert` (RFC 9440).
    pub pass_whole: bool,
}

/// Must a client show a certificate? One that is shown has to be right either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCertificateMode {
    /// Without one there is no connection.
    Required,
    /// The backend is told whether there was one.
    Optional,
}

/// PEM files of one certificate.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CertificateFiles {
    /// Chain, leaf first.
    pub cert: PathBuf,
    /// Private key.
    pub key: PathBuf,
}

/// A TLS version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum TlsVersion {
    Tls12,
    Tls13,
}

/// A redirect to https.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Redirect {
    /// 301, 302, 307 or 308 (default).
    pub status: u16,
    /// Port to name in `Location`; 443 is left out.
    pub port: u16,
}

/// Limits of the client's side.
#[derive(Debug, Clone)]
pub struct Downstream {
    /// For a whole request head (10 s).
    pub header_timeout: Duration,
    /// Size of a request head (32 KiB).
    pub header_bytes: usize,
    /// Fields of a request head (100).
    pub header_fields: usize,
    /// For the TLS handshake (10 s).
    pub handshake_timeout: Duration,
    /// Idle time between requests (75 s).
    pub keep_alive: Duration,
    /// A client's connection takes new requests for so long, less a random part of it; `None`: for
    /// ever.
    pub max_connection_age: Option<Duration>,
    /// Streams that are open at once on one HTTP/2 connection of a client (128).
    pub max_streams: u32,
    /// Open client connections in this process.
    pub max_connections: NonZeroUsize,
    /// Of them, those of one client address (IPv6: of one /64); `None`: as many as there may be.
    pub max_connections_per_client: Option<NonZeroU32>,
    /// `%2f` and `%5c` in a path are a 400.
    pub reject_encoded_slash: bool,
    /// Field names with an underscore are passed on.
    pub allow_underscores: bool,
    /// `Forwarded` (RFC 7239) is set besides `X-Forwarded-*`.
    pub forwarded: bool,
}

/// How much memory there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryLimit {
    /// As much as the control group has.
    Group,
    /// So many bytes for this process.
    Bytes(u64),
    /// Nobody looks.
    Off,
}

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

/// One `[[route]]`.
#[derive(Debug, Clone)]
pub struct Route {
    /// How messages and logs call it: its name, or what it matches.
    pub label: Arc<str>,
    /// Indexes into [`Config::listeners`]; empty: all that can see what it asks for, but not those of
    /// layer 4 that another route names (see [`Config::layer4_routes`]).
    pub listeners: Vec<usize>,
    /// Which hosts.
    pub host: HostPattern,
    /// Path prefix of whole segments, normalised, `/` for any.
    pub path: Box<str>,
    /// What else a request must be like.
    pub conditions: Conditions,
    /// The client must offer one of these (ALPN); empty: whatever it offers. None is listed twice.
    pub alpn: Vec<Box<str>>,
    /// Whose requests, or connections, it takes on; `None`: everybody's.
    pub access: Option<Access>,
    /// By which path requests go on; `None`: by their own.
    pub rewrite: Option<Rewrite>,
    /// What is done to the fields of its requests, after what its service does; `None`: nothing.
    pub request_headers: Option<HeaderEdits>,
    /// The same of responses.
    pub response_headers: Option<HeaderEdits>,
    /// Who says whether its requests may go on; `None`: nobody.
    pub auth: Option<Auth>,
    /// Who gets a copy of a share of its requests; `None`: nobody.
    pub mirror: Option<Mirror>,
    /// Where it leads.
    pub target: Target,
}

impl Route {
    /// Does it do anything that takes requests?
    fn acts_on_requests(&self) -> bool {
        self.rewrite.is_some()
            || self.request_headers.is_some()
            || self.response_headers.is_some()
            || self.auth.is_some()
            || self.mirror.is_some()
            || matches!(self.target, Target::Redirect(_))
    }
}

/// Host of a route.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// Absent in the file.
    Any,
    /// `*.example.com`, kept as `example.com`: one or more labels in front of it.
    Wildcard(Box<str>),
    /// Lower case, no port, no final dot.
    Exact(Box<str>),
}

/// Logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// `error` … `trace`, or a filter in the syntax of tracing-subscriber's `EnvFilter`.
    pub level: String,
    /// Of the log of the program itself.
    pub format: LogFormat,
    /// Of the access log.
    pub access: AccessFormat,
    /// Query strings appear in the access log.
    pub access_query: bool,
}

/// How a TERM is carried out.
#[derive(Debug, Clone, Copy)]
pub struct Drain {
    /// Not ready, but still accepting (5 s).
    pub wait: Duration,
    /// Then so long for requests (30 s).
    pub requests: Duration,
    /// And so long for tunnels and streams (300 s).
    pub streams: Duration,
}

/// Addresses that are refused as endpoints because they are our own.
pub fn own_addresses(config: &Config) -> Vec<SocketAddr> {
    let mut own: Vec<_> = config.listeners.iter().map(|l| l.address).collect();
    own.extend(config.probe);
    own.extend(config.admin.wanted_address());
    own
}
