//! A backend: an endpoint plus the state that every worker shares.
//!
//! Owns the numbers that all workers read and write, and the small state machine of failed
//! connects (`Connects`, pure: the present is pushed in). It never picks (the schedules do that)
//! and never connects (the pool does). Made by `balance::service`, used by everybody above.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Millis;
use crate::discovery::Endpoint;

/// Identity of a backend within this process; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendId(pub u64);

impl BackendId {
    /// An identity that nobody had before.
    pub fn unused() -> BackendId {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        // Relaxed: only the number matters, it orders nothing.
        BackendId(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// An endpoint of a service and what this process knows about it.
#[derive(Debug)]
pub struct Backend {
    /// Never used twice.
    pub id: BackendId,
    /// Name of the service it belongs to.
    pub service: Arc<str>,
    /// Who it is.
    pub endpoint: Endpoint,
    /// Its address and port as text, for a log line of each request.
    pub address: Box<str>,
    /// Exchanges under way. Relaxed: a number for people and strategies, it orders nothing.
    in_flight: AtomicU32,
    /// A packed [`Connects`], one word so that count and time never disagree. Written by whichever
    /// worker fails or succeeds. Relaxed: a worker that sees it late tries once more.
    connects: AtomicU64,
    /// No longer listed by discovery. Written by the service, read by the pools. Relaxed: a pool
    /// that sees it late keeps an idle connection until its own deadline.
    withdrawn: AtomicBool,
}

/// Counts one exchange in flight until it is dropped.
#[derive(Debug)]
pub struct InFlight(Arc<Backend>);

impl Backend {
    /// A backend that has failed nothing yet.
    pub fn new(id: BackendId, service: Arc<str>, endpoint: Endpoint) -> Arc<Backend> {
        Arc::new(Backend {
            id,
            service,
            address: endpoint.socket().to_string().into(),
            endpoint,
            in_flight: AtomicU32::new(0),
            connects: AtomicU64::new(Connects::default().pack()),
            withdrawn: AtomicBool::new(false),
        })
    }

    /// Until when it is passed over because connects to it failed; `None`: it may be picked.
    pub fn passed_over_until(&self, now: Millis) -> Option<Millis> {
        let connects = Connects::unpack(self.connects.load(Ordering::Relaxed));
        (connects.until > now).then_some(connects.until)
    }

    /// A connect failed: passed over for 1 s, doubling to 10 s. While it is passed over already,
    /// a further failure changes nothing: many requests that fail together are one failure.
    pub fn connect_failed(&self, now: Millis) {
        // A lost race means that another worker recorded the failure of this very moment, and the
        // second round finds it passed over.
        let _ = self
            .connects
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
                Connects::unpack(word).failed(now).map(Connects::pack)
            });
    }

    /// A connect succeeded: forgets the failures.
    pub fn connected(&self) {
        let fresh = Connects::default().pack();
        // Looked at first: the usual success shall not take the cache line from other cores.
        if self.connects.load(Ordering::Relaxed) != fresh {
            self.connects.store(fresh, Ordering::Relaxed);
        }
    }

    /// Has discovery withdrawn it? Then it gets no new request and its idle connections close;
    /// what is under way is finished. It can come back.
    pub fn withdrawn(&self) -> bool {
        self.withdrawn.load(Ordering::Relaxed)
    }

    /// Discovery has withdrawn it, or brought it back.
    pub fn set_withdrawn(&self, withdrawn: bool) {
        self.withdrawn.store(withdrawn, Ordering::Relaxed);
    }

    /// Counts an exchange in flight until the guard is dropped.
    pub fn begin(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }

    /// Exchanges under way.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }
}

impl InFlight {
    /// The backend that is counted.
    pub fn backend(&self) -> &Arc<Backend> {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What failed connects have led to so far. Pure; fits in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Connects {
    /// Index into [`WAITS`] of the next wait.
    failures: u8,
    /// Passed over until then.
    until: Millis,
}

impl Connects {
    /// After a failure at `now`; `None`: it is passed over already.
    fn failed(self, now: Millis) -> Option<Connects> {
        (self.until <= now).then(|| Connects {
            failures: (self.failures + 1).min(WAITS.len() as u8 - 1),
            until: now.after(WAITS[usize::from(self.failures)]),
        })
    }

    fn pack(self) -> u64 {
        (self.until.0 << FAILURE_BITS) | u64::from(self.failures)
    }

    fn unpack(word: u64) -> Connects {
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

    fn backend() -> Arc<Backend> {
        let endpoint = Endpoint {
            target: "b1.test".into(),
            address: [127, 0, 0, 1].into(),
            port: 80,
        };
        Backend::new(BackendId::unused(), "web".into(), endpoint)
    }

    /// Fails `backend` at `now` and tells for how long it is passed over from then.
    fn fail(backend: &Backend, now: Millis) -> u64 {
        backend.connect_failed(now);
        backend.passed_over_until(now).expect("it just failed").0 - now.0
    }

    #[test]
    fn failures_double_the_wait_from_1_s_to_10_s() {
        let backend = backend();
        let mut now = Millis(5);
        for expected in [1_000, 2_000, 4_000, 8_000, 10_000, 10_000, 10_000] {
            assert_eq!(fail(&backend, now), expected);
            now = Millis(now.0 + expected);
            assert_eq!(backend.passed_over_until(now), None, "over at {now:?}");
        }
    }

    #[test]
    fn failures_of_one_moment_count_once() {
        let backend = backend();
        for late in 0..50 {
            backend.connect_failed(Millis(100 + late));
        }
        assert_eq!(backend.passed_over_until(Millis(150)), Some(Millis(1_100)));
        assert_eq!(fail(&backend, Millis(1_100)), 2_000);
    }

    #[test]
    fn failures_of_many_threads_at_one_moment_count_once() {
        let backend = backend();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1_000).for_each(|_| backend.connect_failed(Millis(7))));
            }
        });
        assert_eq!(backend.passed_over_until(Millis(7)), Some(Millis(1_007)));
    }

    #[test]
    fn a_connect_forgets_the_failures() {
        let backend = backend();
        fail(&backend, Millis(1));
        fail(&backend, Millis(1_001));
        backend.connected();
        assert_eq!(backend.passed_over_until(Millis(1_002)), None);
        assert_eq!(fail(&backend, Millis(1_002)), 1_000);
    }

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

    #[test]
    fn in_flight_counts_guards() {
        let backend = backend();
        let first = backend.begin();
        let second = backend.begin();
        assert_eq!(backend.in_flight(), 2);
        drop(first);
        assert_eq!(second.backend().in_flight(), 1);
        drop(second);
        assert_eq!(backend.in_flight(), 0);
    }

    #[test]
    fn identities_are_never_used_twice() {
        assert_ne!(BackendId::unused(), BackendId::unused());
    }
}
