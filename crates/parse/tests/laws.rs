//! Laws of patterns over random patterns and lines.

use parse::definition::{Definition, Format};
use parse::parser::{Outcome, Scratch};
use parse::pattern::{Engine, Found, Pattern, Sieve, Sifted, States};
use parse::set::Set;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A pattern of Ruby's dialect, made up; the reference below reads this, never its text.
#[derive(Clone, Debug)]
enum Ruby {
    Char(char),
    Dot,
    /// Characters, negated.
    Class(Vec<char>, bool),
    Short(char),
    Start,
    End,
    Edge,
    Seq(Vec<Ruby>),
    Alt(Vec<Ruby>),
    /// Least, most, and `""`, `"?"` or `"+"`.
    Repeat(Box<Ruby>, u32, Option<u32>, &'static str),
    Named(u32, Box<Ruby>),
    Look(bool, Box<Ruby>),
    Behind(bool, char),
    Atomic(Box<Ruby>),
    Back(u32),
    Absent(char, char),
}

impl Ruby {
    fn text(&self) -> String {
        match self {
            Ruby::Char(c) if ".^$[]{}()\\*+?|".contains(*c) => format!("\\{c}"),
            Ruby::Char(c) => c.to_string(),
            Ruby::Dot => ".".to_string(),
            Ruby::Class(chars, negated) => format!("[{}{}]", if *negated { "^" } else { "" }, chars.iter().collect::<String>()),
            Ruby::Short(c) => format!("\\{c}"),
            Ruby::Start => "^".to_string(),
            Ruby::End => "$".to_string(),
            Ruby::Edge => "\\b".to_string(),
            Ruby::Seq(all) => all.iter().map(|one| one.within(matches!(one, Ruby::Alt(_)))).collect(),
            Ruby::Alt(all) => all.iter().map(Ruby::text).collect::<Vec<_>>().join("|"),
            Ruby::Repeat(one, min, max, greed) => {
                let count = match (min, max) {
                    (0, None) => "*".to_string(),
                    (1, None) => "+".to_string(),
                    (0, Some(1)) => "?".to_string(),
                    (min, None) => format!("{{{min},}}"),
                    (min, Some(max)) => format!("{{{min},{max}}}"),
                };
                one.within(true) + &count + greed
            }
            Ruby::Named(n, one) => format!("(?<g{n}>{})", one.text()),
            Ruby::Look(negated, one) => format!("(?{}{})", if *negated { "!" } else { "=" }, one.text()),
            Ruby::Behind(negated, c) => format!("(?<{}{c})", if *negated { "!" } else { "=" }),
            Ruby::Atomic(one) => format!("(?>{})", one.text()),
            Ruby::Back(n) => format!("\\k<g{n}>"),
            Ruby::Absent(a, b) => format!("(?~{a}{b})"),
        }
    }

    fn within(&self, in_group: bool) -> String {
        if in_group { format!("(?:{})", self.text()) } else { self.text() }
    }

    fn names(&self, found: &mut Vec<u32>) {
        match self {
            Ruby::Seq(all) | Ruby::Alt(all) => all.iter().for_each(|one| one.names(found)),
            Ruby::Named(n, one) => {
                found.push(*n);
                one.names(found);
            }
            Ruby::Repeat(one, ..) | Ruby::Look(_, one) | Ruby::Atomic(one) => one.names(found),
            _ => {}
        }
    }
}

/// Where each group lies, by characters.
type Groups = BTreeMap<u32, (usize, usize)>;

/// Ruby's search, written to be read: tries every way in order of preference, with continuations. `None`: it takes too long.
struct Reference<'a> {
    line: &'a [char],
    turns: u32,
}

struct TooLong;

type Then<'t> = &'t mut dyn FnMut(&mut Reference<'_>, usize, &Groups) -> Result<Option<Groups>, TooLong>;

impl Reference<'_> {
    fn find(pattern: &Ruby, line: &str) -> Option<Option<Groups>> {
        let line: Vec<char> = line.chars().collect();
        let mut reference = Reference { line: &line, turns: 20_000 };
        for start in 0..=line.len() {
            match reference.matches(pattern, start, &Groups::new(), &mut |_, _, groups| Ok(Some(groups.clone()))) {
                Ok(Some(groups)) => return Some(Some(groups)),
                Ok(None) => {}
                Err(TooLong) => return None,
            }
        }
        Some(None)
    }

    fn matches(&mut self, pattern: &Ruby, at: usize, groups: &Groups, then: Then<'_>) -> Result<Option<Groups>, TooLong> {
        self.turns = self.turns.checked_sub(1).ok_or(TooLong)?;
        let next = self.line.get(at).copied();
        match pattern {
            Ruby::Char(c) => self.one(next == Some(*c), at, groups, then),
            Ruby::Dot => self.one(next.is_some_and(|c| c != '\n'), at, groups, then),
            Ruby::Class(chars, negated) => self.one(next.is_some_and(|c| chars.contains(&c) != *negated), at, groups, then),
            Ruby::Short(short) => self.one(next.is_some_and(|c| is_short(*short, c)), at, groups, then),
            Ruby::Start => {
                let holds = at == 0 || (self.line[at - 1] == '\n' && at < self.line.len());
                if holds { then(self, at, groups) } else { Ok(None) }
            }
            Ruby::End => {
                if next.is_none_or(|c| c == '\n') {
                    then(self, at, groups)
                } else {
                    Ok(None)
                }
            }
            Ruby::Edge => {
                let is_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
                let before = if at > 0 { Some(self.line[at - 1]) } else { None };
                if is_word(before) != is_word(next) { then(self, at, groups) } else { Ok(None) }
            }
            Ruby::Seq(all) => self.sequence(all, at, groups, then),
            Ruby::Alt(all) => {
                for one in all {
                    if let Some(found) = self.matches(one, at, groups, then)? {
                        return Ok(Some(found));
                    }
                }
                Ok(None)
            }
            Ruby::Repeat(one, min, max, "+") => {
                let inner = Ruby::Repeat(one.clone(), *min, *max, "");
                self.matches(&Ruby::Atomic(Box::new(inner)), at, groups, then)
            }
            Ruby::Repeat(one, min, max, greed) => self.repeat(one, *min, *max, *greed == "?", at, groups, then),
            Ruby::Named(n, one) => self.matches(one, at, groups, &mut |reference, end, groups| {
                let mut groups = groups.clone();
                groups.insert(*n, (at, end));
                then(reference, end, &groups)
            }),
            Ruby::Look(negated, one) => {
                let found = self.matches(one, at, groups, &mut |_, _, groups| Ok(Some(groups.clone())))?;
                match (found, negated) {
                    (Some(groups), false) => then(self, at, &groups),
                    (None, true) => then(self, at, groups),
                    _ => Ok(None),
                }
            }
            Ruby::Behind(negated, c) => {
                let found = at > 0 && self.line[at - 1] == *c;
                if found != *negated { then(self, at, groups) } else { Ok(None) }
            }
            Ruby::Atomic(one) => {
                let mut end = 0;
                let found = self.matches(one, at, groups, &mut |_, at, groups| {
                    end = at;
                    Ok(Some(groups.clone()))
                })?;
                match found {
                    Some(groups) => then(self, end, &groups),
                    None => Ok(None),
                }
            }
            Ruby::Back(n) => match groups.get(n) {
                Some((start, end)) if self.line[at..].starts_with(&self.line[*start..*end]) => then(self, at + end - start, groups),
                _ => Ok(None),
            },
            Ruby::Absent(a, b) => {
                let stop = (at + 1..self.line.len()).find(|i| self.line[i - 1] == *a && self.line[*i] == *b);
                for end in (at..=stop.unwrap_or(self.line.len())).rev() {
                    if let Some(found) = then(self, end, groups)? {
                        return Ok(Some(found));
                    }
                }
                Ok(None)
            }
        }
    }

    fn one(&mut self, holds: bool, at: usize, groups: &Groups, then: Then<'_>) -> Result<Option<Groups>, TooLong> {
        if holds { then(self, at + 1, groups) } else { Ok(None) }
    }

    fn sequence(&mut self, all: &[Ruby], at: usize, groups: &Groups, then: Then<'_>) -> Result<Option<Groups>, TooLong> {
        match all.split_first() {
            None => then(self, at, groups),
            Some((first, rest)) => self.matches(first, at, groups, &mut |reference, at, groups| reference.sequence(rest, at, groups, then)),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one turn of the loop needs all of it")]
    fn repeat(
        &mut self,
        one: &Ruby,
        min: u32,
        max: Option<u32>,
        lazy: bool,
        at: usize,
        groups: &Groups,
        then: Then<'_>,
    ) -> Result<Option<Groups>, TooLong> {
        self.turns = self.turns.checked_sub(1).ok_or(TooLong)?;
        if min == 0
            && lazy
            && let Some(found) = then(self, at, groups)?
        {
            return Ok(Some(found));
        }
        if max != Some(0) {
            let found = self.matches(one, at, groups, &mut |reference, end, groups| {
                if end == at && max.is_none() && min <= 1 {
                    return then(reference, end, groups); // a turn that took nothing ends an endless loop
                }
                reference.repeat(one, min.saturating_sub(1), max.map(|max| max - 1), lazy, end, groups, then)
            })?;
            if found.is_some() {
                return Ok(found);
            }
        }
        if min == 0 && !lazy { then(self, at, groups) } else { Ok(None) }
    }
}

fn is_short(short: char, c: char) -> bool {
    let is = match short.to_ascii_lowercase() {
        'd' => c.is_ascii_digit(),
        'w' => c.is_ascii_alphanumeric() || c == '_',
        's' => c.is_ascii_whitespace() || c == '\x0b',
        _ => c.is_ascii_hexdigit(),
    };
    is != short.is_ascii_uppercase()
}

const LETTERS: [char; 7] = ['a', 'b', ' ', '1', 'é', '\n', '<'];

fn letter() -> impl Strategy<Value = char> {
    prop::sample::select(&LETTERS[..])
}

fn line() -> impl Strategy<Value = String> {
    prop::collection::vec(letter(), 0..12).prop_map(|chars| chars.into_iter().collect())
}

/// `plain`: only what the linear engine knows.
fn ruby(plain: bool) -> impl Strategy<Value = Ruby> {
    let class = (prop::collection::vec(prop::sample::select(&['a', 'b', '1', ' ', 'é'][..]), 1..3), any::<bool>());
    let plain_leaf = prop_oneof![
        6 => letter().prop_map(Ruby::Char),
        1 => Just(Ruby::Dot),
        3 => class.prop_map(|(chars, negated)| Ruby::Class(chars, negated)),
        2 => prop::sample::select(&['d', 'w', 's', 'h', 'D', 'W', 'S', 'H'][..]).prop_map(Ruby::Short),
        1 => Just(Ruby::Start),
        1 => Just(Ruby::End),
        1 => Just(Ruby::Edge),
    ];
    let odd_leaf = prop_oneof![
        (any::<bool>(), letter()).prop_map(|(negated, c)| Ruby::Behind(negated, c)),
        (0..3u32).prop_map(Ruby::Back),
        (letter(), letter()).prop_map(|(a, b)| Ruby::Absent(a, b)),
    ];
    let leaf = if plain { plain_leaf.boxed() } else { prop_oneof![8 => plain_leaf, 1 => odd_leaf].boxed() };
    let tree = leaf.prop_recursive(5, 24, 4, move |inner| {
        let counts = prop::sample::select(&[(0, None), (1, None), (0, Some(1)), (2, None), (1, Some(3)), (0, Some(2)), (2, Some(2))][..]);
        let greeds = if plain { &["", "", "?"][..] } else { &["", "?", "+"][..] };
        let repeat = (inner.clone(), counts, prop::sample::select(greeds)).prop_map(|(one, (min, max), greed)| {
            // With braces `+` repeats again and `{n}?` is optional: other tests.
            let is_brace = !matches!((min, max), (0 | 1, None) | (0, Some(1)));
            Ruby::Repeat(Box::new(one), min, max, if is_brace && (greed == "+" || max == Some(min)) { "" } else { greed })
        });
        let common = prop_oneof![
            3 => prop::collection::vec(inner.clone(), 1..4).prop_map(Ruby::Seq),
            2 => prop::collection::vec(inner.clone(), 2..4).prop_map(Ruby::Alt),
            3 => repeat,
            3 => inner.clone().prop_map(|one| Ruby::Named(0, Box::new(one))),
        ];
        let odd = prop_oneof![
            (any::<bool>(), inner.clone()).prop_map(|(negated, one)| Ruby::Look(negated, Box::new(one))),
            inner.prop_map(|one| Ruby::Atomic(Box::new(one))),
        ];
        if plain { common.boxed() } else { prop_oneof![8 => common, 1 => odd].boxed() }
    });
    tree.prop_map(|mut tree| {
        number(&mut tree, &mut 0);
        tree
    })
}

/// Gives each group a name of its own, and references a group that there is.
fn number(pattern: &mut Ruby, next: &mut u32) {
    match pattern {
        Ruby::Seq(all) | Ruby::Alt(all) => all.iter_mut().for_each(|one| number(one, next)),
        Ruby::Named(n, one) => {
            number(one, next);
            *n = *next;
            *next += 1;
        }
        Ruby::Repeat(one, ..) | Ruby::Look(_, one) | Ruby::Atomic(one) => number(one, next),
        Ruby::Back(n) if *next == 0 => *pattern = if *n == 0 { Ruby::Dot } else { Ruby::Char('a') },
        Ruby::Back(n) => *n %= *next,
        _ => {}
    }
}

type Fields = Vec<(String, Vec<u8>)>;

/// The fields as texts; outer `None`: it takes too long.
fn found(pattern: &Pattern, line: &[u8]) -> Option<Option<Fields>> {
    let mut slots = Vec::new();
    match pattern.find(line, &mut slots) {
        Found::Limit => None,
        Found::No => Some(None),
        Found::Yes => {
            let set = pattern.names().iter().zip(slots).filter_map(|(name, slot)| Some((name.clone(), slot?)));
            Some(Some(set.map(|(name, (start, end))| (name, line[start as usize..end as usize].to_vec())).collect()))
        }
    }
}

fn agrees_with_the_reference(pattern: &Ruby, line: &str) -> Result<(), TestCaseError> {
    let text = pattern.text();
    let compiled = Pattern::new(&text).map_err(|refusal| TestCaseError::fail(format!("{text}: {refusal}")))?;
    let (Some(seen), Some(want)) = (found(&compiled, line.as_bytes()), Reference::find(pattern, line)) else { return Ok(()) };
    let chars: Vec<char> = line.chars().collect();
    let want = want.map(|groups| {
        let mut names = Vec::new();
        pattern.names(&mut names);
        names.retain(|n| groups.contains_key(n));
        let text = |n: &u32| chars[groups[n].0..groups[n].1].iter().collect::<String>().into_bytes();
        names.iter().map(|n| (format!("g{n}"), text(n))).collect::<Vec<_>>()
    });
    prop_assert_eq!(&seen, &want, "{} on {:?}", text, line);
    prop_assert!(seen.is_none() || compiled.may_match(line.as_bytes()), "{} on {:?}", text, line);
    Ok(())
}

/// The same search by the `regex` crate.
fn linear(pattern: &Pattern, line: &str) -> Option<Fields> {
    let regex = regex::Regex::new(pattern.report().translated.as_deref().expect("a translation")).expect("a good translation");
    let captures = regex.captures(line)?;
    let groups = captures.iter().skip(1).zip(pattern.names());
    Some(groups.filter_map(|(group, name)| Some((name.clone(), group?.as_str().as_bytes().to_vec()))).collect())
}

fn cases(many: u32) -> ProptestConfig {
    let factor = if std::env::var_os("SLOW").is_some() { 50 } else { 1 };
    ProptestConfig { cases: many * factor, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(4000))]

    #[test]
    fn plain_patterns_agree_with_the_reference(pattern in ruby(true), lines in prop::collection::vec(line(), 4)) {
        for line in lines {
            agrees_with_the_reference(&pattern, &line)?;
        }
    }

    #[test]
    fn all_patterns_agree_with_the_reference(pattern in ruby(false), lines in prop::collection::vec(line(), 4)) {
        for line in lines {
            agrees_with_the_reference(&pattern, &line)?;
        }
    }

    #[test]
    fn both_engines_find_the_same(pattern in ruby(true), lines in prop::collection::vec(line(), 4)) {
        let compiled = Pattern::new(&pattern.text()).expect("a good pattern");
        for line in lines.iter().filter(|line| !line.ends_with('\n')) {
            if compiled.report().engine == Engine::Linear {
                prop_assert_eq!(found(&compiled, line.as_bytes()), Some(linear(&compiled, line)), "{} on {:?}", pattern.text(), line);
            }
        }
    }

    #[test]
    fn a_set_chooses_as_if_each_were_tried(patterns in prop::collection::vec(ruby(false), 3..8), lines in prop::collection::vec(line(), 8)) {
        let regex = |pattern: &Ruby| Definition::new("one", Format::Regex(pattern.text()));
        let set = Set::new(&patterns.iter().map(regex).collect::<Vec<_>>()).expect("good patterns");
        let (mut scratch, mut out) = (Scratch::default(), Vec::new());
        for line in lines {
            let each: Vec<Outcome> = set.parsers().iter().map(|p| p.parse(line.as_bytes(), 0, &mut scratch, &mut out)).collect();
            if !each.contains(&Outcome::Limit) {
                let chosen = set.parse(line.as_bytes(), 0, &mut scratch, &mut out).parser;
                prop_assert_eq!(chosen, each.iter().position(|outcome| *outcome != Outcome::NoMatch), "{:?}", line);
            }
        }
    }

    #[test]
    fn a_sieve_passes_over_no_match(pattern in ruby(false), lines in prop::collection::vec(line(), 4), odd in prop::collection::vec(prop::sample::select(&b"ab \xc3\xa9\xff"[..]), 0..8)) {
        let compiled = Pattern::new(&pattern.text()).expect("a good pattern");
        let Some(sieve) = Sieve::new([&compiled]) else { return Ok(()) };
        for line in lines.iter().map(|line| line.as_bytes()).chain([odd.as_slice()]).filter(|line| !line.contains(&b'\n')) {
            if found(&compiled, line).flatten().is_some() {
                prop_assert_eq!(sieve.sift(line, &mut States::default()), Sifted::First(0), "{} on {:?}", pattern.text(), line);
            }
        }
    }

    #[test]
    fn no_text_and_no_line_makes_it_panic(text in r"([(\[\]){}|*+?.^$\\<>=!:'~0-9a-zA-Z&,#é -]|\(\?<?|\\[gk]<|\(\?<a>|\[\[:|&&){0,20}", line in prop::collection::vec(any::<u8>(), 0..40)) {
        if let Ok(pattern) = Pattern::new(&text) {
            found(&pattern, &line);
            pattern.may_match(&line);
        }
    }

    #[test]
    fn bytes_that_are_no_utf8_end_no_match(line in prop::collection::vec(prop::sample::select(&b"a \xc3\xa9\xff\xe2\x82"[..]), 0..20)) {
        let all = Pattern::new("(?<all>(?m:.*))").expect("a good pattern");
        prop_assert_eq!(found(&all, &line), Some(Some(vec![("all".to_string(), line.clone())])));
        let one = Pattern::new("^(?<head>.)(?<tail>.*)$").expect("a good pattern");
        let head = line.utf8_chunks().next().map(|chunk| chunk.valid().chars().next().map_or(1, char::len_utf8));
        let want = head.map(|head| vec![("head".to_string(), line[..head].to_vec()), ("tail".to_string(), line[head..].to_vec())]);
        prop_assert_eq!(found(&one, &line), Some(want));
    }
}

/// Twice the line takes about twice as long, where a square would take seconds and back-tracking forever. Other work on the machine may
/// cost some time too.
#[track_caller]
fn check_linear(pattern: &str, line: impl Fn(usize) -> String, want: Found) {
    let pattern = Pattern::new(pattern).expect("a good pattern");
    let time = |line: &str| {
        let mut slots = Vec::new();
        let start = Instant::now();
        assert_eq!(pattern.find(line.as_bytes(), &mut slots), want);
        start.elapsed()
    };
    let best = |line: &str| (0..5).map(|_| time(line)).min().unwrap_or_default();
    let (short, long) = (best(&line(20_000)), best(&line(40_000)));
    assert!(long < short * 4 + Duration::from_millis(200), "{short:?}, then {long:?}");
}

const RABBITMQ: &str = r"(?<date>[^ ]+)\s(?<time>[^ ]+)\s\[(?<log_level>[^ \]]*)\]\s(?<PID>[^ ]*)\s(?<msg>((([a-zA-Z]*\s+)+[^ ]*)+)+)";

#[test]
fn catastrophic_patterns_stay_linear() {
    check_linear(&format!("{RABBITMQ}$"), |n| format!("d t [info] p {}\x01 ", "ab ".repeat(n / 3)), Found::Yes);
    check_linear(&format!("{RABBITMQ}!"), |n| format!("d t [info] p {}", "ab ".repeat(n / 3)), Found::No);
    check_linear("^(?<a>(?:a|aa)+)+$", |n| "a".repeat(n) + "b", Found::No);
    check_linear("(?<a>(?:x+x+)+y)", |n| "x".repeat(n), Found::No);
    check_linear("(?<a>(?:.*,){9}x)", |n| ",a".repeat(n / 2), Found::No);
    check_linear("(?=.)(?<a>(?:x+x+)+y)", |n| "x".repeat(n), Found::Limit);
    check_linear(r"(?<p>\((?:[^()]++|\g<p>)*\))", |n| "(".repeat(n), Found::Limit);
}

#[test]
fn a_line_of_odd_bytes_is_linear_too() {
    let pattern = Pattern::new("^(?<a>(?:[^ ]|[^ ][^ ])+)+ (?<b>.)$").expect("a good pattern");
    let mut line = vec![0xff; 3000];
    assert_eq!(found(&pattern, &line), Some(None));
    line.extend(b" \xfe");
    let fields = found(&pattern, &line).flatten().expect("a match");
    assert_eq!(fields[1], ("b".to_string(), vec![0xfe]));
}

#[test]
fn the_longest_line_is_given_up_soon() {
    let line = vec![b'x'; 8 << 20];
    let start = Instant::now();
    let looking = Pattern::new("^(?=.)(?<a>(?:x+x+)+y)").expect("a good pattern");
    assert_eq!(found(&looking, &line), None);
    let nested = Pattern::new(r"^(?<a>x\g<a>?)$").expect("a good pattern");
    assert_eq!(found(&nested, &line), None);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}
