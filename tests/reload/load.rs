//! Reload after reload, half of them broken, while clients ask over old and new connections, tunnels
//! talk and downloads go on.

use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::time::Instant;

use crate::frames::{self, Peer};
use crate::service;
use crate::support::backend::Backend;
use crate::support::client::{Client, tls_config};
use crate::support::server::{Certificate, Folder, Process, binary};
use crate::support::{PATIENCE, pause, wait_until};

/// Requests per second of all clients that keep their connections.
const RATE: u32 = 2_000;

/// Clients that ask, tunnels that talk, and downloads, at once.
const CLIENTS: u32 = 16;
const TUNNELS: usize = 4;
const DOWNLOADS: usize = 3;

/// More than is read of a download while the test goes on.
const LENGTH: u64 = 64 << 30;

/// What clients do, each of them counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Request after request over one connection.
    Kept,
    /// A new connection for each request.
    New,
    /// A new connection with a handshake of TLS for each request.
    Tls,
    /// A new connection of HTTP/2 for a few streams at once.
    Http2,
    /// What was said to a WebSocket is heard from it.
    Tunnel,
    /// Bytes of a response that does not end.
    Download,
}

impl Kind {
    const ALL: [Kind; 6] = [
        Kind::Kept,
        Kind::New,
        Kind::Tls,
        Kind::Http2,
        Kind::Tunnel,
        Kind::Download,
    ];
}

/// Whom the clients ask.
struct Front {
    plain: SocketAddr,
    secure: SocketAddr,
    trust: Arc<rustls::ClientConfig>,
}

/// What the clients saw.
#[derive(Default)]
struct Seen {
    over: AtomicBool,
    counts: [AtomicUsize; Kind::ALL.len()],
}

impl Seen {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn add(&self, kind: Kind, count: usize) {
        self.counts[kind as usize].fetch_add(count, Ordering::Relaxed);
    }

    fn all(&self) -> [usize; Kind::ALL.len()] {
        Kind::ALL.map(|kind| self.counts[kind as usize].load(Ordering::Relaxed))
    }
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
fn ask(front: &Front, seen: &Seen) {
    let pace = Duration::from_secs(1) * CLIENTS / RATE;
    let mut client = Client::plain(front.plain);
    let mut next = Instant::now();
    while !seen.is_over() {
        let answer = client.get("x", "/web").expect("no request is lost");
        assert_eq!(answer.status(), 200);
        if answer.field("connection") == Some("close") {
            client = Client::plain(front.plain);
        }
        seen.add(Kind::Kept, 1);
        next += pace;
        pause(next.saturating_duration_since(Instant::now()));
    }
}

/// Asks once over each connection.
fn come_and_go(front: &Front, seen: &Seen) {
    while !seen.is_over() {
        let answer = Client::plain(front.plain).get("x", "/web");
        assert_eq!(answer.expect("no request is lost").status(), 200);
        seen.add(Kind::New, 1);
        pause(Duration::from_millis(5));
    }
}

/// Asks once over each connection with TLS, whichever certificate is shown.
fn shake_hands(front: &Front, seen: &Seen) {
    while !seen.is_over() {
        let client = Client::tls(front.secure, &front.trust, "x");
        let answer = client.expect("no handshake fails").get("x", "/web");
        assert_eq!(answer.expect("no request is lost").status(), 200);
        seen.add(Kind::Tls, 1);
        pause(Duration::from_millis(10));
    }
}

/// Opens some streams at once over each connection of HTTP/2.
fn open_streams(front: &Front, seen: &Seen) {
    while !seen.is_over() {
        let mut peer = Peer::connect(front.plain);
        for stream in [1, 3, 5] {
            peer.send(frames::get(stream, "/web"));
        }
        for stream in [1, 3, 5] {
            let came = peer.over(stream);
            assert_eq!(came.status(), Some(200), "no stream is lost: {peer:?}");
            seen.add(Kind::Http2, 1);
        }
        pause(Duration::from_millis(10));
    }
}

/// Says something every 10 ms and hears it back.
fn talk(front: &Front, seen: &Seen) {
    let mut tunnel = Client::plain(front.plain);
    tunnel
        .send("GET /web HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(tunnel.response().expect("it answers").status(), 101);
    while !seen.is_over() {
        tunnel.send("are you there?");
        let heard = tunnel.exactly(14).expect("no tunnel is cut");
        assert_eq!(heard, b"are you there?");
        seen.add(Kind::Tunnel, 1);
        pause(Duration::from_millis(10));
    }
}

/// Reads a long response slowly.
fn download(front: &Front, seen: &Seen) {
    let mut tcp = TcpStream::connect(front.plain).expect("it listens");
    tcp.set_read_timeout(Some(PATIENCE))
        .expect("it is not zero");
    tcp.write_all(b"GET /web/big HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("it is open");
    let mut buffer = vec![0; 16 * 1024];
    while !seen.is_over() {
        let n = tcp.read(&mut buffer).expect("no download is cut");
        assert!(n > 0, "no download is cut");
        seen.add(Kind::Download, n);
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
    addresses: Vec<SocketAddr>,
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
        let text = std::fs::read_to_string(file).expect("it was written");
        let listeners = text.matches("[[listener]]").count();
        wait_until("it listens", || {
            bound("listening").len() == listeners && !bound("probe listening").is_empty()
        });
        let (addresses, probe) = (bound("listening"), bound("probe listening")[0]);
        Site {
            folder,
            process,
            addresses,
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
    under_load(100, 10);
}

/// A thousand reloads in a minute at 2,000 requests per second: 120 of them for each reload.
#[test]
#[ignore = "a minute: .ci/run runs it"]
fn nothing_is_lost_through_a_thousand_reloads_at_full_load() {
    under_load(1_000, 120);
}

/// Reloads so often, each time when so many more requests have been answered over connections that
/// are kept, and at least one of each other kind.
fn under_load(reloads: usize, requests_each: usize) {
    let [web, other] = ["web", "other"].map(backend);
    let certificates = Folder::new();
    let [old, new] = ["old", "new"].map(|name| certificates.certificate(name, &["x"]));
    let authorities = [&old, &new].map(|certificate| {
        std::fs::read_to_string(&certificate.ca).expect("the authority was written")
    });
    let authorities = certificates.write("both.pem", &authorities.concat());
    let fronts = |certificate: &Certificate| {
        format!(
            "workers = 2\n[[listener]]\nname = \"front\"\naddress = \"127.0.0.1:0\"\n\
             protocol = \"http\"\n[[listener]]\nname = \"secure\"\naddress = \"127.0.0.1:0\"\n\
             protocol = \"https\"\ncertificates = [{}]\n{}",
            certificate.entry(),
            service("web", web.address)
        )
    };
    let text = |number: usize| {
        let (certificate, more) = match number % 8 {
            // What is broken: in its syntax, in what it means, in what it needs.
            1 => (&old, "[[listener".to_owned()),
            3 => (&old, "[[route]]\nservice = \"nobody\"\n".to_owned()),
            5 | 7 => (
                &old,
                "[[listener]]\naddress = \"127.0.0.1:0\"\nprotocol = \"https\"\n\
                 certificates = [{ cert = \"no.pem\", key = \"no.key\" }]\n"
                    .to_owned(),
            ),
            0 => (&old, service("other", other.address)),
            2 => (
                &new,
                "[[listener]]\nname = \"more\"\naddress = \"127.0.0.1:0\"\nprotocol = \"http\"\n"
                    .to_owned(),
            ),
            4 => (
                &new,
                format!("[defaults]\nresponse_timeout = \"{}s\"\n", 60 + number),
            ),
            _ => (&old, String::new()),
        };
        fronts(certificate) + &more
    };
    let site = Site::start(&fronts(&old));
    let front = Arc::new(Front {
        plain: site.addresses[0],
        secure: site.addresses[1],
        trust: tls_config(&authorities, rustls::ALL_VERSIONS),
    });
    let seen = Arc::new(Seen::default());
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    let mut start = |count: usize, what: fn(&Front, &Seen)| {
        for _ in 0..count {
            let (seen, front) = (Arc::clone(&seen), Arc::clone(&front));
            threads.push(thread::spawn(move || what(&front, &seen)));
        }
    };
    start(CLIENTS as usize, ask);
    start(2, come_and_go);
    start(1, shake_hands);
    start(1, open_streams);
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
        let before = seen.all();
        wait_until("every client goes on", || {
            let now = seen.all();
            Kind::ALL.iter().all(|&kind| {
                let wanted = if kind == Kind::Kept { requests_each } else { 1 };
                now[kind as usize] >= before[kind as usize] + wanted
            })
        });
        site.reload(&text(number));
    }
    let took = begun.elapsed();
    let counts = site.counts();
    assert_eq!(counts, (reloads / 2, reloads / 2));
    seen.over.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().expect("nothing was lost");
    }
    let grown = site.process.resident().saturating_sub(memory);
    let counts: Vec<String> = Kind::ALL
        .iter()
        .zip(seen.all())
        .map(|(kind, count)| format!("{kind:?} {count}"))
        .collect();
    println!(
        "{reloads} reloads in {took:.1?}: {}; nothing lost; memory grew by {} KiB",
        counts.join(", "),
        grown >> 10
    );
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
        let answer = Client::plain(site.addresses[0])
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
