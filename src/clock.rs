//! Coarse monotonic time as a number, for what lives in atomics and is shared between threads.

use std::sync::OnceLock;
use std::time::Duration;

use tokio::time::Instant;

/// Milliseconds since this process first asked for the time. Never zero, so that zero can mean
/// "never" in an atomic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Millis(pub u64);

impl Millis {
    /// The present. Follows tokio's clock on a runtime whose clock is paused.
    pub fn now() -> Millis {
        static START: OnceLock<Instant> = OnceLock::new();
        let start = *START.get_or_init(Instant::now);
        Millis(Instant::now().saturating_duration_since(start).as_millis() as u64 + 1)
    }

    /// This moment plus `wait`.
    pub fn after(self, wait: Duration) -> Millis {
        Millis(self.0.saturating_add(wait.as_millis() as u64))
    }

    /// How long from `earlier` to this moment; zero if `earlier` is later.
    pub fn since(self, earlier: Millis) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}
