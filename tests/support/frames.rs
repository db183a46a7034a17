//! One end of an HTTP/2 connection (RFC 9113) that writes frames as it is told, right or wrong, and
//! reads what comes frame by frame.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use tokio::time::Instant;

use crate::hpack::{Decoder, Field, literals};
use crate::support::PATIENCE;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;
pub const WITH_PRIORITY: u8 = 0x20;

pub const NO_ERROR: u32 = 0;
pub const PROTOCOL_ERROR: u32 = 1;
pub const FLOW_CONTROL_ERROR: u32 = 3;
pub const STREAM_CLOSED: u32 = 5;
pub const FRAME_SIZE_ERROR: u32 = 6;
pub const REFUSED_STREAM: u32 = 7;
pub const CANCEL: u32 = 8;
pub const COMPRESSION_ERROR: u32 = 9;
pub const ENHANCE_YOUR_CALM: u32 = 11;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// The bytes of a frame. Nothing is checked.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// SETTINGS with these.
pub fn settings(values: &[(u16, u32)]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (name, value) in values {
        payload.extend(name.to_be_bytes());
        payload.extend(value.to_be_bytes());
    }
    frame(SETTINGS, 0, 0, payload)
}

/// WINDOW_UPDATE.
pub fn window(stream: u32, by: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, by.to_be_bytes())
}

/// RST_STREAM.
pub fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, code.to_be_bytes())
}

/// A whole HEADERS frame with these fields as literals.
pub fn headers<N: AsRef<[u8]>, V: AsRef<[u8]>>(
    stream: u32,
    flags: u8,
    fields: &[(N, V)],
) -> Vec<u8> {
    frame(HEADERS, flags | END_HEADERS, stream, literals(fields))
}

/// A request that nothing is wrong with.
pub fn get(stream: u32, path: &str) -> Vec<u8> {
    headers(stream, END_STREAM, &request("GET", path))
}

/// The pseudo-fields of a request.
pub fn request<'a>(method: &'a str, path: &'a str) -> [(&'a str, &'a str); 4] {
    [
        (":method", method),
        (":scheme", "http"),
        (":authority", "a.test"),
        (":path", path),
    ]
}

/// What came on one stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Came {
    /// Heads, and trailers, in order.
    pub heads: Vec<Vec<Field>>,
    /// Data.
    pub data: Vec<u8>,
    /// It has ended as it should.
    pub ended: bool,
    /// It was reset, with this code.
    pub reset: Option<u32>,
}

impl Came {
    /// The status in the last head that has one.
    pub fn status(&self) -> Option<u16> {
        let heads = self.heads.iter().rev();
        let mut found = heads.filter_map(|head| {
            let field = head.iter().find(|(name, _)| name == b":status")?;
            std::str::from_utf8(&field.1).ok()?.parse().ok()
        });
        found.next()
    }

    /// Value of a field in any head.
    pub fn field(&self, name: &str) -> Option<String> {
        let mut all = self.heads.iter().flatten();
        let found = all.find(|(n, _)| n == name.as_bytes());
        found.map(|(_, value)| String::from_utf8_lossy(value).into_owned())
    }

    /// Nothing more will come.
    pub fn is_over(&self) -> bool {
        self.ended || self.reset.is_some()
    }
}

/// One end of a connection.
#[derive(Debug)]
pub struct Peer {
    pub tcp: TcpStream,
    inbox: Vec<u8>,
    decoder: Decoder,
    /// Head that goes on in CONTINUATION frames: stream, flags, block so far.
    partial: Option<(u32, u8, Vec<u8>)>,
    /// By stream.
    pub came: BTreeMap<u32, Came>,
    /// Code of the last GOAWAY, and the last stream that it names.
    pub goaway: Option<(u32, u32)>,
    /// The other end has closed.
    pub closed: bool,
    /// Settings, in order.
    pub settings: Vec<(u16, u32)>,
    /// PING frames that answer ours.
    pub pongs: usize,
    /// Frames that acknowledge our SETTINGS.
    pub acks: usize,
    /// Octets of windows that we were given, by stream.
    pub windows: BTreeMap<u32, u64>,
    /// Whether SETTINGS and PING are answered as they should be.
    pub polite: bool,
}

impl Peer {
    /// Connects and says nothing.
    pub fn mute(address: SocketAddr) -> Peer {
        let tcp = TcpStream::connect_timeout(&address, PATIENCE).expect("the server listens");
        Peer::around(tcp)
    }

    /// Connects and says what a client says first.
    pub fn connect(address: SocketAddr) -> Peer {
        Peer::over_tcp(Peer::mute(address).tcp)
    }

    /// The same over a connection that is there.
    pub fn over_tcp(tcp: TcpStream) -> Peer {
        let mut peer = Peer::around(tcp);
        peer.send(PREFACE);
        peer.send(settings(&[]));
        peer
    }

    /// The server's end: reads the preface and sends these settings. `None`: it was none.
    pub fn accept(tcp: TcpStream, own: &[(u16, u32)]) -> Option<Peer> {
        let mut peer = Peer::around(tcp);
        peer.send(settings(own));
        while peer.inbox.len() < PREFACE.len() {
            if !peer.fill().ok()? {
                return None;
            }
        }
        let rest = peer.inbox.split_off(PREFACE.len());
        let preface = std::mem::replace(&mut peer.inbox, rest);
        (preface == PREFACE).then_some(peer)
    }

    fn around(tcp: TcpStream) -> Peer {
        tcp.set_nodelay(true).expect("it is a TCP socket");
        let patience = Some(PATIENCE);
        tcp.set_read_timeout(patience).expect("it is not zero");
        tcp.set_write_timeout(patience).expect("it is not zero");
        Peer {
            tcp,
            inbox: Vec::new(),
            decoder: Decoder::default(),
            partial: None,
            came: BTreeMap::new(),
            goaway: None,
            closed: false,
            settings: Vec::new(),
            pongs: 0,
            acks: 0,
            windows: BTreeMap::new(),
            polite: true,
        }
    }

    /// One that reads what comes for this one, which reads no more.
    pub fn reader(&self) -> Peer {
        let tcp = self.tcp.try_clone().expect("there are descriptors");
        let mut reader = Peer::around(tcp);
        reader.polite = false;
        reader
    }

    /// A read waits for so long from now on.
    pub fn patience(&self, wait: Duration) {
        let set = self.tcp.set_read_timeout(Some(wait));
        set.expect("it is not zero");
    }

    /// Sends all of it. An error says that the other end is gone.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.tcp.write_all(bytes.as_ref())
    }

    /// The same; that the other end is gone will show when it is read from.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Peer {
        let _ = self.try_send(bytes);
        self
    }

    /// Reads once more; false at the end, however it comes. An error: nothing came for too long.
    fn fill(&mut self) -> io::Result<bool> {
        use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
        let mut room = [0; 64 * 1024];
        match self.tcp.read(&mut room) {
            Ok(n) => {
                self.inbox.extend_from_slice(&room[..n]);
                Ok(n > 0)
            }
            Err(e) => match e.kind() {
                Interrupted => Ok(true),
                TimedOut | WouldBlock => Err(e),
                _ => Ok(false),
            },
        }
    }

    /// The next frame as it is; `None` at the end of the connection. An error: it took too long.
    pub fn frame(&mut self) -> io::Result<Option<Frame>> {
        loop {
            if let Some(head) = self.inbox.first_chunk::<9>() {
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                if self.inbox.len() >= 9 + length {
                    let frame = Frame {
                        kind: head[3],
                        flags: head[4],
                        stream: u32::from_be_bytes([head[5], head[6], head[7], head[8]]),
                        payload: self.inbox[9..9 + length].to_vec(),
                    };
                    self.inbox.drain(..9 + length);
                    return Ok(Some(frame));
                }
            }
            if !self.fill()? {
                self.closed = true;
                return Ok(None);
            }
        }
    }

    /// Takes the next frame in. False: there is none any more. Panics when it takes too long.
    pub fn step(&mut self) -> bool {
        match self.try_step() {
            Ok(more) => more,
            Err(e) => panic!("nothing came ({e}); before that {:?}", self.came),
        }
    }

    /// The same; an error: it took too long.
    pub fn try_step(&mut self) -> io::Result<bool> {
        let Some(frame) = self.frame()? else {
            return Ok(false);
        };
        self.take(frame);
        Ok(true)
    }

    fn take(&mut self, frame: Frame) {
        let Frame {
            kind,
            flags,
            stream,
            payload,
        } = frame;
        let number = |at: usize| {
            let four = payload.get(at..at + 4).and_then(|b| b.try_into().ok());
            u32::from_be_bytes(four.expect("frames of the product are whole"))
        };
        match kind {
            DATA => {
                assert_eq!(flags & PADDED, 0, "the product does not pad");
                let came = self.came.entry(stream).or_default();
                assert!(!came.is_over(), "data after the end of {stream}");
                came.data.extend_from_slice(&payload);
                came.ended = flags & END_STREAM != 0;
            }
            HEADERS | CONTINUATION => {
                assert_eq!(flags & (PADDED | WITH_PRIORITY), 0, "the product does not");
                let (began, first, mut block) =
                    self.partial.take().unwrap_or((stream, flags, Vec::new()));
                assert_eq!(began, stream, "a head is in one piece");
                block.extend_from_slice(&payload);
                if flags & END_HEADERS == 0 {
                    self.partial = Some((stream, first, block));
                    return;
                }
                let head = self.decoder.decode(&block).expect("it is HPACK");
                let came = self.came.entry(stream).or_default();
                assert!(!came.is_over(), "a head after the end of {stream}");
                came.heads.push(head);
                came.ended = first & END_STREAM != 0;
            }
            RST_STREAM => self.came.entry(stream).or_default().reset = Some(number(0)),
            SETTINGS if flags & ACK != 0 => self.acks += 1,
            SETTINGS => {
                for at in payload.chunks(6) {
                    let value = u32::from_be_bytes(at[2..].try_into().expect("six octets"));
                    self.settings
                        .push((u16::from_be_bytes([at[0], at[1]]), value));
                }
                if self.polite {
                    self.send(self::frame(SETTINGS, ACK, 0, []));
                }
            }
            PING if flags & ACK != 0 => self.pongs += 1,
            PING if self.polite => {
                self.send(self::frame(PING, ACK, 0, &payload));
            }
            GOAWAY => self.goaway = Some((number(4), number(0))),
            WINDOW_UPDATE => *self.windows.entry(stream).or_default() += u64::from(number(0)),
            _ => {}
        }
    }

    /// Takes frames in until `done`, or until there are none any more.
    pub fn until(&mut self, mut done: impl FnMut(&Peer) -> bool) -> &mut Peer {
        let begun = Instant::now();
        while !done(self) && self.step() {
            assert!(begun.elapsed() < PATIENCE, "it goes on and on: {self:?}");
        }
        self
    }

    /// What came on a stream by the time at which it, or the connection, is over.
    pub fn over(&mut self, stream: u32) -> Came {
        self.until(|peer| peer.came.get(&stream).is_some_and(Came::is_over));
        self.came.get(&stream).cloned().unwrap_or_default()
    }

    /// Takes frames in until the connection ends.
    pub fn end(&mut self) -> &mut Peer {
        self.until(|_| false)
    }
}
