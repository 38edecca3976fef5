//! Event time: the time field of a record to nanoseconds since the epoch.
//!
//! In: a string or number as loggers write it. Out: UTC, or `None` where it is no time of the years 1990 to
//! 2100; the caller then uses arrival time and says so.
//!
//! Strings: RFC 3339 and its ISO 8601 relatives `2026-01-31T12:00:00[.,]123456789+01:00`, with `T`, `t` or a
//! blank, any number of fraction digits (beyond nine they are cut), zone `Z`, `z`, `+hh:mm`, `+hhmm`, `+hh`,
//! one blank before the zone, or none at all, which is UTC. Second 60 reads as the last nanosecond of 59.
//! Numbers, also as strings: seconds, ms, us or ns by magnitude, from the decimal text, never through a float.
//! Memory: one stamp; records of the same second cost only their fraction.

use crate::decimal::{Decimal, eight_digits};
use crate::escape::unescape_short;
use crate::fields::Kind;
use crate::units::{NANOS_PER_SECOND, UnixNanos, days_from_civil};

/// 1990-01-01 and 2101-01-01 in seconds: the years 1990 to 2100 are taken.
const FIRST_SECOND: i64 = 631_152_000;
const END_SECOND: i64 = 4_133_980_800;

/// A stamp with escapes (some writers write `+` as `\u002b`) is decoded on the stack; no stamp is longer.
const STAMP_BYTES_MAX: usize = 64;

/// Bytes of `2026-01-31T12:00:00`.
const HEAD_BYTES: usize = 19;

/// Parses times and remembers the last second it saw. One per lane.
#[derive(Clone, Debug, Default)]
pub struct TimeParser {
    /// The head of the last stamp, all zero at first, which no stamp is.
    head: [u8; HEAD_BYTES],
    /// What it means, before its zone is taken off.
    head_seconds: i64,
}

impl TimeParser {
    pub fn new() -> TimeParser {
        TimeParser::default()
    }

    /// The time that a field's value means.
    #[inline]
    pub fn parse(&mut self, raw: &[u8], kind: Kind) -> Option<UnixNanos> {
        match kind {
            Kind::Text => self.parse_text(raw),
            Kind::Number => parse_number(raw),
            Kind::Escaped => self.parse_text(unescape_short(raw, &mut [0; STAMP_BYTES_MAX])?),
            Kind::Missing | Kind::True | Kind::False | Kind::Null | Kind::Object | Kind::Array => None,
        }
    }

    /// Whether it means a time after the year 2100, of which nothing but that is known.
    #[cold]
    pub fn is_beyond(raw: &[u8], kind: Kind) -> bool {
        let mut buffer = [0; STAMP_BYTES_MAX];
        let text = match kind {
            Kind::Text | Kind::Number => Some(raw),
            Kind::Escaped => unescape_short(raw, &mut buffer),
            Kind::Missing | Kind::True | Kind::False | Kind::Null | Kind::Object | Kind::Array => None,
        };
        let Some(text) = text.map(<[u8]>::trim_ascii) else { return false };
        let seconds = match text.get(4) {
            Some(b'-') => stamp_seconds(text),
            // More digits than any time has: whatever its unit, it is later.
            _ => Decimal::parse(text).filter(|number| !number.is_negative()).map(|number| {
                number
                    .scaled(shift_of(&number))
                    .and_then(|nanos| i64::try_from(nanos).ok())
                    .map_or(i64::MAX, |nanos| nanos / NANOS_PER_SECOND)
            }),
        };
        seconds.is_some_and(|seconds| seconds >= END_SECOND)
    }

    fn parse_text(&mut self, raw: &[u8]) -> Option<UnixNanos> {
        let raw = raw.trim_ascii();
        match raw.get(4) {
            Some(b'-') => self.parse_stamp(raw),
            _ => parse_number(raw),
        }
    }

    fn parse_stamp(&mut self, raw: &[u8]) -> Option<UnixNanos> {
        let (head, tail) = raw.split_first_chunk::<HEAD_BYTES>()?;
        let (fraction_nanos, zone) = split_fraction(tail)?;
        let zone_seconds = parse_zone(zone)?;
        if *head == self.head {
            return at(self.head_seconds - zone_seconds, fraction_nanos);
        }
        if head[17..] == *b"60" {
            return leap_second(head, zone_seconds);
        }
        self.head_seconds = head_seconds(head)?;
        self.head = *head;
        at(self.head_seconds - zone_seconds, fraction_nanos)
    }
}

/// The whole second of a stamp of any year.
fn stamp_seconds(raw: &[u8]) -> Option<i64> {
    let (head, tail) = raw.split_first_chunk::<HEAD_BYTES>()?;
    let (_, zone) = split_fraction(tail)?;
    Some(head_seconds(head)? - parse_zone(zone)?)
}

/// Second 60 exists only at the end of a UTC hour; it reads as the last nanosecond of second 59.
fn leap_second(head: &[u8; HEAD_BYTES], zone_seconds: i64) -> Option<UnixNanos> {
    let mut before = *head;
    before[17..].copy_from_slice(b"59");
    let seconds = head_seconds(&before)? - zone_seconds;
    if seconds.rem_euclid(3600) != 3599 {
        return None;
    }
    at(seconds, NANOS_PER_SECOND - 1)
}

/// `2026-01-31T12:00:00` as if it were UTC; every part is checked against the calendar.
fn head_seconds(head: &[u8; HEAD_BYTES]) -> Option<i64> {
    let marks = [head[4], head[7], head[13], head[16]];
    if marks != *b"--::" || !matches!(head[10], b'T' | b't' | b' ') {
        return None;
    }
    let year = two_digits(head, 0)? * 100 + two_digits(head, 2)?;
    let (month, day) = (two_digits(head, 5)?, two_digits(head, 8)?);
    let (hour, minute, second) = (two_digits(head, 11)?, two_digits(head, 14)?, two_digits(head, 17)?);
    if !(1..=12).contains(&month) || day < 1 || day > month_days(year, month) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let days = days_from_civil(year as i32, month, day);
    Some(days * 86_400 + i64::from(hour * 3600 + minute * 60 + second))
}

fn month_days(year: u32, month: u32) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        _ => 31,
    }
}

fn two_digits(bytes: &[u8], at: usize) -> Option<u32> {
    match bytes.get(at..at + 2)? {
        [tens @ b'0'..=b'9', ones @ b'0'..=b'9'] => Some(u32::from(tens - b'0') * 10 + u32::from(ones - b'0')),
        _ => None,
    }
}

/// The nanoseconds of `.123` or `,123`, and what follows.
fn split_fraction(tail: &[u8]) -> Option<(i64, &[u8])> {
    let [b'.' | b',', digits @ ..] = tail else {
        return Some((0, tail));
    };
    if let Some((nanos, rest)) = split_nanos(digits) {
        return Some((nanos, rest));
    }
    let mut nanos = 0;
    let mut count = 0;
    while let Some(&digit @ b'0'..=b'9') = digits.get(count) {
        if count < 9 {
            nanos = nanos * 10 + i64::from(digit - b'0');
        }
        count += 1;
    }
    const SCALE: [i64; 10] = [1_000_000_000, 100_000_000, 10_000_000, 1_000_000, 100_000, 10_000, 1_000, 100, 10, 1];
    Some((nanos * SCALE[count.min(9)], &digits[count..]))
}

/// A fraction of exactly nine digits, as most writers have it.
#[inline(always)]
fn split_nanos(digits: &[u8]) -> Option<(i64, &[u8])> {
    let (eight, rest) = digits.split_first_chunk::<8>()?;
    let (last @ b'0'..=b'9', rest) = rest.split_first()? else { return None };
    if rest.first().is_some_and(u8::is_ascii_digit) {
        return None;
    }
    let eight = eight_digits(u64::from_le_bytes(*eight))?;
    Some((i64::from(eight) * 10 + i64::from(last - b'0'), rest))
}

/// How far local time is ahead of UTC, in seconds.
fn parse_zone(zone: &[u8]) -> Option<i64> {
    let zone = zone.strip_prefix(b" ").unwrap_or(zone);
    let (sign, digits) = match zone {
        [] | [b'Z' | b'z'] => return Some(0),
        [b'+', digits @ ..] => (1, digits),
        [b'-', digits @ ..] => (-1, digits),
        _ => return None,
    };
    let minutes_at = match digits {
        [_, _] => None,
        [_, _, _, _] => Some(2),
        [_, _, b':', _, _] => Some(3),
        _ => return None,
    };
    let hours = two_digits(digits, 0)?;
    let minutes = match minutes_at {
        Some(at) => two_digits(digits, at)?,
        None => 0,
    };
    if hours > 23 || minutes > 59 {
        return None;
    }
    Some(sign * i64::from(hours * 3600 + minutes * 60))
}

/// Seconds, ms, us or ns by magnitude (EB 3.2).
fn parse_number(raw: &[u8]) -> Option<UnixNanos> {
    let number = Decimal::parse(raw)?;
    if number.is_negative() {
        return None;
    }
    let nanos = i64::try_from(number.scaled(shift_of(&number))?).ok()?;
    at(nanos / NANOS_PER_SECOND, nanos % NANOS_PER_SECOND)
}

/// By which power of ten a number is in nanoseconds. (A number below 10^n has at most n digits before its point.)
fn shift_of(number: &Decimal<'_>) -> i64 {
    match number.whole_digits() {
        ..=11 => 9,
        12..=14 => 6,
        15..=17 => 3,
        _ => 0,
    }
}

fn at(seconds: i64, nanos: i64) -> Option<UnixNanos> {
    seconds.checked_mul(NANOS_PER_SECOND).and_then(|whole| in_range(UnixNanos(whole + nanos)))
}

/// A time of the years that are taken.
pub(crate) fn in_range(time: UnixNanos) -> Option<UnixNanos> {
    (FIRST_SECOND * NANOS_PER_SECOND..END_SECOND * NANOS_PER_SECOND).contains(&time.0).then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::NANOS_PER_DAY;
    use proptest::prelude::*;

    /// Reads `raw` with a fresh parser, and twice with one that has just read another second.
    #[track_caller]
    fn check(raw: &str, kind: Kind, want: Option<&str>) {
        let got = TimeParser::new().parse(raw.as_bytes(), kind);
        assert_eq!(got.map(UnixNanos::rfc3339).as_deref(), want, "{raw:?}");
        let mut used = TimeParser::new();
        used.parse(b"2026-01-01T00:00:00Z", Kind::Text);
        assert_eq!(used.parse(raw.as_bytes(), kind), got, "{raw:?} after another");
        assert_eq!(used.parse(raw.as_bytes(), kind), got, "{raw:?} again");
    }

    #[test]
    fn stamps_read_in_every_spelling() {
        for raw in [
            "2024-01-02T03:04:05Z",
            "2024-01-02t03:04:05z",
            "2024-01-02 03:04:05",
            "2024-01-02T03:04:05+00:00",
            "2024-01-02T03:04:05.000+0000",
            "2024-01-02T03:04:05,0Z",
            "2024-01-02T03:04:05.Z",
            "2024-01-02T04:04:05+01",
            "2024-01-02T08:34:05+0530",
            "2024-01-02 08:34:05 +05:30",
            "2024-01-01T23:04:05-04:00",
            "2024-01-02T03:04:05-00:00",
            " 2024-01-02T03:04:05Z ",
        ] {
            check(raw, Kind::Text, Some("2024-01-02T03:04:05Z"));
        }
        check("2024-01-02T03:04:05.1Z", Kind::Text, Some("2024-01-02T03:04:05.100Z"));
        check("2024-01-02T03:04:05.123456789123Z", Kind::Text, Some("2024-01-02T03:04:05.123456789Z"));
        check(r"2024-01-02T03:04:05.5\u002b00:00", Kind::Escaped, Some("2024-01-02T03:04:05.500Z"));
    }

    #[test]
    fn a_time_after_2100_is_told_from_no_time() {
        for (raw, kind, want) in [
            ("2999-01-01T00:00:00Z", Kind::Text, true),
            ("2101-01-01T00:00:00+00:00", Kind::Text, true),
            ("2101-01-01T00:00:00+01:00", Kind::Text, false),
            ("2999-01-01 00:00:00.5", Kind::Text, true),
            (r"2999-01-01T00:00:00\u002b00:00", Kind::Escaped, true),
            ("2999-13-01T00:00:00Z", Kind::Text, false),
            ("2026-01-01T00:00:00Z", Kind::Text, false),
            ("1899-01-01T00:00:00Z", Kind::Text, false),
            ("32472144000", Kind::Number, true),
            ("32472144000.25", Kind::Number, true),
            ("32472144000000", Kind::Text, true),
            ("32472144000000000", Kind::Number, true),
            ("32472144000000000000", Kind::Number, true),
            ("1e40", Kind::Number, true),
            ("1790934600", Kind::Number, false),
            ("7", Kind::Number, false),
            ("-32472144000", Kind::Number, false),
            ("soon", Kind::Text, false),
            ("true", Kind::True, false),
        ] {
            assert_eq!(TimeParser::is_beyond(raw.as_bytes(), kind), want, "{raw}");
        }
    }

    #[test]
    fn the_calendar_is_exact() {
        check("2024-02-29T00:00:00Z", Kind::Text, Some("2024-02-29T00:00:00Z"));
        check("2000-02-29T00:00:00Z", Kind::Text, Some("2000-02-29T00:00:00Z"));
        check("2016-12-31T23:59:60Z", Kind::Text, Some("2016-12-31T23:59:59.999999999Z"));
        check("2016-12-31T18:59:60.5-05:00", Kind::Text, Some("2016-12-31T23:59:59.999999999Z"));
        check("2017-01-01T05:29:60+05:30", Kind::Text, Some("2016-12-31T23:59:59.999999999Z"));
        for raw in [
            "2023-02-29T00:00:00Z",
            "2100-02-29T00:00:00Z",
            "2024-02-30T00:00:00Z",
            "2024-04-31T00:00:00Z",
            "2024-00-01T00:00:00Z",
            "2024-13-01T00:00:00Z",
            "2024-01-00T00:00:00Z",
            "2024-01-01T24:00:00Z",
            "2024-01-01T00:60:00Z",
            "2024-01-01T00:00:61Z",
            "2024-01-01T12:34:60Z",
            "2024-01-01T00:00:00+24:00",
            "2024-01-01T00:00:00+01:60",
        ] {
            check(raw, Kind::Text, None);
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for raw in [
            "",
            "NaN",
            "now",
            "2024-01-02",
            "2024-01-02T03:04",
            "2024-01-02T03:04:05X",
            "2024-01-02T03:04:05ZZ",
            "2024-01-02T03:04:05+1",
            "2024-01-02T03:04:05+1:00",
            "2024-01-02T03:04:05+01:0",
            "2024-01-02T03:04:05+01:000",
            "2024-01-02T03:04:05  Z",
            "2024/01/02T03:04:05Z",
            "2024-1-02T03:04:05ZZ",
            "2024-01-02_03:04:05Z",
            "+024-01-02T03:04:05Z",
            "2024-01-02T03:04:05.-1Z",
            "1700000000s",
            "+1700000000",
            "0x6553f100",
        ] {
            check(raw, Kind::Text, None);
        }
        check("2024-01-02T03:04:05Z", Kind::Object, None);
        check("null", Kind::Null, None);
        check(&r"\u0020".repeat(100), Kind::Escaped, None);
    }

    #[test]
    fn numbers_take_their_unit_from_their_size() {
        for kind in [Kind::Number, Kind::Text] {
            check("1700000000.123456", kind, Some("2023-11-14T22:13:20.123456Z"));
            check("1700000000123", kind, Some("2023-11-14T22:13:20.123Z"));
            check("1700000000123456", kind, Some("2023-11-14T22:13:20.123456Z"));
            check("1700000000123456789", kind, Some("2023-11-14T22:13:20.123456789Z"));
            check("1700000000", kind, Some("2023-11-14T22:13:20Z"));
            check("1700000000123.4567", kind, Some("2023-11-14T22:13:20.123456700Z"));
            check("1.700000000123E9", kind, Some("2023-11-14T22:13:20.123Z"));
            check("1700000000.1234567891", kind, Some("2023-11-14T22:13:20.123456789Z"));
            for raw in [
                "-1",
                "-1700000000",
                "0",
                "1",
                "1e400",
                "1e-400",
                "99999999999",
                "100000000000",
                "18446744073709551615",
                "99999999999999999999999",
            ] {
                check(raw, kind, None);
            }
        }
    }

    #[test]
    fn only_the_years_1990_to_2100_are_taken() {
        check("1990-01-01T00:00:00Z", Kind::Text, Some("1990-01-01T00:00:00Z"));
        check("1989-12-31T23:59:59.999Z", Kind::Text, None);
        check("1990-01-01T00:00:00+00:01", Kind::Text, None);
        check("2100-12-31T23:59:59.999999999Z", Kind::Text, Some("2100-12-31T23:59:59.999999999Z"));
        check("2101-01-01T00:00:00Z", Kind::Text, None);
        check("2100-12-31T23:59:59-00:01", Kind::Text, None);
        check("0000-01-01T00:00:00Z", Kind::Text, None);
        check("9999-12-31T23:59:59Z", Kind::Text, None);
        check("631152000", Kind::Number, Some("1990-01-01T00:00:00Z"));
        check("631151999.999", Kind::Number, None);
        check("631151999999", Kind::Number, None);
        check("4133980799999", Kind::Number, Some("2100-12-31T23:59:59.999Z"));
        check("4133980800", Kind::Number, None);
    }

    #[test]
    fn every_day_reads_back_as_written() {
        let mut parser = TimeParser::new();
        for day in FIRST_SECOND / 86_400..END_SECOND / 86_400 {
            let time = UnixNanos(day * NANOS_PER_DAY + day * 3);
            assert_eq!(parser.parse(time.rfc3339().as_bytes(), Kind::Text), Some(time));
        }
    }

    proptest! {
        #[test]
        fn the_cache_never_shows(seconds in proptest::collection::vec(FIRST_SECOND + 90_000..END_SECOND - 90_000, 1..4), picks in proptest::collection::vec((0usize..4, 0i64..1_000_000_000, -1439i64..1440), 1..20)) {
            let mut parser = TimeParser::new();
            for (pick, nanos, ahead_minutes) in picks {
                let time = UnixNanos(seconds[pick % seconds.len()] * NANOS_PER_SECOND + nanos);
                let local = UnixNanos(time.0 + ahead_minutes * 60 * NANOS_PER_SECOND).rfc3339().replace('Z', "");
                let sign = if ahead_minutes < 0 { '-' } else { '+' };
                let text = format!("{local}{sign}{:02}:{:02}", ahead_minutes.abs() / 60, ahead_minutes.abs() % 60);
                prop_assert_eq!(parser.parse(text.as_bytes(), Kind::Text), Some(time), "{}", text);
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(raw in proptest::collection::vec(proptest::sample::select(b"0123456789-:TZ .+e\\u".to_vec()), 0..40)) {
            let mut parser = TimeParser::new();
            for kind in [Kind::Text, Kind::Escaped, Kind::Number] {
                if let Some(time) = parser.parse(&raw, kind) {
                    prop_assert!((1990..=2100).contains(&time.civil().year));
                }
            }
        }
    }
}
