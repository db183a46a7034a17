//! The access log: a line per request, formatted where the request was served, written elsewhere.
//!
//! A worker appends to a buffer of its own; a batch of lines goes through a bounded queue to the one
//! thread that writes, and its memory comes back from there. When that thread is held up (nobody
//! reads our output) and the queue is full, lines are dropped and counted: a request never waits for
//! its log line.

mod format;
mod line;

use std::cell::RefCell;
use std::io::{self, Write};
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use format::Formatter;

/// Format of the access log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessFormat {
    /// Nothing is logged.
    Off,
    /// One JSON object a line.
    Json,
    /// NCSA combined, as most tools read it.
    Combined,
}

/// What a line says about a request. Byte strings are as the peer sent them; the formatter
/// escapes them.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// When the last byte of the response went out, or the request was given up.
    pub ended: SystemTime,
    /// Address of the client, after PROXY protocol and trusted `X-Forwarded-For`.
    pub client: &'a str,
    /// Its port.
    pub client_port: u16,
    /// TLS version towards the client: `1.2` or `1.3`.
    pub tls: Option<&'static str>,
    /// Subject of the certificate that the client showed.
    pub client_cert: Option<&'a str>,
    /// Name of the listener.
    pub listener: &'a str,
    /// Label of the route.
    pub route: Option<&'a str>,
    /// Name of the service.
    pub service: Option<&'a str>,
    /// Address and port of the backend of the last attempt.
    pub backend: Option<&'a str>,
    /// How many attempts were made with backends.
    pub attempts: u32,
    /// The method as sent.
    pub method: &'a [u8],
    /// The authority asked for.
    pub host: &'a [u8],
    /// The path, without the query.
    pub path: &'a [u8],
    /// The query with its `?`, or empty; appears only if the log was started with it.
    pub query: &'a [u8],
    /// For instance `HTTP/1.1`.
    pub protocol: &'static str,
    /// Status that the client got; 0: none.
    pub status: u16,
    /// Name of gRPC's status, if it was a call by gRPC.
    pub grpc_status: Option<&'static str>,
    /// Bytes of the request's body.
    pub received: u64,
    /// Bytes of the response's body that went out.
    pub sent: u64,
    /// How it ended; `None`: as it should.
    pub broken: Option<Broken>,
    /// Our `X-Request-Id`.
    pub request_id: &'a [u8],
    /// The client's `traceparent` (W3C Trace Context §3.2), whose trace id is logged.
    pub traceparent: Option<&'a [u8]>,
    /// `Referer`; its query appears only if queries do.
    pub referer: Option<&'a [u8]>,
    /// `User-Agent`.
    pub user_agent: Option<&'a [u8]>,
    /// How long the connect to the backend took; `None`: a pooled connection was used.
    pub connect: Option<Duration>,
    /// From the start of the request to the first byte of the backend's response.
    pub first_byte: Option<Duration>,
    /// From the first byte of the request to its end.
    pub total: Duration,
}

/// Who broke an exchange off, and how far it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken {
    /// `downstream`, `upstream` or `internal`.
    pub side: &'static str,
    /// For instance `request_body`, `connect`, `response_head`.
    pub phase: &'static str,
}

/// One worker's end of the log. What is in its buffer is sent on when it is dropped.
#[derive(Debug)]
pub struct AccessLog(Option<Open>);

#[derive(Debug)]
struct Open {
    formatter: RefCell<Formatter>,
    batch: RefCell<Batch>,
    queue: SyncSender<Batch>,
    spare: Arc<Spare>,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct Batch {
    text: Vec<u8>,
    lines: u64,
}

/// Memory of batches that were written, for the next ones. Locked once a batch by a worker and
/// once by the thread that writes, to push or to pop and no longer.
#[derive(Debug, Default)]
struct Spare(Mutex<Vec<Vec<u8>>>);

/// The writing end: hands out the workers' ends and owns the thread that writes.
#[derive(Debug)]
pub struct AccessWriter {
    format: AccessFormat,
    query: bool,
    queue: SyncSender<Batch>,
    spare: Arc<Spare>,
    /// Relaxed: written by workers and by the writing thread, read by scrapes.
    dropped: Arc<AtomicU64>,
    /// Never sent to: it closes when the thread ends.
    done: Receiver<()>,
}

/// A batch is sent when it has that many bytes: about a hundred and fifty lines. To wake the thread
/// that writes costs some 10 µs each time.
const BATCH: usize = 64 * 1024;
/// Room for a batch and the line that makes it full.
const ROOM: usize = BATCH + BATCH / 4;
/// Batches that may wait: 2 MiB, a fraction of a second at full load.
const QUEUE: usize = 32;
/// Batches whose memory is kept when they are written: enough for the batches of some workers
/// that tick together, 640 KiB.
const SPARE: usize = 8;

impl AccessWriter {
    /// Starts the thread that writes to `out`. With `query`, query strings are logged.
    pub fn start(
        format: AccessFormat,
        query: bool,
        out: impl Write + Send + 'static,
    ) -> io::Result<AccessWriter> {
        let (queue, batches) = mpsc::sync_channel(QUEUE);
        let (alive, done) = mpsc::channel();
        let dropped = Arc::new(AtomicU64::new(0));
        let lost = Arc::clone(&dropped);
        let spare = Arc::new(Spare::default());
        let written = Arc::clone(&spare);
        thread::Builder::new()
            .name("access-log".into())
            .spawn(move || {
                let _alive = alive;
                write_all(&batches, out, &lost, &written);
            })?;
        Ok(AccessWriter {
            format,
            query,
            queue,
            spare,
            dropped,
            done,
        })
    }

    /// An end for a worker, to be made on its thread or moved there.
    pub fn log(&self) -> AccessLog {
        let open = || Open {
            formatter: RefCell::new(Formatter::new(self.format, self.query)),
            batch: RefCell::default(),
            queue: self.queue.clone(),
            spare: Arc::clone(&self.spare),
            dropped: Arc::clone(&self.dropped),
        };
        AccessLog((self.format != AccessFormat::Off).then(open))
    }

    /// How many lines were lost so far.
    pub fn dropped(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.dropped)
    }

    /// Waits until everything is written, at most for `patience`: a reader that holds up our
    /// output does not hold up our end. Every [`AccessLog`] must have been dropped. True if
    /// everything was written.
    pub fn finish(self, patience: Duration) -> bool {
        drop(self.queue);
        self.done.recv_timeout(patience) == Err(mpsc::RecvTimeoutError::Disconnected)
    }
}

impl AccessLog {
    /// A log that takes no lines.
    pub fn off() -> AccessLog {
        AccessLog(None)
    }

    /// False: records are not worth putting together.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Appends a line.
    pub fn record(&self, record: &Record<'_>) {
        let Some(open) = &self.0 else { return };
        let mut batch = open.batch.borrow_mut();
        if batch.text.capacity() == 0 {
            batch.text = open.spare.take();
        }
        open.formatter.borrow_mut().line(record, &mut batch.text);
        batch.lines += 1;
        if batch.text.len() >= BATCH {
            open.send(&mut batch);
        }
    }

    /// Sends on what is in the buffer. To be called about every 100 ms.
    pub fn flush(&self) {
        if let Some(open) = &self.0 {
            open.send(&mut open.batch.borrow_mut());
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.flush();
    }
}

impl Open {
    fn send(&self, batch: &mut Batch) {
        if batch.lines == 0 {
            return;
        }
        if let Err(mpsc::TrySendError::Full(refused) | mpsc::TrySendError::Disconnected(refused)) =
            self.queue.try_send(mem::take(batch))
        {
            self.dropped.fetch_add(refused.lines, Ordering::Relaxed);
            // Its memory is as good as new.
            *batch = refused;
            batch.text.clear();
            batch.lines = 0;
        }
    }
}

impl Spare {
    fn take(&self) -> Vec<u8> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.unwrap_or_else(|| Vec::with_capacity(ROOM))
    }

    fn put(&self, mut text: Vec<u8>) {
        // One that a huge line made larger is given back.
        if text.capacity() > 2 * ROOM {
            return;
        }
        text.clear();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < SPARE {
            kept.push(text);
        }
    }
}

/// Runs on a thread of its own until every sender is gone.
fn write_all(batches: &Receiver<Batch>, mut out: impl Write, lost: &AtomicU64, spare: &Spare) {
    let mut failing = false;
    for batch in batches {
        let written = out.write_all(&batch.text).and_then(|()| out.flush());
        if let Err(error) = &written {
            lost.fetch_add(batch.lines, Ordering::Relaxed);
            if !failing {
                tracing::error!(%error, "the access log cannot be written");
            }
        }
        failing = written.is_err();
        spare.put(batch.text);
    }
}

#[cfg(test)]
mod tests;
