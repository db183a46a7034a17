//! Backends that answer as they are told and keep every byte that they were sent.
//!
//! A [`Script`] says what is done with one request, on whichever connection it comes. Without one
//! a request is read whole and answered with what was in it ([`Step::Echo`]), so that a mixed-up
//! response shows. What came is kept request by request, split by a reader that is not the
//! product's: a smuggled request would show as one more.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::wire::{self, Kind, Message};
use super::{Gate, PATIENCE, client, lock, wait_until};

/// What is done with one request, step by step. What is left of the request after the last step
/// is read without an answer.
pub type Script = Vec<Step>;

/// One thing that a backend does.
#[derive(Clone)]
pub enum Step {
    /// Reads until the head is whole.
    Head,
    /// Reads until the request is whole.
    Request,
    /// Reads the request and answers it with its method, target and body.
    Echo,
    /// Sends these bytes.
    Send(Vec<u8>),
    /// Calls the test.
    Call(Arc<dyn Fn() + Send + Sync>),
    /// Waits until the test opens the gate.
    Wait(Gate),
    /// The same, and notes it as a fault when a byte comes meanwhile.
    WaitInSilence(Gate),
    /// Sends the same bytes again and again until the other end is gone.
    SendForever(Vec<u8>),
    /// Sends back what comes, whatever it is, until it ends; then ends its own direction.
    Mirror,
    /// Ends its own direction and goes on reading.
    HalfClose,
    /// The same in one packet with these bytes: no request can come in between.
    LastWords(Vec<u8>),
    /// Reads until the other end closes.
    AwaitClose,
    /// Closes.
    Close,
    /// Closes with a reset.
    Reset,
}

/// A request as it came, or what came of it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Received {
    /// Number of the connection it came on, from 1.
    pub connection: usize,
    /// All its bytes.
    pub bytes: Vec<u8>,
    /// The request, once it was whole.
    pub whole: Option<Message>,
    /// Why it is none.
    pub malformed: Option<String>,
}

/// A backend; it ends with its value.
pub struct Backend {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    name: String,
    handler: Handler,
    scripts: Mutex<VecDeque<Script>>,
    usual: Mutex<Script>,
    received: Mutex<BTreeMap<usize, Received>>,
    requests: AtomicUsize,
    connections: AtomicUsize,
    open: Mutex<BTreeMap<usize, TcpStream>>,
    stopped: AtomicBool,
}

enum Handler {
    Scripted,
    Own(Box<dyn Fn(TcpStream) + Send + Sync>),
}

impl Backend {
    /// A scripted backend on a port of its own.
    pub fn start(name: &str) -> Backend {
        Backend::bind(name, "127.0.0.1:0".parse().expect("it is an address"))
    }

    /// A scripted backend at this address.
    pub fn bind(name: &str, address: SocketAddr) -> Backend {
        Backend::listen(name, address, Handler::Scripted)
    }

    /// A backend that calls `handler` for each connection, in a thread of its own.
    pub fn custom(name: &str, handler: impl Fn(TcpStream) + Send + Sync + 'static) -> Backend {
        let anywhere = "127.0.0.1:0".parse().expect("it is an address");
        Backend::listen(name, anywhere, Handler::Own(Box::new(handler)))
    }

    fn listen(name: &str, address: SocketAddr, handler: Handler) -> Backend {
        let listener = TcpListener::bind(address).expect("loopback has ports");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            handler,
            scripts: Mutex::default(),
            usual: Mutex::new(vec![Step::Echo]),
            received: Mutex::default(),
            requests: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            open: Mutex::default(),
            stopped: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        let acceptor = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if accepting.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let number = accepting.connections.fetch_add(1, Ordering::SeqCst) + 1;
                let Ok(copy) = stream.try_clone() else {
                    continue;
                };
                lock(&accepting.open).insert(number, copy);
                let shared = Arc::clone(&accepting);
                std::thread::spawn(move || {
                    match &shared.handler {
                        Handler::Own(handler) => handler(stream),
                        Handler::Scripted => Connection::new(&shared, number, stream).serve(),
                    }
                    lock(&shared.open).remove(&number);
                });
            }
        });
        Backend {
            address,
            shared,
            acceptor: Some(acceptor),
        }
    }

    /// The next request that has no script yet is treated so.
    pub fn next(&self, script: Script) {
        lock(&self.shared.scripts).push_back(script);
    }

    /// Requests without a script of their own are treated so.
    pub fn usually(&self, script: Script) {
        *lock(&self.shared.usual) = script;
    }

    /// Scripts that no request has come for.
    pub fn unused_scripts(&self) -> usize {
        lock(&self.shared.scripts).len()
    }

    /// What has come since the last call, in order of beginning.
    pub fn take(&self) -> Vec<Received> {
        let taken = std::mem::take(&mut *lock(&self.shared.received));
        taken.into_values().collect()
    }

    /// The same, and keeps it.
    pub fn look(&self) -> Vec<Received> {
        lock(&self.shared.received).values().cloned().collect()
    }

    /// Forgets scripts that no request came for.
    pub fn forget_scripts(&self) {
        lock(&self.shared.scripts).clear();
    }

    /// Waits until `n` requests have come whole since the last [`Backend::take`].
    pub fn await_requests(&self, n: usize) {
        wait_until("the backend is sent its requests", || {
            let received = lock(&self.shared.received);
            received.values().filter(|r| r.whole.is_some()).count() >= n
        });
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        lock(&self.shared.open).len()
    }

    /// Requests begun so far.
    pub fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// Closes every connection.
    pub fn close_all(&self) {
        for stream in lock(&self.shared.open).values() {
            // It may be closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Wakes the acceptor.
        drop(TcpStream::connect(self.address));
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        self.close_all();
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Backend({} at {})", self.shared.name, self.address)
    }
}

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Received")
            .field("connection", &self.connection)
            .field("bytes", &String::from_utf8_lossy(&self.bytes))
            .field("whole", &self.whole.is_some())
            .field("malformed", &self.malformed)
            .finish()
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Step::Head => "Head",
            Step::Request => "Request",
            Step::Echo => "Echo",
            Step::Send(bytes) => return write!(f, "Send({:?})", String::from_utf8_lossy(bytes)),
            Step::Call(_) => "Call",
            Step::Wait(_) => "Wait",
            Step::WaitInSilence(_) => "WaitInSilence",
            Step::SendForever(_) => "SendForever",
            Step::Mirror => "Mirror",
            Step::HalfClose => "HalfClose",
            Step::LastWords(_) => "LastWords",
            Step::AwaitClose => "AwaitClose",
            Step::Close => "Close",
            Step::Reset => "Reset",
        };
        f.write_str(name)
    }
}

impl Step {
    /// Sends this.
    pub fn send(bytes: impl AsRef<[u8]>) -> Step {
        Step::Send(bytes.as_ref().to_vec())
    }
}

/// An address at which nobody listens.
pub fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    listener.local_addr().expect("it is bound")
}

/// What [`Step::Echo`] puts into the body of its response.
pub fn echo(method: &str, target: &str, body: &[u8]) -> Vec<u8> {
    let mut text = format!("{method} {target} ").into_bytes();
    text.extend_from_slice(body);
    text
}

struct Connection<'a> {
    shared: &'a Shared,
    number: usize,
    stream: TcpStream,
    inbox: Vec<u8>,
    /// Number of the request under way.
    request: usize,
    whole: Option<Message>,
}

/// The connection is over.
struct Over;

impl From<io::Error> for Over {
    fn from(_: io::Error) -> Over {
        Over
    }
}

impl<'a> Connection<'a> {
    fn new(shared: &'a Shared, number: usize, stream: TcpStream) -> Connection<'a> {
        stream.set_nodelay(true).expect("it is a TCP socket");
        // Only against tests that hang; a pooled connection is idle for a few seconds.
        stream
            .set_read_timeout(Some(3 * PATIENCE))
            .expect("it is not zero");
        stream
            .set_write_timeout(Some(PATIENCE))
            .expect("it is not zero");
        Connection {
            shared,
            number,
            stream,
            inbox: Vec::new(),
            request: 0,
            whole: None,
        }
    }

    fn serve(mut self) {
        while self.one().is_ok() {}
    }

    fn one(&mut self) -> Result<(), Over> {
        self.request = usize::MAX;
        self.whole = None;
        if self.inbox.is_empty() {
            self.fill()?;
        }
        self.request = self.shared.requests.fetch_add(1, Ordering::SeqCst);
        self.note();
        let scripted = lock(&self.shared.scripts).pop_front();
        let script = scripted.unwrap_or_else(|| lock(&self.shared.usual).clone());
        for step in script {
            self.carry_out(step)?;
        }
        self.read_request()?;
        let whole = self.whole.take().ok_or(Over)?;
        self.inbox.drain(..whole.raw.len());
        Ok(())
    }

    fn carry_out(&mut self, step: Step) -> Result<(), Over> {
        match step {
            Step::Head => {
                while wire::find(&self.inbox, b"\r\n\r\n").is_none() {
                    self.fill()?;
                }
            }
            Step::Request => self.read_request()?,
            Step::Echo => {
                self.read_request()?;
                let request = self.whole.as_ref().ok_or(Over)?;
                let body = echo(request.method(), request.target(), &request.body);
                let mut response = format!(
                    "HTTP/1.1 200 OK\r\nX-Backend: {}\r\nContent-Length: {}\r\n\r\n",
                    self.shared.name,
                    body.len()
                )
                .into_bytes();
                if request.method() != "HEAD" {
                    response.extend_from_slice(&body);
                }
                self.stream.write_all(&response)?;
            }
            Step::Send(bytes) => self.stream.write_all(&bytes)?,
            Step::Call(call) => call(),
            Step::Wait(gate) => {
                if !gate.pass() {
                    return Err(Over);
                }
            }
            Step::WaitInSilence(gate) => {
                let usual = self.stream.read_timeout()?;
                self.stream
                    .set_read_timeout(Some(Duration::from_millis(5)))?;
                loop {
                    // Looked at first: what came before it opened is read once more.
                    let open = gate.is_open();
                    let before = self.inbox.len();
                    // That nothing comes is an error of the socket's.
                    let _ = self.fill();
                    if self.inbox.len() > before {
                        let why = String::from_utf8_lossy(&self.inbox[before..]).into_owned();
                        self.entry(|entry| entry.malformed = Some(format!("too early: {why:?}")));
                    }
                    if open {
                        break;
                    }
                }
                self.stream.set_read_timeout(usual)?;
            }
            Step::SendForever(bytes) => loop {
                self.stream.write_all(&bytes)?;
            },
            Step::Mirror => {
                self.read_request()?;
                let head = self.whole.as_ref().map_or(0, |m| m.raw.len());
                let mut sent = head;
                loop {
                    self.stream.write_all(&self.inbox[sent..])?;
                    sent = self.inbox.len();
                    if self.fill().is_err() {
                        let _ = self.stream.shutdown(Shutdown::Write);
                        return Err(Over);
                    }
                }
            }
            Step::HalfClose => self.stream.shutdown(Shutdown::Write)?,
            Step::LastWords(bytes) => {
                socket2::SockRef::from(&self.stream).set_tcp_cork(true)?;
                self.stream.write_all(&bytes)?;
                self.stream.shutdown(Shutdown::Write)?;
            }
            Step::AwaitClose => while self.fill().is_ok() {},
            Step::Close => return Err(Over),
            Step::Reset => {
                client::reset(&self.stream);
                lock(&self.shared.open).remove(&self.number);
                return Err(Over);
            }
        }
        Ok(())
    }

    fn read_request(&mut self) -> Result<(), Over> {
        while self.whole.is_none() {
            match wire::message(&self.inbox, Kind::Request, false) {
                Ok(Some(message)) => {
                    self.whole = Some(message);
                    self.note();
                }
                Ok(None) => self.fill()?,
                Err(why) => {
                    self.entry(|entry| entry.malformed = Some(why));
                    return Err(Over);
                }
            }
        }
        Ok(())
    }

    fn fill(&mut self) -> Result<(), Over> {
        let mut room = [0; 64 * 1024];
        match self.stream.read(&mut room)? {
            0 => Err(Over),
            n => {
                self.inbox.extend_from_slice(&room[..n]);
                if self.request != usize::MAX {
                    self.note();
                }
                Ok(())
            }
        }
    }

    /// Keeps what has come of the request under way.
    fn note(&self) {
        self.entry(|entry| match &self.whole {
            // What comes after a request is another, unless the protocol was switched.
            Some(whole) => {
                entry.bytes.clone_from(&whole.raw);
                entry.whole = Some(whole.clone());
            }
            None => entry.bytes.clone_from(&self.inbox),
        });
    }

    fn entry(&self, write: impl FnOnce(&mut Received)) {
        let mut received = lock(&self.shared.received);
        let entry = received.entry(self.request).or_default();
        entry.connection = self.number;
        write(entry);
    }
}
