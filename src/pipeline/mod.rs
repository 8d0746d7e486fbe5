//! pipeline
pub mod encode;
