//! One row for each way in which a backend misbehaves, beside two good ones and under traffic of
//! GET and POST: what the clients saw, what arrived, and how long until it was out and back.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use rustls::ServerConfig;
use rustls::version::TLS13;
use tokio::time::{Instant, sleep};

use crate::actor::{Actor, Part};
use crate::state;
use crate::support::require;
use crate::support::server::{Folder, Process, Server};
use crate::terminator::Terminator;
use crate::tls_backend::{Authority, Valid};
use crate::traffic::{Record, Target, Traffic};

/// How long a backend misbehaves.
const MISBEHAVES: Duration = Duration::from_millis(2_000);

/// It must be back in within this once it is good again: checks and a trial take less than 2 s.
const BACK_WITHIN: Duration = Duration::from_secs(15);

/// No client waits longer for whatever answer.
const DEADLINE: Duration = Duration::from_secs(4);

/// What clients may see of a misbehaviour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct May {
    /// GETs, which may be repeated, may fail.
    get: &'static [Seen],
    /// POSTs.
    post: &'static [Seen],
}

/// What a client saw that was no answer of a backend that works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Status(u16),
    /// The response broke off.
    Cut,
}

use Seen::{Cut, Status};

const NOTHING: &[Seen] = &[];

/// How a backend misbehaves.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Plays(Part),
    /// Gone and good in turn, so long each.
    Flaps(Duration),
    /// Gone for a moment, again and again, on the same address.
    Restarts,
    /// A process that is stopped.
    Stopped,
    /// All speak TLS, and this one has a certificate that has expired.
    Expired,
}

struct Row {
    name: &'static str,
    fault: Fault,
    may: May,
    /// It must have been out at some time.
    goes_out: bool,
}

/// What a row has shown.
struct Shown {
    gets: usize,
    posts: usize,
    /// What was seen, with how often.
    failed_gets: Vec<(String, usize)>,
    failed_posts: Vec<(String, usize)>,
    /// POSTs that came to a backend more than once.
    twice: usize,
    slowest: Duration,
    out_after: Option<(Duration, String)>,
    back_after: Option<Duration>,
}

fn rows() -> Vec<Row> {
    let row = |name, fault, goes_out, get, post| Row {
        name,
        fault,
        may: May { get, post },
        goes_out,
    };
    let plays = Fault::Plays;
    vec![
        row("refuses", plays(Part::Gone), true, NOTHING, &[Status(502)]),
        row(
            "accepts and hangs",
            plays(Part::Hangs),
            true,
            NOTHING,
            &[Status(504)],
        ),
        row("SIGSTOP", Fault::Stopped, true, NOTHING, &[Status(504)]),
        row(
            "resets in the head",
            plays(Part::ResetsInHead),
            true,
            &[Status(502)],
            &[Status(502)],
        ),
        row(
            "resets in the body",
            plays(Part::ResetsInBody),
            true,
            &[Cut],
            &[Cut],
        ),
        row(
            "closes after each",
            plays(Part::ClosesAfterEach),
            false,
            NOTHING,
            &[Status(502)],
        ),
        row(
            "500 to everything",
            plays(Part::Fails),
            true,
            NOTHING,
            &[Status(500)],
        ),
        row(
            "500 in bursts",
            plays(Part::FailsInBursts),
            false,
            NOTHING,
            &[Status(500)],
        ),
        row(
            "answers slowly",
            plays(Part::Slow(Duration::from_millis(80))),
            false,
            NOTHING,
            NOTHING,
        ),
        row(
            "stray bytes after it",
            plays(Part::Stray),
            false,
            NOTHING,
            NOTHING,
        ),
        row(
            "answers with TLS",
            plays(Part::SpeaksTls),
            true,
            &[Status(502)],
            &[Status(502)],
        ),
        // Connections that are there already are as good as before.
        row(
            "certificate expired",
            Fault::Expired,
            true,
            NOTHING,
            NOTHING,
        ),
        row(
            "flaps every second",
            Fault::Flaps(Duration::from_secs(1)),
            true,
            NOTHING,
            &[Status(502)],
        ),
        row(
            "restarts again and again",
            Fault::Restarts,
            false,
            NOTHING,
            &[Status(502)],
        ),
    ]
}

fn server(backends: &[SocketAddr], keys: &str) -> Server {
    let list: Vec<_> = backends.iter().map(|b| format!("\"{b}\"")).collect();
    Server::in_process(&format!(
        r#"
        [[listener]]
        address = "127.0.0.1:0"
        protocol = "http"
        [[service]]
        name = "web"
        discover = {{ static = [{}] }}
        {keys}
        try_timeout = "500ms"
        retry_on = {{ status = [500], methods = ["GET"] }}
        retry_budget_percent = 100
        retries = 2
        health = {{ http = "/healthz", interval = "200ms", timeout = "150ms", fall = 2 }}
        ejection = {{ status = ["5xx"], time = "500ms", max_time = "1s" }}
        [[route]]
        service = "web"
        "#,
        list.join(", "),
    ))
}

/// The one that misbehaves.
enum Villain {
    Actor(Actor),
    Process(Process, SocketAddr),
    Tls(Box<(Actor, Terminator, Authority)>),
}

/// What all backends of a row are called in their certificates.
const NAME: &str = "b.test";

fn config(authority: &Authority, valid: Valid) -> ServerConfig {
    authority.issue(&[NAME], valid).server(&[&TLS13], None)
}

impl Villain {
    async fn start(fault: Fault, authority: Authority) -> Villain {
        match fault {
            Fault::Expired => {
                let actor = Actor::start("villain");
                let config = config(&authority, Valid::Now);
                let terminator = Terminator::start(actor.address, config).await;
                Villain::Tls(Box::new((actor, terminator, authority)))
            }
            Fault::Stopped => {
                let address = crate::support::backend::nobody();
                let mut command = Command::new("python3");
                command
                    .arg("tests/scripts/ledger_backend.py")
                    .arg(address.port().to_string())
                    .stdin(Stdio::null());
                let process = Process::spawn(&mut command);
                Villain::Process(process, address)
            }
            _ => Villain::Actor(Actor::start("villain")),
        }
    }

    fn address(&self) -> SocketAddr {
        match self {
            Villain::Actor(actor) => actor.address,
            Villain::Process(_, address) => *address,
            Villain::Tls(tls) => tls.1.address,
        }
    }

    /// Misbehaves for [`MISBEHAVES`], and is good then.
    async fn misbehave(&self, fault: Fault) {
        let begun = Instant::now();
        match (self, fault) {
            (Villain::Actor(actor), Fault::Plays(part)) => {
                actor.play(part).await;
                sleep(MISBEHAVES).await;
            }
            (Villain::Actor(actor), Fault::Flaps(time)) => {
                while begun.elapsed() < MISBEHAVES {
                    actor.play(Part::Gone).await;
                    sleep(time).await;
                    actor.play(Part::Good).await;
                    sleep(time).await;
                }
            }
            (Villain::Actor(actor), Fault::Restarts) => {
                while begun.elapsed() < MISBEHAVES {
                    actor.play(Part::Gone).await;
                    actor.play(Part::Good).await;
                    sleep(Duration::from_millis(300)).await;
                }
            }
            (Villain::Process(process, _), _) => {
                process.signal(Signal::STOP);
                sleep(MISBEHAVES).await;
                process.signal(Signal::CONT);
            }
            (Villain::Tls(tls), _) => {
                let (_, terminator, authority) = &**tls;
                terminator.present(config(authority, Valid::Before));
                sleep(MISBEHAVES).await;
                terminator.present(config(authority, Valid::Now));
            }
            (Villain::Actor(_), _) => unreachable!("it is a process, or speaks TLS"),
        }
        if let Villain::Actor(actor) = self {
            actor.play(Part::Good).await;
        }
    }

    /// A process takes a moment.
    async fn await_listening(&self) {
        let begun = Instant::now();
        while tokio::net::TcpStream::connect(self.address())
            .await
            .is_err()
        {
            assert!(begun.elapsed() < BACK_WITHIN, "it does not listen");
            sleep(Duration::from_millis(10)).await;
        }
    }

    fn ids(&self) -> std::collections::HashMap<String, usize> {
        match self {
            Villain::Actor(actor) => actor.ids(),
            Villain::Tls(tls) => tls.0.ids(),
            Villain::Process(process, _) => {
                let mut ids = std::collections::HashMap::new();
                for id in process.access() {
                    *ids.entry(id).or_default() += 1;
                }
                ids
            }
        }
    }
}

async fn play(row: &Row) -> Shown {
    let (folder, authority) = (Folder::new(), Authority::new("ours"));
    let ca = authority.file(&folder, "ca.pem");
    let good = [Actor::start("good-1"), Actor::start("good-2")];
    let mut addresses: Vec<_> = good.iter().map(|actor| actor.address).collect();
    let (mut keys, mut terminators) = (String::new(), Vec::new());
    if let Fault::Expired = row.fault {
        let ca = ca.display();
        keys = format!("upstream = \"https\"\ntls = {{ ca = \"{ca}\", name = \"{NAME}\" }}");
        for address in &mut addresses {
            let terminator = Terminator::start(*address, config(&authority, Valid::Now)).await;
            *address = terminator.address;
            terminators.push(terminator);
        }
    }
    let villain = Villain::start(row.fault, authority).await;
    villain.await_listening().await;
    let backends = [villain.address(), addresses[0], addresses[1]];
    let server = tokio::task::spawn_blocking(move || server(&backends, &keys))
        .await
        .expect("it starts");
    let server = std::sync::Arc::new(server);
    let target = Target::plain(server.address());
    await_state(&server, villain.address(), "up", BACK_WITHIN).await;
    let traffic = Traffic::start(row.name, &target, 6, Duration::from_millis(4));
    sleep(Duration::from_millis(300)).await;

    let begun = Instant::now();
    let (out_after, ()) = tokio::join!(
        watch_out(&server, villain.address(), begun),
        villain.misbehave(row.fault)
    );
    let healed = Instant::now();
    let back = await_state(&server, villain.address(), "up", BACK_WITHIN).await;
    let back_after = back.then(|| healed.elapsed());
    // It gets requests again.
    sleep(Duration::from_millis(300)).await;
    let records = traffic.stop().await;

    let mut arrived = villain.ids();
    for actor in &good {
        for (id, count) in actor.ids() {
            *arrived.entry(id).or_default() += count;
        }
    }
    let (posts, gets): (Vec<_>, Vec<_>) = records.iter().partition(|r| r.id.is_some());
    Shown {
        gets: gets.len(),
        posts: posts.len(),
        failed_gets: failures(&gets),
        failed_posts: failures(&posts),
        twice: arrived.values().filter(|&&count| count > 1).count(),
        slowest: records
            .iter()
            .map(|r| r.done - r.sent)
            .max()
            .unwrap_or_default(),
        out_after,
        back_after,
    }
}

/// When it was seen to be out for the first time, and why; looks for as long as it misbehaves.
async fn watch_out(
    server: &std::sync::Arc<Server>,
    backend: SocketAddr,
    begun: Instant,
) -> Option<(Duration, String)> {
    while begun.elapsed() < MISBEHAVES {
        let (state, reason) = look(server, backend).await;
        if state != "up" {
            return Some((begun.elapsed(), format!("{state}: {reason}")));
        }
        sleep(Duration::from_millis(10)).await;
    }
    None
}

async fn await_state(
    server: &std::sync::Arc<Server>,
    backend: SocketAddr,
    wanted: &str,
    within: Duration,
) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < within {
        if look(server, backend).await.0 == wanted {
            return true;
        }
        sleep(Duration::from_millis(10)).await;
    }
    false
}

async fn look(server: &std::sync::Arc<Server>, backend: SocketAddr) -> (String, String) {
    let server = std::sync::Arc::clone(server);
    let looked = tokio::task::spawn_blocking(move || state(&server, backend));
    looked.await.expect("the probe answers")
}

/// What was seen by requests that were not answered with 200, and how often.
fn failures(records: &[&Record]) -> Vec<(String, usize)> {
    let mut seen: std::collections::BTreeMap<String, usize> = Default::default();
    for record in records.iter().filter(|record| record.failed()) {
        let what = match &record.outcome {
            Ok(status) => status.to_string(),
            Err(error) if error.contains("UnexpectedEof") => "cut".to_owned(),
            Err(error) => error.clone(),
        };
        *seen.entry(what).or_default() += 1;
    }
    seen.into_iter().collect()
}

/// What is wrong with what a row has shown.
fn faults(row: &Row, shown: &Shown) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut look = |kind: &str, seen: &[(String, usize)], may: &[Seen]| {
        for (what, count) in seen {
            let allowed = may.iter().any(|allowed| match allowed {
                Status(status) => *what == status.to_string(),
                Cut => what == "cut",
            });
            if !allowed {
                wrong.push(format!("{}: {count} {kind} saw {what}", row.name));
            }
        }
    };
    look("GETs", &shown.failed_gets, row.may.get);
    look("POSTs", &shown.failed_posts, row.may.post);
    if shown.twice > 0 {
        wrong.push(format!("{}: {} POSTs came twice", row.name, shown.twice));
    }
    if row.goes_out && shown.out_after.is_none() {
        wrong.push(format!("{}: it was never out", row.name));
    }
    if shown.back_after.is_none() {
        wrong.push(format!("{}: it is not back", row.name));
    }
    if shown.slowest > DEADLINE {
        wrong.push(format!("{}: a client waited {:?}", row.name, shown.slowest));
    }
    wrong
}

fn line(row: &Row, shown: &Shown) -> String {
    let list = |seen: &[(String, usize)]| match seen {
        [] => "0".to_owned(),
        seen => {
            let words = seen.iter().map(|(what, count)| format!("{count}×{what}"));
            words.collect::<Vec<_>>().join(" ")
        }
    };
    let out = shown.out_after.as_ref().map_or_else(
        || "-".to_owned(),
        |(after, why)| format!("{:.2} s {why}", after.as_secs_f64()),
    );
    let back = shown.back_after.map_or_else(
        || "never".to_owned(),
        |after| format!("{:.2} s", after.as_secs_f64()),
    );
    format!(
        "{:<26} {:>5} {:<10} {:>5} {:<12} {:>5} {:>7.2} s  {:<32} {:>8}",
        row.name,
        shown.gets,
        list(&shown.failed_gets),
        shown.posts,
        list(&shown.failed_posts),
        shown.twice,
        shown.slowest.as_secs_f64(),
        out,
        back,
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn matrix() {
    let mut rows = rows();
    if !require("python3") {
        rows.retain(|row| !matches!(row.fault, Fault::Stopped));
    }
    let rows = std::sync::Arc::new(rows);
    let mut table = format!(
        "\n{:<26} {:>5} {:<10} {:>5} {:<12} {:>5} {:>9}  {:<32} {:>8}\n",
        "backend 1 of 3",
        "GETs",
        "failed",
        "POSTs",
        "failed",
        "twice",
        "slowest",
        "out after",
        "back"
    );
    let mut wrong = Vec::new();
    // A few at a time: each has clients, three backends and a server of its own.
    for some in (0..rows.len()).collect::<Vec<_>>().chunks(5) {
        let playing: Vec<_> = some
            .iter()
            .map(|&index| {
                let rows = std::sync::Arc::clone(&rows);
                tokio::spawn(async move { play(&rows[index]).await })
            })
            .collect();
        for (playing, &index) in playing.into_iter().zip(some) {
            let shown = playing.await.expect("no row panics");
            let _ = writeln!(table, "{}", line(&rows[index], &shown));
            wrong.extend(faults(&rows[index], &shown));
        }
    }
    println!("{table}");
    assert!(wrong.is_empty(), "{wrong:#?}\n{table}");
}
