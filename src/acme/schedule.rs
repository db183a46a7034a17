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

/// A certificate is not ordered anew on its authority's word before it is this old, or has lived half its
/// life.
const YOUNGEST: Duration = Duration::from_secs(3600);

/// A span of time that an authority suggests.
pub type Window = (SystemTime, SystemTime);

/// What an authority suggests; `None` where it ends before it begins, which is to be treated as no answer
/// (RFC 9773 §4.2).
pub fn window(start: SystemTime, end: SystemTime) -> Option<Window> {
    (start < end).then_some((start, end))
}

/// When a certificate is to be renewed. `window`: what its authority suggests (RFC 9773 §4.2), as far as
/// that is neither at once after it was `obtained` nor too near its end.
/// `chance`: from 0 to 1, the same for all questions about one certificate.
pub fn due(
    validity: Validity,
    obtained: SystemTime,
    window: Option<Window>,
    chance: f64,
) -> SystemTime {
    let life = validity.not_after.duration_since(validity.not_before);
    let life = life.unwrap_or_default();
    let within = |from: SystemTime, length: Duration| from + length.mul_f64(chance);
    match window {
        Some((start, end)) => {
            let wanted = within(start, end.duration_since(start).unwrap_or_default());
            // The date of a file says anything.
            let obtained = obtained.max(validity.not_before).min(validity.not_after);
            let first = obtained + YOUNGEST.min(life / 2);
            let last = validity.not_after - life / JITTER;
            wanted.max(first).min(last)
        }
        None => within(
            validity.not_before + life * 2 / 3 - life / JITTER,
            life / JITTER,
        ),
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
        let [suggested, past, late] =
            [(1040, 1050), (900, 901), (1085, 1200)].map(|(a, b)| window(at(a), at(b)));
        let hour = Duration::from_secs(3600);
        for (rule, window, chance, expected) in [
            ("two thirds", None, 1.0, at(1060)),
            ("or earlier", None, 0.0, at(1060) - DAY * 9 / 2),
            ("the window begins", suggested, 0.0, at(1040)),
            ("within the window", suggested, 0.5, at(1045)),
            ("an hour old at least", past, 0.5, at(1001) + hour),
            ("before it is over", late, 1.0, at(1090) - DAY * 9 / 2),
        ] {
            let found = due(validity, at(1001), window, chance);
            assert_eq!(found, expected, "{rule}");
        }
        // Of a short life half, and no date of a file puts it off for ever.
        let short = Validity {
            not_before: at(1000),
            not_after: at(1000) + hour,
        };
        assert_eq!(due(short, at(1000), past, 0.5), at(1000) + hour / 2);
        let last = short.not_after - hour / JITTER;
        assert_eq!(due(short, at(2000), past, 0.5), last);
    }

    #[test]
    fn a_window_that_ends_before_it_begins_is_no_answer() {
        assert_eq!(window(at(1050), at(1040)), None);
        assert_eq!(window(at(1050), at(1050)), None);
        assert_eq!(window(at(1040), at(1050)), Some((at(1040), at(1050))));
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
