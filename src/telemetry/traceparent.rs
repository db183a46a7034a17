//! `traceparent`: which trace a request belongs to (W3C Trace Context §3.2). Pure.

/// One that is valid, its parts in lower-case hex.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traceparent<'a> {
    /// 32 digits.
    pub trace: &'a [u8],
    /// Id of the span that is above: 16 digits.
    pub parent: &'a [u8],
    /// Two digits.
    flags: &'a [u8],
}

impl<'a> Traceparent<'a> {
    /// Version, trace id, parent id and flags, of which the version is not ff and no id is all zeros
    /// (§3.2.2). Later versions may have more after it. `None`: it is not valid.
    pub fn parse(text: &'a [u8]) -> Option<Traceparent<'a>> {
        let head = text.get(..LENGTH)?;
        let hex = |part: &[u8]| part.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let zero = |part: &[u8]| part.iter().all(|&b| b == b'0');
        let (version, trace, parent, flags) =
            (&head[..2], &head[3..35], &head[36..52], &head[53..]);
        let dashes = [head[2], head[35], head[52]] == *b"---";
        let after = &text[LENGTH..];
        let ends = after.is_empty() || (version != b"00" && after[0] == b'-');
        let valid = dashes
            && ends
            && [version, trace, parent, flags].into_iter().all(hex)
            && version != b"ff"
            && !zero(trace)
            && !zero(parent);
        valid.then_some(Traceparent {
            trace,
            parent,
            flags,
        })
    }

    /// Whoever is above may have recorded its part (§3.2.2.5.1).
    pub fn is_sampled(&self) -> bool {
        number(self.flags) & 1 == 1
    }

    /// The trace id and the parent's.
    pub fn ids(&self) -> (u128, u64) {
        (number(self.trace), number(self.parent) as u64)
    }
}

/// Bytes of one of version 00.
pub const LENGTH: usize = 55;

/// Of hex digits, 32 at most.
fn number(digits: &[u8]) -> u128 {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).unwrap_or_default();
    digits
        .iter()
        .fold(0, |n, byte| n << 4 | u128::from(digit(byte)))
}
