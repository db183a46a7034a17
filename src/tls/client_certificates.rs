//! Certificates that clients show: by whom they must be issued, and what is known of a client then.
//!
//! Read once per listener at start-up, and by `check`. rustls verifies a certificate in the
//! handshake; a session that is resumed brings along the one of its first handshake.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use data_encoding::{BASE64, HEXLOWER};
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs as provider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

use super::certificates::{CertificateError, CertificateWarning, chain, revocation_lists};
use super::subject;
use super::validity::{next_update, validity};
use crate::config::{ClientCertificateMode, ClientCertificates};

/// What verifies the certificates of a listener's clients.
///
/// Where there are revocation lists, each certificate of a chain has to be covered by one (its root
/// excepted) that has not expired: who cannot be judged is refused.
pub fn verifier(
    wanted: &ClientCertificates,
) -> Result<Arc<dyn ClientCertVerifier>, CertificateError> {
    let mut roots = RootCertStore::empty();
    for authority in chain(&wanted.ca)? {
        let added = roots.add(authority);
        added.map_err(|source| CertificateError::BadAuthority {
            file: wanted.ca.clone(),
            source,
        })?;
    }
    if roots.is_empty() {
        return Err(CertificateError::NoCertificate {
            file: wanted.ca.clone(),
            hint: ": the authorities of clients' certificates are wanted",
        });
    }
    // Named, because rustls panics when it has to choose between two providers in the tree.
    let provider = Arc::new(provider::default_provider());
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    if let Some(file) = &wanted.crl {
        builder = builder
            .with_crls(revocation_lists(file)?)
            .enforce_revocation_expiration();
    }
    if wanted.mode == ClientCertificateMode::Optional {
        builder = builder.allow_unauthenticated();
    }
    builder
        .build()
        .map_err(|source| CertificateError::BadRevocationList {
            // There are roots, so it is about the lists.
            file: wanted.crl.clone().unwrap_or_default(),
            source,
        })
}

/// What somebody should know of the files although they can be used.
pub fn warnings(
    wanted: &ClientCertificates,
    now: SystemTime,
) -> Result<Vec<CertificateWarning>, CertificateError> {
    let Some(file) = &wanted.crl else {
        return Ok(Vec::new());
    };
    let lists = revocation_lists(file)?;
    let expired = lists.iter().filter_map(|list| next_update(list));
    let expired = expired.filter(|since| *since < now);
    Ok(expired
        .map(|since| CertificateWarning::ListExpired {
            file: file.clone(),
            since,
        })
        .collect())
}

/// A certificate that a client has shown, and that was verified.
#[derive(Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    subject: Box<str>,
    fingerprint: Box<str>,
    whole: Option<Box<str>>,
}

/// Why a verified certificate is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum Unusable {
    #[error("the client's certificate has more than {MOST} bytes")]
    TooLarge,
    #[error("the subject of the client's certificate cannot be written as text")]
    Subject,
    #[error("the client's certificate is not valid now, though it was when the session began")]
    Expired,
}

impl ClientCertificate {
    /// What there is to say of a certificate that rustls has verified, now or when the session began
    /// that is resumed `now`.
    pub fn of(
        der: &[u8],
        wanted: &ClientCertificates,
        now: SystemTime,
    ) -> Result<ClientCertificate, Unusable> {
        if der.len() > MOST {
            return Err(Unusable::TooLarge);
        }
        let period = validity(der).ok_or(Unusable::Expired)?;
        // To the second, as its two ends are written.
        if now < period.not_before || now > period.not_after + Duration::from_secs(1) {
            return Err(Unusable::Expired);
        }
        let subject = subject::of_certificate(der).ok_or(Unusable::Subject)?;
        let fingerprint = HEXLOWER.encode(digest::digest(&digest::SHA256, der).as_ref());
        let whole = || format!(":{}:", BASE64.encode(der)).into();
        Ok(ClientCertificate {
            subject: subject.into(),
            fingerprint: fingerprint.into(),
            whole: wanted.pass_whole.then(whole),
        })
    }

    /// Its subject (RFC 4514), in printable ASCII; empty if it has none.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// SHA-256 of the certificate, in lower-case hex.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The certificate as RFC 9440 §2.1 writes it, if the backend is to have it: a byte sequence of
    /// structured fields.
    pub fn whole(&self) -> Option<&str> {
        self.whole.as_deref()
    }
}

/// Largest certificate, in bytes: the field that it goes to a backend in has a third more, and
/// most servers take 8 KiB of fields or more. Usual ones have 1 to 2 KiB.
const MOST: usize = 8 * 1024;

#[cfg(test)]
mod tests;
