//! Answers of one kind in a row, and when one counts as another answer. Pure; for `policy.rs`.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

/// What the decision needs to know besides the answer.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// When the answer came.
    pub now: Instant,
    /// How long it may be believed: its TTL or negative TTL.
    pub believed_for: Duration,
    /// It was given to the policy before; only addresses or health differ. Confirms nothing.
    pub repeated: bool,
    /// Endpoints to which connects fail. The others count as working.
    pub failing: &'a HashSet<SocketAddr>,
}

/// Answers of one kind in a row. One counts only when it is new: when the time for which the one
/// before may be believed has run out. Otherwise a cache may have given the same answer again.
#[derive(Debug, Default)]
pub(super) struct Streak {
    seen: u8,
    pub(super) next_from: Option<Instant>,
}

impl Streak {
    /// Counts an answer if it is new; how many there are by now.
    pub(super) fn count(&mut self, facts: Facts<'_>) -> u8 {
        let new = |from| !facts.repeated && facts.now >= from;
        if self.next_from.is_none_or(new) {
            self.seen = self.seen.saturating_add(1);
            self.next_from = Some(facts.now + facts.believed_for);
        }
        self.seen
    }
}
