//! When a name is asked again. Pure: the random part comes in as a number.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::Lookup;

/// First wait after a failure; it doubles from there.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);

/// The longest wait after failures, where the name would be asked again sooner than that when all
/// is well. A server that comes back must not find us asleep: what has changed meanwhile is not
/// known until then, and a name that is asked this often costs a server next to nothing.
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);

/// And whatever the TTL.
const LONGEST_OF_ALL: Duration = Duration::from_secs(30);

/// What an answer says about when to ask again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answered {
    /// When it came.
    pub(super) at: Instant,
    /// Its TTL; `None`: it has none (a negative answer without SOA).
    pub(super) ttl: Option<Duration>,
    /// When the first of the targets should be looked up again.
    pub(super) targets: Option<Instant>,
    /// When a failed lookup of a target is worth another try.
    pub(super) retry: Option<Instant>,
    /// From when on another answer confirms a removal that is held back.
    pub(super) confirms_from: Option<Instant>,
}

/// The next question after an answer to the one of `asked_at`; `random` is from 0 to 1.
///
/// A fixed interval is kept as it is. Otherwise the shortest of the TTLs, within bounds, ± 10 %:
/// many instances must not ask in step. With a confirmation due, never before it can be one.
pub(super) fn after(answer: Answered, asked_at: Instant, lookup: &Lookup, random: f64) -> Instant {
    if let Some(interval) = lookup.interval {
        return asked_at + interval;
    }
    let bounded = |wait: Duration| {
        let least = lookup.min_ttl;
        wait.clamp(least, lookup.max_ttl.max(least))
    };
    let since = |moment: Instant| moment.saturating_duration_since(answer.at);
    let mut wait = bounded(answer.ttl.unwrap_or_default());
    if let Some(expiry) = answer.targets {
        wait = wait.min(bounded(since(expiry)));
    }
    if let Some(retry) = answer.retry {
        wait = wait.min(since(retry));
    }
    match answer.confirms_from {
        Some(from) => from.max(answer.at + wait.mul_f64(1.0 + 0.1 * random)),
        None => answer.at + jittered(wait, random),
    }
}

/// The wait after `failures` rounds in a row in which something went wrong: doubles from a second
/// (or the interval, if that is shorter) to five, or to the last `ttl` if that is longer, but to
/// half a minute at most; ± 10 %.
pub(super) fn backoff(
    failures: u32,
    ttl: Option<Duration>,
    lookup: &Lookup,
    random: f64,
) -> Duration {
    let first = lookup.interval.unwrap_or(FIRST_BACKOFF).min(FIRST_BACKOFF);
    let refresh = lookup.interval.or(ttl).unwrap_or_default();
    let longest = refresh
        .min(lookup.max_ttl)
        .clamp(LONGEST_BACKOFF, LONGEST_OF_ALL);
    let doublings = failures.saturating_sub(1).min(16);
    let wait = first.saturating_mul(1 << doublings).min(longest);
    jittered(wait, random)
}

fn jittered(wait: Duration, random: f64) -> Duration {
    wait.mul_f64(0.9 + 0.2 * random)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(interval: Option<Duration>) -> Lookup {
        Lookup {
            interval,
            ..Lookup::to(&[])
        }
    }

    /// Milliseconds from the answer, which came 100 ms after the question.
    fn wait(change: impl Fn(&mut Answered, Instant), interval: Option<u64>, random: f64) -> u128 {
        let at = Instant::now();
        let mut answer = Answered {
            at,
            ttl: Some(Duration::from_secs(10)),
            targets: None,
            retry: None,
            confirms_from: None,
        };
        change(&mut answer, at);
        let lookup = lookup(interval.map(Duration::from_millis));
        let next = after(answer, at - Duration::from_millis(100), &lookup, random);
        (next - at).as_millis()
    }

    #[test]
    fn the_next_question() {
        let (s, ms) = (Duration::from_secs, Duration::from_millis);
        assert_eq!(wait(|_, _| {}, None, 0.5), 10_000, "the TTL");
        assert_eq!(wait(|_, _| {}, None, 0.0), 9_000, "less 10 %");
        assert_eq!(wait(|_, _| {}, None, 1.0), 11_000, "and 10 % more");
        assert_eq!(wait(|a, _| a.ttl = Some(s(0)), None, 0.5), 1_000, "TTL 0");
        assert_eq!(wait(|a, _| a.ttl = None, None, 0.5), 1_000, "no TTL");
        assert_eq!(
            wait(|a, _| a.ttl = Some(s(3600)), None, 0.5),
            30_000,
            "a long TTL"
        );
        assert_eq!(
            wait(|a, _| a.ttl = Some(s(3600)), Some(500), 0.9),
            400,
            "a fixed ticker"
        );
        assert_eq!(
            wait(|a, t| a.targets = Some(t + s(4)), None, 0.5),
            4_000,
            "a target's TTL"
        );
        assert_eq!(
            wait(|a, t| a.targets = Some(t), None, 0.5),
            1_000,
            "which is bounded too"
        );
        assert_eq!(
            wait(|a, t| a.retry = Some(t + ms(300)), None, 0.5),
            300,
            "another try"
        );
        let confirm = |a: &mut Answered, t| a.confirms_from = Some(t + s(10));
        assert_eq!(
            wait(confirm, None, 0.0),
            10_000,
            "a confirmation is never early"
        );
        assert_eq!(
            wait(confirm, None, 1.0),
            11_000,
            "a confirmation may be late"
        );
    }

    #[test]
    fn backoff_doubles_up_to_a_bound() {
        let waits = |interval: Option<u64>, ttl: Option<u64>| {
            let lookup = lookup(interval.map(Duration::from_millis));
            let ttl = ttl.map(Duration::from_secs);
            let wait = |failures| backoff(failures, ttl, &lookup, 0.5).as_millis();
            [1, 2, 3, 6, 7, 1000].map(wait)
        };
        let short = [1000, 2000, 4000, 5000, 5000, 5000];
        assert_eq!(waits(None, None), short, "never answered");
        assert_eq!(waits(None, Some(1)), short, "a short TTL");
        let long = [1000, 2000, 4000, 30_000, 30_000, 30_000];
        assert_eq!(waits(None, Some(3600)), long, "a long one");
        let ten = [1000, 2000, 4000, 10_000, 10_000, 10_000];
        assert_eq!(waits(None, Some(10)), ten, "as when all is well");
        assert_eq!(
            waits(Some(100), Some(3600)),
            [100, 200, 400, 3200, 5000, 5000]
        );
        assert_eq!(
            waits(Some(60_000), None)[0],
            1000,
            "a slow ticker is no reason to be slow here"
        );
    }
}
