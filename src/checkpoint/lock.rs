//! One process a state directory: an advisory lock on a file that holds the owner's process id.
//!
//! sled locks its own file too, but its error is a string that does not say who holds it.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::StoreError;

/// Held for as long as it lives. The file stays: removing it would let two processes lock two files of one name.
#[derive(Debug)]
pub(super) struct DirectoryLock(#[expect(dead_code, reason = "the open file is the lock")] File);

impl DirectoryLock {
    pub(super) fn acquire(directory: &Path) -> Result<DirectoryLock, StoreError> {
        let unusable = |error| StoreError::unusable(directory, error);
        let path = directory.join("LOCK");
        let mut file =
            File::options().read(true).write(true).create(true).truncate(false).open(path).map_err(unusable)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                drop(file.read_to_string(&mut holder));
                let holder = if holder.trim().is_empty() { "(unknown)".into() } else { holder.trim().to_owned() };
                return Err(StoreError::Held { path: directory.to_owned(), holder });
            }
            Err(error) => return Err(unusable(error.into())),
        }
        file.set_len(0).map_err(unusable)?;
        file.rewind().map_err(unusable)?;
        writeln!(file, "{}", std::process::id()).map_err(unusable)?;
        Ok(DirectoryLock(file))
    }
}
