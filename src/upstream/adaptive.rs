//! How much a service can have in flight, found out by its latency: when responses come slower than
//! they used to, requests queue somewhere, and fewer at once are better.
//!
//! `Gradient` is the pure part, after Netflix' `Gradient2Limit` (concurrency-limits): the limit
//! follows the ratio of the long-term latency to that of the last window, plus room for a short
//! queue. Unlike there, a crowd does not teach what is usual: that is learnt while it is calm, and
//! after a minute of crowd by letting hardly anything through for a moment, as Envoy's gradient
//! controller does. [`Adaptive`] is shared by all workers: whoever comes first after a window takes
//! the step.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Millis;

/// The limit of one service. All atomics are Relaxed: numbers that order nothing.
#[derive(Debug)]
pub struct Adaptive {
    /// In flight at most.
    limit: AtomicU32,
    /// In flight, as far as they asked.
    in_flight: AtomicU32,
    /// The most in flight since the last step.
    peak: AtomicU32,
    /// The most ever, up to the last step: no request writes it.
    most: AtomicU32,
    /// Latency in this window: sum in microseconds, and number.
    sum: AtomicU64,
    count: AtomicU32,
    /// When the window ends.
    ends: AtomicU64,
    /// When it is given up to find out what is usual now; 0: that is not being found out.
    probe_ends: AtomicU64,
    /// How often that was begun: what entered before is not what it asks for.
    probes: AtomicU32,
    /// Locked by whoever takes a step, about once a window.
    gradient: Mutex<Gradient>,
}

/// When something entered: before which probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entered(u32);

/// The state behind a limit. Pure.
#[derive(Debug, Clone, Copy)]
struct Gradient {
    limit: f64,
    least: f64,
    most: f64,
    /// Long-term latency in microseconds; 0: none yet.
    long: f64,
    /// Windows in a row with a latency above what is tolerated.
    crowded: u32,
    /// It is being found out what is usual now, and this was the limit before.
    probing: Option<f64>,
}

impl Adaptive {
    /// Begins with `FIRST`, between these two.
    pub fn new(least: u32, most: u32) -> Adaptive {
        let first = FIRST.clamp(least, most.max(least));
        Adaptive {
            limit: AtomicU32::new(first),
            in_flight: AtomicU32::new(0),
            peak: AtomicU32::new(0),
            most: AtomicU32::new(0),
            sum: AtomicU64::new(0),
            count: AtomicU32::new(0),
            ends: AtomicU64::new(0),
            probe_ends: AtomicU64::new(0),
            probes: AtomicU32::new(0),
            gradient: Mutex::new(Gradient {
                limit: f64::from(first),
                least: f64::from(least),
                most: f64::from(most.max(least)),
                long: 0.0,
                crowded: 0,
                probing: None,
            }),
        }
    }

    /// The same numbers, which nobody else writes.
    pub(super) fn copy(&self) -> Adaptive {
        let relaxed = Ordering::Relaxed;
        let gradient = *self.gradient.lock().unwrap_or_else(PoisonError::into_inner);
        Adaptive {
            limit: AtomicU32::new(self.limit.load(relaxed)),
            in_flight: AtomicU32::new(self.in_flight.load(relaxed)),
            peak: AtomicU32::new(self.peak.load(relaxed)),
            most: AtomicU32::new(self.most.load(relaxed)),
            sum: AtomicU64::new(self.sum.load(relaxed)),
            count: AtomicU32::new(self.count.load(relaxed)),
            ends: AtomicU64::new(self.ends.load(relaxed)),
            probe_ends: AtomicU64::new(self.probe_ends.load(relaxed)),
            probes: AtomicU32::new(self.probes.load(relaxed)),
            gradient: Mutex::new(gradient),
        }
    }

    /// In flight at most, now.
    pub fn limit(&self) -> u32 {
        self.limit.load(Ordering::Relaxed)
    }

    /// In flight.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// The most that ever was in flight.
    pub fn most(&self) -> u32 {
        let most = self.most.load(Ordering::Relaxed);
        most.max(self.peak.load(Ordering::Relaxed))
    }

    /// Is there room for nothing more, as things look?
    pub(super) fn is_full(&self) -> bool {
        self.in_flight() >= self.limit()
    }

    /// One more, if there may be; to be ended with [`Adaptive::leave`].
    pub(super) fn enter(&self, now: Millis) -> Option<Entered> {
        let (relaxed, limit) = (Ordering::Relaxed, self.limit());
        let more = |n: u32| (n < limit).then_some(n + 1);
        match self.in_flight.fetch_update(relaxed, relaxed, more) {
            Ok(before) => {
                self.note(before + 1);
                Some(Entered(self.probes.load(relaxed)))
            }
            Err(_) => {
                self.note(limit);
                self.give_probe_up(now);
                None
            }
        }
    }

    /// One more in any case.
    pub(super) fn enter_anyway(&self) -> Entered {
        let before = self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.note(before + 1);
        Entered(self.probes.load(Ordering::Relaxed))
    }

    /// One less.
    pub(super) fn leave(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// The first byte of a response came after so long; `entered`: of its request.
    pub(super) fn sample(&self, latency: Duration, entered: Entered, now: Millis) {
        let probing = self.probe_ends.load(Ordering::Relaxed) != 0;
        if probing && entered != Entered(self.probes.load(Ordering::Relaxed)) {
            return self.give_probe_up(now);
        }
        self.sum
            .fetch_add(latency.as_micros() as u64, Ordering::Relaxed);
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let ends = self.ends.load(Ordering::Relaxed);
        if now.0 < ends || count < ENOUGH {
            return;
        }
        let (relaxed, next) = (Ordering::Relaxed, now.after(WINDOW).0);
        if self
            .ends
            .compare_exchange(ends, next, relaxed, relaxed)
            .is_err()
        {
            // Another worker takes this step.
            return;
        }
        let (sum, count) = (self.sum.swap(0, relaxed), self.count.swap(0, relaxed));
        // The mark first, or for a moment a scrape would find neither.
        self.most.fetch_max(self.peak.load(relaxed), relaxed);
        let peak = self.peak.swap(0, relaxed);
        self.most.fetch_max(peak, relaxed);
        if count == 0 {
            return;
        }
        let mut gradient = self.gradient.lock().unwrap_or_else(PoisonError::into_inner);
        gradient.step(sum as f64 / f64::from(count), f64::from(peak));
        self.limit.store(gradient.limit as u32, relaxed);
        let probe_ends = match gradient.probing {
            Some(_) => {
                self.probes.fetch_add(1, relaxed);
                now.after(PROBE_AT_MOST).0
            }
            None => 0,
        };
        self.probe_ends.store(probe_ends, relaxed);
    }

    /// Ends a probe that takes too long: the limit is what it was, and nothing was learnt.
    fn give_probe_up(&self, now: Millis) {
        let ends = self.probe_ends.load(Ordering::Relaxed);
        if ends == 0 || now.0 < ends {
            return;
        }
        let mut gradient = self.gradient.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(limit) = gradient.probing.take() {
            gradient.limit = limit;
            self.limit.store(limit as u32, Ordering::Relaxed);
        }
        self.probe_ends.store(0, Ordering::Relaxed);
    }

    fn note(&self, in_flight: u32) {
        if self.peak.load(Ordering::Relaxed) < in_flight {
            self.peak.store(in_flight, Ordering::Relaxed);
        }
    }
}

impl Gradient {
    /// A window is over: its mean latency, and the most that was in flight in it.
    fn step(&mut self, short: f64, peak: f64) {
        if self.long == 0.0 {
            self.long = short;
        }
        if let Some(limit) = self.probing.take() {
            // Nobody queues behind so few: this is how long it takes now.
            self.long = short;
            self.limit = limit;
            return;
        }
        if short <= TOLERANCE * self.long {
            self.crowded = 0;
            self.long += (short - self.long) * LONG_TERM;
        } else {
            // A crowd that stays must not become what is usual, or the limit would rise with it.
            self.crowded += 1;
            if self.crowded >= PROBE_AFTER {
                self.crowded = 0;
                self.probing = Some(self.limit);
                self.limit = self.least;
                return;
            }
        }
        if self.long > 2.0 * short {
            // The load has gone: the memory of it should not let latency double again.
            self.long *= 0.95;
        }
        // Whoever does not use the half of a limit says nothing about it.
        if peak < self.limit / 2.0 {
            return;
        }
        let gradient = (TOLERANCE * self.long / short.max(1.0)).clamp(0.5, 1.0);
        let wanted = self.limit * gradient + self.limit.sqrt();
        let next = self.limit * (1.0 - SMOOTHING) + wanted * SMOOTHING;
        self.limit = next.clamp(self.least, self.most);
    }
}

/// What a service begins with, where its bounds allow it.
const FIRST: u32 = 50;

/// Latency is looked at over this; a step may move the limit by a tenth at most.
const WINDOW: Duration = Duration::from_millis(250);

/// Responses in a window, at least.
const ENOUGH: u32 = 10;

/// Share of a window in the long-term latency: it follows in some 600 windows (2.5 minutes).
const LONG_TERM: f64 = 2.0 / 601.0;

/// So many crowded windows in a row, a minute, and it is found out whether the service has become
/// slower for good.
const PROBE_AFTER: u32 = 240;

/// That is given up after so long: where responses take longer it is not found out.
const PROBE_AT_MOST: Duration = Duration::from_secs(5);

/// Latency may rise by so much before the limit falls.
const TOLERANCE: f64 = 1.5;

/// Share of a step that is taken.
const SMOOTHING: f64 = 0.2;

#[cfg(test)]
mod tests {
    use super::*;

    fn gradient() -> Gradient {
        Gradient {
            limit: 50.0,
            least: 4.0,
            most: 1_000.0,
            long: 0.0,
            crowded: 0,
            probing: None,
        }
    }

    /// A service that has `servers` requests in hand at once, `base` µs each; the others queue.
    fn latency(base: f64, servers: f64, in_flight: f64) -> f64 {
        base * (in_flight / servers).max(1.0)
    }

    #[test]
    fn it_settles_near_what_the_service_can_do() {
        for servers in [5.0, 20.0, 200.0] {
            let mut gradient = gradient();
            // Calm first, so that it knows what is usual.
            for _ in 0..100 {
                gradient.step(latency(1_000.0, servers, 1.0), 1.0);
            }
            // Ten minutes of it.
            for _ in 0..2_400 {
                let in_flight = gradient.limit;
                gradient.step(latency(1_000.0, servers, in_flight), in_flight);
            }
            let of = gradient.limit / servers;
            assert!((1.0..8.0).contains(&of), "{servers}: {}", gradient.limit);
        }
    }

    #[test]
    fn latency_that_rises_lowers_the_limit_and_calm_raises_it_again() {
        let mut gradient = gradient();
        for _ in 0..100 {
            gradient.step(1_000.0, 50.0);
        }
        let calm = gradient.limit;
        for _ in 0..20 {
            gradient.step(10_000.0, gradient.limit);
        }
        assert!(
            gradient.limit < calm / 2.0,
            "{} after {calm}",
            gradient.limit
        );
        for _ in 0..100 {
            gradient.step(1_000.0, gradient.limit);
        }
        assert!(gradient.limit > calm / 2.0, "{}", gradient.limit);
    }

    #[test]
    fn a_service_that_has_become_slower_for_good_is_found_out() {
        let mut gradient = gradient();
        for _ in 0..600 {
            gradient.step(latency(1_000.0, 100.0, gradient.limit), gradient.limit);
        }
        for _ in 0..600 {
            gradient.step(latency(5_000.0, 100.0, gradient.limit), gradient.limit);
        }
        assert!(gradient.limit > 80.0, "{}", gradient.limit);
    }

    #[test]
    fn a_limit_that_nobody_needs_stays_as_it_is() {
        let mut gradient = gradient();
        for _ in 0..100 {
            gradient.step(1_000.0, 3.0);
        }
        assert_eq!(gradient.limit as u32, 50);
    }

    #[test]
    fn the_bounds_hold() {
        let mut gradient = gradient();
        for _ in 0..1_000 {
            gradient.step(1_000.0, gradient.limit);
        }
        assert_eq!(gradient.limit as u32, 1_000);
        for step in 0..100 {
            gradient.step(1_000.0 * 2_f64.powi(step), gradient.limit);
        }
        assert_eq!(gradient.limit as u32, 4);
    }

    #[test]
    fn the_limit_holds_with_many_threads() {
        let adaptive = Adaptive::new(3, 3);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for step in 0..1_000 {
                        if let Some(entered) = adaptive.enter(Millis(step)) {
                            assert!(adaptive.in_flight() <= 3);
                            adaptive.sample(Duration::from_micros(step), entered, Millis(step));
                            adaptive.leave();
                        }
                    }
                });
            }
        });
        assert_eq!((adaptive.in_flight(), adaptive.limit()), (0, 3));
    }

    /// Takes a step with ten samples of that latency; time passes.
    fn window(adaptive: &Adaptive, now: &mut u64, latency_ms: u64, in_flight: u32) {
        *now += 300;
        let entered: Vec<_> = (0..in_flight).map(|_| adaptive.enter_anyway()).collect();
        for &entered in entered.iter().take(10) {
            adaptive.sample(Duration::from_millis(latency_ms), entered, Millis(*now));
        }
        (0..in_flight).for_each(|_| adaptive.leave());
    }

    /// One that is crowded so long that it is found out what is usual.
    fn probing(now: &mut u64) -> (Adaptive, Vec<Entered>, u32) {
        let adaptive = Adaptive::new(10, 1_000);
        for _ in 0..20 {
            window(&adaptive, now, 10, 20);
        }
        let before: Vec<_> = (0..20).map(|_| adaptive.enter_anyway()).collect();
        let mut limit = adaptive.limit();
        while adaptive.probe_ends.load(Ordering::Relaxed) == 0 {
            limit = adaptive.limit();
            window(&adaptive, now, 1_000, 200);
        }
        assert_eq!(adaptive.limit(), 10);
        (adaptive, before, limit)
    }

    #[test]
    fn what_entered_before_a_probe_does_not_answer_it() {
        let mut now = 1_000;
        let (adaptive, before, limit) = probing(&mut now);
        for entered in before {
            adaptive.sample(Duration::from_secs(1), entered, Millis(now + 300));
        }
        assert_eq!(adaptive.limit(), 10, "still being found out");
        window(&adaptive, &mut now, 10, 10);
        assert_eq!(adaptive.limit(), limit, "found out");
        let long = adaptive.gradient.lock().expect("nobody panicked").long;
        assert_eq!(long as u64, 10_000, "in microseconds");
    }

    #[test]
    fn a_probe_that_nothing_answers_is_given_up() {
        let mut now = 1_000;
        let (adaptive, _before, limit) = probing(&mut now);
        // Twenty are in flight still, so nobody enters.
        assert!(adaptive.enter(Millis(now)).is_none());
        assert!(
            adaptive.enter(Millis(now + 6_000)).is_none(),
            "that was the look"
        );
        assert_eq!(adaptive.limit(), limit);
    }
}
