//! Against real servers, in one binary: they are started once and shared.
//!
//! postgres_source  slot, stream, copy, fetch and catalog of the source, on 16 and 18
//! servers    the launcher itself: start, kill, freeze, start again, and what happens when we die
//! workload   the writers of the demo
mod postgres_source;
mod servers;
mod support;
mod workload;
