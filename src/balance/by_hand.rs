//! What somebody set by hand: backends that are drained, and weights that override their records'.
//!
//! It belongs to endpoints, not to backends or records, so it outlives changes of the records until
//! it is taken back. Of an endpoint that is no longer listed it is kept for `KEPT`: whoever comes
//! to that address after hours is somebody else. Bounded by `MOST`. Pure; owned by `service.rs`.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::Millis;
use crate::discovery::Endpoint;
pub use crate::events::command::{Change, Refused};

/// What is set of one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ByHand {
    /// It gets no new request, but those that a cookie leads to it.
    pub drained: bool,
    /// The schedule goes by this weight instead of the record's.
    pub weight: Option<u16>,
}

/// All that is set of a service's endpoints; those of which nothing is set are not in it.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    entries: BTreeMap<Endpoint, Entry>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    set: ByHand,
    /// When it was last listed; counts while it is not.
    seen: Millis,
}

impl ByHand {
    fn with(mut self, change: Change) -> ByHand {
        match change {
            Change::Drain => self.drained = true,
            Change::Undrain => self.drained = false,
            Change::Weigh(weight) => self.weight = weight,
        }
        self
    }
}

impl Settings {
    /// What is set of `endpoint`.
    pub fn of(&self, endpoint: &Endpoint) -> ByHand {
        let entry = self.entries.get(endpoint);
        entry.map_or_else(ByHand::default, |entry| entry.set)
    }

    /// Makes a change. `None`: too much is set already.
    pub(super) fn change(
        &mut self,
        endpoint: &Endpoint,
        change: Change,
        now: Millis,
    ) -> Option<ByHand> {
        let set = self.of(endpoint).with(change);
        if set == ByHand::default() {
            self.entries.remove(endpoint);
            return Some(set);
        }
        if self.entries.len() >= MOST && !self.entries.contains_key(endpoint) {
            return None;
        }
        let entry = Entry { set, seen: now };
        self.entries.insert(endpoint.clone(), entry);
        Some(set)
    }

    /// Forgets those that have not been listed for long.
    pub(super) fn forget(&mut self, now: Millis, listed: impl Fn(&Endpoint) -> bool) {
        self.entries.retain(|endpoint, entry| {
            if listed(endpoint) {
                entry.seen = now;
            }
            now.since(entry.seen) < KEPT
        });
    }
}

/// So long it is kept of an endpoint that is not listed: a machine may be repaired meanwhile.
const KEPT: Duration = Duration::from_secs(3600);

/// So many endpoints of a service may have something set: as many as a name may have by default.
const MOST: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::testing::endpoint;

    #[test]
    fn what_is_set_adds_up_and_is_gone_when_all_of_it_is_taken_back() {
        let mut settings = Settings::default();
        let set =
            |settings: &mut Settings, change| settings.change(&endpoint(1), change, Millis(1));
        let by_hand = |drained, weight| Some(ByHand { drained, weight });
        assert_eq!(set(&mut settings, Change::Drain), by_hand(true, None));
        assert_eq!(
            set(&mut settings, Change::Weigh(Some(0))),
            by_hand(true, Some(0))
        );
        assert_eq!(set(&mut settings, Change::Undrain), by_hand(false, Some(0)));
        assert_eq!(
            set(&mut settings, Change::Weigh(None)),
            by_hand(false, None)
        );
        assert!(settings.entries.is_empty());
    }

    #[test]
    fn it_outlives_an_absence_that_is_not_long() {
        let mut settings = Settings::default();
        settings.change(&endpoint(1), Change::Drain, Millis(1));
        let hour = KEPT.as_millis() as u64;
        settings.forget(Millis(5 * hour), |_| true);
        settings.forget(Millis(6 * hour - 1), |_| false);
        assert!(settings.of(&endpoint(1)).drained);
        settings.forget(Millis(6 * hour), |_| false);
        assert!(!settings.of(&endpoint(1)).drained);
    }

    #[test]
    fn there_is_a_bound_and_those_within_it_can_still_be_changed() {
        let mut settings = Settings::default();
        for n in 0..MOST as u32 {
            assert!(
                settings
                    .change(&endpoint(n), Change::Drain, Millis(1))
                    .is_some()
            );
        }
        let one_more = endpoint(MOST as u32);
        assert_eq!(settings.change(&one_more, Change::Drain, Millis(1)), None);
        let weigh = Change::Weigh(Some(3));
        assert!(settings.change(&endpoint(0), weigh, Millis(1)).is_some());
    }
}
