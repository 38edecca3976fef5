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

use std::borrow::Cow;
use std::sync::Arc;

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

const NONE: u8 = u8::MAX;
const BUCKETS: usize = 256;

/// The fields that somebody asks for, by path. At most [`FIELDS_MAX`].
///
/// A path is a top-level key or keys joined by dots: `kubernetes.labels.tenant` finds the nested value, and
/// also a key that holds dots itself, at any depth.
#[derive(Debug)]
pub struct FieldSet {
    paths: Vec<String>,
    nodes: Vec<Node>,
}

/// The keys looked for in one object.
#[derive(Debug)]
struct Node {
    /// First entry of each bucket of [`bucket`].
    heads: [u8; BUCKETS],
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    key: Box<[u8]>,
    /// The key's first eight bytes, zeros behind its end: most comparisons end here.
    head: u64,
    field: u8,
    child: u8,
    /// Next entry of the bucket.
    next: u8,
    /// The fields at and below this key: what a second occurrence of the key replaces.
    covers: u64,
}

/// Spreads keys by length, first and last byte: enough to tell most keys from the few that are asked for.
#[inline(always)]
fn bucket(key: &[u8]) -> usize {
    match (key.first(), key.last()) {
        (Some(first), Some(last)) => (key.len() * 31 + *first as usize * 5 + *last as usize * 17) % BUCKETS,
        _ => 0,
    }
}

/// The first eight bytes of a key, zeros behind its end.
#[inline(always)]
fn head(key: &[u8]) -> u64 {
    match key.first_chunk::<8>() {
        Some(bytes) => u64::from_le_bytes(*bytes),
        None => key.iter().rev().fold(0, |head, byte| head << 8 | u64::from(*byte)),
    }
}

impl Node {
    fn new() -> Node {
        Node { heads: [NONE; BUCKETS], entries: Vec::new() }
    }

    #[inline(always)]
    fn find(&self, key: &[u8]) -> u8 {
        let mut at = self.heads[bucket(key)];
        if at == NONE {
            return NONE;
        }
        let head = head(key);
        while at != NONE {
            let entry = &self.entries[at as usize];
            if entry.head == head && entry.key.len() == key.len() && (key.len() <= 8 || entry.key[8..] == key[8..]) {
                return at;
            }
            at = entry.next;
        }
        NONE
    }

    fn find_or_add(&mut self, key: &[u8]) -> usize {
        let found = self.find(key);
        if found != NONE {
            return found as usize;
        }
        let at = self.entries.len();
        let slot = &mut self.heads[bucket(key)];
        self.entries.push(Entry { key: key.into(), head: head(key), field: NONE, child: NONE, next: *slot, covers: 0 });
        *slot = at as u8;
        at
    }
}

impl FieldSet {
    /// # Panics
    /// With more than [`FIELDS_MAX`] distinct paths; the plan refuses that before.
    pub fn new<S: AsRef<str>>(paths: &[S]) -> FieldSet {
        assert!(paths.len() <= FIELDS_MAX, "a plan names at most {FIELDS_MAX} fields");
        let mut set = FieldSet { paths: Vec::new(), nodes: vec![Node::new()] };
        for (field, path) in paths.iter().map(AsRef::as_ref).enumerate() {
            set.paths.push(path.to_string());
            let bit = 1 << field;
            let keys: Vec<&str> = path.split('.').collect();
            let mut node = 0;
            for depth in 0..keys.len() {
                // What is left of the path may stand here as one key: `log.level`, or a label's name with dots.
                let flat = set.nodes[node].find_or_add(keys[depth..].join(".").as_bytes());
                set.nodes[node].entries[flat].field = field as u8;
                set.nodes[node].entries[flat].covers |= bit;
                // Each nesting adds one node, and nodes are numbered by u8: deeper paths are found flat only.
                if depth + 1 == keys.len() || set.nodes.len() >= NONE as usize {
                    break;
                }
                let at = set.nodes[node].find_or_add(keys[depth].as_bytes());
                set.nodes[node].entries[at].covers |= bit;
                if set.nodes[node].entries[at].child == NONE {
                    set.nodes[node].entries[at].child = set.nodes.len() as u8;
                    set.nodes.push(Node::new());
                }
                node = set.nodes[node].entries[at].child as usize;
            }
        }
        set
    }

    pub fn len(&self) -> usize {
        self.paths.len()
    }

    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    pub fn paths(&self) -> &[String] {
        &self.paths
    }

    /// Index of a path in the set.
    pub fn index(&self, path: &str) -> Option<usize> {
        self.paths.iter().position(|p| p == path)
    }
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
}

/// Which first stage runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Portable,
    Avx2,
}

impl Level {
    /// The widest that this processor has.
    pub fn detect() -> Level {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi1") && is_x86_feature_detected!("bmi2") {
            return Level::Avx2;
        }
        Level::Portable
    }
}

/// What the first stage learned of a line besides the structural characters.
#[derive(Clone, Copy, Default)]
struct Traits {
    count: usize,
    backslash: bool,
    non_ascii: bool,
    /// A control character inside a string, or a string without end.
    broken: bool,
}

impl Scanner {
    pub fn new(fields: Arc<FieldSet>) -> Scanner {
        Scanner::with_level(fields, Level::detect())
    }

    /// For tests and benches: the same spans come out at every level.
    pub fn with_level(fields: Arc<FieldSet>, level: Level) -> Scanner {
        Scanner { fields, index: vec![0; 1024], key: Vec::new(), stack: Vec::with_capacity(DEPTH_MAX), level }
    }

    /// Finds the fields in one line (no newline inside).
    ///
    /// `spans`: one per field of the set, overwritten. If the shape is malformed, all are missing.
    pub fn scan(&mut self, line: &[u8], spans: &mut [Span]) -> Shape {
        debug_assert_eq!(spans.len(), self.fields.len());
        spans.fill(Span::default());
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
            Level::Avx2 => unsafe { avx2::find_structure(line, &mut self.index) },
            #[cfg(not(target_arch = "x86_64"))]
            Level::Avx2 => portable::find_structure(line, &mut self.index),
            Level::Portable => portable::find_structure(line, &mut self.index),
        };
        let end = line.len() as u32;
        self.index.resize(self.index.len().max(traits.count + 4), 0);
        self.index[traits.count..traits.count + 4].fill(end);
        traits.count += 4;
        traits
    }
}

/// Bits of one 64-byte block.
#[derive(Clone, Copy)]
struct Block {
    quote: u64,
    backslash: u64,
    /// `{}[]:,`, in or out of strings.
    op: u64,
    control: u64,
    non_ascii: u64,
}

/// What one block hands to the next.
#[derive(Default)]
struct Carry {
    /// The first byte of the next block is escaped.
    escaped: u64,
    /// All ones while inside a string.
    in_string: u64,
    backslash: u64,
    non_ascii: u64,
    control: u64,
}

impl Carry {
    /// Which characters of the block are structural. `valid`: the bits that belong to the line.
    #[inline(always)]
    fn structural(&mut self, block: Block, valid: u64) -> u64 {
        let escaped = if block.backslash & valid == 0 { std::mem::take(&mut self.escaped) } else { self.escapes(block.backslash & valid) };
        let quote = block.quote & valid & !escaped;
        let in_string = prefix_xor(quote) ^ self.in_string;
        self.in_string = ((in_string as i64) >> 63) as u64;
        self.backslash |= block.backslash & valid;
        self.non_ascii |= block.non_ascii & valid;
        self.control |= block.control & in_string & valid;
        (block.op & valid & !in_string) | quote
    }

    /// Which characters are escaped by a backslash before them. Method: simdjson.
    fn escapes(&mut self, backslash: u64) -> u64 {
        const ODD: u64 = 0xAAAA_AAAA_AAAA_AAAA;
        let potential = backslash & !self.escaped;
        let maybe = potential << 1;
        let codes = ((maybe | ODD).wrapping_sub(potential)) ^ ODD;
        let escaped = codes ^ (backslash | self.escaped);
        self.escaped = (codes & backslash) >> 63;
        escaped
    }

    fn traits(&self, count: usize) -> Traits {
        Traits { count, backslash: self.backslash != 0, non_ascii: self.non_ascii != 0, broken: self.control != 0 || self.in_string != 0 }
    }
}

/// Bit i of the result is the parity of the bits 0..=i.
#[inline(always)]
fn prefix_xor(mut bits: u64) -> u64 {
    bits ^= bits << 1;
    bits ^= bits << 2;
    bits ^= bits << 4;
    bits ^= bits << 8;
    bits ^= bits << 16;
    bits ^ (bits << 32)
}

/// Writes the positions of the set bits behind `count` and returns the new count.
#[inline(always)]
fn push_bits(index: &mut Vec<u32>, count: usize, base: usize, mut bits: u64) -> usize {
    if index.len() < count + 64 {
        index.resize((count + 64) * 2, 0);
    }
    let out = &mut index[count..count + 64];
    let found = bits.count_ones() as usize;
    for slot in &mut out[..found] {
        *slot = (base as u32).wrapping_add(bits.trailing_zeros());
        bits &= bits.wrapping_sub(1);
    }
    count + found
}

mod portable {
    //! The first stage without vector instructions: one table look-up per byte.
    use super::{Block, Carry, Traits, push_bits};

    const QUOTE: u8 = 1;
    const BACKSLASH: u8 = 2;
    const OP: u8 = 4;
    const CONTROL: u8 = 8;
    const NON_ASCII: u8 = 16;

    const CLASSES: [u8; 256] = {
        let mut classes = [0; 256];
        let mut byte = 0;
        while byte < 256 {
            classes[byte] = match byte as u8 {
                b'"' => QUOTE,
                b'\\' => BACKSLASH,
                b'{' | b'}' | b'[' | b']' | b':' | b',' => OP,
                0..=0x1f => CONTROL,
                0x80.. => NON_ASCII,
                _ => 0,
            };
            byte += 1;
        }
        classes
    };

    pub fn find_structure(line: &[u8], index: &mut Vec<u32>) -> Traits {
        let mut carry = Carry::default();
        let mut count = 0;
        for (n, bytes) in line.chunks(64).enumerate() {
            let mut block = Block { quote: 0, backslash: 0, op: 0, control: 0, non_ascii: 0 };
            for (i, byte) in bytes.iter().enumerate() {
                let class = u64::from(CLASSES[*byte as usize]);
                block.quote |= (class & 1) << i;
                block.backslash |= (class >> 1 & 1) << i;
                block.op |= (class >> 2 & 1) << i;
                block.control |= (class >> 3 & 1) << i;
                block.non_ascii |= (class >> 4 & 1) << i;
            }
            let valid = u64::MAX >> (64 - bytes.len());
            let bits = carry.structural(block, valid);
            count = push_bits(index, count, n * 64, bits);
        }
        carry.traits(count)
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    //! The first stage with 32-byte vectors.
    use super::{Block, Carry, Traits, push_bits};
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
    pub fn find_structure(line: &[u8], index: &mut Vec<u32>) -> Traits {
        let mut carry = Carry::default();
        let mut count = 0;
        let mut base = 0;
        let (blocks, rest) = line.as_chunks::<64>();
        for bytes in blocks {
            let bits = carry.structural(classify(bytes), u64::MAX);
            count = push_bits(index, count, base, bits);
            base += 64;
        }
        if !rest.is_empty() {
            let mut bytes = [b' '; 64];
            bytes[..rest.len()].copy_from_slice(rest);
            let bits = carry.structural(classify(&bytes), u64::MAX >> (64 - rest.len()));
            count = push_bits(index, count, base, bits);
        }
        carry.traits(count)
    }

    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
    fn classify(bytes: &[u8; 64]) -> Block {
        let (low, high) = bytes.split_at(32);
        #[expect(unsafe_code, reason = "each half of the array is 32 bytes, and the load needs no alignment")]
        let (low, high) = unsafe { (_mm256_loadu_si256(low.as_ptr().cast()), _mm256_loadu_si256(high.as_ptr().cast())) };
        let a = classify_half(low);
        let b = classify_half(high);
        let join = |a: u32, b: u32| u64::from(a) | u64::from(b) << 32;
        Block { quote: join(a.0, b.0), backslash: join(a.1, b.1), op: join(a.2, b.2), control: join(a.3, b.3), non_ascii: join(a.4, b.4) }
    }

    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
    fn classify_half(v: __m256i) -> (u32, u32, u32, u32, u32) {
        let is = |byte: u8| _mm256_cmpeq_epi8(v, _mm256_set1_epi8(byte as i8));
        let bits = |m: __m256i| _mm256_movemask_epi8(m) as u32;
        // '[' | 0x20 is '{' and ']' | 0x20 is '}': one comparison finds both.
        let lower = _mm256_or_si256(v, _mm256_set1_epi8(0x20));
        let brackets =
            _mm256_or_si256(_mm256_cmpeq_epi8(lower, _mm256_set1_epi8(b'{' as i8)), _mm256_cmpeq_epi8(lower, _mm256_set1_epi8(b'}' as i8)));
        let op = _mm256_or_si256(brackets, _mm256_or_si256(is(b':'), is(b',')));
        let control = _mm256_cmpeq_epi8(_mm256_min_epu8(v, _mm256_set1_epi8(0x1f)), v);
        (bits(is(b'"')), bits(is(b'\\')), bits(op), bits(control), bits(v))
    }
}

/// Second stage: walks the structural characters of one line.
struct Walk<'a> {
    line: &'a [u8],
    index: &'a [u32],
    fields: &'a FieldSet,
    spans: &'a mut [Span],
    key: &'a mut Vec<u8>,
    stack: &'a mut Vec<Open>,
    backslash: bool,
    seen: u64,
    duplicates: u64,
}

/// One open container.
#[derive(Clone, Copy)]
struct Open {
    object: bool,
    /// Trie node whose keys are looked for here, or `NONE`.
    node: u8,
    /// Field that this container is the value of, or `NONE`.
    field: u8,
    start: u32,
}

impl Walk<'_> {
    /// Walks from the first brace to the last; `Ok` if the line is exactly one JSON object.
    fn object(&mut self) -> Result<(), Malformed> {
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

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// Number, true, false or null; `None` for anything else.
#[inline(always)]
fn scalar_kind(text: &[u8]) -> Option<Kind> {
    match text.first()? {
        b'0'..=b'9' | b'-' => number_valid(text).then_some(Kind::Number),
        b't' => (text == b"true").then_some(Kind::True),
        b'f' => (text == b"false").then_some(Kind::False),
        b'n' => (text == b"null").then_some(Kind::Null),
        _ => None,
    }
}

/// The grammar of RFC 8259, section 6.
fn number_valid(text: &[u8]) -> bool {
    let digits = |from: usize| from + text[from..].iter().take_while(|b| b.is_ascii_digit()).count();
    let start = usize::from(text[0] == b'-');
    let mut at = digits(start);
    if at == start || (text[start] == b'0' && at > start + 1) {
        return false;
    }
    if text.get(at) == Some(&b'.') {
        let end = digits(at + 1);
        if end == at + 1 {
            return false;
        }
        at = end;
    }
    if matches!(text.get(at), Some(b'e' | b'E')) {
        at += 1;
        at += usize::from(matches!(text.get(at), Some(b'+' | b'-')));
        let end = digits(at);
        if end == at {
            return false;
        }
        at = end;
    }
    at == text.len()
}

/// Are all escapes of a string's content among those of RFC 8259, section 7?
fn escapes_valid(mut text: &[u8]) -> bool {
    while let Some(at) = memchr::memchr(b'\\', text) {
        let used = match text.get(at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 2,
            Some(b'u') => match text.get(at + 2..at + 6) {
                Some(hex) if hex.iter().all(u8::is_ascii_hexdigit) => 6,
                _ => return false,
            },
            _ => return false,
        };
        text = &text[at + used..];
    }
    true
}

#[cfg(test)]
mod tests;
