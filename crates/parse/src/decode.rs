//! Values decoded again: JSON in a string, escapes, MySQL's quotes.
//!
//! In: the text of a field and its decoders, in order. Out: a new value, and members for the record. Memory: what all decoders
//! of a line make is taken from one allowance; a field whose decoders want more stays as it is.

use crate::definition::{Decode, Decoder, Then};
use crate::emit::write_string;
use crate::json;

/// What the decoders of a field made of its value. Kept by the caller from field to field.
#[derive(Default)]
pub struct Decoded {
    pub value: Value,
    /// Text or JSON, as `value` says.
    pub text: Vec<u8>,
    /// `"name":value,` for each member that goes into the record.
    pub members: Vec<u8>,
    /// What the decoder at work makes.
    next: Vec<u8>,
}

/// What became of the field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Value {
    #[default]
    Unchanged,
    Text,
    Json,
}

impl Decoded {
    /// Runs the decoders over a field's value. `allowance`: bytes that they may still make in this line.
    pub fn run(&mut self, decoders: &[Decode], value: &[u8], allowance: &mut usize) {
        self.clear();
        for decoder in decoders {
            let done = self.step(decoder, value);
            let made = self.text.len() + self.members.len();
            if made > *allowance {
                return self.clear();
            }
            match decoder.then {
                Then::Stop => break,
                Then::TryNext if done => break,
                Then::DoNext if self.value == Value::Json => break, // no text is left to decode
                Then::TryNext | Then::DoNext => {}
            }
        }
        *allowance -= self.text.len() + self.members.len();
    }

    fn clear(&mut self) {
        self.value = Value::Unchanged;
        self.text.clear();
        self.members.clear();
    }

    /// Runs one decoder over what the earlier ones left; false: it cannot read that.
    fn step(&mut self, decoder: &Decode, value: &[u8]) -> bool {
        let input = if self.value == Value::Text { self.text.as_slice() } else { value };
        self.next.clear();
        let done = match decoder.decoder {
            Decoder::Json if decoder.spread => return spread(input, &mut self.members),
            Decoder::Json => decode_json(input, &mut self.next),
            Decoder::Escaped => unescape(input, &mut self.next, false),
            Decoder::EscapedUtf8 => unescape(input, &mut self.next, true),
            Decoder::MysqlQuoted => unquote(input, &mut self.next),
        };
        if done {
            std::mem::swap(&mut self.text, &mut self.next);
            self.value = if decoder.decoder == Decoder::Json { Value::Json } else { Value::Text };
        }
        done
    }
}

/// The members of an object, each with a comma.
fn spread(text: &[u8], members: &mut Vec<u8>) -> bool {
    let mut json = Vec::new();
    if !decode_json(text, &mut json) {
        return false;
    }
    let begin = members.len();
    let done = json::members(&json, &mut |name, value| {
        members.push(b'"');
        members.extend_from_slice(name);
        members.extend_from_slice(b"\":");
        members.extend_from_slice(value);
        members.push(b',');
    });
    if !done {
        members.truncate(begin);
    }
    done
}

/// Text that is an object or array, in one line and in UTF-8.
fn decode_json(text: &[u8], out: &mut Vec<u8>) -> bool {
    let text = text.trim_ascii();
    if !json::is_container(text) {
        return false;
    }
    write_json(out, text);
    true
}

/// Copies JSON, with blanks for ends of lines, which stand between its values only, and U+FFFD for what is no UTF-8.
pub fn write_json(out: &mut Vec<u8>, text: &[u8]) {
    let begin = out.len();
    match std::str::from_utf8(text) {
        Ok(_) => out.extend_from_slice(text),
        Err(_) => out.extend_from_slice(String::from_utf8_lossy(text).as_bytes()),
    }
    let mut rest = &mut out[begin..];
    while let Some(at) = memchr::memchr2(b'\n', b'\r', rest) {
        rest[at] = b' ';
        rest = &mut rest[at + 1..];
    }
}

/// Replaces escapes as C and JSON write them; an unknown one stays with its backslash. `wide`: `\u` and `\x` too.
pub fn unescape(text: &[u8], out: &mut Vec<u8>, wide: bool) -> bool {
    let mut rest = text;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..at]);
        rest = &rest[at + 1..];
        let length = match rest.first() {
            Some(b'u' | b'U' | b'x') if wide => wide_escape(rest, out),
            Some(letter) => short_escape(*letter).map(|byte| {
                out.push(byte);
                1
            }),
            None => None,
        };
        match length {
            Some(length) => rest = &rest[length..],
            None => out.push(b'\\'),
        }
    }
    out.extend_from_slice(rest);
    true
}

fn short_escape(letter: u8) -> Option<u8> {
    Some(match letter {
        b'n' => b'\n',
        b't' => b'\t',
        b'r' => b'\r',
        b'a' => 0x07,
        b'b' => 0x08,
        b'v' => 0x0b,
        b'f' => 0x0c,
        b'\\' | b'"' | b'\'' | b'/' => letter,
        _ => return None,
    })
}

/// `uXXXX`, two of them where they are a pair of surrogates, `UXXXXXXXX` or `xHH`. Returns its length.
fn wide_escape(text: &[u8], out: &mut Vec<u8>) -> Option<usize> {
    let (code, length) = match text[0] {
        b'x' => {
            out.push(hex(text.get(1..3)?)? as u8);
            return Some(3);
        }
        b'U' => (hex(text.get(1..9)?)?, 9),
        _ => pair(text)?,
    };
    let letter = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
    out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
    Some(length)
}

fn pair(text: &[u8]) -> Option<(u32, usize)> {
    let high = hex(text.get(1..5)?)?;
    if !(0xd800..0xdc00).contains(&high) || text.get(5..7) != Some(b"\\u") {
        return Some((high, 5));
    }
    match text.get(7..11).and_then(hex) {
        Some(low @ 0xdc00..=0xdfff) => Some((0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00), 11)),
        _ => Some((high, 5)),
    }
}

fn hex(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |sum, b| Some(sum * 16 + char::from(*b).to_digit(16)?))
}

/// Text in single or double quotes, with MySQL's escapes.
fn unquote(text: &[u8], out: &mut Vec<u8>) -> bool {
    let inside = match text {
        [b'\'', inside @ .., b'\''] | [b'"', inside @ .., b'"'] => inside,
        _ => return false,
    };
    let mut bytes = inside.iter().copied();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'\\' => bytes.next().map_or(b'\\', mysql_escape),
            byte => byte,
        });
    }
    true
}

fn mysql_escape(letter: u8) -> u8 {
    match letter {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 0x08,
        b'0' => 0,
        b'Z' => 0x1a,
        letter => letter,
    }
}

/// Writes what a field's value has become.
pub fn write_value(out: &mut Vec<u8>, decoded: &Decoded) {
    match decoded.value {
        Value::Json => out.extend_from_slice(&decoded.text),
        Value::Text | Value::Unchanged => write_string(out, &decoded.text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rule(decoder: Decoder, spread: bool, then: Then) -> Decode {
        Decode { field: "log".to_string(), decoder, spread, then }
    }

    #[track_caller]
    fn check(rules: &[Decode], value: &str, want: &str) {
        let (mut decoded, mut allowance) = (Decoded::default(), 1 << 16);
        decoded.run(rules, value.as_bytes(), &mut allowance);
        let text = String::from_utf8_lossy(&decoded.text);
        let found = format!("{:?} {text} {}", decoded.value, String::from_utf8_lossy(&decoded.members));
        assert_eq!(found.trim(), want, "{value}");
    }

    #[test]
    fn decoders() {
        use Decoder::{Escaped, EscapedUtf8, Json, MysqlQuoted};
        let alone = |decoder| [rule(decoder, false, Then::Stop)];
        check(&alone(Json), " {\"a\": 1}\n", "Json {\"a\": 1}");
        check(&alone(Json), "[1,\n2]", "Json [1, 2]");
        check(&alone(Json), "12", "Unchanged");
        check(&alone(Json), "{\"a\"", "Unchanged");
        check(&[rule(Json, true, Then::Stop)], "{\"a\":1,\"b\":[]}", "Unchanged  \"a\":1,\"b\":[],");
        check(&[rule(Json, true, Then::Stop)], "[1]", "Unchanged");
        check(&alone(Escaped), r#"a\tb\"c\qd\u0041"#, "Text a\tb\"c\\qd\\u0041");
        check(&alone(EscapedUtf8), r"\u00e4\ud83d\ude00\xc3\xa4\ud800!\", "Text ä😀ä\u{fffd}!\\");
        check(&alone(MysqlQuoted), r"'it\'s\n\Q'", "Text it's\nQ");
        check(&alone(MysqlQuoted), r"it's", "Unchanged");
    }

    #[test]
    fn one_decoder_after_the_other() {
        use Decoder::{Escaped, Json, MysqlQuoted};
        let escaped_then_json = [rule(Escaped, false, Then::DoNext), rule(Json, false, Then::Stop)];
        check(&escaped_then_json, r#"{\"a\":1}"#, "Json {\"a\":1}");
        check(&escaped_then_json, r"no\tjson", "Text no\tjson");
        let json_or_quoted = [rule(Json, false, Then::TryNext), rule(MysqlQuoted, false, Then::Stop)];
        check(&json_or_quoted, "'x'", "Text x");
        check(&json_or_quoted, "{}", "Json {}");
        let stopped = [rule(Json, false, Then::Stop), rule(MysqlQuoted, false, Then::Stop)];
        check(&stopped, "'x'", "Unchanged");
    }

    #[test]
    fn a_field_whose_decoders_want_too_much_stays() {
        let (mut decoded, mut allowance) = (Decoded::default(), 10);
        decoded.run(&[rule(Decoder::Json, false, Then::Stop)], b"[1,2,3,4,5,6]", &mut allowance);
        assert_eq!((decoded.value, allowance), (Value::Unchanged, 10));
    }

    proptest! {
        #[test]
        fn strings_of_serde_are_unescaped(text: String) {
            let json = serde_json::to_string(&text).unwrap();
            let mut out = Vec::new();
            unescape(&json.as_bytes()[1..json.len() - 1], &mut out, true);
            prop_assert_eq!(String::from_utf8(out).unwrap(), text);
        }

        #[test]
        fn nothing_panics_or_grows(value: Vec<u8>, escapes in "[\\\\uxU0-9d'\"n{}]{0,30}") {
            for value in [value.as_slice(), escapes.as_bytes()] {
                for decoder in [Decoder::Json, Decoder::Escaped, Decoder::EscapedUtf8, Decoder::MysqlQuoted] {
                    let (mut decoded, mut allowance) = (Decoded::default(), 1 << 16);
                    decoded.run(&[rule(decoder, false, Then::DoNext), rule(Decoder::Json, true, Then::Stop)], value, &mut allowance);
                    prop_assert!(decoded.text.len() <= value.len() * 3);
                }
            }
        }
    }
}
