//! Deadlines that cost a store to move: one table per worker, swept every [`TICK`].
//!
//! A timer that is set, moved and cleared for every request would be the most frequent operation
//! of the runtime's wheel. Here a move is a store into the worker's table; a sweep wakes the
//! tasks whose time has come. The price: a deadline is met up to two ticks late, and by as much as
//! sweeps came late besides, but never early.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::clock::Millis;

/// Time between two sweeps.
pub const TICK: Duration = Duration::from_millis(100);

/// One worker's deadlines.
#[derive(Debug)]
pub struct Deadlines {
    now: Cell<Millis>,
    slots: RefCell<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    all: Vec<Slot>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot {
    at: Millis,
    waker: Option<Waker>,
}

/// A time that will not come.
const NEVER: Millis = Millis(u64::MAX);

/// The time that was allowed has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("deadline passed")]
pub struct Expired;

impl Deadlines {
    /// An empty table at the present time.
    pub fn new() -> Rc<Deadlines> {
        Rc::new(Deadlines {
            now: Cell::new(Millis::now()),
            slots: RefCell::default(),
        })
    }

    /// The time of the last sweep.
    pub fn now(&self) -> Millis {
        self.now.get()
    }

    /// A timer that is not set.
    pub fn timer(self: &Rc<Self>) -> Timer {
        let mut slots = self.slots.borrow_mut();
        let slot = Slot {
            at: NEVER,
            waker: None,
        };
        let index = match slots.free.pop() {
            Some(index) => {
                slots.all[index as usize] = slot;
                index
            }
            None => {
                slots.all.push(slot);
                (slots.all.len() - 1) as u32
            }
        };
        Timer {
            table: Rc::clone(self),
            index,
        }
    }

    /// Takes up the present time and wakes whoever waits for a deadline that has passed. O(timers).
    ///
    /// When the worker was held up, deadlines were set meanwhile that count from a time long past.
    /// So all of them move on by as much as the sweep is late: that time was nobody's to use.
    pub fn sweep(&self) {
        let now = Millis::now();
        let late = now.since(self.now.replace(now)).saturating_sub(TICK);
        let mut slots = self.slots.borrow_mut();
        for slot in &mut slots.all {
            slot.at = slot.at.after(late);
            if slot.at <= now
                && let Some(waker) = slot.waker.take()
            {
                waker.wake();
            }
        }
    }

    /// Wakes everybody who has a timer, so that they look at what else may have changed.
    pub fn wake_all(&self) {
        let mut slots = self.slots.borrow_mut();
        for slot in &mut slots.all {
            if let Some(waker) = slot.waker.take() {
                waker.wake();
            }
        }
    }

    /// Sweeps for ever.
    pub async fn run(&self) {
        loop {
            tokio::time::sleep(TICK).await;
            self.sweep();
        }
    }
}

/// One deadline in a worker's table.
#[derive(Debug)]
pub struct Timer {
    table: Rc<Deadlines>,
    index: u32,
}

impl Timer {
    /// Moves the deadline to `wait` from now.
    pub fn set(&self, wait: Duration) {
        let at = self.table.now().after(wait.saturating_add(TICK));
        self.table.slots.borrow_mut().all[self.index as usize].at = at;
    }

    /// There is no deadline any more.
    pub fn clear(&self) {
        self.table.slots.borrow_mut().all[self.index as usize].at = NEVER;
    }

    /// The time of the worker's last sweep.
    pub fn now(&self) -> Millis {
        self.table.now()
    }

    /// How long it is to the deadline; a very long time if there is none.
    pub fn left(&self) -> Duration {
        let at = self.table.slots.borrow().all[self.index as usize].at;
        at.since(self.table.now())
    }

    /// Ready once the deadline has passed; until then the task is woken when it does.
    pub fn poll_expired(&self, cx: &mut Context<'_>) -> Poll<Expired> {
        let mut slots = self.table.slots.borrow_mut();
        let slot = &mut slots.all[self.index as usize];
        if slot.at <= self.table.now() {
            return Poll::Ready(Expired);
        }
        match &slot.waker {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            _ => slot.waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Waits for `work`, for at most `wait`. The timer is cleared afterwards.
    ///
    /// As cancel-safe as `work`; when the time is up `work` is dropped.
    pub async fn limit<F: Future>(&self, wait: Duration, work: F) -> Result<F::Output, Expired> {
        self.set(wait);
        let outcome = self.guard(work).await;
        self.clear();
        outcome
    }

    /// Waits for `work` until the deadline, which somebody else may move meanwhile.
    pub async fn guard<F: Future>(&self, work: F) -> Result<F::Output, Expired> {
        let mut work = pin!(work);
        std::future::poll_fn(|cx| {
            if let Poll::Ready(output) = work.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            self.poll_expired(cx).map(Err)
        })
        .await
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let mut slots = self.table.slots.borrow_mut();
        let slot = &mut slots.all[self.index as usize];
        slot.at = NEVER;
        slot.waker = None;
        slots.free.push(self.index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_deadline_is_met_late_but_never_early() {
        let table = Deadlines::new();
        let timer = table.timer();
        let begun = tokio::time::Instant::now();
        let wait = Duration::from_millis(950);
        tokio::select! {
            outcome = timer.limit(wait, std::future::pending::<()>()) => assert_eq!(outcome, Err(Expired)),
            () = table.run() => unreachable!("the sweep has no end"),
        }
        let taken = begun.elapsed();
        assert!(taken >= wait && taken <= wait + 3 * TICK, "{taken:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_is_moved_on_does_not_pass() {
        let table = Deadlines::new();
        let timer = table.timer();
        timer.set(Duration::from_secs(1));
        let moving = async {
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_millis(500)).await;
                timer.set(Duration::from_secs(1));
            }
            7
        };
        tokio::select! {
            outcome = timer.guard(moving) => assert_eq!(outcome, Ok(7)),
            () = table.run() => unreachable!("the sweep has no end"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_is_set_before_a_late_sweep_is_not_met_early() {
        let table = Deadlines::new();
        let timer = table.timer();
        // The worker does not turn for that long, and serves somebody before it sweeps.
        tokio::time::advance(Duration::from_secs(5)).await;
        let wait = Duration::from_secs(1);
        timer.set(wait);
        table.sweep();
        let begun = tokio::time::Instant::now();
        tokio::select! {
            outcome = timer.guard(std::future::pending::<()>()) => assert_eq!(outcome, Err(Expired)),
            () = table.run() => unreachable!("the sweep has no end"),
        }
        let taken = begun.elapsed();
        assert!(taken >= wait && taken <= wait + 3 * TICK, "{taken:?}");
    }

    #[test]
    fn slots_are_used_again() {
        let table = Deadlines::new();
        for _ in 0..100 {
            drop((table.timer(), table.timer()));
        }
        assert_eq!(table.slots.borrow().all.len(), 2);
    }
}
