//! Steady requests, and a record of each: what was asked, what came back, from whom, when.
//!
//! [`Client`] is one connection that sends one request after the other, over TLS or not, and
//! never repeats one by itself. [`Traffic`] is several of them at a pace, until told to stop.
//! Everything that is not a whole response with status 200 from a backend is a failure.

#![allow(dead_code)] // each test file uses a part of it

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;

/// Longer than any request of a test may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where requests go, and how.
#[derive(Clone)]
pub struct Target {
    pub address: SocketAddr,
    pub tls: Option<TlsConnector>,
}

/// What came back, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// `X-Backend`.
    pub backend: Option<String>,
    pub body: usize,
}

/// One client with at most one connection.
pub struct Client {
    target: Target,
    stream: Option<Box<dyn Stream>>,
    held: Vec<u8>,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl Target {
    pub fn plain(address: SocketAddr) -> Target {
        Target { address, tls: None }
    }

    /// Over TLS; the server must be `localhost` by a certificate of the authority in the file `ca`.
    pub fn tls(address: SocketAddr, ca: &Path) -> Target {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(ca).expect("it was written") {
            roots.add(certificate.expect("PEM")).expect("an authority");
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider's versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Target {
            address,
            tls: Some(TlsConnector::from(Arc::new(config))),
        }
    }
}

impl Client {
    pub fn new(target: Target) -> Client {
        Client {
            target,
            stream: None,
            held: Vec::new(),
        }
    }

    /// The next request goes over a new connection.
    pub fn hang_up(&mut self) {
        self.stream = None;
        self.held.clear();
    }

    pub async fn get(&mut self, path: &str) -> io::Result<Answer> {
        self.send("GET", path, None, 0).await
    }

    /// A POST with that id in `X-Id` and in front of a body of about `padding` bytes.
    pub async fn post(&mut self, path: &str, id: &str, padding: usize) -> io::Result<Answer> {
        self.send("POST", path, Some(id), padding).await
    }

    async fn send(
        &mut self,
        method: &str,
        path: &str,
        id: Option<&str>,
        padding: usize,
    ) -> io::Result<Answer> {
        let answer = match timeout(PATIENCE, self.exchange(method, path, id, padding)).await {
            Ok(answer) => answer,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        };
        if answer.is_err() {
            self.hang_up();
        }
        answer
    }

    async fn exchange(
        &mut self,
        method: &str,
        path: &str,
        id: Option<&str>,
        padding: usize,
    ) -> io::Result<Answer> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                let tcp = TcpStream::connect(self.target.address).await?;
                tcp.set_nodelay(true)?;
                let stream: Box<dyn Stream> = match &self.target.tls {
                    None => Box::new(tcp),
                    Some(tls) => {
                        let name = "localhost".try_into().expect("it is a name");
                        Box::new(tls.connect(name, tcp).await?)
                    }
                };
                self.stream.insert(stream)
            }
        };
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n");
        match id {
            None => request += "\r\n",
            Some(id) => {
                let body = format!("{id}:{}", "x".repeat(padding));
                request += &format!("X-Id: {id}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            }
        }
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;

        let (end, mut answer, length, closes) = loop {
            if let Some(head) = response_head(&self.held)? {
                break head;
            }
            if stream.read_buf(&mut self.held).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        };
        while self.held.len() < end + length {
            if stream.read_buf(&mut self.held).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        answer.body = length;
        self.held = self.held.split_off(end + length);
        if closes {
            self.hang_up();
        } else if !self.held.is_empty() {
            return Err(io::Error::other("bytes after the response"));
        }
        Ok(answer)
    }
}

/// Where the head ends, the answer, the length of its body, and whether the connection closes.
fn response_head(held: &[u8]) -> io::Result<Option<(usize, Answer, usize, bool)>> {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut fields);
    let end = match head.parse(held).map_err(io::Error::other)? {
        httparse::Status::Complete(end) => end,
        httparse::Status::Partial => return Ok(None),
    };
    let field = |name: &str| {
        let found = head
            .headers
            .iter()
            .find(|f| f.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(found.value).ok()
    };
    // Neither our backends nor our own errors are chunked.
    let length = field("content-length").and_then(|value| value.parse().ok());
    let length = length.ok_or_else(|| io::Error::other("no Content-Length"))?;
    let answer = Answer {
        status: head.code.expect("it is complete"),
        backend: field("x-backend").map(str::to_owned),
        body: 0,
    };
    let closes = field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    Ok(Some((end, answer, length, closes)))
}

/// One request of the traffic.
#[derive(Debug, Clone)]
pub struct Record {
    /// Which of all, in the order of sending.
    pub number: usize,
    pub sent: Instant,
    pub done: Instant,
    /// Its id, if it was a POST.
    pub id: Option<String>,
    /// The status, or why there is none.
    pub outcome: Result<u16, String>,
    pub backend: Option<String>,
}

impl Record {
    pub fn failed(&self) -> bool {
        self.outcome != Ok(200)
    }
}

/// Several clients that send one request after the other.
pub struct Traffic {
    stop: Arc<AtomicBool>,
    records: Arc<Mutex<Vec<Record>>>,
    clients: JoinSet<()>,
}

impl Traffic {
    /// `clients` clients, each with a `pause` between an answer and its next request; GET and
    /// POST in turn, every seventh request over a new connection. Ids begin with `label`.
    pub fn start(label: &str, target: &Target, clients: usize, pause: Duration) -> Traffic {
        Traffic::of(Some(label), target, clients, pause)
    }

    /// The same without POSTs: every request may be repeated.
    pub fn repeatable(target: &Target, clients: usize, pause: Duration) -> Traffic {
        Traffic::of(None, target, clients, pause)
    }

    fn of(posts: Option<&str>, target: &Target, clients: usize, pause: Duration) -> Traffic {
        let stop = Arc::new(AtomicBool::new(false));
        let records = Arc::new(Mutex::new(Vec::new()));
        let numbers = Arc::new(AtomicUsize::new(0));
        let mut running = JoinSet::new();
        for _ in 0..clients {
            let mut client = Client::new(target.clone());
            let (stop, records) = (Arc::clone(&stop), Arc::clone(&records));
            let (numbers, posts) = (Arc::clone(&numbers), posts.map(str::to_owned));
            running.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let number = numbers.fetch_add(1, Ordering::Relaxed);
                    if number % 7 == 6 {
                        client.hang_up();
                    }
                    let label = posts.as_ref().filter(|_| number % 2 == 1);
                    let id = label.map(|label| format!("{label}-{number}"));
                    let sent = Instant::now();
                    let answer = match &id {
                        Some(id) => client.post("/", id, number * 13 % 2000).await,
                        None => client.get("/").await,
                    };
                    let (outcome, backend) = match answer {
                        Ok(answer) => (Ok(answer.status), answer.backend),
                        Err(e) => (Err(format!("{e:?}")), None),
                    };
                    let record = Record {
                        number,
                        sent,
                        done: Instant::now(),
                        id,
                        outcome,
                        backend,
                    };
                    records.lock().expect("nobody panics with it").push(record);
                    sleep(pause).await;
                }
            });
        }
        Traffic {
            stop,
            records,
            clients: running,
        }
    }

    /// What was answered so far.
    pub fn records(&self) -> Vec<Record> {
        self.records.lock().expect("nobody panics with it").clone()
    }

    /// Stops, waits for what is under way, and gives all records.
    pub async fn stop(mut self) -> Vec<Record> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.clients.join_next().await {
            ended.expect("clients do not panic");
        }
        self.records()
    }
}
