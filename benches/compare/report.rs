//! The report: JSON with all samples, Markdown for people, and the plot beside them.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::arguments::{Options, Switch};
use crate::machine::Machine;
use crate::measure::SETTLE;
use crate::peers::Peer;
use crate::peers::programs::Program;
use crate::plot;
use crate::rounds::{Column, Outcome};
use crate::sample::Sample;
use crate::scenario::{Figure, HEADLINE, Scenario};
use crate::statistics::{Spread, Verdict};

/// All that a run has found so far.
#[derive(Debug, Serialize)]
pub struct Report {
    machine: Machine,
    method: String,
    peers: Vec<Entry>,
    missing: Vec<Missing>,
    pub scenarios: Vec<Row>,
}

/// A peer that took part.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    peer: Peer,
    version: String,
}

/// A peer that could not be had.
#[derive(Debug, Serialize, Deserialize)]
pub struct Missing {
    peer: Peer,
    why: String,
}

/// A scenario and all who did it.
#[derive(Debug, Serialize)]
pub struct Row {
    #[serde(flatten)]
    pub scenario: Scenario,
    pub cells: Vec<Cell>,
}

/// One of them.
#[derive(Debug, Serialize)]
pub struct Cell {
    #[serde(flatten)]
    pub column: Column,
    pub value: Option<Spread>,
    /// Over Evenkeel, paired by round.
    pub ratio: Option<Spread>,
    pub verdict: Option<Verdict>,
    /// The load generator had no more to give while the proxy had: its rate says nothing.
    pub load_was_the_limit: bool,
}

/// Part of a core from which on it is full.
const FULL: f64 = 0.9;

/// Part of the requests from which on a lateness of the load generator shows in p99.
const LATE: f64 = 0.002;

impl Report {
    pub fn new(
        machine: Machine,
        options: &Options,
        programs: &[Program],
        missing: Vec<(Peer, String)>,
    ) -> Report {
        let entry = |program: &Program| Entry {
            peer: program.peer,
            version: program.version.clone(),
        };
        let missing = missing.into_iter();
        Report::empty(
            machine,
            method(options),
            programs.iter().map(entry).collect(),
            missing.map(|(peer, why)| Missing { peer, why }).collect(),
        )
    }

    /// A report without scenarios, of what is known already.
    pub fn empty(
        machine: Machine,
        method: String,
        peers: Vec<Entry>,
        missing: Vec<Missing>,
    ) -> Report {
        Report {
            machine,
            method,
            peers,
            missing,
            scenarios: Vec::new(),
        }
    }

    pub fn add(&mut self, scenario: &Scenario, columns: Vec<Column>) {
        let ours = columns
            .iter()
            .find(|column| column.peer == Peer::Evenkeel)
            .map(|column| column.figures(scenario.figure))
            .unwrap_or_default();
        let cells = columns
            .into_iter()
            .map(|column| Cell::new(column, scenario.figure, &ours));
        self.scenarios.push(Row {
            scenario: scenario.clone(),
            cells: cells.collect(),
        });
    }

    /// Writes report.json, report.md, plot.svg and, with a few of its panels, headline.svg.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let headline = self
            .scenarios
            .iter()
            .filter(|row| HEADLINE.contains(&row.scenario.name));
        let files = [
            ("report.json", serde_json::to_string_pretty(self)?),
            ("report.md", self.markdown()),
            ("plot.svg", plot::svg(self.scenarios.iter())),
            ("headline.svg", plot::svg(headline)),
        ];
        for (name, text) in files {
            let path = folder.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    pub fn markdown(&self) -> String {
        let mut text = String::from("# Evenkeel beside its peers\n\n");
        self.head(&mut text);
        self.summary(&mut text);
        for row in &self.scenarios {
            row.section(&mut text);
        }
        text.push_str("\n## What each configuration leaves unlike the others\n\n");
        for entry in &self.peers {
            line(
                &mut text,
                format_args!("- **{}**: {}.", entry.peer, entry.peer.differs()),
            );
        }
        text
    }

    fn head(&self, text: &mut String) {
        let machine = &self.machine;
        line(
            text,
            format_args!(
                "{}, Linux {}, {} cores of {}, {} MiB, {}load average {:.2} at the start{}.\n",
                machine.date,
                machine.kernel,
                machine.cores,
                machine.processor,
                machine.memory_mib,
                match machine.firewall {
                    true => "connections tracked by a firewall, ",
                    false => "",
                },
                machine.load_average,
                match machine.was_busy() {
                    true => " (**something else was running: figures waver**)",
                    false => "",
                },
            ),
        );
        let versions = self
            .peers
            .iter()
            .map(|entry| format!("{} {}", entry.peer, entry.version));
        line(
            text,
            format_args!("{}.\n", versions.collect::<Vec<_>>().join(", ")),
        );
        for missing in &self.missing {
            line(
                text,
                format_args!("{} is left out: {}.\n", missing.peer, missing.why),
            );
        }
        line(text, format_args!("{}", self.method));
    }

    /// One table of ratios.
    fn summary(&self, text: &mut String) {
        let peers: Vec<Peer> = self.peers.iter().map(|entry| entry.peer).skip(1).collect();
        if peers.is_empty() {
            return;
        }
        text.push_str(
            "\n## Peer over Evenkeel\n\nMore than 1: the peer takes more. In brackets: level. With a question mark: undecided.\n\n",
        );
        let titles = peers.iter().map(|peer| format!(" {peer} |"));
        line(
            text,
            format_args!("| | Evenkeel |{}", titles.collect::<String>()),
        );
        line(
            text,
            format_args!("|---|--:|{}", "--:|".repeat(peers.len())),
        );
        for row in &self.scenarios {
            let ours = row
                .cell(Peer::Evenkeel)
                .map_or("–".to_owned(), |cell| cell.number());
            let ratios = peers.iter().map(|peer| {
                let cell = row.cell(*peer);
                format!(" {} |", cell.map_or("–".to_owned(), Cell::short_ratio))
            });
            let ratios: String = ratios.collect();
            let (name, figure) = (row.scenario.name, row.scenario.figure.title());
            line(text, format_args!("| {name}: {figure} | {ours} |{ratios}"));
        }
    }
}

impl Row {
    pub fn cell(&self, peer: Peer) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.column.peer == peer)
    }

    fn section(&self, text: &mut String) {
        let scenario = &self.scenario;
        line(
            text,
            format_args!("\n## {}\n\n{}.\n", scenario.name, sentence(&scenario.what)),
        );
        let figure = scenario.figure.title();
        line(
            text,
            format_args!(
                "| | {figure} | over Evenkeel | | requests/s | p50, µs | p99, µs | beside |"
            ),
        );
        text.push_str("|---|--:|--:|---|--:|--:|--:|---|\n");
        for cell in &self.cells {
            line(text, format_args!("{}", cell.row()));
        }
    }
}

impl Cell {
    fn new(column: Column, figure: Figure, ours: &[f64]) -> Cell {
        let figures = column.figures(figure);
        let value = Spread::of(&figures);
        let ratio = match column.peer {
            Peer::Evenkeel => None,
            _ => Spread::of_ratios(&figures, ours),
        };
        Cell {
            value,
            ratio,
            verdict: ratio.map(|ratio| ratio.verdict()),
            load_was_the_limit: column
                .median(|sample| sample.load_busy)
                .is_some_and(|busy| busy > FULL)
                && column
                    .median(Sample::proxy_busy)
                    .is_some_and(|busy| busy < FULL)
                && !matches!(
                    figure,
                    Figure::MemoryPerConnection | Figure::CallsPerRequest
                ),
            column,
        }
    }

    /// The median, as exact as it deserves.
    pub fn number(&self) -> String {
        match (&self.column.outcome, self.value) {
            (Outcome::Failed(_), _) => "failed".to_owned(),
            (_, Some(value)) => digits(value.median),
            _ => "–".to_owned(),
        }
    }

    fn short_ratio(&self) -> String {
        match (&self.column.outcome, self.ratio, self.verdict) {
            (Outcome::Failed(_), ..) => "failed".to_owned(),
            (_, Some(ratio), Some(Verdict::Level)) => format!("({:.2})", ratio.median),
            (_, Some(ratio), Some(Verdict::Undecided)) => format!("{:.2} ?", ratio.median),
            (_, Some(ratio), _) => format!("{:.2}", ratio.median),
            _ => "–".to_owned(),
        }
    }

    fn row(&self) -> String {
        let peer = self.column.peer;
        let samples = match &self.column.outcome {
            Outcome::Measured(samples) => samples,
            Outcome::LeftOut(why) => return format!("| {peer} | – | | | | | | {why} |"),
            Outcome::Failed(why) => {
                return format!("| {peer} | failed: {} | | | | | | |", why.replace('|', "/"));
            }
        };
        let spread = |spread: Option<Spread>| match spread {
            Some(s) => format!(
                "{} ({} – {})",
                digits(s.median),
                digits(s.least),
                digits(s.most)
            ),
            None => String::new(),
        };
        let verdict = match self.verdict {
            None => "",
            Some(Verdict::Level) => "level",
            Some(Verdict::Undecided) => "undecided",
            Some(Verdict::Ahead) => "Evenkeel takes less",
            Some(Verdict::Behind) => "Evenkeel takes more",
        };
        // Where connections are only held, nothing is timed.
        let timed = samples.iter().all(|sample| sample.seconds > 0.0);
        let middle = |of: fn(&Sample) -> f64| match self.column.median(of) {
            Some(value) if timed => digits(value),
            _ => String::new(),
        };
        let rate = match self.load_was_the_limit {
            true => format!("({})", middle(Sample::rate)),
            false => middle(Sample::rate),
        };
        format!(
            "| {peer} | {} | {} | {verdict} | {rate} | {} | {} | {} |",
            spread(self.value),
            spread(self.ratio),
            middle(|sample| sample.p50),
            middle(|sample| sample.p99),
            self.beside(samples),
        )
    }

    /// What else is worth knowing of this cell.
    fn beside(&self, samples: &[Sample]) -> String {
        let mut notes = Vec::new();
        if let Some(memory) = samples.last().and_then(|sample| sample.memory) {
            let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
            notes.push(format!(
                "{:.1} MiB before, {:.1} after",
                mib(memory.before),
                mib(memory.after)
            ));
        }
        if let Some(sample) = samples.last()
            && let Some(calls) = &sample.calls
        {
            notes.push(calls.per_request(sample.requests));
        }
        let workers = |of: fn(&crate::sample::Workers) -> f64| {
            self.column
                .median(move |sample| sample.workers.as_ref().map_or(0.0, of))
                .unwrap_or_default()
        };
        if samples.iter().any(|sample| sample.workers.is_some()) {
            let rate = self.column.median(Sample::rate).unwrap_or_default();
            notes.push(format!(
                "with one worker {} requests/s at {} µs: {:.2} × as many with two; the busier thread had {:.0} % of the CPU",
                digits(workers(|w| w.rate_of_one)),
                digits(workers(|w| w.cpu_of_one * 1e6)),
                rate / workers(|w| w.rate_of_one),
                workers(|w| w.busiest * 100.0),
            ));
        }
        let added = samples.iter().filter_map(Sample::added_by_log);
        if let Some(added) = Spread::of(&added.collect::<Vec<_>>()) {
            let percent = |part: f64| part * 100.0;
            notes.push(format!(
                "the log adds {:.1} % ({:.1} – {:.1})",
                percent(added.median),
                percent(added.least),
                percent(added.most)
            ));
        }
        if samples.iter().any(|sample| sample.quiet_cpu.is_some()) {
            let quiet = self
                .column
                .median(|sample| sample.quiet_cpu.unwrap_or_default() * 1e3);
            notes.push(format!(
                "{} ms of CPU per second without requests",
                digits(quiet.unwrap_or_default())
            ));
        }
        if let Some(late) = self.column.median(|sample| sample.late)
            && late > LATE
        {
            let percent = late * 100.0;
            notes.push(format!(
                "the load generator was late for {percent:.1} % of the requests"
            ));
        }
        if let Some(resumed) = self.column.median(|sample| sample.resumed)
            && resumed > 0.0
        {
            notes.push(format!(
                "{:.0} % of the handshakes resumed",
                resumed * 100.0
            ));
        }
        if self.load_was_the_limit {
            notes.push("the load generator was the limit".to_owned());
        }
        notes.join("; ")
    }
}

impl Column {
    fn figures(&self, figure: Figure) -> Vec<f64> {
        let figures = self.samples().iter().filter_map(|sample| figure.of(sample));
        figures.collect()
    }

    fn median(&self, of: impl Fn(&Sample) -> f64) -> Option<f64> {
        let values: Vec<f64> = self.samples().iter().map(of).collect();
        Some(Spread::of(&values)?.median)
    }

    fn samples(&self) -> &[Sample] {
        match &self.outcome {
            Outcome::Measured(samples) => samples,
            Outcome::LeftOut(_) | Outcome::Failed(_) => &[],
        }
    }
}

fn method(options: &Options) -> String {
    format!(
        "Each proxy has one worker, pinned to core {}; load generator and backend are pinned to core {}. Loopback, HTTP/1.1 (but in `http2-128`), one \
         P-256 certificate, TLS 1.3 with TLS_AES_128_GCM_SHA256 and X25519 for all, access logs {} (but in `logged`). {} rounds of {} s count, \
         after one that warms up; a round runs every peer once, in an order that rotates (with many connections at most 2 \
         rounds, a fresh process each, {} s to settle before and after; of workers and names at most 3). CPU is that of all threads and processes of the proxy, user and system, \
         over the requests that were answered with 200 and a whole body; one request without that makes the cell `failed`. \
         Numbers are medians, with the least and the most. Ratios are peer over Evenkeel in the same round: a difference under \
         10 % is level, and a greater one that is not the same way in all rounds is undecided. Requests a second in brackets are what the load \
         generator could do, not the proxy; where it is not in brackets either may have been the limit. Memory is the \
         proportional set size: what the kernel holds for sockets is not in it.",
        options.proxy_core,
        options.load_core,
        if options.access_log == Switch::On {
            "on"
        } else {
            "off"
        },
        options.counted_rounds(),
        options.length(),
        SETTLE.as_secs(),
    )
}

/// Three figures, or all before the point.
fn digits(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => String::new(),
    }
}

fn line(text: &mut String, words: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{words}");
}
