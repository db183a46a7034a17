//! How far a drain has come: of the whole process (written by the control thread, looked at by
//! every worker), and of a backend that discovery has withdrawn.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::Context;
use std::time::Duration;

use crate::clock::Millis;
use crate::io::deadline::Timer;
use crate::upstream::backend::Backend;

/// Steps of a drain, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// No drain.
    Serving = 0,
    /// Not ready any more, still accepting.
    Announced = 1,
    /// Nothing new is accepted; each connection's next response says `Connection: close`.
    Closing = 2,
    /// Idle connections are closed as well.
    ClosingIdle = 3,
    /// The time for requests is over; tunnels and streams go on.
    CutRequests = 4,
    /// The time for everything is over.
    CutAll = 5,
}

/// The present phase.
#[derive(Debug, Default)]
pub struct Drain {
    /// Grows, but for an announcement by hand that is taken back. Relaxed: workers look again at every
    /// tick. Written by the control thread alone.
    phase: AtomicU8,
    /// When it began, as [`Millis`]; 0: it has not. Written by the control thread.
    since: AtomicU64,
    /// It was announced by hand, and no signal has come since. Written by the control thread.
    by_hand: AtomicBool,
    /// A deadline cut something off. Written by the workers, read when they have ended.
    cut: AtomicBool,
}

impl Drain {
    /// Not draining.
    pub fn new() -> Arc<Drain> {
        Arc::default()
    }

    /// Where we are.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Serving,
            1 => Phase::Announced,
            2 => Phase::Closing,
            3 => Phase::ClosingIdle,
            4 => Phase::CutRequests,
            _ => Phase::CutAll,
        }
    }

    /// A deadline cut something off.
    pub fn cut(&self) {
        self.cut.store(true, Ordering::Relaxed);
    }

    /// Has a deadline cut something off?
    pub fn has_cut(&self) -> bool {
        self.cut.load(Ordering::Relaxed)
    }

    /// Goes on to `phase`; never back.
    pub fn advance(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::Relaxed);
    }

    /// Announces it by hand, which can be taken back. False: a signal has begun one already.
    pub fn announce(&self, now: Millis) -> bool {
        if self.phase() == Phase::Serving {
            self.since.store(now.0, Ordering::Relaxed);
            self.by_hand.store(true, Ordering::Relaxed);
            self.advance(Phase::Announced);
        }
        self.is_by_hand()
    }

    /// Was it announced by hand, and is not a signal's by now?
    pub fn is_by_hand(&self) -> bool {
        self.by_hand.load(Ordering::Relaxed)
    }

    /// When it began.
    pub fn since(&self) -> Option<Millis> {
        let since = Millis(self.since.load(Ordering::Relaxed));
        (since != Millis(0)).then_some(since)
    }

    /// Takes an announcement by hand back. False: there is none.
    pub fn take_back(&self) -> bool {
        if !self.by_hand.swap(false, Ordering::Relaxed) {
            return false;
        }
        self.since.store(0, Ordering::Relaxed);
        self.phase.store(Phase::Serving as u8, Ordering::Relaxed);
        true
    }

    /// A signal begins it, or takes one that was announced by hand over: from now on it can't be taken
    /// back. Gives for how long it has been announced.
    pub fn begin(&self, now: Millis) -> Duration {
        self.by_hand.store(false, Ordering::Relaxed);
        let since = self.since().unwrap_or(now);
        self.since.store(since.0, Ordering::Relaxed);
        self.advance(Phase::Announced);
        now.since(since)
    }
}

/// Time between two looks at whether the backend of a long exchange has been withdrawn.
const LOOK: Duration = Duration::from_secs(5);

/// Ends a long exchange with a backend that was withdrawn and did not come back in time.
#[derive(Debug)]
pub struct Withdrawal<'a> {
    backend: &'a Backend,
    allowed: Duration,
    timer: &'a Timer,
    since: Cell<Option<Millis>>,
}

impl<'a> Withdrawal<'a> {
    /// Watches `backend`, which may be withdrawn for `allowed`; `timer` is lent for that.
    pub fn watch(backend: &'a Backend, allowed: Duration, timer: &'a Timer) -> Withdrawal<'a> {
        timer.set(LOOK);
        Withdrawal {
            backend,
            allowed,
            timer,
            since: Cell::new(None),
        }
    }

    /// True once the time is over; the task is woken to ask again.
    pub fn poll_over(&self, cx: &mut Context<'_>) -> bool {
        if self.timer.poll_expired(cx).is_pending() {
            return false;
        }
        let now = self.timer.now();
        let since = match self.backend.withdrawn() {
            true => self.since.get().or(Some(now)),
            false => None,
        };
        self.since.set(since);
        if since.is_some_and(|since| now.since(since) >= self.allowed) {
            return true;
        }
        self.timer.set(LOOK.min(self.allowed));
        // Registers for the new deadline; it cannot have passed.
        self.timer.poll_expired(cx).is_ready()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::deadline::Deadlines;
    use crate::upstream::backend::BackendId;
    use std::future::poll_fn;
    use std::task::Poll;
    use tokio::time::{Instant, sleep};

    #[test]
    fn what_was_announced_by_hand_can_be_taken_back_until_a_signal_comes() {
        let drain = Drain::new();
        assert!(!drain.take_back(), "nothing to take back");
        assert!(drain.announce(Millis(1_000)) && drain.announce(Millis(2_000)));
        assert_eq!(drain.phase(), Phase::Announced);
        assert!(drain.take_back());
        assert_eq!(drain.phase(), Phase::Serving);

        assert!(drain.announce(Millis(5_000)));
        assert_eq!(drain.begin(Millis(7_000)), Duration::from_secs(2));
        assert!(!drain.take_back() && !drain.announce(Millis(8_000)));
        assert_eq!(drain.phase(), Phase::Announced);
        assert_eq!(Drain::new().begin(Millis(7_000)), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_withdrawn_backend_has_its_time_and_one_that_comes_back_has_no_end() {
        let endpoint = crate::discovery::Endpoint {
            target: "a".into(),
            address: [127, 0, 0, 1].into(),
            port: 1,
        };
        let backend = Backend::new(BackendId::unused(), "web".into(), endpoint);
        let table = Deadlines::new();
        let timer = table.timer();
        let withdrawal = Withdrawal::watch(&backend, Duration::from_secs(60), &timer);
        let over = poll_fn(|cx| match withdrawal.poll_over(cx) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        });
        let begun = Instant::now();
        let records = async {
            backend.set_withdrawn(true);
            sleep(Duration::from_secs(30)).await;
            backend.set_withdrawn(false);
            sleep(Duration::from_secs(600)).await;
            backend.set_withdrawn(true);
            sleep(Duration::from_secs(600)).await;
        };
        tokio::select! {
            () = over => {}
            () = records => panic!("it never ended"),
            () = table.run() => unreachable!("the sweep has no end"),
        }
        let taken = begun.elapsed().as_secs();
        assert!((690..705).contains(&taken), "{taken} s");
    }
}
