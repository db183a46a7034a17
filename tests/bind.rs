//! The whole thing against BIND: records added, reweighted, removed and put back with `nsupdate`
//! under traffic from curl, from Python and from this process, over HTTPS.
//!
//! Shown: no request fails; by the books of both sides no POST is lost and none arrives twice;
//! shares are those of the weights; every change is in effect within the times that are promised,
//! counted from the moment at which `nsupdate` returned.
//!
//! One test, because the steps build on each other. Each measured time is printed next to what
//! was promised.

#[path = "support/ledger.rs"]
mod ledger;
#[path = "support/name_servers.rs"]
mod name_servers;
mod support;
#[path = "support/traffic.rs"]
mod traffic;

use std::io::{BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep, sleep_until};

use ledger::{Arrival, Keep, Ledger};
use name_servers::{Kind, NameServer, ZONE};
use support::require;
use support::server::{Folder, Server, output_of};
use traffic::{Client, Target, Traffic};

const NAME: &str = "_http._tcp.web.svc.test";

/// TTL of all records and of negative answers, in seconds: the shortest that is taken as it is.
const TTL: u32 = 1;

/// One refresh: the TTL and a tenth.
const REFRESH: Duration = Duration::from_millis(1100);

/// After the refresh that finds it, a change is in effect within this.
const EFFECT: Duration = Duration::from_millis(500);

/// A test machine that is busy with something else may take this many times what is promised;
/// what it took is printed.
const LOADED: u32 = 3;

/// Requests that can be under way at one moment: curl's, three of Python's, two of this process.
const UNDER_WAY: f64 = 6.0;

/// Weights that the zone begins with, by backend.
const WEIGHTS: [u16; 4] = [30, 20, 10, 60];

#[tokio::test]
#[ignore = "half a minute with BIND: .ci/run runs it"]
async fn records_that_bind_changes_are_in_effect_in_time_and_lose_nothing() {
    for tool in ["named", "nsupdate", "curl", "python3"] {
        if !require(tool) {
            return;
        }
    }
    let ledger = Ledger::start(&["b1", "b2", "b3", "b4"], Keep::Arrivals);
    let named = NameServer::start(Kind::Bind);
    let hosts = (1..=4).map(|n| format!("update add b{n}.{ZONE} {TTL} A 127.0.0.1"));
    let first_three = (0..3).map(|b| add(&ledger, b, WEIGHTS[b]));
    update(&named, hosts.chain(first_three).collect()).await;

    let folder = Folder::new();
    let certificate = folder.certificate("dev", &["localhost"]);
    let mut server = Server::binary(&format!(
        r#"
workers = 1
[dns]
servers = ["{}"]
[log]
access = "off"
[[listener]]
address = "127.0.0.1:0"
protocol = "https"
certificates = [{}]
[[service]]
name = "web"
discover = {{ srv = "{NAME}" }}
[[route]]
service = "web"
"#,
        named.address,
        certificate.entry()
    ));
    let target = Target::tls(server.address(), &certificate.ca);
    let mut client = Client::new(target.clone());
    until_served(&mut client).await;

    let port = server.address().port();
    let curl = Curl::start(port, &certificate.ca);
    let python = Python::start(port, &certificate.ca);
    let steady = Traffic::start("steady", &target, 2, Duration::from_millis(4));

    // Shares, with everybody's requests counted.
    let before = ledger.counts();
    let begun = Instant::now();
    let mut asking = JoinSet::new();
    for _ in 0..4 {
        let mut client = Client::new(target.clone());
        asking.spawn(async move { ask(&mut client, 2_500).await });
    }
    while let Some(asked) = asking.join_next().await {
        asked.expect("every request is answered");
    }
    println!("10000 requests took {:.1?}", begun.elapsed());
    // On a slow machine this one was idle for longer than connections are kept.
    client.hang_up();
    expect_shares(&since(&ledger, &before), &[30, 20, 10, 0]);

    // Promise and measured time of each change.
    let mut times = Vec::new();
    let soon = REFRESH + EFFECT;

    let at = update(&named, vec![add(&ledger, 3, WEIGHTS[3])]).await;
    let joined = first_request(&ledger, 3, at, soon).await;
    times.push(("add", soon, joined));
    let before = ledger.counts();
    ask(&mut client, 1_200).await;
    expect_shares(&since(&ledger, &before), &WEIGHTS);

    // So heavy that a row of requests to it tells that the weight is in effect.
    let heavy = 6_000;
    let at = update(
        &named,
        vec![remove(&ledger, 3, WEIGHTS[3]), add(&ledger, 3, heavy)],
    )
    .await;
    let reweighted = first_row(&ledger, 3, at, soon).await;
    times.push(("reweight", soon, reweighted));
    let before = ledger.counts();
    ask(&mut client, 2_000).await;
    expect_shares(&since(&ledger, &before), &[30, 20, 10, heavy]);

    let at = update(&named, vec![remove(&ledger, 3, heavy)]).await;
    let left = last_request(&ledger, &[3], at, soon).await;
    times.push(("remove one of four", soon, left));
    until("connections to a removed backend close", || {
        ledger.open()[3] == 0
    })
    .await;

    let at = update(&named, vec![add(&ledger, 3, WEIGHTS[3])]).await;
    let back = first_request(&ledger, 3, at, soon).await;
    times.push(("re-add", soon, back));

    // More than half of the backends: believed when the next answer says the same.
    let promised = soon + REFRESH;
    let gone = [1, 2, 3];
    let at = update(
        &named,
        gone.map(|b| remove(&ledger, b, WEIGHTS[b])).to_vec(),
    )
    .await;
    let left = last_request(&ledger, &gone, at, promised).await;
    times.push(("remove three of four", promised, left));

    let at = update(&named, gone.map(|b| add(&ledger, b, WEIGHTS[b])).to_vec()).await;
    let mut back = Duration::ZERO;
    for backend in gone {
        back = back.max(first_request(&ledger, backend, at, soon).await);
    }
    times.push(("re-add three", soon, back));

    // From here on requests must fail for a while: the others stop first.
    let reports = [curl.stop(), python.stop()];
    let steady = steady.stop().await;

    // Alone, one client gets the schedule itself.
    let before = ledger.counts();
    ask(&mut client, 1_200).await;
    let counts = since(&ledger, &before);
    for (backend, (count, weight)) in counts.iter().zip(WEIGHTS).enumerate() {
        let due = 1_200 * u64::from(weight) / 120;
        assert!(
            count.abs_diff(due) <= 1,
            "b{}: {count} of {due}",
            backend + 1
        );
    }

    // A name that is emptied is believed after three answers; until then everybody is served.
    let promised = 3 * REFRESH + EFFECT;
    let at = update(&named, vec![format!("update delete {NAME} SRV")]).await;
    let emptied = loop {
        let answer = client.get("/").await.expect("a response");
        if answer.status == 503 {
            break at.elapsed();
        }
        assert_eq!(answer.status, 200);
        assert!(
            at.elapsed() < promised * LOADED,
            "never emptied: {:#?}",
            server.process().log()
        );
        sleep(Duration::from_millis(5)).await;
    };
    times.push(("empty", promised, emptied));
    assert_eq!(client.get("/").await.expect("a response").status, 503);
    let at = update(&named, vec![add(&ledger, 0, WEIGHTS[0])]).await;
    let served = loop {
        let answer = client.get("/").await.expect("a response");
        if answer.status == 200 {
            break at.elapsed();
        }
        assert!(
            at.elapsed() < soon * LOADED,
            "never back: {:#?}",
            server.process().log()
        );
        sleep(Duration::from_millis(5)).await;
    };
    times.push(("re-add to an empty name", soon, served));

    for (change, promised, measured) in &times {
        println!("{change}: in effect after {measured:.2?} (promised {promised:.2?})");
    }
    for (change, promised, measured) in &times {
        assert!(
            *measured <= *promised * LOADED,
            "{change} took {measured:?}"
        );
    }
    let mut confirmed = Vec::new();
    let mut unknown = Vec::new();
    let mut failures = Vec::new();
    for report in reports {
        println!("{:?}", report.requests);
        for (habit, requests) in &report.requests {
            assert!(
                *requests > 50,
                "too few to show anything: {habit} {requests}"
            );
        }
        confirmed.extend(report.confirmed);
        unknown.extend(report.unknown);
        failures.extend(report.failures);
    }
    println!("this process: {} requests", steady.len());
    for record in steady {
        if record.failed() {
            failures.push(format!("steady: {record:?}"));
        }
        if let Some(id) = record.id {
            match record.outcome {
                Ok(200) => confirmed.push(id),
                _ => unknown.push(id),
            }
        }
    }
    assert!(
        failures.is_empty(),
        "{failures:#?}\n{:#?}",
        server.process().log()
    );
    assert_eq!(ledger.damaged(), Vec::<String>::new());
    let audit = ledger.audit(&confirmed, &unknown);
    println!("{} POSTs, each arrived once", audit.posts);
    audit.expect_agreement();
}

/// Adds the record of a backend.
fn add(ledger: &Ledger, backend: usize, weight: u16) -> String {
    let (port, host) = (ledger.port(backend), ledger.name(backend));
    format!("update add {NAME} {TTL} SRV 0 {weight} {port} {host}.{ZONE}.")
}

/// Removes the record of a backend, which has that weight.
fn remove(ledger: &Ledger, backend: usize, weight: u16) -> String {
    let (port, host) = (ledger.port(backend), ledger.name(backend));
    format!("update delete {NAME} SRV 0 {weight} {port} {host}.{ZONE}.")
}

/// Sends so many requests, one after the other.
async fn ask(client: &mut Client, requests: usize) {
    for _ in 0..requests {
        let answer = client.get("/").await.expect("a response");
        assert_eq!(answer.status, 200);
    }
}

/// Requests by backend since `before`.
fn since(ledger: &Ledger, before: &[u64]) -> Vec<u64> {
    let counts = ledger.counts();
    let both = counts.iter().zip(before);
    both.map(|(now, before)| now - before).collect()
}

/// Each share is that of the weight to 1 %, give or take the requests that were under way when
/// the counting began or ended.
fn expect_shares(counts: &[u64], weights: &[u16]) {
    let requests = counts.iter().sum::<u64>() as f64;
    let weight = weights.iter().map(|w| f64::from(*w)).sum::<f64>();
    println!("{requests} requests over weights {weights:?}: {counts:?}");
    for (count, share) in counts.iter().zip(weights) {
        let due = requests * f64::from(*share) / weight;
        let off = (*count as f64 - due).abs();
        assert!(
            off <= due * 0.01 + UNDER_WAY,
            "{counts:?} for {weights:?}: {count}, {due:.1} are due"
        );
    }
}

/// Waits for a condition that must come true.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + support::PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until requests are served: discovery's first answer is there.
async fn until_served(client: &mut Client) {
    let deadline = Instant::now() + support::PATIENCE;
    while client.get("/").await.expect("a response").status != 200 {
        assert!(Instant::now() < deadline, "never served");
        sleep(Duration::from_millis(5)).await;
    }
}

/// How long after `at` the first request came to `backend`.
async fn first_request(
    ledger: &Ledger,
    backend: usize,
    at: Instant,
    promised: Duration,
) -> Duration {
    let to_it = |arrivals: &[Arrival]| {
        let mut later = arrivals.iter().filter(|a| a.at > at);
        later.find(|a| a.backend == backend).map(|a| a.at - at)
    };
    first(ledger, at, promised, to_it).await
}

/// How long after `at` the first of eight requests in a row came to `backend`.
async fn first_row(ledger: &Ledger, backend: usize, at: Instant, promised: Duration) -> Duration {
    let row = |arrivals: &[Arrival]| {
        let later: Vec<_> = arrivals.iter().filter(|a| a.at > at).collect();
        let row = |row: &&[&Arrival]| row.iter().all(|a| a.backend == backend);
        later.windows(8).find(row).map(|row| row[0].at - at)
    };
    first(ledger, at, promised, row).await
}

async fn first(
    ledger: &Ledger,
    at: Instant,
    promised: Duration,
    look: impl Fn(&[Arrival]) -> Option<Duration>,
) -> Duration {
    loop {
        if let Some(after) = look(&ledger.arrivals()) {
            return after;
        }
        assert!(
            at.elapsed() < promised * LOADED,
            "not after {:?}",
            at.elapsed()
        );
        sleep(Duration::from_millis(20)).await;
    }
}

/// How long after `at` the last request came to any of `backends`. Waits until nothing has come
/// to them for longer than the promised time, so that one that comes later is seen.
async fn last_request(
    ledger: &Ledger,
    backends: &[usize],
    at: Instant,
    promised: Duration,
) -> Duration {
    let last = |arrivals: &[Arrival]| {
        let to_them = arrivals
            .iter()
            .rev()
            .find(|a| backends.contains(&a.backend));
        to_them.map_or(at, |a| a.at.max(at))
    };
    let mut until = at + promised;
    loop {
        sleep_until(until).await;
        let seen = last(&ledger.arrivals());
        if until - seen >= REFRESH {
            return seen - at;
        }
        assert!(
            at.elapsed() < promised * LOADED,
            "still asked after {:?}",
            at.elapsed()
        );
        until = seen + REFRESH;
    }
}

/// Makes these changes, all at once; the moment at which `nsupdate` was done with it.
async fn update(named: &NameServer, changes: Vec<String>) -> Instant {
    let commands = format!(
        "server {} {}\nzone {ZONE}.\n{}\nsend\n",
        named.address.ip(),
        named.address.port(),
        changes.join("\n")
    );
    let key = named.key_file();
    spawn_blocking(move || {
        let mut nsupdate = Command::new("nsupdate");
        nsupdate.args(["-t", "10", "-k"]).arg(key);
        let output = output_of(&mut nsupdate, commands.clone().into_bytes());
        let at = Instant::now();
        assert!(output.status.success(), "{commands}{output:?}");
        at
    })
    .await
    .expect("nsupdate succeeds")
}

/// What a client of another program's has seen.
#[derive(Debug, Default, serde::Deserialize)]
struct Report {
    requests: std::collections::BTreeMap<String, usize>,
    failures: Vec<String>,
    /// Ids of POSTs that were answered with 200, and of those that were not.
    confirmed: Vec<String>,
    unknown: Vec<String>,
}

/// Traffic from Python's standard library (`scripts/client.py`).
struct Python {
    child: Child,
    /// Closed: it stops.
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Python {
    fn start(port: u16, ca: &Path) -> Python {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts/client.py");
        let mut child = Command::new("python3")
            .arg(script)
            .arg(port.to_string())
            .arg(ca)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 can be run");
        let stdin = child.stdin.take().expect("it is piped");
        let stdout = child.stdout.take().expect("it is piped");
        Python {
            child,
            stdin,
            stdout: BufReader::new(stdout),
        }
    }

    fn stop(mut self) -> Report {
        drop(self.stdin);
        let mut said = String::new();
        self.stdout.read_to_string(&mut said).expect("UTF-8");
        let status = self.child.wait().expect("it is our child");
        assert!(status.success(), "client.py: {status}");
        serde_json::from_str(&said).expect("it reports in JSON")
    }
}

/// Traffic from curl: one run after the other, every one with a handful of requests on one
/// connection or, in turn, on a connection each.
struct Curl {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Report>,
}

impl Curl {
    /// Requests of one run.
    const REQUESTS: usize = 12;

    fn start(port: u16, ca: &Path) -> Curl {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, ca) = (Arc::clone(&stop), ca.to_owned());
        let thread = std::thread::spawn(move || {
            let mut report = Report::default();
            for run in 0.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                Curl::run(run, port, &ca, &mut report);
                support::pause(Duration::from_millis(30));
            }
            report
        });
        Curl { stop, thread }
    }

    fn run(run: usize, port: u16, ca: &Path, report: &mut Report) {
        let keep_alive = run.is_multiple_of(2);
        let mut config = String::new();
        let mut ids = Vec::new();
        for request in 0..Curl::REQUESTS {
            if request > 0 {
                config += "next\n";
            }
            config += &format!(
                "url = \"https://localhost:{port}/\"\ncacert = \"{}\"\nsilent\nmax-time = 10\n\
                 output = \"/dev/null\"\nwrite-out = \"%{{http_code}} %{{errormsg}}\\n\"\n",
                ca.display()
            );
            if !keep_alive {
                config += "header = \"Connection: close\"\n";
            }
            let id = (request % 2 == 1).then(|| format!("curl-{run}-{request}"));
            if let Some(id) = &id {
                let padding = "x".repeat(request * 100);
                config += &format!("header = \"X-Id: {id}\"\ndata = \"{id}:{padding}\"\n");
            }
            ids.push(id);
        }
        let mut child = Command::new("curl")
            // Not the configuration of whoever runs the tests.
            .args(["--disable", "--config", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("curl can be run");
        let mut stdin = child.stdin.take().expect("it is piped");
        stdin.write_all(config.as_bytes()).expect("it reads");
        drop(stdin);
        let output = child.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&output.stdout);
        let mut results = said.lines();
        for (request, id) in ids.into_iter().enumerate() {
            let result = results.next().unwrap_or("nothing was printed");
            let habit = if keep_alive { "keep_alive" } else { "close" };
            *report.requests.entry(habit.to_owned()).or_default() += 1;
            let answered = result.starts_with("200 ");
            if !answered {
                let failure = format!("curl run {run} {habit} #{request}: {result}");
                report.failures.push(failure);
            }
            match (id, answered) {
                (Some(id), true) => report.confirmed.push(id),
                (Some(id), false) => report.unknown.push(id),
                (None, _) => {}
            }
        }
    }

    fn stop(self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("it does not panic")
    }
}
