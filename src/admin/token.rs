//! The token that changes over TCP need: read from a file, or made at the start and left in one.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use data_encoding::HEXLOWER;

/// A secret that whoever wants to change something has to know. Never shown.
pub struct Token(String);

impl Token {
    /// One that somebody wrote.
    pub fn new(text: String) -> Token {
        Token(text)
    }

    /// A new one: 256 bits.
    pub fn random() -> io::Result<Token> {
        let mut bytes = [0; 32];
        let filled = aws_lc_rs::rand::fill(&mut bytes);
        filled.map_err(|_| io::Error::other("no random numbers"))?;
        Ok(Token(HEXLOWER.encode(&bytes)))
    }

    /// Is this it? The time that it takes does not depend on how much of it is right.
    pub fn is(&self, text: &[u8]) -> bool {
        verify_slices_are_equal(self.0.as_bytes(), text).is_ok()
    }

    /// Leaves it in a file that only this user can read, in place of what was there.
    pub fn leave(&self, path: &Path) -> io::Result<()> {
        let beside = path.with_extension(format!("{}.new", std::process::id()));
        // Left over from a process of that number that was killed.
        let _ = fs::remove_file(&beside);
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&beside)?;
        writeln!(file, "{}", self.0)?;
        fs::rename(&beside, path)
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn it_is_left_where_only_its_owner_reads_it_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        fs::write(&path, "an older one").unwrap();
        let token = Token::random().unwrap();
        token.leave(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let text = crate::config::token(&path).unwrap();
        assert!(token.is(text.as_bytes()));
        assert!(!token.is(&text.as_bytes()[1..]) && !token.is(b""));
        assert!(!format!("{token:?}").contains(&text));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
