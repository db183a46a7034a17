//! `evenkeel health`: asks the running process how it is, for HEALTHCHECK and exec probes; or a
//! backend or a DNS server, for images without a shell.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, RecordType};
use hyper::Request;
use hyper::header::HOST;
use tokio::time::timeout;

use super::http::{self, Peer, Whole};
use super::run_options::ConfigurationOptions;
use super::url::Url;
use crate::dns_server::client::{self, Failure};
use crate::dns_server::registrar::absolute;

/// Arguments of `health`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exits with 0 when all is well, and with 1 when it is not or nobody answers.

  evenkeel health                                    the balancer: is it alive?
  evenkeel health --ready --address 127.0.0.1:9902   and may it get clients?
  evenkeel health --url http://127.0.0.1:8080/       a backend
  evenkeel health --dns 127.0.0.1:53 --name _http._tcp.web.svc.test

In a Dockerfile, and in docker-compose.yml:
  HEALTHCHECK CMD [\"evenkeel\", \"health\"]
  healthcheck: { test: [\"CMD\", \"evenkeel\", \"health\", \"--url=http://127.0.0.1:8080/healthz\"] }

A DNS server is well when it answers for the name with records, or says that there are none;
not with SERVFAIL or REFUSED. `evenkeel dns` without a stored zone is well one --max-lease after
its start.")]
pub struct Args {
    /// Is it working? (the default)
    #[arg(long, conflicts_with_all = ["ready", "url", "dns"])]
    live: bool,
    /// May it get new clients? Not while it starts or drains
    #[arg(long, conflicts_with_all = ["url", "dns"])]
    ready: bool,
    /// Where the probe listener is; otherwise as the configuration says, or 127.0.0.1:9902
    #[arg(long, value_name = "IP:PORT", conflicts_with_all = ["url", "dns"])]
    address: Option<SocketAddr>,
    /// Ask this instead: well is an answer with 2xx. Plain HTTP, and an address or localhost;
    /// redirections are not followed
    #[arg(long, value_name = "http://IP:PORT/PATH", conflicts_with = "dns")]
    url: Option<Url>,
    /// Ask this DNS server instead, for the SRV records of --name
    #[arg(long, value_name = "IP[:PORT]", requires = "name", value_parser = dns_server)]
    dns: Option<SocketAddr>,
    /// The name for --dns, such as _http._tcp.web.svc.test
    #[arg(long, value_name = "NAME", requires = "dns", value_parser = absolute)]
    name: Option<Name>,
    /// How long to wait for an answer
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    configuration: ConfigurationOptions,
}

/// The answer has a few lines; one per service that is waited for.
const LARGEST: usize = 64 * 1024;

/// A DNS question goes out so often within the timeout: one packet may be lost.
const DNS_TRIES: u32 = 2;

/// Asks, prints the answer, and turns it into an exit code.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (whom, question) = args.question()?;
    let asked = runtime.block_on(async { timeout(args.timeout, question.ask(args.timeout)).await });
    let answer = asked
        .map_err(|_| {
            let patience = humantime::format_duration(args.timeout);
            anyhow::anyhow!("no answer within {patience}")
        })
        .and_then(|answer| answer)
        .context(whom)?;
    super::print(answer.text)?;
    Ok(match answer.well {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// Whom to ask for what.
#[derive(Debug)]
enum Question {
    Probe(Vec<SocketAddr>, &'static str),
    Url(Url),
    Dns(SocketAddr, Name),
}

/// What came back.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    well: bool,
    text: String,
}

impl Args {
    /// The question, and what to call it in an error.
    fn question(&self) -> anyhow::Result<(String, Question)> {
        if let Some(url) = &self.url {
            return Ok((url.to_string(), Question::Url(url.clone())));
        }
        if let (Some(server), Some(name)) = (self.dns, &self.name) {
            let question = Question::Dns(loopback(server), name.clone());
            return Ok((format!("DNS server {server}"), question));
        }
        let path = if self.ready { "/readyz" } else { "/livez" };
        let address = match self.address {
            Some(address) => address,
            None => configured(&self.configuration)?,
        };
        let question = Question::Probe(reachable(address), path);
        Ok((format!("probe listener {address}"), question))
    }
}

impl Question {
    async fn ask(&self, patience: Duration) -> anyhow::Result<Answer> {
        match self {
            Question::Probe(address, path) => ask_probe(address, path).await,
            Question::Url(url) => {
                let status = url.get().await?;
                Ok(Answer {
                    well: (200..=299).contains(&status),
                    text: format!("{url} answers {status}\n"),
                })
            }
            Question::Dns(server, name) => ask_dns(*server, patience / DNS_TRIES, name).await,
        }
    }
}

/// The address in the configuration that `run` would take, with the environment over it, or the default.
fn configured(options: &ConfigurationOptions) -> anyhow::Result<SocketAddr> {
    let probe = options.management().probe;
    probe.context("the configuration switches the probe listener off")
}

/// Where a listener can be reached from here, to be tried in turn: one on all addresses of both families
/// over IPv4 too, since IPv6 may be switched off, as in most containers.
pub(super) fn reachable(address: SocketAddr) -> Vec<SocketAddr> {
    let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, address.port()));
    let both = address.ip() == Ipv6Addr::UNSPECIFIED;
    let further = both.then_some(v4);
    [loopback(address)].into_iter().chain(further).collect()
}

/// For all addresses the one of this host.
fn loopback(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

async fn ask_probe(addresses: &[SocketAddr], path: &str) -> anyhow::Result<Answer> {
    let request = Request::get(path).header(HOST, addresses[0].to_string());
    let request = request.body(Whole::default())?;
    let mut answer = http::ask(&Peer::Tcp(addresses.to_vec()), request).await?;
    let text = answer.whole(LARGEST).await?;
    Ok(Answer {
        well: answer.status() == 200,
        text: String::from_utf8_lossy(&text).into_owned(),
    })
}

async fn ask_dns(server: SocketAddr, patience: Duration, name: &Name) -> anyhow::Result<Answer> {
    let answer = client::ask(server, patience, name, RecordType::SRV).await?;
    let text = match answer.metadata.response_code {
        ResponseCode::NoError => {
            let records = answer.answers.iter();
            let count = records
                .filter(|record| record.record_type() == RecordType::SRV)
                .count();
            format!("{server}: SRV records of {name}: {count}\n")
        }
        ResponseCode::NXDomain => format!("{server}: there is no {name}\n"),
        code => return Err(Failure::Code { server, code }.into()),
    };
    Ok(Answer { well: true, text })
}

fn dns_server(text: &str) -> Result<SocketAddr, String> {
    let ip = || text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53));
    let address = text.parse().or_else(|_| ip());
    address.map_err(|_| "an address, and a port unless it is 53: 127.0.0.1:5300".to_owned())
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::cli::url::answer_one;

    async fn answered(response: &'static str) -> anyhow::Result<Answer> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = answer_one(&listener, "GET /readyz HTTP/1.1", response);
        let addresses = [address];
        tokio::join!(ask_probe(&addresses, "/readyz"), server).0
    }

    #[tokio::test]
    async fn a_200_is_well_and_the_text_is_printed() {
        let answer = |well, text: &str| Answer {
            well,
            text: text.to_owned(),
        };
        let ready = answered("HTTP/1.1 200 OK\r\nServer: x\r\n\r\nready\n").await;
        assert_eq!(ready.unwrap(), answer(true, "ready\n"));
        let not = answered("HTTP/1.1 503 Service Unavailable\r\n\r\ndraining\n").await;
        assert_eq!(not.unwrap(), answer(false, "draining\n"));
        assert!(answered("220 mail.example ESMTP\r\n").await.is_err());
        assert!(answered("").await.is_err());
    }

    #[test]
    fn a_listener_on_all_addresses_is_asked_on_loopback() {
        for (bound, asked) in [
            ("0.0.0.0:9902", vec!["127.0.0.1:9902"]),
            ("[::]:9902", vec!["[::1]:9902", "127.0.0.1:9902"]),
            ("192.0.2.1:9902", vec!["192.0.2.1:9902"]),
        ] {
            let found = reachable(bound.parse().unwrap());
            let found: Vec<_> = found.iter().map(ToString::to_string).collect();
            assert_eq!(found, asked);
        }
    }
}
