//! What would be said too often is said seldom.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Millis;

/// Between two times that the same is said.
const PERIOD: Duration = Duration::from_secs(10);

/// When something was last said, by whichever thread.
#[derive(Debug, Default)]
pub struct Seldom {
    /// Not before then again, as [`Millis`]. Relaxed: it orders nothing; of several threads the
    /// exchange lets one speak.
    next: AtomicU64,
}

impl Seldom {
    /// Is it time to say it? If so, the time has been used.
    pub fn is_due(&self, now: Millis) -> bool {
        let next = self.next.load(Ordering::Relaxed);
        let after = now.after(PERIOD).0;
        next <= now.0
            && self
                .next
                .compare_exchange(next, after, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_once_and_then_once_in_a_period() {
        let seldom = Seldom::default();
        let spoken = [1, 1, 5_000, 10_000, 10_001, 10_002, 60_000];
        let spoken = spoken.map(|ms| seldom.is_due(Millis(ms)));
        assert_eq!(spoken, [true, false, false, false, true, false, true]);
    }
}
