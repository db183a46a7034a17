//! Cookie affinity: the table as it is written, and what it becomes.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::diagnostics::{Problem, Problems};
use super::read::{At, Key, Read, choice, table};
use super::scalar::{Positive, is_token_byte};
use super::schema;
use super::source::{Files, Sources};
use super::tree::{Node, Value};
use crate::io::files;

/// A service's cookie.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sticky {
    /// Its name; `None`: one that is made of the service's.
    pub cookie: Option<Box<str>>,
    /// How long clients keep it; `None`: until they end.
    pub max_age: Option<Duration>,
    /// Where the key is that its values are made with; `None`: this process has one of its own.
    pub key_file: Option<PathBuf>,
}

impl Sticky {
    /// Reads the key in a file: all of its bytes. Not for other eyes.
    pub fn key(path: &Path) -> io::Result<Vec<u8>> {
        let key = files::read(path, LONGEST_KEY)?;
        match key.len() as u64 {
            ..SHORTEST_KEY => Err(io::Error::other("a key has 32 bytes at least")),
            SHORTEST_KEY..=LONGEST_KEY => Ok(key),
            _ => Err(io::Error::other("a key has 4096 bytes at most")),
        }
    }
}

table! {
    /// `sticky`, written out.
    pub(super) struct StickyTable = "sticky" {
        "cookie" => cookie: At<String>,
        "max_age" => max_age: At<Positive>,
        "key_file" => key_file: At<String>,
    }
    later []
    elsewhere {
        "name" => "it is the value of `cookie`: sticky = { cookie = \"name\" }",
        "key" => "secrets are always files: key_file = \"path\"",
    }
}

/// `sticky`: the word `cookie`, the word `off`, or a table.
#[derive(Debug, Clone)]
pub(super) enum RawSticky {
    Off,
    Cookie(Box<StickyTable>),
}

/// The words.
#[derive(Debug, Clone, Copy)]
enum Word {
    Cookie,
    Off,
}

choice! {
    Word = "\"cookie\", \"off\" or a table" {
        "cookie" => Word::Cookie,
        "off" => Word::Off,
    }
    later []
}

impl Read for RawSticky {
    const EXPECTS: &'static str = "\"cookie\", \"off\" or a table";

    fn read(node: &Node, problems: &mut Problems) -> Option<Self> {
        if matches!(node.value, Value::Table(_)) {
            let table = StickyTable::read(node, problems)?;
            return Some(RawSticky::Cookie(Box::new(table)));
        }
        let word = At::<Word>::read(node, problems)?;
        Some(match word.value {
            Word::Off => RawSticky::Off,
            Word::Cookie => RawSticky::Cookie(Box::new(StickyTable {
                span: word.span,
                ..StickyTable::default()
            })),
        })
    }

    fn schema() -> serde_json::Value {
        schema::any(vec![At::<Word>::schema(), StickyTable::schema()])
    }

    fn keys() -> &'static [Key] {
        StickyTable::keys()
    }
}

/// Says what is wrong with that of a service.
pub(super) fn check(
    raw: Option<&RawSticky>,
    files: Files,
    sources: &Sources,
    problems: &mut Problems,
) {
    let Some(RawSticky::Cookie(raw)) = raw else {
        return;
    };
    if let Some(at) = &raw.cookie
        && !at.value.bytes().all(is_token_byte)
    {
        let title = format!("`{}` is not the name of a cookie", at.value);
        problems.error(at.span, title);
    }
    if let Some(at) = &raw.key_file
        && files == Files::Opened
    {
        let path = sources.resolve(at.span, &at.value);
        if let Err(error) = Sticky::key(&path) {
            let title = format!("cannot use {}: {error}", path.display());
            problems.error(at.span, title);
        }
    }
    if raw.key("key_file").is_none() {
        problems.push(
            Problem::warning(raw.span, "sticky sessions end with this process").help(
                "replicas, and this one after a restart, know cookies by a common key: \
                 key_file = \"path\" with 32 random bytes or more",
            ),
        );
    }
}

/// The same of that in `[defaults]`.
pub(super) fn check_default(
    raw: Option<&RawSticky>,
    files: Files,
    sources: &Sources,
    problems: &mut Problems,
) {
    if let Some(RawSticky::Cookie(table)) = raw
        && let Some(span) = table.key("cookie")
    {
        // Each would overwrite what another one said.
        problems.push(
            Problem::error(span, "`cookie` does not belong here")
                .help("services need names of their own; without one each has"),
        );
    }
    check(raw, files, sources, problems);
}

/// Builds that of a service, or of `[defaults]`, which was checked.
pub(super) fn build(raw: Option<&RawSticky>, sources: &Sources) -> Option<Sticky> {
    let RawSticky::Cookie(raw) = raw? else {
        return None;
    };
    let resolve = |at: &At<String>| sources.resolve(at.span, &at.value);
    Some(Sticky {
        cookie: raw.cookie.as_ref().map(|at| at.value.as_str().into()),
        max_age: raw.max_age.as_ref().map(|at| at.value.0),
        key_file: raw.key_file.as_ref().map(resolve),
    })
}

/// In bytes: that of the hash, under which a key of HMAC should not be (RFC 2104 §3).
const SHORTEST_KEY: u64 = 32;

/// In bytes: a larger file is not a key.
const LONGEST_KEY: u64 = 4096;
