//! File descriptors that are kept for when there are no others left.
//!
//! Whoever accepts connections needs one even to refuse one: without it a connection stays in the
//! kernel's queue, whose readiness wakes the acceptor over and over, and its client hears nothing.
//! So an acceptor that finds none gives one of these up and accepts by that. What it got it may
//! keep only if the reserve is full again.
//!
//! One for the whole process, since a descriptor that is given up is free for any thread: who has
//! lost one to a connection to a backend still finds another.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, eventfd};

/// As many as acceptors are likely to have given up or lost at the same time.
const SPARES: usize = 8;

/// The reserve of a process.
#[derive(Debug)]
pub struct Reserve {
    spares: Mutex<Vec<OwnedFd>>,
    /// As long as it holds, the lock is not taken. Written under the lock. Relaxed: whoever reads
    /// it too early takes in one connection more, or asks once more.
    full: AtomicBool,
}

impl Reserve {
    /// Takes as many as there should be, or as there are.
    pub fn new() -> Reserve {
        let reserve = Reserve {
            spares: Mutex::default(),
            full: AtomicBool::new(false),
        };
        reserve.refill();
        reserve
    }

    /// Gives one up for somebody to use. False: there is none.
    pub fn give_up(&self) -> bool {
        let mut spares = self.lock();
        let given = spares.pop().is_some();
        self.full.store(false, Ordering::Relaxed);
        given
    }

    /// Takes again what was given up, as far as there is any. True: it is full.
    pub fn refill(&self) -> bool {
        if self.full.load(Ordering::Relaxed) {
            return true;
        }
        let mut spares = self.lock();
        while spares.len() < SPARES {
            // An event counter is a descriptor that needs no file and no other end.
            let Ok(spare) = eventfd(0, EventfdFlags::CLOEXEC) else {
                return false;
            };
            spares.push(spare);
        }
        self.full.store(true, Ordering::Relaxed);
        true
    }

    fn lock(&self) -> MutexGuard<'_, Vec<OwnedFd>> {
        self.spares.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Reserve {
    fn default() -> Self {
        Reserve::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_up_is_taken_again() {
        let reserve = Reserve::new();
        let all = std::iter::from_fn(|| reserve.give_up().then_some(()));
        assert_eq!(all.count(), SPARES);
        assert!(!reserve.give_up());
        assert!(reserve.refill() && reserve.refill());
        assert!(reserve.give_up());
    }
}
