//! Splits text into words: runs of letters and digits of any script, in lower case.
//!
//! Reads a text, yields its words in order. The index, the scan and the query line all use this one rule, so
//! they cannot disagree about what a word is. Nothing is allocated for a word that is ASCII and lower case.

use std::borrow::Cow;
use tantivy::tokenizer::{Token, TokenStream, Tokenizer};

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

/// The same words, as tantivy wants them. Words above [`TERM_BYTES_MAX`] are left out.
#[derive(Clone, Default)]
pub struct WordTokenizer {
    token: Token,
}

pub struct WordStream<'a> {
    words: Words<'a>,
    token: &'a mut Token,
}

impl Tokenizer for WordTokenizer {
    type TokenStream<'a> = WordStream<'a>;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> WordStream<'a> {
        self.token.reset();
        WordStream { words: words(text), token: &mut self.token }
    }
}

impl TokenStream for WordStream<'_> {
    fn advance(&mut self) -> bool {
        for word in self.words.by_ref() {
            if word.len() <= TERM_BYTES_MAX {
                self.token.text.clear();
                self.token.text.push_str(&word);
                self.token.position = self.token.position.wrapping_add(1);
                return true;
            }
        }
        false
    }

    fn token(&self) -> &Token {
        self.token
    }

    fn token_mut(&mut self) -> &mut Token {
        self.token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: &[&str]) {
        assert_eq!(words(text).collect::<Vec<_>>(), want);
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
