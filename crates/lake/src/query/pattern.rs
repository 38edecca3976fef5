//! Patterns of a query: stars and question marks, and regexes.
//!
//! A glob takes time in proportion to the text, times the longest stretch that has a `?` in it, which is
//! bounded by [`STRETCH_MAX`]. A regex runs in linear time (crate regex) within [`REGEX_BYTES_MAX`] compiled.

use regex::{Regex, RegexBuilder};
use regex_syntax::hir::literal::Extractor;
use std::borrow::Cow;

/// Longest stretch between two stars that may have a `?` in it, in characters.
pub(crate) const STRETCH_MAX: usize = 256;
/// Most bytes of a compiled regex, and of its cache of states.
const REGEX_BYTES_MAX: usize = 1 << 20;

/// Literal stretches with gaps: `*` for any text, `?` for one character.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Glob {
    /// The stretches between the stars, at least one.
    stretches: Vec<Stretch>,
}

/// Pieces with one character of any kind between each two; one piece if there is no `?`.
type Stretch = Vec<String>;

impl Glob {
    /// `stretches`: between the stars; in each the pieces between question marks.
    pub(crate) fn new(stretches: Vec<Vec<String>>) -> Glob {
        Glob { stretches }
    }

    /// Whether any text passes.
    pub(crate) fn is_any(&self) -> bool {
        self.stretches.len() > 1 && self.stretches.iter().all(|s| s.iter().all(String::is_empty) && s.len() == 1)
    }

    pub(crate) fn lower(&self) -> Glob {
        let lower = |piece: &String| piece.chars().flat_map(char::to_lowercase).collect();
        Glob { stretches: self.stretches.iter().map(|s| s.iter().map(lower).collect()).collect() }
    }

    /// Whether it can only fit one word: letters and digits.
    pub(crate) fn is_word(&self) -> bool {
        self.stretches.iter().flatten().all(|piece| piece.chars().all(char::is_alphanumeric))
    }

    /// What every text that passes begins with.
    pub(crate) fn prefix(&self) -> &str {
        self.stretches.first().and_then(|s| s.first()).map_or("", String::as_str)
    }

    pub(crate) fn matches(&self, text: &str) -> bool {
        let [first, rest @ ..] = self.stretches.as_slice() else { return false };
        let Some(end) = at_start(first, text) else { return false };
        let [middle @ .., last] = rest else { return end == text.len() };
        let mut rest = &text[end..];
        for stretch in middle {
            match find(stretch, rest) {
                Some(end) => rest = &rest[end..],
                None => return false,
            }
        }
        at_end(last, rest)
    }
}

/// Where the stretch ends if the text begins with it.
fn at_start(stretch: &Stretch, text: &str) -> Option<usize> {
    let [first, more @ ..] = stretch.as_slice() else { return Some(0) };
    let mut rest = text.strip_prefix(first.as_str())?;
    for piece in more {
        let mut chars = rest.chars();
        chars.next()?;
        rest = chars.as_str().strip_prefix(piece.as_str())?;
    }
    Some(text.len() - rest.len())
}

fn at_end(stretch: &Stretch, text: &str) -> bool {
    let [more @ .., last] = stretch.as_slice() else { return true };
    let Some(mut rest) = text.strip_suffix(last.as_str()) else { return false };
    for piece in more.iter().rev() {
        let mut chars = rest.chars();
        let Some(before) = chars.next_back().and_then(|_| chars.as_str().strip_suffix(piece.as_str())) else { return false };
        rest = before;
    }
    true
}

/// Where the first place of the stretch in the text ends.
fn find(stretch: &Stretch, text: &str) -> Option<usize> {
    if let [only] = stretch.as_slice() {
        return text.find(only.as_str()).map(|at| at + only.len());
    }
    text.char_indices().find_map(|(at, _)| at_start(stretch, &text[at..]).map(|end| at + end))
}

/// A regex with the text it was made from.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    text: String,
    regex: Regex,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.text == other.text
    }
}

impl Pattern {
    /// The error: what is wrong, and the byte of the pattern where.
    pub(crate) fn new(text: &str) -> Result<Pattern, (usize, String)> {
        regex_syntax::Parser::new().parse(text).map_err(|error| match error {
            regex_syntax::Error::Parse(error) => (error.span().start.offset, error.kind().to_string()),
            regex_syntax::Error::Translate(error) => (error.span().start.offset, error.kind().to_string()),
            _ => (0, "it cannot be read".to_owned()),
        })?;
        let built = RegexBuilder::new(text).size_limit(REGEX_BYTES_MAX).dfa_size_limit(REGEX_BYTES_MAX).build();
        match built {
            Ok(regex) => Ok(Pattern { text: text.to_owned(), regex }),
            Err(regex::Error::CompiledTooBig(_)) => Err((0, "it is too large: repeats and classes multiply".to_owned())),
            Err(error) => Err((0, error.to_string())),
        }
    }

    /// As it was written.
    #[cfg(test)]
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn matches(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }

    /// Texts of which every match begins with one; empty where that is not known.
    pub(crate) fn prefixes(&self) -> Vec<String> {
        let Ok(hir) = regex_syntax::Parser::new().parse(&self.text) else { return Vec::new() };
        let anchored = hir.properties().look_set_prefix().contains(regex_syntax::hir::Look::Start);
        if anchored { literals(&Extractor::new().extract(&hir)) } else { Vec::new() }
    }

    /// Texts of which every text that passes has one in it; empty where that is not known.
    pub(crate) fn required(&self) -> Vec<String> {
        let Ok(hir) = regex_syntax::Parser::new().parse(&self.text) else { return Vec::new() };
        required(&hir, 0)
    }
}

fn literals(seq: &regex_syntax::hir::literal::Seq) -> Vec<String> {
    let Some(literals) = seq.literals() else { return Vec::new() };
    let texts: Option<Vec<String>> = literals
        .iter()
        .map(|literal| match String::from_utf8_lossy(literal.as_bytes()) {
            Cow::Borrowed(text) if !text.is_empty() => Some(text.to_owned()),
            _ => None, // nothing, or a piece of a character
        })
        .collect();
    texts.unwrap_or_default()
}

/// Of a sequence the longest literal that must be there, of an alternation one for each branch.
fn required(hir: &regex_syntax::hir::Hir, depth: usize) -> Vec<String> {
    use regex_syntax::hir::HirKind;
    const BRANCHES_MAX: usize = 16;
    if depth > 50 {
        return Vec::new();
    }
    match hir.kind() {
        HirKind::Literal(literal) => match std::str::from_utf8(&literal.0) {
            Ok(text) => vec![text.to_owned()],
            Err(_) => Vec::new(),
        },
        HirKind::Capture(capture) => required(&capture.sub, depth + 1),
        HirKind::Repetition(repetition) if repetition.min > 0 => required(&repetition.sub, depth + 1),
        HirKind::Concat(parts) => {
            let shortest = |texts: &Vec<String>| texts.iter().map(String::len).min().unwrap_or(0);
            parts.iter().map(|part| required(part, depth + 1)).max_by_key(shortest).unwrap_or_default()
        }
        HirKind::Alternation(branches) => {
            let mut all = Vec::new();
            for branch in branches {
                let texts = required(branch, depth + 1);
                if texts.is_empty() || all.len() + texts.len() > BRANCHES_MAX {
                    return Vec::new();
                }
                all.extend(texts);
            }
            all
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, text: &str, want: bool) {
        let stretches = pattern.split('*').map(|s| s.split('?').map(str::to_owned).collect()).collect();
        assert_eq!(Glob::new(stretches).matches(text), want, "{pattern} {text}");
    }

    #[test]
    fn stars_and_question_marks_match_in_order_and_without_overlap() {
        for (pattern, text, want) in [
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("*b*", "abc", true),
            ("a*b*b", "ab", false),
            ("*", "", true),
            ("?", "", false),
            ("?", "é", true),
            ("?", "ab", false),
            ("a?c", "aéc", true),
            ("a?c", "ac", false),
            ("*?", "", false),
            ("*?", "xyz", true),
            ("*a?c*", "zzabczz", true),
            ("*a?c*d", "acacd", false),
            ("*a?c*d", "acabcd", true),
            ("??*??", "abc", false),
            ("??*??", "abcd", true),
            ("ab?*?ba", "ab1ba", false),
        ] {
            check(pattern, text, want);
        }
    }

    #[test]
    fn what_a_regex_needs_is_known_or_nothing_is_said() {
        let required = |text: &str| Pattern::new(text).unwrap().required();
        assert_eq!(required("conn(ection)? reset by"), [" reset by"]);
        assert_eq!(required("(timeout|refused) x*"), ["timeout", "refused"]);
        assert_eq!(required("(timeout|.*)y?"), [""; 0]);
        assert_eq!(required("(?i)reset"), [""; 0]);
        assert_eq!(required("[ab]+"), [""; 0]);
        let prefixes = |text: &str| Pattern::new(text).unwrap().prefixes();
        assert_eq!(prefixes("^gpt-[45]"), ["gpt-4", "gpt-5"]);
        assert_eq!(prefixes("gpt"), [""; 0]);
        assert_eq!(prefixes("(?m)^gpt"), [""; 0]);
        assert_eq!(prefixes("^gpt|x"), [""; 0]);
    }

    #[test]
    fn a_regex_is_bounded() {
        for text in ["(a{1000}){1000}", r"\w{5000}", "(((((x{30}){30}){30}){30}){30})"] {
            assert!(Pattern::new(text).unwrap_err().1.contains("too large"), "{text}");
        }
        let deep = format!("{}x{}", "(".repeat(10_000), ")".repeat(10_000));
        assert!(Pattern::new(&deep).is_err());
        // Takes exponential time where a machine goes back.
        let long = format!("{}!", "a".repeat(100_000));
        assert!(!Pattern::new("^(a+)+$").unwrap().matches(&long));
    }
}
