//! The catalogue: the 60 ways in which log shippers lose, double or break records, each by its number, against the real program.
//!
//! A test is called `sNN_PROMISE`; the comment above the first test of a number is its row in `schemas/reference/tailing.md`:
//! what happens, what weir does, who lost records there, and a limit where there is one. `scene` sets the stage and is the
//! oracle: 0 lost, 0 doubled, 0 broken, order per log, a residual of 0 and a recount that agrees.

mod rotation;

mod identity;

mod framing;

mod disk;

mod checkpoint;

mod sinks;

mod scale;

mod control;

mod scene;
mod table;

pub use disk::{Ballast, SmallDisks};
