//! One load: file, environment and flags in, configuration or diagnostics out.

use std::io::Read as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::diagnostics::{Diagnostic, Problems};
use super::read::{Key, Read};
use super::source::{Files, Sources, Span};
use super::tree::{self, Format, Node, Value};
use super::written::{self, Written};
use super::zone::{self, ZoneConfig, ZoneFile};
use super::{Config, build, overlay, raw, schema};

/// A configuration that can be used, and what somebody should look at all the same.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Warnings; empty if there are none.
    pub warnings: Diagnostic,
}

/// Collects what a configuration is made of. Later ones go over earlier ones: defaults, the file
/// or text, the environment, `--set`.
#[derive(Debug, Clone, Default)]
pub struct Loader {
    base: Option<Base>,
    pub(super) variables: Vec<(String, String)>,
    pub(super) flags: Vec<String>,
    files: Files,
}

#[derive(Debug, Clone)]
enum Base {
    File(PathBuf),
    Text { text: String, format: Format },
    Arguments(Vec<Argument>),
}

/// One value that a flag of its own gives, such as `--from`.
#[derive(Debug, Clone)]
struct Argument {
    flag: String,
    text: String,
    part: Range<usize>,
    path: Vec<String>,
}

/// Text in, tree out: [`tree::parse`], or one that is content with less.
type Parse = fn(Format, &str, Span, &mut Problems) -> Option<Node>;

/// A larger file is not a configuration: 16 MiB holds some hundred thousand routes.
const LARGEST: u64 = 16 << 20;

/// Loads a file with the environment of this process over it. Warnings go to the log.
pub fn load(path: &Path) -> Result<Config, Diagnostic> {
    let loaded = Loader::file(path).process_environment().load()?;
    for warning in loaded.warnings.one_by_one() {
        tracing::warn!("{warning}");
    }
    Ok(loaded.config)
}

/// Loads a TOML text alone, without the environment.
pub fn from_toml_str(text: &str) -> Result<Config, Diagnostic> {
    Loader::text(text, Format::Toml).load().map(|l| l.config)
}

/// Every key that a file can hold, as `service.dns.timeout`, with what it takes.
pub fn keys() -> Vec<(String, &'static str)> {
    all_keys(raw::File::keys())
}

/// The same for the file of a zone.
pub fn zone_keys() -> Vec<(String, &'static str)> {
    all_keys(ZoneFile::keys())
}

/// JSON Schema of a file.
pub fn json_schema() -> serde_json::Value {
    schema::whole("Evenkeel", raw::File::schema(), CONFIGURATION_KEYS)
}

/// JSON Schema of the file of a zone.
pub fn zone_json_schema() -> serde_json::Value {
    schema::whole("A zone of evenkeel dns", ZoneFile::schema(), ZONE_KEYS)
}

/// What each key means. `docs/reference.md` is made of it, and of the schema.
pub(super) const CONFIGURATION_KEYS: &str = include_str!("keys.md");

/// The same for the file of a zone.
pub(super) const ZONE_KEYS: &str = include_str!("zone_keys.md");

fn all_keys(keys: &[Key]) -> Vec<(String, &'static str)> {
    fn walk(keys: &[Key], above: &str, all: &mut Vec<(String, &'static str)>) {
        for key in keys {
            let path = format!("{above}{}", key.name);
            all.push((path.clone(), key.expects));
            walk((key.keys)(), &format!("{path}."), all);
        }
    }
    let mut all = Vec::new();
    walk(keys, "", &mut all);
    all
}

impl Loader {
    /// From a file; its ending says which format it has.
    pub fn file(path: impl Into<PathBuf>) -> Loader {
        Loader {
            base: Some(Base::File(path.into())),
            ..Loader::default()
        }
    }

    /// From a text.
    pub fn text(text: impl Into<String>, format: Format) -> Loader {
        let text = text.into();
        Loader {
            base: Some(Base::Text { text, format }),
            ..Loader::default()
        }
    }

    /// From flags alone; see [`Loader::argument`].
    pub fn arguments() -> Loader {
        Loader {
            base: Some(Base::Arguments(Vec::new())),
            ..Loader::default()
        }
    }

    /// Sets the key at `path` (numbers for members of lists, in order) to `part` of what `flag`
    /// holds. A mistake in it is shown as one in `flag`. Only after [`Loader::arguments`].
    pub fn argument(
        mut self,
        flag: &str,
        text: impl Into<String>,
        part: Range<usize>,
        path: &[&str],
    ) -> Loader {
        if let Some(Base::Arguments(list)) = &mut self.base {
            list.push(Argument {
                flag: flag.to_owned(),
                text: text.into(),
                part,
                path: path.iter().map(|step| (*step).to_owned()).collect(),
            });
        }
        self
    }

    /// Puts these variables over it; only those that start with `EVENKEEL_` count.
    pub fn environment(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Loader {
        self.variables.extend(variables);
        self
    }

    /// Puts the variables of this process over it.
    pub fn process_environment(self) -> Loader {
        // A variable that is not UTF-8 cannot be one of ours with a value of ours.
        self.environment(std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        }))
    }

    /// Puts `key=value` over it.
    pub fn set(mut self, flag: impl Into<String>) -> Loader {
        self.flags.push(flag.into());
        self
    }

    /// Also opens the certificates and keys that it names: one that cannot be read is an error
    /// at the place that names it, and so is a folder for answers that cannot be written.
    pub fn open_files(mut self) -> Loader {
        self.files = Files::Opened;
        self
    }

    /// Reads and checks all of it.
    pub fn load(mut self) -> Result<Loaded, Diagnostic> {
        let mut sources = Sources::default();
        let mut problems = Problems::default();
        let path = match &self.base {
            Some(Base::File(path)) => Some(path.clone()),
            _ => None,
        };
        let Some(mut root) = self.root(tree::parse, &mut sources, &mut problems)? else {
            return Err(problems.into_diagnostic(sources));
        };
        overlay::environment(&mut root, &self.variables, &mut sources, &mut problems);
        for flag in &self.flags {
            overlay::set(&mut root, flag, &mut sources, &mut problems);
        }
        let config = raw::File::read(&root, &mut problems).map(|file| {
            let mut config = build::build(file, self.files, &sources, &mut problems);
            config.written = Arc::new(Written {
                file: path,
                tree: written::redacted(&root),
            });
            config
        });
        match config {
            Some(config) if !problems.any_error() => Ok(Loaded {
                config,
                warnings: problems.into_diagnostic(sources),
            }),
            _ => Err(problems.into_diagnostic(sources)),
        }
    }

    /// The same again, when it has been loaded before.
    pub fn reload(self) -> Result<Loaded, Diagnostic> {
        if let Some(Base::File(path)) = &self.base {
            is_there_again(path)?;
        }
        self.load()
    }

    /// Reads and checks the configuration of a zone. The environment is left out of it.
    pub fn load_zone(mut self) -> Result<ZoneConfig, Diagnostic> {
        let mut sources = Sources::default();
        let mut problems = Problems::default();
        let root = self.root(tree::parse, &mut sources, &mut problems)?;
        let file = root.and_then(|root| ZoneFile::read(&root, &mut problems));
        let config = file.map(|file| zone::build(file, &sources, &mut problems));
        match config {
            Some(config) if !problems.any_error() => Ok(config),
            _ => Err(problems.into_diagnostic(sources)),
        }
    }

    /// The tree of the file, text or flags; `None`: it cannot be parsed, and why is recorded.
    pub(super) fn root(
        &mut self,
        parse: Parse,
        sources: &mut Sources,
        problems: &mut Problems,
    ) -> Result<Option<Node>, Diagnostic> {
        Ok(match self.base.take() {
            Some(Base::File(path)) => {
                let text = read_file(&path)?;
                let base = path.parent().unwrap_or(Path::new(""));
                let whole = sources.add(path.display().to_string(), text.as_str(), base);
                parse(Format::of(&path), &text, whole, problems)
            }
            Some(Base::Text { text, format }) => {
                let whole = sources.add("configuration", text.as_str(), Path::new(""));
                parse(format, &text, whole, problems)
            }
            Some(Base::Arguments(arguments)) => {
                let mut root = empty();
                for argument in arguments {
                    let Argument {
                        flag,
                        text,
                        part,
                        path,
                    } = argument;
                    let value = text.get(part.clone()).unwrap_or_default();
                    let span = sources.add(flag, text.as_str(), Path::new("")).part(part);
                    overlay::argument(&mut root, &path, value, span, problems);
                }
                Some(root)
            }
            None => Some(empty()),
        })
    }
}

fn empty() -> Node {
    Node {
        span: super::source::Span::default(),
        value: Value::Table(Vec::new()),
    }
}

/// A pipe is read once, at the start: later on nobody is at its other end, and it would be waited for.
fn is_there_again(path: &Path) -> Result<(), Diagnostic> {
    match std::fs::metadata(path) {
        Ok(file) if !file.is_file() && !file.is_dir() => {
            let title = format!(
                "{} is no regular file: it can be read only once",
                path.display()
            );
            Err(Diagnostic::without_place(title, None))
        }
        // Whoever reads it says what is wrong.
        _ => Ok(()),
    }
}

fn read_file(path: &Path) -> Result<String, Diagnostic> {
    let failed = |error: std::io::Error| {
        let help = (error.kind() == std::io::ErrorKind::NotFound)
            .then(|| "`evenkeel proxy` and `evenkeel demo` need no file".to_owned());
        Diagnostic::without_place(format!("cannot read {}: {error}", path.display()), help)
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(LARGEST + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > LARGEST {
        let title = format!("{} is larger than 16 MiB", path.display());
        return Err(Diagnostic::without_place(title, None));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..at]
            .iter()
            .filter(|b| **b == b'\n')
            .count()
            + 1;
        let title = format!("{} is not UTF-8 in line {line}", path.display());
        Diagnostic::without_place(title, None)
    })
}
