//! `evenkeel weight`: overrides the weight of a backend of a running instance, or takes that back.

use std::process::ExitCode;
use std::str::FromStr;

use super::instance::{InstanceOptions, backend_path, block_on};
use crate::admin::model::{Changed, WeightRequest};

/// Arguments of `weight`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The backend, as `status` calls it
    #[arg(value_name = "SERVICE/IP:PORT")]
    backend: String,
    /// 0 to 65535 as in SRV records; auto: as its record says
    #[arg(value_name = "N|auto")]
    weight: Weight,
    #[command(flatten)]
    instance: InstanceOptions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Weight(Option<u16>);

impl FromStr for Weight {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Weight, &'static str> {
        if text == "auto" {
            return Ok(Weight(None));
        }
        let weight = text
            .parse()
            .map_err(|_| "a number from 0 to 65535, or auto")?;
        Ok(Weight(Some(weight)))
    }
}

/// Sets it.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let instance = args.instance.find()?;
    let Weight(weight) = args.weight;
    let body = serde_json::to_string(&WeightRequest { weight })?;
    let path = backend_path(&args.backend, "weight");
    let changed: Changed = block_on(instance.post(&path, Some(body)))?;
    let weight = &changed.backend.weight;
    let share = changed.backend.share.configured * 100.0;
    let id = &changed.backend.id;
    match weight.r#override {
        Some(_) => super::line!(
            "{id}: weight {} (its record says {}), {share:.1} %",
            weight.effective,
            weight.srv
        ),
        None => super::line!(
            "{id}: weight {} as its record says, {share:.1} %",
            weight.effective
        ),
    }
    Ok(ExitCode::SUCCESS)
}
