//! Against real servers, in one binary: they are started once and shared.
//!
//! servers    the launcher itself: start, kill, freeze, start again, and what happens when we die
//! types      PostgreSQL as the oracle of single values
mod servers;
mod support;
mod types;
