//! The proxies that run, and the backend behind them.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use evenkeel::tls::dev;

use crate::arguments::{Options, Switch};
use crate::load::{Request, Tls};
use crate::peers::programs::Program;
use crate::peers::{Backends, Peer, Setup};
use crate::process::{Cores, Process, Processes};
use crate::scenario::{Front, Layer};

/// What all runs share.
#[derive(Debug)]
pub struct Bench<'a> {
    pub options: &'a Options,
    pub processes: Processes,
    pub programs: Vec<Program>,
    /// This command, which is load generator, backend and name server too.
    itself: PathBuf,
    files: Files,
}

/// A proxy that runs.
#[derive(Debug)]
pub struct Running {
    pub peer: Peer,
    pub setup: Setup,
    pub process: Process,
}

/// The certificate in the shapes that peers want.
#[derive(Debug)]
struct Files {
    ca: PathBuf,
    cert: PathBuf,
    key: PathBuf,
    both: PathBuf,
}

/// How a proxy is wanted, where it is not as always.
#[derive(Debug, Clone)]
pub struct Wish {
    pub backends: Backends,
    pub workers: usize,
    pub pinned: bool,
    pub access_log: bool,
    pub front: Front,
}

/// Name in the certificate, and in every request.
pub const HOST: &str = "localhost";

/// Connections beyond those of a scenario: probes of ours, and reserves that some proxies keep.
const SPARE: usize = 1000;

/// How long a proxy may take from its start to its first answer.
const FIRST_ANSWER: Duration = Duration::from_secs(20);

impl<'a> Bench<'a> {
    pub fn new(
        options: &'a Options,
        processes: Processes,
        programs: Vec<Program>,
    ) -> Result<Bench<'a>> {
        let files = Files::make(&folder(options)?)?;
        Ok(Bench {
            options,
            processes,
            programs,
            itself: std::env::current_exe()?,
            files,
        })
    }

    /// Where the one backend listens.
    pub fn backend_address(&self) -> SocketAddr {
        self.at(0)
    }

    /// A port of ours on loopback.
    pub fn at(&self, offset: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), self.options.ports + offset)
    }

    /// A file beside the configurations.
    pub fn path(&self, name: &str) -> Result<PathBuf> {
        Ok(folder(self.options)?.join(name))
    }

    /// The core of load generator and backend, where something is pinned at all.
    pub fn load_core(&self, pinned: bool) -> Cores {
        pinned.then_some(self.options.load_core)
    }

    /// Starts backends.
    pub fn backend(&self, addresses: &[SocketAddr], pinned: bool) -> Result<Process> {
        let mut words = vec!["backend".to_owned()];
        words.extend(addresses.iter().map(SocketAddr::to_string));
        self.role("backend", &words, &addresses[..1], pinned)
    }

    /// Starts the name server.
    pub fn names(&self, at: SocketAddr, port: u16) -> Result<Process> {
        let words = ["names".to_owned(), at.to_string(), port.to_string()];
        self.role("names", &words, &[at], true)
    }

    /// Starts the load generator on a job, written as JSON.
    pub fn load(&self, job: &str, pinned: bool) -> Result<Process> {
        let words = ["load", job];
        self.processes
            .start_piped(self.load_core(pinned), &self.itself, &words)
    }

    /// Starts a proxy and waits for its first answer.
    pub fn proxy(&self, peer: Peer, wish: &Wish) -> Result<Running> {
        let program = self.programs.iter().find(|program| program.peer == peer);
        let program = program.context("its program was not found")?;
        let ports = 10 + 10 * peer.number();
        let setup = Setup {
            folder: folder(self.options)?.join(peer.word()),
            plain: self.at(ports),
            tls: self.at(ports + 1),
            admin: self.at(ports + 2),
            cert: self.files.cert.clone(),
            key: self.files.key.clone(),
            cert_and_key: self.files.both.clone(),
            backends: wish.backends.clone(),
            workers: wish.workers,
            connections: self.options.connections + SPARE,
            access_log: wish.access_log,
            front: wish.front,
        };
        let launch = peer.configure(&setup)?;
        let core = wish.pinned.then_some(self.options.proxy_core);
        let output = setup.folder.join("output.log");
        let mut process = self.processes.start(
            core,
            &program.path,
            &launch.arguments,
            &launch.environment,
            &output,
        )?;
        let places = match setup.front {
            Front::Tcp => vec![setup.plain],
            Front::Http1 | Front::Http2 => vec![setup.plain, setup.tls],
        };
        process.wait_until_it_listens(&places)?;
        first_answer(setup.plain, &mut process)?;
        Ok(Running {
            peer,
            setup,
            process,
        })
    }

    /// TLS as the load generator speaks it; `None` where there is none.
    pub fn tls(&self, layer: Layer) -> Option<Tls> {
        let tls = |resume| Tls {
            ca: self.files.ca.clone(),
            name: HOST.to_owned(),
            resume,
        };
        match layer {
            Layer::Plain => None,
            Layer::Tls => Some(tls(false)),
            Layer::Resumed => Some(tls(true)),
        }
    }

    fn role(
        &self,
        name: &str,
        words: &[String],
        addresses: &[SocketAddr],
        pinned: bool,
    ) -> Result<Process> {
        let output = folder(self.options)?.join(format!("{name}.log"));
        let core = self.load_core(pinned);
        let started = self
            .processes
            .start(core, &self.itself, words, &[], &output);
        let mut process = started?;
        process
            .wait_until_it_listens(addresses)
            .with_context(|| format!("the {name} process"))?;
        Ok(process)
    }
}

impl Wish {
    /// One worker, pinned, before the one backend.
    pub fn usual(bench: &Bench<'_>) -> Wish {
        Wish {
            backends: Backends::One(bench.backend_address()),
            workers: 1,
            pinned: true,
            access_log: bench.options.access_log == Switch::On,
            front: Front::Http1,
        }
    }
}

impl Running {
    /// Where it serves this.
    pub fn address(&self, layer: Layer) -> SocketAddr {
        match layer {
            Layer::Plain => self.setup.plain,
            Layer::Tls | Layer::Resumed => self.setup.tls,
        }
    }
}

impl Files {
    fn make(folder: &Path) -> Result<Files> {
        let names = [HOST.to_owned(), "127.0.0.1".to_owned()];
        let made = dev::self_signed(&names).context("cannot make a certificate")?;
        let files = Files {
            ca: folder.join("ca.pem"),
            cert: folder.join("cert.pem"),
            key: folder.join("key.pem"),
            both: folder.join("cert-and-key.pem"),
        };
        let both = format!("{}{}", made.cert, made.key);
        let texts = [
            (&files.ca, &made.ca),
            (&files.cert, &made.cert),
            (&files.key, &made.key),
            (&files.both, &both),
        ];
        for (path, text) in texts {
            fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(files)
    }
}

/// A GET of what the scenarios ask for.
pub fn get(path: &str) -> Request {
    Request {
        host: HOST.to_owned(),
        path: path.to_owned(),
        upload: 0,
    }
}

/// Where configurations and logs go: in full, since proxies are told of it.
fn folder(options: &Options) -> Result<PathBuf> {
    let folder = options.out.join("peers");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder.canonicalize()?)
}

/// Asks until it answers 200: one that listens may not know its backends yet.
fn first_answer(address: SocketAddr, process: &mut Process) -> Result<()> {
    let deadline = Instant::now() + FIRST_ANSWER;
    loop {
        let answer = ask(address);
        match answer {
            Ok(line) if line.starts_with("HTTP/1.1 200") => return Ok(()),
            _ if !process.runs() => bail!("it ended: {}", process.last_words()),
            Ok(line) if Instant::now() > deadline => bail!("it answers {line}"),
            Err(error) if Instant::now() > deadline => {
                return Err(error).context("it does not answer");
            }
            _ => thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// The status line of an answer.
fn ask(address: SocketAddr) -> std::io::Result<String> {
    let second = Duration::from_secs(1);
    let mut stream = TcpStream::connect_timeout(&address, second)?;
    stream.set_read_timeout(Some(second))?;
    let request = format!("GET /2 HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = [0; 512];
    let length = stream.read(&mut answer)?;
    let text = String::from_utf8_lossy(&answer[..length]);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}
