//! Name servers that take dynamic updates: BIND, Knot, and our own. Each has one zone that starts
//! with no records but its own, and the key `web`, which may change all of it.

#![allow(dead_code, reason = "each test file uses the part that it needs")]

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, Query, ResponseCode};
use hickory_proto::rr::rdata::SRV;
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::time::Instant;

use crate::support::server::{Folder, Process, binary};
use crate::support::{PATIENCE, pause, require};

/// The zone.
pub const ZONE: &str = "svc.test";

/// Base64 of 32 bytes; nobody but the tests can reach the servers for as long as they live.
pub const SECRET: &str = "ZXZlbmtlZWwtdGVzdHMtb25seS0wMTIzNDU2Nzg5YWI=";

/// The longest lease that our own grants.
pub const MAX_LEASE: Duration = Duration::from_secs(3);

/// Whose program it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `named` of BIND.
    Bind,
    /// `knotd`.
    Knot,
    /// `evenkeel dns`.
    Own,
}

/// A name server that runs, or has been stopped.
#[derive(Debug)]
pub struct NameServer {
    /// Where it listens.
    pub address: SocketAddr,
    kind: Kind,
    folder: Folder,
    process: Option<Process>,
}

impl Kind {
    /// Those whose program is installed.
    pub fn installed() -> Vec<Kind> {
        let mut kinds = vec![Kind::Own];
        for (kind, program) in [(Kind::Bind, "named"), (Kind::Knot, "knotd")] {
            if require(program) {
                kinds.push(kind);
            }
        }
        kinds
    }
}

impl NameServer {
    /// Starts one and waits until it answers.
    pub fn start(kind: Kind) -> NameServer {
        let mut server = NameServer::stopped(kind);
        // A port that was free a moment ago may be taken now.
        for _ in 0..10 {
            if server.try_start() {
                return server;
            }
            server.address = free_port();
        }
        panic!("no port for {kind:?}");
    }

    /// One that has an address, but does not run yet.
    pub fn stopped(kind: Kind) -> NameServer {
        let folder = Folder::new();
        folder.write("web.key", &key_text("web", SECRET));
        private(&folder.path().join("web.key"));
        NameServer {
            address: free_port(),
            kind,
            folder,
            process: None,
        }
    }

    /// A file with the key.
    pub fn key_file(&self) -> PathBuf {
        self.folder.path().join("web.key")
    }

    /// Another key file, which the server knows nothing of.
    pub fn write_key(&self, file: &str, name: &str, secret: &str) -> PathBuf {
        let path = self.folder.write(file, &key_text(name, secret));
        private(&path);
        path
    }

    /// Its folder, which goes with it.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// What it has logged since it was started.
    pub fn log(&self) -> Vec<String> {
        self.process.as_ref().map_or_else(Vec::new, Process::log)
    }

    /// Ends it.
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// Runs it again at the same address; what was registered is lost.
    pub fn start_empty(&mut self) {
        self.stop();
        let begun = Instant::now();
        while !self.try_start() {
            assert!(begun.elapsed() < PATIENCE, "{} is taken", self.address);
        }
    }

    /// False: its port was taken.
    fn try_start(&mut self) -> bool {
        let mut command = match self.kind {
            Kind::Bind => self.bind(),
            Kind::Knot => self.knot(),
            Kind::Own => self.own(),
        };
        self.process = Some(Process::spawn(command.stdin(Stdio::null())));
        let begun = Instant::now();
        loop {
            let asked = self.ask(ZONE, RecordType::SOA);
            if asked.is_some_and(|m| m.metadata.response_code == ResponseCode::NoError) {
                return true;
            }
            let process = self.process.as_mut().expect("it was started");
            if !process.is_running() {
                let log = process.log();
                let taken = |line: &String| line.to_lowercase().contains("address");
                assert!(
                    log.iter().any(taken),
                    "{:?} does not start: {log:#?}",
                    self.kind
                );
                return false;
            }
            assert!(begun.elapsed() < PATIENCE, "{:#?}", process.log());
            pause(Duration::from_millis(10));
        }
    }

    fn bind(&self) -> Command {
        self.folder.write("zone.db", &zone_file());
        let _ = std::fs::remove_file(self.folder.path().join("zone.db.jnl"));
        let conf = format!(
            r#"
options {{
    directory "{directory}";
    listen-on port {port} {{ 127.0.0.1; }};
    listen-on-v6 {{ none; }};
    pid-file none;
    session-keyfile none;
    recursion no;
    dnssec-validation no;
}};
controls {{ }};
include "web.key";
key "narrow" {{ algorithm hmac-sha256; secret "{SECRET}"; }};
zone "{ZONE}" {{
    type primary;
    file "zone.db";
    update-policy {{ grant web zonesub ANY; grant narrow name other.{ZONE} ANY; }};
}};
"#,
            directory = self.folder.path().display(),
            port = self.address.port(),
        );
        let conf = self.folder.write("named.conf", &conf);
        let mut command = Command::new("named");
        command.args(["-g", "-4", "-n", "1", "-c"]).arg(conf);
        command
    }

    fn knot(&self) -> Command {
        self.folder.write("zone.db", &zone_file());
        let folder = self.folder.path().display();
        let _ = std::fs::remove_dir_all(self.folder.path().join("journal"));
        let conf = format!(
            r#"
server:
    listen: 127.0.0.1@{port}
    rundir: {folder}
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
log:
  - target: stderr
    any: info
database:
    storage: {folder}
key:
  - id: web
    algorithm: hmac-sha256
    secret: {SECRET}
acl:
  - id: updates
    key: web
    action: update
zone:
  - domain: {ZONE}
    storage: {folder}
    file: zone.db
    acl: updates
    zonefile-sync: -1
"#,
            port = self.address.port(),
        );
        let conf = self.folder.write("knot.conf", &conf);
        let mut command = Command::new("knotd");
        command.arg("-c").arg(conf);
        command
    }

    fn own(&self) -> Command {
        let mut command = binary();
        let max_lease = format!("{}s", MAX_LEASE.as_secs());
        command
            .args(["dns", "--zone", ZONE, "--max-lease", &max_lease, "--listen"])
            .arg(self.address.to_string())
            .arg("--key")
            .arg(self.key_file());
        command
    }

    /// What it says about a name, if it answers soon.
    pub fn ask(&self, name: &str, kind: RecordType) -> Option<Message> {
        let mut question = Message::query();
        question.add_query(Query::query(absolute(name), kind));
        let mut edns = Edns::new();
        edns.set_max_payload(1232);
        question.set_edns(edns);
        let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback has ports");
        let patience = Some(Duration::from_millis(500));
        socket.set_read_timeout(patience).expect("it is not zero");
        socket.connect(self.address).expect("loopback is there");
        socket.send(&question.to_vec().expect("it is small")).ok()?;
        let mut buffer = [0; 1232];
        let length = socket.recv(&mut buffer).ok()?;
        let answer = Message::from_vec(&buffer[..length]).expect("servers answer in DNS");
        (answer.metadata.id == question.metadata.id).then_some(answer)
    }

    /// Its SRV records of a name, as `priority weight port target`, in order; `None` if it does
    /// not say.
    pub fn srv(&self, name: &str) -> Option<Vec<String>> {
        let answer = self.ask(name, RecordType::SRV)?;
        let code = answer.metadata.response_code;
        if !matches!(code, ResponseCode::NoError | ResponseCode::NXDomain) {
            return None;
        }
        let mut records: Vec<_> = answer.answers.iter().filter_map(|r| srv(&r.data)).collect();
        records.sort();
        Some(records)
    }

    /// Its A and AAAA records of a name.
    pub fn addresses(&self, name: &str) -> Vec<String> {
        let kinds = [RecordType::A, RecordType::AAAA];
        let answers = kinds.iter().filter_map(|kind| self.ask(name, *kind));
        answers
            .flat_map(|answer| answer.answers)
            .map(|record| record.data.to_string())
            .collect()
    }
}

fn srv(data: &RData) -> Option<String> {
    match data {
        RData::SRV(SRV {
            priority,
            weight,
            port,
            target,
            ..
        }) => Some(format!("{priority} {weight} {port} {target}")),
        _ => None,
    }
}

/// The zone as BIND and Knot read it.
fn zone_file() -> String {
    format!(
        "$TTL 1\n@ IN SOA ns.{ZONE}. root.{ZONE}. 1 3600 600 86400 1\n@ IN NS ns.{ZONE}.\n\
         ns IN A 127.0.0.1\n"
    )
}

/// As `tsig-keygen` writes it.
fn key_text(name: &str, secret: &str) -> String {
    format!("key \"{name}\" {{\n\talgorithm hmac-sha256;\n\tsecret \"{secret}\";\n}};\n")
}

fn private(file: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(file, mode).expect("it is ours");
}

/// With the final dot.
pub fn absolute(name: &str) -> Name {
    let mut name = Name::from_ascii(name).expect("a test's names are sound");
    name.set_fqdn(true);
    name
}

/// A port that is free for UDP and TCP.
pub fn free_port() -> SocketAddr {
    loop {
        let udp = UdpSocket::bind("127.0.0.1:0").expect("loopback has ports");
        let address = udp.local_addr().expect("it is bound");
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}
