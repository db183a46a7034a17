//! The counts of a check: so many failures in a row and a backend is down, so many passes and it
//! is up again. Pure.

use crate::config::Check;

/// What a backend's checks say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing for certain yet: it is as a new backend is.
    Unchecked,
    /// It passes.
    Up,
    /// It fails.
    Down,
}

/// The counts of one backend's check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RiseFall {
    fall: u32,
    rise: u32,
    verdict: Verdict,
    /// Results in a row that speak against the verdict.
    against: u32,
}

impl RiseFall {
    /// Nothing was checked yet.
    pub fn new(check: &Check) -> RiseFall {
        RiseFall {
            fall: check.fall,
            rise: check.rise,
            verdict: Verdict::Unchecked,
            against: 0,
        }
    }

    /// What the results so far say.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Takes a result up; returns the verdict if it changed. The first pass of all makes a backend
    /// up at once: nothing was held against it.
    pub fn observe(&mut self, passed: bool) -> Option<Verdict> {
        let (needed, other) = match (self.verdict, passed) {
            (Verdict::Up, true) | (Verdict::Down, false) => {
                self.against = 0;
                return None;
            }
            (Verdict::Unchecked, true) => (1, Verdict::Up),
            (Verdict::Unchecked | Verdict::Up, false) => (self.fall, Verdict::Down),
            (Verdict::Down, true) => (self.rise, Verdict::Up),
        };
        self.against += 1;
        (self.against >= needed).then(|| {
            self.against = 0;
            self.verdict = other;
            other
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Ask;
    use proptest::prelude::any;
    use proptest::{prop_assert_eq, proptest};
    use std::time::Duration;

    fn counts(fall: u32, rise: u32) -> RiseFall {
        RiseFall::new(&Check {
            ask: Ask::Tcp,
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            fall,
            rise,
            port: None,
            initially_down: false,
            plain: false,
        })
    }

    #[test]
    fn every_transition() {
        use Verdict::{Down, Unchecked, Up};
        // Results (+ and -) of a check with fall 3 and rise 2, and the verdict after each.
        for (rule, results, expected) in [
            ("the first pass counts at once", "+", &[Up][..]),
            (
                "new: fails as one that is up",
                "---",
                &[Unchecked, Unchecked, Down],
            ),
            (
                "new: a pass after failures",
                "--+",
                &[Unchecked, Unchecked, Up],
            ),
            (
                "up: a pass ends the row",
                "+--+--",
                &[Up, Up, Up, Up, Up, Up],
            ),
            ("up: the third failure", "+---", &[Up, Up, Up, Down]),
            (
                "down: one pass is not enough",
                "---+-",
                &[Unchecked, Unchecked, Down, Down, Down],
            ),
            (
                "down: two in a row",
                "---++",
                &[Unchecked, Unchecked, Down, Down, Up],
            ),
            (
                "down: a failure ends the row",
                "---+-+",
                &[Unchecked, Unchecked, Down, Down, Down, Down],
            ),
            (
                "down stays down",
                "----",
                &[Unchecked, Unchecked, Down, Down],
            ),
        ] {
            let mut counts = counts(3, 2);
            let mut before = Unchecked;
            for (at, (result, expected)) in results.chars().zip(expected).enumerate() {
                let changed = counts.observe(result == '+');
                assert_eq!(counts.verdict(), *expected, "{rule}, result {at}");
                assert_eq!(
                    changed,
                    (before != *expected).then_some(*expected),
                    "{rule}, {at}"
                );
                before = *expected;
            }
        }
    }

    proptest! {
        /// Whatever came before: the longest row at the end decides, as the counts say.
        #[test]
        fn any_order_of_results_ends_where_the_counts_say(
            results in proptest::collection::vec(any::<bool>(), 1..200),
            fall in 1u32..5,
            rise in 1u32..5,
        ) {
            let mut counts = counts(fall, rise);
            for &passed in &results {
                counts.observe(passed);
            }
            // The definition, by looking at the whole history: the last row that was long enough.
            let mut verdict = Verdict::Unchecked;
            for row in results.chunk_by(|a, b| a == b) {
                let needed = match (row[0], verdict) {
                    (true, Verdict::Unchecked) => 1,
                    (true, _) => rise as usize,
                    (false, _) => fall as usize,
                };
                if row.len() >= needed {
                    verdict = if row[0] { Verdict::Up } else { Verdict::Down };
                }
            }
            prop_assert_eq!(counts.verdict(), verdict);
        }
    }
}
