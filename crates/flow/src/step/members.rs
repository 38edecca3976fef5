//! Walks over the bytes of a JSON object: its members, and the object written anew with some of them changed.
//!
//! In: a line that the scanner took as one well-formed object. Out: ranges of its members, or a new object. What nobody
//! changes keeps its bytes, but for white space between members. Paths are keys joined by dots, so that `a.b` is found nested
//! and as one key, as [`crate::fields::FieldSet`] does. Nesting is bounded by the scanner ([`crate::fields::DEPTH_MAX`]).

use crate::escape::unescape_into;
use crate::fields::skip::{skip_blanks, skip_value};
use std::ops::Range;

/// What becomes of a member or an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Keep,
    /// The value was written by the visitor.
    Written,
    /// The visitor wrote another key; the value follows.
    Renamed,
    Drop,
}

pub trait Visit {
    /// Asked for each member before its value. `Written`: the visitor wrote key, colon and value.
    fn member(&mut self, path: &[u8], key: &[u8], value: &[u8], out: &mut Vec<u8>) -> Fate {
        let _ = (path, key, value, out);
        Fate::Keep
    }

    /// Asked for each string, number and literal; `token` is as it stands, a string with its quotes.
    fn scalar(&mut self, path: &[u8], token: &[u8], out: &mut Vec<u8>) -> Fate {
        let _ = (path, token, out);
        Fate::Keep
    }
}

/// Appends the object in `line` as `visit` wants it.
pub fn rewrite(line: &[u8], visit: &mut impl Visit, out: &mut Vec<u8>) {
    let at = skip_blanks(line, 0);
    let mut path = Vec::new();
    value(line, at, &mut path, visit, out);
}

/// Appends the value at `at`; the offset behind it, and whether it is to go.
fn value(line: &[u8], at: usize, path: &mut Vec<u8>, visit: &mut impl Visit, out: &mut Vec<u8>) -> (usize, bool) {
    match line.get(at) {
        Some(b'{') => (object(line, at, path, visit, out), false),
        Some(b'[') => (array(line, at, path, visit, out), false),
        _ => {
            let end = skip_value(line, at);
            let fate = visit.scalar(path, &line[at..end], out);
            if fate == Fate::Keep {
                out.extend_from_slice(&line[at..end]);
            }
            (end, fate == Fate::Drop)
        }
    }
}

fn object(line: &[u8], at: usize, path: &mut Vec<u8>, visit: &mut impl Visit, out: &mut Vec<u8>) -> usize {
    out.push(b'{');
    let empty = out.len();
    let mut at = skip_blanks(line, at + 1);
    let depth = path.len();
    while line.get(at) == Some(&b'"') {
        let key = string(line, at);
        let start = skip_blanks(line, skip_blanks(line, key.end) + 1);
        let before = out.len();
        if before > empty {
            out.push(b',');
        }
        if depth > 0 {
            path.push(b'.');
        }
        unescape_into(&line[key.start + 1..key.end - 1], path);
        let end = skip_value(line, start);
        let (end, drops) = match visit.member(path, &line[key.clone()], &line[start..end], out) {
            Fate::Drop => (end, true),
            Fate::Written => (end, false),
            Fate::Renamed => {
                out.push(b':');
                value(line, start, path, visit, out)
            }
            Fate::Keep => {
                out.extend_from_slice(&line[key]);
                out.push(b':');
                value(line, start, path, visit, out)
            }
        };
        if drops {
            out.truncate(before);
        }
        path.truncate(depth);
        at = skip_blanks(line, end);
        if line.get(at) != Some(&b',') {
            break;
        }
        at = skip_blanks(line, at + 1);
    }
    out.push(b'}');
    at + 1
}

fn array(line: &[u8], at: usize, path: &mut Vec<u8>, visit: &mut impl Visit, out: &mut Vec<u8>) -> usize {
    out.push(b'[');
    let empty = out.len();
    let mut at = skip_blanks(line, at + 1);
    while at < line.len() && line[at] != b']' {
        let before = out.len();
        if before > empty {
            out.push(b',');
        }
        let (end, drops) = value(line, at, path, visit, out);
        if drops {
            out.truncate(before);
        }
        at = skip_blanks(line, end);
        if line.get(at) == Some(&b',') {
            at = skip_blanks(line, at + 1);
        }
    }
    out.push(b']');
    at + 1
}

/// The members of the object in `line`, as (key with its quotes, value), in the order they stand in.
pub fn members(line: &[u8], found: &mut Vec<(Range<usize>, Range<usize>)>) {
    found.clear();
    let mut at = skip_blanks(line, skip_blanks(line, 0) + 1);
    while line.get(at) == Some(&b'"') {
        let key = string(line, at);
        let start = skip_blanks(line, skip_blanks(line, key.end) + 1);
        let end = skip_value(line, start);
        found.push((key, start..end));
        at = skip_blanks(line, end);
        if line.get(at) != Some(&b',') {
            break;
        }
        at = skip_blanks(line, at + 1);
    }
}

fn string(line: &[u8], at: usize) -> Range<usize> {
    at..skip_value(line, at)
}
