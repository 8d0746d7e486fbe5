//! PostgreSQL as a source: catalog, publication, slot, stream, copy and fetch.
pub mod catalog;
pub mod pgoutput;
pub mod relation;
