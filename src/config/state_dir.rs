//! `state_dir`: where it is, and whether it will be of use.
//!
//! Nothing is made here: `discovery::keeper` makes the folder when it is needed, and does without
//! it where it cannot.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use super::diagnostics::{Problem, Problems};
use super::read::At;
use super::source::Files;
use super::source::Sources;

/// The folder. With [`Files::Opened`], what would keep it from being made or written is an error,
/// as whoever set the key counts on it.
pub(super) fn path(
    at: &At<String>,
    files: Files,
    sources: &Sources,
    problems: &mut Problems,
) -> PathBuf {
    let path = sources.resolve(at.span, &at.value);
    if files == Files::Opened
        && let Err(why) = usable(&path)
    {
        problems.push(
            Problem::error(at.span, why)
                .help("the last good answer of each name is kept there for a restart"),
        );
    }
    path
}

/// Can this process write there, or make the folder? Nothing is changed.
fn usable(path: &Path) -> Result<(), String> {
    let shown = path.display();
    match path.metadata() {
        Ok(found) if !found.is_dir() => Err(format!("{shown} is not a directory")),
        Ok(_) => writable(path).map_err(|error| format!("{shown} cannot be written: {error}")),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            // The nearest folder above that is there decides.
            let above = path.ancestors().skip(1).map(|above| match above {
                none if none == Path::new("") => Path::new("."),
                above => above,
            });
            let above = above.into_iter().find(|above| above.exists());
            let made = above.map_or(Ok(()), writable);
            made.map_err(|error| format!("{shown} cannot be made: {error}"))
        }
        Err(error) => Err(format!("{shown} cannot be used: {error}")),
    }
}

fn writable(folder: &Path) -> io::Result<()> {
    Ok(access(folder, Access::WRITE_OK | Access::EXEC_OK)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_folder_may_be() {
        let folder = tempfile::tempdir().unwrap();
        let within = |path: &str| folder.path().join(path);
        std::fs::write(within("file"), "").unwrap();
        for (rule, path, refused) in [
            ("it is there", "", None),
            ("it can be made", "new", None),
            ("with those above it", "a/b/c", None),
            ("a file", "file", Some("is not a directory")),
            (
                "below a file",
                "file/below",
                Some("cannot be used: Not a directory"),
            ),
        ] {
            let verdict = usable(&within(path));
            match refused {
                None => assert_eq!(verdict, Ok(()), "{rule}"),
                Some(why) => assert!(verdict.unwrap_err().contains(why), "{rule}"),
            }
        }
        assert!(!within("new").exists(), "nothing is made");
        assert_eq!(usable(Path::new("made-where-the-process-is")), Ok(()));
    }
}
