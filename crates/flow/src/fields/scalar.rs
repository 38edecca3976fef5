//! Numbers, literals and escapes, as strict as RFC 8259.
//!
//! In: the bytes of one token. Out: what it is, or that it is nothing. No memory.

use super::Kind;

pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// Number, true, false or null; `None` for anything else.
#[inline(always)]
pub(super) fn scalar_kind(text: &[u8]) -> Option<Kind> {
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
pub(super) fn escapes_valid(mut text: &[u8]) -> bool {
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
