//! `evenkeel log-level`: what a running instance logs, or another level from now on.

use std::process::ExitCode;

use super::instance::{InstanceOptions, block_on};
use crate::admin::model::{LogLevel, LogLevelRequest, LogLevelSet};

/// Arguments of `log-level`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  evenkeel log-level
  evenkeel log-level debug
  evenkeel log-level info,evenkeel::discovery=trace

It holds until the process ends; a reload leaves it as it is.")]
pub struct Args {
    /// off, error, warn, info, debug, trace, or a filter as EVENKEEL_LOG takes it; without it: what
    /// is in force
    #[arg(value_name = "LEVEL")]
    level: Option<String>,
    #[command(flatten)]
    instance: InstanceOptions,
}

/// Asks, or sets it.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let instance = args.instance.find()?;
    let Some(level) = args.level else {
        let log: LogLevel = block_on(instance.get("/api/v1/log"))?;
        super::line!("{}", log.level);
        return Ok(ExitCode::SUCCESS);
    };
    let body = serde_json::to_string(&LogLevelRequest { level })?;
    let set: LogLevelSet = block_on(instance.post("/api/v1/log", Some(body)))?;
    super::line!("{}, it was {}", set.level, set.before);
    Ok(ExitCode::SUCCESS)
}
