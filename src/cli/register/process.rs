//! The command that is run, the signals that come, and the orphans that nobody else buries.
//!
//! As process 1 of a container this is the parent of every process whose own has ended, so
//! whatever ends is waited for, not the command alone.

use std::ffi::OsString;
use std::future::poll_fn;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::task::Poll;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use tokio::signal::unix::{self, SignalKind};

/// Signals that are listened to. Children that ended come first: what they have to say makes the
/// rest idle.
const SIGNALS: [Signal; 8] = [
    Signal::CHILD,
    Signal::TERM,
    Signal::INT,
    Signal::QUIT,
    Signal::HUP,
    Signal::USR1,
    Signal::USR2,
    Signal::WINCH,
];

/// Where the end begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The command has ended: its exit code, or 128 and the signal that killed it.
    Itself(u8),
    /// Somebody wants it to end, by this signal. It was not passed on.
    Asked(Signal),
}

/// A command that runs, or none.
#[derive(Debug)]
pub(super) struct Process {
    /// Until it has been waited for; then its number may be another's.
    child: Option<Pid>,
    signals: Vec<(Signal, unix::Signal)>,
}

impl Process {
    /// Starts a command, or none if the list is empty. Must be called on a runtime; from then on
    /// signals end this process no more.
    ///
    /// The command gets a process group of its own, so that Ctrl-C on a terminal reaches us alone
    /// and the record can go first. In return it is in the background there: it cannot read from
    /// the terminal.
    pub(super) fn start(command: &[OsString]) -> anyhow::Result<Process> {
        // Before the command starts: it may end at once.
        let signals = SIGNALS.into_iter().map(|signal| {
            let kind = SignalKind::from_raw(signal.as_raw());
            Ok((signal, unix::signal(kind)?))
        });
        let signals = signals.collect::<std::io::Result<_>>()?;
        let mut process = Process {
            child: None,
            signals,
        };
        if let Some((program, arguments)) = command.split_first() {
            let child = Command::new(program)
                .args(arguments)
                .process_group(0)
                .spawn()
                .with_context(|| format!("cannot run `{}`", program.display()))?;
            // Only its number is kept: waiting is done below, for it and for everybody else.
            process.child = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        }
        Ok(process)
    }

    /// There is a command, and it has not ended.
    pub(super) fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// Passes a signal on to the command, and not to its children: as it would get it from
    /// `docker stop` without us.
    pub(super) fn signal(&self, signal: Signal) {
        if let Some(child) = self.child {
            // It can only have ended; then that is the next event.
            let _ = rustix::process::kill_process(child, signal);
        }
    }

    /// Waits for the end, or for the wish that it comes. Other signals are passed on meanwhile.
    /// Cancel-safe.
    pub(super) async fn end(&mut self) -> End {
        loop {
            match self.received().await {
                Signal::CHILD => {
                    if let Some(code) = self.bury() {
                        return End::Itself(code);
                    }
                }
                signal @ (Signal::TERM | Signal::INT | Signal::QUIT) => return End::Asked(signal),
                // A terminal that hangs up ends what has no command, as it would without us.
                Signal::HUP if !self.is_running() => return End::Asked(Signal::HUP),
                signal => self.signal(signal),
            }
        }
    }

    async fn received(&mut self) -> Signal {
        poll_fn(|context| {
            for (signal, stream) in &mut self.signals {
                if stream.poll_recv(context).is_ready() {
                    return Poll::Ready(*signal);
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Waits for everybody who has ended: signals come once for several. The command's code, if
    /// it is among them.
    fn bury(&mut self) -> Option<u8> {
        let mut code = None;
        // An error says that there are no children, or none left.
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if self.child == Some(pid) {
                self.child = None;
                code = Some(exit_code(status));
            }
        }
        code
    }
}

/// As shells have it.
fn exit_code(status: WaitStatus) -> u8 {
    let killed = status.terminating_signal().map(|signal| 128 + signal);
    let code = status.exit_status().or(killed).unwrap_or(1);
    u8::try_from(code).unwrap_or(u8::MAX)
}
