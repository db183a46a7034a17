//! The folder of stored answers: one file for each question, whole or not there.
//!
//! Called by `keeper.rs`: at the start to read, from its thread to write. What is not named as one of
//! our files is never touched, whatever folder the configuration names. Several processes may share
//! the folder (an upgrade): a file is replaced by renaming, and what is under way has a name that
//! nobody else takes.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::stored::{self, LARGEST, OLDEST};

/// Files of questions that nobody asks any more are kept while they could be of use, as the
/// configuration may go back to them or another process has them, but no more than so many.
const MOST_UNUSED: usize = 1000;

/// What was begun so long ago was left behind by a process that died over it.
const ABANDONED: Duration = Duration::from_secs(60 * 60);

/// Ending of a file that is being written.
const BESIDE: &str = ".new";

/// Why a file was not read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// A folder, a link, a pipe: to open that one would take until somebody writes to it.
    #[error("it is not a file")]
    NotAFile,
    /// See [`LARGEST`].
    #[error("it is too large")]
    TooLarge,
    /// What the system said, of this file as of others.
    #[error(transparent)]
    System(#[from] io::Error),
}

/// The folder.
#[derive(Debug)]
pub(super) struct StateDir {
    path: PathBuf,
}

impl StateDir {
    pub(super) fn new(path: &Path) -> StateDir {
        StateDir {
            path: path.to_path_buf(),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the folder, for nobody else to look into, unless it is there.
    pub(super) fn make(&self) -> io::Result<()> {
        let mut builder = DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(&self.path);
        // "It exists" would not help.
        made.map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => ErrorKind::NotADirectory.into(),
            _ => error,
        })
    }

    /// What a file holds; `None`: there is none.
    pub(super) fn read(&self, file: &str) -> Result<Option<Vec<u8>>, ReadError> {
        let path = self.path.join(file);
        match path.symlink_metadata() {
            Ok(found) if !found.is_file() => Err(ReadError::NotAFile),
            Ok(found) if found.len() > LARGEST => Err(ReadError::TooLarge),
            Ok(_) => {
                let mut bytes = Vec::new();
                File::open(&path)?.take(LARGEST).read_to_end(&mut bytes)?;
                Ok(Some(bytes))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whoever looks sees what was there before or `bytes`; after a crash too.
    pub(super) fn write(&self, file: &str, bytes: &[u8]) -> io::Result<()> {
        // It may have been taken away since.
        self.make()?;
        let number = (std::process::id(), fastrand::u64(..));
        let beside = format!(".{file}.{}-{:016x}{BESIDE}", number.0, number.1);
        let beside = self.path.join(beside);
        let written =
            write_new(&beside, bytes).and_then(|()| fs::rename(&beside, self.path.join(file)));
        if written.is_err() {
            // It may not even have been made.
            let _ = fs::remove_file(&beside);
        } else {
            self.settle();
        }
        written
    }

    /// There is no such file any more.
    pub(super) fn remove(&self, file: &str) -> io::Result<()> {
        match fs::remove_file(self.path.join(file)) {
            Ok(()) => {
                self.settle();
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Removes what is of no use: files not `in_use` that are too old, or too many, and what
    /// processes that died have left behind.
    pub(super) fn sweep(&self, in_use: &HashSet<String>, now: SystemTime) -> io::Result<()> {
        let mut unused = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let (ours, beside) = (stored::is_file(&name), is_beside(&name));
            if !(ours || beside) || in_use.contains(&name) {
                continue;
            }
            // Whoever else sweeps may be faster.
            let Ok(written) = entry.metadata().and_then(|found| found.modified()) else {
                continue;
            };
            let age = now.duration_since(written).unwrap_or_default();
            match ours {
                false if age > ABANDONED => drop(fs::remove_file(entry.path())),
                false => {}
                true => unused.push((age, name)),
            }
        }
        unused.sort_unstable();
        for (number, (age, name)) in unused.iter().enumerate() {
            if *age > OLDEST || number >= MOST_UNUSED {
                self.remove(name)?;
            }
        }
        Ok(())
    }

    /// Makes the names of files last too. Some file systems cannot; what is lost then, and only
    /// with the power, is the latest change.
    fn settle(&self) {
        let _ = File::open(&self.path).and_then(|folder| folder.sync_all());
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Was this being written?
fn is_beside(name: &str) -> bool {
    let middle = name.strip_prefix('.').and_then(|n| n.strip_suffix(BESIDE));
    let file = middle.and_then(|middle| middle.rsplit_once('.'));
    file.is_some_and(|(file, _)| stored::is_file(file))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn file(n: u8) -> String {
        format!("{n:064x}.json")
    }

    fn folder() -> (tempfile::TempDir, StateDir) {
        let temporary = tempfile::tempdir().unwrap();
        let dir = StateDir::new(&temporary.path().join("a/state"));
        (temporary, dir)
    }

    fn names(dir: &StateDir) -> Vec<String> {
        let entries = fs::read_dir(dir.path()).unwrap();
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string();
        let mut names: Vec<_> = entries.map(|entry| name(entry).unwrap()).collect();
        names.sort();
        names
    }

    fn aged(dir: &StateDir, name: &str, age: Duration) {
        let path = dir.path().join(name);
        let file = File::create(path).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
    }

    #[test]
    fn a_file_is_replaced_and_removed_and_nobody_else_can_read_it() {
        let (_temporary, dir) = folder();
        assert_eq!(dir.read(&file(1)).unwrap(), None, "not even a folder");
        dir.write(&file(1), b"one").unwrap();
        dir.write(&file(1), b"two").unwrap();
        assert_eq!(dir.read(&file(1)).unwrap(), Some(b"two".to_vec()));
        assert_eq!(names(&dir), [file(1)], "nothing is left beside it");
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(dir.path()), 0o700);
        assert_eq!(mode(&dir.path().join(file(1))), 0o600);
        dir.remove(&file(1)).unwrap();
        dir.remove(&file(1)).unwrap();
        assert_eq!(names(&dir), Vec::<String>::new());
        fs::remove_dir(dir.path()).unwrap();
        dir.write(&file(1), b"three").unwrap();
        assert_eq!(dir.read(&file(1)).unwrap(), Some(b"three".to_vec()));
    }

    /// Two processes may share the folder.
    #[test]
    fn whoever_reads_while_others_write_sees_a_whole_file() {
        let (_temporary, dir) = folder();
        let whole = |n: u8| vec![n; 40_000 + usize::from(n)];
        dir.write(&file(1), &whole(0)).unwrap();
        std::thread::scope(|scope| {
            let dir = &dir;
            let write = |n| move || (0..20).try_for_each(|_| dir.write(&file(1), &whole(n)));
            let writers = [1, 2, 3].map(|n| scope.spawn(write(n)));
            while !writers.iter().all(|writer| writer.is_finished()) {
                let bytes = dir.read(&file(1)).unwrap().expect("it is there");
                assert!(bytes == whole(bytes[0]));
            }
            for writer in writers {
                writer.join().expect("no panic").unwrap();
            }
        });
        assert_eq!(names(&dir), [file(1)]);
    }

    #[test]
    fn what_is_no_file_of_ours_is_not_read() {
        let (_temporary, dir) = folder();
        dir.make().unwrap();
        fs::create_dir(dir.path().join(file(1))).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", dir.path().join(file(2))).unwrap();
        let large = File::create(dir.path().join(file(3))).unwrap();
        large.set_len(LARGEST + 1).unwrap();
        for (n, why) in [(1, "not a file"), (2, "not a file"), (3, "too large")] {
            let error = dir.read(&file(n)).unwrap_err().to_string();
            assert!(error.contains(why), "{n}: {error}");
        }
    }

    #[test]
    fn a_failed_write_leaves_nothing_behind() {
        let (_temporary, dir) = folder();
        dir.make().unwrap();
        fs::create_dir(dir.path().join(file(1))).unwrap();
        dir.write(&file(1), b"in the place of a folder")
            .unwrap_err();
        assert_eq!(names(&dir), [file(1)]);
    }

    #[test]
    fn what_is_of_no_use_goes_and_what_is_not_ours_stays() {
        let (_temporary, dir) = folder();
        dir.make().unwrap();
        let long_ago = OLDEST + Duration::from_secs(60);
        let beside = |n| format!(".{}.1-00000000000000aa.new", file(n));
        aged(&dir, &file(1), long_ago); // in use
        aged(&dir, &file(2), long_ago); // not any more
        aged(&dir, &file(3), OLDEST / 2); // nor this, lately
        aged(&dir, &beside(4), long_ago);
        aged(&dir, &beside(5), ABANDONED / 2);
        aged(&dir, "notes.json", long_ago);
        aged(&dir, ".hidden.new", long_ago);
        let in_use = HashSet::from([file(1)]);
        dir.sweep(&in_use, SystemTime::now()).unwrap();
        let mut left = [
            file(1),
            file(3),
            beside(5),
            "notes.json".to_owned(),
            ".hidden.new".to_owned(),
        ];
        left.sort();
        assert_eq!(names(&dir), left);
    }

    #[test]
    fn files_that_nobody_needs_are_bounded() {
        let (_temporary, dir) = folder();
        dir.make().unwrap();
        for n in 0..MOST_UNUSED + 3 {
            let name = format!("{n:064x}.json");
            aged(&dir, &name, Duration::from_secs(n as u64));
        }
        dir.sweep(&HashSet::new(), SystemTime::now()).unwrap();
        let left = names(&dir);
        assert_eq!(left.len(), MOST_UNUSED);
        assert!(left.contains(&file(0)), "the youngest stay");
    }
}
