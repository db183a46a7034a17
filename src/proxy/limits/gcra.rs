//! How many requests somebody may make: the generic cell rate algorithm. Pure.
//!
//! A token bucket that needs one number: the time at which the next request would be due if all that
//! were made so far had come at the agreed rate (the theoretical arrival time). Each request moves it
//! on by one interval; a request may come as much before it as the burst allows. Within any time t,
//! at most burst + t / interval requests pass, and whoever keeps to the interval is never refused.
//!
//! ITU-T I.371, annex A, in its form as virtual scheduling. O(1), no clock of its own.

use std::num::NonZeroU64;
use std::time::Duration;

use crate::clock::Nanos;
use crate::config::RateLimit;

/// A rate and a burst.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gcra {
    /// Between two requests, in nanoseconds. Cut down to whole ones, in the client's favour.
    interval: u64,
    /// How much before it is due a request may come, in nanoseconds.
    tolerance: u64,
}

/// When the next request of somebody is due. [`Due::NEVER_SEEN`]: long ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Due(u64);

impl Due {
    /// Of somebody who has made no request yet.
    pub(super) const NEVER_SEEN: Due = Due(0);

    /// Would somebody who was never seen be treated alike?
    pub(super) fn is_over(self, now: Nanos) -> bool {
        self.0 <= now.0
    }
}

impl Gcra {
    /// Of a limit. The configuration has seen to it that nothing overflows.
    pub(super) fn new(limit: &RateLimit) -> Gcra {
        let interval = limit.per.as_nanos() / u128::from(limit.requests.get());
        let interval = u64::try_from(interval).unwrap_or(u64::MAX);
        Gcra {
            interval,
            tolerance: interval.saturating_mul(u64::from(limit.burst.get() - 1)),
        }
    }

    /// A request at `now` of somebody whose next one is due then: when the one after it is, or for
    /// how long it has to wait.
    pub(super) fn take(self, due: Due, now: Nanos) -> Result<Due, Duration> {
        let early = due.0.saturating_sub(now.0);
        match NonZeroU64::new(early.saturating_sub(self.tolerance)) {
            Some(wait) => Err(Duration::from_nanos(wait.get())),
            None => Ok(Due(due.0.max(now.0).saturating_add(self.interval))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RateKey;
    use proptest::prelude::*;
    use std::num::NonZeroU32;

    fn gcra(requests: u32, per: Duration, burst: u32) -> Gcra {
        let positive = |n| NonZeroU32::new(n).expect("it is not zero");
        Gcra::new(&RateLimit {
            requests: positive(requests),
            per,
            burst: positive(burst),
            by: RateKey::Address,
        })
    }

    const START: u64 = 1_000_000_000;

    /// At these times, in milliseconds from the start: which pass.
    fn passed(gcra: Gcra, times: &[u64]) -> Vec<bool> {
        let mut due = Due::NEVER_SEEN;
        let one = |ms: &u64| match gcra.take(due, Nanos(START + ms * 1_000_000)) {
            Ok(next) => {
                due = next;
                true
            }
            Err(_) => false,
        };
        times.iter().map(one).collect()
    }

    #[test]
    fn what_passes() {
        let second = Duration::from_secs(1);
        for (rule, gcra, times, expected) in [
            ("the first of all", gcra(1, second, 1), &[0][..], "1"),
            (
                "no burst: one at a time",
                gcra(10, second, 1),
                &[0, 0, 99, 100, 100],
                "10010",
            ),
            (
                "a burst at once",
                gcra(10, second, 3),
                &[0, 0, 0, 0],
                "1110",
            ),
            (
                "one more after an interval",
                gcra(10, second, 3),
                &[0, 0, 0, 100, 100],
                "11110",
            ),
            (
                "a refused one costs nothing",
                gcra(10, second, 1),
                &[0, 50, 60, 70, 100],
                "10001",
            ),
            (
                "the whole burst after a pause",
                gcra(10, second, 3),
                &[0, 0, 0, 300, 300, 300, 300],
                "1111110",
            ),
            (
                "no more after a longer pause",
                gcra(10, second, 2),
                &[0, 0, 9_000, 9_000, 9_000],
                "11110",
            ),
            (
                "a rate over a long time",
                gcra(1, 60 * second, 1),
                &[0, 59_999, 60_000],
                "101",
            ),
            (
                "a clock that another worker read earlier",
                gcra(10, second, 3),
                &[100, 99, 99, 100],
                "1101",
            ),
        ] {
            let passed: String = passed(gcra, times)
                .iter()
                .map(|p| if *p { '1' } else { '0' })
                .collect();
            assert_eq!(passed, expected, "{rule}");
        }
    }

    #[test]
    fn how_long_a_refused_one_waits() {
        let gcra = gcra(2, Duration::from_secs(1), 2);
        let mut due = Due::NEVER_SEEN;
        for _ in 0..2 {
            due = gcra.take(due, Nanos(START)).expect("it is in the burst");
        }
        let wait = gcra.take(due, Nanos(START + 100)).expect_err("it is full");
        assert_eq!(wait, Duration::from_nanos(499_999_900));
        assert!(gcra.take(due, Nanos(START + 499_999_999)).is_err());
        assert!(gcra.take(due, Nanos(START + 500_000_000)).is_ok());
        assert!(!due.is_over(Nanos(START + 999_999_999)));
        assert!(due.is_over(Nanos(START + 1_000_000_000)));
    }

    #[test]
    fn the_slowest_and_the_fastest_do_not_overflow() {
        let month = Duration::from_secs(30 * 24 * 60 * 60);
        for gcra in [
            gcra(1, month, 1),
            gcra(1_000_000, month, 1_000_000),
            gcra(1_000_000, Duration::from_secs(1), 1_000_000),
        ] {
            // Some centuries after the start.
            let mut due = Due::NEVER_SEEN;
            for now in [u64::MAX / 2, u64::MAX - 1, u64::MAX] {
                due = gcra.take(due, Nanos(now)).unwrap_or(due);
            }
        }
    }

    proptest! {
        #[test]
        fn no_window_has_more_than_burst_and_rate(
            requests in 1..200_u32,
            per_ms in 1..5_000_u64,
            burst in 1..50_u32,
            gaps in prop::collection::vec(0..200_000_000_u64, 1..300),
        ) {
            let gcra = gcra(requests, Duration::from_millis(per_ms), burst);
            let (mut now, mut due, mut passed) = (START, Due::NEVER_SEEN, Vec::new());
            for gap in gaps {
                // Many come at once.
                now += if gap % 3 == 0 { 0 } else { gap };
                if let Ok(next) = gcra.take(due, Nanos(now)) {
                    due = next;
                    passed.push(now);
                }
            }
            for (first, from) in passed.iter().enumerate() {
                for (last, to) in passed.iter().enumerate().skip(first) {
                    let count = (last - first + 1) as u64;
                    prop_assert!(count <= u64::from(burst) + (to - from) / gcra.interval);
                }
            }
        }

        #[test]
        fn a_steady_sender_at_the_rate_is_never_refused(
            requests in 1..1_000_u32,
            per_ms in 1..100_000_u64,
            burst in 1..50_u32,
            count in 1..2_000_u64,
        ) {
            let gcra = gcra(requests, Duration::from_millis(per_ms), burst);
            let mut due = Due::NEVER_SEEN;
            for n in 0..count {
                let now = START + n * per_ms * 1_000_000 / u64::from(requests);
                let taken = gcra.take(due, Nanos(now));
                prop_assert!(taken.is_ok(), "the one with number {n}");
                due = taken.unwrap_or(due);
            }
        }
    }
}
