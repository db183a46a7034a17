//! Reload after reload, half of them broken, while clients ask, tunnels talk and downloads go on.

use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::time::Instant;

use crate::service;
use crate::support::backend::Backend;
use crate::support::client::Client;
use crate::support::server::{Folder, Process, binary};
use crate::support::{PATIENCE, pause, wait_until};

/// How often, unless `EVENKEEL_RELOADS` says otherwise.
const RELOADS: usize = 1_000;

/// Requests per second of all clients together.
const RATE: u32 = 2_000;

/// Clients that ask, tunnels that talk, and downloads, at once.
const CLIENTS: u32 = 16;
const TUNNELS: usize = 4;
const DOWNLOADS: usize = 3;

/// More than is read of a download while the test goes on.
const LENGTH: u64 = 64 << 30;

/// What the clients saw.
#[derive(Default)]
struct Seen {
    over: AtomicBool,
    requests: AtomicUsize,
    echoes: AtomicUsize,
    bytes: AtomicUsize,
}

/// A backend that answers, tunnels and sends without end.
fn backend(name: &'static str) -> Backend {
    Backend::custom(name, move |mut stream: TcpStream| {
        let mut input = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            match stream.read(&mut buffer) {
                Ok(n @ 1..) => input.extend_from_slice(&buffer[..n]),
                _ => return,
            }
            if !input.ends_with(b"\r\n\r\n") {
                continue;
            }
            let head = String::from_utf8_lossy(&input).into_owned();
            input.clear();
            if head.to_lowercase().contains("upgrade: websocket") {
                let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\
                              Upgrade: websocket\r\n\r\n";
                if stream.write_all(switch.as_bytes()).is_err() {
                    return;
                }
                let mut other = match stream.try_clone() {
                    Ok(other) => other,
                    Err(_) => return,
                };
                let _ = std::io::copy(&mut stream, &mut other);
                return;
            }
            if head.contains("/big") {
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n");
                let _ = stream.write_all(answer.as_bytes());
                while stream.write_all(&[b'x'; 16 * 1024]).is_ok() {}
                return;
            }
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}",
                name.len()
            );
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    })
}

/// Asks again and again at its pace, over one connection, a new one only when it is told to close.
fn ask(address: SocketAddr, seen: &Seen) {
    let pace = Duration::from_secs(1) * CLIENTS / RATE;
    let mut client = Client::plain(address);
    let mut next = Instant::now();
    while !seen.over.load(Ordering::Relaxed) {
        let answer = client.get("x", "/web").expect("no request is lost");
        assert_eq!(answer.status(), 200);
        if answer.field("connection") == Some("close") {
            client = Client::plain(address);
        }
        seen.requests.fetch_add(1, Ordering::Relaxed);
        next += pace;
        pause(next.saturating_duration_since(Instant::now()));
    }
}

/// Says something every 10 ms and hears it back.
fn talk(address: SocketAddr, seen: &Seen) {
    let mut tunnel = Client::plain(address);
    tunnel
        .send("GET /web HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(tunnel.response().expect("it answers").status(), 101);
    while !seen.over.load(Ordering::Relaxed) {
        tunnel.send("are you there?");
        let heard = tunnel.exactly(14).expect("no tunnel is cut");
        assert_eq!(heard, b"are you there?");
        seen.echoes.fetch_add(1, Ordering::Relaxed);
        pause(Duration::from_millis(10));
    }
}

/// Reads a long response slowly.
fn download(address: SocketAddr, seen: &Seen) {
    let mut tcp = TcpStream::connect(address).expect("it listens");
    tcp.set_read_timeout(Some(PATIENCE))
        .expect("it is not zero");
    tcp.write_all(b"GET /web/big HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("it is open");
    let mut buffer = vec![0; 16 * 1024];
    while !seen.over.load(Ordering::Relaxed) {
        let n = tcp.read(&mut buffer).expect("no download is cut");
        assert!(n > 0, "no download is cut");
        seen.bytes.fetch_add(n, Ordering::Relaxed);
        pause(Duration::from_millis(5));
    }
}

fn number(page: &str, series: &str) -> usize {
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map_or(0, |value| value.parse().expect("it is a number"))
}

/// The binary, its file, and where it is asked.
struct Site {
    folder: Folder,
    process: Process,
    address: SocketAddr,
    probe: SocketAddr,
}

impl Site {
    fn start(text: &str) -> Site {
        let folder = Folder::new();
        let file = folder.write("evenkeel.toml", text);
        Site::run(folder, &file, &[])
    }

    fn run(folder: Folder, file: &Path, more: &[&str]) -> Site {
        let mut command = binary();
        command.arg("run").arg("-c").arg(file).args(more);
        command.args([
            "--set",
            "probe.address=127.0.0.1:0",
            "--set",
            "log.access=off",
        ]);
        let process = Process::spawn(&mut command);
        let bound = |message| process.bound(message);
        wait_until("it listens", || {
            !bound("listening").is_empty() && !bound("probe listening").is_empty()
        });
        let (address, probe) = (bound("listening")[0], bound("probe listening")[0]);
        Site {
            folder,
            process,
            address,
            probe,
        }
    }

    /// Reloads that succeeded, and that failed.
    fn counts(&self) -> (usize, usize) {
        let page = Client::plain(self.probe).get("probe", "/metrics");
        let page = page.expect("it answers").text();
        let of = |result| {
            number(
                &page,
                &format!("evenkeel_config_reloads_total{{result=\"{result}\"}}"),
            )
        };
        (of("ok"), of("failed"))
    }

    /// Puts a text in the place of the file, and has it read.
    fn reload(&self, text: &str) {
        let (ok, failed) = self.counts();
        let new = self.folder.write("new", text);
        std::fs::rename(new, self.folder.path().join("evenkeel.toml")).expect("both are ours");
        self.process.signal(rustix::process::Signal::HUP);
        wait_until("it is read", || {
            let (ok_now, failed_now) = self.counts();
            ok_now + failed_now > ok + failed
        });
    }
}

#[test]
fn nothing_is_lost_while_it_is_reloaded_again_and_again() {
    let reloads = std::env::var("EVENKEEL_RELOADS")
        .ok()
        .and_then(|n| n.parse().ok());
    let reloads: usize = reloads.unwrap_or(RELOADS);
    let [web, other] = ["web", "other"].map(backend);
    let first = format!(
        "workers = 2\n[[listener]]\nname = \"front\"\naddress = \"127.0.0.1:0\"\nprotocol = \"http\"\n{}",
        service("web", web.address)
    );
    let text = |number: usize| {
        let more = match number % 8 {
            // What is broken: in its syntax, in what it means, in what it needs.
            1 => "[[listener".to_owned(),
            3 => "[[route]]\nservice = \"nobody\"\n".to_owned(),
            5 | 7 => "[[listener]]\naddress = \"127.0.0.1:0\"\nprotocol = \"https\"\n\
                 certificates = [{ cert = \"no.pem\", key = \"no.key\" }]\n"
                .to_owned(),
            0 => service("other", other.address),
            2 => "[[listener]]\nname = \"more\"\naddress = \"127.0.0.1:0\"\nprotocol = \"http\"\n"
                .to_owned(),
            4 => format!("[defaults]\nresponse_timeout = \"{}s\"\n", 60 + number),
            _ => String::new(),
        };
        first.clone() + &more
    };
    let site = Site::start(&first);
    let seen = Arc::new(Seen::default());
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    let mut start = |count: usize, what: fn(SocketAddr, &Seen)| {
        for _ in 0..count {
            let (seen, address) = (Arc::clone(&seen), site.address);
            threads.push(thread::spawn(move || what(address, &seen)));
        }
    };
    start(CLIENTS as usize, ask);
    start(TUNNELS, talk);
    start(DOWNLOADS, download);
    // What the allocator and the clients need is there after some.
    let warm = reloads / 4;
    let mut memory = 0;
    let begun = Instant::now();
    for number in 0..reloads {
        if number == warm {
            memory = site.process.resident();
        }
        site.reload(&text(number));
    }
    let took = begun.elapsed();
    let counts = site.counts();
    assert_eq!(counts, (reloads / 2, reloads / 2));
    seen.over.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().expect("nothing was lost");
    }
    let [requests, echoes, bytes] =
        [&seen.requests, &seen.echoes, &seen.bytes].map(|n| n.load(Ordering::Relaxed));
    let grown = site.process.resident().saturating_sub(memory);
    println!(
        "{reloads} reloads in {took:.1?}: {requests} requests, {echoes} echoes in {TUNNELS} tunnels, \
         {} MiB of {DOWNLOADS} downloads, nothing lost; memory grew by {} KiB",
        bytes >> 20,
        grown >> 10
    );
    assert!(requests > 100 && echoes > 100 && bytes > 1 << 20);
    assert!(grown < 8 << 20, "{grown} bytes");
}

#[test]
fn a_file_that_is_watched_is_read_when_it_holds_something_else() {
    let [web, other] = ["web", "other"].map(backend);
    let front = "[[listener]]\naddress = \"127.0.0.1:0\"\nprotocol = \"http\"\n";
    let text = |backend: &Backend| format!("{front}{}", service("web", backend.address));
    let folder = Folder::new();
    // As kubelet mounts a ConfigMap: a file is a link to a link to a folder, which is swapped.
    let version = |name: &str, text: &str| {
        let folder = folder.path().join(name);
        std::fs::create_dir(&folder).expect("it is new");
        std::fs::write(folder.join("evenkeel.toml"), text).expect("it is ours");
    };
    version("..1", &text(&web));
    let data = folder.path().join("..data");
    symlink("..1", &data).expect("it is ours");
    let file = folder.path().join("evenkeel.toml");
    symlink("..data/evenkeel.toml", &file).expect("it is ours");
    version("..2", &text(&other));
    version("..3", "broken");
    let at = folder.path().to_owned();
    let site = Site::run(folder, &file, &["--watch"]);
    let who = || {
        let answer = Client::plain(site.address)
            .get("x", "/web")
            .expect("it answers");
        answer.text().lines().last().map(ToOwned::to_owned)
    };
    let is = |name: &str| who().is_some_and(|who| who.ends_with(name));
    assert!(is("web"));
    let swap = |to: &str| {
        let new = at.join("..new");
        symlink(to, &new).expect("it is ours");
        std::fs::rename(&new, at.join("..data")).expect("it is ours");
    };
    swap("..2");
    wait_until("another folder", || is("other"));
    swap("..3");
    wait_until("it is refused", || site.counts() == (1, 1));
    assert!(is("other"));
    // An editor's way, and a shell's.
    std::fs::write(at.join("new"), text(&web)).expect("it is ours");
    std::fs::rename(at.join("new"), &file).expect("it is ours");
    wait_until("renamed over", || is("web"));
    std::fs::write(&file, text(&other)).expect("it is ours");
    wait_until("written in place", || is("other"));
    // The same again is nothing to read.
    std::fs::write(at.join("new"), text(&other)).expect("it is ours");
    std::fs::rename(at.join("new"), &file).expect("it is ours");
    std::fs::write(&file, text(&web)).expect("it is ours");
    wait_until("and back", || is("web"));
    assert_eq!(site.counts(), (4, 1));
}
