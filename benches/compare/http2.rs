//! HTTP/2 requests: h2load (of nghttp2) on a proxy that offers it, and what came of them.
//!
//! Our own load generator speaks HTTP/1.1 only. h2load says how many requests were answered and writes down how long each took;
//! the proxy's CPU time is read before it starts and after it has ended, so that the handshakes of the connections are in it.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::fleet::{Bench, HOST, Running};
use crate::machine;
use crate::peers::programs::on_path;
use crate::process::Process;
use crate::sample::Sample;

/// Connections, and requests at once on each.
const CONNECTIONS: &str = "16";
const STREAMS: &str = "32";

/// The program, and the package of Debian that has it.
pub const PROGRAM: &str = "h2load";

/// For it to connect, and to end, besides the run itself.
const AROUND: Duration = Duration::from_secs(30);

/// Requests of 128 B for so many seconds.
pub fn measure(bench: &Bench<'_>, proxy: &Running, seconds: f64) -> Result<Sample> {
    let program = on_path(PROGRAM).context("h2load is not installed")?;
    machine::wait_for_places()?;
    let log = bench.path("h2load.log")?;
    // It would write behind what is there.
    let _ = fs::remove_file(&log);
    let (port, target) = (proxy.setup.tls.port(), proxy.setup.tls);
    let words = [
        "--threads=1".to_owned(),
        format!("--clients={CONNECTIONS}"),
        format!("--max-concurrent-streams={STREAMS}"),
        format!("--duration={}ms", (seconds * 1e3).round()),
        "--npn-list=h2".to_owned(),
        // As the load generator of the other scenarios.
        "--tls13-ciphers=TLS_AES_128_GCM_SHA256".to_owned(),
        "--groups=X25519".to_owned(),
        format!("--connect-to={target}"),
        format!("--log-file={}", log.display()),
        format!("https://{HOST}:{port}/128"),
    ];
    let core = bench.options.load_core;
    let (before, busy) = (proxy.process.cpu()?, machine::busy(core));
    let clock = Instant::now();
    let mut load = bench
        .processes
        .start_piped(Some(core), &program, &words)
        .context("h2load")?;
    let said = words_of(&mut load, AROUND + Duration::from_secs_f64(seconds))?;
    let took = clock.elapsed();
    let after = proxy.process.cpu()?;
    let busy = match (busy, machine::busy(core)) {
        (Some(before), Some(after)) => after.saturating_sub(before).as_secs_f64(),
        _ => 0.0,
    };
    load.finish(AROUND)?;
    let requests = answered(&said)?;
    let times = times(&log)?;
    let at = |part: f64| {
        let place = (times.len() as f64 * part) as usize;
        times[place.min(times.len() - 1)] as f64
    };
    Ok(Sample {
        requests,
        seconds: took.as_secs_f64(),
        proxy_cpu: after.saturating_sub(before).as_secs_f64(),
        load_busy: busy / took.as_secs_f64(),
        p50: at(0.5),
        p99: at(0.99),
        max: at(1.0),
        ..Sample::default()
    })
}

/// All that it writes up to its last figure.
fn words_of(load: &mut Process, limit: Duration) -> Result<Vec<String>> {
    let deadline = Instant::now() + limit;
    let mut said = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let line = match load.line(left) {
            Ok(line) => line,
            Err(error) => bail!("h2load: {error:#}, after {:?}", said.last()),
        };
        let last = line.starts_with("req/s");
        said.push(line);
        if last {
            return Ok(said);
        }
    }
}

/// How many requests were answered, all of them over HTTP/2 and as they should.
fn answered(said: &[String]) -> Result<u64> {
    let line = |begin: &str| said.iter().find_map(|line| line.strip_prefix(begin));
    let protocol = line("Application protocol: ").unwrap_or("none");
    ensure!(protocol == "h2", "it speaks {protocol}, not h2");
    let counts = line("requests: ").context("h2load counts no requests")?;
    let count = |what: &str| {
        let parts = counts.split(", ");
        let number = parts.filter_map(|part| part.strip_suffix(what)).next();
        number.and_then(|number| number.trim().parse::<u64>().ok())
    };
    let done = count(" done").context("h2load counts no requests")?;
    let good = count(" succeeded").unwrap_or_default();
    ensure!(done > 0, "no request was answered");
    ensure!(done == good, "h2load: {counts}");
    Ok(done)
}

/// What each request took, in microseconds, sorted; at least one.
fn times(log: &Path) -> Result<Vec<u64>> {
    let text = fs::read_to_string(log).context("h2load has written down no times")?;
    // When it began, status, how long it took.
    let third = |line: &str| line.split('\t').nth(2)?.trim().parse().ok();
    let mut times: Vec<u64> = text.lines().filter_map(third).collect();
    ensure!(!times.is_empty(), "h2load has written down no times");
    times.sort_unstable();
    Ok(times)
}
