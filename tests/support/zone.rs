//! `evenkeel dns` as a process of its own, to be killed and started again.
//!
//! Blocking, as everything in this folder; waits for conditions only.

#![allow(dead_code, reason = "each test file uses the part that it needs")]

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use evenkeel::dns_server::key::Key;
use tempfile::TempDir;

use crate::support::{lock, wait_until};

/// A zone server and its folder.
pub struct ZoneServer {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    arguments: Vec<String>,
    folder: Arc<TempDir>,
    pub address: SocketAddr,
}

impl ZoneServer {
    /// Starts one on a free port of loopback; relative files are in a folder of its own.
    pub fn start(arguments: &[&str]) -> ZoneServer {
        let folder = Arc::new(tempfile::tempdir().expect("there is a place for temporary files"));
        let arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
        ZoneServer::boot(folder, arguments, "127.0.0.1:0")
    }

    /// The zone `svc.test`, which the key in `k.key` may change, with this longest lease.
    pub fn with_key(max_lease: &str, more: &[&str]) -> ZoneServer {
        let zone = ["--zone", "svc.test", "--max-lease", max_lease];
        let key = ["--key", "k.key", "--make-keys"];
        ZoneServer::start(&[&zone[..], &key, more].concat())
    }

    /// With `zone.toml` in the folder, and its key files made; `listen` is not to be in it.
    pub fn configured(config: &str) -> ZoneServer {
        let folder = Arc::new(tempfile::tempdir().expect("there is a place for temporary files"));
        let text = format!("listen = [\"127.0.0.1:0\"]\n{config}");
        std::fs::write(folder.path().join("zone.toml"), text).expect("the folder can be written");
        let arguments = ["-c", "zone.toml", "--make-keys"]
            .map(str::to_owned)
            .to_vec();
        ZoneServer::boot(folder, arguments, "")
    }

    fn boot(folder: Arc<TempDir>, arguments: Vec<String>, listen: &str) -> ZoneServer {
        let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
        command
            .arg("dns")
            .args(&arguments)
            .current_dir(folder.path());
        if !listen.is_empty() {
            command.args(["--listen", listen]);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .env_remove("EVENKEEL_LOG")
            .env_remove("RUST_LOG")
            .spawn()
            .expect("the program starts");
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let kept = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                lock(&kept).push(line);
            }
        });
        let address = |log: &[String]| -> Option<SocketAddr> {
            let line = log
                .iter()
                .find_map(|line| line.split_once("dns: serves on "))?;
            line.1.split('"').next()?.split(',').next()?.parse().ok()
        };
        let mut found = None;
        wait_until("the zone server listens", || {
            if let Ok(Some(status)) = child.try_wait() {
                panic!("ended with {status}: {:#?}", lock(&log));
            }
            found = address(&lock(&log));
            found.is_some()
        });
        ZoneServer {
            child,
            log,
            arguments,
            folder,
            address: found.expect("waited for"),
        }
    }

    /// Kills it without a word and starts it again at the same address with the same folder.
    pub fn crash_and_restart(&mut self) {
        self.kill();
        self.restart();
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Ends it as an orchestrator does, and waits; its exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        self.signal(rustix::process::Signal::TERM);
        self.child.wait().expect("it is our child").code()
    }

    /// Starts it again after it was ended, with another longest lease.
    pub fn restart_with_max_lease(&mut self, max_lease: &str) {
        let place = self.arguments.iter().position(|a| a == "--max-lease");
        self.arguments[place.expect("it was started with one") + 1] = max_lease.to_owned();
        self.restart();
    }

    /// Starts it again after it was ended.
    pub fn restart(&mut self) {
        let listen = self.address.to_string();
        let config = self.path("zone.toml");
        if config.exists() {
            let text = std::fs::read_to_string(&config).expect("it was written");
            std::fs::write(&config, text.replace("127.0.0.1:0", &listen)).expect("writable");
            let (folder, arguments) = (Arc::clone(&self.folder), self.arguments.clone());
            *self = ZoneServer::boot(folder, arguments, "");
        } else {
            let (folder, arguments) = (Arc::clone(&self.folder), self.arguments.clone());
            *self = ZoneServer::boot(folder, arguments, &listen);
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let id = i32::try_from(self.child.id()).ok();
        let id = id.and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(id.expect("a child has a number"), signal)
            .expect("our child is there");
    }

    /// A file in its folder.
    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A key that it knows.
    pub fn key(&self, file: &str) -> Key {
        Key::read(&self.path(file)).expect("the server made it").key
    }

    /// Lines of its log so far.
    pub fn log(&self) -> Vec<String> {
        lock(&self.log).clone()
    }

    /// Is there such a line?
    pub fn logged(&self, part: &str) -> bool {
        lock(&self.log).iter().any(|line| line.contains(part))
    }

    /// Resident memory in bytes.
    pub fn resident(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/statm", self.child.id()))
            .expect("the process is there");
        let pages = text
            .split(' ')
            .nth(1)
            .and_then(|field| field.parse::<u64>().ok());
        pages.expect("statm has numbers") * rustix::param::page_size() as u64
    }
}

impl Drop for ZoneServer {
    fn drop(&mut self) {
        self.kill();
    }
}
