//! `key=value key="quoted \" value" bare`.
//!
//! A name is a run of bytes above the blank other than `=` and `"`; a value without quotes ends at a blank. A bare name and
//! `k=` are true, `k=""` is empty. In quotes `\` escapes as in C and JSON. No name at all, a value without a name, and a quote
//! that does not close are no match.

use crate::record::Record;

pub fn read(line: &[u8], bare_keys: bool, record: &mut Record) -> bool {
    let mut rest = skip_blanks(line);
    if rest.is_empty() {
        return false;
    }
    while !rest.is_empty() {
        match pair(rest, bare_keys, record) {
            Some(next) => rest = skip_blanks(next),
            None => return false,
        }
    }
    true
}

fn skip_blanks(text: &[u8]) -> &[u8] {
    &text[run(text, |b| b <= b' ')..]
}

#[inline]
fn run(text: &[u8], belongs: impl Fn(u8) -> bool) -> usize {
    text.iter().position(|b| !belongs(*b)).unwrap_or(text.len())
}

/// Reads one pair; returns what follows it.
#[inline]
fn pair<'l>(text: &'l [u8], bare_keys: bool, record: &mut Record) -> Option<&'l [u8]> {
    let (name, rest) = text.split_at(run(text, |b| b > b' ' && b != b'=' && b != b'"'));
    if name.is_empty() {
        return None;
    }
    match rest {
        [b'=', b'"', rest @ ..] => quoted(name, rest, record),
        [b'=', rest @ ..] => {
            let (value, rest) = rest.split_at(run(rest, |b| b > b' '));
            match value {
                [] => record.named_true(name),
                value => record.named(name, value),
            }
            Some(rest)
        }
        rest if bare_keys => {
            record.named_true(name);
            Some(rest)
        }
        _ => None,
    }
}

#[inline]
fn quoted<'l>(name: &[u8], text: &'l [u8], record: &mut Record) -> Option<&'l [u8]> {
    let end = memchr::memchr2(b'"', b'\\', text)?;
    if text[end] == b'"' {
        record.named(name, &text[..end]);
        return Some(&text[end + 1..]);
    }
    let end = end + closing_quote(&text[end..])?;
    record.unescaped(&text[..end], |record, value| record.named(name, value));
    Some(&text[end + 1..])
}

/// Where the quote stands that no backslash is before.
pub fn closing_quote(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += memchr::memchr2(b'"', b'\\', text.get(at..)?)?;
        match text[at] {
            b'"' => return Some(at),
            _ => at += 2,
        }
    }
}
