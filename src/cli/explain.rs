//! `evenkeel explain`: where a request would go, and why; asked of the running instance, or of a
//! configuration alone.
//!
//! `explain/text.rs` writes the answer for a person.

mod text;

use std::process::ExitCode;

use anyhow::{anyhow, bail};

use super::instance::{InstanceOptions, block_on};
use super::url::encoded;
use crate::admin::explain::answer::{Explanation, Kind};
use crate::admin::explain::question::Asked;
use crate::admin::explain::{Known, route, serve};
use crate::balance::picker::Picker;
use crate::balance::service::Service;
use crate::config::{Config, Discover};
use crate::discovery::watch::Watches;

/// Arguments of `explain`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Sends nothing to any backend, and changes nothing: what the schedules would do is found out on copies
of them. A request that comes at the same moment may go elsewhere.

  evenkeel explain https://shop.example.com/cart
  evenkeel explain https://shop.example.com/cart --header 'Cookie: evenkeel_1a2b3c4d=...' --client 192.0.2.7
  evenkeel explain http://shop.example.com/ --listener internal -o json
  evenkeel explain tls://db.example.com:5433         a connection that is passed on as it is
  evenkeel explain --offline -c lb.toml https://shop.example.com/cart

Exits with 0 when the request would reach a backend, or a redirect, and with 1 when it would not.")]
pub struct Args {
    /// http:// or https://, host and path; scheme and port say which listener. A bare host does not do
    #[arg(value_name = "URL")]
    url: String,
    /// Its method
    #[arg(short = 'X', long, value_name = "METHOD", default_value = "GET")]
    method: String,
    /// A header of it; may be repeated
    #[arg(short = 'H', long, value_name = "NAME: VALUE")]
    header: Vec<String>,
    /// The address it comes from; otherwise 127.0.0.1
    #[arg(long, value_name = "IP")]
    client: Option<String>,
    /// The listener it comes to, by name
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    /// Ask no instance: what the configuration says, with static backends as if all were well
    #[arg(long, conflicts_with_all = ["socket", "admin", "token_file"])]
    offline: bool,
    /// How it is printed
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Output,
    #[command(flatten)]
    instance: InstanceOptions,
}

/// How an answer is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// For people
    Text,
    /// As the control API has it
    Json,
}

/// Asks and prints.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let explanation = match args.offline {
        true => offline(&args.instance.configuration().load()?.config, &args.asked())?,
        false => {
            let instance = args.instance.find()?;
            block_on(async { instance.get(&args.path()).await })?
        }
    };
    match args.output {
        Output::Text => super::print(text::written(&explanation))?,
        Output::Json => super::line!("{}", serde_json::to_string_pretty(&explanation)?),
    }
    Ok(match explanation.kind {
        Kind::Forwarded | Kind::Queued | Kind::Redirected => ExitCode::SUCCESS,
        Kind::Refused | Kind::Unknown => ExitCode::FAILURE,
    })
}

impl Args {
    fn asked(&self) -> Asked {
        Asked {
            method: self.method.clone(),
            url: self.url.clone(),
            headers: self.header.clone(),
            client: self.client.clone(),
            listener: self.listener.clone(),
        }
    }

    /// The question as a path of the control API.
    fn path(&self) -> String {
        let mut path = format!("/api/v1/explain?url={}", encoded(&self.url));
        let mut add =
            |name: &str, value: &str| path.push_str(&format!("&{name}={}", encoded(value)));
        add("method", &self.method);
        self.header.iter().for_each(|header| add("header", header));
        let rest = [("client", &self.client), ("listener", &self.listener)];
        for (name, value) in rest {
            value.iter().for_each(|value| add(name, value));
        }
        path
    }
}

/// What a configuration says by itself: of static backends a fresh schedule, of others nothing.
fn offline(config: &Config, asked: &Asked) -> anyhow::Result<Explanation> {
    let (mut explanation, routed) = route(config, asked).map_err(|bad| anyhow!(bad))?;
    let Some(routed) = routed else {
        return Ok(explanation);
    };
    let of = &config.services[routed.service];
    if !matches!(of.discover, Discover::Static(_)) {
        explanation.service = Some(of.name.to_string());
        explanation.strategy = Some(of.balancing.strategy.name().to_owned());
        explanation.kind = Kind::Forwarded;
        explanation.outcome = format!("goes to service {}, whoever DNS says is there", of.name);
        return Ok(explanation);
    }
    let watches = Watches::new(Vec::new(), config.allowed_endpoints.clone());
    let Some(offer) = watches.known(&of.discover) else {
        bail!("service {}: its backends are not known", of.name);
    };
    let mut service = Service::new(of.name.clone());
    service.apply(&offer);
    let picker = Picker::new(
        service.snapshot().reader(),
        &of.balancing,
        fastrand::u64(..),
    );
    let known = Known {
        snapshot: service.snapshot().load(),
        affinity: None,
        gate: None,
        forecasts: vec![Ok(picker.forecast())],
    };
    serve(config, &routed, known, &mut explanation);
    Ok(explanation)
}
