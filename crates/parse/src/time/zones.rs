//! Zones as times name them: `+05:30`, `Z`, `EST`.
//!
//! In: text that begins with one. Out: seconds east of UTC, and its length.

use super::format::blanks;

/// What `%Z` reads, in minutes east of UTC. Where a name has several meanings, the one that Unix's tables have first; RFC 822's
/// letters, without J.
const ABBREVIATIONS: &[(&str, i32)] = &[
    ("ACDT", 630),
    ("ACST", 570),
    ("ADT", -180),
    ("AEDT", 660),
    ("AEST", 600),
    ("AKDT", -480),
    ("AKST", -540),
    ("ART", -180),
    ("AST", -240),
    ("AWST", 480),
    ("BRST", -120),
    ("BRT", -180),
    ("BST", 60),
    ("CAT", 120),
    ("CEST", 120),
    ("CET", 60),
    ("CLST", -180),
    ("CLT", -240),
    ("COT", -300),
    ("EAT", 180),
    ("EEST", 180),
    ("EET", 120),
    ("HKT", 480),
    ("HST", -600),
    ("ICT", 420),
    ("IDT", 180),
    ("IST", 330),
    ("JST", 540),
    ("KST", 540),
    ("MSK", 180),
    ("NDT", -150),
    ("NST", -210),
    ("NZDT", 780),
    ("NZST", 720),
    ("PET", -300),
    ("PHT", 480),
    ("PKT", 300),
    ("SAST", 120),
    ("SGT", 480),
    ("SST", -660),
    ("TRT", 180),
    ("UYT", -180),
    ("WAT", 60),
    ("WEST", 60),
    ("WET", 0),
    ("WIB", 420),
];

/// The names that RFC 822 has, which `%z` reads too.
const COMMON: &[(&str, i32)] = &[
    ("Z", 0),
    ("UT", 0),
    ("UTC", 0),
    ("GMT", 0),
    ("EST", -300),
    ("EDT", -240),
    ("CST", -360),
    ("CDT", -300),
    ("MST", -420),
    ("MDT", -360),
    ("PST", -480),
    ("PDT", -420),
];

/// `%z`: `Z`, `+hhmm`, `+hh:mm`, `+hh`, or a common name.
pub fn numeric(text: &[u8]) -> Option<(i32, usize)> {
    let begin = blanks(text);
    let text = &text[begin..];
    let (offset, length) = match text.first()? {
        b'+' => hours_and_minutes(&text[1..])?,
        b'-' => {
            let (offset, length) = hours_and_minutes(&text[1..])?;
            (-offset, length)
        }
        _ => return named(text, COMMON).map(|(offset, length)| (offset, begin + length)),
    };
    Some((offset, begin + 1 + length))
}

/// `%Z`: a name, or a military letter.
pub fn abbreviation(text: &[u8]) -> Option<(i32, usize)> {
    let begin = blanks(text);
    let text = &text[begin..];
    let found = named(text, COMMON).or_else(|| named(text, ABBREVIATIONS)).or_else(|| military(text));
    found.map(|(offset, length)| (offset, begin + length))
}

fn hours_and_minutes(text: &[u8]) -> Option<(i32, usize)> {
    let hours = two_digits(text).filter(|hours| *hours < 24)?;
    let colon = usize::from(text.get(2) == Some(&b':'));
    match text.get(2 + colon..).and_then(two_digits) {
        Some(minutes) if minutes < 60 => Some((hours * 3600 + minutes * 60, 4 + colon)),
        Some(_) => None,
        None => Some((hours * 3600, 2)),
    }
}

fn two_digits(text: &[u8]) -> Option<i32> {
    match text {
        [tens @ b'0'..=b'9', ones @ b'0'..=b'9', ..] => Some(i32::from(tens - b'0') * 10 + i32::from(ones - b'0')),
        _ => None,
    }
}

fn named(text: &[u8], names: &[(&str, i32)]) -> Option<(i32, usize)> {
    let word = word(text);
    let found = names.iter().find(|(name, _)| word.eq_ignore_ascii_case(name.as_bytes()))?;
    Some((found.1 * 60, word.len()))
}

fn word(text: &[u8]) -> &[u8] {
    &text[..text.iter().take_while(|b| b.is_ascii_alphabetic()).count()]
}

/// A is an hour east of UTC, M twelve; N is an hour west, Y twelve.
fn military(text: &[u8]) -> Option<(i32, usize)> {
    let &[letter] = word(text) else { return None };
    let hours = match letter.to_ascii_uppercase() {
        letter @ b'A'..=b'I' => i32::from(letter - b'A') + 1,
        letter @ b'K'..=b'M' => i32::from(letter - b'K') + 10,
        letter @ b'N'..=b'Y' => -(i32::from(letter - b'N') + 1),
        _ => return None,
    };
    Some((hours * 3600, 1))
}
