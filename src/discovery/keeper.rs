//! Keeps the last good answers for a restart: reads them when the process starts, has them written
//! while it runs.
//!
//! Opened by `server`, asked by `watch.rs`, given answers by `task.rs`. Files are written by a thread
//! of its own, one at a time: a disk that hangs holds up nothing but that thread. What waits for it is
//! bounded by the number of names, since a later answer takes the place of an earlier one. Nothing
//! here ever fails a service: what cannot be read or written is a warning.

use std::collections::{HashMap, HashSet};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::state_dir::{ReadError, StateDir};
use super::stored::{Asked, Stored, Unusable};
use crate::config::Discover;

/// A name that changes all the time is written so often at most; the latest answer counts. What a
/// crash can lose is the change of that time, which is younger than many TTLs.
const PAUSE: Duration = Duration::from_secs(5);

/// What could not be written is tried again after so long: somebody may have made room.
const RETRY: Duration = Duration::from_secs(30);

/// The state folder of this process. Dropping it ends its thread as [`Keeper::finish`] does, without
/// waiting for it.
#[derive(Debug)]
pub struct Keeper {
    /// What was read and not taken up yet. Locked to look or to take, by whoever starts the
    /// process and by the control thread.
    found: Mutex<HashMap<Discover, Arc<Stored>>>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Held for the few instructions of one change; never while a file is written.
    queue: Mutex<Queue>,
    /// Something new is in the queue, or it is closed, or its thread has ended.
    changed: Condvar,
}

/// What is to be done to one file.
#[derive(Debug, Clone, PartialEq)]
enum Job {
    Write(Arc<Asked>, Stored),
    Remove,
}

/// Jobs by file, and when each may be done. Pure.
#[derive(Debug, Default)]
struct Queue {
    waiting: HashMap<String, Waiting>,
    /// Files that were written lately, and until when they are left alone.
    resting: HashMap<String, Instant>,
    closed: bool,
    /// After it was closed, something could not be written.
    lost: bool,
    /// The thread will do no more.
    ended: bool,
}

#[derive(Debug)]
struct Waiting {
    job: Job,
    from: Instant,
}

/// What the thread does next.
#[derive(Debug, PartialEq)]
enum Next {
    Do(String, Job),
    WaitUntil(Instant),
    Wait,
    End,
}

impl Keeper {
    /// Reads what `folder` has about those who are watched, and starts the thread that writes there.
    /// The folder is made if there is none. An error only if no thread can be started.
    pub fn open<'a>(
        folder: &Path,
        watched: impl Iterator<Item = &'a Discover>,
    ) -> io::Result<Keeper> {
        let dir = StateDir::new(folder);
        let mut complaints = Complaints::new(folder);
        if let Err(error) = dir.make() {
            complaints.tell(&error);
        }
        let mut found = HashMap::new();
        let mut in_use = HashSet::new();
        for discover in watched {
            let Some(asked) = Asked::of(discover) else {
                continue;
            };
            let file = asked.file();
            if !found.contains_key(discover)
                && let Some(stored) = load(&dir, &file, &asked, &mut complaints)
            {
                found.insert(discover.clone(), Arc::new(stored));
            }
            in_use.insert(file);
        }
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            changed: Condvar::new(),
        });
        let (thread, of_thread) = (std::thread::Builder::new(), Arc::clone(&shared));
        thread.name("state".to_owned()).spawn(move || {
            if let Err(error) = dir.sweep(&in_use, SystemTime::now()) {
                tracing::debug!(%error, "state: old files cannot be removed");
            }
            of_thread.work(&dir, complaints);
        })?;
        Ok(Keeper {
            found: Mutex::new(found),
            shared,
        })
    }

    /// What was found of a name, if nobody has taken it up yet.
    pub(super) fn found(&self, discover: &Discover) -> Option<Arc<Stored>> {
        self.lock_found().get(discover).cloned()
    }

    /// The same, for whoever follows that name from now on: later on it would be out of date.
    pub(super) fn take(&self, discover: &Discover) -> Option<Arc<Stored>> {
        self.lock_found().remove(discover)
    }

    /// Has this answer written, as soon as its file may be written again. Does not wait.
    pub(super) fn keep(&self, asked: &Arc<Asked>, stored: Stored) {
        let job = Job::Write(Arc::clone(asked), stored);
        self.shared.put(asked.file(), job);
    }

    /// Has the file removed: nobody is behind that name.
    pub(super) fn forget(&self, asked: &Asked) {
        self.shared.put(asked.file(), Job::Remove);
    }

    /// Writes what still waits, however lately its file was written, for at most so long; false:
    /// something was left. Blocks.
    pub fn finish(&self, within: Duration) -> bool {
        self.shared.close();
        let queue = self.shared.lock();
        let waited = self
            .shared
            .changed
            .wait_timeout_while(queue, within, |queue| !queue.ended);
        let (queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
        queue.ended && !queue.lost
    }

    fn lock_found(&self) -> MutexGuard<'_, HashMap<Discover, Arc<Stored>>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.shared.close();
    }
}

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
enum NotUsed {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Content(#[from] Unusable),
}

/// What is stored in a file, if it can be used.
fn load(dir: &StateDir, file: &str, asked: &Asked, complaints: &mut Complaints) -> Option<Stored> {
    let stored = || -> Result<Option<Stored>, NotUsed> {
        let Some(bytes) = dir.read(file)? else {
            return Ok(None);
        };
        let stored = Stored::decode(&bytes, asked)?;
        stored.age(SystemTime::now())?;
        Ok(Some(stored))
    };
    match stored() {
        Ok(stored) => stored,
        // The next file will fail in the same way.
        Err(NotUsed::Read(ReadError::System(error))) => {
            complaints.tell(&error);
            None
        }
        Err(why) => {
            let path = dir.path().join(file);
            let (path, name) = (path.display(), asked.name());
            tracing::warn!(%path, %name, "state: a stored answer is not used: {why}");
            None
        }
    }
}

impl Shared {
    fn put(&self, file: String, job: Job) {
        self.lock().put(file, job, Instant::now());
        self.changed.notify_all();
    }

    fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// The thread: does what there is to do until it is closed and nothing is left.
    fn work(&self, dir: &StateDir, mut complaints: Complaints) {
        let mut queue = self.lock();
        loop {
            let now = Instant::now();
            queue = match queue.next(now) {
                Next::Do(file, job) => {
                    drop(queue);
                    let outcome = carry_out(dir, &file, &job);
                    complaints.take(&file, &outcome);
                    let mut queue = self.lock();
                    queue.done(file, job, outcome.is_ok(), Instant::now());
                    queue
                }
                Next::WaitUntil(moment) => {
                    let waited = self.changed.wait_timeout(queue, moment - now);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                Next::Wait => {
                    let waited = self.changed.wait(queue);
                    waited.unwrap_or_else(PoisonError::into_inner)
                }
                Next::End => break,
            };
        }
        queue.ended = true;
        drop(queue);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn carry_out(dir: &StateDir, file: &str, job: &Job) -> io::Result<()> {
    match job {
        Job::Write(asked, stored) => dir.write(file, &stored.encode(asked)),
        Job::Remove => dir.remove(file),
    }
}

impl Queue {
    /// Takes the place of what waits for that file.
    fn put(&mut self, file: String, job: Job, now: Instant) {
        let from = self.resting.get(&file).copied().unwrap_or(now);
        self.waiting.insert(file, Waiting { job, from });
    }

    fn next(&mut self, now: Instant) -> Next {
        self.resting.retain(|_, until| *until > now);
        let first = self.waiting.iter().min_by_key(|(_, waiting)| waiting.from);
        match first.map(|(file, waiting)| (file.clone(), waiting.from)) {
            None if self.closed => Next::End,
            None => Next::Wait,
            Some((_, from)) if from > now && !self.closed => Next::WaitUntil(from),
            Some((file, _)) => {
                let waiting = self.waiting.remove(&file).expect("it is the first");
                Next::Do(file, waiting.job)
            }
        }
    }

    /// A job was done, or failed and is to be tried again, unless something newer waits by now.
    fn done(&mut self, file: String, job: Job, well: bool, now: Instant) {
        let until = now + if well { PAUSE } else { RETRY };
        self.resting.insert(file.clone(), until);
        if let Some(newer) = self.waiting.get_mut(&file) {
            newer.from = until;
        } else if !well && self.closed {
            self.lost = true;
        } else if !well {
            let from = until;
            self.waiting.insert(file, Waiting { job, from });
        }
    }
}

/// What was said about failures, so that each cause is told once. It can be told again when every
/// file could be written in between. Pure but for the log.
#[derive(Debug)]
struct Complaints {
    folder: PathBuf,
    /// Files that could not be written.
    failing: HashSet<String>,
    told: HashSet<ErrorKind>,
}

impl Complaints {
    fn new(folder: &Path) -> Complaints {
        Complaints {
            folder: folder.to_path_buf(),
            failing: HashSet::new(),
            told: HashSet::new(),
        }
    }

    fn take(&mut self, file: &str, outcome: &io::Result<()>) {
        match outcome {
            Ok(()) => {
                if self.failing.remove(file) && self.failing.is_empty() {
                    self.told.clear();
                    let folder = self.folder.display();
                    tracing::info!(%folder, "state: answers are kept again");
                }
            }
            Err(error) => {
                self.failing.insert(file.to_owned());
                self.tell(error);
            }
        }
    }

    fn tell(&mut self, error: &io::Error) {
        if self.told.insert(error.kind()) {
            let folder = self.folder.display();
            tracing::warn!(%folder, %error, "state: answers cannot be kept for a restart");
        }
    }
}

#[cfg(test)]
#[path = "keeper_tests.rs"]
mod tests;
