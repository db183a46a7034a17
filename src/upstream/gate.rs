//! Where requests wait while every backend that could take them has as many as it may
//! (`max_in_flight`): first come, first served, bounded in length and in time.
//!
//! One per service and process, shared by its backends: whoever finishes an exchange lets the
//! first in line look again. It counts nothing in flight itself (the backends do), so that it
//! cannot disagree with them.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// The gate of one service.
#[derive(Debug)]
pub struct Gate {
    /// Exchanges that each backend may have at once.
    pub limit: NonZeroU32,
    /// How long a request may wait.
    pub patience: Duration,
    /// Requests that may wait.
    pub room: usize,
    /// Requests that wait. Relaxed: a bound and a number for people; `turn` orders what matters.
    waiting: AtomicUsize,
    /// The most that ever did.
    high_water: AtomicUsize,
    /// First come, first served, across threads.
    turn: Notify,
}

/// A place in the line, until it is dropped.
#[derive(Debug)]
pub struct Waiting(Arc<Gate>);

impl Gate {
    /// Nobody waits.
    pub fn new(limit: NonZeroU32, room: usize, patience: Duration) -> Arc<Gate> {
        Arc::new(Gate {
            limit,
            patience,
            room,
            waiting: AtomicUsize::new(0),
            high_water: AtomicUsize::new(0),
            turn: Notify::new(),
        })
    }

    /// Requests that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// The most that ever waited at once.
    pub fn high_water(&self) -> usize {
        self.high_water.load(Ordering::Relaxed)
    }

    /// A place in the line; `None`: it is as long as it may be.
    pub fn enter(self: &Arc<Self>) -> Option<Waiting> {
        // Every taker adds first: the bound holds.
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let place = Waiting(Arc::clone(self));
        if before >= self.room {
            return None;
        }
        self.high_water.fetch_max(before + 1, Ordering::Relaxed);
        Some(place)
    }

    /// An exchange with one of its backends is over: the first in line may look.
    pub(super) fn released(&self) {
        if self.waiting.load(Ordering::Relaxed) > 0 {
            self.turn.notify_one();
        }
    }
}

impl Waiting {
    /// Waits until it is this one's turn to look. Cancel-safe: a turn that is not taken goes to
    /// the next.
    pub async fn turn(&self) {
        self.0.turn.notified().await;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn gate(room: usize) -> Arc<Gate> {
        Gate::new(NonZeroU32::MIN, room, Duration::from_secs(5))
    }

    #[tokio::test]
    async fn first_come_first_served() {
        let gate = gate(8);
        let places: Vec<_> = (0..3)
            .map(|_| gate.enter().expect("there is room"))
            .collect();
        let mut turns: Vec<_> = places.iter().map(|place| Box::pin(place.turn())).collect();
        for turn in &mut turns {
            assert!(turn.now_or_never().is_none());
        }
        for next in 0..3 {
            gate.released();
            for (index, turn) in turns.iter_mut().enumerate().skip(next) {
                assert_eq!(turn.now_or_never().is_some(), index == next, "{index}");
            }
        }
    }

    #[tokio::test]
    async fn a_turn_of_somebody_who_left_goes_to_the_next() {
        let gate = gate(8);
        let (first, second) = (gate.enter().expect("room"), gate.enter().expect("room"));
        let mut first_turn = Box::pin(first.turn());
        let mut second_turn = Box::pin(second.turn());
        assert!((&mut first_turn).now_or_never().is_none());
        assert!((&mut second_turn).now_or_never().is_none());
        gate.released();
        drop(first_turn);
        assert!(second_turn.now_or_never().is_some());
    }

    #[test]
    fn the_line_is_bounded() {
        let gate = gate(2);
        let places = [gate.enter(), gate.enter()];
        assert!(places.iter().all(Option::is_some));
        assert!(gate.enter().is_none());
        assert_eq!((gate.waiting(), gate.high_water()), (2, 2));
        drop(places);
        assert_eq!((gate.waiting(), gate.high_water()), (0, 2));
        assert!(gate.enter().is_some());
    }
}
