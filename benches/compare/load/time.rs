//! What time it is, and how much CPU was used.

use std::fs;
use std::time::Instant;

/// Counts nanoseconds from its making.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    #[expect(
        clippy::disallowed_methods,
        reason = "a measurement wants the real time, and has no runtime"
    )]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    pub fn now(&self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }
}

/// CPU use of a thread or of several.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cpu {
    /// Seconds on a CPU.
    pub used: f64,
    /// Seconds ready to run, but another had the CPU.
    pub waited: f64,
}

impl Cpu {
    /// Of the calling thread so far.
    pub fn of_this_thread() -> Self {
        Self::read("/proc/thread-self/schedstat")
    }

    /// Of all threads of these processes so far; a process or thread that is no more counts nothing.
    pub fn of_processes(ids: &[u32]) -> Self {
        let mut sum = Self::default();
        for id in ids {
            let threads = fs::read_dir(format!("/proc/{id}/task"));
            for thread in threads.into_iter().flatten().flatten() {
                let thread = Self::read(thread.path().join("schedstat"));
                sum.used += thread.used;
                sum.waited += thread.waited;
            }
        }
        sum
    }

    /// Since `earlier`.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            used: self.used - earlier.used,
            waited: self.waited - earlier.waited,
        }
    }

    fn read(path: impl AsRef<std::path::Path>) -> Self {
        let text = fs::read_to_string(path).unwrap_or_default();
        let mut seconds = text
            .split_ascii_whitespace()
            .map(|field| field.parse::<f64>().unwrap_or(0.0) / 1e9);
        Self {
            used: seconds.next().unwrap_or(0.0),
            waited: seconds.next().unwrap_or(0.0),
        }
    }
}
