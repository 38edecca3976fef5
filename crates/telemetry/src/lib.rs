//! Metrics, logs and traces as others write them, and as records of weir: Prometheus' expositions and remote write, OTLP.
//!
//! Pure: no clock, disk, network or thread. In: bodies of requests, unpacked. Out: lines of JSON, one for each sample, log record
//! or span ([`sample`] says how a sample looks), and back. Bound: what is made of a body is at most what its caller allows.
#![deny(unsafe_code)]

pub mod cardinality;
pub mod exporters;
pub mod exposition;
pub mod histogram;
pub mod missing;
pub mod otel_names;
pub mod otlp;
pub mod relabel;
pub mod remote;
pub mod sample;
pub mod selector;
pub mod trace_context;
pub mod wire;
