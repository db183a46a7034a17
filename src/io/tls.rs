//! One end of a TLS connection, a client's or a backend's, driven through rustls' unbuffered
//! interface.
//!
//! rustls holds keys and the state of the protocol; the bytes are ours. Ciphertext is read into a
//! scratch buffer of the worker and decrypted there; what is sent is sealed into another one. The
//! connection keeps a part of a record that waits for its rest and what the kernel has not taken
//! yet, and nothing else: an idle one holds no buffer.
//!
//! `listener` and `upstream::establish` make the handshake, everybody else sees a `Transport`.

mod notes_name;
mod session;

use std::io::{self, Read};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Buf;
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use rustls::{ClientConfig, HandshakeKind, ProtocolVersion, ServerConfig};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::buffer::{BufferPool, Inbox, Outbox, SCRATCH};
use notes_name::NotesName;
use session::{Session, process};

/// Largest plaintext of a record, in bytes (RFC 8446 §5.1).
const RECORD: usize = 16 * 1024;

/// What a record adds to its plaintext, at most: header, explicit nonce (TLS 1.2), content type
/// (TLS 1.3) and tag.
const OVERHEAD: usize = 5 + 8 + 1 + 16;

/// Room that is left for what rustls itself has to say in front of data: the answer to a key
/// update, an alert.
const OWN_WORDS: usize = 512;

/// As long as no more than this waits to be sent, more is sealed behind it, so that session
/// tickets travel with the first response. Beyond it, nothing is before the kernel has taken that.
const WAITING: usize = 4 * 1024;

/// Reads that [`TlsStream::is_quiet`] makes at most. A few tickets fit into one.
const GLANCES: usize = 4;

/// A TLS connection, to a client or to a backend.
pub struct TlsStream {
    tcp: TcpStream,
    session: Session,
    /// What the client named in SNI, where somebody asked for it to be noted.
    named: Option<Arc<NotesName>>,
    pool: Rc<BufferPool>,
    /// Ciphertext that waits for the rest of its record. rustls decrypts in place and remembers
    /// where it was, so whatever it is asked to do, it is given all of this.
    incoming: Inbox,
    /// Plaintext for which whoever read had no room; what came together with the handshake.
    surplus: Vec<u8>,
    outgoing: Outbox,
    receiving: Receiving,
    /// Our end has been announced.
    closing: bool,
}

#[derive(Debug)]
enum Receiving {
    Open,
    /// The peer has ended its direction; a client with or without close_notify.
    Ended,
    /// A backend has ended its direction without close_notify: whatever it was sending may not be
    /// whole (RFC 9112 §9.8).
    CutOff,
    /// What came was not TLS, or an alert. Boxed: hardly any connection has one.
    Failed(Box<rustls::Error>),
}

impl TlsStream {
    /// A client's connection on which the handshake is to be made.
    pub fn new(
        tcp: TcpStream,
        config: Arc<ServerConfig>,
        pool: &Rc<BufferPool>,
    ) -> Result<TlsStream, rustls::Error> {
        let session = Session::Server(UnbufferedServerConnection::new(config)?);
        Ok(TlsStream::over(tcp, session, pool))
    }

    /// The same; what the client names in SNI is noted. That costs the connection a copy of the
    /// parameters: rustls' unbuffered interface tells the name to nobody but the certificates.
    pub fn noting_name(
        tcp: TcpStream,
        config: &ServerConfig,
        pool: &Rc<BufferPool>,
    ) -> Result<TlsStream, rustls::Error> {
        let named = NotesName::over(Arc::clone(&config.cert_resolver));
        let mut own = config.clone();
        own.cert_resolver = Arc::<NotesName>::clone(&named);
        Ok(TlsStream {
            named: Some(named),
            ..TlsStream::new(tcp, Arc::new(own), pool)?
        })
    }

    /// A backend's connection on which the handshake is to be made; the backend has to prove to be
    /// `name`.
    pub fn to_backend(
        tcp: TcpStream,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        pool: &Rc<BufferPool>,
    ) -> Result<TlsStream, rustls::Error> {
        let session = Session::Client(UnbufferedClientConnection::new(config, name)?);
        Ok(TlsStream::over(tcp, session, pool))
    }

    fn over(tcp: TcpStream, session: Session, pool: &Rc<BufferPool>) -> TlsStream {
        TlsStream {
            tcp,
            session,
            named: None,
            pool: Rc::clone(pool),
            incoming: Inbox::new(Rc::clone(pool)),
            surplus: Vec::new(),
            outgoing: Outbox::new(Rc::clone(pool)),
            receiving: Receiving::Open,
            closing: false,
        }
    }

    /// Makes the handshake. Its last words (tickets, or a client's Finished) may be in the outbox
    /// still: they go out with the first message, or as soon as somebody waits for the peer.
    pub fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if matches!(self.session, Session::Client(_)) && self.incoming.is_empty() {
            // We speak first; later on there is nothing new to be said.
            self.take_in(&mut [])?;
        }
        while self.session.state().is_handshaking() {
            // The peer cannot go on before it has this.
            ready!(self.poll_flush(cx))?;
            if ready!(self.poll_receive(cx))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            self.take_in(&mut [])?;
        }
        Poll::Ready(Ok(()))
    }

    /// The protocol's version, once the handshake is made.
    pub fn version(&self) -> &'static str {
        match self.session.state().protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "1.2",
            _ => "1.3",
        }
    }

    /// Was an earlier session resumed?
    pub fn is_resumed(&self) -> bool {
        let kind = self.session.state().handshake_kind();
        matches!(kind, Some(HandshakeKind::Resumed))
    }

    /// The protocol that was agreed on by ALPN, if any was.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.session.state().alpn_protocol()
    }

    /// Why it came to nothing, if it did: what came was not TLS, or an alert.
    pub fn failure(&self) -> Option<&rustls::Error> {
        match &self.receiving {
            Receiving::Failed(error) => Some(error),
            _ => None,
        }
    }

    /// What the client named in SNI; `None` too where that was not noted.
    pub fn name(&self) -> Option<&str> {
        self.named.as_ref()?.name()
    }

    /// The client's own certificate, verified, once the handshake is made; `None`: it showed none.
    pub fn client_certificate(&self) -> Option<&[u8]> {
        let chain = self.session.state().peer_certificates()?;
        chain.first().map(|certificate| &**certificate)
    }

    /// The TCP connection below.
    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// Bytes of ciphertext that the kernel has not taken yet.
    pub fn unsent(&self) -> usize {
        self.outgoing.len()
    }

    /// Reads plaintext into `room`; `Ok(0)` is the end: a client's with or without close_notify, a
    /// backend's with it. A backend's end without it is an error of kind `UnexpectedEof`.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            if !self.surplus.is_empty() {
                return Poll::Ready(Ok(self.take_surplus(room)));
            }
            match &self.receiving {
                Receiving::Open => {}
                Receiving::Ended => return Poll::Ready(Ok(0)),
                Receiving::CutOff => {
                    return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                }
                Receiving::Failed(e) => return Poll::Ready(Err(invalid(e.as_ref().clone()))),
            }
            let n = match self.poll_receive(cx) {
                Poll::Ready(outcome) => outcome?,
                Poll::Pending => {
                    // Nobody is about to send a message that could take it along.
                    if let Poll::Ready(Err(e)) = self.poll_flush(cx) {
                        return Poll::Ready(Err(e));
                    }
                    return Poll::Pending;
                }
            };
            if n == 0 {
                self.receiving = match self.session {
                    Session::Server(_) => Receiving::Ended,
                    Session::Client(_) => Receiving::CutOff,
                };
                continue;
            }
            match self.take_in(room) {
                Ok(0) => {}
                Ok(n) => return Poll::Ready(Ok(n)),
                Err(e) => {
                    // The alert, if it goes at once.
                    let _ = self.poll_flush(cx);
                    return Poll::Ready(Err(e));
                }
            }
        }
    }

    /// Seals the front of `message` and hands it to the kernel: chunks that fit into one record
    /// become one, and all of it is one write. What is sealed counts as written; no more is
    /// sealed than fits into an outbox.
    pub fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        message: &mut impl Buf,
    ) -> Poll<io::Result<usize>> {
        if self.closing || matches!(self.receiving, Receiving::Failed(_)) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if self.outgoing.len() > WAITING {
            ready!(self.poll_flush(cx))?;
        }
        let n = self.seal(message)?;
        match self.poll_flush(cx) {
            Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
            _ => Poll::Ready(Ok(n)),
        }
    }

    /// Hands everything that was sealed to the kernel.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            match Pin::new(&mut self.tcp).poll_write(cx, self.outgoing.filled()) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(n)) => self.outgoing.consume(n),
                Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                Poll::Pending => {
                    self.outgoing.shrink();
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Ends our direction: close_notify, or the alert that says what was wrong, then FIN.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.closing {
            if self.outgoing.len() > WAITING {
                ready!(self.poll_flush(cx))?;
            }
            self.closing = true;
            if !matches!(self.receiving, Receiving::Failed(_)) {
                self.announce_end()?;
            }
        }
        ready!(self.poll_flush(cx))?;
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }

    /// Is the connection open, with nothing in it but what TLS says to itself? A backend sends
    /// tickets, and may renew its keys, when nobody has asked it for anything: that is taken in.
    /// With `AskThe::Kernel` it is asked whatever the runtime has heard, which costs a system call.
    pub fn is_quiet(&mut self, ask: AskThe) -> bool {
        // Not by polling: a task whose turn is over would be told that nothing is there.
        for _ in 0..GLANCES {
            let open = matches!(self.receiving, Receiving::Open);
            if !open || !self.surplus.is_empty() || self.incoming.filled().len() >= SCRATCH {
                return false;
            }
            let tcp = &self.tcp;
            let read = self.incoming.fill_with(|room| {
                let outcome = match ask {
                    AskThe::Runtime => tcp.try_read(room),
                    AskThe::Kernel => (&*SockRef::from(tcp)).read(room),
                };
                match outcome {
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => None,
                    outcome => Some(outcome),
                }
            });
            match read {
                None => return true,
                Some(Ok(1..)) => {
                    if self.take_in(&mut []).is_err() {
                        return false;
                    }
                }
                Some(_) => return false,
            }
        }
        false
    }

    /// Reads once from the kernel. `Ok(0)`: its end.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.incoming.filled().len() >= SCRATCH {
            // Only fragments of a handshake message can pile up so.
            let endless = io::Error::new(io::ErrorKind::InvalidData, "endless handshake message");
            return Poll::Ready(Err(endless));
        }
        let tcp = Pin::new(&mut self.tcp);
        let outcome = self.incoming.fill_with(|room| {
            let mut room = ReadBuf::new(room);
            match tcp.poll_read(cx, &mut room) {
                Poll::Ready(outcome) => Some(outcome.map(|()| room.filled().len())),
                Poll::Pending => None,
            }
        });
        outcome.map_or(Poll::Pending, Poll::Ready)
    }

    /// Takes in whatever is whole of what was received. Plaintext goes to `room`, and what does
    /// not fit there to the surplus; gives the number of bytes in `room`, or in the surplus if
    /// there is no room at all. Bytes that came in front of an error are given first.
    fn take_in(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let mut given = 0;
        let outcome = loop {
            let mut taken = 0;
            let settled = process!(&mut self.session, self.incoming.filled_mut(), UnbufferedStatus { discard, state, .. } => {
              taken += discard;
              match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
                    match traffic.next_record() {
                        Some(Ok(record)) => {
                            taken += record.discard;
                            let fits = record.payload.len().min(room.len() - given);
                            let (now, later) = record.payload.split_at(fits);
                            room[given..given + fits].copy_from_slice(now);
                            given += fits;
                            self.surplus.extend_from_slice(later);
                        }
                        Some(Err(e)) => break Err(e),
                        None => break Ok(false),
                    }
                },
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    let encoded = self.outgoing.append_with(|room| data.encode(room));
                    encoded.map_err(io::Error::other)?;
                    Ok(false)
                }
                // It is in the outbox, in front of everything that follows.
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    Ok(false)
                }
                Ok(ConnectionState::PeerClosed) => {
                    self.receiving = Receiving::Ended;
                    Ok(false)
                }
                // Early data, which is refused in our parameters, among them.
                Ok(_) => Ok(true),
                Err(e) => Err(e),
              }
            });
            self.incoming.consume(taken);
            match settled {
                Ok(false) => {}
                Ok(true) => break Ok(()),
                Err(e) => break Err(e),
            }
        };
        if let Err(e) = outcome {
            self.fail(&e);
            if given == 0 && self.surplus.is_empty() {
                return Err(invalid(e));
            }
        }
        if matches!(self.receiving, Receiving::Open) {
            self.incoming.shrink();
        } else {
            // Nothing behind an end is looked at.
            self.incoming.consume(self.incoming.filled().len());
        }
        Ok(given)
    }

    /// What came was not TLS, or an alert: what rustls has to say to that goes to the outbox.
    fn fail(&mut self, error: &rustls::Error) {
        self.receiving = Receiving::Failed(Box::new(error.clone()));
        // While there is something, rustls gives that before it looks at what was received again.
        while self.session.state().wants_write() {
            process!(&mut self.session, self.incoming.filled_mut(), status => {
                let Ok(ConnectionState::EncodeTlsData(mut data)) = status.state else {
                    return;
                };
                if self.outgoing.append_with(|room| data.encode(room)).is_err() {
                    return;
                }
            });
        }
    }

    /// Seals as much of `message` as there is room for.
    fn seal(&mut self, message: &mut impl Buf) -> io::Result<usize> {
        let before = message.remaining();
        self.settle()?;
        process!(&mut self.session, self.incoming.filled_mut(), status => {
        let Ok(ConnectionState::WriteTraffic(mut traffic)) = status.state else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        let sealed = self.outgoing.append_with(|room| {
            let mut end = 0;
            while message.has_remaining() {
                let most = fitting(room.len() - end, message.remaining());
                if most == 0 {
                    break;
                }
                let room = &mut room[end..];
                let chunk = message.chunk();
                if chunk.len() >= RECORD || chunk.len() == message.remaining() {
                    let n = chunk.len().min(most);
                    end += traffic.encrypt(&chunk[..n], room)?;
                    message.advance(n);
                } else {
                    // A head and its body: put side by side, so that they are one record.
                    end += self.pool.with_scratch(|record| {
                        let record = &mut record[..RECORD.min(most)];
                        message.copy_to_slice(record);
                        traffic.encrypt(record, room)
                    })?;
                }
            }
            Ok::<_, rustls::unbuffered::EncryptError>(end)
        });
        sealed.map_err(io::Error::other)?;
        Ok(before - message.remaining())
        })
    }

    fn announce_end(&mut self) -> io::Result<()> {
        self.settle()?;
        process!(&mut self.session, self.incoming.filled_mut(), status => {
            // In the middle of a handshake there is nothing to be ended.
            if let Ok(ConnectionState::WriteTraffic(mut traffic)) = status.state {
                let sealed = self
                    .outgoing
                    .append_with(|room| traffic.queue_close_notify(room));
                sealed.map_err(io::Error::other)?;
            }
            Ok(())
        })
    }

    /// Lets rustls say what it has to say before anything else can be.
    fn settle(&mut self) -> io::Result<()> {
        match self.session.state().wants_write() {
            true => self.take_in(&mut []).map(drop),
            false => Ok(()),
        }
    }

    fn take_surplus(&mut self, room: &mut [u8]) -> usize {
        let n = self.surplus.len().min(room.len());
        room[..n].copy_from_slice(&self.surplus[..n]);
        if n == self.surplus.len() {
            self.surplus = Vec::new();
        } else {
            self.surplus.drain(..n);
        }
        n
    }
}

/// Who is asked whether something has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AskThe {
    /// What it has heard so far: costs no system call unless it believes that something is there.
    Runtime,
    /// One system call.
    Kernel,
}

impl std::fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsStream")
            .field("tcp", &self.tcp)
            .field("receiving", &self.receiving)
            .field("closing", &self.closing)
            .finish_non_exhaustive()
    }
}

/// Bytes of plaintext that can be sealed into `room`, out of `remaining`. All of them, or whole
/// records: a short one at the end of the room would cost as much as a long one.
fn fitting(room: usize, remaining: usize) -> usize {
    let whole = room.saturating_sub(OWN_WORDS) / (RECORD + OVERHEAD);
    let rest = room.saturating_sub(OWN_WORDS) % (RECORD + OVERHEAD);
    let all = whole * RECORD + rest.saturating_sub(OVERHEAD);
    match remaining <= all {
        true => remaining,
        false => whole * RECORD,
    }
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod backend_tests;
#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;
