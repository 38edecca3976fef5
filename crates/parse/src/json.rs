//! A walk over JSON text: finds where values end, and refuses what is no JSON.
//!
//! In: text. Out: positions; nothing is copied or decoded. Depth: at most `DEPTH_MAX` objects and arrays in each other, as
//! deep as other readers go; deeper text is refused. Whether text is UTF-8 is for the caller to know.

use crate::emit::run_length;

/// What serde_json reads by default.
const DEPTH_MAX: u32 = 127;

/// Visits the members of text that is exactly one object: a name without its quotes, escapes as they stand, and a value.
/// Returns false where the text is no such object; some members may have been visited then.
pub fn members<'t>(text: &'t [u8], visit: &mut dyn FnMut(&'t [u8], &'t [u8])) -> bool {
    match object(text, blanks(text, 0), DEPTH_MAX, visit) {
        Some(end) => blanks(text, end) == text.len(),
        None => false,
    }
}

/// Whether text is exactly one object or array.
pub fn is_container(text: &[u8]) -> bool {
    let begin = blanks(text, 0);
    matches!(text.get(begin), Some(b'{' | b'[')) && value(text, begin, DEPTH_MAX).is_some_and(|end| blanks(text, end) == text.len())
}

/// The text inside a string's quotes; `None` for another value.
pub fn string(value: &[u8]) -> Option<&[u8]> {
    match value {
        [b'"', inside @ .., b'"'] => Some(inside),
        _ => None,
    }
}

fn object<'t>(text: &'t [u8], begin: usize, depth: u32, visit: &mut dyn FnMut(&'t [u8], &'t [u8])) -> Option<usize> {
    let mut at = blanks(text, expect(text, begin, b'{')?);
    if text.get(at) == Some(&b'}') {
        return Some(at + 1);
    }
    loop {
        let name_end = string_end(text, at)?;
        let value_begin = blanks(text, expect(text, blanks(text, name_end), b':')?);
        let value_end = value(text, value_begin, depth - 1)?;
        visit(&text[at + 1..name_end - 1], &text[value_begin..value_end]);
        at = blanks(text, value_end);
        match text.get(at)? {
            b',' => at = blanks(text, at + 1),
            b'}' => return Some(at + 1),
            _ => return None,
        }
    }
}

fn array(text: &[u8], begin: usize, depth: u32) -> Option<usize> {
    let mut at = blanks(text, begin + 1);
    if text.get(at) == Some(&b']') {
        return Some(at + 1);
    }
    loop {
        at = blanks(text, value(text, at, depth - 1)?);
        match text.get(at)? {
            b',' => at = blanks(text, at + 1),
            b']' => return Some(at + 1),
            _ => return None,
        }
    }
}

fn value(text: &[u8], at: usize, depth: u32) -> Option<usize> {
    match text.get(at)? {
        b'"' => string_end(text, at),
        b'{' | b'[' if depth == 0 => None,
        b'{' => object(text, at, depth, &mut |_, _| {}),
        b'[' => array(text, at, depth),
        b't' => word(text, at, b"true"),
        b'f' => word(text, at, b"false"),
        b'n' => word(text, at, b"null"),
        _ => number_end(text, at),
    }
}

fn word(text: &[u8], at: usize, word: &[u8]) -> Option<usize> {
    text[at..].starts_with(word).then_some(at + word.len())
}

#[inline]
fn expect(text: &[u8], at: usize, byte: u8) -> Option<usize> {
    (text.get(at) == Some(&byte)).then_some(at + 1)
}

#[inline]
fn blanks(text: &[u8], mut at: usize) -> usize {
    while matches!(text.get(at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
        at += 1;
    }
    at
}

/// Behind the closing quote of the string that begins at `begin`.
#[inline]
fn string_end(text: &[u8], begin: usize) -> Option<usize> {
    let mut at = expect(text, begin, b'"')?;
    loop {
        at += run_length(&text[at..]);
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at = escape_end(text, at)?,
            _ => return None, // a control character
        }
    }
}

fn escape_end(text: &[u8], at: usize) -> Option<usize> {
    match text.get(at + 1)? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(at + 2),
        b'u' => text.get(at + 2..at + 6)?.iter().all(u8::is_ascii_hexdigit).then_some(at + 6),
        _ => None,
    }
}

fn number_end(text: &[u8], begin: usize) -> Option<usize> {
    let mut at = begin + usize::from(text.get(begin) == Some(&b'-'));
    at = match text.get(at)? {
        b'0' => at + 1,
        b'1'..=b'9' => digits_end(text, at),
        _ => return None,
    };
    if text.get(at) == Some(&b'.') {
        at = some_digits_end(text, at + 1)?;
    }
    if let Some(b'e' | b'E') = text.get(at) {
        let sign = usize::from(matches!(text.get(at + 1), Some(b'+' | b'-')));
        at = some_digits_end(text, at + 1 + sign)?;
    }
    Some(at)
}

fn digits_end(text: &[u8], at: usize) -> usize {
    at + text[at..].iter().take_while(|b| b.is_ascii_digit()).count()
}

fn some_digits_end(text: &[u8], at: usize) -> Option<usize> {
    text.get(at).is_some_and(u8::is_ascii_digit).then(|| digits_end(text, at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(text: &str) {
        let theirs: Result<serde_json::Map<String, serde_json::Value>, _> = serde_json::from_str(text);
        let mut names = 0;
        let ours = members(text.as_bytes(), &mut |_, _| names += 1);
        let lenient = theirs.as_ref().is_err_and(|e| e.to_string().contains("surrogate") || e.to_string().contains("hex escape"));
        assert!(ours == theirs.is_ok() || ours && lenient, "{text}: {theirs:?}");
    }

    #[test]
    fn what_is_json_is_read_and_nothing_else() {
        for text in
            ["{}", " { } ", "{\"a\":1}", "{\"a\":1,}", "{\"a\" : [1, 2.5e+3, -0, {\"b\":null}] }", "{\"a\":01}", "{\"a\":tru}", "[]"]
        {
            check(text);
        }
        for text in
            ["{\"a\":\"\\u00e4\\n\"}", "{\"a\":\"\\x\"}", "{\"a\":\"\t\"}", "{\"a\":1}{}", "{\"a\":1} x", "", "{", "{\"a\"}", "{\"a\":-}"]
        {
            check(text);
        }
        for depth in [120, 126, 127, 128, 4000] {
            check(&format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth)));
        }
    }

    proptest! {
        #[test]
        fn like_text_is_judged_as_serde_judges(text in "\\{(\"a\"[:,\\]\\[{} \"\\\\u0-9tfe.+-]{0,12})?\\}?") {
            check(&text);
        }
    }
}
