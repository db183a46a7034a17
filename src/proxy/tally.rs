//! How many requests of one HTTP/2 connection are under way.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;

/// How many requests of a connection are under way; wakes it when that changes to none.
#[derive(Debug, Default)]
pub(super) struct Tally {
    open: Cell<usize>,
    waker: RefCell<Option<Waker>>,
}

impl Tally {
    /// Is any under way?
    pub(super) fn is_any(&self) -> bool {
        self.open.get() > 0
    }

    /// Wakes a task when none is any more.
    pub(super) fn wake_when_none(&self, task: &Waker) {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(task)) {
            *waker = Some(task.clone());
        }
    }
}

/// Counts a request until it is dropped.
#[derive(Debug)]
pub(super) struct Counted(Rc<Tally>);

impl Counted {
    pub(super) fn one(tally: &Rc<Tally>) -> Counted {
        tally.open.set(tally.open.get() + 1);
        Counted(Rc::clone(tally))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let tally = &self.0;
        tally.open.set(tally.open.get() - 1);
        if tally.open.get() == 0
            && let Some(waker) = tally.waker.borrow_mut().take()
        {
            waker.wake();
        }
    }
}
