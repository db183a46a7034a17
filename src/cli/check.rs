//! `evenkeel check`: says all that is wrong with a configuration, or what it amounts to.
//! `summary.rs` has the latter; `online.rs` looks at where it leads.

mod online;
mod summary;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use super::run_options::ConfigurationOptions;
use crate::config::{Config, Protocol};
use crate::tls::client::Loader;
use crate::tls::{certificates, client_certificates};

/// Arguments of `check`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exits with 0 when the file can be used, warnings included, and with 1 when it cannot. Certificates
and keys are loaded. Environment variables and --set count as they do for `run`.

With --online it exits with 1, too, when something is wrong with what the file leads to, seen from
where this command runs: a name that leads to nobody, a name server that does not answer, a record
that cannot be used, a static backend that takes no connection, a certificate that has expired.

  evenkeel check
  evenkeel check --online
  evenkeel check deploy/evenkeel.yaml --set log.level=debug")]
pub struct Args {
    /// The file; without it, the one that `run` would take
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Change one setting; a member of a list is called by its name or number
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Also ask for every name, connect to every static backend, and say how long certificates last
    #[arg(long)]
    pub online: bool,
}

/// Prints the verdict.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let options = ConfigurationOptions {
        config: args.file,
        set: args.set,
    };
    let loaded = options.loader()?.open_files().load()?;
    if !loaded.warnings.is_empty() {
        super::print_diagnostic(&loaded.warnings);
    }
    let certificates = certificates(&loaded.config);
    for line in certificates.errors.iter().chain(&certificates.warnings) {
        eprintln!("{line}");
    }
    if !certificates.errors.is_empty() {
        return Ok(ExitCode::FAILURE);
    }
    super::print(summary::of(&loaded.config))?;
    if args.online {
        let report = online::look(&loaded.config)?;
        super::print(format!("\nonline, as seen from here:\n{report}"))?;
        if !report.is_fine() {
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What there is to say of the certificates that a configuration names.
#[derive(Debug, Default)]
struct Certificates {
    errors: Vec<String>,
    warnings: Vec<String>,
}

/// Loads every certificate as `run` would, and what backends are verified by.
fn certificates(config: &Config) -> Certificates {
    let mut found = Certificates::default();
    for listener in &config.listeners {
        let Protocol::Https(tls) = &listener.protocol else {
            continue;
        };
        for files in &tls.certificates {
            let name = &listener.name;
            match certificates::load(files) {
                Ok(certificate) => found.warnings.extend(
                    certificate
                        .warnings(SystemTime::now())
                        .into_iter()
                        .map(|warning| format!("warning: listener {name}: {warning}")),
                ),
                Err(error) => found
                    .errors
                    .push(format!("error: listener {name}: {error}")),
            }
        }
        if let Some(wanted) = &tls.client_certificates {
            let of = format!("listener {}: client certificates", listener.name);
            let usable = client_certificates::verifier(wanted);
            match usable.and_then(|_| client_certificates::warnings(wanted, SystemTime::now())) {
                Ok(warnings) => found.warnings.extend(
                    warnings
                        .into_iter()
                        .map(|warning| format!("warning: {of}: {warning}")),
                ),
                Err(error) => found.errors.push(format!("error: {of}: {error}")),
            }
        }
    }
    let mut loader = Loader::default();
    for service in &config.services {
        let loaded = service.tls.as_ref().map(|tls| loader.load(tls));
        if let Some(Err(error)) = loaded {
            let name = &service.name;
            found.errors.push(format!("error: service {name}: {error}"));
        }
    }
    found
}

fn count(n: usize, what: &str) -> String {
    match n {
        1 => format!("1 {what}"),
        n => format!("{n} {what}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::from_toml_str;
    use crate::tls::dev::{self, DevFiles, Existing};

    #[test]
    fn certificates_are_loaded_as_run_would() {
        let folder = tempfile::tempdir().unwrap();
        let files = DevFiles::within(folder.path());
        let config = || {
            let [cert, key] = [&files.cert, &files.key].map(|path| path.display());
            from_toml_str(&format!(
                r#"
                [[listener]]
                name = "front"
                address = "127.0.0.1:8443"
                protocol = "https"
                certificates = [{{ cert = "{cert}", key = "{key}" }}]

                [[service]]
                name = "a"
                discover = {{ static = ["127.0.0.1:9001"] }}

                [[route]]
                service = "a"
                "#
            ))
            .unwrap()
        };
        let names = ["localhost".to_owned()];
        let made = dev::self_signed(&names).unwrap();
        files.write(&made, Existing::Keep).unwrap();
        let found = certificates(&config());
        assert!(
            found.errors.is_empty() && found.warnings.is_empty(),
            "{found:?}"
        );

        let nameless = dev::self_signed(&[]).unwrap();
        files.write(&nameless, Existing::Replace).unwrap();
        let found = certificates(&config());
        assert!(found.errors.is_empty(), "{found:?}");
        assert!(
            found.warnings[0].starts_with("warning: listener front: "),
            "{found:?}"
        );

        let other = dev::self_signed(&names).unwrap();
        std::fs::write(&files.key, other.key).unwrap();
        let found = certificates(&config());
        assert!(found.errors[0].contains("does not match"), "{found:?}");
    }
}
