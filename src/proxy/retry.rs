//! May a failed attempt be made again? Pure; the rules are RFC 9110 §9.2.2 and the budget.

use super::failure::{Cause, Failure, Progress, Side};
use crate::clock::Millis;
use crate::http::body::BodyFraming;
use crate::http::head::Method;
use crate::upstream::backend::Trial;

/// What is known of a request when an attempt at it has failed.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    /// The request's method.
    pub method: Method,
    /// The body is still whole in our hands, or there is none.
    pub replayable: bool,
    /// Attempts that cost budget are still allowed.
    pub retries_left: u8,
    /// The connection had been kept: its backend may have closed it before it saw the request.
    pub reused: bool,
}

/// Whether to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// No: answer with the failure.
    GiveUp,
    /// Yes, at no cost: the backend was sent nothing.
    Again,
    /// Yes, if the budget allows it.
    AgainIfAffordable,
}

/// May a request go again whatever became of it?
pub fn is_repeatable(method: Method, framing: BodyFraming) -> bool {
    method.is_idempotent() && matches!(framing, BodyFraming::None | BodyFraming::Length(0))
}

/// May a request find out whether an ejected backend is back? If it fails it has to go again.
pub fn trial(method: Method, framing: BodyFraming, retries: u8) -> Trial {
    match is_repeatable(method, framing) && retries > 0 {
        true => Trial::Welcome,
        false => Trial::Reluctant,
    }
}

/// Decides after `failure`. That a kept connection was closed (RFC 9112 §9.3.1) uses up no retry,
/// since keeping it was our choice; it takes from the budget all the same, and happens at most
/// once per backend.
pub fn verdict(failure: &Failure, facts: Facts) -> Verdict {
    if failure.meaning().side != Side::Upstream || !facts.replayable {
        return Verdict::GiveUp;
    }
    match (&failure.cause, failure.progress) {
        // There is one deadline for all attempts together, and it has passed.
        (Cause::ResponseTimeout, _) => Verdict::GiveUp,
        // Whoever made this a failure has looked whether the request may go again.
        (Cause::Status(_), _) => Verdict::AgainIfAffordable,
        (_, Progress::NothingSent) => Verdict::Again,
        // RFC 9113 §8.7: the backend has proved that it did nothing with it.
        (Cause::Refused, Progress::Sent) => Verdict::Again,
        // Another one would not switch either.
        (Cause::NotSwitched, _) => Verdict::GiveUp,
        (_, Progress::Sent)
            if facts.method.is_idempotent() && (facts.retries_left > 0 || facts.reused) =>
        {
            Verdict::AgainIfAffordable
        }
        (_, Progress::Sent | Progress::Answered | Progress::Forwarded) => Verdict::GiveUp,
    }
}

/// Retries that one worker may still make for one service: a share of its requests and its part of
/// some per second besides, so that a service in trouble is not buried under retries.
#[derive(Debug)]
pub struct Budget {
    /// In millionths of a retry, as everything here.
    tokens: u64,
    per_request: u64,
    per_ms: u64,
    most: u64,
    refilled: Millis,
}

/// Retries that are saved up at most, in seconds of `per_second` and in requests' shares alike; all
/// workers together.
const SAVED: u64 = 10;

/// One retry.
const RETRY: u64 = 1_000_000;

impl Budget {
    /// `percent` of the requests and `per_second` besides, of which each of `workers` has its part.
    /// Starts with one second's worth, and one retry at least.
    pub fn new(percent: u8, per_second: u32, workers: u32, now: Millis) -> Budget {
        let (percent, per_second) = (u64::from(percent), u64::from(per_second));
        let workers = u64::from(workers.max(1));
        let any = if per_second > 0 { RETRY } else { 0 };
        Budget {
            tokens: (per_second * RETRY / workers).max(any),
            per_request: percent * RETRY / 100,
            per_ms: per_second * RETRY / 1000 / workers,
            most: ((per_second + percent) * RETRY * SAVED / workers).max(RETRY),
            refilled: now,
        }
    }

    /// A request was begun: earns its share.
    pub fn earn(&mut self) {
        self.tokens = (self.tokens + self.per_request).min(self.most);
    }

    /// Takes one retry out of the budget, if it is there.
    pub fn spend(&mut self, now: Millis) -> bool {
        let passed = now.since(self.refilled).as_millis() as u64;
        self.tokens = self
            .tokens
            .saturating_add(self.per_ms.saturating_mul(passed))
            .min(self.most);
        self.refilled = now.max(self.refilled);
        match self.tokens.checked_sub(RETRY) {
            Some(rest) => {
                self.tokens = rest;
                true
            }
            None => false,
        }
    }

    /// Would [`Budget::spend`] be granted?
    pub fn affords(&mut self, now: Millis) -> bool {
        let affords = self.spend(now);
        if affords {
            self.tokens += RETRY;
        }
        affords
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::picker::NoBackend;
    use crate::upstream::establish::Unestablished;
    use proptest::prelude::{Just, prop};
    use proptest::strategy::Strategy as _;
    use proptest::{prop_assert, prop_assert_eq, prop_oneof, proptest};

    #[test]
    fn rules() {
        let closed = || Cause::UpstreamClosed;
        let refused = || {
            Cause::Connect(Unestablished::Connect(
                std::io::ErrorKind::ConnectionRefused.into(),
            ))
        };
        let rows = [
            (
                "a: nothing was sent, any method",
                refused(),
                Progress::NothingSent,
                Method::Post,
                true,
                0,
                Verdict::Again,
            ),
            (
                "a: nothing was sent, but the body is gone",
                refused(),
                Progress::NothingSent,
                Method::Post,
                false,
                1,
                Verdict::GiveUp,
            ),
            (
                "c: idempotent, no byte came, body still whole",
                closed(),
                Progress::Sent,
                Method::Put,
                true,
                1,
                Verdict::AgainIfAffordable,
            ),
            (
                "c: not idempotent",
                closed(),
                Progress::Sent,
                Method::Post,
                true,
                1,
                Verdict::GiveUp,
            ),
            (
                "c: idempotent, but the body is gone",
                closed(),
                Progress::Sent,
                Method::Put,
                false,
                1,
                Verdict::GiveUp,
            ),
            (
                "c: no retry left",
                closed(),
                Progress::Sent,
                Method::Get,
                true,
                0,
                Verdict::GiveUp,
            ),
            (
                "a byte of a response came",
                closed(),
                Progress::Answered,
                Method::Get,
                true,
                1,
                Verdict::GiveUp,
            ),
            (
                "a byte was forwarded",
                closed(),
                Progress::Forwarded,
                Method::Get,
                true,
                1,
                Verdict::GiveUp,
            ),
            (
                "c: whatever ended the attempt",
                Cause::TryTimeout,
                Progress::Sent,
                Method::Get,
                true,
                1,
                Verdict::AgainIfAffordable,
            ),
            (
                "a response that is tried again",
                Cause::Status(503),
                Progress::Answered,
                Method::Post,
                true,
                1,
                Verdict::AgainIfAffordable,
            ),
            (
                "a time-out is that of all attempts together",
                Cause::ResponseTimeout,
                Progress::Sent,
                Method::Get,
                true,
                1,
                Verdict::GiveUp,
            ),
            (
                "the client's own fault",
                Cause::ClientStalled,
                Progress::NothingSent,
                Method::Get,
                true,
                1,
                Verdict::GiveUp,
            ),
            (
                "nobody is there, decidedly",
                Cause::NoBackend(NoBackend::Empty),
                Progress::Answered,
                Method::Get,
                true,
                1,
                Verdict::GiveUp,
            ),
        ];
        for (rule, cause, progress, method, replayable, retries_left, expected) in rows {
            let facts = Facts {
                reused: false,
                method,
                replayable,
                retries_left,
            };
            assert_eq!(
                verdict(&Failure::new(cause, progress), facts),
                expected,
                "{rule}"
            );
        }
    }

    #[test]
    fn a_kept_connection_that_was_closed_uses_up_no_retry() {
        let closed = Failure::new(Cause::UpstreamClosed, Progress::Sent);
        for (method, expected) in [
            (Method::Get, Verdict::AgainIfAffordable),
            (Method::Post, Verdict::GiveUp),
        ] {
            let facts = Facts {
                method,
                replayable: true,
                retries_left: 0,
                reused: true,
            };
            assert_eq!(verdict(&closed, facts), expected, "{method:?}");
        }
    }

    #[test]
    fn the_budget_is_a_share_of_the_requests_and_some_per_second() {
        let mut budget = Budget::new(20, 10, 1, Millis(1));
        let spent =
            |budget: &mut Budget, now| (0..10_000).take_while(|_| budget.spend(now)).count();
        assert_eq!(
            spent(&mut budget, Millis(1)),
            10,
            "one second's worth at the start"
        );
        for _ in 0..100 {
            budget.earn();
        }
        assert_eq!(spent(&mut budget, Millis(1)), 20, "20 % of 100 requests");
        assert_eq!(spent(&mut budget, Millis(501)), 5, "half a second");
        assert_eq!(
            spent(&mut budget, Millis(3_600_000)),
            300,
            "what is saved up is bounded"
        );
    }

    /// Something that happens to a budget.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        Earn,
        Spend,
        Ask,
        Pass(u64),
    }

    proptest! {
        /// Whatever the mix: never more than the start, the share of the requests and so many a
        /// second together, and never more at once than is saved up.
        #[test]
        fn the_budget_holds_under_any_mix(
            percent in 0u8..=100,
            per_second in 0u32..50,
            workers in 1u32..100,
            steps in prop::collection::vec(
                prop_oneof![
                    4 => Just(Step::Earn),
                    4 => Just(Step::Spend),
                    1 => Just(Step::Ask),
                    1 => (0u64..3_000).prop_map(Step::Pass),
                ],
                0..500,
            ),
        ) {
            let mut budget = Budget::new(percent, per_second, workers, Millis(1));
            let (mut now, mut earned, mut spent) = (1, 0u64, 0u64);
            for step in steps {
                match step {
                    Step::Earn => {
                        budget.earn();
                        earned += 1;
                    }
                    Step::Spend => spent += u64::from(budget.spend(Millis(now))),
                    Step::Ask => {
                        let affords = budget.affords(Millis(now));
                        prop_assert_eq!(affords, budget.affords(Millis(now)), "asking costs nothing");
                    }
                    Step::Pass(ms) => now += ms,
                }
                // The part of this worker, and the one retry that it may have at the start.
                let (rate, workers) = (f64::from(per_second), f64::from(workers));
                let start = if per_second > 0 { f64::max(rate / workers, 1.0) } else { 0.0 };
                let allowed = start
                    + f64::from(percent) * earned as f64 / 100.0
                    + rate * (now - 1) as f64 / 1000.0 / workers;
                prop_assert!(spent as f64 <= allowed + 1e-6, "{} of {}", spent, allowed);
            }
            now += 3_600_000;
            let at_once = (0..100_000).take_while(|_| budget.spend(Millis(now))).count() as u64;
            let most = f64::from(per_second + u32::from(percent)) * SAVED as f64 / f64::from(workers);
            prop_assert!(at_once as f64 <= most.max(1.0));
        }
    }
}
