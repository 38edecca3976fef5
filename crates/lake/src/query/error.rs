//! What is wrong with a query, where, and the way out.
//!
//! In: the query's text and a place in it; out: a message with the line and a caret under the fault. Of a long
//! query some 80 bytes around the fault are shown, so an error is small whatever the query is.

use std::fmt;

/// What is wrong with a query, where, and the way out. Displays with the line and a caret under the fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryError {
    /// Byte offset in the query.
    pub at: usize,
    pub message: String,
    pub help: String,
    /// The part of the query around the fault, and the fault's column in it.
    excerpt: (String, usize),
}

impl std::error::Error for QueryError {}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, column) = &self.excerpt;
        write!(f, "query:{}: {}\n  {line}\n  {:column$}^", self.at + 1, self.message, "")?;
        if self.help.is_empty() { Ok(()) } else { write!(f, "\n  help: {}", self.help) }
    }
}

impl QueryError {
    /// `at`: byte offset of the fault in `text`.
    pub(crate) fn new(text: &str, at: usize, message: impl Into<String>, help: impl Into<String>) -> QueryError {
        let at = floor_char(text, at.min(text.len()));
        let start = floor_char(text, at.saturating_sub(50));
        let end = floor_char(text, (at + 30).min(text.len()));
        let line: String = text[start..end].chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let column = text[start..at].chars().count();
        QueryError { at, message: clip(message.into()), help: clip(help.into()), excerpt: (line, column) }
    }
}

/// A word of the query that is quoted in an error may be as long as the query.
fn clip(mut text: String) -> String {
    const BYTES_MAX: usize = 400;
    if text.len() > BYTES_MAX {
        text.truncate(floor_char(&text, BYTES_MAX));
        text.push('…');
    }
    text
}

/// The last place at or before `at` that does not split a character.
pub(crate) fn floor_char(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// The word of `known` that was probably meant: at most two edits away, or one begins with the other.
///
/// Of several the nearest wins, then the first by bytes. Nothing is near a word of more than 64 bytes.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.is_empty() || word.len() > 64 {
        return None;
    }
    let lower = word.to_lowercase();
    let rate = |candidate: &'a str| {
        let other = candidate.to_lowercase();
        // Two edits make any two short words the same.
        let edits_max = 2.min(lower.chars().count().max(other.chars().count()) / 2);
        let edits = if other.len() > 128 { usize::MAX } else { distance(&lower, &other) };
        let is_prefix = lower.len() >= 2 && other.len() >= 2 && (other.starts_with(&lower) || lower.starts_with(&other));
        (edits <= edits_max || is_prefix).then_some((edits, candidate))
    };
    known.into_iter().filter_map(rate).min().map(|(_, candidate)| candidate)
}

/// Edits (insert, delete, replace, swap neighbours) between two words. Method: Damerau and Levenshtein, each
/// stretch edited once.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = (last[j] + 1).min(row[j - 1] + 1).min(replaced);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_finds_the_word_that_was_meant() {
        let known = ["service", "latency_ms", "level", "user.id", "ip"];
        for (word, want) in [
            ("servcie", Some("service")),
            ("Service", Some("service")),
            ("lat", Some("latency_ms")),
            ("latency_ms_total", Some("latency_ms")),
            ("levle", Some("level")),
            ("user_id", Some("user.id")),
            ("banana", None),
            ("xy", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, known), want, "{word}");
        }
    }
}
