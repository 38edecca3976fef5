//! Text of ids, bytes, times and strings, as lines and bodies of OTLP have it: hex, base64, RFC 3339, JSON strings.
//!
//! Writers append and allocate nothing else; readers refuse and never panic.

use super::Reason;
use flow::escape::escape_into;
use flow::units::{NANOS_PER_SECOND, UnixNanos};

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Writes lower-case hex.
#[inline]
pub fn put_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    for chunk in bytes.chunks(16) {
        let mut text = [[0; 2]; 16];
        for (pair, byte) in text.iter_mut().zip(chunk) {
            *pair = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
        }
        out.extend_from_slice(&text.as_flattened()[..2 * chunk.len()]);
    }
}

/// Reads hex of any case and appends its bytes; false, with nothing appended: it is none.
pub fn hex_into(text: &[u8], out: &mut Vec<u8>) -> bool {
    let start = out.len();
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    for pair in text.chunks(2) {
        let (Some(high), Some(low)) = (digit(pair[0]), pair.get(1).and_then(|byte| digit(*byte))) else {
            out.truncate(start);
            return false;
        };
        out.push(high << 4 | low);
    }
    true
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Writes base64 with padding.
pub fn put_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    for chunk in bytes.chunks(3) {
        let [a, b, c] = [chunk[0], *chunk.get(1).unwrap_or(&0), *chunk.get(2).unwrap_or(&0)];
        let word = u32::from_be_bytes([0, a, b, c]);
        for n in 0..4 {
            let digit = BASE64[(word >> (18 - 6 * n) & 63) as usize];
            out.push(if n > chunk.len() { b'=' } else { digit });
        }
    }
}

/// Reads base64, also of the URL's alphabet, with or without padding, and appends its bytes; false: it is none.
pub fn base64_into(text: &[u8], out: &mut Vec<u8>) -> bool {
    let start = out.len();
    let padding = text.iter().rev().take_while(|byte| **byte == b'=').count();
    let digits = &text[..text.len() - padding];
    let is_whole = digits.len() % 4 != 1 && padding <= 2 && (padding == 0 || text.len().is_multiple_of(4));
    let (mut word, mut bits) = (0u32, 0);
    for byte in digits {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => {
                out.truncate(start);
                return false;
            }
        };
        word = word << 6 | u32::from(digit);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push((word >> bits) as u8);
        }
    }
    if !is_whole {
        out.truncate(start);
    }
    is_whole
}

/// Writes an integer.
#[inline]
pub fn put_unsigned(out: &mut Vec<u8>, mut value: u64) {
    let (mut digits, mut at) = ([0u8; 20], 20);
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[inline]
pub fn put_signed(out: &mut Vec<u8>, value: i64) {
    if value < 0 {
        out.push(b'-');
    }
    put_unsigned(out, value.unsigned_abs());
}

/// Writes times as [`UnixNanos::rfc3339`] does; the text of a second is made once and copied.
#[derive(Clone, Debug)]
pub struct Clock {
    second: i64,
    head: [u8; 19],
}

impl Default for Clock {
    fn default() -> Clock {
        Clock { second: 0, head: *b"1970-01-01T00:00:00" }
    }
}

impl Clock {
    #[inline]
    pub fn put(&mut self, out: &mut Vec<u8>, at: UnixNanos) {
        let (second, nanos) = (at.0.div_euclid(NANOS_PER_SECOND), at.0.rem_euclid(NANOS_PER_SECOND) as u32);
        if second != self.second {
            let text = UnixNanos(second * NANOS_PER_SECOND).rfc3339();
            self.head.copy_from_slice(&text.as_bytes()[..19]);
            self.second = second;
        }
        let mut text = [0; 30];
        text[..19].copy_from_slice(&self.head);
        let mut len = 19;
        if nanos > 0 {
            text[19] = b'.';
            put_three(&mut text[20..23], nanos / 1_000_000);
            put_three(&mut text[23..26], nanos / 1_000 % 1_000);
            put_three(&mut text[26..29], nanos % 1_000);
            len = if nanos % 1_000_000 == 0 {
                23
            } else if nanos % 1_000 == 0 {
                26
            } else {
                29
            };
        }
        text[len] = b'Z';
        out.extend_from_slice(&text[..=len]);
    }
}

#[inline]
fn put_three(to: &mut [u8], number: u32) {
    to[0] = b'0' + (number / 100) as u8;
    to[1] = b'0' + (number / 10 % 10) as u8;
    to[2] = b'0' + (number % 10) as u8;
}

/// Writes a JSON string; refuses what is no UTF-8.
#[inline]
pub fn put_string(out: &mut Vec<u8>, text: &[u8]) -> Result<(), Reason> {
    out.push(b'"');
    if is_plain(text) {
        out.extend_from_slice(text);
    } else {
        std::str::from_utf8(text).map_err(|_| Reason::Utf8)?;
        escape_into(text, out);
    }
    out.push(b'"');
    Ok(())
}

/// Only ASCII that stands for itself in a JSON string. Eight bytes at a time.
#[inline]
fn is_plain(text: &[u8]) -> bool {
    let Some(last) = text.last_chunk::<8>() else {
        return text.iter().all(|byte| matches!(byte, 0x20..=0x7f) && *byte != b'"' && *byte != b'\\');
    };
    let mut found = special(u64::from_le_bytes(*last));
    for chunk in text.as_chunks::<8>().0 {
        found |= special(u64::from_le_bytes(*chunk));
    }
    found == 0
}

/// Not zero if one of the bytes is no ASCII, a control character, a quote or a backslash. Method: Mycroft 1987.
#[inline]
fn special(word: u64) -> u64 {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGHS: u64 = ONES << 7;
    let below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word;
    let equal = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    (word | below(word, 0x20) | equal(b'"') | equal(b'\\')) & HIGHS
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn base64_is_as_others_write_it() {
        for (bytes, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE="), ("foobar", "Zm9vYmFy")]
        {
            let mut out = Vec::new();
            put_base64(&mut out, bytes.as_bytes());
            assert_eq!(out, text.as_bytes());
            for text in [text, text.trim_end_matches('=')] {
                let mut back = Vec::new();
                assert!(base64_into(text.as_bytes(), &mut back), "{text}");
                assert_eq!(back, bytes.as_bytes());
            }
        }
        for bad in ["Z", "Zg=", "Zm9v=", "Z===", "Zm9v====", "Zm 9v", "Zm9vY"] {
            assert!(!base64_into(bad.as_bytes(), &mut Vec::new()), "{bad}");
        }
        let mut back = Vec::new();
        assert!(base64_into(b"-_-_", &mut back) && base64_into(b"+/+/", &mut back));
        assert_eq!(back[..3], back[3..]);
    }

    proptest! {
        #[test]
        fn times_are_as_everywhere(nanos in 0i64..4_102_444_800_000_000_000, unit in 0usize..4) {
            let at = UnixNanos(nanos / [1, 1_000, 1_000_000, 1_000_000_000][unit] * [1, 1_000, 1_000_000, 1_000_000_000][unit]);
            let (mut out, mut clock) = (Vec::new(), Clock::default());
            for _ in 0..2 {
                out.clear();
                clock.put(&mut out, at);
                prop_assert_eq!(String::from_utf8_lossy(&out), at.rfc3339());
            }
        }

        #[test]
        fn strings_and_numbers_are_as_serde_json_writes_them(text in "[ -~]{0,40}|\\PC{0,20}|[\\x00-\\x7f]{0,20}", value: i64) {
            let mut out = Vec::new();
            put_string(&mut out, text.as_bytes()).unwrap();
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
            out.clear();
            put_signed(&mut out, value);
            prop_assert_eq!(String::from_utf8_lossy(&out), value.to_string());
        }

        #[test]
        fn bytes_come_back(bytes: Vec<u8>) {
            let (mut text, mut back) = (Vec::new(), Vec::new());
            put_base64(&mut text, &bytes);
            prop_assert!(base64_into(&text, &mut back));
            prop_assert_eq!(&back, &bytes);
            text.clear();
            put_hex(&mut text, &bytes);
            back.clear();
            prop_assert!(hex_into(&text.to_ascii_uppercase(), &mut back));
            prop_assert_eq!(&back, &bytes);
            let mut out = Vec::new();
            prop_assert_eq!(put_string(&mut out, &bytes).is_ok(), std::str::from_utf8(&bytes).is_ok());
        }
    }
}
