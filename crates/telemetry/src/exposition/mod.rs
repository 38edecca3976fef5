//! Expositions: what a target says of its metrics when it is scraped, read and written.
//!
//! A body is text of Prometheus 0.0.4, OpenMetrics 1.0 or protobuf; [`Format`] says which, by the Content-Type. [`Scraper`] reads the
//! bodies of one target, one after another, into records of samples. [`write`] makes bodies.
//! Source: <https://prometheus.io/docs/instrumenting/exposition_formats>, <https://prometheus.io/docs/specs/om/open_metrics_spec>.

mod cache;
pub mod lines;
pub mod media;
pub mod number;
mod protobuf;
mod scraper;
pub mod strict;
pub mod write;

pub use media::{Escaping, Format, Refusal, negotiate};
pub use scraper::{Created, Limits, MAX_AHEAD_NANOS, Outcome, Reason, ScrapeError, Scraped, Scraper, Target};

#[cfg(test)]
mod tests;
