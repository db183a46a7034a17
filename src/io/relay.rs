//! The two-way copy of a tunnel: bytes in both directions at once, half-close passed on, one
//! idle deadline for both.
//!
//! Written out as the state machine that it is: there may be many thousands, most of them idle, and
//! as `async` blocks each would be 3.5 KiB. Bulk between two plain connections is not copied, but
//! moved through a pipe, where there is one to spare.

use std::cell::Cell;
use std::future::Future;
use std::io::ErrorKind;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::buffer::{Inbox, SCRATCH};
use super::deadline::Timer;
use super::duplex::Duplex;
use super::pace::Pace;
use super::pipes::{Lent, Pipes};

/// One end of a tunnel.
#[derive(Debug)]
pub struct End<'a> {
    /// Its connection.
    pub io: &'a Duplex,
    /// What was received from it already.
    pub inbox: &'a mut Inbox,
    /// Patience when it does not take what is sent to it.
    pub pace: &'a mut Pace,
}

/// How a tunnel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Both sides closed.
    Closed,
    /// The side given first failed, or did not take its bytes.
    First,
    /// The side given second failed, or did not take its bytes.
    Second,
    /// No byte moved for too long.
    Idle,
}

/// Bytes that went through a tunnel; can be looked at while it goes on.
#[derive(Debug, Default)]
pub struct Relayed {
    /// From the first end to the second.
    pub forth: Cell<u64>,
    /// From the second end to the first.
    pub back: Cell<u64>,
}

/// Copies until both directions have ended, one end fails, or nothing moved for `idle`.
pub fn relay<'a>(
    first: End<'a>,
    second: End<'a>,
    activity: &'a Timer,
    idle: Duration,
    moved: &'a Relayed,
) -> Relay<'a> {
    activity.set(idle);
    Relay {
        forth: Direction {
            from: first.io,
            inbox: first.inbox,
            to: second.io,
            pace: second.pace,
            moved: &moved.forth,
            step: Step::Read { full: 0 },
        },
        back: Direction {
            from: second.io,
            inbox: second.inbox,
            to: first.io,
            pace: first.pace,
            moved: &moved.back,
            step: Step::Read { full: 0 },
        },
        activity,
        idle,
        pipes: None,
    }
}

/// See [`relay`].
#[derive(Debug)]
#[must_use = "it copies when it is polled"]
pub struct Relay<'a> {
    forth: Direction<'a>,
    back: Direction<'a>,
    activity: &'a Timer,
    idle: Duration,
    pipes: Option<&'a Pipes>,
}

impl<'a> Relay<'a> {
    /// The same, with these pipes for bulk between connections that are both plain.
    pub fn through(self, pipes: &'a Pipes) -> Relay<'a> {
        let plain = self.forth.from.is_plain() && self.forth.to.is_plain();
        Relay {
            pipes: plain.then_some(pipes),
            ..self
        }
    }
}

impl Future for Relay<'_> {
    type Output = Ended;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ended> {
        let this = self.get_mut();
        let active = || this.activity.set(this.idle);
        let forth = this.forth.poll(cx, this.pipes, active);
        let back = this.back.poll(cx, this.pipes, active);
        let ended = match (forth, back) {
            (Poll::Ready(Err(side)), _) => side.of(Ended::First, Ended::Second),
            (_, Poll::Ready(Err(side))) => side.of(Ended::Second, Ended::First),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Ended::Closed,
            _ => {
                ready!(this.activity.poll_expired(cx));
                Ended::Idle
            }
        };
        this.activity.clear();
        Poll::Ready(ended)
    }
}

#[derive(Debug, Clone, Copy)]
enum Failed {
    Reading,
    Writing,
}

impl Failed {
    fn of(self, source: Ended, sink: Ended) -> Ended {
        match self {
            Failed::Reading => source,
            Failed::Writing => sink,
        }
    }
}

/// One direction: to the end of `from`, which is then passed on as a half-close of `to`.
#[derive(Debug)]
struct Direction<'a> {
    from: &'a Duplex,
    inbox: &'a mut Inbox,
    to: &'a Duplex,
    pace: &'a mut Pace,
    moved: &'a Cell<u64>,
    step: Step<'a>,
}

#[derive(Debug)]
enum Step<'a> {
    /// Into the inbox, unless something is there. `full`: so many reads have filled it, in a row.
    Read {
        full: u8,
    },
    /// What is in the inbox; see [`Duplex::poll_write_all`].
    Write {
        unsent: usize,
        full: u8,
    },
    /// Through a pipe, until nothing waits any more. `last`: so much came at once.
    Move {
        pipe: Lent<'a>,
        last: usize,
    },
    /// Nothing more comes.
    End,
    Done,
}

/// So many reads in a row that fill a buffer are bulk.
const BULK: u8 = 2;

impl<'a> Direction<'a> {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut pipes: Option<&'a Pipes>,
        active: impl Fn(),
    ) -> Poll<Result<(), Failed>> {
        loop {
            match &mut self.step {
                Step::Read { full } if !self.inbox.is_empty() => {
                    self.step = Step::Write {
                        unsent: 0,
                        full: *full,
                    };
                }
                Step::Read { full } => {
                    if *full >= BULK
                        && let Some(pipe) = pipes.and_then(Pipes::lend)
                    {
                        self.step = Step::Move { pipe, last: 0 };
                        continue;
                    }
                    match ready!(self.from.poll_fill(cx, self.inbox)) {
                        Ok(0) => self.step = Step::End,
                        Ok(SCRATCH) => {
                            *full = full.saturating_add(1);
                            active();
                        }
                        Ok(_) => {
                            *full = 0;
                            active();
                        }
                        Err(_) => return Poll::Ready(Err(Failed::Reading)),
                    }
                }
                Step::Write { unsent, full } => {
                    let mut message = self.inbox.filled();
                    let before = message.len();
                    let outcome = self.to.poll_write_all(cx, &mut message, unsent, self.pace);
                    let written = before - message.len();
                    if written > 0 {
                        self.inbox.consume(written);
                        self.moved.set(self.moved.get() + written as u64);
                        active();
                    }
                    match outcome {
                        Poll::Ready(Ok(())) => self.step = Step::Read { full: *full },
                        Poll::Ready(Err(_)) => return Poll::Ready(Err(Failed::Writing)),
                        Poll::Pending => {
                            // Whoever does not take the rest for long shall not hold much.
                            self.inbox.shrink();
                            return Poll::Pending;
                        }
                    }
                }
                Step::Move { pipe, .. } if pipe.held() > 0 => {
                    match ready!(self.to.poll_empty_pipe(cx, pipe, self.pace)) {
                        Ok(n @ 1..) => {
                            self.moved.set(self.moved.get() + n as u64);
                            active();
                        }
                        Ok(0) | Err(_) => return Poll::Ready(Err(Failed::Writing)),
                    }
                }
                Step::Move { pipe, last } => match self.from.poll_fill_pipe(cx, pipe) {
                    Poll::Ready(Ok(0)) => self.step = Step::End,
                    Poll::Ready(Ok(n)) => {
                        *last = n;
                        active();
                    }
                    // This kernel cannot do it: nothing was moved.
                    Poll::Ready(Err(e)) if e.kind() == ErrorKind::InvalidInput => {
                        pipes = None;
                        self.step = Step::Read { full: 0 };
                    }
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(Failed::Reading)),
                    Poll::Pending => {
                        // Others may have need of the pipe meanwhile.
                        let full = if *last >= SCRATCH { BULK } else { 0 };
                        self.step = Step::Read { full };
                        return Poll::Pending;
                    }
                },
                Step::End => match ready!(self.to.poll_shutdown(cx)) {
                    Ok(()) => self.step = Step::Done,
                    Err(_) => return Poll::Ready(Err(Failed::Writing)),
                },
                Step::Done => return Poll::Ready(Ok(())),
            }
        }
    }
}
