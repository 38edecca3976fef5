//! SQL over a lake: one statement in, batches of rows out, inside a bound of memory and of time.
//!
//! Read in this order: `query` (one call, from text to rows), `guard` (which statements there are), `catalog` (which tables there
//! are), `scan` (files and tail as rows of one table), `functions`; then `error` and `print`, the faces of it. The only crate that
//! names DataFusion. A tenant's bound is set where rows are read, below all SQL: what is not the tenant's is never opened.
#![deny(unsafe_code)]

mod query;

mod guard;

mod catalog;
mod scan;

mod functions;

mod error;
mod print;

#[cfg(test)]
mod tests;

pub use error::{Mistake, SqlError};
pub use guard::{DEPTH_MAX, QUERY_BYTES_MAX, TOKENS_MAX};
pub use print::{CELL_CHARS_MAX, Format, Printer};
pub use query::{Partial, Source, SqlOptions, Stats, query};
