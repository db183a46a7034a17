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

use super::certificates::{self, Certificate, CertificateError, CertificateSet, Resolver};
use super::challenges::{self, Challenges};
use super::client_certificates::{self, verifier};
use super::contents::Contents;
use crate::config::{AcmeCertificate, CertificateFiles, TlsFrontEnd, TlsVersion};
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

/// Certificates that are served already, and which of them go on where the files do not load.
#[derive(Debug, Clone, Copy)]
pub enum Held<'a> {
    /// None are served.
    Nothing,
    /// Those that were ordered.
    Ordered(&'a CertificateSet),
    /// All: nobody has asked for others.
    All(&'a CertificateSet),
}

impl Held<'_> {
    /// The one from these files.
    fn find(set: &CertificateSet, files: &CertificateFiles) -> Option<Certificate> {
        let mut all = set.certificates().iter();
        all.find(|held| held.files() == files).cloned()
    }

    /// What goes on in the place of a pair that is configured.
    fn configured(self, files: &CertificateFiles) -> Option<Certificate> {
        match self {
            Held::Nothing | Held::Ordered(_) => None,
            Held::All(set) => Held::find(set, files),
        }
    }

    /// What goes on in the place of one that was ordered.
    fn ordered(self, files: &CertificateFiles) -> Option<Certificate> {
        match self {
            Held::Nothing => None,
            Held::Ordered(set) | Held::All(set) => Held::find(set, files),
        }
    }
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
/// is offered. `challenges`: what authorities are answered, where certificates are ordered. `held`: what goes
/// on where files do not load.
pub fn front_end(
    front: &TlsFrontEnd,
    http2: bool,
    challenges: &Arc<Published<Challenges>>,
    held: Held<'_>,
) -> Result<FrontEnd, TlsError> {
    let set = certificates(front, held)?;
    if let Some(wanted) = &front.client_certificates {
        let warnings = client_certificates::warnings(wanted, SystemTime::now());
        for warning in warnings.map_err(TlsError::ClientCertificates)? {
            tracing::warn!("{warning}");
        }
    }
    let certificates = Published::new(set);
    let resolver = Resolver {
        certificates: Arc::clone(&certificates),
        challenges: Arc::clone(challenges),
    };
    Ok(FrontEnd {
        judges: judges(front),
        config: parameters(front, http2, resolver)?,
        certificates,
    })
}

/// Reads the certificates alone, those from files first. For names whose certificates were not issued yet
/// there is one that was made here. `held`: what goes on where files do not load. What is doubtful about
/// them is logged.
pub fn certificates(front: &TlsFrontEnd, held: Held<'_>) -> Result<CertificateSet, TlsError> {
    let files = front.certificates.iter().map(|files| {
        certificates::load(files).or_else(|error| held.configured(files).ok_or(error))
    });
    let mut all = files.collect::<Result<Vec<_>, _>>()?;
    let (mut issued, mut missing) = (Vec::new(), Vec::new());
    for ordered in &front.acme {
        if all.iter().any(|c| c.covers(&ordered.name)) {
            continue;
        }
        let files = ordered.files();
        let loaded = certificates::load(&files).inspect_err(|error| {
            if !error.is_missing() {
                tracing::warn!("a new one is ordered: {error}");
            }
        });
        match loaded.ok().or_else(|| held.ordered(&files)) {
            Some(certificate) => issued.push(certificate),
            None => missing.push(ordered.name.to_string()),
        }
    }
    all.append(&mut issued);
    if !missing.is_empty() {
        all.push(certificates::stand_in(&missing)?);
    }
    let set = CertificateSet::new(all)?;
    for warning in set.warnings(SystemTime::now()) {
        tracing::warn!("{warning}");
    }
    Ok(set)
}

/// The certificates that are ordered: none for names of which there is one from files.
pub fn ordered(front: &TlsFrontEnd, set: &CertificateSet) -> Vec<AcmeCertificate> {
    let mut wanted = Vec::from_iter(front.acme.iter().cloned());
    wanted.retain(|ordered| {
        let mut certificates = set.certificates().iter();
        let is_from_files = |c: &certificates::Certificate| front.certificates.contains(c.files());
        !certificates.any(|c| is_from_files(c) && c.covers(&ordered.name))
    });
    wanted
}

/// What the files hold by which clients' certificates are judged.
pub fn judges(front: &TlsFrontEnd) -> Contents {
    Contents::of(judge_files(front).map(PathBuf::as_path))
}

/// The files by which clients' certificates are judged.
pub fn judge_files(front: &TlsFrontEnd) -> impl Iterator<Item = &PathBuf> {
    let wanted = front.client_certificates.iter();
    wanted.flat_map(|wanted| iter::once(&wanted.ca).chain(&wanted.crl))
}

/// As [`front_end`], for those who never replace the certificates and speak HTTP/1.1 only.
pub fn config(front: &TlsFrontEnd) -> Result<Arc<ServerConfig>, TlsError> {
    let challenges = Published::new(Challenges::default());
    Ok(front_end(front, false, &challenges, Held::Nothing)?.config)
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
    if !front.acme.is_empty() {
        config.alpn_protocols.push(challenges::ALPN.to_vec());
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
