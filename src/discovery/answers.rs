//! What a lookup gives, and how it is read off a DNS message.
//!
//! Pure. `resolver.rs` asks, `srv.rs` and `targets.rs` use what comes of it. RFC 2782 (SRV),
//! RFC 2308 (negative answers).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::proto::op::Message;
use hickory_resolver::proto::rr::{DNSClass, Name, RData, RecordType};

pub use super::cut::Transport;
pub use super::name_server::Failure;
use super::system::BadName;

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
    /// How it came, or one of them, when aliases took several.
    pub transport: Transport,
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
    pub(super) fn family(&self, qtype: RecordType, server: SocketAddr) -> Option<OneFamily> {
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
    pub(super) fn parse(name: &Name) -> Target {
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

pub(super) fn found(origin: &Origin, message: &Message, qtype: RecordType) -> OneFamily {
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
pub(super) fn glue(message: &Message) -> BTreeMap<Arc<str>, Glue> {
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
pub(super) fn negative_ttl(message: &Message) -> Option<Duration> {
    message.authorities.iter().find_map(|record| {
        let RData::SOA(soa) = &record.data else {
            return None;
        };
        Some(Duration::from_secs(record.ttl.min(soa.minimum).into()))
    })
}

/// A name as it is compared and shown: lower case, no final dot.
pub(super) fn text(name: &Name) -> Arc<str> {
    let ascii = name.to_lowercase().to_ascii();
    ascii.trim_end_matches('.').into()
}

fn list(failures: &[(SocketAddr, Failure)]) -> String {
    let each = failures.iter().map(|(server, f)| format!("{server} {f}"));
    each.collect::<Vec<_>>().join("; ")
}
