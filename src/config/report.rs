//! What is wrong with a config, told so that somebody can mend it.
//!
//! In: mistakes with a place; out: text for people (file, line, column, the line itself with a caret, the rule, the
//! way out) or JSON for machines. At most [`MISTAKES_MAX`] are kept for each file; a last one says that there are more.

use serde::Serialize;
use std::fmt;

/// Beyond this nobody reads on; the rest shows once these are mended.
pub const MISTAKES_MAX: usize = 100;

/// Characters of a source line that are shown on each side of the caret.
const EXCERPT_CHARS: usize = 100;

/// A place in a file. Lines and columns count from 1, columns in characters; line 0 is the file as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spot {
    pub line: usize,
    pub column: usize,
    /// Characters under the caret.
    pub width: usize,
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mistake {
    pub file: String,
    pub line: usize,
    pub column: usize,
    #[serde(skip)]
    pub width: usize,
    /// Where in the config, as in `steps[0].sample.other`; empty for the file as a whole.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// The rule it breaks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The way out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// The line as it stands in the file; empty if there is none.
    pub source: String,
}

impl Mistake {
    /// A mistake of a whole file, as when it cannot be read.
    pub fn of_file(file: &str, message: impl Into<String>, help: impl Into<String>) -> Mistake {
        Mistake {
            file: file.into(),
            line: 0,
            column: 0,
            width: 0,
            path: String::new(),
            message: message.into(),
            rule: None,
            help: Some(help.into()).filter(|text: &String| !text.is_empty()),
            source: String::new(),
        }
    }
}

/// Every mistake found, in the order of the files and of the lines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    pub mistakes: Vec<Mistake>,
}

impl Report {
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a report is strings and numbers")
    }
}

impl std::error::Error for Report {}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, mistake) in self.mistakes.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{mistake}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tell("error", f)
    }
}

/// A mistake that does not stop anything.
pub struct Warning<'a>(pub &'a Mistake);

impl fmt::Display for Warning<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.tell("warning", f)
    }
}

impl Mistake {
    fn tell(&self, what: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{what}: {}:", self.file)?;
        if self.line > 0 {
            write!(f, "{}:{}:", self.line, self.column)?;
        }
        if !self.path.is_empty() {
            let says_itself = ["is ", "has ", "lies ", "fits "].iter().any(|verb| self.message.starts_with(verb));
            write!(f, " {}{}", printable(&self.path), if says_itself { "" } else { ":" })?;
        }
        writeln!(f, " {}", printable(&self.message))?;
        if self.line > 0 && !self.source.is_empty() {
            let number = self.line.to_string();
            let (excerpt, before) = excerpt(&self.source, self.column);
            let width = self.width.min(excerpt.chars().count().saturating_sub(before)).max(1);
            writeln!(f, "  {number} | {excerpt}")?;
            writeln!(f, "  {:1$} | {2:3$}{4}", "", number.len(), "", before, "^".repeat(width))?;
        }
        for line in self.rule.iter() {
            writeln!(f, "  {}", printable(line))?;
        }
        for line in self.help.iter() {
            writeln!(f, "  help: {}", printable(line))?;
        }
        Ok(())
    }
}

/// The part of a line around a column, and how many characters stand before that column in it.
fn excerpt(source: &str, column: usize) -> (String, usize) {
    let before = column.saturating_sub(1);
    let skip = before.saturating_sub(EXCERPT_CHARS);
    let lead = if skip > 0 { "…" } else { "" };
    let shown: String = source.chars().skip(skip).take(2 * EXCERPT_CHARS).collect();
    let tail = if source.chars().nth(skip + 2 * EXCERPT_CHARS).is_some() { "…" } else { "" };
    (format!("{lead}{}{tail}", printable(&shown)), before - skip + lead.chars().count())
}

/// One character for each one, none of which moves a terminal's cursor; so the caret stays where it belongs.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c == '\t' {
                ' '
            } else if c.is_control() {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

/// The word of `known` that was probably meant: at most a third of it is different.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > 64 {
        return None;
    }
    let lower = word.to_lowercase();
    known
        .into_iter()
        .map(|candidate| (distance(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len().max(word.len()) / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edits (insert, delete, replace, swap neighbours) between two words. Method: optimal string alignment.
pub fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let same = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1).min(row[j - 1] + 1).min(rows[i - 1][j - 1] + same);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_finds_the_word_that_was_meant() {
        let known = ["rotate", "compress", "commit", "path"];
        for (word, want) in
            [("rotat", Some("rotate")), ("Compress", Some("compress")), ("comimt", Some("commit")), ("banana", None), ("", None)]
        {
            assert_eq!(nearest(word, known), want, "{word}");
        }
    }

    #[test]
    fn the_caret_stands_under_its_column_in_a_long_line() {
        let line = format!("{}X{}", "a".repeat(5_000), "b".repeat(5_000));
        let (text, before) = excerpt(&line, 5_001);
        assert_eq!(text.chars().nth(before), Some('X'));
        assert!(text.chars().count() <= 2 * EXCERPT_CHARS + 2);
    }
}
