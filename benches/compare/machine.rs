//! What the figures were taken on, and how much of it was free.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

/// The head of a report.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Machine {
    pub date: String,
    pub kernel: String,
    pub processor: String,
    pub cores: usize,
    pub memory_mib: u64,
    /// Over the last minute, before anything was started.
    pub load_average: f64,
    /// A firewall follows every connection, as Docker's does on its host: each packet costs more, for all alike.
    #[serde(default)]
    pub firewall: bool,
}

/// Above this, something else ran, and figures waver.
const BUSY: f64 = 0.5;

/// Files and sockets for 10,000 connections on both sides of a proxy, and a third of it for Evenkeel's default.
const FILES: u64 = 131_072;

/// Connections that a run may make: a second of the fastest, twice.
const PLACES: u64 = 60_000;

/// After so long the kernel has forgotten every closed connection.
const TRACKED: Duration = Duration::from_secs(180);

impl Machine {
    pub fn look() -> Machine {
        let uname = rustix::system::uname();
        Machine {
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            kernel: uname.release().to_string_lossy().into_owned(),
            processor: line_of("/proc/cpuinfo", "model name").unwrap_or_default(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_mib: line_of("/proc/meminfo", "MemTotal")
                .and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok())
                .map_or(0, |kib| kib / 1024),
            load_average: fs::read_to_string("/proc/loadavg")
                .ok()
                .and_then(|text| text.split_whitespace().next()?.parse().ok())
                .unwrap_or(0.0),
            firewall: follows_connections(),
        }
    }

    /// Figures of one may be set beside those of the other.
    pub fn is_like(&self, other: &Machine) -> bool {
        let kind = |machine: &Machine| (machine.cores, machine.firewall);
        kind(self) == kind(other)
            && self.kernel == other.kernel
            && self.processor == other.processor
    }

    /// Something else was running.
    pub fn was_busy(&self) -> bool {
        self.load_average > BUSY
    }
}

/// Raises the limit of open files for us and all that we start; what is allowed then.
pub fn raise_file_limit() -> u64 {
    let now = getrlimit(Resource::Nofile);
    // Root may go above the hard limit, others up to it.
    let higher = Rlimit {
        current: Some(FILES),
        maximum: Some(now.maximum.unwrap_or(FILES).max(FILES)),
    };
    if setrlimit(Resource::Nofile, higher).is_ok() {
        return FILES;
    }
    let hard = now.maximum.unwrap_or(FILES).min(FILES);
    let most = Rlimit {
        current: Some(hard),
        maximum: now.maximum,
    };
    match setrlimit(Resource::Nofile, most) {
        Ok(()) => hard,
        Err(_) => now.current.unwrap_or(FILES),
    }
}

/// Waits until the kernel can follow a run's connections. Where a firewall tracks connections, as Docker's does, each
/// takes a place for two minutes after its end, and when all are taken the kernel drops packets of everybody.
pub fn wait_for_places() -> Result<()> {
    let deadline = Instant::now() + TRACKED;
    let mut said = false;
    while let Some((taken, all)) = tracked()
        && all.saturating_sub(taken) < PLACES.min(all / 2)
    {
        ensure!(
            Instant::now() < deadline,
            "the kernel's table of connections stays full (net.netfilter.nf_conntrack_max)"
        );
        if !said {
            eprintln!("  waiting until the kernel has forgotten some of {taken} connections");
            said = true;
        }
        thread::sleep(Duration::from_secs(1));
    }
    Ok(())
}

/// Does the kernel track a connection over loopback?
fn follows_connections() -> bool {
    let open = || {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let client = TcpStream::connect(listener.local_addr()?)?;
        io::Result::Ok((listener, client))
    };
    let taken = || tracked().map_or(0, |(taken, _)| taken);
    let before = taken();
    open().is_ok_and(|_open| taken() > before)
}

/// Connections that the kernel tracks, and how many it can; `None`: it tracks none.
fn tracked() -> Option<(u64, u64)> {
    let number = |name: &str| {
        let path = format!("/proc/sys/net/netfilter/nf_conntrack_{name}");
        fs::read_to_string(path).ok()?.trim().parse().ok()
    };
    Some((number("count")?, number("max")?))
}

/// For how long a core has been busy since the machine started, to the hundredth of a second.
pub fn busy(core: usize) -> Option<Duration> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let name = format!("cpu{core} ");
    let line = stat.lines().find_map(|line| line.strip_prefix(&name))?;
    let ticks: Vec<u64> = line
        .split(' ')
        .map_while(|tick| tick.parse().ok())
        .collect();
    // user, nice, system, idle, iowait, irq, softirq
    let all: u64 = ticks.iter().take(7).sum();
    let idle: u64 = ticks.iter().skip(3).take(2).sum();
    let per_second = rustix::param::clock_ticks_per_second();
    Some(Duration::from_millis((all - idle) * 1000 / per_second))
}

fn line_of(path: &str, key: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
