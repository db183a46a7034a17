//! How much a service may have in flight, and where requests wait when it has that much: first
//! come, first served, bounded in length and in time.
//!
//! One per service and process, shared by its backends: whoever finishes an exchange lets the
//! first in line look again. What each backend has in flight (`max_in_flight`) is counted by the
//! backends themselves, what the service has as a whole (`adaptive`) by `adaptive.rs`.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::num::NonZeroU32;
use std::ops::Bound;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use super::adaptive::{Adaptive, Entered};
use crate::clock::Millis;

/// The gate of one service.
#[derive(Debug)]
pub struct Gate {
    /// Exchanges that each backend may have at once; `None`: any number.
    pub per_backend: Option<NonZeroU32>,
    /// The most that one of them ever had. Of the highest number of any time the first exchange to end
    /// tells, so that a request pays for a look at it and writes only what is a new mark: no more
    /// often than `per_backend` says. Relaxed, as `high_water`.
    most_of_one: AtomicU32,
    /// Bounds what the service has as a whole.
    adaptive: Option<Adaptive>,
    /// How long a request may wait.
    pub patience: Duration,
    /// Requests that may wait.
    pub room: usize,
    /// Requests that wait, for whoever only asks whether anybody does. SeqCst and the fences: who
    /// joins the line looks once more afterwards, and who finishes looks at this afterwards, so
    /// that one of the two sees the other.
    waiting: AtomicUsize,
    /// The most that ever did.
    high_water: AtomicUsize,
    /// Held to join, to leave and to call; never across an await.
    line: Mutex<Line>,
}

/// Who waits, in the order of coming.
#[derive(Debug, Default)]
struct Line {
    next: u64,
    places: BTreeMap<u64, Place>,
}

#[derive(Debug, Default)]
struct Place {
    /// It may look.
    called: bool,
    waker: Option<Waker>,
}

/// The service has as much in flight as it may.
#[derive(Debug)]
pub(super) struct Full;

/// A place in the line, until it is dropped: then the first one left may look.
#[derive(Debug)]
pub struct Waiting {
    gate: Arc<Gate>,
    number: u64,
}

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
            most_of_one: AtomicU32::new(0),
            adaptive,
            patience,
            room,
            waiting: AtomicUsize::new(0),
            high_water: AtomicUsize::new(0),
            line: Mutex::default(),
        })
    }

    /// One that counts on from the same numbers, for itself. Nobody waits at it.
    pub(super) fn copy(&self) -> Arc<Gate> {
        let adaptive = self.adaptive.as_ref().map(Adaptive::copy);
        Gate::new(self.per_backend, adaptive, self.room, self.patience)
    }

    /// Requests that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// The most that ever waited at once.
    pub fn high_water(&self) -> usize {
        self.high_water.load(Ordering::Relaxed)
    }

    /// The most that one backend ever had in flight at once, of what has ended.
    pub fn most_of_one(&self) -> u32 {
        self.most_of_one.load(Ordering::Relaxed)
    }

    /// A backend had so many in flight.
    pub(super) fn note(&self, in_flight: u32) {
        if self.per_backend.is_some() && self.most_of_one() < in_flight {
            self.most_of_one.fetch_max(in_flight, Ordering::Relaxed);
        }
    }

    /// A place in the line; `None`: it is as long as it may be.
    pub fn enter(self: &Arc<Self>) -> Option<Waiting> {
        let mut line = self.line();
        if line.places.len() >= self.room {
            return None;
        }
        let number = line.next;
        line.next += 1;
        // A slot may have come free between the look that failed and now.
        let called = line.places.is_empty();
        let place = Place {
            called,
            waker: None,
        };
        line.places.insert(number, place);
        let waiting = line.places.len();
        self.waiting.store(waiting, Ordering::SeqCst);
        // Its next look is after this.
        fence(Ordering::SeqCst);
        self.high_water.fetch_max(waiting, Ordering::Relaxed);
        Some(Waiting {
            gate: Arc::clone(self),
            number,
        })
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

    /// One more exchange of the service, if there may be; `Ok(None)`: nobody counts.
    pub(super) fn admit(&self, now: Millis) -> Result<Option<Entered>, Full> {
        match &self.adaptive {
            Some(adaptive) => adaptive.enter(now).map(Some).ok_or(Full),
            None => Ok(None),
        }
    }

    /// One more in any case.
    pub(super) fn admit_anyway(&self) -> Option<Entered> {
        self.adaptive.as_ref().map(Adaptive::enter_anyway)
    }

    /// One that was admitted is over, or not made because its backend is full. Nobody is told, or
    /// those in line would wake each other for ever.
    pub(super) fn leave(&self, entered: Option<Entered>) {
        if let (Some(adaptive), Some(_)) = (&self.adaptive, entered) {
            adaptive.leave();
        }
    }

    /// There is room for one of its exchanges: the first in line may look.
    pub(super) fn released(&self) {
        // What was in flight with the backend was counted down before this.
        fence(Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.line().call_first();
        }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    fn call_first(&mut self) {
        if let Some(mut first) = self.places.first_entry() {
            first.get_mut().call();
        }
    }
}

impl Place {
    fn call(&mut self) {
        self.called = true;
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Waiting {
    /// Waits until this one may look. Cancel-safe.
    pub async fn turn(&self) {
        poll_fn(|cx| {
            let mut line = self.gate.line();
            // It is there until `self` is dropped.
            let Some(place) = line.places.get_mut(&self.number) else {
                return Poll::Ready(());
            };
            if std::mem::take(&mut place.called) {
                return Poll::Ready(());
            }
            place.waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Is nobody before it? Then it may look uncalled.
    pub fn is_first(&self) -> bool {
        let line = self.gate.line();
        line.places.first_key_value().map(|(number, _)| *number) == Some(self.number)
    }

    /// What is free is of no use to this one: the next may look.
    pub fn pass_on(&self) {
        let mut line = self.gate.line();
        let after = (Bound::Excluded(self.number), Bound::Unbounded);
        if let Some((_, next)) = line.places.range_mut(after).next() {
            next.call();
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut line = self.gate.line();
        line.places.remove(&self.number);
        let waiting = line.places.len();
        self.gate.waiting.store(waiting, Ordering::SeqCst);
        // More may be free than the slot that this one took, or it left one unused.
        line.call_first();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn gate(room: usize) -> Arc<Gate> {
        Gate::new(None, None, room, Duration::from_secs(5))
    }

    /// Who may look.
    fn called(places: &[&Waiting]) -> Vec<bool> {
        let looks = |place: &&Waiting| place.turn().now_or_never().is_some();
        places.iter().map(looks).collect()
    }

    #[test]
    fn first_come_first_served() {
        let gate = gate(8);
        let place = || gate.enter().expect("there is room");
        let (first, second, third) = (place(), place(), place());
        let all = [&first, &second, &third];
        assert_eq!(called(&all), [true, false, false], "it looks once more");
        assert_eq!(called(&all), [false; 3], "and finds nothing");
        gate.released();
        assert_eq!(called(&all), [true, false, false]);
        gate.released();
        assert_eq!(called(&all), [true, false, false], "it keeps its place");
        assert!(first.is_first() && !second.is_first());
        drop(first);
        assert_eq!(called(&[&second, &third]), [true, false]);
    }

    #[test]
    fn two_slots_are_two_turns() {
        let gate = gate(8);
        let place = || gate.enter().expect("there is room");
        let (first, second) = (place(), place());
        called(&[&first, &second]);
        gate.released();
        gate.released();
        assert_eq!(called(&[&first, &second]), [true, false]);
        drop(first);
        assert_eq!(called(&[&second]), [true]);
    }

    #[test]
    fn what_is_of_no_use_to_one_is_offered_to_the_next() {
        let gate = gate(8);
        let place = || gate.enter().expect("there is room");
        let (first, second) = (place(), place());
        called(&[&first, &second]);
        first.pass_on();
        assert_eq!(called(&[&first, &second]), [false, true]);
        second.pass_on();
        assert_eq!(called(&[&first, &second]), [false, false]);
    }

    #[tokio::test]
    async fn whoever_waits_is_woken() {
        let gate = gate(8);
        let place = gate.enter().expect("there is room");
        place.turn().await;
        let waits = tokio::spawn(async move { place.turn().await });
        while gate
            .line()
            .places
            .values()
            .all(|place| place.waker.is_none())
        {
            tokio::task::yield_now().await;
        }
        gate.released();
        waits.await.expect("it ends");
        assert_eq!(gate.waiting(), 0);
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
