//! A cursor over JSON text: strict about the grammar, builds nothing, nests as deep as the text does without recursion.
//!
//! In: UTF-8. Out: raw strings (escapes checked, not decoded), number tokens, members and elements one after the other. Numbers stay
//! text, so 64-bit integers never pass through a float. Memory: one byte for each open bracket of a value that is skipped.

use super::Malformed;
use flow::escape::unescape_into;
use std::borrow::Cow;

#[derive(Clone, Debug)]
pub struct Cursor<'a> {
    text: &'a [u8],
    pub at: usize,
}

/// The inside of a string, still escaped.
#[derive(Clone, Copy, Debug)]
pub struct Raw<'a> {
    pub bytes: &'a [u8],
    is_escaped: bool,
}

impl<'a> Raw<'a> {
    /// What it means. Lone surrogates are U+FFFD.
    pub fn decode(self) -> Cow<'a, [u8]> {
        if !self.is_escaped {
            return Cow::Borrowed(self.bytes);
        }
        let mut text = Vec::with_capacity(self.bytes.len());
        unescape_into(self.bytes, &mut text);
        Cow::Owned(text)
    }
}

impl<'a> Cursor<'a> {
    /// `text` must be UTF-8 (strings are handed out as they stand).
    pub fn new(text: &'a [u8]) -> Cursor<'a> {
        Cursor { text, at: 0 }
    }

    pub fn error(&self, rule: &'static str) -> Malformed {
        Malformed { at: Some(self.at), rule }
    }

    /// The first byte of the next value or mark, behind white space.
    pub fn peek(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.text.get(self.at) {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let is_there = self.peek() == Some(byte);
        self.at += usize::from(is_there);
        is_there
    }

    /// Nothing but white space is left.
    pub fn end(&mut self) -> Result<(), Malformed> {
        if self.peek().is_none() { Ok(()) } else { Err(self.error("nothing follows the value")) }
    }

    /// Takes `{` or `[`; false, and nothing is taken: another value stands here.
    pub fn open(&mut self, bracket: u8) -> bool {
        self.take(bracket)
    }

    /// The next member's name, with the cursor before its value; `None` behind the closing brace. `is_first` begins as true.
    pub fn member(&mut self, is_first: &mut bool) -> Result<Option<Raw<'a>>, Malformed> {
        if !self.more(b'}', is_first)? {
            return Ok(None);
        }
        let name = self.string()?;
        if !self.take(b':') {
            return Err(self.error("a colon follows a name"));
        }
        Ok(Some(name))
    }

    /// Whether there is a next element, with the cursor before it. `is_first` begins as true.
    pub fn element(&mut self, is_first: &mut bool) -> Result<bool, Malformed> {
        self.more(b']', is_first)
    }

    fn more(&mut self, close: u8, is_first: &mut bool) -> Result<bool, Malformed> {
        if self.take(close) {
            return Ok(false);
        }
        if !std::mem::replace(is_first, false) && !self.take(b',') {
            return Err(self.error("a comma or the closing bracket follows a value"));
        }
        Ok(true)
    }

    pub fn string(&mut self) -> Result<Raw<'a>, Malformed> {
        if !self.take(b'"') {
            return Err(self.error("a string stands here"));
        }
        let (start, mut is_escaped) = (self.at, false);
        loop {
            let Some(plain) = memchr::memchr2(b'"', b'\\', &self.text[self.at..]) else {
                return Err(self.error("a string ends with a quote"));
            };
            let run = &self.text[self.at..self.at + plain];
            // Folded rather than searched: a control character is rare, and this loop is as wide as the machine.
            if run.iter().fold(false, |found, byte| found | (*byte < 0x20)) {
                return Err(self.error("a control character in a string is escaped"));
            }
            self.at += plain;
            if self.text[self.at] == b'"' {
                break;
            }
            is_escaped = true;
            self.escape()?;
        }
        self.at += 1;
        Ok(Raw { bytes: &self.text[start..self.at - 1], is_escaped })
    }

    fn escape(&mut self) -> Result<(), Malformed> {
        let is_hex = |digits: &[u8]| digits.iter().all(u8::is_ascii_hexdigit);
        match self.text.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u') if self.text.get(self.at + 2..self.at + 6).is_some_and(is_hex) => self.at += 6,
            _ => return Err(self.error("an escape is one of JSON's")),
        }
        Ok(())
    }

    /// The token of a number.
    pub fn number(&mut self) -> Result<&'a str, Malformed> {
        self.peek();
        let start = self.at;
        let rule = "a value is an object, an array, a string, a number, true, false or null";
        self.at += usize::from(self.text.get(self.at) == Some(&b'-'));
        if self.text.get(self.at) == Some(&b'0') {
            self.at += 1;
        } else if self.digits() == 0 {
            return Err(self.error(rule));
        }
        if self.text.get(self.at) == Some(&b'.') {
            self.at += 1;
            if self.digits() == 0 {
                return Err(self.error("a fraction has digits"));
            }
        }
        if let Some(b'e' | b'E') = self.text.get(self.at) {
            self.at += 1;
            self.at += usize::from(matches!(self.text.get(self.at), Some(b'+' | b'-')));
            if self.digits() == 0 {
                return Err(self.error("an exponent has digits"));
            }
        }
        std::str::from_utf8(&self.text[start..self.at]).map_err(|_| self.error(rule))
    }

    fn digits(&mut self) -> usize {
        let count = self.text[self.at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        count
    }

    /// Takes `true`, `false` or `null`; false, and nothing is taken: something else stands here.
    pub fn word(&mut self, word: &str) -> bool {
        self.peek();
        let is_there = self.text[self.at..].starts_with(word.as_bytes());
        self.at += if is_there { word.len() } else { 0 };
        is_there
    }

    /// Passes over one value, whatever it is; returns its bytes.
    pub fn skip(&mut self) -> Result<&'a [u8], Malformed> {
        self.peek();
        let start = self.at;
        let mut open: Vec<u8> = Vec::new();
        loop {
            match self.peek() {
                Some(bracket @ (b'{' | b'[')) => {
                    self.at += 1;
                    let close = if bracket == b'{' { b'}' } else { b']' };
                    if !self.take(close) {
                        open.push(close);
                        self.name(close)?;
                        continue;
                    }
                }
                Some(b'"') => {
                    self.string()?;
                }
                Some(b't') if self.word("true") => {}
                Some(b'f') if self.word("false") => {}
                Some(b'n') if self.word("null") => {}
                _ => {
                    self.number()?;
                }
            }
            // A value has ended, and maybe what it stands in.
            loop {
                let Some(&close) = open.last() else { return Ok(&self.text[start..self.at]) };
                if !self.take(close) {
                    if !self.take(b',') {
                        return Err(self.error("a comma or the closing bracket follows a value"));
                    }
                    self.name(close)?;
                    break;
                }
                open.pop();
            }
        }
    }

    fn name(&mut self, close: u8) -> Result<(), Malformed> {
        if close == b'}' {
            self.string()?;
            if !self.take(b':') {
                return Err(self.error("a colon follows a name"));
            }
        }
        Ok(())
    }
}

/// Names, decoded, and the text of their values.
pub type Pairs<'a> = Vec<(Cow<'a, [u8]>, &'a [u8])>;

/// The members of an object, each name once with its last value; `None`: it is no object. Values are not read, only passed over.
pub fn members(object: &[u8]) -> Result<Option<Pairs<'_>>, Malformed> {
    let mut cursor = Cursor::new(object);
    if !cursor.open(b'{') {
        return Ok(None);
    }
    let (mut found, mut is_first) = (Vec::new(), true);
    while let Some(name) = cursor.member(&mut is_first)? {
        found.push((name.decode(), cursor.skip()?));
    }
    cursor.end()?;
    Ok(Some(keep_last(found)))
}

/// Of equal names the last.
fn keep_last(mut found: Pairs<'_>) -> Pairs<'_> {
    let count = found.len();
    let mut last = std::collections::HashMap::with_capacity(count);
    for (n, (name, _)) in found.iter().enumerate() {
        last.insert(name.clone(), n);
    }
    if last.len() < count {
        let mut n = 0;
        found.retain(|(name, _)| {
            n += 1;
            last[name] == n - 1
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn is_json(text: &[u8]) -> bool {
        let mut cursor = Cursor::new(text);
        cursor.skip().and_then(|_| cursor.end()).is_ok()
    }

    #[test]
    fn it_is_as_strict_as_serde_json() {
        for text in [
            "{}",
            "[]",
            " [ ] ",
            "{\"a\":1}",
            "{\"a\":[1,{\"b\":null}],\"c\":true}",
            "1",
            "-0",
            "01",
            "1.",
            ".5",
            "1e5",
            "1e",
            "-",
            "+1",
            "1E+5",
            "\"a\\u00e9\\n\"",
            "\"\\x\"",
            "\"\\u12\"",
            "\"a\nb\"",
            "[1,]",
            "[,1]",
            "{\"a\":1,}",
            "{,}",
            "{\"a\"}",
            "{a:1}",
            "[1 2]",
            "[",
            "{",
            "\"",
            "nul",
            "nullx",
            "tru",
            "[1]]",
            "{}{}",
            "",
            " ",
            "[1}",
            "{\"a\":1]",
            "0x1",
            "1.5e-7",
            "{\"a\" : 1 , \"b\" : [ ] }",
            "\u{7f}",
            "[\"\u{7f}\"]",
        ] {
            assert_eq!(is_json(text.as_bytes()), serde_json::from_str::<serde_json::Value>(text).is_ok(), "{text}");
        }
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(is_json(deep.as_bytes()), "deep is no recursion");
        assert!(!is_json(&deep.as_bytes()[1..]));
    }

    #[test]
    fn of_equal_names_the_last_counts() {
        let found = members(br#"{"a":1,"b":[2],"\u0061":3}"#).unwrap().unwrap();
        let found: Vec<_> = found.iter().map(|(name, value)| (name.as_ref(), *value)).collect();
        assert_eq!(found, [(&b"b"[..], &b"[2]"[..]), (b"a", b"3")]);
        assert_eq!(members(b"[1]").unwrap(), None);
        assert!(members(b"{\"a\":1}x").is_err());
    }

    proptest! {
        #[test]
        fn it_agrees_with_serde_json(text in "[\\[\\]{}\",:0-9.eE\\\\ tn+-]{0,12}|\\{(\"a\":(1|\\[\\]|true),?){0,3}\\}") {
            if let Ok(json) = serde_json::from_str::<serde_json::Value>(&text) {
                prop_assert!(is_json(text.as_bytes()), "{} is {}", text, json);
            } else if is_json(text.as_bytes()) {
                // serde_json refuses numbers beyond a double and lone surrogates.
                prop_assert!(text.contains(['e', 'E', '\\']), "{}", text);
            }
        }
    }
}
