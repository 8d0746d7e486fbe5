//! What the integration tests share.
//!
//! postgres   shared clusters, a fresh database per test
//! milvus     shared Milvus Lite and 2.3.5, fresh collection names
//! daemon     the built binary as a child, to be killed
//! scripted   a Milvus of our own, with REST, any version and faults
//! unary      one gRPC call, served
//! vendor     the vendor's own clients, as children
//! proxy      a TCP line that can be cut, stalled, slowed and refused
//! world      both servers, a line to each, and what can happen to them
//! wait       named conditions with a deadline; there is no other waiting
#![allow(dead_code)] // each test file takes what it needs

pub mod daemon;
pub mod milvus;
pub mod postgres;
pub mod proxy;
#[path = "../../sim/rng.rs"]
pub mod rng;
pub mod scene;
#[path = "../../support/scripted/mod.rs"]
pub mod scripted;
#[path = "../../support/unary.rs"]
pub mod unary;
pub mod vendor;
pub mod wait;
pub mod world;

use std::sync::atomic::{AtomicU32, Ordering};

/// `prefix_1`, `prefix_2`, … : a name that no other test of this process has. Valid for a slot, a table, a collection.
pub fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("{prefix}_{}", NEXT.fetch_add(1, Ordering::Relaxed))
}
