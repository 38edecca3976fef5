//! First stage: where the characters stand that have meaning.
//!
//! In: one line. Out: the offsets of its `"{}[]:,`, quotes inside strings and all else inside strings left out. Method:
//! 64-byte blocks give bit masks of quotes, escapes and structural characters; a prefix xor of the quotes gives what
//! lies inside strings. Memory: 4 bytes per structural character of the longest line. The width of the vectors is chosen
//! at run time; every width gives the same offsets.

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
        if is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("popcnt")
            && is_x86_feature_detected!("pclmulqdq")
        {
            return Level::Avx2;
        }
        Level::Portable
    }
}

/// What the first stage learned of a line besides the structural characters.
#[derive(Clone, Copy, Default)]
pub(super) struct Traits {
    pub(super) count: usize,
    pub(super) backslash: bool,
    pub(super) non_ascii: bool,
    /// A control character inside a string, or a string without end.
    pub(super) broken: bool,
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
pub(super) struct Carry {
    /// The first byte of the next block is escaped.
    pub(super) escaped: u64,
    /// All ones while inside a string.
    pub(super) in_string: u64,
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
    #[inline]
    pub(super) fn escapes(&mut self, backslash: u64) -> u64 {
        const ODD: u64 = 0xAAAA_AAAA_AAAA_AAAA;
        let potential = backslash & !self.escaped;
        let maybe = potential << 1;
        let codes = ((maybe | ODD).wrapping_sub(potential)) ^ ODD;
        let escaped = codes ^ (backslash | self.escaped);
        self.escaped = (codes & backslash) >> 63;
        escaped
    }

    pub(super) fn in_string(&self) -> bool {
        self.in_string != 0
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

/// Room that [`push_bits`] asks for behind `count`: 64 bits of a block, and more that are written in vain.
pub(super) const ROOM: usize = 72;

/// Writes the positions of the set bits behind `count` and returns the new count. There is room for one more behind.
#[inline(always)]
pub(super) fn push_bits(index: &mut Vec<u32>, count: usize, base: usize, mut bits: u64) -> usize {
    if index.len() < count + ROOM {
        grow(index, count);
    }
    let out: &mut [u32; ROOM] = index[count..].first_chunk_mut().expect("made room just before");
    let found = bits.count_ones() as usize;
    // Six at a time, needed or not: a block of a log line seldom has more, and a branch for each would be guessed wrongly.
    for some in out.as_chunks_mut::<6>().0 {
        for slot in some {
            *slot = (base as u32).wrapping_add(bits.trailing_zeros());
            bits &= bits.wrapping_sub(1);
        }
        if bits == 0 {
            break;
        }
    }
    count + found
}

#[cold]
#[inline(never)]
fn grow(index: &mut Vec<u32>, count: usize) {
    index.resize((count + ROOM) * 2, 0);
}

pub(super) mod portable {
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
pub(super) mod avx2 {
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
