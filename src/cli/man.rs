//! `evenkeel man`: manual pages, made of what `--help` says.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Command, CommandFactory as _};
use clap_mangen::Man;

/// Arguments of `man`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
  evenkeel man | man -l -
  evenkeel man config schema | man -l -
  evenkeel man --out /usr/local/share/man/man1")]
pub struct Args {
    /// The command whose page is printed; without one, that of the whole program
    #[arg(value_name = "COMMAND", conflicts_with = "out")]
    pub command: Vec<String>,
    /// Write the pages of all commands into this folder
    #[arg(long, value_name = "FOLDER")]
    pub out: Option<PathBuf>,
}

/// Prints a page, or writes them all.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut program = super::Cli::command();
    // Gives commands their whole names.
    program.build();
    match args.out {
        Some(folder) => write(&program, &folder)?,
        None => {
            let mut command = &program;
            for name in &args.command {
                let Some(found) = command.find_subcommand(name) else {
                    bail!("there is no command `{}`", args.command.join(" "));
                };
                command = found;
            }
            super::print(&page(command)?)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn write(program: &Command, folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut left = vec![program];
    let mut written = 0;
    while let Some(command) = left.pop() {
        let name = command.get_display_name().unwrap_or(command.get_name());
        let file = folder.join(format!("{name}.1"));
        let cannot = || format!("cannot write {}", file.display());
        fs::write(&file, page(command)?).with_context(cannot)?;
        written += 1;
        left.extend(
            command
                .get_subcommands()
                .filter(|sub| sub.get_name() != "help"),
        );
    }
    println!("wrote {written} pages to {}", folder.display());
    Ok(())
}

fn page(command: &Command) -> std::io::Result<Vec<u8>> {
    let mut page = Vec::new();
    Man::new(command.clone())
        .manual("Evenkeel")
        .source(concat!("evenkeel ", env!("CARGO_PKG_VERSION")))
        .render(&mut page)?;
    Ok(page)
}
