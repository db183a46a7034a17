//! What systemd does with a service and the service with systemd: sockets that are handed over, and
//! what is said on the notify socket. The test plays systemd; sockets reach the process as its
//! standard input and output, and a shell moves them to where systemd puts them.

mod support;

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::time::Instant;

use support::backend::Backend;
use support::client::Client;
use support::server::{Folder, binary};
use support::{PATIENCE, wait_until};

/// The part of systemd: it holds two listening sockets, and hears what it is told.
struct Manager {
    folder: Folder,
    named: TcpListener,
    at_address: TcpListener,
    notify: UnixDatagram,
    notify_path: PathBuf,
}

/// A service that is ended with the test.
struct Unit(Child);

impl Drop for Unit {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Unit {
    fn signal(&self, signal: rustix::process::Signal) {
        let id = i32::try_from(self.0.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(id.expect("a child has a number"), signal)
            .expect("it is there");
    }

    fn exit_code(&mut self) -> Option<i32> {
        let mut code = None;
        wait_until("it ends", || {
            code = self.0.try_wait().expect("it is our child");
            code.is_some()
        });
        code.and_then(|status| status.code())
    }
}

impl Manager {
    fn new() -> Manager {
        let folder = Folder::new();
        let notify_path = folder.path().join("notify");
        let notify = UnixDatagram::bind(&notify_path).expect("a socket");
        notify.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let socket = || TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
        Manager {
            folder,
            named: socket(),
            at_address: socket(),
            notify,
            notify_path,
        }
    }

    fn write(&self, backend: SocketAddr, more: &str) -> PathBuf {
        // Nobody could bind the first address: it is one for documents (RFC 5737).
        let text = format!(
            r#"
            workers = 1
            {more}
            [probe]
            address = "off"
            [admin]
            address = "off"
            socket = "{}"
            [drain]
            wait = "0s"
            [[listener]]
            name = "web"
            address = "203.0.113.1:80"
            protocol = "http"
            [[listener]]
            name = "other"
            address = "{}"
            protocol = "http"
            [[service]]
            name = "a"
            discover = {{ static = ["{backend}"] }}
            [[route]]
            service = "a"
            "#,
            self.folder.path().join("control.sock").display(),
            self.address(&self.at_address),
        );
        self.folder.write("evenkeel.toml", &text)
    }

    /// Asks the service for something through its control socket; it has to be done.
    fn order(&self, words: &[&str]) {
        let socket = self.folder.path().join("control.sock");
        let mut program = binary();
        program.args(words).arg("--socket").arg(socket);
        let done = program.output().expect("the program runs");
        assert!(done.status.success(), "{words:?}: {done:?}");
    }

    fn address(&self, socket: &TcpListener) -> SocketAddr {
        socket.local_addr().expect("it is bound")
    }

    /// Starts the service.
    fn start(&self, file: &PathBuf, variables: &[(&str, &str)]) -> Unit {
        self.start_with(&[], file, variables)
    }

    /// Starts the service with more options.
    fn start_with(&self, options: &[&str], file: &PathBuf, variables: &[(&str, &str)]) -> Unit {
        let move_and_run = r#"exec 3<&0 4<&1 </dev/null >/dev/null
            export LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=web:evenkeel.socket
            exec "$@""#;
        let pass = |socket: &TcpListener| {
            Stdio::from(OwnedFd::from(socket.try_clone().expect("a descriptor")))
        };
        // As systemd does before each start: by NonBlocking=, which is off unless set.
        let shared = options.contains(&"--hand-over");
        for socket in [&self.named, &self.at_address] {
            socket.set_nonblocking(shared).expect("it is a socket");
        }
        let program = binary();
        let child = Command::new("sh")
            .args(["-c", move_and_run, "sh"])
            .arg(program.get_program())
            .args(["run", "-c"])
            .arg(file)
            .args(options)
            .env("NOTIFY_SOCKET", &self.notify_path)
            .env("RUNTIME_DIRECTORY", self.folder.path().join("run"))
            .envs(variables.iter().copied())
            .stdin(pass(&self.named))
            .stdout(pass(&self.at_address))
            .spawn();
        Unit(child.expect("there is a shell"))
    }

    /// The next message, as lines; those of the watchdog are left out.
    fn told(&self) -> Vec<String> {
        loop {
            let lines = self.told_anything();
            if lines != ["WATCHDOG=1"] {
                return lines;
            }
        }
    }

    fn told_anything(&self) -> Vec<String> {
        let mut message = [0; 4096];
        let length = self.notify.recv(&mut message).expect("it says something");
        let text = std::str::from_utf8(&message[..length]).expect("UTF-8");
        text.lines().map(str::to_owned).collect()
    }
}

/// The process behind the one that systemd knows.
fn behind(unit: &Unit) -> u32 {
    let id = unit.0.id();
    let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
    let children = children.expect("it runs");
    children.trim().parse().expect("it has one child")
}

/// What a process has of this machine's listening sockets over TCP, by their numbers.
fn listening(id: u32) -> Vec<String> {
    const LISTEN: &str = "0A";
    let table = std::fs::read_to_string(format!("/proc/{id}/net/tcp")).expect("it runs");
    let sockets = table.lines().filter_map(|line| {
        let mut parts = line.split_whitespace();
        (parts.nth(3) == Some(LISTEN))
            .then(|| format!("socket:[{}]", parts.nth(5).unwrap_or_default()))
    });
    let sockets: Vec<_> = sockets.collect();
    let open = std::fs::read_dir(format!("/proc/{id}/fd")).expect("it runs");
    let open = open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    let open = open.map(|link| link.to_string_lossy().into_owned());
    open.filter(|link| sockets.contains(link)).collect()
}

fn has_ended(id: u32) -> bool {
    // Whoever has to wait for it may not have done so yet.
    std::fs::read_to_string(format!("/proc/{id}/stat")).map_or(true, |stat| stat.contains(") Z "))
}

fn micros(lines: &[String]) -> i64 {
    let line = lines
        .iter()
        .find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
    line.and_then(|n| n.parse().ok()).expect("it says when")
}

#[test]
fn a_whole_life() {
    let backend = Backend::start("b");
    let manager = Manager::new();
    let file = manager.write(backend.address, "");
    let mut unit = manager.start(&file, &[]);
    assert_eq!(manager.told(), ["READY=1", "STATUS=serving"]);
    for socket in [&manager.named, &manager.at_address] {
        let mut client = Client::plain(manager.address(socket));
        assert_eq!(client.get("a", "/").expect("it is answered").status(), 200);
    }

    unit.signal(rustix::process::Signal::HUP);
    let begun = manager.told();
    assert_eq!(
        (&*begun[0], &*begun[2]),
        ("RELOADING=1", "STATUS=reloading")
    );
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let age = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000 - micros(&begun);
    assert!((0..60_000_000).contains(&age), "{age} µs");
    assert_eq!(
        manager.told(),
        ["READY=1", "STATUS=serving, reloaded to generation 2"]
    );

    manager.write(backend.address, "nonsense = 1");
    unit.signal(rustix::process::Signal::HUP);
    assert_eq!(manager.told()[0], "RELOADING=1");
    let over = manager.told();
    assert_eq!(over[0], "READY=1");
    assert!(
        over[1].starts_with("STATUS=serving as before, the reload failed: "),
        "{over:?}"
    );
    assert!(over[1].contains("unknown key `nonsense`"), "{over:?}");
    assert_eq!(over.len(), 2, "{over:?}");

    unit.signal(rustix::process::Signal::TERM);
    assert_eq!(manager.told(), ["STOPPING=1", "STATUS=draining"]);
    assert_eq!(unit.exit_code(), Some(0));
}

/// From `STOPPING=1` on systemd counts the time until it kills.
#[test]
fn a_drain_by_hand_is_no_end() {
    let backend = Backend::start("b");
    let manager = Manager::new();
    let file = manager.write(backend.address, "");
    let mut unit = manager.start(&file, &[]);
    assert_eq!(manager.told()[0], "READY=1");
    manager.order(&["drain"]);
    assert_eq!(manager.told(), ["STATUS=drained by hand"]);
    manager.order(&["undrain"]);
    assert_eq!(manager.told(), ["STATUS=serving"]);
    manager.order(&["drain"]);
    assert_eq!(manager.told(), ["STATUS=drained by hand"]);
    unit.signal(rustix::process::Signal::TERM);
    assert_eq!(manager.told(), ["STOPPING=1", "STATUS=draining"]);
    assert_eq!(unit.exit_code(), Some(0));
}

/// A reload before all services have had an answer does not make it ready.
#[test]
fn a_reload_does_not_make_it_ready() {
    let backend = Backend::start("b");
    let manager = Manager::new();
    // It takes what is asked, and says nothing.
    let silent = UdpSocket::bind("127.0.0.1:0").expect("loopback has ports");
    let dns = silent.local_addr().expect("it is bound");
    let more = format!(
        "dns = {{ servers = [\"{dns}\"] }}\n[[service]]\nname = \"later\"\n\
         discover = {{ srv = \"_http._tcp.later.test.\" }}\n"
    );
    let file = manager.write(backend.address, &more);
    let _unit = manager.start(&file, &[]);
    let socket = manager.folder.path().join("control.sock");
    wait_until("its control socket is there", || socket.exists());
    manager.order(&["reload"]);
    manager.notify.set_nonblocking(true).expect("a socket");
    let told = manager.notify.recv(&mut [0; 64]);
    assert_eq!(
        told.map_err(|error| error.kind()),
        Err(std::io::ErrorKind::WouldBlock)
    );
}

/// The upgrade of a program: one ends, the next one begins, and clients meanwhile have only waited.
#[test]
fn clients_wait_in_the_socket_while_nobody_runs() {
    let backend = Backend::start("b");
    let manager = Manager::new();
    let file = manager.write(backend.address, "");
    let mut unit = manager.start(&file, &[]);
    assert_eq!(manager.told()[0], "READY=1");
    unit.signal(rustix::process::Signal::TERM);
    assert_eq!(manager.told()[0], "STOPPING=1");
    assert_eq!(unit.exit_code(), Some(0));

    let sockets = [&manager.named, &manager.at_address];
    let mut waiting = sockets.map(|socket| {
        let mut client = Client::plain(manager.address(socket));
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        client
    });
    let _unit = manager.start(&file, &[]);
    for client in &mut waiting {
        assert_eq!(client.response().expect("it is answered").status(), 200);
    }
}

#[test]
fn the_watchdog_hears_of_us() {
    let backend = Backend::start("b");
    let manager = Manager::new();
    let file = manager.write(backend.address, "");
    let _unit = manager.start(&file, &[("WATCHDOG_USEC", "400000")]);
    let begun = Instant::now();
    let mut heard = 0;
    while heard < 5 {
        if manager.told_anything() == ["WATCHDOG=1"] {
            heard += 1;
        }
    }
    // Every 200 ms, and not as fast as it can.
    assert!(
        begun.elapsed() > Duration::from_millis(700),
        "{:?}",
        begun.elapsed()
    );
}

/// What a restart waits for is the beginning of the drain. The rest of it happens behind, beside the next
/// process.
#[test]
fn a_restart_does_not_wait_for_what_is_under_way() {
    let backend = Backend::start("b");
    let manager = Manager::new();
    let file = manager.write(backend.address, "");
    let mut unit = manager.start_with(&["--hand-over"], &file, &[("WATCHDOG_USEC", "400000")]);
    assert_eq!(manager.told(), ["READY=1", "STATUS=serving"]);
    while manager.told_anything() != ["WATCHDOG=1"] {}
    let mut slow = Client::plain(manager.address(&manager.named));
    assert_eq!(slow.get("a", "/").expect("it is answered").status(), 200);
    slow.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab");

    unit.signal(rustix::process::Signal::HUP);
    assert_eq!(manager.told()[0], "RELOADING=1");
    assert_eq!(manager.told()[0], "READY=1");

    let old = behind(&unit);
    assert!(!listening(old).is_empty(), "it listens");
    unit.signal(rustix::process::Signal::TERM);
    assert_eq!(manager.told(), ["STOPPING=1", "STATUS=draining"]);
    assert_eq!(unit.exit_code(), Some(0));
    assert!(!has_ended(old), "a request is under way");
    // It leaves the ports to whoever is next, also where systemd has let go of them.
    let left = || listening(old).is_empty();
    wait_until("the old one has closed its sockets", left);

    let mut next = manager.start_with(&["--hand-over"], &file, &[]);
    // Not a word of the old one comes in between.
    assert_eq!(manager.told(), ["READY=1", "STATUS=serving"]);
    let mut client = Client::plain(manager.address(&manager.named));
    assert_eq!(client.get("a", "/").expect("it is answered").status(), 200);
    assert!(!has_ended(old), "a request is under way");
    slow.send("cd");
    assert_eq!(slow.response().expect("it is answered").status(), 200);
    wait_until("the old one has ended", || has_ended(old));
    // The old one has left the place of its socket to the new one.
    manager.order(&["status"]);

    let new = behind(&next);
    next.signal(rustix::process::Signal::TERM);
    assert_eq!(manager.told()[0], "STOPPING=1");
    assert_eq!(next.exit_code(), Some(0));
    drop(client);
    wait_until("the new one has ended", || has_ended(new));
}

/// Nobody but the one in front can end it.
#[test]
fn whoever_serves_does_not_outlive_the_one_in_front_that_was_killed() {
    let backend = Backend::start("b");
    let manager = Manager::new();
    let file = manager.write(backend.address, "");
    for (signal, code) in [
        (rustix::process::Signal::KILL, None),
        // From a watchdog.
        (rustix::process::Signal::ABORT, Some(1)),
    ] {
        let mut unit = manager.start_with(&["--hand-over"], &file, &[]);
        assert_eq!(manager.told()[0], "READY=1");
        let served = behind(&unit);
        unit.signal(signal);
        assert_eq!(unit.exit_code(), code);
        wait_until("the one behind has ended", || has_ended(served));
    }
    // A mistake is that of the service.
    manager.write(backend.address, "nonsense = 1");
    let mut unit = manager.start_with(&["--hand-over"], &file, &[]);
    assert_eq!(unit.exit_code(), Some(1));
}

/// systemd makes its sockets blocking before each start unless told otherwise, and those of the process that
/// drains with them: it would stand still in accept(2), with its clients.
#[test]
fn sockets_that_block_are_not_handed_over() {
    let backend = Backend::start("b");
    let manager = Manager::new();
    let file = manager.write(backend.address, "");
    let mut program = binary();
    program.args(["run", "--hand-over", "-c"]).arg(&file);
    let script = r#"exec 3<&0 </dev/null
        export LISTEN_PID=$$ LISTEN_FDS=1
        exec "$@""#;
    manager
        .named
        .set_nonblocking(false)
        .expect("it is a socket");
    let socket = manager.named.try_clone().expect("a descriptor");
    let refused = Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(program.get_program())
        .args(program.get_args())
        .stdin(Stdio::from(OwnedFd::from(socket)))
        .output()
        .expect("there is a shell");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("NonBlocking=yes"), "{said}");
}
