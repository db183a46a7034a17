//! From the tree to the raw types of `raw.rs`: which kinds of value there are, how each is
//! written, and what is said when it is written otherwise. Unknown keys are refused here.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;

use super::diagnostics::{Problem, Problems};
use super::source::Span;
use super::tree::{Entry, Node, Value};

/// Something that a node can be read as. `None` means that a problem was recorded.
pub trait Read: Sized {
    /// What the documentation calls it.
    const EXPECTS: &'static str;

    /// Reads it.
    fn read(node: &Node, problems: &mut Problems) -> Option<Self>;

    /// The keys of a table, or of the tables in a list.
    fn keys() -> &'static [Key] {
        &[]
    }
}

/// One key of a table, for documentation and for the tests that keep it true.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// As it is written.
    pub name: &'static str,
    /// What it takes.
    pub expects: &'static str,
    /// Keys of its value.
    pub keys: fn() -> &'static [Key],
}

/// A value and where it was written.
#[derive(Debug, Clone)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Where it was written.
    pub span: Span,
}

/// A value that is written as one word, number or truth value.
pub trait Scalar: Sized {
    /// What the documentation and messages call it, with an example.
    const EXPECTS: &'static str;

    /// Reads a quoted text.
    fn from_text(text: &str) -> Result<Self, Refusal>;

    /// Reads a number.
    fn from_integer(_: i64) -> Result<Self, Refusal> {
        Err(Refusal::kind())
    }

    /// Reads a truth value.
    fn from_bool(_: bool) -> Result<Self, Refusal> {
        Err(Refusal::kind())
    }

    /// Reads what a flag or variable holds.
    fn from_word(word: &str) -> Result<Self, Refusal> {
        Self::from_text(word)
    }
}

/// Why a scalar was refused.
#[derive(Debug, Default)]
pub struct Refusal {
    title: Option<String>,
    help: Option<String>,
}

impl Refusal {
    /// It is not of the kind that is expected.
    pub fn kind() -> Refusal {
        Refusal::default()
    }

    /// It is of the right kind, and wrong.
    pub fn because(title: impl Into<String>) -> Refusal {
        Refusal {
            title: Some(title.into()),
            help: None,
        }
    }

    /// Says what to do.
    pub fn help(mut self, text: impl Into<String>) -> Refusal {
        self.help = Some(text.into());
        self
    }
}

impl<T: Scalar> Read for At<T> {
    const EXPECTS: &'static str = T::EXPECTS;

    fn read(node: &Node, problems: &mut Problems) -> Option<Self> {
        let read = match &node.value {
            Value::Text(text) => T::from_text(text),
            Value::Word(word) => T::from_word(word),
            Value::Integer(n) => T::from_integer(*n),
            Value::Bool(b) => T::from_bool(*b),
            Value::Null | Value::List(_) | Value::Table(_) | Value::Other(_) => {
                Err(Refusal::kind())
            }
        };
        match read {
            Ok(value) => Some(At {
                value,
                span: node.span,
            }),
            Err(refusal) => {
                let title = refusal.title.unwrap_or_else(|| match &node.value {
                    Value::Text(text) | Value::Word(text) => {
                        format!("`{text}` is not {}", T::EXPECTS)
                    }
                    other => format!("expected {}, found {}", T::EXPECTS, other.kind()),
                });
                let mut problem = Problem::error(node.span, title);
                problem.help = refusal.help;
                problems.push(problem);
                None
            }
        }
    }
}

/// One value stands for a list of one, and a flag or variable separates with commas.
impl<T: Read> Read for Vec<T> {
    const EXPECTS: &'static str = T::EXPECTS;

    fn read(node: &Node, problems: &mut Problems) -> Option<Self> {
        let read: Vec<Option<T>> = match &node.value {
            Value::List(items) => items.iter().map(|item| T::read(item, problems)).collect(),
            Value::Word(words) => {
                let mut start = 0;
                words
                    .split(',')
                    .map(|word| {
                        let lead = word.len() - word.trim_start().len();
                        let part = Node {
                            span: node
                                .span
                                .part(start + lead..start + lead + word.trim().len()),
                            value: Value::Word(word.trim().to_owned()),
                        };
                        start += word.len() + 1;
                        T::read(&part, problems)
                    })
                    .collect()
            }
            _ => vec![T::read(node, problems)],
        };
        read.into_iter().collect()
    }

    fn keys() -> &'static [Key] {
        T::keys()
    }
}

/// A table whose keys are the user's own words.
#[derive(Debug, Clone)]
pub struct Pairs<T>(pub Vec<(At<String>, T)>);

impl<T: Read> Read for Pairs<T> {
    const EXPECTS: &'static str = "a table";

    fn read(node: &Node, problems: &mut Problems) -> Option<Self> {
        let entries = entries(node, "", problems)?;
        let read: Vec<Option<(At<String>, T)>> = entries
            .iter()
            .map(|entry| {
                let key = At {
                    value: entry.key.clone(),
                    span: entry.key_span,
                };
                T::read(&entry.value, problems).map(|value| (key, value))
            })
            .collect();
        read.into_iter().collect::<Option<Vec<_>>>().map(Pairs)
    }
}

/// The entries of a table, or a problem that says what should have been there.
pub fn entries<'a>(node: &'a Node, name: &str, problems: &mut Problems) -> Option<&'a [Entry]> {
    match &node.value {
        Value::Table(entries) => Some(entries),
        other => {
            let mut problem = Problem::error(
                node.span,
                format!("expected a table, found {}", other.kind()),
            );
            if !name.is_empty() {
                problem = problem.help(format!("`{name}` holds keys of its own"));
            }
            problems.push(problem);
            None
        }
    }
}

/// Reports a key that a table does not have.
pub fn unknown_key(
    entry: &Entry,
    known: &[Key],
    later: &[&str],
    elsewhere: &[(&str, &str)],
    problems: &mut Problems,
) {
    let key = &entry.key;
    if let Some((_, help)) = elsewhere.iter().find(|(k, _)| k == key) {
        let problem = Problem::error(entry.key_span, format!("`{key}` does not belong here"));
        problems.push(problem.help(*help));
        return;
    }
    if later.contains(&key.as_str()) {
        problems.error(
            entry.key_span,
            format!("`{key}` is not in this version yet"),
        );
        return;
    }
    let names = || known.iter().map(|k| k.name);
    let problem = Problem::error(entry.key_span, format!("unknown key `{key}`"));
    problems.push(if super::diagnostics::nearest(key, names()).is_some() {
        problem.did_you_mean(key, names())
    } else {
        let mut list: Vec<String> = names().map(|n| format!("`{n}`")).collect();
        list.sort();
        problem.help(format!("known here: {}", list.join(", ")))
    });
}

/// Declares a table of the file: a struct with a field per key, and how it is read. A key that is
/// absent is `None`; one that is present and wrong is `None` too, with a problem recorded, and
/// `present` tells the two apart.
macro_rules! table {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident = $called:literal {
            $( $(#[$field_meta:meta])* $key:literal => $field:ident : $type:ty, )*
        }
        later [ $($later:literal),* $(,)? ]
        $( elsewhere { $($misplaced:literal => $belongs:literal,)* } )?
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Default)]
        #[allow(dead_code)] // not every table is asked where it is
        $vis struct $name {
            /// Where the table is.
            pub span: $crate::config::source::Span,
            /// Its keys, and where they are.
            pub present: Vec<(&'static str, $crate::config::source::Span)>,
            $( $(#[$field_meta])* pub $field: Option<$type>, )*
        }

        impl $name {
            /// Where a key was written, if it was.
            #[allow(dead_code)] // not every table is asked for its keys
            pub fn key(&self, name: &str) -> Option<$crate::config::source::Span> {
                self.present.iter().find(|(key, _)| *key == name).map(|(_, span)| *span)
            }
        }

        impl $crate::config::read::Read for $name {
            const EXPECTS: &'static str = "a table";

            fn read(
                node: &$crate::config::tree::Node,
                problems: &mut $crate::config::diagnostics::Problems,
            ) -> Option<Self> {
                let entries = $crate::config::read::entries(node, $called, problems)?;
                let mut read = $name { span: node.span, ..$name::default() };
                for entry in entries {
                    match entry.key.as_str() {
                        $( $key => {
                            read.present.push(($key, entry.key_span));
                            if !matches!(entry.value.value, $crate::config::tree::Value::Null) {
                                read.$field = <$type as $crate::config::read::Read>::read(
                                    &entry.value,
                                    problems,
                                );
                            }
                        } )*
                        _ => $crate::config::read::unknown_key(
                            entry,
                            Self::keys(),
                            &[$($later),*],
                            &[$($(($misplaced, $belongs)),*)?],
                            problems,
                        ),
                    }
                }
                Some(read)
            }

            fn keys() -> &'static [$crate::config::read::Key] {
                &[$( $crate::config::read::Key {
                    name: $key,
                    expects: <$type as $crate::config::read::Read>::EXPECTS,
                    keys: <$type as $crate::config::read::Read>::keys,
                } ),*]
            }
        }
    };
}

/// Declares a word out of a list. Words after `later` are known and refused.
macro_rules! choice {
    (
        $type:ty = $expects:literal { $( $word:literal => $value:expr, )* }
        later [ $($later:literal),* $(,)? ]
    ) => {
        impl $crate::config::read::Scalar for $type {
            const EXPECTS: &'static str = $expects;

            fn from_text(text: &str) -> Result<Self, $crate::config::read::Refusal> {
                use $crate::config::read::Refusal;
                let later: &[&str] = &[$($later),*];
                match text {
                    $( $word => Ok($value), )*
                    _ if later.contains(&text) => {
                        Err(Refusal::because(format!("`{text}` is not in this version yet"))
                            .help(concat!("this version has ", $expects)))
                    }
                    _ => {
                        let refusal = Refusal::kind();
                        Err(match $crate::config::diagnostics::nearest(text, [$($word),*]) {
                            Some(meant) => refusal.help(format!("did you mean `{meant}`?")),
                            None => refusal,
                        })
                    }
                }
            }
        }
    };
}

pub(super) use {choice, table};

impl Scalar for String {
    const EXPECTS: &'static str = "text";

    fn from_text(text: &str) -> Result<Self, Refusal> {
        if text.is_empty() {
            return Err(Refusal::because("this is empty"));
        }
        if text.chars().any(char::is_control) {
            return Err(Refusal::because("a control character in a text"));
        }
        Ok(text.to_owned())
    }

    fn from_integer(n: i64) -> Result<Self, Refusal> {
        Err(Refusal::kind().help(format!("put it in quotes: \"{n}\"")))
    }
}

impl Scalar for bool {
    const EXPECTS: &'static str = "true or false";

    fn from_text(_: &str) -> Result<Self, Refusal> {
        Err(Refusal::kind())
    }

    fn from_bool(b: bool) -> Result<Self, Refusal> {
        Ok(b)
    }

    fn from_word(word: &str) -> Result<Self, Refusal> {
        word.parse().map_err(|_| Refusal::kind())
    }
}

/// A whole number between two bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Within<const LEAST: u64, const MOST: u64>(pub u64);

impl<const LEAST: u64, const MOST: u64> Scalar for Within<LEAST, MOST> {
    const EXPECTS: &'static str = "a number";

    fn from_text(text: &str) -> Result<Self, Refusal> {
        Err(match text.parse::<u64>() {
            Ok(n) => Refusal::kind().help(format!("write it without quotes: {n}")),
            Err(_) => Refusal::kind(),
        })
    }

    fn from_integer(n: i64) -> Result<Self, Refusal> {
        u64::try_from(n)
            .ok()
            .filter(|n| (LEAST..=MOST).contains(n))
            .map(Within)
            .ok_or_else(|| Refusal::because(format!("{n} is not between {LEAST} and {MOST}")))
    }

    fn from_word(word: &str) -> Result<Self, Refusal> {
        word.parse()
            .map_err(|_| Refusal::kind())
            .and_then(Self::from_integer)
    }
}

/// Longest duration that is accepted: 30 days. It keeps the arithmetic on deadlines away from
/// overflow, and a longer one is a mistake in the unit.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 60 * 60);

impl Scalar for Duration {
    const EXPECTS: &'static str = "a duration such as \"10s\" or \"500ms\"";

    fn from_text(text: &str) -> Result<Self, Refusal> {
        let duration = humantime::parse_duration(text.trim()).map_err(|_| {
            match text.trim().parse::<u64>() {
                Ok(n) => Refusal::because(format!("`{n}` has no unit"))
                    .help(format!("write \"{n}s\" or \"{n}ms\"")),
                Err(_) => Refusal::kind(),
            }
        })?;
        if duration > LONGEST {
            return Err(Refusal::because("a duration is at most 30 days"));
        }
        Ok(duration)
    }

    fn from_integer(n: i64) -> Result<Self, Refusal> {
        Err(Refusal::because(format!("`{n}` has no unit"))
            .help(format!("write \"{n}s\" or \"{n}ms\"")))
    }
}

/// A [`Duration`] that is not zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Positive(pub Duration);

impl Scalar for Positive {
    const EXPECTS: &'static str = Duration::EXPECTS;

    fn from_text(text: &str) -> Result<Self, Refusal> {
        let duration = Duration::from_text(text)?;
        if duration.is_zero() {
            return Err(Refusal::because("this must be longer than nothing"));
        }
        Ok(Positive(duration))
    }

    fn from_integer(n: i64) -> Result<Self, Refusal> {
        Duration::from_integer(n).map(Positive)
    }
}

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteSize(pub u64);

impl Scalar for ByteSize {
    const EXPECTS: &'static str = "a size such as \"32KiB\" or \"1MB\"";

    fn from_text(text: &str) -> Result<Self, Refusal> {
        let text = text.trim();
        let digits = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let number: u64 = text[..digits].parse().map_err(|_| Refusal::kind())?;
        let unit: u64 = match text[digits..].trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "kb" => 1000,
            "kib" | "k" => 1 << 10,
            "mb" => 1000 * 1000,
            "mib" | "m" => 1 << 20,
            "gb" => 1000 * 1000 * 1000,
            "gib" | "g" => 1 << 30,
            _ => return Err(Refusal::kind()),
        };
        number
            .checked_mul(unit)
            .map(ByteSize)
            .ok_or_else(|| Refusal::because("this size is too large"))
    }

    fn from_integer(n: i64) -> Result<Self, Refusal> {
        u64::try_from(n).map(ByteSize).map_err(|_| Refusal::kind())
    }
}

/// An address to listen on; `:8443` is every address of both families.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bind(pub SocketAddr);

impl Scalar for Bind {
    const EXPECTS: &'static str =
        "an address and port such as \":8443\", \"127.0.0.1:8443\" or \"[::1]:8443\"";

    fn from_text(text: &str) -> Result<Self, Refusal> {
        let every = |port: &str| {
            port.parse::<u16>()
                .ok()
                .map(|port| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))
        };
        if let Some(address) = text.strip_prefix(':').and_then(every) {
            return Ok(Bind(address));
        }
        text.parse().map(Bind).map_err(|_| {
            if every(text).is_some() {
                Refusal::kind().help(format!("write \":{text}\""))
            } else if text.parse::<IpAddr>().is_ok() {
                Refusal::because(format!("`{text}` has no port"))
            } else {
                Refusal::kind()
            }
        })
    }

    fn from_integer(n: i64) -> Result<Self, Refusal> {
        Err(Refusal::kind().help(format!("write \":{n}\"")))
    }
}

/// [`Bind`], or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BindOrOff(pub Option<SocketAddr>);

impl Scalar for BindOrOff {
    const EXPECTS: &'static str = "an address and port such as \"127.0.0.1:9902\", or \"off\"";

    fn from_text(text: &str) -> Result<Self, Refusal> {
        if text == "off" {
            return Ok(BindOrOff(None));
        }
        Bind::from_text(text).map(|Bind(address)| BindOrOff(Some(address)))
    }

    fn from_integer(n: i64) -> Result<Self, Refusal> {
        Bind::from_integer(n).map(|Bind(address)| BindOrOff(Some(address)))
    }
}

/// An address to connect to: no name, no port 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connect(pub SocketAddr);

impl Scalar for Connect {
    const EXPECTS: &'static str = "an address and port such as \"10.0.0.7:8080\"";

    fn from_text(text: &str) -> Result<Self, Refusal> {
        let address: SocketAddr = text.parse().map_err(|_| {
            let name = text.rsplit_once(':').map(|(name, _)| name);
            if text.parse::<IpAddr>().is_ok() {
                Refusal::because(format!("`{text}` has no port"))
            } else if name.is_some_and(|n| super::names::check(n.as_bytes()).is_ok()) {
                Refusal::kind().help("a name is looked up with { a = \"name\", port = 8080 }")
            } else {
                Refusal::kind()
            }
        })?;
        if address.port() == 0 {
            return Err(Refusal::because("port 0 cannot be connected to"));
        }
        if address.ip().is_unspecified() || address.ip().is_multicast() {
            return Err(Refusal::because(format!(
                "`{}` is not the address of one machine",
                address.ip()
            )));
        }
        Ok(Connect(address))
    }
}

/// A name server: an address, and port 53 unless it says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NameServer(pub SocketAddr);

impl Scalar for NameServer {
    const EXPECTS: &'static str =
        "the address of a name server such as \"10.0.0.2\" or \"127.0.0.1:8600\"";

    fn from_text(text: &str) -> Result<Self, Refusal> {
        let bare = text
            .strip_prefix('[')
            .and_then(|t| t.strip_suffix(']'))
            .unwrap_or(text);
        match bare.parse::<IpAddr>() {
            Ok(ip) => Ok(NameServer(SocketAddr::new(ip, 53))),
            Err(_) => text
                .parse::<SocketAddr>()
                .ok()
                .filter(|address| address.port() != 0)
                .map(NameServer)
                .ok_or_else(Refusal::kind),
        }
    }
}

impl Scalar for IpNet {
    const EXPECTS: &'static str = "an address range such as \"10.0.0.0/8\"";

    fn from_text(text: &str) -> Result<Self, Refusal> {
        text.parse::<IpNet>()
            .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
            .map(|net| net.trunc())
            .map_err(|_| Refusal::kind())
    }
}
