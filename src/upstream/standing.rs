//! Whether a backend may be picked, apart from its connects: what its checks say, and ejection.
//! Pure: `backend.rs` holds the words in atomics.
//!
//! An ejection runs from `Ejected` to a trial: once its time is over one request goes there, and
//! what becomes of it decides. The control thread ejects and takes back; a worker only wins the
//! trial, by compare-and-swap. A trial of which nothing is heard is over after [`TRIAL`].

use std::time::Duration;

use crate::clock::Millis;

/// An ejection as far as it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ejection {
    /// Not ejected.
    #[default]
    None,
    /// Out until then; from then on one request may try.
    Until(Millis),
    /// One request is trying. If nothing is heard of it until then, another one may.
    Trial(Millis),
}

/// Why a backend is out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Reason {
    /// It is not.
    #[default]
    None = 0,
    /// It has not passed a check yet, and is out until then.
    Unchecked,
    /// Connects of its checks were refused, or led nowhere.
    CheckConnect,
    /// Its checks were not answered in time.
    CheckTimeout,
    /// Its checks were answered with another status than expected, or with another body.
    CheckAnswer,
    /// So many attempts in a row failed.
    Failures,
    /// Fewer attempts succeeded than with the others of its tier.
    SuccessRate,
    /// Connects to it failed a moment ago.
    Connect,
    /// Somebody said so.
    ByHand,
}

/// Whether a backend may be picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It may.
    Up,
    /// Passed over for a moment because connects failed; picked if nobody else is left.
    PassedOver,
    /// Ejected because of what became of requests.
    Ejected,
    /// Ejected, and one request is finding out whether it is back.
    Trial,
    /// Its checks fail.
    Down,
    /// It gets no new request, but those that a cookie leads to it.
    Drained,
}

impl Ejection {
    /// Until when it is out as seen at `now`; `None`: a request may go there, as a trial if it is
    /// ejected at all.
    pub fn out_until(self, now: Millis) -> Option<Millis> {
        match self {
            Ejection::None => None,
            Ejection::Until(until) | Ejection::Trial(until) => (until > now).then_some(until),
        }
    }

    /// The trial that begins at `now`.
    pub fn trial(now: Millis) -> Ejection {
        Ejection::Trial(now.after(TRIAL))
    }

    pub(super) fn pack(self) -> u64 {
        match self {
            Ejection::None => 0,
            Ejection::Until(until) => (until.0 << KIND_BITS) | 1,
            Ejection::Trial(until) => (until.0 << KIND_BITS) | 2,
        }
    }

    pub(super) fn unpack(word: u64) -> Ejection {
        let until = Millis(word >> KIND_BITS);
        match word & ((1 << KIND_BITS) - 1) {
            0 => Ejection::None,
            1 => Ejection::Until(until),
            _ => Ejection::Trial(until),
        }
    }
}

impl Reason {
    /// As logs and metrics call it; empty if there is none.
    pub fn name(self) -> &'static str {
        match self {
            Reason::None => "",
            Reason::Unchecked => "unchecked",
            Reason::CheckConnect => "check_connect",
            Reason::CheckTimeout => "check_timeout",
            Reason::CheckAnswer => "check_answer",
            Reason::Failures => "failures",
            Reason::SuccessRate => "success_rate",
            Reason::Connect => "connect",
            Reason::ByHand => "by_hand",
        }
    }

    /// In plain words, for events.
    pub fn words(self) -> &'static str {
        match self {
            Reason::None => "",
            Reason::Unchecked => "not checked yet",
            Reason::CheckConnect => "checks cannot connect",
            Reason::CheckTimeout => "checks run out of time",
            Reason::CheckAnswer => "checks get a bad answer",
            Reason::Failures => "too many failures in a row",
            Reason::SuccessRate => "far fewer successes than the others have",
            Reason::Connect => "it cannot be connected to",
            Reason::ByHand => "drained by hand",
        }
    }

    pub(super) fn of(byte: u8) -> Reason {
        [
            Reason::None,
            Reason::Unchecked,
            Reason::CheckConnect,
            Reason::CheckTimeout,
            Reason::CheckAnswer,
            Reason::Failures,
            Reason::SuccessRate,
            Reason::Connect,
            Reason::ByHand,
        ]
        .get(usize::from(byte))
        .copied()
        .unwrap_or_default()
    }
}

impl State {
    /// All of them.
    pub const ALL: [State; 6] = [
        State::Up,
        State::PassedOver,
        State::Ejected,
        State::Trial,
        State::Down,
        State::Drained,
    ];

    /// As logs and metrics call it.
    pub fn name(self) -> &'static str {
        match self {
            State::Up => "up",
            State::PassedOver => "passed_over",
            State::Ejected => "ejected",
            State::Trial => "trial",
            State::Down => "down",
            State::Drained => "drained",
        }
    }
}

/// After so long without news of a trial another request may try. Longer than most responses take;
/// a slow one is not harmed by a second trial beside it.
pub const TRIAL: Duration = Duration::from_secs(10);

/// Bits for the kind of an [`Ejection`]; the other 62 hold milliseconds.
const KIND_BITS: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_holds_every_ejection() {
        for until in [0, 1, u64::from(u32::MAX), (1 << 62) - 1] {
            for ejection in [
                Ejection::None,
                Ejection::Until(Millis(until)),
                Ejection::Trial(Millis(until)),
            ] {
                assert_eq!(Ejection::unpack(ejection.pack()), ejection);
            }
        }
    }

    #[test]
    fn the_byte_holds_every_reason() {
        for byte in 0..=u8::MAX {
            let reason = Reason::of(byte);
            assert!(reason == Reason::None || reason as u8 == byte);
        }
        assert_eq!(Reason::of(Reason::ByHand as u8), Reason::ByHand);
    }

    #[test]
    fn out_until() {
        for (rule, ejection, now, expected) in [
            ("not ejected", Ejection::None, 5, None),
            ("in its time", Ejection::Until(Millis(9)), 8, Some(9)),
            (
                "time over: a trial is due",
                Ejection::Until(Millis(9)),
                9,
                None,
            ),
            (
                "a trial is under way",
                Ejection::Trial(Millis(9)),
                8,
                Some(9),
            ),
            (
                "nothing was heard of it",
                Ejection::Trial(Millis(9)),
                9,
                None,
            ),
        ] {
            let until = ejection.out_until(Millis(now));
            assert_eq!(until, expected.map(Millis), "{rule}");
        }
    }
}
