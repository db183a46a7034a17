//! What the control API says, as types: written by `api`, read by the command line.
//!
//! `docs/openapi.json` describes each field; a test holds the two together. Times are RFC 3339, spans
//! are seconds.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

macro_rules! model {
    ($($(#[$meta:meta])* $name:ident { $($field:ident: $type:ty,)* })*) => {
        $(
            $(#[$meta])*
            #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
            #[allow(missing_docs, reason = "docs/openapi.json says what each field is")]
            pub struct $name {
                $(pub $field: $type,)*
            }
        )*
    };
}

model! {
    /// An answer of 400 and more.
    Problem {
        error: ProblemDetail,
    }

    /// Why it was not done.
    ProblemDetail {
        code: String,
        message: String,
    }

    /// What the process did in one second.
    Sample {
        at: String,
        requests_per_second: f64,
        errors_per_second: f64,
        p50_ms: Option<f64>,
        p99_ms: Option<f64>,
        in_flight: u64,
        open_connections: u64,
        backends: u64,
        healthy: u64,
    }

    /// How far a drain has come.
    Drain {
        phase: String,
        by: Option<String>,
        since: Option<String>,
        accepting: bool,
    }

    /// One try to take up a changed configuration.
    Reload {
        at: String,
        outcome: String,
        generation: u64,
        took_seconds: f64,
        error: Option<String>,
        at_next_start: Vec<String>,
    }

    /// The process as a whole.
    Status {
        version: String,
        boot: String,
        now: String,
        started_at: String,
        uptime_seconds: f64,
        state: String,
        ready: bool,
        unmet: Vec<String>,
        drain: Drain,
        workers: Vec<Worker>,
        configuration: InEffect,
        listeners: Vec<Listener>,
        certificate: Option<Expiry>,
        sample: Option<Sample>,
        history: History,
        memory: Option<Memory>,
    }

    /// A worker thread.
    Worker {
        index: u64,
        quiet_seconds: f64,
        stuck: bool,
    }

    /// Which configuration is in effect.
    InEffect {
        file: Option<String>,
        generation: u64,
        loaded_at: String,
        last_reload: Option<Reload>,
    }

    /// Where clients connect.
    Listener {
        name: String,
        address: String,
        protocol: String,
    }

    /// The certificate that ends first.
    Expiry {
        not_after: String,
        days_left: f64,
        listener: String,
    }

    /// The last minute.
    History {
        interval_seconds: f64,
        samples: Vec<Sample>,
    }

    /// Memory, where it has a budget.
    Memory {
        used: u64,
        budget: u64,
        level: String,
    }

    /// A name with its backends.
    Service {
        name: String,
        discover: Discover,
        strategy: String,
        sticky: bool,
        upstream: String,
        routes: Vec<String>,
        answered: bool,
        snapshot: Snapshot,
        healthy: u64,
        total: u64,
        in_flight: u64,
        queue: Option<Queue>,
        requests: u64,
        errors: u64,
        requests_per_second: Option<f64>,
        p50_ms: Option<f64>,
        p99_ms: Option<f64>,
        tiers: Vec<Tier>,
    }

    /// Where endpoints come from.
    Discover {
        kind: String,
        name: Option<String>,
    }

    /// What the workers read.
    Snapshot {
        number: u64,
        changed_at: Option<String>,
    }

    /// Requests that wait.
    Queue {
        waiting: u64,
        room: u64,
    }

    /// The backends of one priority.
    Tier {
        priority: u16,
        serving: bool,
        part: f64,
        last_resort: bool,
        backends: Vec<Backend>,
    }

    /// An endpoint and what this process knows of it.
    Backend {
        id: String,
        number: u64,
        service: String,
        target: String,
        address: String,
        priority: u16,
        weight: Weight,
        split: u16,
        share: Share,
        state: String,
        reason: Option<String>,
        detail: Option<String>,
        since: Option<String>,
        out_for_seconds: Option<f64>,
        drained: bool,
        last_check: Option<Check>,
        check_failures: u64,
        ejections: Ejections,
        in_flight: u64,
        requests: u64,
        requests_per_second: Option<f64>,
    }

    /// The weight of a backend.
    Weight {
        srv: u16,
        r#override: Option<u16>,
        effective: u16,
    }

    /// The share of a backend.
    Share {
        configured: f64,
        measured: Option<f64>,
    }

    /// The latest active check.
    Check {
        at: String,
        passed: bool,
        reason: Option<String>,
    }

    /// How often a backend was ejected.
    Ejections {
        failures: u64,
        success_rate: u64,
    }

    /// A name that is watched.
    Dns {
        name: String,
        kind: String,
        services: Vec<String>,
        servers: Vec<String>,
        server: Option<String>,
        answered_at: Option<String>,
        age_seconds: Option<f64>,
        ttl_seconds: Option<f64>,
        ttl_left_seconds: Option<f64>,
        next_query_in_seconds: Option<f64>,
        stale: bool,
        stale_seconds: Option<f64>,
        endpoints: u64,
        unlisted: u64,
        held_back: Option<String>,
        rotating: Option<String>,
        detail: Option<String>,
        results: Vec<Results>,
        changes: DnsCounts,
        journal: Vec<DnsChange>,
    }

    /// Questions that ended alike.
    Results {
        qtype: String,
        result: String,
        count: u64,
    }

    /// What changed of a name since the start.
    DnsCounts {
        joined: u64,
        left: u64,
        reweighted: u64,
        held_back: u64,
        rejected: u64,
    }

    /// What one answer changed.
    DnsChange {
        number: u64,
        at: String,
        name: String,
        server: Option<String>,
        rcode: Option<String>,
        nodata: bool,
        ttl_seconds: Option<f64>,
        transport: Option<String>,
        truncated: bool,
        records: u64,
        glue: u64,
        joined: Vec<Joined>,
        left: Vec<Left>,
        changed: Vec<Moved>,
        counts: ChangeCounts,
        held_back: Option<String>,
        notes: Vec<String>,
    }

    /// Somebody new.
    Joined {
        target: String,
        address: String,
        priority: u16,
        weight: u16,
    }

    /// Somebody who is no longer there.
    Left {
        target: String,
        address: String,
        why: String,
    }

    /// Somebody at another place.
    Moved {
        target: String,
        address: String,
        from: Place,
        to: Place,
    }

    /// A place in the order.
    Place {
        priority: u16,
        weight: u16,
    }

    /// How many changed how.
    ChangeCounts {
        joined: u64,
        left: u64,
        changed: u64,
    }

    /// Something that happened.
    Event {
        number: u64,
        at: String,
        kind: String,
        severity: String,
        service: Option<String>,
        backend: Option<String>,
        name: Option<String>,
        text: String,
    }

    /// A part of the journal.
    Events {
        boot: String,
        first: u64,
        next: u64,
        events: Vec<Event>,
    }

    /// Events that cannot be had any more.
    Missed {
        first: Option<u64>,
        boot: String,
    }

    /// The configuration that is in effect.
    Configuration {
        file: Option<String>,
        generation: u64,
        loaded_at: String,
        last_reload: Option<Reload>,
        written: Value,
    }

    /// A certificate that is shown.
    Certificate {
        listener: String,
        default: bool,
        cert: String,
        key: String,
        names: Vec<String>,
        not_before: String,
        not_after: String,
        days_left: f64,
        fingerprint: String,
    }

    /// What is looked up now.
    Refreshed {
        names: Vec<String>,
    }

    /// What is logged.
    LogLevel {
        level: String,
    }

    /// What is logged from now on, and what was before.
    LogLevelSet {
        level: String,
        before: String,
    }

    /// A backend after a command.
    Changed {
        backend: Backend,
    }
}

/// How the API calls a backend.
pub fn backend_id(service: &str, address: impl fmt::Display) -> String {
    format!("{service}/{address}")
}

/// What to look up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RefreshRequest {
    /// Absent: all.
    pub name: Option<String>,
}

/// What to log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogLevelRequest {
    /// As `EVENKEEL_LOG` takes it.
    pub level: String,
}

/// The weight of a backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightRequest {
    /// `None` takes the override back. It has to be written.
    #[serde(deserialize_with = "Option::deserialize")]
    pub weight: Option<u16>,
}
