//! One writer publishes an immutable value; every worker reads its own cached copy.
//!
//! A reader pays one atomic load per look while nothing has changed. The lock is taken only by
//! the writer and by a reader that has seen the version move, so no request waits for another
//! core on the usual path.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A value that is replaced as a whole, with a version that counts the replacements.
#[derive(Debug)]
pub struct Published<T> {
    /// Written (Release) after `current` was replaced, read (Acquire) by every reader: a reader
    /// that sees the new version finds a value at least that new behind the lock.
    version: AtomicU64,
    /// Held only to clone or to swap the `Arc`.
    current: Mutex<Arc<T>>,
}

impl<T> Published<T> {
    /// Starts with `value` at version 0.
    pub fn new(value: T) -> Arc<Self> {
        Arc::new(Published {
            version: AtomicU64::new(0),
            current: Mutex::new(Arc::new(value)),
        })
    }

    /// Replaces the value; readers see it at their next look.
    pub fn publish(&self, value: T) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(value);
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Makes every reader look again although the value is the same object.
    pub fn touch(&self) {
        self.version.fetch_add(1, Ordering::Release);
    }

    /// The value as it is now.
    pub fn load(&self) -> Arc<T> {
        Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How often it was replaced.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// A reader with a cache of its own, for one worker.
    pub fn reader(self: &Arc<Self>) -> Reader<T> {
        let seen = self.version.load(Ordering::Acquire);
        Reader {
            seen,
            cached: self.load(),
            source: Arc::clone(self),
        }
    }
}

/// One worker's view of a [`Published`] value.
#[derive(Debug)]
pub struct Reader<T> {
    source: Arc<Published<T>>,
    seen: u64,
    cached: Arc<T>,
}

impl<T> Clone for Reader<T> {
    fn clone(&self) -> Self {
        Reader {
            source: Arc::clone(&self.source),
            seen: self.seen,
            cached: Arc::clone(&self.cached),
        }
    }
}

impl<T> Reader<T> {
    /// Takes up the newest value; true if the version moved since the last look.
    pub fn refresh(&mut self) -> bool {
        let version = self.source.version.load(Ordering::Acquire);
        if version == self.seen {
            return false;
        }
        self.seen = version;
        self.cached = self.source.load();
        true
    }

    /// The value as of the last [`Reader::refresh`].
    pub fn current(&self) -> &Arc<T> {
        &self.cached
    }
}
