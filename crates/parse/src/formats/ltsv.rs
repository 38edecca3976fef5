//! `label:value` by tabs. A field without a colon or label is no match; one without a value is left out or empty.

use super::split;
use crate::record::Record;

pub fn read(line: &[u8], skip_empty: bool, record: &mut Record) -> bool {
    let mut rest = line;
    if line.is_empty() {
        return false;
    }
    loop {
        let (field, next) = match memchr::memchr(b'\t', rest) {
            Some(at) => (&rest[..at], Some(&rest[at + 1..])),
            None => (rest, None),
        };
        // A tab at the end, or two in a row, make no field.
        if !field.is_empty() && !read_field(field, skip_empty, record) {
            return false;
        }
        match next {
            Some(next) => rest = next,
            None => return true,
        }
    }
}

#[inline]
fn read_field(field: &[u8], skip_empty: bool, record: &mut Record) -> bool {
    match split(field, b':') {
        None | Some(([], _)) => false,
        Some((_, [])) if skip_empty => true,
        Some((label, value)) => {
            record.named(label, value);
            true
        }
    }
}
