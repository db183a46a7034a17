//! The backend: answers `/N` with N bytes, swallows what is uploaded, and costs as little as can be.
//!
//! One thread, edge-triggered, one read and one write for a small request.

use std::io::{IoSlice, Write};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result, bail};
use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::RecvFlags;
use socket2::{Domain, Socket, Type};

use super::BLOCK;
use super::body::Body;

/// Listens on all of these, says `ready` on standard output, and answers until standard input ends.
pub fn backend(addresses: &[SocketAddr]) -> Result<()> {
    super::raise_file_limit();
    let mut backend = Backend::new(addresses)?;
    std::thread::spawn(|| {
        super::wait_for_input_to_end();
        std::process::exit(0);
    });
    println!("ready");
    std::io::stdout().flush()?;
    backend.serve()
}

/// All listeners and connections.
pub struct Backend {
    epoll: OwnedFd,
    listeners: Vec<Socket>,
    peers: Vec<Place>,
    free: Vec<usize>,
    input: Vec<u8>,
    message: Message,
}

/// Where a connection may be; its turn tells the events of one from those of the next.
#[derive(Default)]
struct Place {
    turn: u32,
    peer: Option<Peer>,
}

struct Peer {
    socket: OwnedFd,
    /// The beginning of a request head whose end has not come yet.
    head: Vec<u8>,
    /// The rest of the body of the request at hand.
    upload: Body,
    /// Whether a head was read and its body is not over.
    reading: bool,
    /// Length of the content of the answer at hand; `None`: there is no such path.
    length: Option<u64>,
    /// Bytes of the answer that the socket has not taken yet.
    unsent: u64,
    /// Whether the connection closes behind the answer.
    closing: bool,
}

/// An answer: its head, and all of it where it is small. Made anew only when another is asked for.
struct Message {
    length: Option<u64>,
    closing: bool,
    /// Head and the content behind it, as far as it is small.
    bytes: Vec<u8>,
    /// Length of the whole answer.
    whole: u64,
}

/// Whether a connection goes on.
#[derive(PartialEq, Eq)]
enum Next {
    Wait,
    Drop,
}

impl Backend {
    pub fn new(addresses: &[SocketAddr]) -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut listeners = Vec::new();
        for (index, &address) in addresses.iter().enumerate() {
            let socket = Socket::new(
                Domain::for_address(address),
                Type::STREAM.nonblocking(),
                None,
            )?;
            socket.set_reuse_address(true)?;
            // What is accepted inherits it.
            socket.set_tcp_nodelay(true)?;
            socket
                .bind(&address.into())
                .with_context(|| format!("listen on {address}"))?;
            socket.listen(BACKLOG)?;
            let key = epoll::EventData::new_u64(index as u64);
            epoll::add(&epoll, &socket, key, epoll::EventFlags::IN)?;
            listeners.push(socket);
        }
        Ok(Self {
            epoll,
            listeners,
            peers: Vec::new(),
            free: Vec::new(),
            input: vec![0; INPUT],
            message: Message::new(None, false),
        })
    }

    /// Where it listens.
    #[allow(dead_code, reason = "the tests let the kernel choose a port")]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners
            .iter()
            .filter_map(|socket| socket.local_addr().ok()?.as_socket())
            .collect()
    }

    /// Answers for ever.
    pub fn serve(&mut self) -> Result<()> {
        let mut events = Vec::with_capacity(EVENTS);
        loop {
            events.clear();
            match epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut events),
                None,
            ) {
                Err(Errno::INTR) => continue,
                other => other?,
            };
            for event in &events {
                let key = event.data.u64();
                if key < self.listeners.len() as u64 {
                    self.accept(key as usize)?;
                } else {
                    self.advance(key, event.flags);
                }
            }
        }
    }

    fn accept(&mut self, listener: usize) -> Result<()> {
        for _ in 0..EVENTS {
            let flags = rustix::net::SocketFlags::NONBLOCK | rustix::net::SocketFlags::CLOEXEC;
            let socket = match rustix::net::accept_with(&self.listeners[listener], flags) {
                Ok(socket) => socket,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR | Errno::CONNABORTED) => continue,
                Err(error) => return Err(error).context("accept"),
            };
            let index = self.free.pop().unwrap_or_else(|| {
                self.peers.push(Place::default());
                self.peers.len() - 1
            });
            let place = &mut self.peers[index];
            place.turn = place.turn.wrapping_add(1);
            let key = (u64::from(place.turn) << 32) | (index + self.listeners.len()) as u64;
            let flags = epoll::EventFlags::IN
                | epoll::EventFlags::OUT
                | epoll::EventFlags::RDHUP
                | epoll::EventFlags::ET;
            epoll::add(&self.epoll, &socket, epoll::EventData::new_u64(key), flags)?;
            place.peer = Some(Peer::new(socket));
        }
        Ok(())
    }

    fn advance(&mut self, key: u64, flags: epoll::EventFlags) {
        let index = key as u32 as usize - self.listeners.len();
        let place = &mut self.peers[index];
        let Some(peer) = &mut place.peer else { return };
        if place.turn != (key >> 32) as u32 {
            return;
        }
        match peer.advance(flags, &mut self.input, &mut self.message) {
            Ok(Next::Wait) => {}
            Ok(Next::Drop) => self.drop(index),
            Err(error) => {
                eprintln!("backend: {error:#}");
                self.drop(index);
            }
        }
    }

    fn drop(&mut self, index: usize) {
        self.peers[index].peer = None;
        self.free.push(index);
    }
}

impl Peer {
    fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            head: Vec::new(),
            upload: Body::Length(0),
            reading: false,
            length: None,
            unsent: 0,
            closing: false,
        }
    }

    fn advance(
        &mut self,
        flags: epoll::EventFlags,
        input: &mut [u8],
        message: &mut Message,
    ) -> Result<Next> {
        let ended = flags
            .intersects(epoll::EventFlags::RDHUP | epoll::EventFlags::HUP | epoll::EventFlags::ERR);
        if self.unsent > 0 {
            match self.send(message)? {
                Next::Wait if self.unsent == 0 => {}
                next => return Ok(next),
            }
        } else if !ended && !flags.contains(epoll::EventFlags::IN) {
            return Ok(Next::Wait);
        }
        loop {
            let skip =
                self.reading && matches!(self.upload, Body::Length(left) if left >= INPUT as u64);
            let flags = if skip {
                // TCP throws the bytes away instead of copying them (tcp(7)).
                RecvFlags::TRUNC
            } else {
                RecvFlags::empty()
            };
            let count = match rustix::net::recv(&self.socket, &mut *input, flags) {
                Ok((_, 0)) => return Ok(Next::Drop),
                Ok((_, count)) => count,
                Err(Errno::AGAIN) => return Ok(Next::Wait),
                Err(Errno::INTR) => continue,
                Err(Errno::CONNRESET) => return Ok(Next::Drop),
                Err(error) => return Err(error).context("receive"),
            };
            self.take(&input[..count])?;
            if !self.reading && self.head.is_empty() {
                self.unsent = message.of(self.length, self.closing).whole;
                if self.send(message)? == Next::Drop {
                    return Ok(Next::Drop);
                }
                if self.unsent > 0 {
                    return Ok(Next::Wait);
                }
            }
            if count < input.len() && !ended {
                return Ok(Next::Wait);
            }
        }
    }

    /// Takes bytes of a request; when neither is `reading` nor has a `head`, it was the end of one.
    fn take(&mut self, bytes: &[u8]) -> Result<()> {
        let taken = if self.reading {
            self.upload.feed(bytes)?.taken
        } else if self.head.is_empty() {
            self.parse(bytes)?
        } else {
            let mut head = std::mem::take(&mut self.head);
            head.extend_from_slice(bytes);
            self.parse(&head)?;
            bytes.len()
        };
        self.reading &= !self.upload.is_over();
        if taken < bytes.len() {
            bail!("{} bytes behind the end of a request", bytes.len() - taken);
        }
        Ok(())
    }

    /// The head of a request and what is behind it; returns how much of it was taken.
    fn parse(&mut self, bytes: &[u8]) -> Result<usize> {
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut request = httparse::Request::new(&mut fields);
        let httparse::Status::Complete(end) = request.parse(bytes).context("not a request")? else {
            if bytes.len() > MAX_HEAD {
                bail!("the head of a request does not end");
            }
            self.head.extend_from_slice(bytes);
            return Ok(bytes.len());
        };
        let path = request.path.unwrap_or_default();
        self.length = match path.trim_start_matches('/') {
            "" => Some(0),
            number => number.parse().ok(),
        };
        self.upload = Body::Length(0);
        self.closing = request.version == Some(0);
        for field in request.headers.iter() {
            if field.name.eq_ignore_ascii_case("content-length") {
                let length = std::str::from_utf8(field.value)?;
                self.upload = Body::Length(length.parse().context("not a Content-Length")?);
            } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
                self.upload = Body::CHUNKED;
            } else if field.name.eq_ignore_ascii_case("connection") {
                self.closing = field.value.eq_ignore_ascii_case(b"close");
            }
        }
        self.reading = true;
        Ok(end + self.upload.feed(&bytes[end..])?.taken)
    }

    fn send(&mut self, message: &mut Message) -> Result<Next> {
        let message = message.of(self.length, self.closing);
        while self.unsent > 0 {
            let (head, body) = message.outstanding(self.unsent);
            let wrote = if body.is_empty() {
                rustix::io::write(&self.socket, head)
            } else {
                rustix::io::writev(&self.socket, &[IoSlice::new(head), IoSlice::new(body)])
            };
            match wrote {
                Ok(count) => self.unsent -= count as u64,
                Err(Errno::AGAIN) => return Ok(Next::Wait),
                Err(Errno::INTR) => {}
                Err(Errno::PIPE | Errno::CONNRESET) => return Ok(Next::Drop),
                Err(error) => return Err(error).context("send"),
            }
        }
        Ok(if self.closing { Next::Drop } else { Next::Wait })
    }
}

impl Message {
    fn new(length: Option<u64>, closing: bool) -> Self {
        let mut bytes = Vec::new();
        let status = if length.is_some() {
            "200 OK"
        } else {
            "404 Not Found"
        };
        let content = length.unwrap_or(0);
        bytes.extend_from_slice(format!("HTTP/1.1 {status}\r\n").as_bytes());
        bytes.extend_from_slice(b"Date: Thu, 01 Jan 2026 00:00:00 GMT\r\n");
        bytes.extend_from_slice(b"Content-Type: application/octet-stream\r\n");
        bytes.extend_from_slice(format!("Content-Length: {content}\r\n").as_bytes());
        if closing {
            bytes.extend_from_slice(b"Connection: close\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
        let whole = bytes.len() as u64 + content;
        if content <= SMALL {
            bytes.extend_from_slice(&BLOCK[..content as usize]);
        }
        Self {
            length,
            closing,
            bytes,
            whole,
        }
    }

    fn of(&mut self, length: Option<u64>, closing: bool) -> &Self {
        if self.length != length || self.closing != closing {
            *self = Self::new(length, closing);
        }
        self
    }

    /// The rest of `bytes`, and a block of the content behind them.
    fn outstanding(&self, unsent: u64) -> (&[u8], &'static [u8]) {
        let sent = self.whole - unsent;
        let head = match usize::try_from(sent) {
            Ok(sent) if sent < self.bytes.len() => &self.bytes[sent..],
            _ => &[],
        };
        let body = (unsent - head.len() as u64).min(BLOCK.len() as u64);
        (head, &BLOCK[..body as usize])
    }
}

/// Connections that the kernel may hold for each listener; it lowers this to net.core.somaxconn.
const BACKLOG: i32 = 65_535;

/// Events taken at a time, and connections accepted at a time.
const EVENTS: usize = 1024;

/// Bytes read at a time.
const INPUT: usize = 256 << 10;

/// Bytes up to which head and content are one piece.
const SMALL: u64 = 16 << 10;

/// More than any peer sends.
const MAX_FIELDS: usize = 64;

/// Bytes; more than any peer sends.
const MAX_HEAD: usize = 64 << 10;
