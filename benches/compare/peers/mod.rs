//! The proxies: what each is called, how it is configured and started, what it leaves unlike the others.
//!
//! A file per peer holds its configuration text and nothing else; `programs.rs` says where its program comes from. Nothing
//! here starts a process that stays.

mod caddy;
mod envoy;
mod evenkeel;
mod haproxy;
mod nginx;
mod pingora;
pub mod programs;
mod traefik;

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};

use crate::http2;
use crate::scenario::Front;

/// A proxy. Evenkeel is first: the others are measured against it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Peer {
    Evenkeel,
    #[value(name = "haproxy")]
    HaProxy,
    Nginx,
    Envoy,
    Caddy,
    Traefik,
    Pingora,
}

/// What a peer is asked to be.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Its own folder, for its configuration and all that it writes.
    pub folder: PathBuf,
    /// Where it serves HTTP, or passes TCP on.
    pub plain: SocketAddr,
    /// Where it serves HTTPS.
    pub tls: SocketAddr,
    /// A port for probes or administration, for a peer that cannot do without.
    pub admin: SocketAddr,
    /// Certificate, PEM.
    pub cert: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// Both in one file, key last.
    pub cert_and_key: PathBuf,
    /// Who answers.
    pub backends: Backends,
    /// Threads (or processes) that serve.
    pub workers: usize,
    /// Client connections that must be possible at once.
    pub connections: usize,
    /// Whether each request is logged to a file in the folder. Where TCP is passed on none is, as there are no requests.
    pub access_log: bool,
    /// What it serves.
    pub front: Front,
}

/// Who answers behind a proxy.
#[derive(Debug, Clone)]
pub enum Backends {
    /// One address, written in the configuration.
    One(SocketAddr),
    /// Those of an SRV name, as this name server knows them at the moment.
    Srv {
        name: String,
        server: SocketAddr,
        most: usize,
    },
}

/// How a configured peer is started.
#[derive(Debug, Default)]
pub struct Launch {
    /// After the program's own name.
    pub arguments: Vec<OsString>,
    /// Added to the environment.
    pub environment: Vec<(&'static str, OsString)>,
}

impl Peer {
    /// As its makers write it.
    pub fn title(self) -> &'static str {
        match self {
            Peer::Evenkeel => "Evenkeel",
            Peer::HaProxy => "HAProxy",
            Peer::Nginx => "NGINX",
            Peer::Envoy => "Envoy",
            Peer::Caddy => "Caddy",
            Peer::Traefik => "Traefik",
            Peer::Pingora => "Pingora",
        }
    }

    /// As it is called on the command line, in folders and in JSON.
    pub fn word(self) -> String {
        self.title().to_ascii_lowercase()
    }

    /// Which of the seven; ports are dealt out by it.
    pub fn number(self) -> u16 {
        self as u16
    }

    /// Can it follow SRV records that change while it runs, as it is given away? Debian's NGINX cannot yet.
    pub fn follows_srv(self) -> bool {
        matches!(self, Peer::Evenkeel | Peer::HaProxy | Peer::Caddy)
    }

    /// Why it cannot serve this; `None`: it can.
    pub fn cannot(self, front: Front) -> Option<&'static str> {
        match (front, self) {
            (Front::Http1, _) => None,
            (Front::Http2, _) => programs::on_path(http2::PROGRAM)
                .is_none()
                .then_some("h2load is not installed (Debian: nghttp2-client)"),
            (Front::Tcp, Peer::Nginx) => nginx::stream_module()
                .is_none()
                .then_some("its stream module is not installed (Debian: libnginx-mod-stream)"),
            (Front::Tcp, Peer::Caddy) => Some("it passes TCP on only with a module of others"),
            (Front::Tcp, Peer::Pingora) => {
                Some("the proxy around it in `benches/pingora` knows HTTP only")
            }
            (Front::Tcp, _) => None,
        }
    }

    /// What its configuration leaves unlike the others, in words for the report.
    pub fn differs(self) -> &'static str {
        match self {
            Peer::Evenkeel => evenkeel::DIFFERS,
            Peer::HaProxy => haproxy::DIFFERS,
            Peer::Nginx => nginx::DIFFERS,
            Peer::Envoy => envoy::DIFFERS,
            Peer::Caddy => caddy::DIFFERS,
            Peer::Traefik => traefik::DIFFERS,
            Peer::Pingora => pingora::DIFFERS,
        }
    }

    /// Writes the configuration into its folder, and says how to start it.
    pub fn configure(self, setup: &Setup) -> Result<Launch> {
        fs::create_dir_all(&setup.folder)
            .with_context(|| format!("cannot make {}", setup.folder.display()))?;
        match self {
            Peer::Evenkeel => evenkeel::configure(setup),
            Peer::HaProxy => haproxy::configure(setup),
            Peer::Nginx => nginx::configure(setup),
            Peer::Envoy => envoy::configure(setup),
            Peer::Caddy => caddy::configure(setup),
            Peer::Traefik => traefik::configure(setup),
            Peer::Pingora => pingora::configure(setup),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.title())
    }
}

impl Setup {
    /// Writes a file into the folder.
    fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.folder.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// The path of a file in the folder, as text for a configuration.
    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// The one backend, for peers that know no others.
    fn backend(&self) -> Result<SocketAddr> {
        match &self.backends {
            Backends::One(address) => Ok(*address),
            Backends::Srv { .. } => Err(anyhow!("it does not follow SRV records")),
        }
    }
}

impl Launch {
    fn with<S: Into<OsString>>(arguments: impl IntoIterator<Item = S>) -> Launch {
        Launch {
            arguments: arguments.into_iter().map(Into::into).collect(),
            environment: Vec::new(),
        }
    }
}

/// A path in the words of a configuration file.
fn text(path: &Path) -> std::path::Display<'_> {
    path.display()
}
