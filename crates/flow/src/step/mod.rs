//! Steps: what is kept, what is dropped, and why. They run as written; the first drop wins.
//!
//! A step marks records and never removes them. Steps that save volume (`sample`, `quota`) drop with a reason of
//! class `volume`, which meters still count (`tail` marks records, and its verdict comes later); filters drop with `not_ours`, which no meter counts, also where
//! the record was dropped for volume before: so moving a line of config does not change an invoice.

mod config;
mod dedup;
pub mod detect;
mod filter;
pub mod keys;
pub(crate) mod members;
pub mod quota;
pub mod rates;
pub mod redact;
pub mod sample;
pub mod seen;
pub mod shape;
pub mod tail;
pub mod threshold;
pub mod usage;

pub use config::*;
pub use dedup::{Dedup, Mirror, Request};
pub use filter::Filter;
pub use quota::Quota;
pub use redact::{Editor, Redact};
pub use sample::Sample;
pub use shape::Shape;
pub use tail::Tail;

use crate::batch::Batch;
use crate::debts::{Debts, Terms};
use crate::meter::Meters;
use crate::units::UnixNanos;
use std::sync::Arc;

pub enum Step {
    Filter(Filter),
    Sample(Box<Sample>),
    Quota(Box<Quota>),
    Dedup(Box<Dedup>),
    Redact(Box<Redact>),
    Shape(Box<Shape>),
    Tail(Box<Tail>),
}

impl Step {
    /// Marks the records of a batch, or changes them. `number`: its own among the steps; `mask` is scratch space.
    #[expect(clippy::too_many_arguments, reason = "what steps share, each lane its own")]
    pub fn apply(
        &self,
        number: u16,
        batch: &mut Batch,
        now: UnixNanos,
        meters: &Meters,
        mask: &mut Vec<bool>,
        debts: &mut Debts,
        editor: &mut Editor,
    ) {
        match self {
            Step::Filter(filter) => filter.apply(batch, mask),
            Step::Sample(sample) => sample.apply(number, batch, now, mask, debts),
            Step::Quota(quota) => quota.apply(batch, now, meters, mask, debts, editor),
            Step::Dedup(dedup) => dedup.apply(batch, now),
            Step::Redact(redact) => redact.apply(batch, editor),
            Step::Shape(shape) => shape.apply(batch, editor),
            Step::Tail(tail) => tail.apply(batch, mask, debts),
        }
    }

    /// What it promises of what it leaves out; `None` where it saves no volume.
    pub fn terms(&self) -> Option<Terms> {
        match self {
            Step::Filter(_) | Step::Dedup(_) | Step::Redact(_) | Step::Shape(_) => None,
            Step::Sample(sample) => Some(sample.terms()),
            Step::Quota(quota) => Some(quota.terms()),
            Step::Tail(tail) => Some(tail.terms()),
        }
    }

    /// What changed in the step's state since the last call, as entries of 32 bytes: 8 of key, 24 of value.
    pub fn take_changes(&self, out: &mut Vec<u8>) {
        match self {
            Step::Filter(_) | Step::Redact(_) | Step::Shape(_) | Step::Tail(_) => {}
            Step::Sample(sample) => sample.take_changes(out),
            Step::Quota(quota) => quota.take_changes(out),
            // They travel with their records: `Batch::changes`.
            Step::Dedup(_) => {}
        }
    }

    /// Applies entries that [`Step::take_changes`] wrote.
    pub fn restore(&self, entries: &[u8]) {
        match self {
            Step::Filter(_) | Step::Redact(_) | Step::Shape(_) | Step::Tail(_) => {}
            Step::Sample(sample) => sample.restore(entries),
            Step::Quota(quota) => quota.restore(entries),
            Step::Dedup(dedup) => dedup.restore(entries),
        }
    }

    /// Goes on with what a step of the same config remembers, while lanes may still run that one: both have one memory.
    pub fn share(&mut self, before: &Step) {
        match (self, before) {
            (Step::Sample(sample), Step::Sample(before)) => sample.share(before),
            (Step::Quota(quota), Step::Quota(before)) => quota.share(before),
            (Step::Dedup(dedup), Step::Dedup(before)) => dedup.seen = Arc::clone(&before.seen),
            (Step::Filter(_) | Step::Redact(_) | Step::Shape(_) | Step::Sample(_) | Step::Quota(_) | Step::Dedup(_) | Step::Tail(_), _) => {
            }
        }
    }
}
