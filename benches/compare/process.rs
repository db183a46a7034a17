//! Processes of others: started on chosen cores, waited for, measured, and ended whatever happens.
//!
//! Each gets a process group of its own, so that its children go with it and a Ctrl-C in the terminal reaches only us.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

/// Cores that a process may use, as taskset(1) takes them; `None`: all.
pub type Cores = Option<usize>;

/// All process groups that run at the moment. Clones share the list: the one in the signal thread ends them on Ctrl-C.
#[derive(Debug, Clone, Default)]
pub struct Processes {
    groups: Arc<Mutex<BTreeSet<i32>>>,
}

/// A process that runs. Dropping it ends it and its children.
#[derive(Debug)]
pub struct Process {
    child: Child,
    list: Processes,
    /// What it says on standard output and standard error.
    output: PathBuf,
    /// What it says on standard output, where that is a pipe.
    lines: Option<Receiver<String>>,
}

impl Processes {
    /// Starts `program` on `cores`, its output going to the file `output`.
    pub fn start<S: AsRef<OsStr>>(
        &self,
        cores: Cores,
        program: &Path,
        arguments: &[S],
        environment: &[(&str, std::ffi::OsString)],
        output: &Path,
    ) -> Result<Process> {
        let file =
            File::create(output).with_context(|| format!("cannot write {}", output.display()))?;
        let errors = file.try_clone()?;
        let mut command = on(cores, program);
        command
            .args(arguments)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            // Held open: ours end with it, whatever becomes of this process.
            .stdin(Stdio::piped())
            .stdout(file)
            .stderr(errors);
        self.spawn(command, output.to_owned())
    }

    /// The same with pipes for standard input and standard output; standard error is ours.
    pub fn start_piped<S: AsRef<OsStr>>(
        &self,
        cores: Cores,
        program: &Path,
        arguments: &[S],
    ) -> Result<Process> {
        let mut command = on(cores, program);
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut process = self.spawn(command, PathBuf::new())?;
        let pipe = process.child.stdout.take().context("it has no pipe")?;
        let (sender, lines) = mpsc::channel();
        // Ends when the process closes the pipe, or nobody listens any more.
        thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        process.lines = Some(lines);
        Ok(process)
    }

    /// Ends all that run, from whichever thread.
    pub fn kill_all(&self) {
        let groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        for group in groups.iter().filter_map(|id| Pid::from_raw(*id)) {
            // One that has just ended by itself is fine.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }

    fn spawn(&self, mut command: Command, output: PathBuf) -> Result<Process> {
        // The lock is held over the start, so that none is missed by a Ctrl-C in between.
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        let child = command
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        groups.insert(child.id().cast_signed());
        Ok(Process {
            child,
            list: self.clone(),
            output,
            lines: None,
        })
    }
}

impl Process {
    /// Waits until it listens on all `addresses`.
    pub fn wait_until_it_listens(&mut self, addresses: &[SocketAddr]) -> Result<()> {
        let deadline = Instant::now() + START_TIME;
        for address in addresses {
            while TcpStream::connect_timeout(address, Duration::from_secs(1)).is_err() {
                if let Some(status) = self.child.try_wait()? {
                    bail!("it ended with {status}: {}", self.last_words());
                }
                if Instant::now() > deadline {
                    bail!("it does not listen on {address}: {}", self.last_words());
                }
                thread::sleep(STEP);
            }
        }
        Ok(())
    }

    /// Has it not ended by itself?
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// It and its children.
    pub fn family(&self) -> Vec<u32> {
        family(self.child.id())
    }

    /// CPU time of it and its children.
    pub fn cpu(&self) -> Result<Duration> {
        let family = family(self.child.id());
        let times = family.iter().map(|id| process_cpu(*id));
        times.sum::<Option<Duration>>().context("it has ended")
    }

    /// CPU time of each thread of it and its children.
    pub fn thread_cpu(&self) -> Vec<(u32, Duration)> {
        let family = family(self.child.id());
        family.into_iter().flat_map(threads).collect()
    }

    /// Memory of it and its children, in bytes: pages that it shares count in part (Pss).
    pub fn memory(&self) -> Result<u64> {
        let family = family(self.child.id());
        let sizes = family.iter().map(|id| proportional_size(*id));
        sizes
            .sum::<Option<u64>>()
            .context("its memory cannot be read")
    }

    /// Files and sockets that it and its children have open.
    pub fn open_files(&self) -> usize {
        let family = family(self.child.id());
        let counts = family
            .iter()
            .filter_map(|id| fs::read_dir(format!("/proc/{id}/fd")).ok());
        counts.map(Iterator::count).sum()
    }

    /// Waits for the one line that it writes to its pipe.
    pub fn line(&mut self, limit: Duration) -> Result<String> {
        let lines = self.lines.as_ref().context("it has no pipe")?;
        match lines.recv_timeout(limit) {
            Ok(line) => Ok(line),
            Err(RecvTimeoutError::Timeout) => bail!("it says nothing within {} s", limit.as_secs()),
            Err(RecvTimeoutError::Disconnected) => bail!("it ended with {}", self.child.wait()?),
        }
    }

    /// Closes its standard input, which ends it, and waits for that.
    pub fn finish(mut self, limit: Duration) -> Result<()> {
        drop(self.child.stdin.take());
        let deadline = Instant::now() + limit;
        loop {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("it ended with {status}"),
                None if Instant::now() > deadline => {
                    bail!("it did not end within {} s", limit.as_secs())
                }
                None => thread::sleep(STEP),
            }
        }
    }

    /// Asks it to end, as Ctrl-C does. Only it, not its children.
    pub fn interrupt(&self) -> Result<()> {
        let id = Pid::from_raw(self.child.id().cast_signed()).context("it has no id")?;
        Ok(rustix::process::kill_process(id, Signal::INT)?)
    }

    /// The last line that it wrote, for an error.
    pub fn last_words(&self) -> String {
        let text = fs::read(&self.output).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let line = text.trim().lines().last().unwrap_or("it says nothing");
        line.chars().take(300).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let id = self.child.id().cast_signed();
        // It is waited for only after this, so the number is still its own.
        if let Some(group) = Pid::from_raw(id) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
        let mut groups = self
            .list
            .groups
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        groups.remove(&id);
    }
}

fn on(cores: Cores, program: &Path) -> Command {
    match cores {
        Some(core) => {
            let mut command = Command::new("taskset");
            command.arg("-c").arg(core.to_string()).arg(program);
            command
        }
        None => Command::new(program),
    }
}

/// A process and all that come from it.
fn family(id: u32) -> Vec<u32> {
    let mut all = vec![id];
    let mut seen = 0;
    while seen < all.len() {
        let tasks = fs::read_dir(format!("/proc/{}/task", all[seen]));
        for task in tasks.into_iter().flatten().flatten() {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            all.extend(
                children
                    .split_whitespace()
                    .filter_map(|id| id.parse::<u32>().ok()),
            );
        }
        seen += 1;
    }
    all
}

/// The scheduler's own count is exact to the nanosecond, but knows only threads that live; the other one knows all, in steps
/// of 10 ms, rounded down. So the larger one is the better one.
fn process_cpu(id: u32) -> Option<Duration> {
    let living = threads(id).into_iter().map(|(_, time)| time).sum();
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name may hold spaces and brackets; what follows the last one may not. utime and stime are fields 14 and 15.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let ticks =
        Duration::from_millis((user + system) * 1000 / rustix::param::clock_ticks_per_second());
    Some(ticks.max(living))
}

fn threads(id: u32) -> Vec<(u32, Duration)> {
    let tasks = fs::read_dir(format!("/proc/{id}/task"));
    let times = tasks.into_iter().flatten().flatten().filter_map(|task| {
        let id = task.file_name().to_str()?.parse().ok()?;
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        let run = text.split_whitespace().next()?.parse().ok()?;
        Some((id, Duration::from_nanos(run)))
    });
    times.collect()
}

fn proportional_size(id: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{id}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// How long a proxy may take until it listens.
const START_TIME: Duration = Duration::from_secs(20);

/// Between two looks at something that is waited for.
const STEP: Duration = Duration::from_millis(20);
