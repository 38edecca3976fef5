//! Times as strptime reads them, with fractions, zones and years that are not written.
//!
//! In: a format, compiled once, a text and its time of arrival. Out: nanoseconds since 1970, or `None` where the text is no
//! such time. Exact integers throughout. What follows the format's end is ignored, a blank of the format is any number of
//! blanks, blanks before a number are skipped, names are read in any case, and a day beyond its month runs into the next,
//! all as strptime and timegm have it.
//!
//! A year that is not written is the latest that puts the time at most a day after arrival, which is the nearest; or the
//! current one. A time without a date is the nearest of yesterday, today and tomorrow.
//! Memory: a cache of `CACHE_ENTRIES` texts; a text that differs only in its fraction costs a comparison.

mod format;
mod zones;

use crate::definition::TimeRule;
use format::{Op, compile};
use jiff::tz::TimeZone;
use std::hash::{DefaultHasher, Hash, Hasher};

const NANOS: i64 = 1_000_000_000;
const DAY: i64 = 86_400;

/// Rules of one stream that have times of the same second at hand; a stream with more of them computes more often.
const CACHE_ENTRIES: usize = 8;

/// Longer texts are computed each time; `Wed, 31 Jan 2026 12:00:00.123456789 +0100` has 42 bytes.
const CACHED_BYTES_MAX: usize = 56;

/// A format with its zone, ready to read.
pub struct TimeFormat {
    ops: Box<[Op]>,
    zone: Zone,
    strict: bool,
    whole_seconds: bool,
    current_year: bool,
    /// Tells this rule's texts from others' in a cache.
    id: u64,
}

enum Zone {
    Offset(i64),
    Named(TimeZone),
}

impl TimeFormat {
    /// Compiles a format; an error says what is wrong with it or with the zone.
    pub fn new(format: &str, rule: &TimeRule) -> Result<TimeFormat, String> {
        let mut hasher = DefaultHasher::new();
        (format, rule).hash(&mut hasher);
        Ok(TimeFormat {
            ops: compile(format)?.into(),
            zone: zone_of(rule)?,
            strict: rule.strict,
            whole_seconds: rule.whole_seconds,
            current_year: rule.current_year,
            id: hasher.finish() | 1, // 0 is an entry that nobody wrote
        })
    }

    /// Reads a time. `arrival_ns`: when the line came, which says the year or the day where the text does not.
    #[inline]
    pub fn parse(&self, text: &[u8], arrival_ns: i64, cache: &mut TimeCache) -> Option<i64> {
        let entry = &mut cache.entries[(self.id >> 32) as usize % CACHE_ENTRIES];
        match entry.find(self.id, text, arrival_ns) {
            Some(found) => Some(found),
            None => self.compute(text, arrival_ns, entry),
        }
    }

    #[inline(never)]
    fn compute(&self, text: &[u8], arrival_ns: i64, entry: &mut Entry) -> Option<i64> {
        let (read, complete) = self.read(text);
        if !complete && (self.strict || !read.says_a_day()) {
            return None;
        }
        let meant = self.resolve(&read, arrival_ns.div_euclid(NANOS))?;
        let base_ns = meant.seconds.checked_mul(NANOS)?;
        entry.fill(self.id, text, read.fraction, base_ns, &meant);
        base_ns.checked_add(i64::from(read.nanos))
    }

    /// Runs the program over the text; false: it stopped at a difference.
    fn read(&self, text: &[u8]) -> (Read, bool) {
        let (mut read, mut at, mut skip) = (Read::default(), 0, false);
        for (n, op) in self.ops.iter().enumerate() {
            if std::mem::take(&mut skip) {
                continue;
            }
            if self.whole_seconds && is_left_out(&self.ops[n..], &text[at..]) {
                skip = true;
                continue;
            }
            match op.read(text, at, &mut read) {
                Some(next) => at = next,
                None => return (read, false),
            }
        }
        (read, true)
    }

    fn resolve(&self, read: &Read, arrival: i64) -> Option<Meant> {
        if let Some(seconds) = read.epoch {
            return Some(Meant::always(seconds));
        }
        if !read.says_a_day() && read.year().is_none() {
            return self.nearest_day(read, arrival);
        }
        match read.year() {
            Some(year) => Some(Meant::always(self.seconds(read, read.days(year))?)),
            None if self.current_year => self.this_year(read, arrival),
            None => self.nearest_year(read, arrival),
        }
    }

    /// The second since 1970 that a day's time of day is.
    fn seconds(&self, read: &Read, days: i64) -> Option<i64> {
        let local = days * DAY + read.second_of_day();
        match (read.offset, &self.zone) {
            (Some(offset), _) => Some(local - i64::from(offset)),
            (None, Zone::Offset(offset)) => Some(local - offset),
            (None, Zone::Named(zone)) => {
                let civil = TimeZone::UTC.to_datetime(jiff::Timestamp::from_second(local).ok()?);
                Some(zone.to_ambiguous_timestamp(civil).compatible().ok()?.as_second())
            }
        }
    }

    fn this_year(&self, read: &Read, arrival: i64) -> Option<Meant> {
        let year = year_of(arrival.div_euclid(DAY));
        let (from, until) = (days_from_civil(year, 1, 1) * DAY, days_from_civil(year + 1, 1, 1) * DAY);
        Some(Meant { seconds: self.seconds(read, read.days(year))?, from, until })
    }

    fn nearest_year(&self, read: &Read, arrival: i64) -> Option<Meant> {
        let next = year_of((arrival + DAY).div_euclid(DAY)) + 1;
        // Eight years lie between the 29th of February 1896 and the next one.
        let years = (next - 9..=next).rev().filter(|year| read.has_leap_day() <= is_leap(*year));
        for year in years {
            let seconds = self.seconds(read, read.days(year))?;
            if seconds <= arrival + DAY {
                // A year later, less a day in each direction for zones and leap days, another one is nearer.
                return Some(Meant { seconds, from: seconds - DAY, until: seconds + 362 * DAY });
            }
        }
        None
    }

    fn nearest_day(&self, read: &Read, arrival: i64) -> Option<Meant> {
        let today = arrival.div_euclid(DAY);
        let days = (today - 1..=today + 1).filter_map(|day| self.seconds(read, day));
        let seconds = days.min_by_key(|seconds| (seconds - arrival).abs())?;
        Some(Meant { seconds, from: arrival, until: arrival + 1 })
    }
}

fn zone_of(rule: &TimeRule) -> Result<Zone, String> {
    match &rule.zone {
        None if rule.system_zone => Err("the zone of this machine is not known here: name one in `zone`".to_string()),
        None => Ok(Zone::Offset(i64::from(rule.offset_seconds))),
        Some(_) if rule.offset_seconds != 0 => Err("a time has either an offset or a zone where its line has none, not both".to_string()),
        Some(name) => match TimeZone::get(name) {
            Ok(zone) => Ok(Zone::Named(zone)),
            Err(_) => Err(format!("there is no time zone `{name}`: zones have IANA's names, as in Europe/Berlin")),
        },
    }
}

/// Whether the program stands before a separator and a fraction that the text does not have; a fraction behind another
/// separator is a difference.
fn is_left_out(ops: &[Op], text: &[u8]) -> bool {
    let is_separator = |byte| matches!(byte, b'.' | b',' | b':');
    match (ops, text) {
        ([Op::Literal(separator), Op::Fraction, ..], [byte, next, ..]) if is_separator(*separator) => {
            byte != separator && !(is_separator(*byte) && next.is_ascii_digit())
        }
        ([Op::Literal(separator), Op::Fraction, ..], [byte]) => is_separator(*separator) && byte != separator,
        ([Op::Literal(separator), Op::Fraction, ..], []) => is_separator(*separator),
        _ => false,
    }
}

/// A second, and the arrivals (`from` to before `until`, in seconds) for which the same text means it.
struct Meant {
    seconds: i64,
    from: i64,
    until: i64,
}

impl Meant {
    fn always(seconds: i64) -> Meant {
        Meant { seconds, from: i64::MIN, until: i64::MAX }
    }
}

/// What a text says of its time; everything as written, nothing normalised.
#[derive(Default)]
struct Read {
    century: Option<i64>,
    year: Option<i64>,
    year_of_century: Option<i64>,
    month: Option<i64>,
    day: Option<i64>,
    day_of_year: Option<i64>,
    /// 0 is Sunday.
    weekday: Option<i64>,
    /// Number of the week, and the day it begins with: 0 Sunday, 1 Monday.
    week: Option<(i64, i64)>,
    hour: i64,
    minute: i64,
    second: i64,
    afternoon: Option<bool>,
    epoch: Option<i64>,
    /// Seconds east of UTC.
    offset: Option<i32>,
    nanos: u32,
    /// Where the digits of the fraction stand.
    fraction: Option<(usize, usize)>,
}

impl Read {
    fn year(&self) -> Option<i64> {
        match (self.year, self.century, self.year_of_century) {
            (Some(year), _, _) => Some(year),
            (None, Some(century), years) => Some(century * 100 + years.unwrap_or(0)),
            (None, None, Some(years)) => Some(if years < 69 { 2000 + years } else { 1900 + years }), // POSIX
            (None, None, None) => None,
        }
    }

    fn says_a_day(&self) -> bool {
        self.month.is_some() || self.day.is_some() || self.day_of_year.is_some() || self.week_day().is_some() || self.epoch.is_some()
    }

    fn week_day(&self) -> Option<(i64, i64, i64)> {
        let ((week, first), weekday) = (self.week?, self.weekday?);
        Some((week, first, weekday))
    }

    fn has_leap_day(&self) -> bool {
        (self.month, self.day) == (Some(2), Some(29))
    }

    /// Days since 1970, in the zone of the text.
    fn days(&self, year: i64) -> i64 {
        let new_year = days_from_civil(year, 1, 1);
        if self.month.is_some() || self.day.is_some() {
            return days_from_civil(year, self.month.unwrap_or(1), self.day.unwrap_or(1));
        }
        if let Some(day) = self.day_of_year {
            return new_year + day - 1;
        }
        match self.week_day() {
            // Week 1 begins with the year's first Sunday or Monday.
            Some((week, first, weekday)) => {
                let first_week = new_year + (first - weekday_of(new_year)).rem_euclid(7);
                first_week + (week - 1) * 7 + (weekday - first).rem_euclid(7)
            }
            None => new_year,
        }
    }

    fn second_of_day(&self) -> i64 {
        let hour = match self.afternoon {
            Some(afternoon) if self.hour <= 12 => self.hour % 12 + if afternoon { 12 } else { 0 },
            _ => self.hour,
        };
        hour * 3600 + self.minute * 60 + self.second
    }
}

/// Days since 1970 of a date in the Gregorian calendar; a day beyond its month runs into the next.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    // Years that begin in March have their leap day at the end: Howard Hinnant, "chrono-compatible low-level date algorithms".
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year - era * 400;
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The year of a day since 1970.
fn year_of(days: i64) -> i64 {
    let guess = 1970 + days.div_euclid(366);
    // A calendar year has 365.2425 days: the guess is low by one for each 1461 years or so.
    (guess..).take_while(|year| days_from_civil(*year, 1, 1) <= days).last().unwrap_or(guess)
}

fn weekday_of(days: i64) -> i64 {
    (days + 4).rem_euclid(7) // 1970 began on a Thursday
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// The last times of a few rules, for one lane.
#[derive(Clone, Default)]
pub struct TimeCache {
    entries: [Entry; CACHE_ENTRIES],
}

#[derive(Clone)]
struct Entry {
    id: u64,
    text: [u8; CACHED_BYTES_MAX],
    len: usize,
    /// Where the fraction's digits begin and end; without them, both the end of the text.
    fraction: (usize, usize),
    /// The time without its fraction.
    base_ns: i64,
    from_ns: i64,
    until_ns: i64,
}

impl Default for Entry {
    fn default() -> Entry {
        Entry { id: 0, text: [0; CACHED_BYTES_MAX], len: 0, fraction: (0, 0), base_ns: 0, from_ns: 0, until_ns: 0 }
    }
}

impl Entry {
    /// The time of a text that is the entry's up to its fraction.
    #[inline]
    fn find(&self, id: u64, text: &[u8], arrival_ns: i64) -> Option<i64> {
        let (begin, end) = self.fraction;
        if self.id != id || arrival_ns < self.from_ns || arrival_ns >= self.until_ns || text.len() < begin {
            return None;
        }
        let (head, rest) = text.split_at(begin);
        if head != &self.text[..begin] {
            return None;
        }
        if begin == end {
            return (rest == &self.text[end..self.len]).then_some(self.base_ns);
        }
        let (nanos, digits) = fraction(rest)?;
        (rest[digits..] == self.text[end..self.len]).then_some(self.base_ns + i64::from(nanos))
    }

    fn fill(&mut self, id: u64, text: &[u8], fraction: Option<(usize, usize)>, base_ns: i64, meant: &Meant) {
        if text.len() > CACHED_BYTES_MAX || base_ns.checked_add(NANOS).is_none() {
            return;
        }
        self.text[..text.len()].copy_from_slice(text);
        (self.id, self.len, self.base_ns) = (id, text.len(), base_ns);
        self.fraction = fraction.unwrap_or((text.len(), text.len()));
        (self.from_ns, self.until_ns) = (meant.from.saturating_mul(NANOS), meant.until.saturating_mul(NANOS));
    }
}

/// One to nine digits as nanoseconds, and how many they are.
#[inline]
fn fraction(text: &[u8]) -> Option<(u32, usize)> {
    const SCALE: [u32; 10] = [0, 100_000_000, 10_000_000, 1_000_000, 100_000, 10_000, 1_000, 100, 10, 1];
    let (mut number, mut digits) = (0u32, 0);
    while digits < 9 && text.get(digits).is_some_and(u8::is_ascii_digit) {
        number = number * 10 + u32::from(text[digits] - b'0');
        digits += 1;
    }
    (digits > 0).then(|| (number * SCALE[digits], digits))
}

#[cfg(test)]
mod tests;
