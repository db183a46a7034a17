//! Whom an attempt goes to: the client's own connection, a pick of the schedule, a place in the
//! line where all are full, or once more the backend whose kept connection was stale.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::drain::Phase;
use super::pinned::Pinned;
use super::preference::Preference;
use super::worker::Worker;
use crate::balance::picker::{NoBackend, Pick};
use crate::balance::wish::{WhenFull, WhyTier, Wish};
use crate::io::deadline::Timer;
use crate::io::duplex::Duplex;
use crate::upstream::backend::{Backend, BackendId, InFlight, Trial};

/// Whom an attempt goes to.
#[derive(Debug)]
pub(super) struct Choice {
    /// The backend; counted as in flight from now on.
    pub guard: InFlight,
    /// What becomes of the attempt decides whether the backend is taken back.
    pub trial: bool,
    /// Over which connection.
    pub over: Over,
    /// How it came to that.
    pub how: How,
}

/// How an attempt came to its backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// The schedule gave it.
    Turn {
        /// Priority of its tier.
        priority: u16,
        /// Why that tier.
        why: WhyTier,
        /// The request has something that tells it apart from others (strategy `hash`).
        keyed: bool,
    },
    /// A connection leads there that serves this client only.
    Own,
    /// Its kept connection was stale, and nobody else is left.
    Again,
}

/// How an attempt came to be made where it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Way {
    /// How it came to its backend; `None`: there was none.
    pub how: Option<How>,
    /// It was to find out whether the backend is back.
    pub trial: bool,
    /// Why the attempt before it failed.
    pub after: Option<&'static str>,
}

impl How {
    /// The request's cookie led to it: its client needs no other one.
    pub fn by_cookie(self) -> bool {
        matches!(
            self,
            How::Turn {
                why: WhyTier::Cookie,
                ..
            }
        )
    }
}

/// Over which connection an attempt goes.
#[derive(Debug)]
pub(super) enum Over {
    /// The one that serves this client only.
    Own(Duplex),
    /// A kept one, or a new one.
    Any,
    /// A new one: the kept one was stale.
    New,
}

/// What choosing needs to know of a request, and remembers of it.
#[derive(Debug)]
pub(super) struct Chooser {
    /// Index of the service.
    pub service: usize,
    /// May it find out whether an ejected backend is back?
    pub trial: Trial,
    /// It has waited in line, and does not a second time.
    when_full: WhenFull,
    /// Whom it wants.
    preference: Preference,
    /// Backends that it was given although they are out.
    out: u32,
    /// It had to wait at the last choice, and for how long.
    pub waited: bool,
    pub waited_for: Duration,
    /// The backend whose kept connection failed: it may be asked again over a new one.
    pub stale: Option<Arc<Backend>>,
}

impl Chooser {
    /// For a request to that service that nothing was done for yet.
    pub fn new(service: usize, trial: Trial, preference: Preference) -> Chooser {
        Chooser {
            service,
            trial,
            when_full: WhenFull::Waits,
            preference,
            out: 0,
            waited: false,
            waited_for: Duration::ZERO,
            stale: None,
        }
    }

    /// From now on it does not wait in line.
    pub fn goes_on(&mut self) {
        self.when_full = WhenFull::GoesOn;
    }

    /// Chooses. `tried` are left out; `left`: time that there is for waiting, at most.
    pub async fn choose(
        &mut self,
        worker: &Rc<Worker>,
        own: Option<Pinned>,
        tried: &[BackendId],
        timer: &Timer,
        left: Duration,
    ) -> Result<Choice, NoBackend> {
        self.waited = false;
        if let Some(own) = own {
            let claim = |_: &Self| own.backend.claim_anyway(worker.deadlines.now());
            let claim = self
                .in_line(worker, tried, timer, left, |this| {
                    claim(this).map_err(|_| NoBackend::Full)
                })
                .await?;
            return Ok(Choice {
                guard: claim.guard,
                trial: false,
                over: Over::Own(own.io),
                how: How::Own,
            });
        }
        let picked = self
            .in_line(worker, tried, timer, left, |this| this.pick(worker, tried))
            .await;
        match picked {
            Ok(Pick {
                guard,
                trial,
                priority,
                why,
            }) => {
                self.out += u32::from(why == WhyTier::Panic);
                Ok(Choice {
                    guard,
                    trial,
                    over: Over::Any,
                    how: How::Turn {
                        priority,
                        why,
                        keyed: self.preference.key.is_some(),
                    },
                })
            }
            Err(NoBackend::Exhausted) => match self.stale.take() {
                Some(backend) => Ok(Choice {
                    guard: backend.begin(),
                    trial: false,
                    over: Over::New,
                    how: How::Again,
                }),
                None => Err(NoBackend::Exhausted),
            },
            Err(none) => Err(none),
        }
    }

    /// What `look` gives, if need be after waiting in line: no longer than the service's
    /// `queue_timeout` and `left`. Whoever was there first is served first.
    async fn in_line<T>(
        &mut self,
        worker: &Rc<Worker>,
        tried: &[BackendId],
        timer: &Timer,
        left: Duration,
        look: impl Fn(&Self) -> Result<T, NoBackend>,
    ) -> Result<T, NoBackend> {
        let gate = match (worker.gate(self.service), self.when_full) {
            (Some(gate), WhenFull::Waits) => gate,
            _ => return look(self),
        };
        if gate.waiting() == 0 {
            match look(self) {
                Err(NoBackend::Full) => {}
                found => return found,
            }
        }
        if let Some(place) = gate.enter() {
            let (begun, patience) = (Instant::now(), gate.patience.min(left));
            self.waited = true;
            while let Some(left) = patience.checked_sub(begun.elapsed()) {
                let called = timer.limit(LOOK_AGAIN.min(left), place.turn()).await;
                self.waited_for = begun.elapsed();
                if worker.shared.drain.phase() >= Phase::CutRequests {
                    worker.shared.drain.cut();
                    break;
                }
                // A backend may have come, or come back, without anybody having finished.
                if called.is_err() && !place.is_first() {
                    continue;
                }
                match look(self) {
                    // What is free may be where it has been.
                    Err(NoBackend::Full) if !tried.is_empty() => place.pass_on(),
                    Err(NoBackend::Full) => {}
                    found => return found,
                }
            }
        }
        self.when_full = WhenFull::GoesOn;
        look(self)
    }

    fn pick(&self, worker: &Worker, tried: &[BackendId]) -> Result<Pick, NoBackend> {
        worker.pick(
            self.service,
            Wish {
                now: worker.deadlines.now(),
                excluded: tried,
                trial: self.trial,
                when_full: self.when_full,
                last_resort: self.out < LAST_RESORTS,
                key: self.preference.key,
                token: self.preference.token,
            },
        )
    }
}

/// Whoever is first in line looks again this often, besides when it is called.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A request tries so many backends that are out, when nobody else is left. With thousands that are
/// gone each would try them all, again and again; those that are back are found by others' requests,
/// or by checks.
const LAST_RESORTS: u32 = 32;
