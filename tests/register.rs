//! `evenkeel register` against BIND, Knot and our own server: what is in the zone at which moment,
//! and what the command that it runs is told, and when.

#[path = "support/name_servers.rs"]
mod name_servers;
mod support;
#[path = "support/traffic.rs"]
mod traffic;

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use evenkeel::dns_server::client::{Client, Update};
use evenkeel::dns_server::key::Key;
use hickory_proto::rr::{RData, Record, RecordType};
use rustix::process::Signal;
use tokio::task::block_in_place;

use name_servers::{Kind, MAX_LEASE, NameServer, SECRET, ZONE, absolute, free_port};
use support::server::{Process, Server, binary};
use support::{require, wait_until};
use traffic::{Target, Traffic};

const NAME: &str = "_http._tcp.web.svc.test";
const TARGET: &str = "b1.web.svc.test.";

/// A command that notes what it is told, in `log` of its folder, and what the server says of the
/// record when TERM comes. Ends with 7 then.
const CHILD: &str = r#"
trap 'dig +short +tries=1 -p $PORT @127.0.0.1 _http._tcp.web.svc.test SRV > at-term; echo TERM >> log; exit 7' TERM
trap 'echo HUP >> log' HUP
trap 'echo USR1 >> log' USR1
trap 'echo USR2 >> log' USR2
echo started >> log
while :; do sleep 0.02; done
"#;

/// `evenkeel register` in a process.
struct Register {
    process: Process,
    folder: PathBuf,
}

impl Register {
    /// With the target b1 (unless the arguments name another) and the server's key.
    fn start(server: &NameServer, arguments: &[&str]) -> Register {
        let key = server.key_file();
        Register::with_key(server, &key, arguments)
    }

    fn with_key(server: &NameServer, key: &Path, arguments: &[&str]) -> Register {
        let mut command = binary();
        Register::of(command.arg("register"), server, key, arguments)
    }

    fn of(command: &mut Command, server: &NameServer, key: &Path, arguments: &[&str]) -> Register {
        let folder = server.folder().path().to_owned();
        command.args([NAME, "--tsig-file"]).arg(key);
        let unless_given = [
            ("--target", TARGET.to_owned()),
            ("--server", server.address.to_string()),
        ];
        for (option, value) in unless_given {
            if !arguments.contains(&option) {
                command.arg(option).arg(value);
            }
        }
        command
            .args(arguments)
            .env("PORT", server.address.port().to_string())
            .current_dir(&folder)
            .stdin(Stdio::null());
        let process = Process::spawn(command);
        Register { process, folder }
    }

    /// Waits until it has logged something with these words in it.
    fn says(&self, words: &str) {
        let said = || self.process.log().iter().any(|line| line.contains(words));
        wait_until_or(&format!("it says {words:?}"), said, || self.process.log());
    }

    /// Lines of the log with these words in them.
    fn lines(&self, words: &str) -> usize {
        let log = self.process.log();
        log.iter().filter(|line| line.contains(words)).count()
    }

    fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    fn exit_code(&mut self) -> Option<i32> {
        self.process.exit_code(support::PATIENCE)
    }

    /// What the child has noted.
    fn child_log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    fn child_notes(&self, words: &str) {
        wait_until(words, || self.child_log().contains(words));
    }
}

impl Drop for Register {
    /// Its command must not outlive it: the second signal is passed on at once.
    fn drop(&mut self) {
        for _ in 0..2 {
            if self.process.is_running() {
                self.signal(Signal::TERM);
                support::pause(Duration::from_millis(20));
            }
        }
        let begun = tokio::time::Instant::now();
        while self.process.is_running() && begun.elapsed() < support::PATIENCE {
            support::pause(Duration::from_millis(5));
        }
    }
}

/// As `wait_until`, with something to show when it takes too long.
fn wait_until_or<T: std::fmt::Debug>(
    what: &str,
    mut condition: impl FnMut() -> bool,
    show: impl Fn() -> T,
) {
    let begun = tokio::time::Instant::now();
    while !condition() {
        assert!(
            begun.elapsed() < support::PATIENCE,
            "waited in vain: {what}: {:#?}",
            show()
        );
        support::pause(Duration::from_millis(5));
    }
}

/// Waits until the server gives exactly these records.
fn until_there_are(server: &NameServer, records: &[&str]) {
    let last = std::cell::RefCell::new(None);
    let found = || {
        *last.borrow_mut() = server.srv(NAME);
        last.borrow().as_ref().is_some_and(|found| found == records)
    };
    wait_until_or(&format!("{records:?}"), found, || last.borrow().clone());
}

#[test]
fn the_life_of_a_registration() {
    if !require("dig") {
        return;
    }
    std::thread::scope(|scope| {
        for kind in Kind::installed() {
            scope.spawn(move || life(kind));
        }
    });
}

fn life(kind: Kind) {
    let mut server = NameServer::start(kind);
    let arguments = [
        "--port",
        "8081",
        "--weight",
        "30",
        "--priority",
        "2",
        "--lease",
        "3s",
    ];
    let linger = ["--linger", "50ms", "--", "sh", "-c", CHILD];
    let mut register = Register::start(&server, &[&arguments[..], &linger].concat());
    register.child_notes("started");
    let record = format!("2 30 8081 {TARGET}");
    until_there_are(&server, &[&record]);
    register.says("registered _http._tcp.web.svc.test.");
    match kind {
        Kind::Own => register.says("for 3s"),
        Kind::Bind | Kind::Knot => register.says("without a lease"),
    }
    let answer = server.ask(NAME, RecordType::SRV).expect("it answers");
    assert_eq!(answer.answers[0].ttl, 2, "{kind:?}");
    let target = absolute(TARGET);
    let glue = answer.additionals.iter().filter(|r| r.name == target);
    let glue: Vec<_> = glue.map(|r| r.data.to_string()).collect();
    assert_eq!(glue, ["127.0.0.1"], "{kind:?}");

    // What was lost comes back with the next renewal.
    server.start_empty();
    until_there_are(&server, &[&record]);
    assert_eq!(server.addresses(TARGET), ["127.0.0.1"], "{kind:?}");

    register.signal(Signal::TERM);
    assert_eq!(register.exit_code(), Some(7), "{kind:?}");
    let at_term = std::fs::read_to_string(register.folder.join("at-term"));
    assert_eq!(
        at_term.expect("it was told"),
        "",
        "{kind:?}: gone before TERM"
    );
    assert_eq!(server.srv(NAME), Some(Vec::new()), "{kind:?}");
    if kind == Kind::Own {
        // Another record may need the addresses: they lapse.
        assert_eq!(server.addresses(TARGET), ["127.0.0.1"]);
    }
    let lapsed = || server.addresses(TARGET).is_empty();
    wait_until("the addresses are gone", lapsed);
}

/// Changes the target's addresses behind the back of whoever registered them.
fn set_addresses(server: &NameServer, addresses: &[[u8; 4]]) {
    let key = Key::read(&server.key_file()).expect("it was written").key;
    let mut update = Update::new(absolute(ZONE));
    update.delete_set(absolute(TARGET), RecordType::A);
    for address in addresses {
        let data = RData::A(Ipv4Addr::from(*address).into());
        update.add(Record::from_rdata(absolute(TARGET), 2, data));
    }
    // As a registration has it, unless the server knows of no such thing.
    update.lease(MAX_LEASE);
    let updated = async { Client::new(server.address, key).update(&update).await };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(updated).expect("the key may");
}

#[test]
fn another_backends_record_is_not_withdrawn() {
    // A lease of an hour, so that nothing is renewed between.
    let arguments = ["--port", "8081", "--lease", "1h"];
    for kind in [Kind::Bind, Kind::Knot] {
        if !Kind::installed().contains(&kind) {
            continue;
        }
        let server = NameServer::start(kind);
        let record = format!("0 1 8081 {TARGET}");
        let start = || {
            let register = Register::start(&server, &arguments);
            register.says("registered ");
            until_there_are(&server, &[&record]);
            register
        };
        let end = |mut register: Register| {
            register.signal(Signal::TERM);
            assert_eq!(register.exit_code(), Some(0), "{kind:?}");
            register
        };
        let register = start();
        set_addresses(&server, &[[127, 0, 0, 9]]);
        let register = end(register);
        register.says("not our own");
        assert_eq!(server.srv(NAME), Some(vec![record.clone()]), "{kind:?}");
        assert_eq!(server.addresses(TARGET), ["127.0.0.9"], "{kind:?}");

        // Addresses that somebody took away, or has added to, are no sign of another backend.
        for addresses in [&[][..], &[[127, 0, 0, 1], [127, 0, 0, 9]]] {
            let register = start();
            set_addresses(&server, addresses);
            let register = end(register);
            assert_eq!(register.lines("not our own"), 0);
            assert_eq!(server.srv(NAME), Some(Vec::new()), "{kind:?}");
            assert_eq!(server.addresses(TARGET).len(), addresses.len(), "{kind:?}");
        }
    }
}

#[test]
fn replicas_with_the_same_target_are_told() {
    let server = NameServer::start(Kind::Own);
    wait_until("it speaks for its names", || server.srv(NAME).is_some());
    let first = TcpListener::bind("127.0.0.2:0").expect("all of 127/8 is loopback");
    let port = first.local_addr().expect("bound").port();
    let record = format!("0 1 {port} {TARGET}");
    let port = port.to_string();
    let start = |address| Register::start(&server, &["--port", &port, "--address", address]);
    let words = "another backend has registered b1.web.svc.test. port";
    let one = start("127.0.0.2");
    until_there_are(&server, &[&record]);
    let mut two = start("127.0.0.1");
    two.says(words);
    two.signal(Signal::TERM);
    assert_eq!(two.exit_code(), Some(0));
    assert_eq!(one.lines(words), 0, "{:#?}", one.process.log());
}

#[test]
fn a_new_weight_takes_the_place_of_the_old_one() {
    let kinds = Kind::installed()
        .into_iter()
        .filter(|kind| *kind != Kind::Own);
    for kind in kinds {
        let server = NameServer::start(kind);
        let start =
            |weight: &str| Register::start(&server, &["--port", "8081", "--weight", weight]);
        let mut first = start("1");
        until_there_are(&server, &[&format!("0 1 8081 {TARGET}")]);
        first.process.kill();
        // It was killed, and the server knows no leases.
        until_there_are(&server, &[&format!("0 1 8081 {TARGET}")]);
        let mut second = start("5");
        until_there_are(&server, &[&format!("0 5 8081 {TARGET}")]);
        second.signal(Signal::TERM);
        assert_eq!(second.exit_code(), Some(0), "{kind:?}: there is no command");
        until_there_are(&server, &[]);
    }
}

#[test]
fn what_is_killed_goes_with_its_lease() {
    let server = NameServer::start(Kind::Own);
    wait_until("it speaks for its names", || server.srv(NAME).is_some());
    // No lease begins before this, and none is renewed after the kill.
    let begun = tokio::time::Instant::now();
    let mut register = Register::start(&server, &["--port", "8081"]);
    register.says("for 3s");
    until_there_are(&server, &[&format!("0 1 8081 {TARGET}")]);
    register.process.kill();
    let killed = tokio::time::Instant::now();
    until_there_are(&server, &[]);
    let (lived, outlived) = (begun.elapsed(), killed.elapsed());
    assert!(lived >= MAX_LEASE, "gone after {lived:?}");
    // One lease, and another one for a machine that has much else to do.
    assert!(
        outlived <= 2 * MAX_LEASE,
        "gone {outlived:?} after it was killed"
    );
    assert_eq!(server.addresses(TARGET), Vec::<String>::new());
}

#[test]
fn two_backends_of_one_host() {
    if !require("knotd") {
        return;
    }
    let server = NameServer::start(Kind::Knot);
    let ports: Vec<_> = (0..3)
        .map(|_| TcpListener::bind("127.0.0.1:0").expect("loopback has ports"))
        .collect();
    let port = |n: usize| ports[n].local_addr().expect("bound").port();
    let record = |n: usize| format!("0 1 {} {TARGET}", port(n));
    let start = |n: usize| {
        let port = port(n).to_string();
        Register::start(&server, &["--port", &port, "--lease", "3s"])
    };
    let sorted = |mut records: Vec<String>| {
        records.sort();
        records
    };
    let mut first = start(0);
    until_there_are(&server, &[&record(0)]);
    let mut second = start(1);
    let both = sorted(vec![record(0), record(1)]);
    until_there_are(
        &server,
        &both.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    // Through renewals of both.
    wait_until("several updates", || {
        first.lines("renewed") == 0 && renewals(&server) > 6
    });
    assert_eq!(server.srv(NAME), Some(both));

    // The addresses stay for the other.
    first.signal(Signal::TERM);
    assert_eq!(first.exit_code(), Some(0));
    assert_eq!(server.srv(NAME), Some(vec![record(1)]));
    assert_eq!(server.addresses(TARGET), ["127.0.0.1"]);

    // The record of one who was killed and whose port nobody has is replaced.
    second.process.kill();
    let left = record(1);
    let mut ports = ports;
    drop(ports.remove(1));
    until_there_are(&server, &[&left]);
    let port = ports[1].local_addr().expect("bound").port();
    let _third = Register::start(&server, &["--port", &port.to_string()]);
    until_there_are(&server, &[&format!("0 1 {port} {TARGET}")]);
}

/// Updates that Knot has noted.
fn renewals(server: &NameServer) -> usize {
    server
        .log()
        .iter()
        .filter(|line| line.contains("DDNS, finished"))
        .count()
}

#[test]
fn keys_that_are_refused() {
    let other_secret = SECRET.replace("ZXZl", "AAAA");
    for kind in Kind::installed() {
        let server = NameServer::start(kind);
        let cases = [
            (
                "other.key",
                "other",
                SECRET,
                "BADKEY: 127.0.0.1",
                "does not know the key \\\"other",
            ),
            (
                "bad.key",
                "web",
                &other_secret,
                "BADSIG: 127.0.0.1",
                "another secret",
            ),
        ];
        for (file, name, secret, code, words) in cases {
            let key = server.write_key(file, name, secret);
            let mut register = Register::with_key(&server, &key, &["--port", "8081"]);
            register.says(code);
            register.says(words);
            register.signal(Signal::TERM);
            assert_eq!(register.exit_code(), Some(0));
            assert_eq!(register.lines("withdr"), 0, "{kind:?}: nothing to withdraw");
        }
        if kind == Kind::Bind {
            let key = server.write_key("narrow.key", "narrow", SECRET);
            let register = Register::with_key(&server, &key, &["--port", "8081"]);
            register
                .says("REFUSED: the key \\\"narrow\\\" may not change these names of svc.test.");
        }
        let key = server.key_file();
        let register = Register::with_key(&server, &key, &["--port", "8081", "--zone", "test"]);
        register.says("NOTAUTH: ");
    }
}

#[tokio::test]
async fn a_clock_that_is_wrong() {
    for kind in Kind::installed() {
        let server = NameServer::start(kind);
        let key = Key::read(&server.key_file()).expect("it was written").key;
        let late = || SystemTime::now() + Duration::from_secs(3_000);
        let client = Client::new(server.address, key).with_clock(late);
        let mut update = Update::new(absolute(ZONE));
        update.delete_set(absolute(NAME), RecordType::SRV);
        let failure = client.update(&update).await.expect_err("it is refused");
        let said = failure.to_string();
        // To the second, or one less.
        let differ = said.contains("differ by 50m") || said.contains("differ by 49m 59s");
        assert!(said.starts_with("BADTIME: ") && differ, "{kind:?}: {said}");
    }
}

#[test]
fn the_key_and_the_server_may_come_later() {
    let mut server = NameServer::stopped(Kind::Own);
    let key = server.folder().path().join("late.key");
    let port = ["--port", "8081", "--linger", "0s", "--", "sh", "-c", CHILD];
    let mut register = Register::with_key(&server, &key, &port);
    register.child_notes("started");
    register.says("waiting for the key file");
    std::fs::copy(server.key_file(), &key).expect("both are ours");
    register.says("cannot be reached");
    assert_eq!(register.lines("waiting for the key file"), 1, "said once");
    server.start_empty();
    until_there_are(&server, &[&format!("0 1 8081 {TARGET}")]);
    register.signal(Signal::INT);
    assert_eq!(
        register.exit_code(),
        Some(130),
        "the shell has no trap for INT"
    );
}

#[test]
fn a_server_that_is_gone_holds_nobody_up() {
    let mut server = NameServer::start(Kind::Own);
    let linger = ["--port", "8081", "--linger", "1h", "--", "sh", "-c", CHILD];
    let mut register = Register::start(&server, &linger);
    register.says("registered ");
    server.stop();
    register.signal(Signal::TERM);
    register.says("could not be withdrawn");
    assert_eq!(
        register.exit_code(),
        Some(7),
        "no linger: nobody could notice"
    );
}

#[test]
fn signals() {
    if !require("dig") {
        return;
    }
    let server = NameServer::start(Kind::Own);
    let arguments = ["--port", "8081", "--linger", "1h", "--", "sh", "-c", CHILD];
    let mut register = Register::start(&server, &arguments);
    register.child_notes("started");
    until_there_are(&server, &[&format!("0 1 8081 {TARGET}")]);
    for (signal, note) in [
        (Signal::HUP, "HUP"),
        (Signal::USR1, "USR1"),
        (Signal::USR2, "USR2"),
    ] {
        register.signal(signal);
        register.child_notes(note);
    }
    assert!(register.process.is_running());
    register.signal(Signal::TERM);
    until_there_are(&server, &[]);
    register.says("withdrew");
    assert!(!register.child_log().contains("TERM"), "it lingers");
    // Passed on still.
    register.signal(Signal::USR1);
    wait_until("USR1 again", || {
        register.child_log().matches("USR1").count() == 2
    });
    register.signal(Signal::TERM);
    assert_eq!(register.exit_code(), Some(7));
}

#[test]
fn a_command_that_ends_by_itself() {
    let server = NameServer::start(Kind::Own);
    let command = "until [ -e end ]; do sleep 0.02; done; exit $(cat end)";
    let killed = "until [ -e end ]; do sleep 0.02; done; kill -KILL $$";
    for (command, code) in [(command, 5), (killed, 128 + 9)] {
        let arguments = [
            "--port", "8081", "--linger", "1h", "--", "sh", "-c", command,
        ];
        let mut register = Register::start(&server, &arguments);
        until_there_are(&server, &[&format!("0 1 8081 {TARGET}")]);
        server.folder().write("end", "5");
        assert_eq!(register.exit_code(), Some(code));
        assert_eq!(server.srv(NAME), Some(Vec::new()), "gone by then");
        std::fs::remove_file(server.folder().path().join("end")).expect("it was there");
    }
}

#[test]
fn process_1_buries_orphans() {
    if !require("unshare") {
        return;
    }
    let may = support::server::output(Command::new("unshare").args(["--pid", "--fork", "true"]));
    if !may.status.success() {
        eprintln!("SKIPPED: no leave to make a PID namespace");
        return;
    }
    let server = NameServer::start(Kind::Own);
    // The middle shell ends at once, so its child becomes an orphan; it is buried when its
    // number is nobody's any more.
    let command = "sh -c 'sleep 0.1 & echo $! > orphan'; \
        [ $PPID = 1 ] || exit 3; orphan=$(cat orphan); n=0; \
        while [ -e /proc/$orphan ]; do n=$((n+1)); [ $n -lt 500 ] || exit 4; sleep 0.02; done; exit 6";
    let mut unshared = Command::new("unshare");
    unshared
        .args(["--pid", "--fork", "--kill-child", "--mount-proc"])
        .arg(env!("CARGO_BIN_EXE_evenkeel"))
        .arg("register");
    let arguments = ["--port", "8081", "--", "sh", "-c", command];
    let mut register = Register::of(&mut unshared, &server, &server.key_file(), &arguments);
    assert_eq!(
        register.exit_code(),
        Some(6),
        "{:#?}",
        register.process.log()
    );
}

#[test]
fn only_while_it_is_ready() {
    let server = NameServer::start(Kind::Own);
    let ready = Arc::new(AtomicBool::new(false));
    let asked = Arc::new(AtomicBool::new(false));
    let backend = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    let url = format!("http://{}/healthz", backend.local_addr().expect("bound"));
    let (answers, was_asked) = (Arc::clone(&ready), Arc::clone(&asked));
    // It ends with the test's process.
    std::thread::spawn(move || {
        for stream in backend.incoming() {
            let mut stream = stream.expect("a connection");
            let mut request = [0; 1024];
            let _ = stream.read(&mut request);
            let status = match answers.load(Ordering::Relaxed) {
                true => "204 No Content",
                false => "503 Service Unavailable",
            };
            let _ = write!(stream, "HTTP/1.1 {status}\r\n\r\n");
            was_asked.store(true, Ordering::Relaxed);
        }
    });
    // By name: it comes from the hosts file here.
    let by_name = format!("localhost:{}", server.address.port());
    let arguments = ["--port", "8081", "--ready", &url, "--server", &by_name];
    let register = Register::start(&server, &arguments);
    wait_until("it asks", || asked.load(Ordering::Relaxed));
    wait_until("the server answers for names", || {
        server.srv(NAME).is_some()
    });
    assert_eq!(server.srv(NAME), Some(Vec::new()));
    ready.store(true, Ordering::Relaxed);
    let record = format!("0 1 8081 {TARGET}");
    until_there_are(&server, &[&record]);
    ready.store(false, Ordering::Relaxed);
    until_there_are(&server, &[]);
    register.says("no longer ready: it answers 503");
    ready.store(true, Ordering::Relaxed);
    until_there_are(&server, &[&record]);
}

/// Two backends under traffic; each leaves in turn by TERM and comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_notices_that_a_backend_leaves() {
    let server = NameServer::start(Kind::Own);
    let start = |name: &str| {
        let port = free_port().port();
        let (text, listen) = (port.to_string(), format!("127.0.0.1:{port}"));
        let target = format!("{name}.web.{ZONE}");
        let options = [
            "--port", &text, "--target", &target, "--ttl", "1s", "--ready", "tcp", "--",
        ];
        let backend = [
            env!("CARGO_BIN_EXE_evenkeel"),
            "backend",
            "--listen",
            &listen,
        ];
        let arguments = [&options[..], &backend, &["--name", name]].concat();
        let register = Register::start(&server, &arguments);
        register.says("registered ");
        register
    };
    let mut backends = [start("b1"), start("b2")];
    let both = || server.srv(NAME).is_some_and(|records| records.len() == 2);
    wait_until("both are there", both);
    let balancer = Server::binary(&format!(
        r#"
workers = 1
[dns]
servers = ["{}"]
[log]
access = "off"
[[listener]]
address = "127.0.0.1:0"
protocol = "http"
[[service]]
name = "web"
discover = {{ srv = "{NAME}" }}
[[route]]
service = "web"
"#,
        server.address
    ));
    let target = Target::plain(balancer.address());
    let mut client = traffic::Client::new(target.clone());
    let mut served = async |by: &[&str]| {
        let begun = tokio::time::Instant::now();
        let mut seen = std::collections::BTreeSet::new();
        while !by.iter().all(|name| seen.contains(*name)) {
            assert!(begun.elapsed() < support::PATIENCE, "{by:?}: only {seen:?}");
            let answer = client.get("/").await.expect("a response");
            seen.extend(answer.backend);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    served(&["b1", "b2"]).await;
    let steady = Traffic::start("steady", &target, 2, Duration::from_millis(4));
    for (nth, name) in ["b1", "b2"].into_iter().enumerate() {
        let leaving = &mut backends[nth];
        leaving.signal(Signal::TERM);
        assert_eq!(block_in_place(|| leaving.exit_code()), Some(0));
        *leaving = block_in_place(|| start(name));
        served(&["b1", "b2"]).await;
    }
    let records = steady.stop().await;
    let failed: Vec<_> = records.iter().filter(|record| record.failed()).collect();
    println!("{} requests", records.len());
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(
        records.len() > 200,
        "too few to show anything: {}",
        records.len()
    );
}

#[test]
fn what_cannot_be_is_said_at_once() {
    let server = NameServer::stopped(Kind::Own);
    let bad = server.folder().write("bad.key", "key web;\n");
    let file = server.key_file();
    let file = file.to_str().expect("a plain path");
    let bad = bad.to_str().expect("a plain path");
    let cases: [(&[&str], i32, &str); 6] = [
        (
            &["--tsig-file", bad],
            1,
            "bad.key:1: expected `{`, found `;`",
        ),
        (
            &["--tsig-file", file, "--", "/nowhere/to/be/found"],
            1,
            "cannot run `/nowhere/to/be/found`",
        ),
        (
            &["--tsig-file", file, "--zone", "example.test"],
            1,
            "does not lie in the zone",
        ),
        (
            &["--tsig-file", file, "--ttl", "1500ms"],
            2,
            "whole seconds",
        ),
        (
            &["--tsig-file", file, "--server", "http://dns"],
            2,
            "an address or a name",
        ),
        (
            &["--tsig-file", file, "--ready", "https://127.0.0.1/"],
            2,
            "tcp://127.0.0.1:8080",
        ),
    ];
    for (arguments, code, words) in cases {
        let mut command = binary();
        command.args(["register", NAME, "--port", "8081"]);
        if !arguments.contains(&"--server") {
            command.args(["--server", "127.0.0.1:53"]);
        }
        let output = support::server::output(command.args(arguments));
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
}
