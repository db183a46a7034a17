//! Where the socket and the token of a process usually are, for the process and for the commands that
//! look for it.
//!
//! The first of some folders that can be used: systemd's `RUNTIME_DIRECTORY`, `/run/evenkeel`,
//! `XDG_RUNTIME_DIR`, and below `/tmp` one of this user. Nobody else may write there.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _,
};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::process::getuid;

use crate::io::private;

/// The folders, best first; they need not be there.
pub fn folders() -> Vec<PathBuf> {
    let given = std::env::var("RUNTIME_DIRECTORY").ok();
    // Systemd lists several where a unit asks for several.
    let given = given.and_then(|list| list.split(':').next().map(PathBuf::from));
    let user =
        std::env::var_os("XDG_RUNTIME_DIR").map(|folder| PathBuf::from(folder).join("evenkeel"));
    let own = PathBuf::from(format!("/tmp/evenkeel-{}", getuid().as_raw()));
    let folders = [given, Some("/run/evenkeel".into()), user, Some(own)];
    folders
        .into_iter()
        .flatten()
        .filter(|folder| folder.is_absolute())
        .collect()
}

/// Those in which what is there can be believed by who looks for a process: not one below `/tmp` that
/// somebody else has made, or may write into.
pub fn believed() -> Vec<PathBuf> {
    let mut folders = folders();
    folders.retain(|folder| !folder.starts_with("/tmp") || is_own(folder));
    folders
}

/// Is it this user's alone? One that is not there is nobody's.
fn is_own(folder: &Path) -> bool {
    match fs::symlink_metadata(folder) {
        Ok(found) => {
            found.is_dir() && found.uid() == getuid().as_raw() && found.mode() & 0o022 == 0
        }
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// The socket in such a folder.
pub fn socket_in(folder: &Path) -> PathBuf {
    folder.join("control.sock")
}

/// The token in such a folder of the control listener on that port.
pub fn token_in(folder: &Path, port: u16) -> PathBuf {
    folder.join(format!("token-{port}"))
}

/// The first folder that can be used; makes it where it is not there.
pub fn usable() -> io::Result<PathBuf> {
    let mut last = io::Error::other("there is none");
    for folder in folders() {
        match private::make(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) => {
                last = io::Error::new(error.kind(), format!("{}: {error}", folder.display()))
            }
        }
    }
    Err(last)
}

/// Listens on a Unix socket of mode 0600. One that nobody listens on any more is replaced; anything
/// else that is there is left alone, and an error.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "there is a file, and it is no socket",
            ));
        }
        Ok(_) => match UnixStream::connect(path) {
            Ok(_) => return Err(io::ErrorKind::AddrInUse.into()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => return Err(error),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // It is made where nobody else gets to, and moved when its mode is right: nobody can connect in
    // between, whatever the umask, which is the whole process's.
    let above = path.parent().unwrap_or(Path::new("."));
    let apart = above.join(format!(".ek{}", std::process::id()));
    let _ = fs::remove_dir_all(&apart);
    DirBuilder::new().mode(0o700).create(&apart)?;
    let made = apart.join("s");
    let listened = UnixListener::bind(&made).and_then(|listener| {
        fs::set_permissions(&made, fs::Permissions::from_mode(0o600))?;
        fs::rename(&made, path)?;
        Ok(listener)
    });
    let _ = fs::remove_dir_all(&apart);
    listened
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_its_owners_and_one_that_nobody_listens_on_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        let first = listen(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(UnixStream::connect(&path).is_ok());
        let second = listen(&path).map_err(|error| error.kind());
        assert_eq!(second.err(), Some(io::ErrorKind::AddrInUse));
        drop(first);
        listen(&path).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_that_others_may_write_into_or_lead_elsewhere_is_not_believed() {
        let above = tempfile::tempdir().unwrap();
        let folder = above.path().join("evenkeel-0");
        assert!(is_own(&folder), "there is none");
        DirBuilder::new().mode(0o700).create(&folder).unwrap();
        assert!(is_own(&folder));
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(!is_own(&folder));
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
        let link = above.path().join("link");
        std::os::unix::fs::symlink(&folder, &link).unwrap();
        assert!(!is_own(&link));
        if getuid().is_root() {
            std::os::unix::fs::chown(&folder, Some(65_534), None).unwrap();
            assert!(!is_own(&folder), "another one's");
        }
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("important");
        fs::write(&path, "x").unwrap();
        assert!(listen(&path).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "x");
    }
}
