//! What the tests in this folder share: a server to boot, backends that misbehave, raw clients.
//!
//! Everything here is blocking and runs in threads of its own, so that a test reads from top to
//! bottom and no runtime of the test's can stand in the way of what is tested. Nothing here uses
//! the product's own readers and writers: a second opinion is the point.

#![allow(dead_code, reason = "each test file uses the part that it needs")]

pub mod backend;
pub mod client;
pub mod server;
pub mod wire;

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

/// How long anything may take that takes milliseconds when all is well.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Set by whoever has installed all the tools: then a missing one is a failure.
const REQUIRE_TOOLS: &str = "EVENKEEL_REQUIRE_TOOLS";

/// Is this program installed? If not, says aloud that the test is skipped, or panics where the
/// tools are promised. To be used as `if !require("curl") { return; }`.
#[must_use]
pub fn require(tool: &str) -> bool {
    let there = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(tool).is_file()));
    if !there {
        let promised = std::env::var_os(REQUIRE_TOOLS).is_some_and(|v| v == "1");
        assert!(!promised, "{tool} is not installed, and {REQUIRE_TOOLS}=1");
        // Past the capture of the test harness: a skipped test must be seen.
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), "SKIPPED: {tool} is not installed");
    }
    there
}

/// A Python with these modules: that of `EVENKEEL_PYTHON`, which must have them, or the usual one.
/// Without them says aloud that the test is skipped.
#[must_use]
pub fn python_with(modules: &[&str]) -> Option<std::path::PathBuf> {
    let promised = std::env::var_os("EVENKEEL_PYTHON");
    if promised.is_none() && !require("python3") {
        return None;
    }
    let python = promised.clone().unwrap_or_else(|| "python3".into());
    let import = format!("import {}", modules.join(", "));
    let mut command = std::process::Command::new(&python);
    let tried = command.args(["-c", &import]).output();
    if tried.is_ok_and(|output| output.status.success()) {
        return Some(python.into());
    }
    assert!(
        promised.is_none(),
        "{python:?} has no {}",
        modules.join(", ")
    );
    use std::io::Write as _;
    let _ = writeln!(
        std::io::stderr(),
        "SKIPPED: Python has no {}",
        modules.join(", ")
    );
    None
}

/// Looks again and again until `condition` holds; panics with `what` when it takes too long.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain: {what}");
        pause(Duration::from_millis(1));
    }
}

/// Lets a little time pass between two looks at a condition.
pub fn pause(time: Duration) {
    std::thread::park_timeout(time);
}

/// A lock that a panicking test elsewhere cannot spoil.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Shut until it is opened; the test holds one end and a backend's script waits at the other.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    /// A gate that is shut.
    pub fn new() -> Gate {
        Gate::default()
    }

    /// Lets everybody through, now and later.
    pub fn open(&self) {
        *lock(&self.0.0) = true;
        self.0.1.notify_all();
    }

    /// Is it open?
    pub fn is_open(&self) -> bool {
        *lock(&self.0.0)
    }

    /// Waits until it is open; false if that takes too long.
    pub fn pass(&self) -> bool {
        let guard = lock(&self.0.0);
        let (open, _) = self
            .0
            .1
            .wait_timeout_while(guard, PATIENCE, |open| !*open)
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        *open
    }
}
