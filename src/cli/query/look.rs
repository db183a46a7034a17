//! What the name servers say of a name: each is asked on its own, so that differences show.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use super::polls::Polls;
use crate::config::{Family, Lookup};
use crate::discovery::Discovered;
use crate::discovery::admission::{Admission, is_local};
use crate::discovery::answers::{
    Addresses, Answer, LookupError, OneFamily, SrvAnswer, SrvRecord, Target,
};
use crate::discovery::resolver::{Limits, Resolver};
use crate::discovery::srv::{Assembled, Located, assemble};
use crate::discovery::system::Servers;

/// How a name is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    /// As a service would; its servers are given apart.
    pub(crate) lookup: Lookup,
    /// So many times …
    pub(crate) polls: u32,
    /// … with so much time in between.
    pub(crate) pause: Duration,
    /// Which endpoints are taken.
    pub(crate) admission: Admission,
}

/// What one server says about the name.
#[derive(Debug)]
pub(crate) struct Look {
    pub(super) server: SocketAddr,
    pub(super) srv: Result<Answer<SrvAnswer>, LookupError>,
    /// What all its answers show, where there are records.
    pub(super) polls: Option<Polls>,
    pub(super) targets: BTreeMap<Arc<str>, Addresses>,
    pub(super) assembled: Assembled,
    /// Addresses of the name itself, where it has no SRV records.
    pub(super) itself: Vec<IpAddr>,
}

/// Everything that was found out.
#[derive(Debug)]
pub(crate) struct Findings {
    pub(super) name: String,
    pub(super) servers: Servers,
    /// The servers are those of the system.
    pub(super) from_system: bool,
    pub(super) looks: Vec<Look>,
}

impl Findings {
    /// The first server that answers at all: the others are asked only when it fails, so they do
    /// not count.
    pub(super) fn first(&self) -> Option<&Look> {
        self.looks.iter().find(|look| look.srv.is_ok())
    }

    /// Whom a service would get.
    pub(crate) fn endpoints(&self) -> &[Discovered] {
        self.first().map_or(&[], |look| &look.assembled.endpoints)
    }

    /// Is there a record or a target that cannot be used?
    pub(crate) fn some_unused(&self) -> bool {
        let unused =
            |look: &Look| !look.assembled.rejected.is_empty() || !look.assembled.waiting.is_empty();
        self.first().is_some_and(unused)
    }

    /// Does a server give no answer?
    pub(crate) fn some_fail(&self) -> bool {
        self.looks.iter().any(|look| look.srv.is_err())
    }
}

impl Look {
    pub(super) fn answer(&self) -> Option<&SrvAnswer> {
        match &self.srv {
            Ok(Answer::Found(answer)) => Some(answer),
            _ => None,
        }
    }

    /// What its answers show, if they rotate.
    pub(super) fn rotating(&self) -> Option<&Polls> {
        self.polls.as_ref().filter(|polls| polls.rotates())
    }

    /// All records that it showed, if answers rotate, else those of the first one.
    pub(super) fn records(&self) -> &[SrvRecord] {
        match self.rotating() {
            Some(polls) => &polls.records,
            None => self.answer().map_or(&[], |answer| &answer.records),
        }
    }

    /// Where an address of a target comes from.
    pub(super) fn source(&self, target: &str, address: IpAddr) -> String {
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
            } => format!("glue, TTL {}", humantime::format_duration(*ttl)),
            OneFamily::Found { ttl, .. } => {
                format!("looked up, TTL {}", humantime::format_duration(*ttl))
            }
            _ => String::new(),
        }
    }
}

/// Asks every server for the SRV records of `name`, and what is behind them. `from_system`: the
/// servers are those of the system.
pub(crate) async fn ask(
    name: &str,
    (servers, from_system): (Servers, bool),
    question: Question,
) -> Findings {
    let question = Arc::new(question);
    let limits = Arc::<Limits>::default();
    let mut looks = JoinSet::new();
    for (nth, address) in servers.addresses.iter().enumerate() {
        let alone = Servers {
            addresses: vec![*address],
            ..servers.clone()
        };
        let resolver = Resolver::with_servers(
            name.into(),
            &question.lookup,
            alone,
            Arc::clone(&limits),
            Arc::default(),
        );
        let (name, address, question) = (name.to_owned(), *address, Arc::clone(&question));
        looks.spawn(async move { (nth, look(&name, address, resolver, &question).await) });
    }
    let mut looks = looks.join_all().await;
    looks.sort_by_key(|(nth, _)| *nth);
    Findings {
        name: name.to_owned(),
        servers,
        from_system,
        looks: looks.into_iter().map(|(_, look)| look).collect(),
    }
}

async fn look(name: &str, server: SocketAddr, resolver: Resolver, question: &Question) -> Look {
    let resolver = Arc::new(resolver);
    let srv = resolver.srv(name).await;
    let polls = match &srv {
        Ok(Answer::Found(first)) => Some(ask_again(name, &resolver, first, question).await),
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
                let family = question.lookup.family;
                if look.targets.insert(Arc::clone(&target), UNKNOWN).is_some() {
                    continue;
                }
                lookups.spawn(async move {
                    let glue = glue.as_ref().map(|glue| (glue, server));
                    let addresses = resolver.target(&target, family, glue).await;
                    (target, addresses)
                });
            }
            look.targets.extend(lookups.join_all().await);
            let located = look.targets.iter();
            let located = located.map(|(target, a)| (Arc::clone(target), located_of(a)));
            let admission = &question.admission;
            let admit = |endpoint, on_loopback| admission.judge(endpoint, on_loopback, &is_local);
            let most = question.lookup.max_endpoints;
            look.assembled = assemble(records, &located.collect(), &admit, most);
        }
        Ok(Answer::Nothing(_)) => {
            let addresses = resolver.addresses(name, Family::Both).await;
            look.itself = located_of(&addresses).iter().map(|l| l.address).collect();
        }
        Err(_) => {}
    }
    look
}

/// Asks for the same several times. A failure ends it: what is wrong is said once.
async fn ask_again(
    name: &str,
    resolver: &Resolver,
    first: &SrvAnswer,
    question: &Question,
) -> Polls {
    let mut polls = Polls::new(first);
    if polls.may_differ() {
        for _ in 1..question.polls {
            sleep(question.pause).await;
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

pub(crate) fn located_of(addresses: &Addresses) -> Vec<Located> {
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
