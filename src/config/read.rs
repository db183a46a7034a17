//! From the tree to the raw types of `raw.rs`: tables, lists and choices, and what is said when
//! something else is found. Unknown keys are refused here. `scalar.rs` has the single values.

use super::diagnostics::{Problem, Problems};
use super::schema;
use super::source::Span;
use super::tree::{Entry, Node, Value};

/// Something that a node can be read as. `None` means that a problem was recorded.
pub trait Read: Sized {
    /// What the documentation calls it.
    const EXPECTS: &'static str;

    /// Reads it.
    fn read(node: &Node, problems: &mut Problems) -> Option<Self>;

    /// How it is written, as JSON Schema says it.
    fn schema() -> serde_json::Value;

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

    /// How it is written, as JSON Schema says it.
    fn schema() -> serde_json::Value;

    /// Reads a quoted text.
    fn from_text(text: &str) -> Result<Self, Refusal>;

    /// Reads a number.
    fn from_integer(_: i64) -> Result<Self, Refusal> {
        Err(Refusal::kind())
    }

    /// Reads a number that is not whole.
    fn from_fraction(_: f64) -> Result<Self, Refusal> {
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
            Value::Fraction(x) => T::from_fraction(*x),
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

    fn schema() -> serde_json::Value {
        T::schema()
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

    fn schema() -> serde_json::Value {
        schema::list(T::schema())
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
        let entries = entries(node, "", &[], problems)?;
        // One bad value does not hide what is wrong with the others.
        let read = entries.iter().filter_map(|entry| {
            let key = At {
                value: entry.key.clone(),
                span: entry.key_span,
            };
            T::read(&entry.value, problems).map(|value| (key, value))
        });
        Some(Pairs(read.collect()))
    }

    fn schema() -> serde_json::Value {
        schema::pairs(T::schema())
    }
}

/// The entries of a table, or a problem that says what should have been there.
/// `required`: keys that an example needs.
pub fn entries<'a>(
    node: &'a Node,
    name: &str,
    required: &[&str],
    problems: &mut Problems,
) -> Option<&'a [Entry]> {
    match &node.value {
        Value::Table(entries) => Some(entries),
        other => {
            let mut problem = Problem::error(
                node.span,
                format!("expected a table, found {}", other.kind()),
            );
            if !name.is_empty() {
                let mut help = format!("`{name}` holds keys of its own");
                if !required.is_empty() && !name.starts_with('[') {
                    let keys: Vec<_> = required.iter().map(|key| format!("{key} = …")).collect();
                    help = format!("{help}: {name} = {{ {} }}", keys.join(", "));
                }
                problem = problem.help(help);
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
/// `present` tells the two apart. Keys after `required` are those that `build.rs` and its
/// neighbours miss; here they are told to editors only.
macro_rules! table {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident = $called:literal {
            $( $(#[$field_meta:meta])* $key:literal => $field:ident : $type:ty, )*
        }
        $( required [ $($required:literal),* $(,)? ] )?
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
                let entries = $crate::config::read::entries(
                    node,
                    $called,
                    &[$($($required),*)?],
                    problems,
                )?;
                let mut read = $name { span: node.span, ..$name::default() };
                for entry in entries {
                    match entry.key.as_str() {
                        $( $key => {
                            if !matches!(entry.value.value, $crate::config::tree::Value::Null) {
                                read.present.push(($key, entry.key_span));
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

            fn schema() -> serde_json::Value {
                $crate::config::schema::table(
                    [$( ($key, <$type as $crate::config::read::Read>::schema()) ),*],
                    &[$($($required),*)?],
                )
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

/// Declares a word out of a list. Words after `later` are known and refused; those after `meant` are
/// what people write instead, and what to say then.
macro_rules! choice {
    (
        $type:ty = $expects:literal { $( $word:literal => $value:expr, )* }
        later [ $($later:literal),* $(,)? ]
        $( meant { $($instead:literal => $help:literal,)* } )?
    ) => {
        impl $crate::config::read::Scalar for $type {
            const EXPECTS: &'static str = $expects;

            fn schema() -> serde_json::Value {
                $crate::config::schema::words(&[$($word),*])
            }

            fn from_text(text: &str) -> Result<Self, $crate::config::read::Refusal> {
                use $crate::config::read::Refusal;
                let later: &[&str] = &[$($later),*];
                match text {
                    $( $word => Ok($value), )*
                    _ if later.contains(&text) => {
                        Err(Refusal::because(format!("`{text}` is not in this version yet"))
                            .help(concat!("this version has ", $expects)))
                    }
                    $($( $instead => Err(Refusal::kind().help($help)), )*)?
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
