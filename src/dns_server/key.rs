//! TSIG keys (RFC 8945): reading, making and using them.
//!
//! A key is a name, an algorithm and a secret that both sides have. Files are in the form that
//! BIND's `tsig-keygen` writes, or in one line as `nsupdate -y` takes it. The secret leaves this
//! file only by [`Key::to_text`]. Used by the server, which checks updates, and by the client,
//! which signs them. Which names a key may change is not decided here.

mod text;

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use hickory_proto::op::Message;
use hickory_proto::rr::rdata::TSIG;
use hickory_proto::rr::rdata::tsig::{TsigAlgorithm, signed_bitmessage_to_buf};
use hickory_proto::rr::{DNSClass, Name, TSigner};

use text::{Algorithm, Parts, Problem};

/// By how much the clocks of both sides may differ, in seconds (RFC 8945 section 10).
const FUDGE: u16 = 300;

/// Length of the secrets made here, in bytes: that of the hash (RFC 2104 section 3).
const SECRET: usize = 32;

/// A key file has a few lines; this many bytes are read of it.
const LARGEST_FILE: u64 = 64 * 1024;

/// A TSIG key. Cheap to clone.
#[derive(Clone)]
pub struct Key {
    signer: TSigner,
}

/// What [`Key::read`] found.
#[derive(Debug, Clone)]
pub struct KeyFile {
    /// The key in it.
    pub key: Key,
    /// Everybody on this machine may read the file: worth a warning.
    pub exposed: bool,
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It holds something else than a key.
    #[error("{}:{line}: {problem}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong, and what was expected.
        problem: String,
    },
    /// The system gave no random bytes.
    #[error("no random bytes to make a key of")]
    NoRandomness,
}

/// Why a message is not from somebody who has the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// It is no DNS message.
    #[error("it is malformed")]
    Malformed,
    /// It carries no TSIG record.
    #[error("it is not signed")]
    Unsigned,
    /// It is signed with a key of another name or algorithm (BADKEY).
    #[error("it is signed with another key")]
    OtherKey,
    /// The signature is wrong or cut short (BADSIG).
    #[error("its signature is wrong")]
    BadSignature,
}

impl Key {
    /// A new key for hmac-sha256.
    pub fn generate(name: Name) -> Result<Key, KeyError> {
        let mut secret = vec![0; SECRET];
        rustls::crypto::aws_lc_rs::default_provider()
            .secure_random
            .fill(&mut secret)
            .map_err(|_| KeyError::NoRandomness)?;
        Ok(Key::new(name, Algorithm::Sha256, secret))
    }

    /// The key in the file at `path`.
    pub fn read(path: &Path) -> Result<KeyFile, KeyError> {
        let failed = |source| KeyError::Io {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.permissions().mode();
        let mut bytes = Vec::new();
        file.take(LARGEST_FILE)
            .read_to_end(&mut bytes)
            .map_err(failed)?;
        let key = Key::parse(&bytes).map_err(|Problem { line, problem }| KeyError::Content {
            path: path.to_owned(),
            line,
            problem,
        })?;
        Ok(KeyFile {
            key,
            exposed: mode & 0o006 != 0,
        })
    }

    /// Makes a key and writes it to `path`, readable by its owner only; if there is a file
    /// already, that one is read. Whoever looks sees a whole file or none, and of several
    /// processes that do this at once all get the same key.
    pub fn create(path: &Path, name: Name) -> Result<KeyFile, KeyError> {
        match Key::read(path) {
            Err(error) if error.is_missing() => {}
            read => return read,
        }
        let key = Key::generate(name)?;
        match write_new(path, &key.to_text()) {
            Ok(()) => Ok(KeyFile {
                key,
                exposed: false,
            }),
            // Somebody else was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Key::read(path),
            Err(source) => Err(KeyError::Io {
                path: path.to_owned(),
                source,
            }),
        }
    }

    /// In lower case, with the final dot.
    pub fn name(&self) -> &Name {
        self.signer.signer_name()
    }

    /// One of hmac-sha256, hmac-sha384 and hmac-sha512.
    pub fn algorithm(&self) -> &TsigAlgorithm {
        self.signer.algorithm()
    }

    /// What signs with this key; its fudge is five minutes.
    pub fn signer(&self) -> TSigner {
        self.signer.clone()
    }

    /// Checks the TSIG record of a message as it came off the wire, and returns it. For a
    /// response, `request_mac` is the MAC of the request.
    ///
    /// RFC 8945 section 5.2, first and second step. The third, the time, is the caller's:
    /// [`TSIG::time`] ± [`TSIG::fudge`] against the clock.
    pub fn verify(&self, message: &[u8], request_mac: Option<&[u8]>) -> Result<TSIG, VerifyError> {
        // The whole message first: what follows trusts its counts.
        let parsed = Message::from_vec(message).map_err(|_| VerifyError::Malformed)?;
        let record = parsed.signature.ok_or(VerifyError::Unsigned)?;
        // Section 4.2: not covered by the MAC, because they can be nothing else.
        if record.dns_class != DNSClass::ANY || record.ttl != 0 {
            return Err(VerifyError::Malformed);
        }
        if record.name != *self.name() || record.data.algorithm != *self.algorithm() {
            return Err(VerifyError::OtherKey);
        }
        let (signed, _) = signed_bitmessage_to_buf(message, request_mac, true)
            .map_err(|_| VerifyError::Malformed)?;
        match self.signer.verify(&signed, &record.data.mac) {
            Ok(()) => Ok(record.data),
            Err(_) => Err(VerifyError::BadSignature),
        }
    }

    /// As `tsig-keygen` writes it. This is the secret.
    pub fn to_text(&self) -> String {
        let mut name = self.name().clone();
        name.set_fqdn(false);
        format!(
            "key \"{}\" {{\n\talgorithm {};\n\tsecret \"{}\";\n}};\n",
            name.to_ascii(),
            self.algorithm(),
            BASE64.encode(self.signer.key())
        )
    }

    fn new(name: Name, algorithm: Algorithm, secret: Vec<u8>) -> Key {
        let signer = TSigner::new(secret, algorithm.tsig(), name.to_lowercase(), FUDGE);
        Key {
            signer: signer.expect("each of our algorithms is supported"),
        }
    }

    fn parse(bytes: &[u8]) -> Result<Key, Problem> {
        let Parts {
            name,
            algorithm,
            secret,
        } = text::parse(bytes)?;
        Ok(Key::new(name, algorithm, secret))
    }
}

/// Without the secret.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("name", &format_args!("{}", self.name()))
            .field("algorithm", &format_args!("{}", self.algorithm()))
            .finish_non_exhaustive()
    }
}

impl KeyError {
    /// There is no such file, or none yet.
    pub fn is_missing(&self) -> bool {
        matches!(self, KeyError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Writes beside `path` and links it in, which fails if there is something already.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    // Containers that share a volume all have process number 1: a random number keeps them apart.
    let beside = path.with_extension(format!("new-{:016x}", fastrand::u64(..)));
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)?;
    let linked = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::hard_link(&beside, path));
    let _ = fs::remove_file(&beside);
    linked
}

#[cfg(test)]
mod tests;
