//! What GPUs and the host say, and what it means for who pays: readings, recordings, metrics and usage facts.
//!
//! Reads NVML through a library that is loaded from a path, and files below roots that are arguments. No clock, no network, no
//! thread: times are arguments, and who calls decides what a hanging driver may hold up.
//!
//! Read in this order: `reading` (what one look gave), `nvml` (devices that are asked), `recording` (and replayed), `owner`, `place`
//! and `pod_resources` (whose processes and devices are), `names` (metrics), `facts` (raw usage), `report` (how well it was used);
//! `host` is the same for processors, memory, disks and control groups.
#![deny(unsafe_code)]

pub mod reading;

pub mod nvml;
pub mod recording;

pub mod owner;
pub mod place;
pub mod pod_resources;

pub mod facts;
pub mod names;
pub mod report;

pub mod host;
