//! When somebody should hear that a certificate is about to expire. Pure.

use std::time::{Duration, SystemTime};

use super::validity::Validity;

/// How near the end is: said once for each, never for the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Nearness {
    /// A renewal is not late yet.
    Far,
    /// A renewal should have come.
    Near,
    /// Half of the time since then has gone.
    Nearer,
    /// An eighth of it is left.
    Close,
    /// It is over.
    Over,
}

/// Nobody is told earlier, however long a certificate lives: whoever renews at two thirds of ninety
/// days has sixteen more to get it done before this.
const EARLIEST: Duration = Duration::from_secs(14 * 86_400);

/// Certificates that live for days or hours are renewed later: a sixth of their life is half of the
/// last third.
const SHARE: u32 = 6;

/// How near the end of a validity period is.
pub fn nearness(validity: Validity, now: SystemTime) -> Nearness {
    let Ok(left) = validity.not_after.duration_since(now) else {
        return Nearness::Over;
    };
    let life = validity.not_after.duration_since(validity.not_before);
    let near = (life.unwrap_or_default() / SHARE).min(EARLIEST);
    match () {
        () if left > near => Nearness::Far,
        () if left > near / 2 => Nearness::Near,
        () if left > near / 8 => Nearness::Nearer,
        () => Nearness::Close,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn said_at_two_weeks_or_a_sixth_of_the_life() {
        use Nearness::*;
        const DAY: u64 = 86_400;
        const HOUR: u64 = 3_600;
        let rows = [
            (90 * DAY, 15 * DAY, Far),
            (90 * DAY, 14 * DAY, Near),
            (90 * DAY, 7 * DAY, Nearer),
            (90 * DAY, DAY, Close),
            (365 * DAY, 15 * DAY, Far),
            (365 * DAY, 13 * DAY, Near),
            (6 * DAY, 2 * DAY, Far),
            (6 * DAY, DAY - 1, Near),
            (24 * HOUR, 5 * HOUR, Far),
            (24 * HOUR, 4 * HOUR, Near),
            (24 * HOUR, 0, Close),
        ];
        for (life, left, expected) in rows {
            let not_before = SystemTime::UNIX_EPOCH + Duration::from_secs(1000 * DAY);
            let not_after = not_before + Duration::from_secs(life);
            let validity = Validity {
                not_before,
                not_after,
            };
            let now = not_after - Duration::from_secs(left);
            assert_eq!(nearness(validity, now), expected, "{left} s of {life}");
            let over = not_after + Duration::from_secs(1);
            assert_eq!(nearness(validity, over), Over);
        }
    }
}
