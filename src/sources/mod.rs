//! Sources: where bytes come from. Each hands chunks of named streams to a lane and is told when to forget them.

pub mod alerts;
pub mod config;
pub mod file;
pub mod gpu;
pub mod host;
pub mod http;
pub mod kubernetes;
pub mod measure;
pub mod packed;
pub mod pods;
pub mod push;
pub mod rotated;
pub mod scrape;
pub mod series;
pub mod status;
pub mod streams;
pub mod syslog;
pub mod told;
pub mod walk;
pub mod watch;

pub use config::*;
