//! Several parsers on one stream: the first one that matches, in the order given.
//!
//! In: a line. Out: what the first parser that reads it makes of it, and which one that is. Parsers that cannot read a line
//! are passed over without being run: by the line's first byte; patterns by one automaton of all of them, which says the
//! first that may match; and where that does not know, by words that they cannot match without. All only leave out what would
//! not have matched, so the order decides as if each were tried.
//! Memory: at most 256 lists of the parsers, and the automaton's states in each lane's `Scratch` (see `Sieve`).

use crate::definition::Definition;
use crate::parser::{Outcome, Parser, Refusal, Scratch};
use crate::pattern::{Sieve, Sifted};

pub struct Set {
    parsers: Vec<Parser>,
    /// For each first byte, the parsers that can read a line that begins with it and holds no newline, in order; then those
    /// for a line without bytes, and all.
    candidates: Vec<Candidates>,
    sieve: Option<Sieve>,
    /// The parsers in the sieve.
    sieved: Box<[u16]>,
}

struct Candidates {
    parsers: Box<[u16]>,
    /// Those that are not in the sieve.
    others: Box<[u16]>,
    /// How many of the others come before all that are in the sieve.
    leading: usize,
    /// Enough are in the sieve to ask it.
    are_sieved: bool,
}

/// What became of a line, and the parser that said so: the first that read it, or the first that came to its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    pub outcome: Outcome,
    pub parser: Option<usize>,
}

const EMPTY: usize = 256;
const ALL: usize = 257;
/// Fewer patterns fail sooner than the sieve takes to read the line.
const SIEVED_MIN: usize = 3;

impl Set {
    /// Compiles all definitions, or says everything that is wrong with them.
    pub fn new(definitions: &[Definition]) -> Result<Set, Vec<Refusal>> {
        let (mut parsers, mut refusals) = (Vec::new(), Vec::new());
        for definition in definitions {
            match Parser::new(definition) {
                Ok(parser) => parsers.push(parser),
                Err(refusal) => refusals.push(refusal),
            }
        }
        if parsers.len() > usize::from(u16::MAX) {
            refusals.push(Refusal { name: String::new(), reason: "a stream has at most 65535 parsers".to_string() });
        }
        if refusals.is_empty() { Ok(Set::of(parsers)) } else { Err(refusals) }
    }

    fn of(parsers: Vec<Parser>) -> Set {
        let those = |keeps: &dyn Fn(&Parser) -> bool| (0..parsers.len()).filter(|n| keeps(&parsers[*n])).map(|n| n as u16).collect();
        let sieved: Box<[u16]> = those(&|parser| parser.sievable().is_some());
        let split = |list: Box<[u16]>| {
            let others: Box<[u16]> = list.iter().copied().filter(|n| sieved.binary_search(n).is_err()).collect();
            let leading = list.iter().zip(&others).take_while(|(one, other)| one == other).count();
            Candidates { are_sieved: list.len() - others.len() >= SIEVED_MIN, parsers: list, others, leading }
        };
        let mut candidates: Vec<Candidates> = (0..=u8::MAX).map(|byte| split(those(&|parser| parser.may_begin_with(Some(byte))))).collect();
        candidates.push(split(those(&|parser| parser.may_begin_with(None))));
        candidates.push(Candidates { are_sieved: false, ..split(those(&|_| true)) }); // the sieve knows no newlines
        let sieve = Sieve::new(parsers.iter().filter_map(Parser::sievable));
        Set { parsers, candidates, sieve, sieved }
    }

    pub fn parsers(&self) -> &[Parser] {
        &self.parsers
    }

    /// Reads a line with the first parser that can. `out` is longer by the record only where one did.
    pub fn parse(&self, line: &[u8], arrival_ns: i64, scratch: &mut Scratch, out: &mut Vec<u8>) -> Choice {
        let candidates = self.candidates(line);
        let mut trial = Trial { parsers: &self.parsers, line, arrival_ns, scratch, out, limit: None };
        let choice = match &self.sieve {
            Some(sieve) if candidates.are_sieved => trial.sifted(sieve, &self.sieved, candidates),
            _ => trial.each(&candidates.parsers),
        };
        let outcome = if trial.limit.is_some() { Outcome::Limit } else { Outcome::NoMatch };
        choice.unwrap_or(Choice { outcome, parser: trial.limit })
    }

    fn candidates(&self, line: &[u8]) -> &Candidates {
        match line.first() {
            _ if memchr::memchr(b'\n', line).is_some() => &self.candidates[ALL],
            Some(byte) => &self.candidates[usize::from(*byte)],
            None => &self.candidates[EMPTY],
        }
    }
}

/// One line being tried.
struct Trial<'a> {
    parsers: &'a [Parser],
    line: &'a [u8],
    arrival_ns: i64,
    scratch: &'a mut Scratch,
    out: &'a mut Vec<u8>,
    /// The first parser that came to its limit.
    limit: Option<usize>,
}

impl Trial<'_> {
    /// The first of the candidates that reads the line; `sieved`: the parsers by their place in the sieve.
    fn sifted(&mut self, sieve: &Sieve, sieved: &[u16], candidates: &Candidates) -> Option<Choice> {
        // The sieve comes in only where it is needed: no pattern matters for a line that a format before all of them reads.
        let (leading, others) = candidates.others.split_at(candidates.leading);
        let choice = self.each(leading);
        if choice.is_some() {
            return choice;
        }
        match sieve.sift(self.line, &mut self.scratch.states) {
            Sifted::None => self.each(others),
            Sifted::Unknown => self.each(&candidates.parsers[leading.len()..]),
            Sifted::First(place) => {
                let first = sieved[place];
                let before = &others[..others.partition_point(|n| *n < first)];
                let after = &candidates.parsers[candidates.parsers.partition_point(|n| *n <= first)..];
                self.each(before).or_else(|| self.one(first)).or_else(|| self.each(after))
            }
        }
    }

    fn each(&mut self, parsers: &[u16]) -> Option<Choice> {
        parsers.iter().find_map(|n| if self.parsers[usize::from(*n)].may_match(self.line) { self.one(*n) } else { None })
    }

    fn one(&mut self, n: u16) -> Option<Choice> {
        let n = usize::from(n);
        match self.parsers[n].parse(self.line, self.arrival_ns, self.scratch, self.out) {
            Outcome::NoMatch => None,
            Outcome::Limit => {
                self.limit = self.limit.or(Some(n));
                None
            }
            outcome => Some(Choice { outcome, parser: Some(n) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::Format;
    use proptest::prelude::*;

    fn definitions() -> Vec<Definition> {
        let regex = |text: &str| Format::Regex(text.to_string());
        let formats = [
            ("klog", Format::Klog),
            ("json", Format::Json),
            ("cri", Format::Cri),
            ("level", regex(r"^(?<level>[A-Z]+) (?<message>.*)$")),
            ("syslog", Format::Syslog),
            ("nginx", Format::Nginx),
            ("ltsv", Format::Ltsv),
            ("all", regex("^(?<message>.*)$")),
        ];
        formats.into_iter().map(|(name, format)| Definition::new(name, format)).collect()
    }

    #[track_caller]
    fn check(line: &str, want: &str) {
        let set = Set::new(&definitions()).unwrap();
        let choice = set.parse(line.as_bytes(), 0, &mut Scratch::default(), &mut Vec::new());
        assert_eq!(choice.parser.map_or("none", |n| set.parsers()[n].name()), want, "{line}");
    }

    #[test]
    fn the_first_that_matches_reads_the_line() {
        check("I0102 15:04:05.678901 1234 file.go:56] message", "klog");
        check("INFO 0102", "level");
        check(" {\"a\":1}", "json");
        check("2024-01-02T03:04:05Z stdout F x", "cri");
        check("<34>Oct 11 22:14:15 host su: x", "syslog");
        check("a:b\tc:d", "ltsv");
        check("{\"a\":", "ltsv");
        check("hello", "all");
        check("", "all");
    }

    #[test]
    fn every_refusal_is_told() {
        let regex = |text: &str| Definition::new("bad", Format::Regex(text.to_string()));
        let refusals = Set::new(&[regex("("), Definition::new("good", Format::Json), regex("[")]).err().unwrap();
        assert_eq!(refusals.len(), 2);
    }

    proptest! {
        #[test]
        fn the_choice_is_that_of_trying_each(line in "([IWEF<{\\[0-9a-zA-Z:\" ]|stdout F|>1 - |\t){0,30}") {
            let set = Set::new(&definitions()).unwrap();
            let (mut scratch, mut out, mut want) = (Scratch::default(), Vec::new(), Vec::new());
            let choice = set.parse(line.as_bytes(), 0, &mut scratch, &mut out);
            let first = set.parsers().iter().position(|p| p.parse(line.as_bytes(), 0, &mut scratch, &mut want) != Outcome::NoMatch);
            prop_assert_eq!(choice.parser, first);
            prop_assert_eq!(out, want);
        }
    }
}
