//! `evenkeel drain` and `undrain`: of a running instance as a whole, or of one of its backends.

use std::process::ExitCode;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::instance::{Instance, InstanceOptions, backend_path, block_on};
use crate::admin::model::{Changed, Drain, Service};

/// Arguments of `drain`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Without --backend the instance says that it is not ready, and goes on accepting: the time that whoever
sends it clients needs to notice. It does not end; `undrain` takes it back. A TERM afterwards waits only
for what is left of drain.wait. As the preStop hook in Kubernetes: evenkeel drain --wait 5s

With --backend that backend gets no new request but those that a cookie leads to it, and finishes what
it has; --wait then waits until it has nothing under way.

Exit codes: 0 done; 1 it could not be, or --wait ended with something under way.")]
pub struct DrainArgs {
    /// One backend, as `status` calls it
    #[arg(long, value_name = "SERVICE/IP:PORT")]
    backend: Option<String>,
    /// Return only after so long; with --backend sooner, if nothing is under way there
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    wait: Option<Duration>,
    #[command(flatten)]
    instance: InstanceOptions,
}

/// Arguments of `undrain`.
#[derive(Debug, clap::Args)]
pub struct UndrainArgs {
    /// One backend, as `status` calls it; otherwise the instance as a whole
    #[arg(long, value_name = "SERVICE/IP:PORT")]
    backend: Option<String>,
    #[command(flatten)]
    instance: InstanceOptions,
}

/// Time between two looks at what is under way.
const LOOK: Duration = Duration::from_millis(100);

/// Drains.
pub fn drain(args: DrainArgs) -> anyhow::Result<ExitCode> {
    let instance = args.instance.find()?;
    block_on(async {
        let Some(id) = &args.backend else {
            let drain: Drain = instance.post("/api/v1/drain", None).await?;
            super::line!("{}: not ready, still accepting", drain.phase);
            if let Some(wait) = args.wait {
                sleep(wait).await;
            }
            return Ok(ExitCode::SUCCESS);
        };
        let changed: Changed = instance.post(&backend_path(id, "drain"), None).await?;
        let mut under_way = changed.backend.in_flight;
        if let Some(wait) = args.wait {
            let deadline = Instant::now() + wait;
            while under_way > 0 && Instant::now() < deadline {
                sleep(LOOK).await;
                under_way = in_flight(&instance, id).await?;
            }
            super::line!("{id}: drained, {under_way} under way");
            return Ok(ExitCode::from(u8::from(under_way > 0)));
        }
        super::line!("{id}: drained, {under_way} under way");
        Ok(ExitCode::SUCCESS)
    })
}

/// Takes it back.
pub fn undrain(args: UndrainArgs) -> anyhow::Result<ExitCode> {
    let instance = args.instance.find()?;
    block_on(async {
        match &args.backend {
            None => {
                let drain: Drain = instance.post("/api/v1/undrain", None).await?;
                super::line!("{}", drain.phase);
            }
            Some(id) => {
                let changed: Changed = instance.post(&backend_path(id, "undrain"), None).await?;
                super::line!("{id}: {}", changed.backend.state);
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Exchanges under way with a backend; none, if it is not listed any more.
async fn in_flight(instance: &Instance, id: &str) -> anyhow::Result<u64> {
    let services: Vec<Service> = instance.get("/api/v1/services").await?;
    let backends = services
        .iter()
        .flat_map(|service| &service.tiers)
        .flat_map(|tier| &tier.backends);
    Ok(backends
        .filter(|backend| backend.id == id)
        .map(|backend| backend.in_flight)
        .sum())
}
