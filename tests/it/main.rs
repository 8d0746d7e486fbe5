//! Against real servers, in one binary: they are started once and shared.
//!
//! milvus_contract  what every transport promises, against every server
//! servers    the launcher itself: start, kill, freeze, start again, and what happens when we die
mod milvus_contract;
mod servers;
mod support;
