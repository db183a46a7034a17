//! `evenkeel check`: says all that is wrong with a configuration, or what it amounts to.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use super::run_options::ConfigurationOptions;
use crate::config::{
    BackendTls, ClientCertificateMode, Config, Discover, Protocol, Target, TlsVersion, Trust,
    UpstreamProtocol,
};
use crate::tls::client::Loader;
use crate::tls::{certificates, client_certificates};

/// Arguments of `check`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exits with 0 when the file can be used, warnings included, and with 1 when it cannot. Certificates
and keys are loaded. Environment variables and --set count as they do for `run`.

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
    let certificates = certificates(&loaded.config);
    for line in certificates.errors.iter().chain(&certificates.warnings) {
        eprintln!("{line}");
    }
    if !certificates.errors.is_empty() {
        return Ok(ExitCode::FAILURE);
    }
    print!("{}", summary(&loaded.config));
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

/// So many members of each kind are listed.
const LISTED: usize = 20;

/// `ok`, and what the configuration amounts to.
pub fn summary(config: &Config) -> String {
    let listeners = config.listeners.iter().map(|listener| {
        let speaks = match (&listener.protocol, listener.redirect) {
            (_, Some(redirect)) => format!("http, redirects to https ({})", redirect.status),
            (Protocol::Http, None) => "http".to_owned(),
            (Protocol::Tcp, None) => "tcp".to_owned(),
            (Protocol::Tls, None) => "tls, passed through".to_owned(),
            (Protocol::Https(tls), None) => format!(
                "https, TLS {} or later, {}{}",
                match tls.min_version {
                    TlsVersion::Tls12 => "1.2",
                    TlsVersion::Tls13 => "1.3",
                },
                count(tls.certificates.len(), "certificate"),
                match tls.client_certificates.as_ref().map(|wanted| wanted.mode) {
                    None => "",
                    Some(ClientCertificateMode::Required) => ", clients' certificates required",
                    Some(ClientCertificateMode::Optional) => ", clients' certificates optional",
                },
            ),
        };
        let proxied = match listener.proxy_protocol {
            true => ", behind PROXY headers",
            false => "",
        };
        match listener.name.parse::<std::net::SocketAddr>() {
            Ok(_) => format!("{} {speaks}{proxied}", listener.address),
            Err(_) => format!("{} {} {speaks}{proxied}", listener.name, listener.address),
        }
    });
    let services = config.services.iter().map(|service| {
        let from = match &service.discover {
            Discover::Srv { name, .. } => format!("SRV {name}"),
            Discover::Address { name, port, .. } => format!("A {name} port {port}"),
            Discover::Static(list) => count(list.len(), "static backend"),
        };
        let over = match service.upstream.protocol {
            UpstreamProtocol::Http => "",
            UpstreamProtocol::Https => ", https",
            UpstreamProtocol::H2c => ", HTTP/2",
            UpstreamProtocol::H2 => ", HTTP/2 over TLS",
        };
        let trust = match service.tls.as_deref() {
            Some(BackendTls {
                trust: Trust::Nobody,
                ..
            }) => " (anybody's certificate is taken)",
            _ => "",
        };
        format!("{}: {from}{over}{trust}", service.name)
    });
    let routes = config
        .routes
        .iter()
        .map(|route| format!("{} → {}", route.label, leads_to(config, &route.target)));
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

/// Where a route leads, in words.
fn leads_to(config: &Config, target: &Target) -> String {
    match target {
        Target::Service(index) => config.services[*index].name.to_string(),
        Target::Redirect(to) => format!("elsewhere ({})", to.status),
    }
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
