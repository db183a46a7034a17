//! Boots the server: in this process, or as the real binary in a process of its own.
//!
//! Every listener of a test's configuration is on port 0; the addresses that were bound are
//! asked of the running server, or read off the binary's log. Either kind ends with its value.

use std::io::{BufRead, BufReader, Read, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use evenkeel::config::{AccessFormat, Config, Format, Loader};
use evenkeel::events::Reloaded;
use evenkeel::server::{Drained, Order, Running, Source};
use evenkeel::tls::dev;
use tempfile::TempDir;
use tokio::time::Instant;

use super::client::Client;
use super::{PATIENCE, lock, pause, wait_until};

/// A temporary folder for certificates and configurations; gone when it is dropped.
#[derive(Debug)]
pub struct Folder(TempDir);

/// Where a certificate was put.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// What clients trust.
    pub ca: PathBuf,
    /// The chain.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Folder {
    /// A new one.
    pub fn new() -> Folder {
        Folder(tempfile::tempdir().expect("there is a place for temporary files"))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Makes a certificate for `hosts` with an authority of its own.
    pub fn certificate(&self, name: &str, hosts: &[&str]) -> Certificate {
        let hosts: Vec<String> = hosts.iter().map(|h| (*h).to_owned()).collect();
        let made = dev::self_signed(&hosts).expect("the names are sound");
        let files = dev::DevFiles::within(&self.path().join(name));
        files
            .write(&made, dev::Existing::Replace)
            .expect("the folder can be written");
        Certificate {
            ca: files.ca,
            cert: files.cert,
            key: files.key,
        }
    }

    /// Writes a file.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, text).expect("the folder can be written");
        path
    }
}

impl Certificate {
    /// As an entry of `certificates` in a configuration.
    pub fn entry(&self) -> String {
        let (cert, key) = (self.cert.display(), self.key.display());
        format!("{{ cert = \"{cert}\", key = \"{key}\" }}")
    }
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    /// Where each listener listens, in the order of the configuration.
    pub addresses: Vec<SocketAddr>,
    /// Where the probe listener listens.
    pub probe: Option<SocketAddr>,
    /// Where the control listener listens: nowhere, unless the configuration says so.
    pub admin: Option<SocketAddr>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Thread(Option<Running>),
    Process(Process),
}

/// The binary, or another program, in a process of its own.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    access: Arc<Mutex<Vec<String>>>,
    folder: Option<TempDir>,
}

impl Server {
    /// Boots in this process. The probe listener is on a port of its own unless the
    /// configuration says where it is.
    pub fn in_process(toml: &str) -> Server {
        let mut config = load(toml);
        // It would go between the test's own lines.
        config.log.access = AccessFormat::Off;
        Server::start(config, std::io::sink())
    }

    /// Boots in this process, with an access log as the configuration says, written to `out`.
    pub fn logging(toml: &str, out: impl std::io::Write + Send + 'static) -> Server {
        Server::start(load(toml), out)
    }

    fn start(config: Config, out: impl std::io::Write + Send + 'static) -> Server {
        let running = evenkeel::server::start_logging(config, out).expect("the server starts");
        Server {
            addresses: running.addresses.clone(),
            probe: running.probe,
            admin: running.admin,
            kind: Kind::Thread(Some(running)),
        }
    }

    /// Boots in this process from a file, which can be written anew and reloaded.
    pub fn from_file(file: &Path) -> Server {
        let file = file.to_owned();
        let source: Source = Arc::new(move || {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            let loader = Loader::file(&file).set("log.access=off");
            settings(&text).into_iter().fold(loader, Loader::set).load()
        });
        let config = match source() {
            Ok(loaded) => loaded.config,
            Err(diagnostic) => panic!("a test's configuration is wrong:\n{diagnostic}"),
        };
        let running = evenkeel::server::start_from(config, Some(source), std::io::sink());
        let running = running.expect("the server starts");
        Server {
            addresses: running.addresses.clone(),
            probe: running.probe,
            admin: running.admin,
            kind: Kind::Thread(Some(running)),
        }
    }

    /// Reads the file again; says what became of that.
    pub fn reload(&mut self) -> Reloaded {
        let Kind::Thread(Some(running)) = &self.kind else {
            panic!("it does not run in this process");
        };
        let reloaded = running.reload().expect("it has not ended");
        self.addresses = running.listening();
        reloaded
    }

    /// Runs the binary: `evenkeel run -c FILE`, and waits until it listens.
    pub fn binary(toml: &str) -> Server {
        Server::of(binary(), toml)
    }

    /// The same with a variable in its environment.
    pub fn binary_with(name: &str, value: impl AsRef<std::ffi::OsStr>, toml: &str) -> Server {
        let mut command = binary();
        command.env(name, value);
        Server::of(command, toml)
    }

    /// The same with so many file descriptors.
    pub fn binary_with_descriptors(descriptors: u32, toml: &str) -> Server {
        let own = binary();
        let mut command = Command::new("sh");
        for (name, _) in own.get_envs() {
            command.env_remove(name);
        }
        // The shell is gone when the program is there: the process is the same.
        let script = "ulimit -n \"$0\" && exec \"$@\"";
        let limit = descriptors.to_string();
        command.args(["-c", script, &limit]).arg(own.get_program());
        Server::of(command, toml)
    }

    fn of(mut command: Command, toml: &str) -> Server {
        let config = load(toml);
        let folder = tempfile::tempdir().expect("there is a place for temporary files");
        let file = folder.path().join("evenkeel.toml");
        std::fs::write(&file, toml).expect("the folder can be written");
        command.arg("run").arg("-c").arg(&file);
        for setting in settings(toml) {
            command.arg("--set").arg(setting);
        }
        let mut process = Process::spawn(command.stdin(Stdio::null()));
        process.folder = Some(folder);
        let wanted = config.listeners.len();
        wait_until("the binary listens", || {
            let ended = process.child.try_wait().expect("it is our child");
            if let Some(status) = ended {
                panic!("the binary ended ({status}): {:#?}", lock(&process.log));
            }
            process.bound("listening").len() == wanted
                && process.bound("probe listening").len() == usize::from(config.probe.is_some())
        });
        Server {
            addresses: process.bound("listening"),
            probe: process.bound("probe listening").pop(),
            admin: process.bound("control listening").pop(),
            kind: Kind::Process(process),
        }
    }

    /// Where the first listener listens.
    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// The value of a series, labels included, on its metrics page; `None`: there is none.
    pub fn metric(&self, series: &str) -> Option<f64> {
        let probe = self.probe.expect("there is a probe listener");
        let page = Client::plain(probe).get("probe", "/metrics");
        let page = page.expect("it answers").text();
        let mut lines = page.lines();
        let value = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
        Some(value.parse().expect("it is a number"))
    }

    /// Starts a drain: an order in this process, a TERM to the binary.
    pub fn drain(&self) {
        match &self.kind {
            Kind::Thread(Some(running)) => running.order(Order::Drain),
            Kind::Thread(None) => panic!("the server has ended"),
            Kind::Process(process) => process.signal(rustix::process::Signal::TERM),
        }
    }

    /// Waits for its end after a drain in this process.
    pub fn drained(mut self) -> Drained {
        match &mut self.kind {
            Kind::Thread(running) => {
                let running = running.take().expect("it ends once");
                running.wait().expect("it ended well")
            }
            Kind::Process(_) => panic!("ask a process for its exit code"),
        }
    }

    /// The binary's process; panics for a server in this one.
    pub fn process(&mut self) -> &mut Process {
        match &mut self.kind {
            Kind::Process(process) => process,
            Kind::Thread(_) => panic!("it runs in this process"),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Kind::Thread(running) = &mut self.kind
            && let Some(running) = running.take()
        {
            running.order(Order::Stop);
            let ended = running.wait();
            if !std::thread::panicking() {
                ended.expect("no thread of the server panicked");
            }
        }
    }
}

impl Process {
    /// Runs a command; standard error is its log.
    pub fn spawn(command: &mut Command) -> Process {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program is there");
        Process {
            log: collect(child.stderr.take().expect("it is piped")),
            access: collect(child.stdout.take().expect("it is piped")),
            folder: None,
            child,
        }
    }

    /// Ends it at once, by its number.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Its process number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let id = i32::try_from(self.child.id()).ok();
        let id = id.and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(id.expect("a child has a number"), signal)
            .expect("our child is there");
    }

    /// Waits for its end: the exit code, `None` after a signal.
    pub fn exit_code(&mut self, within: Duration) -> Option<i32> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return status.code();
            }
            assert!(
                begun.elapsed() < within,
                "still running: {:#?}",
                lock(&self.log)
            );
            pause(Duration::from_millis(2));
        }
    }

    /// Has it not ended yet?
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_none()
    }

    /// Lines of its log so far.
    pub fn log(&self) -> Vec<String> {
        lock(&self.log).clone()
    }

    /// Lines of its access log so far.
    pub fn access(&self) -> Vec<String> {
        lock(&self.access).clone()
    }

    /// Resident memory in bytes.
    pub fn resident(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/statm", self.child.id()))
            .expect("the process is there");
        let pages: u64 = text
            .split(' ')
            .nth(1)
            .and_then(|field| field.parse().ok())
            .expect("statm has numbers");
        pages * rustix::param::page_size() as u64
    }

    /// CPU time that it has used.
    pub fn cpu(&self) -> Duration {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))
            .expect("the process is there");
        let after_name = &text[text.rfind(')').expect("the name is in brackets")..];
        // utime and stime, fields 14 and 15; the first one here is the second of all.
        let fields = after_name.split(' ').skip(12).take(2);
        let ticks: u64 = fields
            .map(|field| field.parse::<u64>().expect("stat has numbers"))
            .sum();
        Duration::from_millis(ticks * 1_000 / rustix::param::clock_ticks_per_second())
    }

    /// The addresses that its log says were bound, under this message.
    pub fn bound(&self, message: &str) -> Vec<SocketAddr> {
        let log = lock(&self.log);
        let lines = log.iter();
        lines
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .filter(|line| line["message"] == message)
            .map(|line| {
                let address = line["address"].as_str().expect("it says where");
                address.parse().expect("it is an address")
            })
            .collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        self.kill();
    }
}

/// A command of the binary, without any settings from our own environment.
pub fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("EVENKEEL_") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command
}

const PROBE_ANYWHERE: &str = "probe.address=127.0.0.1:0";

/// What keeps several servers on one machine out of each other's way, where a configuration does not
/// say it itself.
fn settings(toml: &str) -> Vec<&'static str> {
    let has = |table: &str| toml.lines().any(|line| line.trim() == table);
    let mut settings = Vec::new();
    if !has("[probe]") {
        settings.push(PROBE_ANYWHERE);
    }
    if !has("[admin]") {
        settings.extend(["admin.address=off", "admin.socket=off"]);
    }
    settings
}

fn load(toml: &str) -> Config {
    let loader = Loader::text(toml, Format::Toml);
    match settings(toml).into_iter().fold(loader, Loader::set).load() {
        Ok(loaded) => loaded.config,
        Err(diagnostic) => panic!("a test's configuration is wrong:\n{diagnostic}"),
    }
}

fn collect(from: impl Read + Send + 'static) -> Arc<Mutex<Vec<String>>> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&lines);
    // It ends when the process at the other end does.
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            lock(&kept).push(line);
        }
    });
    lines
}

/// Waits for the end of a command that was started with piped output; kills it when it takes too
/// long.
pub fn output(command: &mut Command) -> Output {
    output_of(command, Vec::new())
}

/// The same for a command that is given something to read; its input then ends.
pub fn output_of(command: &mut Command, input: Vec<u8>) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program is installed");
    let id = child.id();
    let mut stdin = child.stdin.take().expect("it is piped");
    std::thread::spawn(move || {
        // It need not read it.
        let _ = stdin.write_all(&input);
    });
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let _ = sender.send(child.wait_with_output());
    });
    match receiver.recv_timeout(3 * PATIENCE) {
        Ok(output) => output.expect("its output can be read"),
        Err(_) => {
            let id = i32::try_from(id)
                .ok()
                .and_then(rustix::process::Pid::from_raw);
            let killed = rustix::process::kill_process(
                id.expect("a child has a number"),
                rustix::process::Signal::KILL,
            );
            panic!("{command:?} took too long ({killed:?})");
        }
    }
}
