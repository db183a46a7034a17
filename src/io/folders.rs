//! What the kernel says of the folders in which files lie (inotify).
//!
//! Folders, not files: whoever writes a file with care writes another one and renames it, and a watch
//! on the old one hears of nothing any more. It says only that something has happened, never what:
//! whoever listens looks for themselves, and looks now and then without being told, since file
//! systems that lie elsewhere say nothing.

use std::collections::BTreeSet;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

/// The folders of some files.
#[derive(Debug)]
pub struct Folders {
    inotify: OwnedFd,
    /// What the kernel calls those that are watched.
    watched: BTreeSet<i32>,
}

impl Folders {
    /// None yet. An error: the kernel watches for too many already.
    pub fn new() -> io::Result<Folders> {
        Ok(Folders {
            inotify: inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?,
            watched: BTreeSet::new(),
        })
    }

    /// From now on the folders of these files are watched, and of the files that they lead to where they
    /// are links. To be called again now and then: a folder may have come, or be another one.
    pub fn watch<'f>(&mut self, files: impl IntoIterator<Item = &'f Path>) {
        let folders: BTreeSet<PathBuf> = files.into_iter().flat_map(folders).collect();
        // A folder that is not there is looked for again at the next call.
        let now = folders.iter().filter_map(|folder| {
            let flags = WatchFlags::CREATE
                | WatchFlags::MOVE
                | WatchFlags::DELETE
                | WatchFlags::CLOSE_WRITE
                | WatchFlags::DELETE_SELF
                | WatchFlags::MOVE_SELF
                | WatchFlags::ONLYDIR;
            inotify::add_watch(&self.inotify, folder, flags).ok()
        });
        let now: BTreeSet<i32> = now.collect();
        for gone in self.watched.difference(&now) {
            // An error: the folder has gone, and the watch with it.
            let _ = inotify::remove_watch(&self.inotify, *gone);
        }
        self.watched = now;
    }

    /// Takes what the kernel has said; true: something has happened. It never waits.
    pub fn take(&mut self) -> bool {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&self.inotify, &mut buffer);
        let mut any = false;
        // An overflow of its queue is an event too.
        while events.next().is_ok() {
            any = true;
        }
        any
    }
}

impl AsFd for Folders {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

/// The folder of a file, and of the one that it leads to.
fn folders(file: &Path) -> impl Iterator<Item = PathBuf> {
    let folder = |path: &Path| match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => Some(folder.to_owned()),
        Some(_) => Some(PathBuf::from(".")),
        None => None,
    };
    let led_to = file.canonicalize().ok().and_then(|path| folder(&path));
    folder(file).into_iter().chain(led_to)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_file_that_is_replaced_again_and_again_is_heard_of_each_time() {
        let room = tempfile::tempdir().unwrap();
        let (far, near) = (room.path().join("far"), room.path().join("near"));
        fs::create_dir(&far).unwrap();
        fs::create_dir(&near).unwrap();
        fs::write(far.join("file"), "0").unwrap();
        let link = near.join("file");
        symlink("../far/file", &link).unwrap();
        let mut folders = Folders::new().unwrap();
        folders.watch([link.as_path()]);
        assert!(!folders.take(), "nothing has happened yet");
        for round in 0..3 {
            fs::write(near.join("new"), "1").unwrap();
            assert!(folders.take(), "written beside, {round}");
            fs::rename(near.join("new"), near.join("other")).unwrap();
            assert!(folders.take(), "renamed, {round}");
            fs::write(far.join("file"), "1").unwrap();
            assert!(folders.take(), "behind the link, {round}");
            assert!(!folders.take(), "all was taken, {round}");
        }
        // Nothing more is heard of a folder that nobody needs.
        let other = room.path().join("other");
        folders.watch([other.as_path()]);
        folders.take();
        fs::write(far.join("file"), "2").unwrap();
        assert!(!folders.take());
    }

    #[test]
    fn a_folder_that_comes_back_is_watched_again() {
        let room = tempfile::tempdir().unwrap();
        let folder = room.path().join("folder");
        let file = folder.join("file");
        let mut folders = Folders::new().unwrap();
        for round in 0..3 {
            folders.watch([file.as_path()]);
            folders.take();
            fs::create_dir(&folder).unwrap();
            folders.watch([file.as_path()]);
            fs::write(&file, "").unwrap();
            assert!(folders.take(), "round {round}");
            fs::remove_dir_all(&folder).unwrap();
            assert!(folders.take(), "it went, round {round}");
        }
    }
}
