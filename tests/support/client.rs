//! A client that sends the bytes it is told to, plain or over TLS, and reads what comes.

use std::fmt::Debug;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use socket2::{Domain, Socket, Type};
use tokio::time::Instant;

use super::PATIENCE;
use super::wire::{self, Kind, Message};

/// One connection.
#[derive(Debug)]
pub struct Client {
    stream: Stream,
    /// Received and not yet taken.
    inbox: Vec<u8>,
    /// A reset came while something was sent. The kernel says so once: a read finds a mere end then.
    is_reset: bool,
}

#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Properly (FIN).
    Closed,
    /// By a reset.
    Reset,
}

/// Why there is no response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoResponse {
    /// The connection ended first; what had come is here.
    Ended(End, Vec<u8>),
    /// It cannot be understood.
    Malformed(String),
    /// It took too long; what had come is here.
    Late(Vec<u8>),
}

/// What a TLS client trusts, offers and remembers; connections that share one can resume sessions.
pub fn tls_config(
    authority: &Path,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    Arc::new(tls_config_with(provider, authority, versions))
}

/// The same with cryptography of the caller's choice, to be changed before it is shared.
pub fn tls_config_with(
    provider: rustls::crypto::CryptoProvider,
    authority: &Path,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> ClientConfig {
    let pem = std::fs::read(authority).expect("the authority was written");
    let mut roots = RootCertStore::empty();
    for certificate in rustls_pemfile::certs(&mut pem.as_slice()) {
        let certificate: CertificateDer<'static> = certificate.expect("it is PEM");
        roots.add(certificate).expect("it is a certificate");
    }
    ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(versions)
        .expect("the provider has these versions")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

impl Client {
    /// Connects without TLS.
    pub fn plain(address: SocketAddr) -> Client {
        Client::over(Stream::Plain(connect(address)))
    }

    /// Connects without TLS from another address of this machine (all of 127/8 is).
    pub fn plain_from(from: IpAddr, address: SocketAddr) -> Client {
        Client::over(Stream::Plain(connect_from(Some(from), address)))
    }

    /// A read waits for so long from now on.
    pub fn patience(&self, wait: Duration) {
        let set = self.tcp().set_read_timeout(Some(wait));
        set.expect("it is not zero");
    }

    /// Connects with TLS and finishes the handshake; an error is the handshake's.
    pub fn tls(address: SocketAddr, config: &Arc<ClientConfig>, name: &str) -> io::Result<Client> {
        let name = ServerName::try_from(name.to_owned()).expect("it is a name or an address");
        let connection =
            ClientConnection::new(Arc::clone(config), name).expect("the configuration is complete");
        let mut stream = StreamOwned::new(connection, connect(address));
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Client::over(Stream::Tls(Box::new(stream))))
    }

    /// The same behind these bytes, which go out in one packet with the first ones of the handshake.
    pub fn tls_behind(
        header: &[u8],
        address: SocketAddr,
        config: &Arc<ClientConfig>,
        name: &str,
    ) -> io::Result<Client> {
        let name = ServerName::try_from(name.to_owned()).expect("it is a name or an address");
        let mut connection =
            ClientConnection::new(Arc::clone(config), name).expect("the configuration is complete");
        let mut first = header.to_vec();
        while connection.wants_write() {
            connection.write_tls(&mut first)?;
        }
        let mut tcp = connect(address);
        tcp.write_all(&first)?;
        let mut stream = StreamOwned::new(connection, tcp);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Client::over(Stream::Tls(Box::new(stream))))
    }

    fn over(stream: Stream) -> Client {
        Client {
            stream,
            inbox: Vec::new(),
            is_reset: false,
        }
    }

    /// The TLS session, if there is one.
    pub fn session(&self) -> Option<&ClientConnection> {
        match &self.stream {
            Stream::Plain(_) => None,
            Stream::Tls(tls) => Some(&tls.conn),
        }
    }

    /// The TCP connection.
    pub fn tcp(&self) -> &TcpStream {
        match &self.stream {
            Stream::Plain(tcp) => tcp,
            Stream::Tls(tls) => &tls.sock,
        }
    }

    /// Sends all of it. An error says that the server is gone, which a test may expect.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        let bytes = bytes.as_ref();
        match &mut self.stream {
            Stream::Plain(tcp) => tcp.write_all(bytes),
            Stream::Tls(tls) => tls.write_all(bytes).and_then(|()| tls.flush()),
        }
    }

    /// Sends all of it. That the server is gone already will show when its response is read.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Client {
        let sent = self.try_send(bytes);
        self.is_reset |= sent.is_err_and(|e| e.kind() == io::ErrorKind::ConnectionReset);
        self
    }

    /// Sends the pieces, each in a write of its own, and calls `between` in the gaps.
    pub fn send_pieces(&mut self, pieces: &[&[u8]], mut between: impl FnMut()) -> &mut Client {
        for (at, piece) in pieces.iter().enumerate() {
            if at > 0 {
                between();
            }
            self.send(piece);
        }
        self
    }

    /// Reads once more; 0 is the end. Blocks for at most [`PATIENCE`].
    pub fn read_some(&mut self) -> io::Result<usize> {
        let mut room = [0; 64 * 1024];
        let n = match &mut self.stream {
            Stream::Plain(tcp) => tcp.read(&mut room)?,
            Stream::Tls(tls) => tls.read(&mut room)?,
        };
        self.inbox.extend_from_slice(&room[..n]);
        Ok(n)
    }

    /// Takes what was received and not yet taken.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.inbox)
    }

    /// Reads exactly so many bytes.
    pub fn exactly(&mut self, n: usize) -> Result<Vec<u8>, NoResponse> {
        while self.inbox.len() < n {
            self.more()?;
        }
        let rest = self.inbox.split_off(n);
        Ok(std::mem::replace(&mut self.inbox, rest))
    }

    /// Reads one response, interim or final, to any method but HEAD.
    pub fn response(&mut self) -> Result<Message, NoResponse> {
        self.message(Kind::Response)
    }

    /// Reads one response of this kind.
    pub fn message(&mut self, kind: Kind) -> Result<Message, NoResponse> {
        let begun = Instant::now();
        let mut ended = false;
        loop {
            let found = wire::message(&self.inbox, kind, ended).map_err(NoResponse::Malformed)?;
            if let Some(message) = found {
                self.inbox.drain(..message.raw.len());
                return Ok(message);
            }
            match self.more() {
                Ok(()) => {}
                Err(NoResponse::Ended(End::Closed, _)) if !ended => ended = true,
                Err(no) => return Err(no),
            }
            if begun.elapsed() > PATIENCE {
                return Err(NoResponse::Late(self.take()));
            }
        }
    }

    /// Reads one response whose head and body were cut short: what came, and how it ended.
    pub fn rest(&mut self) -> Result<(Vec<u8>, End), NoResponse> {
        loop {
            match self.more() {
                Ok(()) => {}
                Err(NoResponse::Ended(end, _)) => return Ok((self.take(), end)),
                Err(no) => return Err(no),
            }
        }
    }

    fn more(&mut self) -> Result<(), NoResponse> {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
        use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
        match self.read_some() {
            Ok(0) => {
                let end = if self.is_reset {
                    End::Reset
                } else {
                    End::Closed
                };
                Err(NoResponse::Ended(end, self.inbox.clone()))
            }
            Ok(_) => Ok(()),
            Err(e) => match e.kind() {
                Interrupted => Ok(()),
                TimedOut | WouldBlock => Err(NoResponse::Late(self.inbox.clone())),
                ConnectionReset | ConnectionAborted | BrokenPipe | UnexpectedEof => {
                    Err(NoResponse::Ended(End::Reset, self.inbox.clone()))
                }
                _ => panic!("a client's read failed: {e}"),
            },
        }
    }

    /// Sends a request and reads its response: for requests that nothing is wrong with.
    pub fn get(&mut self, host: &str, path: &str) -> Result<Message, NoResponse> {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        self.response()
    }

    /// Ends our direction.
    pub fn finish(&mut self) {
        if let Stream::Tls(tls) = &mut self.stream {
            tls.conn.send_close_notify();
            let _ = tls.flush();
        }
        let _ = self.tcp().shutdown(Shutdown::Write);
    }

    /// Ends with a reset instead of a FIN.
    pub fn reset(self) {
        reset(self.tcp());
    }
}

/// When dropped, this connection is reset.
pub fn reset(tcp: &TcpStream) {
    socket2::SockRef::from(tcp)
        .set_linger(Some(std::time::Duration::ZERO))
        .expect("a socket that is open can be told to linger");
}

fn connect(address: SocketAddr) -> TcpStream {
    connect_from(None, address)
}

/// Not with a time-out, which looks once more: whoever is reset at once has been connected.
fn connect_from(from: Option<IpAddr>, address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)
        .expect("there are descriptors");
    if let Some(from) = from {
        let bound = socket.bind(&SocketAddr::new(from, 0).into());
        bound.expect("it is an address of ours");
    }
    socket.connect(&address.into()).expect("the server listens");
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true).expect("it is a TCP socket");
    let patience = Some(PATIENCE);
    stream.set_read_timeout(patience).expect("it is not zero");
    stream.set_write_timeout(patience).expect("it is not zero");
    stream
}
