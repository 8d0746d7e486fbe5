//! Against real servers.
mod support;
