//! Errors of Milvus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Retry,
    Throttle,
    Split,
    Poison,
    SchemaStale,
    Fatal,
}
#[derive(Debug, thiserror::Error)]
#[error("placeholder")]
pub struct MilvusError;
