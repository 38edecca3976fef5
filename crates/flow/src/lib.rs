//! The pure heart: bytes in, decisions out. No clock, disk, network or task in here.
//!
//! Read in this order: `pipeline` (one batch through every stage: the hot path), `batch` (records in one
//! arena and what is known of them), `decode` (chunk to records), `parse` (lines that are no JSON become records), `enrich` and `kubernetes` (whose container it
//! was, written into the record), `fields` (the one structural pass over a
//! record), `tenancy` (who pays), `condition` and `step` (keep or drop, and why), `debts` and `stamp` (whom kept records stand for), `meter` (what was used),
//! `labels` (what requests say of themselves), `prices` (what it costs by list price), `select` (who takes it). `hash` says which
//! hashes are a contract.
//! `units` and `event` are the words that everybody shares.
#![deny(unsafe_code)]

pub mod pipeline;

pub mod batch;
pub mod decode;
pub mod enrich;
pub mod fields;
pub mod kubernetes;
pub mod parse;

pub mod conventions;
pub mod severity;
pub mod tenancy;
pub mod time;

pub mod condition;
pub mod counter;
pub mod debts;
pub mod hash;
pub mod labels;
pub mod meter;
pub mod prices;
pub mod select;
pub mod stamp;
pub mod step;

pub mod decimal;
pub mod escape;
pub mod event;
pub mod units;
mod word;

#[cfg(test)]
mod laws;
