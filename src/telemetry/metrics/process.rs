//! What Linux says about this process.

use std::{fmt, fs};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType::{Counter, Gauge};
use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::family::{Out, Value};

/// One look at /proc. What cannot be read is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Process {
    /// User and system time, in seconds.
    pub cpu_seconds: Option<f64>,
    /// Memory that is in RAM, in bytes.
    pub resident_bytes: Option<u64>,
    /// Address space, in bytes.
    pub virtual_bytes: Option<u64>,
    /// Start, in seconds since 1970.
    pub start_seconds: Option<f64>,
    /// Open file descriptors.
    pub open_files: Option<u64>,
    /// How many may be open; `None`: no limit.
    pub max_files: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
}

impl Process {
    /// Looks.
    pub fn look() -> Process {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let boot = fs::read_to_string("/proc/stat").unwrap_or_default();
        Process {
            // The entry of the directory that is being read is one of them.
            open_files: fs::read_dir("/proc/self/fd")
                .ok()
                .map(|fds| fds.count() as u64 - 1),
            cpu_seconds: Some(cpu_seconds()),
            max_files: getrlimit(Resource::Nofile).current,
            ..from_stat(&stat, &boot)
        }
    }
}

impl Collector for Process {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let out = &mut Out::new(encoder);
        if let Some(seconds) = self.cpu_seconds {
            out.family("process_cpu_seconds", "User and system time", Counter)?
                .only(Value::Seconds(seconds))?;
        }
        let gauges = [
            (
                "process_resident_memory_bytes",
                "Memory in RAM",
                self.resident_bytes.map(|n| n as f64),
            ),
            (
                "process_virtual_memory_bytes",
                "Address space",
                self.virtual_bytes.map(|n| n as f64),
            ),
            (
                "process_start_time_seconds",
                "Start, since 1970",
                self.start_seconds,
            ),
            (
                "process_open_fds",
                "Open file descriptors",
                self.open_files.map(|n| n as f64),
            ),
            (
                "process_max_fds",
                "Most open file descriptors",
                self.max_files.map(|n| n as f64),
            ),
            ("process_threads", "Threads", self.threads.map(|n| n as f64)),
        ];
        for (name, help, value) in gauges {
            if let Some(value) = value {
                out.family(name, help, Gauge)?.only(Value::Gauge(value))?;
            }
        }
        Ok(())
    }
}

/// To the nanosecond: /proc counts whole ticks, of which a process that began just now has none.
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// proc_pid_stat(5); fields are counted from 3 after the command name, which is in brackets and
/// may hold anything.
fn from_stat(stat: &str, boot: &str) -> Process {
    let after_name = stat.rfind(')').map_or("", |end| &stat[end + 1..]);
    let field = |number: usize| -> Option<u64> {
        after_name
            .split_ascii_whitespace()
            .nth(number - 3)?
            .parse()
            .ok()
    };
    let ticks = clock_ticks_per_second() as f64;
    let boot_seconds = boot
        .lines()
        .find_map(|line| line.strip_prefix("btime "))
        .and_then(|seconds| seconds.trim().parse::<f64>().ok());
    Process {
        threads: field(20),
        start_seconds: field(22)
            .zip(boot_seconds)
            .map(|(start, boot)| boot + start as f64 / ticks),
        virtual_bytes: field(23),
        resident_bytes: field(24).map(|pages| pages * page_size() as u64),
        ..Process::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_after_a_name_that_holds_anything() {
        let stat = "42 (a) b (c 7) S 1 1 1 0 -1 0 0 0 0 0 250 50 0 0 20 0 3 0 1000 4096 7 9";
        let boot = "cpu 1 2 3\nbtime 1000000\nprocesses 5\n";
        let ticks = clock_ticks_per_second() as f64;
        assert_eq!(
            from_stat(stat, boot),
            Process {
                cpu_seconds: None,
                threads: Some(3),
                start_seconds: Some(1_000_000.0 + 1_000.0 / ticks),
                virtual_bytes: Some(4_096),
                resident_bytes: Some(7 * page_size() as u64),
                open_files: None,
                max_files: None,
            }
        );
        assert_eq!(from_stat("", ""), Process::default());
        assert_eq!(from_stat("1 (x) S 1", "btime x"), Process::default());
    }

    #[test]
    fn this_process_has_all_of_it() {
        let process = Process::look();
        assert!(process.cpu_seconds > Some(0.0), "from its first tick on");
        assert!(process.resident_bytes > Some(100_000), "{process:?}");
        assert!(process.virtual_bytes >= process.resident_bytes);
        assert!(process.open_files >= Some(3), "{process:?}");
        assert!(process.threads >= Some(1));
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
        let age = now - process.start_seconds.unwrap();
        assert!((-1.0..3_600.0).contains(&age), "{age} s old");
    }
}
