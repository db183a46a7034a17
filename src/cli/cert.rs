//! `evenkeel cert`: certificates for development.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Subcommand;

use crate::tls::dev::{self, DevFiles, Existing};

/// Arguments of `evenkeel cert`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make an authority and a certificate of it, to try things out with
    Dev(DevArgs),
}

#[derive(Debug, clap::Args)]
struct DevArgs {
    /// Folder to write ca.pem, dev.pem and dev.key to
    #[arg(long, value_name = "FOLDER", default_value = "certs")]
    out: PathBuf,
    /// Host name, *.wildcard or IP address to name; may be repeated
    #[arg(long, value_name = "NAME", default_values = dev::DEFAULT_NAMES)]
    name: Vec<String>,
    /// Replace files that are there
    #[arg(long)]
    force: bool,
}

/// Carries out `evenkeel cert`.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Dev(args) => make_dev(&args),
    }
}

fn make_dev(args: &DevArgs) -> anyhow::Result<ExitCode> {
    let made = dev::self_signed(&args.name).context("cannot make a certificate")?;
    let files = DevFiles::within(&args.out);
    let existing = if args.force {
        Existing::Replace
    } else {
        Existing::Keep
    };
    files.write(&made, existing).map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::AlreadyExists => "; --force replaces it",
            _ => "",
        };
        anyhow::anyhow!("{error}{hint}")
    })?;
    let DevFiles { ca, cert, key } = files;
    println!(
        "{}  for {}, a year long",
        cert.display(),
        args.name.join(", ")
    );
    println!("{}  its key", key.display());
    println!("{}  what clients trust (curl --cacert {0})", ca.display());
    Ok(ExitCode::SUCCESS)
}
