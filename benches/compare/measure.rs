//! One run of one proxy: what the load generator says of it, which reads the proxy's CPU time as its clock starts and stops, and
//! the proxy's memory.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::fleet::{Bench, Running, get};
use crate::load::{Job, Outcome, Pattern, Request};
use crate::machine;
use crate::process::Process;
use crate::sample::{Memory, Sample, Workers};
use crate::scenario::{ACTIVE, Layer, Traffic, UNEVEN};
use crate::trace::Tracer;

/// How long a proxy may settle once its connections are open (and before): buffers go back, collectors run.
pub const SETTLE: Duration = Duration::from_secs(3);

/// For the connections of a scenario to be open.
const OPENING: Duration = Duration::from_secs(60);

/// For a load generator to end once it has said what came of its run.
const ENDING: Duration = Duration::from_secs(30);

/// Longest run with a connection for each request, in seconds: thousands of requests, and the kernel remembers each
/// connection for minutes.
const CONNECTING: f64 = 1.0;

/// How long a fresh process is used before it counts, in seconds.
const WARM_UP: f64 = 0.5;

/// Requests as a scenario says, for so many seconds.
pub fn traffic(
    bench: &Bench<'_>,
    proxy: &Running,

    traffic: &Traffic,
    seconds: f64,
) -> Result<Sample> {
    let seconds = match traffic.pattern {
        Pattern::Connect => seconds.min(CONNECTING),
        _ => seconds,
    };
    let job = Job {
        target: proxy.address(traffic.layer),
        tls: bench.tls(traffic.layer),
        connections: traffic.connections,
        active: traffic.connections,
        request: Request {
            upload: traffic.upload,
            ..get(traffic.path)
        },
        pattern: traffic.pattern,
        seconds,
        watched: Vec::new(),
    };
    run(bench, proxy, job, true)
}

/// Kept-alive requests of 128 B to a proxy's plain address.
pub fn kept(bench: &Bench<'_>, proxy: &Running, seconds: f64) -> Result<Sample> {
    let job = Job {
        seconds,
        ..short(bench, proxy, Layer::Plain)
    };
    run(bench, proxy, job, true)
}

/// Memory of a fresh process before and after connections were opened.
pub fn held(bench: &Bench<'_>, proxy: &Running, layer: Layer) -> Result<Sample> {
    run(bench, proxy, short(bench, proxy, layer), true)?;
    thread::sleep(SETTLE);
    let before = proxy.process.memory()?;
    let connections = bench.options.connections;
    let job = Job {
        connections,
        active: connections,
        pattern: Pattern::Hold,
        ..short(bench, proxy, layer)
    };
    let mut load = bench.load(&serde_json::to_string(&job)?, true)?;
    // It comes when all are open and have had their request.
    let outcome = outcome(&mut load, OPENING)?;
    thread::sleep(SETTLE);
    let after = proxy.process.memory()?;
    let open = proxy.process.open_files();
    load.finish(ENDING)?;
    ensure!(
        open >= connections,
        "it closed connections while they were held"
    );
    Ok(Sample {
        memory: Some(Memory {
            before,
            after,
            connections,
        }),
        ..Sample::of(&outcome)
    })
}

/// CPU per request while most of the connections are idle. The load generator leaves opening and closing those out.
pub fn few_active(bench: &Bench<'_>, proxy: &Running, seconds: f64) -> Result<Sample> {
    run(bench, proxy, short(bench, proxy, Layer::Plain), true)?;
    thread::sleep(SETTLE);
    let before = proxy.process.memory()?;
    let connections = bench.options.connections;
    let job = Job {
        connections,
        active: ACTIVE,
        seconds,
        watched: proxy.process.family(),
        ..short(bench, proxy, Layer::Plain)
    };
    let mut load = bench.load(&serde_json::to_string(&job)?, true)?;
    wait_until_open(proxy, connections, &mut load)?;
    thread::sleep(Duration::from_secs_f64(seconds / 2.0));
    let after = proxy.process.memory()?;
    let outcome = outcome(&mut load, OPENING)?;
    load.finish(ENDING)?;
    Ok(Sample {
        memory: Some(Memory {
            before,
            after,
            connections,
        }),
        ..Sample::of(&outcome)
    })
}

/// System calls, those of opening the connections included.
pub fn calls(bench: &Bench<'_>, proxy: &Running, layer: Layer, seconds: f64) -> Result<Sample> {
    run(bench, proxy, short(bench, proxy, layer), true)?;
    let tracer = Tracer::attach(bench, proxy)?;
    let job = Job {
        seconds,
        ..short(bench, proxy, layer)
    };
    let sample = run(bench, proxy, job, true);
    let calls = tracer.detach()?;
    Ok(Sample {
        calls: Some(calls),
        // strace bends them.
        seconds: 0.0,
        ..sample?
    })
}

/// Two workers beside one: a fresh process of each, nothing pinned, the same few connections.
pub fn workers(
    bench: &Bench<'_>,
    one: impl FnOnce() -> Result<Running>,
    two: impl FnOnce() -> Result<Running>,
    seconds: f64,
) -> Result<Sample> {
    let kept = |proxy: &Running, seconds| Job {
        connections: UNEVEN,
        active: UNEVEN,
        seconds,
        ..short(bench, proxy, Layer::Plain)
    };
    let alone = {
        let proxy = one()?;
        run(bench, &proxy, kept(&proxy, WARM_UP), false)?;
        run(bench, &proxy, kept(&proxy, seconds), false)?
    };
    let proxy = two()?;
    run(bench, &proxy, kept(&proxy, WARM_UP), false)?;
    let before = proxy.process.thread_cpu();
    let mut both = run(bench, &proxy, kept(&proxy, seconds), false)?;
    let mut spent: Vec<f64> = proxy
        .process
        .thread_cpu()
        .into_iter()
        .map(|(id, time)| {
            let earlier = before.iter().find(|(other, _)| *other == id);
            let earlier = earlier.map_or(Duration::ZERO, |(_, time)| *time);
            time.saturating_sub(earlier).as_secs_f64()
        })
        .collect();
    spent.sort_by(|a, b| b.total_cmp(a));
    let first_two: f64 = spent.iter().take(2).sum();
    both.workers = Some(Workers {
        rate_of_one: alone.rate(),
        cpu_of_one: alone.proxy_cpu / alone.requests as f64,
        busiest: spent.first().copied().unwrap_or_default() / first_two.max(f64::MIN_POSITIVE),
    });
    Ok(both)
}

/// With an access log, beside without one: a fresh process of each.
pub fn logged(
    bench: &Bench<'_>,
    without: impl FnOnce() -> Result<Running>,
    with: impl FnOnce() -> Result<Running>,
    seconds: f64,
) -> Result<Sample> {
    let measured = |proxy: Running| {
        let job = |seconds| Job {
            seconds,
            ..short(bench, &proxy, Layer::Plain)
        };
        run(bench, &proxy, job(WARM_UP), true)?;
        run(bench, &proxy, job(seconds), true)
    };
    let silent = measured(without()?)?;
    let logged = measured(with()?)?;
    Ok(Sample {
        cpu_without_log: Some(silent.proxy_cpu / silent.requests as f64),
        ..logged
    })
}

/// CPU without requests, then with them, while names change.
pub fn names(bench: &Bench<'_>, proxy: &Running, seconds: f64) -> Result<Sample> {
    let cpu = proxy.process.cpu()?;
    let clock = Instant::now();
    thread::sleep(Duration::from_secs_f64(seconds.max(2.0)));
    let quiet = proxy.process.cpu()?.saturating_sub(cpu).as_secs_f64();
    let quiet = quiet / clock.elapsed().as_secs_f64();
    let job = Job {
        seconds,
        ..short(bench, proxy, Layer::Plain)
    };
    let mut sample = run(bench, proxy, job, true)?;
    sample.quiet_cpu = Some(quiet);
    Ok(sample)
}

/// Kept-alive requests of 128 B, for a moment; what other jobs are made from.
fn short(bench: &Bench<'_>, proxy: &Running, layer: Layer) -> Job {
    Job {
        target: proxy.address(layer),
        tls: bench.tls(layer),
        connections: ACTIVE,
        active: ACTIVE,
        request: get("/128"),
        pattern: Pattern::KeepAlive,
        seconds: WARM_UP,
        watched: Vec::new(),
    }
}

fn run(bench: &Bench<'_>, proxy: &Running, job: Job, pinned: bool) -> Result<Sample> {
    machine::wait_for_places()?;
    let job = Job {
        watched: proxy.process.family(),
        ..job
    };
    let mut load = bench.load(&serde_json::to_string(&job)?, pinned)?;
    let outcome = outcome(&mut load, OPENING + Duration::from_secs_f64(job.seconds))?;
    load.finish(ENDING)?;
    ensure!(outcome.requests > 0, "no request was answered");
    Ok(Sample::of(&outcome))
}

/// What a load generator says; an error in its run is an error of the run.
fn outcome(load: &mut Process, limit: Duration) -> Result<Outcome> {
    let line = load.line(limit).context("the load generator")?;
    let outcome: Outcome = serde_json::from_str(&line).context("the load generator's words")?;
    if outcome.errors > 0 {
        let first = outcome.first_error.as_deref().unwrap_or("an error");
        let all = outcome.errors + outcome.requests;
        bail!("{first} ({} of {all})", outcome.errors);
    }
    Ok(outcome)
}

/// Counted at the proxy, since only it knows what it has accepted. It has a few more files open than these sockets; who waits
/// for the last ones is [`SETTLE`].
fn wait_until_open(proxy: &Running, sockets: usize, load: &mut Process) -> Result<()> {
    let deadline = Instant::now() + OPENING;
    while proxy.process.open_files() < sockets {
        ensure!(
            load.runs(),
            "the load generator ended while it opened connections"
        );
        ensure!(
            Instant::now() < deadline,
            "the connections were not open in time"
        );
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
