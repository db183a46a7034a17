//! `evenkeel reload`: has a running instance take up a changed configuration, all or nothing.

use std::process::ExitCode;

use super::instance::{Declined, InstanceOptions, block_on};
use crate::admin::model::Reload;

/// Arguments of `reload`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 it is in effect; 1 it does not load, and nothing has changed."
)]
pub struct Args {
    #[command(flatten)]
    instance: InstanceOptions,
}

/// Asks for it, and says what became of it.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let instance = args.instance.find()?;
    let reload = match block_on(instance.post::<Reload>("/api/v1/reload", None)) {
        Ok(reload) => reload,
        Err(error) => match error.downcast_ref::<Declined>() {
            // It says why, as `check` does.
            Some(declined) if declined.status == 422 => serde_json::from_slice(&declined.body)?,
            _ => return Err(error),
        },
    };
    if let Some(error) = &reload.error {
        eprintln!("{error}\n");
        eprintln!(
            "evenkeel: not reloaded, generation {} stays",
            reload.generation
        );
        return Ok(ExitCode::FAILURE);
    }
    super::line!(
        "generation {} of the configuration is in effect",
        reload.generation
    );
    if !reload.at_next_start.is_empty() {
        super::line!(
            "at the next start only: {}",
            reload.at_next_start.join(", ")
        );
    }
    Ok(ExitCode::SUCCESS)
}
