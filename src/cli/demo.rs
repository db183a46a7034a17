//! `evenkeel demo`: everything in one process, and a play in which backends join, die and leave.
//!
//! `demo/stage.rs` holds what runs (DNS zone, backends, balancer), `demo/traffic.rs` the client
//! that keeps the books. The balancer is the real one; the demo only changes DNS and kills
//! backends, and tells what the client saw.

mod stage;
mod traffic;

use std::fmt;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::{Instant, sleep, sleep_until};

use stage::{SERVICE, Stage};
use traffic::{CONNECTIONS, Ledger, RATE, Traffic, Window};

/// Arguments of `demo`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Needs no root, no network and no other program. It listens on loopback only and leaves nothing
behind. With --for it ends by itself: exit code 0 if every request was answered and every change
took effect, 1 if not. Without --for it goes on until Ctrl-C.")]
pub struct Args {
    /// Backends at the start, one standby besides
    #[arg(long, value_name = "NUMBER", default_value_t = 3,
          value_parser = clap::value_parser!(u16).range(2..=20))]
    pub backends: u16,
    /// Port of the balancer on 127.0.0.1; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 8443)]
    pub port: u16,
    /// End after about so long, 6s at least; below 16s it is a shorter play
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    pub duration: Option<Duration>,
}

/// Plays until the end or until it is interrupted.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    runtime.block_on(async {
        let cast = cast(args.backends);
        let stage = Stage::open(args.port, &cast_refs(&cast)).await?;
        let traffic = Traffic::start(stage.address(), &stage.ca)?;
        let mut play = Play {
            stage,
            traffic,
            start: Instant::now(),
            backends: args.backends,
            faults: Vec::new(),
            largest_distance: None,
        };
        play.print_opening()?;
        tokio::select! {
            played = play.perform(args.duration) => played?,
            ended = super::interrupted() => {
                ended?;
                super::line!("\n");
            }
        }
        play.finish().await
    })
}

struct Play {
    stage: Stage,
    traffic: Traffic,
    start: Instant,
    backends: u16,
    /// Changes that did not take effect.
    faults: Vec<String>,
    /// Between a measured share and its configured one, in percentage points.
    largest_distance: Option<f64>,
}

/// What is changed, and how the client sees that it is in effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scene {
    Opening,
    OneJoins,
    OneDies,
    OneIsBack,
    OneLeaves,
    AllDie,
    AllAreBack,
    /// As at the start: the one that left is listed again, the one that joined is not.
    Again,
}

const SHORT: &[Scene] = &[
    Scene::Opening,
    Scene::OneJoins,
    Scene::OneDies,
    Scene::OneLeaves,
];

const LONG: &[Scene] = &[
    Scene::Opening,
    Scene::OneJoins,
    Scene::OneDies,
    Scene::OneIsBack,
    Scene::OneLeaves,
    Scene::AllDie,
    Scene::AllAreBack,
];

/// How a change shows in the client's books.
enum Sign {
    /// All of these have answered since the change.
    AnswersFrom(Vec<String>),
    /// This one has stopped answering.
    SilenceOf(String),
}

impl fmt::Display for Sign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sign::AnswersFrom(names) if names.len() > 1 => f.write_str("all of them serve"),
            Sign::AnswersFrom(_) => f.write_str("first request to it"),
            Sign::SilenceOf(_) => f.write_str("last request to it"),
        }
    }
}

impl Play {
    async fn perform(&mut self, duration: Option<Duration>) -> anyhow::Result<()> {
        let Some(duration) = duration else {
            for scene in LONG.iter().chain(ENCORE.iter().cycle()) {
                self.play(*scene, Instant::now() + SCENE).await?;
            }
            return Ok(());
        };
        let scenes = if duration < LONG_FROM { SHORT } else { LONG };
        let each = duration / scenes.len() as u32;
        for (nth, scene) in (1..).zip(scenes) {
            self.play(*scene, self.start + each * nth).await?;
        }
        Ok(())
    }

    /// Makes a change, waits until it is in effect, and measures shares until `end`.
    async fn play(&mut self, scene: Scene, end: Instant) -> anyhow::Result<()> {
        let before = self.traffic.ledger();
        self.traffic.open_window();
        let began = Instant::now();
        super::print(format!("{:>6.1} s  ", (began - self.start).as_secs_f64()))?;
        let (text, sign) = self.change(scene).await?;
        // The rest of the line comes when the change is in effect.
        super::print(&text)?;
        match self.wait_for(&sign, began).await {
            Some(after) => super::line!(": {sign} after {:.2} s", after.as_secs_f64()),
            None => {
                super::line!(": NOT IN EFFECT after {} s", PATIENCE.as_secs());
                self.faults.push(text);
            }
        }
        let transition = self.traffic.ledger();
        self.traffic.open_window();
        sleep_until(end.max(Instant::now() + LEAST_WINDOW)).await;
        let measured = self.traffic.ledger();
        self.print_shares(&measured.window)?;
        super::line!(
            "            {} requests, {} failed, slowest {} ms\n",
            measured.answered + measured.failed - before.answered - before.failed,
            measured.failed - before.failed,
            transition
                .window
                .slowest
                .max(measured.window.slowest)
                .as_millis(),
        );
        Ok(())
    }

    async fn change(&mut self, scene: Scene) -> anyhow::Result<(String, Sign)> {
        let first = "b1".to_owned();
        let leaver = "b2".to_owned();
        let joiner = format!("b{}", self.backends + 1);
        let weight = 10 * (self.backends + 1);
        let stage = &mut self.stage;
        Ok(match scene {
            Scene::Opening => {
                let count = self.backends;
                let text = format!("{count} backends, and {STANDBY} on standby");
                (text, Sign::AnswersFrom(serving(stage)))
            }
            Scene::OneJoins => {
                match stage.players().iter().any(|p| p.name == joiner) {
                    true => stage.list(&joiner)?,
                    false => stage.enter(&joiner, 0, weight).await?,
                }
                let text = format!("{joiner} joins in DNS with weight {weight}");
                (text, Sign::AnswersFrom(vec![joiner]))
            }
            Scene::OneDies => {
                stage.kill(&first).await;
                let text = format!("{first} stops answering, DNS still lists it");
                (text, Sign::SilenceOf(first))
            }
            Scene::OneIsBack => {
                stage.revive(&first).await?;
                (
                    format!("{first} answers again"),
                    Sign::AnswersFrom(vec![first]),
                )
            }
            Scene::OneLeaves => {
                stage.delist(&leaver)?;
                (format!("{leaver} leaves DNS"), Sign::SilenceOf(leaver))
            }
            Scene::AllDie => {
                // A request that a dying backend had got already is tried again once. If they all
                // died at one moment, that second attempt could meet the same end.
                for name in serving(stage) {
                    stage.kill(&name).await;
                    self.traffic.turn_over().await;
                }
                let text = format!("all but {STANDBY} stop answering, one by one");
                (text, Sign::AnswersFrom(vec![STANDBY.into()]))
            }
            Scene::AllAreBack => {
                let names: Vec<_> = stage.players().iter().map(|p| p.name.clone()).collect();
                for name in names {
                    stage.revive(&name).await?;
                }
                let text = "they answer again".to_owned();
                (text, Sign::AnswersFrom(serving(stage)))
            }
            Scene::Again => {
                stage.list(&leaver)?;
                stage.delist(&joiner)?;
                let text = format!("{joiner} leaves DNS, {leaver} comes back");
                (text, Sign::SilenceOf(joiner))
            }
        })
    }

    /// How long after `began` the sign was seen.
    async fn wait_for(&self, sign: &Sign, began: Instant) -> Option<Duration> {
        while began.elapsed() < PATIENCE {
            sleep(LOOK_EVERY).await;
            let served = self.traffic.ledger().window.served;
            match sign {
                Sign::AnswersFrom(names) => {
                    let firsts = names.iter().map(|name| served.get(name).map(|s| s.first));
                    if let Some(firsts) = firsts.collect::<Option<Vec<_>>>() {
                        return firsts.into_iter().max().map(|latest| latest - began);
                    }
                }
                Sign::SilenceOf(name) => {
                    let last = served.get(name).map_or(began, |s| s.last);
                    // Not before DNS can have been asked again, and not while others are silent.
                    let quiet = last.elapsed() > QUIET && began.elapsed() > ONE_REFRESH;
                    if quiet && served.keys().any(|other| other != name) {
                        return Some(last - began);
                    }
                }
            }
        }
        None
    }

    fn print_opening(&self) -> std::io::Result<()> {
        let (dns, stage) = (self.stage.dns(), &self.stage);
        let port = stage.address().port();
        let metrics = stage.probe().map(|probe| format!("http://{probe}/metrics"));
        let metrics = metrics.unwrap_or_default();
        let dashboard = stage.dashboard().map(|page| format!("http://{page}/"));
        let dashboard = dashboard.unwrap_or_default();
        super::line!(
            "\
Evenkeel in one process: HTTPS in, DNS decides, kept-alive HTTP out.

  balancer  https://localhost:{port}, {RATE} requests a second over {CONNECTIONS} connections
  DNS       dig @{} -p {} {SERVICE} SRV
  dashboard {dashboard}
            to drain a backend there, the token is in {}
  terminal  evenkeel top --socket {}
  metrics   {metrics}
  try it    curl --cacert {} https://localhost:{port}/

Below: the share of the requests that each backend got, in brackets the share by its weight.
",
            dns.ip(),
            dns.port(),
            stage.token_file().display(),
            stage.socket().display(),
            stage.ca_file().display(),
        );
        Ok(())
    }

    fn print_shares(&mut self, measured: &Window) -> std::io::Result<()> {
        let total = measured.total();
        let expected = self.stage.expected();
        let mut parts = Vec::new();
        for player in self.stage.players() {
            let name = &player.name;
            let count = measured.served.get(name).map_or(0, |served| served.count);
            let share = 100.0 * count as f64 / total.max(1) as f64;
            let due = expected.iter().find(|(other, _)| other == name);
            let due = due.map(|(_, due)| 100.0 * due);
            let distance = (share - due.unwrap_or(0.0)).abs();
            self.largest_distance = Some(self.largest_distance.unwrap_or(0.0).max(distance));
            parts.push(match due {
                Some(due) => format!("{name} {share:.1} % ({due:.1})"),
                None if count > 0 => format!("{name} {share:.1} % (0.0)"),
                None if !player.listed => format!("{name} gone"),
                None if !player.answers() => format!("{name} down"),
                None => format!("{name} standby"),
            });
        }
        for line in parts.chunks(PARTS_IN_A_LINE) {
            super::line!("            {}", line.join("   "));
        }
        Ok(())
    }

    async fn finish(self) -> anyhow::Result<ExitCode> {
        let ledger = self.traffic.finish().await;
        let seconds = self.start.elapsed().as_secs_f64();
        self.stage.close()?;
        let shares = match self.largest_distance {
            Some(points) => format!("no share was further than {points:.2} points from its weight"),
            None => "it ended before a share was measured".to_owned(),
        };
        super::line!(
            "{} requests in {seconds:.1} s, {} failed; {shares}.",
            ledger.answered + ledger.failed,
            ledger.failed,
        );
        for (kind, count) in &ledger.failures {
            super::line!("Failed: {count} by {kind}");
        }
        for fault in &self.faults {
            super::line!("Not in effect: {fault}");
        }
        Ok(match is_success(&ledger, &self.faults) {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        })
    }
}

/// Did all go well?
fn is_success(ledger: &Ledger, faults: &[String]) -> bool {
    ledger.failed == 0 && ledger.answered > 0 && faults.is_empty()
}

fn serving(stage: &Stage) -> Vec<String> {
    let expected = stage.expected().into_iter();
    expected.map(|(name, _)| name.to_owned()).collect()
}

/// b1, b2, … with falling weights, and the standby.
fn cast(backends: u16) -> Vec<(String, u16, u16)> {
    let weigh = |n: u16| (format!("b{n}"), 0, 10 * (backends + 1 - n));
    let standby = (STANDBY.to_owned(), 10, 10);
    (1..=backends).map(weigh).chain([standby]).collect()
}

fn cast_refs(cast: &[(String, u16, u16)]) -> Vec<(&str, u16, u16)> {
    cast.iter().map(|(n, p, w)| (n.as_str(), *p, *w)).collect()
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    match duration >= SHORTEST {
        true => Ok(duration),
        false => {
            Err("6s at least: DNS is asked once a second, and each change takes its time".into())
        }
    }
}

/// What the standby is called.
const STANDBY: &str = "s1";

/// After the play, again and again.
const ENCORE: &[Scene] = &[
    Scene::Again,
    Scene::OneJoins,
    Scene::OneDies,
    Scene::OneIsBack,
    Scene::OneLeaves,
    Scene::AllDie,
    Scene::AllAreBack,
];

/// Of one scene when nobody said how long it all may take.
const SCENE: Duration = Duration::from_secs(6);

/// Four scenes of 1.5 s.
const SHORTEST: Duration = Duration::from_secs(6);

/// From here on there is time for seven scenes.
const LONG_FROM: Duration = Duration::from_secs(16);

/// Shares are measured for so long at least: 200 requests.
const LEAST_WINDOW: Duration = Duration::from_millis(500);

/// For a change to take effect: a backend that was passed over five times comes back after 10 s.
const PATIENCE: Duration = Duration::from_secs(15);

/// The client's books are looked at so often while a change is awaited.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A backend with a share of 1 % and more is heard of four times in it.
const QUIET: Duration = Duration::from_millis(300);

/// TTL of 1 s, 10 % of jitter, and a little for the answer.
const ONE_REFRESH: Duration = Duration::from_millis(1_200);

/// Backends to a line of shares.
const PARTS_IN_A_LINE: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failed_request_or_missing_effect_is_a_failure() {
        let ledger = |answered, failed| Ledger {
            answered,
            failed,
            ..Ledger::default()
        };
        assert!(is_success(&ledger(100, 0), &[]));
        assert!(!is_success(&ledger(100, 1), &[]));
        assert!(!is_success(&ledger(0, 0), &[]), "nothing was shown");
        assert!(!is_success(&ledger(100, 0), &["b4 joins".into()]));
    }

    #[test]
    fn the_play_needs_its_time() {
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert!(duration("5s").is_err());
        assert!(duration("long").is_err());
    }

    #[test]
    fn weights_fall_and_the_standby_is_last() {
        let cast = cast(3);
        let cast = cast_refs(&cast);
        let expected = [("b1", 0, 30), ("b2", 0, 20), ("b3", 0, 10), ("s1", 10, 10)];
        assert_eq!(cast, expected);
    }
}
