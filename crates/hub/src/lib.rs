//! Durable bytes. A frame is decided once, kept here, and read by every sink at its own pace.
//!
//! Knows no JSON and no tokio. Read in this order: `frame` (what was decided, and the rows), `disk` (the only way to
//! touch files; the same calls on the real and on the simulated disk), `hub` (in and out), `journal` with `segment`
//! (files) and `recover` (after a crash), `memory` (the hub without a journal), `queue` (what the threads share),
//! `cursor` (how far a sink is), `express` (what it took ahead of that), `losses` (what a sink will never get), `ledger` (the law,
//! fed by headers), `account` (what all frames add up to), `state` (what they say of the state of steps), `watch` (who looks on).
#![deny(unsafe_code)]

mod account;
mod codec;
pub mod cursor;
pub mod disk;
mod express;
pub mod frame;
pub mod hub;
pub mod inspect;
mod journal;
pub mod ledger;
mod losses;
mod memory;
mod queue;
mod recover;
#[cfg(test)]
mod sample;
mod segment;
mod state;
#[cfg(test)]
mod tests;
mod watch;

pub use cursor::{Cursor, Next};
pub use disk::{Disk, File, Site};
pub use frame::{Frame, LostReason};
pub use hub::{AcceptError, Hub, Limits, OpenError, Recovered, WhenFull};
pub use ledger::{Ledger, SinkTotals, StreamTotals, Tally, TenantTotals, Totals};
pub use watch::{Seen, Watch};
