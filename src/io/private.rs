//! Folders that are this user's alone, for what others must neither read nor put there.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::Path;

use rustix::fs::{Access, access};
use rustix::process::getuid;

/// Makes a folder of mode 0700, and those above it, or makes sure of one that is there: no link, this
/// user's, nobody else writes there, and we can.
///
/// # Errors
///
/// The folder cannot be made or used, or is not this user's alone: the text says what is wrong, and not
/// with which folder.
pub fn make(folder: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    let found = fs::symlink_metadata(folder)?;
    let (own, owner, mode) = (getuid().as_raw(), found.uid(), found.mode() & 0o777);
    let wrong = |what: String| Err(io::Error::other(what));
    if !found.is_dir() {
        return wrong("it is no folder, or a link to one".to_owned());
    }
    if owner != own {
        return wrong(format!(
            "it belongs to user {owner}, and this is user {own}"
        ));
    }
    if mode & 0o022 != 0 {
        return wrong(format!("others may write there: its mode is {mode:03o}"));
    }
    access(folder, Access::WRITE_OK | Access::EXEC_OK)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_folder_that_others_can_write_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let ours = folder.path().join("ours");
        make(&ours).unwrap();
        make(&ours).unwrap();
        assert_eq!(ours.metadata().unwrap().mode() & 0o777, 0o700);
        fs::set_permissions(&ours, fs::Permissions::from_mode(0o777)).unwrap();
        let refused = make(&ours).unwrap_err().to_string();
        assert_eq!(refused, "others may write there: its mode is 777");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path(), &link).unwrap();
        assert!(make(&link).is_err());
    }
}
