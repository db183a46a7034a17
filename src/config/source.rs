//! Texts that configuration comes from, and positions in them.
//!
//! A file is one source; so is each environment variable and each flag, so that a mistake there
//! is shown the same way as one in the file.

use std::path::{Path, PathBuf};

/// A stretch of one source, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span {
    /// Index into [`Sources`].
    pub source: u32,
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

/// Where a text came from.
#[derive(Debug, Clone)]
pub struct Source {
    /// Path of the file, name of the flag, or `environment`.
    pub name: String,
    /// The text as read.
    pub text: String,
    /// Relative paths in it are relative to this folder.
    pub base: PathBuf,
}

/// All texts of one load.
#[derive(Debug, Clone, Default)]
pub struct Sources(Vec<Source>);

/// Whether the files that a configuration names are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Files {
    /// Whoever needs them opens them.
    #[default]
    Trusted,
    /// A certificate or key that cannot be opened is an error, and so is a folder that cannot be
    /// written.
    Opened,
}

impl Sources {
    /// Adds a text and returns the span of the whole of it.
    pub fn add(&mut self, name: impl Into<String>, text: impl Into<String>, base: &Path) -> Span {
        let text = text.into();
        let span = Span {
            source: u32::try_from(self.0.len()).unwrap_or(u32::MAX),
            start: 0,
            end: u32::try_from(text.len()).unwrap_or(u32::MAX),
        };
        self.0.push(Source {
            name: name.into(),
            text,
            base: base.to_path_buf(),
        });
        span
    }

    /// The source that `span` lies in.
    pub fn of(&self, span: Span) -> Option<&Source> {
        self.0.get(span.source as usize)
    }

    /// `path` as this process can open it.
    pub fn resolve(&self, span: Span, path: &str) -> PathBuf {
        match self.of(span) {
            Some(source) => source.base.join(path),
            None => PathBuf::from(path),
        }
    }
}

impl Span {
    /// A range of bytes counted from the start of this span, cut at its end.
    pub fn part(self, range: std::ops::Range<usize>) -> Span {
        let at = |offset: usize| {
            self.start
                .saturating_add(u32::try_from(offset).unwrap_or(u32::MAX))
                .min(self.end)
        };
        Span {
            source: self.source,
            start: at(range.start),
            end: at(range.end),
        }
    }
}
