//! The two-way copy of a tunnel: bytes in both directions at once, half-close passed on, one
//! idle deadline for both.

use std::cell::Cell;
use std::io;
use std::time::Duration;

use super::buffer::Inbox;
use super::deadline::Timer;
use super::duplex::{Duplex, WriteError};
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
pub async fn relay(
    first: End<'_>,
    second: End<'_>,
    activity: &Timer,
    idle: Duration,
    moved: &Relayed,
) -> Ended {
    activity.set(idle);
    let forth = copy(
        first.io,
        first.inbox,
        second.io,
        second.pace,
        &moved.forth,
        || {
            activity.set(idle);
        },
    );
    let back = copy(
        second.io,
        second.inbox,
        first.io,
        first.pace,
        &moved.back,
        || {
            activity.set(idle);
        },
    );
    let both = async {
        tokio::try_join!(
            async {
                forth
                    .await
                    .map_err(|side| side.of(Ended::First, Ended::Second))
            },
            async {
                back.await
                    .map_err(|side| side.of(Ended::Second, Ended::First))
            },
        )
    };
    let outcome = activity.guard(both).await;
    activity.clear();
    match outcome {
        Ok(Ok(_)) => Ended::Closed,
        Ok(Err(ended)) => ended,
        Err(_) => Ended::Idle,
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
async fn copy(
    from: &Duplex,
    inbox: &mut Inbox,
    to: &Duplex,
    pace: &mut Pace,
    moved: &Cell<u64>,
    mut active: impl FnMut(),
) -> Result<(), Failed> {
    loop {
        if !inbox.is_empty() {
            let n = inbox.filled().len();
            match to.write_all(inbox.filled(), &[], pace).await {
                Ok(()) => {}
                Err(WriteError::Io(_) | WriteError::Stalled) => return Err(Failed::Writing),
            }
            inbox.consume(n);
            moved.set(moved.get() + n as u64);
            active();
        }
        let n: io::Result<usize> = from.fill(inbox).await;
        match n {
            Ok(0) => {
                to.shutdown().await.map_err(|_| Failed::Writing)?;
                return Ok(());
            }
            Ok(_) => active(),
            Err(_) => return Err(Failed::Reading),
        }
    }
}
