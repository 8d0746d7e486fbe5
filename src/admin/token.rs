//! The token that calls must bring which change something: a file in the state directory, for its owner only.
//!
//! Who may read the state of the daemon may also command it; nobody has to think of a password. The file stays, so that a
//! daemon that stands by on the same state does not take the token from the one at work.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

const BYTES: usize = 32;

/// As hexadecimal digits. No `Debug`: it is a secret.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    pub fn path(state: &Path) -> PathBuf {
        state.join("admin.token")
    }

    /// Read the token of a state directory, or make one.
    ///
    /// # Errors
    /// The directory or the file cannot be made or read.
    pub fn of_state(state: &Path) -> io::Result<Token> {
        std::fs::create_dir_all(state)?;
        match Token::read(state) {
            Ok(token) => return Ok(token),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => {}
            Err(error) => return Err(error),
        }
        let mut bytes = [0; BYTES];
        rustls::crypto::ring::default_provider()
            .secure_random
            .fill(&mut bytes)
            .map_err(|_| io::Error::other("the system has no random bytes"))?;
        let token: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        // Whole or not at all, under its name.
        let new = state.join(format!("admin.token.{}", std::process::id()));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        writeln!(file, "{token}")?;
        file.sync_all()?;
        std::fs::rename(&new, Token::path(state))?;
        // Another one may have been there first, or come since: what is under the name is in force.
        Token::read(state)
    }

    /// # Errors
    /// There is none, it cannot be read, or (`InvalidData`) it is none.
    pub fn read(state: &Path) -> io::Result<Token> {
        let mut text = String::new();
        File::open(Token::path(state))?.take(1024).read_to_string(&mut text)?;
        let token = text.trim_end();
        if token.len() != 2 * BYTES || !token.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "admin.token holds no token"));
        }
        Ok(Token(token.to_owned()))
    }

    /// Compared by their digests, so that the time it takes says nothing.
    pub fn is(&self, other: &str) -> bool {
        Sha256::digest(&self.0) == Sha256::digest(other)
    }

    /// For the `Authorization` header.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_is_made_once_and_for_its_owner_only() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let state = directory.path().join("state");
        let token = Token::of_state(&state).expect("makes one");
        assert!(Token::of_state(&state).expect("reads it").is(token.expose()));
        assert!(!token.is("") && !token.is(&token.expose()[1..]));
        let mode = std::fs::metadata(Token::path(&state)).expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(Token::path(&state), "torn").expect("writes");
        assert_eq!(Token::read(&state).err().map(|error| error.kind()), Some(io::ErrorKind::InvalidData));
        assert!(!Token::of_state(&state).expect("makes another").is(token.expose()));
        assert_eq!(std::fs::read_dir(&state).expect("lists").count(), 1, "nothing is left over");
    }
}
