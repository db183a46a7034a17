//! System calls of a proxy, counted by strace(1). It stops the proxy at each of them, so nothing is timed meanwhile.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::fleet::{Bench, Running};
use crate::peers::programs::on_path;
use crate::process::Process;

/// How often something was called, most frequent first.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Calls(pub Vec<(String, u64)>);

/// Counts until it is told to end.
#[derive(Debug)]
pub struct Tracer {
    strace: Process,
    output: std::path::PathBuf,
}

/// For strace to have stopped every thread of a proxy once, and to have said what it saw.
const ATTACHING: Duration = Duration::from_secs(10);

impl Tracer {
    /// Begins to count what all threads and processes of `proxy` call.
    pub fn attach(bench: &Bench<'_>, proxy: &Running) -> Result<Tracer> {
        let strace = on_path("strace").context("strace is not installed (Debian: strace)")?;
        let output = proxy.setup.folder.join("calls.txt");
        // What an earlier one left would be taken for this one's words.
        let _ = std::fs::remove_file(&output);
        let family = proxy.process.family();
        let mut words = vec!["-f".to_owned(), "-c".to_owned(), "-o".to_owned()];
        words.push(output.display().to_string());
        words.extend(family.iter().map(|id| format!("--attach={id}")));
        let log = proxy.setup.folder.join("strace.log");
        let core = bench.load_core(true);
        let strace = bench.processes.start(core, &strace, &words, &[], &log)?;
        let mut tracer = Tracer { strace, output };
        let deadline = Instant::now() + ATTACHING;
        while !family.iter().all(|id| is_traced(*id)) {
            ensure!(
                tracer.strace.runs(),
                "strace: {}",
                tracer.strace.last_words()
            );
            ensure!(Instant::now() < deadline, "strace does not get hold of it");
            thread::sleep(Duration::from_millis(20));
        }
        Ok(tracer)
    }

    /// Lets go of the proxy; what was called since [`Tracer::attach`].
    pub fn detach(mut self) -> Result<Calls> {
        self.strace.interrupt()?;
        let deadline = Instant::now() + ATTACHING;
        while self.strace.runs() {
            ensure!(Instant::now() < deadline, "strace does not let go of it");
            thread::sleep(Duration::from_millis(20));
        }
        read(&self.output)
    }
}

/// All its threads are.
fn is_traced(id: u32) -> bool {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{id}/task")) else {
        return false;
    };
    tasks.flatten().all(|task| {
        let status = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
        let tracer = status
            .lines()
            .find_map(|line| line.strip_prefix("TracerPid:"));
        tracer.is_some_and(|id| id.trim() != "0")
    })
}

/// The table that strace writes: share, seconds, µs per call, calls, perhaps errors, name.
fn read(path: &Path) -> Result<Calls> {
    let text = std::fs::read_to_string(path).context("strace's table")?;
    let mut calls: Vec<(String, u64)> = text
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let count = words.nth(3)?.parse().ok()?;
            let name = words.last()?;
            (name != "total").then(|| (name.to_owned(), count))
        })
        .collect();
    if calls.is_empty() {
        bail!("strace saw nothing");
    }
    calls.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    Ok(Calls(calls))
}

impl Calls {
    pub fn total(&self) -> u64 {
        self.0.iter().map(|(_, count)| count).sum()
    }

    /// Those that come at least once in twenty requests, per request.
    pub fn per_request(&self, requests: u64) -> String {
        let each = self
            .0
            .iter()
            .map(|(name, count)| (name, *count as f64 / requests as f64));
        let often = each.filter(|(_, times)| *times >= 0.05);
        let texts: Vec<_> = often
            .map(|(name, times)| format!("{times:.2} {name}"))
            .collect();
        texts.join(", ")
    }
}
