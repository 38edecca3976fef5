//! Steps: what is kept, what is dropped, and why. They run as written; the first drop wins.
//!
//! A step marks records and never removes them. Steps that save volume (`sample`) drop with a reason of
//! class `volume`, which meters still count; filters drop with `not_ours`, which no meter counts, also where
//! the record was dropped for volume before: so moving a line of config does not change an invoice.

mod config;
mod dedup;
pub mod detect;
mod filter;
mod members;
pub mod redact;
pub mod sample;
pub mod seen;
pub mod shape;

pub use config::*;
pub use dedup::{Dedup, Mirror, Request};
pub use filter::Filter;
pub use redact::{Editor, Redact};
pub use sample::Sample;
pub use shape::Shape;

use crate::batch::Batch;
use crate::units::UnixNanos;

pub enum Step {
    Filter(Filter),
    Sample(Box<Sample>),
    Dedup(Box<Dedup>),
    Redact(Box<Redact>),
    Shape(Box<Shape>),
}

impl Step {
    /// Marks the records of a batch, or changes them. `mask` is scratch space.
    pub fn apply(&self, batch: &mut Batch, now: UnixNanos, mask: &mut Vec<bool>, editor: &mut Editor) {
        match self {
            Step::Filter(filter) => filter.apply(batch, mask),
            Step::Sample(sample) => sample.apply(batch, now, mask),
            Step::Dedup(dedup) => dedup.apply(batch, now),
            Step::Redact(redact) => redact.apply(batch, editor),
            Step::Shape(shape) => shape.apply(batch, editor),
        }
    }

    /// What changed in the step's state since the last call, as entries of 32 bytes: 8 of key, 24 of value.
    pub fn take_changes(&self, out: &mut Vec<u8>) {
        match self {
            Step::Filter(_) | Step::Redact(_) | Step::Shape(_) => {}
            Step::Sample(sample) => sample.take_changes(out),
            // They travel with their records: `Batch::changes`.
            Step::Dedup(_) => {}
        }
    }

    /// Applies entries that [`Step::take_changes`] wrote.
    pub fn restore(&self, entries: &[u8]) {
        match self {
            Step::Filter(_) | Step::Redact(_) | Step::Shape(_) => {}
            Step::Sample(sample) => sample.restore(entries),
            Step::Dedup(dedup) => dedup.restore(entries),
        }
    }
}
