//! One process a state directory: an advisory lock on a file that holds the owner's process id.
//!
//! sled locks its own file too, but its error is a string that does not say who holds it.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::StoreError;

/// Held for as long as it lives, and until sled has let go of its own file. The lock's file stays: removing it would let
/// two processes lock two files of one name.
#[derive(Debug)]
pub(super) struct DirectoryLock {
    file: File,
    directory: PathBuf,
}

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
        Ok(DirectoryLock { file, directory: directory.to_owned() })
    }
}

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        if let Err(error) = wait_for_sled(&self.directory) {
            tracing::debug!(%error, "sled's own lock cannot be looked at");
        }
        // Closing would do, but for a process that is just being forked off and has the file until it executes.
        if let Err(error) = flock(&self.file, FlockOperation::Unlock) {
            tracing::debug!(%error, "the lock of the state directory goes when its file is closed");
        }
    }
}

/// sled's threads close its file a little after its handle is dropped, and who opened it before would find it locked.
pub(super) fn wait_for_sled(directory: &Path) -> std::io::Result<()> {
    match File::open(directory.join("sled").join("db")) {
        Ok(file) => Ok(rustix::io::retry_on_intr(|| flock(&file, FlockOperation::LockExclusive))?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()), // sled was never opened
        Err(error) => Err(error),
    }
}
