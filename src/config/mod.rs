//! As written -> as used.
pub mod settings;
pub use settings::*;
