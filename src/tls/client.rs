//! rustls' client parameters: TLS to the backends of a service.
//!
//! Loaded once per service at start-up ([`BackEnd`]); each backend has a [`Counterpart`] of its own:
//! who it has to prove to be, and the sessions that can be resumed with it. Nothing here opens a
//! connection: `upstream::establish` does.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, Resumption};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::SingleCertAndKey;
use rustls::version::{TLS12, TLS13};
use rustls::{DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::certificates::{self, CertificateError};
use super::contents::Contents;
use crate::config::{BackendTls, TlsVersion, Trust};

/// TLS to the backends of one service.
#[derive(Debug)]
pub struct BackEnd {
    terms: Arc<BackendTls>,
    /// Of the files that the terms name, as they were read.
    contents: Contents,
    parameters: ClientConfig,
}

/// TLS to one backend. Cheap to clone: clones share the sessions.
#[derive(Debug, Clone)]
pub struct Counterpart {
    service: Arc<BackEnd>,
    /// As it was discovered, or as the configuration says.
    name: Arc<str>,
    /// What a handshake is made with.
    pub parameters: Arc<ClientConfig>,
}

/// What is spoken over a connection, offered by ALPN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Alpn {
    Http1,
    Http2,
}

/// Why there is no TLS to a service.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum BackEndError {
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error("{}: no certificate in it: `ca` is a PEM file with the authorities that are trusted", file.display())]
    NoAuthority { file: PathBuf },
    #[error("{}: a certificate in it cannot be understood: {source}", file.display())]
    BadAuthority {
        file: PathBuf,
        source: rustls::Error,
    },
    #[error(
        "this system has no list of authorities (looked for {}): name one with `ca`, or with \
         SSL_CERT_FILE",
        BUNDLES.join(", ")
    )]
    NoSystemRoots,
    #[error("TLS parameters: {0}")]
    Parameters(#[from] rustls::Error),
}

/// Loads the TLS of services; the authorities of the system are read once for all of them.
#[derive(Debug, Default)]
pub struct Loader {
    system: Option<Arc<RootCertStore>>,
}

impl Loader {
    /// Reads what a service's TLS needs.
    pub fn load(&mut self, terms: &Arc<BackendTls>) -> Result<Arc<BackEnd>, BackEndError> {
        let versions: &[_] = match terms.min_version {
            TlsVersion::Tls12 => &[&TLS13, &TLS12],
            TlsVersion::Tls13 => &[&TLS13],
        };
        // Named, because rustls panics when it has to choose between two providers in the tree.
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)?;
        let contents = Contents::of(files(terms));
        let builder = match &terms.trust {
            Trust::System => builder.with_root_certificates(self.system()?),
            Trust::Authorities(file) => builder.with_root_certificates(authorities(file)?),
            Trust::Nobody => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Anybody(provider))),
        };
        let parameters = match &terms.certificate {
            None => builder.with_no_client_auth(),
            Some(files) => {
                let own = certificates::load(files)?;
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own.signer())))
            }
        };
        Ok(Arc::new(BackEnd {
            terms: Arc::clone(terms),
            contents,
            parameters,
        }))
    }

    /// Who vouches for a server, on these terms. [`Trust::Nobody`]: none do.
    pub fn authorities(&mut self, trust: &Trust) -> Result<Arc<RootCertStore>, BackEndError> {
        match trust {
            Trust::System => self.system(),
            Trust::Authorities(file) => authorities(file),
            Trust::Nobody => Ok(Arc::new(RootCertStore::empty())),
        }
    }

    fn system(&mut self) -> Result<Arc<RootCertStore>, BackEndError> {
        if let Some(found) = &self.system {
            return Ok(Arc::clone(found));
        }
        let named = std::env::var_os("SSL_CERT_FILE").filter(|file| !file.is_empty());
        let file = match named {
            Some(file) => PathBuf::from(file),
            None => BUNDLES
                .iter()
                .map(PathBuf::from)
                .find(|file| file.is_file())
                .ok_or(BackEndError::NoSystemRoots)?,
        };
        let mut roots = RootCertStore::empty();
        // Such lists hold some that nobody can use, and are none the worse for it.
        let (usable, _) = roots.add_parsable_certificates(certificates::chain(&file)?);
        if usable == 0 {
            return Err(BackEndError::NoAuthority { file });
        }
        tracing::debug!(file = %file.display(), usable, "authorities of the system");
        Ok(Arc::clone(self.system.insert(Arc::new(roots))))
    }
}

/// The authorities in a file: all of them, or an error.
fn authorities(file: &Path) -> Result<Arc<RootCertStore>, BackEndError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates::chain(file)? {
        roots
            .add(certificate)
            .map_err(|source| BackEndError::BadAuthority {
                file: file.to_owned(),
                source,
            })?;
    }
    match roots.is_empty() {
        true => Err(BackEndError::NoAuthority {
            file: file.to_owned(),
        }),
        false => Ok(Arc::new(roots)),
    }
}

/// The files that belong to these terms.
fn files(terms: &BackendTls) -> impl Iterator<Item = &Path> {
    let authorities = match &terms.trust {
        Trust::Authorities(file) => Some(file.as_path()),
        Trust::System | Trust::Nobody => None,
    };
    let own = terms.certificate.iter();
    let own = own.flat_map(|own| [own.cert.as_path(), own.key.as_path()]);
    authorities.into_iter().chain(own)
}

impl BackEnd {
    /// The files that belong to it, and what was in them when it was loaded.
    pub fn files(&self) -> (Vec<PathBuf>, Contents) {
        (
            files(&self.terms).map(Path::to_owned).collect(),
            self.contents,
        )
    }

    /// Is there nothing that another one, loaded later, does otherwise?
    pub fn is_same(&self, other: &BackEnd) -> bool {
        self.terms == other.terms && self.contents == other.contents
    }

    /// TLS to the backend that discovery calls `target`: a name, or an address where there is none.
    pub fn towards(self: &Arc<Self>, target: &Arc<str>, alpn: Alpn) -> Counterpart {
        let name = match &self.terms.name {
            Some(name) => Arc::from(&**name),
            None => Arc::clone(target),
        };
        let mut parameters = self.parameters.clone();
        parameters.alpn_protocols = alpn.protocols();
        // Backends that share a name need not know each other's tickets, so each has a store.
        parameters.resumption = Resumption::in_memory_sessions(SESSIONS);
        Counterpart {
            service: Arc::clone(self),
            name,
            parameters: Arc::new(parameters),
        }
    }
}

impl Counterpart {
    /// The same backend by another protocol, or at another port: it shares no session.
    pub fn apart(&self, alpn: Alpn) -> Counterpart {
        self.service.towards(&self.name, alpn)
    }

    /// Is HTTP/2 all that is spoken with it?
    pub fn wants_h2(&self) -> bool {
        self.parameters.alpn_protocols == Alpn::Http2.protocols()
    }

    /// Who it has to prove to be.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The terms of its service, by which two counterparts of one name can be told apart.
    pub fn terms(&self) -> &Arc<BackendTls> {
        &self.service.terms
    }

    /// The name as rustls verifies it: a DNS name, which is sent as SNI, or an address, which is not.
    pub fn server_name(&self) -> io::Result<ServerName<'static>> {
        ServerName::try_from(self.name.to_string()).map_err(|_| {
            let why = format!("`{}` cannot stand in a certificate: give `name`", self.name);
            io::Error::new(io::ErrorKind::InvalidInput, why)
        })
    }
}

impl Alpn {
    fn protocols(self) -> Vec<Vec<u8>> {
        match self {
            Alpn::Http1 => vec![b"http/1.1".to_vec()],
            Alpn::Http2 => vec![b"h2".to_vec()],
        }
    }
}

/// Takes any certificate. That the peer has its key is verified all the same: it costs nothing, and
/// a handshake that breaks off says more than one that goes on.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Names that a backend's store has sessions for: there is one. Rustls keeps 8 tickets of each.
const SESSIONS: usize = 1;

/// Where systems keep the authorities that they trust: Debian and Alpine, Fedora, older Red Hat,
/// SUSE, the BSDs.
const BUNDLES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/usr/local/share/certs/ca-root-nss.crt",
];
