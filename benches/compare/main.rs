//! Evenkeel beside its peers, on one core each.
//!
//! `cargo bench --profile dist --bench compare -- --help`
//!
//! The way of a run: `arguments` → `peers::programs` finds who can take part → `rounds` runs each `scenario` over all of them,
//! with proxies that `fleet` starts and `measure` (`http2` for what h2load sends) watches → `report` and `plot` write down what came of it. The command starts
//! itself as load generator, backend (`load`) and name server (`names`), each a process of its own. `join` makes one report of
//! several.

#![allow(
    clippy::disallowed_methods,
    reason = "real processes are waited for in real time"
)]
#![allow(missing_docs, reason = "nobody imports this")]

mod arguments;
mod fleet;
mod http2;
mod join;
mod load;
mod machine;
mod measure;
mod names;
mod peers;
mod plot;
mod process;
mod report;
mod rounds;
mod sample;
mod scenario;
mod statistics;
mod trace;

use std::io::{ErrorKind, Write};
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, ValueEnum};

use arguments::{Arguments, Options, Role};
use fleet::Bench;
use machine::Machine;
use peers::Peer;
use peers::programs::{Program, Sources};
use process::Processes;
use report::Report;
use rounds::Fleet;
use scenario::Scenario;

fn main() -> ExitCode {
    // `cargo test --all-targets` starts benchmarks too, without a word.
    if std::env::args_os().len() == 1 {
        eprintln!("cargo bench --profile dist --bench compare -- --help");
        return ExitCode::SUCCESS;
    }
    let arguments = Arguments::parse();
    let ended = match arguments.role {
        Some(role) => play(role),
        None => compare(&arguments.options),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compare: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What the command does when it runs itself.
fn play(role: Role) -> Result<()> {
    match role {
        Role::Load { job } => load::generator(&job),
        Role::Backend { addresses } => load::backend(&addresses),
        Role::Names { address, port } => names::serve(address, port),
    }
}

fn compare(options: &Options) -> Result<()> {
    let scenarios = chosen(options)?;
    if options.list {
        let line = |scenario: &Scenario| {
            let figure = scenario.figure.title();
            format!("{:18} {} ({figure})\n", scenario.name, scenario.what)
        };
        return print(&scenarios.iter().map(line).collect::<String>());
    }
    if !options.join.is_empty() {
        let report = join::join(options)?;
        std::fs::create_dir_all(&options.out)
            .with_context(|| format!("cannot make {}", options.out.display()))?;
        report.write(&options.out)?;
        eprintln!("written to {}", options.out.display());
        return print(&report.markdown());
    }
    let machine = Machine::look();
    ensure!(
        options.proxy_core != options.load_core && machine.cores >= 2,
        "the proxy needs one core, load generator and backend another"
    );
    ensure!(
        peers::programs::on_path("taskset").is_some(),
        "taskset is not installed (Debian: util-linux)"
    );
    if machine.was_busy() {
        eprintln!(
            "warning: the load average is {:.2}: something else runs, and figures will waver",
            machine.load_average
        );
    }
    machine::raise_file_limit();

    let processes = Processes::default();
    end_on_signals(&processes)?;
    let (programs, missing) = programs(options);
    ensure!(
        programs
            .first()
            .is_some_and(|program| program.peer == Peer::Evenkeel),
        "Evenkeel itself cannot be had: {}",
        missing.first().map_or("", |(_, why)| why)
    );

    let bench = Bench::new(options, processes, programs)?;
    let mut fleet = Fleet::default();
    let mut report = Report::new(machine, options, &bench.programs, missing);
    let begun = Instant::now();
    for (number, scenario) in scenarios.iter().enumerate() {
        let (done, all) = (number + 1, scenarios.len());
        let minutes = begun.elapsed().as_secs_f64() / 60.0;
        eprintln!(
            "{} ({done} of {all}, {minutes:.1} min): {}",
            scenario.name, scenario.what
        );
        let columns = rounds::run(&bench, &mut fleet, scenario)?;
        report.add(scenario, columns);
        // After each, so that a run that is broken off leaves what it had.
        report.write(&options.out)?;
    }
    fleet.stop_all();
    eprintln!("written to {}", options.out.display());
    print(&report.markdown())
}

/// To standard output, which may be a pipe that nobody reads to its end.
fn print(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

fn chosen(options: &Options) -> Result<Vec<Scenario>> {
    let mut all = scenario::table(options.rate, options.connections);
    for name in &options.scenario {
        if !all.iter().any(|scenario| scenario.name == name) {
            bail!("no scenario is called `{name}`; --list names them");
        }
    }
    if !options.scenario.is_empty() {
        all.retain(|scenario| options.scenario.iter().any(|name| name == scenario.name));
    }
    Ok(all)
}

/// Who can take part, and who cannot and why.
fn programs(options: &Options) -> (Vec<Program>, Vec<(Peer, String)>) {
    let sources = Sources {
        evenkeel: options.binary.clone(),
        repository: Path::new(env!("CARGO_MANIFEST_DIR")).to_owned(),
        fetched: arguments::target().join("peers"),
    };
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    let wanted = Peer::value_variants().iter().filter(|peer| {
        **peer == Peer::Evenkeel || options.peer.is_empty() || options.peer.contains(peer)
    });
    for peer in wanted {
        match sources.program(*peer) {
            Ok(program) => {
                eprintln!("{peer} {}", program.version);
                found.push(program);
            }
            Err(why) => {
                eprintln!("{peer} is left out: {why:#}");
                missing.push((*peer, format!("{why:#}")));
            }
        }
    }
    (found, missing)
}

/// INT and TERM end what was started before they end us; a panic does so by dropping it.
fn end_on_signals(processes: &Processes) -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};

    let processes = processes.clone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                let (mut int, mut term) = (
                    signal(SignalKind::interrupt()).expect("the runtime has its driver"),
                    signal(SignalKind::terminate()).expect("the runtime has its driver"),
                );
                tokio::select! {
                    _ = int.recv() => {}
                    _ = term.recv() => {}
                }
            });
            processes.kill_all();
            std::process::exit(130);
        })
        .context("cannot start a thread")?;
    Ok(())
}
