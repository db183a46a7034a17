//! `evenkeel status`: how a running instance is, once or until enough backends can serve.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::instance::{Declined, Instance, InstanceOptions, block_on};
use crate::admin::model::{Backend, Service, Status};

/// Arguments of `status`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
  docker exec balancer evenkeel status                      what is there, how it is
  evenkeel status --wait healthy=3 --service web            until three backends of web can serve
  evenkeel status -o json | jq '.services[].healthy'

Exit codes: 0 fine; 1 no instance answers, or --wait waited in vain.")]
pub struct Args {
    /// How to print it
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Wait until that holds: healthy=N (so many backends can be picked), or ready
    #[arg(long, value_name = "healthy=N|ready")]
    wait: Option<Condition>,
    /// How long to wait for it
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Only this service
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    #[command(flatten)]
    instance: InstanceOptions,
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// What the API says.
    Json,
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    Healthy(u64),
    Ready,
}

impl FromStr for Condition {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Condition, &'static str> {
        if text == "ready" {
            return Ok(Condition::Ready);
        }
        let number = text
            .strip_prefix("healthy=")
            .and_then(|number| number.parse().ok());
        number.map(Condition::Healthy).ok_or("healthy=N, or ready")
    }
}

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(200);

/// Asks, and prints.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let instance = args.instance.find()?;
    block_on(async {
        let (seen, fine) = match args.wait {
            None => (look(&instance, args.service.as_deref()).await?, true),
            Some(condition) => wait(&args, condition, &instance).await?,
        };
        match args.output {
            Output::Table => super::print(table(&seen))?,
            Output::Json => {
                let (status, services) = &seen;
                let both = serde_json::json!({ "status": status, "services": services });
                super::line!("{both:#}");
            }
        }
        if !fine {
            let patience = humantime::format_duration(args.timeout);
            eprintln!("evenkeel: that did not come true within {patience}");
            return Ok(ExitCode::FAILURE);
        }
        Ok(ExitCode::SUCCESS)
    })
}

type Seen = (Status, Vec<Service>);

async fn look(instance: &Instance, service: Option<&str>) -> anyhow::Result<Seen> {
    let status = instance.get("/api/v1/status").await?;
    let mut services: Vec<Service> = instance.get("/api/v1/services").await?;
    if let Some(name) = service {
        services.retain(|service| service.name == name);
        anyhow::ensure!(!services.is_empty(), "there is no service `{name}`");
    }
    Ok((status, services))
}

/// Looks until it holds, or until there is no time left: what was seen last, and whether it holds.
async fn wait(
    args: &Args,
    condition: Condition,
    instance: &Instance,
) -> anyhow::Result<(Seen, bool)> {
    let deadline = Instant::now() + args.timeout;
    let mut last = None;
    loop {
        let looked = timeout_at(deadline, look(instance, args.service.as_deref())).await;
        match looked {
            Ok(Ok(seen)) if holds(condition, &seen) => return Ok((seen, true)),
            Ok(Ok(seen)) => last = Some(Ok(seen)),
            // It may not be there yet; one that says no says so again.
            Ok(Err(error)) if error.downcast_ref::<Declined>().is_some() => return Err(error),
            Ok(Err(error)) => last = Some(Err(error)),
            Err(_) => {}
        }
        if Instant::now() + LOOK >= deadline {
            return match last {
                Some(Ok(seen)) => Ok((seen, false)),
                Some(Err(error)) => Err(error),
                None => Err(anyhow::anyhow!("no answer in time")),
            };
        }
        sleep(LOOK).await;
    }
}

fn holds(condition: Condition, (status, services): &Seen) -> bool {
    match condition {
        Condition::Ready => status.ready,
        Condition::Healthy(wanted) => {
            services.iter().map(|service| service.healthy).sum::<u64>() >= wanted
        }
    }
}

fn table((status, services): &Seen) -> String {
    let mut text = String::new();
    let up = Duration::from_secs(status.uptime_seconds as u64);
    let _ = write!(
        text,
        "evenkeel {}: {}, up {}, generation {} of the configuration",
        status.version,
        status.state,
        humantime::format_duration(up),
        status.configuration.generation,
    );
    if let Some(file) = &status.configuration.file {
        let _ = write!(text, " ({file})");
    }
    text.push('\n');
    for unmet in &status.unmet {
        let _ = writeln!(text, "  not ready: {unmet}");
    }
    if let Some(error) = status
        .configuration
        .last_reload
        .as_ref()
        .and_then(|r| r.error.as_ref())
    {
        let _ = writeln!(
            text,
            "  the last reload was refused: {}",
            error.lines().next().unwrap_or_default()
        );
    }
    if let Some(certificate) = &status.certificate {
        let _ = writeln!(
            text,
            "  the first certificate ends in {:.0} days ({})",
            certificate.days_left.floor(),
            certificate.listener
        );
    }
    if let Some(now) = &status.sample {
        let millis = |ms: Option<f64>| ms.map_or("-".to_owned(), |ms| format!("{ms:.1} ms"));
        let _ = writeln!(
            text,
            "  {:.0} requests/s, {:.0} errors/s, p50 {}, p99 {}, {} in flight, {} connections",
            now.requests_per_second,
            now.errors_per_second,
            millis(now.p50_ms),
            millis(now.p99_ms),
            now.in_flight,
            now.open_connections,
        );
    }
    for service in services {
        write_service(&mut text, service);
    }
    text
}

fn write_service(text: &mut String, service: &Service) {
    let from = match &service.discover.name {
        Some(name) => format!("{} {name}", service.discover.kind),
        None => service.discover.kind.clone(),
    };
    let _ = writeln!(
        text,
        "\nservice {} ({from}, {}): {} of {} healthy",
        service.name, service.strategy, service.healthy, service.total
    );
    if !service.answered {
        text.push_str("  no answer from discovery yet\n");
    }
    let rows: Vec<[String; 8]> = service
        .tiers
        .iter()
        .flat_map(|tier| &tier.backends)
        .map(row)
        .collect();
    if rows.is_empty() {
        return;
    }
    let heads = [
        "BACKEND",
        "PRIORITY",
        "WEIGHT",
        "SHARE",
        "MEASURED",
        "IN FLIGHT",
        "STATE",
        "WHY",
    ];
    let heads = heads.map(str::to_owned);
    let width = |column: usize| {
        let cells = rows
            .iter()
            .chain([&heads])
            .map(|row| row[column].chars().count());
        cells.max().unwrap_or_default()
    };
    let widths: [usize; 8] = std::array::from_fn(width);
    for row in [&heads].into_iter().chain(&rows) {
        let cells = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        let _ = writeln!(text, "  {}", line.trim_end());
    }
}

fn row(backend: &Backend) -> [String; 8] {
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    let Backend { weight, share, .. } = backend;
    [
        backend.id.clone(),
        backend.priority.to_string(),
        match weight.r#override {
            Some(_) => format!("{} (not {})", weight.effective, weight.srv),
            None => weight.effective.to_string(),
        },
        percent(share.configured),
        share.measured.map_or("-".to_owned(), percent),
        backend.in_flight.to_string(),
        backend.state.clone(),
        backend.reason.clone().unwrap_or_default(),
    ]
}
