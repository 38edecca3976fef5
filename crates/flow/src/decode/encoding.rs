//! How the bytes of a file are text: UTF-8, or UTF-16 in either byte order.
//!
//! In: the head of a file, or the raw bytes of one line. Out: which encoding it is; where lines end; the line as
//! UTF-8. A surrogate without its partner and an odd last byte become U+FFFD. Memory: a line in UTF-8 takes at
//! most 1.5 times its bytes in UTF-16; the buffer is the caller's. Nothing is guessed: without a byte order
//! mark and without a word in the config a file is UTF-8.

use super::Next;
use memchr::memchr;

/// How a source's bytes are text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// By the byte order mark at the head of each file; UTF-8 where there is none.
    #[default]
    Auto,
    /// UTF-8, or any encoding that has ASCII's line end; bytes that are no UTF-8 travel as they are.
    Utf8,
    /// UTF-16, low byte first.
    Utf16Le,
    /// UTF-16, high byte first.
    Utf16Be,
}

/// The encoding that the byte order mark at the head of a file tells; `Utf8` where there is none.
pub fn encoding_of(head: &[u8]) -> Encoding {
    match head {
        [0xFF, 0xFE, ..] => Encoding::Utf16Le,
        [0xFE, 0xFF, ..] => Encoding::Utf16Be,
        _ => Encoding::Utf8,
    }
}

impl Encoding {
    /// Bytes of the byte order mark at the head of a file in this encoding.
    pub(super) fn mark_bytes(self, head: &[u8]) -> usize {
        match (self, head) {
            (Encoding::Auto | Encoding::Utf8, [0xEF, 0xBB, 0xBF, ..]) => 3,
            (Encoding::Auto | Encoding::Utf16Le, [0xFF, 0xFE, ..]) | (Encoding::Auto | Encoding::Utf16Be, [0xFE, 0xFF, ..]) => 2,
            _ => 0,
        }
    }

    /// Bytes of a newline, and of the smallest thing that can be one.
    #[inline(always)]
    pub(super) fn width(self) -> usize {
        match self {
            Encoding::Auto | Encoding::Utf8 => 1,
            Encoding::Utf16Le | Encoding::Utf16Be => 2,
        }
    }

    /// `byte` as a character of this encoding.
    fn unit(self, byte: u8) -> [u8; 2] {
        match self {
            Encoding::Utf16Be => [0, byte],
            _ => [byte, 0],
        }
    }

    /// Where the first newline stands in `bytes`, which start at a character.
    #[inline(always)]
    pub(super) fn find_newline(self, bytes: &[u8]) -> Option<usize> {
        if self.width() == 1 {
            return memchr(b'\n', bytes);
        }
        let newline = self.unit(b'\n');
        let low = usize::from(self == Encoding::Utf16Be);
        let mut at = 0;
        loop {
            let found = at + memchr(b'\n', &bytes[at..])?;
            let start = found.wrapping_sub(low);
            if start.is_multiple_of(2) && bytes.get(start..start + 2) == Some(&newline) {
                return Some(start);
            }
            at = found + 1;
        }
    }

    /// The first character of `bytes`.
    pub(super) fn next(self, bytes: &[u8]) -> Next {
        let width = self.width();
        match bytes.get(..width) {
            Some(first) if *first == self.unit(b'\n')[..width] => Next::Newline,
            Some(first) if *first == [0; 2][..width] => Next::Zero,
            _ => Next::Other,
        }
    }

    /// Bytes of the carriage return at the end of a line, 0 where there is none.
    #[inline(always)]
    pub(super) fn return_bytes(self, line: &[u8]) -> usize {
        match self.width() {
            1 => usize::from(line.last() == Some(&b'\r')),
            _ if line.len().is_multiple_of(2) && line.ends_with(&self.unit(b'\r')) => 2,
            _ => 0,
        }
    }

    /// Length of the longest prefix of `line` that is at most `max` and cuts no character in two.
    #[cold]
    pub(super) fn whole_characters(self, line: &[u8], max: usize) -> usize {
        let line = &line[..max.min(line.len())];
        match self {
            Encoding::Auto | Encoding::Utf8 => {
                let lead = line.iter().rev().take(4).position(|b| b & 0xC0 != 0x80);
                let Some(back) = lead.map(|n| n + 1) else { return line.len() };
                let needs = match line[line.len() - back] {
                    0xC2..=0xDF => 2,
                    0xE0..=0xEF => 3,
                    0xF0..=0xF4 => 4,
                    _ => 1,
                };
                if needs > back { line.len() - back } else { line.len() }
            }
            Encoding::Utf16Le | Encoding::Utf16Be => {
                let even = line.len() & !1;
                let high = line[..even].last_chunk::<2>().is_some_and(|unit| (0xD800..0xDC00).contains(&self.read(*unit)));
                even - if high { 2 } else { 0 }
            }
        }
    }

    fn read(self, unit: [u8; 2]) -> u16 {
        match self {
            Encoding::Utf16Be => u16::from_be_bytes(unit),
            _ => u16::from_le_bytes(unit),
        }
    }

    /// Appends `line`, raw bytes of UTF-16, to `out` as UTF-8. Is every character sound?
    pub(super) fn transcode(self, line: &[u8], out: &mut Vec<u8>) -> bool {
        let (units, odd) = line.as_chunks::<2>();
        let mut sound = odd.is_empty();
        for character in char::decode_utf16(units.iter().map(|unit| self.read(*unit))) {
            let character = character.unwrap_or_else(|_| {
                sound = false;
                char::REPLACEMENT_CHARACTER
            });
            out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        }
        if !odd.is_empty() {
            out.extend_from_slice(char::REPLACEMENT_CHARACTER.encode_utf8(&mut [0; 4]).as_bytes());
        }
        sound
    }
}

/// How many zero bytes `bytes` starts with, in whole characters of `width` bytes.
#[inline(always)]
pub(super) fn leading_nuls(bytes: &[u8], width: usize) -> usize {
    if bytes.first() != Some(&0) {
        return 0;
    }
    let whole = bytes.chunks_exact(64).take_while(|block| *block == [0; 64]).count() * 64;
    let rest = bytes[whole..].iter().take_while(|b| **b == 0).count();
    (whole + rest) / width * width
}

/// How many zero bytes `bytes` ends with.
///
/// For whoever reads files: if what [`super::Decoder::decode`] left unused ends with zeros, they may be a hole or
/// space taken in advance; only a byte behind them that is not zero tells which.
pub fn trailing_nuls(bytes: &[u8]) -> usize {
    let whole = bytes.rchunks_exact(64).take_while(|block| *block == [0; 64]).count() * 64;
    whole + bytes[..bytes.len() - whole].iter().rev().take_while(|b| **b == 0).count()
}
