//! What failed connects lead to: a backend is passed over for 1 s, doubling to 10 s. Pure: the
//! present is pushed in. Packed into one word, so that count and time never disagree; `backend.rs`
//! holds it in an atomic.

use std::time::Duration;

use crate::clock::Millis;

/// What failed connects have led to so far. Pure; fits in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Connects {
    /// Index into [`WAITS`] of the next wait.
    failures: u8,
    /// Passed over until then.
    pub(super) until: Millis,
}

impl Connects {
    /// After a failure at `now`; `None`: it is passed over already.
    pub(super) fn failed(self, now: Millis) -> Option<Connects> {
        (self.until <= now).then(|| Connects {
            failures: (self.failures + 1).min(WAITS.len() as u8 - 1),
            until: now.after(WAITS[usize::from(self.failures)]),
        })
    }

    pub(super) fn pack(self) -> u64 {
        (self.until.0 << FAILURE_BITS) | u64::from(self.failures)
    }

    pub(super) fn unpack(word: u64) -> Connects {
        Connects {
            failures: ((word & ((1 << FAILURE_BITS) - 1)) as u8).min(WAITS.len() as u8 - 1),
            until: Millis(word >> FAILURE_BITS),
        }
    }
}

/// How long a backend is passed over after its first, second, … failed connect: 1 s, doubling
/// to 10 s.
const WAITS: [Duration; 5] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(10),
];

/// Bits for an index into [`WAITS`]; the other 60 hold milliseconds for 36 million years.
const FAILURE_BITS: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_holds_every_state() {
        for failures in 0..WAITS.len() as u8 {
            for until in [0, 1, u64::from(u32::MAX), (1 << 60) - 1] {
                let state = Connects {
                    failures,
                    until: Millis(until),
                };
                assert_eq!(Connects::unpack(state.pack()), state);
            }
        }
    }
}
