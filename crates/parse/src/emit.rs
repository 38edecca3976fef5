//! JSON text, member by member.
//!
//! In: names prepared once, and values as bytes. Out: `"name":value,` behind what the caller's buffer holds; the caller
//! turns the last comma into the brace. Bytes that are no UTF-8 become U+FFFD. A string grows at most sixfold (`\u0001`).

/// A name with its quotes, escaped, the colon, and the quote that opens a string: `"name":"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key(Box<[u8]>);

impl Key {
    pub fn new(name: &[u8]) -> Key {
        let mut text = Vec::with_capacity(name.len() + 4);
        write_key(&mut text, name);
        text.push(b'"');
        Key(text.into())
    }

    #[inline]
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0[..self.0.len() - 1]);
    }

    /// Writes `"name":"text",`.
    #[inline]
    pub fn write_member(&self, out: &mut Vec<u8>, text: &[u8]) {
        if is_plain(text) {
            out.reserve(self.0.len() + text.len() + 2);
            out.extend_from_slice(&self.0);
            out.extend_from_slice(text);
            out.extend_from_slice(b"\",");
        } else {
            self.write(out);
            write_escaped(out, text);
            out.push(b',');
        }
    }
}

/// Writes `"name":` for a name that nobody prepared.
#[inline]
pub fn write_key(out: &mut Vec<u8>, name: &[u8]) {
    write_string(out, name);
    out.push(b':');
}

/// Writes a string with its quotes.
#[inline]
pub fn write_string(out: &mut Vec<u8>, text: &[u8]) {
    if is_plain(text) {
        out.reserve(text.len() + 2);
        out.push(b'"');
        out.extend_from_slice(text);
        out.push(b'"');
    } else {
        write_escaped(out, text);
    }
}

/// The decimal digits of a number.
pub fn write_integer(out: &mut Vec<u8>, number: i64) {
    if number < 0 {
        out.push(b'-');
    }
    write_unsigned(out, number.unsigned_abs());
}

pub fn write_unsigned(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0u8; 20]; // u64::MAX has 20
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// Whether a string of these bytes is written as it stands: ASCII without quote, backslash and controls.
#[inline]
fn is_plain(text: &[u8]) -> bool {
    // What is left of the last word is looked at together with what stands before it.
    let special = match (text.last_chunk::<8>(), text.first_chunk::<4>(), text.last_chunk::<4>()) {
        (Some(last), ..) => {
            let (words, _) = text.as_chunks::<8>();
            words.iter().fold(specials(u64::from_le_bytes(*last)), |special, word| special | specials(u64::from_le_bytes(*word)))
        }
        (None, Some(first), Some(last)) => specials(u64::from(u32::from_le_bytes(*first)) << 32 | u64::from(u32::from_le_bytes(*last))),
        _ => return !text.iter().any(|&b| is_special(b)),
    };
    special & HIGHS == 0
}

/// High bits of the bytes that are special; the lowest is exact.
#[inline]
fn specials(word: u64) -> u64 {
    escapes(word) | word & HIGHS
}

/// High bits of the bytes that need an escape; the lowest is exact, others may be set by a borrow.
#[inline]
fn escapes(word: u64) -> u64 {
    let (quote, backslash) = (word ^ (ONES * b'"' as u64), word ^ (ONES * b'\\' as u64));
    let low = word.wrapping_sub(ONES * 0x20) & !word;
    let quoted = quote.wrapping_sub(ONES) & !quote | backslash.wrapping_sub(ONES) & !backslash;
    (low | quoted) & HIGHS
}

#[inline]
fn is_special(byte: u8) -> bool {
    needs_escape(byte) || !byte.is_ascii()
}

#[inline]
fn needs_escape(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// How many bytes need no escape.
#[inline]
pub fn run_length(text: &[u8]) -> usize {
    let mut words = text.chunks_exact(8);
    let mut length = 0;
    for word in &mut words {
        let found = escapes(u64::from_le_bytes(word.try_into().expect("chunks are of eight bytes")));
        if found != 0 {
            return length + found.trailing_zeros() as usize / 8;
        }
        length += 8;
    }
    let rest = words.remainder();
    length + rest.iter().position(|&b| needs_escape(b)).unwrap_or(rest.len())
}

fn write_escaped(out: &mut Vec<u8>, text: &[u8]) {
    out.reserve(text.len() + 16);
    out.push(b'"');
    match std::str::from_utf8(text) {
        Ok(_) => write_run(out, text),
        Err(_) => write_chunks(out, text),
    }
    out.push(b'"');
}

#[cold]
fn write_chunks(out: &mut Vec<u8>, text: &[u8]) {
    for chunk in text.utf8_chunks() {
        write_run(out, chunk.valid().as_bytes());
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

/// Copies what needs no escape in one go, and escapes what stands between.
fn write_run(out: &mut Vec<u8>, mut text: &[u8]) {
    loop {
        let (plain, rest) = text.split_at(run_length(text));
        out.extend_from_slice(plain);
        let Some((byte, rest)) = rest.split_first() else { return };
        write_escape(out, *byte);
        text = rest;
    }
}

fn write_escape(out: &mut Vec<u8>, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    match byte {
        b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        0x08 => out.extend_from_slice(b"\\b"),
        0x0c => out.extend_from_slice(b"\\f"),
        _ => out.extend_from_slice(&[b'\\', b'u', b'0', b'0', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_string_reads_back_as_its_bytes_with_replacement_characters(text: Vec<u8>) {
            let mut out = Vec::new();
            write_string(&mut out, &text);
            let read: String = serde_json::from_slice(&out).unwrap();
            prop_assert_eq!(read, String::from_utf8_lossy(&text));
        }

        #[test]
        fn ascii_reads_back_too(text in "[ -~\n\t\"\\\\]{0,40}") {
            let mut out = Vec::new();
            write_string(&mut out, text.as_bytes());
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }

        #[test]
        fn a_number_reads_back(number: i64, unsigned: u64) {
            let mut out = Vec::new();
            write_integer(&mut out, number);
            prop_assert_eq!(out.as_slice(), number.to_string().into_bytes());
            out.clear();
            write_unsigned(&mut out, unsigned);
            prop_assert_eq!(out.as_slice(), unsigned.to_string().into_bytes());
        }
    }
}
