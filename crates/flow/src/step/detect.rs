//! Finds what looks like an e-mail address, a card number, a token or an IP address.
//!
//! In: a text. Out: ranges of it. Bound: linear in the text, whatever it holds.

use core::net::{Ipv4Addr, Ipv6Addr};
use regex::bytes::{Regex, RegexBuilder};
use std::ops::Range;

/// What can be looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Detect {
    /// E-mail addresses.
    Email,
    /// Card numbers: 13 to 19 digits, also in groups divided by blanks or dashes, whose check digit (Luhn) is right.
    Card,
    /// `Bearer` tokens, JSON web tokens, and keys by the prefixes that well-known services give them.
    Token,
    /// IPv4 and IPv6 addresses.
    Ip,
}

const EMAIL: &str = r"(?-u)[A-Za-z0-9._%+\-\x80-\xff]+@[A-Za-z0-9\-\x80-\xff]+(?:\.[A-Za-z0-9\-\x80-\xff]+)+";
const TOKEN: &str = concat!(
    r"(?-u)(?i:bearer)[ \t]+[A-Za-z0-9._~+/=\-]{8,}",
    r"|eyJ[A-Za-z0-9_\-]{5,}\.[A-Za-z0-9_\-]+\.[A-Za-z0-9_\-]*",
    r"|sk-[A-Za-z0-9_\-]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_\-]{16,}",
    r"|xox[abeprs]-[A-Za-z0-9\-]{10,}|AKIA[0-9A-Z]{16}|ASIA[0-9A-Z]{16}|AIza[0-9A-Za-z_\-]{30,}|hf_[A-Za-z0-9]{20,}"
);
/// What every card number and address begins with, somewhere; more than those match.
const CARD_HINT: &str = r"(?-u)[2-6](?:[ \-]?[0-9]){12}";
const IP_HINT: &str = r"(?-u)[0-9]\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]|::|(?:[0-9A-Fa-f]{1,4}:){6}";

/// One detector, ready to look.
pub struct Detector {
    what: Detect,
    pattern: Option<Regex>,
}

impl Detector {
    pub fn new(what: Detect) -> Detector {
        let source = match what {
            Detect::Email => Some(EMAIL),
            Detect::Token => Some(TOKEN),
            Detect::Card | Detect::Ip => None,
        };
        let build = |source: &str| RegexBuilder::new(source).unicode(false).build().expect("a pattern of ours is one");
        Detector { what, pattern: source.map(build) }
    }

    /// A pattern that matches wherever this detector finds something, and elsewhere too.
    pub fn hint(what: Detect) -> &'static str {
        match what {
            Detect::Email => EMAIL,
            Detect::Token => TOKEN,
            Detect::Card => CARD_HINT,
            Detect::Ip => IP_HINT,
        }
    }

    /// Adds what it finds in `text`.
    pub fn find(&self, text: &[u8], found: &mut Vec<Range<usize>>) {
        match (self.what, &self.pattern) {
            (_, Some(pattern)) => found.extend(pattern.find_iter(text).map(|m| m.range())),
            (Detect::Card, None) => cards(text, found),
            (_, None) => addresses(text, found),
        }
    }
}

/// Groups of digits divided by single blanks or dashes; of those that begin at one group the longest number counts.
fn cards(text: &[u8], found: &mut Vec<Range<usize>>) {
    let mut groups: Vec<Range<usize>> = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let Some(next) = text[at..].iter().position(u8::is_ascii_digit) else { break };
        let start = at + next;
        let end = start + text[start..].iter().take_while(|b| b.is_ascii_digit()).count();
        let goes_on = groups.last().is_some_and(|last| last.end + 1 == start && matches!(text[last.end], b' ' | b'-'));
        if !goes_on {
            numbers(text, &groups, found);
            groups.clear();
        }
        groups.push(start..end);
        at = end;
    }
    numbers(text, &groups, found);
}

fn numbers(text: &[u8], groups: &[Range<usize>], found: &mut Vec<Range<usize>>) {
    let mut first = 0;
    while first < groups.len() {
        let mut digits = 0;
        let mut longest = None;
        for (n, group) in groups.iter().enumerate().skip(first) {
            digits += group.len();
            if digits > 19 {
                break;
            }
            let range = groups[first].start..group.end;
            if digits >= 13 && matches!(text[range.start], b'2'..=b'6') && luhn(&text[range.clone()]) {
                longest = Some((n, range));
            }
        }
        match longest {
            Some((last, range)) => {
                found.push(range);
                first = last + 1;
            }
            None => first += 1,
        }
    }
}

/// Method: Luhn 1960. Anything but digits is passed over.
fn luhn(text: &[u8]) -> bool {
    let digits = text.iter().rev().filter(|b| b.is_ascii_digit()).map(|b| u32::from(b - b'0'));
    let sum: u32 = digits.enumerate().map(|(n, digit)| if n % 2 == 0 { digit } else { digit * 2 / 10 + digit * 2 % 10 }).sum();
    sum.is_multiple_of(10)
}

fn addresses(text: &[u8], found: &mut Vec<Range<usize>>) {
    let is_part = |b: u8| b.is_ascii_hexdigit() || matches!(b, b'.' | b':');
    let mut at = 0;
    while at < text.len() {
        let Some(next) = text[at..].iter().position(|b| is_part(*b)) else { break };
        let start = at + next;
        let mut end = start + text[start..].iter().take_while(|b| is_part(**b)).count();
        at = end;
        // An address at the end of a sentence, or before a port.
        while end > start && (text[end - 1] == b'.' || (text[end - 1] == b':' && !text[start..end].ends_with(b"::"))) {
            end -= 1;
        }
        let run = &text[start..end];
        if run.contains(&b':') && v6(run) {
            found.push(start..end);
            continue;
        }
        let mut from = start;
        for piece in run.split(|b| *b == b':') {
            fours(text, from..from + piece.len(), found);
            from += piece.len() + 1;
        }
    }
}

/// More than a path of names like `a::b`: an address has digits.
fn v6(run: &[u8]) -> bool {
    let text = std::str::from_utf8(run).unwrap_or_default();
    run.iter().filter(|b| **b == b':').count() >= 2 && run.iter().any(u8::is_ascii_digit) && text.parse::<Ipv6Addr>().is_ok()
}

/// Four numbers that are no part of a longer list of them; letters may stand around.
fn fours(text: &[u8], range: Range<usize>, found: &mut Vec<Range<usize>>) {
    let mut at = range.start;
    for piece in text[range].split(|b| b.is_ascii_alphabetic()) {
        let (start, piece) = (at + piece.iter().take_while(|b| **b == b'.').count(), piece.trim_ascii());
        at += piece.len() + 1;
        let numbers = piece.strip_suffix(b".").unwrap_or(piece);
        let numbers = &numbers[numbers.iter().take_while(|b| **b == b'.').count()..];
        if std::str::from_utf8(numbers).is_ok_and(|text| text.parse::<Ipv4Addr>().is_ok()) {
            found.push(start..start + numbers.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(what: Detect, text: &str, want: &[&str]) {
        let mut found = Vec::new();
        Detector::new(what).find(text.as_bytes(), &mut found);
        let got: Vec<&str> = found.iter().map(|range| &text[range.clone()]).collect();
        assert_eq!(got, want, "{text}");
        let hint = RegexBuilder::new(Detector::hint(what)).unicode(false).build().unwrap();
        assert!(found.is_empty() || hint.is_match(text.as_bytes()), "the hint misses {text}");
    }

    #[test]
    fn addresses_of_people() {
        check(Detect::Email, "to bob@example.com, Ann.B+x@a-b.co.uk!", &["bob@example.com", "Ann.B+x@a-b.co.uk"]);
        check(Detect::Email, "j\u{f6}rg@m\u{fc}nchen.de", &["j\u{f6}rg@m\u{fc}nchen.de"]);
        check(Detect::Email, "a@b @c.d user@ x@localhost", &[]);
    }

    #[test]
    fn card_numbers_have_a_right_check_digit() {
        check(Detect::Card, "card 4111111111111111 and 5500-0000-0000-0004.", &["4111111111111111", "5500-0000-0000-0004"]);
        check(Detect::Card, "order 12 4111 1111 1111 1111 ok", &["4111 1111 1111 1111"]);
        check(Detect::Card, "378282246310005", &["378282246310005"]);
        check(Detect::Card, "4111111111111112 1700000000000000000 41111111111111111111", &[]);
        check(Detect::Card, "4111  1111 1111 1111", &[]);
    }

    #[test]
    fn tokens_are_known_by_how_they_begin() {
        let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl";
        check(Detect::Token, &format!("Authorization: bearer {jwt}"), &[&format!("bearer {jwt}")]);
        check(Detect::Token, &format!("jwt={jwt};"), &[jwt]);
        check(Detect::Token, "key sk-abcdefghijklmnopqrst AKIAIOSFODNN7EXAMPLE", &["sk-abcdefghijklmnopqrst", "AKIAIOSFODNN7EXAMPLE"]);
        check(Detect::Token, "the bearer of news, ask-me", &[]);
    }

    #[test]
    fn ip_addresses_are_those_that_parse() {
        check(Detect::Ip, "from 10.0.0.1:8080 to 192.168.1.254.", &["10.0.0.1", "192.168.1.254"]);
        check(Detect::Ip, "[2001:db8::1]:443 fe80::a ::1", &["2001:db8::1", "fe80::a", "::1"]);
        check(Detect::Ip, "ip=10.1.2.3, v1.2.3 1.2.3.4.5 300.1.1.1 03:00:00 a::b", &["10.1.2.3"]);
    }
}
