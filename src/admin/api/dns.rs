//! `dns`: the names that are watched, and what their answers changed.

use tokio::time::Instant;

use super::{Desk, Refusal, date};
use crate::admin::model::{
    ChangeCounts, Dns, DnsChange, DnsCounts, Joined, Left, Moved, Place, Results,
};
use crate::config::{Discover, Lookup};
use crate::discovery::answers::Transport;
use crate::discovery::changes::{Answered, Change};
use crate::discovery::journal::Event;
use crate::discovery::stats::DnsStats;
use crate::discovery::watch::Publication;
use crate::discovery::{Endpoint, Offer};
use crate::proxy::worker::Shared;

impl Desk {
    pub(super) fn dns(&self, only: Option<&str>) -> Result<Vec<Dns>, Refusal> {
        let (shared, stats) = (self.shared(), self.watches.snapshot());
        let watched = self.watches.watched().into_iter();
        let all = watched.filter_map(|(discover, publication)| {
            let (kind, name, lookup) = match &discover {
                Discover::Srv { name, lookup } => ("srv", name, lookup),
                Discover::Address { name, lookup, .. } => ("a", name, lookup),
                Discover::Static(_) => return None,
            };
            let wanted = only.is_none_or(|only| **name == *only);
            wanted.then(|| Dns {
                kind: kind.to_owned(),
                services: services(&shared, &discover),
                ..self.dns_of((name, lookup), &publication, &stats)
            })
        });
        let mut all: Vec<_> = all.collect();
        if let Some(name) = only
            && all.is_empty()
        {
            return Err(Refusal::unknown("name", name));
        }
        all.sort_by(|a, b| (&a.name, &a.services).cmp(&(&b.name, &b.services)));
        Ok(all)
    }

    fn dns_of(
        &self,
        (name, lookup): (&str, &Lookup),
        publication: &Publication,
        stats: &DnsStats,
    ) -> Dns {
        let now = Instant::now();
        let age = publication
            .last_success
            .map(|at| now.saturating_duration_since(at));
        let counts = stats.names.get(name).cloned().unwrap_or_default();
        let results = stats.lookups.iter().filter(|(key, _)| *key.name == *name);
        Dns {
            name: name.to_owned(),
            kind: String::new(),
            services: Vec::new(),
            servers: lookup.servers.iter().map(ToString::to_string).collect(),
            server: publication.server.map(|server| server.to_string()),
            answered_at: age.map(|age| date(std::time::SystemTime::now() - age)),
            age_seconds: age.map(|age| age.as_secs_f64()),
            ttl_seconds: publication.ttl.map(|ttl| ttl.as_secs_f64()),
            ttl_left_seconds: publication
                .ttl
                .zip(age)
                .map(|(ttl, age)| ttl.saturating_sub(age).as_secs_f64()),
            next_query_in_seconds: publication
                .next_query
                .map(|at| at.saturating_duration_since(now).as_secs_f64()),
            stale: publication.stale_since.is_some(),
            stale_seconds: publication
                .stale_since
                .map(|since| now.saturating_duration_since(since).as_secs_f64()),
            endpoints: match &publication.offer {
                Offer::Endpoints(endpoints) => endpoints.len() as u64,
                Offer::Pending | Offer::Absent => 0,
            },
            unlisted: counts.unlisted as u64,
            held_back: publication.held.map(|hold| hold.to_string()),
            rotating: publication.rotating.map(|rotating| rotating.to_string()),
            detail: publication.detail.as_deref().map(str::to_owned),
            results: results
                .map(|(key, count)| Results {
                    qtype: key.qtype.to_owned(),
                    result: key.result.to_owned(),
                    count: *count,
                })
                .collect(),
            changes: DnsCounts {
                joined: counts.joined,
                left: counts.left,
                reweighted: counts.reweighted,
                held_back: counts.held_back,
                rejected: counts.rejected,
            },
            journal: self
                .watches
                .changes()
                .of(name)
                .iter()
                .map(|change| told(name, change))
                .collect(),
        }
    }
}

/// Names of the services that use it.
fn services(shared: &Shared, discover: &Discover) -> Vec<String> {
    let services = shared.config.services.iter();
    let using = services.filter(|service| service.discover == *discover);
    using.map(|service| service.name.to_string()).collect()
}

fn told(name: &str, change: &Change) -> DnsChange {
    let Change {
        number,
        at,
        answer,
        events,
        held,
    } = change;
    let mut told = DnsChange {
        number: *number,
        at: date(*at),
        name: name.to_owned(),
        server: None,
        rcode: None,
        nodata: false,
        ttl_seconds: None,
        transport: None,
        truncated: false,
        records: 0,
        glue: 0,
        joined: Vec::new(),
        left: Vec::new(),
        changed: Vec::new(),
        counts: ChangeCounts {
            joined: 0,
            left: 0,
            changed: 0,
        },
        held_back: held.map(|hold| hold.to_string()),
        notes: Vec::new(),
    };
    if let Some(answer) = answer {
        told.took(answer);
    }
    events.iter().for_each(|event| told.add(event));
    told
}

impl DnsChange {
    fn took(&mut self, answer: &Answered) {
        self.server = answer.server.map(|server| server.to_string());
        self.rcode = Some(answer.code.to_owned());
        self.nodata = answer.nodata;
        self.ttl_seconds = answer.ttl.map(|ttl| ttl.as_secs_f64());
        self.records = answer.records as u64;
        self.glue = answer.glue as u64;
        let Some(transport) = &answer.transport else {
            return;
        };
        let (word, truncated) = match transport {
            Transport::Udp => ("udp", false),
            Transport::Truncated => ("tcp", true),
            Transport::Whole => ("tcp", false),
            Transport::Cut { .. } => ("tcp", true),
            Transport::Unchecked(_) => ("unchecked", true),
        };
        self.transport = Some(word.to_owned());
        self.truncated = truncated;
    }

    fn add(&mut self, event: &Event) {
        let who =
            |endpoint: &Endpoint| (endpoint.target.to_string(), endpoint.socket().to_string());
        let place = |(priority, weight): &(u16, u16)| Place {
            priority: *priority,
            weight: *weight,
        };
        match event {
            Event::Joined {
                endpoint,
                priority,
                weight,
            } => {
                let (target, address) = who(endpoint);
                let (priority, weight) = (*priority, *weight);
                self.counts.joined += 1;
                self.joined.push(Joined {
                    target,
                    address,
                    priority,
                    weight,
                });
            }
            Event::Left { endpoint, why } => {
                let (target, address) = who(endpoint);
                let why = why.to_string();
                self.counts.left += 1;
                self.left.push(Left {
                    target,
                    address,
                    why,
                });
            }
            Event::Reweighted { endpoint, from, to } => {
                let (target, address) = who(endpoint);
                let (from, to) = (place(from), place(to));
                self.counts.changed += 1;
                self.changed.push(Moved {
                    target,
                    address,
                    from,
                    to,
                });
            }
            Event::Many {
                joined,
                left,
                reweighted,
            } => {
                self.counts.joined += *joined as u64;
                self.counts.left += *left as u64;
                self.counts.changed += *reweighted as u64;
            }
            other => self.notes.push(other.to_string()),
        }
    }
}
