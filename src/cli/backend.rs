//! `evenkeel backend`: a sample backend that shows every request to who sent it.
//!
//! Arguments, signals and the order of the end are here; what is answered is in `sample`.

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::Interrupts;
use crate::sample::{self, Chance, Delay, Ended, Phase, Sample};

/// Arguments of `backend`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Every request is answered with what it was, as JSON: the backend's name (in X-Backend too), both
addresses, the request's number, method, target, version and fields in their order (what is no
UTF-8 as Latin-1), the length of its body and the first 16 KiB of that (\"body_base64\" where it
is no text; \"body_cut\" where there was more), and its trailers.

A query says what is wanted instead, for this request only:
  /?delay=100ms     takes so long, 60s at most; a range as with --delay
  /?status=503      answers with this status, 200 to 599
  /?bytes=10000     sends so many bytes instead of JSON, 1 GiB at most
  /healthz          is 200 at once; 503 from the first signal on

A GET with Upgrade: websocket is taken up on every path, and everything said is said back;
messages may have 1 MiB.

TERM or INT: no new connections; every answer says Connection: close, what is under way is
finished (8 s at most), connections on which nothing comes are closed after 5 s, WebSockets at
once. A second signal ends it where it stands. Exit code 3 if something was cut off.

Two of them behind a balancer:
  evenkeel backend --listen 127.0.0.1:9001 --name b1 &
  evenkeel backend --listen 127.0.0.1:9002 --name b2 &
  evenkeel proxy --from 127.0.0.1:8080 --to 127.0.0.1:9001 --to 127.0.0.1:9002")]
pub struct Args {
    /// Where to listen; port 0 takes a free one and says which
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:9001")]
    pub listen: SocketAddr,
    /// What it calls itself; its address unless said otherwise, or this host's name where it
    /// listens on all addresses
    #[arg(long, value_name = "NAME", value_parser = field_value)]
    pub name: Option<String>,
    /// How long it takes over each answer: 50ms, or 20ms..80ms for any time between
    #[arg(long, value_name = "TIME", default_value = "0s")]
    pub delay: Delay,
    /// Share of the requests that get a 503, by chance
    #[arg(long, value_name = "PERCENT", default_value = "0%")]
    pub error_rate: Chance,
}

/// Something was cut off, as with a balancer's drain.
const CUT: u8 = 3;

/// Serves until a signal ends it.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    runtime.block_on(serve(args))
}

async fn serve(args: Args) -> anyhow::Result<ExitCode> {
    // Before anybody can know that we are there.
    let mut interrupts = Interrupts::new()?;
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("cannot listen on {}", args.listen))?;
    let address = listener.local_addr()?;
    let name = match args.name {
        Some(name) => name,
        None => own_name(address),
    };
    println!("backend {name} listens on {address}");
    let sample = Sample {
        name,
        delay: args.delay,
        error_rate: args.error_rate,
    };
    let (phase, phases) = watch::channel(Phase::Serving);
    let mut serving = std::pin::pin!(sample::serve(listener, sample, phases));
    tokio::select! {
        _ = &mut serving => {}
        () = interrupts.next() => {}
    }
    phase.send_replace(Phase::Closing);
    Ok(tokio::select! {
        ended = &mut serving => match ended {
            Ended::Finished => ExitCode::SUCCESS,
            Ended::Cut(connections) => {
                eprintln!("evenkeel: {connections} connections were cut off");
                ExitCode::from(CUT)
            }
        },
        () = interrupts.next() => ExitCode::from(CUT),
    })
}

/// Listening on all addresses it would be called like all others of its kind.
fn own_name(address: SocketAddr) -> String {
    let uname = rustix::system::uname();
    let host = uname.nodename().to_str().ok();
    let host = host.and_then(|host| field_value(host).ok());
    host.filter(|_| address.ip().is_unspecified())
        .unwrap_or_else(|| address.to_string())
}

fn field_value(name: &str) -> Result<String, String> {
    match name.chars().all(|c| c.is_ascii_graphic()) && !name.is_empty() {
        true => Ok(name.to_owned()),
        false => Err("only visible ASCII characters".into()),
    }
}
