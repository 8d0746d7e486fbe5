//! Against real servers, in one binary: they are started once and shared.
//!
//! servers    the launcher itself: start, kill, freeze, start again, and what happens when we die
//! workload   the writers of the demo
mod servers;
mod support;
mod workload;
//! types      PostgreSQL as the oracle of single values
mod servers;
mod support;
mod types;
