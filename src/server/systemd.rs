//! What systemd is told of this process (sd_notify(3), `Type=notify` and `notify-reload`): that it is
//! ready, reloads, ends, and that its workers turn. Without `NOTIFY_SOCKET` nobody is told anything.

use std::cell::Cell;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::rc::Rc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::time::{MissedTickBehavior, interval};

use crate::admin::state::State;
use crate::clock::Millis;
use crate::proxy::drain::Phase;

/// Whom to tell.
#[derive(Debug, Default)]
pub struct Notifier {
    socket: Option<UnixDatagram>,
    /// Told so often that we are alive.
    watchdog: Option<Duration>,
    /// It has been told that we are ready. Before that a reload is no news to it: it does not know us
    /// as running, and `READY=1` would make it believe so.
    is_ready: Cell<bool>,
}

impl Notifier {
    /// Whoever the environment names. What is wrong with that is logged.
    pub fn from_env() -> Notifier {
        let Some(place) = std::env::var_os("NOTIFY_SOCKET").filter(|place| !place.is_empty())
        else {
            return Notifier::default();
        };
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
        Notifier {
            socket: connected.ok(),
            watchdog: watchdog(|name| std::env::var(name).ok(), std::process::id()),
            is_ready: Cell::new(false),
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
    fn look(&self, state: &State, told: &mut Draining, now: Millis) {
        let drain = state.drain();
        let draining = match (drain.phase() > Phase::Serving, drain.is_by_hand()) {
            (false, _) => Draining::No,
            (true, true) => Draining::ByHand,
            (true, false) => Draining::ToEnd,
        };
        if draining != *told {
            *told = draining;
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

/// Tells it what happens from now on, for as long as this runtime lives.
pub async fn attend(notifier: Rc<Notifier>, state: Rc<State>) {
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
        notifier.look(&state, &mut told, now);
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
