//! Frames that make work and carry nothing, counted as they come (RFC 9113 §10.5). Pure: bytes and
//! time are pushed in.
//!
//! Only the nine octets in front of each frame are looked at. Each kind has an allowance that refills
//! with time, and with what the peer was sent: whoever reads much has many windows to open. The h2 crate
//! has bounds of its own for what can be counted without a clock: CONTINUATION frames, sizes of heads,
//! resets that it causes, small DATA frames. It takes any first frame; that this has to be SETTINGS
//! (§3.4) is looked at here as well.

use std::time::Duration;

use super::Reason;
use crate::clock::Millis;

/// Counts the frames of one connection.
#[derive(Debug)]
pub struct Flood {
    /// The head of a frame, as far as it has come.
    head: [u8; HEAD],
    came: usize,
    /// Octets of the frame's payload that are still to come.
    payload: u64,
    /// Octets of the client's preface that are still to come.
    preface: usize,
    /// The first frame has come.
    begun: bool,
    allowances: [Allowance; KINDS],
    refilled: Millis,
    sent: u64,
}

/// Kinds of frames that are counted, each together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// RST_STREAM: rapid reset (CVE-2023-44487).
    Reset,
    /// PING and SETTINGS that want an answer (CVE-2019-9512, CVE-2019-9515).
    Answered,
    /// PRIORITY, PRIORITY_UPDATE, and frames that nobody knows (CVE-2019-9513).
    Ignored,
    /// WINDOW_UPDATE.
    Window,
    /// The first frame is another than SETTINGS. One is too many.
    First,
}

#[derive(Debug, Clone, Copy)]
struct Allowance {
    /// In thousandths of a frame, as here throughout.
    left: u64,
    most: u64,
    per_second: u64,
    /// For each KiB that the peer was sent.
    per_kib: u64,
}

impl Flood {
    /// Nothing has come. `preface`: octets that come before the first frame.
    pub fn new(preface: usize, now: Millis) -> Flood {
        Flood {
            head: [0; HEAD],
            came: 0,
            payload: 0,
            preface,
            begun: false,
            allowances: ALLOWANCES.map(|(burst, per_second, per_kib)| Allowance {
                left: burst * FRAME,
                most: burst * FRAME,
                per_second: per_second * FRAME,
                per_kib: per_kib * FRAME,
            }),
            refilled: now,
            sent: 0,
        }
    }

    /// The peer was sent so many octets.
    pub fn sent(&mut self, octets: usize) {
        self.sent += octets as u64;
    }

    /// Looks at what came. `Some`: of that kind there were too many first. O(frames).
    pub fn look(&mut self, mut octets: &[u8], now: Millis) -> Option<Kind> {
        let mut tripped = None;
        let skip = self.preface.min(octets.len());
        self.preface -= skip;
        octets = &octets[skip..];
        while !octets.is_empty() {
            if self.payload > 0 {
                let skip =
                    usize::try_from(self.payload).map_or(octets.len(), |n| n.min(octets.len()));
                self.payload -= skip as u64;
                octets = &octets[skip..];
                continue;
            }
            let take = (HEAD - self.came).min(octets.len());
            self.head[self.came..self.came + take].copy_from_slice(&octets[..take]);
            self.came += take;
            octets = &octets[take..];
            if self.came < HEAD {
                break;
            }
            self.came = 0;
            let [a, b, c, kind, flags, ..] = self.head;
            self.payload = u64::from(u32::from_be_bytes([0, a, b, c]));
            let is_first = !std::mem::replace(&mut self.begun, true);
            if is_first {
                if (kind, flags & ACK) != (SETTINGS, 0) {
                    tripped = tripped.or(Some(Kind::First));
                }
            } else if let Some(kind) = Kind::of(kind, flags)
                && !self.spend(kind, now)
            {
                tripped = tripped.or(Some(kind));
            }
        }
        tripped
    }

    fn spend(&mut self, kind: Kind, now: Millis) -> bool {
        let allowance = &mut self.allowances[kind as usize];
        if allowance.left < FRAME {
            self.refill(now);
        }
        let allowance = &mut self.allowances[kind as usize];
        match allowance.left.checked_sub(FRAME) {
            Some(left) => allowance.left = left,
            None => return false,
        }
        true
    }

    fn refill(&mut self, now: Millis) {
        let passed = now.since(self.refilled).min(LONG).as_millis() as u64;
        let (kib, rest) = (self.sent / 1024, self.sent % 1024);
        for allowance in &mut self.allowances {
            let earned = allowance.per_second * passed / 1000 + allowance.per_kib * kib;
            allowance.left = allowance.left.saturating_add(earned).min(allowance.most);
        }
        self.refilled = now.max(self.refilled);
        self.sent = rest;
    }
}

impl Kind {
    /// What a frame counts as, if it is counted (RFC 9113 §6, RFC 9218 §7).
    fn of(kind: u8, flags: u8) -> Option<Kind> {
        match kind {
            // DATA, HEADERS, PUSH_PROMISE, GOAWAY, CONTINUATION: bounded elsewhere.
            0 | 1 | 5 | 7 | 9 => None,
            3 => Some(Kind::Reset),
            SETTINGS | 6 if flags & ACK == 0 => Some(Kind::Answered),
            SETTINGS | 6 => Some(Kind::Ignored),
            8 => Some(Kind::Window),
            _ => Some(Kind::Ignored),
        }
    }

    /// Name for logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Reset => "reset_flood",
            Kind::Answered => "ping_flood",
            Kind::Ignored => "ignored_frame_flood",
            Kind::Window => "window_flood",
            Kind::First => "no_settings",
        }
    }

    /// What the peer is told.
    pub fn reason(self) -> Reason {
        match self {
            Kind::First => Reason::PROTOCOL_ERROR,
            _ => Reason::ENHANCE_YOUR_CALM,
        }
    }
}

/// A type, and a flag of it.
const SETTINGS: u8 = 4;
const ACK: u8 = 1;

/// Octets of a frame's head (RFC 9113 §4.1).
const HEAD: usize = 9;

const KINDS: usize = 4;

/// One frame.
const FRAME: u64 = 1000;

/// Frames at once, per second, and for each KiB sent, in the order of [`Kind`]. A page whose reader
/// leaves resets some hundred streams; nghttp2 lets 1,000 pass and then 33 a second. A peer that reads
/// opens two windows, its stream's and its connection's, at most for each small frame that it gets.
const ALLOWANCES: [(u64, u64, u64); KINDS] = [
    (1000, 100, 0),
    (1000, 100, 8),
    (2000, 200, 0),
    (10_000, 1000, 8),
];

/// No allowance takes longer to refill.
const LONG: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let mut frame = vec![
            0,
            (payload >> 8) as u8,
            payload as u8,
            kind,
            flags,
            0,
            0,
            0,
            1,
        ];
        frame.resize(HEAD + payload, 0xff);
        frame
    }

    /// The preface and the frame that belongs to it.
    fn begun() -> Vec<u8> {
        [vec![b'P'; 24], frame(SETTINGS, 0, 0)].concat()
    }

    #[test]
    fn the_first_frame_is_settings() {
        for (rule, kind, flags, expected) in [
            ("SETTINGS", SETTINGS, 0, None),
            (
                "an acknowledgement of none",
                SETTINGS,
                ACK,
                Some(Kind::First),
            ),
            ("another", 6, 0, Some(Kind::First)),
        ] {
            let mut flood = Flood::new(0, Millis(5));
            assert_eq!(
                flood.look(&frame(kind, flags, 0), Millis(5)),
                expected,
                "{rule}"
            );
        }
    }

    #[test]
    fn what_is_counted() {
        for (rule, kind, flags, payload, most) in [
            ("DATA is not", 0, 0, 100, usize::MAX),
            ("HEADERS are not", 1, 4, 10, usize::MAX),
            ("RST_STREAM", 3, 0, 4, 1000),
            ("SETTINGS", 4, 0, 0, 1000),
            ("an acknowledgement", 4, 1, 0, 2000),
            ("PING", 6, 0, 8, 1000),
            ("PRIORITY", 2, 0, 5, 2000),
            ("PRIORITY_UPDATE", 0x10, 0, 7, 2000),
            ("an unknown one", 0xee, 0, 0, 2000),
            ("WINDOW_UPDATE", 8, 0, 4, 10_000),
        ] {
            let mut flood = Flood::new(24, Millis(5));
            assert_eq!(flood.look(&begun(), Millis(5)), None);
            let frame = frame(kind, flags, payload);
            let passed = (0..20_000)
                .position(|_| flood.look(&frame, Millis(5)).is_some())
                .unwrap_or(usize::MAX);
            assert_eq!(passed, most, "{rule}");
        }
    }

    #[test]
    fn pieces_of_any_size_count_alike() {
        let mut octets = begun();
        for _ in 0..500 {
            octets.extend(frame(6, 0, 8));
            octets.extend(frame(0, 0, 300));
            octets.extend(frame(3, 0, 4));
        }
        for size in [1, 2, 3, 8, 9, 10, 17, 1000, octets.len()] {
            let mut flood = Flood::new(24, Millis(1));
            for piece in octets.chunks(size) {
                assert_eq!(flood.look(piece, Millis(1)), None, "{size}");
            }
            let more = frame(6, 0, 8);
            let passed = (0..1000).position(|_| flood.look(&more, Millis(1)).is_some());
            assert_eq!(passed, Some(500), "{size}");
        }
    }

    #[test]
    fn time_and_what_was_sent_refill() {
        let mut flood = Flood::new(0, Millis(1));
        assert_eq!(flood.look(&begun()[24..], Millis(1)), None);
        let (ping, window) = (frame(6, 0, 8), frame(8, 0, 4));
        while flood.look(&ping, Millis(1)).is_none() {}
        assert_eq!(flood.look(&ping, Millis(101)), None, "ten in 100 ms");
        while flood.look(&window, Millis(101)).is_none() {}
        flood.sent(1024);
        let passed = (0..100).position(|_| flood.look(&window, Millis(101)).is_some());
        assert_eq!(passed, Some(8));
    }
}
