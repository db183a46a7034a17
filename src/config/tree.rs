//! A file of any of the three formats as one tree in which each key and each value knows where it
//! was written. `raw.rs` reads the tree; nothing else looks at the text.

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostics::{Problem, Problems};
use super::source::Span;

/// Format of a text, by the ending of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Format {
    Toml,
    Yaml,
    Json,
}

/// A value and where it was written.
#[derive(Debug, Clone)]
pub struct Node {
    /// Where.
    pub span: Span,
    /// What.
    pub value: Value,
}

/// What was written.
#[derive(Debug, Clone)]
pub enum Value {
    /// Nothing, as YAML and JSON can say it; the same as leaving the key out.
    Null,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A number that is not whole, or is written as if it were not.
    Fraction(f64),
    /// A string.
    Text(String),
    /// What a flag or a variable holds: text whose type the key decides.
    Word(String),
    /// An array.
    List(Vec<Node>),
    /// A table.
    Table(Vec<Entry>),
    /// Something the configuration has no use for; the text names it.
    Other(&'static str),
}

/// One key of a table.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key was written.
    pub key_span: Span,
    /// Its value.
    pub value: Node,
}

impl Format {
    /// By the ending; TOML unless it says otherwise.
    pub fn of(path: &std::path::Path) -> Format {
        match path.extension().and_then(|e| e.to_str()) {
            Some("yaml" | "yml") => Format::Yaml,
            Some("json") => Format::Json,
            _ => Format::Toml,
        }
    }
}

impl Value {
    /// What messages call it.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Null => "nothing",
            Value::Bool(_) => "true or false",
            Value::Integer(_) => "a number",
            Value::Fraction(_) => "a fraction",
            Value::Text(_) | Value::Word(_) => "text",
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
            Value::Other(what) => what,
        }
    }
}

/// Reads `text`, which is the whole of the source that `whole` spans. Every syntax error that the
/// parser recovers from is reported; what could be read is returned.
pub fn parse(format: Format, text: &str, whole: Span, problems: &mut Problems) -> Option<Node> {
    match format {
        Format::Toml => {
            let (table, errors) = DeTable::parse_recoverable(text);
            for error in &errors {
                let span = error.span().map_or(whole, |range| whole.part(range));
                problems.error(span, error.message());
            }
            // After a syntax error the rest of the table is a guess, and what is said of it
            // would often be noise.
            errors
                .is_empty()
                .then(|| from_toml_table(table.get_ref(), whole, whole))
        }
        Format::Yaml => from_yaml_text(text, whole, problems),
        Format::Json => {
            // JSON is YAML with fewer liberties: those are refused first, then one reader serves
            // both and knows the positions.
            if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(text) {
                let start = offset(text, error.line(), error.column());
                let message = error.to_string();
                let message = message.split(" at line ").next().unwrap_or_default();
                problems.error(whole.part(start..start + 1), message);
                return None;
            }
            from_yaml_text(text, whole, problems)
        }
    }
}

fn from_toml_table(table: &DeTable<'_>, span: Span, whole: Span) -> Node {
    let mut entries: Vec<Entry> = table
        .iter()
        .map(|(key, value)| Entry {
            key: key.get_ref().to_string(),
            key_span: whole.part(key.span()),
            value: from_toml(value.get_ref(), whole.part(value.span()), whole),
        })
        .collect();
    entries.sort_by_key(|e| e.key_span);
    Node {
        span,
        value: Value::Table(entries),
    }
}

pub(super) fn from_toml(value: &DeValue<'_>, span: Span, whole: Span) -> Node {
    let value = match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(n) => match i64::from_str_radix(n.as_str(), n.radix()) {
            Ok(n) => Value::Integer(n),
            Err(_) => Value::Other("a number that is too large"),
        },
        DeValue::Float(text) => match text.as_str().replace('_', "").parse() {
            Ok(x) => Value::Fraction(x),
            Err(_) => Value::Other("a fraction"),
        },
        DeValue::Boolean(b) => Value::Bool(*b),
        DeValue::Datetime(_) => Value::Other("a date"),
        DeValue::Array(items) => Value::List(
            items
                .iter()
                .map(|item| from_toml(item.get_ref(), whole.part(item.span()), whole))
                .collect(),
        ),
        DeValue::Table(table) => return from_toml_table(table, span, whole),
    };
    Node { span, value }
}

fn from_yaml_text(text: &str, whole: Span, problems: &mut Problems) -> Option<Node> {
    match serde_saphyr::from_str::<Option<Yaml>>(text) {
        Ok(Some(yaml)) => Some(yaml.into_node(whole)),
        // An empty document: every key is absent.
        Ok(None) => Some(Node {
            span: whole,
            value: Value::Table(Vec::new()),
        }),
        Err(error) => {
            let span = error.location().map_or(whole, |at| located(whole, &at));
            let message = error.without_snippet().to_string();
            let message = message.lines().next().unwrap_or_default();
            // Where it is, the caret shows; and our users cannot set the parser's options.
            let end = [" at line ", ", set DuplicateKeyPolicy"]
                .iter()
                .filter_map(|tail| message.find(tail))
                .min()
                .unwrap_or(message.len());
            problems.push(Problem::error(span, &message[..end]));
            None
        }
    }
}

/// A YAML value on its way to a [`Node`].
struct Yaml(Spanned<YamlValue>);

enum YamlValue {
    Plain(Value),
    List(Vec<Yaml>),
    Map(Vec<(Spanned<String>, Yaml)>),
}

impl Yaml {
    fn into_node(self, whole: Span) -> Node {
        let value = match self.0.value {
            YamlValue::Plain(value) => value,
            YamlValue::List(items) => {
                Value::List(items.into_iter().map(|i| i.into_node(whole)).collect())
            }
            YamlValue::Map(entries) => Value::Table(
                entries
                    .into_iter()
                    .map(|(key, value)| Entry {
                        key_span: located(whole, &key.referenced),
                        key: key.value,
                        value: value.into_node(whole),
                    })
                    .collect(),
            ),
        };
        Node {
            span: located(whole, &self.0.referenced),
            value,
        }
    }
}

impl<'de> Deserialize<'de> for Yaml {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Yaml, D::Error> {
        Spanned::deserialize(deserializer).map(Yaml)
    }
}

impl<'de> Deserialize<'de> for YamlValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<YamlValue, D::Error> {
        deserializer.deserialize_any(YamlVisitor)
    }
}

struct YamlVisitor;

impl<'de> Visitor<'de> for YamlVisitor {
    type Value = YamlValue;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, v: bool) -> Result<YamlValue, E> {
        Ok(YamlValue::Plain(Value::Bool(v)))
    }

    fn visit_i64<E>(self, v: i64) -> Result<YamlValue, E> {
        Ok(YamlValue::Plain(Value::Integer(v)))
    }

    fn visit_u64<E>(self, v: u64) -> Result<YamlValue, E> {
        Ok(YamlValue::Plain(match i64::try_from(v) {
            Ok(v) => Value::Integer(v),
            Err(_) => Value::Other("a number that is too large"),
        }))
    }

    fn visit_f64<E>(self, v: f64) -> Result<YamlValue, E> {
        Ok(YamlValue::Plain(Value::Fraction(v)))
    }

    fn visit_str<E>(self, v: &str) -> Result<YamlValue, E> {
        Ok(YamlValue::Plain(Value::Text(v.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<YamlValue, E> {
        Ok(YamlValue::Plain(Value::Null))
    }

    fn visit_none<E>(self) -> Result<YamlValue, E> {
        Ok(YamlValue::Plain(Value::Null))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<YamlValue, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(YamlValue::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<YamlValue, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(YamlValue::Map(entries))
    }
}

fn located(whole: Span, at: &serde_saphyr::Location) -> Span {
    let span = at.span();
    match (span.byte_offset(), span.byte_len()) {
        (Some(start), Some(len)) => {
            let start = usize::try_from(start).unwrap_or(usize::MAX);
            let len = usize::try_from(len).unwrap_or(usize::MAX);
            whole.part(start..start.saturating_add(len))
        }
        _ => whole,
    }
}

/// Byte offset of a line and a byte column, both counted from 1.
fn offset(text: &str, line: usize, column: usize) -> usize {
    let before: usize = text
        .split_inclusive('\n')
        .take(line.saturating_sub(1))
        .map(str::len)
        .sum();
    (before + column.saturating_sub(1)).min(text.len())
}
