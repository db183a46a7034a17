//! Certificates for development: an authority made for the occasion and one certificate of it.
//!
//! The authority's key is thrown away, so what a developer trusts can never sign anything else.
//! What is there already is judged in `found.rs`. Called by `evenkeel cert dev`, by the demo and by
//! tests.

mod found;

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

use crate::telemetry::date::Civil;
pub use found::{FindError, Found};

/// Names of a certificate for which none are given.
pub const DEFAULT_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// What an authority that was made here is called: by that it is known again.
const AUTHORITY: &str = "Evenkeel development authority";

/// PEM texts of a development certificate.
#[derive(Debug, Clone)]
pub struct DevCertificate {
    /// The authority: what clients are told to trust (`curl --cacert`).
    pub ca: String,
    /// The certificate.
    pub cert: String,
    /// Its private key (PKCS #8).
    pub key: String,
}

/// Where a development certificate was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DevFiles {
    /// `ca.pem`
    pub ca: PathBuf,
    /// `dev.pem`
    pub cert: PathBuf,
    /// `dev.key`, readable by its owner only.
    pub key: PathBuf,
}

/// What happens to files that are there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// They stay, and nothing is written.
    Keep,
    /// They are replaced.
    Replace,
}

/// Makes an authority and a certificate for `names` (host names, `*.` wildcards, IP addresses),
/// P-256, valid from yesterday (clocks differ) for a year.
pub fn self_signed(names: &[String]) -> Result<DevCertificate, rcgen::Error> {
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    authority
        .distinguished_name
        .push(DnType::CommonName, AUTHORITY);
    set_validity(&mut authority);

    let mut leaf = CertificateParams::new(names)?;
    leaf.distinguished_name
        .push(DnType::CommonName, "Evenkeel development certificate");
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    // OpenSSL's strict checks, which Python 3.13 switched on, ask for it.
    leaf.use_authority_key_identifier_extension = true;
    set_validity(&mut leaf);

    let authority_key = KeyPair::generate()?;
    let ca = authority.self_signed(&authority_key)?.pem();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate()?;
    let cert = leaf.signed_by(&key, &issuer)?.pem();
    Ok(DevCertificate {
        ca,
        cert,
        key: key.serialize_pem(),
    })
}

impl DevFiles {
    /// The names in `folder`.
    pub fn within(folder: &Path) -> DevFiles {
        DevFiles {
            ca: folder.join("ca.pem"),
            cert: folder.join("dev.pem"),
            key: folder.join("dev.key"),
        }
    }

    /// Writes a certificate to these files, making the folder if need be. The key comes last: one
    /// without a certificate beside it is nothing that was left here by half.
    ///
    /// With [`Existing::Keep`], an `AlreadyExists` error names the first file that is in the way.
    pub fn write(&self, made: &DevCertificate, existing: Existing) -> io::Result<()> {
        let all = [
            (&self.ca, &made.ca, 0o644),
            (&self.cert, &made.cert, 0o644),
            (&self.key, &made.key, 0o600),
        ];
        if existing == Existing::Keep
            && let Some((path, ..)) = all.iter().rev().find(|(path, ..)| is_there(path))
        {
            return Err(in_the_way(path));
        }
        if let Some(folder) = self.key.parent() {
            fs::create_dir_all(folder).map_err(|error| about(folder, error))?;
        }
        for (path, text, mode) in all {
            write_new(path, text, mode)?;
        }
        Ok(())
    }
}

fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

fn in_the_way(path: &Path) -> io::Error {
    let text = format!("{} is there already", path.display());
    io::Error::new(io::ErrorKind::AlreadyExists, text)
}

/// The same kind of error, with the path in its text.
fn about(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn set_validity(params: &mut CertificateParams) {
    let now = SystemTime::now();
    let day = Duration::from_secs(86_400);
    let [from, until] = [now - day, now + 365 * day].map(|time| {
        let date = Civil::of(time);
        date_time_ymd(date.year as i32, date.month, date.day)
    });
    params.not_before = from;
    params.not_after = until;
}

/// Writes beside the target and renames: a reader sees the old file or the new one, and the new
/// one has its mode from the start, whatever the old one had.
fn write_new(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    // Not our process number: in a container that is always the same, and so would be what a crash
    // left behind.
    let beside = path.with_extension(format!("new-{:08x}", fastrand::u32(..)));
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&beside)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written.map_err(|error| about(path, error))
}

#[cfg(test)]
mod tests;
