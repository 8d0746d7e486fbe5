//! Against real servers, in one binary: they are started once and shared.
//!
//! bench_server  the discarding server of the benches
//! milvus_contract  what every transport promises, against every server
//! servers    the launcher itself: start, kill, freeze, start again, and what happens when we die
mod bench_server;
mod milvus_contract;
mod servers;
mod support;
