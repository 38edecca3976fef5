//! Second stage: walks the structural characters of one line, whatever its shape.
//!
//! In: the line and the offsets of the first stage. Out: spans, and whether the line is exactly one JSON object. Memory:
//! one entry per open container, at most [`DEPTH_MAX`].

use super::scalar::{escapes_valid, is_space, scalar_kind};
use super::set::{FieldSet, NONE};
use super::{DEPTH_MAX, Kind, Malformed, Span};

/// Second stage: walks the structural characters of one line.
pub(super) struct Walk<'a> {
    pub(super) line: &'a [u8],
    pub(super) index: &'a [u32],
    pub(super) fields: &'a FieldSet,
    pub(super) spans: &'a mut [Span],
    pub(super) key: &'a mut Vec<u8>,
    pub(super) stack: &'a mut Vec<Open>,
    pub(super) backslash: bool,
    pub(super) seen: u64,
    pub(super) duplicates: u64,
}

/// One open container.
#[derive(Clone, Copy)]
pub(super) struct Open {
    object: bool,
    /// Trie node whose keys are looked for here, or `NONE`.
    node: u8,
    /// Field that this container is the value of, or `NONE`.
    field: u8,
    start: u32,
}

impl Walk<'_> {
    /// Walks from the first brace to the last; `Ok` if the line is exactly one JSON object.
    pub(super) fn object(&mut self) -> Result<(), Malformed> {
        const BAD: Result<(), Malformed> = Err(Malformed::NotJson);
        let mut here = Open { object: true, node: 0, field: NONE, start: 0 };
        let mut at = 1;
        let open = self.index[0] as usize;
        if self.byte(open) != b'{' || !self.blank(0, open) {
            return BAD;
        }
        let mut prev = open + 1;
        let mut first = true;
        loop {
            // An item of the container: in an object, its key.
            let (mut field, mut child) = (NONE, NONE);
            let mut value = self.index[at] as usize;
            let mut byte = self.byte(value);
            let empty = first && byte == (if here.object { b'}' } else { b']' }) && self.blank(prev, value);
            if !empty {
                if here.object {
                    if byte != b'"' || !self.blank(prev, value) {
                        return BAD;
                    }
                    let close = self.index[at + 1] as usize;
                    let colon = self.index[at + 2] as usize;
                    if self.byte(colon) != b':' || !self.blank(close + 1, colon) {
                        return BAD;
                    }
                    (field, child) = self.enter_key(here.node, value + 1, close)?;
                    at += 3;
                    prev = colon + 1;
                    value = self.index[at] as usize;
                    byte = self.byte(value);
                }
                match byte {
                    b'"' => {
                        if !self.blank(prev, value) {
                            return BAD;
                        }
                        let close = self.index[at + 1] as usize;
                        at += 2;
                        prev = close + 1;
                        let escaped = self.backslash && memchr::memchr(b'\\', &self.line[value + 1..close]).is_some();
                        if escaped && !escapes_valid(&self.line[value + 1..close]) {
                            return BAD;
                        }
                        self.set(field, value + 1, close, if escaped { Kind::Escaped } else { Kind::Text });
                    }
                    b'{' | b'[' => {
                        if !self.blank(prev, value) {
                            return BAD;
                        }
                        if self.stack.len() + 1 >= DEPTH_MAX {
                            return Err(Malformed::TooDeep);
                        }
                        self.stack.push(here);
                        let object = byte == b'{';
                        here = Open { object, node: if object { child } else { NONE }, field, start: value as u32 };
                        at += 1;
                        prev = value + 1;
                        first = true;
                        continue;
                    }
                    b',' | b'}' | b']' => {
                        let (start, end) = self.trim(prev, value);
                        match scalar_kind(&self.line[start..end]) {
                            Some(kind) => self.set(field, start, end, kind),
                            None => return BAD,
                        }
                        prev = value;
                    }
                    _ => return BAD,
                }
            }
            // Behind an item: a comma, or the ends of containers.
            loop {
                let end = self.index[at] as usize;
                if !self.blank(prev, end) {
                    return BAD;
                }
                at += 1;
                prev = end + 1;
                match self.byte(end) {
                    b',' => break,
                    b'}' if here.object => {}
                    b']' if !here.object => {}
                    _ => return BAD,
                }
                self.set(here.field, here.start as usize, end + 1, if here.object { Kind::Object } else { Kind::Array });
                let Some(outer) = self.stack.pop() else {
                    let rest_is_blank = self.index[at] as usize == self.line.len() && self.blank(prev, self.line.len());
                    return if rest_is_blank { Ok(()) } else { BAD };
                };
                here = outer;
            }
            first = false;
        }
    }

    /// Looks a key up: (field, trie node of the value). Forgets what an earlier occurrence set.
    #[inline(always)]
    fn enter_key(&mut self, node: u8, start: usize, end: usize) -> Result<(u8, u8), Malformed> {
        let raw = &self.line[start..end];
        let escaped = self.backslash && memchr::memchr(b'\\', raw).is_some();
        if escaped && !escapes_valid(raw) {
            return Err(Malformed::NotJson);
        }
        if node == NONE {
            return Ok((NONE, NONE));
        }
        let node = &self.fields.nodes[node as usize];
        let found = if escaped {
            self.key.clear();
            crate::escape::unescape_into(raw, self.key);
            node.find(self.key)
        } else {
            node.find(raw)
        };
        if found == NONE {
            return Ok((NONE, NONE));
        }
        let entry = &node.entries[found as usize];
        let again = self.seen & entry.covers;
        if again != 0 {
            self.replace(again, entry.covers);
        }
        Ok((entry.field, entry.child))
    }

    /// A key came again: what it and all below it set before is void.
    #[cold]
    fn replace(&mut self, again: u64, covers: u64) {
        self.duplicates |= again;
        self.seen &= !covers;
        for (field, span) in self.spans.iter_mut().enumerate() {
            if again >> field & 1 == 1 {
                *span = Span::default();
            }
        }
    }

    #[inline(always)]
    fn set(&mut self, field: u8, start: usize, end: usize, kind: Kind) {
        if field != NONE {
            self.seen |= 1 << field;
            self.spans[field as usize] = Span { start: start as u32, end: end as u32, kind };
        }
    }

    /// The byte at a structural offset; 0 at the sentinels.
    #[inline(always)]
    fn byte(&self, at: usize) -> u8 {
        self.line.get(at).copied().unwrap_or(0)
    }

    /// Is there nothing but JSON white space in `start..end`?
    #[inline(always)]
    fn blank(&self, start: usize, end: usize) -> bool {
        start == end || (start < end && self.line[start..end].iter().all(|b| is_space(*b)))
    }

    #[inline(always)]
    fn trim(&self, mut start: usize, mut end: usize) -> (usize, usize) {
        while start < end && is_space(self.line[start]) {
            start += 1;
        }
        while start < end && is_space(self.line[end - 1]) {
            end -= 1;
        }
        (start, end)
    }
}
