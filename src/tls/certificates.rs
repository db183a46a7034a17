//! Certificate files to keys that sign, and the choice of one by SNI.
//!
//! A [`CertificateSet`] is immutable; `reload.rs` builds a new one and publishes it. Called by
//! `server.rs` of this folder, by `check`, and by the handshake through [`Resolver`].

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, SignatureScheme};
use rustls_pemfile::Item;

use super::challenges::{Challenges, is_validation};
use super::dev;
pub use super::validity::Validity;
use super::validity::validity;
use crate::config::CertificateFiles;
use crate::io::files;
use crate::published::Published;
use crate::telemetry::date::Rfc3339;

/// A chain with its key, read from files.
#[derive(Debug, Clone)]
pub struct Certificate {
    files: CertificateFiles,
    names: Vec<Box<str>>,
    validity: Validity,
    key: Arc<CertifiedKey>,
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum CertificateError {
    #[error("{}: cannot be read: {source}", file.display())]
    Read { file: PathBuf, source: io::Error },
    #[error("{}: larger than {MAX_FILE} bytes: not a certificate or key file", file.display())]
    TooLarge { file: PathBuf },
    #[error("{}: not a valid PEM file: {source}", file.display())]
    Pem { file: PathBuf, source: io::Error },
    #[error("{}: no certificate in it{hint}", file.display())]
    NoCertificate { file: PathBuf, hint: &'static str },
    #[error("{}: no private key in it{hint}", file.display())]
    NoKey { file: PathBuf, hint: &'static str },
    #[error("{}: the first certificate cannot be understood: {source}", file.display())]
    BadCertificate {
        file: PathBuf,
        source: webpki::Error,
    },
    #[error("{}: the private key cannot be used: {source}", file.display())]
    BadKey {
        file: PathBuf,
        source: rustls::Error,
    },
    #[error(
        "{}: the key does not match the first certificate of {} (the server's own certificate \
         comes first, then its issuers)",
        key.display(), cert.display()
    )]
    Mismatch { cert: PathBuf, key: PathBuf },
    #[error("no certificate is configured")]
    Empty,
    #[error("no certificate can be made to stand in: {0}")]
    StandIn(Box<rcgen::Error>),
    #[error("{}: a certificate in it cannot be an authority: {source}", file.display())]
    BadAuthority {
        file: PathBuf,
        source: rustls::Error,
    },
    #[error("{}: no certificate revocation list in it", file.display())]
    NoRevocationList { file: PathBuf },
    #[error("{}: a certificate revocation list in it cannot be used: {source}", file.display())]
    BadRevocationList {
        file: PathBuf,
        source: rustls::server::VerifierBuilderError,
    },
}

/// Something that does not stop a certificate from being used, but somebody should know.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum CertificateWarning {
    Expired { file: PathBuf, since: SystemTime },
    NotYetValid { file: PathBuf, from: SystemTime },
    NoNames { file: PathBuf },
    ListExpired { file: PathBuf, since: SystemTime },
}

/// The certificates of a listener: immutable, replaced as a whole.
#[derive(Debug, Default)]
pub struct CertificateSet {
    /// Never empty; the first one is the default.
    certificates: Vec<Certificate>,
    /// Lower-case name to indexes, in the order of the configuration.
    exact: HashMap<Box<str>, Vec<usize>>,
    /// `example.com` for `*.example.com`, to indexes.
    wildcard: HashMap<Box<str>, Vec<usize>>,
}

/// Hands rustls the certificate for a handshake, out of whatever set is published then.
#[derive(Debug)]
pub struct Resolver {
    /// The certificates.
    pub certificates: Arc<Published<CertificateSet>>,
    /// What authorities are answered that validate a name.
    pub challenges: Arc<Published<Challenges>>,
}

/// What a certificate is called by that was made here, until there is one for its names.
const STAND_IN: &str = "(stand-in)";

/// A chain of a few certificates takes some 10 kB; a list of 20,000 that are revoked fits too.
const MAX_FILE: u64 = 1024 * 1024;

/// Reads a chain and its key, and makes sure that they belong together.
pub fn load(files: &CertificateFiles) -> Result<Certificate, CertificateError> {
    assemble(files, read_pem(&files.cert)?, read_pem(&files.key)?)
}

/// Makes a certificate for these names that nobody trusts. It is served while there is no other.
pub fn stand_in(names: &[String]) -> Result<Certificate, CertificateError> {
    let file = PathBuf::from(STAND_IN);
    let made = dev::self_signed(names).map_err(|error| CertificateError::StandIn(error.into()))?;
    let chain = parse_pem(&file, made.cert.as_bytes())?;
    let key = parse_pem(&file, made.key.as_bytes())?;
    let files = CertificateFiles {
        cert: file.clone(),
        key: file,
    };
    assemble(&files, chain, key)
}

fn assemble(
    files: &CertificateFiles,
    chain: Pem,
    key_pem: Pem,
) -> Result<Certificate, CertificateError> {
    let CertificateFiles { cert, key } = files;
    let Some(leaf) = chain.certificates.first() else {
        return Err(CertificateError::NoCertificate {
            file: cert.clone(),
            hint: match chain.key {
                Some(_) => ", but a private key: are cert and key swapped?",
                None => "",
            },
        });
    };
    let bad_certificate = |source| CertificateError::BadCertificate {
        file: cert.clone(),
        source,
    };
    let parsed = webpki::EndEntityCert::try_from(leaf).map_err(bad_certificate)?;
    let names = parsed
        .valid_dns_names()
        .map(|name| name.to_ascii_lowercase().into())
        .collect();
    let validity = validity(leaf).ok_or_else(|| bad_certificate(webpki::Error::BadDerTime))?;

    let Pem {
        certificates,
        key: found,
        encrypted,
        ..
    } = key_pem;
    let Some(secret) = found else {
        return Err(CertificateError::NoKey {
            file: key.clone(),
            hint: match (encrypted, certificates.is_empty()) {
                (true, _) => ", but an encrypted one: decrypt it first",
                (false, false) => ", but a certificate: are cert and key swapped?",
                (false, true) => "",
            },
        });
    };
    let certified =
        CertifiedKey::from_der(chain.certificates, secret, &aws_lc_rs::default_provider())
            .map_err(|error| match error {
                rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                    CertificateError::Mismatch {
                        cert: cert.clone(),
                        key: key.clone(),
                    }
                }
                source => CertificateError::BadKey {
                    file: key.clone(),
                    source,
                },
            })?;
    Ok(Certificate {
        files: files.clone(),
        names,
        validity,
        key: Arc::new(certified),
    })
}

/// The certificates in a PEM file, perhaps none.
pub fn chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    Ok(read_pem(file)?.certificates)
}

/// The certificate revocation lists in a PEM file, at least one.
pub(super) fn revocation_lists(
    file: &Path,
) -> Result<Vec<CertificateRevocationListDer<'static>>, CertificateError> {
    let lists = read_pem(file)?.revocation_lists;
    if lists.is_empty() {
        return Err(CertificateError::NoRevocationList {
            file: file.to_owned(),
        });
    }
    Ok(lists)
}

impl CertificateError {
    /// Is there no such file?
    pub(super) fn is_missing(&self) -> bool {
        matches!(self, CertificateError::Read { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

impl Certificate {
    /// DNS names of its subjectAltName extension, lower case, wildcards as `*.example.com`. The
    /// common name does not count (RFC 9525 §2).
    pub fn names(&self) -> &[Box<str>] {
        &self.names
    }

    /// The files it came from.
    pub fn files(&self) -> &CertificateFiles {
        &self.files
    }

    /// The certificate itself, without its issuers.
    pub fn leaf(&self) -> &CertificateDer<'static> {
        // `load` has seen it.
        &self.key.cert[0]
    }

    /// Is it good for this name? A wildcard is for a wildcard only if it is the same one.
    pub fn covers(&self, name: &str) -> bool {
        let mut names = self.names.iter();
        let parent = name.split_once('.').map(|(_, parent)| parent);
        names.any(|own| **own == *name || parent.is_some() && own.strip_prefix("*.") == parent)
    }

    /// Was it made here, for want of another?
    pub(super) fn is_stand_in(&self) -> bool {
        self.files.cert == Path::new(STAND_IN)
    }

    /// Is it the same one, with the same issuers?
    pub(super) fn is_same(&self, other: &Certificate) -> bool {
        self.key.cert == other.key.cert
    }

    /// What signs with its key.
    pub fn signer(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.key)
    }

    /// From when until when it is valid.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// What somebody should know although it can be used.
    pub fn warnings(&self, now: SystemTime) -> Vec<CertificateWarning> {
        let file = || self.files.cert.clone();
        let Validity {
            not_before,
            not_after,
        } = self.validity;
        let mut warnings = Vec::new();
        if now > not_after {
            warnings.push(CertificateWarning::Expired {
                file: file(),
                since: not_after,
            });
        }
        if now < not_before {
            warnings.push(CertificateWarning::NotYetValid {
                file: file(),
                from: not_before,
            });
        }
        if self.names.is_empty() {
            warnings.push(CertificateWarning::NoNames { file: file() });
        }
        warnings
    }
}

impl fmt::Display for CertificateWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CertificateWarning::Expired { file, since } => {
                let since = Rfc3339::seconds(*since);
                write!(
                    f,
                    "{}: expired on {since}; it is served all the same",
                    file.display()
                )
            }
            CertificateWarning::NotYetValid { file, from } => {
                let from = Rfc3339::seconds(*from);
                write!(
                    f,
                    "{}: not valid before {from}; it is served all the same",
                    file.display()
                )
            }
            CertificateWarning::ListExpired { file, since } => {
                let since = Rfc3339::seconds(*since);
                write!(
                    f,
                    "{}: a revocation list in it was to be renewed by {since}: clients whose \
                     certificates it covers are refused",
                    file.display()
                )
            }
            CertificateWarning::NoNames { file } => write!(
                f,
                "{}: names no host in subjectAltName: clients refuse it, and SNI never chooses it",
                file.display()
            ),
        }
    }
}

impl CertificateSet {
    /// Reads all certificates of a listener. The first one is the default.
    pub fn load(files: &[CertificateFiles]) -> Result<CertificateSet, CertificateError> {
        let certificates = files.iter().map(load).collect::<Result<_, _>>()?;
        CertificateSet::new(certificates)
    }

    pub(super) fn new(certificates: Vec<Certificate>) -> Result<CertificateSet, CertificateError> {
        if certificates.is_empty() {
            return Err(CertificateError::Empty);
        }
        let mut exact: HashMap<Box<str>, Vec<usize>> = HashMap::new();
        let mut wildcard: HashMap<Box<str>, Vec<usize>> = HashMap::new();
        for (index, certificate) in certificates.iter().enumerate() {
            for name in &certificate.names {
                match name.strip_prefix("*.") {
                    Some(parent) => wildcard.entry(parent.into()).or_default().push(index),
                    None => exact.entry(name.clone()).or_default().push(index),
                }
            }
        }
        Ok(CertificateSet {
            certificates,
            exact,
            wildcard,
        })
    }

    /// All of them, the default first.
    pub fn certificates(&self) -> &[Certificate] {
        &self.certificates
    }

    /// What somebody should know about them.
    pub fn warnings(&self, now: SystemTime) -> Vec<CertificateWarning> {
        let all = self.certificates.iter();
        all.flat_map(|certificate| certificate.warnings(now))
            .collect()
    }

    /// The certificate for a handshake: an exact name before a wildcard, which stands for one
    /// whole label (RFC 9525 §6.3), before the default. Among several for one name the first one
    /// whose kind of key the client can verify, so that RSA and ECDSA can stand side by side.
    pub fn choose(&self, sni: Option<&str>, schemes: &[SignatureScheme]) -> &Certificate {
        let candidates = self.candidates(sni);
        let verifiable = |&&index: &&usize| {
            let key = &self.certificates[index].key.key;
            key.choose_scheme(schemes).is_some()
        };
        let chosen = candidates.iter().find(verifiable).unwrap_or(&candidates[0]);
        &self.certificates[*chosen]
    }
}

impl CertificateSet {
    /// Indexes of those for a name; the default's if there is none. Never empty.
    fn candidates(&self, name: Option<&str>) -> &[usize] {
        let found = name.and_then(|name| {
            let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
            self.exact.get(&*name).or_else(|| {
                let (_, parent) = name.split_once('.')?;
                self.wildcard.get(parent)
            })
        });
        found.map_or(&[0], Vec::as_slice)
    }

    /// Could a handshake for the one name have shown a certificate for the other?
    pub fn share(&self, one: &str, other: &str) -> bool {
        let (one, other) = (self.candidates(Some(one)), self.candidates(Some(other)));
        one.iter().any(|index| other.contains(index))
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if is_validation(&hello) {
            return self.challenges.load().certificate(hello.server_name()?);
        }
        let set = self.certificates.load();
        let chosen = set.choose(hello.server_name(), hello.signature_schemes());
        Some(Arc::clone(&chosen.key))
    }
}

/// What a PEM file holds.
struct Pem {
    certificates: Vec<CertificateDer<'static>>,
    revocation_lists: Vec<CertificateRevocationListDer<'static>>,
    /// The first one.
    key: Option<PrivateKeyDer<'static>>,
    /// It has a section of a kind that is skipped: an encrypted private key.
    encrypted: bool,
}

fn read_pem(file: &Path) -> Result<Pem, CertificateError> {
    parse_pem(file, &read(file)?)
}

/// The one place where rustls-pemfile is called.
fn parse_pem(file: &Path, mut bytes: &[u8]) -> Result<Pem, CertificateError> {
    let mut pem = Pem {
        certificates: Vec::new(),
        revocation_lists: Vec::new(),
        key: None,
        encrypted: memchr::memmem::find(bytes, b"-----BEGIN ENCRYPTED PRIVATE KEY-----").is_some(),
    };
    for item in rustls_pemfile::read_all(&mut bytes) {
        let item = item.map_err(|source| CertificateError::Pem {
            file: file.to_owned(),
            source,
        })?;
        let key = match item {
            Item::X509Certificate(certificate) => {
                pem.certificates.push(certificate);
                continue;
            }
            Item::Crl(list) => {
                pem.revocation_lists.push(list);
                continue;
            }
            Item::Pkcs1Key(key) => key.into(),
            Item::Pkcs8Key(key) => key.into(),
            Item::Sec1Key(key) => key.into(),
            _ => continue,
        };
        pem.key.get_or_insert(key);
    }
    Ok(pem)
}

fn read(file: &Path) -> Result<Vec<u8>, CertificateError> {
    let bytes = files::read(file, MAX_FILE).map_err(|source| CertificateError::Read {
        file: file.to_owned(),
        source,
    })?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(CertificateError::TooLarge {
            file: file.to_owned(),
        });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
