//! The one structural pass over a record: finds the fields somebody asks for, as spans; builds nothing.
//!
//! In: one line and the set of fields that the plan names. Out: a span per field and the line's shape.
//! The pass always reaches the closing brace: structure, numbers, literals and escapes are checked as
//! strictly as serde_json does (the differential test holds it to that), escapes in keys are honoured,
//! the last duplicate wins and is told. Memory: 4 bytes of scratch per structural character of the
//! longest line; nesting stops at [`DEPTH_MAX`].
//!
//! Method: simdjson's first stage (Langdale and Lemire 2019) per line: 64-byte blocks give bit masks of
//! quotes, escapes and structural characters; a prefix xor of the quotes gives what lies inside strings.
//! The second stage walks the structural characters only. The vector width is chosen at run time.

mod flat;
mod index;
mod scalar;
mod set;
pub(crate) mod skip;
mod walk;

pub use index::Level;
pub use set::FieldSet;

use index::Traits;
use std::borrow::Cow;
use std::sync::Arc;
use walk::{Open, Walk};

/// What a span points at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    #[default]
    Missing,
    /// A string without escapes; the span is what stands between the quotes.
    Text,
    /// A string with escapes; the span is what stands between the quotes, still escaped.
    Escaped,
    Number,
    True,
    False,
    Null,
    /// The span covers the brackets.
    Object,
    /// The span covers the brackets.
    Array,
}

/// Where a field's value lies in its line, in bytes from the start of the line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    pub start: u32,
    pub end: u32,
    pub kind: Kind,
}

impl Span {
    /// The bytes as they stand in the line (a string without its quotes, still escaped).
    pub fn raw<'a>(&self, line: &'a [u8]) -> &'a [u8] {
        &line[self.start as usize..self.end as usize]
    }

    /// The value as text: strings unescaped, numbers and literals as written, objects and arrays as their
    /// JSON. `None` for a missing field and for null.
    pub fn text<'a>(&self, line: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        match self.kind {
            Kind::Missing | Kind::Null => None,
            Kind::Escaped => Some(Cow::Owned(unescaped(self.raw(line)))),
            _ => Some(Cow::Borrowed(self.raw(line))),
        }
    }
}

fn unescaped(raw: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(raw.len());
    crate::escape::unescape_into(raw, &mut text);
    text
}

/// Why a line is no record of fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Not exactly one JSON object.
    NotJson,
    /// Nested deeper than [`DEPTH_MAX`].
    TooDeep,
}

/// Deepest nesting that is read, as in serde_json.
pub const DEPTH_MAX: usize = 127;
/// Most fields that one plan can name: one bit each.
pub const FIELDS_MAX: usize = 64;

/// What one scan found besides the spans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    pub malformed: Option<Malformed>,
    /// Bit i: field i occurred more than once; the span is the last one.
    pub duplicates: u64,
    /// The line holds bytes that are no UTF-8.
    pub invalid_utf8: bool,
}

/// Finds fields in lines. Holds scratch space; one per thread.
pub struct Scanner {
    fields: Arc<FieldSet>,
    /// Offsets of the structural characters of the line, then two sentinels.
    index: Vec<u32>,
    /// A key with escapes, unescaped.
    key: Vec<u8>,
    /// Open containers: kept between lines so that nobody fills it anew.
    stack: Vec<Open>,
    level: Level,
    /// Lines to leave to the walk before a flat one is expected again, and how many the next miss will add.
    not_flat: u32,
    not_flat_next: u32,
}

/// After many lines in a row that are not flat, one in so many is still tried as a flat one.
const NOT_FLAT_MAX: u32 = 256;

impl Scanner {
    pub fn fields(&self) -> &Arc<FieldSet> {
        &self.fields
    }

    pub fn new(fields: Arc<FieldSet>) -> Scanner {
        Scanner::with_level(fields, Level::detect())
    }

    /// For tests and benches: the same spans come out at every level.
    pub fn with_level(fields: Arc<FieldSet>, level: Level) -> Scanner {
        Scanner {
            fields,
            index: vec![0; 1024],
            key: Vec::new(),
            stack: Vec::with_capacity(DEPTH_MAX),
            level,
            not_flat: 0,
            not_flat_next: 0,
        }
    }

    /// Finds the fields in one line (no newline inside).
    ///
    /// `spans`: one per field of the set, overwritten. If the shape is malformed, all are missing.
    pub fn scan(&mut self, line: &[u8], spans: &mut [Span]) -> Shape {
        self.scan_in(line, 0, line.len(), spans)
    }

    /// [`Scanner::scan`] of the line `arena[start..end]`. What stands behind it may be read, and does not matter: that is
    /// cheaper than to copy the line's end.
    pub fn scan_in(&mut self, arena: &[u8], start: usize, end: usize, spans: &mut [Span]) -> Shape {
        debug_assert_eq!(spans.len(), self.fields.len());
        spans.fill(Span::default());
        #[cfg(target_arch = "x86_64")]
        if self.level == Level::Avx2 {
            if self.not_flat > 0 {
                self.not_flat -= 1;
            } else if let Some(shape) = self.scan_flat(arena, start, end, spans) {
                return shape;
            }
        }
        self.scan_any(&arena[start..end], spans)
    }

    /// Takes the line if it is as most are.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn scan_flat(&mut self, arena: &[u8], start: usize, end: usize, spans: &mut [Span]) -> Option<Shape> {
        #[expect(unsafe_code, reason = "Level::Avx2 exists only after the features were detected")]
        let found = unsafe { flat::avx2::scan(&self.fields, &mut self.index, arena, start, end, spans) };
        let Some(flat) = found else {
            spans.fill(Span::default());
            self.not_flat = self.not_flat_next;
            self.not_flat_next = (self.not_flat_next * 2 + 1).min(NOT_FLAT_MAX);
            return None;
        };
        self.not_flat_next = 0;
        Some(Shape { invalid_utf8: flat.non_ascii && std::str::from_utf8(&arena[start..end]).is_err(), ..Shape::default() })
    }

    /// Takes any line.
    fn scan_any(&mut self, line: &[u8], spans: &mut [Span]) -> Shape {
        let traits = self.find_structure(line);
        let mut shape = Shape { invalid_utf8: traits.non_ascii && std::str::from_utf8(line).is_err(), ..Shape::default() };
        if traits.broken {
            shape.malformed = Some(Malformed::NotJson);
            return shape;
        }
        self.stack.clear();
        let mut walk = Walk {
            line,
            index: &self.index,
            fields: &self.fields,
            spans,
            key: &mut self.key,
            stack: &mut self.stack,
            backslash: traits.backslash,
            seen: 0,
            duplicates: 0,
        };
        let result = walk.object();
        shape.duplicates = walk.duplicates;
        if let Err(malformed) = result {
            spans.fill(Span::default());
            shape.malformed = Some(malformed);
            shape.duplicates = 0;
        }
        shape
    }

    /// First stage: fills `index` with the offsets of `"{}[]:,` that have meaning, and two sentinels.
    fn find_structure(&mut self, line: &[u8]) -> Traits {
        let mut traits = match self.level {
            #[cfg(target_arch = "x86_64")]
            #[expect(unsafe_code, reason = "Level::Avx2 exists only after the features were detected")]
            Level::Avx2 => unsafe { index::avx2::find_structure(line, &mut self.index) },
            #[cfg(not(target_arch = "x86_64"))]
            Level::Avx2 => index::portable::find_structure(line, &mut self.index),
            Level::Portable => index::portable::find_structure(line, &mut self.index),
        };
        let end = line.len() as u32;
        self.index.resize(self.index.len().max(traits.count + 4), 0);
        self.index[traits.count..traits.count + 4].fill(end);
        traits.count += 4;
        traits
    }
}

#[cfg(test)]
mod tests;
