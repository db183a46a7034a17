//! Reports of several runs, made one: their rounds count as those of a single run. For `--join`. It measures nothing, and joins
//! nothing that was measured otherwise.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::arguments::Options;
use crate::machine::Machine;
use crate::peers::Peer;
use crate::report::{Entry, Missing, Report};
use crate::rounds::{Column, Outcome};
use crate::scenario;

/// What is read of a report.
#[derive(Debug, Deserialize)]
struct Run {
    machine: Machine,
    method: String,
    peers: Vec<Entry>,
    missing: Vec<Missing>,
    scenarios: Vec<Done>,
}

/// A scenario and all who did it.
#[derive(Debug, Deserialize)]
struct Done {
    name: String,
    what: String,
    cells: Vec<Column>,
}

/// Reads the reports in the folders that `options` names, in that order, and makes one of them.
pub fn join(options: &Options) -> Result<Report> {
    // Folders that are not there are the same as none; reading one says so.
    let place = |folder: &Path| fs::canonicalize(folder).ok();
    let out = place(&options.out);
    let (mut places, mut runs) = (Vec::new(), Vec::new());
    for folder in &options.join {
        let run = read(folder)?;
        let (name, place) = (folder.display(), place(folder));
        ensure!(!places.contains(&place), "{name} is named twice");
        ensure!(place != out, "{name} would be written over (--out)");
        places.push(place);
        runs.push((folder, run));
    }
    let dates: Vec<String> = runs
        .iter()
        .map(|(_, run)| run.machine.date.clone())
        .collect();
    let mut runs = runs.into_iter();
    let (first, mut all) = runs.next().context("there is nothing to join")?;
    for (folder, run) in runs {
        let alike = |what: &str, same: bool| {
            let (one, other) = (first.display(), folder.display());
            ensure!(same, "{one} and {other} are not of the same {what}");
            Ok(())
        };
        alike("machine", all.machine.is_like(&run.machine))?;
        alike("programs", all.peers == run.peers)?;
        alike("method", all.method == run.method)?;
        let scenarios = |run: &Run| -> Vec<(String, String, Vec<Peer>)> {
            let peers = |done: &Done| done.cells.iter().map(|column| column.peer).collect();
            let scenario = |done: &Done| (done.name.clone(), done.what.clone(), peers(done));
            run.scenarios.iter().map(scenario).collect()
        };
        alike("scenarios", scenarios(&all) == scenarios(&run))?;
        // A warning of any run is one of them all.
        let load = &mut all.machine.load_average;
        *load = load.max(run.machine.load_average);
        for (done, more) in all.scenarios.iter_mut().zip(run.scenarios) {
            for (column, more) in done.cells.iter_mut().zip(more.cells) {
                append(&mut column.outcome, more.outcome);
            }
        }
    }
    let method = format!(
        "{} These are the rounds of {} such runs, begun at {}; memory and system calls beside the figures are those of the last.",
        all.method,
        dates.len(),
        dates.join(", "),
    );
    let mut report = Report::empty(all.machine, method, all.peers, all.missing);
    let mut table = scenario::table(options.rate, options.connections);
    for done in all.scenarios {
        let Some(place) = table.iter().position(|known| known.name == done.name) else {
            bail!(
                "{} has a scenario `{}`, which there is no more",
                first.display(),
                done.name
            );
        };
        let mut known = table.swap_remove(place);
        known.what = done.what;
        report.add(&known, done.cells);
    }
    Ok(report)
}

fn read(folder: &Path) -> Result<Run> {
    let path = folder.join("report.json");
    let json = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let run: Run = serde_json::from_slice(&json)
        .with_context(|| format!("{} is not a report", path.display()))?;
    for done in &run.scenarios {
        // Ratios are of the same round, which is told by its place.
        let mut rounds = done
            .cells
            .iter()
            .filter_map(|column| match &column.outcome {
                Outcome::Measured(samples) => Some(samples.len()),
                Outcome::LeftOut(_) | Outcome::Failed(_) => None,
            });
        let first = rounds.next();
        ensure!(
            rounds.all(|count| Some(count) == first),
            "{}: not everybody has all rounds of {}",
            path.display(),
            done.name,
        );
    }
    Ok(run)
}

/// What cannot be done, or failed once, stays so.
fn append(all: &mut Outcome, more: Outcome) {
    match (&mut *all, more) {
        (Outcome::Measured(samples), Outcome::Measured(more)) => samples.extend(more),
        (Outcome::Measured(_), other) => *all = other,
        _ => {}
    }
}
