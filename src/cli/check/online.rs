//! `evenkeel check --online`: what the configuration leads to at this moment, seen from here.
//!
//! Each name is asked for once through the servers that the service would ask, each static backend
//! gets one connect, each certificate is looked at. Nothing is kept and nothing is sent to a backend.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::super::query::look::{Question, ask, located_of};
use super::super::query::{diagnosis, polls};
use super::count;
use crate::config::{self, CertificateFiles, Config, Discover, Lookup, Protocol, StaticEndpoint};
use crate::discovery::admission::{Admission, is_local};
use crate::discovery::answers::{Addresses, OneFamily};
use crate::discovery::resolver::{Limits, Resolver};
use crate::discovery::system::{RESOLV_CONF, Servers};
use crate::telemetry::date::Rfc3339;
use crate::tls::certificates;

/// One thing that was looked at.
#[derive(Debug)]
struct Line {
    verdict: Verdict,
    about: String,
    /// The first line, and what goes on below it.
    text: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Fine,
    Wrong,
}

/// What was found, in the order of the file.
#[derive(Debug)]
pub(super) struct Report(Vec<Line>);

impl Report {
    /// Is anything wrong?
    pub(super) fn is_fine(&self) -> bool {
        self.0.iter().all(|line| line.verdict == Verdict::Fine)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.0 {
            let verdict = match line.verdict {
                Verdict::Fine => "ok",
                Verdict::Wrong => "WRONG",
            };
            let mut text = line.text.iter();
            let first = text.next().map_or("", String::as_str);
            writeln!(f, "  {verdict:<9}{}: {first}", line.about)?;
            for more in text {
                writeln!(f, "           {more}")?;
            }
        }
        Ok(())
    }
}

/// Looks at everything.
pub(super) fn look(config: &Config) -> anyhow::Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    let mut lines = certificate_lines(config, SystemTime::now());
    lines.extend(runtime.block_on(services(config)));
    Ok(Report(lines))
}

/// At most so many names or backends are asked at once.
const AT_ONCE: usize = 32;

/// Static backends that get a connect, of one service: enough to see whether there is a way there.
const MOST_CONNECTS: usize = 256;

/// Services that lead to the same place are looked at together.
async fn services(config: &Config) -> Vec<Line> {
    let own = config::own_addresses(config);
    let admission = Admission::new(own, config.allowed_endpoints.clone());
    let mut groups: Vec<(&config::Service, Vec<&str>)> = Vec::new();
    let mut known: HashMap<&Discover, usize> = HashMap::new();
    for service in &config.services {
        let nth = *known.entry(&service.discover).or_insert_with(|| {
            groups.push((service, Vec::new()));
            groups.len() - 1
        });
        groups[nth].1.push(&service.name);
    }
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    let mut looks = JoinSet::new();
    for (nth, (service, names)) in groups.into_iter().enumerate() {
        let about = match names.len() {
            1 => format!("service {}", names[0]),
            _ => format!("services {}", names.join(", ")),
        };
        let discover = service.discover.clone();
        let connect_timeout = service.upstream.connect_timeout;
        let (admission, permits) = (admission.clone(), Arc::clone(&permits));
        looks.spawn(async move {
            let (verdict, text) = match discover {
                Discover::Static(backends) => connects(&backends, connect_timeout, permits).await,
                Discover::Srv { name, lookup } => {
                    let _permit = permits.acquire().await;
                    records(&name, lookup, admission).await
                }
                Discover::Address { name, port, lookup } => {
                    let _permit = permits.acquire().await;
                    addresses(&name, port.get(), &lookup, &admission).await
                }
            };
            let line = Line {
                verdict,
                about,
                text,
            };
            (nth, line)
        });
    }
    let mut lines = looks.join_all().await;
    lines.sort_by_key(|(nth, _)| *nth);
    lines.into_iter().map(|(_, line)| line).collect()
}

type Found = (Verdict, Vec<String>);

/// The SRV records of a name, in the words of `evenkeel query`.
async fn records(name: &str, lookup: Lookup, admission: Admission) -> Found {
    let from_system = lookup.servers.is_empty();
    let servers = match from_system {
        true => Servers::read(Path::new(RESOLV_CONF)),
        false => Ok(Servers::given(&lookup.servers)),
    };
    let servers = match servers {
        Ok(servers) => servers,
        Err(error) => return (Verdict::Wrong, vec![format!("no name server: {error}")]),
    };
    let question = Question {
        lookup,
        polls: polls::USUAL,
        pause: Duration::ZERO,
        admission,
    };
    let findings = ask(name, (servers, from_system), question).await;
    let endpoints = findings.endpoints();
    let mut tiers: Vec<u16> = endpoints.iter().map(|e| e.priority).collect();
    tiers.dedup();
    let mut text = vec![format!(
        "SRV {name} leads to {} in {}",
        count(endpoints.len(), "endpoint"),
        count(tiers.len(), "tier"),
    )];
    text.extend(diagnosis::remarks(&findings));
    let fine = !endpoints.is_empty() && !findings.some_fail() && !findings.some_unused();
    (verdict(fine), text)
}

/// The addresses of a name.
async fn addresses(name: &str, port: u16, lookup: &Lookup, admission: &Admission) -> Found {
    let limits = Arc::<Limits>::default();
    let resolver = match Resolver::new(name.into(), lookup, limits, Arc::default()) {
        Ok(resolver) => resolver,
        Err(error) => return (Verdict::Wrong, vec![error.to_string()]),
    };
    let found = resolver.addresses(name, lookup.family).await;
    let mut remarks = Vec::new();
    let mut usable: Vec<IpAddr> = Vec::new();
    for located in located_of(&found) {
        let endpoint = SocketAddr::new(located.address, port);
        match admission.judge(endpoint, located.server_on_loopback, &is_local) {
            Ok(()) => usable.push(located.address),
            Err(refusal) => remarks.push(format!("{} is not used: {refusal}", located.address)),
        }
    }
    remarks.extend(failures(&found));
    let fine = !usable.is_empty() && remarks.is_empty();
    if usable.is_empty() && name.starts_with('_') {
        remarks.push(format!(
            "this looks like the name of SRV records: discover = {{ srv = \"{name}\" }}"
        ));
    }
    let listed: Vec<_> = usable.iter().take(LISTED).map(IpAddr::to_string).collect();
    let listed = match usable.len() {
        0 => String::new(),
        n if n > LISTED => format!(": {}, …", listed.join(", ")),
        _ => format!(": {}", listed.join(", ")),
    };
    let mut text = vec![format!(
        "{name} has {}{listed}",
        match usable.len() {
            1 => "1 address".to_owned(),
            n => format!("{n} addresses"),
        }
    )];
    text.extend(remarks);
    (verdict(fine), text)
}

/// What kept an answer away, each reason once.
fn failures(addresses: &Addresses) -> Vec<String> {
    let families = [&addresses.v4, &addresses.v6].into_iter();
    let mut failures: Vec<_> = families
        .filter_map(|family| match family {
            OneFamily::Failed(error) => Some(error.to_string()),
            _ => None,
        })
        .collect();
    failures.dedup();
    failures
}

/// One connect to each of these backends.
async fn connects(
    backends: &[StaticEndpoint],
    timeout: Duration,
    permits: Arc<Semaphore>,
) -> Found {
    let mut tries = JoinSet::new();
    let tried = &backends[..backends.len().min(MOST_CONNECTS)];
    for (nth, backend) in tried.iter().enumerate() {
        let (address, permits) = (backend.address, Arc::clone(&permits));
        tries.spawn(async move {
            let _permit = permits.acquire().await;
            let failure = match tokio::time::timeout(timeout, TcpStream::connect(address)).await {
                Ok(Ok(_)) => return (nth, None),
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no answer within {}", humantime::format_duration(timeout)),
            };
            (
                nth,
                Some(format!("{address} cannot be connected to: {failure}")),
            )
        });
    }
    let mut tries = tries.join_all().await;
    tries.sort_by_key(|(nth, _)| *nth);
    let failures: Vec<String> = tries
        .into_iter()
        .filter_map(|(_, failure)| failure)
        .collect();
    let mut first = format!(
        "{} of {} can be connected to",
        tried.len() - failures.len(),
        count(tried.len(), "static backend"),
    );
    if tried.len() < backends.len() {
        let _ = write!(
            first,
            " ({} more were not tried)",
            backends.len() - tried.len()
        );
    }
    let fine = failures.is_empty();
    let more = failures.len().saturating_sub(LISTED);
    let mut text = vec![first];
    text.extend(failures.into_iter().take(LISTED));
    if more > 0 {
        text.push(format!("and {more} more"));
    }
    (verdict(fine), text)
}

/// So many addresses or backends of a service are listed.
const LISTED: usize = 8;

fn verdict(fine: bool) -> Verdict {
    match fine {
        true => Verdict::Fine,
        false => Verdict::Wrong,
    }
}

/// How long each certificate is still valid: those of listeners, and those that backends are shown.
fn certificate_lines(config: &Config, now: SystemTime) -> Vec<Line> {
    let listeners = config.listeners.iter().flat_map(|listener| {
        let files = match &listener.protocol {
            Protocol::Https(tls) => &tls.certificates[..],
            Protocol::Http | Protocol::Tcp | Protocol::Tls => &[],
        };
        let of = |files| (format!("listener {}", listener.name), files);
        files.iter().map(of)
    });
    let services = config.services.iter().filter_map(|service| {
        let files = service.tls.as_ref()?.certificate.as_ref()?;
        Some((format!("service {}", service.name), files))
    });
    let all = listeners.chain(services);
    all.filter_map(|(about, files)| certificate_line(about, files, now))
        .collect()
}

/// `None`: it cannot be read, which was said by then.
fn certificate_line(about: String, files: &CertificateFiles, now: SystemTime) -> Option<Line> {
    let until = certificates::load(files).ok()?.validity().not_after;
    let day = |time: Duration| count((time.as_secs() / DAY) as usize, "day");
    let (verdict, how_long) = match until.duration_since(now) {
        Ok(left) => (Verdict::Fine, format!("{} left", day(left))),
        Err(over) => (
            Verdict::Wrong,
            format!("expired {} ago", day(over.duration())),
        ),
    };
    let cert = files.cert.display();
    Some(Line {
        verdict,
        about,
        text: vec![format!(
            "{cert}: {how_long}, until {}",
            Rfc3339::seconds(until)
        )],
    })
}

/// In seconds.
const DAY: u64 = 24 * 60 * 60;
