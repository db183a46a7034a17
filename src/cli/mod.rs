//! The command line: one file per command, each with its arguments and its `run`.
//!
//! A new command is a file here and a line in [`Command`] and in [`Command::run`]. Exit codes: 0
//! fine, 1 start-up or configuration, 2 usage (clap's own), 3 the drain deadline passed.

pub mod backend;
pub mod cert;
pub mod check;
pub mod completions;
pub mod config;
pub mod demo;
pub mod dns;
pub mod drain;
pub mod events;
pub mod explain;
pub mod health;
mod http;
mod instance;
pub mod log_level;
pub mod man;
pub mod proxy_options;
pub mod query;
pub mod register;
pub mod reload;
pub mod run_options;
pub mod schedule;
pub mod status;
pub mod top;
pub mod url;
pub mod version;
pub mod weight;

use std::borrow::Cow;
use std::io::{ErrorKind, IsTerminal as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::{Diagnostic, Loader};
use crate::server::{Source, Watched};
use crate::telemetry::characters::steers;
use crate::tls::certificates::CertificateError;
use crate::tls::server::TlsError;

/// Everything that can be typed.
#[derive(Debug, Parser)]
#[command(
    name = "evenkeel",
    version,
    about = "A load balancer that is driven by DNS SRV records: HTTPS in, DNS decides, kept-alive HTTP out",
    after_help = "\
Examples:
  evenkeel proxy --from :8080 --to srv://_http._tcp.web.default.svc.cluster.local
  evenkeel check evenkeel.toml
  evenkeel run -c evenkeel.toml --set log.level=debug

Exit codes: 0 fine, 1 start-up or configuration, 2 usage, 3 drain deadline passed.",
    arg_required_else_help = true,
    max_term_width = 100
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// One variant per command, in the order in which somebody meets them.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// See it work: backends join, die and leave under traffic, all in this process
    Demo(demo::Args),
    /// Run what a configuration file describes, until a signal ends it
    Run(run_options::Args),
    /// Balance from one address to one service; needs no file
    Proxy(proxy_options::Args),
    /// Check a configuration file and say all that is wrong with it
    Check(check::Args),
    /// Write a configuration file to begin with, or print the schema for editors
    Config(config::Args),
    /// Show the SRV records of a name, the share each endpoint gets, and what is wrong
    Query(query::Args),
    /// Show the next picks of a fresh schedule and the share each backend gets
    Schedule(schedule::Args),
    /// Ask the running process how it is, for HEALTHCHECK and probes
    Health(health::Args),
    /// Show how a running instance is: its services, their backends, and why each is as it is
    Status(status::Args),
    /// Watch a running instance: services, tiers, backends, events; drain and weigh by key
    Top(top::Args),
    /// Say where a request would go in a running instance, and why not elsewhere
    Explain(explain::Args),
    /// Show what happened in a running instance, and what happens
    Events(events::Args),
    /// Make a running instance unready, or give one of its backends no new request
    Drain(drain::DrainArgs),
    /// Take a drain back
    Undrain(drain::UndrainArgs),
    /// Override the weight of a backend of a running instance
    Weight(weight::Args),
    /// Have a running instance take up a changed configuration
    Reload(reload::Args),
    /// Show what a running instance logs, or have it log more or less
    LogLevel(log_level::Args),
    /// Make certificates for development
    Cert(cert::Args),
    /// Print what a shell needs to complete these commands
    Completions(completions::Args),
    /// Print a manual page, or write them all
    Man(man::Args),
    /// Print which program this is, for bug reports
    Version(version::Args),
    /// Serve a DNS zone in which backends register themselves
    Dns(dns::Args),
    /// Register a backend in DNS by dynamic update, and run it
    Register(Box<register::Args>),
    /// Serve as a sample backend that shows each request to who sent it
    Backend(Box<backend::Args>),
}

impl Command {
    /// Carries it out.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Command::Demo(args) => demo::run(args),
            Command::Run(args) => args.run(),
            Command::Proxy(args) => serve(args.loader()?.process_environment(), None),
            Command::Check(args) => check::run(args),
            Command::Config(args) => config::run(args),
            Command::Query(args) => query::run(args),
            Command::Schedule(args) => schedule::run(args),
            Command::Health(args) => health::run(args),
            Command::Status(args) => status::run(args),
            Command::Top(args) => top::run(args),
            Command::Explain(args) => explain::run(args),
            Command::Events(args) => events::run(args),
            Command::Drain(args) => drain::drain(args),
            Command::Undrain(args) => drain::undrain(args),
            Command::Weight(args) => weight::run(args),
            Command::Reload(args) => reload::run(args),
            Command::LogLevel(args) => log_level::run(args),
            Command::Cert(args) => cert::run(args),
            Command::Completions(args) => completions::run(args),
            Command::Man(args) => man::run(args),
            Command::Version(args) => version::run(args),
            Command::Dns(args) => dns::run(args),
            Command::Register(args) => register::run(*args),
            Command::Backend(args) => backend::run(*args),
        }
    }
}

/// Loads a configuration, starts the log, says what is doubtful about it, then runs it.
fn serve(loader: Loader, watched: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    // What it holds before it is read: a change in between is one.
    let watched = watched.map(Watched::new);
    let loaded = loader.clone().load()?;
    let source: Source = Arc::new(move || loader.clone().reload());
    let log = &loaded.config.log;
    crate::telemetry::logging::init(&log.level, log.format)?;
    for warning in loaded.warnings.one_by_one() {
        tracing::warn!("{warning}");
    }
    crate::server::run(loaded.config, source, watched)
}

/// From the arguments of this process to its exit code; what went wrong is on standard error.
pub fn main() -> ExitCode {
    let command = Cli::parse().command;
    // What `register` runs inherits the limit, and has not asked for another.
    if !matches!(command, Command::Register(_)) {
        raise_descriptor_limit();
    }
    match command.run() {
        Ok(code) => code,
        Err(error) => {
            match error.downcast_ref::<Diagnostic>() {
                Some(diagnostic) => print_diagnostic(diagnostic),
                None => eprintln!("evenkeel: {}", harmless(&with_causes(&error))),
            }
            if let Some(hint) = hint(&error) {
                eprintln!("evenkeel: {hint}");
            }
            ExitCode::FAILURE
        }
    }
}

/// What to do about an error, where that is known.
fn hint(error: &anyhow::Error) -> Option<&'static str> {
    let missing = |cause: &(dyn std::error::Error + 'static)| {
        let TlsError::Certificate(CertificateError::Read { source, .. }) = cause.downcast_ref()?
        else {
            return None;
        };
        (source.kind() == ErrorKind::NotFound).then_some(())
    };
    let mut missing = error.chain().filter_map(missing);
    missing
        .next()
        .map(|()| "`evenkeel cert dev` makes certs/dev.pem and certs/dev.key, to try with")
}

/// An error and its causes. Some errors of ours say their cause themselves, for those who log them
/// alone; it is not said twice.
fn with_causes(error: &anyhow::Error) -> String {
    let mut words = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !words.ends_with(&cause) {
            words = format!("{words}: {cause}");
        }
    }
    words
}

/// Takes as many file descriptors as this process may have. The soft limit is often 1024, for the
/// sake of programs that use `select`; ours would run out of connections long before memory, and
/// the default of `max_connections` follows this limit.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        // Where it is refused, the limit stays what it was, and so does what follows from it.
        let _ = setrlimit(Resource::Nofile, limit);
    }
}

/// The signals by which somebody ends a command: INT and TERM. Those that come between two calls
/// of `next` are not lost.
struct Interrupts {
    term: Signal,
    int: Signal,
}

impl Interrupts {
    fn new() -> std::io::Result<Interrupts> {
        Ok(Interrupts {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next one. Cancel-safe.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}

/// Waits for the first of them.
async fn interrupted() -> std::io::Result<()> {
    Interrupts::new()?.next().await;
    Ok(())
}

/// Prints a line as [`print`] does, and hands on what went wrong.
macro_rules! line {
    ($($text:tt)*) => {
        super::print(format!("{}\n", format_args!($($text)*)))?
    };
}
use line;

/// Prints on standard output; a reader that has seen enough (`| head`) is no error.
/// What would steer the terminal is escaped: names and reasons in it may come from anywhere.
fn print(text: impl AsRef<[u8]>) -> std::io::Result<()> {
    use std::io::Write as _;
    let text = String::from_utf8_lossy(text.as_ref());
    match std::io::stdout()
        .lock()
        .write_all(harmless(&text).as_bytes())
    {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

/// The same lines without anything that does more than be shown.
fn harmless(text: &str) -> Cow<'_, str> {
    let steers = |c: char| steers(c) && !matches!(c, '\n' | '\t');
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match steers(c) {
            true => escaped.extend(c.escape_default()),
            false => escaped.push(c),
        }
    }
    Cow::Owned(escaped)
}

/// Prints a report on standard error, in colour where somebody sees it.
pub fn print_diagnostic(diagnostic: &Diagnostic) {
    // https://no-color.org: set and not empty.
    let plain = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    if std::io::stderr().is_terminal() && !plain {
        eprintln!("{}\n", diagnostic.styled());
    } else {
        eprintln!("{diagnostic}\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cause_is_said_twice() {
        let missing = || std::io::Error::from_raw_os_error(2);
        let source = missing();
        let path = "web.key".into();
        let said = crate::dns_server::key::KeyError::Io { path, source };
        let error = anyhow::Error::from(said).context("no key");
        let text = "no key: web.key: No such file or directory (os error 2)";
        assert_eq!(with_causes(&error), text);
        let plain = anyhow::Error::from(missing()).context("no key");
        assert_eq!(
            with_causes(&plain),
            "no key: No such file or directory (os error 2)"
        );
    }
}
