//! `evenkeel register`: registers a backend by dynamic update, and runs it.
//!
//! Composes: `process.rs` is the command and the signals, `ready.rs` asks whether the backend
//! serves, `dns_server::registrar` keeps the record, `linger.rs` says how long the command outlives
//! it. What happens in which order at the end is decided here.

mod linger;
mod options;
mod process;
mod ready;

use std::ffi::OsString;
use std::num::NonZeroU16;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use hickory_proto::rr::Name;
use rustix::process::Signal;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::config::LogFormat;
use crate::dns_server::registrar::{Registrar, Withdrawal, absolute};
pub(super) use linger::Linger;
pub use options::RegistrationOptions;
use process::{End, Process};
use ready::Check;

/// Arguments of `register`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The record is renewed every third of its lease. When TERM, INT or QUIT comes, it is withdrawn first;
only when balancers have had the time to notice does the command get the signal, so that no request
meets a closed port. HUP, USR1, USR2 and WINCH are passed on at once, and so is a second TERM. When
the command ends by itself, the record goes at once. A command that is killed together with this
process leaves its record until the lease ends, which takes a server that knows leases (evenkeel dns).

By hand:
  evenkeel dns --zone svc.test --key web.key --make-keys &
  evenkeel register _http._tcp.web.svc.test --port 8080 --server 127.0.0.1:5300 \\
      --tsig-file web.key --ready tcp -- python3 -m http.server 8080

In docker-compose, with the key on a volume that the DNS server shares:
  web:
    entrypoint: [\"evenkeel\", \"register\", \"_http._tcp.web.svc.test\", \"--port\", \"8080\",
                 \"--server\", \"dns\", \"--tsig-file\", \"/keys/web.key\", \"--ready\", \"tcp\", \"--\"]
    command: [\"node\", \"server.js\"]
    stop_grace_period: 30s

Exit codes: the command's, 128 and the signal where one ended it; 1 configuration, 2 usage.")]
pub struct Args {
    /// Name to register under, such as _http._tcp.web.svc.test
    #[arg(value_name = "NAME", value_parser = absolute)]
    name: Name,
    /// Port on which the backend listens
    #[arg(long, value_name = "PORT")]
    port: NonZeroU16,
    #[command(flatten)]
    options: RegistrationOptions,
    /// Register only while the backend serves: `tcp` connects to its port on loopback, a URL such
    /// as http://127.0.0.1:8080/healthz must answer 2xx. Three failures in a row withdraw it
    #[arg(long, value_name = "tcp|URL", value_parser = Check::parse)]
    ready: Option<Check>,
    /// How long the command goes on after the record is gone, before it gets the signal; unless
    /// given, three refreshes of a balancer: 3.3 times the TTL and 0.5 s, 8 s at most
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    linger: Option<Duration>,
    /// What to log: error, warn, info, debug
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: String,
    /// Command to run, with its arguments; without one, only the record is kept
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Registers and runs until the command ends, or a signal ends both.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let registrar = args.options.registrar(&args.name, args.port)?;
    crate::telemetry::logging::init(&args.log_level, LogFormat::Auto)?;
    let linger = match (args.linger, args.command.is_empty()) {
        // Nobody ends after us.
        (None, true) => Linger::NONE,
        (given, _) => Linger::of(given, args.options.ttl()),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    runtime.block_on(async {
        let process = Process::start(&args.command)?;
        let ready = args.ready.map(|check| check.of(args.port));
        Ok(supervise(registrar, process, ready, linger).await.into())
    })
}

async fn supervise(
    registrar: Registrar,
    mut process: Process,
    ready: Option<Check>,
    linger: Linger,
) -> u8 {
    let (wanted, wants) = watch::channel(ready.is_none());
    let mut registrar = tokio::spawn(registrar.run(wants));
    let end = {
        // Owns `wanted`; dropped with it, the registrar withdraws.
        let readiness = ready::follow(ready, wanted);
        tokio::select! {
            never = readiness => match never {},
            end = process.end() => end,
        }
    };
    match end {
        End::Itself(code) => {
            let _ = registrar.await;
            code
        }
        End::Asked(signal) => leave(&mut registrar, &mut process, signal, linger).await,
    }
}

/// Withdraws, lingers, passes the signal on, waits for the command. A second signal cuts the
/// linger short. The command may take as long as it likes to end: whoever sent the signal is the
/// one to lose patience.
async fn leave(
    registrar: &mut JoinHandle<Withdrawal>,
    process: &mut Process,
    signal: Signal,
    linger: Linger,
) -> u8 {
    let begun = Instant::now();
    let mut passed_on = false;
    let withdrawal = loop {
        tokio::select! {
            withdrawal = &mut *registrar => break withdrawal.unwrap_or(Withdrawal::Failed),
            end = process.end() => match end {
                End::Itself(code) => {
                    let _ = registrar.await;
                    return code;
                }
                End::Asked(_) if !process.is_running() => return INTERRUPTED,
                End::Asked(again) => {
                    process.signal(again);
                    passed_on = true;
                }
            }
        }
    };
    // Nobody learns anything while we wait if the record is still there, or never was.
    let noticed = matches!(withdrawal, Withdrawal::Gone | Withdrawal::Unconfirmed);
    if noticed && !passed_on {
        tokio::select! {
            () = sleep(linger.begin(begun)) => {}
            end = process.end() => match end {
                End::Itself(code) => return code,
                End::Asked(again) => {
                    process.signal(again);
                    passed_on = true;
                }
            }
        }
    }
    if !process.is_running() {
        return 0;
    }
    if !passed_on {
        process.signal(signal);
    }
    loop {
        match process.end().await {
            End::Itself(code) => return code,
            End::Asked(again) => process.signal(again),
        }
    }
}

/// Without a command, a second signal ends us before the withdrawal is through.
const INTERRUPTED: u8 = 1;
