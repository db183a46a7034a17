//! The load generator: opens the connections, keeps the pattern, counts what comes of it.
//!
//! One thread. First all connections are opened (those that stay idle make one request each); then the clock starts.
//! Whatever the target does, a run ends: at the latest [`GRACE`] after its time, and where the target does not even
//! open the connections, after as long.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use anyhow::{Error, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::io::Errno;
use rustls::{ClientConfig, HandshakeKind};

use super::answer::Answered;
use super::connection::{Connection, Progress, Purpose, Shape};
use super::latency::Latency;
use super::time::{Clock, Cpu};
use super::tls;
use super::{Job, Outcome, Pattern};

/// Does a job. The connections come along: they are closed with the second value.
pub fn run(job: &Job) -> Result<(Outcome, Held)> {
    super::raise_file_limit();
    // Without it, a sleep takes 50 µs longer than it is told to (proc_pid_timerslack_ns(5)); where it cannot be
    // written, latencies of `Rate` are as much longer.
    let _ = std::fs::write("/proc/self/timerslack_ns", "1");
    let tls = job.tls.as_ref().map(tls::client_config).transpose()?;
    let mut generator = Generator::new(job, tls)?;
    let all_open = generator.open_all()?;
    if all_open && !matches!(job.pattern, Pattern::Hold) {
        generator.measure()?;
    }
    let outcome = generator.outcome()?;
    Ok((
        outcome,
        Held {
            _slots: generator.slots,
        },
    ))
}

/// Open connections.
pub struct Held {
    _slots: Vec<Slot>,
}

struct Generator<'a> {
    job: &'a Job,
    shape: Shape,
    clock: Clock,
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
    /// The active ones first.
    slots: Vec<Slot>,
    stage: Stage,
    /// Slots whose connection is to be opened, and whether a request goes with it.
    queue: VecDeque<(usize, bool)>,
    /// Connections that are being opened, at most [`OPENING`].
    opening: usize,
    /// Slots that failed, and when they are tried again, in order.
    retries: VecDeque<(u64, usize)>,
    /// Slots that have more to do than one turn allowed, by the data of their events.
    unfinished: Vec<(u64, epoll::EventFlags)>,
    /// Requests on their way.
    in_flight: usize,
    /// `Rate`: slots without a request, the longest-rested first; some may have been closed since.
    rested: VecDeque<usize>,
    /// `Rate`: requests that have been sent.
    sent: u64,
    begin: u64,
    end: u64,
    last_answer: u64,
    counts: Counts,
    latency: Latency,
    own: Cpu,
    watched: Cpu,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Connections are opened, nothing is counted but errors.
    Opening,
    Measuring,
    /// What is in flight is awaited, nothing new begins.
    Ending,
}

#[derive(Default)]
struct Slot {
    connection: Option<Connection>,
    /// Tells the events of one connection from those of the next.
    turn: u32,
    /// Whether the connection counts as one being opened.
    opening: bool,
    /// When the request on its way was begun or due; when the last one was answered, where there is none.
    since: u64,
}

#[derive(Default)]
struct Counts {
    requests: u64,
    errors: u64,
    first_error: Option<String>,
    bytes: u64,
    connects: u64,
    full_handshakes: u64,
    resumed_handshakes: u64,
    late: u64,
}

impl<'a> Generator<'a> {
    fn new(job: &'a Job, tls: Option<Arc<ClientConfig>>) -> Result<Self> {
        if job.active > job.connections || job.connections == 0 {
            bail!("{} of {} connections active", job.active, job.connections);
        }
        let mut slots = Vec::new();
        slots.resize_with(job.connections, Slot::default);
        Ok(Self {
            job,
            shape: Shape::new(job, tls)?,
            clock: Clock::start(),
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(EVENTS),
            slots,
            stage: Stage::Opening,
            queue: VecDeque::new(),
            opening: 0,
            retries: VecDeque::new(),
            unfinished: Vec::new(),
            in_flight: 0,
            rested: VecDeque::new(),
            sent: 0,
            begin: 0,
            end: 0,
            last_answer: 0,
            counts: Counts::default(),
            latency: Latency::new(),
            own: Cpu::default(),
            watched: Cpu::default(),
        })
    }

    /// Opens what is to be open before the clock starts; returns whether the target had time for all. One that
    /// refuses had.
    fn open_all(&mut self) -> Result<bool> {
        let hold = matches!(self.job.pattern, Pattern::Hold);
        let connect = matches!(self.job.pattern, Pattern::Connect);
        // A connection per request needs none before, but if each is to resume, each needs the ticket of another.
        let tickets = self.job.tls.as_ref().is_some_and(|tls| tls.resume);
        for slot in 0..self.job.connections {
            let active = slot < self.job.active && !hold;
            if !active || !connect || tickets {
                self.queue.push_back((slot, !active || connect));
            }
        }
        let limit = self.clock.now() + GRACE + self.job.connections as u64 * PER_CONNECTION;
        while !self.queue.is_empty() || self.opening > 0 || self.in_flight > 0 {
            if self.clock.now() > limit {
                let left = self.queue.len() + self.opening.max(self.in_flight);
                self.fail_text(&format!("{left} connections could not be opened in time"));
                self.counts.errors += left as u64 - 1;
                return Ok(false);
            }
            self.open_queued();
            self.turn(Some(limit))?;
        }
        // Who closed in the meantime?
        self.turn(Some(0))?;
        Ok(true)
    }

    /// The run itself.
    fn measure(&mut self) -> Result<()> {
        let active = 0..self.job.active;
        let connect = matches!(self.job.pattern, Pattern::Connect);
        let open = |slot: &Slot| slot.connection.is_some();
        if !connect && !self.slots[active.clone()].iter().any(open) {
            return Ok(());
        }
        self.stage = Stage::Measuring;
        self.counts.full_handshakes = 0;
        self.counts.resumed_handshakes = 0;
        self.watched = Cpu::of_processes(&self.job.watched);
        self.own = Cpu::of_this_thread();
        self.begin = self.clock.now();
        self.last_answer = self.begin;
        self.end = self.begin + (self.job.seconds * 1e9) as u64;
        for slot in active {
            self.slots[slot].since = self.begin;
            if self.slots[slot].connection.is_none() {
                self.queue.push_back((slot, !self.is_rate()));
            } else if self.is_rate() {
                self.rested.push_back(slot);
            } else {
                self.begin_request(slot, self.begin);
            }
        }
        loop {
            let now = self.clock.now();
            if self.stage == Stage::Measuring && now >= self.end {
                self.stage = Stage::Ending;
                self.queue.clear();
                self.retries.clear();
            }
            let backlog = self.send_due(now);
            if self.stage == Stage::Ending && self.in_flight == 0 && backlog == 0 {
                break;
            }
            // Nothing in flight and nothing being opened: none of the backlog can be sent any more.
            let stuck = self.stage == Stage::Ending && self.in_flight == 0 && self.opening == 0;
            if stuck || now >= self.end + GRACE {
                let left = self.in_flight as u64 + backlog;
                self.fail_text(&format!("{left} requests were not answered in time"));
                self.counts.errors += left - 1;
                break;
            }
            self.retry(now);
            self.open_queued();
            let wake = self.next_wake();
            self.turn(Some(wake))?;
        }
        self.own = Cpu::of_this_thread().since(self.own);
        self.watched = Cpu::of_processes(&self.job.watched).since(self.watched);
        Ok(())
    }

    fn outcome(&mut self) -> Result<Outcome> {
        let counts = &mut self.counts;
        let handshakes = counts.full_handshakes + counts.resumed_handshakes;
        if self.job.tls.as_ref().is_some_and(|tls| tls.resume)
            && matches!(self.job.pattern, Pattern::Connect)
            && (counts.resumed_handshakes as f64) < handshakes as f64 * MUST_RESUME
        {
            bail!(
                "only {} of {handshakes} handshakes resumed a session",
                counts.resumed_handshakes
            );
        }
        let seconds = (self.last_answer - self.begin) as f64 / 1e9;
        let share = |part: f64| if seconds > 0.0 { part / seconds } else { 0.0 };
        Ok(Outcome {
            requests: counts.requests,
            errors: counts.errors,
            first_error: counts.first_error.take(),
            bytes: counts.bytes,
            seconds,
            p50: self.latency.quantile(0.5),
            p99: self.latency.quantile(0.99),
            max: self.latency.max(),
            own_cpu: self.own.used,
            busy: share(self.own.used),
            waited: share(self.own.waited),
            late: counts.late as f64 / self.sent.max(1) as f64,
            connects: counts.connects,
            full_handshakes: counts.full_handshakes,
            resumed_handshakes: counts.resumed_handshakes,
            watched_cpu: self.watched.used,
        })
    }

    /// Waits for events, no longer than until `wake`, and deals with them.
    fn turn(&mut self, wake: Option<u64>) -> Result<()> {
        let now = self.clock.now();
        let left = match wake {
            _ if !self.unfinished.is_empty() => 0,
            Some(wake) => wake.saturating_sub(now),
            None => SECOND,
        };
        let mut timeout = Timespec {
            tv_sec: (left / SECOND) as i64,
            tv_nsec: (left % SECOND) as i64,
        };
        if left > 0 && self.is_rate() {
            // epoll_wait counts in milliseconds.
            match poll(
                &mut [PollFd::new(&self.epoll, PollFlags::IN)],
                Some(&timeout),
            ) {
                Ok(_) | Err(Errno::INTR) => timeout = Timespec::default(),
                Err(error) => return Err(error.into()),
            }
        }
        let mut events = std::mem::take(&mut self.events);
        events.clear();
        let room = rustix::buffer::spare_capacity(&mut events);
        match epoll::wait(&self.epoll, room, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for (key, flags) in std::mem::take(&mut self.unfinished) {
            self.advance(key, flags);
        }
        for event in &events {
            self.advance(event.data.u64(), event.flags);
        }
        self.events = events;
        Ok(())
    }

    fn advance(&mut self, key: u64, flags: epoll::EventFlags) {
        let index = key as u32 as usize;
        let slot = &mut self.slots[index];
        let Some(connection) = &mut slot.connection else {
            return;
        };
        if slot.turn != (key >> 32) as u32 {
            return;
        }
        let progress = connection.advance(flags, &mut self.shape);
        self.after(index, flags, progress);
    }

    /// What follows from what a connection did.
    fn after(&mut self, index: usize, flags: epoll::EventFlags, progress: Result<Progress>) {
        let rate = self.is_rate();
        let slot = &mut self.slots[index];
        if let (true, Some(connection)) = (slot.opening, &slot.connection)
            && connection.is_established()
        {
            slot.opening = false;
            self.opening -= 1;
            match connection.handshake() {
                None => {}
                Some(HandshakeKind::Resumed) => self.counts.resumed_handshakes += 1,
                Some(_) => self.counts.full_handshakes += 1,
            }
            if rate && !connection.is_busy() && self.stage != Stage::Opening {
                slot.since = self.clock.now();
                self.rested.push_back(index);
            }
        }
        match progress {
            Ok(Progress::Waiting) => {}
            Ok(Progress::Unfinished) => {
                let key = key(index, self.slots[index].turn);
                let both = epoll::EventFlags::IN | epoll::EventFlags::OUT;
                self.unfinished.push((key, flags | both));
            }
            Ok(Progress::Answered(answered)) => self.answered(index, answered),
            Ok(Progress::Closed) => self.closed(index),
            Err(error) => self.failed(index, &error),
        }
    }

    fn answered(&mut self, index: usize, answered: Answered) {
        let now = self.clock.now();
        let slot = &mut self.slots[index];
        let began = std::mem::replace(&mut slot.since, now);
        self.in_flight -= 1;
        let connect = matches!(self.job.pattern, Pattern::Connect) && index < self.job.active;
        if connect || !answered.reusable {
            self.shut(index);
        }
        if self.stage == Stage::Opening {
            if self.slots[index].connection.is_none() && !connect {
                self.fail_text("closed a connection that was to stay");
            }
            if matches!(self.job.pattern, Pattern::Hold) {
                self.counts.requests += 1;
            }
            return;
        }
        self.counts.requests += 1;
        self.counts.bytes += self.shape.body_bytes(answered);
        self.latency.record(now - began);
        self.last_answer = now;
        match (self.is_rate(), self.slots[index].connection.is_some()) {
            (true, true) => self.rested.push_back(index),
            _ if now >= self.end => {}
            (false, true) => self.begin_request(index, now),
            (rate, false) if self.stage == Stage::Measuring => self.reopen(index, !rate),
            _ => {}
        }
    }

    /// The peer closed a connection that had no request on its way, as it may.
    fn closed(&mut self, index: usize) {
        self.shut(index);
        if index >= self.job.active || self.stage == Stage::Opening {
            self.fail_text("closed a connection that was to stay");
        } else if self.stage == Stage::Measuring {
            self.reopen(index, !self.is_rate());
        }
    }

    fn failed(&mut self, index: usize, error: &Error) {
        let slot = &mut self.slots[index];
        if slot.connection.as_ref().is_some_and(Connection::is_busy) {
            self.in_flight -= 1;
        }
        slot.connection = None;
        self.settle(index);
        self.fail_text(&format!("{error:#}"));
        if self.stage == Stage::Measuring && index < self.job.active {
            self.retries
                .push_back((self.clock.now() + RETRY_AFTER, index));
        }
    }

    fn fail_text(&mut self, text: &str) {
        self.counts.errors += 1;
        self.counts
            .first_error
            .get_or_insert_with(|| text.to_owned());
    }

    fn shut(&mut self, index: usize) {
        if let Some(connection) = self.slots[index].connection.take() {
            connection.close();
        }
        self.settle(index);
    }

    /// A slot without a connection is not opening one.
    fn settle(&mut self, index: usize) {
        if std::mem::take(&mut self.slots[index].opening) {
            self.opening -= 1;
        }
    }

    fn begin_request(&mut self, index: usize, since: u64) {
        let slot = &mut self.slots[index];
        let Some(connection) = &mut slot.connection else {
            return;
        };
        slot.since = since;
        self.in_flight += 1;
        connection.request(&self.shape);
        let progress = connection.send(&self.shape);
        self.after(index, epoll::EventFlags::OUT, progress);
    }

    fn reopen(&mut self, index: usize, request: bool) {
        self.queue.push_back((index, request));
        self.open_queued();
    }

    fn open_queued(&mut self) {
        while self.opening < OPENING
            && let Some((index, request)) = self.queue.pop_front()
        {
            self.open(index, request);
        }
    }

    fn open(&mut self, index: usize, request: bool) {
        let slot = &mut self.slots[index];
        slot.turn = slot.turn.wrapping_add(1);
        slot.since = self.clock.now();
        if self.stage == Stage::Measuring {
            self.counts.connects += 1;
        }
        let key = key(index, slot.turn);
        let idle = index >= self.job.active || matches!(self.job.pattern, Pattern::Hold);
        let purpose = if idle { Purpose::Idle } else { Purpose::Active };
        match Connection::open(&mut self.shape, purpose, &self.epoll, key) {
            Ok(connection) => slot.connection = Some(connection),
            Err(error) => return self.failed(index, &error),
        }
        slot.opening = true;
        self.opening += 1;
        if let (true, Some(connection)) = (request, &mut slot.connection) {
            connection.request(&self.shape);
            self.in_flight += 1;
        }
        // On the loopback interface the connect is over already.
        if let Some(connection) = &mut slot.connection {
            let progress = connection.send(&self.shape);
            self.after(index, epoll::EventFlags::OUT, progress);
        }
    }

    fn retry(&mut self, now: u64) {
        while let Some(&(when, index)) = self.retries.front()
            && when <= now
        {
            self.retries.pop_front();
            self.queue.push_back((index, !self.is_rate()));
        }
    }

    fn is_rate(&self) -> bool {
        matches!(self.job.pattern, Pattern::Rate(_))
    }

    /// `Rate`: when request `number` is due.
    fn due(&self, number: u64) -> Option<u64> {
        let Pattern::Rate(rate) = self.job.pattern else {
            return None;
        };
        let due = self.begin + (number as f64 * 1e9 / rate) as u64;
        (due < self.end).then_some(due)
    }

    /// `Rate`: sends what is due on the connections that are free; returns how many requests found none.
    fn send_due(&mut self, now: u64) -> u64 {
        while let Some(due) = self.due(self.sent)
            && due <= now
        {
            let Some(index) = self.rested.pop_front() else {
                let Pattern::Rate(rate) = self.job.pattern else {
                    return 0;
                };
                let all = (now.min(self.end) - self.begin) as f64 * rate / 1e9;
                return (all as u64 + 1).saturating_sub(self.sent).max(1);
            };
            let slot = &self.slots[index];
            let free = slot.connection.as_ref();
            if free.is_none_or(|connection| connection.is_busy()) {
                continue;
            }
            if now > due.max(slot.since) + LATE {
                self.counts.late += 1;
            }
            self.sent += 1;
            self.begin_request(index, due);
        }
        0
    }

    /// When there is something to do even if nothing happens.
    fn next_wake(&self) -> u64 {
        let end = match self.stage {
            Stage::Ending => self.end + GRACE,
            _ => self.end,
        };
        let retry = self.retries.front().map(|&(when, _)| when);
        let due = match self.rested.is_empty() {
            true => None,
            false => self.due(self.sent),
        };
        [Some(end), retry, due]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(end)
    }
}

fn key(index: usize, turn: u32) -> u64 {
    (u64::from(turn) << 32) | index as u64
}

/// Nanoseconds.
const SECOND: u64 = 1_000_000_000;

/// Nanoseconds that answers may take when the run is over, and that opening may take beside its share per connection.
const GRACE: u64 = 10 * SECOND;

/// Nanoseconds to open one connection: slow for the slowest handshake on a shared core.
const PER_CONNECTION: u64 = 5_000_000;

/// Nanoseconds before a slot that failed is tried again, so that a target that refuses costs no busy loop.
const RETRY_AFTER: u64 = 10_000_000;

/// Nanoseconds that a request may be sent after it was due before the load generator calls itself late.
const LATE: u64 = 1_000_000;

/// Connects and handshakes at a time: below what every peer holds in its queue of them.
const OPENING: usize = 256;

/// Events taken at a time.
const EVENTS: usize = 1024;

/// Share of handshakes that must resume a session where they are to.
const MUST_RESUME: f64 = 0.95;
