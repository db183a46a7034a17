//! `evenkeel version`: which program this is, for bug reports.

use std::process::ExitCode;

/// Arguments of `version`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Prints the versions that matter.
pub fn run(_: Args) -> anyhow::Result<ExitCode> {
    print!("{}", text());
    Ok(ExitCode::SUCCESS)
}

fn text() -> String {
    let program = env!("CARGO_PKG_VERSION");
    let compiler = env!("EVENKEEL_RUSTC");
    let target = env!("EVENKEEL_TARGET");
    let rustls = env!("EVENKEEL_RUSTLS");
    let crypto = env!("EVENKEEL_AWS_LC_RS");
    format!("evenkeel {program}\n{compiler}, {target}\nrustls {rustls}, aws-lc-rs {crypto}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_is_known() {
        // A target may well be of an "unknown" vendor.
        let text = text().replace(env!("EVENKEEL_TARGET"), "target");
        assert!(!text.contains("unknown"), "{text}");
        assert!(text.contains("\nrustc 1."), "{text}");
        assert!(text.contains("\nrustls 0.23."), "{text}");
    }
}
