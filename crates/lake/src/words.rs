//! Splits text into words: runs of letters and digits of any script, in lower case.
//!
//! Reads a text, yields its words in order. The index, the scan and the query line all use this one rule, so
//! they cannot disagree about what a word is. Nothing is allocated for a word that is ASCII and lower case.

use std::borrow::Cow;

/// Longest word or value that the index holds, in bytes. A record with a longer one is always a candidate.
pub const TERM_BYTES_MAX: usize = 512; // far below tantivy's own 65,530

/// The words of `text`, in order.
pub fn words(text: &str) -> Words<'_> {
    Words { rest: text }
}

pub struct Words<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Words<'a> {
    type Item = Cow<'a, str>;

    fn next(&mut self) -> Option<Cow<'a, str>> {
        let start = self.rest.find(is_word_char)?;
        let from = &self.rest[start..];
        let end = from.find(|c| !is_word_char(c)).unwrap_or(from.len());
        let (word, rest) = from.split_at(end);
        self.rest = rest;
        Some(lower(word))
    }
}

fn is_word_char(c: char) -> bool {
    if c.is_ascii() { c.is_ascii_alphanumeric() } else { c.is_alphanumeric() }
}

/// Lower case, character by character, so that a word reads the same wherever it stands.
pub(crate) fn lower(word: &str) -> Cow<'_, str> {
    if word.bytes().all(|b| b.is_ascii() && !b.is_ascii_uppercase()) {
        return Cow::Borrowed(word);
    }
    Cow::Owned(word.chars().flat_map(char::to_lowercase).collect())
}

/// Shows the words of `text` (UTF-8) as bytes. `word`: room for one.
pub fn each_word<E>(text: &[u8], word: &mut Vec<u8>, mut each: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
    if !text.is_ascii() {
        return words(&String::from_utf8_lossy(text)).try_for_each(|word| each(word.as_bytes()));
    }
    let mut rest = text;
    while let Some(start) = rest.iter().position(u8::is_ascii_alphanumeric) {
        rest = &rest[start..];
        let end = rest.iter().position(|b| !b.is_ascii_alphanumeric()).unwrap_or(rest.len());
        let (plain, after) = rest.split_at(end);
        rest = after;
        if plain.iter().any(u8::is_ascii_uppercase) {
            word.clear();
            word.extend(plain.iter().map(u8::to_ascii_lowercase));
            each(word)?;
        } else {
            each(plain)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: &[&str]) {
        assert_eq!(words(text).collect::<Vec<_>>(), want);
        let mut all = Vec::new();
        let shown: Result<(), ()> = each_word(text.as_bytes(), &mut Vec::new(), |word| {
            all.push(String::from_utf8(word.to_vec()).unwrap());
            Ok(())
        });
        assert_eq!((shown, all), (Ok(()), want.iter().map(|w| w.to_string()).collect()));
    }

    #[test]
    fn a_word_is_a_run_of_letters_and_digits_in_lower_case() {
        check("Conn reset: peer=10.0.0.1", &["conn", "reset", "peer", "10", "0", "0", "1"]);
        check("ÄRGER in Köln, 東京 ok", &["ärger", "in", "köln", "東京", "ok"]);
        check("ΣΑΣ", &["σασ"]);
        check(" -- !", &[]);
        check("", &[]);
    }
}
