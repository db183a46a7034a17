//! What the control thread found of a backend, counted.

use std::sync::atomic::{AtomicU64, Ordering};

/// Checks that failed, and ejections. Written by the threads that check and eject, of which each may be
/// another one; seldom. Held by the backend and by the ledger: what was counted last, before the
/// backend went, is seen although nobody looked in between. Relaxed: numbers that order nothing.
#[derive(Debug)]
pub struct Verdicts {
    check_failures: AtomicU64,
    ejections: [(&'static str, AtomicU64); 2],
}

impl Verdicts {
    /// None yet. `reasons`: for which a backend is ejected, as labels say them.
    pub fn new(reasons: [&'static str; 2]) -> Verdicts {
        Verdicts {
            check_failures: AtomicU64::new(0),
            ejections: reasons.map(|reason| (reason, AtomicU64::new(0))),
        }
    }

    /// The same numbers, which nobody else writes.
    pub fn copy(&self) -> Verdicts {
        let relaxed = Ordering::Relaxed;
        let ejections = &self.ejections;
        Verdicts {
            check_failures: AtomicU64::new(self.check_failures()),
            ejections: [0, 1].map(|n| (ejections[n].0, ejections[n].1.load(relaxed).into())),
        }
    }

    /// A check failed.
    pub fn check_failed(&self) {
        self.check_failures.fetch_add(1, Ordering::Relaxed);
    }

    /// It was ejected for one of the reasons.
    pub fn ejected(&self, reason: &str) {
        for (known, count) in &self.ejections {
            if *known == reason {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Checks that failed so far.
    pub fn check_failures(&self) -> u64 {
        self.check_failures.load(Ordering::Relaxed)
    }

    /// Ejections so far, by reason.
    pub fn ejections(&self) -> [(&'static str, u64); 2] {
        let ejections = &self.ejections;
        [0, 1].map(|n| (ejections[n].0, ejections[n].1.load(Ordering::Relaxed)))
    }
}
