//! The dashboard as people see it: headless Chromium before a real balancer, while backends join,
//! change, fail and leave. What is looked at is in `scripts/dashboard.py`; here is what happens.
//!
//! `EVENKEEL_SCREENSHOTS=docs cargo test --test dashboard -- --ignored` keeps the screenshots there.

mod support;
#[path = "support/traffic.rs"]
mod traffic;
#[path = "support/zone.rs"]
mod zone;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use evenkeel::dns_server::client::{Client, Update};
use hickory_proto::rr::rdata::{A, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use support::server::{Folder, Process, Server, binary};
use support::{python_with, require, wait_until};
use traffic::{Target, Traffic};
use zone::ZoneServer;

const NAME: &str = "_http._tcp.web.svc.test.";

/// Backends in processes of their own, and their records in our own zone.
struct Cast {
    zone: ZoneServer,
    players: BTreeMap<&'static str, Player>,
}

struct Player {
    process: Process,
    address: SocketAddr,
    priority: u16,
    weight: u16,
}

impl Cast {
    fn new() -> Cast {
        let zone = ZoneServer::with_key("2s", &[]);
        // It knows nothing at its start, and says so for one lease.
        wait_until("it answers as usual", || zone.logged("answers as usual"));
        let players = BTreeMap::new();
        let mut cast = Cast { zone, players };
        cast.join("b1", 0, 3, &[]);
        cast.join("b2", 0, 1, &[]);
        cast.join("s1", 10, 1, &[]);
        cast
    }

    /// Starts one, which may be told more, and lists it.
    fn join(&mut self, name: &'static str, priority: u16, weight: u16, more: &[&str]) {
        let (process, address) = play(name, "127.0.0.1:0", more);
        let player = Player {
            process,
            address,
            priority,
            weight,
        };
        self.players.insert(name, player);
        self.publish();
    }

    fn fail(&mut self, name: &str) {
        self.player(name).process.kill();
    }

    fn recover(&mut self, name: &'static str) {
        let address = self.player(name).address.to_string();
        self.player(name).process = play(name, &address, &[]).0;
    }

    fn weigh(&mut self, name: &str, weight: u16) {
        self.player(name).weight = weight;
        self.publish();
    }

    fn fail_all(&mut self) {
        for player in self.players.values_mut() {
            player.process.kill();
        }
    }

    /// DNS lists it no longer; it goes on answering until it is told to end.
    fn leave(&mut self, name: &str) -> Player {
        let gone = self.players.remove(name).expect("it is in the cast");
        self.publish();
        gone
    }

    fn player(&mut self, name: &str) -> &mut Player {
        self.players.get_mut(name).expect("it is in the cast")
    }

    /// Has DNS say who is there.
    fn publish(&self) {
        self.publish_those(|_| true);
    }

    fn publish_those(&self, listed: impl Fn(&str) -> bool) {
        let name = |text: &str| Name::from_ascii(text).expect("it is a name");
        let mut update = Update::new(name("svc.test."));
        update.delete_set(name(NAME), RecordType::SRV);
        for (player, its) in self.players.iter().filter(|(name, _)| listed(name)) {
            let host = name(&format!("{player}.web.svc.test."));
            update.delete_set(host.clone(), RecordType::A);
            let address = RData::A(A::new(127, 0, 0, 1));
            update.add(Record::from_rdata(host.clone(), 3, address));
            let srv = SRV::new(its.priority, its.weight, its.address.port(), host);
            update.add(Record::from_rdata(name(NAME), 3, RData::SRV(srv)));
        }
        let client = Client::new(self.zone.address, self.zone.key("k.key"));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let updated = runtime.expect("a runtime").block_on(client.update(&update));
        updated.expect("the key may");
    }
}

fn play(name: &str, listen: &str, more: &[&str]) -> (Process, SocketAddr) {
    let mut command = binary();
    command
        .args(["backend", "--listen", listen, "--name", name])
        .args(more);
    let process = Process::spawn(command.stdin(Stdio::null()));
    let mut address = None;
    wait_until("the backend listens", || {
        let said = process.access();
        let mut words = said.iter().flat_map(|line| line.split(' '));
        address = words.find_map(|word| word.parse::<SocketAddr>().ok());
        address.is_some()
    });
    (process, address.expect("just seen"))
}

/// The script, which says what is to happen.
struct Script(Child);

impl Drop for Script {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where a log line says that something is.
fn said(server: &mut Server, what: &str, field: &str) -> String {
    let process = server.process();
    let mut found = None;
    wait_until(what, || {
        let log = process.log();
        let line = log.iter().find(|line| line.contains(what));
        let rest = line.and_then(|line| line.split_once(field));
        let value = rest.and_then(|(_, rest)| rest.split('"').next());
        found = value.map(str::to_owned);
        found.is_some()
    });
    found.expect("just seen")
}

fn play_for(python: &Path, screenshots: &Path) {
    let mut cast = Cast::new();
    let folder = Folder::new();
    let certificate = folder.certificate("shop", &["localhost"]);
    let socket = folder.path().join("control.sock");
    let mut server = Server::binary(&format!(
        "workers = 2\n[admin]\naddress = \"127.0.0.1:0\"\nsocket = {:?}\n\
         [dns]\nservers = [\"{}\"]\n\
         [[listener]]\naddress = \"127.0.0.1:0\"\nprotocol = \"https\"\ncertificates = [{}]\n\
         [[service]]\nname = \"web\"\ndiscover = {{ srv = \"{NAME}\" }}\n\
         health = {{ http = \"/healthz\", interval = \"250ms\" }}\nejection = {{ status = [503] }}\n\
         [[route]]\nservice = \"web\"\n[log]\naccess = \"off\"\n",
        socket,
        cast.zone.address,
        certificate.entry(),
    ));
    let page = said(&mut server, "control listening", "\"address\":\"");
    let token = said(&mut server, "what changes over TCP need", "\"file\":\"");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let target = Target::tls(server.address(), &certificate.ca);
    let _entered = runtime.enter();
    let mut traffic = vec![Traffic::repeatable(&target, 4, Duration::from_millis(20))];

    let script = Command::new(python)
        .arg("tests/scripts/dashboard.py")
        .arg(format!("http://{page}/"))
        .args([Path::new(&token), screenshots])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Python is there");
    let mut script = Script(script);
    let mut answers = script.0.stdin.take().expect("it is piped");
    let wishes = BufReader::new(script.0.stdout.take().expect("it is piped"));
    let mut gone = Vec::new();
    let mut last = String::new();
    for wish in wishes.lines().map_while(Result::ok) {
        match wish.as_str() {
            "join" => cast.join("b4", 0, 2, &[]),
            "weight" => cast.weigh("b4", 4),
            "fail" => cast.fail("b2"),
            "eject" => cast.join("b5", 0, 1, &["--error-rate", "100%"]),
            "recover" => cast.recover("b2"),
            "leave" => gone.push(cast.leave("b4")),
            "fail over" => ["b1", "b2", "b5"].iter().for_each(|name| cast.fail(name)),
            "weight back" => cast.weigh("b1", 5),
            "more clients" => {
                traffic.push(Traffic::repeatable(&target, 8, Duration::from_millis(10)));
            }
            "fail all" => cast.fail_all(),
            "swap the certificate" => {
                folder.certificate("shop", &["localhost"]);
            }
            "reload" => server.process().signal(rustix::process::Signal::HUP),
            "vanish" => cast.publish_those(|_| false),
            "appear" => cast.publish(),
            "lose DNS" => cast.zone.kill(),
            "drain" => {
                let mut drain = binary();
                drain.arg("drain").arg("--socket").arg(&socket);
                let drained = support::server::output(&mut drain);
                assert!(drained.status.success(), "{drained:?}");
            }
            "fine" => {}
            other => panic!("what is {other:?}?"),
        }
        println!("{wish}");
        last = wish;
        // It may have ended: then it says so below.
        let _ = writeln!(answers, "done");
    }
    let status = script.0.wait().expect("it is our child");
    let log = server.process().log().join("\n");
    assert!(
        status.success() && last == "fine",
        "{status}, after {last:?}:\n{log}"
    );
    for traffic in traffic {
        runtime.block_on(traffic.stop());
    }
}

/// `None`: no browser here.
fn browser() -> Option<PathBuf> {
    let python = python_with(&["playwright"])?;
    require("chromium").then_some(python)
}

#[test]
fn dialogs_and_forms() {
    let Some(python) = browser() else {
        return;
    };
    let folder = Folder::new();
    let token = folder.write("token", "0123456789abcdef0123456789abcdef");
    let socket = folder.path().join("control.sock");
    let mut server = Server::binary(&format!(
        "workers = 1\n[admin]\naddress = \"0.0.0.0:0\"\nsocket = {socket:?}\ntoken_file = {token:?}\n\
         {}",
        include_str!("scripts/dialogs.toml")
    ));
    let page = said(&mut server, "control listening", "\"address\":\"");
    let page = page.replace("0.0.0.0", "127.0.0.1");
    let script = Command::new(python)
        .arg("tests/scripts/dialogs.py")
        .args([format!("http://{page}/").as_ref(), token.as_os_str()])
        .output()
        .expect("Python is there");
    let words = String::from_utf8_lossy(&script.stderr);
    assert!(
        script.status.success() && script.stdout == b"fine\n",
        "{words}"
    );
}

#[test]
#[ignore = "a minute of clicks in a browser: .ci/run runs it"]
fn every_element_is_there_and_moves() {
    let Some(python) = browser() else {
        return;
    };
    let folder = Folder::new();
    let kept = std::env::var_os("EVENKEEL_SCREENSHOTS").map(PathBuf::from);
    play_for(&python, kept.as_deref().unwrap_or(folder.path()));
}
