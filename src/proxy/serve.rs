//! A client's connection from its first request to its end.
//!
//! An idle connection is its socket, its place in the table of deadlines and little more. When
//! bytes come it is handed to a runner: a future that can carry requests out, in an allocation of
//! its own, with the room that they need. As soon as nothing is left to be done the runner hands
//! the connection back and waits for another one. A worker keeps as many runners as were at work at
//! once a moment ago; up to as many requests cost no allocation.
//!
//! A connection of HTTP/2 (`streams.rs`) has a runner for each stream on which a request is under way.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use super::connection::{Call, Connection, Line, Room, Serving};
use super::request::Next;
use super::stream::Stream;
use super::streams::streams;
use crate::io::deadline::Deadlines;
use crate::io::spares::Spares;

/// The runners of one worker.
#[derive(Debug)]
pub struct Runners {
    idle: RefCell<Spares<Runner>>,
    deadlines: Rc<Deadlines>,
}

/// Serves a client's connection until it ends.
pub struct Serve {
    now: Now,
    runners: Rc<Runners>,
}

enum Now {
    Idle(Box<Connection>),
    Busy(Runner),
    /// It speaks HTTP/2: its streams have runners of their own.
    Streams(Pin<Box<dyn Future<Output = ()>>>),
    Over,
}

/// A future that carries requests out for one connection after the other.
struct Runner {
    hatch: Rc<Cell<Hatch>>,
    /// It never ends: whoever polls it looks into the hatch afterwards.
    work: Pin<Box<dyn Future<Output = ()>>>,
}

/// What a runner is to do.
enum Work {
    Connection(Box<Connection>, Call),
    Stream(Box<Stream>),
}

/// A request of an HTTP/2 connection, until it is answered.
pub(super) struct ServeStream {
    runner: Option<Runner>,
    runners: Rc<Runners>,
}

/// Where work is handed to a runner, and a connection back.
#[derive(Default)]
enum Hatch {
    /// The runner has it, or has none.
    #[default]
    Empty,
    Given(Work),
    /// The connection has become idle, or is over; a stream is over.
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

    fn send(&self, work: Work) -> Runner {
        let idle = self.idle.borrow_mut().take();
        let runner = idle.unwrap_or_else(|| Runner::new(Room::new(&self.deadlines)));
        runner.hatch.set(Hatch::Given(work));
        runner
    }

    /// Has a runner carry out the request that came on a stream.
    pub(super) fn carry_out(self: &Rc<Self>, stream: Stream) -> ServeStream {
        ServeStream {
            runner: Some(self.send(Work::Stream(Box::new(stream)))),
            runners: Rc::clone(self),
        }
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

    /// The same where HTTP/2 was agreed upon.
    pub fn h2(connection: Connection, runners: Rc<Runners>) -> Serve {
        Serve {
            now: Now::Streams(Box::pin(streams(connection, Rc::clone(&runners)))),
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
                    let is_h2 = match call {
                        Call::Request => connection.is_h2(),
                        Call::End => Some(false),
                    };
                    let Some(is_h2) = is_h2 else { continue };
                    if let Now::Idle(connection) = std::mem::replace(now, Now::Over) {
                        *now = match is_h2 {
                            true => Serve::h2(*connection, Rc::clone(runners)).now,
                            false => Now::Busy(runners.send(Work::Connection(connection, call))),
                        };
                    }
                }
                Now::Busy(runner) => {
                    let left = ready!(runner.poll(cx));
                    if let Now::Busy(runner) = std::mem::replace(now, Now::Over) {
                        runners.put(runner);
                    }
                    if let Some(connection) = left {
                        *now = match connection.is_called() {
                            // In another generation.
                            true => {
                                Now::Busy(runners.send(Work::Connection(connection, Call::Request)))
                            }
                            false => {
                                connection.rest();
                                Now::Idle(connection)
                            }
                        };
                    }
                }
                Now::Streams(streams) => {
                    ready!(streams.as_mut().poll(cx));
                    *now = Now::Over;
                }
                Now::Over => return Poll::Ready(()),
            }
        }
    }
}

impl Future for ServeStream {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let ServeStream { runner, runners } = self.get_mut();
        if let Some(going) = runner {
            ready!(going.poll(cx));
            if let Some(free) = runner.take() {
                runners.put(free);
            }
        }
        Poll::Ready(())
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

impl std::fmt::Debug for Serve {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Serve").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Runner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runner").finish_non_exhaustive()
    }
}

async fn work(hatch: Rc<Cell<Hatch>>, mut room: Room) {
    loop {
        let given = poll_fn(|_| match hatch.take() {
            Hatch::Given(work) => Poll::Ready(work),
            other => {
                hatch.set(other);
                // Whoever puts one there polls.
                Poll::Pending
            }
        })
        .await;
        let left = match given {
            Work::Connection(mut connection, call) => {
                let (line, serving) = connection.served_in(&mut room);
                let goes_on = lead(line, serving, call).await;
                room.leave(&mut connection);
                goes_on.then_some(connection)
            }
            Work::Stream(stream) => {
                stream.serve(&mut room).await;
                room.clear();
                None
            }
        };
        hatch.set(Hatch::Done(left));
    }
}

/// From request to request until nothing more has come, or the connection is over, or there is a newer
/// generation of the configuration. True: it is not over.
async fn lead(mut line: Line<'_>, mut serving: Serving<'_>, call: Call) -> bool {
    if call == Call::End {
        line.end().await;
        return false;
    }
    loop {
        let next = match serving.read_head(&mut line).await {
            Ok(Some(())) => serving.handle(line.downstream(), None).await,
            Ok(None) => Next::End,
            Err(rejection) => serving.refuse(line.downstream(), rejection).await,
        };
        match next {
            Next::Request => {
                *line.fresh = false;
                if line.is_idle() || serving.worker.is_superseded() {
                    return true;
                }
            }
            Next::Close => {
                line.close().await;
                return false;
            }
            Next::End => {
                line.end().await;
                return false;
            }
            Next::Abort => return false,
        }
    }
}

#[cfg(test)]
mod tests;
