//! What can be wrong with the state store, each with its way out.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// `Clone`, because callers that shared a sync share its failure.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    #[error("state directory {path:?} is in use by process {holder}; stop it, or give this walvec its own state.path")]
    Held { path: PathBuf, holder: String },
    #[error(
        "state in {path:?} has format {found}, newer than this walvec understands ({known}); use the walvec that wrote it"
    )]
    NewerFormat { path: PathBuf, found: u32, known: u32 },
    #[error(
        "state in {path:?} is about {what} {saved:?}, the configuration about {configured:?}; \
         put the name back, or give the new one its own state.path"
    )]
    OtherIdentity { path: PathBuf, what: &'static str, saved: String, configured: String },
    #[error(
        "state in {path:?} is about the PostgreSQL with system identifier {saved}, the source is {found}: another cluster; \
         connect to the old one, or start anew with an empty state.path and an empty slot"
    )]
    OtherSystem { path: PathBuf, saved: u64, found: u64 },
    #[error("state directory {path:?} cannot be used; it must be a directory on a local disk that this user may write")]
    Unusable {
        path: PathBuf,
        #[source]
        source: Arc<std::io::Error>,
    },
    #[error("no room for the state in {path:?}; make room, then start again: nothing is lost")]
    DiskFull {
        path: PathBuf,
        #[source]
        source: Arc<sled::Error>,
    },
    #[error("state in {path:?} could not be written; mend the disk, then start again: nothing is lost")]
    WriteFailed {
        path: PathBuf,
        #[source]
        source: Arc<sled::Error>,
    },
    #[error(
        "state in {path:?} is damaged ({what}); restore no backup of it, but move it away, drop the slot and copy again"
    )]
    Damaged { path: PathBuf, what: String },
    #[error("state in {path:?} was not written within {} s; mend the disk, then start again: nothing is lost", waited.as_secs())]
    Stuck { path: PathBuf, waited: Duration },
    #[error("state store in {path:?} has ended; an earlier message says why")]
    Ended { path: PathBuf },
    /// Our own mistake, refused before it is on disk.
    #[error("refused to write the state: {0}")]
    Refused(String),
}

impl StoreError {
    pub(super) fn unusable(path: &Path, source: std::io::Error) -> StoreError {
        StoreError::Unusable { path: path.to_owned(), source: Arc::new(source) }
    }

    pub(super) fn damaged(path: &Path, what: impl Into<String>) -> StoreError {
        StoreError::Damaged { path: path.to_owned(), what: what.into() }
    }

    pub(super) fn from_sled(path: &Path, error: sled::Error) -> StoreError {
        let path = path.to_owned();
        match error {
            sled::Error::Corruption { at, .. } => {
                let what =
                    at.map_or_else(|| "a checksum is wrong".to_owned(), |at| format!("a checksum at {at:?} is wrong"));
                StoreError::Damaged { path, what }
            }
            sled::Error::Unsupported(what) | sled::Error::ReportableBug(what) => StoreError::Damaged { path, what },
            sled::Error::CollectionNotFound(_) => StoreError::Damaged { path, what: "its tree is missing".to_owned() },
            sled::Error::Io(ref io) if is_full(io) => StoreError::DiskFull { path, source: Arc::new(error) },
            sled::Error::Io(_) => StoreError::WriteFailed { path, source: Arc::new(error) },
        }
    }
}

/// No space, over quota, or over the file size limit. sled's clone of an error keeps the kind and loses the number.
fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}
