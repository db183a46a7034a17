//! `evenkeel run`, and the options by which any command finds its configuration.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::config::{Diagnostic, Loaded, Loader, Management};
use crate::server::{FRONT, front};

/// Where a configuration is looked for when nobody says: here, then on the whole machine.
const PLACES: &[&str] = &["evenkeel.toml", "/etc/evenkeel/evenkeel.toml"];

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The file is TOML, or YAML or JSON by its ending. Without -c it is $EVENKEEL_CONFIG, ./evenkeel.toml
or /etc/evenkeel/evenkeel.toml. Environment variables go over the file, --set goes over both:

  evenkeel run --set log.level=debug --set service.web.strategy=round_robin
  EVENKEEL_LOG__LEVEL=debug evenkeel run -c /etc/evenkeel/evenkeel.toml

HUP reads it all again and puts it in force without losing a request, or says why not and changes
nothing; --watch does so whenever the file holds something else. TERM and INT drain, a second one ends
at once.")]
pub struct Args {
    /// Where the configuration comes from.
    #[command(flatten)]
    pub configuration: ConfigurationOptions,
    /// Reload when the file has changed
    #[arg(long)]
    pub watch: bool,
    /// Under systemd: end as soon as the drain has begun, and leave the rest of it to a process behind
    /// this one. Needs a socket unit, and KillMode=process
    #[arg(long)]
    pub hand_over: bool,
}

impl Args {
    /// Runs it.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        // The one behind has the same arguments, and knows by its environment that it is behind.
        let is_behind = std::env::var_os(FRONT).is_some();
        if self.hand_over && !is_behind && front::has_sockets() {
            return front::run(std::env::args_os().skip(1).collect());
        }
        let watched = match self.watch {
            true => Some(self.configuration.file()?),
            false => None,
        };
        super::serve(self.configuration.loader()?, watched)
    }
}

/// Where the configuration comes from.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ConfigurationOptions {
    /// The configuration file
    #[arg(short, long = "config", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Change one setting; a member of a list is called by its name or number
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

impl ConfigurationOptions {
    /// Loads it, with the environment of this process.
    pub fn load(&self) -> Result<Loaded, Diagnostic> {
        self.loader()?.load()
    }

    /// Where the process that runs by it can be asked. Said to standard error when that is a guess, as
    /// the file has a mistake.
    pub fn management(&self) -> Management {
        let file = self.file().ok();
        // `evenkeel proxy` needs no file; its settings may be in the environment.
        let loader = file.as_ref().map_or_else(Loader::default, Loader::file);
        let loader = loader.process_environment();
        let found = self.set.iter().fold(loader, |l, flag| l.set(flag));
        let found = found.management();
        if let Some(file) = file.filter(|_| found.guessed) {
            eprintln!(
                "evenkeel: {} cannot be read or has a mistake (`evenkeel check` says which): where the instance is may be a guess",
                file.display()
            );
        }
        found
    }

    /// The file.
    pub fn file(&self) -> Result<PathBuf, Diagnostic> {
        find(self.config.clone(), std::env::var_os("EVENKEEL_CONFIG"))
    }

    /// All of it, ready to be loaded.
    pub fn loader(&self) -> Result<Loader, Diagnostic> {
        let loader = Loader::file(self.file()?).process_environment();
        Ok(self.set.iter().fold(loader, |l, flag| l.set(flag)))
    }
}

/// The file: as told, or the first that is there.
fn find(told: Option<PathBuf>, variable: Option<OsString>) -> Result<PathBuf, Diagnostic> {
    let variable = variable.filter(|v| !v.is_empty()).map(PathBuf::from);
    told.or(variable)
        .or_else(|| PLACES.iter().map(PathBuf::from).find(|p| p.exists()))
        .ok_or_else(|| {
            Diagnostic::without_place(
                format!(
                    "no configuration file: neither {} is there",
                    PLACES.join(" nor ")
                ),
                Some("name one with -c FILE; `evenkeel proxy` needs none".into()),
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_goes_before_the_variable() {
        let find = |flag: Option<&str>, variable: Option<&str>| {
            find(flag.map(PathBuf::from), variable.map(OsString::from))
        };
        assert_eq!(find(Some("a"), Some("b")).unwrap(), PathBuf::from("a"));
        assert_eq!(find(None, Some("b")).unwrap(), PathBuf::from("b"));
        assert_eq!(find(Some("a"), Some("")).unwrap(), PathBuf::from("a"));
    }
}
