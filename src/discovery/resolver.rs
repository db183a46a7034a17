//! Questions to several name servers: ordered failover, the search list, aliases, glue.
//!
//! Every way in which servers fail to answer is kept apart from "there is nobody": the first
//! never empties a service. No cache and no schedule: `task.rs` has those. Everything here is
//! cancel-safe.
//!
//! RFC 2782 (SRV), RFC 2308 (negative answers), RFC 6604 (the code of an alias chain belongs to
//! its end).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::{DNSClass, Name, RData, RecordType};
use tokio::sync::Semaphore;
use tokio::time::Instant;

pub use super::name_server::Failure;
use super::name_server::{NameServer, Reply};
use super::stats::Stats;
use super::system::{BadName, RESOLV_CONF, Servers};
use crate::config::{Family, Lookup};

/// CNAMEs that are followed at most, over all answers of one lookup.
const MAX_ALIASES: usize = 8;

/// Asks on behalf of one watched name.
#[derive(Debug)]
pub struct Resolver {
    name: Arc<str>,
    servers: Servers,
    asked: Vec<NameServer>,
    /// Questions that may be under way in the whole process.
    limit: Arc<Semaphore>,
    stats: Arc<Stats>,
}

/// The outcome of a lookup that was answered.
#[derive(Debug, Clone)]
pub enum Answer<T> {
    /// Records.
    Found(T),
    /// Decidedly none.
    Nothing(Negative),
}

/// Which kind of nothing, as one server said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Negative {
    /// NODATA if true, NXDOMAIN if not.
    pub name_exists: bool,
    /// How long it may be believed; `None`: it carried no SOA record.
    pub ttl: Option<Duration>,
    /// Who said it.
    pub server: SocketAddr,
}

/// What stands behind the answer: which name, by whom, how.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The absolute name that was asked for, lower case, without the final dot.
    pub name: Arc<str>,
    /// Aliases (CNAME) followed from there, in order.
    pub aliases: Vec<Arc<str>>,
    /// The server of the last answer.
    pub server: SocketAddr,
    /// It did not fit UDP.
    pub over_tcp: bool,
    /// The shortest TTL of the records and of the aliases that led to them.
    pub ttl: Duration,
}

/// An SRV answer.
#[derive(Debug, Clone)]
pub struct SrvAnswer {
    /// Where it comes from.
    pub origin: Origin,
    /// Its records, as sent.
    pub records: Vec<SrvRecord>,
    /// Addresses of targets that came along, by target.
    pub glue: BTreeMap<Arc<str>, Glue>,
}

/// One SRV record (RFC 2782).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SrvRecord {
    /// Lower goes first.
    pub priority: u16,
    /// Share within its priority.
    pub weight: u16,
    /// Port; 0 is never usable.
    pub port: u16,
    /// Its target.
    pub target: Target,
}

/// Target of an SRV record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// `.`: the service is decidedly not offered.
    Declined,
    /// A host name, lower case, without the final dot.
    Host(Arc<str>),
    /// Something that no host can be called, as it would be written.
    Invalid(String),
}

/// Addresses of one target in an additional section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glue {
    /// From A records.
    pub v4: Vec<IpAddr>,
    /// From AAAA records.
    pub v6: Vec<IpAddr>,
    /// The shortest TTL among them.
    pub ttl: Duration,
}

/// What is known of the addresses of one name after asking.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// From A records.
    pub v4: OneFamily,
    /// From AAAA records.
    pub v6: OneFamily,
}

/// Addresses of one family.
#[derive(Debug, Clone)]
pub enum OneFamily {
    /// The other family is enough.
    NotAsked,
    /// These.
    Found {
        /// Never empty.
        addresses: Vec<IpAddr>,
        /// The shortest TTL.
        ttl: Duration,
        /// Who said so.
        server: SocketAddr,
        /// They came along with the SRV answer.
        glue: bool,
    },
    /// None of this family.
    Nothing(Negative),
    /// Nobody could say.
    Failed(LookupError),
}

/// Why there is no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LookupError {
    /// The name cannot be asked for.
    #[error(transparent)]
    BadName(#[from] BadName),
    /// There is nobody to ask.
    #[error("no name server: {0}")]
    NoServers(String),
    /// Each server in turn failed.
    #[error("{}", list(.0))]
    Servers(Vec<(SocketAddr, Failure)>),
    /// Aliases that lead back to themselves.
    #[error("CNAME loop at {0}")]
    AliasLoop(Arc<str>),
    /// More aliases than anybody has a use for.
    #[error("more than 8 CNAMEs in a row")]
    TooManyAliases,
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
    /// are no servers in `lookup`. `limit` bounds the questions under way.
    pub fn new(
        name: Arc<str>,
        lookup: &Lookup,
        limit: Arc<Semaphore>,
        stats: Arc<Stats>,
    ) -> Result<Resolver, LookupError> {
        let servers = if lookup.servers.is_empty() {
            Servers::read(Path::new(RESOLV_CONF)).map_err(LookupError::NoServers)?
        } else {
            Servers::given(&lookup.servers)
        };
        Ok(Self::with_servers(name, lookup, servers, limit, stats))
    }

    /// The same with servers and search list given.
    pub fn with_servers(
        name: Arc<str>,
        lookup: &Lookup,
        servers: Servers,
        limit: Arc<Semaphore>,
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
            limit,
            stats,
        }
    }

    /// The servers and the search list in use.
    pub fn servers(&self) -> &Servers {
        &self.servers
    }

    /// The SRV records of `name`, which goes through the search list unless it ends in a dot.
    pub async fn srv(&self, name: &str) -> Result<Answer<SrvAnswer>, LookupError> {
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

    /// The addresses of a configured name, which goes through the search list.
    pub async fn addresses(&self, name: &str, family: Family) -> Addresses {
        self.by_family(Whose::Name(name), family).await
    }

    /// The addresses of an SRV target, an absolute name; only what `glue` lacks is asked for.
    pub async fn target(
        &self,
        target: &str,
        family: Family,
        glue: Option<(&Glue, SocketAddr)>,
    ) -> Addresses {
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
            over_tcp: false,
            ttl: Duration::MAX,
        };
        let mut current = name;
        loop {
            let (server, reply) = self.ask(&current, qtype).await?;
            let (message, over_tcp) = match reply {
                Reply::Answer { message, over_tcp } => (message, over_tcp),
                Reply::Negative { name_exists, ttl } => {
                    return Ok(Answer::Nothing(Negative {
                        name_exists,
                        ttl: ttl.map(|ttl| ttl.min(origin.ttl)),
                        server,
                    }));
                }
            };
            origin.server = server;
            origin.over_tcp |= over_tcp;
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
            let _permit = self.limit.acquire().await;
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

impl Negative {
    /// Of two names that both have nothing: NODATA says more than NXDOMAIN, the shorter TTL rules.
    pub(super) fn and(self, other: Negative) -> Negative {
        Negative {
            name_exists: self.name_exists || other.name_exists,
            ttl: match (self.ttl, other.ttl) {
                (Some(a), Some(b)) => Some(a.min(b)),
                _ => None,
            },
            server: other.server,
        }
    }
}

impl Glue {
    fn family(&self, qtype: RecordType, server: SocketAddr) -> Option<OneFamily> {
        let addresses = match qtype {
            RecordType::A => &self.v4,
            _ => &self.v6,
        };
        (!addresses.is_empty()).then(|| OneFamily::Found {
            addresses: addresses.clone(),
            ttl: self.ttl,
            server,
            glue: true,
        })
    }
}

impl Target {
    /// Reads a target off the wire, where a label can hold any byte. Underscores are let through:
    /// container names have them. A name that ends in a number is an address in disguise
    /// (RFC 1123 section 2.1).
    fn parse(name: &Name) -> Target {
        if name.is_root() {
            return Target::Declined;
        }
        let byte = |b: &u8| b.is_ascii_alphanumeric() || b"-_".contains(b);
        let host = name.iter().all(|label| label.iter().all(byte))
            && !name
                .iter()
                .next_back()
                .is_some_and(|l| l.iter().all(u8::is_ascii_digit));
        if host {
            Target::Host(text(name))
        } else {
            Target::Invalid(name.to_ascii())
        }
    }
}

fn found(origin: &Origin, message: &Message, qtype: RecordType) -> OneFamily {
    let owner = origin.aliases.last().unwrap_or(&origin.name);
    let here = message.answers.iter();
    let here = here.filter(|r| r.record_type() == qtype && text(&r.name) == *owner);
    let mut addresses: Vec<_> = here.filter_map(|r| r.data.ip_addr()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    OneFamily::Found {
        addresses,
        ttl: origin.ttl,
        server: origin.server,
        glue: false,
    }
}

/// Addresses of the additional section by owner. A server that puts them into the answer section
/// instead is understood too.
fn glue(message: &Message) -> BTreeMap<Arc<str>, Glue> {
    let mut glue = BTreeMap::<Arc<str>, Glue>::new();
    let records = message.answers.iter().chain(&message.additionals);
    for record in records.filter(|r| r.dns_class == DNSClass::IN) {
        let Some(address) = record.data.ip_addr() else {
            continue;
        };
        let ttl = Duration::from_secs(record.ttl.into());
        let entry = glue.entry(text(&record.name)).or_insert(Glue {
            v4: Vec::new(),
            v6: Vec::new(),
            ttl,
        });
        entry.ttl = entry.ttl.min(ttl);
        let addresses = match address {
            IpAddr::V4(_) => &mut entry.v4,
            IpAddr::V6(_) => &mut entry.v6,
        };
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    glue
}

/// Time that a negative answer may be believed (RFC 2308 section 5).
fn negative_ttl(message: &Message) -> Option<Duration> {
    message.authorities.iter().find_map(|record| {
        let RData::SOA(soa) = &record.data else {
            return None;
        };
        Some(Duration::from_secs(record.ttl.min(soa.minimum).into()))
    })
}

/// A name as it is compared and shown: lower case, no final dot.
fn text(name: &Name) -> Arc<str> {
    let ascii = name.to_lowercase().to_ascii();
    ascii.trim_end_matches('.').into()
}

fn label(qtype: RecordType) -> &'static str {
    match qtype {
        RecordType::SRV => "SRV",
        RecordType::A => "A",
        _ => "AAAA",
    }
}

fn list(failures: &[(SocketAddr, Failure)]) -> String {
    let each = failures.iter().map(|(server, f)| format!("{server} {f}"));
    each.collect::<Vec<_>>().join("; ")
}
