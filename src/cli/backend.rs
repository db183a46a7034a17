//! `evenkeel backend`: a sample backend that shows every request to who sent it.
//!
//! Arguments, signals and the order of the end are here; what is answered is in `sample`, the
//! record in DNS is `dns_server::registrar`'s.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use hickory_proto::rr::Name;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::Interrupts;
use super::register::{Linger, RegistrationOptions};
use crate::config::LogFormat;
use crate::dns_server::registrar::{Withdrawal, absolute};
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
  /healthz          is 200 at once, with --register when DNS has the record; 503 from the first
                    signal on

A GET with Upgrade: websocket is taken up on every path, and everything said is said back;
messages may have 1 MiB.

TERM or INT: every answer says Connection: close from now on. A registration is withdrawn, and
balancers get the time to notice; --linger gives it where others keep the records, as Kubernetes
does. Then no connections are taken any more, what is under way is
finished (8 s at most), connections on which nothing comes are closed after 5 s, WebSockets at
once. Exit code 3 if something was cut off; a second signal does that.

Two of them behind a balancer:
  evenkeel backend --listen 127.0.0.1:9001 --name b1 &
  evenkeel backend --listen 127.0.0.1:9002 --name b2 &
  evenkeel proxy --from 127.0.0.1:8080 --to 127.0.0.1:9001 --to 127.0.0.1:9002

One that registers itself with `evenkeel dns --zone svc.test --key web.key --make-keys`:
  evenkeel backend --listen 127.0.0.1:0 --register _http._tcp.web.svc.test \\
      --server 127.0.0.1:5300 --tsig-file web.key",
    // Those of `register`, where they must be there.
    mut_arg("server", |arg| arg.required(false)),
    mut_arg("tsig_file", |arg| arg.required(false)),
    mut_group("RegistrationOptions", |group| group.requires("register"))
)]
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
    /// Register under this name, such as _http._tcp.web.svc.test, as `evenkeel register` does,
    /// while it serves
    #[arg(long, value_name = "NAME", value_parser = absolute, requires_all = ["server", "tsig_file"],
          help_heading = REGISTRATION)]
    pub register: Option<Name>,
    #[command(flatten, next_help_heading = REGISTRATION)]
    registration: Option<RegistrationOptions>,
    /// How long it serves on when it is told to end: after the record is gone, with --register;
    /// unless given, that is three refreshes of a balancer: 3.3 times the TTL and 0.5 s, 8 s at
    /// most. Without, from the signal on, and not at all unless given
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, help_heading = None)]
    linger: Option<Duration>,
    /// What to log: error, warn, info, debug; with debug, each request when it has arrived
    #[arg(long, value_name = "LEVEL", default_value = "info", help_heading = None)]
    log_level: String,
}

const REGISTRATION: &str = "Registration in DNS";

/// Something was cut off, as with a balancer's drain.
const CUT: u8 = 3;

/// Serves until a signal ends it.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    crate::telemetry::logging::init(&args.log_level, LogFormat::Auto)?;
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
    let registration = match (&args.register, args.registration) {
        (Some(name), Some(options)) => {
            Some(Registration::start(name, options, args.linger, address)?)
        }
        _ => None,
    };
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
    let (phase, phases) = watch::channel(Phase::Joining);
    let serving = tokio::spawn(sample::serve(listener, sample, phases));
    tokio::select! {
        biased;
        () = interrupts.next() => {}
        () = join(&phase, registration.as_ref()) => interrupts.next().await,
    }
    tokio::select! {
        ended = leave(serving, &phase, registration, args.linger) => match ended? {
            Ended::Finished => Ok(ExitCode::SUCCESS),
            Ended::Cut(connections) => {
                tracing::warn!(connections, "cut off what took too long");
                Ok(ExitCode::from(CUT))
            }
        },
        () = interrupts.next() => Ok(ExitCode::from(CUT)),
    }
}

/// Who replaces backends one by one goes by their health: one that nobody can find must not count.
async fn join(phase: &watch::Sender<Phase>, registration: Option<&Registration>) {
    if let Some(registration) = registration {
        registration.known().await;
    }
    phase.send_replace(Phase::Serving);
}

/// First nobody may learn of us any more, then those who know us may come no more, then those who
/// came are served to the end.
async fn leave(
    serving: JoinHandle<Ended>,
    phase: &watch::Sender<Phase>,
    registration: Option<Registration>,
    linger: Option<Duration>,
) -> anyhow::Result<Ended> {
    phase.send_replace(Phase::Leaving);
    match registration {
        Some(registration) => registration.end().await,
        // Whoever keeps the record has been told by others.
        None => sleep(linger.unwrap_or_default()).await,
    }
    phase.send_replace(Phase::Closing);
    Ok(serving.await?)
}

/// A record that is kept in DNS.
struct Registration {
    /// True as long as this lives.
    wanted: watch::Sender<bool>,
    /// True once it has been there.
    known: watch::Receiver<bool>,
    registrar: JoinHandle<Withdrawal>,
    linger: Linger,
}

impl Registration {
    fn start(
        name: &Name,
        mut options: RegistrationOptions,
        linger: Option<Duration>,
        address: SocketAddr,
    ) -> anyhow::Result<Registration> {
        if !address.ip().is_unspecified() {
            options.address_unless_given(address.ip());
        }
        let port = NonZeroU16::new(address.port()).context("a bound socket has a port")?;
        let (wanted, wants) = watch::channel(true);
        let registrar = options.registrar(name, port)?;
        Ok(Registration {
            wanted,
            known: registrar.known(),
            registrar: tokio::spawn(registrar.run(wants)),
            linger: Linger::of(linger, options.ttl()),
        })
    }

    /// Waits until a server has it; for ever if none ever does. Cancel-safe.
    async fn known(&self) {
        let mut known = self.known.clone();
        let nobody_says_so = known.wait_for(|known| *known).await.is_err();
        if nobody_says_so {
            std::future::pending::<()>().await;
        }
    }

    /// Withdraws it, and waits until balancers have noticed.
    async fn end(self) {
        let begun = Instant::now();
        drop(self.wanted);
        let withdrawal = self.registrar.await.unwrap_or(Withdrawal::Failed);
        // Nobody learns anything while we wait if the record is still there, or never was.
        if matches!(withdrawal, Withdrawal::Gone | Withdrawal::Unconfirmed) {
            sleep(self.linger.begin(begun)).await;
        }
    }
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
