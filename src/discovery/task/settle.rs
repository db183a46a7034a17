//! The second half of the loop: an answer and the addresses known by now become a publication,
//! and whatever is wrong with them goes to the journal.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::super::admission::is_local;
use super::super::answers::{SrvAnswer, SrvRecord, Target, Transport};
use super::super::changes::{Answered, Change};
use super::super::journal::Event;
use super::super::members::{Member, Shown};
use super::super::outcome::Outcome;
use super::super::policy::Answer;
use super::super::srv::{Assembled, Located, Rejected, assemble, declined};
use super::super::streak::Facts;
use super::super::watch::Publication;
use super::{Latest, Said, Task, host};
use crate::config::Discover;
use crate::discovery::Offer;

/// So long a failed connect counts against a backend when a guard asks how many still work: the
/// longest time for which a worker passes it over.
const FAILING_FOR: Duration = Duration::from_secs(10);

/// Troubles that are spelt out in a publication.
const MAX_SPELT_OUT: usize = 5;

impl Task {
    /// Lets the policy decide about the last answer with the addresses known by now.
    pub(super) fn settle(&mut self) {
        self.settle_at = None;
        let Some(mut latest) = self.latest.take() else {
            return;
        };
        let now = Instant::now();
        self.failing
            .retain(|_, since| now.duration_since(*since) < FAILING_FOR);
        let failing = self.failing.keys().copied().collect();
        let facts = Facts {
            now: latest.at,
            believed_for: latest.ttl.unwrap_or_default().min(self.lookup.max_ttl),
            repeated: latest.settled,
            failing: &failing,
        };
        let stale = self.error.is_some();
        let unlisted = match self.members(&latest.said) {
            Some(listed) => self.policy.lists(listed, facts),
            None => Vec::new(),
        };
        let (answer, assembled) = self.assemble(&latest.said, unlisted);
        let outcome = self.policy.answered(answer, facts);
        latest.settled = true;
        self.latest = Some(latest);
        self.record(outcome);
        self.troubled(assembled);
        if !stale {
            self.failures = match self.troubles.is_empty() {
                true => 0,
                false => self.failures.saturating_add(1),
            };
            self.next = self.after_answer(now);
        }
        self.publish();
    }

    /// Tells once that answers are cut, or may be.
    pub(super) fn carried(&mut self, answer: &SrvAnswer) {
        let before = match &self.latest {
            Some(Latest {
                said: Said::Srv(before),
                ..
            }) => &before.origin.transport,
            _ => &Transport::Udp,
        };
        let transport = &answer.origin.transport;
        let told = std::mem::discriminant(before) == std::mem::discriminant(transport);
        if !told && matches!(transport, Transport::Cut { .. } | Transport::Unchecked(_)) {
            let event = Event::Cut(transport.clone());
            self.tell(event);
        }
    }

    /// Whom the answer lists; `None`: it lists nobody, and says so.
    fn members(&self, said: &Said) -> Option<BTreeMap<Member, Shown>> {
        let mut members = BTreeMap::new();
        match said {
            Said::Nothing { .. } => return None,
            Said::Srv(answer) if declined(&answer.records) => return None,
            Said::Srv(answer) => {
                for record in &answer.records {
                    let Some(target) = host(record) else { continue };
                    let member = Member {
                        target: Arc::clone(target),
                        port: record.port,
                        address: None,
                    };
                    let shown = members
                        .entry(member)
                        .or_insert_with(|| Shown::Records(Vec::new()));
                    if let Shown::Records(records) = shown {
                        records.push(record.clone());
                    }
                }
            }
            Said::Addresses => {
                for located in self.located_here() {
                    let member = Member {
                        target: Arc::clone(&self.name),
                        port: self.port(),
                        address: Some(located.address),
                    };
                    members.insert(member, Shown::Address(located));
                }
            }
        }
        Some(members)
    }

    /// Puts together what the answer lists and what belongs to it besides.
    fn assemble(&self, said: &Said, unlisted: Vec<(Member, Shown)>) -> (Answer, Assembled) {
        let admission = Arc::clone(&self.admission.borrow());
        let admit = |endpoint, on_loopback| admission.judge(endpoint, on_loopback, &is_local);
        let max = self.lookup.max_endpoints;
        let family = self.lookup.family;
        match said {
            Said::Nothing { .. } => (Answer::Nothing, Assembled::default()),
            Said::Srv(answer) if declined(&answer.records) => {
                (Answer::Declined, Assembled::default())
            }
            Said::Srv(answer) => {
                let mut records = answer.records.clone();
                let hosts = answer.records.iter().filter_map(host);
                let remembered = unlisted.iter().map(|(member, _)| &member.target);
                let addresses = self.targets.located(hosts.chain(remembered), family);
                for (member, shown) in unlisted {
                    // One that has no address any more is gone, and does not wait for one.
                    if let (Shown::Records(shown), true) =
                        (shown, addresses.contains_key(&member.target))
                    {
                        records.extend(shown);
                    }
                }
                let assembled = assemble(&records, &addresses, &admit, max);
                (listed(&assembled), assembled)
            }
            Said::Addresses => {
                let mut located = self.located_here();
                located.extend(unlisted.into_iter().filter_map(|(_, shown)| match shown {
                    Shown::Address(located) => Some(located),
                    Shown::Records(_) => None,
                }));
                let addresses = [(Arc::clone(&self.name), located)].into();
                let record = SrvRecord {
                    priority: 0,
                    weight: 1,
                    port: self.port(),
                    target: Target::Host(Arc::clone(&self.name)),
                };
                let mut assembled = assemble(&[record], &addresses, &admit, max);
                for endpoint in &mut assembled.endpoints {
                    endpoint.split = 1;
                }
                (listed(&assembled), assembled)
            }
        }
    }

    /// Addresses of the name itself.
    fn located_here(&self) -> Vec<Located> {
        let here = [&self.name].into_iter();
        let located = self.targets.located(here, self.lookup.family);
        located.into_values().flatten().collect()
    }

    /// The port that goes with addresses of the name itself.
    fn port(&self) -> u16 {
        match &self.discover {
            Discover::Address { port, .. } => port.get(),
            _ => 0,
        }
    }

    /// Journals what is newly wrong with targets and records.
    fn troubled(&mut self, assembled: Assembled) {
        let mut troubles = BTreeMap::new();
        if let Some(Latest {
            said: Said::Srv(answer),
            ..
        }) = &self.latest
        {
            for target in answer.records.iter().filter_map(host) {
                if let Some(reason) = self.targets.trouble(target) {
                    troubles.insert(Arc::clone(target), reason.to_owned());
                }
            }
        }
        for (target, reason) in &troubles {
            if self.troubles.contains_key(target) {
                continue;
            }
            let (target, reason) = (Arc::clone(target), reason.clone());
            let event = if assembled.waiting.contains(&target) {
                Event::Waiting { target, reason }
            } else {
                Event::Kept { target, reason }
            };
            self.tell(event);
        }
        self.troubles = troubles;
        self.rejects(assembled.rejected);
    }

    /// Journals what is newly refused.
    pub(super) fn rejects(&mut self, rejected: Vec<Rejected>) {
        let rejected: BTreeSet<_> = rejected.into_iter().collect();
        let new: Vec<_> = rejected.difference(&self.rejected).cloned().collect();
        let stats = &self.shared.stats;
        stats.update(&self.name, |n| n.rejected += new.len() as u64);
        for Rejected { record, reason } in new.into_iter().take(MAX_SPELT_OUT) {
            let event = Event::Rejected { record, reason };
            self.tell(event);
        }
        self.rejected = rejected;
    }

    pub(super) fn record(&mut self, outcome: Outcome) {
        self.shared.stats.update(&self.name, |n| {
            n.joined += outcome.joined as u64;
            n.left += outcome.left as u64;
            n.reweighted += outcome.reweighted as u64;
            let held = |event: &&Event| matches!(event, Event::HeldBack { .. });
            n.held_back += outcome.events.iter().filter(held).count() as u64;
        });
        for event in outcome.events {
            self.tell(event);
        }
    }

    /// Journals it; the next publication says by which answer it came.
    pub(super) fn tell(&mut self, event: Event) {
        let number = self.shared.journal.record(&self.name, event.clone());
        self.told_from.get_or_insert(number);
        self.told.push(event);
    }

    /// Remembers what was journaled since the last publication as the change of one answer.
    fn told(&mut self) {
        let Some(number) = self.told_from.take() else {
            return;
        };
        let change = Change {
            number,
            at: SystemTime::now(),
            answer: match (&self.error, &self.latest) {
                (None, Some(latest)) => Some(self.answered(latest)),
                // Nobody answered, or not since the start.
                _ => None,
            },
            events: std::mem::take(&mut self.told),
            held: self.policy.hold(),
        };
        self.shared.changes.push(&self.name, change);
    }

    fn answered(&self, latest: &Latest) -> Answered {
        let (code, nodata) = match latest.said {
            Said::Nothing { name_exists: false } => ("NXDOMAIN", false),
            Said::Nothing { name_exists: true } => ("NOERROR", true),
            Said::Srv(_) | Said::Addresses => ("NOERROR", false),
        };
        let (transport, records, glue) = match &latest.said {
            Said::Srv(answer) => {
                let transport = answer.origin.transport.clone();
                (Some(transport), answer.records.len(), answer.glue.len())
            }
            Said::Addresses => (None, self.located_here().len(), 0),
            Said::Nothing { .. } => (None, 0, 0),
        };
        Answered {
            server: latest.server,
            code,
            nodata,
            ttl: latest.ttl,
            transport,
            records,
            glue,
        }
    }

    pub(super) fn publish(&mut self) {
        self.told();
        let new = Publication {
            offer: self.policy.offer(),
            stale_since: self.policy.stale_since(),
            last_success: self.policy.last_success(),
            next_query: Some(self.next),
            ttl: self.latest.as_ref().and_then(|latest| latest.ttl),
            server: self.latest.as_ref().and_then(|latest| latest.server),
            held: self.policy.hold(),
            rotating: self.policy.rotating(),
            detail: self.detail(),
        };
        self.shared.stats.update(&self.name, |n| {
            n.stale = new.stale_since.is_some();
            n.rotates = new.rotating.is_some();
            n.unlisted = self.policy.unlisted();
            n.endpoints = match &new.offer {
                Offer::Endpoints(endpoints) => endpoints.len(),
                _ => 0,
            };
        });
        self.keep(&new.offer);
        self.publisher.send_if_modified(|old| {
            // A later time alone is no news.
            let news = old.offer != new.offer
                || old.stale_since != new.stale_since
                || old.last_success.is_some() != new.last_success.is_some()
                || old.held != new.held
                || old.rotating != new.rotating
                || old.detail != new.detail;
            *old = new;
            news
        });
    }

    fn detail(&self) -> Option<Arc<str>> {
        let troubles = self.troubles.iter();
        let troubles = troubles.map(|(target, reason)| format!("target {target}: {reason}"));
        let rejected = self.rejected.iter();
        let rejected = rejected.map(|r| format!("record `{}` rejected: {}", r.record, r.reason));
        let held = self.policy.hold().map(|hold| hold.to_string());
        let rotating = self.policy.rotating().map(|rotating| rotating.to_string());
        let all = self.error.iter().cloned().chain(self.restored_detail());
        let all = all.chain(held).chain(rotating);
        let mut all: Vec<_> = all.chain(troubles).chain(rejected).collect();
        if all.len() > MAX_SPELT_OUT {
            let more = all.len() - MAX_SPELT_OUT;
            all.truncate(MAX_SPELT_OUT);
            all.push(format!("and {more} more"));
        }
        (!all.is_empty()).then(|| all.join("; ").into())
    }
}

fn listed(assembled: &Assembled) -> Answer {
    Answer::Endpoints {
        set: assembled.endpoints.clone(),
        waiting: !assembled.waiting.is_empty(),
    }
}
