//! The configuration of `evenkeel dns`: a file of its own, read and reported on like the other.
//!
//! `zone_keys.md` says what each key means; a test compares the two.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::diagnostics::{Problem, Problems};
use super::names;
use super::read::{At, table};
use super::scalar::{Bind, NameServer, Positive, Within};
use super::source::Sources;

table! {
    /// The whole file.
    pub struct ZoneFile = "zone configuration" {
        "zone" => zone: At<String>,
        "listen" => listen: Vec<At<Bind>>,
        "state" => state: At<String>,
        "max_lease" => max_lease: At<Positive>,
        "negative_ttl" => negative_ttl: At<Duration>,
        "max_names" => max_names: At<Within<1, 200_000>>,
        "max_records" => max_records: At<Within<1, 200_000>>,
        "updates_per_second" => updates_per_second: At<Within<1, 1_000_000>>,
        "key" => keys: Vec<KeyTable>,
        "synth" => synth: Vec<SynthTable>,
        "synth_server" => synth_server: At<NameServer>,
    }
    required ["zone"]
    later []
}

table! {
    /// `[[key]]`
    pub struct KeyTable = "[[key]]" {
        "file" => file: At<String>,
        "names" => names: Vec<At<String>>,
    }
    required ["file"]
    later []
}

table! {
    /// `[[synth]]`
    pub struct SynthTable = "[[synth]]" {
        "name" => name: At<String>,
        "from" => from: At<String>,
    }
    required ["name", "from"]
    later []
}

/// What `evenkeel dns` serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneConfig {
    /// Name of the zone, lower case, without the final dot.
    pub zone: String,
    /// Where to listen, over UDP and TCP. Never empty.
    pub listen: Vec<SocketAddr>,
    /// Where the zone is kept on disk.
    pub state: Option<PathBuf>,
    /// The longest lease that is granted.
    pub max_lease: Duration,
    /// How long negative answers are believed.
    pub negative_ttl: Duration,
    /// Names with records, at most.
    pub max_names: usize,
    /// Records, at most.
    pub max_records: usize,
    /// Of one key.
    pub updates_per_second: u32,
    /// Who may change what.
    pub keys: Vec<KeyGrant>,
    /// Services that are made of address records.
    pub synth: Vec<Synth>,
    /// Whom to ask for those; `None`: the name servers of the system.
    pub synth_server: Option<SocketAddr>,
}

/// One `[[key]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyGrant {
    /// The key's file.
    pub file: PathBuf,
    /// In full, lower case, without the final dot; one that begins with `*.` is all that end in
    /// the rest. Empty: every name of the zone.
    pub names: Vec<String>,
}

/// One `[[synth]]`: SRV records made of the address records of another name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Synth {
    /// Of the SRV records; in full, lower case, without the final dot.
    pub name: String,
    /// Whose addresses they are made of.
    pub host: String,
    /// What they all get.
    pub port: u16,
}

/// The defaults; docs/dns.md says why.
const MAX_LEASE: Duration = Duration::from_secs(30);
const SHORTEST_LEASE: Duration = Duration::from_secs(2);
const NEGATIVE_TTL: Duration = Duration::from_secs(1);
const MAX_NAMES: u64 = 20_000;
const MAX_RECORDS: u64 = 50_000;
const UPDATES_PER_SECOND: u64 = 500;
const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 5300);

/// Builds the configuration. What comes back next to recorded errors is not to be used.
pub(super) fn build(file: ZoneFile, sources: &Sources, problems: &mut Problems) -> ZoneConfig {
    let zone = match &file.zone {
        Some(zone) => plain(zone, problems),
        None => {
            if file.key("zone").is_none() {
                let problem = Problem::error(file.span.part(0..0), "there is no zone")
                    .help("name it: zone = \"svc.test\"");
                problems.push(problem);
            }
            String::new()
        }
    };
    if let Some(lease) = &file.max_lease
        && (lease.value.0 < SHORTEST_LEASE || lease.value.0.subsec_nanos() > 0)
    {
        problems.error(lease.span, "a lease has whole seconds, at least 2s");
    }
    let number = |at: Option<u64>, default: u64| at.unwrap_or(default) as usize;
    let listen: Vec<SocketAddr> = file
        .listen
        .into_iter()
        .flatten()
        .map(|a| a.value.0)
        .collect();
    let keys = file.keys.into_iter().flatten();
    let keys = keys
        .filter_map(|key| grant(key, &zone, sources, problems))
        .collect();
    let synth = file.synth.into_iter().flatten();
    let synth = synth
        .filter_map(|synth| one_synth(synth, &zone, problems))
        .collect();
    ZoneConfig {
        listen: if listen.is_empty() {
            vec![LISTEN]
        } else {
            listen
        },
        state: file.state.map(|at| sources.resolve(at.span, &at.value)),
        max_lease: file.max_lease.map_or(MAX_LEASE, |at| at.value.0),
        negative_ttl: file.negative_ttl.map_or(NEGATIVE_TTL, |at| at.value),
        max_names: number(file.max_names.map(|at| at.value.0), MAX_NAMES),
        max_records: number(file.max_records.map(|at| at.value.0), MAX_RECORDS),
        updates_per_second: number(
            file.updates_per_second.map(|at| at.value.0),
            UPDATES_PER_SECOND,
        ) as u32,
        keys,
        synth,
        synth_server: file.synth_server.map(|at| at.value.0),
        zone,
    }
}

fn grant(
    key: KeyTable,
    zone: &str,
    sources: &Sources,
    problems: &mut Problems,
) -> Option<KeyGrant> {
    let Some(file) = key.file else {
        if !key.present.iter().any(|(name, _)| *name == "file") {
            let problem = Problem::error(key.span, "a key without its file")
                .help("file = \"web.key\", as tsig-keygen writes it");
            problems.push(problem);
        }
        return None;
    };
    let mut full = Vec::new();
    for name in key.names.into_iter().flatten() {
        let (star, rest) = match name.value.strip_prefix("*.") {
            Some(rest) => ("*.", rest.to_owned()),
            None if name.value == "*" => ("*.", format!("{zone}.")),
            None => ("", name.value.clone()),
        };
        let rest = At {
            value: rest,
            ..name
        };
        full.push(format!("{star}{}", in_zone(&rest, zone, problems)));
    }
    Some(KeyGrant {
        file: sources.resolve(file.span, &file.value),
        names: full,
    })
}

fn one_synth(synth: SynthTable, zone: &str, problems: &mut Problems) -> Option<Synth> {
    let (Some(name), Some(from)) = (&synth.name, &synth.from) else {
        if synth.present.len() < 2 {
            let problem =
                Problem::error(synth.span, "a synth needs a name and what it is made from")
                    .help("name = \"_http._tcp.web\", from = \"web:8080\"");
            problems.push(problem);
        }
        return None;
    };
    let parts = from.value.rsplit_once(':');
    let parsed = parts.and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    let Some((host, port)) = parsed.filter(|(_, port)| *port != 0) else {
        let problem = Problem::error(from.span, "this is no host and port").help(
            "such as \"web:8080\": the name whose addresses are taken, and the port they get",
        );
        problems.push(problem);
        return None;
    };
    if let Err(reason) = names::check(host.as_bytes()) {
        problems.error(from.span, reason);
        return None;
    }
    Some(Synth {
        name: in_zone(name, zone, problems),
        host: host.to_ascii_lowercase(),
        port,
    })
}

/// A name as written: in full if it ends in a dot, else below the zone.
fn in_zone(name: &At<String>, zone: &str, problems: &mut Problems) -> String {
    let written = plain(name, problems);
    if !name.value.ends_with('.') {
        return format!("{written}.{zone}");
    }
    if written != zone && !written.ends_with(&format!(".{zone}")) {
        let problem = Problem::error(name.span, format!("this is not in the zone {zone}"))
            .help("without the final dot it is taken as a name below the zone");
        problems.push(problem);
    }
    written
}

fn plain(name: &At<String>, problems: &mut Problems) -> String {
    if let Err(reason) = names::check(name.value.as_bytes()) {
        problems.error(name.span, reason);
    }
    name.value.trim_end_matches('.').to_ascii_lowercase()
}
