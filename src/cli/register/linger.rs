//! How long a backend goes on after its record is gone: until every balancer has seen that.

use std::time::Duration;

use tokio::time::Instant;

/// Docker gives ten seconds before it kills.
const LONGEST: Duration = Duration::from_secs(8);

/// A time after the withdrawal, and one after the signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) struct Linger {
    time: Duration,
    /// It is over so long after the signal, even if the withdrawal took its time.
    within: Duration,
}

impl Linger {
    /// For a record that nobody stands behind.
    pub(super) const NONE: Linger = Linger {
        time: Duration::ZERO,
        within: Duration::ZERO,
    };

    /// As it was given, or three refreshes of a balancer.
    pub(in crate::cli) fn of(given: Option<Duration>, ttl: Duration) -> Linger {
        match given {
            Some(time) => Linger {
                time,
                within: Duration::MAX,
            },
            None => Linger::default_for(ttl),
        }
    }

    /// Balancers ask again after the TTL, but not more often than once a second, and a tenth later
    /// at worst; they believe that a name is empty when three answers say so.
    fn default_for(ttl: Duration) -> Linger {
        let refresh = ttl.max(Duration::from_secs(1)).mul_f64(1.1);
        Linger {
            time: (refresh * 3 + Duration::from_millis(500)).min(LONGEST),
            within: LONGEST,
        }
    }

    /// For how long to wait yet, `since` the signal came. Says so.
    pub(in crate::cli) fn begin(self, since: Instant) -> Duration {
        let left = self.left(since);
        if !left.is_zero() {
            let seconds = left.as_secs_f64();
            tracing::info!("goes on serving for {seconds:.1} s, until balancers have noticed");
        }
        left
    }

    fn left(self, since: Instant) -> Duration {
        let left = self.within.saturating_sub(since.elapsed());
        self.time.min(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_linger_is_three_refreshes() {
        for (ttl, linger) in [(0, 3_800), (1, 3_800), (2, 7_100), (5, 8_000), (60, 8_000)] {
            let lingers = Linger::default_for(Duration::from_secs(ttl));
            assert_eq!(lingers.time.as_millis(), linger, "TTL {ttl} s");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_withdrawal_takes_from_the_default_linger() {
        let begun = Instant::now();
        let default = Linger::default_for(Duration::from_secs(2));
        let given = Linger {
            time: Duration::from_secs(20),
            within: Duration::MAX,
        };
        for (after, left) in [(0, 7_100), (500, 7_100), (6_000, 2_000), (9_000, 0)] {
            tokio::time::advance(Duration::from_millis(after).saturating_sub(begun.elapsed()))
                .await;
            assert_eq!(default.left(begun).as_millis(), left, "after {after} ms");
            assert_eq!(given.left(begun).as_secs(), 20);
        }
    }
}
