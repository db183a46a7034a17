//! The file as it is written: one struct per table, one field per key, nothing decided yet.
//!
//! `rate.rs` has the table of a rate limit, `identity.rs` that of clients' certificates, `admin.rs`
//! `[admin]`.
//! `keys.md` says what each key means; a test compares the two. Keys and words after
//! `later` belong to Evenkeel and not to this version: they are refused by name, because taking them
//! and doing nothing would be worse.

use std::time::Duration;

use ipnet::IpNet;

use super::acme::RawAcme;
use super::admin::AdminTable;
use super::auth::AuthTable;
use super::backend_tls::{ProxyHeader, TlsTable};
use super::compress::Compress;
use super::conditions::RawWanted;
use super::diagnostics::Problems;
use super::ejection::{Ejection, RawRetryOn};
use super::header_edits::{HeaderEditsTable, SecurityHeaders};
use super::health::Health;
use super::identity::{RawClientCertificates, ReadsProxyHeader};
use super::in_flight::Adaptive;
use super::mirror::MirrorTable;
use super::rate::RawRateLimit;
use super::read::{At, Key, Pairs, Read, choice, table};
use super::redirect::{RawRouteRedirect, RewriteTable};
use super::scalar::{
    Bind, BindOrOff, ByteSize, Connect, NameServer, Positive, PositiveOrOff, SizeOrOff, Spill,
    Within, WithinOrOff,
};
use super::schema;
use super::sticky::RawSticky;
use super::target::RawTarget;
use super::traces::TracesTable;
use super::tree::{Node, Value};
use super::{AccessFormat, Family, HashBy, LogFormat, Strategy, TlsVersion, UpstreamProtocol};

table! {
    /// The whole file.
    pub struct File = "configuration" {
        "workers" => workers: At<Within<1, 1024>>,
        "trusted_proxies" => trusted_proxies: Vec<At<IpNet>>,
        "explain_from" => explain_from: Vec<At<IpNet>>,
        "state_dir" => state_dir: At<String>,
        "listener" => listeners: Vec<Listener>,
        "service" => services: Vec<Service>,
        "route" => routes: Vec<Route>,
        "dns" => dns: Dns,
        "acme" => acme: RawAcme,
        "defaults" => defaults: Defaults,
        "limits" => limits: Limits,
        "http" => http: Http,
        "admin" => admin: AdminTable,
        "probe" => probe: Probe,
        "log" => log: Log,
        "traces" => traces: TracesTable,
        "drain" => drain: Drain,
    }
    required ["listener"]
    later ["tickets", "cookies", "tsig"]
}

table! {
    /// `[[listener]]`
    pub struct Listener = "[[listener]]" {
        "name" => name: At<String>,
        "address" => address: At<Bind>,
        "protocol" => protocol: At<ListenerProtocol>,
        "certificates" => certificates: Vec<Certificate>,
        "min_tls" => min_tls: At<TlsVersion>,
        "http2" => http2: At<bool>,
        "redirect" => redirect: Redirect,
        "proxy_protocol" => proxy_protocol: At<ReadsProxyHeader>,
        "client_certificates" => client_certificates: RawClientCertificates,
        "acme" => acme: At<bool>,
        "allow" => allow: Vec<At<IpNet>>,
        "deny" => deny: Vec<At<IpNet>>,
    }
    required ["address", "protocol"]
    later []
}

/// `protocol` of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ListenerProtocol {
    Http,
    Https,
    Tcp,
    Tls,
}

choice! {
    ListenerProtocol = "\"http\", \"https\", \"tcp\" or \"tls\"" {
        "http" => ListenerProtocol::Http,
        "https" => ListenerProtocol::Https,
        "tcp" => ListenerProtocol::Tcp,
        "tls" => ListenerProtocol::Tls,
    }
    later []
    meant {
        "h2" => "\"https\" speaks HTTP/2 as well, and so does \"http\" to clients that begin with it",
        "http2" => "\"https\" speaks HTTP/2 as well, and so does \"http\" to clients that begin with it",
        "grpc" => "gRPC comes over HTTP/2, which \"https\" speaks, and \"http\" to clients that begin with it",
    }
}

choice! {
    TlsVersion = "\"1.2\" or \"1.3\"" {
        "1.2" => TlsVersion::Tls12,
        "1.3" => TlsVersion::Tls13,
    }
    later []
}

table! {
    /// One entry of `certificates`.
    pub struct Certificate = "certificates" {
        "cert" => cert: At<String>,
        "key" => key: At<String>,
    }
    required ["cert", "key"]
    later []
}

table! {
    /// `redirect`, written out.
    pub struct RedirectTable = "redirect" {
        "to" => to: At<RedirectTarget>,
        "port" => port: At<Within<1, 65535>>,
        "status" => status: At<Within<300, 399>>,
    }
    later []
}

/// `redirect`: the word `https`, or a table.
#[derive(Debug, Clone)]
pub struct Redirect(pub RedirectTable);

/// What a redirect leads to.
#[derive(Debug, Clone, Copy)]
pub struct RedirectTarget;

choice! {
    RedirectTarget = "\"https\"" { "https" => RedirectTarget, }
    later []
}

impl Read for Redirect {
    const EXPECTS: &'static str = "\"https\" or a table";

    fn read(node: &Node, problems: &mut Problems) -> Option<Self> {
        if matches!(node.value, Value::Table(_)) {
            return RedirectTable::read(node, problems).map(Redirect);
        }
        At::<RedirectTarget>::read(node, problems).map(|to| {
            Redirect(RedirectTable {
                span: to.span,
                ..RedirectTable::default()
            })
        })
    }

    fn schema() -> serde_json::Value {
        schema::any(vec![
            At::<RedirectTarget>::schema(),
            RedirectTable::schema(),
        ])
    }

    fn keys() -> &'static [Key] {
        RedirectTable::keys()
    }
}

table! {
    /// `[[service]]`
    pub struct Service = "[[service]]" {
        "name" => name: At<String>,
        "discover" => discover: Discover,
        "strategy" => strategy: At<Strategy>,
        "hash_by" => hash_by: At<HashBy>,
        "upstream" => upstream: At<UpstreamProtocol>,
        "tls" => tls: TlsTable,
        "proxy_protocol" => proxy_protocol: At<ProxyHeader>,
        "dns" => dns: Dns,
        "connect_timeout" => connect_timeout: At<Positive>,
        "tls_timeout" => tls_timeout: At<Positive>,
        "response_timeout" => response_timeout: At<Positive>,
        "body_timeout" => body_timeout: At<Positive>,
        "stream_idle" => stream_idle: At<Positive>,
        "stall_timeout" => stall_timeout: At<Positive>,
        "min_rate" => min_rate: At<ByteSize>,
        "tunnel_idle" => tunnel_idle: At<Positive>,
        "backend_keep_alive" => backend_keep_alive: At<Duration>,
        "backend_max_age" => backend_max_age: At<PositiveOrOff>,
        "backend_ping" => backend_ping: At<PositiveOrOff>,
        "max_idle" => max_idle: At<Within<0, 65536>>,
        "retries" => retries: At<Within<0, 10>>,
        "retry_budget_percent" => retry_budget_percent: At<Within<0, 100>>,
        "retry_budget_per_second" => retry_budget_per_second: At<Within<0, 1_000_000>>,
        "max_body" => max_body: At<ByteSize>,
        "rate_limit" => rate_limit: RawRateLimit,
        "upgrade" => upgrade: Vec<At<String>>,
        "max_in_flight" => max_in_flight: At<WithinOrOff<1, 1_000_000>>,
        "adaptive" => adaptive: Adaptive,
        "max_queue" => max_queue: At<Within<0, 1_000_000>>,
        "queue_timeout" => queue_timeout: At<Positive>,
        "try_timeout" => try_timeout: At<PositiveOrOff>,
        "retry_on" => retry_on: RawRetryOn,
        "health" => health: Health,
        "ejection" => ejection: Ejection,
        "slow_start" => slow_start: At<PositiveOrOff>,
        "spill" => spill: At<Spill>,
        "sticky" => sticky: RawSticky,
        "request_headers" => request_headers: HeaderEditsTable,
        "response_headers" => response_headers: HeaderEditsTable,
        "security_headers" => security_headers: At<SecurityHeaders>,
        "compress" => compress: Vec<At<Compress>>,
    }
    required ["name", "discover"]
    later []
    elsewhere {
        "header_timeout" => "it runs before a request says which service it is for: set it in [defaults]",
        "keep_alive" => "it is the idle time of a client's connection: set it in [defaults]; a \
            backend's is `backend_keep_alive`",
        "host" => "hosts and paths belong to a [[route]] that names this service",
        "path" => "hosts and paths belong to a [[route]] that names this service",
        "srv" => "write it as discover = { srv = \"…\" }",
        "timeout" => "say which: `response_timeout`, `try_timeout` or `connect_timeout`",
        "static" => "write it as discover = { static = [\"…\"] }",
    }
}

choice! {
    Strategy = "\"weighted\", \"round_robin\", \"least_connections\", \"random\", \"two_choices\", \"hash\" or \"cycle\"" {
        "weighted" => Strategy::Weighted,
        "round_robin" => Strategy::RoundRobin,
        "least_connections" => Strategy::LeastConnections,
        "random" => Strategy::Random,
        "two_choices" => Strategy::TwoChoices,
        "hash" => Strategy::Hash,
        "cycle" => Strategy::Cycle,
    }
    later []
}

choice! {
    UpstreamProtocol = "\"http\", \"https\", \"h2c\" or \"h2\"" {
        "http" => UpstreamProtocol::Http,
        "https" => UpstreamProtocol::Https,
        "h2c" => UpstreamProtocol::H2c,
        "h2" => UpstreamProtocol::H2,
    }
    later []
    meant {
        "grpc" => "gRPC goes over HTTP/2: upstream = \"h2c\", or \"h2\" over TLS",
        "http2" => "write \"h2c\", or \"h2\" over TLS",
        "tls" => "write \"https\", or \"h2\" for HTTP/2 over TLS",
        "tcp" => "leave `upstream` out: a listener with protocol = \"tcp\" or \"tls\" passes bytes on as they come",
    }
}

table! {
    /// `discover`
    pub struct Discover = "discover" {
        "srv" => srv: At<String>,
        "a" => a: At<String>,
        "port" => port: At<Within<1, 65535>>,
        "static" => fixed: Vec<StaticEndpoint>,
    }
    later []
}

table! {
    /// One entry of `static`, written out.
    pub struct StaticTable = "static" {
        "address" => address: At<Connect>,
        "priority" => priority: At<Within<0, 65535>>,
        "weight" => weight: At<Within<0, 65535>>,
    }
    required ["address"]
    later []
}

/// One entry of `static`: an address, or a table.
#[derive(Debug, Clone)]
pub struct StaticEndpoint(pub StaticTable);

impl Read for StaticEndpoint {
    const EXPECTS: &'static str = "an address and port such as \"10.0.0.7:8080\", or a table";

    fn read(node: &Node, problems: &mut Problems) -> Option<Self> {
        if matches!(node.value, Value::Table(_)) {
            return StaticTable::read(node, problems).map(StaticEndpoint);
        }
        At::<Connect>::read(node, problems).map(|address| {
            StaticEndpoint(StaticTable {
                span: node.span,
                address: Some(address),
                ..StaticTable::default()
            })
        })
    }

    fn schema() -> serde_json::Value {
        schema::any(vec![At::<Connect>::schema(), StaticTable::schema()])
    }

    fn keys() -> &'static [Key] {
        StaticTable::keys()
    }
}

table! {
    /// `[[route]]`
    pub struct Route = "[[route]]" {
        "name" => name: At<String>,
        "listener" => listeners: Vec<At<String>>,
        "host" => host: At<String>,
        "path" => path: At<String>,
        "methods" => methods: Vec<At<String>>,
        "headers" => headers: Pairs<RawWanted>,
        "query" => query: Pairs<RawWanted>,
        "alpn" => alpn: Vec<At<String>>,
        "allow" => allow: Vec<At<IpNet>>,
        "deny" => deny: Vec<At<IpNet>>,
        "service" => service: RawTarget,
        "redirect" => redirect: RawRouteRedirect,
        "strip_prefix" => strip_prefix: At<bool>,
        "rewrite" => rewrite: RewriteTable,
        "request_headers" => request_headers: HeaderEditsTable,
        "response_headers" => response_headers: HeaderEditsTable,
        "auth" => auth: AuthTable,
        "mirror" => mirror: MirrorTable,
    }
    later ["client_certificates"]
}

table! {
    /// `[dns]`, and `dns` of a service.
    pub struct Dns = "[dns]" {
        "servers" => servers: Vec<At<NameServer>>,
        "timeout" => timeout: At<Positive>,
        "retries" => retries: At<Within<0, 10>>,
        "interval" => interval: At<Positive>,
        "min_ttl" => min_ttl: At<Positive>,
        "max_ttl" => max_ttl: At<Positive>,
        "absent_after" => absent_after: At<Within<1, 100>>,
        "shrink_guard" => shrink_guard: At<Within<1, 100>>,
        "max_endpoints" => max_endpoints: At<Within<1, 65536>>,
        "family" => family: At<Family>,
        "allow" => allow: Vec<At<IpNet>>,
    }
    later ["tsig"]
}

choice! {
    Family = "\"auto\", \"v4\", \"v6\" or \"both\"" {
        "auto" => Family::Auto,
        "v4" => Family::V4,
        "v6" => Family::V6,
        "both" => Family::Both,
    }
    later []
}

table! {
    /// `[defaults]`
    pub struct Defaults = "[defaults]" {
        "header_timeout" => header_timeout: At<Positive>,
        "handshake_timeout" => handshake_timeout: At<Positive>,
        "keep_alive" => keep_alive: At<Duration>,
        "max_connection_age" => max_connection_age: At<PositiveOrOff>,
        "connect_timeout" => connect_timeout: At<Positive>,
        "tls" => tls: TlsTable,
        "tls_timeout" => tls_timeout: At<Positive>,
        "response_timeout" => response_timeout: At<Positive>,
        "body_timeout" => body_timeout: At<Positive>,
        "stream_idle" => stream_idle: At<Positive>,
        "stall_timeout" => stall_timeout: At<Positive>,
        "min_rate" => min_rate: At<ByteSize>,
        "tunnel_idle" => tunnel_idle: At<Positive>,
        "backend_keep_alive" => backend_keep_alive: At<Duration>,
        "backend_max_age" => backend_max_age: At<PositiveOrOff>,
        "backend_ping" => backend_ping: At<PositiveOrOff>,
        "max_idle" => max_idle: At<Within<0, 65536>>,
        "retries" => retries: At<Within<0, 10>>,
        "retry_budget_percent" => retry_budget_percent: At<Within<0, 100>>,
        "retry_budget_per_second" => retry_budget_per_second: At<Within<0, 1_000_000>>,
        "max_body" => max_body: At<ByteSize>,
        "rate_limit" => rate_limit: RawRateLimit,
        "upgrade" => upgrade: Vec<At<String>>,
        "max_in_flight" => max_in_flight: At<WithinOrOff<1, 1_000_000>>,
        "adaptive" => adaptive: Adaptive,
        "max_queue" => max_queue: At<Within<0, 1_000_000>>,
        "queue_timeout" => queue_timeout: At<Positive>,
        "try_timeout" => try_timeout: At<PositiveOrOff>,
        "retry_on" => retry_on: RawRetryOn,
        "health" => health: Health,
        "ejection" => ejection: Ejection,
        "slow_start" => slow_start: At<PositiveOrOff>,
        "strategy" => strategy: At<Strategy>,
        "hash_by" => hash_by: At<HashBy>,
        "spill" => spill: At<Spill>,
        "sticky" => sticky: RawSticky,
        "security_headers" => security_headers: At<SecurityHeaders>,
        "compress" => compress: Vec<At<Compress>>,
    }
    later []
}

table! {
    /// `[limits]`
    pub struct Limits = "[limits]" {
        "max_streams" => max_streams: At<Within<1, 10_000>>,
        "max_connections" => max_connections: At<Within<1, 10_000_000>>,
        "max_connections_per_client" => max_connections_per_client: At<Within<1, 10_000_000>>,
        "memory" => memory: At<SizeOrOff>,
        "header_bytes" => header_bytes: At<ByteSize>,
        "header_fields" => header_fields: At<Within<1, 10_000>>,
    }
    later []
}

table! {
    /// `[http]`
    pub struct Http = "[http]" {
        "reject_encoded_slash" => reject_encoded_slash: At<bool>,
        "allow_underscores" => allow_underscores: At<bool>,
        "forwarded" => forwarded: At<bool>,
    }
    later []
}

table! {
    /// `[probe]`
    pub struct Probe = "[probe]" {
        "address" => address: At<BindOrOff>,
    }
    later ["ready"]
}

table! {
    /// `[log]`
    pub struct Log = "[log]" {
        "level" => level: At<String>,
        "format" => format: At<LogFormat>,
        "access" => access: At<AccessFormat>,
        "access_query" => access_query: At<bool>,
    }
    later []
}

choice! {
    LogFormat = "\"auto\", \"text\" or \"json\"" {
        "auto" => LogFormat::Auto,
        "text" => LogFormat::Text,
        "json" => LogFormat::Json,
    }
    later []
}

choice! {
    AccessFormat = "\"off\", \"json\" or \"combined\"" {
        "off" => AccessFormat::Off,
        "json" => AccessFormat::Json,
        "combined" => AccessFormat::Combined,
    }
    later []
}

table! {
    /// `[drain]`
    pub struct Drain = "[drain]" {
        "wait" => wait: At<Duration>,
        "requests" => requests: At<Duration>,
        "streams" => streams: At<Duration>,
    }
    later []
}
