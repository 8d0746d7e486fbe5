//! PostgreSQL as a source: catalog, publication, slot, stream, copy and fetch.
pub mod array;
pub mod catalog;
pub mod decode;
pub mod float;
pub mod pgvector;
