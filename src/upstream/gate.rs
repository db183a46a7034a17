//! How much a service may have in flight, and where requests wait when it has that much: first
//! come, first served, bounded in length and in time.
//!
//! One per service and process, shared by its backends: whoever finishes an exchange lets the
//! first in line look again. What each backend has in flight (`max_in_flight`) is counted by the
//! backends themselves, what the service has as a whole (`adaptive`) by `adaptive.rs`.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use super::adaptive::Adaptive;

/// The gate of one service.
#[derive(Debug)]
pub struct Gate {
    /// Exchanges that each backend may have at once; `None`: any number.
    pub(super) per_backend: Option<NonZeroU32>,
    /// Bounds what the service has as a whole.
    adaptive: Option<Adaptive>,
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
    pub fn new(
        per_backend: Option<NonZeroU32>,
        adaptive: Option<Adaptive>,
        room: usize,
        patience: Duration,
    ) -> Arc<Gate> {
        Arc::new(Gate {
            per_backend,
            adaptive,
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

    /// The bound on what the service has as a whole, if there is one.
    pub fn adaptive(&self) -> Option<&Adaptive> {
        self.adaptive.as_ref()
    }

    /// May a backend that has so many exchanges not have one more, as things look?
    pub(super) fn is_full(&self, in_flight: u32) -> bool {
        self.per_backend
            .is_some_and(|limit| in_flight >= limit.get())
            || self.adaptive.as_ref().is_some_and(Adaptive::is_full)
    }

    /// One more exchange of the service, if there may be.
    pub(super) fn admit(&self) -> bool {
        self.adaptive.as_ref().is_none_or(Adaptive::enter)
    }

    /// One more in any case.
    pub(super) fn admit_anyway(&self) {
        if let Some(adaptive) = &self.adaptive {
            adaptive.enter_anyway();
        }
    }

    /// The exchange that was admitted is not made: its backend is full. Nobody is told, or those in
    /// line would wake each other for ever.
    pub(super) fn take_back(&self) {
        if let Some(adaptive) = &self.adaptive {
            adaptive.leave();
        }
    }

    /// An exchange with one of its backends is over: the first in line may look.
    pub(super) fn released(&self) {
        self.take_back();
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
        Gate::new(None, None, room, Duration::from_secs(5))
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
