//! Members of a set that no single answer lists, and how long each was missed.
//!
//! Pure; `rotation.rs` decides when it counts, and `policy.rs` what becomes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::Endpoint;
use super::answers::SrvRecord;
use super::srv::Located;

/// The probability with which one that is there may be taken for gone.
const ODDS: f64 = 1e-6;

/// Answers for which a member is missed at least: as many as it takes for NXDOMAIN.
const MIN_MISSES: u32 = 3;

/// Answers for which a member may be missed at most. With more than some 70 times as many as an
/// answer shows, [`ODDS`] is not kept; with a second between answers it is a quarter of an hour.
const MAX_MISSES: u32 = 1000;

/// Who is listed: a target and a port, or one address where the name has addresses itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// Target of SRV records, or the name itself.
    pub target: Arc<str>,
    /// Port.
    pub port: u16,
    /// Where the answer lists addresses.
    pub address: Option<IpAddr>,
}

/// What an answer said of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// Its records; nearly always one.
    Records(Vec<SrvRecord>),
    /// It is an address.
    Address(Located),
}

/// Who was listed lately, and who of them was listed last.
#[derive(Debug, Default)]
pub(super) struct Members {
    seen: BTreeMap<Member, Entry>,
    /// The answer before.
    last: BTreeSet<Member>,
}

#[derive(Debug)]
struct Entry {
    shown: Shown,
    /// Answers in a row that did not list it.
    misses: u32,
    /// It was gone before, and came back.
    returned: bool,
    /// Addresses to which connects failed since it was listed.
    unreachable: BTreeSet<IpAddr>,
}

impl Members {
    /// Members of the last answer.
    pub(super) fn last(&self) -> &BTreeSet<Member> {
        &self.last
    }

    /// How many there are, listed or not.
    pub(super) fn len(&self) -> usize {
        self.seen.len()
    }

    /// Answers in a row that lacked it; `None`: it is not known.
    #[cfg(test)]
    pub(super) fn misses(&self, member: &Member) -> Option<u32> {
        self.seen.get(member).map(|entry| entry.misses)
    }

    /// All that the last answer did not list, and what was last said of them.
    pub(super) fn unlisted(&self) -> impl Iterator<Item = (&Member, &Shown)> {
        let seen = self.seen.iter();
        seen.filter(|(member, _)| !self.last.contains(member))
            .map(|(member, entry)| (member, &entry.shown))
    }

    /// Is it known without being listed?
    pub(super) fn remember(&self, endpoint: &Endpoint) -> bool {
        let known = self.known_as(endpoint);
        known.is_some_and(|member| !self.last.contains(&member))
    }

    /// Is it to be left out although its member is known?
    pub(super) fn is_unreachable(&self, endpoint: &Endpoint) -> bool {
        let entry = self.known_as(endpoint).and_then(|m| self.seen.get(&m));
        entry.is_some_and(|entry| entry.unreachable.contains(&endpoint.address))
    }

    /// A connect to somebody who is not listed failed. It is left out until it is listed again;
    /// with `alone`, there are no other endpoints of that member.
    pub(super) fn unreachable(&mut self, endpoint: &Endpoint, alone: bool) {
        let Some(member) = self.known_as(endpoint) else {
            return;
        };
        if self.last.contains(&member) {
            return;
        }
        if alone {
            self.seen.remove(&member);
        } else if let Some(entry) = self.seen.get_mut(&member) {
            entry.unreachable.insert(endpoint.address);
        }
    }

    /// Takes up whom an answer lists; those it lacks are missed once more if it `counts`.
    pub(super) fn list(&mut self, listed: BTreeMap<Member, Shown>, counts: bool) {
        self.last = listed.keys().cloned().collect();
        for (member, shown) in listed {
            let before = self.seen.get(&member);
            let entry = Entry {
                shown,
                misses: 0,
                returned: before.is_some_and(|before| before.returned),
                unreachable: BTreeSet::new(),
            };
            self.seen.insert(member, entry);
        }
        if counts {
            let lacking = self.seen.iter_mut();
            for (_, entry) in lacking.filter(|(member, _)| !self.last.contains(member)) {
                entry.misses = entry.misses.saturating_add(1);
            }
        }
    }

    /// Does `answer` lack somebody of the last one who was gone before?
    pub(super) fn relapse(&self, answer: &BTreeSet<Member>) -> bool {
        let mut gone = self.last.difference(answer);
        gone.any(|member| self.seen.get(member).is_some_and(|entry| entry.returned))
    }

    /// Remembers whom of `answer` the last one lacked, and whether there is anybody.
    pub(super) fn mark_returns(&mut self, answer: &BTreeSet<Member>) -> bool {
        let mut any = false;
        for member in answer {
            if let Some(entry) = self.seen.get_mut(member).filter(|entry| entry.misses > 0) {
                entry.returned = true;
                any = true;
            }
        }
        any
    }

    /// Whoever came back was never gone.
    pub(super) fn forget_returns(&mut self) {
        self.seen
            .values_mut()
            .for_each(|entry| entry.returned = false);
    }

    /// Forgets whoever is neither listed nor to be kept, by the misses so far.
    pub(super) fn retain(&mut self, keep: impl Fn(&Member, u32) -> bool) {
        let last = &self.last;
        self.seen
            .retain(|member, entry| last.contains(member) || keep(member, entry.misses));
    }

    /// Takes out those who were missed `misses` times, and the most missed of more than `limit`.
    pub(super) fn evict(&mut self, misses: u32, limit: usize) -> BTreeMap<Member, u32> {
        let excess = self.seen.len().saturating_sub(limit);
        let mut most = misses;
        if excess > 0 {
            let mut all: Vec<_> = self.seen.values().map(|entry| entry.misses).collect();
            all.sort_unstable_by(|a, b| b.cmp(a));
            most = most.min(all[excess - 1].max(1));
        }
        let gone = self.seen.extract_if(.., |_, entry| entry.misses >= most);
        gone.map(|(member, entry)| (member, entry.misses)).collect()
    }

    fn known_as(&self, endpoint: &Endpoint) -> Option<Member> {
        let mut candidates = Member::candidates(endpoint).into_iter();
        candidates.find(|member| self.seen.contains_key(member))
    }
}

impl Member {
    /// What an endpoint may be listed as.
    pub(super) fn candidates(endpoint: &Endpoint) -> [Member; 2] {
        [None, Some(endpoint.address)].map(|address| Member {
            target: Arc::clone(&endpoint.target),
            port: endpoint.port,
            address,
        })
    }
}

/// The answers in a row that one member of `known`, of which each shows `shown`, is missing from
/// with a probability of at most 10^-6.
pub fn misses(shown: usize, known: usize) -> u32 {
    misses_at(ODDS, shown, known)
}

fn misses_at(odds: f64, shown: usize, known: usize) -> u32 {
    if shown >= known {
        return MIN_MISSES;
    }
    let missing = 1.0 - shown as f64 / known as f64;
    // Infinite when nobody is shown, which the cast and the bound take care of.
    let misses = (odds.ln() / missing.ln()).ceil().abs();
    (misses as u32).clamp(MIN_MISSES, MAX_MISSES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misses_by_the_size_of_answers_and_of_the_set() {
        for (shown, known, expected) in [
            (1, 2, 20),
            (2, 3, 13),
            (3, 4, 10),
            (3, 6, 20),
            (3, 20, 86),
            (8, 9, 7),
            (8, 40, 62),
            (79, 80, 4),
            (3, 4000, MAX_MISSES),
            (0, 5, MAX_MISSES),
            (5, 5, MIN_MISSES),
            (5, 3, MIN_MISSES),
        ] {
            assert_eq!(misses(shown, known), expected, "{shown} of {known}");
            if shown < known && expected < MAX_MISSES {
                let chance = |m: u32| (1.0 - shown as f64 / known as f64).powf(f64::from(m));
                assert!(chance(expected) <= ODDS && chance(expected - 1) > ODDS);
            }
        }
    }

    /// The formula, where chance can be measured: at one in a thousand.
    #[test]
    fn the_share_of_absences_taken_for_the_end() {
        const ODDS: f64 = 1e-3;
        for (k, n) in [(1, 2), (2, 3), (3, 20), (8, 9), (8, 40)] {
            let needed = misses_at(ODDS, k, n);
            let mut rng = fastrand::Rng::with_seed(1);
            let mut missed = vec![0; n];
            let (mut absences, mut taken) = (0u32, 0u32);
            while absences < 100_000 {
                for missed in &mut missed {
                    *missed += 1;
                }
                for shown in rng.choose_multiple(0..n, k) {
                    // An absence is over; it was as long as it had misses before this answer.
                    absences += 1;
                    taken += u32::from(missed[shown] > needed);
                    missed[shown] = 0;
                }
            }
            let share = f64::from(taken) / f64::from(absences);
            // Three standard deviations of 100 in 100,000.
            assert!(share <= ODDS * 1.3, "{k} of {n}: {share}");
        }
    }

    #[test]
    fn the_most_missed_of_too_many_go() {
        let mut members = Members::default();
        for n in 0..10 {
            let member = Member {
                target: format!("b{n}").into(),
                port: 80,
                address: None,
            };
            members.list([(member, Shown::Records(Vec::new()))].into(), true);
        }
        let gone = members.evict(100, 7);
        let names: Vec<_> = gone.keys().map(|member| &*member.target).collect();
        assert_eq!(names, ["b0", "b1", "b2"]);
        assert_eq!(members.evict(100, 7).len(), 0);
    }
}
