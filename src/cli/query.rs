//! `evenkeel query`: the SRV records of a name as Evenkeel reads them, and what is wrong with them.
//!
//! Asks every name server, each on its own, so that differences show. Connects to no backend and
//! asks no running instance. `look.rs` asks, `polls.rs` sees whether a server shows a part of what it
//! has, another one each time, `diagnosis.rs` puts what is wrong into words; `check --online` asks
//! and says the same of every name in a configuration.

pub(super) mod diagnosis;
pub(super) mod look;
pub(super) mod polls;

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, anyhow};

use crate::balance::shares::{Weight, shares};
use crate::config::{Discover, Lookup};
use crate::discovery::Discovered;
use crate::discovery::admission::Admission;
use crate::discovery::srv::declined;
use crate::discovery::system::{RESOLV_CONF, Servers};

use super::run_options::ConfigurationOptions;
use look::{Findings, Look, Question, ask};

/// Arguments of `query`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exits with 0 when at least one endpoint can be used, else with 1. The limits and the allowed
networks of a configuration play no part here.

  evenkeel query _http._tcp.web.default.svc.cluster.local
  evenkeel query web.service.consul --resolver 127.0.0.1:8600
  evenkeel query _web._tcp.shop.internal --polls 20 --every 10s")]
pub struct Args {
    /// The name; a final dot keeps the search list of /etc/resolv.conf out of it
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Name server to ask instead of those of the configuration that `run` would take, or else of
    /// /etc/resolv.conf; may be repeated
    #[arg(long, value_name = "IP:PORT", value_parser = server)]
    pub resolver: Vec<SocketAddr>,
    /// For how long to wait for each answer
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    pub timeout: Duration,
    /// How often to ask each server, to see whether it shows a part of what it has, another one
    /// each time; 5 unless given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub polls: Option<u32>,
    /// How long to wait in between: a cache on the way gives the same answer until the TTL is over
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration)]
    pub every: Duration,
}

/// Asks, prints, tells by the exit code whether somebody is there.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let name = args.name.strip_prefix("srv://").unwrap_or(&args.name);
    let told = match args.resolver.is_empty() {
        true => configured(name),
        false => args.resolver,
    };
    let from_system = told.is_empty();
    let servers = match from_system {
        true => Servers::read(Path::new(RESOLV_CONF))
            .map_err(|error| anyhow!("no name server: {error}"))?,
        false => Servers::given(&told),
    };
    servers.candidates(name)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    let question = Question {
        lookup: Lookup {
            timeout: args.timeout,
            ..Lookup::to(&[])
        },
        polls: args.polls.unwrap_or(polls::USUAL),
        pause: args.every,
        admission: Admission::default(),
    };
    let findings = runtime.block_on(ask(name, (servers, from_system), question));
    super::print(report(&findings))?;
    Ok(match findings.endpoints().is_empty() {
        false => ExitCode::SUCCESS,
        true => ExitCode::FAILURE,
    })
}

/// Whom the configuration that `run` would take has asked for `name`: by the service that looks it up, else
/// by the first one that looks anything up. Nobody: those of the system, or there is no such file.
fn configured(name: &str) -> Vec<SocketAddr> {
    let Ok(loaded) = ConfigurationOptions::default().load() else {
        return Vec::new();
    };
    let plain = |name: &str| name.trim_end_matches('.').to_ascii_lowercase();
    let wanted = plain(name);
    let services = loaded.config.services.iter();
    let mut lookups = services.filter_map(|service| match &service.discover {
        Discover::Srv { name, lookup } | Discover::Address { name, lookup, .. } => {
            Some((plain(name), &lookup.servers))
        }
        Discover::Static(_) => None,
    });
    let first = lookups.next();
    let own = first.iter().cloned().chain(lookups);
    let own = own.into_iter().find(|(name, _)| *name == wanted);
    own.or(first)
        .map_or_else(Vec::new, |(_, servers)| servers.clone())
}

/// `IP:PORT`, or an address alone for port 53.
fn server(text: &str) -> Result<SocketAddr, String> {
    let address = text.parse::<IpAddr>();
    address
        .map(|ip| SocketAddr::new(ip, 53))
        .or_else(|_| text.parse())
        .map_err(|_| "an address such as 127.0.0.1:8600 or [::1]:53".to_owned())
}

fn report(findings: &Findings) -> String {
    let mut out = String::new();
    if let Some(look) = findings.first() {
        tree(&mut out, &findings.name, look);
    }
    let remarks = diagnosis::remarks(findings);
    if !remarks.is_empty() {
        if !out.is_empty() {
            out.push('\n');
        }
        for remark in remarks {
            let _ = writeln!(out, "{remark}");
        }
    }
    out
}

/// Tiers by priority, members with their shares, addresses with their source.
fn tree(out: &mut String, name: &str, look: &Look) {
    let Some(answer) = look.answer() else { return };
    let origin = &answer.origin;
    let _ = write!(out, "{}  SRV, TTL {}", origin.name, seconds(origin.ttl));
    let _ = match look.rotating() {
        Some(polls) => write!(
            out,
            ", {} of at least {} records",
            polls.shown,
            look.records().len()
        ),
        None => write!(out, ", {} records", answer.records.len()),
    };
    let _ = writeln!(out, ", from {}", origin.server);
    if *origin.name != *name.trim_end_matches('.').to_ascii_lowercase() {
        let _ = writeln!(out, "  {name} was completed by the search list");
    }
    for alias in &origin.aliases {
        let _ = writeln!(out, "  is an alias (CNAME) of {alias}");
    }
    if declined(&answer.records) {
        let _ = writeln!(
            out,
            "  the only target is `.`: the service is decidedly not offered"
        );
    }
    let mut endpoints = &look.assembled.endpoints[..];
    let mut first_tier = true;
    while let Some(first) = endpoints.first() {
        let same = |d: &&Discovered| d.priority == first.priority;
        let (tier, rest) = endpoints.split_at(endpoints.iter().take_while(same).count());
        endpoints = rest;
        let standby = match first_tier {
            true => "",
            false => ", when nobody above can serve",
        };
        first_tier = false;
        let _ = writeln!(out, "  priority {}{standby}", first.priority);
        let weights: Vec<_> = tier.iter().map(weight).collect();
        for (endpoint, share) in tier.iter().zip(shares(&weights)) {
            let target = &endpoint.endpoint.target;
            let source = look.source(target, endpoint.endpoint.address);
            let _ = writeln!(
                out,
                "  {:>7.2} %  {}  {target}, weight {}, {source}",
                share * 100.0,
                endpoint.endpoint.socket(),
                endpoint.weight,
            );
        }
    }
}

fn weight(endpoint: &Discovered) -> Weight {
    Weight {
        weight: endpoint.weight,
        split: endpoint.split,
    }
}

fn seconds(ttl: Duration) -> String {
    humantime::format_duration(ttl).to_string()
}
