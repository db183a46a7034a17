//! rustls' server parameters for one listener.
//!
//! Called once per listener at start-up; a reload publishes new certificates behind the same
//! parameters, so that running listeners and their session tickets live on.

use std::iter;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::NoServerSessionStorage;
use rustls::version::{TLS12, TLS13};

use super::certificates::{CertificateError, CertificateSet, Resolver};
use super::client_certificates::{self, verifier};
use super::contents::Contents;
use crate::config::{TlsFrontEnd, TlsVersion};
use crate::published::Published;

/// TLS of one listener, ready for handshakes.
#[derive(Debug, Clone)]
pub struct FrontEnd {
    /// What a handshake is made with; shared by all workers.
    pub config: Arc<ServerConfig>,
    /// Where a reload publishes other certificates: the next handshake has them.
    pub certificates: Arc<Published<CertificateSet>>,
    /// Of the files by which clients' certificates are judged.
    pub judges: Contents,
}

/// Why a listener has no TLS.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum TlsError {
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error("client certificates: {0}")]
    ClientCertificates(CertificateError),
    #[error("TLS parameters: {0}")]
    Parameters(#[from] rustls::Error),
}

/// Reads the certificates and prepares TLS with them. What is doubtful about them is logged. `http2`: it
/// is offered.
pub fn front_end(front: &TlsFrontEnd, http2: bool) -> Result<FrontEnd, TlsError> {
    let set = certificates(front)?;
    if let Some(wanted) = &front.client_certificates {
        let warnings = client_certificates::warnings(wanted, SystemTime::now());
        for warning in warnings.map_err(TlsError::ClientCertificates)? {
            tracing::warn!("{warning}");
        }
    }
    let certificates = Published::new(set);
    Ok(FrontEnd {
        judges: judges(front),
        config: parameters(front, http2, Resolver(Arc::clone(&certificates)))?,
        certificates,
    })
}

/// Reads the certificates alone. What is doubtful about them is logged.
pub fn certificates(front: &TlsFrontEnd) -> Result<CertificateSet, TlsError> {
    let set = CertificateSet::load(&front.certificates)?;
    for warning in set.warnings(SystemTime::now()) {
        tracing::warn!("{warning}");
    }
    Ok(set)
}

/// What the files hold by which clients' certificates are judged.
pub fn judges(front: &TlsFrontEnd) -> Contents {
    let wanted = front.client_certificates.iter();
    let files = wanted.flat_map(|wanted| iter::once(&wanted.ca).chain(&wanted.crl));
    Contents::of(files.map(PathBuf::as_path))
}

/// As [`front_end`], for those who never replace the certificates and speak HTTP/1.1 only.
pub fn config(front: &TlsFrontEnd) -> Result<Arc<ServerConfig>, TlsError> {
    Ok(front_end(front, false)?.config)
}

fn parameters(
    front: &TlsFrontEnd,
    http2: bool,
    resolver: Resolver,
) -> Result<Arc<ServerConfig>, TlsError> {
    let versions: &[_] = match front.min_version {
        TlsVersion::Tls12 => &[&TLS13, &TLS12],
        TlsVersion::Tls13 => &[&TLS13],
    };
    // Named, because rustls panics when it has to choose between two providers in the tree.
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(versions)?;
    let builder = match &front.client_certificates {
        Some(wanted) => builder
            .with_client_cert_verifier(verifier(wanted).map_err(TlsError::ClientCertificates)?),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(resolver));
    // `http/1.0` too (RFC 7301 §6): whoever offers only that would be refused otherwise.
    config.alpn_protocols = vec![b"http/1.1".to_vec(), b"http/1.0".to_vec()];
    if http2 {
        config.alpn_protocols.insert(0, b"h2".to_vec());
    }
    // Sessions resume by tickets whose key lives 6 h and is accepted for 12 h; nothing is stored
    // per session, so no client can fill a table, and any worker can resume it. A ticket holds the
    // certificate that its client showed, and each listener has keys of its own: none is taken where
    // another policy for clients' certificates holds.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests;
