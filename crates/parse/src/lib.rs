//! Lines that are no JSON, read as records: regular expressions in Ruby's dialect, logfmt, syslog and their kin.
//!
//! Pure: no clock, network or thread, and no disk but for the tables of time zones that a definition names, which are looked
//! up when it is compiled. In: a line and its time of arrival. Out: one JSON object with the line's fields, and its time.
#![deny(unsafe_code)]

mod decode;
pub mod definition;
mod emit;
pub mod fluent;
mod formats;
mod json;
pub mod parser;
pub mod pattern;
mod record;
pub mod sample;
pub mod set;
pub mod time;
mod types;
