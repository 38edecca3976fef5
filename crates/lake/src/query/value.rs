//! The values of tests: words with their stars, quoted text, comparisons, ranges, regexes.
//!
//! In: the place in the text where one begins; out: a test, and the place behind it.

use super::error::QueryError;
use super::parser::Parser;
use super::pattern::STRETCH_MAX;
use super::{Bound, Glob, Pattern, REGEXES_MAX, Range, Test};

/// A word as written: what lies between the stars, and in that what lies between the question marks.
pub(super) struct Word {
    stretches: Vec<Vec<String>>,
    /// It contains a backslash, so it is never an operator.
    pub(super) escaped: bool,
    /// As it reads if stars and question marks mean nothing.
    pub(super) plain: String,
}

impl Word {
    pub(super) fn is_plain(&self) -> bool {
        self.stretches.len() == 1 && self.stretches[0].len() == 1
    }

    pub(super) fn is_operator(&self, name: &str) -> bool {
        !self.escaped && self.plain == name
    }

    fn push(&mut self, c: char) {
        self.plain.push(c);
        if let Some(piece) = self.stretches.last_mut().and_then(|s| s.last_mut()) {
            piece.push(c);
        }
    }
}

impl Parser<'_> {
    /// A comparison, a range, a regex or `=value`, if one stands here.
    pub(super) fn special(&mut self, field: &str) -> Result<Option<Test>, QueryError> {
        let rest = &self.text[self.at..];
        for (sign, low, inclusive) in [(">=", true, true), ("<=", false, true), (">", true, false), ("<", false, false)] {
            if rest.starts_with(sign) {
                self.at += sign.len();
                let text = self.operand(field, sign)?;
                let bound = Some(Bound { text, inclusive });
                let range = if low { Range { low: bound, high: None } } else { Range { low: None, high: bound } };
                return Ok(Some(Test::Range(range)));
            }
        }
        if rest.starts_with('=') {
            self.at += 1;
            return Ok(Some(Test::Exact(self.operand(field, "=")?)));
        }
        if rest.starts_with(['[', '{']) {
            return self.range(field).map(Some);
        }
        self.regex()
    }

    fn operand(&mut self, field: &str, sign: &str) -> Result<String, QueryError> {
        let at = self.at;
        let text = match self.peek() {
            Some('"') => return self.quoted(),
            _ => self.word(false)?.plain,
        };
        if text.is_empty() {
            self.fault(
                at,
                format!("a value is missing after {sign}"),
                format!("write {field}:{sign}500, or {field}:{sign}\"\" for the empty text"),
            )?;
        }
        Ok(text)
    }

    fn range(&mut self, field: &str) -> Result<Test, QueryError> {
        let open = self.at;
        match self.try_range() {
            Ok(range) => Ok(if range == Range::default() { Test::Exists } else { Test::Range(range) }),
            Err(message) => {
                let help = format!("write {field}:[1 TO 5], {field}:{{1 TO *}}, or {field}:\"[\" for the sign itself");
                self.fault(open, message, help)?;
                // Mended: what stands there is looked for as words.
                self.at = open;
                let word = self.word(false)?.plain;
                let words: String = word.chars().map(|c| if matches!(c, '[' | ']' | '{' | '}') { ' ' } else { c }).collect();
                Ok(Test::Phrase(words.trim().to_owned()))
            }
        }
    }

    /// `[a TO b]`, with `{` and `}` for a bound that is left out and `*` for an open end.
    fn try_range(&mut self) -> Result<Range, &'static str> {
        const CLOSED: &str = "this range is never closed";
        let low_inclusive = self.peek() == Some('[');
        self.at += 1;
        let low = self.bound().ok_or(CLOSED)?;
        self.skip_space();
        let rest = &self.text[self.at..];
        if !rest.starts_with("TO") || !rest[2..].starts_with(char::is_whitespace) {
            return Err("a range has TO between its bounds");
        }
        self.at += 2;
        let high = self.bound().ok_or(CLOSED)?;
        self.skip_space();
        let high_inclusive = match self.peek() {
            Some(']') => true,
            Some('}') => false,
            None => return Err(CLOSED),
            Some(_) => return Err("a range has two bounds and ends with ] or }"),
        };
        self.at += 1;
        if self.peek().is_some_and(|c| !c.is_whitespace() && c != ')' && c != '|') {
            return Err("a blank is missing after this range");
        }
        let bound = |text: Option<String>, inclusive| text.map(|text| Bound { text, inclusive });
        Ok(Range { low: bound(low, low_inclusive), high: bound(high, high_inclusive) })
    }

    /// A bound of a range; the inner `None` is an open end, the outer one a missing bound.
    fn bound(&mut self) -> Option<Option<String>> {
        self.skip_space();
        if self.peek() == Some('"') {
            let lenient = std::mem::replace(&mut self.lenient, false);
            let text = self.quoted();
            self.lenient = lenient;
            return text.ok().map(Some);
        }
        let start = self.at;
        let mut text = String::new();
        while let Some(c) = self.peek() {
            if c.is_whitespace() || matches!(c, ']' | '}' | '|' | '(' | ')' | '"') {
                break;
            }
            self.at += c.len_utf8();
            if c != '\\' {
                text.push(c);
            } else if let Some(next) = self.peek() {
                text.push(next);
                self.at += next.len_utf8();
            }
        }
        match &self.text[start..self.at] {
            "" => None,
            "*" => Some(None),
            _ => Some(Some(text)),
        }
    }

    /// `/re/`, if one stands here: it ends with a slash before a blank, a bracket, a pipe or the end. Else it is a path.
    pub(super) fn regex(&mut self) -> Result<Option<Test>, QueryError> {
        if self.peek() != Some('/') {
            return Ok(None);
        }
        let open = self.at;
        let bytes = self.text.as_bytes();
        let mut close = open + 1;
        while close < bytes.len() && bytes[close] != b'/' {
            close += if bytes[close] == b'\\' { 2 } else { 1 };
        }
        let after = self.text.get(close + 1..).and_then(|rest| rest.chars().next());
        if close >= bytes.len() || close == open + 1 || after.is_some_and(|c| !c.is_whitespace() && c != ')' && c != '|') {
            return Ok(None);
        }
        let text = &self.text[open + 1..close];
        self.at = close + 1;
        self.regexes += 1;
        if self.regexes > REGEXES_MAX {
            self.fault(open, "the query has too many regexes", format!("{REGEXES_MAX} are possible; join some with |, as in /a|b/"))?;
            return Ok(Some(Test::Phrase(text.to_owned())));
        }
        match Pattern::new(text) {
            Ok(pattern) => Ok(Some(Test::Regex(pattern))),
            Err((offset, what)) => {
                let help = format!("write \"{text}\" to look for the text itself");
                let help = if text.len() > 60 { "write it in quotes to look for the text itself".to_owned() } else { help };
                self.fault(open + 1 + offset, format!("this regex is wrong: {what}"), help)?;
                Ok(Some(Test::Phrase(text.to_owned())))
            }
        }
    }

    /// A word up to a blank, a bracket, a quote or a pipe; `stop_at_colon` also ends it there.
    pub(super) fn word(&mut self, stop_at_colon: bool) -> Result<Word, QueryError> {
        let mut word = Word { stretches: vec![vec![String::new()]], escaped: false, plain: String::new() };
        while let Some(c) = self.peek() {
            let at = self.at;
            match c {
                '\\' => {
                    self.at += 1;
                    word.escaped = true;
                    match self.peek() {
                        Some(next) => {
                            word.push(next);
                            self.at += next.len_utf8();
                        }
                        None => self.fault(at, "a backslash at the end escapes nothing", "write \\\\ to look for a backslash")?,
                    }
                }
                ':' if stop_at_colon => break,
                '(' | ')' | '"' | '|' => break,
                c if c.is_whitespace() => break,
                '*' => {
                    word.stretches.push(vec![String::new()]);
                    word.plain.push('*');
                    self.at += 1;
                }
                '?' => {
                    if let Some(stretch) = word.stretches.last_mut() {
                        stretch.push(String::new());
                    }
                    word.plain.push('?');
                    self.at += 1;
                }
                c => {
                    word.push(c);
                    self.at += c.len_utf8();
                }
            }
        }
        Ok(word)
    }

    pub(super) fn word_test(&mut self, word: Word, at: usize) -> Result<Test, QueryError> {
        if word.is_plain() {
            return Ok(Test::Word(word.plain));
        }
        let length = |stretch: &Vec<String>| stretch.len() + stretch.iter().map(|p| p.chars().count()).sum::<usize>();
        if word.stretches.iter().any(|s| s.len() > 1 && length(s) > STRETCH_MAX) {
            self.fault(at, "this pattern is too long", format!("with ? in it, {STRETCH_MAX} characters are possible between two stars"))?;
            return Ok(Test::Phrase(word.plain));
        }
        let glob = Glob::new(word.stretches);
        Ok(if glob.is_any() { Test::Exists } else { Test::Glob(glob) })
    }

    pub(super) fn quoted(&mut self) -> Result<String, QueryError> {
        let open = self.at;
        self.at += 1;
        let mut text = String::new();
        while let Some(c) = self.peek() {
            self.at += c.len_utf8();
            match c {
                '"' => return Ok(text),
                '\\' => {
                    if let Some(next) = self.peek() {
                        text.push(next);
                        self.at += next.len_utf8();
                    }
                }
                c => text.push(c),
            }
        }
        self.fault(open, "this quote is never closed", "write \\\" to look for a quote")?;
        Ok(text)
    }
}
