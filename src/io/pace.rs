//! Patience with one peer: it may hold us up for so long at a time, and must make a certain
//! speed on average.
//!
//! Only the time in which we really wait for that peer counts, so a client is not blamed for a
//! slow backend, nor the other way round. Silence is borne for `stall`; of one silence no more
//! than `GRACE` counts towards the average, so that a pause is forgiven and a trickle is not.

use std::task::{Context, Poll};
use std::time::Duration;

use super::deadline::{Expired, Timer};
use crate::clock::Millis;

/// Waiting that is forgiven before the average speed is looked at.
const GRACE: Duration = Duration::from_secs(5);

/// How long a peer may hold us up.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// At most so long without any progress.
    pub stall: Duration,
    /// Bytes per second of waiting, on average after the first 5 s; 0: any speed will do.
    pub min_rate: u64,
}

/// Accounts for the waits for one peer in one direction.
#[derive(Debug)]
pub struct Pace {
    timer: Timer,
    patience: Patience,
    waited: Duration,
    moved: u64,
    waiting_since: Option<Millis>,
}

impl Pace {
    /// A peer that has not held us up yet.
    pub fn new(timer: Timer, patience: Patience) -> Pace {
        Pace {
            timer,
            patience,
            waited: Duration::ZERO,
            moved: 0,
            waiting_since: None,
        }
    }

    /// Starts anew for another message.
    pub fn restart(&mut self, patience: Patience) {
        // A wait that is still open belongs to the old one.
        self.stop();
        self.patience = patience;
        self.waited = Duration::ZERO;
        self.moved = 0;
    }

    /// `n` bytes went on: the wait, if there was one, is over.
    pub fn progress(&mut self, n: usize) {
        self.moved += n as u64;
        self.stop();
    }

    /// Bytes that went on since the last restart.
    pub fn moved(&self) -> u64 {
        self.moved
    }

    /// To be called when the peer lets us wait; ready when our patience is at its end.
    pub fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<Expired> {
        if self.waited > self.allowance() {
            return Poll::Ready(Expired);
        }
        if self.waiting_since.is_none() {
            self.waiting_since = Some(self.timer.now());
            self.timer.set(self.patience.stall);
        }
        self.timer.poll_expired(cx)
    }

    /// The wait is over, or is not this peer's fault any more.
    pub fn stop(&mut self) {
        if let Some(since) = self.waiting_since.take() {
            self.waited += self.timer.now().since(since).min(GRACE);
            self.timer.clear();
        }
    }

    /// Waiting that what has moved so far makes up for.
    fn allowance(&self) -> Duration {
        match self.patience.min_rate {
            0 => Duration::MAX,
            rate => GRACE.saturating_add(Duration::from_secs(self.moved.div_ceil(rate))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::deadline::Deadlines;
    use std::future::poll_fn;

    const PATIENCE: Patience = Patience {
        stall: Duration::from_secs(30),
        min_rate: 240,
    };

    #[tokio::test(start_paused = true)]
    async fn silence_is_borne_for_the_stall_time() {
        let table = Deadlines::new();
        let mut pace = Pace::new(table.timer(), PATIENCE);
        let begun = tokio::time::Instant::now();
        tokio::select! {
            Expired = poll_fn(|cx| pace.poll_wait(cx)) => {}
            () = table.run() => unreachable!("the sweep has no end"),
        }
        let taken = begun.elapsed();
        assert!(
            taken >= PATIENCE.stall && taken < PATIENCE.stall + Duration::from_secs(1),
            "{taken:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_trickle_below_the_rate_ends_and_one_above_it_goes_on() {
        // Bytes at a time, seconds between them.
        for (bytes, pause, ends) in [
            (100, 1, true),
            (300, 1, false),
            (1, 25, true),
            (7000, 25, false),
        ] {
            let table = Deadlines::new();
            let mut pace = Pace::new(table.timer(), PATIENCE);
            let trickle = async {
                for _ in 0..60 {
                    let next = tokio::time::sleep(Duration::from_secs(pause));
                    tokio::select! {
                        Expired = poll_fn(|cx| pace.poll_wait(cx)) => return true,
                        () = next => pace.progress(bytes),
                    }
                }
                false
            };
            tokio::select! {
                ended = trickle => assert_eq!(ended, ends, "{bytes} B each {pause} s"),
                () = table.run() => unreachable!("the sweep has no end"),
            }
        }
    }
}
