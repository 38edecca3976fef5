//! Sources: where bytes come from. Each hands chunks of named streams to a lane and is told when to forget them.

pub mod config;
pub mod file;
pub mod streams;

pub use config::*;
