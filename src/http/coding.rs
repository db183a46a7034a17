//! Content codings, and which of them a client takes (RFC 9110 §8.4, §12.5.3). Pure.

use super::headers::{list_members, trim};

/// A content coding that a body can be given here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Coding {
    /// Zstandard (RFC 8878).
    Zstd,
    /// Brotli (RFC 7932).
    Brotli,
    /// gzip (RFC 1952).
    Gzip,
}

impl Coding {
    /// All of them, the one that gives most for its time first.
    pub const ALL: [Coding; 3] = [Coding::Zstd, Coding::Brotli, Coding::Gzip];

    /// What HTTP calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Coding::Zstd => "zstd",
            Coding::Brotli => "br",
            Coding::Gzip => "gzip",
        }
    }

    /// Is that its name? RFC 9110 §8.4.1.3: `x-gzip` is gzip.
    fn is_called(self, name: &[u8]) -> bool {
        name.eq_ignore_ascii_case(self.name().as_bytes())
            || (self == Coding::Gzip && name.eq_ignore_ascii_case(b"x-gzip"))
    }
}

/// Which of `offered` a client prefers that says `accepted` (the values of its `Accept-Encoding`).
/// Those that it likes as much as each other go by the order of `offered`. `None`: none at all, or it
/// would rather have the body as it is. O(offered · members).
pub fn negotiate<'a>(
    offered: &[Coding],
    accepted: impl Iterator<Item = &'a [u8]> + Clone,
) -> Option<Coding> {
    let weight = |is_called: &dyn Fn(&[u8]) -> bool| {
        let weights = list_members(accepted.clone()).filter_map(|member| {
            let (name, weight) = weighted(member);
            is_called(name).then_some(weight)
        });
        // Said twice, and differently: what it would rather not have it is not given.
        weights.min()
    };
    let any = weight(&|name| name == b"*");
    // RFC 9110 §12.5.3: acceptable unless it is excluded, but nobody's wish.
    let identity = weight(&|name| name.eq_ignore_ascii_case(b"identity")).unwrap_or(0);
    let mut best = None;
    for coding in offered {
        let own = weight(&|name| coding.is_called(name)).or(any).unwrap_or(0);
        if own > 0 && own >= identity && best.is_none_or(|(most, _)| own > most) {
            best = Some((own, *coding));
        }
    }
    best.map(|(_, coding)| coding)
}

/// A member of `Accept-Encoding`: name, and weight in thousandths. A weight that is none is 0.
fn weighted(member: &[u8]) -> (&[u8], u16) {
    let mut parts = member.split(|b| *b == b';').map(trim);
    let name = parts.next().unwrap_or_default();
    let weight = parts.find_map(|part| {
        let end = part.iter().position(|b| *b == b'=').unwrap_or(part.len());
        let (name, weight) = part.split_at(end);
        // RFC 9110 §5.6.6: no white space around the `=`.
        let weight = weight.strip_prefix(b"=").filter(|_| name.len() == 1);
        let is_weight = trim(name).eq_ignore_ascii_case(b"q");
        is_weight.then(|| weight.and_then(thousandths).unwrap_or(0))
    });
    (name, weight.unwrap_or(1_000))
}

/// RFC 9110 §12.4.2.
fn thousandths(weight: &[u8]) -> Option<u16> {
    let (whole, decimals) = match weight {
        [whole] | [whole, b'.'] => (whole, &[][..]),
        [whole, b'.', decimals @ ..] if decimals.len() <= 3 => (whole, decimals),
        _ => return None,
    };
    let mut value = match whole {
        b'0' => 0,
        b'1' => 1,
        _ => return None,
    };
    for place in 0..3 {
        let digit = decimals.get(place).copied().unwrap_or(b'0');
        value = value * 10 + u16::from(digit.is_ascii_digit().then(|| digit - b'0')?);
    }
    (value <= 1_000).then_some(value)
}

/// Does content of this type become noticeably shorter? Pictures, sound, films and archives are coded
/// already; calls of gRPC and Connect are in frames, which have codings of their own; what is not known is
/// left alone.
pub fn is_compressible(content_type: &[u8]) -> bool {
    let name = media_type(content_type);
    let has = |part: &str, at: usize| {
        let found = name.get(at..at + part.len());
        found.is_some_and(|found| found.eq_ignore_ascii_case(part.as_bytes()))
    };
    let ends = |part: &str| name.len() >= part.len() && has(part, name.len() - part.len());
    if FRAMED.iter().any(|part| has(part, 0)) {
        return false;
    }
    has("text/", 0)
        || ["+json", "+xml", "+text"].into_iter().any(ends)
        || is_one_of(name, &COMPRESSIBLE)
}

/// Is content of this type a sequence that may go on for hours, and say nothing most of the time?
pub fn is_sequence(content_type: &[u8]) -> bool {
    is_one_of(media_type(content_type), &SEQUENCES)
}

/// Without its parameters.
fn media_type(content_type: &[u8]) -> &[u8] {
    let end = content_type.iter().position(|b| *b == b';');
    trim(&content_type[..end.unwrap_or(content_type.len())])
}

fn is_one_of(name: &[u8], known: &[&str]) -> bool {
    let mut known = known.iter();
    known.any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
}

/// What types begin with that are never coded, whatever they end with.
const FRAMED: [&str; 2] = ["application/grpc", "application/connect+"];

/// Events, and lines of JSON.
const SEQUENCES: [&str; 3] = [
    "text/event-stream",
    "application/x-ndjson",
    "application/jsonl",
];

/// Besides `text/*`, `*+json`, `*+xml` and `*+text`.
const COMPRESSIBLE: [&str; 18] = [
    "application/ecmascript",
    "application/javascript",
    "application/json",
    "application/x-javascript",
    "application/x-ndjson",
    "application/jsonl",
    "application/manifest",
    "application/rtf",
    "application/toml",
    "application/vnd.ms-fontobject",
    "application/wasm",
    "application/xml",
    "application/yaml",
    "font/otf",
    "font/ttf",
    "image/bmp",
    "image/x-icon",
    "image/vnd.microsoft.icon",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negotiation() {
        use Coding::{Brotli, Gzip, Zstd};
        for (accepted, offered, expected) in [
            (
                &["gzip, deflate, br, zstd"][..],
                &Coding::ALL[..],
                Some(Zstd),
            ),
            (&["gzip, deflate, br, zstd"], &[Gzip, Zstd], Some(Gzip)),
            (&["gzip, deflate"], &Coding::ALL, Some(Gzip)),
            (&["x-gzip"], &Coding::ALL, Some(Gzip)),
            (&["GZIP"], &Coding::ALL, Some(Gzip)),
            (&["deflate"], &Coding::ALL, None),
            (&[], &Coding::ALL, None),
            (&[""], &Coding::ALL, None),
            (&["*"], &[Brotli, Gzip], Some(Brotli)),
            (&["*;q=0"], &Coding::ALL, None),
            (&["*;q=0, br"], &Coding::ALL, Some(Brotli)),
            (&["*;q=0.5, zstd;q=0"], &Coding::ALL, Some(Brotli)),
            (
                &["zstd;q=0.2, gzip;q=0.9, br;q=0.899"],
                &Coding::ALL,
                Some(Gzip),
            ),
            (&["zstd;q=0.2", "br;q=1.000"], &Coding::ALL, Some(Brotli)),
            (&["gzip;q=0.5, identity"], &Coding::ALL, None),
            (&["gzip;q=0.5, identity;q=0.5"], &Coding::ALL, Some(Gzip)),
            (&["gzip ; q=0.5 , identity;q=0"], &Coding::ALL, Some(Gzip)),
            (&["gzip;q=0"], &Coding::ALL, None),
            (&["gzip;q=0.000"], &Coding::ALL, None),
            (&["gzip;q=0.001"], &Coding::ALL, Some(Gzip)),
            (&["gzip, gzip;q=0"], &Coding::ALL, None),
            (&["gzip;q=2"], &Coding::ALL, None),
            (&["gzip;q=0.0001"], &Coding::ALL, None),
            (&["gzip;q=1.001"], &Coding::ALL, None),
            (&["gzip;q="], &Coding::ALL, None),
            (&["gzip;q=x"], &Coding::ALL, None),
            (&["gzip;q"], &Coding::ALL, None),
            (&["gzip;q = 0"], &Coding::ALL, None),
            (&["gzip;q =1"], &Coding::ALL, None),
            (&["gzip;Q= 1"], &Coding::ALL, None),
            (&["gzip;Q=1"], &Coding::ALL, Some(Gzip)),
            (&["gzip;quick;q=0.1, br"], &Coding::ALL, Some(Brotli)),
            (&["gzip;level=3;q=1."], &Coding::ALL, Some(Gzip)),
            (&["gzip"], &[], None),
        ] {
            let values = accepted.iter().map(|value| value.as_bytes());
            assert_eq!(
                negotiate(offered, values),
                expected,
                "{accepted:?} {offered:?}"
            );
        }
    }

    #[test]
    fn types() {
        for (content_type, expected) in [
            ("text/html; charset=utf-8", true),
            ("Text/Plain", true),
            ("text/event-stream", true),
            ("application/json;charset=utf-8", true),
            ("application/problem+json", true),
            ("image/svg+xml ; x", true),
            ("APPLICATION/WASM", true),
            ("application/jsonish", false),
            ("image/png", false),
            ("application/grpc", false),
            ("application/grpc+proto", false),
            ("application/grpc+json", false),
            ("Application/gRPC-Web+JSON; charset=utf-8", false),
            ("application/connect+json", false),
            ("application/connected+json", true),
            ("application/octet-stream", false),
            ("+json", true),
            ("", false),
            (";text/html", false),
        ] {
            assert_eq!(
                is_compressible(content_type.as_bytes()),
                expected,
                "{content_type}"
            );
        }
    }

    #[test]
    fn sequences() {
        for (content_type, expected) in [
            ("text/event-stream", true),
            ("Text/Event-Stream ; charset=utf-8", true),
            ("application/x-ndjson", true),
            ("text/plain", false),
            ("", false),
        ] {
            let content_type = content_type.as_bytes();
            assert_eq!(is_sequence(content_type), expected);
        }
    }
}
