//! Configurations of others become pipeline files.
//!
//! Read on in this order: `fluent_bit` (a main configuration to pipelines), `filters`
//! and `outputs` (its parts), `tree` (what is written, as YAML).

pub mod fluent_bit;

mod filters;
mod outputs;
mod tree;

pub use tree::to_yaml;
