//! What happened to the names that are watched, and why: a bounded ring, and one log line each.
//!
//! Written by the discovery tasks, which tell the journal of the process too. It never decides
//! anything.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::Endpoint;
use super::answers::Transport;
use super::rotation::{Ended, Rotating, Turn};
use crate::events::journal::{self, Kind, Severity, What};

/// Entries that are kept; at some 200 bytes each a quarter of a megabyte at most.
pub const CAPACITY: usize = 1024;

/// The ring.
#[derive(Debug, Default)]
pub struct Journal {
    /// Held to push one entry or to copy some; never across an await.
    ring: Mutex<Ring>,
    /// The journal of the whole process, which is told too.
    process: Arc<journal::Journal>,
}

#[derive(Debug, Default)]
struct Ring {
    next: u64,
    entries: VecDeque<Entry>,
}

/// One thing that happened.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Counts up from 0 without gaps, so that a reader knows what it missed.
    pub number: u64,
    /// When.
    pub at: SystemTime,
    /// To which watched name.
    pub name: Arc<str>,
    /// What.
    pub event: Event,
}

/// What can happen to a watched name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An endpoint is offered from now on.
    Joined {
        /// Who.
        endpoint: Endpoint,
        /// Its tier.
        priority: u16,
        /// Its weight in it.
        weight: u16,
    },
    /// An endpoint is no longer offered.
    Left {
        /// Who.
        endpoint: Endpoint,
        /// Why.
        why: Why,
    },
    /// The place of an endpoint changed; it keeps its state.
    Reweighted {
        /// Who.
        endpoint: Endpoint,
        /// Priority and weight before.
        from: (u16, u16),
        /// Priority and weight now.
        to: (u16, u16),
    },
    /// Changes of one answer that are too many to list; the kinds that are not are events of
    /// their own.
    Many {
        /// Endpoints that joined.
        joined: usize,
        /// Endpoints that left.
        left: usize,
        /// Endpoints of which weight or priority changed.
        reweighted: usize,
    },
    /// Removals that an answer asks for wait for its confirmation.
    HeldBack {
        /// How many endpoints stay for now.
        endpoints: usize,
        /// Why they do.
        hold: Hold,
    },
    /// A record is not used.
    Rejected {
        /// The record, as `priority weight port target` or `target address`.
        record: String,
        /// Why.
        reason: String,
    },
    /// A target has no address yet; the others are offered without it.
    Waiting {
        /// The target.
        target: Arc<str>,
        /// Why.
        reason: String,
    },
    /// Answers show a part of a larger set, another one each time, from now on.
    Rotates(Rotating),
    /// They no longer do.
    RotationEnded(Ended),
    /// Answers over UDP are cut without saying so, or may be.
    Cut(Transport),
    /// A target's addresses cannot be looked up; those of before stay.
    Kept {
        /// The target.
        target: Arc<str>,
        /// Why.
        reason: String,
    },
    /// What was stored before this process began is offered until a server answers.
    Restored {
        /// How many endpoints were stored.
        endpoints: usize,
        /// Since a server gave it, at the start.
        age: Duration,
    },
    /// No server answers; the last good set stays.
    Stale {
        /// What went wrong.
        error: String,
    },
    /// A server answers again.
    Recovered {
        /// After so long.
        after: Duration,
    },
    /// Nobody is there any more, or nobody was there to begin with.
    Absent {
        /// Why this is believed.
        why: Why,
    },
}

/// Why an endpoint left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The answer does not list it (or its target has another address now).
    Unlisted,
    /// NXDOMAIN or NODATA, believed.
    Nonexistent,
    /// The target `.`: the service is decidedly not offered (RFC 2782).
    Declined,
    /// It was offered although the last answer does not list it, and a connect to it failed.
    UnlistedAndUnreachable(SocketAddr),
    /// Answers rotate, and so many in a row did not list it.
    Missed(u32),
    /// The answer has records, and none of them can be used.
    Unusable,
}

/// Why removals are held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// NXDOMAIN or NODATA, seen so many times of so many that are needed.
    Absent {
        /// New answers of that kind in a row.
        seen: u8,
        /// Needed to believe it.
        needed: u8,
    },
    /// More than half of the working backends would go.
    Shrink {
        /// New answers of that kind in a row.
        seen: u8,
        /// Needed to believe it.
        needed: u8,
    },
    /// Answers differ each time, and may be parts of a larger set.
    Doubt,
    /// The answer names only targets that have no address yet.
    Unresolved,
}

impl Journal {
    /// An empty one beside the journal of the process.
    pub fn beside(process: Arc<journal::Journal>) -> Journal {
        Journal {
            ring: Mutex::default(),
            process,
        }
    }

    /// Remembers `event` and logs it once. Gives its number in the journal of the process.
    pub fn record(&self, name: &Arc<str>, event: Event) -> u64 {
        event.log(name);
        let process = self.process.record(What {
            name: Some(Arc::clone(name)),
            ..What::new(event.kind(), event.to_string())
        });
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        if ring.entries.len() == CAPACITY {
            ring.entries.pop_front();
        }
        let number = ring.next;
        ring.next += 1;
        ring.entries.push_back(Entry {
            number,
            at: SystemTime::now(),
            name: Arc::clone(name),
            event,
        });
        process
    }

    /// Entries from `number` on that are still kept, oldest first.
    pub fn since(&self, number: u64) -> Vec<Entry> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let entries = ring.entries.iter();
        entries.filter(|e| e.number >= number).cloned().collect()
    }
}

impl From<Turn> for Event {
    fn from(turn: Turn) -> Event {
        match turn {
            Turn::Rotates(rotating) => Event::Rotates(rotating),
            Turn::Ended(ended) => Event::RotationEnded(ended),
        }
    }
}

impl Event {
    /// A change is info, something that somebody should look at is a warning.
    fn log(&self, name: &Arc<str>) {
        match self.kind().severity() {
            Severity::Info => tracing::info!(%name, "dns: {self}"),
            Severity::Warning => tracing::warn!(%name, "dns: {self}"),
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Event::Joined { .. } => Kind::DnsJoined,
            Event::Left { .. } => Kind::DnsLeft,
            Event::Reweighted { .. } => Kind::DnsReweighted,
            Event::Many { .. } => Kind::DnsMany,
            Event::HeldBack { .. } => Kind::DnsHeldBack,
            Event::Rejected { .. } => Kind::DnsRejected,
            Event::Waiting { .. } => Kind::DnsWaiting,
            Event::Kept { .. } => Kind::DnsKept,
            Event::Rotates(_) => Kind::DnsRotates,
            Event::RotationEnded(_) => Kind::DnsRotationEnded,
            Event::Cut(_) => Kind::DnsCut,
            Event::Restored { .. } => Kind::DnsRestored,
            Event::Stale { .. } => Kind::DnsStale,
            Event::Recovered { .. } => Kind::DnsRecovered,
            Event::Absent { .. } => Kind::DnsAbsent,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Joined {
                endpoint,
                priority,
                weight,
            } => write!(f, "{endpoint} joined, priority {priority} weight {weight}"),
            Event::Left { endpoint, why } => write!(f, "{endpoint} left: {why}"),
            Event::Reweighted { endpoint, from, to } => write!(
                f,
                "{endpoint} changed from priority {} weight {} to priority {} weight {}",
                from.0, from.1, to.0, to.1
            ),
            Event::Many {
                joined,
                left,
                reweighted,
            } => write!(
                f,
                "many endpoints at once: {joined} joined, {left} left, {reweighted} changed weight or priority"
            ),
            Event::HeldBack { endpoints, hold } => {
                write!(f, "{endpoints} endpoints stay for now: {hold}")
            }
            Event::Rotates(rotating) => write!(f, "{rotating}"),
            Event::Cut(transport) => write!(f, "{transport}"),
            Event::RotationEnded(ended) => write!(f, "answers no longer rotate: {ended}"),
            Event::Rejected { record, reason } => write!(f, "record `{record}` rejected: {reason}"),
            Event::Waiting { target, reason } => {
                write!(f, "target {target} waits for an address: {reason}")
            }
            Event::Kept { target, reason } => {
                write!(f, "target {target} keeps its last addresses: {reason}")
            }
            Event::Stale { error } => write!(f, "no answer, what is known stays: {error}"),
            Event::Restored { endpoints, age } => {
                let age = humantime::format_duration(*age);
                write!(
                    f,
                    "{endpoints} endpoints from disk, as of {age} ago, until a server answers"
                )
            }
            Event::Recovered { after } => write!(f, "answered again after {after:.1?}"),
            Event::Absent { why } => write!(f, "nobody is there: {why}"),
        }
    }
}

impl fmt::Display for Endpoint {
    /// `target (address:port)`, or the socket address alone when the target is the address.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let socket = self.socket();
        if *self.target == *self.address.to_string() {
            write!(f, "{socket}")
        } else {
            write!(f, "{} ({socket})", self.target)
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Unlisted => f.write_str("the answer does not list it"),
            Why::Nonexistent => f.write_str("the name has no such records (NXDOMAIN or NODATA)"),
            Why::Declined => f.write_str("the target `.` says that the service is not offered"),
            Why::UnlistedAndUnreachable(address) => {
                write!(
                    f,
                    "the last answer does not list it, and a connect to {address} failed"
                )
            }
            Why::Missed(answers) => write!(f, "{answers} answers in a row did not list it"),
            Why::Unusable => f.write_str("no record of the answer can be used"),
        }
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Hold::Absent { seen, needed } => {
                write!(
                    f,
                    "NXDOMAIN or NODATA, believed after {needed} in a row, this is number {seen}"
                )
            }
            Hold::Shrink { seen, needed } => write!(
                f,
                "more than half of the working backends would go, believed after {needed} in a row, this is number {seen}"
            ),
            Hold::Doubt => f.write_str(
                "answers differ each time, and may be parts of a larger set: they are believed when two agree",
            ),
            Hold::Unresolved => {
                f.write_str("the answer names only targets that have no address yet")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_is_bounded_and_says_what_was_missed() {
        let journal = Journal::default();
        let name: Arc<str> = "a".into();
        for _ in 0..CAPACITY + 10 {
            journal.record(
                &name,
                Event::Recovered {
                    after: Duration::from_secs(1),
                },
            );
        }
        let all = journal.since(0);
        assert_eq!(all.len(), CAPACITY);
        assert_eq!(all[0].number, 10);
        assert_eq!(journal.since(CAPACITY as u64 + 8).len(), 2);
    }

    #[test]
    fn an_endpoint_that_is_only_an_address_is_written_once() {
        let address = "10.0.0.7".parse().unwrap();
        let endpoint = |target: &str| Endpoint {
            target: target.into(),
            address,
            port: 80,
        };
        assert_eq!(endpoint("10.0.0.7").to_string(), "10.0.0.7:80");
        assert_eq!(endpoint("web-1").to_string(), "web-1 (10.0.0.7:80)");
    }
}
