//! `status`: the process as a whole.

use std::sync::atomic::Ordering;
use std::time::SystemTime;

use super::{Desk, date, days_until, wall};
use crate::admin::history::SAMPLE_EVERY;
use crate::admin::model::{
    Drain, Expiry, History, InEffect, Listener, Memory, Reload, Status, Worker,
};
use crate::clock::Millis;
use crate::config::Protocol;
use crate::events::Reloaded;
use crate::proxy::drain::Phase;
use crate::proxy::worker::Shared;

impl Desk {
    pub(super) fn status(&self) -> Status {
        let now = Millis::now();
        let shared = self.shared();
        let unmet: Vec<_> = self
            .state
            .unmet(now)
            .iter()
            .map(ToString::to_string)
            .collect();
        let drain = self.drain_state();
        let stuck = self.state.stuck(now);
        let workers = self.state.signs.iter().enumerate().map(|(index, sign)| {
            let beat = Millis(sign.heartbeat.load(Ordering::Relaxed));
            Worker {
                index: index as u64,
                quiet_seconds: now.since(beat).as_secs_f64(),
                stuck: stuck.iter().any(|stuck| stuck.worker == index),
            }
        });
        let history = self.history.borrow();
        let samples: Vec<_> = history.samples().map(|sample| (**sample).clone()).collect();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            boot: self.boot.to_string(),
            now: date(SystemTime::now()),
            started_at: date(self.started),
            uptime_seconds: now.since(self.state.started).as_secs_f64(),
            state: match (drain.phase != "serving", unmet.is_empty()) {
                (true, _) => "draining",
                (false, true) => "ready",
                (false, false) => "starting",
            }
            .to_owned(),
            ready: unmet.is_empty(),
            unmet,
            drain,
            workers: workers.collect(),
            configuration: self.in_effect(),
            listeners: listeners(&shared),
            certificate: expiry(&shared),
            sample: samples.last().cloned(),
            history: History {
                interval_seconds: SAMPLE_EVERY.as_secs_f64(),
                samples,
            },
            memory: shared.limits.pressure.sample().map(|memory| Memory {
                used: memory.used,
                budget: memory.budget,
                level: match memory.level {
                    0 => "fine",
                    1 => "shedding",
                    _ => "refusing",
                }
                .to_owned(),
            }),
        }
    }

    pub(super) fn drain_state(&self) -> Drain {
        let drain = &self.shared().drain;
        let phase = drain.phase();
        Drain {
            phase: match phase {
                Phase::Serving => "serving",
                Phase::Announced => "announced",
                Phase::Closing => "closing",
                Phase::ClosingIdle => "closing_idle",
                Phase::CutRequests => "cut_requests",
                Phase::CutAll => "cut_all",
            }
            .to_owned(),
            by: match (phase, drain.is_by_hand()) {
                (Phase::Serving, _) => None,
                (_, true) => Some("api".to_owned()),
                (_, false) => Some("signal".to_owned()),
            },
            since: drain.since().map(|since| date(wall(since))),
            accepting: phase <= Phase::Announced,
        }
    }

    pub(super) fn in_effect(&self) -> InEffect {
        let shared = self.shared();
        let reloads = self.state.reloads.borrow();
        InEffect {
            file: shared
                .config
                .written
                .file
                .as_ref()
                .map(|file| file.display().to_string()),
            generation: shared.generation,
            loaded_at: date(reloads.applied.unwrap_or(self.started)),
            last_reload: reloads.last.as_ref().map(Reload::from),
        }
    }
}

impl From<&Reloaded> for Reload {
    fn from(reloaded: &Reloaded) -> Reload {
        Reload {
            at: date(reloaded.at),
            outcome: match reloaded.error {
                None => "applied",
                Some(_) => "refused",
            }
            .to_owned(),
            generation: reloaded.generation,
            took_seconds: reloaded.took.as_secs_f64(),
            error: reloaded.error.as_deref().map(str::to_owned),
            at_next_start: reloaded
                .at_next_start
                .iter()
                .map(|key| (*key).to_owned())
                .collect(),
        }
    }
}

fn listeners(shared: &Shared) -> Vec<Listener> {
    let listeners = shared.config.listeners.iter().zip(&shared.listeners);
    let listener =
        |(config, listened): (&crate::config::Listener, &crate::proxy::worker::Listened)| {
            let socket = listened.socket.upgrade();
            let bound = socket.and_then(|socket| socket.local_addr().ok());
            let bound = bound.unwrap_or(config.address);
            Listener {
                name: config.name.to_string(),
                address: bound.to_string(),
                protocol: match config.protocol {
                    Protocol::Http => "http",
                    Protocol::Https(_) => "https",
                    Protocol::Tcp => "tcp",
                    Protocol::Tls => "tls",
                }
                .to_owned(),
            }
        };
    listeners.map(listener).collect()
}

fn expiry(shared: &Shared) -> Option<Expiry> {
    let listeners = shared.config.listeners.iter().zip(&shared.listeners);
    let sets = listeners.filter_map(|(config, listened)| {
        let set = listened.tls.as_ref()?.certificates.load();
        let ends = set.certificates().iter().map(|c| c.validity().not_after);
        Some((ends.min()?, &config.name))
    });
    let (not_after, listener) = sets.min_by_key(|(not_after, _)| *not_after)?;
    Some(Expiry {
        not_after: date(not_after),
        days_left: days_until(not_after),
        listener: listener.to_string(),
    })
}
