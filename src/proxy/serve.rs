//! A client's connection from its first request to its end.
//!
//! An idle connection is its socket, its place in the table of deadlines and little more. When
//! bytes come it is handed to a runner: a future that can carry requests out, in an allocation of
//! its own, with the room that they need. As soon as nothing is left to be done the runner hands
//! the connection back and waits for another one. A worker keeps as many runners as were at work at
//! once a moment ago; up to as many requests cost no allocation.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use super::connection::{Call, Connection, Room, Serving};
use super::request::Next;
use crate::io::deadline::Deadlines;
use crate::io::spares::Spares;

/// The runners of one worker.
#[derive(Debug)]
pub struct Runners {
    idle: RefCell<Spares<Runner>>,
    deadlines: Rc<Deadlines>,
}

/// Serves a client's connection until it ends.
#[derive(Debug)]
pub struct Serve {
    now: Now,
    runners: Rc<Runners>,
}

#[derive(Debug)]
enum Now {
    Idle(Box<Connection>),
    Busy(Runner),
    Over,
}

/// A future that carries requests out for one connection after the other.
struct Runner {
    hatch: Rc<Cell<Hatch>>,
    /// It never ends: whoever polls it looks into the hatch afterwards.
    work: Pin<Box<dyn Future<Output = ()>>>,
}

/// Where a connection is handed to a runner, and back.
#[derive(Default)]
enum Hatch {
    /// The runner has it, or has none.
    #[default]
    Empty,
    Given(Box<Connection>, Call),
    /// The connection has become idle, or is over.
    Done(Option<Box<Connection>>),
}

impl Runners {
    /// None yet.
    pub fn new(deadlines: Rc<Deadlines>) -> Rc<Runners> {
        Rc::new(Runners {
            idle: RefCell::default(),
            deadlines,
        })
    }

    fn send(&self, connection: Box<Connection>, call: Call) -> Runner {
        let idle = self.idle.borrow_mut().take();
        let runner = idle.unwrap_or_else(|| Runner::new(Room::new(&self.deadlines)));
        runner.hatch.set(Hatch::Given(connection, call));
        runner
    }

    fn put(&self, runner: Runner) {
        self.idle.borrow_mut().put(runner);
    }

    /// Drops the runners that were not needed since the last call; returns how many that were.
    pub fn trim(&self) -> usize {
        self.idle.borrow_mut().trim()
    }
}

impl Serve {
    /// Nothing has come on `connection` yet.
    pub fn new(connection: Connection, runners: Rc<Runners>) -> Serve {
        connection.rest();
        Serve {
            now: Now::Idle(Box::new(connection)),
            runners,
        }
    }
}

impl Future for Serve {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Serve { now, runners } = self.get_mut();
        loop {
            match now {
                Now::Idle(connection) => {
                    let call = ready!(connection.poll_call(cx));
                    if let Now::Idle(connection) = std::mem::replace(now, Now::Over) {
                        *now = Now::Busy(runners.send(connection, call));
                    }
                }
                Now::Busy(runner) => {
                    let left = ready!(runner.poll(cx));
                    if let Now::Busy(runner) = std::mem::replace(now, Now::Over) {
                        runners.put(runner);
                    }
                    if let Some(connection) = left {
                        connection.rest();
                        *now = Now::Idle(connection);
                    }
                }
                Now::Over => return Poll::Ready(()),
            }
        }
    }
}

impl Runner {
    fn new(room: Room) -> Runner {
        let hatch = Rc::default();
        Runner {
            work: Box::pin(work(Rc::clone(&hatch), room)),
            hatch,
        }
    }

    /// Goes on with the connection that it was given. Ready when that has become idle, or is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Box<Connection>>> {
        let _never_ends = self.work.as_mut().poll(cx);
        match self.hatch.take() {
            Hatch::Done(connection) => Poll::Ready(connection),
            // Empty: it is under way.
            _ => Poll::Pending,
        }
    }
}

impl std::fmt::Debug for Runner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runner").finish_non_exhaustive()
    }
}

async fn work(hatch: Rc<Cell<Hatch>>, mut room: Room) {
    loop {
        let (mut connection, call) = poll_fn(|_| match hatch.take() {
            Hatch::Given(connection, call) => Poll::Ready((connection, call)),
            other => {
                hatch.set(other);
                // Whoever puts one there polls.
                Poll::Pending
            }
        })
        .await;
        let goes_on = lead(connection.served_in(&mut room), call).await;
        room.leave(&mut connection);
        hatch.set(Hatch::Done(goes_on.then_some(connection)));
    }
}

/// From request to request until nothing more has come, or the connection is over. True: it is
/// idle now.
async fn lead(mut serving: Serving<'_>, call: Call) -> bool {
    if call == Call::End {
        serving.end().await;
        return false;
    }
    loop {
        let next = match serving.read_head().await {
            Ok(Some(())) => serving.handle().await,
            Ok(None) => Next::End,
            Err(rejection) => serving.refuse(rejection).await,
        };
        match next {
            Next::Request => {
                *serving.fresh = false;
                if serving.is_idle() {
                    return true;
                }
            }
            Next::Close => {
                serving.close().await;
                return false;
            }
            Next::End => {
                serving.end().await;
                return false;
            }
            Next::Abort => return false,
        }
    }
}

#[cfg(test)]
mod tests;
