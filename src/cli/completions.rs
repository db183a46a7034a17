//! `evenkeel completions`: what a shell needs to complete our command line.

use std::process::ExitCode;

use clap::CommandFactory as _;
use clap_complete::Shell;

/// Arguments of `completions`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
  evenkeel completions bash > /etc/bash_completion.d/evenkeel
  evenkeel completions zsh > \"${fpath[1]}/_evenkeel\"
  evenkeel completions fish > ~/.config/fish/completions/evenkeel.fish")]
pub struct Args {
    /// For which shell
    #[arg(value_parser = ["bash", "zsh", "fish"])]
    pub shell: String,
}

/// Prints the script.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let shell = match &*args.shell {
        "zsh" => Shell::Zsh,
        "fish" => Shell::Fish,
        _ => Shell::Bash,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut super::Cli::command(), NAME, &mut script);
    super::print(&script)?;
    Ok(ExitCode::SUCCESS)
}

/// What is typed.
const NAME: &str = "evenkeel";
