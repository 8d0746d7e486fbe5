//! walvec copies PostgreSQL tables with pgvector columns into Milvus collections and keeps them in step.
//!
//! ```text
//!  PostgreSQL                            walvec                                  Milvus, Zilliz Cloud
//!
//!  catalog ──────────► plan: table → collection ───────────────────────────────► collections, indexes
//!  COPY, by chunk ───► rows ────┐
//!                               ├──► engine: one lane per share of the keys ───► upsert, delete
//!  slot (pgoutput) ──► changes ─┘          │                         │
//!                                          └────── progress ◄────────┘ acknowledged
//!                                                     │
//!           may forget the WAL ◄── confirmed ◄── checkpoint (sled, flushed)
//! ```
//!
//! What is promised, and the module that owns the promise:
//!
//! - Both sides end equal, whatever was killed, cut or replayed on the way (`engine`; the argument, rule by rule, is in
//!   `docs/correctness.md`, and the simulator in `tests/sim` hunts it).
//! - Milvus acknowledged → checkpoint flushed → LSN confirmed, in this order and in one place (`pipeline::session`).
//! - Where state, slot and server do not agree, we refuse to start and say what to do (`postgres::gate`).
//! - No value is guessed: what a type becomes stands in one table (`plan::types`), what does not fit is refused by
//!   name (`plan`, `pipeline::encode`).
//! - The source is safe: no long transaction (only `pipeline::held` has one), no lock beyond ACCESS SHARE, WAL released as
//!   soon as it may be (`postgres`).
//! - Memory is bounded by a budget of bytes (`engine`).
//!
//! Where to read on: a row's way is `postgres::stream` or `postgres::copy` → `pipeline::session` → `engine` →
//! `pipeline::requests` → `milvus`. `tests/it/layering.rs` keeps the direction of imports: `postgres` and `milvus` never
//! meet, `engine` and `plan` wait for nothing, only `pipeline`, `verify` and `cli` join both sides.

/// `/metrics`, `/status`, `/livez`, `/readyz`.
pub mod admin;
/// What happened in PostgreSQL: positions, values, rows, changes.
pub mod change;
/// What must outlive the process.
pub mod checkpoint;
/// The command line, one file a command.
pub mod cli;
/// What people may ask of the running daemon.
pub mod commands;
/// `walvec.toml` as written, and the settings as used.
pub mod config;
/// Ordering, coalescing, copy hand-over, progress: a state machine without IO.
pub mod engine;
/// Rows that the target will not take.
pub mod letters;
/// Every metric, and the lag.
pub mod metrics;
/// Milvus as a target.
pub mod milvus;
/// What must happen in Milvus: keys and mutations.
pub mod mutation;
/// The shell around the engine.
pub mod pipeline;
/// Table → collection.
pub mod plan;
/// PostgreSQL as a source.
pub mod postgres;
/// Real servers by package name, for the demo and the tests.
pub mod servers;
/// Logs.
pub mod telemetry;
/// Is every collection equal to its table?
pub mod verify;
