//! `evenkeel schedule`: the next picks of a fresh schedule, and the share that each backend got.
//!
//! Asks discovery once for who is there and then picks as a worker would, with every backend in
//! good health. It connects to nobody and asks no running instance.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};

use super::proxy_options;
use super::run_options::ConfigurationOptions;
use crate::balance::hash;
use crate::balance::picker::Picker;
use crate::balance::service::Service;
use crate::balance::snapshot::BackendStatus;
use crate::balance::wish::Wish;
use crate::clock::Millis;
use crate::config::{self, Config, Strategy};
use crate::discovery::Offer;
use crate::discovery::watch::Watches;

/// Arguments of `schedule`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Each worker of each instance has a schedule of its own that begins at a random point, so the order
differs from call to call and the shares do not; --seed repeats one. A share is of the requests
that its priority gets; with strategy cycle, of all requests.

  evenkeel schedule                     every service of the configuration
  evenkeel schedule -c lb.toml web -n 100
  evenkeel schedule srv://_http._tcp.web.example --resolver 127.0.0.1:8600
  evenkeel schedule srv://_http._tcp.web.example --set service.proxy.strategy=cycle")]
pub struct Args {
    /// Where the configuration comes from.
    #[command(flatten)]
    pub configuration: ConfigurationOptions,
    /// A service of the configuration, or srv://NAME or a://NAME:PORT without one
    #[arg(value_name = "SERVICE | srv://NAME")]
    pub service: Option<String>,
    /// How many picks
    #[arg(short = 'n', long, value_name = "PICKS", default_value_t = 20,
          value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub picks: u32,
    /// Name server to ask for srv:// or a://; may be repeated
    #[arg(long, value_name = "IP:PORT")]
    pub resolver: Vec<String>,
    /// Begin where this number says instead of at a random point
    #[arg(long, value_name = "NUMBER")]
    pub seed: Option<u64>,
}

/// Prints the schedule of one service or of all.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let loaded = args.load()?;
    if !loaded.warnings.is_empty() {
        super::print_diagnostic(&loaded.warnings);
    }
    let chosen = args.choose(&loaded.config)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    let own = config::own_addresses(&loaded.config);
    let allowed = loaded.config.allowed_endpoints.clone();
    runtime.block_on(async {
        let watches = Watches::new(own, allowed);
        let mut code = ExitCode::SUCCESS;
        for (nth, service) in chosen.into_iter().enumerate() {
            if nth > 0 {
                super::print("\n")?;
            }
            match offer(&watches, service).await {
                Ok(offer) => super::print(table(service, &offer, args.picks, seed))?,
                Err(error) => {
                    eprintln!("evenkeel: service {}: {error:#}", service.name);
                    code = ExitCode::FAILURE;
                }
            }
        }
        Ok(code)
    })
}

impl Args {
    /// The configuration; for srv:// and a:// the one that `evenkeel proxy` would make of it.
    fn load(&self) -> anyhow::Result<config::Loaded> {
        match &self.service {
            Some(to) if to.contains("://") => {
                if self.configuration.config.is_some() {
                    bail!("{to} needs no configuration file: leave -c out, or name a service");
                }
                let proxy = proxy_options::Args {
                    upstream: None,
                    // Nobody listens there: this command only asks and picks.
                    from: "127.0.0.1:1".into(),
                    to: vec![to.clone()],
                    resolver: self.resolver.clone(),
                    cert: None,
                    key: None,
                    set: self.configuration.set.clone(),
                };
                Ok(proxy.load()?)
            }
            _ if !self.resolver.is_empty() => {
                bail!(
                    "--resolver goes with srv:// or a://; a service has its servers from the file"
                )
            }
            _ => Ok(self.configuration.load()?),
        }
    }

    fn choose<'a>(&self, config: &'a Config) -> anyhow::Result<Vec<&'a config::Service>> {
        let named = match &self.service {
            Some(name) if !name.contains("://") => name,
            _ => return Ok(config.services.iter().collect()),
        };
        let found = config
            .services
            .iter()
            .find(|service| *service.name == **named);
        let found = found.ok_or_else(|| {
            let names: Vec<_> = config.services.iter().map(|s| &*s.name).collect();
            anyhow!(
                "no service is called {named}; there are: {}",
                names.join(", ")
            )
        })?;
        Ok(vec![found])
    }
}

/// What discovery offers for a service; its first failure is final here.
async fn offer(watches: &Watches, service: &config::Service) -> anyhow::Result<Offer> {
    let mut subscription = watches.subscribe(&service.discover);
    let heard = subscription
        .offers
        .wait_for(|heard| heard.offer != Offer::Pending || heard.detail.is_some());
    let heard = tokio::time::timeout(PATIENCE, heard)
        .await
        .with_context(|| format!("no answer within {} s", PATIENCE.as_secs()))?
        .context("discovery ended")?;
    match (&heard.offer, &heard.detail) {
        (Offer::Pending, Some(detail)) => bail!("{detail}"),
        (offer, _) => Ok(offer.clone()),
    }
}

/// The picks, and what each backend got of them.
fn table(service: &config::Service, offer: &Offer, picks: u32, seed: u64) -> String {
    let mut writer = Service::new(service.name.clone());
    writer.apply(offer);
    let now = Millis::now();
    let snapshot = writer.snapshot().load();
    let backends = snapshot.status(service.balancing.strategy, now);
    let mut text = format!(
        "service {}: {}, {} in {}\n",
        service.name,
        service.balancing.strategy.name(),
        count(backends.len(), "backend"),
        count(snapshot.tiers.len(), "tier"),
    );
    if backends.is_empty() {
        text.push_str("  nobody is registered: every request is answered with 503\n");
        return text;
    }

    let mut picker = Picker::new(writer.snapshot().reader(), &service.balancing, seed);
    let row_of: HashMap<_, _> = (backends.iter().zip(0usize..))
        .map(|(status, row)| (status.backend.id, row))
        .collect();
    let mut got = vec![0u32; backends.len()];
    let mut order = Vec::new();
    for nth in 0..picks {
        let wish = Wish {
            key: Some(hash::key([&nth.to_be_bytes()[..]])),
            ..Wish::at(now)
        };
        // Nothing is excluded and somebody is there, so somebody is picked.
        if let Ok(pick) = picker.pick(wish) {
            let row = row_of[&pick.backend().id];
            got[row] += 1;
            if order.len() < LISTED {
                order.push((row + 1).to_string());
            }
        }
    }
    if let Some(note) = note(service.balancing.strategy) {
        let _ = writeln!(text, "  {note}");
    }
    write_order(&mut text, &order, picks);
    write_rows(
        &mut text,
        &backends,
        &got,
        picks,
        service.balancing.strategy,
    );
    text
}

/// What a strategy goes by that is not there before any request is.
fn note(strategy: Strategy) -> Option<&'static str> {
    match strategy {
        Strategy::Weighted | Strategy::RoundRobin | Strategy::Random | Strategy::Cycle => None,
        Strategy::LeastConnections => {
            Some("goes by what is under way; here nothing is, and the weights alone decide")
        }
        Strategy::Hash => Some("goes by the key of a request; here each pick has another one"),
        Strategy::TwoChoices => Some(
            "goes by latency and by what is under way; here is neither, and the weights alone decide",
        ),
    }
}

fn write_order(text: &mut String, order: &[String], picks: u32) {
    let _ = writeln!(text, "\n  the next {}:", count(picks as usize, "pick"));
    let width = order.iter().map(String::len).max().unwrap_or(0);
    for line in order.chunks((LINE / (width + 1)).max(1)) {
        text.push_str("   ");
        for number in line {
            let _ = write!(text, " {number:>width$}");
        }
        text.push('\n');
    }
    if picks as usize > order.len() {
        let _ = writeln!(text, "    … and {} more", picks as usize - order.len());
    }
    text.push('\n');
}

fn write_rows(
    text: &mut String,
    backends: &[BackendStatus],
    got: &[u32],
    picks: u32,
    strategy: Strategy,
) {
    let first = backends[0].priority;
    let names: Vec<_> = backends.iter().map(name).collect();
    let width = names.iter().map(|name| name.chars().count()).max();
    let width = width.unwrap_or(0).max("backend".len());
    let _ = writeln!(
        text,
        "  {:>4}  {:width$}  {:>8}  {:>6}  {:>7}  {:>7}  {:>8}",
        "#", "backend", "priority", "weight", "share", "picks", "measured"
    );
    for (row, ((status, name), got)) in backends.iter().zip(&names).zip(got).enumerate() {
        let measured = match strategy {
            other if other != Strategy::Cycle && status.priority != first => "standby".to_owned(),
            _ => format!("{:.1} %", 100.0 * f64::from(*got) / f64::from(picks)),
        };
        let _ = writeln!(
            text,
            "  {:>4}  {name:width$}  {:>8}  {:>6}  {:>5.1} %  {got:>7}  {measured:>8}",
            row + 1,
            status.priority,
            status.weight,
            100.0 * status.share,
        );
    }
}

/// `target:port (address)`, or the address alone where the target is nothing else.
fn name(status: &BackendStatus) -> String {
    let endpoint = &status.backend.endpoint;
    let is_address = endpoint.target.parse() == Ok(endpoint.address)
        || endpoint.target.parse() == Ok(endpoint.socket());
    match is_address {
        true => endpoint.socket().to_string(),
        false => format!(
            "{}:{} ({})",
            endpoint.target, endpoint.port, endpoint.address
        ),
    }
}

fn count(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

/// How long discovery may take: three silent servers at 1 s and one retry each, for the records
/// and again for the addresses of their targets.
const PATIENCE: Duration = Duration::from_secs(12);

/// So many picks are listed; the shares count all of them.
const LISTED: usize = 200;

/// Columns that a line of picks may take.
const LINE: usize = 72;

#[cfg(test)]
mod tests {
    use super::*;

    fn service(strategy: &str) -> config::Service {
        let text = format!(
            r#"
            [[listener]]
            address = "127.0.0.1:8080"
            protocol = "http"
            [[service]]
            name = "b"
            strategy = "{strategy}"
            discover = {{ static = [
              {{ address = "127.0.0.1:9001", priority = 0, weight = 30 }},
              {{ address = "127.0.0.1:9002", priority = 0, weight = 20 }},
              {{ address = "127.0.0.1:9003", priority = 10, weight = 40 }},
            ] }}
            [[route]]
            service = "b"
            "#
        );
        let config = config::from_toml_str(&text).expect("it is a good one");
        config.services.into_iter().next().expect("there is one")
    }

    fn shown(strategy: &str, picks: u32) -> String {
        let service = service(strategy);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime");
        let offer = runtime
            .block_on(async { offer(&Watches::new(vec![], vec![]), &service).await })
            .expect("static endpoints are there at once");
        table(&service, &offer, picks, 1)
    }

    #[test]
    fn cycle_shows_the_table_of_the_older_project() {
        let expected = "\
service b: cycle, 3 backends in 2 tiers

  the next 9 picks:
    1 2 1 2 1 3 3 3 3

     #  backend         priority  weight    share    picks  measured
     1  127.0.0.1:9001         0      30   33.3 %        3    33.3 %
     2  127.0.0.1:9002         0      20   22.2 %        2    22.2 %
     3  127.0.0.1:9003        10      40   44.4 %        4    44.4 %
";
        assert_eq!(shown("cycle", 9), expected);
    }

    #[test]
    fn weighted_keeps_the_standby_out() {
        let shown = shown("weighted", 1_000);
        let row = |number: &str| {
            let line = shown.lines().find(|l| l.trim_start().starts_with(number));
            let words = line.expect("a row").split_whitespace();
            words.map(str::to_owned).collect::<Vec<_>>()[4..].join(" ")
        };
        assert_eq!(row("1  127"), "60.0 % 600 60.0 %");
        assert_eq!(row("2  127"), "40.0 % 400 40.0 %");
        assert_eq!(row("3  127"), "100.0 % 0 standby");
        assert!(shown.contains("… and 800 more"), "{shown}");
    }

    #[test]
    fn nobody_is_said_in_words() {
        let text = table(&service("weighted"), &Offer::Absent, 9, 1);
        assert!(text.contains("nobody is registered"), "{text}");
    }

    #[test]
    fn a_service_that_is_not_there_names_those_that_are() {
        let file = tempfile::NamedTempFile::with_suffix(".toml").expect("a file");
        let text = "[[listener]]\naddress = \"127.0.0.1:1\"\nprotocol = \"http\"\n\
            [[service]]\nname = \"web\"\ndiscover = { static = [\"127.0.0.1:2\"] }\n\
            [[route]]\nservice = \"web\"\n";
        std::fs::write(file.path(), text).expect("written");
        let args = Args {
            configuration: ConfigurationOptions {
                config: Some(file.path().into()),
                set: vec![],
            },
            service: Some("wbe".into()),
            picks: 1,
            resolver: vec![],
            seed: None,
        };
        let loaded = args.load().expect("a good configuration");
        let error = args
            .choose(&loaded.config)
            .expect_err("there is no such one");
        assert_eq!(
            error.to_string(),
            "no service is called wbe; there are: web"
        );
    }
}
