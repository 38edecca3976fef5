//! Sources: where bytes come from. Each hands chunks of named streams to a lane and is told when to forget them.

pub mod alerts;
pub mod config;
pub mod file;
pub mod http;
pub mod kubernetes;
pub mod packed;
pub mod push;
pub mod rotated;
pub mod scrape;
pub mod series;
pub mod status;
pub mod streams;
pub mod syslog;
pub mod walk;
pub mod watch;

pub use config::*;
