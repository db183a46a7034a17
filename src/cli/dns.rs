//! `evenkeel dns`: a zone in which backends register themselves, for where nobody serves SRV.
//!
//! Puts `dns_server` together from a file or from flags, which go into the same tree. What it
//! does with messages is there.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use hickory_proto::rr::Name;
use tokio::task::JoinSet;

use crate::config::{Diagnostic, KeyGrant, Loader, LogFormat, ZoneConfig};
use crate::dns_server::key::{Key, KeyError, KeyFile};
use crate::dns_server::synth::Synth;
use crate::dns_server::{self, Bounds, Grant, Names, Updates, Zone};

/// Arguments of `dns`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A key is a file as BIND's tsig-keygen writes it. By flag it may change every name of the zone; the
file of -c can narrow that:

  zone = \"svc.test\"
  listen = [\"0.0.0.0:53\"]

  [[key]]
  file = \"web.key\"
  names = [\"_http._tcp.web\", \"*.web\"]      # below the zone

  [[synth]]                                # for backends that know nothing of us
  name = \"_http._tcp.shop\"
  from = \"shop:8080\"

Examples:
  evenkeel dns --zone svc.test --key web.key --make-keys
  evenkeel register _http._tcp.web.svc.test --port 8080 --server 127.0.0.1:5300 --tsig-file web.key
  evenkeel query _http._tcp.web.svc.test --resolver 127.0.0.1:5300
  evenkeel proxy --from :8080 --to srv://_http._tcp.web.svc.test --resolver 127.0.0.1:5300

A zone that is not stored is lost with a restart. For one --max-lease from its start the server then
answers SERVFAIL, so that balancers keep what they know while backends register again.")]
pub struct Args {
    /// File that describes the zone
    #[arg(short, long, value_name = "FILE", required_unless_present = "zone",
          conflicts_with_all = ["zone", "listen", "key", "max_lease", "state", "synth", "synth_server"])]
    pub config: Option<String>,
    /// Name of the zone, such as svc.test
    #[arg(long, value_name = "NAME")]
    pub zone: Option<String>,
    /// Where to listen, over UDP and TCP (127.0.0.1:5300 unless given); may be repeated
    #[arg(long, value_name = "IP:PORT")]
    pub listen: Vec<String>,
    /// Key of somebody who may change the zone; may be repeated
    #[arg(long, value_name = "FILE")]
    pub key: Vec<String>,
    /// Make the key files that are missing; a key is called after its file
    #[arg(long)]
    pub make_keys: bool,
    /// The longest lease: a registration that is not renewed goes after it (30s unless given)
    #[arg(long, value_name = "TIME")]
    pub max_lease: Option<String>,
    /// Keep the zone in this file, so that a restart does not lose it
    #[arg(long, value_name = "FILE")]
    pub state: Option<String>,
    /// Make SRV records of the addresses of a name: _http._tcp.web=web:8080; may be repeated
    #[arg(long, value_name = "NAME=HOST:PORT")]
    pub synth: Vec<String>,
    /// Whom to ask for those addresses, instead of the servers of /etc/resolv.conf
    #[arg(long, value_name = "IP[:PORT]")]
    pub synth_server: Option<String>,
    /// Only check the configuration, and say what is wrong with it
    #[arg(long)]
    pub check: bool,
    /// What to log: error, warn, info, debug
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log_level: String,
}

/// Serves until a signal ends it.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let config = args.load()?;
    if args.check {
        let (keys, synth) = (config.keys.len(), config.synth.len());
        println!("ok: zone {}, {keys} keys, {synth} synth", config.zone);
        return Ok(ExitCode::SUCCESS);
    }
    crate::telemetry::logging::init(&args.log_level, LogFormat::Auto)?;
    let grants = config
        .keys
        .iter()
        .map(|key| grant(key, &config.zone, args.make_keys));
    let grants = grants.collect::<anyhow::Result<Vec<Grant>>>()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    runtime.block_on(serve(config, grants))
}

async fn serve(config: ZoneConfig, grants: Vec<Grant>) -> anyhow::Result<ExitCode> {
    let zone = Zone::new(&config.zone)?;
    zone.set_negative_ttl(config.negative_ttl);
    let mut synths = JoinSet::new();
    for synth in &config.synth {
        let servers = config.synth_server.into_iter().collect();
        let made = Synth::new(&zone, &synth.name, &synth.host, synth.port, servers)?;
        synths.spawn(made.run());
    }
    let mut sockets = Vec::new();
    for address in &config.listen {
        let bound = dns_server::bind(*address).await;
        sockets.push(bound.with_context(|| cannot_listen(address))?);
    }
    let changed_by = grants.len();
    let updates = Updates {
        grants,
        max_lease: config.max_lease,
        bounds: Bounds {
            names: config.max_names,
            records: config.max_records,
            ..Bounds::default()
        },
        rate: config.updates_per_second,
        state: config.state,
    };
    let mut addresses = Vec::new();
    for (udp, _) in &sockets {
        addresses.push(udp.local_addr()?.to_string());
    }
    let mut server = dns_server::serve_updates(sockets, zone, updates)?;
    let listen = addresses.join(", ");
    tracing::info!(
        zone = config.zone,
        keys = changed_by,
        synth = config.synth.len(),
        "dns: serves on {listen}"
    );
    if let Some(recovery) = server.recovery() {
        let recovery = humantime::format_duration(recovery);
        tracing::info!(
            "dns: no stored zone: answers SERVFAIL for {recovery}, while backends register again"
        );
    }
    tokio::select! {
        ended = server.ended() => ended.context("a socket failed")?,
        ended = super::interrupted() => ended?,
    }
    server.shutdown().await;
    Ok(ExitCode::SUCCESS)
}

fn cannot_listen(address: &std::net::SocketAddr) -> String {
    let hint = match address.port() {
        53 => " (port 53 is often taken, or only for root; --listen chooses another)",
        _ => "",
    };
    format!("cannot listen on {address}{hint}")
}

fn grant(key: &KeyGrant, zone: &str, make: bool) -> anyhow::Result<Grant> {
    let KeyFile { key: read, exposed } = if make {
        Key::create(&key.file, name_of(&key.file)?)?
    } else {
        Key::read(&key.file).map_err(missing)?
    };
    if exposed {
        let file = key.file.display();
        tracing::warn!("{file}: everybody on this machine may read this key");
    }
    let parse = |name: &str| -> anyhow::Result<Name> {
        let mut name = Name::from_ascii(name)?;
        name.set_fqdn(true);
        Ok(name.to_lowercase())
    };
    let mut names = Vec::new();
    for name in &key.names {
        names.push(match name.strip_prefix("*.") {
            Some(top) => Names::Below(parse(top)?),
            None => Names::Exactly(parse(name)?),
        });
    }
    if names.is_empty() {
        names.push(Names::Exactly(parse(zone)?));
        names.push(Names::Below(parse(zone)?));
    }
    Ok(Grant { key: read, names })
}

fn missing(error: KeyError) -> anyhow::Error {
    match error.is_missing() {
        true => anyhow::anyhow!("{error}; --make-keys makes it"),
        false => error.into(),
    }
}

/// `web` for `keys/web.key`.
fn name_of(file: &Path) -> anyhow::Result<Name> {
    let stem = file
        .file_stem()
        .and_then(|stem| stem.to_str())
        .unwrap_or_default();
    let name = Name::from_ascii(stem).ok().filter(|name| !name.is_root());
    name.with_context(|| format!("{}: a key cannot be called after this", file.display()))
}

impl Args {
    fn load(&self) -> Result<ZoneConfig, Diagnostic> {
        match &self.config {
            Some(file) => Loader::file(file).load_zone(),
            None => self.loader()?.load_zone(),
        }
    }

    fn loader(&self) -> Result<Loader, Diagnostic> {
        let whole = |loader: Loader, flag: &str, text: &str, path: &[&str]| {
            loader.argument(flag, text, 0..text.len(), path)
        };
        let mut loader = Loader::arguments();
        for (flag, text, key) in [
            ("--zone", &self.zone, "zone"),
            ("--max-lease", &self.max_lease, "max_lease"),
            ("--state", &self.state, "state"),
            ("--synth-server", &self.synth_server, "synth_server"),
        ] {
            if let Some(text) = text {
                loader = whole(loader, flag, text, &[key]);
            }
        }
        for (i, text) in self.listen.iter().enumerate() {
            loader = whole(loader, "--listen", text, &["listen", &i.to_string()]);
        }
        for (i, text) in self.key.iter().enumerate() {
            loader = whole(loader, "--key", text, &["key", &i.to_string(), "file"]);
        }
        for (i, text) in self.synth.iter().enumerate() {
            let Some((name, _)) = text.split_once('=') else {
                let title = format!("--synth {text}: there is no `=` in it");
                let help = "such as --synth _http._tcp.web=web:8080".to_owned();
                return Err(Diagnostic::without_place(title, Some(help)));
            };
            let i = i.to_string();
            let split = name.len();
            loader = loader.argument("--synth", text, 0..split, &["synth", &i, "name"]);
            let from = split + 1..text.len();
            loader = loader.argument("--synth", text, from, &["synth", &i, "from"]);
        }
        Ok(loader)
    }
}
