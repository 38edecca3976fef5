//! The common line in one go: a flat object without white space between its parts.
//!
//! In: a line within its arena. Out: its spans, or `None` for a line that is anything else (nested, spaced, with a key
//! twice, with escapes in a key, malformed): the walk then has the last word, so nothing is refused here. Every line
//! that is taken was checked as strictly as the walk does it. Memory: the scanner's index, two entries per field.
//!
//! Method: between its outer braces a flat object is `key : value , key : value`. Bit masks of 64 bytes check for all parts
//! of a block at once that a string opens behind the brace and each comma, and that a closing quote is followed by an
//! operator; operators are colon and comma in turn. What is left for the loop over fields is to look whether they are, to
//! look keys up, and to read values that are no strings.

use super::set::{FieldSet, NONE, Node};
use super::{Kind, Span};

/// What a flat line turned out to be, besides its spans.
pub(super) struct Flat {
    pub(super) non_ascii: bool,
}

/// Where the backslashes of a line stand: the first and the last; none where `first > last`.
#[derive(Clone, Copy)]
struct Backslashes {
    first: usize,
    last: usize,
}

impl Backslashes {
    /// May there be one in `start..end`?
    #[inline(always)]
    fn reach(self, start: usize, end: usize) -> bool {
        self.first < end && self.last >= start
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) mod avx2 {
    use super::super::index::{Carry, push_bits};
    use super::super::scalar::{escapes_valid, scalar_kind};
    use super::*;
    use std::arch::x86_64::*;

    /// Finds the fields of the line `arena[start..end]`.
    ///
    /// `spans` must hold defaults; where `None` is returned they hold anything.
    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt,pclmulqdq")]
    pub fn scan(fields: &FieldSet, index: &mut Vec<u32>, arena: &[u8], start: usize, end: usize, spans: &mut [Span]) -> Option<Flat> {
        let line = &arena[start..end];
        let [b'{', inner @ .., b'}'] = line else { return None };
        if inner.is_empty() {
            return Some(Flat { non_ascii: false });
        }
        let mut masks = Masks::default();
        let mut seen = Seen { low: _mm256_set1_epi8(b' ' as i8), any: _mm256_setzero_si256() };
        let mut count = 0;
        let mut at = 1; // offsets are those of the line
        while at + 1 < line.len() {
            let keep = (line.len() - 1 - at).min(64);
            // Behind the line there is most often another: its bytes are loaded and blanked.
            let halves = blank_behind(load_some(arena, start + at, keep), keep);
            let bits = masks.next(seen.classify(halves), at, _bzhi_u64(u64::MAX, keep as u32));
            count = push_bits(index, count, at, bits);
            at += 64;
        }
        if masks.bad != 0 || masks.carry.in_string() || count % 2 == 0 || seen.control() {
            return None;
        }
        index[count] = (line.len() - 1) as u32;
        let escaped = masks.backslashes.first != usize::MAX;
        if escaped && !escapes_valid(&line[masks.backslashes.first..]) {
            return None;
        }
        let mut walk = Walk { root: &fields.nodes[0], line, backslashes: masks.backslashes, spans, seen: 0 };
        if escaped {
            walk.run::<true>(&index[..count + 1])?
        } else {
            walk.run::<false>(&index[..count + 1])?
        }
        Some(Flat { non_ascii: seen.non_ascii() })
    }

    /// The loop over fields.
    struct Walk<'a> {
        root: &'a Node,
        line: &'a [u8],
        backslashes: Backslashes,
        spans: &'a mut [Span],
        /// Bit per field found.
        seen: u64,
    }

    impl Walk<'_> {
        /// `ops`: offsets of a colon, a comma, a colon, ..., the closing brace. `None`: another shape.
        ///
        /// The masks showed that quotes stand behind each comma, before each colon, and around a value that begins with one.
        #[inline]
        #[target_feature(enable = "avx2,bmi1,bmi2,popcnt,pclmulqdq")]
        fn run<const ESCAPED: bool>(&mut self, ops: &[u32]) -> Option<()> {
            let (line, root) = (self.line, self.root);
            let end = line.len() - 1;
            let mut key_at = 2;
            for [colon, stop] in ops.as_chunks::<2>().0 {
                let (colon, stop) = (*colon as usize, *stop as usize);
                let [mark, first] = *line.get(colon..)?.first_chunk::<2>()?;
                if mark != b':' || (*line.get(stop)? != b',' && stop != end) {
                    return None; // a bracket, or the two in the wrong place
                }
                let key = line.get(key_at..colon - 1)?;
                if ESCAPED && self.backslashes.reach(key_at, colon) && memchr::memchr(b'\\', key).is_some() {
                    return None;
                }
                let candidate = root.first(key);
                let kind = if first == b'"' { Kind::Text } else { scalar(line, colon + 1, stop)? };
                if candidate != NONE {
                    self.take::<ESCAPED>(candidate, key, kind, colon + 1, stop)?;
                }
                key_at = stop + 2;
            }
            Some(())
        }

        /// Sets the field, if the key is that of one. `from..to`: the value, with its quotes.
        #[inline(always)]
        fn take<const ESCAPED: bool>(&mut self, candidate: u8, key: &[u8], mut kind: Kind, mut from: usize, mut to: usize) -> Option<()> {
            let found = self.root.find_from(candidate, key);
            if found == NONE {
                return Some(());
            }
            let entry = &self.root.entries[found as usize];
            if self.seen & entry.covers != 0 {
                return None; // a key twice
            }
            if entry.field == NONE {
                return Some(());
            }
            self.seen |= 1 << entry.field;
            if kind == Kind::Text {
                (from, to) = (from + 1, to - 1);
                if ESCAPED && self.backslashes.reach(from, to) && memchr::memchr(b'\\', &self.line[from..to]).is_some() {
                    kind = Kind::Escaped;
                }
            }
            self.spans[entry.field as usize] = Span { start: from as u32, end: to as u32, kind };
            Some(())
        }
    }

    /// A number, true, false or null that fills `line[from..to]`. Short numbers are looked at 16 bytes at a time.
    #[inline(never)]
    fn scalar(line: &[u8], from: usize, to: usize) -> Option<Kind> {
        let length = to - from;
        if let (1..=16, Some(bytes)) = (length, line[from..].first_chunk::<16>()) {
            let word = u128::from_le_bytes(*bytes);
            let others = not_digits(word) & (u32::MAX >> (32 - length));
            let leading_zero = word as u8 == b'0';
            if others == 0 {
                return (length == 1 || !leading_zero).then_some(Kind::Number);
            }
            let point = others.trailing_zeros() as usize;
            let is_point = others & (others - 1) == 0 && (word >> (point * 8)) as u8 == b'.';
            if is_point && point > 0 && point + 1 < length && (point == 1 || !leading_zero) {
                return Some(Kind::Number);
            }
        }
        scalar_kind(&line[from..to])
    }

    /// Bit i: byte i is no digit.
    #[inline(always)]
    fn not_digits(word: u128) -> u32 {
        #[expect(unsafe_code, reason = "SSE2 is part of x86-64; no memory is touched")]
        unsafe {
            let offset = _mm_sub_epi8(_mm_set_epi64x((word >> 64) as i64, word as i64), _mm_set1_epi8(b'0' as i8));
            !_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_min_epu8(offset, _mm_set1_epi8(9)), offset)) as u32
        }
    }

    #[inline]
    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt,pclmulqdq")]
    fn load(bytes: &[u8; 64]) -> (__m256i, __m256i) {
        let (low, high) = bytes.split_at(32);
        #[expect(unsafe_code, reason = "each half of the array is 32 bytes, and the load needs no alignment")]
        unsafe {
            (_mm256_loadu_si256(low.as_ptr().cast()), _mm256_loadu_si256(high.as_ptr().cast()))
        }
    }

    /// 64 bytes from `at` on, of which the first `count` are there for sure.
    #[inline]
    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt,pclmulqdq")]
    fn load_some(arena: &[u8], at: usize, count: usize) -> (__m256i, __m256i) {
        match arena[at..].first_chunk() {
            Some(bytes) => load(bytes),
            None => {
                let mut bytes = [b' '; 64];
                bytes[..count].copy_from_slice(&arena[at..at + count]);
                load(&bytes)
            }
        }
    }

    /// Makes all but the first `keep` bytes blanks.
    #[inline]
    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt,pclmulqdq")]
    fn blank_behind((low, high): (__m256i, __m256i), keep: usize) -> (__m256i, __m256i) {
        const STEPS: [u8; 128] = {
            let mut steps = [0; 128];
            let mut at = 0;
            while at < 64 {
                steps[at] = 0xff;
                at += 1;
            }
            steps
        };
        let (keep_low, keep_high) = load(STEPS[64 - keep..].first_chunk().expect("64 bytes are left"));
        let blank = _mm256_set1_epi8(b' ' as i8);
        (_mm256_blendv_epi8(blank, low, keep_low), _mm256_blendv_epi8(blank, high, keep_high))
    }

    /// Bits of one block.
    #[derive(Clone, Copy)]
    struct Bits {
        quote: u64,
        backslash: u64,
        /// `{}[]:,`, in or out of strings.
        op: u64,
    }

    /// What matters of all bytes together.
    struct Seen {
        /// The smallest byte in each column.
        low: __m256i,
        any: __m256i,
    }

    impl Seen {
        #[inline]
        #[target_feature(enable = "avx2,bmi1,bmi2,popcnt,pclmulqdq")]
        fn classify(&mut self, (low, high): (__m256i, __m256i)) -> Bits {
            self.low = _mm256_min_epu8(self.low, _mm256_min_epu8(low, high));
            self.any = _mm256_or_si256(self.any, _mm256_or_si256(low, high));
            let is = |byte: u8| {
                let byte = _mm256_set1_epi8(byte as i8);
                join(_mm256_cmpeq_epi8(low, byte), _mm256_cmpeq_epi8(high, byte))
            };
            // The low half of a byte chooses the one operator it can be; `| 0x20` makes a brace of a bracket.
            // What else meets there is a control character, which no flat line has.
            let table = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x3a, 0x7b, 0x2c, 0x7d, 0, 0));
            let lower = _mm256_set1_epi8(0x20);
            let is_op = |v: __m256i| _mm256_cmpeq_epi8(_mm256_or_si256(v, lower), _mm256_shuffle_epi8(table, v));
            Bits { quote: is(b'"'), backslash: is(b'\\'), op: join(is_op(low), is_op(high)) }
        }

        #[inline]
        #[target_feature(enable = "avx2,bmi1,bmi2,popcnt,pclmulqdq")]
        fn control(&self) -> bool {
            let blank = _mm256_set1_epi8(b' ' as i8);
            _mm256_movemask_epi8(_mm256_cmpeq_epi8(_mm256_min_epu8(self.low, blank), blank)) != -1
        }

        #[inline]
        #[target_feature(enable = "avx2,bmi1,bmi2,popcnt,pclmulqdq")]
        fn non_ascii(&self) -> bool {
            _mm256_movemask_epi8(self.any) != 0
        }
    }

    #[inline]
    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt,pclmulqdq")]
    fn join(low: __m256i, high: __m256i) -> u64 {
        u64::from(_mm256_movemask_epi8(low) as u32) | u64::from(_mm256_movemask_epi8(high) as u32) << 32
    }

    /// The order of a flat object, checked block by block.
    struct Masks {
        carry: Carry,
        /// Operators and closing quotes of the block before.
        op: u64,
        close: u64,
        /// All ones if the next operator is a comma.
        comma_next: u64,
        backslashes: Backslashes,
        bad: u64,
    }

    impl Default for Masks {
        fn default() -> Masks {
            Masks {
                carry: Carry::default(),
                op: 1 << 63, // the opening brace is like a comma
                close: 0,
                comma_next: 0,
                backslashes: Backslashes { first: usize::MAX, last: 0 },
                bad: 0,
            }
        }
    }

    impl Masks {
        /// Returns the operators outside of strings. `valid`: the bits that belong to the line.
        #[inline]
        #[target_feature(enable = "avx2,bmi1,bmi2,popcnt,pclmulqdq")]
        fn next(&mut self, bits: Bits, at: usize, valid: u64) -> u64 {
            let mut quote = bits.quote;
            if bits.backslash | self.carry.escaped != 0 {
                quote &= !self.escapes(bits.backslash, at);
            }
            // From each opening quote to before its closing one.
            let in_string = prefix_xor(quote) ^ self.carry.in_string;
            self.carry.in_string = ((in_string as i64) >> 63) as u64;
            let op = bits.op & !in_string;
            // If the order is right, every other operator is a colon; the loop over fields looks at each. Behind a colon,
            // and from it on, the parity is odd.
            let odd = prefix_xor(op) ^ self.comma_next;
            self.comma_next = ((odd as i64) >> 63) as u64;
            let (open, close) = (quote & in_string, quote & !in_string);
            let after_op = op << 1 | self.op >> 63;
            let after_close = close << 1 | self.close >> 63;
            (self.op, self.close) = (op, close);
            // A key opens behind each comma, and what was opened is closed before an operator: so the colon that follows
            // stands right behind the key. The loop sees the same of a value that begins with a quote, and reads any other.
            let key_begins = after_op & !(odd ^ op);
            let bad = (key_begins & !open) | (after_close & !op);
            self.bad |= bad & valid;
            op
        }

        /// Which characters are escaped by a backslash before them.
        #[inline(never)]
        fn escapes(&mut self, backslash: u64, at: usize) -> u64 {
            if backslash != 0 {
                self.backslashes.first = self.backslashes.first.min(at + backslash.trailing_zeros() as usize);
                self.backslashes.last = at + 63 - backslash.leading_zeros() as usize;
            }
            self.carry.escapes(backslash)
        }
    }

    /// Bit i of the result is the parity of the bits 0..=i.
    #[inline]
    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt,pclmulqdq")]
    fn prefix_xor(bits: u64) -> u64 {
        _mm_cvtsi128_si64(_mm_clmulepi64_si128::<0>(_mm_cvtsi64_si128(bits as i64), _mm_set1_epi8(-1))) as u64
    }
}
