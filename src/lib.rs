//! walvec copies PostgreSQL tables with pgvector columns into Milvus collections and keeps them in step.
pub mod admin;
pub mod change;
pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod engine;
pub mod metrics;
pub mod milvus;
pub mod mutation;
pub mod pipeline;
pub mod plan;
pub mod postgres;
pub mod servers;
pub mod telemetry;
pub mod verify;
