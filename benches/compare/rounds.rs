//! Rounds: each runs every peer once, in an order that rotates, so that what changes on the machine meets all of them alike.

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::fleet::{Bench, Running, Wish};
use crate::http2;
use crate::measure;
use crate::names;
use crate::peers::{Backends, Peer};
use crate::process::Process;
use crate::sample::Sample;
use crate::scenario::{Figure, Front, Kind, Scenario};

/// What a peer did in a scenario.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Column {
    pub peer: Peer,
    pub outcome: Outcome,
}

/// A number for each round, or why there is none.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Measured(Vec<Sample>),
    /// It cannot do this.
    LeftOut(String),
    /// The first error.
    Failed(String),
}

/// Proxies that run from one scenario to the next.
#[derive(Debug, Default)]
pub struct Fleet {
    backend: Option<Process>,
    proxies: Vec<Running>,
}

/// The rounds of one scenario.
#[derive(Debug, Clone, Copy)]
struct Plan {
    warm_up: bool,
    counted: u32,
    seconds: f64,
}

/// Most rounds where many connections are opened: that takes long, and memory does not waver as time does.
const MANY_CONNECTIONS_ROUNDS: u32 = 2;

/// Most rounds where a round is several runs, so that the whole stays within half an hour.
const STARTED_ANEW_ROUNDS: u32 = 3;

/// Length of a run that is not counted, in seconds.
const WARM_UP: f64 = 1.0;

/// Ports of the scenario with names: the name server, and the backends at their own addresses.
const NAMES_PORT: u16 = 100;
const BACKENDS_PORT: u16 = 101;

impl Plan {
    fn of(bench: &Bench<'_>, kind: &Kind) -> Plan {
        let options = bench.options;
        let counted = options.counted_rounds();
        let most = match kind {
            Kind::Traffic(_) | Kind::Front(_) | Kind::Logged => counted,
            Kind::Held(_) | Kind::FewActive => MANY_CONNECTIONS_ROUNDS,
            Kind::Workers | Kind::Names => STARTED_ANEW_ROUNDS,
            // They are counted, not timed.
            Kind::Calls(_) => 1,
        };
        Plan {
            warm_up: matches!(kind, Kind::Traffic(_) | Kind::Front(_) | Kind::Names),
            counted: counted.min(most),
            seconds: options.length(),
        }
    }
}

/// Runs a scenario.
pub fn run(bench: &Bench<'_>, fleet: &mut Fleet, scenario: &Scenario) -> Result<Vec<Column>> {
    let plan = Plan::of(bench, &scenario.kind);
    let figure = scenario.figure;
    match &scenario.kind {
        Kind::Traffic(traffic) => {
            fleet.backend(bench)?;
            rounds(bench, plan, figure, |peer, seconds| {
                let proxy = fleet.get(bench, peer)?;
                measure::traffic(bench, proxy, traffic, seconds)
            })
        }
        Kind::Held(layer) => {
            fleet.backend(bench)?;
            rounds(bench, plan, figure, |peer, _| {
                fleet.stop(peer);
                let proxy = fleet.get(bench, peer)?;
                let sample = measure::held(bench, proxy, *layer);
                fleet.stop(peer);
                sample
            })
        }
        Kind::FewActive => {
            fleet.backend(bench)?;
            rounds(bench, plan, figure, |peer, seconds| {
                fleet.stop(peer);
                let proxy = fleet.get(bench, peer)?;
                let sample = measure::few_active(bench, proxy, seconds);
                fleet.stop(peer);
                sample
            })
        }
        Kind::Calls(layer) => {
            fleet.backend(bench)?;
            rounds(bench, plan, figure, |peer, seconds| {
                measure::calls(bench, fleet.get(bench, peer)?, *layer, seconds)
            })
        }
        Kind::Workers => {
            fleet.stop_all();
            let _backend = bench.backend(&[bench.backend_address()], false)?;
            let wish = |workers| Wish {
                workers,
                pinned: false,
                ..Wish::usual(bench)
            };
            rounds(bench, plan, figure, |peer, seconds| {
                let one = || bench.proxy(peer, &wish(1));
                let two = || bench.proxy(peer, &wish(2));
                measure::workers(bench, one, two, seconds)
            })
        }
        Kind::Logged => {
            fleet.stop_all();
            let _backend = bench.backend(&[bench.backend_address()], true)?;
            let wish = |access_log| Wish {
                access_log,
                ..Wish::usual(bench)
            };
            rounds(bench, plan, figure, |peer, seconds| {
                let without = || bench.proxy(peer, &wish(false));
                let with = || bench.proxy(peer, &wish(true));
                measure::logged(bench, without, with, seconds)
            })
        }
        Kind::Names => {
            fleet.stop_all();
            let port = bench.options.ports + BACKENDS_PORT;
            let _backend = bench.backend(&names::backends(port), true)?;
            let server = bench.at(NAMES_PORT);
            let _names = bench.names(server, port)?;
            let wish = Wish {
                backends: Backends::Srv {
                    name: names::SERVICE.to_owned(),
                    server,
                    most: usize::from(names::BACKENDS),
                },
                ..Wish::usual(bench)
            };
            let mut proxies = Own::default();
            rounds(bench, plan, figure, |peer, seconds| {
                // NGINX does from 1.27.3 on.
                let why = "it does not follow SRV records in this version, as it is given away";
                ensure!(peer.follows_srv(), Cannot(why));
                measure::names(bench, proxies.get(bench, peer, &wish)?, seconds)
            })
        }
        Kind::Front(front) => {
            fleet.stop_all();
            let _backend = bench.backend(&[bench.backend_address()], true)?;
            let wish = Wish {
                front: *front,
                ..Wish::usual(bench)
            };
            let mut proxies = Own::default();
            rounds(bench, plan, figure, |peer, seconds| {
                if let Some(why) = peer.cannot(*front) {
                    bail!(Cannot(why));
                }
                let proxy = proxies.get(bench, peer, &wish)?;
                match front {
                    Front::Http2 => http2::measure(bench, proxy, seconds),
                    Front::Http1 | Front::Tcp => measure::kept(bench, proxy, seconds),
                }
            })
        }
    }
}

/// Why a peer is left out of a scenario.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Cannot(&'static str);

/// Proxies of one scenario alone, since they are not as always.
#[derive(Debug, Default)]
struct Own(Vec<Running>);

impl Own {
    /// A proxy, started if it does not run.
    fn get(&mut self, bench: &Bench<'_>, peer: Peer, wish: &Wish) -> Result<&Running> {
        if !self.0.iter().any(|proxy| proxy.peer == peer) {
            self.0.push(bench.proxy(peer, wish)?);
        }
        let proxy = self.0.iter().find(|proxy| proxy.peer == peer);
        proxy.context("it was started above")
    }
}

impl Fleet {
    /// Ends all that run.
    pub fn stop_all(&mut self) {
        self.proxies.clear();
        self.backend = None;
    }

    fn stop(&mut self, peer: Peer) {
        self.proxies.retain(|proxy| proxy.peer != peer);
    }

    fn backend(&mut self, bench: &Bench<'_>) -> Result<()> {
        if self.backend.is_none() {
            self.backend = Some(bench.backend(&[bench.backend_address()], true)?);
        }
        Ok(())
    }

    /// A proxy, started if it does not run.
    fn get(&mut self, bench: &Bench<'_>, peer: Peer) -> Result<&Running> {
        self.proxies
            .retain_mut(|proxy| proxy.peer != peer || proxy.process.runs());
        if !self.proxies.iter().any(|proxy| proxy.peer == peer) {
            self.proxies.push(bench.proxy(peer, &Wish::usual(bench))?);
        }
        let proxy = self.proxies.iter().find(|proxy| proxy.peer == peer);
        proxy.context("it was started above")
    }
}

fn rounds(
    bench: &Bench<'_>,
    plan: Plan,
    figure: Figure,
    mut one: impl FnMut(Peer, f64) -> Result<Sample>,
) -> Result<Vec<Column>> {
    let peers = bench.programs.iter().map(|program| program.peer);
    let mut columns: Vec<Column> = peers
        .map(|peer| Column {
            peer,
            outcome: Outcome::Measured(Vec::new()),
        })
        .collect();
    let first = if plan.warm_up { 0 } else { 1 };
    for round in first..=plan.counted {
        let seconds = match round {
            0 => plan.seconds.min(WARM_UP),
            _ => plan.seconds,
        };
        let mut said = Vec::new();
        let places = columns.len();
        for place in 0..places {
            let column = &mut columns[(place + round as usize) % places];
            let Outcome::Measured(samples) = &mut column.outcome else {
                continue;
            };
            match one(column.peer, seconds) {
                Ok(sample) => {
                    let number = figure.of(&sample).unwrap_or_default();
                    said.push(format!("{} {number:.1}", column.peer));
                    if round > 0 {
                        samples.push(sample);
                    }
                }
                Err(error) if error.is::<Cannot>() => {
                    column.outcome = Outcome::LeftOut(error.to_string());
                }
                Err(error) => {
                    said.push(format!("{} failed: {error:#}", column.peer));
                    column.outcome = Outcome::Failed(format!("{error:#}"));
                }
            }
        }
        let name = match round {
            0 => "warm-up".to_owned(),
            _ => format!("round {round} of {}", plan.counted),
        };
        eprintln!("  {name}: {}", said.join(", "));
    }
    Ok(columns)
}
