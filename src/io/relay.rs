//! The two-way copy of a tunnel: bytes in both directions at once, half-close passed on, one
//! idle deadline for both.
//!
//! Written out as the state machine that it is: there may be many thousands, most of them idle, and
//! as `async` blocks each would be 3.5 KiB.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::buffer::Inbox;
use super::deadline::Timer;
use super::duplex::Duplex;
use super::pace::Pace;

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
            step: Step::Read,
        },
        back: Direction {
            from: second.io,
            inbox: second.inbox,
            to: first.io,
            pace: first.pace,
            moved: &moved.back,
            step: Step::Read,
        },
        activity,
        idle,
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
}

impl Future for Relay<'_> {
    type Output = Ended;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ended> {
        let this = self.get_mut();
        let active = || this.activity.set(this.idle);
        let forth = this.forth.poll(cx, active);
        let back = this.back.poll(cx, active);
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
    step: Step,
}

#[derive(Debug)]
enum Step {
    /// Into the inbox, unless something is there.
    Read,
    /// What is in the inbox; see [`Duplex::poll_write_all`].
    Write {
        unsent: usize,
    },
    /// Nothing more comes.
    End,
    Done,
}

impl Direction<'_> {
    fn poll(&mut self, cx: &mut Context<'_>, active: impl Fn()) -> Poll<Result<(), Failed>> {
        loop {
            match &mut self.step {
                Step::Read if !self.inbox.is_empty() => self.step = Step::Write { unsent: 0 },
                Step::Read => match ready!(self.from.poll_fill(cx, self.inbox)) {
                    Ok(0) => self.step = Step::End,
                    Ok(_) => active(),
                    Err(_) => return Poll::Ready(Err(Failed::Reading)),
                },
                Step::Write { unsent } => {
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
                        Poll::Ready(Ok(())) => self.step = Step::Read,
                        Poll::Ready(Err(_)) => return Poll::Ready(Err(Failed::Writing)),
                        Poll::Pending => {
                            // Whoever does not take the rest for long shall not hold much.
                            self.inbox.shrink();
                            return Poll::Pending;
                        }
                    }
                }
                Step::End => match ready!(self.to.poll_shutdown(cx)) {
                    Ok(()) => self.step = Step::Done,
                    Err(_) => return Poll::Ready(Err(Failed::Writing)),
                },
                Step::Done => return Poll::Ready(Ok(())),
            }
        }
    }
}
