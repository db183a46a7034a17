//! `evenkeel config`: what helps to write a configuration file.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};

use crate::config;

/// Arguments of `config`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Print the JSON Schema of the configuration, by which editors complete and check it
    Schema(SchemaArgs),
    /// Write a file to begin with, which explains itself
    Init(InitArgs),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
  evenkeel config schema > evenkeel.schema.json

Editors are told of it in the file itself. In TOML, as its first line:
  #:schema ./evenkeel.schema.json
In YAML:
  # yaml-language-server: $schema=./evenkeel.schema.json")]
struct SchemaArgs {
    /// That of the file of `evenkeel dns`
    #[arg(long)]
    zone: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
  evenkeel config init
  evenkeel config init evenkeel.toml && evenkeel check evenkeel.toml")]
struct InitArgs {
    /// Where to; without it, standard output
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Replace a file that is there
    #[arg(long, requires = "file")]
    force: bool,
}

/// Prints or writes what was asked for.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Schema(args) => {
            let schema = match args.zone {
                true => config::zone_json_schema(),
                false => config::json_schema(),
            };
            super::print(format!("{schema:#}\n"))?;
        }
        Command::Init(args) => match args.file {
            None => super::print(STARTER)?,
            Some(file) => {
                write(&file, args.force)?;
                println!("wrote {}; next: evenkeel check {0}", file.display());
            }
        },
    }
    Ok(ExitCode::SUCCESS)
}

/// A file that is there is somebody's work.
fn write(file: &Path, force: bool) -> anyhow::Result<()> {
    let cannot = || format!("cannot write {}", file.display());
    if force {
        return fs::write(file, STARTER).with_context(cannot);
    }
    match OpenOptions::new().write(true).create_new(true).open(file) {
        Ok(mut made) => made.write_all(STARTER.as_bytes()).with_context(cannot),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!("{} is there already; --force replaces it", file.display())
        }
        Err(error) => Err(error).with_context(cannot),
    }
}

/// Lines that begin with `#` and no space behind it are settings that can be switched on.
const STARTER: &str = include_str!("config/starter.toml");
