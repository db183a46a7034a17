//! The folder that replicas share: account, certificates with their keys, open challenges, locks, and
//! what failed. Not for other eyes: folders are 0700 and files 0600.
//!
//! Everything that is written is written beside its place and renamed, so that nobody reads a half
//! of it. A folder for each authority: certificates of a staging one are never taken for real ones.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::order::{DEADLINE, WITHDRAWAL};
use crate::io::private;

/// A lock that is older belongs to somebody who has gone. What is done under one takes no longer than
/// [`DEADLINE`] and [`WITHDRAWAL`].
const LOCK_LASTS: Duration = Duration::from_secs(300);

const _: () = assert!(DEADLINE.as_secs() + WITHDRAWAL.as_secs() < LOCK_LASTS.as_secs());

/// A challenge that is older was left behind: authorities validate within minutes.
const CHALLENGE_LASTS: Duration = Duration::from_secs(3600);

/// Nothing that is read has more bytes.
const LARGEST: u64 = 1024 * 1024;

/// Most challenges that are read: one is open for each order, and there is one at a time for each replica.
const MOST_CHALLENGES: usize = 1000;

/// The folder of one authority.
#[derive(Debug, Clone)]
pub struct Store {
    folder: PathBuf,
}

/// A challenge that any replica answers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Open {
    /// What is to be proven.
    pub name: String,
    /// By TLS; otherwise over HTTP.
    pub by_tls: bool,
    /// What the authority calls it.
    pub token: String,
    /// What it wants to hear.
    pub key_authorization: String,
    /// Seconds since 1970.
    pub begun: u64,
}

/// What came of the last orders for a name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failures {
    /// How many failed in a row.
    pub count: u32,
    /// Until then nothing is tried. Seconds since 1970.
    pub until: u64,
}

/// While it is there, nobody else does the same. Gone when it is dropped.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    id: String,
}

impl Store {
    /// Makes the folders of an authority that are not there yet. Those that are there are taken only if
    /// they are this user's alone: who writes there chooses keys.
    pub fn open(folder: &Path) -> io::Result<Store> {
        let inner = ["certificates", "challenges", "failures", "locks"];
        let inner = inner.map(|name| folder.join(name));
        for path in std::iter::once(folder).chain(inner.iter().map(PathBuf::as_path)) {
            private::make(path).map_err(|error| about(path, &error))?;
        }
        Ok(Store {
            folder: folder.to_owned(),
        })
    }

    /// The account, as it was stored; `None`: there is none.
    pub fn account<T: DeserializeOwned>(&self) -> io::Result<Option<T>> {
        read_json(&self.folder.join("account.json"))
    }

    /// Stores the account.
    pub fn store_account(&self, account: &impl Serialize) -> io::Result<()> {
        write_json(&self.folder.join("account.json"), account)
    }

    /// The authority does not know it any more.
    pub fn forget_account(&self) -> io::Result<()> {
        remove(&self.folder.join("account.json"))
    }

    /// Stores a chain and its key, in one file: nobody sees the one without the other.
    pub fn store_certificate(&self, file: &Path, chain: &str, key: &str) -> io::Result<()> {
        write(file, format!("{chain}\n{key}").as_bytes())
    }

    /// Challenges that are open, by whichever replica.
    pub fn challenges(&self) -> io::Result<Vec<Open>> {
        let folder = self.folder.join("challenges");
        let now = seconds(SystemTime::now());
        let mut open = Vec::new();
        for entry in fs::read_dir(folder)?.take(MOST_CHALLENGES) {
            let path = entry?.path();
            if path.extension().is_none_or(|kind| kind != "json") {
                continue;
            }
            // One that goes at this moment, or that cannot be understood, is none.
            let Ok(Some(found)) = read_json::<Open>(&path) else {
                continue;
            };
            match now.saturating_sub(found.begun) > CHALLENGE_LASTS.as_secs() {
                true => remove(&path)?,
                false => open.push(found),
            }
        }
        open.sort();
        Ok(open)
    }

    /// From now on every replica answers it.
    pub fn open_challenge(&self, challenge: &Open) -> io::Result<()> {
        write_json(&self.challenge(&challenge.token), challenge)
    }

    /// It is over.
    pub fn close_challenge(&self, token: &str) -> io::Result<()> {
        remove(&self.challenge(token))
    }

    /// What came of the last orders for a name.
    pub fn failures(&self, name: &str) -> io::Result<Failures> {
        let found = read_json(&self.failed(name))?;
        Ok(found.unwrap_or_default())
    }

    /// Keeps it for whoever tries next.
    pub fn store_failures(&self, name: &str, failures: Failures) -> io::Result<()> {
        match failures.count {
            0 => remove(&self.failed(name)),
            _ => write_json(&self.failed(name), &failures),
        }
    }

    /// Takes the lock of this name; `None`: somebody has it.
    pub fn lock(&self, name: &str) -> io::Result<Option<Lock>> {
        self.lock_at(self.folder.join("locks").join(file_name(name)))
    }

    /// Takes the lock of the account, which is no name's; `None`: somebody has it.
    pub fn lock_account(&self) -> io::Result<Option<Lock>> {
        self.lock_at(self.folder.join("account.lock"))
    }

    fn lock_at(&self, path: PathBuf) -> io::Result<Option<Lock>> {
        let id = format!("{:016x}", fastrand::u64(..));
        let now = seconds(SystemTime::now());
        let text = format!("{id} {}", now + LOCK_LASTS.as_secs());
        for _ in 0..2 {
            let made = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path);
            match made {
                Ok(mut file) => {
                    file.write_all(text.as_bytes())?;
                    return Ok(Some(Lock { path, id }));
                }
                Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                    return Err(about(&path, &error));
                }
                Err(_) if !is_over(&path, now)? => return Ok(None),
                Err(_) => self.break_lock(&path, now)?,
            }
        }
        Ok(None)
    }

    /// Puts a lock that is over out of the way. Of several who do that at once, one finds it; should
    /// one find a new one instead, it is put back.
    fn break_lock(&self, path: &Path, now: u64) -> io::Result<()> {
        let aside = path.with_extension(format!("over-{:016x}", fastrand::u64(..)));
        if let Err(error) = fs::rename(path, &aside) {
            return match error.kind() {
                ErrorKind::NotFound => Ok(()),
                _ => Err(about(path, &error)),
            };
        }
        if !is_over(&aside, now)? {
            // It fails where a third one has come meanwhile; both of those order then.
            let _ = fs::hard_link(&aside, path);
        }
        remove(&aside)
    }

    fn challenge(&self, token: &str) -> PathBuf {
        let name = format!("{}.json", file_name(token));
        self.folder.join("challenges").join(name)
    }

    fn failed(&self, name: &str) -> PathBuf {
        let name = format!("{}.json", file_name(name));
        self.folder.join("failures").join(name)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Unless it was broken, because this took too long.
        let own = fs::read_to_string(&self.path).is_ok_and(|text| text.starts_with(&self.id));
        if own {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Seconds since 1970.
pub fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs())
}

/// Has a lock come to its end? One that is gone has not: it is tried again.
fn is_over(path: &Path, now: u64) -> io::Result<bool> {
    let text = match read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let until = std::str::from_utf8(&text).ok();
    let until = until.and_then(|text| text.split_once(' ')?.1.trim().parse::<u64>().ok());
    match until {
        Some(until) => Ok(until < now),
        // Whoever made it may be about to write: its age decides.
        None => {
            let made = fs::metadata(path)?.modified()?;
            Ok(seconds(made) + LOCK_LASTS.as_secs() < now)
        }
    }
}

/// A name or a token as the name of a file, whatever is in it.
fn file_name(name: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let safe: String = name
        .chars()
        .map(|c| if allowed(c) { c } else { '_' })
        .collect();
    match safe.starts_with('.') {
        true => format!("_{safe}"),
        false => safe,
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path)?;
    file.take(LARGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match read(path) {
        Ok(bytes) => match serde_json::from_slice(&bytes) {
            Ok(value) => Ok(Some(value)),
            Err(error) => Err(about(path, &error.into())),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(about(path, &error)),
    }
}

fn write_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    write(path, &serde_json::to_vec(value)?)
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // Not our process number: in a container that is always the same.
    let beside = path.with_extension(format!("new-{:016x}", fastrand::u64(..)));
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&beside, path));
    written.map_err(|error| {
        let _ = fs::remove_file(&beside);
        about(path, &error)
    })
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(about(path, &error)),
        _ => Ok(()),
    }
}

/// The same kind of error, with the path in its text.
fn about(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("authority")).unwrap();
        (folder, store)
    }

    fn challenge(token: &str, begun: u64) -> Open {
        Open {
            name: "a.example".into(),
            by_tls: true,
            token: token.into(),
            key_authorization: format!("{token}.thumb"),
            begun,
        }
    }

    #[test]
    fn one_has_a_lock_until_it_is_dropped() {
        let (_folder, store) = store();
        let lock = store.lock("a.example").unwrap();
        assert!(lock.is_some());
        assert!(store.lock("a.example").unwrap().is_none());
        assert!(store.lock("b.example").unwrap().is_some());
        drop(lock);
        assert!(store.lock("a.example").unwrap().is_some());
    }

    #[test]
    fn a_host_that_is_called_account_does_not_lock_the_account() {
        let (_folder, store) = store();
        let host = store.lock("account").unwrap();
        let account = store.lock_account().unwrap();
        assert!(host.is_some() && account.is_some());
        assert!(store.lock_account().unwrap().is_none());
    }

    #[test]
    fn a_lock_that_is_over_is_broken_and_its_owner_leaves_the_next_one_alone() {
        let (folder, store) = store();
        let path = folder.path().join("authority/locks/a.example");
        let late = store.lock("a.example").unwrap().unwrap();
        fs::write(&path, format!("{} 1", late.id)).unwrap();
        let next = store.lock("a.example").unwrap();
        assert!(next.is_some());
        drop(late);
        assert!(store.lock("a.example").unwrap().is_none());
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        fs::write(&path, "").unwrap();
        assert!(store.lock("a.example").unwrap().is_none(), "it is young");
    }

    #[test]
    fn challenges_are_there_for_all_until_they_are_closed_or_old() {
        let (_folder, store) = store();
        let now = seconds(SystemTime::now());
        let (one, old) = (challenge("one", now), challenge("../../old", now - 4000));
        store.open_challenge(&one).unwrap();
        store.open_challenge(&old).unwrap();
        assert_eq!(store.challenges().unwrap(), [one]);
        store.close_challenge("one").unwrap();
        store.close_challenge("one").unwrap();
        assert!(store.challenges().unwrap().is_empty());
    }

    #[test]
    fn failures_are_kept_until_one_succeeds() {
        let (_folder, store) = store();
        let failures = Failures { count: 2, until: 9 };
        assert_eq!(store.failures("a").unwrap(), Failures::default());
        store.store_failures("a", failures).unwrap();
        assert_eq!(store.failures("a").unwrap(), failures);
        store.store_failures("a", Failures::default()).unwrap();
        assert_eq!(store.failures("a").unwrap(), Failures::default());
    }

    #[test]
    fn folders_that_others_write_or_that_are_links_are_not_taken() {
        let (folder, _) = store();
        let path = folder.path().join("authority");
        let inner = path.join("challenges");
        let refused = || Store::open(&path).map_err(|error| error.to_string()).err();
        fs::set_permissions(&inner, fs::Permissions::from_mode(0o770)).unwrap();
        let why = "others may write there: its mode is 770";
        assert_eq!(refused(), Some(format!("{}: {why}", inner.display())));
        fs::remove_dir(&inner).unwrap();
        std::os::unix::fs::symlink(folder.path(), &inner).unwrap();
        let why = "it is no folder, or a link to one";
        assert_eq!(refused(), Some(format!("{}: {why}", inner.display())));
    }

    #[test]
    fn nothing_is_for_other_eyes() {
        let (folder, store) = store();
        store.store_account(&"secret").unwrap();
        let path = folder.path().join("authority");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&path.join("certificates")), 0o700);
        assert_eq!(mode(&path.join("account.json")), 0o600);
        assert_eq!(store.account().unwrap(), Some("secret".to_owned()));
        store.forget_account().unwrap();
        assert_eq!(store.account::<String>().unwrap(), None);
    }
}
