//! Two of five backends killed without notice under GETs, beside HAProxy with `option redispatch`,
//! `retries 3` and checks at the same interval. What each client saw is printed:
//!
//! ```text
//! cargo test --profile dist --test faults killed -- --nocapture
//! ```

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::actor::{Actor, Part};
use crate::support::backend::nobody;
use crate::support::require;
use crate::support::server::{Folder, Process, Server};
use crate::traffic::{Record, Target, Traffic};

/// Clients that send one request after the other, with a pause: some 5,000 requests a second where
/// the machine is fast enough.
const CLIENTS: usize = 52;
const PAUSE: Duration = Duration::from_millis(10);

/// The kill comes after the first second of these.
const SECONDS: u64 = 4;

/// What clients saw in one second.
struct Second {
    requests: usize,
    failed: usize,
    p99: Duration,
    slowest: Duration,
}

fn evenkeel(backends: &[SocketAddr]) -> Server {
    let list: Vec<_> = backends.iter().map(|b| format!("\"{b}\"")).collect();
    Server::binary(&format!(
        "workers = 1\n[[listener]]\naddress = \"127.0.0.1:0\"\nprotocol = \"http\"\n\
         [[service]]\nname = \"web\"\ndiscover = {{ static = [{}] }}\n\
         health = {{ http = \"/healthz\", interval = \"1s\" }}\n\
         [[route]]\nservice = \"web\"\n[log]\naccess = \"off\"\n",
        list.join(", ")
    ))
}

fn haproxy(folder: &Folder, backends: &[SocketAddr]) -> (Process, SocketAddr) {
    let address = nobody();
    let mut text = format!(
        "global\n  nbthread 1\ndefaults\n  mode http\n  timeout connect 1s\n  timeout client 75s\n  \
         timeout server 60s\n  option redispatch\n  retries 3\nfrontend f\n  bind {address}\n  \
         default_backend b\nbackend b\n  balance roundrobin\n  option httpchk GET /healthz\n"
    );
    for (number, backend) in backends.iter().enumerate() {
        let _ = writeln!(
            text,
            "  server s{number} {backend} check inter 1s fall 3 rise 2"
        );
    }
    let file = folder.write("haproxy.cfg", &text);
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(file).stdin(Stdio::null());
    (Process::spawn(&mut command), address)
}

/// What clients of `address` saw, second by second; the kill comes at the second one.
async fn observe(address: SocketAddr, backends: &[Actor]) -> Vec<Second> {
    let target = Target::plain(address);
    let begun = Instant::now();
    while tokio::net::TcpStream::connect(address).await.is_err() {
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "it does not listen"
        );
        sleep(Duration::from_millis(10)).await;
    }
    let traffic = Traffic::repeatable(&target, CLIENTS, PAUSE);
    // Connections are made, and code is loaded.
    sleep(Duration::from_millis(500)).await;
    let begun = Instant::now();
    sleep(Duration::from_secs(1)).await;
    for actor in &backends[..2] {
        actor.play(Part::Gone).await;
    }
    sleep(Duration::from_secs(SECONDS - 1)).await;
    let records = traffic.stop().await;
    for actor in &backends[..2] {
        actor.play(Part::Good).await;
    }
    let of = |second: u64| {
        let within = |record: &&Record| {
            record
                .sent
                .checked_duration_since(begun)
                .map(|at| at.as_secs())
                == Some(second)
        };
        let records: Vec<_> = records.iter().filter(within).collect();
        let mut took: Vec<_> = records.iter().map(|r| r.done - r.sent).collect();
        took.sort_unstable();
        Second {
            requests: records.len(),
            failed: records.iter().filter(|r| r.failed()).count(),
            p99: took.get(took.len() * 99 / 100).copied().unwrap_or_default(),
            slowest: took.last().copied().unwrap_or_default(),
        }
    };
    (0..SECONDS).map(of).collect()
}

fn table(name: &str, seconds: &[Second]) -> String {
    let mut text = String::new();
    for (number, second) in seconds.iter().enumerate() {
        let when = match number {
            0 => "calm",
            1 => "killed",
            _ => "after",
        };
        let _ = writeln!(
            text,
            "{name:<10} {when:<8} {:>8} {:>7} {:>9.2} {:>9.2}",
            second.requests,
            second.failed,
            second.p99.as_secs_f64() * 1e3,
            second.slowest.as_secs_f64() * 1e3,
        );
    }
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed() {
    let backends: Vec<_> = (0..5).map(|n| Actor::start(&format!("b{n}"))).collect();
    let addresses: Vec<_> = backends.iter().map(|actor| actor.address).collect();
    let mut text = format!(
        "\n{:<10} {:<8} {:>8} {:>7} {:>9} {:>9}\n",
        "2 of 5", "second", "GETs", "failed", "p99 ms", "most ms"
    );
    let ours = {
        let addresses = addresses.clone();
        let server = tokio::task::spawn_blocking(move || evenkeel(&addresses))
            .await
            .expect("it starts");
        observe(server.address(), &backends).await
    };
    text += &table("evenkeel", &ours);
    if require("haproxy") {
        let folder = Folder::new();
        let (_process, address) = haproxy(&folder, &addresses);
        text += &table("haproxy", &observe(address, &backends).await);
    }
    println!("{text}");
    let failed: usize = ours.iter().map(|second| second.failed).sum();
    assert_eq!(failed, 0, "{text}");
}
