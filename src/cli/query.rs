//! `evenkeel query`: the SRV records of a name as Evenkeel reads them, and what is wrong with them.
//!
//! Asks every name server, each on its own, so that differences show. Connects to no backend and
//! asks no running instance. `polls.rs` sees whether a server shows a part of what it has, another
//! one each time; `diagnosis.rs` puts what is wrong into words.

mod diagnosis;
mod polls;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::balance::shares::{Weight, shares};
use crate::config::{Family, Lookup};
use crate::discovery::Discovered;
use crate::discovery::admission::{Admission, is_local};
use crate::discovery::answers::{
    Addresses, Answer, LookupError, OneFamily, SrvAnswer, SrvRecord, Target,
};
use crate::discovery::resolver::{Limits, Resolver};
use crate::discovery::srv::{Assembled, Located, assemble, declined};
use crate::discovery::system::{RESOLV_CONF, Servers};

use polls::Polls;

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
    /// Name server to ask instead of those of /etc/resolv.conf; may be repeated
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

/// What one server says about the name.
struct Look {
    server: SocketAddr,
    srv: Result<Answer<SrvAnswer>, LookupError>,
    /// What all its answers show, where there are records.
    polls: Option<Polls>,
    targets: BTreeMap<Arc<str>, Addresses>,
    assembled: Assembled,
    /// Addresses of the name itself, where it has no SRV records.
    itself: Vec<IpAddr>,
}

/// Everything that was found out.
struct Findings {
    name: String,
    servers: Servers,
    /// The servers are those of the system.
    from_system: bool,
    looks: Vec<Look>,
}

/// Asks, prints, tells by the exit code whether somebody is there.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let name = args.name.strip_prefix("srv://").unwrap_or(&args.name);
    let from_system = args.resolver.is_empty();
    let servers = if from_system {
        Servers::read(Path::new(RESOLV_CONF)).map_err(|error| anyhow!("no name server: {error}"))?
    } else {
        Servers::given(&args.resolver)
    };
    servers.candidates(name)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    let looks = runtime.block_on(ask_all(name, &servers, &args));
    let findings = Findings {
        name: name.to_owned(),
        servers,
        from_system,
        looks,
    };
    print!("{}", findings.report());
    Ok(match findings.usable() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// `IP:PORT`, or an address alone for port 53.
fn server(text: &str) -> Result<SocketAddr, String> {
    let address = text.parse::<IpAddr>();
    address
        .map(|ip| SocketAddr::new(ip, 53))
        .or_else(|_| text.parse())
        .map_err(|_| "an address such as 127.0.0.1:8600 or [::1]:53".to_owned())
}

async fn ask_all(name: &str, servers: &Servers, args: &Args) -> Vec<Look> {
    let often = (args.polls.unwrap_or(polls::USUAL), args.every);
    let limits = Arc::<Limits>::default();
    let mut looks = JoinSet::new();
    for (nth, address) in servers.addresses.iter().enumerate() {
        let alone = Servers {
            addresses: vec![*address],
            ..servers.clone()
        };
        let lookup = Lookup {
            timeout: args.timeout,
            ..Lookup::to(&[])
        };
        let resolver = Resolver::with_servers(
            name.into(),
            &lookup,
            alone,
            Arc::clone(&limits),
            Arc::default(),
        );
        let (name, address) = (name.to_owned(), *address);
        looks.spawn(async move { (nth, look(&name, address, resolver, often).await) });
    }
    let mut looks = looks.join_all().await;
    looks.sort_by_key(|(nth, _)| *nth);
    looks.into_iter().map(|(_, look)| look).collect()
}

/// Asks `often`: so many times, with so much time in between.
async fn look(name: &str, server: SocketAddr, resolver: Resolver, often: (u32, Duration)) -> Look {
    let resolver = Arc::new(resolver);
    let srv = resolver.srv(name).await;
    let polls = match &srv {
        Ok(Answer::Found(first)) => Some(ask_again(name, &resolver, first, often).await),
        _ => None,
    };
    let mut look = Look {
        server,
        srv,
        polls,
        targets: BTreeMap::new(),
        assembled: Assembled::default(),
        itself: Vec::new(),
    };
    match &look.srv {
        Ok(Answer::Found(answer)) => {
            let (records, glue) = match &look.polls {
                Some(polls) if polls.rotates() => (&polls.records, &polls.glue),
                _ => (&answer.records, &answer.glue),
            };
            let mut lookups = JoinSet::new();
            for record in records {
                let Target::Host(target) = record.target.clone() else {
                    continue;
                };
                let resolver = Arc::clone(&resolver);
                let glue = glue.get(&target).cloned();
                let server = answer.origin.server;
                if look.targets.insert(Arc::clone(&target), UNKNOWN).is_some() {
                    continue;
                }
                lookups.spawn(async move {
                    let glue = glue.as_ref().map(|glue| (glue, server));
                    let addresses = resolver.target(&target, Family::Auto, glue).await;
                    (target, addresses)
                });
            }
            look.targets.extend(lookups.join_all().await);
            let located = look.targets.iter();
            let located = located.map(|(target, a)| (Arc::clone(target), located_of(a)));
            let admission = Admission::default();
            let admit = |endpoint, on_loopback| admission.judge(endpoint, on_loopback, &is_local);
            look.assembled = assemble(records, &located.collect(), &admit, MAX_ENDPOINTS);
        }
        Ok(Answer::Nothing(_)) => {
            let addresses = resolver.addresses(name, Family::Both).await;
            look.itself = located_of(&addresses).iter().map(|l| l.address).collect();
        }
        Err(_) => {}
    }
    look
}

/// The default of `max_endpoints`.
const MAX_ENDPOINTS: usize = 4096;

/// Asks for the same several times. A failure ends it: what is wrong is said once.
async fn ask_again(
    name: &str,
    resolver: &Resolver,
    first: &SrvAnswer,
    (times, pause): (u32, Duration),
) -> Polls {
    let mut polls = Polls::new(first);
    if polls.may_differ() {
        for _ in 1..times {
            sleep(pause).await;
            let Ok(Answer::Found(answer)) = resolver.srv(name).await else {
                break;
            };
            polls.take(answer);
        }
    }
    polls
}

/// Before a target was asked for.
const UNKNOWN: Addresses = Addresses {
    v4: OneFamily::NotAsked,
    v6: OneFamily::NotAsked,
};

fn located_of(addresses: &Addresses) -> Vec<Located> {
    let of = |family: &OneFamily| match family {
        OneFamily::Found {
            addresses, server, ..
        } => {
            let server_on_loopback = server.ip().to_canonical().is_loopback();
            let located = |address: &IpAddr| Located {
                address: *address,
                server_on_loopback,
            };
            addresses.iter().map(located).collect()
        }
        _ => Vec::new(),
    };
    [of(&addresses.v4), of(&addresses.v6)].concat()
}

impl Look {
    fn answer(&self) -> Option<&SrvAnswer> {
        match &self.srv {
            Ok(Answer::Found(answer)) => Some(answer),
            _ => None,
        }
    }

    /// What its answers show, if they rotate.
    fn rotating(&self) -> Option<&Polls> {
        self.polls.as_ref().filter(|polls| polls.rotates())
    }

    /// All records that it showed, if answers rotate, else those of the first one.
    fn records(&self) -> &[SrvRecord] {
        match self.rotating() {
            Some(polls) => &polls.records,
            None => self.answer().map_or(&[], |answer| &answer.records),
        }
    }

    /// Where an address of a target comes from.
    fn source(&self, target: &str, address: IpAddr) -> String {
        let Some(addresses) = self.targets.get(target) else {
            return String::new();
        };
        let family = match address {
            IpAddr::V4(_) => &addresses.v4,
            IpAddr::V6(_) => &addresses.v6,
        };
        match family {
            OneFamily::Found {
                glue: true, ttl, ..
            } => format!("glue, TTL {}", seconds(*ttl)),
            OneFamily::Found { ttl, .. } => format!("looked up, TTL {}", seconds(*ttl)),
            _ => String::new(),
        }
    }
}

impl Findings {
    /// Does the first server that answers at all know somebody? The others are asked only when it
    /// fails, so they do not count.
    fn usable(&self) -> bool {
        let first = self.looks.iter().find(|look| look.srv.is_ok());
        first.is_some_and(|look| !look.assembled.endpoints.is_empty())
    }

    fn report(&self) -> String {
        let mut out = String::new();
        if let Some(look) = self.looks.iter().find(|look| look.srv.is_ok()) {
            tree(&mut out, &self.name, look);
        }
        let remarks = diagnosis::remarks(self);
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
