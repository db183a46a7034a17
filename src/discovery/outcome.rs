//! What came of an answer, for the journal and the counters. Filled by `policy.rs`.

use super::Endpoint;
use super::journal::{Event, Why};

/// More changes of one kind in one answer than this are one event: a cluster that derives each
/// weight from the number of its members changes all of them whenever one joins.
const SINGLE_EVENTS: usize = 16;

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome {
    /// For the journal.
    pub events: Vec<Event>,
    /// Endpoints that joined, left, and changed their place.
    pub joined: usize,
    /// See `joined`.
    pub left: usize,
    /// See `joined`.
    pub reweighted: usize,
}

impl Outcome {
    pub(super) fn joined(&mut self, endpoint: Endpoint, (priority, weight): (u16, u16)) {
        self.joined += 1;
        self.events.push(Event::Joined {
            endpoint,
            priority,
            weight,
        });
    }

    pub(super) fn left(&mut self, endpoint: Endpoint, why: Why) {
        self.left += 1;
        self.events.push(Event::Left { endpoint, why });
    }

    pub(super) fn reweighted(&mut self, endpoint: Endpoint, from: (u16, u16), to: (u16, u16)) {
        self.reweighted += 1;
        self.events.push(Event::Reweighted { endpoint, from, to });
    }

    /// Many events of one kind become one.
    pub(super) fn summarise(&mut self) {
        let (joined, left, reweighted) = (
            self.joined > SINGLE_EVENTS,
            self.left > SINGLE_EVENTS,
            self.reweighted > SINGLE_EVENTS,
        );
        if !(joined || left || reweighted) {
            return;
        }
        self.events.retain(|event| match event {
            Event::Joined { .. } => !joined,
            Event::Left { .. } => !left,
            Event::Reweighted { .. } => !reweighted,
            _ => true,
        });
        self.events.push(Event::Many {
            joined: if joined { self.joined } else { 0 },
            left: if left { self.left } else { 0 },
            reweighted: if reweighted { self.reweighted } else { 0 },
        });
    }
}
