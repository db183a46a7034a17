//! `evenkeel health`: asks the running process how it is, for HEALTHCHECK and exec probes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::run_options::ConfigurationOptions;

/// Arguments of `health`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exits with 0 when all is well, and with 1 when it is not or nobody answers.

  HEALTHCHECK CMD [\"evenkeel\", \"health\"]
  evenkeel health --ready --address 127.0.0.1:9902")]
pub struct Args {
    /// Is it working? (the default)
    #[arg(long, conflicts_with = "ready")]
    live: bool,
    /// May it get new clients? Not while it starts or drains
    #[arg(long)]
    ready: bool,
    /// Where the probe listener is; otherwise as the configuration says, or 127.0.0.1:9902
    #[arg(long, value_name = "IP:PORT")]
    address: Option<SocketAddr>,
    #[command(flatten)]
    configuration: ConfigurationOptions,
}

/// A healthy process answers at once; Kubernetes waits one second by default, Docker thirty.
const DEADLINE: Duration = Duration::from_secs(2);
/// The answer has a few lines; one per service that is waited for.
const LARGEST: u64 = 64 * 1024;

/// Asks, prints the answer, and turns it into an exit code.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let path = if args.ready { "/readyz" } else { "/livez" };
    let address = match args.address {
        Some(address) => address,
        None => configured(&args.configuration)?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let asked = runtime.block_on(async { timeout(DEADLINE, ask(reachable(address), path)).await });
    let answer = asked
        .map_err(|_| anyhow::anyhow!("no answer within {} s", DEADLINE.as_secs()))
        .and_then(|answer| answer)
        .with_context(|| format!("probe listener {address}"))?;
    print!("{}", answer.text);
    Ok(match answer.status {
        200 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// The address in the configuration that `run` would take. Where there is none (`evenkeel proxy`
/// needs none), the variable over the default.
fn configured(options: &ConfigurationOptions) -> anyhow::Result<SocketAddr> {
    if options.is_given() {
        let probe = options.load()?.config.probe;
        return probe.context("the configuration switches the probe listener off");
    }
    match std::env::var("EVENKEEL_PROBE__ADDRESS") {
        Ok(text) => text
            .parse()
            .with_context(|| format!("EVENKEEL_PROBE__ADDRESS={text}: no address and port")),
        Err(_) => Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, 9902))),
    }
}

/// Where a listener on all addresses can be reached from here.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    text: String,
}

async fn ask(address: SocketAddr, path: &str) -> anyhow::Result<Answer> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut response = String::new();
    stream.take(LARGEST).read_to_string(&mut response).await?;
    let answer = response.split_once("\r\n\r\n").and_then(|(head, body)| {
        let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?;
        Some(Answer {
            status: status.parse().ok()?,
            text: body.to_owned(),
        })
    });
    match answer {
        Some(answer) => Ok(answer),
        None => bail!("what answers is no probe listener"),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn answered(response: &'static str) -> anyhow::Result<Answer> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                stream.read_buf(&mut request).await.unwrap();
            }
            assert!(request.starts_with(b"GET /readyz HTTP/1.1\r\n"));
            stream.write_all(response.as_bytes()).await.unwrap();
        };
        tokio::join!(ask(address, "/readyz"), server).0
    }

    #[tokio::test]
    async fn the_answer_is_the_status_and_the_text() {
        let answer = |status, text: &str| Answer {
            status,
            text: text.to_owned(),
        };
        let ready = answered("HTTP/1.1 200 OK\r\nServer: x\r\n\r\nready\n").await;
        assert_eq!(ready.unwrap(), answer(200, "ready\n"));
        let not = answered("HTTP/1.1 503 Service Unavailable\r\n\r\ndraining\n").await;
        assert_eq!(not.unwrap(), answer(503, "draining\n"));
        assert!(answered("220 mail.example ESMTP\r\n").await.is_err());
        assert!(answered("").await.is_err());
    }

    #[test]
    fn a_listener_on_all_addresses_is_asked_on_loopback() {
        for (bound, asked) in [
            ("0.0.0.0:9902", "127.0.0.1:9902"),
            ("[::]:9902", "[::1]:9902"),
            ("192.0.2.1:9902", "192.0.2.1:9902"),
        ] {
            assert_eq!(reachable(bound.parse().unwrap()), asked.parse().unwrap());
        }
    }
}
