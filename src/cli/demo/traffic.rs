//! The demo's own client: steady HTTPS requests, and a ledger of who answered them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::http::body::{BodyFraming, response_framing, response_keeps_alive};
use crate::http::h1::parse::{self, HeadLimits};
use crate::http::head::{Method, ResponseHead};

/// The client.
#[derive(Debug)]
pub struct Traffic {
    ledger: Arc<Mutex<Ledger>>,
    stop: watch::Sender<bool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

/// What was sent and what came of it.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// Requests that were answered.
    pub answered: u64,
    /// Requests that were not, or not with 200.
    pub failed: u64,
    /// What became of those, and of how many. Bounded by [`MAX_KINDS`].
    pub failures: BTreeMap<String, u64>,
    /// Since the latest [`Traffic::open_window`].
    pub window: Window,
    /// By connection: when the latest request that is finished was begun.
    pub begun: Vec<Instant>,
}

/// What happened in a stretch of time.
#[derive(Debug, Clone, Default)]
pub struct Window {
    /// Answers by backend.
    pub served: BTreeMap<String, Served>,
    /// The longest that a request took.
    pub slowest: Duration,
}

/// One backend's part of a [`Window`].
#[derive(Debug, Clone, Copy)]
pub struct Served {
    /// Answers.
    pub count: u64,
    /// When the first of them came.
    pub first: Instant,
    /// When the latest of them came.
    pub last: Instant,
}

impl Window {
    /// Answers of all backends.
    pub fn total(&self) -> u64 {
        self.served.values().map(|served| served.count).sum()
    }
}

impl Traffic {
    /// Starts sending to `address`, which must show a certificate of the authority `ca` (PEM)
    /// for [`HOST`].
    pub fn start(address: SocketAddr, ca: &str) -> anyhow::Result<Traffic> {
        let connector = connector(ca)?;
        let ledger = Arc::new(Mutex::new(Ledger {
            begun: vec![Instant::now(); CONNECTIONS as usize],
            ..Ledger::default()
        }));
        let (stop, stopped) = watch::channel(false);
        let tasks = (0..CONNECTIONS)
            .map(|number| {
                let client = Client {
                    number: number as usize,
                    address,
                    connector: connector.clone(),
                    stream: None,
                };
                tokio::spawn(client.run(Arc::clone(&ledger), stopped.clone()))
            })
            .collect();
        Ok(Traffic {
            ledger,
            stop,
            tasks,
        })
    }

    /// Begins a new window.
    pub fn open_window(&self) {
        lock(&self.ledger).window = Window::default();
    }

    /// The ledger as it is now.
    pub fn ledger(&self) -> Ledger {
        lock(&self.ledger).clone()
    }

    /// Waits until all requests that are under way now are finished, and a later one on each
    /// connection too. Each is bounded by its own deadline.
    pub async fn turn_over(&self) {
        let now = Instant::now();
        while lock(&self.ledger).begun.iter().any(|&begun| begun < now) {
            sleep(Duration::from_millis(2)).await;
        }
    }

    /// Sends no more, waits for the answers under way and closes the books.
    pub async fn finish(self) -> Ledger {
        // A failed send means that every task has ended by a panic; joining shows it.
        let _ = self.stop.send(true);
        let mut broken = 0;
        for task in self.tasks {
            broken += u64::from(task.await.is_err());
        }
        let mut ledger = lock(&self.ledger).clone();
        ledger.failed += broken;
        ledger
    }
}

/// One connection's worth of requests, one after the other.
struct Client {
    number: usize,
    address: SocketAddr,
    connector: TlsConnector,
    stream: Option<TlsStream<TcpStream>>,
}

impl Client {
    async fn run(mut self, ledger: Arc<Mutex<Ledger>>, mut stopped: watch::Receiver<bool>) {
        let mut ticks = interval(Duration::from_secs(1) / (RATE / CONNECTIONS));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = stopped.changed() => return,
            }
            let begin = Instant::now();
            let outcome = match timeout(PATIENCE, self.request()).await {
                Ok(outcome) => outcome,
                Err(_) => Err(anyhow::anyhow!("no answer within {} s", PATIENCE.as_secs())),
            };
            let mut books = lock(&ledger);
            books.enter(begin, Instant::now(), &outcome);
            books.begun[self.number] = begin;
            drop(books);
            if outcome.is_err() {
                self.stream = None;
            }
        }
    }

    /// Sends one request and reads its answer; returns who gave it.
    async fn request(&mut self) -> anyhow::Result<String> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.connect().await?,
        };
        stream.write_all(REQUEST).await.context("sending")?;
        stream.flush().await.context("sending")?;
        let mut input = Vec::with_capacity(1024);
        let mut head = ResponseHead::default();
        let length = loop {
            if let Some(length) = parse::response_head(&input, LIMITS, &mut head)? {
                break length;
            }
            let read = stream.read_buf(&mut input).await.context("receiving")?;
            ensure!(read > 0, "closed without an answer");
        };
        let BodyFraming::Length(body) = response_framing(Method::Get, &head)? else {
            bail!("an answer without a length");
        };
        while ((input.len() - length) as u64) < body {
            let read = stream.read_buf(&mut input).await.context("receiving")?;
            ensure!(read > 0, "closed within an answer");
        }
        let said = String::from_utf8_lossy(&input[length..]);
        ensure!(
            head.status == 200,
            "status {}: {}",
            head.status,
            said.trim()
        );
        let backend = head.fields.named("x-backend").next();
        let backend = backend.context("an answer of nobody")?;
        let backend = String::from_utf8_lossy(backend).into_owned();
        if response_keeps_alive(&head) {
            self.stream = Some(stream);
        }
        Ok(backend)
    }

    async fn connect(&self) -> anyhow::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.address)
            .await
            .context("connecting")?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(HOST).expect("it is a host name");
        let stream = self.connector.connect(name, stream).await;
        stream.context("TLS handshake")
    }
}

impl Ledger {
    fn enter(&mut self, begin: Instant, end: Instant, outcome: &anyhow::Result<String>) {
        self.window.slowest = self.window.slowest.max(end - begin);
        match outcome {
            Ok(backend) => {
                self.answered += 1;
                let served = self.window.served.entry(backend.clone());
                let served = served.or_insert(Served {
                    count: 0,
                    first: end,
                    last: end,
                });
                served.count += 1;
                served.last = end;
            }
            Err(error) => {
                self.failed += 1;
                let mut kind = format!("{error:#}");
                if self.failures.len() >= MAX_KINDS && !self.failures.contains_key(&kind) {
                    kind = "and others".to_owned();
                }
                *self.failures.entry(kind).or_default() += 1;
            }
        }
    }
}

fn connector(ca: &str) -> anyhow::Result<TlsConnector> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes())?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Poisoned only if a task panicked while it was counting, which [`Traffic::finish`] reports.
fn lock(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The host that is asked for; the certificate is made for it.
pub const HOST: &str = "localhost";

/// Requests a second: enough to see shares within a second, little enough for any laptop.
pub const RATE: u32 = 400;

/// Connections that share them.
pub const CONNECTIONS: u32 = 4;

/// For one request, handshake included.
const PATIENCE: Duration = Duration::from_secs(5);

/// Kinds of failures that are told apart.
const MAX_KINDS: usize = 10;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: evenkeel-demo\r\n\r\n";

/// Bounds of an answer's head.
const LIMITS: HeadLimits = HeadLimits {
    bytes: 32 << 10,
    fields: 100,
};
