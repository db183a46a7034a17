//! Asks the process once a second, carries commands out, and listens for signals: in a thread of its
//! own, so that keys are never waited for.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::screen::{Command, View};
use crate::admin::model::{Changed, Dns, Event, Events, Service, Status, WeightRequest};
use crate::cli::instance::{Instance, backend_path};

/// What the thread has to say.
#[derive(Debug)]
pub enum Update {
    Looked(Box<View>),
    /// A look failed.
    Failed(String),
    /// What a command led to, in words.
    Done(String),
    /// A signal came.
    Ended,
}

/// The thread. It ends when this is dropped.
#[derive(Debug)]
pub struct Feed {
    pub updates: Receiver<Update>,
    orders: mpsc::Sender<Command>,
}

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);

/// For all questions of one look, and for a command.
const PATIENCE: Duration = Duration::from_secs(5);

/// Events that are kept.
const EVENTS: usize = 64;

/// Updates that wait for the screen, which turns ten times a second.
const UPDATES: usize = 8;

impl Feed {
    /// Starts asking `instance`.
    pub fn start(instance: Instance) -> anyhow::Result<Feed> {
        let (updates, taken) = sync_channel(UPDATES);
        let (orders, ordered) = mpsc::channel(1);
        let runtime = Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new()
            .name("feed".to_owned())
            .spawn(move || {
                let ended = runtime.block_on(run(&instance, &updates, ordered));
                if let Err(error) = ended {
                    // Who would read it may be gone.
                    let _ = updates.send(Update::Failed(format!("{error:#}")));
                }
            })
            .context("no thread")?;
        Ok(Feed {
            updates: taken,
            orders,
        })
    }

    /// Has a command carried out; false: another one is waiting already.
    pub fn order(&self, command: Command) -> bool {
        self.orders.try_send(command).is_ok()
    }
}

/// Until the other end is gone or a signal comes.
async fn run(
    instance: &Instance,
    updates: &SyncSender<Update>,
    mut ordered: mpsc::Receiver<Command>,
) -> anyhow::Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut journal = Journal::default();
    loop {
        let command = tokio::select! {
            _ = ticks.tick() => None,
            command = ordered.recv() => match command {
                Some(command) => Some(command),
                None => return Ok(()),
            },
            _ = term.recv() => return end(updates),
            _ = interrupt.recv() => return end(updates),
            _ = hangup.recv() => return end(updates),
        };
        if let Some(command) = command {
            let done = timeout(PATIENCE, obey(instance, command)).await;
            let words = match done {
                Ok(Ok(words)) => words,
                Ok(Err(error)) => format!("not done: {error:#}"),
                Err(_) => format!("no answer within {PATIENCE:?}: it may have been done"),
            };
            if updates.send(Update::Done(words)).is_err() {
                return Ok(());
            }
        }
        let looked = timeout(PATIENCE, look(instance, &mut journal)).await;
        let update = match looked {
            Ok(Ok(view)) => Update::Looked(Box::new(view)),
            Ok(Err(error)) => Update::Failed(format!("{error:#}")),
            Err(_) => Update::Failed(format!("no answer within {PATIENCE:?}")),
        };
        if updates.send(update).is_err() {
            return Ok(());
        }
    }
}

fn end(updates: &SyncSender<Update>) -> anyhow::Result<()> {
    let sent = updates.send(Update::Ended);
    sent.map_err(|_| anyhow!("nobody shows anything any more"))
}

/// The latest events, asked for as they come.
#[derive(Debug, Default)]
struct Journal {
    boot: String,
    next: u64,
    events: VecDeque<Event>,
}

async fn look(instance: &Instance, journal: &mut Journal) -> anyhow::Result<View> {
    let status: Status = instance.get("/api/v1/status").await?;
    let services: Vec<Service> = instance.get("/api/v1/services").await?;
    let dns: Vec<Dns> = instance.get("/api/v1/dns").await?;
    if journal.boot != status.boot {
        *journal = Journal::default();
    }
    let path = format!("/api/v1/events?since={}", journal.next);
    let events: Events = instance.get(&path).await?;
    journal.boot = events.boot;
    journal.next = events.next;
    journal.events.extend(events.events);
    let over = journal.events.len().saturating_sub(EVENTS);
    journal.events.drain(..over);
    Ok(View {
        status,
        services,
        dns,
        events: journal.events.iter().cloned().collect(),
    })
}

async fn obey(instance: &Instance, command: Command) -> anyhow::Result<String> {
    let (id, action, body) = match &command {
        Command::Drain(id) => (id, "drain", None),
        Command::Undrain(id) => (id, "undrain", None),
        Command::Weight(id, weight) => {
            let body = serde_json::to_string(&WeightRequest { weight: *weight })?;
            (id, "weight", Some(body))
        }
    };
    let changed: Changed = instance.post(&backend_path(id, action), body).await?;
    Ok(match command {
        Command::Drain(id) => format!("{id} is drained"),
        Command::Undrain(id) => format!("{id} is not drained any more"),
        Command::Weight(id, Some(weight)) => format!("{id} has weight {weight} by hand"),
        Command::Weight(id, None) => {
            format!("{id} has weight {} as DNS says", changed.backend.weight.srv)
        }
    })
}
