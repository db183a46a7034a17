//! A new connection to a backend, up to where HTTP begins: TCP, then what the backend is told of its
//! client (PROXY protocol), then TLS.
//!
//! Called by `proxy::exchange` for requests and by `health::probe` for checks. A connection with a
//! PROXY header serves one client's connection only; who keeps it sees to that.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use rustls::CertificateError;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::connect::{connect, connect_unbounded};
use crate::config::ProxyHeader;
use crate::discovery::Endpoint;
use crate::http::h2::ALPN;
use crate::io::buffer::BufferPool;
use crate::io::deadline::Timer;
use crate::io::proxy_header::Version;
use crate::io::tls::TlsStream;
use crate::io::transport::Transport;
use crate::tls::client::{Alpn, BackEnd, Counterpart};

/// What lies between TCP and HTTP on the connections to a service's backends.
#[derive(Debug, Clone, Default)]
pub struct Layering {
    /// What they are told of their client.
    pub header: Option<Version>,
    /// TLS.
    pub tls: Option<Arc<BackEnd>>,
    /// What requests are made by is HTTP/2.
    pub h2: bool,
}

/// What lies between TCP and HTTP on the connections to one backend.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    /// What it is told of its client, in front of everything else.
    pub header: Option<Version>,
    /// TLS.
    pub tls: Option<Counterpart>,
}

/// How long each step may take, and all of them together.
#[derive(Debug, Clone, Copy)]
pub struct Waits {
    /// For TCP.
    pub connect: Duration,
    /// For the TLS handshake.
    pub tls: Duration,
    /// For everything.
    pub all: Duration,
}

/// Why there is no connection. The backend has not been sent a byte of a request.
#[derive(Debug, thiserror::Error)]
pub enum Unestablished {
    /// It does not take one.
    #[error("connect failed: {0}")]
    Connect(#[source] io::Error),
    /// It took one, and TLS came to nothing.
    #[error("TLS failed: {}", Why(.0))]
    Tls(#[source] io::Error),
    /// It was to speak HTTP/2, and did not.
    #[error("the backend does not speak HTTP/2: {0}")]
    Greeting(#[source] io::Error),
}

/// Makes a connection to `address`. `told`: a PROXY header, or nothing. `bounds`: the timer that is
/// lent, and the time there is; without, the caller bounds it as a whole. Cancel-safe.
pub async fn establish(
    address: SocketAddr,
    told: &[u8],
    tls: Option<&Counterpart>,
    buffers: &Rc<BufferPool>,
    bounds: Option<(&Timer, Waits)>,
) -> Result<Transport, Unestablished> {
    let plain = told.is_empty() && tls.is_none();
    match bounds {
        Some((timer, waits)) if plain => {
            let tcp = connect(address, timer, waits.connect.min(waits.all)).await;
            tcp.map(Transport::Plain).map_err(Unestablished::Connect)
        }
        // Allocated apart, so that requests that need none of it have no room for it.
        Some(bounds) => Box::pin(layered(address, told, tls, buffers, bounds)).await,
        None => Box::pin(unbounded(address, told, tls, buffers)).await,
    }
}

async fn unbounded(
    address: SocketAddr,
    told: &[u8],
    tls: Option<&Counterpart>,
    buffers: &Rc<BufferPool>,
) -> Result<Transport, Unestablished> {
    let tcp = connect_unbounded(address).await;
    let mut tcp = tcp.map_err(Unestablished::Connect)?;
    introduce(&mut tcp, told).await?;
    match tls {
        None => Ok(Transport::Plain(tcp)),
        Some(counterpart) => handshake(tcp, counterpart, buffers).await,
    }
}

async fn layered(
    address: SocketAddr,
    told: &[u8],
    tls: Option<&Counterpart>,
    buffers: &Rc<BufferPool>,
    (timer, waits): (&Timer, Waits),
) -> Result<Transport, Unestablished> {
    let begun = Instant::now();
    let left = |wait: Duration| wait.min(waits.all.saturating_sub(begun.elapsed()));
    let tcp = connect(address, timer, left(waits.connect)).await;
    let mut tcp = tcp.map_err(Unestablished::Connect)?;
    let introduced = introduce(&mut tcp, told);
    let introduced = timer.limit(left(waits.connect), introduced).await;
    introduced.map_err(|_| Unestablished::Connect(io::ErrorKind::TimedOut.into()))??;
    let Some(counterpart) = tls else {
        return Ok(Transport::Plain(tcp));
    };
    let made = handshake(tcp, counterpart, buffers);
    let made = timer.limit(left(waits.tls), made).await;
    made.map_err(|_| Unestablished::Tls(io::ErrorKind::TimedOut.into()))?
}

/// Says whom the connection is for, if the backend is to be told.
async fn introduce(tcp: &mut TcpStream, told: &[u8]) -> Result<(), Unestablished> {
    if told.is_empty() {
        return Ok(());
    }
    tcp.write_all(told).await.map_err(Unestablished::Connect)
}

async fn handshake(
    tcp: TcpStream,
    counterpart: &Counterpart,
    buffers: &Rc<BufferPool>,
) -> Result<Transport, Unestablished> {
    let name = counterpart.server_name().map_err(Unestablished::Tls)?;
    let parameters = Arc::clone(&counterpart.parameters);
    let tls = TlsStream::to_backend(tcp, parameters, name, buffers);
    let mut tls = Box::new(tls.map_err(|e| Unestablished::Tls(io::Error::other(e)))?);
    match poll_fn(|cx| tls.poll_handshake(cx)).await {
        // RFC 9113 §3.2: who did not agree to HTTP/2 does not speak it.
        Ok(()) if counterpart.wants_h2() && tls.alpn() != Some(ALPN) => {
            let other = "the backend does not offer HTTP/2 (ALPN)";
            Err(Unestablished::Tls(io::Error::other(other)))
        }
        Ok(()) => Ok(Transport::Tls(tls)),
        Err(e) => {
            // The alert that says why, if it goes at once: nobody waits for it.
            poll_fn(|cx| {
                let _ = tls.poll_shutdown(cx);
                Poll::Ready(())
            })
            .await;
            Err(Unestablished::Tls(e))
        }
    }
}

impl Layering {
    /// To this endpoint, for requests.
    pub fn to(&self, endpoint: &Endpoint) -> Layers {
        let tls = self.tls.as_ref();
        let alpn = match self.h2 {
            true => Alpn::Http2,
            false => Alpn::Http1,
        };
        Layers {
            header: self.header,
            tls: tls.map(|tls| tls.towards(&endpoint.target, alpn)),
        }
    }
}

impl From<ProxyHeader> for Version {
    fn from(header: ProxyHeader) -> Version {
        match header {
            ProxyHeader::V1 => Version::V1,
            ProxyHeader::V2 => Version::V2,
        }
    }
}

impl Unestablished {
    /// The same, for another who waited for it.
    pub fn again(&self) -> Unestablished {
        let copy = |e: &io::Error| io::Error::new(e.kind(), e.to_string());
        match self {
            Unestablished::Connect(e) => Unestablished::Connect(copy(e)),
            Unestablished::Greeting(e) => Unestablished::Greeting(copy(e)),
            Unestablished::Tls(e) => Unestablished::Tls(match rustls_error(e) {
                Some(error) => io::Error::new(e.kind(), error.clone()),
                None => copy(e),
            }),
        }
    }

    /// Did the backend end the connection, by GOAWAY, before it had streams?
    pub fn is_leaving(&self) -> bool {
        let kind = self.error().kind();
        matches!(self, Unestablished::Greeting(_)) && kind == io::ErrorKind::ConnectionAborted
    }

    /// What the system, or rustls, said.
    pub fn error(&self) -> &io::Error {
        match self {
            Unestablished::Connect(e) | Unestablished::Tls(e) | Unestablished::Greeting(e) => e,
        }
    }

    /// Label of the metric and of the log field.
    pub fn reason(&self) -> &'static str {
        let late = self.error().kind() == io::ErrorKind::TimedOut;
        match self {
            Unestablished::Connect(_) if late => "connect_timeout",
            Unestablished::Connect(_) => "connect_failed",
            Unestablished::Greeting(_) => "not_http2",
            Unestablished::Tls(_) if late => "tls_timeout",
            Unestablished::Tls(e) => match rustls_error(e) {
                Some(rustls::Error::InvalidCertificate(_)) => "tls_certificate",
                _ => "tls_failed",
            },
        }
    }
}

/// Why TLS came to nothing, in words.
struct Why<'a>(&'a io::Error);

impl fmt::Display for Why<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(error) = rustls_error(self.0) {
            return InWords(error).fmt(f);
        }
        match self.0.kind() {
            io::ErrorKind::UnexpectedEof => f.write_str("the backend closed in the middle"),
            io::ErrorKind::TimedOut => f.write_str("no handshake in time"),
            _ => self.0.fmt(f),
        }
    }
}

/// What rustls found wrong with a backend, in words.
#[derive(Debug)]
pub struct InWords<'a>(pub &'a rustls::Error);

impl fmt::Display for InWords<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use CertificateError as Bad;
        let error = self.0;
        match error {
            rustls::Error::InvalidCertificate(bad) => match bad {
                Bad::Expired | Bad::ExpiredContext { .. } => {
                    f.write_str("the backend's certificate has expired")
                }
                Bad::NotValidYet | Bad::NotValidYetContext { .. } => {
                    f.write_str("the backend's certificate is not valid yet")
                }
                Bad::UnknownIssuer => f.write_str(
                    "the backend's certificate was issued by nobody who is trusted (`ca`)",
                ),
                Bad::NotValidForName => {
                    f.write_str("the backend's certificate is for another name")
                }
                Bad::NotValidForNameContext { expected, .. } => write!(
                    f,
                    "the backend's certificate is for another name than {}",
                    expected.to_str()
                ),
                // webpki's words for these mean little to those who have made the certificate.
                other if other.to_string().contains("CaUsedAsEndEntity") => f.write_str(
                    "the backend's certificate says that it is an authority's (CA:TRUE), which a \
                     server's may not",
                ),
                other => write!(f, "the backend's certificate is not sound: {other}"),
            },
            rustls::Error::AlertReceived(alert) => {
                write!(f, "the backend broke off: alert {alert:?}")
            }
            rustls::Error::InvalidMessage(_) => {
                write!(f, "the backend does not speak TLS here ({error})")
            }
            other => other.fmt(f),
        }
    }
}

fn rustls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_failure_is_called() {
        let tls = |error: rustls::Error| Unestablished::Tls(io::Error::other(error));
        let certificate = |bad| tls(rustls::Error::InvalidCertificate(bad));
        let late = || io::Error::from(io::ErrorKind::TimedOut);
        let refused = io::ErrorKind::ConnectionRefused.into();
        for (failure, reason, text) in [
            (
                Unestablished::Connect(refused),
                "connect_failed",
                "connect failed",
            ),
            (
                Unestablished::Connect(late()),
                "connect_timeout",
                "connect failed",
            ),
            (
                Unestablished::Tls(late()),
                "tls_timeout",
                "no handshake in time",
            ),
            (
                Unestablished::Tls(io::ErrorKind::UnexpectedEof.into()),
                "tls_failed",
                "closed in the middle",
            ),
            (
                certificate(CertificateError::Expired),
                "tls_certificate",
                "has expired",
            ),
            (
                certificate(CertificateError::UnknownIssuer),
                "tls_certificate",
                "by nobody who is trusted",
            ),
            (
                tls(rustls::Error::AlertReceived(
                    rustls::AlertDescription::HandshakeFailure,
                )),
                "tls_failed",
                "alert HandshakeFailure",
            ),
        ] {
            assert_eq!(failure.reason(), reason, "{failure}");
            assert!(failure.to_string().contains(text), "{failure}");
        }
    }
}
