//! What GPUs and the host say, and what it means for who pays: readings, recordings, metrics and usage facts.
//!
//! Reads NVML through a library that is loaded from a path, and files below roots that are arguments. No clock, no network, no
//! thread: times are arguments, and who calls decides what a hanging driver may hold up.
#![deny(unsafe_code)]

pub mod host;
pub mod reading;
