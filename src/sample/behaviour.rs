//! What a request gets: by its path and query, by the backend's settings, by chance. Pure.

use std::str::FromStr;
use std::time::Duration;

use super::{Phase, Sample};
use crate::http::head::RequestHead;

/// Longer delays are refused: a request must end while somebody waits for it.
pub const LONGEST_DELAY: Duration = Duration::from_secs(60);

/// Bytes of the largest answer that can be asked for. It is made while it is sent.
pub const LARGEST_ANSWER: u64 = 1 << 30;

/// A time, or any between two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Delay {
    least: Duration,
    most: Duration,
}

impl Delay {
    /// One of them, `random` being from [0, 1).
    fn pick(self, random: f64) -> Duration {
        self.least + (self.most - self.least).mul_f64(random)
    }
}

impl FromStr for Delay {
    type Err = String;

    /// `50ms`, or `20ms..80ms`.
    fn from_str(text: &str) -> Result<Delay, String> {
        let (least, most) = text.split_once("..").unwrap_or((text, text));
        let time = |text: &str| match humantime::parse_duration(text.trim()) {
            Ok(time) if time <= LONGEST_DELAY => Ok(time),
            Ok(_) => Err(format!("{} s at most", LONGEST_DELAY.as_secs())),
            Err(_) => Err("a time such as 50ms, or two such as 20ms..80ms".to_owned()),
        };
        let (least, most) = (time(least)?, time(most)?);
        match least <= most {
            true => Ok(Delay { least, most }),
            false => Err("the shorter time comes first".to_owned()),
        }
    }
}

/// A share of all requests, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Chance(f64);

impl FromStr for Chance {
    type Err = String;

    /// `5%`, or `5`.
    fn from_str(text: &str) -> Result<Chance, String> {
        let number = text.strip_suffix('%').unwrap_or(text).trim_end();
        match number.parse::<f64>() {
            Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(Chance(percent / 100.0)),
            _ => Err("from 0% to 100%".to_owned()),
        }
    }
}

/// What a request gets.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Behaviour {
    /// First this passes.
    pub(super) delay: Duration,
    /// Then this is sent.
    pub(super) status: u16,
    pub(super) content: Content,
    /// Why the status is what it is, where the request did not ask for it.
    pub(super) note: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// The request, shown.
    Echo,
    /// So many bytes.
    Bytes(u64),
    /// One word, for health checks.
    Health,
}

/// Two numbers from [0, 1).
pub(super) type Dice = [f64; 2];

/// Decides. A query overrides the settings; a mistake in it is a 400.
pub(super) fn behaviour(
    sample: &Sample,
    head: &RequestHead,
    phase: Phase,
    [first, second]: Dice,
) -> Behaviour {
    if head.path == b"/healthz" {
        return Behaviour {
            delay: Duration::ZERO,
            status: if phase == Phase::Serving { 200 } else { 503 },
            content: Content::Health,
            note: None,
        };
    }
    let wishes = match Wishes::read(&head.query) {
        Ok(wishes) => wishes,
        Err(mistake) => {
            return Behaviour {
                delay: Duration::ZERO,
                status: 400,
                content: Content::Echo,
                note: Some(mistake),
            };
        }
    };
    let delay = wishes.delay.unwrap_or(sample.delay).pick(first);
    let Chance(error_rate) = sample.error_rate;
    if wishes.status.is_none() && second < error_rate {
        return Behaviour {
            delay,
            status: 503,
            content: Content::Echo,
            note: Some(format!("by chance: --error-rate {}%", error_rate * 100.0)),
        };
    }
    Behaviour {
        delay,
        status: wishes.status.unwrap_or(200),
        content: wishes.bytes.map_or(Content::Echo, Content::Bytes),
        note: None,
    }
}

/// What a query asks for.
#[derive(Debug, Default)]
struct Wishes {
    delay: Option<Delay>,
    status: Option<u16>,
    bytes: Option<u64>,
}

impl Wishes {
    /// `?delay=…&status=…&bytes=…`, each as often as it comes, the last one counts; whatever else
    /// there is was meant for somebody else. Percent-encoding is not undone: nothing here needs it.
    fn read(query: &[u8]) -> Result<Wishes, String> {
        let mut wishes = Wishes::default();
        let query = query.strip_prefix(b"?").unwrap_or(query);
        for parameter in query.split(|b| *b == b'&') {
            // What is no UTF-8 is none of ours.
            let parameter = str::from_utf8(parameter).unwrap_or_default();
            let Some((name, value)) = parameter.split_once('=') else {
                continue;
            };
            let mistake = |why: &str| format!("{name}={value}: {why}");
            match name {
                "delay" => wishes.delay = Some(value.parse().map_err(|e: String| mistake(&e))?),
                "status" => {
                    let status = value.parse().ok().filter(|s| (200..=599).contains(s));
                    wishes.status = Some(status.ok_or_else(|| mistake("from 200 to 599"))?);
                }
                "bytes" => {
                    let bytes = value.parse().ok().filter(|n| *n <= LARGEST_ANSWER);
                    let why = || mistake(&format!("a number, {LARGEST_ANSWER} at most"));
                    wishes.bytes = Some(bytes.ok_or_else(why)?);
                }
                _ => {}
            }
        }
        Ok(wishes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(target: &str, sample: &Sample, phase: Phase, dice: Dice) -> Behaviour {
        let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
        let head = RequestHead {
            path: path.into(),
            query: query.into(),
            ..RequestHead::default()
        };
        behaviour(sample, &head, phase, dice)
    }

    #[test]
    fn what_a_query_asks_for() {
        let sample = Sample {
            delay: "10ms".parse().unwrap(),
            ..Sample::new("b")
        };
        let echo = Content::Echo;
        for (target, delay, status, content) in [
            ("/", 10, 200, echo),
            ("/a?b=c&&d", 10, 200, echo),
            ("/?delay=100ms", 100, 200, echo),
            ("/?delay=100ms..300ms", 150, 200, echo),
            ("/?delay=0s", 0, 200, echo),
            ("/a?status=503", 10, 503, echo),
            ("/?x=1&status=404&delay=1s&y", 1_000, 404, echo),
            ("/?status=500&status=200", 10, 200, echo),
            ("/?bytes=10000", 10, 200, Content::Bytes(10_000)),
            ("/?bytes=0&status=201", 10, 201, Content::Bytes(0)),
            ("/?bytes=1073741824", 10, 200, Content::Bytes(1 << 30)),
            ("/healthz?status=500&delay=1s", 0, 200, Content::Health),
        ] {
            let expected = Behaviour {
                delay: Duration::from_millis(delay),
                status,
                content,
                note: None,
            };
            let found = of(target, &sample, Phase::Serving, [0.25, 0.0]);
            assert_eq!(found, expected, "{target}");
        }
        for (query, words) in [
            ("delay=soon", "delay=soon: a time such as"),
            ("delay=61s", "60 s at most"),
            ("delay=2s..1s", "the shorter time comes first"),
            ("delay=", "a time such as"),
            ("status=199", "status=199: from 200 to 599"),
            ("status=600", "from 200 to 599"),
            ("status=abc", "from 200 to 599"),
            ("bytes=-1", "bytes=-1: a number"),
            ("bytes=1073741825", "1073741824 at most"),
        ] {
            let found = of(&format!("/?{query}"), &sample, Phase::Serving, [0.0, 0.0]);
            assert_eq!((found.status, found.delay), (400, Duration::ZERO));
            assert!(found.note.unwrap().contains(words), "{query}");
        }
    }

    #[test]
    fn errors_come_by_chance_and_only_where_no_status_was_asked_for() {
        let sample = Sample {
            error_rate: "12.5%".parse().unwrap(),
            ..Sample::new("b")
        };
        for (target, dice, status) in [
            ("/", 0.124, 503),
            ("/?bytes=5", 0.124, 503),
            ("/", 0.125, 200),
            ("/?status=200", 0.0, 200),
            ("/healthz", 0.0, 200),
        ] {
            let found = of(target, &sample, Phase::Serving, [0.0, dice]);
            assert_eq!(found.status, status, "{target} {dice}");
            let note = (found.status == 503).then_some("by chance: --error-rate 12.5%");
            assert_eq!(found.note.as_deref(), note);
        }
        assert_eq!(
            of("/", &Sample::new("b"), Phase::Serving, [0.0, 0.0]).status,
            200
        );
    }

    #[test]
    fn who_joins_or_leaves_is_not_healthy_and_serves() {
        for phase in [Phase::Joining, Phase::Leaving, Phase::Closing] {
            let status = |target| of(target, &Sample::new("b"), phase, [0.0, 0.0]).status;
            assert_eq!(status("/healthz"), 503);
            assert_eq!(status("/healthzz"), 200);
            assert_eq!(status("/"), 200);
        }
    }

    #[test]
    fn settings() {
        let delay = |text: &str| text.parse::<Delay>();
        assert_eq!(delay("50ms"), delay("50ms..50ms"));
        let range = delay("20ms..80ms").unwrap();
        for (random, millis) in [(0.0, 20), (0.5, 50)] {
            assert_eq!(range.pick(random).as_millis(), millis);
        }
        for wrong in ["", "..", "5", "80ms..20ms", "2m", "1s..", "-1s"] {
            assert!(delay(wrong).is_err(), "{wrong}");
        }
        let chance = |text: &str| text.parse::<Chance>();
        assert_eq!(chance("5%"), chance("5"));
        assert_eq!(chance("100%"), Ok(Chance(1.0)));
        for wrong in ["", "%", "-1%", "101", "NaN", "inf%", "half"] {
            assert!(chance(wrong).is_err(), "{wrong}");
        }
    }
}
