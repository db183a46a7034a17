//! What systemd is told of this process (sd_notify(3), `Type=notify` and `notify-reload`): that it is
//! ready, reloads, ends, and that its workers turn. Without `NOTIFY_SOCKET` nobody is told anything.

use std::cell::Cell;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::rc::Rc;
use std::time::Duration;

use rustix::process::{Pid, Signal, getpid, getppid, kill_process};
use rustix::time::{ClockId, clock_gettime};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use crate::admin::state::State;
use crate::clock::Millis;
use crate::proxy::drain::Phase;

/// The number of the process in front of this one, where there is one: see `server::front`.
pub const FRONT: &str = "EVENKEEL_FRONT";

/// Whom to tell.
#[derive(Debug, Default)]
pub struct Notifier {
    socket: Option<UnixDatagram>,
    /// Told so often that we are alive.
    watchdog: Option<Duration>,
    /// It has been told that we are ready. Before that a reload is no news to it: it does not know us
    /// as running, and `READY=1` would make it believe so.
    is_ready: Cell<bool>,
    /// The process in front of us, which systemd knows. The next one takes our place as soon as we end.
    front: Option<Pid>,
    /// It has gone without a word, and we have begun to end.
    is_alone: Cell<bool>,
}

impl Notifier {
    /// Whoever the environment names. What is wrong with that is logged.
    pub fn from_env() -> Notifier {
        let front = std::env::var(FRONT).ok().and_then(|pid| pid.parse().ok());
        Notifier {
            socket: notify_socket(),
            watchdog: watchdog(|name| std::env::var(name).ok(), std::process::id()),
            is_ready: Cell::new(false),
            front: front.and_then(Pid::from_raw),
            is_alone: Cell::new(false),
        }
    }

    /// A reload begins.
    pub fn reloading(&self) {
        if !self.is_ready.get() {
            return;
        }
        // By it systemd tells this reload from one that it asked for later.
        let now = clock_gettime(ClockId::Monotonic);
        let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
        self.tell(&format!(
            "RELOADING=1\nMONOTONIC_USEC={micros}\nSTATUS=reloading"
        ));
    }

    /// A reload is over; `status` says how.
    pub fn reloaded(&self, status: &str) {
        if self.is_ready.get() {
            self.ready(status);
        }
    }

    fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={}", one_line(status)));
    }

    /// One more look at how we are.
    async fn look(&self, state: &State, told: &mut Draining, doors: &mut Doors, now: Millis) {
        let drain = state.drain();
        let draining = match (drain.phase() > Phase::Serving, drain.is_by_hand()) {
            (false, _) => Draining::No,
            (true, true) => Draining::ByHand,
            (true, false) => Draining::ToEnd,
        };
        // Once a drain has begun the one in front may go; another signal would cut it short.
        if draining != Draining::ToEnd {
            self.look_ahead();
        }
        if draining != *told {
            *told = draining;
            if draining == Draining::ToEnd && self.front.is_some() {
                // Before it is said: whoever is started then listens where we did.
                doors.close().await;
            }
            self.tell(match draining {
                Draining::No => "STATUS=serving",
                // Not STOPPING: from that systemd counts the time until it kills, and what was begun
                // by hand may be taken back.
                Draining::ByHand => "STATUS=drained by hand",
                Draining::ToEnd => "STOPPING=1\nSTATUS=draining",
            });
        }
        let serves = draining == Draining::No;
        if serves && !self.is_ready.get() && state.unmet(now).is_empty() {
            self.is_ready.set(true);
            self.ready("serving");
        }
    }

    /// Whoever was in front of us and has gone can pass no signal on: nobody else would end us.
    fn look_ahead(&self) {
        let Some(front) = self.front.filter(|_| !self.is_alone.get()) else {
            return;
        };
        if getppid() != Some(front) {
            // Once: a second one would end us at once.
            self.is_alone.set(true);
            let _ = kill_process(getpid(), Signal::TERM);
        }
    }

    /// A datagram that is not taken at once is lost: systemd must not hold us up.
    fn tell(&self, message: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(message.as_bytes())
        {
            tracing::debug!(%error, "systemd was not told");
        }
    }
}

/// A drain, as it was told last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Draining {
    #[default]
    No,
    /// Announced, and may be taken back.
    ByHand,
    /// A signal has begun it.
    ToEnd,
}

/// Whoever answers probes and the control API.
#[derive(Debug, Default)]
pub struct Doors {
    /// The tasks.
    pub tasks: Vec<JoinHandle<()>>,
}

impl Doors {
    /// Nobody listens there any more.
    async fn close(&mut self) {
        for task in self.tasks.drain(..) {
            task.abort();
            // An error says that it was aborted.
            let _ = task.await;
        }
    }
}

/// The socket that systemd's environment names. What is wrong with that is logged.
pub fn notify_socket() -> Option<UnixDatagram> {
    let place = std::env::var_os("NOTIFY_SOCKET").filter(|place| !place.is_empty())?;
    let address = match place.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&place),
    };
    let connected = address.and_then(|address| {
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    });
    if let Err(error) = &connected {
        tracing::warn!(%error, "systemd cannot be told how we are");
    }
    connected.ok()
}

/// Tells it what happens from now on, for as long as this runtime lives. `doors` are closed when another
/// process is to take the place of this one.
pub async fn attend(notifier: Rc<Notifier>, state: Rc<State>, mut doors: Doors) {
    if notifier.socket.is_none() {
        return;
    }
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = Draining::default();
    let mut watched = Millis::now();
    loop {
        looks.tick().await;
        let now = Millis::now();
        notifier.look(&state, &mut told, &mut doors, now).await;
        // Half the time: one that comes late must not be the end.
        let due = notifier
            .watchdog
            .is_some_and(|period| now.since(watched) >= period / 2);
        if due && state.stuck(now).is_empty() {
            watched = now;
            notifier.tell("WATCHDOG=1");
        }
    }
}

/// Between two looks at how we are.
const LOOK: Duration = Duration::from_millis(50);

/// `WATCHDOG_USEC`, if it is meant for this process (sd_watchdog_enabled(3)).
fn watchdog(variable: impl Fn(&str) -> Option<String>, own: u32) -> Option<Duration> {
    if variable("WATCHDOG_PID").is_some_and(|pid| pid != own.to_string()) {
        return None;
    }
    let micros = variable("WATCHDOG_USEC")?.parse().ok()?;
    Some(Duration::from_micros(micros))
}

/// A status is one line; each line is a message of its own.
fn one_line(text: &str) -> String {
    text.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_is_meant_for_us_or_not() {
        let with = |pid: Option<&'static str>, micros: Option<&'static str>| {
            let variable = move |name: &str| match name {
                "WATCHDOG_PID" => pid.map(str::to_owned),
                _ => micros.map(str::to_owned),
            };
            watchdog(variable, 7)
        };
        let second = Some(Duration::from_secs(1));
        assert_eq!(with(None, None), None);
        assert_eq!(with(None, Some("1000000")), second);
        assert_eq!(with(Some("7"), Some("1000000")), second);
        assert_eq!(with(Some("8"), Some("1000000")), None);
        assert_eq!(with(None, Some("soon")), None);
    }
}
