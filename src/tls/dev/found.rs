//! What already lies where development files go: is it ours, and can it still be used?
//!
//! Looks and decides; changes nothing. What was made elsewhere is never called replaceable.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use super::{AUTHORITY, DevFiles, is_there};
use crate::config::CertificateFiles;
use crate::tls::certificates::{self, Certificate, CertificateError};

/// What lies there.
#[derive(Debug)]
pub enum Found {
    /// Nothing, or what was left by half: to be made.
    Nothing,
    /// Made here, and good.
    Usable(Certificate),
    /// Made here, but: why. To be made anew.
    Unusable(&'static str),
    /// Made elsewhere; a certificate with its key, whatever its names and its age.
    Foreign(Certificate),
}

/// Why nothing can be said, or done, about what lies there.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// Files of which one is missing, and that were not made here.
    #[error("{} is there without {}, and not of our making", there.display(), missing.display())]
    InTheWay {
        /// What is there.
        there: PathBuf,
        /// What is not.
        missing: PathBuf,
    },
    /// A file cannot be read, or is of somebody else and of no use.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

/// A certificate that ends sooner is as good as expired.
const SOON: Duration = Duration::from_secs(86_400);

impl DevFiles {
    /// Judges what is there, for a certificate that is to have these names.
    pub fn find(&self, names: &[String], now: SystemTime) -> Result<Found, FindError> {
        if !is_there(&self.cert) {
            return self.find_rest();
        }
        let loaded = certificates::load(&CertificateFiles {
            cert: self.cert.clone(),
            key: self.key.clone(),
        });
        let chain = certificates::chain(&self.cert)?;
        if !chain.first().is_some_and(is_ours) {
            return Ok(Found::Foreign(loaded?));
        }
        let certificate = match loaded {
            Ok(certificate) => certificate,
            Err(error) if is_missing(&error) => return Ok(Found::Unusable("its key is missing")),
            Err(error @ CertificateError::Read { .. }) => return Err(error.into()),
            Err(_) => return Ok(Found::Unusable("it does not go with its key")),
        };
        let authority = match certificates::chain(&self.ca) {
            Ok(authority) => authority,
            Err(error) if is_missing(&error) => {
                return Ok(Found::Unusable("its authority is missing"));
            }
            Err(error @ CertificateError::Read { .. }) => return Err(error.into()),
            Err(_) => Vec::new(),
        };
        Ok(match why_not(&certificate, &authority, names, now + SOON) {
            Some(why) => Found::Unusable(why),
            None => Found::Usable(certificate),
        })
    }

    /// Without a certificate. We write the authority first and the key last.
    fn find_rest(&self) -> Result<Found, FindError> {
        let foreign = if is_there(&self.key) {
            Some(&self.key)
        } else if is_there(&self.ca) && !certificates::chain(&self.ca)?.iter().any(is_ours) {
            Some(&self.ca)
        } else {
            None
        };
        match foreign {
            None => Ok(Found::Nothing),
            Some(there) => Err(FindError::InTheWay {
                there: there.clone(),
                missing: self.cert.clone(),
            }),
        }
    }
}

/// Why a client that trusts `authority` would refuse it at `time` for one of these names.
fn why_not(
    certificate: &Certificate,
    authority: &[CertificateDer<'static>],
    names: &[String],
    time: SystemTime,
) -> Option<&'static str> {
    let Ok(leaf) = EndEntityCert::try_from(certificate.leaf()) else {
        return Some("it cannot be understood");
    };
    if time > certificate.validity().not_after {
        return Some("it ends within a day, or has ended");
    }
    let anchors = authority.iter().map(anchor_from_trusted_cert);
    let anchors: Vec<_> = anchors.filter_map(Result::ok).collect();
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    let verified = leaf.verify_for_usage(
        aws_lc_rs::default_provider()
            .signature_verification_algorithms
            .all,
        &anchors,
        &[],
        UnixTime::since_unix_epoch(since.unwrap_or_default()),
        KeyUsage::server_auth(),
        None,
        None,
    );
    if verified.is_err() {
        return Some("it does not go with its authority");
    }
    let covers = |name: &String| {
        let wanted = name.to_ascii_lowercase();
        certificate.names().iter().any(|own| **own == *wanted)
            || ServerName::try_from(wanted)
                .is_ok_and(|name| leaf.verify_is_valid_for_subject_name(&name).is_ok())
    };
    match names.iter().all(covers) {
        true => None,
        false => Some("it has other names"),
    }
}

/// An authority that was made here, or a certificate of one: both bear its name as their issuer.
fn is_ours(certificate: &CertificateDer<'static>) -> bool {
    let parsed = EndEntityCert::try_from(certificate);
    parsed.is_ok_and(|c| memchr::memmem::find(c.issuer(), AUTHORITY.as_bytes()).is_some())
}

fn is_missing(error: &CertificateError) -> bool {
    let kind = |source: &io::Error| source.kind() == io::ErrorKind::NotFound;
    matches!(error, CertificateError::Read { source, .. } if kind(source))
}
