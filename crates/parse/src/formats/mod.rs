//! How lines of each format are read.
//!
//! In: a line without its end. Out: its fields, given to a record in the line's order; false where the line is none of the
//! format, and then what was given counts for nothing. Nothing here allocates for a line of UTF-8.

pub mod access;
pub mod cri;
pub mod csv;
pub mod json;
pub mod klog;
pub mod logfmt;
pub mod ltsv;
pub mod syslog;

/// The bytes before a separator, and those behind it; for something short, where a byte at a time is faster.
#[inline]
fn split(text: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|b| *b == separator)?;
    Some((&text[..at], &text[at + 1..]))
}
