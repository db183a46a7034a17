//! What files hold, as a value that tells whether it has changed. Their times are not asked: a file
//! that is written anew with the same bytes is the same.

use std::path::Path;

use aws_lc_rs::digest::{Context, SHA256};

use crate::io::files;

/// The largest file that anybody here reads, in bytes: a configuration.
const MOST: u64 = 16 << 20;

/// Stands for the contents of some files: SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Contents([u8; 32]);

impl Contents {
    /// Reads them, in order. One that cannot be read has contents of its own, the error, and so has one
    /// that is too large for anything here.
    pub fn of<'p>(files: impl IntoIterator<Item = &'p Path>) -> Contents {
        let mut all = Context::new(&SHA256);
        for file in files {
            let (kind, bytes) = match files::read(file, MOST) {
                Ok(bytes) if bytes.len() as u64 > MOST => (2, Vec::new()),
                Ok(bytes) => (1, bytes),
                Err(error) => (0, error.kind().to_string().into_bytes()),
            };
            all.update(&[kind]);
            all.update(&(bytes.len() as u64).to_be_bytes());
            all.update(&bytes);
        }
        let digest = all.finish();
        let mut contents = [0; 32];
        contents.copy_from_slice(digest.as_ref());
        Contents(contents)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_change_with_the_bytes_and_with_what_cannot_be_read() {
        let folder = tempfile::tempdir().expect("there is room");
        let [a, b] = ["a", "b"].map(|name| folder.path().join(name));
        let look = || Contents::of([a.as_path(), b.as_path()]);
        let neither = look();
        std::fs::write(&a, "xy").expect("it is ours");
        std::fs::write(&b, "").expect("it is ours");
        let first = look();
        std::fs::write(&a, "x").expect("it is ours");
        std::fs::write(&b, "y").expect("it is ours");
        let moved = look();
        std::fs::remove_file(&b).expect("it is there");
        let one = look();
        std::fs::write(&a, "xy").expect("it is ours");
        std::fs::write(&b, "").expect("it is ours");
        assert_eq!(first, look(), "the same bytes again");
        let all = [neither, first, moved, one];
        for (i, contents) in all.iter().enumerate() {
            assert!(all[..i].iter().all(|other| other != contents), "{i}");
        }
    }
}
