//! slowhttptest in its four modes: others do not notice, memory stays bounded, the slow ones are
//! closed within their deadlines. All four at once with 250 connections each; one after the other
//! with 1,000 each, and printed:
//!
//! ```text
//! cargo test --profile dist --test faults slow -- --nocapture --include-ignored --test-threads 1
//! ```

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::ledger::{Keep, Ledger};
use crate::sum;
use crate::support::require;
use crate::support::server::Server;
use crate::traffic::{Record, Target, Traffic};

/// How each mode is called, what it is told, and what it asks for.
const MODES: [(&str, &[&str], &str); 4] = [
    ("slow headers", &["-H", "-i", "1", "-x", "8"], "/"),
    (
        "slow body",
        &["-B", "-i", "1", "-s", "100000", "-x", "8"],
        "/",
    ),
    ("range", &["-R", "-a", "5", "-b", "2000"], "/"),
    (
        "slow read",
        &[
            "-X", "-n", "1", "-w", "512", "-y", "1024", "-z", "32", "-k", "3",
        ],
        "/size/2000000",
    ),
];

/// A slow connection is closed long before this: 2 s for a head, or the first 5 s of grace for an
/// average rate. The rest is for a machine that builds something beside it.
const CLOSED_WITHIN: Duration = Duration::from_secs(25);

/// For so long each attack would go on.
const ATTACK_SECONDS: u64 = 60;

/// Memory that one slow connection may take: a whole head, a body under way, or the buffer of a
/// response (64 KiB), with what the allocator makes of it.
const MEMORY_EACH: u64 = 160 * 1024;

fn server(ledger: &Ledger) -> Server {
    Server::binary(&format!(
        "workers = 1\n[[listener]]\naddress = \"127.0.0.1:0\"\nprotocol = \"http\"\n\
         [defaults]\nheader_timeout = \"2s\"\nbody_timeout = \"2s\"\nstall_timeout = \"2s\"\n\
         keep_alive = \"2s\"\n\
         [[service]]\nname = \"web\"\ndiscover = {{ static = [\"127.0.0.1:{}\"] }}\n\
         [[route]]\nservice = \"web\"\n[log]\naccess = \"off\"\n",
        ledger.port(0)
    ))
}

fn attack(server: &Server, mode: usize, connections: usize, seconds: u64) -> Child {
    let (_, options, path) = MODES[mode];
    Command::new("slowhttptest")
        .args(options)
        .args([
            "-c",
            &connections.to_string(),
            "-r",
            &connections.to_string(),
        ])
        .args(["-l", &seconds.to_string(), "-p", "3", "-v", "0"])
        .args(["-u", &format!("http://{}{path}", server.address())])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it is installed")
}

/// 99th percentile, the slowest, and how many failed, of requests sent in a time.
fn figures(records: &[Record], from: Instant, to: Instant) -> (Duration, Duration, usize, usize) {
    let within: Vec<_> = records
        .iter()
        .filter(|record| record.sent >= from && record.done <= to)
        .collect();
    let mut took: Vec<_> = within.iter().map(|r| r.done - r.sent).collect();
    took.sort_unstable();
    (
        took.get(took.len() * 99 / 100).copied().unwrap_or_default(),
        took.last().copied().unwrap_or_default(),
        within.iter().filter(|record| record.failed()).count(),
        within.len(),
    )
}

/// Attacks with these modes at once, `connections` each; what others saw, and what it took.
async fn withstand(modes: &[usize], connections: usize) {
    let ledger = Ledger::start(&["b"], Keep::Counts);
    let mut server = server(&ledger);
    let target = Target::plain(server.address());
    let traffic = Traffic::repeatable(&target, 8, Duration::from_millis(5));
    let open = |server: &Server| sum(server, "evenkeel_open_connections", "downstream");
    sleep(Duration::from_millis(500)).await;
    let calm = Instant::now();
    sleep(Duration::from_secs(2)).await;
    let before = server.process().resident();
    let attacked = Instant::now();
    let mut attackers: Vec<_> = modes
        .iter()
        .map(|&mode| attack(&server, mode, connections, ATTACK_SECONDS))
        .collect();
    // Their connections are there, and gone again, while they would go on.
    let (mut most, mut memory) = (0.0_f64, before);
    let closed_after = loop {
        sleep(Duration::from_millis(100)).await;
        let now = open(&server);
        most = most.max(now);
        memory = memory.max(server.process().resident());
        let all = (connections * modes.len()) as f64;
        if most > all / 4.0 && now < all / 10.0 {
            break attacked.elapsed();
        }
        assert!(
            attacked.elapsed() < CLOSED_WITHIN,
            "{now} of {most} connections are still open"
        );
    };
    let over = Instant::now();
    for attacker in &mut attackers {
        // It may have ended by itself.
        let _ = attacker.kill();
        let _ = attacker.wait();
    }
    let records = traffic.stop().await;
    let names: Vec<_> = modes.iter().map(|&mode| MODES[mode].0).collect();
    let calm = figures(&records, calm, attacked);
    let slow = figures(&records, attacked, over);
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    println!(
        "{:<46} {connections} each: {most} open, closed after {:.1} s, {:.1} KiB each; \
         others p99 {:.2} ms (calm {:.2}), slowest {:.2} ms (calm {:.2}), {} of {} failed",
        names.join(", "),
        closed_after.as_secs_f64(),
        (memory - before) as f64 / most / 1024.0,
        ms(slow.0),
        ms(calm.0),
        ms(slow.1),
        ms(calm.1),
        slow.2,
        slow.3,
    );
    assert_eq!((calm.2, slow.2), (0, 0), "others failed");
    let bound = (most as u64) * MEMORY_EACH;
    assert!(memory - before < bound, "{} bytes more", memory - before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_clients_of_every_kind_at_once() {
    if require("slowhttptest") {
        withstand(&[0, 1, 2, 3], 250).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "four times ten seconds: for the figures"]
async fn slow_clients_of_one_kind() {
    if require("slowhttptest") {
        for mode in 0..MODES.len() {
            withstand(&[mode], 1_000).await;
        }
    }
}
