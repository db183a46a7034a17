//! One client connection: a socket that does not block, TLS or not, a request on its way out, an answer on its way in.
//!
//! Edge-triggered: whoever calls goes on until the kernel has no more, or until [`TURNS`] are over.

use std::io::{self, BufRead, IoSlice, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::RecvFlags;
use rustls::client::ClientConnection;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, HandshakeKind};
use socket2::{Domain, Socket, Type};

use super::answer::{Answer, Answered};
use super::{BLOCK, Job, Pattern};

/// What all connections of a job have in common.
pub struct Shape {
    target: SocketAddr,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    /// The requests that are measured.
    active: Message,
    /// The one request on a connection that stays idle from then on.
    idle: Message,
    /// Length of a right answer; `None`: any.
    answer: Option<u64>,
    /// Connections made so far: each has another source address, so that no one runs out of ports.
    made: u32,
    /// Whatever comes is read into this, by all.
    input: Vec<u8>,
}

/// A request as it is sent.
struct Message {
    head: Vec<u8>,
    /// Head and body, in bytes.
    length: u64,
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The requests of the job.
    Active,
    /// To be there.
    Idle,
}

/// A connection that is open or opening.
pub struct Connection {
    socket: OwnedFd,
    purpose: Purpose,
    tls: Option<Box<ClientConnection>>,
    established: bool,
    /// Bytes of the request that neither the socket nor TLS has taken yet.
    unsent: u64,
    /// Whether a request is on its way.
    busy: bool,
    answer: Answer,
}

/// How far a connection has come.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// It waits for the peer.
    Waiting,
    /// There may be more to do, but the others are waiting too.
    Unfinished,
    /// The answer is there; whether the connection is good for another.
    Answered(Answered),
    /// The peer closed it between two requests.
    Closed,
}

impl Shape {
    pub fn new(job: &Job, tls: Option<Arc<ClientConfig>>) -> Result<Self> {
        let request = &job.request;
        let start = format!("{} HTTP/1.1\r\nHost: {}\r\n", request.path, request.host);
        let closing = if matches!(job.pattern, Pattern::Connect) {
            "Connection: close\r\n"
        } else {
            ""
        };
        let active = if request.upload > 0 {
            let length = request.upload;
            format!("POST {start}Content-Length: {length}\r\n{closing}\r\n")
        } else {
            format!("GET {start}{closing}\r\n")
        };
        let tls = match (&job.tls, tls) {
            (Some(wanted), Some(config)) => {
                let name = ServerName::try_from(wanted.name.clone()).context("the TLS name")?;
                Some((config, name))
            }
            _ => None,
        };
        Ok(Self {
            target: job.target,
            tls,
            active: Message::new(active, request.upload),
            idle: Message::new(format!("GET {start}\r\n"), 0),
            answer: request.path.trim_start_matches('/').parse().ok(),
            made: 0,
            input: vec![0; INPUT],
        })
    }

    /// Bytes of body that an answered request moved.
    pub fn body_bytes(&self, answered: Answered) -> u64 {
        self.active.length - self.active.head.len() as u64 + answered.content
    }

    fn message(&self, purpose: Purpose) -> &Message {
        match purpose {
            Purpose::Active => &self.active,
            Purpose::Idle => &self.idle,
        }
    }

    fn socket(&mut self) -> Result<OwnedFd> {
        let socket = Socket::new(
            Domain::for_address(self.target),
            Type::STREAM.nonblocking(),
            None,
        )?;
        socket.set_tcp_nodelay(true)?;
        if let SocketAddr::V4(target) = self.target
            && target.ip().is_loopback()
        {
            let last = 2 + (self.made % SOURCES) as u8;
            socket.set_reuse_address(true)?;
            socket
                .bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0)).into())
                .context("no source port left")?;
        }
        self.made = self.made.wrapping_add(1);
        match socket.connect(&self.target.into()) {
            Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => {
                Err(error).context("connect")
            }
            _ => Ok(socket.into()),
        }
    }
}

impl Message {
    fn new(head: String, body: u64) -> Self {
        Self {
            length: head.len() as u64 + body,
            head: head.into_bytes(),
        }
    }

    /// What is to be sent next: the rest of the head, and a block of the body.
    fn outstanding(&self, unsent: u64) -> (&[u8], &'static [u8]) {
        let head = match usize::try_from(self.length - unsent) {
            Ok(sent) if sent < self.head.len() => &self.head[sent..],
            _ => &[],
        };
        let body = (unsent - head.len() as u64).min(BLOCK.len() as u64);
        (head, &BLOCK[..body as usize])
    }
}

impl Connection {
    /// Begins to open one; its events carry `key`.
    pub fn open(shape: &mut Shape, purpose: Purpose, epoll: &OwnedFd, key: u64) -> Result<Self> {
        let socket = shape.socket()?;
        let tls = match &shape.tls {
            Some((config, name)) => Some(Box::new(ClientConnection::new(
                Arc::clone(config),
                name.clone(),
            )?)),
            None => None,
        };
        let flags = epoll::EventFlags::IN
            | epoll::EventFlags::OUT
            | epoll::EventFlags::RDHUP
            | epoll::EventFlags::ET;
        epoll::add(epoll, &socket, epoll::EventData::new_u64(key), flags)?;
        Ok(Self {
            socket,
            purpose,
            tls,
            established: false,
            unsent: 0,
            busy: false,
            answer: Answer::default(),
        })
    }

    /// Puts a request on its way, at the latest when the connection is established.
    pub fn request(&mut self, shape: &Shape) {
        self.unsent = shape.message(self.purpose).length;
        self.busy = true;
        self.answer.reset();
    }

    /// Whether the connect is over, and the handshake if there is one.
    pub fn is_established(&self) -> bool {
        self.established
    }

    /// Whether a request is on its way.
    pub fn is_busy(&self) -> bool {
        self.busy
    }

    /// How the session came about; `None` without TLS.
    pub fn handshake(&self) -> Option<HandshakeKind> {
        self.tls.as_ref().and_then(|tls| tls.handshake_kind())
    }

    /// Sends what there is to send.
    pub fn send(&mut self, shape: &Shape) -> Result<Progress> {
        match &mut self.tls {
            None => self.send_plain(shape),
            Some(_) => self.send_tls(shape),
        }
    }

    /// Goes on after the events `flags`.
    pub fn advance(&mut self, flags: epoll::EventFlags, shape: &mut Shape) -> Result<Progress> {
        let ended = flags
            .intersects(epoll::EventFlags::RDHUP | epoll::EventFlags::HUP | epoll::EventFlags::ERR);
        if !self.established {
            if flags.contains(epoll::EventFlags::ERR) {
                rustix::net::sockopt::socket_error(&self.socket)?.context("connect")?;
            }
            self.established = self.tls.is_none() && flags.contains(epoll::EventFlags::OUT);
        }
        let mut sent = Progress::Waiting;
        if flags.contains(epoll::EventFlags::OUT) && self.has_to_send() {
            // An answer may be there although the peer takes no more of the request.
            sent = match self.send(shape) {
                Err(_) if ended => Progress::Waiting,
                other => other?,
            };
        }
        if !ended && !flags.contains(epoll::EventFlags::IN) {
            return Ok(sent);
        }
        let received = match &self.tls {
            None => self.receive_plain(ended, shape)?,
            Some(_) => self.receive_tls(ended, shape)?,
        };
        match received {
            Progress::Waiting => Ok(sent),
            // It closes behind the answer, whether it says so or not.
            Progress::Answered(answered) if ended => Ok(Progress::Answered(Answered {
                reusable: false,
                ..answered
            })),
            other => Ok(other),
        }
    }

    /// Ends it as a client does that has all it wanted.
    pub fn close(mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            // The peer may have closed already; the answer is there either way.
            let _ = tls.write_tls(&mut Stream(&self.socket));
        }
    }

    fn has_to_send(&self) -> bool {
        self.unsent > 0 || self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    fn send_plain(&mut self, shape: &Shape) -> Result<Progress> {
        for _ in 0..TURNS {
            if self.unsent == 0 {
                return Ok(Progress::Waiting);
            }
            let (head, body) = shape.message(self.purpose).outstanding(self.unsent);
            let wrote = if body.is_empty() {
                rustix::io::write(&self.socket, head)
            } else {
                rustix::io::writev(&self.socket, &[IoSlice::new(head), IoSlice::new(body)])
            };
            match wrote {
                Ok(count) => {
                    self.established = true;
                    self.unsent -= count as u64;
                    if count < head.len() + body.len() {
                        return Ok(Progress::Waiting);
                    }
                }
                Err(Errno::AGAIN) => return Ok(Progress::Waiting),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error).context("send"),
            }
        }
        Ok(Progress::Unfinished)
    }

    fn send_tls(&mut self, shape: &Shape) -> Result<Progress> {
        let Some(tls) = &mut self.tls else {
            return Ok(Progress::Waiting);
        };
        for _ in 0..TURNS {
            while self.unsent > 0 {
                let (head, body) = shape.message(self.purpose).outstanding(self.unsent);
                let taken = tls
                    .writer()
                    .write(if head.is_empty() { body } else { head })?;
                if taken == 0 {
                    break;
                }
                self.unsent -= taken as u64;
            }
            if !tls.wants_write() {
                return Ok(Progress::Waiting);
            }
            match tls.write_tls(&mut Stream(&self.socket)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Progress::Waiting);
                }
                // Not connected yet.
                Err(error) if error.kind() == io::ErrorKind::NotConnected => {
                    return Ok(Progress::Waiting);
                }
                Err(error) => return Err(error).context("send"),
            }
        }
        Ok(Progress::Unfinished)
    }

    fn receive_plain(&mut self, ended: bool, shape: &mut Shape) -> Result<Progress> {
        for _ in 0..TURNS {
            let skip = self.answer.skippable() >= INPUT as u64;
            let flags = if skip {
                // TCP throws the bytes away instead of copying them (tcp(7)).
                RecvFlags::TRUNC
            } else {
                RecvFlags::empty()
            };
            let count = match rustix::net::recv(&self.socket, &mut shape.input[..], flags) {
                Ok((_, count)) => count,
                Err(Errno::AGAIN) => return Ok(Progress::Waiting),
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error).context("receive"),
            };
            if count == 0 {
                return self.closed(shape);
            }
            if !self.busy {
                bail!("{count} bytes without a request");
            }
            let answered = if skip {
                self.answer.skip(count)?
            } else {
                self.answer.feed(&shape.input[..count])?
            };
            if let Some(answered) = answered {
                return self.answered(answered, shape);
            }
            if count < INPUT && !ended {
                return Ok(Progress::Waiting);
            }
        }
        Ok(Progress::Unfinished)
    }

    fn receive_tls(&mut self, ended: bool, shape: &mut Shape) -> Result<Progress> {
        for _ in 0..TURNS {
            let count = match rustix::io::read(&self.socket, &mut shape.input[..]) {
                Ok(count) => count,
                Err(Errno::AGAIN) => return Ok(Progress::Waiting),
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error).context("receive"),
            };
            if count == 0 {
                return self.closed(shape);
            }
            let mut answered = None;
            let mut closed = false;
            let Some(tls) = &mut self.tls else {
                return Ok(Progress::Waiting);
            };
            let mut records = &shape.input[..count];
            while !records.is_empty() {
                // Not more than rustls takes at a time (4 KiB), whatever it is given.
                tls.read_tls(&mut records)?;
                closed |= tls.process_new_packets().context("TLS")?.peer_has_closed();
                let mut reader = tls.reader();
                while let Ok(content) = reader.fill_buf() {
                    if content.is_empty() {
                        break;
                    }
                    if !self.busy || answered.is_some() {
                        bail!("{} bytes without a request", content.len());
                    }
                    answered = self.answer.feed(content)?;
                    let length = content.len();
                    reader.consume(length);
                }
            }
            self.established = !tls.is_handshaking();
            if let Some(answered) = answered {
                return self.answered(answered, shape);
            }
            if closed {
                return self.closed(shape);
            }
            if self.has_to_send() && self.send_tls(shape)? == Progress::Unfinished {
                return Ok(Progress::Unfinished);
            }
            if count < INPUT && !ended {
                return Ok(Progress::Waiting);
            }
        }
        Ok(Progress::Unfinished)
    }

    fn answered(&mut self, answered: Answered, shape: &Shape) -> Result<Progress> {
        if self.unsent > 0 {
            bail!("answered with {} bytes of the request unsent", self.unsent);
        }
        if let Some(length) = shape.answer
            && length != answered.content
        {
            bail!("{} bytes of body, not {length}", answered.content);
        }
        self.busy = false;
        Ok(Progress::Answered(answered))
    }

    fn closed(&mut self, shape: &Shape) -> Result<Progress> {
        if !self.established {
            bail!("closed before the handshake was over");
        }
        if !self.busy {
            return Ok(Progress::Closed);
        }
        let answered = self.answer.close()?;
        self.answered(answered, shape)
    }
}

/// A socket as rustls wants it.
struct Stream<'a>(&'a OwnedFd);

impl Write for Stream<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(self.0, bytes)?)
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(rustix::io::writev(self.0, pieces)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Bytes read at a time: the largest answer that takes one call, and still in the second-level cache.
const INPUT: usize = 256 << 10;

/// Reads and writes on one connection before the others get theirs.
const TURNS: usize = 16;

/// Source addresses, 127.0.0.2 and following.
const SOURCES: u32 = 249;
