//! Where a Milvus is and how to speak with it: what both transports are made from.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::CollectionSchema;
use super::error::{Condition, MilvusError};

/// An API key or `user:password`. It has no `Debug` on purpose.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    pub fn new(token: impl Into<String>) -> Token {
        Token(token.into())
    }

    /// For the header that carries it.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

#[derive(Clone)]
pub struct MilvusOptions {
    /// `http://host:port` or `https://host[:port]`.
    pub url: String,
    pub token: Option<Token>,
    /// Empty: the server's default database.
    pub database: String,
    /// PEM bundle that replaces the built-in Mozilla roots. Used with https only, as all that follows about certificates.
    pub ca: Option<PathBuf>,
    /// Client certificate and its key, PEM; both or none.
    pub client_cert: Option<PathBuf>,
    pub client_key: Option<PathBuf>,
    /// The name in the server's certificate, when it is not the host of `url`.
    pub server_name: Option<String>,
    pub connect_timeout: Duration,
    /// How long the server may take over one request.
    pub request_deadline: Duration,
}

/// How much longer than its deadline, and than connecting may take, a client waits for a request.
const GRACE: Duration = Duration::from_secs(2);

impl MilvusOptions {
    /// How long a client waits for a request altogether.
    pub(super) fn patience(&self) -> Duration {
        self.connect_timeout + self.request_deadline + GRACE
    }

    /// Client certificate and key, if there are to be any.
    pub(super) fn identity(&self) -> Result<Option<(&Path, &Path)>, MilvusError> {
        match (&self.client_cert, &self.client_key) {
            (None, None) => Ok(None),
            (Some(certificate), Some(key)) => Ok(Some((certificate, key))),
            _ => Err(configuration("target.client_cert and target.client_key belong together")),
        }
    }
}

/// The settings cannot be used; nothing was sent.
pub(super) fn configuration(reason: impl Into<String>) -> MilvusError {
    MilvusError::new(Condition::Configuration, "connect", reason)
}

/// The schemas of the collections that a client has touched, to check batches and to name types of answers. They
/// may be stale: a batch that does not fit is judged again by a fresh one, and any refusal by the server forgets it.
#[derive(Default)]
pub(super) struct KnownSchemas(Mutex<HashMap<String, Arc<CollectionSchema>>>);

impl KnownSchemas {
    pub(super) fn get(&self, collection: &str) -> Option<Arc<CollectionSchema>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(collection).cloned()
    }

    pub(super) fn learn(&self, collection: &str, schema: CollectionSchema) -> Arc<CollectionSchema> {
        let schema = Arc::new(schema);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(collection.to_owned(), Arc::clone(&schema));
        schema
    }

    pub(super) fn forget(&self, collection: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(collection);
    }
}
