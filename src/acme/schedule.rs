//! When a certificate is renewed, and when an order that failed is tried again. Pure.

use std::time::{Duration, SystemTime};

use crate::tls::certificates::Validity;

/// A renewal is due at two thirds of a life, or earlier by up to this share of it: certificates that
/// were ordered together are not renewed together.
const JITTER: u32 = 20;

/// Waits after orders that failed: twice as long each time. Let's Encrypt refuses names that failed five
/// times in an hour.
const FIRST_WAIT: Duration = Duration::from_secs(120);
const LONGEST_WAIT: Duration = Duration::from_secs(6 * 3600);

/// The same where nothing was ordered, as the authority cannot be reached: that counts against
/// nobody.
const FIRST_LOOK: Duration = Duration::from_secs(4);
const LONGEST_LOOK: Duration = Duration::from_secs(600);

/// When a certificate is to be renewed. `window`: what its authority suggests (RFC 9773 §4.2).
/// `chance`: from 0 to 1, the same for all questions about one certificate.
pub fn due(
    validity: Validity,
    window: Option<(SystemTime, SystemTime)>,
    chance: f64,
) -> SystemTime {
    let within = |from: SystemTime, length: Duration| from + length.mul_f64(chance);
    match window {
        Some((start, end)) => within(start, end.duration_since(start).unwrap_or_default()),
        None => {
            let life = validity.not_after.duration_since(validity.not_before);
            let life = life.unwrap_or_default();
            within(
                validity.not_before + life * 2 / 3 - life / JITTER,
                life / JITTER,
            )
        }
    }
}

/// What an order failed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The authority cannot be reached.
    Unreachable,
    /// It was asked, and refused.
    Refused,
}

/// How long nothing is tried after so many failures in a row. `chance`: from 0 to 1.
pub fn wait(failure: Failure, failures: u32, chance: f64) -> Duration {
    let (first, longest) = match failure {
        Failure::Unreachable => (FIRST_LOOK, LONGEST_LOOK),
        Failure::Refused => (FIRST_WAIT, LONGEST_WAIT),
    };
    let doubled = 1_u32 << failures.saturating_sub(1).min(16);
    let wait = first.saturating_mul(doubled).min(longest);
    wait.mul_f64(0.8 + 0.4 * chance)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn at(day: u32) -> SystemTime {
        SystemTime::UNIX_EPOCH + DAY * day
    }

    #[test]
    fn at_two_thirds_of_the_life_or_when_the_authority_says() {
        let validity = Validity {
            not_before: at(1000),
            not_after: at(1090),
        };
        let window = Some((at(1040), at(1050)));
        for (rule, window, chance, expected) in [
            ("two thirds", None, 1.0, at(1060)),
            ("or earlier", None, 0.0, at(1060) - DAY * 9 / 2),
            ("the window begins", window, 0.0, at(1040)),
            ("within the window", window, 0.5, at(1045)),
            (
                "one that is upside down",
                Some((at(1050), at(1040))),
                0.5,
                at(1050),
            ),
        ] {
            assert_eq!(due(validity, window, chance), expected, "{rule}");
        }
    }

    #[test]
    fn waits_double_up_to_a_bound() {
        for (failure, failures, expected) in [
            (Failure::Unreachable, 1, FIRST_LOOK),
            (Failure::Unreachable, 3, FIRST_LOOK * 4),
            (Failure::Unreachable, 100, LONGEST_LOOK),
            (Failure::Refused, 1, FIRST_WAIT),
            (Failure::Refused, 2, FIRST_WAIT * 2),
            (Failure::Refused, u32::MAX, LONGEST_WAIT),
        ] {
            let middle = wait(failure, failures, 0.5);
            assert_eq!(middle, expected, "{failure:?} {failures}");
            assert!(wait(failure, failures, 0.0) < middle && wait(failure, failures, 1.0) > middle);
        }
    }
}
