//! `evenkeel check`: says all that is wrong with a configuration, or what it amounts to.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use super::run_options::ConfigurationOptions;
use crate::config::{Config, Discover, Protocol, TlsVersion};

/// Arguments of `check`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exits with 0 when the file can be used, warnings included, and with 1 when it cannot. Certificates
and keys are opened. Environment variables and --set count as they do for `run`.

  evenkeel check
  evenkeel check deploy/evenkeel.yaml --set log.level=debug")]
pub struct Args {
    /// The file; without it, the one that `run` would take
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Change one setting; a member of a list is called by its name or number
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
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
    print!("{}", summary(&loaded.config));
    Ok(ExitCode::SUCCESS)
}

/// So many members of each kind are listed.
const LISTED: usize = 20;

/// `ok`, and what the configuration amounts to.
pub fn summary(config: &Config) -> String {
    let listeners = config.listeners.iter().map(|listener| {
        let speaks = match (&listener.protocol, listener.redirect) {
            (_, Some(redirect)) => format!("http, redirects to https ({})", redirect.status),
            (Protocol::Http, None) => "http".to_owned(),
            (Protocol::Https(tls), None) => format!(
                "https, TLS {} or later, {}",
                match tls.min_version {
                    TlsVersion::Tls12 => "1.2",
                    TlsVersion::Tls13 => "1.3",
                },
                count(tls.certificates.len(), "certificate"),
            ),
        };
        match listener.name.parse::<std::net::SocketAddr>() {
            Ok(_) => format!("{} {speaks}", listener.address),
            Err(_) => format!("{} {} {speaks}", listener.name, listener.address),
        }
    });
    let services = config.services.iter().map(|service| {
        let from = match &service.discover {
            Discover::Srv { name, .. } => format!("SRV {name}"),
            Discover::Address { name, port, .. } => format!("A {name} port {port}"),
            Discover::Static(list) => count(list.len(), "static backend"),
        };
        format!("{}: {from}", service.name)
    });
    let routes = config
        .routes
        .iter()
        .map(|route| format!("{} → {}", route.label, config.services[route.service].name));
    let mut text = format!(
        "ok: {}, {}, {}\n",
        count(config.listeners.len(), "listener"),
        count(config.services.len(), "service"),
        count(config.routes.len(), "route"),
    );
    list(&mut text, "listener", listeners);
    list(&mut text, "service", services);
    list(&mut text, "route", routes);
    let limits = format!(
        "{} and at most {}",
        count(config.workers.get(), "worker"),
        count(config.downstream.max_connections.get(), "connection"),
    );
    list(&mut text, "limits", std::iter::once(limits));
    text
}

fn list(text: &mut String, kind: &str, members: impl ExactSizeIterator<Item = String>) {
    let more = members.len().saturating_sub(LISTED);
    for member in members.take(LISTED) {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {kind:<9}{member}");
    }
    if more > 0 {
        let _ = writeln!(text, "  {kind:<9}… and {more} more");
    }
}

fn count(n: usize, what: &str) -> String {
    match n {
        1 => format!("1 {what}"),
        n => format!("{n} {what}s"),
    }
}
