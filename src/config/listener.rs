//! Where clients connect.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use super::{Access, AcmeCertificate};

/// One `[[listener]]`.
#[derive(Debug, Clone)]
pub struct Listener {
    /// Its name; default: its address.
    pub name: Arc<str>,
    /// Where it listens.
    pub address: SocketAddr,
    /// What it speaks.
    pub protocol: Protocol,
    /// HTTP/2 besides HTTP/1.1: by ALPN over TLS, else for clients that know it beforehand.
    pub http2: bool,
    /// Every connection begins with a PROXY header, and comes from a trusted peer.
    pub proxy_protocol: bool,
    /// Answer every request with a redirect to https instead of routing it.
    pub redirect: Option<Redirect>,
    /// Whom it takes requests and connections from; `None`: everybody.
    pub access: Option<Access>,
}

impl Listener {
    /// What it wants of clients' certificates; `None`: nobody is asked for one.
    pub fn client_certificates(&self) -> Option<&ClientCertificates> {
        match &self.protocol {
            Protocol::Http | Protocol::Tcp | Protocol::Tls => None,
            Protocol::Https(tls) => tls.client_certificates.as_ref(),
        }
    }
}

/// What a listener speaks.
#[derive(Debug, Clone)]
pub enum Protocol {
    /// Plain HTTP/1.1.
    Http,
    /// HTTP/1.1 in TLS.
    Https(TlsFrontEnd),
    /// Whatever it is: bytes are passed on as they come.
    Tcp,
    /// TLS that a backend ends: passed on as it is, by the name that the client asks for.
    Tls,
}

impl Protocol {
    /// Are connections passed on as they are, without a look at requests?
    pub fn is_layer4(&self) -> bool {
        matches!(self, Protocol::Tcp | Protocol::Tls)
    }
}

/// TLS of one listener.
#[derive(Debug, Clone)]
pub struct TlsFrontEnd {
    /// Certificates, chosen by SNI; the first one is the default. Empty only if some are ordered.
    pub certificates: Vec<CertificateFiles>,
    /// Certificates that are ordered.
    pub acme: BTreeSet<AcmeCertificate>,
    /// Lowest version that is accepted.
    pub min_version: TlsVersion,
    /// What is wanted of clients' certificates; `None`: nobody is asked for one.
    pub client_certificates: Option<ClientCertificates>,
}

/// What a listener wants of clients' certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificates {
    /// PEM file of the authorities that issue them.
    pub ca: PathBuf,
    /// PEM file of their revocation lists; `None`: nobody's was revoked.
    pub crl: Option<PathBuf>,
    /// Must there be one?
    pub mode: ClientCertificateMode,
    /// The backend gets the certificate itself too, in `Client-Cert` (RFC 9440).
    pub pass_whole: bool,
}

/// Must a client show a certificate? One that is shown has to be right either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCertificateMode {
    /// Without one there is no connection.
    Required,
    /// The backend is told whether there was one.
    Optional,
}

/// PEM files of one certificate.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CertificateFiles {
    /// Chain, leaf first.
    pub cert: PathBuf,
    /// Private key.
    pub key: PathBuf,
}

/// A TLS version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum TlsVersion {
    Tls12,
    Tls13,
}

/// A redirect to https.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Redirect {
    /// 301, 302, 307 or 308 (default).
    pub status: u16,
    /// Port to name in `Location`; 443 is left out.
    pub port: u16,
}
