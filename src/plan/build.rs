//! Catalog and settings to plan.
