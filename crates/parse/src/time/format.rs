//! A strptime format as a small program.
//!
//! In: the format. Out: one operation per thing to read, composites such as `%F` taken apart; or what is wrong with it.

use super::zones::{abbreviation, numeric};
use super::{Read, fraction};

/// One thing to read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Op {
    /// Any number of blanks, none included.
    Blanks,
    Literal(u8),
    Number(Field, Digits),
    MonthName,
    WeekdayName,
    /// AM or PM.
    Half,
    Epoch,
    /// `+hh:mm` and its kin.
    Offset,
    /// `CEST` and its kin.
    Abbreviation,
    Fraction,
}

/// A number's smallest and largest value; reading stops before a digit that would lead beyond.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Digits(i64, i64);

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Field {
    Century,
    Year,
    YearOfCentury,
    Month,
    Day,
    DayOfYear,
    Hour,
    Minute,
    Second,
    /// Sunday is 0 or 7.
    Weekday,
    WeekFromSunday,
    WeekFromMonday,
    /// ISO's year and week say nothing that month and day do not.
    Ignored,
}

const MONTHS: [&str; 12] =
    ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"];
const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

pub fn compile(format: &str) -> Result<Vec<Op>, String> {
    let mut ops = Vec::new();
    append(&mut ops, format)?;
    match ops.iter().filter(|op| **op == Op::Fraction).count() {
        0 | 1 => Ok(ops),
        _ => Err("`%L` may stand in a time format once".to_string()),
    }
}

fn append(ops: &mut Vec<Op>, format: &str) -> Result<(), String> {
    let mut bytes = format.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let letter = bytes.by_ref().find(|b| !matches!(b, b'E' | b'O')); // alternative digits and eras of a locale
                append_conversion(ops, letter.ok_or("a time format cannot end in `%`: a percent sign is `%%`")?)?;
            }
            byte if byte.is_ascii_whitespace() => ops.push(Op::Blanks),
            byte => ops.push(Op::Literal(byte)),
        }
    }
    Ok(())
}

fn append_conversion(ops: &mut Vec<Op>, letter: u8) -> Result<(), String> {
    let composite = match letter {
        b'c' => "%a %b %e %H:%M:%S %Y",
        b'D' | b'x' => "%m/%d/%y",
        b'F' => "%Y-%m-%d",
        b'r' => "%I:%M:%S %p",
        b'R' => "%H:%M",
        b'T' | b'X' => "%H:%M:%S",
        _ => {
            ops.push(conversion(letter).ok_or_else(|| unknown(letter))?);
            return Ok(());
        }
    };
    append(ops, composite)
}

fn unknown(letter: u8) -> String {
    format!("a time format has no `%{}`", char::from(letter).escape_default())
}

fn conversion(letter: u8) -> Option<Op> {
    let number = |field, least, most| Some(Op::Number(field, Digits(least, most)));
    match letter {
        b'a' | b'A' => Some(Op::WeekdayName),
        b'b' | b'B' | b'h' => Some(Op::MonthName),
        b'C' => number(Field::Century, 0, 99),
        b'd' | b'e' => number(Field::Day, 1, 31),
        b'g' => number(Field::Ignored, 0, 99),
        b'G' => number(Field::Ignored, 0, 9999),
        b'H' | b'k' => number(Field::Hour, 0, 23),
        b'I' | b'l' => number(Field::Hour, 1, 12),
        b'j' => number(Field::DayOfYear, 1, 366),
        b'L' => Some(Op::Fraction),
        b'm' => number(Field::Month, 1, 12),
        b'M' => number(Field::Minute, 0, 59),
        b'n' | b't' => Some(Op::Blanks),
        b'p' | b'P' => Some(Op::Half),
        b's' => Some(Op::Epoch),
        b'S' => number(Field::Second, 0, 61), // leap seconds run into the next minute
        b'u' => number(Field::Weekday, 1, 7),
        b'U' => number(Field::WeekFromSunday, 0, 53),
        b'V' => number(Field::Ignored, 0, 53),
        b'w' => number(Field::Weekday, 0, 6),
        b'W' => number(Field::WeekFromMonday, 0, 53),
        b'y' => number(Field::YearOfCentury, 0, 99),
        b'Y' => number(Field::Year, 0, 9999),
        b'z' => Some(Op::Offset),
        b'Z' => Some(Op::Abbreviation),
        b'%' => Some(Op::Literal(b'%')),
        _ => None,
    }
}

impl Op {
    /// Reads at `at` and notes what it says. Returns where it ends.
    pub fn read(self, text: &[u8], at: usize, read: &mut Read) -> Option<usize> {
        let rest = &text[at..];
        let length = match self {
            Op::Blanks => blanks(rest),
            Op::Literal(byte) => (rest.first() == Some(&byte)).then_some(1)?,
            Op::Number(field, digits) => {
                let (number, length) = digits.read(rest)?;
                field.note(number, read);
                length
            }
            Op::MonthName => {
                let (month, length) = name(rest, &MONTHS)?;
                read.month = Some(month + 1);
                length
            }
            Op::WeekdayName => {
                let (weekday, length) = name(rest, &WEEKDAYS)?;
                read.weekday = Some(weekday);
                length
            }
            Op::Half => {
                read.afternoon = Some(half(rest)?);
                2
            }
            Op::Epoch => {
                let (seconds, length) = epoch(rest)?;
                read.epoch = Some(seconds);
                length
            }
            Op::Offset => {
                let (offset, length) = numeric(rest)?;
                read.offset = Some(offset);
                length
            }
            Op::Abbreviation => {
                let (offset, length) = abbreviation(rest)?;
                read.offset = Some(offset);
                length
            }
            Op::Fraction => {
                let (nanos, length) = fraction(rest)?;
                (read.nanos, read.fraction) = (nanos, Some((at, at + length)));
                length
            }
        };
        Some(at + length)
    }
}

impl Digits {
    fn read(self, text: &[u8]) -> Option<(i64, usize)> {
        let Digits(least, most) = self;
        let mut at = blanks(text);
        let (begin, mut number, mut room) = (at, 0, most);
        while room > 0 && number * 10 <= most && text.get(at).is_some_and(u8::is_ascii_digit) {
            number = number * 10 + i64::from(text[at] - b'0');
            room /= 10;
            at += 1;
        }
        (at > begin && (least..=most).contains(&number)).then_some((number, at))
    }
}

impl Field {
    fn note(self, number: i64, read: &mut Read) {
        match self {
            Field::Century => read.century = Some(number),
            Field::Year => read.year = Some(number),
            Field::YearOfCentury => read.year_of_century = Some(number),
            Field::Month => read.month = Some(number),
            Field::Day => read.day = Some(number),
            Field::DayOfYear => read.day_of_year = Some(number),
            Field::Hour => read.hour = number,
            Field::Minute => read.minute = number,
            Field::Second => read.second = number,
            Field::Weekday => read.weekday = Some(number % 7),
            Field::WeekFromSunday => read.week = Some((number, 0)),
            Field::WeekFromMonday => read.week = Some((number, 1)),
            Field::Ignored => {}
        }
    }
}

pub fn blanks(text: &[u8]) -> usize {
    text.iter().take_while(|b| b.is_ascii_whitespace() || **b == 0x0b).count()
}

/// A name in full or its first three letters; which one, and how long.
fn name(text: &[u8], names: &[&str]) -> Option<(i64, usize)> {
    let begins = |name: &str| text.get(..name.len()).is_some_and(|t| t.eq_ignore_ascii_case(name.as_bytes()));
    let which = names.iter().position(|name| begins(&name[..3]))?;
    Some((which as i64, if begins(names[which]) { names[which].len() } else { 3 }))
}

fn half(text: &[u8]) -> Option<bool> {
    match text.get(..2)?.to_ascii_lowercase().as_slice() {
        b"am" => Some(false),
        b"pm" => Some(true),
        _ => None,
    }
}

fn epoch(text: &[u8]) -> Option<(i64, usize)> {
    let begin = blanks(text);
    let digits = text[begin..].iter().take_while(|b| b.is_ascii_digit()).count();
    let text = std::str::from_utf8(&text[begin..begin + digits]).ok()?;
    Some((text.parse().ok()?, begin + digits))
}
