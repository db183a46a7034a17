//! How loaded a backend is besides what it has in flight: its latency, and a burden for attempts
//! that failed lately. Both are pure and fit in one word; [`Load`] has the words of a backend.
//!
//! **Latency** is a peak-sensitive moving average (Finagle's *peak EWMA*,
//! `com.twitter.finagle.loadbalancer.p2c.PeakEwma`): a sample above it replaces it at once, one
//! below it pulls it down with a time constant of `LATENCY_FADES`, and without samples it fades
//! towards zero, so that whoever was slow is tried again some time.
//!
//! **Burden**: a backend that fails fast is always idle, and would attract everything by that. So a
//! failed attempt goes on counting as one in flight, and is forgotten with a time constant of
//! `BURDEN_FADES`. If it attracts as much as others with n in flight do, it gets no more than
//! n / `BURDEN_FADES` requests a second, however many there are.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Millis;

/// Latency and burden of one backend. Written by the workers, only for services whose strategy
/// asks for it; read by their schedules.
///
/// Relaxed: numbers of their own that order nothing. A sample that two workers write at the same
/// moment may be lost; a failure is not.
#[derive(Debug, Default)]
pub struct Load {
    /// A packed [`Latency`].
    latency: AtomicU64,
    /// A packed [`Burden`].
    burden: AtomicU64,
}

/// The moving average of a backend's latency.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Latency {
    /// In milliseconds, as of the tick; 0: no sample yet.
    millis: f32,
    /// In units of [`TICK`].
    tick: u32,
}

/// Attempts that failed lately.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Burden {
    /// In attempts, as of `since`.
    attempts: f32,
    /// In milliseconds; wraps after 49 days, when it has faded long ago.
    since: u32,
}

impl Load {
    /// The same numbers, which nobody else writes.
    pub(super) fn copy(&self) -> Load {
        Load {
            latency: AtomicU64::new(self.latency.load(Ordering::Relaxed)),
            burden: AtomicU64::new(self.burden.load(Ordering::Relaxed)),
        }
    }

    /// An attempt succeeded: the first byte of the response came after so long.
    pub fn succeeded(&self, now: Millis, latency: Duration) {
        let before = Latency::unpack(self.latency.load(Ordering::Relaxed));
        if let Some(after) = before.with(now, latency) {
            self.latency.store(after.pack(), Ordering::Relaxed);
        }
    }

    /// An attempt failed after so long.
    pub fn failed(&self, now: Millis, took: Duration) {
        let relaxed = Ordering::Relaxed;
        let heavier = |word| Some(Burden::unpack(word).with_failure(now).pack());
        // It never declines.
        let _ = self.burden.fetch_update(relaxed, relaxed, heavier);
        let before = Latency::unpack(self.latency.load(relaxed));
        if let Some(after) = before.with_failure(now, took) {
            self.latency.store(after.pack(), relaxed);
        }
    }

    /// In milliseconds; `None`: nothing is known.
    pub fn latency(&self, now: Millis) -> Option<f32> {
        Latency::unpack(self.latency.load(Ordering::Relaxed)).at(now)
    }

    /// In attempts.
    pub fn burden(&self, now: Millis) -> f32 {
        Burden::unpack(self.burden.load(Ordering::Relaxed)).at(now)
    }
}

impl Latency {
    /// In milliseconds, as it is at `now`; `None`: there is no sample.
    pub fn at(self, now: Millis) -> Option<f32> {
        (self.millis > 0.0).then(|| self.millis * self.left(now))
    }

    /// With a sample more; `None`: it is as it was. Of many in one `TICK` only the first and
    /// those above the average count: others would move it by less than a thousandth.
    pub fn with(self, now: Millis, sample: Duration) -> Option<Latency> {
        let sample = (sample.as_secs_f32() * 1e3).max(LEAST_LATENCY);
        let average = self.millis * self.left(now);
        let millis = match sample > average {
            true => sample,
            false if tick(now) <= self.tick => return None,
            false => average + sample * (1.0 - self.left(now)),
        };
        Some(Latency {
            millis,
            tick: tick(now),
        })
    }

    /// With an attempt more that failed after `took`. That says nothing about how quick the
    /// backend is, unless it is slow: the average is not lowered, and does not fade meanwhile.
    pub fn with_failure(self, now: Millis, took: Duration) -> Option<Latency> {
        if self.millis == 0.0 {
            return None;
        }
        Some(Latency {
            millis: self.millis.max(took.as_secs_f32() * 1e3),
            tick: tick(now),
        })
    }

    /// The part of it that has not faded at `now`.
    fn left(self, now: Millis) -> f32 {
        match tick(now).saturating_sub(self.tick) {
            0 => 1.0,
            ticks => (-(ticks as f32) * (TICK.as_secs_f32() / LATENCY_FADES.as_secs_f32())).exp(),
        }
    }

    fn pack(self) -> u64 {
        pack(self.millis, self.tick)
    }

    fn unpack(word: u64) -> Latency {
        let (millis, tick) = unpack(word);
        Latency { millis, tick }
    }
}

impl Burden {
    /// In attempts, as it is at `now`.
    pub fn at(self, now: Millis) -> f32 {
        if self.attempts == 0.0 {
            return 0.0;
        }
        let passed = (now.0 as u32).wrapping_sub(self.since);
        // Whoever wrote it may have had a slightly later time.
        let passed = if passed > u32::MAX / 2 { 0 } else { passed };
        let left = (-(passed as f32) / BURDEN_FADES.as_millis() as f32).exp();
        match self.attempts * left {
            burden if burden < LEAST_BURDEN => 0.0,
            burden => burden,
        }
    }

    /// With a failed attempt more.
    pub fn with_failure(self, now: Millis) -> Burden {
        Burden {
            attempts: (self.at(now) + 1.0).min(HEAVIEST_BURDEN),
            since: now.0 as u32,
        }
    }

    fn pack(self) -> u64 {
        pack(self.attempts, self.since)
    }

    fn unpack(word: u64) -> Burden {
        let (attempts, since) = unpack(word);
        Burden { attempts, since }
    }
}

fn tick(now: Millis) -> u32 {
    (now.0 / TICK.as_millis() as u64) as u32
}

fn pack(value: f32, moment: u32) -> u64 {
    (u64::from(moment) << 32) | u64::from(value.to_bits())
}

fn unpack(word: u64) -> (f32, u32) {
    (f32::from_bits(word as u32), (word >> 32) as u32)
}

/// Time constant of the average: Finagle's default.
const LATENCY_FADES: Duration = Duration::from_secs(10);

/// Latencies are told apart by moments of this length. Short beside `LATENCY_FADES`, and it
/// spares the success of an ordinary request the write: 31 a second are enough. Ticks fill 32 bits
/// after four years.
const TICK: Duration = Duration::from_millis(32);

/// In milliseconds: no sample is less, for 0 means that there is none. A microsecond.
const LEAST_LATENCY: f32 = 1e-3;

/// Time constant with which failed attempts are forgotten. Half of the 10 s of a first ejection:
/// it is the milder measure.
const BURDEN_FADES: Duration = Duration::from_secs(5);

/// In attempts: less is nothing. One failure is forgotten after 10 s.
const LEAST_BURDEN: f32 = 0.125;

/// In attempts: more is not remembered, so that the worst is forgotten within 45 s.
const HEAVIEST_BURDEN: f32 = 1024.0;

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn latency_by_rule() {
        let first = Latency::default()
            .with(Millis(1), ms(10))
            .expect("it counts");
        assert_eq!(first.at(Millis(1)), Some(10.0), "the first is the average");
        assert_eq!(first.with(Millis(2), ms(1)), None, "within a tick");
        let peak = first.with(Millis(2), ms(100)).expect("it is above");
        assert_eq!(peak.at(Millis(2)), Some(100.0), "a peak replaces it");
        // After one time constant 1/e of it is left.
        let now = Millis(10_016);
        let faded = peak.at(now).expect("there was a sample");
        assert!((faded - 36.8).abs() < 0.2, "{faded}");
        let next = peak.with(now, ms(10)).expect("time has passed");
        let expected = 36.8 + 10.0 * 0.632;
        let average = next.at(now).expect("there was a sample");
        assert!((average - expected).abs() < 0.2, "{average}");
    }

    #[test]
    fn equal_samples_leave_the_average() {
        let mut latency = Latency::default();
        for now in (1..100_000).step_by(7) {
            latency = latency.with(Millis(now), ms(20)).unwrap_or(latency);
        }
        let average = latency.at(Millis(100_000)).expect("samples");
        assert!((average - 20.0).abs() < 0.2, "{average}");
    }

    #[test]
    fn a_failure_lowers_no_average() {
        let latency = Latency::default();
        assert_eq!(latency.with_failure(Millis(1), ms(1)), None, "none to keep");
        let latency = latency.with(Millis(1), ms(10)).expect("it counts");
        let at = |took| {
            let failed = latency.with_failure(Millis(20_000), took);
            failed.and_then(|l| l.at(Millis(20_000)))
        };
        assert_eq!(at(ms(1)), Some(10.0), "fast: as it was");
        assert_eq!(at(ms(5_000)), Some(5_000.0), "slow: a peak");
    }

    #[test]
    fn a_burden_fades() {
        let none = Burden::default();
        assert_eq!(none.at(Millis(7)), 0.0);
        let one = none.with_failure(Millis(1_000));
        assert_eq!(one.at(Millis(1_000)), 1.0);
        assert_eq!(one.at(Millis(999)), 1.0, "read with an older time");
        assert!((one.at(Millis(6_000)) - 0.368).abs() < 0.001);
        assert_eq!(one.at(Millis(11_400)), 0.0, "forgotten");
        let mut worst = none;
        for _ in 0..5_000 {
            worst = worst.with_failure(Millis(1_000));
        }
        assert_eq!(worst.at(Millis(1_000)), HEAVIEST_BURDEN);
        assert_eq!(worst.at(Millis(47_000)), 0.0);
    }

    #[test]
    fn words_hold_them() {
        let latency = Latency {
            millis: 12.5,
            tick: u32::MAX,
        };
        assert_eq!(Latency::unpack(latency.pack()), latency);
        assert_eq!(Latency::unpack(0), Latency::default());
        let burden = Burden::default().with_failure(Millis(77));
        assert_eq!(Burden::unpack(burden.pack()), burden);
    }
}
