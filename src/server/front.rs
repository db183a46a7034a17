//! `evenkeel run --hand-over`: the process that systemd starts and stops, in front of the one that
//! serves. It ends as soon as that one has begun to drain, so that a restart need not wait for it: what
//! is under way is finished behind, beside the next process, which takes clients from the same sockets
//! (sd_listen_fds(3)) meanwhile. For units with `KillMode=process`.
//!
//! It passes on what the one behind says to systemd, and signals the other way. It serves nobody, and
//! never reads a socket that clients can reach.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode};
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, kill_process};
use tokio::net::UnixDatagram;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use super::runtime;
use super::systemd::{FRONT, notify_socket};
use crate::admin::runtime_dir;

/// The one behind says that it drains within 50 ms. One that has not by then is stuck, and nobody would
/// be left to end it.
const STUCK: Duration = Duration::from_secs(5);

/// More than any message of ours.
const MESSAGE: usize = 4096;

/// Did systemd hand sockets to this process? Without them the next process could not listen while this
/// one does, and nothing is gained.
pub fn has_sockets() -> bool {
    let own = std::process::id().to_string();
    std::env::var("LISTEN_PID").is_ok_and(|pid| pid == own)
        && std::env::var("LISTEN_FDS").is_ok_and(|count| count != "0")
}

/// The first socket of systemd's, by its number, that is not in the mode that all who share it rely on. It is
/// the socket's and not the process's: whoever changes it changes it for the one that drains, whose workers
/// would wait in accept(2) for a client that the next process takes.
fn blocking_socket() -> Option<u32> {
    const FIRST: u32 = 3;
    let count: u32 = std::env::var("LISTEN_FDS").ok()?.parse().ok()?;
    (FIRST..FIRST.saturating_add(count)).find(|number| {
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}"));
        let flags = info.ok().and_then(|info| {
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
            u32::from_str_radix(flags.trim(), 8).ok()
        });
        flags.is_some_and(|flags| flags & rustix::fs::OFlags::NONBLOCK.bits() == 0)
    })
}

/// Runs this program again with `arguments`, behind this process. Gives the code of the one behind if
/// that ends first.
pub fn run(arguments: Vec<OsString>) -> anyhow::Result<ExitCode> {
    if let Some(number) = blocking_socket() {
        anyhow::bail!(
            "--hand-over needs NonBlocking=yes in the unit ([Service]): socket {number} would block. systemd makes \
             it so for each process that it starts, and the one before would stand still in the middle of its drain"
        );
    }
    let runtime = runtime().context("cannot start a runtime for signals")?;
    runtime.block_on(async {
        let mut signals = Signals::listen().context("cannot listen for signals")?;
        let place = Place::new()?;
        let told = UnixDatagram::bind(&place.0)
            .with_context(|| format!("cannot listen on {}", place.0.display()))?;
        let mut behind = Behind(start(arguments, &place)?);
        behind.attend(&mut signals, &told).await
    })
}

/// Sockets at descriptors 3 and on are inherited: they have not been touched, and systemd has left them
/// open for programs that are started.
fn start(arguments: Vec<OsString>, place: &Place) -> anyhow::Result<Child> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("NOTIFY_SOCKET", &place.0)
        .env(FRONT, std::process::id().to_string())
        // They name this process; absent, they are meant for whoever has them.
        .env_remove("LISTEN_PID")
        .env_remove("WATCHDOG_PID");
    command
        .spawn()
        .context("cannot start the process that serves")
}

/// Where the one behind speaks to us: in a folder that is this user's alone.
struct Place(PathBuf);

impl Place {
    fn new() -> anyhow::Result<Place> {
        let folder = runtime_dir::usable().context("no folder for a socket")?;
        let path = folder.join(format!("notify-{}.sock", std::process::id()));
        // Left over from a process of that number that was killed.
        let _ = std::fs::remove_file(&path);
        Ok(Place(path))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // It may have gone with its folder.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// What systemd and people send.
struct Signals {
    /// TERM and INT: to end.
    term: Signal,
    int: Signal,
    /// HUP and USR1: passed on.
    hup: Signal,
    usr1: Signal,
    /// ABRT: the watchdog was not fed.
    abort: Signal,
    child: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Signals> {
        Ok(Signals {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hup: signal(SignalKind::hangup())?,
            usr1: signal(SignalKind::user_defined1())?,
            abort: signal(SignalKind::from_raw(
                rustix::process::Signal::ABORT.as_raw(),
            ))?,
            child: signal(SignalKind::child())?,
        })
    }
}

/// The one that serves.
struct Behind(Child);

impl Behind {
    async fn attend(
        &mut self,
        signals: &mut Signals,
        told: &UnixDatagram,
    ) -> anyhow::Result<ExitCode> {
        use rustix::process::Signal;
        let systemd = notify_socket();
        let mut message = [0; MESSAGE];
        let mut stuck = None;
        loop {
            let at = stuck.unwrap_or_else(|| Instant::now() + STUCK);
            tokio::select! {
                // What it said last counts before its end does.
                biased;
                length = told.recv(&mut message) => {
                    let said = &message[..length?];
                    if let Some(systemd) = &systemd {
                        // Like the one behind we do not wait for systemd.
                        let _ = systemd.send(said);
                    }
                    let leaves = said.split(|&byte| byte == b'\n').any(|line| line == b"STOPPING=1");
                    if leaves && stuck.is_some() {
                        return Ok(ExitCode::SUCCESS);
                    }
                }
                _ = signals.child.recv() => {
                    if let Some(status) = self.0.try_wait()? {
                        let code = status.code().and_then(|code| u8::try_from(code).ok());
                        if let Some(signal) = status.signal() {
                            eprintln!("evenkeel: signal {signal} ended the process that serves");
                        }
                        // TERM before it listens for signals: there was nothing to finish.
                        let ended = stuck.is_some() && status.signal().is_some();
                        return Ok(ExitCode::from(code.unwrap_or(if ended { 0 } else { 1 })));
                    }
                }
                _ = signals.term.recv() => self.end(&mut stuck),
                _ = signals.int.recv() => self.end(&mut stuck),
                _ = signals.hup.recv() => self.send(Signal::HUP),
                _ = signals.usr1.recv() => self.send(Signal::USR1),
                _ = signals.abort.recv() => {
                    self.send(Signal::ABORT);
                    anyhow::bail!("the watchdog has not heard of the process that serves");
                }
                () = sleep_until(at), if stuck.is_some() => {
                    self.send(Signal::KILL);
                    anyhow::bail!("the process that serves does not end: killed");
                }
            }
        }
    }

    /// A second time ends it at once, as it does without us.
    fn end(&self, stuck: &mut Option<Instant>) {
        stuck.get_or_insert_with(|| Instant::now() + STUCK);
        self.send(rustix::process::Signal::TERM);
    }

    fn send(&self, signal: rustix::process::Signal) {
        let id = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        // It is our child until we have waited for it, so nobody else has its number.
        if let Some(id) = id {
            let _ = kill_process(id, signal);
        }
    }
}
