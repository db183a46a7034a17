//! What of a request, besides host and path, a route asks for: its method, header fields and
//! parameters of the query. As written, as it is, and how the conditions of two routes stand to each
//! other. `router` asks whether a request meets them.

use super::build::missing;
use super::diagnostics::{Problem, Problems};
use super::raw;
use super::read::{At, Read, Refusal, Scalar, table};
use super::routes::is_token_byte;
use super::schema;
use super::source::Span;
use super::tree::{Node, Value};
use super::written::{REDACTED, is_secret};

/// What a route asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conditions {
    /// One of these; empty: any. Sorted.
    pub methods: Vec<Box<str>>,
    /// All of these fields, by their names in lower case. Sorted, each name once.
    pub headers: Vec<(Box<str>, Wanted)>,
    /// All of these parameters of the query, by their decoded names. Sorted, each name once.
    pub query: Vec<(Box<str>, Wanted)>,
}

/// How much conditions ask for. The first difference decides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// Fields and parameters that are looked at; all methods count as one.
    pub conditions: usize,
    /// Of them, those whose whole value is asked for.
    pub values: usize,
    /// Bytes of the beginnings that are asked for.
    pub prefixes: usize,
}

/// What is asked of one field or parameter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wanted {
    /// It is there and has this value.
    Value(Box<str>),
    /// It is there and its value begins so. Not empty.
    Prefix(Box<str>),
    /// It is there.
    Present,
    /// It is not there.
    Absent,
}

impl Conditions {
    /// Is nothing asked for?
    pub fn is_empty(&self) -> bool {
        self.rank() == Rank::default()
    }

    /// Of two routes with the same host and path, the one with the higher rank goes first.
    pub fn rank(&self) -> Rank {
        let mut rank = Rank {
            conditions: usize::from(!self.methods.is_empty()),
            ..Rank::default()
        };
        for (_, wanted) in self.headers.iter().chain(&self.query) {
            rank.conditions += 1;
            match wanted {
                Wanted::Value(_) => rank.values += 1,
                Wanted::Prefix(prefix) => rank.prefixes += prefix.len(),
                Wanted::Present | Wanted::Absent => {}
            }
        }
        rank
    }

    /// Do they have a method in common, among others?
    pub(super) fn share_methods(&self, other: &Conditions) -> bool {
        self.methods != other.methods && self.methods.iter().any(|m| other.methods.contains(m))
    }

    /// Can one request meet both?
    pub(super) fn compatible(&self, other: &Conditions) -> bool {
        let methods = self.methods.is_empty()
            || other.methods.is_empty()
            || self.methods.iter().any(|m| other.methods.contains(m));
        methods
            && compatible(&self.headers, &other.headers)
            && compatible(&self.query, &other.query)
    }

    /// Does every request meet this that meets both `a` and `b`? They are compatible.
    pub(super) fn follow_from(&self, a: &Conditions, b: &Conditions) -> bool {
        let allowed = |method: &str| {
            let has = |c: &Conditions| c.methods.iter().any(|known| **known == *method);
            let by = |c: &Conditions| c.methods.is_empty() || has(c);
            by(a) && by(b)
        };
        let mut both = a.methods.iter().chain(&b.methods).filter(|m| allowed(m));
        let methods = self.methods.is_empty()
            || (!(a.methods.is_empty() && b.methods.is_empty())
                && both.all(|m| self.methods.contains(m)));
        methods
            && follow(&self.headers, &a.headers, &b.headers)
            && follow(&self.query, &a.query, &b.query)
    }

    /// For the label of a route without a name.
    pub(super) fn label(&self) -> String {
        let mut text = String::new();
        if !self.methods.is_empty() {
            text.push_str(&format!(" {}", self.methods.join(",")));
        }
        let all = [("", &self.headers), ("?", &self.query)];
        for (mark, list) in all {
            for (name, wanted) in list {
                // It stands in logs and on pages.
                let shown = |value| match is_secret(name) {
                    true => REDACTED,
                    false => value,
                };
                text.push_str(&match wanted {
                    Wanted::Value(value) => format!(" {mark}{name}={}", shown(value)),
                    Wanted::Prefix(prefix) => format!(" {mark}{name}={}*", shown(prefix)),
                    Wanted::Present => format!(" {mark}{name}"),
                    Wanted::Absent => format!(" !{mark}{name}"),
                });
            }
        }
        text
    }
}

impl Wanted {
    /// Can one value, or its absence, be what both want?
    fn compatible(&self, other: &Wanted) -> bool {
        use Wanted::{Absent, Prefix, Present, Value};
        match (self, other) {
            (Absent, Absent) | (Present, Present | Value(_) | Prefix(_)) => true,
            (Value(_) | Prefix(_), Present) => true,
            (Absent, _) | (_, Absent) => false,
            (Value(a), Value(b)) => a == b,
            (Value(value), Prefix(prefix)) | (Prefix(prefix), Value(value)) => {
                value.starts_with(&**prefix)
            }
            (Prefix(a), Prefix(b)) => a.starts_with(&**b) || b.starts_with(&**a),
        }
    }

    /// Is whatever `other` wants what this wants?
    fn follows_from(&self, other: &Wanted) -> bool {
        match (self, other) {
            (Wanted::Present, Wanted::Value(_) | Wanted::Prefix(_)) => true,
            (Wanted::Prefix(prefix), Wanted::Value(value) | Wanted::Prefix(value)) => {
                value.starts_with(&**prefix)
            }
            (wanted, other) => wanted == other,
        }
    }
}

type List = [(Box<str>, Wanted)];

fn compatible(a: &List, b: &List) -> bool {
    let pairs = a.iter().flat_map(|a| b.iter().map(move |b| (a, b)));
    let mut same = pairs.filter(|((name, _), (other, _))| name == other);
    same.all(|((_, wanted), (_, other))| wanted.compatible(other))
}

fn follow(list: &List, a: &List, b: &List) -> bool {
    list.iter().all(|(name, wanted)| {
        let mut given = a.iter().chain(b).filter(|(other, _)| other == name);
        given.any(|(_, other)| wanted.follows_from(other))
    })
}

/// What is asked of a field or parameter, as written: a value, true, false, or a table.
#[derive(Debug, Clone)]
pub(super) struct RawWanted {
    wanted: Wanted,
    span: Span,
}

table! {
    /// It written out.
    struct WantedTable = "a condition" {
        "prefix" => prefix: At<String>,
    }
    required ["prefix"]
    later []
    elsewhere { "regex" => "there are no regular expressions here; `prefix` is the beginning of a value", }
}

/// A condition as one word.
struct Word(Wanted);

impl Scalar for Word {
    const EXPECTS: &'static str = "text, true, false or { prefix = \"…\" }";

    fn schema() -> serde_json::Value {
        schema::any(vec![String::schema(), bool::schema()])
    }

    fn from_text(text: &str) -> Result<Self, Refusal> {
        String::from_text(text).map(|text| Word(Wanted::Value(text.into())))
    }

    fn from_bool(there: bool) -> Result<Self, Refusal> {
        Ok(Word(match there {
            true => Wanted::Present,
            false => Wanted::Absent,
        }))
    }

    fn from_integer(n: i64) -> Result<Self, Refusal> {
        Err(Refusal::because("expected text, found a number")
            .help(format!("put it in quotes: \"{n}\"")))
    }

    fn from_word(word: &str) -> Result<Self, Refusal> {
        word.parse()
            .map_or_else(|_| Self::from_text(word), Self::from_bool)
    }
}

impl Read for RawWanted {
    const EXPECTS: &'static str = Word::EXPECTS;

    fn read(node: &Node, problems: &mut Problems) -> Option<Self> {
        let span = node.span;
        if !matches!(node.value, Value::Table(_)) {
            let wanted = At::<Word>::read(node, problems)?.value.0;
            return Some(RawWanted { wanted, span });
        }
        let before = problems.count();
        let table = WantedTable::read(node, problems)?;
        let Some(prefix) = table.prefix else {
            if problems.count() == before {
                missing(&[], "prefix", span, "the beginning of a value", problems);
            }
            return None;
        };
        let wanted = Wanted::Prefix(prefix.value.into());
        Some(RawWanted { wanted, span })
    }

    fn schema() -> serde_json::Value {
        schema::any(vec![Word::schema(), WantedTable::schema()])
    }
}

/// Builds the conditions of a route.
pub(super) fn build(raw: &raw::Route, problems: &mut Problems) -> Conditions {
    Conditions {
        methods: methods(raw, problems),
        headers: headers(raw, problems),
        query: query(raw, problems),
    }
}

fn methods(raw: &raw::Route, problems: &mut Problems) -> Vec<Box<str>> {
    if let (Some([]), Some(span)) = (raw.methods.as_deref(), raw.key("methods")) {
        problems.push(
            Problem::error(span, "no request has one of no methods")
                .help("leave `methods` out for all of them"),
        );
    }
    let mut methods: Vec<Box<str>> = Vec::new();
    for at in raw.methods.iter().flatten() {
        let name = at.value.as_str();
        let usual = name.to_ascii_uppercase();
        if name.is_empty() || !name.bytes().all(is_token_byte) {
            problems.error(at.span, format!("`{name}` is not a method"));
        } else if name == "CONNECT" {
            problems.push(
                Problem::error(at.span, "CONNECT is refused before routes are looked at")
                    .help("a WebSocket is a GET, over HTTP/2 too"),
            );
        } else if name != usual && KNOWN.contains(&usual.as_str()) {
            problems.push(
                Problem::error(at.span, "the case of a method counts")
                    .help(format!("write \"{usual}\"")),
            );
        } else if methods.iter().any(|m| **m == *name) {
            problems.error(at.span, format!("`{name}` is listed twice"));
        }
        methods.push(name.into());
    }
    methods.sort();
    methods
}

/// RFC 9110 §9.3, RFC 5789.
const KNOWN: [&str; 8] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH",
];

fn headers(raw: &raw::Route, problems: &mut Problems) -> Vec<(Box<str>, Wanted)> {
    let mut headers: Vec<(Box<str>, Wanted)> = Vec::new();
    for (name, value) in raw.headers.iter().flat_map(|pairs| &pairs.0) {
        let lower = name.value.to_ascii_lowercase();
        if lower.is_empty() || !lower.bytes().all(is_token_byte) {
            problems.error(
                name.span,
                format!("`{}` is not the name of a header", name.value),
            );
        } else if lower == "host" {
            problems.push(
                Problem::error(name.span, "`Host` is matched with `host`")
                    .help("for example host = \"shop.example.com\""),
            );
        } else if headers.iter().any(|(n, _)| **n == *lower) {
            problems.error(name.span, format!("`{}` is listed twice", name.value));
        }
        let spaced = match &value.wanted {
            Wanted::Value(text) => text.trim() != &**text,
            Wanted::Prefix(text) => text.trim_start() != &**text,
            Wanted::Present | Wanted::Absent => false,
        };
        if spaced {
            problems.error(value.span, "a header's value has no space around it");
        }
        headers.push((lower.into(), value.wanted.clone()));
    }
    headers.sort();
    headers
}

fn query(raw: &raw::Route, problems: &mut Problems) -> Vec<(Box<str>, Wanted)> {
    let mut query: Vec<(Box<str>, Wanted)> = Vec::new();
    for (name, value) in raw.query.iter().flat_map(|pairs| &pairs.0) {
        if name.value.is_empty() {
            problems.error(name.span, "a parameter has a name");
        } else if query.iter().any(|(n, _)| **n == *name.value) {
            problems.error(name.span, format!("`{}` is listed twice", name.value));
        }
        query.push((name.value.as_str().into(), value.wanted.clone()));
    }
    query.sort();
    query
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(text: &str) -> Wanted {
        match text {
            "there" => Wanted::Present,
            "gone" => Wanted::Absent,
            _ => match text.strip_suffix('*') {
                Some(prefix) => Wanted::Prefix(prefix.into()),
                None => Wanted::Value(text.into()),
            },
        }
    }

    #[test]
    fn what_two_routes_want_of_one_field() {
        for (a, b, compatible, a_from_b) in [
            ("x", "x", true, true),
            ("x", "y", false, false),
            ("x", "there", true, false),
            ("there", "x", true, true),
            ("there", "x*", true, true),
            ("there", "there", true, true),
            ("gone", "there", false, false),
            ("gone", "x", false, false),
            ("gone", "gone", true, true),
            ("x*", "xy", true, true),
            ("xy", "x*", true, false),
            ("x*", "y", false, false),
            ("x*", "xy*", true, true),
            ("xy*", "x*", true, false),
            ("x*", "y*", false, false),
        ] {
            let (first, second) = (wanted(a), wanted(b));
            assert_eq!(first.compatible(&second), compatible, "{a} {b}");
            assert_eq!(second.compatible(&first), compatible, "{b} {a}");
            assert_eq!(first.follows_from(&second), a_from_b, "{a} from {b}");
        }
    }
}
