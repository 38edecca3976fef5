//! One line of RFC 4180: fields by a delimiter, in quotes where they hold it, quotes doubled inside.
//!
//! Fields beyond the last column have the names `column_N`, counted from 1. A quote that does not close, or text behind one
//! that does, is no match, and so is a line of more than `FIELDS_MAX` fields.

use crate::record::Record;

/// A line has at most so many fields, or as many as columns have names.
const FIELDS_MAX: usize = 256;

/// The names of all fields that a line may have.
pub fn fields(columns: &[String]) -> Vec<String> {
    let beyond = (columns.len()..FIELDS_MAX).map(|column| format!("column_{}", column + 1));
    columns.iter().cloned().chain(beyond).collect()
}

/// `fields`: how many names there are.
pub fn read(line: &[u8], fields: usize, delimiter: u8, skip_empty: bool, record: &mut Record) -> bool {
    let mut rest = line;
    if line.is_empty() {
        return false;
    }
    for field in 0..fields {
        let Some(length) = read_field(rest, field, delimiter, skip_empty, record) else { return false };
        if length == rest.len() {
            return true;
        }
        rest = &rest[length + 1..];
    }
    false
}

/// Reads up to the delimiter or the end; returns how many bytes.
#[inline]
fn read_field(text: &[u8], field: usize, delimiter: u8, skip_empty: bool, record: &mut Record) -> Option<usize> {
    let (value, length) = match text.first() {
        Some(b'"') => {
            let end = 1 + memchr::memchr(b'"', &text[1..])?;
            match text.get(end + 1) {
                Some(b'"') => return read_doubled(text, field, delimiter, record),
                Some(byte) if *byte != delimiter => return None,
                _ => (&text[1..end], end + 1),
            }
        }
        _ => {
            let length = memchr::memchr(delimiter, text).unwrap_or(text.len());
            (&text[..length], length)
        }
    };
    if !value.is_empty() || !skip_empty {
        record.text(field, value);
    }
    Some(length)
}

/// The same where quotes stand in quotes.
fn read_doubled(text: &[u8], field: usize, delimiter: u8, record: &mut Record) -> Option<usize> {
    let mut value = std::mem::take(&mut record.scratch.text);
    value.clear();
    let length = undouble(text, delimiter, &mut value);
    if length.is_some() {
        record.text(field, &value);
    }
    record.scratch.text = value;
    length
}

fn undouble(text: &[u8], delimiter: u8, value: &mut Vec<u8>) -> Option<usize> {
    let mut at = 1;
    loop {
        let end = at + memchr::memchr(b'"', &text[at..])?;
        value.extend_from_slice(&text[at..end]);
        match text.get(end + 1) {
            Some(b'"') => value.push(b'"'),
            Some(byte) if *byte != delimiter => return None,
            _ => return Some(end + 1),
        }
        at = end + 2;
    }
}
