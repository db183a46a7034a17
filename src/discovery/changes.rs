//! The last changes of each watched name: what an answer was, and what came of it.
//!
//! Written by the discovery tasks, read by the control listener. A name goes when its last
//! subscription does.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::answers::Transport;
use super::journal::{Event, Hold};

/// Changes that are kept of one name.
pub const KEPT: usize = 32;

/// Events of one name that are kept, all changes together; at some 150 bytes each.
const EVENTS: usize = 256;

/// All names.
#[derive(Debug, Default)]
pub struct Changes {
    /// Oldest first. Held to push one or to copy some, never across an await.
    names: Mutex<BTreeMap<Arc<str>, VecDeque<Change>>>,
}

/// What one answer changed, or its absence.
#[derive(Debug, Clone)]
pub struct Change {
    /// Number of its first event in the journal of this process.
    pub number: u64,
    /// When.
    pub at: SystemTime,
    /// What was answered; `None`: nobody did.
    pub answer: Option<Answered>,
    /// What came of it; never empty.
    pub events: Vec<Event>,
    /// Why the offer still has endpoints that the answer does not list.
    pub held: Option<Hold>,
}

/// An answer, in short.
#[derive(Debug, Clone)]
pub struct Answered {
    /// Who gave it; `None`: it was stored before this process began.
    pub server: Option<SocketAddr>,
    /// `NOERROR` or `NXDOMAIN`.
    pub code: &'static str,
    /// The name is there, and has no such records.
    pub nodata: bool,
    /// As it was sent.
    pub ttl: Option<Duration>,
    /// How it came, where that is known.
    pub transport: Option<Transport>,
    /// Records, or addresses, in it.
    pub records: usize,
    /// Targets of which addresses came along.
    pub glue: usize,
}

impl Changes {
    pub(super) fn push(&self, name: &Arc<str>, change: Change) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = names.entry(Arc::clone(name)).or_default();
        kept.push_back(change);
        let events = |kept: &VecDeque<Change>| kept.iter().map(|c| c.events.len()).sum::<usize>();
        while kept.len() > KEPT || (kept.len() > 1 && events(kept) > EVENTS) {
            kept.pop_front();
        }
    }

    /// Those of one name, newest first.
    pub fn of(&self, name: &str) -> Vec<Change> {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = names.get(name);
        kept.map_or_else(Vec::new, |kept| kept.iter().rev().cloned().collect())
    }

    pub(super) fn forget(&self, name: &str) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(number: u64, events: usize) -> Change {
        let event = Event::Recovered {
            after: Duration::from_secs(1),
        };
        Change {
            number,
            at: SystemTime::now(),
            answer: None,
            events: vec![event; events],
            held: None,
        }
    }

    #[test]
    fn so_many_are_kept_and_so_many_events_and_the_newest_always() {
        let changes = Changes::default();
        let name: Arc<str> = "a".into();
        let numbers = || changes.of("a").iter().map(|c| c.number).collect::<Vec<_>>();
        for number in 0..KEPT as u64 + 2 {
            changes.push(&name, change(number, 1));
        }
        assert_eq!(numbers().len(), KEPT);
        assert_eq!(numbers()[..2], [KEPT as u64 + 1, KEPT as u64]);
        changes.push(&name, change(90, EVENTS - 1));
        assert_eq!(numbers(), [90, KEPT as u64 + 1]);
        changes.push(&name, change(91, EVENTS + 1));
        assert_eq!(numbers(), [91]);
        changes.forget("a");
        assert!(numbers().is_empty());
    }
}
