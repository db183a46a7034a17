//! The thread of one worker: its runtime, its tick, and the generations of the configuration that it
//! goes through.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{Instant, sleep_until};

use super::runtime;
use crate::clock::Millis;
use crate::events::{ListenerId, Sign};
use crate::io::deadline::TICK;
use crate::listener;
use crate::listener::entrance::Entrance;
use crate::proxy::drain::Phase;
use crate::proxy::seating::Arrival;
use crate::proxy::worker::{HOUSEKEEPING, Shared, Worker};
use crate::published::Published;
use crate::telemetry::access::AccessLog;
use crate::telemetry::metrics::Metrics;

/// What a worker's thread starts with.
pub(super) struct WorkerStart {
    pub(super) index: usize,
    pub(super) generations: Arc<Published<Shared>>,
    pub(super) arrivals: mpsc::Receiver<Arrival>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) access: AccessLog,
    pub(super) sign: Arc<Sign>,
    pub(super) alive: mpsc::Sender<()>,
}

impl WorkerStart {
    /// The body of the thread.
    pub(super) fn run(self) {
        let runtime = match runtime() {
            Ok(runtime) => runtime,
            Err(e) => {
                tracing::error!(error = %e, "a worker cannot start");
                return;
            }
        };
        runtime.block_on(self.turn());
    }

    async fn turn(self) {
        let WorkerStart { sign, alive, .. } = self;
        let mut generations = self.generations.reader();
        let first = Arc::clone(generations.current());
        let worker = Worker::new(self.index, first, self.metrics.shard(), self.access);
        let (deadlines, crowd) = (Rc::clone(&worker.deadlines), Rc::clone(&worker.crowd));
        let (drain, access) = (Arc::clone(&worker.shared.drain), Rc::clone(&worker.access));
        let entrance = Entrance::new(worker);
        let mut doors = Doors::default();
        doors.open(&entrance);
        let taken_up =
            |shared: &Shared| sign.generation.store(shared.generation, Ordering::Release);
        taken_up(generations.current());
        let taking = spawn_local(Rc::clone(&entrance).take_arrivals(self.arrivals));
        let mut seen = Phase::Serving;
        let (mut tick, mut housekeeping) = (Instant::now() + TICK, HOUSEKEEPING);
        let mut young = Duration::ZERO;
        loop {
            let is_tick = tokio::select! {
                () = sleep_until(tick) => true,
                () = sign.wake.notified() => false,
            };
            if generations.refresh() {
                entrance.renew(Arc::clone(generations.current()));
                doors.open(&entrance);
                taken_up(generations.current());
                young = ON_THE_WAY;
            }
            if !is_tick {
                continue;
            }
            tick = Instant::now() + TICK;
            deadlines.sweep();
            access.flush();
            sign.heartbeat.store(Millis::now().0, Ordering::Relaxed);
            housekeeping = housekeeping.saturating_sub(TICK);
            if housekeeping.is_zero() {
                housekeeping = HOUSEKEEPING;
                entrance.tick();
            }
            young = young.saturating_sub(TICK);
            if young.is_zero() {
                entrance.forget_before();
            }
            let phase = drain.phase();
            if phase != seen {
                seen = phase;
                deadlines.wake_all();
            }
            let newest = entrance.worker();
            newest.shed();
            newest.answer();
            let closed = doors.are_closed() && taking.is_finished();
            if phase >= Phase::CutAll || (closed && crowd.connections.get() == 0) {
                break;
            }
        }
        if seen >= Phase::CutAll {
            // One turn more, for those who were just woken to say what became of them.
            tokio::time::sleep(TICK).await;
        }
        drop(alive);
    }
}

/// The tasks that accept.
#[derive(Default)]
struct Doors(Vec<(ListenerId, JoinHandle<()>)>);

impl Doors {
    /// Accepts on listeners of the newest generation that are new in it. Those that it has no more end
    /// by themselves.
    fn open(&mut self, entrance: &Rc<Entrance>) {
        let worker = entrance.worker();
        self.0.retain(|(_, task)| !task.is_finished());
        for listener in &worker.shared.listeners {
            if self.0.iter().any(|(id, _)| *id == listener.id) {
                continue;
            }
            let door = keep_open(Rc::clone(entrance), listener.id);
            self.0.push((listener.id, spawn_local(door)));
        }
    }

    fn are_closed(&self) -> bool {
        self.0.iter().all(|(_, task)| task.is_finished())
    }
}

/// Accepts, and again where that failed: what it takes may be short for now. It holds no worker besides:
/// the generation of one would last for as long as the listener does.
async fn keep_open(entrance: Rc<Entrance>, listener: ListenerId) {
    while let Some((worker, index)) = entrance.under(listener) {
        let name = Arc::clone(&worker.shared.config.listeners[index].name);
        let accepting = listener::accept(Rc::clone(&entrance), worker, index);
        let Err(error) = accepting.await else {
            return;
        };
        tracing::error!(%error, listener = %name, "cannot accept; tries again");
        tokio::time::sleep(TRY_AGAIN).await;
    }
}

/// From a failure to accept until the next try.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// What was accepted before another generation may take so long on its way to another worker.
const ON_THE_WAY: Duration = Duration::from_secs(1);
