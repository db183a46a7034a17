//! A backend: an endpoint plus the state that every worker shares.
//!
//! Owns the numbers that all workers read and write; what they mean is decided by small pure
//! machines (`connects.rs`, `standing.rs`). It never picks (the schedules do that) and never
//! connects (the pool does). Made by `balance::service`, used by everybody above.

use std::cell::Cell;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::adaptive::Entered;
use super::connects::Connects;
use super::establish::Layers;
use super::gate::Gate;
use super::load::Load;
use super::standing::{Ejection, Reason, State};
use crate::clock::Millis;
use crate::discovery::Endpoint;
use crate::telemetry::metrics::Verdicts;

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
///
/// All atomics are Relaxed: each is a number of its own that orders nothing, and a worker that
/// sees one late sends one request more there, or one less.
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
    /// What lies between TCP and HTTP on connections to it.
    pub layers: Layers,
    /// Bounds what it has in flight; `None`: nothing does.
    gate: Option<Arc<Gate>>,
    /// Exchanges under way.
    in_flight: AtomicU32,
    /// A packed [`Connects`]. Written by whichever worker fails or succeeds.
    connects: AtomicU64,
    /// A packed [`Ejection`]. Written by the control thread; a worker turns one whose time is over
    /// into a trial.
    ejection: AtomicU64,
    /// A [`Reason`] for which its checks keep it out; none: they do not. Written by the control
    /// thread.
    down: AtomicU8,
    /// When they began to. Written with `down`.
    down_since: AtomicU64,
    /// A [`Reason`] for the ejection. Written by the control thread before the ejection is.
    ejected_for: AtomicU8,
    /// Attempts that failed in a row. Written by the workers.
    failures: AtomicU32,
    /// Attempts that succeeded, and that failed, ever: the low and the high half. Written by the
    /// workers; they wrap.
    outcomes: AtomicU64,
    /// Since when its share grows from little to the whole (`slow_start`); 0: it is whole. Written
    /// by the control thread.
    rising_since: AtomicU64,
    /// Checks that failed and ejections, ever, which outlive it. Written by the thread that checks and
    /// by the control thread.
    pub verdicts: Arc<Verdicts>,
    /// When it was checked last, as [`Millis`], and the [`Reason`] for which that failed in the lowest
    /// byte; 0: never. Written by the thread that checks.
    checked: AtomicU64,
    /// Its latency and what failed lately, where the strategy of its service asks for that.
    pub load: Load,
    /// No longer listed by discovery. Written by the service, read by the pools: a pool that sees
    /// it late keeps an idle connection until its own deadline.
    withdrawn: AtomicBool,
    /// Drained by hand. Written by the service, which keeps it out of the schedules; for whoever
    /// shows it.
    drained: AtomicBool,
}

/// Counts one exchange in flight until it is dropped.
#[derive(Debug)]
pub struct InFlight {
    backend: Arc<Backend>,
    /// It counts in what the service has in flight as a whole; until the response has begun.
    share: Cell<Option<Entered>>,
}

/// A backend that was won for a request.
#[derive(Debug)]
pub struct Claim {
    /// Counts the request.
    pub guard: InFlight,
    /// What becomes of the request decides whether the backend is taken back.
    pub trial: bool,
    /// It was taken whether it is out or not, because nobody else was left.
    pub out: bool,
}

/// Why a backend cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unavailable {
    /// It is out, at least until then as far as anybody knows.
    Until(Millis),
    /// It has as many exchanges under way as it may.
    Full,
}

/// May a request be the one that tries whether an ejected backend is back?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trial {
    /// Yes: if it fails it can go to another one.
    Welcome,
    /// Only if no better one has come for [`TRIAL_HELD_BACK`].
    Reluctant,
}

/// What its workers have seen of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outcomes {
    /// Attempts that succeeded.
    pub successes: u32,
    /// Attempts that failed.
    pub failures: u32,
}

impl Backend {
    /// A backend that has failed nothing yet.
    pub fn new(id: BackendId, service: Arc<str>, endpoint: Endpoint) -> Arc<Backend> {
        Backend::limited(id, service, endpoint, Layers::default(), None)
    }

    /// The same, with layers on its connections and a bound on what it has in flight.
    pub fn limited(
        id: BackendId,
        service: Arc<str>,
        endpoint: Endpoint,
        layers: Layers,
        gate: Option<Arc<Gate>>,
    ) -> Arc<Backend> {
        Arc::new(Backend {
            id,
            service,
            address: endpoint.socket().to_string().into(),
            endpoint,
            layers,
            gate,
            in_flight: AtomicU32::new(0),
            connects: AtomicU64::new(Connects::default().pack()),
            ejection: AtomicU64::new(Ejection::None.pack()),
            down: AtomicU8::new(Reason::None as u8),
            down_since: AtomicU64::new(0),
            ejected_for: AtomicU8::new(Reason::None as u8),
            failures: AtomicU32::new(0),
            outcomes: AtomicU64::new(0),
            rising_since: AtomicU64::new(0),
            verdicts: Arc::new(Verdicts::new(EJECTED_FOR.map(Reason::name))),
            checked: AtomicU64::new(0),
            load: Load::default(),
            withdrawn: AtomicBool::new(false),
            drained: AtomicBool::new(false),
        })
    }

    /// Backends with the same identity and the same numbers, which nobody else writes: to find out
    /// what a schedule would do, without doing it. They share one copy of what bounds them together.
    /// In the order of `backends`.
    pub fn copies<'a>(backends: impl Iterator<Item = &'a Arc<Backend>>) -> Vec<Arc<Backend>> {
        let mut gate: Option<Arc<Gate>> = None;
        let copy = |backend: &Arc<Backend>| {
            let own = backend.gate.as_ref();
            let gate = own.map(|own| Arc::clone(gate.get_or_insert_with(|| own.copy())));
            Arc::new(backend.copy(gate))
        };
        backends.map(copy).collect()
    }

    fn copy(&self, gate: Option<Arc<Gate>>) -> Backend {
        let relaxed = Ordering::Relaxed;
        let number = |of: &AtomicU64| AtomicU64::new(of.load(relaxed));
        Backend {
            id: self.id,
            service: Arc::clone(&self.service),
            endpoint: self.endpoint.clone(),
            address: self.address.clone(),
            layers: self.layers.clone(),
            gate,
            in_flight: AtomicU32::new(self.in_flight.load(relaxed)),
            connects: number(&self.connects),
            ejection: number(&self.ejection),
            down: AtomicU8::new(self.down.load(relaxed)),
            down_since: number(&self.down_since),
            ejected_for: AtomicU8::new(self.ejected_for.load(relaxed)),
            failures: AtomicU32::new(self.failures.load(relaxed)),
            outcomes: number(&self.outcomes),
            rising_since: number(&self.rising_since),
            verdicts: Arc::new(self.verdicts.copy()),
            checked: number(&self.checked),
            load: self.load.copy(),
            withdrawn: AtomicBool::new(self.withdrawn.load(relaxed)),
            drained: AtomicBool::new(self.drained.load(relaxed)),
        }
    }

    // ---- may it be picked?

    /// Until when it is out, as far as anybody knows; `None`: it may be picked, be it as a trial.
    pub fn out_until(&self, now: Millis) -> Option<Millis> {
        if self.down() != Reason::None {
            return Some(Millis(u64::MAX));
        }
        let connects = Connects::unpack(self.connects.load(Ordering::Relaxed));
        let passed_over = (connects.until > now).then_some(connects.until);
        passed_over.max(self.ejection().out_until(now))
    }

    /// What [`Backend::claim`] would say, without taking it.
    pub fn look(&self, now: Millis, trial: Trial) -> Result<(), Unavailable> {
        if let Some(until) = self.out_until(now) {
            return Err(Unavailable::Until(until));
        }
        if let Ejection::Until(due) | Ejection::Trial(due) = self.ejection() {
            let held_back = due.after(TRIAL_HELD_BACK);
            if trial == Trial::Reluctant && now < held_back {
                return Err(Unavailable::Until(held_back));
            }
        }
        match self.has_room() {
            true => Ok(()),
            false => Err(Unavailable::Full),
        }
    }

    /// Has it room for one more exchange, as things look?
    pub fn has_room(&self) -> bool {
        let gate = self.gate.as_ref();
        !gate.is_some_and(|gate| gate.is_full(self.in_flight()))
    }

    /// Wins it for a request, if it may be picked and has room.
    pub fn claim(self: &Arc<Self>, now: Millis, trial: Trial) -> Result<Claim, Unavailable> {
        if let Some(until) = self.out_until(now) {
            return Err(Unavailable::Until(until));
        }
        let word = self.ejection.load(Ordering::Relaxed);
        let due = match Ejection::unpack(word) {
            Ejection::None => {
                let guard = self.enter(now).ok_or(Unavailable::Full)?;
                return Ok(Claim {
                    guard,
                    trial: false,
                    out: false,
                });
            }
            Ejection::Until(until) | Ejection::Trial(until) => until,
        };
        let held_back = due.after(TRIAL_HELD_BACK);
        if trial == Trial::Reluctant && now < held_back {
            return Err(Unavailable::Until(held_back));
        }
        let guard = self.enter(now).ok_or(Unavailable::Full)?;
        let (relaxed, begun) = (Ordering::Relaxed, Ejection::trial(now));
        match self
            .ejection
            .compare_exchange(word, begun.pack(), relaxed, relaxed)
        {
            Ok(_) => Ok(Claim {
                guard,
                trial: true,
                out: false,
            }),
            // Another worker has won it, or the control thread has decided something else.
            Err(_) => Err(Unavailable::Until(now.after(TRIAL_HELD_BACK))),
        }
    }

    /// Wins it although it is out, if it has room: for when nobody else is left.
    pub fn claim_anyway(self: &Arc<Self>, now: Millis) -> Result<Claim, Unavailable> {
        let guard = self.enter(now).ok_or(Unavailable::Full)?;
        Ok(Claim {
            guard,
            trial: false,
            out: true,
        })
    }

    /// What people are told: its state and the reason.
    pub fn state(&self, now: Millis) -> (State, Reason) {
        if self.drained() {
            return (State::Drained, Reason::ByHand);
        }
        let down = self.down();
        if down != Reason::None {
            return (State::Down, down);
        }
        let ejected_for = self.ejected_for();
        match self.ejection() {
            Ejection::Until(_) => return (State::Ejected, ejected_for),
            Ejection::Trial(_) => return (State::Trial, ejected_for),
            Ejection::None => {}
        }
        match Connects::unpack(self.connects.load(Ordering::Relaxed)).until > now {
            true => (State::PassedOver, Reason::Connect),
            false => (State::Up, Reason::None),
        }
    }

    fn enter(self: &Arc<Self>, now: Millis) -> Option<InFlight> {
        let Some(gate) = &self.gate else {
            return Some(self.begin());
        };
        let share = gate.admit(now).ok()?;
        let limit = gate.per_backend.map_or(u32::MAX, NonZeroU32::get);
        let (relaxed, more) = (Ordering::Relaxed, |n: u32| (n < limit).then_some(n + 1));
        let entered = self.in_flight.fetch_update(relaxed, relaxed, more);
        if entered.is_err() {
            gate.leave(share);
            return None;
        }
        Some(InFlight {
            backend: Arc::clone(self),
            share: Cell::new(share),
        })
    }

    // ---- connects

    /// Until when it is passed over because connects to it failed; `None`: it is not.
    pub fn passed_over_until(&self, now: Millis) -> Option<Millis> {
        let connects = Connects::unpack(self.connects.load(Ordering::Relaxed));
        (connects.until > now).then_some(connects.until)
    }

    /// A connect failed: passed over for 1 s, doubling to 10 s. While it is passed over already,
    /// a further failure changes nothing: many requests that fail together are one failure. True:
    /// it counted.
    pub fn connect_failed(&self, now: Millis) -> bool {
        // A lost race means that another worker recorded the failure of this very moment, and the
        // second round finds it passed over.
        self.connects
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
                Connects::unpack(word).failed(now).map(Connects::pack)
            })
            .is_ok()
    }

    /// A connect succeeded: forgets the failures.
    pub fn connected(&self) {
        let fresh = Connects::default().pack();
        // Looked at first: the usual success shall not take the cache line from other cores.
        if self.connects.load(Ordering::Relaxed) != fresh {
            self.connects.store(fresh, Ordering::Relaxed);
        }
    }

    // ---- what becomes of attempts

    /// An attempt succeeded.
    pub fn succeeded(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
        self.outcomes.fetch_add(1, Ordering::Relaxed);
    }

    /// An attempt failed; returns how many did in a row.
    pub fn failed(&self) -> u32 {
        self.outcomes.fetch_add(1 << 32, Ordering::Relaxed);
        self.failures
            .fetch_add(1, Ordering::Relaxed)
            .wrapping_add(1)
    }

    /// Attempts so far. The numbers wrap: differences count.
    pub fn outcomes(&self) -> Outcomes {
        let word = self.outcomes.load(Ordering::Relaxed);
        Outcomes {
            successes: word as u32,
            failures: (word >> 32) as u32,
        }
    }

    // ---- verdicts of the control thread

    /// The ejection as far as it has come.
    pub fn ejection(&self) -> Ejection {
        Ejection::unpack(self.ejection.load(Ordering::Relaxed))
    }

    /// Ejects it until then.
    pub fn eject(&self, until: Millis, reason: Reason) {
        self.ejected_for.store(reason as u8, Ordering::Relaxed);
        self.verdicts.ejected(reason.name());
        self.failures.store(0, Ordering::Relaxed);
        let word = Ejection::Until(until).pack();
        self.ejection.store(word, Ordering::Relaxed);
    }

    /// Why it was ejected last.
    pub fn ejected_for(&self) -> Reason {
        Reason::of(self.ejected_for.load(Ordering::Relaxed))
    }

    /// Takes it back.
    pub fn readmit(&self) {
        self.failures.store(0, Ordering::Relaxed);
        self.ejection
            .store(Ejection::None.pack(), Ordering::Relaxed);
    }

    /// The request of a trial came to nothing, through nobody's fault but its client's: the next
    /// one may try at once.
    pub fn trial_abandoned(&self, now: Millis) {
        let over = |word| match Ejection::unpack(word) {
            Ejection::Trial(_) => Some(Ejection::Until(now).pack()),
            _ => None,
        };
        let relaxed = Ordering::Relaxed;
        // It fails if the control thread has decided meanwhile.
        let _ = self.ejection.fetch_update(relaxed, relaxed, over);
    }

    /// Why its checks keep it out.
    pub fn down(&self) -> Reason {
        Reason::of(self.down.load(Ordering::Relaxed))
    }

    /// Since when its checks keep it out; `None`: they do not.
    pub fn down_since(&self) -> Option<Millis> {
        let since = Millis(self.down_since.load(Ordering::Relaxed));
        (self.down() != Reason::None).then_some(since)
    }

    /// Its checks keep it out from now on, or no longer.
    pub fn set_down(&self, reason: Reason) {
        if self.down() == Reason::None {
            self.down_since.store(Millis::now().0, Ordering::Relaxed);
        }
        self.down.store(reason as u8, Ordering::Relaxed);
    }

    /// It was checked; [`Reason::None`]: it passed.
    pub fn checked(&self, now: Millis, failed: Reason) {
        if failed != Reason::None {
            self.verdicts.check_failed();
        }
        let word = (now.0 << 8) | u64::from(failed as u8);
        self.checked.store(word, Ordering::Relaxed);
    }

    /// When it was checked last, and why that failed; `None`: it never was.
    pub fn last_check(&self) -> Option<(Millis, Reason)> {
        let word = self.checked.load(Ordering::Relaxed);
        (word != 0).then(|| (Millis(word >> 8), Reason::of(word as u8)))
    }

    // ---- slow start

    /// Its share grows from now on until it is whole; `None`: it is whole.
    pub fn rise(&self, since: Option<Millis>) {
        let word = since.map_or(0, |since| since.0);
        self.rising_since.store(word, Ordering::Relaxed);
    }

    /// The part of its share that it has at `now` if it takes `whole_after` to have all of it;
    /// `None`: all of it.
    pub fn part(&self, now: Millis, whole_after: Duration) -> Option<f64> {
        let since = Millis(self.rising_since.load(Ordering::Relaxed));
        let risen = now.since(since);
        (since.0 != 0 && risen < whole_after)
            .then(|| (risen.as_secs_f64() / whole_after.as_secs_f64()).max(LEAST_PART))
    }

    // ---- discovery

    /// Has discovery withdrawn it? Then it gets no new request and its idle connections close;
    /// what is under way is finished. It can come back.
    pub fn withdrawn(&self) -> bool {
        self.withdrawn.load(Ordering::Relaxed)
    }

    /// Discovery has withdrawn it, or brought it back.
    pub fn set_withdrawn(&self, withdrawn: bool) {
        self.withdrawn.store(withdrawn, Ordering::Relaxed);
    }

    // ---- by hand

    /// Is it drained by hand? Then it gets no new request, but those that a cookie leads to it.
    pub fn drained(&self) -> bool {
        self.drained.load(Ordering::Relaxed)
    }

    /// It is drained by hand, or no longer.
    pub fn set_drained(&self, drained: bool) {
        self.drained.store(drained, Ordering::Relaxed);
    }

    // ---- in flight

    /// Counts an exchange in flight until the guard is dropped, whatever the bound.
    pub fn begin(self: &Arc<Self>) -> InFlight {
        let share = self.gate.as_ref().and_then(|gate| gate.admit_anyway());
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight {
            backend: Arc::clone(self),
            share: Cell::new(share),
        }
    }

    /// Exchanges under way.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }
}

impl InFlight {
    /// The backend that is counted.
    pub fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }

    /// The response has begun, after `latency` if that was the backend's time: what follows may be
    /// a stream that lasts for hours, and says nothing about how much the service can take. Nobody asks
    /// for `latency` where nothing bounds what the service has in flight.
    pub fn answered(&self, latency: impl FnOnce() -> Option<Duration>, now: Millis) {
        let Some(gate) = &self.backend.gate else {
            return;
        };
        let Some(entered) = self.share.take() else {
            return;
        };
        gate.leave(Some(entered));
        if let Some(adaptive) = gate.adaptive()
            && let Some(latency) = latency()
        {
            adaptive.sample(latency, entered, now);
        }
        gate.released();
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let in_flight = self.backend.in_flight.fetch_sub(1, Ordering::Relaxed);
        if let Some(gate) = &self.backend.gate {
            gate.note(in_flight);
            gate.leave(self.share.take());
            gate.released();
        }
    }
}

/// What it is ejected for.
const EJECTED_FOR: [Reason; 2] = [Reason::Failures, Reason::SuccessRate];

/// So long a trial is left to requests that can be repeated elsewhere.
pub const TRIAL_HELD_BACK: Duration = Duration::from_secs(1);

/// A rising backend's share begins with this part of it: enough that something reaches it at all.
const LEAST_PART: f64 = 0.1;

#[cfg(test)]
#[path = "backend_tests.rs"]
mod tests;
