//! The configuration as the rest of the program sees it: no invalid value has a representation.
//!
//! A load goes text → `tree.rs` (one tree for TOML, YAML and JSON, each value with its place) →
//! `overlay.rs` (environment and flags) → `raw.rs` (mirror of the file, unknown keys refused) →
//! `build.rs`, `acme.rs`, `admin.rs`, `services.rs`, `backend_tls.rs`, `health.rs`, `identity.rs`, `in_flight.rs`,
//! `rate.rs`, `routes.rs`, `conditions.rs`, `access.rs`, `redirect.rs`, `header_edits.rs`, `auth.rs`, `mirror.rs`,
//! `target.rs`, `layer4.rs`, `state_dir.rs` (defaults, cross-checks). `diagnostics.rs` says what is wrong and where;
//! reading goes on after an error, so that one run shows all of them. The types are in `listener.rs`,
//! `service.rs`, `route.rs`, `downstream.rs` and beside what reads them. `schema.rs` tells editors how
//! files are written; `management.rs` finds a running instance, also by a file with a mistake.

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
mod downstream;
mod ejection;
mod header_edits;
mod health;
mod identity;
mod in_flight;
mod layer4;
mod listener;
mod load;
mod management;
mod mirror;
mod names;
mod overlay;
mod rate;
mod raw;
mod read;
mod redirect;
mod route;
mod routes;
mod scalar;
mod schema;
mod service;
mod services;
mod state_dir;
mod sticky;
mod target;
mod traces;
mod written;
mod zone;

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
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
pub use downstream::{Downstream, MemoryLimit};
pub use ejection::{EjectionRules, RetryOn};
pub use header_edits::{HeaderEdits, Piece, Template};
pub use health::{Ask, Check, GrpcCheck, HttpCheck};
pub use in_flight::{AdaptiveLimit, InFlightLimits};
pub use listener::{
    CertificateFiles, ClientCertificateMode, ClientCertificates, Listener, Protocol, Redirect,
    TlsFrontEnd, TlsVersion,
};
pub use load::{
    Loaded, Loader, from_toml_str, json_schema, keys, load, zone_json_schema, zone_keys,
};
pub use management::Management;
pub use mirror::Mirror;
pub use rate::{RateKey, RateLimit};
pub use redirect::{PathChange, Rewrite, RouteRedirect, Scheme};
pub use route::{HostPattern, Route};
pub use service::{
    Balancing, Discover, Family, HashBy, Lookup, Service, StaticEndpoint, Strategy, Upstream,
    UpstreamProtocol,
};
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
