//! JSON string escapes: from the bytes between the quotes to the bytes that are meant, and back.
//!
//! In: a string's inside as it stands in a line. Out: its bytes, one by one or appended to a buffer; at most
//! three times the input (a stray backslash becomes three bytes), never more than the input if it is valid.
//! `\uD83D\uDE00` pairs join; a lone surrogate, an unknown escape and an unfinished one read as U+FFFD. Bytes
//! that are no UTF-8 pass as they are: this is no validator.

use memchr::memchr;

/// U+FFFD, the replacement character.
const REPLACEMENT: u32 = 0xfffd;

/// Decodes the escapes of a JSON string byte by byte, without allocating. Made by [`unescape`].
#[derive(Clone)]
pub struct Unescape<'a> {
    rest: &'a [u8],
    /// Bytes of a decoded character still to hand out: `pending[from..to]`.
    pending: [u8; 4],
    from: u8,
    to: u8,
}

/// The bytes that the inside of a JSON string means.
pub fn unescape(raw: &[u8]) -> Unescape<'_> {
    Unescape { rest: raw, pending: [0; 4], from: 0, to: 0 }
}

impl Iterator for Unescape<'_> {
    type Item = u8;

    #[inline]
    fn next(&mut self) -> Option<u8> {
        if self.from < self.to {
            self.from += 1;
            return Some(self.pending[usize::from(self.from) - 1]);
        }
        let (&first, rest) = self.rest.split_first()?;
        if first != b'\\' {
            self.rest = rest;
            return Some(first);
        }
        let (code, used) = decode_escape(self.rest);
        self.rest = &self.rest[used..];
        self.to = encode_utf8(code, &mut self.pending) as u8;
        self.from = 1;
        Some(self.pending[0])
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let pending = usize::from(self.to - self.from);
        (pending, Some(pending + self.rest.len() * 3)) // a lone backslash becomes the 3 bytes of U+FFFD
    }
}

/// Appends the bytes that the inside of a JSON string means; copies whole runs between escapes.
pub fn unescape_into(mut raw: &[u8], out: &mut Vec<u8>) {
    let mut character = [0; 4];
    while let Some(at) = memchr(b'\\', raw) {
        out.extend_from_slice(&raw[..at]);
        let (code, used) = decode_escape(&raw[at..]);
        let length = encode_utf8(code, &mut character);
        out.extend_from_slice(&character[..length]);
        raw = &raw[at + used..];
    }
    out.extend_from_slice(raw);
}

/// Decodes into a fixed buffer; `None` if the result does not fit.
pub fn unescape_short<'b>(raw: &[u8], buffer: &'b mut [u8]) -> Option<&'b [u8]> {
    let mut length = 0;
    for byte in unescape(raw) {
        *buffer.get_mut(length)? = byte;
        length += 1;
    }
    Some(&buffer[..length])
}

/// The character that the escape at the start of `raw` means, and how many bytes it takes (at least 1).
fn decode_escape(raw: &[u8]) -> (u32, usize) {
    match raw.get(1) {
        Some(b'n') => (0x0a, 2),
        Some(b't') => (0x09, 2),
        Some(b'r') => (0x0d, 2),
        Some(b'b') => (0x08, 2),
        Some(b'f') => (0x0c, 2),
        Some(&quoted @ (b'"' | b'\\' | b'/')) => (u32::from(quoted), 2),
        Some(b'u') => match hex4(&raw[2..]) {
            Some(high @ 0xd800..=0xdbff) => match low_surrogate(&raw[6..]) {
                Some(low) => (0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00), 12),
                None => (REPLACEMENT, 6),
            },
            Some(0xdc00..=0xdfff) => (REPLACEMENT, 6),
            Some(code) => (code, 6),
            None => (REPLACEMENT, 2),
        },
        // The backslash alone is replaced: what follows it may be a byte of a longer character.
        _ => (REPLACEMENT, 1),
    }
}

fn low_surrogate(raw: &[u8]) -> Option<u32> {
    match raw.strip_prefix(b"\\u").and_then(hex4) {
        Some(low @ 0xdc00..=0xdfff) => Some(low),
        _ => None,
    }
}

fn hex4(raw: &[u8]) -> Option<u32> {
    let mut code = 0;
    for &byte in raw.get(..4)? {
        code = code << 4 | char::from(byte).to_digit(16)?;
    }
    Some(code)
}

fn encode_utf8(code: u32, buffer: &mut [u8; 4]) -> usize {
    char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER).encode_utf8(buffer).len()
}

/// Which bytes cannot stand in a JSON string as they are.
const MUST_ESCAPE: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = byte < 0x20 || byte == b'"' as usize || byte == b'\\' as usize;
        byte += 1;
    }
    table
};

/// How many of the first bytes of `text` can stand in a JSON string as they are.
#[inline]
pub fn plain_len(text: &[u8]) -> usize {
    text.iter().position(|byte| MUST_ESCAPE[usize::from(*byte)]).unwrap_or(text.len())
}

/// Appends what stands for one byte that cannot stand for itself; at most 6 bytes.
pub fn escape_byte(byte: u8, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let short = match byte {
        b'"' => b'"',
        b'\\' => b'\\',
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0c => b'f',
        _ => {
            let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
            return out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// Appends the inside of a JSON string that means `text`. Bytes that are no UTF-8 pass as they are.
pub fn escape_into(mut text: &[u8], out: &mut Vec<u8>) {
    loop {
        let (plain, rest) = text.split_at(plain_len(text));
        out.extend_from_slice(plain);
        let Some((byte, rest)) = rest.split_first() else { return };
        escape_byte(*byte, out);
        text = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(raw: &str, want: &str) {
        let bytes: Vec<u8> = unescape(raw.as_bytes()).collect();
        assert_eq!(String::from_utf8_lossy(&bytes), want);
        let mut runs = b"head ".to_vec();
        unescape_into(raw.as_bytes(), &mut runs);
        assert_eq!(runs[5..], bytes);
        let mut short = vec![0; bytes.len()];
        assert_eq!(unescape_short(raw.as_bytes(), &mut short), Some(&bytes[..]));
        if !bytes.is_empty() {
            assert_eq!(unescape_short(raw.as_bytes(), &mut short[1..]), None);
        }
    }

    #[test]
    fn every_escape_reads_as_json_says() {
        check("", "");
        check("plain", "plain");
        check(r#"a\"b\\c\/d\b\f\n\r\t"#, "a\"b\\c/d\u{8}\u{c}\n\r\t");
        check(r"\u0041\u00e9\u20AC\u0000x", "A\u{e9}\u{20ac}\0x");
        check(r"\ud83d\ude00 smile", "\u{1f600} smile");
        check(r"\uDBFF\uDFFF", "\u{10ffff}");
    }

    #[test]
    fn a_broken_escape_is_one_replacement_character() {
        check(r"\ud83d", "\u{fffd}");
        check(r"\ud83dx", "\u{fffd}x");
        check(r"\ude00\ud83d", "\u{fffd}\u{fffd}");
        check(r"\ud83d\ud83d\ude00", "\u{fffd}\u{1f600}");
        check(r"\ud83d\n", "\u{fffd}\n");
        check(r"\u12", "\u{fffd}12");
        check(r"\uzzzz", "\u{fffd}zzzz");
        check(r"\q", "\u{fffd}q");
        check("tail\\", "tail\u{fffd}");
        check("\\\u{e9}", "\u{fffd}\u{e9}");
    }

    #[test]
    fn it_agrees_with_serde_json_on_every_code_unit() {
        for code in 0..=0xffffu32 {
            let raw = format!("<\\u{code:04x}>");
            // serde_json refuses lone surrogates; we replace them.
            let want = serde_json::from_str(&format!("\"{raw}\"")).unwrap_or_else(|_| String::from("<\u{fffd}>"));
            let mut got = Vec::new();
            unescape_into(raw.as_bytes(), &mut got);
            assert_eq!(got, want.as_bytes(), "{raw}");
        }
    }

    #[test]
    fn what_is_escaped_reads_as_it_was() {
        let every: String = (0..=0x2ffu32).filter_map(char::from_u32).collect();
        for text in ["", "plain", "\"\\", "a\nb", "\u{1}\u{7f}", every.as_str()] {
            let mut escaped = Vec::new();
            escape_into(text.as_bytes(), &mut escaped);
            let quoted = format!("\"{}\"", String::from_utf8_lossy(&escaped));
            assert_eq!(serde_json::from_str::<String>(&quoted).expect("it is a JSON string"), text);
            let mut back = Vec::new();
            unescape_into(&escaped, &mut back);
            assert_eq!(back, text.as_bytes());
        }
    }

    #[test]
    fn bytes_that_are_no_utf8_pass_as_they_are() {
        assert_eq!(unescape(b"\xff\\n\xc3").collect::<Vec<u8>>(), b"\xff\n\xc3");
    }
}
