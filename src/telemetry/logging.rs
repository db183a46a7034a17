//! The program's own log, on standard error: what it does and what went wrong, by `tracing`.
//!
//! Requests are in the access log (`access/`), on standard output.

use std::fmt::{Debug, Write};
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::sync::{Mutex, OnceLock, PoisonError};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tracing::field::Field;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt;
use tracing_subscriber::fmt::format::debug_fn;
use tracing_subscriber::fmt::time::FormatTime;

use super::characters::steers;
use super::date::Rfc3339;

/// Format of the program's own log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum LoggingError {
    #[error("{origin}: \"{filter}\" is no level and no filter: {source}")]
    Filter {
        origin: &'static str,
        filter: String,
        source: tracing_subscriber::filter::ParseError,
    },
    #[error("{origin}: \"{word}\" is no level; of a target all is said by `{word}=trace`")]
    Word { origin: &'static str, word: String },
    #[error("{origin}: \"{filter}\" says nothing; `off` silences the log")]
    Nothing {
        origin: &'static str,
        filter: String,
    },
    #[error("a filter is one line of {LONGEST_FILTER} bytes at most")]
    Form,
    #[error("the log was set up before")]
    Twice(#[source] tracing::dispatcher::SetGlobalDefaultError),
    #[error("the log was not set up")]
    NotYet,
    #[error("the log is gone: {0}")]
    Gone(#[source] tracing_subscriber::reload::Error),
}

/// Environment variables that take the place of the configured level, in this order.
const VARIABLES: [&str; 2] = ["EVENKEEL_LOG", "RUST_LOG"];

/// Bytes of a filter that is set at run time: dozens of directives. Each costs time per line.
pub const LONGEST_FILTER: usize = 1024;

/// Sets up the log of the process, once. `level`: `off`, `error`, `warn`, `info`, `debug`,
/// `trace`, or a filter in the syntax of tracing-subscriber's `EnvFilter`. A set, non-empty
/// `EVENKEEL_LOG` or else `RUST_LOG` takes its place.
pub fn init(level: &str, format: LogFormat) -> Result<(), LoggingError> {
    let terminal = io::stderr().is_terminal();
    let chosen = choose(level, |name| std::env::var(name).ok());
    let level = chosen.1.trim().to_owned();
    let filter = filter(chosen)?;
    let json = match format {
        LogFormat::Auto => !terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let unhurried = || Unhurried(io::stderr().lock());
    let (dispatch, change) = dispatch(filter, json, terminal, unhurried);
    tracing::dispatcher::set_global_default(dispatch).map_err(LoggingError::Twice)?;
    // `set_global_default` lets one through, so nobody was here before.
    let _ = LOG.set(Log {
        change,
        level: Mutex::new(level),
    });
    Ok(())
}

/// Can a log be set up with this level or filter? The same question as [`init`] asks.
pub fn check_level(level: &str) -> Result<(), LoggingError> {
    filter(("log level", level.to_owned())).map(drop)
}

/// Gives the log of the process another level or filter, as [`init`] takes them, from now on. It
/// takes the place of what the environment says, too. Returns what was in its place. After an error
/// all is as it was.
pub fn set_level(level: &str) -> Result<String, LoggingError> {
    let level = level.trim();
    if level.len() > LONGEST_FILTER || level.chars().any(steers) {
        return Err(LoggingError::Form);
    }
    let filter = filter(("log level", level.to_owned()))?;
    let log = LOG.get().ok_or(LoggingError::NotYet)?;
    let mut known = log.level.lock().unwrap_or_else(PoisonError::into_inner);
    (log.change)(filter).map_err(LoggingError::Gone)?;
    Ok(std::mem::replace(&mut *known, level.to_owned()))
}

/// The level or filter that is in force.
pub fn level() -> Result<String, LoggingError> {
    let log = LOG.get().ok_or(LoggingError::NotYet)?;
    let known = log.level.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(known.clone())
}

/// The log of the process.
struct Log {
    change: Change,
    /// What is in force, as it was written. Held while it is changed, so that the two agree.
    level: Mutex<String>,
}

/// Gives a log another filter.
type Change = Box<dyn Fn(EnvFilter) -> Result<(), tracing_subscriber::reload::Error> + Send + Sync>;

/// `tracing` has one log for the whole process, and so there is one of this.
static LOG: OnceLock<Log> = OnceLock::new();

/// Where a filter was given, and the filter.
type Chosen = (&'static str, String);

fn choose(level: &str, variable: impl Fn(&str) -> Option<String>) -> Chosen {
    VARIABLES
        .into_iter()
        .find_map(|name| {
            Some((
                name,
                variable(name).filter(|value| !value.trim().is_empty())?,
            ))
        })
        .unwrap_or_else(|| ("log level", level.to_owned()))
}

/// A mere level is ours: other crates are heard from `warn` on, or they drown us. A filter means
/// what it says.
fn filter((origin, text): Chosen) -> Result<EnvFilter, LoggingError> {
    if text.split(',').all(|directive| directive.trim().is_empty()) {
        let filter = text;
        return Err(LoggingError::Nothing { origin, filter });
    }
    let directives = match text.trim().parse::<LevelFilter>() {
        Ok(level) => format!("{},evenkeel={level}", level.min(LevelFilter::WARN)),
        Err(_) => text.trim().to_owned(),
    };
    // Taken for a target, a level that is misspelt would silence everything else.
    if let Some(word) = directives.split(',').map(str::trim).find(|d| is_word(d)) {
        let word = word.trim_end_matches('=').to_owned();
        return Err(LoggingError::Word { origin, word });
    }
    EnvFilter::builder()
        .parse(directives)
        .map_err(|source| LoggingError::Filter {
            origin,
            filter: text,
            source,
        })
}

/// Is a directive neither a level nor anything that only a target or a span can be?
fn is_word(directive: &str) -> bool {
    let directive = directive.trim_end_matches('=');
    !directive.is_empty()
        && !directive.contains("::")
        && !directive.contains(['=', '['])
        && directive.parse::<LevelFilter>().is_err()
}

fn dispatch<W, O>(
    filter: EnvFilter,
    json: bool,
    colours: bool,
    writer: W,
) -> (tracing::Dispatch, Change)
where
    W: Fn() -> O + Send + Sync + 'static,
    O: io::Write + 'static,
{
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_timer(Utc)
        .with_ansi(colours)
        // Else it complains on standard error, and panics when nobody reads that any more.
        .log_internal_errors(false);
    if json {
        let harmless = move || Harmless(writer());
        let builder = builder
            .json()
            .flatten_event(true)
            .with_writer(harmless)
            .with_filter_reloading();
        let handle = builder.reload_handle();
        (
            builder.into(),
            Box::new(move |filter| handle.reload(filter)),
        )
    } else {
        let fields = debug_fn(write_field).delimited(" ");
        let builder = builder
            .fmt_fields(fields)
            .with_writer(writer)
            .with_filter_reloading();
        let handle = builder.reload_handle();
        (
            builder.into(),
            Box::new(move |filter| handle.reload(filter)),
        )
    }
}

/// tracing-subscriber escapes terminal sequences in messages, but neither line ends nor anything
/// in a field that is given by its `Display`. What peers send ends up in both.
fn write_field(
    writer: &mut fmt::format::Writer<'_>,
    field: &Field,
    value: &dyn Debug,
) -> std::fmt::Result {
    if field.name() != "message" {
        write!(writer, "{}=", field.name())?;
    }
    write!(Escaped(writer), "{value:?}")
}

/// Passes text on with its control characters escaped.
struct Escaped<'a, 'b>(&'a mut fmt::format::Writer<'b>);

impl Write for Escaped<'_, '_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for part in text.split_inclusive(steers) {
            let plain = part.trim_end_matches(steers);
            self.0.write_str(plain)?;
            write!(self.0, "{}", part[plain.len()..].escape_default())?;
        }
        Ok(())
    }
}

/// Takes lines of JSON, and escapes what JSON lets stand in a text and a terminal obeys.
struct Harmless<W>(W);

impl<W: io::Write> io::Write for Harmless<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // What was not taken of a line comes again from there on, perhaps in the middle of a
        // character, which is none that steers: those are passed on by themselves.
        let tail = bytes
            .iter()
            .take_while(|byte| **byte & 0xc0 == 0x80)
            .count();
        if tail > 0 {
            return self.0.write(&bytes[..tail]);
        }
        // Lines are formatted as text.
        let Ok(text) = std::str::from_utf8(bytes) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let mut characters = text.char_indices();
        match characters.find(|(_, c)| *c != '\n' && steers(*c)) {
            Some((0, character)) => {
                write!(self.0, "\\u{:04x}", character as u32)?;
                Ok(character.len_utf8())
            }
            Some((plain, _)) => self.0.write(&bytes[..plain]),
            None => self.0.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Writes what is taken at once and fails with the rest: whoever reads the log may be stuck, and
/// a request, or the whole process, must not be stuck with it. To be held by one writer at a time.
struct Unhurried<W>(W);

/// A pipe that is ready takes so much without waiting (`PIPE_BUF`).
const AT_ONCE: usize = 4096;

impl<W: io::Write + AsFd> io::Write for Unhurried<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut ready = [PollFd::new(&self.0, PollFlags::OUT)];
        if poll(&mut ready, Some(&Timespec::default())) == Ok(0) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.0.write(&bytes[..bytes.len().min(AT_ONCE)])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

struct Utc;

impl FormatTime for Utc {
    fn format_time(&self, writer: &mut fmt::format::Writer<'_>) -> std::fmt::Result {
        write!(writer, "{}", Rfc3339::millis(std::time::SystemTime::now()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Out(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Out {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(level: &str, json: bool, events: impl FnOnce()) -> String {
        let out = Out::default();
        let writer = out.clone();
        let filter = filter(("test", level.to_owned())).unwrap();
        let (dispatch, _) = dispatch(filter, json, false, move || writer.clone());
        tracing::dispatcher::with_default(&dispatch, events);
        let bytes = out.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    fn events() {
        tracing::debug!(target: "evenkeel::proxy", "ours in detail");
        tracing::info!(target: "evenkeel::server", "ours");
        tracing::info!(target: "hickory_resolver", "theirs");
        tracing::warn!(target: "hickory_resolver", "their warning");
    }

    #[test]
    fn a_reader_that_is_stuck_holds_nobody_up() {
        use std::io::{Read, Write};
        let (mut reader, writer) = io::pipe().unwrap();
        let mut log = Unhurried(writer);
        let line = [&[b'x'; 999][..], b"\n"].concat();
        let taken = (0..10_000).take_while(|_| log.write_all(&line).is_ok());
        let taken = taken.count();
        assert!((1..10_000).contains(&taken), "{taken} lines");
        reader.read_exact(&mut vec![0; taken * line.len()]).unwrap();
        log.write_all(&line.repeat(20)).unwrap();
    }

    #[test]
    fn levels_are_ours_and_filters_are_taken_at_their_word() {
        for (level, expected) in [
            ("info", &["ours", "their warning"][..]),
            ("DEBUG", &["ours in detail", "ours", "their warning"]),
            ("warn", &["their warning"]),
            ("error", &[]),
            ("off", &[]),
            ("hickory_resolver=info", &["theirs", "their warning"]),
            ("info,hickory_resolver=off", &["ours"]),
        ] {
            let text = logged(level, false, events);
            let messages: Vec<_> = text
                .lines()
                .map(|line| line.rsplit(": ").next().unwrap())
                .collect();
            assert_eq!(messages, expected, "{level}");
        }
    }

    #[test]
    fn json_is_an_object_a_line() {
        let text = logged(
            "info",
            true,
            || tracing::info!(target: "evenkeel", backend = "b\n1", "joined"),
        );
        let event: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(event["message"], "joined");
        assert_eq!(event["backend"], "b\n1");
        assert_eq!(event["level"], "INFO");
        assert_eq!(
            event["timestamp"].as_str().unwrap().len(),
            "2026-01-02T03:04:05.678Z".len()
        );
        assert_eq!(text.lines().count(), 1);
    }

    /// What peers send ends up in messages: it must not steer a terminal or forge a line.
    #[test]
    fn no_character_steers() {
        let name = "x\u{1b}[31m\r\nforged \u{9b}\u{7f}\u{202e}é";
        for json in [false, true] {
            let log = || tracing::info!(target: "evenkeel", %name, ?name, "{name}");
            let text = logged("info", json, log);
            let line = text.strip_suffix('\n').expect("a line");
            assert_eq!(line.chars().find(|c| steers(*c)), None, "{text:?}");
            assert!(line.contains('é'), "{text}");
            if json {
                let event: serde_json::Value = serde_json::from_str(line).expect("JSON");
                assert_eq!(event["message"], name);
            }
        }
    }

    /// However little is taken at once.
    #[test]
    fn lines_are_harmless_in_parts() {
        use std::io::Write as _;
        struct Slow(Vec<u8>);
        impl io::Write for Slow {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.extend(bytes.iter().take(1));
                Ok(bytes.len().min(1))
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut log = Harmless(Slow(Vec::new()));
        log.write_all("\u{9b}aé\u{202e}\u{7f}é\u{9b}\n".as_bytes())
            .unwrap();
        let text = String::from_utf8(log.0.0).unwrap();
        assert_eq!(text, "\\u009baé\\u202e\\u007fé\\u009b\n");
    }

    #[test]
    fn the_environment_goes_before_the_file() {
        let none = |_: &str| None;
        assert_eq!(choose("info", none), ("log level", "info".into()));
        let rust_log = |name: &str| (name == "RUST_LOG").then(|| "debug".to_owned());
        assert_eq!(choose("info", rust_log), ("RUST_LOG", "debug".into()));
        let both = |name: &str| Some(format!("{name}=info"));
        assert_eq!(
            choose("info", both),
            ("EVENKEEL_LOG", "EVENKEEL_LOG=info".into())
        );
        let empty = |_: &str| Some(" ".to_owned());
        assert_eq!(choose("warn", empty), ("log level", "warn".into()));
    }

    #[test]
    fn nonsense_is_said_with_its_origin() {
        let error = filter(("RUST_LOG", "evenkeel=loud".to_owned()))
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("RUST_LOG: \"evenkeel=loud\" is no level"),
            "{error}"
        );
        for (text, word) in [
            ("debgu", "debgu"),
            ("info, hyper", "hyper"),
            ("-1", "-1"),
            ("6", "6"),
            ("a=", "a"),
            ("info debug", "info debug"),
        ] {
            let error = filter(("RUST_LOG", text.to_owned())).unwrap_err();
            let expected = format!(
                "RUST_LOG: \"{word}\" is no level; of a target all is said by `{word}=trace`"
            );
            assert_eq!(error.to_string(), expected);
        }
        for text in ["", " ", ",", ",, ,"] {
            let error = check_level(text).unwrap_err().to_string();
            let expected = format!("log level: \"{text}\" says nothing; `off` silences the log");
            assert_eq!(error, expected);
        }
        for text in [
            "off",
            "WARN",
            "0",
            "info,hyper=debug",
            "evenkeel::dns",
            "[request]=trace",
        ] {
            assert!(check_level(text).is_ok(), "{text}");
        }
    }
}
