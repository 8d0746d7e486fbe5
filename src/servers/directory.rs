//! A server's own directory: data, configuration, log, socket.
//!
//! Holds: it belongs to the user that the server runs as and nobody else may enter it. One that was made here is removed
//! on drop, unless it is to be kept; one that the caller named is never removed.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::ServerError;

/// The user that a server runs as, when it cannot be ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Account {
    /// `nobody`, from /etc/passwd.
    pub(super) fn nobody() -> Result<Account, ServerError> {
        let passwd = fs::read_to_string("/etc/passwd").map_err(|_| ServerError::NoAccount)?;
        Account::parse(&passwd, "nobody").ok_or(ServerError::NoAccount)
    }

    /// `name:password:uid:gid:…`, passwd(5).
    fn parse(passwd: &str, name: &str) -> Option<Account> {
        passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            if fields.next()? != name {
                return None;
            }
            let uid = fields.nth(1)?.parse().ok()?;
            let gid = fields.next()?.parse().ok()?;
            Some(Account { uid, gid })
        })
    }
}

#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    remove: bool,
}

impl Directory {
    /// A fresh directory under the system's temporary one; removed on drop unless `keep`.
    pub(super) fn temporary(label: &str, owner: Option<Account>, keep: bool) -> Result<Directory, ServerError> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let base = std::env::temp_dir();
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = base.join(format!("walvec-{label}-{}-{number}", std::process::id()));
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => {
                    let directory = Directory { path, remove: !keep };
                    directory.give_to(owner)?;
                    return Ok(directory);
                }
                // Left behind by an earlier process of the same id.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(source) => return Err(ServerError::Directory { path, source }),
            }
        }
    }

    /// The caller's own directory, made if it is missing.
    pub(super) fn named(path: PathBuf, owner: Option<Account>) -> Result<Directory, ServerError> {
        fs::create_dir_all(&path)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o700)))
            .map_err(|source| ServerError::Directory { path: path.clone(), source })?;
        let path = path.canonicalize().map_err(|source| ServerError::Directory { path, source })?;
        let directory = Directory { path, remove: false };
        directory.give_to(owner)?;
        Ok(directory)
    }

    fn give_to(&self, owner: Option<Account>) -> Result<(), ServerError> {
        match owner {
            None => Ok(()),
            Some(account) => give(&self.path, account),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The directory, if it is to be removed by the watcher should this process die.
    pub(super) fn to_remove(&self) -> Option<&Path> {
        self.remove.then_some(self.path.as_path())
    }

    pub(super) fn log(&self) -> PathBuf {
        self.path.join("server.log")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if self.remove {
            // A leftover in the temporary directory is no reason to panic in a destructor.
            drop(fs::remove_dir_all(&self.path));
        }
    }
}

/// Makes `account` the owner of one file or directory.
pub(super) fn give(path: &Path, account: Account) -> Result<(), ServerError> {
    std::os::unix::fs::chown(path, Some(account.uid), Some(account.gid))
        .map_err(|source| ServerError::Directory { path: path.to_owned(), source })
}

/// Whether everybody may enter every directory on the way to `path`. Returns the first that they may not.
pub(super) fn closed_to_others(path: &Path) -> Option<PathBuf> {
    let mut ancestors: Vec<&Path> = path.ancestors().collect();
    ancestors.reverse();
    ancestors
        .into_iter()
        .find(|path| fs::metadata(path).is_ok_and(|m| m.is_dir() && m.permissions().mode() & 0o001 == 0))
        .map(Path::to_owned)
}

/// The last lines of a log, at most 4 KiB; empty when there is none.
pub(super) fn tail(path: &Path) -> String {
    const BYTES: u64 = 4096;
    let read = || -> io::Result<Vec<u8>> {
        let mut file = fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(BYTES)))?;
        let mut bytes = Vec::new();
        file.take(BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_read_from_passwd() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nnobody2:x:1:2::/:\nnobody:x:65534:65533:n:/nonexistent:/no\n";
        assert_eq!(Account::parse(passwd, "nobody"), Some(Account { uid: 65534, gid: 65533 }));
        assert_eq!(Account::parse("nobody:x:abc:1::/:", "nobody"), None);
        assert_eq!(Account::parse("", "nobody"), None);
    }

    #[test]
    fn a_temporary_directory_goes_and_a_named_one_stays() {
        let base = tempfile::tempdir().expect("a temporary directory");
        let made = Directory::temporary("test", None, false).expect("made");
        let path = made.path().to_owned();
        assert_eq!(fs::metadata(&path).expect("exists").permissions().mode() & 0o777, 0o700);
        drop(made);
        assert!(!path.exists());
        let named = Directory::named(base.path().join("mine"), None).expect("made");
        let path = named.path().to_owned();
        drop(named);
        assert!(path.exists());
    }

    #[test]
    fn a_closed_ancestor_is_named() {
        let base = tempfile::tempdir().expect("a temporary directory");
        let closed = base.path().join("closed");
        fs::create_dir_all(closed.join("inner")).expect("made");
        fs::set_permissions(base.path(), fs::Permissions::from_mode(0o755)).expect("set");
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).expect("set");
        assert_eq!(closed_to_others(&closed.join("inner")), Some(closed.clone()));
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o755)).expect("set");
        assert_eq!(closed_to_others(&closed.join("inner")), None);
    }

    #[test]
    fn the_tail_is_bounded_and_survives_a_missing_log() {
        let base = tempfile::tempdir().expect("a temporary directory");
        let log = base.path().join("log");
        assert_eq!(tail(&log), "");
        fs::write(&log, format!("{}last", "x".repeat(10_000))).expect("written");
        assert_eq!(tail(&log).len(), 4096);
        assert!(tail(&log).ends_with("last"));
    }
}
