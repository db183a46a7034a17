//! Questions to several name servers: ordered failover, the search list, aliases, glue.
//!
//! Every way in which servers fail to answer is kept apart from "there is nobody": the first
//! never empties a service. No cache and no schedule: `task.rs` has those. Everything here is
//! cancel-safe.
//!
//! RFC 2782 (SRV), RFC 2308 (negative answers), RFC 6604 (the code of an alias chain belongs to
//! its end).

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::{DNSClass, Name, RData, RecordType};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::answers::{
    Addresses, Answer, Glue, LookupError, Negative, OneFamily, Origin, SrvAnswer, SrvRecord,
    Target, found, glue, negative_ttl, text,
};
use super::cut::Transport;
use super::name_server::{NameServer, Reply};
use super::stats::Stats;
use super::system::{RESOLV_CONF, Servers};
use crate::config::{Family, Lookup};

/// CNAMEs that are followed at most, over all answers of one lookup.
const MAX_ALIASES: usize = 8;

/// Watched names that are looked up at once in the whole process.
const NAMES: usize = 64;

/// Targets that are looked up at once in the whole process. A server that drops packets then
/// costs so many sockets, not one per target.
const TARGETS: usize = 64;

/// Of those, targets of one name: some must be left when a name has hundreds that do not answer.
const TARGETS_OF_ONE: usize = 32;

/// Asks on behalf of one watched name.
#[derive(Debug)]
pub struct Resolver {
    name: Arc<str>,
    servers: Servers,
    asked: Vec<NameServer>,
    limits: Arc<Limits>,
    own_targets: Semaphore,
    stats: Arc<Stats>,
}

/// Lookups that may be under way in the whole process. Names don't queue behind targets.
#[derive(Debug)]
pub struct Limits {
    names: Semaphore,
    targets: Semaphore,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            names: Semaphore::new(NAMES),
            targets: Semaphore::new(TARGETS),
        }
    }
}

/// Whose addresses are wanted.
#[derive(Debug, Clone, Copy)]
enum Whose<'a> {
    /// A name as configured.
    Name(&'a str),
    /// An SRV target, and what came along for it, from that server.
    Target(&'a str, Option<(&'a Glue, SocketAddr)>),
}

impl Resolver {
    /// A resolver that asks as `lookup` says, counted under `name`. Reads resolv.conf if there
    /// are no servers in `lookup`.
    pub fn new(
        name: Arc<str>,
        lookup: &Lookup,
        limits: Arc<Limits>,
        stats: Arc<Stats>,
    ) -> Result<Resolver, LookupError> {
        let servers = if lookup.servers.is_empty() {
            Servers::read(Path::new(RESOLV_CONF)).map_err(LookupError::NoServers)?
        } else {
            Servers::given(&lookup.servers)
        };
        Ok(Self::with_servers(name, lookup, servers, limits, stats))
    }

    /// The same with servers and search list given.
    pub fn with_servers(
        name: Arc<str>,
        lookup: &Lookup,
        servers: Servers,
        limits: Arc<Limits>,
        stats: Arc<Stats>,
    ) -> Resolver {
        let addresses = servers.addresses.iter();
        let asked = addresses
            .map(|address| NameServer::new(*address, lookup.timeout, lookup.retries))
            .collect();
        Resolver {
            name,
            servers,
            asked,
            limits,
            own_targets: Semaphore::new(TARGETS_OF_ONE),
            stats,
        }
    }

    /// The servers and the search list in use.
    pub fn servers(&self) -> &Servers {
        &self.servers
    }

    /// The SRV records of `name`, which goes through the search list unless it ends in a dot.
    pub async fn srv(&self, name: &str) -> Result<Answer<SrvAnswer>, LookupError> {
        let _permit = permit(&self.limits.names).await;
        let (origin, message) = match self.search(name, RecordType::SRV).await? {
            Answer::Found(found) => found,
            Answer::Nothing(negative) => return Ok(Answer::Nothing(negative)),
        };
        let owner = origin.aliases.last().unwrap_or(&origin.name);
        let records = message.answers.iter().filter_map(|record| {
            let RData::SRV(srv) = &record.data else {
                return None;
            };
            (record.dns_class == DNSClass::IN && text(&record.name) == *owner).then(|| SrvRecord {
                priority: srv.priority,
                weight: srv.weight,
                port: srv.port,
                target: Target::parse(&srv.target),
            })
        });
        Ok(Answer::Found(SrvAnswer {
            records: records.collect(),
            glue: glue(&message),
            origin,
        }))
    }

    /// The addresses of a configured name: those of the hosts file where the system's servers are
    /// used, or else from DNS, through the search list.
    pub async fn addresses(&self, name: &str, family: Family) -> Addresses {
        if let Some(addresses) = self.servers.hosts(name) {
            return addresses;
        }
        let _permit = permit(&self.limits.names).await;
        self.by_family(Whose::Name(name), family).await
    }

    /// The addresses of an SRV target, an absolute name; only what `glue` lacks is asked for.
    pub async fn target(
        &self,
        target: &str,
        family: Family,
        glue: Option<(&Glue, SocketAddr)>,
    ) -> Addresses {
        let _own = permit(&self.own_targets).await;
        let _permit = permit(&self.limits.targets).await;
        self.by_family(Whose::Target(target, glue), family).await
    }

    /// `auto` asks for AAAA only when there decidedly is no A. When nobody can say whether there
    /// is one, taking AAAA would move a dual-stack target from one set of addresses to another.
    async fn by_family(&self, whose: Whose<'_>, family: Family) -> Addresses {
        let a = || self.one_family(whose, RecordType::A);
        let aaaa = || self.one_family(whose, RecordType::AAAA);
        let (v4, v6) = match family {
            Family::V4 => (a().await, OneFamily::NotAsked),
            Family::V6 => (OneFamily::NotAsked, aaaa().await),
            Family::Both => tokio::join!(a(), aaaa()),
            Family::Auto => match a().await {
                nothing @ OneFamily::Nothing(_) => (nothing, aaaa().await),
                v4 => (v4, OneFamily::NotAsked),
            },
        };
        Addresses { v4, v6 }
    }

    async fn one_family(&self, whose: Whose<'_>, qtype: RecordType) -> OneFamily {
        let outcome = match whose {
            Whose::Name(name) => self.search(name, qtype).await,
            Whose::Target(target, glue) => {
                if let Some((glue, server)) = glue
                    && let Some(found) = glue.family(qtype, server)
                {
                    return found;
                }
                match Servers::given(&[]).candidates(target) {
                    Ok(mut names) => self.follow(names.remove(0), qtype).await,
                    Err(error) => Err(error.into()),
                }
            }
        };
        match outcome {
            Ok(Answer::Found((origin, message))) => found(&origin, &message, qtype),
            Ok(Answer::Nothing(negative)) => OneFamily::Nothing(negative),
            Err(error) => OneFamily::Failed(error),
        }
    }

    /// Walks the search list. Only "nothing" moves on to the next suffix: a server that fails
    /// could be hiding the right one.
    async fn search(
        &self,
        name: &str,
        qtype: RecordType,
    ) -> Result<Answer<(Origin, Box<Message>)>, LookupError> {
        let mut nothing: Option<Negative> = None;
        for candidate in self.servers.candidates(name)? {
            match self.follow(candidate, qtype).await? {
                Answer::Nothing(negative) => {
                    nothing = Some(match nothing {
                        None => negative,
                        Some(before) => before.and(negative),
                    });
                }
                found => return Ok(found),
            }
        }
        let nothing = nothing.expect("there is at least one candidate");
        Ok(Answer::Nothing(nothing))
    }

    /// Asks for `name` and follows its aliases, inside an answer and by asking again.
    async fn follow(
        &self,
        name: Name,
        qtype: RecordType,
    ) -> Result<Answer<(Origin, Box<Message>)>, LookupError> {
        let mut origin = Origin {
            name: text(&name),
            aliases: Vec::new(),
            server: SocketAddr::from(([0, 0, 0, 0], 0)),
            transport: Transport::Udp,
            ttl: Duration::MAX,
        };
        let mut current = name;
        loop {
            let (server, reply) = self.ask(&current, qtype).await?;
            let (message, transport) = match reply {
                Reply::Answer { message, transport } => (message, transport),
                Reply::Negative { name_exists, ttl } => {
                    return Ok(Answer::Nothing(Negative {
                        name_exists,
                        ttl: ttl.map(|ttl| ttl.min(origin.ttl)),
                        server,
                    }));
                }
            };
            origin.server = server;
            if transport != Transport::Udp {
                origin.transport = transport;
            }
            loop {
                let mut here = message
                    .answers
                    .iter()
                    .filter(|r| r.name == current && r.dns_class == DNSClass::IN);
                let ttls = here.clone().filter(|r| r.record_type() == qtype);
                if let Some(ttl) = ttls.map(|r| r.ttl).min() {
                    origin.ttl = origin.ttl.min(Duration::from_secs(ttl.into()));
                    return Ok(Answer::Found((origin, message)));
                }
                let alias = here.find_map(|record| match &record.data {
                    RData::CNAME(cname) => Some((cname.0.clone(), record.ttl)),
                    _ => None,
                });
                let Some((alias, ttl)) = alias else { break };
                origin.ttl = origin.ttl.min(Duration::from_secs(ttl.into()));
                let label = text(&alias);
                if label == origin.name || origin.aliases.contains(&label) {
                    return Err(LookupError::AliasLoop(label));
                }
                if origin.aliases.len() == MAX_ALIASES {
                    return Err(LookupError::TooManyAliases);
                }
                origin.aliases.push(label);
                current = alias;
                current.set_fqdn(true);
            }
            // RFC 6604 section 3: the code speaks of the end of the chain.
            if message.metadata.response_code == ResponseCode::NXDomain {
                return Ok(Answer::Nothing(Negative {
                    name_exists: false,
                    ttl: negative_ttl(&message).map(|ttl| ttl.min(origin.ttl)),
                    server,
                }));
            }
        }
    }

    /// One question: the servers in order, those that sulk last.
    async fn ask(
        &self,
        name: &Name,
        qtype: RecordType,
    ) -> Result<(SocketAddr, Reply), LookupError> {
        let now = Instant::now();
        let mut order: Vec<_> = self.asked.iter().collect();
        order.sort_by_key(|server| server.sulks(now));
        let mut failures = Vec::new();
        for server in order {
            let _under_way = self.stats.under_way();
            let start = Instant::now();
            let outcome = server.ask(name, qtype).await;
            let result = match &outcome {
                Ok(Reply::Answer { .. }) => "ok",
                Ok(Reply::Negative {
                    name_exists: true, ..
                }) => "nodata",
                Ok(Reply::Negative { .. }) => "nxdomain",
                Err(failure) => failure.label(),
            };
            let took = start.elapsed();
            self.stats.asked(&self.name, label(qtype), result, took);
            match outcome {
                Ok(reply) => return Ok((server.address, reply)),
                Err(failure) => failures.push((server.address, failure)),
            }
        }
        if failures.is_empty() {
            return Err(LookupError::NoServers("the list is empty".to_owned()));
        }
        Err(LookupError::Servers(failures))
    }
}

/// The semaphores are never closed, so there is always a permit to be had.
async fn permit(semaphore: &Semaphore) -> Option<SemaphorePermit<'_>> {
    semaphore.acquire().await.ok()
}

fn label(qtype: RecordType) -> &'static str {
    match qtype {
        RecordType::SRV => "SRV",
        RecordType::A => "A",
        _ => "AAAA",
    }
}
