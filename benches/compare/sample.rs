//! What one run of one peer gave.

use serde::{Deserialize, Serialize};

use crate::load::Outcome;
use crate::trace::Calls;

/// One run. Times are seconds of CPU or of the clock, latencies microseconds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Sample {
    pub requests: u64,
    pub bytes: u64,
    pub seconds: f64,
    /// The proxy, all its threads and processes.
    pub proxy_cpu: f64,
    /// Part of the run in which the load generator ran, or could have but for another on its core (the backend).
    pub load_busy: f64,
    /// Part of the requests that the load generator sent late by its own fault.
    pub late: f64,
    /// Part of the handshakes that resumed a session.
    pub resumed: f64,
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
    /// Where connections are held.
    pub memory: Option<Memory>,
    /// Where there are several workers.
    pub workers: Option<Workers>,
    /// Where requests are logged: CPU per request of a process that logs none, in seconds.
    pub cpu_without_log: Option<f64>,
    /// Where names change: CPU of the proxy for a second without requests, in seconds.
    pub quiet_cpu: Option<f64>,
    /// Where system calls are counted.
    pub calls: Option<Calls>,
}

/// Memory before and after connections were opened, in bytes.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Memory {
    pub before: u64,
    pub after: u64,
    pub connections: usize,
}

/// Two workers beside one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Workers {
    /// Requests a second with one worker.
    pub rate_of_one: f64,
    /// CPU per request with one worker, in seconds.
    pub cpu_of_one: f64,
    /// What part of the CPU the busiest thread had, of two.
    pub busiest: f64,
}

impl Memory {
    pub fn per_connection(&self) -> f64 {
        self.after.saturating_sub(self.before) as f64 / self.connections as f64
    }
}

impl Sample {
    pub fn of(outcome: &Outcome) -> Sample {
        let handshakes = outcome.full_handshakes + outcome.resumed_handshakes;
        Sample {
            requests: outcome.requests,
            bytes: outcome.bytes,
            seconds: outcome.seconds,
            proxy_cpu: outcome.watched_cpu,
            load_busy: outcome.busy + outcome.waited,
            late: outcome.late,
            resumed: outcome.resumed_handshakes as f64 / handshakes.max(1) as f64,
            p50: outcome.p50,
            p99: outcome.p99,
            max: outcome.max,
            ..Sample::default()
        }
    }

    /// Requests a second.
    pub fn rate(&self) -> f64 {
        self.requests as f64 / self.seconds
    }

    /// What the access log adds to the CPU per request, as a part of what there was without it.
    pub fn added_by_log(&self) -> Option<f64> {
        let without = self.cpu_without_log?;
        Some(self.proxy_cpu / self.requests as f64 / without - 1.0)
    }

    /// Part of a core that the proxy had.
    pub fn proxy_busy(&self) -> f64 {
        self.proxy_cpu / self.seconds
    }
}
