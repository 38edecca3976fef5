//! Whole-product tests: the real program, temporary folders, loopback only; each test's name is a promise.
//!
//! `harness` runs the program, `input` makes its input and says what must come of it, `stores` reads what it wrote without
//! its help. Nothing sleeps for a result: `wait_until` asks for something observable, with a limit that only a bug reaches.

#![deny(unsafe_code)]

mod harness;
mod input;
mod stores;

mod admin;
mod api;
mod archive;
mod bad_input;
mod bill;
mod buffer;
mod check;
mod cost;
mod crash;
mod crash_harness;
mod cri;
mod dedup;
mod fair;
mod follow;
mod gateway;
mod gpu;
mod keep;
mod kubernetes;
mod labels;
mod ledger;
mod policies;
mod quickstart;
mod quotas;
mod recount;
mod redact;
mod reload;
mod sampling;
mod search;
mod select;
mod signals;
mod sql;
mod tail_sampling;
mod tailing;
mod tidy;
mod understand;
