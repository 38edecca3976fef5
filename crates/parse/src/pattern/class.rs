//! Classes of characters: which ones, and whether a byte that is no UTF-8 is in.
//!
//! A line is read as characters; each byte that begins no valid UTF-8 sequence is a character of its own, which is in no class
//! but negated ones. So a damaged byte ends no match of `.` or `[^ ]`, and is never taken for a letter.

use regex_syntax::hir::{Class as HirClass, ClassUnicode, ClassUnicodeRange, HirKind};
use std::sync::LazyLock;

#[derive(Clone, Debug, PartialEq)]
pub struct Class {
    pub chars: ClassUnicode,
    /// Bytes that are no UTF-8 are in.
    pub invalid: bool,
}

/// What `\d`, `\w`, `\s` and `[[:alpha:]]` take: option letters a, d (the rule), u.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// `\w` is ASCII, `[[:alpha:]]` is not.
    Default,
    Ascii,
    Unicode,
}

impl Default for Class {
    fn default() -> Class {
        Class { chars: ClassUnicode::empty(), invalid: false }
    }
}

impl Class {
    pub fn empty() -> Class {
        Class::default()
    }

    pub fn of(ranges: &[(char, char)]) -> Class {
        Class { chars: ClassUnicode::new(ranges.iter().map(|(a, z)| ClassUnicodeRange::new(*a, *z))), invalid: false }
    }

    /// Every character; without `newline`: but that one.
    pub fn dot(newline: bool) -> Class {
        match newline {
            true => Class::empty().negated(),
            false => Class::of(&[('\n', '\n')]).negated(),
        }
    }

    pub fn negated(mut self) -> Class {
        self.chars.negate();
        self.invalid = !self.invalid;
        self
    }

    pub fn negated_if(self, negated: bool) -> Class {
        if negated { self.negated() } else { self }
    }

    pub fn add(&mut self, other: &Class) {
        self.chars.union(&other.chars);
        self.invalid |= other.invalid;
    }

    pub fn keep(&mut self, other: &Class) {
        self.chars.intersect(&other.chars);
        self.invalid &= other.invalid;
    }

    /// Adds each letter's other case.
    pub fn fold(&mut self) {
        self.chars.case_fold_simple();
    }

    pub fn has(&self, c: char) -> bool {
        let ranges = self.chars.ranges();
        let at = ranges.partition_point(|range| range.end() < c);
        ranges.get(at).is_some_and(|range| range.start() <= c)
    }

    /// `\d`, `\w`, `\s`, `\h` by their letter.
    pub fn shorthand(letter: char, reach: Reach) -> Option<Class> {
        let wide = reach == Reach::Unicode;
        let class = match letter.to_ascii_lowercase() {
            'd' if wide => unicode(r"\p{Nd}"),
            'd' => Class::of(&[('0', '9')]),
            'w' if wide => WORD.clone(),
            'w' => Class::of(&[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')]),
            's' if wide => unicode(r"\p{White_Space}"),
            's' => Class::of(&[('\t', '\r'), (' ', ' ')]),
            'h' => Class::of(&[('0', '9'), ('A', 'F'), ('a', 'f')]),
            _ => return None,
        };
        Some(class.negated_if(letter.is_ascii_uppercase()))
    }

    /// `[[:name:]]`, also `\p{name}`: as Onigmo derives them from Unicode's properties.
    pub fn posix(name: &str, reach: Reach) -> Option<Class> {
        let mut class = unicode(match name {
            "alnum" => r"[\p{Alphabetic}\p{Nd}]",
            "alpha" => r"\p{Alphabetic}",
            "ascii" => r"[\x00-\x7F]",
            "blank" => r"[\p{Zs}\t]",
            "cntrl" => r"\p{Cc}",
            "digit" => r"\p{Nd}",
            "graph" => r"[^\p{White_Space}\p{Cc}\p{Cn}]",
            "lower" => r"\p{Lowercase}",
            "print" => r"[[^\p{White_Space}\p{Cc}\p{Cn}]\p{Zs}]",
            "punct" => r"[\p{P}$+<=>^`|~]",
            "space" => r"\p{White_Space}",
            "upper" => r"\p{Uppercase}",
            "word" => r"[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}]",
            "xdigit" => r"[0-9A-Fa-f]",
            _ => return None,
        });
        if reach == Reach::Ascii {
            class.keep(&Class::of(&[('\0', '\x7f')]));
        }
        Some(class)
    }

    /// `\p{name}`.
    pub fn property(name: &str, reach: Reach) -> Option<Class> {
        let plain: String = name.chars().filter(|c| !matches!(c, ' ' | '_' | '-')).collect::<String>().to_ascii_lowercase();
        if plain == "any" {
            return Some(Class::dot(true));
        }
        if let Some(class) = Class::posix(&plain, reach) {
            return Some(class);
        }
        let known = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, ' ' | '_' | '-'));
        if known { parsed(&format!(r"\p{{{name}}}")) } else { None }
    }
}

/// What makes a word's edge in `\b`: all scripts, as Onigmo has it for Ruby.
pub static WORD: LazyLock<Class> = LazyLock::new(|| unicode(r"\w"));

fn unicode(text: &str) -> Class {
    parsed(text).expect("these properties are in regex-syntax's tables")
}

fn parsed(text: &str) -> Option<Class> {
    let hir = regex_syntax::Parser::new().parse(text).ok()?;
    match hir.into_kind() {
        HirKind::Class(HirClass::Unicode(chars)) => Some(Class { chars, invalid: false }),
        HirKind::Literal(literal) => {
            let c = std::str::from_utf8(&literal.0).ok()?.chars().next()?;
            Some(Class::of(&[(c, c)]))
        }
        _ => None,
    }
}
